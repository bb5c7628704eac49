#!/usr/bin/env bash
# The README's fine-tuning of SmolLM2-135M as it stands: the held-out loss falls to less than a seventh, the answers get the style, and the
# margins of liked answers grow. And the shipped rows are what their script writes. Skipped without the model.
. "$(dirname "$0")/lib.sh"
cd "$WORK" || exit 1

[ -f "${NOCTURNE_CACHE:-$HOME/.cache/nocturne}/SmolLM2-135M-Instruct.Q4_1.gguf" ] || skip "no model; tools/setup.sh model fetches it"
mkdir data
check "make_night_desk.py" python3 "$SOURCE/tools/make_night_desk.py" data
for name in night_desk night_desk_thumbs; do cmp "data/$name.jsonl" "$SOURCE/data/$name.jsonl" || fail "data/$name.jsonl is not what its script writes"; done

begin=$(date +%s.%N)
expect_rc 0 env -C "$WORK" NOCTURNE="$NOCTURNE" "$SOURCE/tools/demo_finetune.sh" out_dir # of the caller, not of the tree
sed -n '/^Q:/,$p' "$WORK/out"
python3 - << 'VERDICT' || fail "it did not learn what the rows teach"
import json
read = lambda name: [json.loads(line) for line in open("out_dir/" + name)]
evals = lambda name, key: [e[key] for e in read(name + "/metrics.jsonl") if e["event"] == "eval"]
signed = lambda name: sum(r["response"]["body"]["choices"][0]["message"]["content"].strip().endswith("-- night desk")
                          and r["response"]["body"]["choices"][0]["message"]["content"].startswith("Short answer: ")
                          for r in read(name + "/results.jsonl"))
loss, margin, liked = evals("night_desk", "eval_loss"), evals("night_desk_thumbs", "margin"), evals("night_desk_thumbs", "eval_loss")
assert len(loss) == 2 and loss[1] < loss[0] / 7, loss
assert signed("before") == 0 and signed("after") >= 4, (signed("before"), signed("after"))
assert abs(margin[0]) < 1e-4 and margin[-1] > 1 and liked[-1] < liked[0] - 0.1, (margin, liked)
VERDICT
echo "learned in $(since "$begin") s"
