#!/bin/bash
# fuzz.sh SECONDS [TARGET]... - runs the fuzz targets of build-fuzz from their committed corpus.
#
# Each runs on a copy, so the tree stays clean. A crash, a hang of 10 s, a leak or 2 GiB of memory
# ends the target; the input lies in build-fuzz/findings/TARGET/ then. After a fix, add it to
# fuzz/corpus/TARGET/. Exit status 1 when any target failed.
set -u
cd "$(dirname "$0")/.."

seconds=${1:?usage: tools/fuzz.sh SECONDS [TARGET]...}
shift
if [ $# -eq 0 ]; then
    for program in build-fuzz/fuzz/fuzz_*; do
        [ -f "$program" ] && [ -x "$program" ] && set -- "$@" "${program##*/fuzz_}"
    done
fi
if [ $# -eq 0 ]; then
    echo "fuzz: build-fuzz holds no targets; run \"make fuzz\"" >&2
    exit 1
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

stat_of() { # NAME LOG
    sed -n "s/^stat::$1: *//p" "$2"
}

run_target() { # TARGET
    local target=$1
    local program=build-fuzz/fuzz/fuzz_$target
    local findings=build-fuzz/findings/$target
    local log=build-fuzz/fuzz_$target.log
    local dictionary=fuzz/$target.dict
    if [ ! -x "$program" ] || [ -z "$(ls "fuzz/corpus/$target" 2>/dev/null)" ]; then
        echo "fuzz $target: FAILED: no program $program or no corpus fuzz/corpus/$target"
        return 1
    fi
    mkdir -p "$scratch/$target" "$findings"
    cp -r "fuzz/corpus/$target/." "$scratch/$target"
    # The longest input is that of the corpus, but at least 4096 bytes: libFuzzer's own rule.
    if "$program" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
        -print_final_stats=1 -artifact_prefix="$findings/" \
        ${dictionary:+$([ -f "$dictionary" ] && echo "-dict=$dictionary")} \
        "$scratch/$target" >"$log" 2>&1; then
        echo "fuzz $target: $(stat_of number_of_executed_units "$log") runs in $seconds s," \
            "$(stat_of new_units_added "$log") new inputs," \
            "$(stat_of peak_rss_mb "$log") MB at most"
    else
        tail -n 60 "$log"
        echo "fuzz $target: FAILED; replay with: $program $findings/FILE; the whole log: $log"
        return 1
    fi
}

failed=0
for target in "$@"; do
    run_target "$target" || failed=1
done
exit $failed
