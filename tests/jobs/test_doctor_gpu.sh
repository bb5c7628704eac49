#!/usr/bin/env bash
# nocturne doctor --gpu on an emulated device: every op is checked and timed, each time says that it means nothing, both
# files hold the same; a wrong kernel, a missing driver and a directory that cannot be written are told apart.
. "$(dirname "$0")/lib.sh"
cd "$WORK" || exit 1
EMU=$(dirname "$NT_TEST_BIN")/gpuemu/libcuda_emu.so BLAS=$(dirname "$NT_TEST_BIN")/gpuemu/libcublasLt_emu.so

if [ ! -e "$EMU" ]; then # a build without nvcc
    expect_rc 69 "$NOCTURNE" doctor --gpu
    check "the reason" grep -q "this build has no CUDA backend" out
    echo "built without CUDA: doctor --gpu says so"
    exit 0
fi

expect_rc 2 "$NOCTURNE" doctor --gpu --device cpu
check "a GPU's report on the CPU is refused" grep -q 'leave out run.device = cpu, or --gpu' out

# without a driver
expect_rc 69 env NOCTURNE_CUDA_DRIVER="$WORK/none.so" "$NOCTURNE" doctor --gpu --report refused
check "the reason" grep -q "NOCTURNE_CUDA_DRIVER names a library that does not open" out
check "no report" test ! -e refused
if ! python3 -c 'import ctypes; ctypes.CDLL("libcuda.so.1")' 2> /dev/null; then
    expect_rc 69 "$NOCTURNE" doctor --gpu
    check "no driver" grep -q "no CUDA driver" out
fi

for flag in '--report refused' '--skip gemm'; do
    expect_rc 2 "$NOCTURNE" doctor $flag
    check "$flag alone" grep -q "add --gpu" out
done

check "doctor says why there is no GPU" grep -q "^gpu *none: NOCTURNE_CUDA_DRIVER names a library that does not open" \
    <(NOCTURNE_CUDA_DRIVER=$WORK/none.so "$NOCTURNE" doctor)

export NOCTURNE_CUDA_DRIVER=$EMU
NT_EMU=devices=2 expect_rc 0 mpi 2 "$NOCTURNE" doctor --threads 1
for i in 0 1; do check "the GPU of rank $i" grep -q "^gpu *$i of 2 at .*: Emulated GPU.*, compute capability 8.0, .* GiB, driver for CUDA" out; done
expect_rc 2 mpi 2 "$NOCTURNE" doctor --gpu
check "one rank" grep -q "start it with one rank" out
touch file
expect_rc 74 "$NOCTURNE" doctor --gpu --report file/sub

NOCTURNE_CUBLASLT=$BLAS expect_rc 0 "$NOCTURNE" doctor --gpu --report report
check "stdout" grep -q "^# GPU report: Emulated GPU" out
check "both files" test -s report/gpu-report.json -a -s report/gpu-report.md
check "no temporary files" test "$(ls -A report | wc -l)" -eq 2
check "report" python3 - "$SOURCE" << 'PY'
import json, re, sys
src = sys.argv[1]
r = json.load(open("report/gpu-report.json"))
md = open("report/gpu-report.md").read()
ops = re.findall(r"^NT_OP\((\w+),", open(src + "/kernels/ops.def").read(), re.M)
kernels = re.findall(r"^NT_CUDA_KERNEL\(\w+, (\w+),", open(src + "/kernels/cuda_kernels.def").read(), re.M)
assert ops and kernels
backward = re.findall(r"^struct nt_(\w+)_args \{", open(src + "/kernels/ops_bwd.h").read(), re.M) # whole prompts alone
assert r["complete"] and r["error"] is None and r["meaningful"] is False and r["wrong"] == 0
assert r["note"] == "emulated: not meaningful" and r["device"]["emulated"]
assert {c["op"] for c in r["checks"]} == set(ops)
for c in r["checks"]:
    assert c["ok"] and c["error"] is None and c["difference_nmse"] <= c["limit_nmse"], c
names = [c["name"] for c in r["checks"]]
for d in (64, 96, 128, 256):
    for cache in ("bf16", "int8"):
        assert f"attention d_head {d}, {cache} cache" in names
    assert f"attention_bwd d_head {d}" in names
assert "gemm by cuBLASLt" in names and "gemm by cuBLASLt, rows alone and in a batch" in names and "gemm, rows alone and in a batch" in names
assert [k["name"] for k in r["kernels"]] == kernels
reached = {k for c in r["checks"] for k in c["kernels"]}
assert reached == {k["name"] for k in r["kernels"] if k["checked"] == "ok"}
# what small shapes cannot reach are the larger tiles of products alone, and what runs on 9.0 only
assert all(k.startswith("gemm") or "sm90" in k for k in set(kernels) - reached), set(kernels) - reached
assert {"gemm_16x32", "gemm_int4_8x32", "gemm_int8_8x32", "gemm_dgrad_int8_32x64", "gemm_wgrad_join", "attention_merge", "allreduce_norm_p2p", "best_pairs", "draw_pairs"} <= reached
assert r["ceilings"]["copy_gb_s"] > 0 and r["ceilings"]["cublaslt_tflop_s"] > 0 and not r["ceilings"]["meaningful"]
assert r["ceilings"]["matrix_tflop_s"] == max(r["ceilings"]["cublaslt_tflop_s"], r["ceilings"]["nocturne_tflop_s"])
assert {t["op"] for t in r["timings"]} == set(ops)
for model in ("smollm2-135m", "llama3-8b"):
    mine = [t for t in r["timings"] if t["model"] == model]
    assert {t["op"] for t in mine if t["phase"] == "decode"} == set(ops) - set(backward)
    assert {t["op"] for t in mine if t["phase"] == "prefill"} >= set(ops) & set(backward)
    assert {t["what"] for t in mine if t["cublaslt_us"]} >= {"gemm " + x for x in ("qkv", "o", "gate_up", "down", "head")}
for t in r["timings"]:
    assert t["meaningful"] is False and t["time_us"] > 0 and t["bytes"] > 0 and t["skipped"] is None, t
    assert abs(t["gb_s"] - t["bytes"] / t["time_us"] / 1e3) < 1e-6 * t["gb_s"]
for s in r["steps"]:
    assert s["meaningful"] is False and s["time_ms"] > 0 and s["ideal_ms"] > 0 and s["launches"] > 10, s
    assert s["one_by_one_ms"] is None and s["wrong"] is False, s # no launch begins early on 8.0
    assert abs(s["percent_of_ideal"] - 100 * s["ideal_ms"] / s["time_ms"]) < 1e-6
assert {(s["model"], s["phase"]) for s in r["steps"]} == {
    (m, p) for m in ("smollm2-135m", "llama3-8b") for p in ("decode", "prefill")}
rows = [l for l in md.splitlines() if re.match(r"\| [\w ,]+ \| (decode|prefill) \d", l)]
assert len(rows) == len(r["timings"]) and all("emulated: not meaningful" in l for l in rows)
assert "times are not meaningful" in md and "## Whole steps" in md and "FAILED" not in md
PY

# a kernel that is wrong (a quotient became a product): its rows, and no others, and the rest is measured
PTX=$(dirname "$NT_TEST_BIN")/../cuda
sed 's/div\.rn\.f32/mul.rn.f32/' "$PTX/norm.ptx" > wrong.ptx
cmp -s "$PTX/norm.ptx" wrong.ptx && fail "no quotient to spoil in norm.ptx"
expect_rc 70 env NT_EMU=ptx="$WORK/wrong.ptx" "$NOCTURNE" doctor --gpu --report wrong
check "the sentence" grep -q "^nocturne: 3 of [0-9]* checks of the CUDA kernels failed" out
check "the report" python3 - << 'PY'
import json
r = json.load(open("wrong/gpu-report.json"))
assert r["complete"] and r["wrong"] == 3 and all(s["time_ms"] for s in r["steps"])
assert [c["op"] for c in r["checks"] if not c["ok"]] == ["rmsnorm"] * 3
assert {k["name"] for k in r["kernels"] if k["checked"] == "failed"} == {"rmsnorm_any", "rmsnorm_warp", "rmsnorm_block"}
PY

# a kernel that faults ends the device: the report has what was done, the sentence says how to get the rest
sed -E 's/(st\.global\.(v4\.)?f32[^[]*)\[(%rd[0-9]+)\]/\1[\3+268435456]/' "$PTX/embed.ptx" > fault.ptx
cmp -s "$PTX/embed.ptx" fault.ptx && fail "no store to spoil in embed.ptx"
expect_rc 71 env NT_EMU=ptx="$WORK/fault.ptx",exitcode=0 "$NOCTURNE" doctor --gpu --report fault
check "the sentence" grep -q '^nocturne: the check "embed" ended all work on the device: .*CUDA_ERROR_LAUNCH_FAILED.*--skip embed' out
check "an incomplete report" python3 - << 'PY'
import json
r = json.load(open("fault/gpu-report.json"))
assert not r["complete"] and "--skip embed" in r["error"] and r["wrong"] == 1 and not r["timings"]
PY
expect_rc 0 env NT_EMU=ptx="$WORK/fault.ptx",exitcode=0 "$NOCTURNE" doctor --gpu --skip embed --report fault
check "the rest" python3 - << 'PY'
import json
r = json.load(open("fault/gpu-report.json"))
assert r["complete"] and r["skipped_ops"] == ["embed"] and "embed" not in {t["op"] for t in r["timings"]}
assert len({t["op"] for t in r["timings"]}) > 10 and all(s["skipped"] and s["time_ms"] is None for s in r["steps"])
PY
expect_rc 2 "$NOCTURNE" doctor --gpu --skip attnetion
check "unknown op" grep -q 'unknown op "attnetion" (maybe: attention?)' out

# compute capability 9.0 has kernels of its own, and there is no cuBLASLt
expect_rc 0 env NT_EMU=cc=90 "$NOCTURNE" doctor --gpu --report sm90
check "steps with launches that begin early, and one by one" python3 - << 'PY'
import json
steps = json.load(open("sm90/gpu-report.json"))["steps"]
assert len(steps) == 6 and all(s["one_by_one_ms"] > 0 and s["time_ms"] > 0 and not s["wrong"] for s in steps), steps
PY
check "wgmma" grep -q "^| gemm, kernel gemm_sm90_64x32 | ok |" out
check "the head in wgmma, and where rows are not aligned for it" grep -q "^| head_argmax rows 40 | ok .* head_64x128 head_join head_sm90_64x128 |" out
check "the head's large tile" grep -q "^| head_argmax rows 70 | ok .* head_sm90_128x256" out
check "attention of prompts in wgmma" grep -q "^| attention d_head 128, bf16 cache | ok .* attention_sm90_d128" out
check "its bits beside those of few tokens" grep -q "^| attention d_head 128, bf16 cache, tokens alone | ok .* attention_sm90_d128 attention_decode_d128 " out
check "the gradient of attention in wgmma" grep -q "^| attention_bwd d_head 128 | ok .* attention_bwd_delta attention_bwd_sm90_keys_d128 attention_bwd_sm90_queries_d128 |" out
check "a gradient in wgmma, and where rows are not aligned for it" grep -q "^| gemm_dgrad | ok .* gemm_dgrad_16x32 gemm_dgrad_sm90_64x64 " out
check "a gradient of weights in wgmma, and where rows are not aligned for it" grep -q "^| gemm_wgrad | ok .* gemm_wgrad_16x32 gemm_wgrad_join gemm_wgrad_sm90_64x128 " out
check "the head is not among what no row reaches" test "$(grep "^Not reached by any row" out | grep -c head_)" -eq 0
check "no cuBLASLt" grep -q "^| cuBLASLt | no cuBLASLt beside" out
echo "doctor --gpu checks and measures all ops"
