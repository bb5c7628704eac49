#!/usr/bin/env bash
# Rewrites tests/gpuemu/budgets.txt (registers) and counts.txt (traffic, instructions) from a build, after a change of
# the kernels that is meant: look at the difference before it is committed.
#   tools/update_gpu_numbers.sh [BUILD_DIR]      default: build
set -euo pipefail
build=$(realpath "${1:-build}")
cd "$(dirname "$0")/.."
cmake --build "$build" --target nt_cuda_ptx test_ops cuda_emu
export PYTHONDONTWRITEBYTECODE=1
python3 tests/gpuemu/budgets.py write "$build/cuda"
python3 tests/gpuemu/counts.py write "$build/tests/ops/test_ops" "$build/tests/gpuemu/libcuda_emu.so" "$build/cuda"
