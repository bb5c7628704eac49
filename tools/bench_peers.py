#!/usr/bin/env python3
"""Nocturne beside llama.cpp, OpenVINO GenAI and vLLM on this machine, in alternating rounds of one run.

    tools/bench_peers.py --nocturne build/nocturne --model MODEL.gguf --llama LLAMA_BIN_DIR [--llama-model BF16.gguf]
        [--python PYTHON_WITH_OPENVINO_AND_VLLM --openvino-model F16.gguf --vllm-model HF_DIR] [--rounds 5] [--threads 2]

Every figure is tokens per second without loading; the table has medians over the rounds and ratios of the medians. Standard
library only; the peers run in their own processes."""
import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

OPENVINO = """
import sys, time, random, json, numpy as np, openvino, openvino_genai as genai
s = genai.SchedulerConfig()
s.cache_size, s.max_num_batched_tokens, s.max_num_seqs, s.enable_prefix_caching = 3, 2048, 64, False
pipe = genai.ContinuousBatchingPipeline(sys.argv[1], s, "CPU", {"INFERENCE_PRECISION_HINT": openvino.Type.bf16, "INFERENCE_NUM_THREADS": int(sys.argv[2])})
random.seed(1)
def run(rows, n_in, n_out):
    prompts = [openvino.Tensor(np.array([[random.randrange(100, 40000) for _ in range(n_in)]], dtype=np.int64)) for _ in range(rows)]
    c = genai.GenerationConfig(); c.max_new_tokens, c.ignore_eos, c.do_sample = n_out, True, False
    t = time.perf_counter(); done = pipe.generate(prompts, [c] * rows); t = time.perf_counter() - t
    return (rows * n_in + sum(len(r.m_generation_ids[0]) for r in done)) / t
run(4, 32, 8)
print("FIGURES", json.dumps({"prefill 32 x 512": run(32, 512, 1), "generate 64 x (128 + 64)": run(64, 128, 64)}))
"""
VLLM = """
import os, sys, time, random, json
os.environ.update(VLLM_CPU_KVCACHE_SPACE="4", VLLM_CPU_OMP_THREADS_BIND=f"0-{int(sys.argv[2]) - 1}", VLLM_LOGGING_LEVEL="ERROR", HF_HUB_OFFLINE="1")
from vllm import LLM, SamplingParams
if __name__ == "__main__":
    llm = LLM(sys.argv[1], dtype="bfloat16", max_model_len=1024, max_num_seqs=64, enable_prefix_caching=False, seed=0)
    random.seed(1)
    def run(rows, n_in, n_out):
        prompts = [{"prompt_token_ids": [random.randrange(100, 40000) for _ in range(n_in)]} for _ in range(rows)]
        t = time.perf_counter(); done = llm.generate(prompts, SamplingParams(temperature=0, max_tokens=n_out, ignore_eos=True), use_tqdm=False); t = time.perf_counter() - t
        return (rows * n_in + sum(len(r.outputs[0].token_ids) for r in done)) / t
    run(4, 32, 8)
    print("FIGURES", json.dumps({"prefill 32 x 512": run(32, 512, 1), "generate 64 x (128 + 64)": run(64, 128, 64)}))
"""


def output(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr[-2000:]}")
    return done.stdout


def nocturne_bench(a):
    rows = [json.loads(line) for line in output([a.nocturne, "bench", "--model", a.model, "-o", "jsonl", "-r", "3", "-t", str(a.threads)]).splitlines()]
    figures = {}
    for r in rows:
        name = "pp512" if r["n_gen"] == 0 else "tg128 B=1" if r["n_prompt"] == 0 else f"decode B={r['n_seq']} at 128"
        figures[name] = r["avg_ts"]
    return figures


def nocturne_generate(a, folder):
    figures = {}
    for name, rows, n_in, n_out in (("prefill 32 x 512", 32, 512, 1), ("generate 64 x (128 + 64)", 64, 128, 64)):
        rng = random.Random(1)
        source = Path(folder, f"{rows}.jsonl")
        source.write_text("".join(json.dumps({"prompt": [rng.randrange(100, 40000) for _ in range(n_in)], "max_tokens": n_out,
                                              "temperature": 0, "ignore_eos": True}) + "\n" for _ in range(rows)))
        out = Path(folder, f"out-{rows}")
        output([a.nocturne, "generate", "--model", a.model, "--input", source, "--output", out, "--fresh", "--max-model-len", "1024",
                "--threads", str(a.threads)])
        figures[name] = json.loads((out / "run.json").read_text())["timings"]["tokens_per_s"]
    return figures


def llama(a):
    model = a.llama_model or a.model
    figures = {}
    for line in output([f"{a.llama}/llama-bench", "-m", model, "-p", "512", "-n", "128", "-t", str(a.threads), "-r", "3", "-o", "jsonl"]).splitlines():
        row = json.loads(line)
        figures["pp512" if row["n_gen"] == 0 else "tg128 B=1"] = row["avg_ts"]
    text = output([f"{a.llama}/llama-batched-bench", "-m", model, "-c", "16384", "-b", "2048", "-ub", "512", "-npp", "128", "-ntg", "64",
                   "-npl", "1,8,32,64", "-t", str(a.threads), "-tb", str(a.threads)])
    for line in text.splitlines():
        cells = [c.strip() for c in line.split("|")]
        if len(cells) > 10 and cells[1] == "128":
            figures[f"decode B={cells[3]} at 128"] = float(cells[8])
            if cells[3] == "64":
                figures["generate 64 x (128 + 64)"] = float(cells[10])
    return figures


def python_peer(a, code, model):
    with tempfile.NamedTemporaryFile("w", suffix=".py") as f:
        f.write(code)
        f.flush()
        text = output([a.python, f.name, model, str(a.threads)])
    return json.loads(next(line for line in text.splitlines() if line.startswith("FIGURES"))[8:])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--nocturne", required=True)
    p.add_argument("--model", required=True)
    p.add_argument("--llama")
    p.add_argument("--llama-model")
    p.add_argument("--python")
    p.add_argument("--openvino-model")
    p.add_argument("--vllm-model")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--threads", type=int, default=2)
    a = p.parse_args()
    seen = {}
    with tempfile.TemporaryDirectory() as folder:
        contenders = [("nocturne", lambda: nocturne_bench(a) | nocturne_generate(a, folder))]
        if a.llama:
            contenders.append(("llama.cpp", lambda: llama(a)))
        if a.openvino_model:
            contenders.append(("OpenVINO", lambda: python_peer(a, OPENVINO, a.openvino_model)))
        if a.vllm_model:
            contenders.append(("vLLM", lambda: python_peer(a, VLLM, a.vllm_model)))
        for r in range(a.rounds):
            for name, run in contenders:
                figures = run()
                print(f"round {r + 1} {name}: " + ", ".join(f"{k} {v:.0f}" for k, v in figures.items()) + f" (load {os.getloadavg()[0]:.1f})",
                      file=sys.stderr, flush=True)
                for k, v in figures.items():
                    seen.setdefault(k, {}).setdefault(name, []).append(v)
    names = [n for n, _ in contenders]
    print("| test | " + " | ".join(names) + " | " + " | ".join(f"/ {n}" for n in names[1:]) + " |")
    print("| --- " * (2 * len(names)) + "|")
    for test, by in seen.items():
        m = {n: statistics.median(v) for n, v in by.items()}
        cells = [f"{m[n]:.0f} ({min(by[n]):.0f}-{max(by[n]):.0f})" if n in m else "" for n in names]
        ratios = [f"{m['nocturne'] / m[n]:.2f}" if n in m and "nocturne" in m else "" for n in names[1:]]
        print(f"| {test} | " + " | ".join(cells + ratios) + " |")


if __name__ == "__main__":
    main()
