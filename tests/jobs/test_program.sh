#!/usr/bin/env bash
# The program as a person meets it: bench, doctor, inspect, config, the memory plan, progress, stops and failures of single ranks.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/generate.sh"
cd "$WORK" || exit 1

tiny model --family llama --layers 2 --gguf model.gguf
MODEL=model INPUT=in.jsonl
python3 "$SOURCE/tests/jobs/prompts.py" 20 4 > in.jsonl

# bench: four formats that parse, llama-bench's columns, tensor parallel
small="-p 16 -n 4 -b 1,2 --batch-prompt 8 --batch-gen 4 -r 2"
for format in md csv json jsonl; do
    "$NOCTURNE" bench --model model $small -o $format > bench.$format 2> err || { cat err >&2; fail "bench -o $format"; }
done
check "bench formats" python3 - << 'EOF'
import csv, json
rows = json.load(open("bench.json"))
lines = [json.loads(line) for line in open("bench.jsonl")]
table = list(csv.DictReader(open("bench.csv")))
tests = [r["test"] for r in rows]
assert tests == ["pp16", "tg4", "tg4 @ d8", "tg4 x 2 @ d8"], tests
assert [r["test"] for r in lines] == tests == [r["test"] for r in table]
for r in rows:
    assert {"build_commit", "cpu_info", "model_filename", "model_size", "model_n_params", "n_batch", "n_prompt", "n_gen", "avg_ns", "stddev_ns", "avg_ts", "stddev_ts"} <= set(r)
    assert r["avg_ts"] > 0 and r["avg_ns"] > 0
head = [c.strip() for c in open("bench.md").readline().split("|")[1:-1]]
assert head == ["model", "size", "params", "backend", "threads", "test", "t/s"], head
EOF
expect_rc 0 "$NOCTURNE" bench train --model model --batch-size 2 --train-rows 1 --train-length 8 --reps 1
says 'sft on random tokens, 1 sequences of 8 .*batch_size, max_length and loss do not count'
expect_rc 0 mpi 2 "$NOCTURNE" bench --model model $small --tp 2 -t 1
check "bench under tp prints once" test "$(grep -c '| pp16 |' "$WORK/out")" -eq 1
expect_rc 2 mpi 2 "$NOCTURNE" ingest --input in.jsonl --output x.h5

# doctor
expect_rc 0 "$NOCTURNE" doctor
for part in cpu isa threads peak hdf5 memory "op gemm" "verdict        ok"; do grep -q "^$part" "$WORK/out" || fail "doctor does not show $part"; done
expect_rc 0 mpi 2 "$NOCTURNE" doctor --threads 1
check "doctor speaks for every rank" test "$(grep -c '^verdict        ok' "$WORK/out")" -eq 2

# inspect
for m in model model.gguf; do
    expect_rc 0 "$NOCTURNE" inspect $m
    grep -q '^family         llama' "$WORK/out" || fail "inspect $m"
    grep -q '^heads          9 of 16, 3 kv' "$WORK/out" || fail "inspect $m: heads"
done
expect_rc 0 "$NOCTURNE" inspect in.jsonl
grep -q '^rows           21' "$WORK/out" || fail "inspect: rows"

# config: what it prints reads back to the same
"$NOCTURNE" config > a.cfg && "$NOCTURNE" config a.cfg > b.cfg
cmp a.cfg b.cfg || fail "config does not read back"

# the plan is logged before the first step, and a cache that is too small ends the job before it
expect_rc 0 generate out_dir
grep -q 'plan: weights .* kv cache up to .* activations' "$WORK/out" || fail "no memory plan"
expect_rc 72 generate small --set generate.kv_memory_gib=0.00001
grep -q 'generate.kv_memory_gib' "$WORK/out" || fail "the remedy is missing"

# sums of usage are in run.json
check "run.json sums" python3 - << 'EOF'
import json
usage = [r["response"]["body"]["usage"] for r in map(json.loads, open("out_dir/results.jsonl")) if r["response"] and r["response"]["status_code"] == 200]
run = json.load(open("out_dir/run.json"))["tokens"]
assert run["prompt"] == sum(u["prompt_tokens"] for u in usage) and run["answer"] == sum(u["completion_tokens"] for u in usage), run
EOF

# progress: a bar with rate and ETA on a terminal, lines otherwise
check "progress bar" python3 - "$NOCTURNE" << 'EOF'
import os, pty, sys
out = b""
def read(fd):
    global out
    data = os.read(fd, 4096)
    out += data
    return data
sys.stdout = open(os.devnull, "w")
pty.spawn([sys.argv[1], "generate", "--model", "model", "--input", "in.jsonl", "--output", "tty", "--fresh"], read)
assert b"[####" in out and b"tok/s" in out and b"eta" in out and b"\r" in out, out[-500:]
EOF
grep -q 'progress: rows 21/21 100%' <(expect_rc 0 generate lines; cat "$WORK/out") || fail "no progress line in a log"

# weights that overflow: rows become errors, nothing is called a success that could not be computed
python3 - << 'EOF'
import json, shutil, struct
shutil.copytree("model", "broken")
path = "broken/model.safetensors"
data = bytearray(open(path, "rb").read())
n, = struct.unpack("<Q", data[:8])
head = json.loads(data[8:8 + n])
info = head["model.norm.weight"]
begin, end = (8 + n + o for o in info["data_offsets"])
value = {"BF16": struct.pack("<H", 0x7f61), "F32": struct.pack("<f", 3e38)}[info["dtype"]]
data[begin:end] = value * ((end - begin) // len(value))
open(path, "wb").write(data)
EOF
printf '{"prompt": "a", "max_tokens": 3}\n{"prompt": "b", "max_tokens": 3, "temperature": 0, "logprobs": 2}\n' > two.jsonl
MODEL=broken INPUT=two.jsonl
expect_rc 0 generate overflow
check "two errors" test "$(grep -c 'not finite' overflow/errors.jsonl)" -eq 2
expect_rc 65 "$NOCTURNE" score --model broken --input two.jsonl
MODEL=model INPUT=in.jsonl

# a pipe cannot be read again
expect_rc 66 "$NOCTURNE" generate --model model --input <(cat in.jsonl) --output pipe
grep -q 'not a regular file' "$WORK/out" || fail "the pipe is not named"

# --fresh with an input that cannot be read leaves the finished results alone
head -c 40 <(gzip -c in.jsonl) > cut.jsonl.gz
cp out_dir/results.jsonl kept.jsonl
expect_rc 65 "$NOCTURNE" generate --model model --input cut.jsonl.gz --output out_dir --fresh
cmp kept.jsonl out_dir/results.jsonl || fail "--fresh discarded results before it read the input"

# a rank that fails alone ends the job within 10 seconds, with its cause
cat > one_small_file.sh << 'EOF'
#!/bin/bash
[ "${OMPI_COMM_WORLD_RANK:-0}" = 1 ] && ulimit -f 4
trap '' XFSZ
exec "$@"
EOF
chmod +x one_small_file.sh
python3 "$SOURCE/tests/jobs/prompts.py" 150 5 > many.jsonl
INPUT=many.jsonl
start=$(date +%s)
mpi 2 ./one_small_file.sh "$NOCTURNE" generate $(run_flags) --threads 1 --output alone > out 2>&1
rc=$?
check "a failed rank hung the job" test $(($(date +%s) - start)) -lt 40
[ $rc -ne 0 ] || fail "a rank that cannot write its journal must fail the job"
grep -q 'rank 1 .*journal' out || { cat out >&2; fail "the cause is not named"; }
expect_rc 0 ranks 2 alone
expect_rc 0 generate reference
same reference alone
echo "the program behaves"
