#!/bin/sh
# setup.sh [--check] run|test|arm64|dev - installs the packages of a set that this machine lacks.
#
#   run    what `make` and `make run` need
#   test   run, and what `make test` and the gcc sanitizers need, with the Node packages of
#          tests/node
#   arm64  test, and the cross compiler for Arm, with the Arm libraries in a folder of their own
#          (tools/arm64_sysroot.sh)
#   dev    test, and clang, the fuzzer, the formatter, oneDNN and ucx_perftest to compare with, the
#          cross compiler
#
# Each need is probed by what is used of it (a command, a pkg-config module, a file) and not by its
# package's name: a compiler or a Node from elsewhere will do. Nothing is asked of root, and no
# network is touched, when nothing is missing. --check installs nothing and fails when something is
# missing. Debian and Ubuntu; elsewhere the missing packages are named.
set -eu
cd "$(dirname "$0")/.."

check_only=false
check_option=
if [ "${1:-}" = --check ]; then
    check_only=true
    check_option=--check
    shift
fi
set_name=${1:-}
missing=

need_command() { # COMMAND PACKAGE...
    command -v "$1" >/dev/null 2>&1 && return
    shift
    missing="$missing $*"
}

need_module() { # PKG_CONFIG_MODULE PACKAGE
    pkg-config --exists "$1" 2>/dev/null || missing="$missing $2"
}

need_header() { # HEADER PACKAGE
    printf '#include <%s>\n' "$1" | cc -E - >/dev/null 2>&1 || missing="$missing $2"
}

need_run_set() {
    need_command cc gcc libc6-dev
    need_command meson meson
    need_command ninja ninja-build
    need_command pkg-config pkg-config
    need_command curl curl ca-certificates
    pkg-config --exists \
        jansson libmicrohttpd libpcre2-8 libedit hwloc libsodium yaml-0.1 ucx 2>/dev/null && return
    need_module jansson libjansson-dev
    need_module libmicrohttpd libmicrohttpd-dev
    need_module libpcre2-8 libpcre2-dev
    need_module libedit libedit-dev
    need_module yaml-0.1 libyaml-dev
    need_module hwloc libhwloc-dev
    need_module libsodium libsodium-dev
    need_module ucx libucx-dev
}

need_test_set() {
    need_run_set
    need_command git git
    need_command python3 python3
    need_command node nodejs
    need_command npm npm
    need_command openssl openssl
    need_command qemu-x86_64 qemu-user
    need_module cmocka libcmocka-dev
}

need_cross_compiler() {
    [ "$(uname -m)" != aarch64 ] || return 0 # the compiler is
    need_command aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu libc6-dev-arm64-cross
    need_command qemu-aarch64 qemu-user
}

need_arm64_set() {
    if [ "$(uname -m)" = aarch64 ]; then
        echo "setup: this machine is Arm: nothing to cross-compile, \"make test\" tests it" >&2
        exit 1
    fi
    need_test_set
    need_cross_compiler
}

need_dev_set() {
    need_test_set
    need_cross_compiler
    need_header dnnl.h libdnnl-dev
    need_command clang clang
    need_command clang-format clang-format
    need_command llvm-symbolizer llvm
    need_command ip iproute2
    need_command ucx_perftest ucx-utils
    if ! [ -f "$(clang --print-file-name="libclang_rt.fuzzer-$(uname -m).a" 2>/dev/null)" ]; then
        missing="$missing libclang-rt-dev"
    fi
}

install_missing() {
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "setup: this is neither Debian nor Ubuntu: please install what these Debian packages" \
            "hold, then try again:$missing" >&2
        exit 1
    fi
    as_root=
    if [ "$(id -u)" != 0 ]; then
        as_root=sudo
        if ! command -v sudo >/dev/null 2>&1; then
            echo "setup: please run as root: apt-get install$missing" >&2
            exit 1
        fi
    fi
    echo "setup: installing Debian packages (apt-get${as_root:+, through sudo}):$missing"
    if ! $as_root apt-get -q update; then
        echo "setup: the package lists could not be refreshed; going on with the old ones" >&2
    fi
    # shellcheck disable=SC2086 # a list of words
    if ! $as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -q install -y --no-install-recommends $missing; then
        echo "setup: apt-get could not install:$missing" >&2
        exit 1
    fi
}

install_node_packages() {
    lock=tests/node/package-lock.json
    stamp=tests/node/node_modules/.installed
    if cmp -s "$lock" "$stamp"; then
        return
    fi
    if $check_only; then
        echo "setup: the Node packages of tests/node are missing" >&2
        exit 1
    fi
    echo "setup: installing the Node packages that the tests compare with (tests/node)"
    if ! npm ci --prefix tests/node --ignore-scripts --no-audit --no-fund --loglevel=error; then
        echo "setup: npm could not install the packages of $lock; is the network up?" >&2
        exit 1
    fi
    cp "$lock" "$stamp"
}

case $set_name in
run) need_run_set ;;
test) need_test_set ;;
arm64) need_arm64_set ;;
dev) need_dev_set ;;
*)
    echo "usage: tools/setup.sh [--check] run|test|arm64|dev" >&2
    exit 2
    ;;
esac

if [ -n "$missing" ]; then
    if $check_only; then
        echo "setup: missing Debian packages:$missing; \"make setup\" installs everything" >&2
        exit 1
    fi
    install_missing
fi
if [ "$set_name" != run ]; then
    install_node_packages
fi
if [ "$set_name" = arm64 ]; then
    tools/arm64_sysroot.sh $check_option
fi
