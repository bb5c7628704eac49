#!/usr/bin/env bash
# nocturne plan: the report and its JSON agree with the arithmetic of a model, propose what fits, and refuse what cannot be.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/generate.sh"
cd "$WORK" || exit 1

# 70B on H100: every tp and precision, the best marked once, and it is int4 on one GPU
expect_rc 0 "$NOCTURNE" plan --model llama3-70b --gpu h100 --in 1000 --out 1000
cp out plan.md
check "sixteen options" test "$(grep -cE '^\| (best)? *\| (bf16|bf16-kv8|int8-kv8|int4-kv8) \|' plan.md)" -eq 16
check "one best" test "$(grep -c '^| best ' plan.md)" -eq 1
check "the best is int4 on one GPU" grep -q '^| best | int4-kv8 | 1 |' plan.md
check "what integer weights cost with many rows is said" grep -q '^caution .*expected to reach 45 to 55 % of the arithmetic' plan.md
check "bf16 on one GPU does not fit" grep -q '^|  | bf16 | 1 | 141.1 | 0.0 | does not fit' plan.md
check "what is printed" grep -q '^memory .*weights .* GB, cache .* GB' plan.md
check "cache" grep -q '^cache .*per position.*sequences of mean length' plan.md
check "KV occupancy" grep -qE 'as generate does: KV occupancy [1-9][0-9]? %$' plan.md
for step in Steady Decode Prefill; do check "$step step" grep -q "^$step step: .* launches" plan.md; done
for kernel in embed rmsnorm gemm rope_kv 'attention, decode' 'attention, prefill' head_argmax; do
    check "kernel $kernel" grep -q "^| $kernel | " plan.md
done

expect_rc 0 "$NOCTURNE" plan --model llama3-70b --gpu a100-80 --precision int4-kv8 --in 1000 --out 1000
check "and that other GPUs have no wgmma for them" grep -q '^caution .*by mma.sync.* 15 to 20 % of the arithmetic' out

expect_rc 0 "$NOCTURNE" plan --model llama3-70b --gpu h100 --tp 8 --in 1000 --out 1000 --wire bf16 -o json
cp out plan.json
check "JSON" python3 - << 'PY'
import json
p = json.load(open("plan.json"))
assert [(o["precision"], o["tp"]) for o in p["options"]] == [(x, 8) for x in ("bf16", "bf16-kv8", "int8-kv8", "int4-kv8")]
assert p["in"] == p["out"] == 1000 and p["gpu"] == "h100" and p["model"] == "llama3-70b"
d, h, kv, hd, ff, L, V, n = 8192, 64, 8, 128, 28672, 80, 128256, 8
linear = L * (2 * d * h * hd + 2 * d * kv * hd + 3 * d * ff)
o = p["options"][0]
assert abs(o["weight_bytes"] / (2 * (linear + 2 * V * d) / n) - 1) < 0.002
assert o["position_bytes"] == 2 * L * kv * hd * 2 / n
B = o["kv_bytes"] / (1500 * o["position_bytes"])
assert abs(o["seqs"] - B) < 1e-6 and abs(B / 878 - 1) < 0.01
s = o["decode"]
k = {r["name"]: r for r in s["kernels"]}
rows = s["decode_rows"]
assert rows == int(B)
assert k["gemm"]["flops"] == 2 * linear // n * rows
assert k["head_argmax"]["flops"] == (2 * d + 15) * V // n * rows
assert k["attention, decode"]["flops"] == 4 * L * h * hd * 1500 // n * rows
assert k["allreduce"]["launches"] == 2 * L + 1 + 2  # the last two: pairs of all ranks, the best of them
assert s["launches"] == sum(r["launches"] for r in s["kernels"])
assert abs(s["ideal_s"] - sum(r["ideal_s"] for r in s["kernels"])) < 1e-9
reserved = -(-2000 // 64) * 64 # whole pages of 64 positions
assert o["admitted_seqs"] == o["kv_bytes"] // (reserved * o["position_bytes"])
assert abs(o["kv_occupied"] - 1500 / reserved) < 1e-9
m = o["steady"]
assert abs(o["ideal"] - m["decode_rows"] / m["ideal_s"] / n) < 1e-6 * o["ideal"]
assert abs(o["ideal"] / 1695 - 1) < 0.02, o["ideal"]
assert abs(m["prefill_tokens"] - m["decode_rows"]) <= 1
best = p["options"][p["best"]]
assert best["precision"] == "bf16-kv8" # int4 gains nothing here: the more exact one is proposed
assert best["practical"] * 1.02 >= max(x["practical"] for x in p["options"])
PY

# how generate gets there; fewer rows than fit, as asked for or because of their activations
check "settings" grep -qx 'settings  generate --device cuda --tp 1 --weight-dtype int4 --kv-cache-dtype int8 --max-num-seqs [0-9]* --max-num-batched-tokens [0-9]*' plan.md
expect_rc 0 "$NOCTURNE" plan --model llama3-8b --gpu h100 --tp 1 --precision bf16 --seqs 600 --in 100 --out 500
check "rows of --seqs" grep -q '600 are decoded together, as many as --seqs says' out
check "rows and tokens of a step" grep -qx 'settings .* --tp 1 --max-num-seqs 600 --max-num-batched-tokens 720' out
expect_rc 0 "$NOCTURNE" plan --model llama3-8b --gpu h100 --tp 1 --precision bf16 --in 10 --out 10
check "activations" grep -q '[0-9] are decoded together, as many as have room for their activations' out
expect_rc 72 "$NOCTURNE" plan --model llama3-8b --gpu h100 --tp 1 --precision bf16 --in 10 --out 10 --seqs 8000
check "no room for the activations" grep -q 'nothing that was tried fits.*the activations of a step 9.9 GB' out

# a directory with weights, its config.json, a GGUF file: the same plan
tiny model --family smollm2 --layers 2 --gguf model.gguf
for m in model model/config.json model.gguf; do
    expect_rc 0 "$NOCTURNE" plan --model $m --gpu l40s --in 20 --out 10 -o json
    python3 -c 'import json; p = json.load(open("out")); del p["model"]; print(json.dumps(p))' > "plan.$(basename $m)"
done
check "config.json alone" cmp plan.model plan.config.json
check "GGUF" cmp plan.model plan.model.gguf
mkdir bare && cp model/config.json bare/
expect_rc 0 "$NOCTURNE" plan --model bare --in 20 --out 10 --tp 1 --precision bf16
check "one option" test "$(grep -c '^| best | bf16 | 1 |' out)" -eq 1

# a model that 8 ranks cannot divide, since d_ff has 4 units: fewer are tried
python3 -c 'import json; c = json.load(open("bare/config.json")); c.update(num_attention_heads=8, num_key_value_heads=8, head_dim=16, intermediate_size=64)
json.dump(c, open("bare/config.json", "w"))'
expect_rc 0 "$NOCTURNE" plan --model bare --in 9 --out 9
check "tp 4 but not 8" test "$(grep -cE '^\| (best)? *\| bf16 \| (1|2|4|8) \|' out)" -eq 3

# refusals name the remedy
expect_rc 2 "$NOCTURNE" plan --model llama3-8b --weight-dtype int4
check "the type of weights is --precision's" grep -q 'takes the type of weights from --precision' out
expect_rc 2 "$NOCTURNE" plan --model llama3-8b --gpu h1000
check "GPU" grep -q 'unknown GPU "h1000" (maybe: h100?)' out
expect_rc 66 "$NOCTURNE" plan --model llama3-8
check "model" grep -q 'maybe: llama3-8b?' out
expect_rc 2 "$NOCTURNE" plan
expect_rc 72 "$NOCTURNE" plan --model llama3-70b --gpu a100-40 --tp 1
check "no room" grep -q 'the weights take .* GB per GPU' out
expect_rc 78 "$NOCTURNE" plan --model llama3-8b --in 131072 --out 1
check "length" grep -q 'longest sequence of 131072' out
expect_rc 78 "$NOCTURNE" plan --model smollm2-135m --tp 16
echo "plans are as the formulae say"
