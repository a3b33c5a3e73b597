#!/bin/bash
# bare_debian_test.sh [run|test|arm64|ci]... - proves "make run", "make test" and "make arm64" as
# the first command of a clone on a bare Debian (SUITE, bookworm), each in a chroot of its own that
# holds make and nothing else of use; ci is .ci/run. Tests the last commit. By hand: needs root,
# debootstrap, the network and minutes.
#
# The mirror, proxies and certificates are those of this host. Everything lies in one scratch folder
# below TMPDIR, and mounts and processes live in namespaces of their own: both go when it ends.
set -eu
cd "$(dirname "$0")/.."

suite=${SUITE:-bookworm}
port=${PORT:-18000}
[ $# -gt 0 ] || set -- run test

if [ "$(id -u)" != 0 ]; then
    echo "bare_debian_test: needs root for debootstrap and chroot" >&2
    exit 1
fi
scratch=$(mktemp -d "${TMPDIR:-/tmp}/cminfer-bare.XXXXXX")
trap 'rm -rf --one-file-system "$scratch"' EXIT

host_mirror() {
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list \
        2>/dev/null | grep -v '^#' | grep -o '[a-z]*://[^ ]*debian[^ ]*' | head -n 1
}

make_base() {
    local mirror
    mirror=$(host_mirror)
    echo "== debootstrap $suite"
    if ! debootstrap --variant=minbase --include=make "$suite" "$scratch/base" \
        ${mirror:+"$mirror"} >"$scratch/debootstrap.log" 2>&1; then
        tail -n 20 "$scratch/debootstrap.log" >&2
        exit 1
    fi
    cp /etc/resolv.conf /etc/hosts "$scratch/base/etc/"
    apt-config dump Acquire >"$scratch/base/etc/apt/apt.conf.d/99host"
    cp /etc/ssl/certs/ca-certificates.crt "$scratch/base/srv/host-certificates.crt"
    git clone -q . "$scratch/base/srv/cminfer"
}

# A shell in a copy of the base, as PID 1 of its namespace: what it leaves running dies with it.
in_bare_root() { # NAME COMMAND
    local root=$scratch/$1
    [ -d "$root" ] || cp -a "$scratch/base" "$root"
    unshare --mount --pid --fork --kill-child --mount-proc="$root/proc" \
        chroot "$root" /usr/bin/env -i HOME=/root LANG=C.UTF-8 TERM=dumb \
        PATH=/usr/sbin:/usr/bin:/sbin:/bin NODE_EXTRA_CA_CERTS=/srv/host-certificates.crt \
        PORT="$port" bash -c "cd /srv/cminfer && $2"
}

# Ctrl-C as a terminal sends it: to the whole process group, once the address is shown.
run_until_answered='
    set -m
    make run >run.log 2>&1 &
    job=$!
    set +m
    tail --pid=$job -n +1 -f run.log &
    until grep -q "Ctrl-C stops it" run.log || ! kill -0 $job 2>/dev/null; do sleep 0.2; done
    kill -INT -- -$job 2>/dev/null
    wait $job
    for process in /proc/[0-9]*/exe; do
        [ "$(readlink $process)" != $PWD/build/cminfer ] || { echo "left running"; exit 1; }
    done
    grep -q "^cminfer: .*1282" run.log'

failed=0
make_base
for target; do
    case $target in
    run) first=$run_until_answered again=$run_until_answered ;;
    test) first='make test' again='make test TEST_ARGS="--suite unit"' ;;
    arm64) first='make arm64' again='make arm64 TEST_ARGS="--suite kernels"' ;;
    ci) first=.ci/run again= ;;
    *) echo "usage: tools/bare_debian_test.sh [run|test|arm64|ci]..." >&2; exit 2 ;;
    esac
    for round in first ${again:+again}; do
        start=$SECONDS
        echo "== $target, $round"
        in_bare_root "$target" "${!round}" && result=passed || { result=FAILED; failed=1; }
        echo "== $target, $round: $result after $((SECONDS - start)) s"
    done
done
exit $failed
