#!/usr/bin/env bash
# From nothing to answers: packages, build, model, then `nocturne generate` over data/prompts.jsonl.
#   tools/demo.sh [OUTPUT_DIR]      default: build/demo
set -euo pipefail
out=${1:+$(realpath -m -- "$1")} # as the caller means it
cd "$(dirname "$0")/.."
nocturne=$(tools/setup.sh program)
model=$(tools/setup.sh model)
: "${out:=build/demo}"
"$nocturne" generate --model "$model" --input data/prompts.jsonl --output "$out" --temperature 0 --max-tokens 96 --fresh
echo
python3 - data/prompts.jsonl "$out/results.jsonl" <<'EOF'
import json, sys
asked = [json.loads(line) for line in open(sys.argv[1]) if line.strip()]
for question, answer in zip(asked, map(json.loads, open(sys.argv[2]))):
    choice = answer["response"]["body"]["choices"][0]
    print("Q:", question["messages"][-1]["content"])
    print("A:", choice["message"]["content"].strip(), "\n")
EOF
echo "results: $out/results.jsonl and results.h5; the same command on a cluster: jobs/generate.sbatch"
