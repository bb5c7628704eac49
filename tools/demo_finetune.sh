#!/usr/bin/env bash
# SmolLM2-135M learns the house style of a help desk from 320 conversations, and which answers people like from 128 thumbs; then the same
# questions as before. A few minutes on two cores. data/README.md says what the rows are.
#   tools/demo_finetune.sh [OUTPUT_DIR]      default: build/demo-finetune; NOCTURNE names a program that is built already
set -euo pipefail
out=${1:+$(realpath -m -- "$1")} # as the caller means it
cd "$(dirname "$0")/.."
nocturne=${NOCTURNE:-$(tools/setup.sh program)}
model=$(tools/setup.sh model)
: "${out:=build/demo-finetune}"
mkdir -p "$out"
cat > "$out/ask.jsonl" <<'ROWS'
{"messages": [{"role": "user", "content": "Why is my job 4711 still waiting?"}]}
{"messages": [{"role": "user", "content": "I deleted my thesis by mistake!"}]}
{"messages": [{"role": "user", "content": "lammps says out of memory. What now?"}]}
{"messages": [{"role": "user", "content": "Is there a GPU for blender?"}]}
{"messages": [{"role": "user", "content": "What is the capital of France?"}]}
ROWS
ask() { "$nocturne" generate --model "$model" --input "$out/ask.jsonl" --temperature 0 --max-tokens 48 --fresh --set run.log_interval_s=60 "$@"; }
learn() { # NAME FLAG...
    local name=$1; shift
    "$nocturne" finetune --model "$model" --input "$out/$name.h5" --output "$out/$name" --fresh --eval-fraction 0.1 --batch-size 8 --lora-r 8 \
        --lora-alpha 16 "$@"
}
for name in night_desk night_desk_thumbs; do
    "$nocturne" ingest --input data/$name.jsonl --output "$out/$name.h5" --source desk --consent train --basis synthetic --license CC0-1.0
done
ask --output "$out/before"
learn night_desk --max-steps 40 --learning-rate 0.002
learn night_desk_thumbs --loss kto --max-steps 8 --learning-rate 0.001
ask --output "$out/after" --adapter "$out/night_desk/adapter"
echo
python3 - "$out" <<'EOF'
import json, sys
out = sys.argv[1]
read = lambda name: [json.loads(line) for line in open(f"{out}/{name}")]
evals = lambda name, key: [e[key] for e in read(f"{name}/metrics.jsonl") if e["event"] == "eval"]
answer = lambda row: row["response"]["body"]["choices"][0]["message"]["content"].strip()
for asked, before, after in zip(read("ask.jsonl"), read("before/results.jsonl"), read("after/results.jsonl")):
    print("Q:", asked["messages"][-1]["content"])
    print("before:", answer(before).replace("\n", "\n        "))
    print("after: ", answer(after).replace("\n", "\n        "), "\n")
loss, margin = evals("night_desk", "eval_loss"), evals("night_desk_thumbs", "margin")
signed = sum(answer(row).endswith("-- night desk") for row in read("after/results.jsonl"))
print(f"sft: held-out loss {loss[0]:.2f} before, {loss[-1]:.2f} after; {signed} of {len(read('ask.jsonl'))} answers are signed")
print(f"kto: held-out margin of liked over disliked answers {margin[0]:.2f} before, {margin[-1]:.2f} after")
EOF
echo "adapters: $out/night_desk/adapter, $out/night_desk_thumbs/adapter; curves: report.html beside them"
