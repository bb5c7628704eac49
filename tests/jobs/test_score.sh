#!/usr/bin/env bash
# `nocturne score`: every kind of input, bad rows, windows, ranks, and the same number as generate gives.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/generate.sh"
cd "$WORK" || exit 1

tiny model --family qwen2 --layers 2 --pad-rows 100
score() { timeout -k 5 "$NT_TIMEOUT" "$NOCTURNE" score --model model "$@" < /dev/null; }
figure() { sed -n "s/^$1 //p" "$WORK/out"; } # of the last expect_rc

# kinds of input, told by their content
text='the night shift reads the logs and waits for numbers'
python3 - "$text" > rows.jsonl << 'EOF'
import json, sys
print(json.dumps({"text": sys.argv[1]}))
print(json.dumps({"prompt": "the night shift ", "completion": "reads the logs"}))
print(json.dumps({"messages": [{"role": "user", "content": "who reads?"}, {"role": "assistant", "content": "the night shift"}]}))
EOF
printf '%s' "$text" > text.txt
expect_rc 0 score --input rows.jsonl --output s1
all=$(figure tokens)
check "three rows" test "$(wc -l < s1/scores.jsonl)" -eq 3
gzip -c rows.jsonl > rows.data
expect_rc 0 score --input rows.data --output s2
cmp s1/scores.jsonl s2/scores.jsonl || fail "packed rows score otherwise"
zstd -q -c rows.jsonl > rows.ndjson.zst
expect_rc 0 score --input rows.ndjson.zst --output s3
cmp s1/scores.jsonl s3/scores.jsonl || fail "zstd rows score otherwise"
expect_rc 0 score --input text.txt --output s4
cmp <(head -1 s1/scores.jsonl) s4/scores.jsonl || fail "a text file differs from the same text as a row"
printf '{"prompt": "%s"}\n' "$text" > prompt.jsonl
expect_rc 0 "$NOCTURNE" ingest --input prompt.jsonl --output prompt.corpus
expect_rc 0 score --input prompt.corpus --output s5
cmp s4/scores.jsonl s5/scores.jsonl || fail "a corpus differs from the same text"
gzip -c text.txt > packed
expect_rc 69 score --input packed
grep -q "unpack it" "$WORK/out" || fail "the remedy for packed text is missing"
expect_rc 65 score --input model/model.safetensors

# bad rows keep their place, their line and their sentence
{ cat rows.jsonl; echo; echo '{"text": 7}'; echo '{"text"'; echo '{"messages": [{"role": "wizard", "content": "x"}, {"role": "user", "content": "y"}]}'; } > bad.jsonl
expect_rc 0 score --input bad.jsonl --output s6
check "six rows" test "$(wc -l < s6/scores.jsonl)" -eq 6
check "good rows stay" cmp <(head -3 s6/scores.jsonl) s1/scores.jsonl
for line in 5 6 7; do grep -q "\"line\":$line" s6/scores.jsonl || fail "line $line is not named"; done
echo '{"text": 7}' > none.jsonl
expect_rc 65 score --input none.jsonl
grep -q "no token could be scored" "$WORK/out" || fail "a perplexity of nothing must fail"

# windows: no token is lost, only context
python3 -c 'print("numbers come back from tape " * 60)' > long.txt
expect_rc 0 score --input long.txt
whole=$(figure tokens)
expect_rc 0 score --input long.txt --window 64
check "windows lose tokens" test "$(figure tokens)" -eq "$whole"

# ranks
python3 -c 'import json
for i in range(20): print(json.dumps({"text": "night %d " % i * (i + 1)}))' > many.jsonl
expect_rc 0 score --input many.jsonl --output d1
expect_rc 0 mpi 2 "$NOCTURNE" score --model model --input many.jsonl --output d2 --threads 1
cmp d1/scores.jsonl d2/scores.jsonl || fail "dp 2 scores otherwise"
for tp in 2 3; do
    expect_rc 0 mpi $tp "$NOCTURNE" score --model model --input many.jsonl --output t$tp --threads 1 --tp $tp
    check "tp $tp is too far" python3 - d1 t$tp << 'EOF'
import json, sys
a, b = ([json.loads(l) for l in open(f"{d}/scores.jsonl")] for d in sys.argv[1:])
assert len(a) == len(b) == 20
for x, y in zip(a, b):
    assert x["n_tokens"] == y["n_tokens"] and abs(x["logprob"] - y["logprob"]) < 0.02 * x["n_tokens"] + 0.02, (x, y)
EOF
done
expect_rc 0 mpi 2 "$NOCTURNE" score --model model --input long.txt --threads 1 --watchdog-s 1

# generate and score give one number, also with padding rows in the head: the score of prompt and answer less that of the prompt
echo '{"prompt": [40, 41, 60, 70, 80], "max_tokens": 12, "temperature": 0, "logprobs": 1, "ignore_eos": true}' > ask.jsonl
expect_rc 0 "$NOCTURNE" generate --model model --input ask.jsonl --output g
expect_rc 0 "$NOCTURNE" export --input g/results.h5 --output tokens.jsonl
python3 - > asked.jsonl << 'EOF'
import json
tokens = json.loads(open("tokens.jsonl").readline())["choices"][0]["tokens"]
prompt = [40, 41, 60, 70, 80]
print(json.dumps({"prompt": prompt}))
print(json.dumps({"prompt": prompt + tokens}))
choice = json.loads(open("g/results.jsonl").readline())["response"]["body"]["choices"][0]
json.dump([len(tokens), sum(choice["logprobs"]["token_logprobs"])], open("expected", "w"))
EOF
expect_rc 0 "$NOCTURNE" ingest --input asked.jsonl --output asked.h5
expect_rc 0 score --input asked.h5 --output g2
check "generate and score disagree" python3 - << 'EOF'
import json
n, total = json.load(open("expected"))
prompt, both = [json.loads(line) for line in open("g2/scores.jsonl")]
assert n == 12 and both["n_tokens"] - prompt["n_tokens"] == n, (n, prompt, both)
assert abs(both["logprob"] - prompt["logprob"] - total) < 1e-5 * n, (prompt, both, total)
EOF
# ids outside the vocabulary are the row's fault
echo '{"prompt": [1, 999999, 3]}' > outside.jsonl
expect_rc 0 "$NOCTURNE" ingest --input outside.jsonl --output outside.h5
expect_rc 65 score --input outside.h5
grep -q "the vocabulary has ids" "$WORK/out" || fail "the bad id is not named"

echo "scores agree, $all tokens in three rows"
