#!/bin/bash
# run.sh - serves the bundled model on PORT (8000), shows one streamed answer, serves until Ctrl-C.
#
# Needs build/cminfer and curl, nothing else: JSON is read with bash's own pattern matching, which
# is enough for the chunks that this server sends. With ASK_ONCE=1 it stops after the answer.
set -u
cd "$(dirname "$0")/.."

port=${PORT:-8000}
model=models/matrix-tiny
question='What is 457 + 825?'
ready_deadline_s=60
answer_deadline_s=60
url=http://127.0.0.1:$port
server_pid=
# The server's own lines wait here until the answer has been shown, so that they do not mix.
server_log=$(mktemp)
trap 'rm -f "$server_log"' EXIT

fail() {
    cat "$server_log" >&2
    echo "run: $*" >&2
    exit 1
}

# Prints "NAME (process N)" for whoever listens on the port, from /proc alone.
port_holder() {
    local hex inode uid fd pid
    hex=$(printf '%04X' "$port")
    read -r uid inode < <(awk -v port=":$hex" \
        '$4 == "0A" && substr($2, length($2) - 4) == port { print $8, $10; exit }' \
        /proc/net/tcp /proc/net/tcp6 2>/dev/null)
    if [ -z "${inode:-}" ]; then
        return
    fi
    for fd in /proc/[0-9]*/fd/*; do
        if [ "$(readlink "$fd" 2>/dev/null)" = "socket:[$inode]" ]; then
            pid=${fd#/proc/}
            pid=${pid%%/*}
            echo "$(tr '\0' ' ' <"/proc/$pid/cmdline" | cut -c 1-100)(process $pid)"
            return
        fi
    done
    echo "a process of user $(id -un "$uid" 2>/dev/null || echo "$uid"), unseen from here"
}

check_port() {
    local holder
    if ! [[ $port =~ ^[1-9][0-9]{0,4}$ ]] || ((port > 65535)); then
        fail "PORT=$port is no port number"
    fi
    holder=$(port_holder)
    if [ -n "$holder" ]; then
        fail "port $port is taken by $holder; choose another: make run PORT=$((port % 65535 + 1))"
    fi
}

stop_server() {
    trap - EXIT INT TERM HUP
    rm -f "$server_log"
    if [ -n "$server_pid" ] && kill -TERM "$server_pid" 2>/dev/null; then
        wait "$server_pid"
    fi
}

# In its own process group, so that Ctrl-C reaches it once, as the TERM of stop_server.
start_server() {
    set -m
    build/cminfer serve "$model" --port "$port" 2>"$server_log" &
    server_pid=$!
    set +m
    trap 'stop_server' EXIT
    trap 'echo; echo "run: stopping"; stop_server; exit 0' INT TERM HUP
}

wait_until_ready() {
    local deadline=$((SECONDS + ready_deadline_s))
    until curl -s -f -o /dev/null --max-time 2 "$url/readiness"; do
        kill -0 "$server_pid" 2>/dev/null || fail "the server ended before it was ready"
        ((SECONDS < deadline)) || fail "the server was not ready after $ready_deadline_s s"
        sleep 0.1
    done
}

# The text of a JSON string, for the escapes that JSON has and printf knows too.
unescape_json() { # STRING
    local s=${1//\\\//\/}
    printf '%b' "${s//\\\"/\"}"
}

json_field() { # NAME LINE: sets $field to the string's content, still escaped
    local pattern="\"$1\": ?\"(([^\"\\\\]|\\\\.)*)\""
    field=
    [[ $2 =~ $pattern ]] && field=${BASH_REMATCH[1]}
    [ -n "$field" ]
}

request_body() {
    printf '{"model": "matrix-tiny", "stream": true, "temperature": 0, "max_tokens": 400, '
    printf '"messages": [{"role": "user", "content": "%s"}]}' "$question"
}

show_answer() {
    local line field part= finished=false
    echo
    echo "You:      $question"
    while IFS= read -r line; do
        if json_field reasoning_content "$line"; then
            [ "$part" = thinking ] || printf 'Thinking: '
            part=thinking
            unescape_json "$field"
        fi
        if json_field content "$line"; then
            [ "$part" = answer ] || printf '%s' "${part:+$'\n'}cminfer:  "
            part=answer
            unescape_json "$field"
        fi
        case $line in
        'data: [DONE]'*) finished=true ;;
        *'"error"'*) echo "$line" ;;
        esac
    done < <(curl -s -S -N --max-time "$answer_deadline_s" "$url/v1/chat/completions" \
        -H 'Content-Type: application/json' -d "$(request_body)" 2>&1)
    echo
    $finished && [ "$part" = answer ] || fail "the server gave no whole answer"
}

show_address() {
    cat <<END

cminfer serves $model at $url. Try:

  curl -N $url/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{"model": "matrix-tiny", "stream": true,
         "messages": [{"role": "user", "content": "What is 205-42?"}]}'

Ctrl-C stops it.
END
}

check_port
start_server
wait_until_ready
show_answer
if [ "${ASK_ONCE:-}" = 1 ]; then
    exit 0
fi
show_address
tail -n +1 -f --pid="$server_pid" "$server_log" >&2 &
wait "$server_pid"
status=$?
server_pid=
fail "the server ended (status $status)"
