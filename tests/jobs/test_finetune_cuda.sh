#!/usr/bin/env bash
# `nocturne finetune` on the emulated GPU: the CPU's adapters within rounding, the same bytes again, from a checkpoint, and for any policy; ranks, a
# 4-bit and an 8-bit base, preferences, all weights; memory as planned.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/generate.sh"
. "$(dirname "$0")/finetune.sh"
cd "$WORK" || exit 1
emulated_gpus devices=2,leaks=1,stream0=0
NT_TIMEOUT=300

training_data
common="$shape --batch-size 4 --save-steps 2 --save-total-limit 4 --set run.watchdog_s=120"
tune() { local input=$1 dir=$2; shift 2; expect_rc 0 "$NOCTURNE" finetune $common --input "$input.h5" --output "$dir" "$@"; }
gpu() { tune "$@" --device cuda; }

# the CPU's adapter within rounding, in the memory that was planned
rows="--max-steps 3 --eval-fraction 0.1"
tune rows cpu $rows --device cpu
NT_EMU=$NT_EMU,count=$PWD/memory gpu rows base $rows
planned=$(grep -oE '[0-9]+ bytes of device memory' out | cut -d' ' -f1) held=$(grep -oE '"most_bytes": *[0-9]+' memory | grep -oE '[0-9]+$')
check "$planned bytes of device memory were planned, $held taken" test "$planned" = "$held"
check "a peak that nobody measured is told as a number" grep -q 'mfu unknown' out
near cpu base 2e-3
expect_rc 0 "$NOCTURNE" bench train --model model --device cuda --train-rows 1 --train-length 8 --reps 1 -o json
check "bench train: no JSON without a peak" sh -c 'grep -v "info\|warn" out | python3 -c "import json, sys; assert json.load(sys.stdin)[0][\"mfu_percent\"] is None"'
check "the report is missing" test -s base/report.html

# a CPU's checkpoint goes on here
begun() { cp -r "$1" "$2" && rm -rf "$2"/COMPLETE "$2"/adapter "$2"/adapter.gguf "$2"/checkpoints/step-*3.h5; } # RUN COPY
begun cpu moved
gpu rows moved $rows
check "the CPU's run did not resume" grep -q 'resuming after step 2' out
near cpu moved 2e-3

# the same bytes: other orders of threads and copies, other policies, and from a checkpoint
NT_EMU=devices=2,order=backward,streams=early,copies=early gpu rows early $rows
same_adapter base early
NT_EMU=devices=2,order=random,seed=5,streams=random,copies=random gpu rows full $rows --recompute full
same_adapter base full
begun base half
gpu rows half $rows
check "the run did not resume" grep -q 'resuming after step 2' out
same_adapter base half

# ranks: two model copies of two tensor-parallel ranks, whose devices add their gradients; in host memory they are the same
ranks() { expect_rc 0 mpi 4 "$NOCTURNE" finetune $common --input rows.h5 --output "$1" $rows --threads 1 --device cuda --tp 2; }
NT_EMU=devices=4,leaks=1,stream0=0,count=$PWD/ranks.%p ranks ranks
check "NCCL connects both" test "$(grep -cE 'NCCL .* over 2 ranks of (tp|dp)' out)" -eq 2
planned=$(grep -oE '[0-9]+ bytes of device memory' out | cut -d' ' -f1)
check "rank 0 planned $planned bytes of device memory" grep -q "\"most_bytes\": *$planned\b" ranks.*
for file in ranks.*; do check "a device added no gradients" grep -q '"kernel": *"nt_sum_parts"' "$file"; done
near base ranks 5e-3
NT_EMU=devices=4,leaks=1,stream0=0 NOCTURNE_NCCL=$EMU/absent.so ranks ranks.host
check "the slow way is said" grep -q 'sums over the ranks of dp go through host memory' out
same_adapter ranks ranks.host

# compute capability 9.0 has a gradient of its own
NT_EMU=$NT_EMU,cc=90,count=$PWD/launches.sm90 gpu rows sm90 $rows
near cpu sm90 2e-3
check "no gradient went through wgmma" grep -q "nt_gemm_dgrad_sm90_" launches.sm90
check "nor did that of attention" grep -q "nt_attention_bwd_sm90_keys_d64" launches.sm90

# dropout is the sample's
tune rows cpu.drop $rows --lora-dropout 0.2 --device cpu
gpu rows drop $rows --lora-dropout 0.2
near cpu.drop drop 2e-3

# a 4-bit and an 8-bit base; preferences with their reference; all weights
for type in int4 int8; do
    tune rows cpu.$type $rows --weight-dtype $type --device cpu
    NT_EMU=$NT_EMU,count=$PWD/launches.$type gpu rows $type $rows --weight-dtype $type
    near cpu.$type $type 2e-2
    check "no gradient went through the $type weights" grep -q "nt_gemm_dgrad_${type}_" launches.$type
    cmp -s base/adapter/adapter_model.safetensors $type/adapter/adapter_model.safetensors && fail "$type weights changed nothing: they were not used"
done
gpu pairs dpo --loss dpo --max-steps 4
check "dpo: the margin did not grow" python3 "$SOURCE/tests/jobs/tune_check.py" grows dpo
gpu thumbs kto --loss kto --max-steps 4
check "kto: the margin did not grow" python3 "$SOURCE/tests/jobs/tune_check.py" grows kto
gpu rows whole $rows --method full --learning-rate 0.001
tune rows cpu.whole $rows --method full --learning-rate 0.001 --device cpu
check "all weights: losses differ from the CPU's" python3 "$SOURCE/tests/jobs/tune_check.py" losses cpu.whole whole 5e-3

# what it learned is there when it generates
echo '{"prompt": "night shift", "max_tokens": 8, "temperature": 0, "logprobs": 1}' > ask.jsonl
INPUT=ask.jsonl MODEL=model
expect_rc 0 generate with --device cuda --adapter base/adapter
expect_rc 0 generate without --device cuda
cmp -s with/results.jsonl without/results.jsonl && fail "the adapter changes nothing"
echo "finetune on the GPU: the CPU's adapter, resumes, agrees"
