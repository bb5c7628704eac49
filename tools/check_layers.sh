#!/bin/bash
# House check: the include graph against the table of layers.sh, and every foreign library behind its one file.
# Prints file:line and the rule that is broken, exits 1 on a finding.
. "$(dirname "$0")/layers.sh"

# Foreign header (prefix) -> files or folders that may include it.
declare -A foreign=(
    [mpi.h]="src/comm/comm_mpi.c src/main.c"
    [jansson.h]="src/core/json.c"
    [libconfig.h]="src/core/config_file.c"
    [openssl/]="src/core/hash.c"
    [xxhash.h]="src/core/hash.c"
    [hdf5]="src/io/"
    [zlib.h]="src/io/"
    [zstd.h]="src/io/"
    [pcre2.h]="src/text/"
    [utf8proc.h]="src/text/"
    [immintrin.h]="kernels/"
    [cpuid.h]="kernels/"
    [numa]="src/core/pool.c"
    [hwloc]="src/core/pool.c"
    [cuda.h]="src/core/gpu_api.h"
    [cublasLt.h]="src/core/gpu_abi.c"
    [nccl.h]="src/core/gpu_abi.c"
)
# Of these only one file of the folder may do so.
in_one_file="hdf5 zlib.h zstd.h"

failed=0
complain() { # sentence
    echo "$1" >&2
    failed=1
}

declare -A folder_of
for layer in "${!may_include[@]}"; do
    for path in "$layer"/*.h "$layer"/*.def; do
        [ -e "$path" ] && folder_of[${path##*/}]=$layer
    done
done

check_own() { # file layer line name
    local owner=${folder_of[$4]:-}
    if [[ $4 == */* ]]; then
        complain "$1:$3: includes \"$4\"; include headers by their bare name, which is unique"
    elif [ -z "$owner" ]; then
        [[ " $generated_headers " == *" $4 "* ]] || complain "$1:$3: includes \"$4\", which is no header of a layer"
    elif [ "$owner" != "$2" ] && [[ " ${may_include[$2]} " != *" $owner "* ]]; then
        complain "$1:$3: $2 may not include $owner/$4; it sees: ${may_include[$2]:-nothing but itself}"
    fi
}

check_foreign() { # file line name
    local prefix place ok
    for prefix in "${!foreign[@]}"; do
        [[ $3 == "$prefix"* ]] || continue
        ok=0
        for place in ${foreign[$prefix]}; do [[ $1 == "$place"* ]] && ok=1; done
        [ $ok = 1 ] || complain "$1:$2: includes <$3>, which belongs to ${foreign[$prefix]} alone"
        [[ " $in_one_file " == *" $prefix "* ]] && echo "$1" >>"$users/${prefix%.h}"
    done
}

users=$(mktemp -d)
trap 'rm -rf "$users"' EXIT
n_files=0
for layer in "${!may_include[@]}"; do
    for file in "$layer"/*.c "$layer"/*.h "$layer"/*.def; do
        [ -e "$file" ] || continue
        n_files=$((n_files + 1))
        while IFS=: read -r line text; do
            name=${text#*[<\"]}
            name=${name%%[>\"]*}
            if [[ $text == *\"* ]]; then check_own "$file" "$layer" "$line" "$name"; else check_foreign "$file" "$line" "$name"; fi
        done < <(grep -nE '^[[:space:]]*#[[:space:]]*include' "$file")
    done
done
for list in "$users"/*; do
    [ -e "$list" ] || continue
    [ "$(sort -u "$list" | wc -l)" -le 1 ] || complain "${list##*/}.h is included by more than one file: $(sort -u "$list" | xargs)"
done
[ $n_files -gt 20 ] || complain "only $n_files files found: is this the root of the tree?"
echo "$n_files files, ${#may_include[@]} layers"
exit $failed
