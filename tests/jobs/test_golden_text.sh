#!/usr/bin/env bash
# The real model's texts: `generate` against greedy answers of transformers in float32 and against llama.cpp's log-probs
# (tests/golden/greedy.json, llama.json; golden_text.py has the bounds). Skipped without the model or h5py.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/generate.sh"
NT_TIMEOUT=600
cd "$WORK" || exit 1

MODEL=${NOCTURNE_CACHE:-$HOME/.cache/nocturne}/SmolLM2-135M-Instruct.Q4_1.gguf INPUT=in.jsonl
[ -f "$MODEL" ] || skip "no $MODEL; tools/setup.sh model fetches it"
for python in ${NT_TEST_PYTHON:-} python3 /usr/bin/python3 none; do
    "$python" -c 'import h5py' 2> /dev/null && break
done
[ "$python" != none ] || skip "no h5py; tools/setup.sh test installs it"
sha256=$(sed -n 's/^sha256=//p' "$SOURCE/tools/setup.sh")
check "$MODEL is not the file that the references were made from" \
    sh -c 'echo "$1  $2" | sha256sum --check --status' - "$sha256" "$MODEL"

golden=$SOURCE/tests/golden
judge() { local what=$1; shift; "$python" "$SOURCE/tests/jobs/golden_text.py" "$what" "$golden/greedy.json" "$golden/llama.json" "$@"; }
jobs=()
while judge rows "${jobs[@]}" > in.jsonl || fail "no rows"; [ -s in.jsonl ]; do
    [ ${#jobs[@]} -lt 20 ] || fail "answers still leave float32's after 20 jobs"
    out=job${#jobs[@]}
    expect_rc 0 generate "$out"
    check "$out/errors.jsonl is not empty" test ! -s "$out/errors.jsonl"
    jobs+=("$out/results.h5")
done
check "texts or log-probs are not what they should be" judge check "${jobs[@]}"
