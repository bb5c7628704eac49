#!/bin/bash
# shellcheck disable=SC2034 # the scripts that source this file use the variables
# The layers of the tree, for check_headers.sh and check_layers.sh: who may include whom. Sourced by bash scripts.
# A layer is a folder; a file sees its own folder and the folders listed here. Siblings do not see each other.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

declare -A may_include=(
    [src/core]=""
    [kernels]="src/core"
    [src/io]="src/core"
    [src/comm]="src/core"
    [src/text]="src/core"
    [src/corpus]="src/core src/io src/text"
    [src/model]="src/core src/io src/comm kernels"
    [src/infer]="src/core src/io src/comm src/text kernels src/corpus src/model"
    [src/train]="src/core src/io src/comm src/text kernels src/corpus src/model"
    [src/publish]="src/core src/io src/comm src/text kernels src/corpus src/model"
    [src/cmd]="src/core src/io src/comm src/text kernels src/corpus src/model src/infer src/train src/publish"
    [src]="src/core src/io src/comm src/text kernels src/corpus src/model src/infer src/train src/publish src/cmd"
)

# Headers that CMake writes into the build folder.
generated_headers="version.h"
