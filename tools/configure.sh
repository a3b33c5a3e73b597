#!/bin/sh
# configure.sh DIR [MESON OPTION]... - configures a Meson build folder.
#
# Does nothing when DIR already has these options, so that calling it before every build is free.
set -eu

dir=$1
shift
options="${CC:-cc} $*"
if [ -f "$dir/build.ninja" ] && [ "$(cat "$dir/.options" 2>/dev/null)" = "$options" ]; then
    exit 0
fi

if [ -f "$dir/build.ninja" ]; then
    echo "configuring $dir again: $*"
    set -- --reconfigure "$@"
else
    echo "configuring $dir: $*"
fi
mkdir -p "$dir"
if ! meson setup "$dir" "$@" >"$dir/.configure.log" 2>&1; then
    cat "$dir/.configure.log" >&2
    exit 1
fi
echo "$options" >"$dir/.options"
