#!/usr/bin/env bash
# Packages, model, build and all tests. Extra arguments go to the last ctest (-L unit, -R gguf, ...) and skip the sanitizer builds.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/setup.sh test
tools/setup.sh model > /dev/null

# step NAME COMMAND...: one line; the output only when it fails
step() {
    local name=$1 log; shift
    log=$(mktemp)
    echo "test: $name"
    "$@" > "$log" 2>&1 || { cat "$log"; exit 1; }
    rm -f "$log"
}

if [ $# -eq 0 ]; then
    step "fuzz targets, clang, address and undefined behaviour sanitizers: build" \
        sh -c 'cmake --preset fuzz -G Ninja && cmake --build --preset fuzz'
    step "fuzz targets: short runs" ctest --test-dir build-fuzz -L fuzz --output-on-failure
    step "sanitizer build" sh -c 'cmake --preset asan -G Ninja && cmake --build --preset asan'
    step "sanitizers: unit, ops, fault, fuzz replay" ctest --test-dir build-asan -L "unit|ops|fault|fuzz" --output-on-failure
fi
step "release build" sh -c 'cmake --preset release -G Ninja -DNT_TESTS=ON && cmake --build --preset release'
ctest --test-dir build --output-on-failure "$@"
