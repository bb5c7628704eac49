#!/bin/bash
# House check: every C file as .clang-format writes it. Exits 77 (skipped) without clang-format 14, the version of Debian 12
# that the tree is formatted with; other versions differ in details. To repair: tools/check_format.sh --fix
cd "$(dirname "$0")/.." || exit 1

tool=
for name in clang-format-14 clang-format; do
    if command -v "$name" >/dev/null && "$name" --version | grep -q 'version 14\.'; then
        tool=$name
        break
    fi
done
if [ -z "$tool" ]; then
    echo "skipped: clang-format 14 not found (apt-get install clang-format-14)"
    exit 77
fi
mapfile -t files < <(find src kernels tests tools -name '*.[ch]' | sort)
# Of some files (tables of initializers) one pass is not the last word: repeat until nothing changes.
if [ "${1:-}" = --fix ]; then
    for _ in 1 2 3 4 5 6 7 8; do
        "$tool" -i "${files[@]}" || exit
        "$tool" --dry-run -Werror "${files[@]}" >/dev/null 2>&1 && exit
    done
    echo "no end of changes after 8 passes; see tools/check_format.sh without --fix" >&2
    exit 1
fi
# One run over all files says whether there is anything to say.
if "$tool" --dry-run -Werror "${files[@]}" >/dev/null 2>&1; then
    echo "${#files[@]} files"
    exit 0
fi
for file in "${files[@]}"; do
    "$tool" --dry-run -Werror "$file" >/dev/null 2>&1 || echo "$file: not formatted; run: $tool -i $file" >&2
done
exit 1
