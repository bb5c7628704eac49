#!/usr/bin/env bash
# `nocturne merge`: the sums, both containers, shards, what is copied and written, the report, and every refusal.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/generate.sh"
cd "$WORK" || exit 1
lora() { check "lora.py $*" python3 "$SOURCE/tests/jobs/lora.py" "$@"; }
merge() { timeout -k 5 "$NT_TIMEOUT" "$NOCTURNE" merge "$@" < /dev/null; }
nothing_left() { [ -z "$(find . -name '.tmp-*' -o -name "$1")" ] || fail "$1 or a temporary directory is left"; }
perplexity() { "$NOCTURNE" score --model "$1" --input text.txt 2> err | sed -n 's/^perplexity //p'; }
echo 'the night shift reads the logs and waits for numbers' > text.txt

# sums: a family with biases, one with q/k norms, one tied with pair order in GGUF; f32 and bf16 bases; rsLoRA; few targets
tiny smollm2 --family smollm2 --layers 2 --gguf smollm2.gguf --gguf-type bf16
tiny qwen2 --family qwen2 --layers 2 --dtype f32 --gguf qwen2.gguf --gguf-type f32
tiny qwen3 --family qwen3 --layers 2 --sharded 3 --gguf qwen3.gguf --gguf-type bf16
lora make smollm2 smollm2.lora --rslora
lora make qwen2 qwen2.lora --rank 3 --alpha 5
lora make qwen3 qwen3.lora --targets q_proj,k_proj,down_proj
for m in smollm2 qwen2 qwen3; do
    expect_rc 0 merge --model $m --adapter $m.lora --output $m.merged
    lora check $m $m.lora $m.merged
    grep -q '^| all | .* 100.0 % |' "$WORK/out" || fail "$m: the report is missing"
    expect_rc 0 merge --model $m.gguf --adapter $m.lora --output $m.from_gguf --threads 2
    lora same $m.merged $m.from_gguf
    [ "$(perplexity $m.merged)" = "$(perplexity $m.from_gguf)" ] || fail "$m: config.json or tokenizer from GGUF differs"
    [ "$(perplexity $m.merged)" != "$(perplexity $m)" ] || fail "$m: the adapter changes nothing"
    for file in tokenizer.json tokenizer_config.json generation_config.json; do
        cmp $m/$file $m.merged/$file || fail "$m: $file is not the base's"
    done
done

# ids, chat template and end tokens written from GGUF give the answers of the original
python3 "$SOURCE/tests/jobs/prompts.py" 12 3 > in.jsonl
for m in smollm2 qwen3; do
    for from in merged from_gguf; do
        expect_rc 0 "$NOCTURNE" generate --model $m.$from --input in.jsonl --output $m.$from.out --temperature 0 --max-tokens 4
    done
    check "$m: other answers from GGUF's tokenizer" python3 - $m << 'EOF'
import json, sys
def answers(kind):
    rows = [json.loads(l) for l in open("%s.%s.out/results.jsonl" % (sys.argv[1], kind))]
    return [(r["custom_id"], r["response"]["status_code"], r["response"]["body"].get("usage"),
             [{k: c[k] for k in c if k != "logprobs"} for c in r["response"]["body"].get("choices", [])]) for r in rows]
assert answers("merged") == answers("from_gguf") and any(a[1] == 200 for a in answers("merged"))
EOF
done

# dtype: a float32 config becomes bfloat16, the rest stays
check "config.json" python3 - << 'EOF'
import json
a, b = json.load(open("qwen2/config.json")), json.load(open("qwen2.merged/config.json"))
key = "torch_dtype" if "torch_dtype" in a else "dtype"
assert a.pop(key) == "float32" and b.pop(key) == "bfloat16" and a == b, (a, b)
r = json.load(open("qwen2.merged/merge.json"))
assert r["kind"] == "merge" and r["rank"] == 3 and abs(r["scale"] - 5 / 3) < 1e-12 and r["tokenizer"]
assert set(r["linears"]) == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
assert all(0.99 < v["kept"] < 1.01 and 0 < v["noise"] < 0.2 and v["changed"] > 0.8 for v in r["linears"].values()), r
assert set(json.load(open("qwen3.merged/merge.json"))["linears"]) == {"q_proj", "k_proj", "down_proj"}
EOF
cmp smollm2/config.json smollm2.merged/config.json || fail "a bfloat16 config is copied as it is"

# shards: the same tensors, an index that our reader follows
expect_rc 0 merge --model qwen2 --adapter qwen2.lora --output sharded --shard-gb 0.0002 --format json
check "json on stdout" python3 -c 'import json; assert json.loads(open("out").read().splitlines()[-1])["files"] > 2'
lora same qwen2.merged sharded
[ "$(perplexity sharded)" = "$(perplexity qwen2.merged)" ] || fail "shards score otherwise"
check "index" python3 - << 'EOF'
import json, os
ix = json.load(open("sharded/model.safetensors.index.json"))
assert ix["metadata"]["total_size"] == 2 * json.load(open("sharded/merge.json"))["parameters"]
assert all(os.path.exists("sharded/" + f) for f in ix["weight_map"].values()) and not os.path.exists("sharded/model.safetensors")
EOF

# B = 0 is the base, and said so; a delta below rounding is told
lora make smollm2 zero.lora --size 0
expect_rc 0 merge --model smollm2 --adapter zero.lora --output zero
grep -q 'the adapter adds nothing' "$WORK/out" || fail "an empty adapter is not told"
lora same smollm2 zero
lora make smollm2 faint.lora --size 0.00001
expect_rc 0 merge --model smollm2 --adapter faint.lora --output faint
grep -q 'serve the adapter beside the base' "$WORK/out" || fail "a lost delta is not told"
expect_rc 0 "$NOCTURNE" inspect smollm2.merged

# refusals leave nothing, and replace nothing
expect_rc 74 merge --model smollm2 --adapter smollm2.lora --output zero
lora same smollm2 zero
lora make smollm2 nan.lora --size nan
expect_rc 65 merge --model smollm2 --adapter nan.lora --output bad
grep -q 'not finite' "$WORK/out" || fail "NaN is not named"
nothing_left bad
lora make smollm2 huge.lora --size 3e38 --alpha 800
expect_rc 65 merge --model smollm2 --adapter huge.lora --output bad
grep -q 'tensor model.layers.0.* is not finite in bfloat16' "$WORK/out" || fail "the overflow is not named"
nothing_left bad
expect_rc 65 merge --model qwen3 --adapter smollm2.lora --output bad # other shapes
nothing_left bad
lora make smollm2 foreign.lora --base-sha256 "$(printf '00%.0s' {1..32})"
expect_rc 78 merge --model smollm2 --adapter foreign.lora --output bad
grep -q 'trained on another base model.*--any-base' "$WORK/out" || fail "the foreign base is not named, or not how to merge all the same"
nothing_left bad
expect_rc 0 merge --model smollm2 --adapter foreign.lora --output forced --any-base
grep -q 'not the model that' forced/README.md || fail "the card is silent about the other base"
sha=$(sed -n 's/.*"base_sha256":"\([0-9a-f]*\)".*/\1/p' forced/merge.json)
lora make smollm2 own.lora --base-sha256 "$sha"
expect_rc 0 merge --model smollm2 --adapter own.lora --output own
(trap '' XFSZ; ulimit -f 100; merge --model smollm2 --adapter smollm2.lora --output bad) > out 2>&1
rc=$?
check "a full disk is exit status 74, not $rc" test $rc -eq 74
nothing_left bad
expect_rc 66 merge --model smollm2 --adapter nowhere --output bad
expect_rc 2 merge --model smollm2 --output bad
tiny q8 --family smollm2 --layers 1 --heads 4 --kv 2 --d-ff 96 --gguf q8.gguf --gguf-type q8_0
lora make q8 q8.lora
expect_rc 0 merge --model q8.gguf --adapter q8.lora --output q8.merged
grep -q 'is quantized' "$WORK/out" || fail "a quantized base is not told"
tiny llama --family llama --layers 1 --gguf llama.gguf # rope factors of no release
lora make llama llama.lora
expect_rc 69 merge --model llama.gguf --adapter llama.lora --output bad
grep -q 'rope_freqs.weight' "$WORK/out" || fail "the rope factors are not named"
nothing_left bad

# a killed merge leaves no directory under the name; the next one clears up
tiny big --family smollm2 --layers 2 --heads 8 --d-head 32 --kv 4 --vocab 4096
lora make big big.lora --rank 1 --targets q_proj
killed=0
for i in 1 2 3 4 5 6 7 8; do
    "$NOCTURNE" merge --model big --adapter big.lora --output killed > /dev/null 2>&1 < /dev/null &
    sleep "0.0$i"
    kill -9 $! 2> /dev/null && killed=$((killed + 1))
    wait $! 2> /dev/null
    [ -e killed ] || continue
    lora check big big.lora killed
    rm -r killed
done
check "no merge was killed" test $killed -gt 0
expect_rc 0 merge --model big --adapter big.lora --output killed
lora check big big.lora killed
[ -z "$(find . -maxdepth 1 -name '.tmp-killed*')" ] || fail "temporary directories of killed merges are left"
echo "merged models are the sums"
