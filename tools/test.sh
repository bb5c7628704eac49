#!/usr/bin/env bash
# Packages, model, build and all tests. Extra arguments go to the last ctest (-L unit, -R gguf, ...) and skip the sanitizer builds.
# The CUDA backend is built and run on an emulated GPU: an nvcc that is missing is fetched, and it is an error if that fails.
# NT_CUDA=OFF tools/test.sh leaves the backend out. The longer tier: tools/test.sh -C long -L cuda_long.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/setup.sh test
tools/setup.sh model > /dev/null
if [ "${NT_CUDA:-ON}" = OFF ]; then
    cuda=(-DNT_CUDA=OFF)
else
    nvcc=$(tools/setup.sh cuda)
    cuda=(-UNT_CUDA_INCLUDE -DNT_CUDA=ON -DNT_NVCC="$nvcc")
    ! cutlass=$(tools/setup.sh cutlass) || cuda+=(-DNT_CUTLASS_INCLUDE="$cutlass")
fi

# step NAME COMMAND...: one line; the output only when it fails
step() {
    local name=$1 log; shift
    log=$(mktemp)
    echo "test: $name"
    "$@" > "$log" 2>&1 || { cat "$log"; exit 1; }
    rm -f "$log"
}

jobs=$(nproc)
release=(cmake --preset release -G Ninja -DNT_TESTS=ON "${cuda[@]}")
slow="attention|gemm|rope_kv|logit_topk|logit_sample" # minutes each where the emulator itself is checked by the sanitizers

if [ $# -eq 0 ]; then
    step "fuzz targets, clang, address and undefined behaviour sanitizers: build" \
        sh -c 'cmake --preset fuzz -G Ninja && cmake --build --preset fuzz'
    step "fuzz targets: short runs" ctest --test-dir build-fuzz -L fuzz -j "$jobs" --output-on-failure
    if [ "${NT_CUDA:-ON}" != OFF ]; then # compiled once, for both builds
        step "kernels" sh -c '"$@" && cmake --build --preset release --target nt_cuda_ptx' sh "${release[@]}"
        cuda+=("-DNT_CUDA_FROM=$PWD/build/cuda")
    fi
    step "sanitizer build" sh -c 'cmake --preset asan -G Ninja "$@" && cmake --build --preset asan' sh "${cuda[@]}"
    step "sanitizers: unit, ops, fault, fuzz replay" \
        ctest --test-dir build-asan -L "unit|ops|fault|fuzz" -E "^ops/cuda/($slow)" -j "$jobs" --output-on-failure
fi
step "release build" sh -c '"$@" && cmake --build --preset release' sh "${release[@]}"
ctest --test-dir build -j "$jobs" --output-on-failure "$@"
