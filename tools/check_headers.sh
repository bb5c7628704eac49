#!/bin/bash
# House check: each header of src/ and kernels/ compiles alone and twice, seeing only the layers below it, and opens with a
# comment of at least 5 lines (what it owns, lifetime, threading, errors, sources). Exits 1 on a finding.
. "$(dirname "$0")/layers.sh"

cc=${CC:-cc}
foreign_flags=$(pkg-config --cflags libpcre2-8 libutf8proc 2>/dev/null)
failed=0
n_headers=0
unit=$(mktemp --suffix=.c)
trap 'rm -f "$unit" "$unit.log"' EXIT

for layer in "${!may_include[@]}"; do
    flags="-I$layer"
    for lower in ${may_include[$layer]}; do flags+=" -I$lower"; done
    for header in "$layer"/*.h; do
        [ -e "$header" ] || continue
        n_headers=$((n_headers + 1))
        name=${header##*/}
        comment=$(awk 'NR == 1 && !/^\/\*/ {print 0; exit} /\*\// {print NR; exit}' "$header")
        if [ "${comment:-0}" -lt 5 ]; then
            echo "$header: opens with a comment of ${comment:-0} lines, expected at least 5 (style: one header, one module)" >&2
            failed=1
        fi
        printf '#include "%s"\n#include "%s"\n' "$name" "$name" >"$unit"
        # shellcheck disable=SC2086 # the flags are words
        if ! $cc -std=gnu17 -D_GNU_SOURCE -Wall -Wextra -Wno-unused-function -Werror -fsyntax-only $flags $foreign_flags \
            "$unit" 2>"$unit.log"; then
            echo "$header: does not compile alone:" >&2
            head -5 "$unit.log" >&2
            failed=1
        fi
    done
done
if [ $n_headers -lt 10 ]; then
    echo "only $n_headers headers found: is this the root of the tree?" >&2
    failed=1
fi
echo "$n_headers headers"
exit $failed
