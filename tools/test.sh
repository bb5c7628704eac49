#!/usr/bin/env bash
# Packages, model, build and all tests. Extra arguments go to ctest (-L unit, -R gguf, ...).
set -euo pipefail
cd "$(dirname "$0")/.."
tools/setup.sh test
tools/setup.sh model > /dev/null
cmake --preset release -G Ninja -DNT_TESTS=ON
cmake --build build
ctest --test-dir build --output-on-failure "$@"
