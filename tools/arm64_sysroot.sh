#!/bin/sh
# arm64_sysroot.sh [--check] - fills build-arm64/sysroot with the Arm libraries that a cross build
# links, and names that folder to Meson in build-arm64/sysroot.ini.
#
# The packages come from this host's own Debian mirror, with all they depend on, and are unpacked
# below the folder without being installed: apt-get keeps its lists and archives there too, so that
# no package, list or architecture of the host changes, and nobody needs to be root. Nothing is
# downloaded when the folder is complete. --check downloads nothing and fails when it is not.
set -eu
cd "$(dirname "$0")/.."

packages='libjansson-dev libmicrohttpd-dev libpcre2-dev libedit-dev libhwloc-dev libsodium-dev
libyaml-dev libucx-dev libcmocka-dev'
sysroot=$PWD/build-arm64/sysroot
apt=$PWD/build-arm64/apt
stamp=$sysroot/.installed

apt_get() { # ARGUMENT...: for arm64, in a state of its own that knows no installed package
    DEBIAN_FRONTEND=noninteractive apt-get -q \
        -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User=root \
        -o Dir::State="$apt" -o Dir::State::status="$apt/status" \
        -o Dir::Cache="$apt" -o Dir::Cache::archives="$apt/archives" \
        -o Dir::Log="$apt" -o Debug::NoLocking=1 "$@"
}

name_to_meson() {
    ini=build-arm64/sysroot.ini
    printf "[constants]\nsysroot = '%s'\n" "$sysroot" >$ini.new
    if cmp -s $ini.new $ini; then
        rm $ini.new
    else
        mv $ini.new $ini
    fi
}

if [ "$(cat "$stamp" 2>/dev/null)" = "$packages" ]; then
    name_to_meson
    exit 0
fi
if [ "${1:-}" = --check ]; then
    echo "setup: the Arm libraries in build-arm64/sysroot are missing" >&2
    exit 1
fi
echo "setup: fetching the Arm libraries into build-arm64/sysroot: $packages"
rm -rf "$apt" "$sysroot"
mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$sysroot"
: >"$apt/status"
# shellcheck disable=SC2086 # a list of words
if ! { apt_get update || true
    apt_get install -y --no-install-recommends --download-only $packages; } >"$apt/log" 2>&1; then
    cat "$apt/log" >&2
    echo "setup: the Arm libraries could not be fetched; is the network up, and has the package" \
        "mirror of this host arm64?" >&2
    exit 1
fi
for archive in "$apt"/archives/*.deb; do
    dpkg-deb -x "$archive" "$sysroot"
done
rm -rf "$apt"
name_to_meson
printf '%s\n' "$packages" >"$stamp"
