#!/usr/bin/env python3
"""A LoRA step of nocturne beside PEFT (eager and torch.compile, bf16) on this machine, in alternating rounds of one run.

    tools/bench_train_peers.py --nocturne build/nocturne --model MODEL.gguf --python PYTHON_WITH_PEFT --hf HF_DIR
        [--rounds 3] [--threads 2] [--rows 4] [--length 256]

Rank 16 on all seven linears, AdamW, every token a target. Tokens per second of the median step and the peak of resident memory; the table
has medians over the rounds (lowest-highest) and ratios of the medians. Standard library only; PEFT runs in its own process."""
import argparse
import json
import statistics
import subprocess
import sys

PEFT = """
import json, resource, sys, time, torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
path, mode, threads, rows, length = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
torch.manual_seed(0)
torch.set_num_threads(threads)
base = AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16, attn_implementation="sdpa")
config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
model = get_peft_model(base, config, autocast_adapter_dtype=False).train()
adamw = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
call = torch.compile(model) if mode == "compile" else model
ids = torch.randint(100, 40000, (rows, length))
def step():
    start = time.perf_counter()
    call(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    adamw.step()
    adamw.zero_grad()
    return time.perf_counter() - start
step(), step()
seconds = sorted(step() for _ in range(7))[3]
print(json.dumps({"tokens_per_s": rows * length / seconds, "gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}))
"""


def last_line(command):
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def nocturne(a, recompute):
    row = last_line([a.nocturne, "bench", "train", "--model", a.model, "-t", a.threads, "-o", "jsonl", "--recompute", recompute,
                     "--train-rows", a.rows, "--train-length", a.length])
    return {"tokens_per_s": row["median_ts"], "gb": row["memory_gb"], "mfu": row["mfu_percent"]}


def peft(a, mode):
    return last_line([a.python, "-c", PEFT, a.hf, mode, a.threads, a.rows, a.length])


def spread(values, digits):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("nocturne", "model", "python", "hf"):
        p.add_argument(f"--{name}", required=True)
    for name, value in (("rounds", 3), ("threads", 2), ("rows", 4), ("length", 256)):
        p.add_argument(f"--{name}", type=int, default=value)
    a = p.parse_args()
    contenders = {"nocturne, recompute selective": lambda: nocturne(a, "selective"), "PEFT, torch.compile": lambda: peft(a, "compile"),
                  "nocturne, recompute none": lambda: nocturne(a, "none"), "PEFT, eager": lambda: peft(a, "eager")}
    found = {name: [] for name in contenders}
    for i in range(a.rounds):
        for name, run in contenders.items():
            found[name].append(run())
            print(f"round {i + 1}: {name}: {found[name][-1]}", file=sys.stderr)
    speed = {name: statistics.median(r["tokens_per_s"] for r in rows) for name, rows in found.items()}
    print("| LoRA step | tokens/s | % of the bf16 peak | GB resident | / PEFT compiled |\n| --- | ---: | ---: | ---: | ---: |")
    for name, rows in found.items():
        mfu = spread([r["mfu"] for r in rows], 1) if "mfu" in rows[0] else ""
        print(f"| {name} | {spread([r['tokens_per_s'] for r in rows], 0)} | {mfu} | {spread([r['gb'] for r in rows], 2)} | "
              f"{speed[name] / speed['PEFT, torch.compile']:.2f} |")


if __name__ == "__main__":
    main()
