#!/usr/bin/env bash
# A row's answer does not depend on batch size, step size, threads, data-parallel ranks or a restart; nor, for greedy rows, on tp.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/generate.sh"
cd "$WORK" || exit 1

tiny model --family smollm2 --layers 3
MODEL=model INPUT=in.jsonl
python3 "$SOURCE/tests/jobs/prompts.py" 60 > in.jsonl

expect_rc 0 generate base --threads 1
check "COMPLETE is missing" test -f base/COMPLETE
check "61 rows" test "$(wc -l < base/results.jsonl)" -eq 61
check "one error" test "$(wc -l < base/errors.jsonl)" -eq 1
check "the error names its line" grep -q 'line 12' base/errors.jsonl

expect_rc 0 generate batch1 --threads 1 --max-num-seqs 1
same base batch1
expect_rc 0 generate batch7 --threads 2 --max-num-seqs 7 --max-num-batched-tokens 33
same base batch7
expect_rc 0 generate threads2 --threads 2 --max-num-batched-tokens 200
same base threads2
expect_rc 0 ranks 2 dp2
same base dp2
expect_rc 0 ranks 3 dp3 --max-num-seqs 4
same base dp3

for isa in portable avx2; do
    "$NOCTURNE" doctor --isa $isa > /dev/null 2>&1 || { echo "isa $isa: not on this machine"; continue; }
    expect_rc 0 generate $isa --isa $isa --threads 2
    expect_rc 0 generate $isa-1 --isa $isa --threads 1 --max-num-seqs 1
    same $isa $isa-1
done

# greedy texts are the same under tensor parallelism; uneven heads (9 over 3 KV heads, tp 2 and 3)
python3 - > greedy.jsonl << 'EOF'
import json
for i in range(24):
    print(json.dumps({"prompt": f"night {i} " * (1 + i), "temperature": 0, "max_tokens": 12}))
EOF
INPUT=greedy.jsonl
expect_rc 0 generate tp1 --threads 1
for tp in 2 3; do
    expect_rc 0 ranks $tp tp$tp --tp $tp
    check "tp $tp changes greedy texts" python3 "$SOURCE/tests/jobs/same_greedy.py" tp1/results.jsonl tp$tp/results.jsonl
done
expect_rc 0 ranks 4 tp2dp2 --tp 2
cmp tp2/results.jsonl tp2dp2/results.jsonl || fail "dp 2 changes the bytes under tp 2"
echo "answers are the same"
