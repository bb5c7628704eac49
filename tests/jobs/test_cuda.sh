#!/usr/bin/env bash
# generate and score on the emulated GPU: the CPU's greedy answers, the same bytes for any batch, rank count and restart,
# sums over NCCL's stand-in or through host memory, an int8 cache, products by cuBLASLt's stand-in, and what is said where
# there is no GPU.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/generate.sh"
cd "$WORK" || exit 1
unset NOCTURNE_CUDA_DRIVER NOCTURNE_NCCL NOCTURNE_CUBLASLT NT_EMU

tiny model --family smollm2 --layers 2
MODEL=model INPUT=in.jsonl
python3 - > in.jsonl << 'END'
import json
for i in range(14):
    row = {"prompt": f"night {i} " * (1 + 3 * (i % 5)), "max_tokens": 4 + i}
    if i % 3 == 0:
        row["temperature"] = 0
    if i % 4 == 1:
        row.update(top_p=0.8, top_k=40, repetition_penalty=1.3, logprobs=3)
    if i % 5 == 2:
        row.update(min_p=0.05, presence_penalty=0.4, n=2)
    print(json.dumps(row))
END

# ---- without a GPU (a machine that has one finds it: then there is nothing to refuse)
if ! "$NOCTURNE" generate $(run_flags) --output nodriver --device cuda > out 2>&1; then
    check "the reason is said" grep -qE 'no CUDA driver|no CUDA backend|sees no device' out
    expect_rc 0 generate auto
    check "auto says why it takes the CPU" grep -qE '(no CUDA driver|no CUDA backend|sees no device[^:]*): using the CPU' out
fi
expect_rc 69 generate int8cpu --device cpu --kv-cache-dtype int8
check "an int8 cache on the CPU is refused" grep -q 'needs a GPU' out
expect_rc 69 "$NOCTURNE" bench gemm --device cuda
check "who measures products of a GPU" grep -q 'bench gemm measures the CPU.*doctor --gpu' out

emulated_gpus devices=2,leaks=1,stream0=0
NT_TIMEOUT=300

# ---- a driver or a device that cannot be used: cuda is refused with the reason, auto takes the CPU and says it
refused() { # NT_EMU REASON
    NT_EMU=$1 expect_rc 69 generate refused --device cuda
    check "the reason of $1: $2" grep -q "^nocturne: .*$2" out
}
for row in 'driver=11080|is too old' 'devices=0|sees no device' 'cc=75|compute capability 7.5; 8.0 or newer is needed'; do
    refused "${row%%|*}" "${row#*|}"
    NT_EMU=${row%%|*} expect_rc 0 generate "cpu-${row%%=*}"
    check "auto says why it takes the CPU: $row" grep -qE "${row#*|}.*: using the CPU" out
done
NT_EMU=memory=1048576 expect_rc 72 generate no-memory --device cuda
check "the memory that is missing is named" grep -q 'no device memory for 67108864 bytes of workspace: 1048576 of 1048576 bytes of Emulated GPU.* are free' out
sed 's/^\.target sm_80/.target sm_90/' "$EMU/../../cuda/embed.ptx" > newer.ptx # neither machine code nor PTX for the device
refused "ptx=$PWD/newer.ptx" 'no image of kernels/embed.cu for compute capability 8.0 and cannot compile its PTX'

# planned: bytes of device memory as the program counted them. held FILE...: the most that the device had at once
planned() { grep -oE '[0-9]+ bytes of device memory' out | cut -d' ' -f1 | sort -u; }
held() { cat "$@" | grep -oE '"most_bytes": *[0-9]+' | grep -oE '[0-9]+$' | sort -u; }
NT_EMU=$NT_EMU,count=$PWD/memory expect_rc 0 generate base --device cuda
check "$(planned) bytes of device memory were planned, $(held memory) taken" test "$(planned)" = "$(held memory)"
check "steps are captured" grep -q 'captured a decode step' out
check "the device is in the manifest" grep -q '"device":"cuda","isa":"sm_80"' base/run.json
expect_rc 0 generate auto-gpu
same base auto-gpu
NT_EMU=$NT_EMU,memory=80000000 expect_rc 0 generate small --device cuda # nine tenths of what is free leave too little for the rest
same base small

# ---- the CPU's answers
expect_rc 0 generate cpu --device cpu
check "greedy answers differ from the CPU's" python3 "$SOURCE/tests/jobs/same_greedy.py" cpu/results.jsonl base/results.jsonl in.jsonl

# ahead RUN N: all but N steps were launched before the host had seen the tokens of the step before
ahead() { check "steps of $1 wait for the host" python3 -c '
import json, sys
last = [e for e in map(json.loads, open(sys.argv[1] + "/metrics.jsonl")) if e["event"] == "progress"][-1]
assert last["steps"] - last["steps_ahead"] <= int(sys.argv[2]), last' "$@"; }
# ---- any batch, step, order of work, rank count
NT_EMU=devices=2,order=backward,streams=early,copies=early expect_rc 0 generate batch1 --device cuda --max-num-seqs 1
same base batch1
NT_EMU=devices=2,order=random,seed=3,streams=random,copies=random \
    expect_rc 0 generate batch5 --device cuda --max-num-seqs 5 --max-num-batched-tokens 23 --set generate.checkpoint_s=0
same base batch5
ahead batch5 3 # prompts under way and rows to admit or not
expect_rc 0 ranks 2 dp2 --device cuda
same base dp2
NT_EMU=devices=1 expect_rc 0 mpi 2 "$NOCTURNE" doctor > /dev/null # two ranks, one device
for how in peers nccl host; do
    [ $how = host ] && export NOCTURNE_NCCL=$EMU/absent.so
    [ $how = peers ] && peer=1 || peer=0
    NT_EMU=$NT_EMU,peer=$peer,count=$PWD/launches-$how.%p expect_rc 0 ranks 2 tp2-$how --device cuda --tp 2
    [ $how = peers ] && check "sums over peers are said" grep -q 'sums up to 256 KiB' out
    [ $how = peers ] && check "sums over peers are in the plan" grep -q 'sums over peers 0.8 MiB (taken)' out
    check "$(planned) bytes of device memory were planned over $how, $(held launches-$how.*) taken" \
        grep -qx "$(planned)" <(held launches-$how.*) # rank 0 says its plan
    check "tp 2 over $how changes greedy answers" python3 "$SOURCE/tests/jobs/same_greedy.py" base/results.jsonl tp2-$how/results.jsonl in.jsonl
done
cmp tp2-peers/results.jsonl tp2-nccl/results.jsonl || fail "sums over peers and over NCCL differ"
# launches RUN KERNEL: of all ranks
launches() { cat launches-"$1".* | grep "\"kernel\": *\"$2\"" | grep -oE '"launches": *[0-9]+' | awk '{ n += $NF } END { print n + 0 }'; }
fused=$(launches peers nt_allreduce_norm_p2p) apart=$(launches nccl nt_rmsnorm_warp)
check "sums and norms of $apart launches over NCCL, $fused fused ones over peers" test "$fused" -gt $((apart / 2))
check "a norm that was fused ran alone too" test $((fused + $(launches peers nt_rmsnorm_warp))) -eq "$apart"
check "NCCL's sums are not the peers'" test "$(launches nccl nt_allreduce_norm_p2p)" -eq 0
check "the slow way is said" grep -q 'go through host memory' out
export NOCTURNE_NCCL=$EMU/libnccl_emu.so
NT_EMU=$NT_EMU,peer=2 expect_rc 0 ranks 2 tp2-lost --device cuda --tp 2 # mapped, but nothing arrives
check "memory of peers that is not theirs is said" grep -q 'what is written there does not arrive' out
check "sums over such memory are not tried" test -z "$(grep 'sums up to' out)"
cmp tp2-nccl/results.jsonl tp2-lost/results.jsonl || fail "sums over NCCL alone differ"

# ---- more ranks than devices: they share them, which is said; NCCL is for ranks with a device each
NT_EMU=devices=1 expect_rc 0 ranks 2 shared --device cuda
check "the shared device is said" grep -q "2 ranks of node .* share the CUDA device" out
same base shared
NT_EMU=devices=1 expect_rc 0 ranks 2 crowded --device cuda --tp 2
check "the sums' way is said" grep -q 'sum through host memory' out
check "NCCL is left out" test -z "$(grep -E 'NCCL [0-9]' out)"
cmp crowded/results.jsonl tp2-host/results.jsonl || fail "sums through host memory differ where two ranks share a device"
NT_EMU=devices=2,mig=1 expect_rc 0 ranks 2 parts --device cuda --tp 2 # parts of a GPU: NCCL goes by the bus
check "the sums' way between parts of a GPU is said" grep -q 'are on one GPU (0000:01:00.0) and sum through host memory' out
check "parts of a GPU are not shared" test -z "$(grep 'share the CUDA device' out)"
cmp crowded/results.jsonl parts/results.jsonl || fail "sums through host memory differ between parts of a GPU"

# ---- unlike devices: not within one model, whose ranks must draw the same tokens; between models it is said
unlike() { mpi 2 bash -c 'NT_EMU=devices=2,cc=$((80 + 10 * OMPI_COMM_WORLD_RANK)) exec "$0" "$@"' "$NOCTURNE" generate $(run_flags) --threads 1 --device cuda "$@"; }
expect_rc 69 unlike --output unlike --tp 2
check "unlike devices are named" grep -qE 'rank 0 on .* has sm_80, rank 1 on .* has sm_90' out
expect_rc 0 unlike --output unlike
check "unlike devices are said" grep -qE 'unlike hardware, sm_80 on .* and sm_90 on' out

# ---- greedy rows and plain draws end their steps in the head and store no logits; with a truncated row beside them all
# steps end in logits, with the same bytes for the others; over two ranks only pairs of the head cross
python3 - > mixed.jsonl << 'END'
import json
for i in range(7):
    print(json.dumps({"prompt": f"dusk {i} " * (1 + i % 3), "max_tokens": 3 + i, "temperature": [0, 0.7, 1][i % 3], "n": 1 + i % 2}))
print(json.dumps({"prompt": "dusk", "max_tokens": 40, "top_k": 3, "ignore_eos": True}))
END
head -7 mixed.jsonl > plain.jsonl
# ending NAME INPUT [OPTION...]: a job whose launches are counted
ending() {
    local name=$1 INPUT=$2; shift 2
    NT_EMU=$NT_EMU,count=$PWD/launches-$name.%p expect_rc 0 "$@"
}
# as_planned TP: a captured decode step has the launches that nocturne plan counts
as_planned() {
    local planned captured
    captured=$(grep -oE 'drawn by the head: [0-9]+ nodes' out | grep -oE '[0-9]+' | sort -u)
    planned=$("$NOCTURNE" plan --model model --tp "$1" --precision bf16 --seqs 6 --in 20 --out 6 -o json |
        python3 -c 'import json, sys; print(json.load(sys.stdin)["options"][0]["decode"]["launches"])')
    check "a plan has $planned launches a step over $1 ranks, the captured one $captured" test "$captured" = "$planned"
}
for cc in 80 90; do
    head=nt_head_16x128
    [ $cc = 90 ] && head=nt_head_sm90_64x128
    export NT_EMU=devices=2,leaks=1,stream0=0,cc=$cc
    ending plain$cc plain.jsonl generate plain$cc --device cuda
    check "the head draws in captured steps" grep -q 'captured a decode step .* tokens drawn by the head' out
    as_planned 1
    ending mixed$cc mixed.jsonl generate mixed$cc --device cuda
    check "the head was not used (compute capability $cc)" test "$(launches plain$cc $head)" -gt 0
    check "a plain job sampled from logits" test "$(launches plain$cc nt_sample_pick)" -eq 0
    check "the head drew beside a truncated row" test "$(launches mixed$cc $head)" -lt 3 # rows that came before it
    check "the truncated row's steps" test "$(launches mixed$cc nt_sample_pick)" -gt 0
    cmp plain$cc/results.jsonl <(head -7 mixed$cc/results.jsonl) || fail "a neighbour with top-k changes answers (compute capability $cc)"
done
export NT_EMU=devices=2,leaks=1,stream0=0
INPUT=plain.jsonl expect_rc 0 generate plain-cpu --device cpu
check "the head's greedy answers differ from the CPU's" python3 "$SOURCE/tests/jobs/same_greedy.py" plain-cpu/results.jsonl plain80/results.jsonl plain.jsonl
for how in peers nccl host; do
    [ $how = peers ] && export NT_EMU=$NT_EMU,peer=1 || export NT_EMU=$NT_EMU,peer=0
    [ $how = host ] && export NOCTURNE_NCCL=$EMU/absent.so
    ending plain-$how plain.jsonl ranks 2 plain-$how --device cuda --tp 2
    heads=$(launches plain-$how nt_head_16x128) best=$(launches plain-$how nt_best_pairs)
    if [ $how = host ]; then
        check "without a device communicator the host chooses" test $((heads + best)) -eq 0
    else
        check "$heads heads over $how, the best of their pairs $best times" test "$heads" -gt 0 -a "$heads" -eq "$best"
        [ $how = peers ] && as_planned 2
        check "over $how logits were looked at" test "$(launches plain-$how nt_logit_stats)" -eq 0
    fi
    cmp plain-peers/results.jsonl plain-$how/results.jsonl || fail "tokens chosen over $how differ from those over peers"
done
export NOCTURNE_NCCL=$EMU/libnccl_emu.so NT_EMU=devices=2,leaks=1,stream0=0
ending mixed-tp mixed.jsonl ranks 2 mixed-tp --device cuda --tp 2
cmp plain-peers/results.jsonl <(head -7 mixed-tp/results.jsonl) || fail "a neighbour with top-k changes answers over two ranks"
echo '{"prompt": "dusk", "max_tokens": 3, "temperature": 5, "top_p": 0.99}' > tail.jsonl
ending tail tail.jsonl ranks 2 tail --device cuda --tp 2 --max-num-seqs 1
check "$(planned) bytes of device memory were planned for a long list of candidates, $(held launches-tail.*) taken" \
    grep -qx "$(planned)" <(held launches-tail.*)
check "tp 2 changes the head's greedy answers" python3 "$SOURCE/tests/jobs/same_greedy.py" plain80/results.jsonl plain-peers/results.jsonl plain.jsonl

# ---- rows that wait for room in the cache do not keep the device waiting for the host
for i in 1 2 3 4 5 6 7 8; do echo '{"prompt": "dusk", "max_tokens": 20, "ignore_eos": true}'; done > wait.jsonl
INPUT=wait.jsonl expect_rc 0 generate wait --device cuda --max-len 256 --set generate.kv_memory_gib=0.0001 --set generate.checkpoint_s=0
check "four of them fit the cache" grep -q '(4 pages of' out
check "steps wait for the host" python3 - << 'PY'
import json
last = [e for e in map(json.loads, open("wait/metrics.jsonl")) if e["event"] == "progress"][-1]
assert 40 <= last["steps"] <= 42 and last["steps_ahead"] >= 34, last
PY
# ---- penalties, bias, masks and log-probabilities: the CPU's greedy answers, and no step waits for the host, which has not
# seen the newest token when it launches the next
python3 - > edited.jsonl << 'END'
import json
wishes = [{"repetition_penalty": 1.8}, {"presence_penalty": 2, "frequency_penalty": 1.5}, {"logprobs": 5, "repetition_penalty": 0.6},
          {"logit_bias": {"7": 9, "11": 9}, "frequency_penalty": 2}, {"min_tokens": 6, "stop_token_ids": list(range(0, 120, 2)), "presence_penalty": -1},
          {"logprobs": 0}, {"repetition_penalty": 1.3, "presence_penalty": 0.5, "logprobs": 2}]
for i in range(14):
    print(json.dumps({"prompt": f"dawn {i} " * (1 + i % 3), "max_tokens": 8 + i % 5, "ignore_eos": True, "temperature": i // 7, **wishes[i % 7]}))
END
INPUT=edited.jsonl expect_rc 0 generate edited-cpu --device cpu
ending edited edited.jsonl generate edited --device cuda --set generate.checkpoint_s=0
check "penalties change greedy answers on the GPU" python3 "$SOURCE/tests/jobs/same_greedy.py" edited-cpu/results.jsonl edited/results.jsonl edited.jsonl
check "$(planned) bytes of device memory were planned for penalties, $(held launches-edited.*) taken" test "$(planned)" = "$(held launches-edited.*)"
ahead edited 2
check "penalties were not the kernel's" test "$(launches edited nt_logit_penalty)" -gt 0
INPUT=edited.jsonl expect_rc 0 generate edited-1 --device cuda --max-num-seqs 1
cmp edited/results.jsonl edited-1/results.jsonl || fail "penalties depend on the batch"
NT_EMU=devices=2,order=random,seed=7,streams=random,copies=random \
    INPUT=edited.jsonl expect_rc 0 generate edited-4 --device cuda --max-num-seqs 4 --max-num-batched-tokens 19
cmp edited/results.jsonl edited-4/results.jsonl || fail "penalties depend on the batch or the order of work"

# ---- truncated rows over two ranks: drawn on the device from gathered pairs, by the host where the lists are too short (the flat
# rows), with the same bytes for any batch and order of work
python3 - > cut.jsonl << 'END'
import json
rules = [{"top_p": 0.8}, {"top_k": 5, "logprobs": 3}, {"min_p": 0.1, "presence_penalty": 1}, {"temperature": 0, "logprobs": 2}, {"temperature": 0.7},
         {"top_p": 0.99, "temperature": 5}, {"top_p": 0.9, "top_k": 50, "repetition_penalty": 1.3, "logprobs": 20}, {"top_p": 0.999, "temperature": 4, "logprobs": 4}]
for i in range(16):
    print(json.dumps({"prompt": f"noon {i} " * (1 + i % 3), "max_tokens": 5 + i % 6, "ignore_eos": True, **rules[i % 8]}))
END
for input in cut edited; do
    ending $input-tp2 $input.jsonl ranks 2 $input-tp2 --device cuda --tp 2 --set generate.checkpoint_s=0
    check "$(planned) bytes of device memory were planned for lists of pairs, $(held launches-$input-tp2.*) taken" \
        grep -qx "$(planned)" <(held launches-$input-tp2.*)
    check "rows of $input.jsonl were not drawn from pairs" test "$(launches $input-tp2 nt_draw_pairs)" -gt 0
    NT_EMU=$NT_EMU,order=backward,streams=random,copies=random,seed=5 \
        INPUT=$input.jsonl expect_rc 0 ranks 2 $input-tp2-1 --device cuda --tp 2 --max-num-seqs 1
    cmp $input-tp2/results.jsonl $input-tp2-1/results.jsonl || fail "rows of $input.jsonl depend on the batch over two ranks"
    INPUT=$input.jsonl expect_rc 0 ranks 2 $input-tp2-5 --device cuda --tp 2 --max-num-seqs 5 --max-num-batched-tokens 17
    cmp $input-tp2/results.jsonl $input-tp2-5/results.jsonl || fail "rows of $input.jsonl depend on the steps over two ranks"
done
ahead edited-tp2 2
check "tp 2 changes greedy answers with penalties" python3 "$SOURCE/tests/jobs/same_greedy.py" edited/results.jsonl edited-tp2/results.jsonl edited.jsonl

# ---- compute capability 9.0: launches that begin before the one before has ended, one rank and two
early() { awk '/^emu: launch/ { n++; early += / early$/ } END { exit !(n > 100 && early > 0.8 * n) }' "$1"; }
NT_EMU=$NT_EMU,cc=90,trace=1 expect_rc 0 generate sm90 --device cuda
check "four of five launches begin early" early out
check "greedy answers of compute capability 9.0" python3 "$SOURCE/tests/jobs/same_greedy.py" base/results.jsonl sm90/results.jsonl in.jsonl
NT_EMU=$NT_EMU,cc=90,trace=1 expect_rc 0 ranks 2 sm90-tp2 --device cuda --tp 2
check "four of five launches of two ranks begin early" early out
check "tp 2 changes greedy answers of compute capability 9.0" python3 "$SOURCE/tests/jobs/same_greedy.py" sm90/results.jsonl sm90-tp2/results.jsonl in.jsonl
NT_EMU=$NT_EMU,cc=90,driver=12020,trace=1 expect_rc 0 generate sm90-older --device cuda
check "none begins early with a driver that cannot capture it" test "$(grep -c ' early$' out)" -eq 0
same sm90 sm90-older

# ---- int8 cache
expect_rc 0 generate int8 --device cuda --kv-cache-dtype int8
expect_rc 0 generate int8-1 --device cuda --kv-cache-dtype int8 --max-num-seqs 1
same int8 int8-1

# ---- weights in 4 and 8 bits: the specification's answers, whatever the batch, in the memory that was planned
for type in int4 int8; do
    NT_EMU=$NT_EMU,count=$PWD/launches-w$type.%p expect_rc 0 generate w$type --device cuda --weight-dtype $type
    check "$(planned) bytes of device memory were planned with $type weights, $(held launches-w$type.*) taken" \
        test "$(planned)" = "$(held launches-w$type.*)"
    check "the kernels of $type weights were not used" test "$(launches w$type nt_gemm_${type}_16x32)" -gt 0
    expect_rc 0 generate w$type-1 --device cuda --weight-dtype $type --max-num-seqs 1
    same w$type w$type-1
    NT_EMU=$NT_EMU,cc=89 expect_rc 0 generate w$type-ada --device cuda --weight-dtype $type # blocks have 99 KiB of shared memory
    same w$type w$type-ada
    expect_rc 0 generate w$type-cpu --device cpu --weight-dtype $type --isa portable
    check "$type greedy answers differ from the CPU's" python3 "$SOURCE/tests/jobs/same_greedy.py" w$type-cpu/results.jsonl w$type/results.jsonl in.jsonl
    cmp -s w$type/results.jsonl base/results.jsonl && fail "$type weights changed nothing: they were not used"
done
INPUT=in.jsonl expect_rc 0 ranks 2 wint8-tp2 --device cuda --tp 2 --weight-dtype int8
check "tp 2 changes greedy answers of int8 weights" python3 "$SOURCE/tests/jobs/same_greedy.py" wint8/results.jsonl wint8-tp2/results.jsonl in.jsonl

# ---- an adapter beside the base: the CPU's greedy texts and other ones than the base's, in captured steps, the same bytes
# for any batch, over two ranks, beside integer weights, and by the kernels of either compute capability
python3 "$SOURCE/tests/jobs/lora.py" make model adapter --rank 8 --alpha 32 --size 0.3
adapted() { generate "$@" --adapter adapter; }
expect_rc 0 adapted lora-cpu --device cpu
NT_EMU=$NT_EMU,count=$PWD/launches-lora.%p expect_rc 0 adapted lora --device cuda
check "$(planned) bytes of device memory were planned with an adapter, $(held launches-lora.*) taken" test "$(planned)" = "$(held launches-lora.*)"
check "steps with an adapter are captured" grep -q 'captured a decode step' out
check "an adapter changes greedy answers on the GPU" python3 "$SOURCE/tests/jobs/same_greedy.py" lora-cpu/results.jsonl lora/results.jsonl in.jsonl
check "the adapter was not used" test "$(launches lora nt_gemm_adapter_16x32)" -gt 0
python3 "$SOURCE/tests/jobs/same_greedy.py" base/results.jsonl lora/results.jsonl in.jsonl > /dev/null 2>&1 && fail "the adapter changed nothing"
expect_rc 0 adapted lora-1 --device cuda --max-num-seqs 1
same lora lora-1
NT_EMU=devices=2,order=random,seed=5,streams=random,copies=random \
    expect_rc 0 adapted lora-5 --device cuda --max-num-seqs 5 --max-num-batched-tokens 23
same lora lora-5
INPUT=in.jsonl expect_rc 0 ranks 2 lora-tp2 --device cuda --tp 2 --adapter adapter
check "tp 2 changes greedy answers with an adapter" python3 "$SOURCE/tests/jobs/same_greedy.py" lora/results.jsonl lora-tp2/results.jsonl in.jsonl
# CPUs round integer weights to bf16 and the device does not (ops.h): texts may differ, the likelihood hardly does
printf 'the quick brown fox jumps over the lazy dog\n%.0s' 1 2 3 4 > text.txt
scored() { "$NOCTURNE" score --model model --input text.txt --weight-dtype "$@" 2>&1 | grep -oE 'perplexity [0-9.]+' | cut -d' ' -f2; }
near() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a > 0 && (a - b < 0.008 * a) && (b - a < 0.008 * a)) }'; }
for type in int4 int8; do
    expect_rc 0 adapted lora-$type --device cuda --weight-dtype $type
    expect_rc 0 adapted lora-$type-1 --device cuda --weight-dtype $type --max-num-seqs 1
    same lora-$type lora-$type-1
    cmp -s lora-$type/results.jsonl w$type/results.jsonl && fail "an adapter beside $type weights changed nothing"
    cpu=$(scored $type --device cpu --adapter adapter) gpu=$(scored $type --device cuda --adapter adapter) bare=$(scored $type --device cuda)
    check "$type perplexity with an adapter $gpu, the CPU has $cpu" near "$cpu" "$gpu"
    near "$bare" "$gpu" && fail "$type perplexity with an adapter $gpu, without $bare"
done
NT_EMU=$NT_EMU,cc=90,count=$PWD/launches-lora90.%p expect_rc 0 adapted lora90 --device cuda
NT_EMU=$NT_EMU,cc=90 expect_rc 0 adapted lora90-1 --device cuda --max-num-seqs 1
same lora90 lora90-1
check "the adapter's kernels of compute capability 9.0 were not used" test "$(launches lora90 nt_gemm_sm90_adapter_64x32)" -gt 0
check "attention of prompts by wgmma was not used" test "$(launches lora90 nt_attention_sm90_d64)" -gt 0

# ---- large products by cuBLASLt's stand-in: used, for the rows it is asked for, with the same greedy answers
expect_rc 69 generate blas-cpu --device cpu --set run.gemm_library=cublaslt
check "the library on the CPU is refused" grep -q 'gemm_library = cublaslt needs a GPU' out
expect_rc 69 generate blas-none --device cuda --set run.gemm_library=cublaslt
check "the missing library is named" grep -q 'gemm_library = cublaslt cannot be had: no cuBLASLt.*gemm_library = own' out
export NOCTURNE_CUBLASLT=$EMU/libcublasLt_emu.so
blas() { local rows=$1; shift; generate "$@" --device cuda --set run.gemm_library=cublaslt --set run.gemm_library_rows="$rows"; }
products() { grep -oE 'cuBLASLt computed [0-9]+ products' out | grep -oE '[0-9]+'; }
expect_rc 0 blas 100000 blas-never
check "$(products) products of 100000 rows" test "$(products)" -eq 0
same base blas-never
expect_rc 0 blas 16 blas16
check "the library, its version and from which size on it is used are said" \
    grep -qE 'products of at least 16 rows go to cuBLASLt [0-9]+ of .*libcublasLt_emu.so' out
few=$(products)
check "no product of 16 rows" test "$few" -gt 0
check "the library changes greedy answers" python3 "$SOURCE/tests/jobs/same_greedy.py" base/results.jsonl blas16/results.jsonl in.jsonl
expect_rc 0 blas 1 blas1
check "$(products) products of any row count, $few of 16 and more" test "$(products)" -gt "$few"
expect_rc 0 blas 1 blas1-batch1 --max-num-seqs 1
same blas1 blas1-batch1
expect_rc 0 mpi 2 "$NOCTURNE" generate $(run_flags) --threads 1 --output blas-tp2 --device cuda --tp 2 --set run.gemm_library=cublaslt --set run.gemm_library_rows=16
check "tp 2 with the library changes greedy answers" python3 "$SOURCE/tests/jobs/same_greedy.py" base/results.jsonl blas-tp2/results.jsonl in.jsonl
unset NOCTURNE_CUBLASLT

# ---- killed, then resumed
for wait in 0.9 1.6 2.4; do
    rm -rf killed
    timeout -s KILL $wait "$NOCTURNE" generate $(run_flags) --output killed --device cuda --max-num-seqs 3 > /dev/null 2>&1
    expect_rc 0 generate killed --device cuda
    same base killed
done

# ---- a rank that dies in a collective ends the job within 10 s
NT_EMU=$NT_EMU,peer=0 NT_EMU_NCCL=rank=1,seq=9,fault=die \
    mpi 2 "$NOCTURNE" generate $(run_flags) --threads 1 --output dies --device cuda --tp 2 2>&1 | stamped > out
rc=${PIPESTATUS[0]} took=$(since "$(grep -m1 'emu: this process dies' out | cut -d' ' -f1)") # since its death, not since the start
[ $rc -ne 0 ] && [ $rc -ne 124 ] || { cat out; fail "a dead rank: exit status $rc"; }
check "$took s after the death of a rank its job ended" below "$took" "$(patience 10)"

# ---- a rank that hangs in one is named, with the collective and its number
NT_EMU=$NT_EMU,peer=0 NT_EMU_NCCL=rank=1,seq=9,fault=hang expect_rc 76 mpi 2 "$NOCTURNE" generate --model model --input in.jsonl --threads 1 \
    --output hangs --device cuda --tp 2 --set run.watchdog_s=3
check "the collective is named" grep -qE 'watchdog: .*rank 1 .*in ncclAll[A-Za-z]+ #[0-9]+ on tp' out

# ---- so is one that hangs when its work is done, while it lets go of the peers' memory, whatever the command
echo '{"prompt": "dusk", "max_tokens": 2}' > short.jsonl
echo 'the quick brown fox' > short.txt
for job in 'generate --input short.jsonl --output closes' 'score --input short.txt' 'bench --n-prompt 8 --n-gen 0 --batch-gen 0 --reps 1'; do
    NT_EMU=$NT_EMU,unmap=0 expect_rc 76 mpi 2 "$NOCTURNE" $job --model model --threads 1 --device cuda --tp 2 --set run.watchdog_s=3
    check "$job: its end is not watched" grep -qE "watchdog: .*rank 1 .*doing 'closing', .*made no progress" out
done

# ---- score
printf 'the quick brown fox jumps over the lazy dog\n%.0s' 1 2 3 4 > text.txt
score() { "$NOCTURNE" score --model model --input text.txt --device "$1" 2>&1 | grep -oE 'perplexity [0-9.]+' | cut -d' ' -f2; }
cpu=$(score cpu) gpu=$(NT_EMU=$NT_EMU,count=$PWD/launches-score.0 score cuda)
check "long chunks had no kernel" test "$(launches score nt_attention_d64)" -gt 0
check "a step without short chunks launched their kernel" test "$(launches score nt_attention_decode_d64)" -eq 0
check "perplexity $gpu, the CPU has $cpu" awk -v a="$cpu" -v b="$gpu" 'BEGIN { exit !(a > 0 && (a - b < 0.005 * a) && (b - a < 0.005 * a)) }'
echo "the emulated GPU answers as the CPU does"
