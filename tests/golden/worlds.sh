#!/bin/sh
# worlds.sh TEST_LOGITS FOLDER: the same model on worlds of different shape: every rank passes, all digests are equal.
set -eu
out=$(mktemp)
trap 'rm -f "$out"' EXIT
run() { # ranks tp
    echo "== $1 ranks, tp $2" >>"$out"
    mpirun --allow-run-as-root --oversubscribe --bind-to none -np "$1" "$test" "$folder" --tp "$2" >>"$out" 2>&1 ||
        { cat "$out"; exit 1; }
}
test=$1 folder=$2
"$test" "$folder" >"$out" 2>&1 || { cat "$out"; exit 1; }
run 2 1
run 4 2
run 3 3
cat "$out"
n=$(grep -c '^model digest' "$out")
kinds=$(grep '^model digest' "$out" | sort -u | wc -l)
[ "$n" = 10 ] || { echo "expected 10 ranks, got $n"; exit 1; }
[ "$kinds" = 1 ] || { echo "the digest depends on the world"; exit 1; }
