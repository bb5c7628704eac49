#!/usr/bin/env python3
"""Checks an adapter that this program wrote against PEFT and llama.cpp. Exit 77: a package is missing.
tools/check_adapter_peers.sh trains adapters and runs it on them.

    check_adapter.py peft ADAPTER_DIR MODEL_DIR [--logits OURS.bin] [--merged MERGED_DIR] [--nmse-max 1e-4]
                     [--asked ROWS.jsonl --answers FILE.jsonl ... --merged-answers FILE.jsonl
                      --vllm-answers FILE.jsonl --vllm-merged-answers FILE.jsonl]
    check_adapter.py gguf LORA.gguf ADAPTER_DIR MODEL_DIR [--logits OURS.bin] [--llama TOOL [--base BASE.gguf]]
    check_adapter.py golden CASE_DIR OUT.bin      the "logits" of a case of tests/golden/train as such a file

peft: the configuration holds only what every loader knows; PEFT finds exactly the file's tensors and takes their
values; OURS.bin (layout of golden.bin in tools/make_logit_golden.py: it has the token ids too) is within NMSE of PEFT's
float32 logits, and has the same best tokens. --merged: every weight of that model is PEFT's own merge in float32,
rounded once to the file's type, up to one unit in the last place where float32 summed in another order.
--answers: results of `generate` with the adapter, exported, for rows {"prompt": [ids], "max_tokens": 1, "logprobs": 20, "ignore_eos": true}:
their log-probabilities are within RMS_MAX of PEFT's in float32, and the base without the adapter is ten times as far off.
--merged-answers: the same of `generate` on the merged model, against transformers on that model.
--vllm-answers, --vllm-merged-answers: what vLLM said with the adapter, and of the merged model (tools/vllm_answers.py).
gguf: metadata, names and shapes are what llama.cpp's loader wants; scale * B and A are the adapter's (rows of q and k
in the pair order of architecture "llama"). --llama: TOOL (tools/llama_cpp_lora.c) runs it on BASE.gguf, or on MODEL_DIR
written as float32 GGUF by tools/hf_to_gguf.py; its logits are within NMSE of PEFT's, up to the length of a sliding
window, which llama.cpp ignores in this architecture. Needs the gguf package.
"""
import argparse
import glob
import json
import os
import struct
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "..", "tools"))
try:
    import numpy as np
    import peft
    import torch
    import transformers
    from safetensors.torch import load_file

    import hf_to_gguf
except ImportError as e:
    print("skipped: %s" % e)
    sys.exit(77)

RMS_MAX = 0.06  # bf16 weights of the adapter, bf16 activations; mean differences are 0.01 to 0.03 (docs/benchmarks.md)
VLLM_RMS_MAX = 0.12  # vLLM rounds logits to bf16 too
GGUF_PART = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
             "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
             "mlp.down_proj": "ffn_down"}
PLAIN = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "bias": "none", "fan_in_fan_out": False, "use_dora": False,
         "modules_to_save": None, "rank_pattern": {}, "alpha_pattern": {}, "layers_to_transform": None}


def need(true, text, *args):
    if not true:
        raise SystemExit("check_adapter: " + text % args)


def read_logits(path):
    """[(ids, positions, logits [n_pos, n_vocab])]"""
    with open(path, "rb") as f:
        data = f.read()
    magic, n_prompt, n_vocab = struct.unpack_from("<4sii", data)
    need(magic == b"NTLG", "%s: not a file of logits", path)
    at, out = 12, []
    for _ in range(n_prompt):
        n_tok, n_pos = struct.unpack_from("<ii", data, at)
        ints = np.frombuffer(data, "<i4", n_tok + n_pos, at + 8)
        at += 8 + ints.nbytes
        logits = np.frombuffer(data, "<f4", n_pos * n_vocab, at).reshape(n_pos, n_vocab)
        at += logits.nbytes
        out.append((ints[:n_tok].tolist(), ints[n_tok:].tolist(), torch.tensor(logits)))
    need(at == len(data), "%s: %d bytes, expected %d", path, len(data), at)
    return out


def write_logits(path, prompts):
    with open(path, "wb") as f:
        f.write(struct.pack("<4sii", b"NTLG", len(prompts), prompts[0][2].shape[1]))
        for ids, pos, logits in prompts:
            f.write(struct.pack("<ii", len(ids), len(pos)) + np.array(ids + pos, "<i4").tobytes())
            f.write(logits.numpy().astype("<f4").tobytes())


def read_model(folder):
    """{name: tensor} of a directory of safetensors"""
    out = {}
    for path in sorted(glob.glob(os.path.join(folder, "*.safetensors"))):
        out.update(load_file(path))
    need(out, "%s: no safetensors", folder)
    return out


def compare(what, got, want, limit):
    """NMSE within the limit; the best token may differ only where the two best are as near as the error."""
    got, want = torch.cat([x for x in got]), torch.cat([x for x in want])
    need(got.shape == want.shape, "%s: %s logits, expected %s", what, tuple(got.shape), tuple(want.shape))
    error = ((got - want) ** 2).sum().item() / (want ** 2).sum().item()
    bound = 2 * (got - want).abs().max(1).values
    top = want.topk(2).values
    wrong = ((got.argmax(1) != want.argmax(1)) & (top[:, 0] - top[:, 1] > bound)).sum().item()
    print("%s: NMSE %.2e over %d positions" % (what, error, len(got)))
    need(error <= limit and wrong == 0, "%s: NMSE %g above %g, or %d best tokens differ", what, error, limit, wrong)


def load_peft(adapter, model_dir):
    model = transformers.AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32,
                                                              attn_implementation="eager")
    return peft.PeftModel.from_pretrained(model, adapter).eval()


def peft_logits(model, prompts):
    with torch.no_grad():
        return [model(torch.tensor([ids])).logits[0, pos].float() for ids, pos, _ in prompts]


def check_files(adapter, model):
    """PEFT's own view of what it loaded is the file, tensor by tensor."""
    with open(os.path.join(adapter, "adapter_config.json")) as f:
        config = json.load(f)
    for key, value in PLAIN.items():
        need(config.get(key, value) == value, "adapter_config.json: %s is %s: some loaders refuse or ignore it", key,
             config.get(key))
    stored = load_file(os.path.join(adapter, "adapter_model.safetensors"))
    seen = peft.get_peft_model_state_dict(model)
    need(stored.keys() == seen.keys(), "tensors that only PEFT has %s, that only the file has %s",
         sorted(seen.keys() - stored.keys())[:3], sorted(stored.keys() - seen.keys())[:3])
    for name, x in stored.items():
        need(torch.equal(x.float(), seen[name].float()), "%s: PEFT loaded other values", name)
    print("peft %s: %d tensors, r %d, scale %g" % (peft.__version__, len(stored), config["r"], scale_of(config)))
    return stored, config


def scale_of(config):
    return config["lora_alpha"] / (config["r"] ** 0.5 if config.get("use_rslora") else config["r"])


def check_merged(model, folder, model_dir):
    base, merged = read_model(model_dir), read_model(folder)
    need(base.keys() == merged.keys(), "%s: other tensors than %s", folder, model_dir)
    want = model.merge_and_unload(safe_merge=True).state_dict()
    off, changed = 0, 0
    for name, got in merged.items():
        x = want[name].to(got.dtype)
        need(got.shape == x.shape, "%s: shape %s", name, tuple(got.shape))
        step = torch.nextafter(x.abs(), torch.full_like(x, float("inf"))).float() - x.abs().float()
        step += 2.0 ** -22 * base[name].float().abs()  # where base and delta cancel, their float32 roundings remain
        need(bool(((got.float() - x.float()).abs() <= step).all()), "%s: not the merge of base and adapter", name)
        off += (got != x).sum().item()
        changed += (got.float() != base[name].float()).sum().item()
    total = sum(x.numel() for x in merged.values())
    print("merged: %d of %d weights differ from the base, %d from PEFT's rounding" % (changed, total, off))
    need(off <= 1e-3 * total and changed > 0, "%s: %d weights are one unit off, or none changed", folder, off)


def read_lines(path):
    with open(path) as f:
        return [json.loads(line) for line in f]


def next_logprobs(model, rows):
    with torch.no_grad():
        return [torch.log_softmax(model(torch.tensor([row["prompt"]])).logits[0, -1].float(), 0) for row in rows]


def distance(what, path, want):
    """Root mean square over the alternatives of all answers; the best token is theirs, where that is clear."""
    answers = read_lines(path)
    need(len(answers) == len(want) > 0, "%s: %d answers, expected %d", path, len(answers), len(want))
    square, n, wrong = 0.0, 0, 0
    for answer, theirs in zip(answers, want):
        need(answer["status"] == 200, "%s: %s", path, answer["error"])
        top = answer["choices"][0]["top_logprobs"][0]
        ours = torch.tensor([lp for _, lp in top])
        square += ((ours - theirs[[i for i, _ in top]]) ** 2).sum().item()
        n += len(top)
        two = theirs.topk(2).values
        wrong += top[0][0] != theirs.argmax().item() and (two[0] - two[1]).item() > 4 * RMS_MAX
    rms = (square / n) ** 0.5
    print("%s: RMS of %d log-probabilities of %d answers %.4f" % (what, n, len(answers), rms))
    return rms, wrong


def check_answers(what, paths, want, limit=RMS_MAX):
    for path in paths:
        rms, wrong = distance("%s, %s" % (what, os.path.basename(path)), path, want)
        need(rms <= limit and wrong == 0, "%s: RMS %g above %g, or %d best tokens differ", path, rms, limit, wrong)


def run_answers(args, model):
    rows = read_lines(args.asked)
    if args.answers:
        want = next_logprobs(model, rows)
        check_answers("ours against PEFT", args.answers, want)
        check_answers("vLLM against PEFT", args.vllm_answers, want, VLLM_RMS_MAX)
        with model.disable_adapter():
            rms, _ = distance("against the base without the adapter", args.answers[0], next_logprobs(model, rows))
        need(rms > 10 * RMS_MAX, "the adapter changes too little for a comparison: RMS %g", rms)
    if args.merged_answers:
        merged = transformers.AutoModelForCausalLM.from_pretrained(args.merged, dtype=torch.float32,
                                                                   attn_implementation="eager").eval()
        want = next_logprobs(merged, rows)
        check_answers("merged, ours against transformers", args.merged_answers, want)
        check_answers("merged, vLLM against transformers", args.vllm_merged_answers, want, VLLM_RMS_MAX)


def run_peft(args):
    model = load_peft(args.adapter, args.model)
    check_files(args.adapter, model)
    if args.asked:
        run_answers(args, model)
    if args.logits:
        prompts = read_logits(args.logits)
        compare("ours against PEFT", [x for _, _, x in prompts], peft_logits(model, prompts), args.nmse_max)
    if args.merged:
        check_merged(model, args.merged, args.model)


def unpermute(b, n_head):
    """Rows of interleaved pairs back to halves, per head."""
    return b.reshape(n_head, b.shape[0] // n_head // 2, 2, -1).swapaxes(1, 2).reshape(b.shape)


def check_gguf(path, stored, config, base):
    import gguf
    reader = gguf.GGUFReader(path)

    def meta(key):
        return reader.fields[key].contents() if key in reader.fields else None

    for key, value in (("general.type", "adapter"), ("adapter.type", "lora"), ("general.architecture", base.arch)):
        need(meta(key) == value, "%s: %s is %r, expected %r", path, key, meta(key), value)
    alpha = meta("adapter.lora.alpha")
    found = {t.name: np.array(gguf.dequantize(t.data, t.tensor_type), np.float32) for t in reader.tensors}
    pairs = sorted(n[:-len(".lora_A.weight")] for n in stored if n.endswith(".lora_A.weight"))
    worst = 0
    for name in pairs:
        part = name.split(".layers.")[1].split(".", 1)
        gguf_name = "blk.%s.%s.weight" % (part[0], GGUF_PART[part[1]])
        a, b = (found.pop("%s.lora_%s" % (gguf_name, x), None) for x in "ab")
        need(a is not None and b is not None, "%s: %s.lora_a and .lora_b are missing", path, gguf_name)
        want_a, want_b = (stored["%s.lora_%s.weight" % (name, x)].float().numpy() for x in "AB")
        need(a.shape == want_a.shape and b.shape == want_b.shape, "%s: %s has another shape", path, gguf_name)
        if base.arch == "llama" and part[1][-6:] in ("q_proj", "k_proj"):
            b = unpermute(b, base.n_head if part[1][-6:] == "q_proj" else base.n_kv)
        scale = alpha / b.shape[1] if alpha else 1.0
        for x, y in ((a, want_a), (scale * b, scale_of(config) * want_b)):
            worst = max(worst, float(np.abs(x - y).max() / np.abs(y).max()))
    need(not found, "%s: tensors without a pair in the adapter: %s", path, sorted(found)[:3])
    print("gguf: %d pairs, alpha %s, largest relative difference %.1e" % (len(pairs), alpha, worst))
    need(worst < 1e-6, "%s: other values than the adapter's", path)


def run_llama(args, model):
    prompts = read_logits(args.logits) if args.logits else [
        ([(7 * i * i + 3 * i + 1) % model.config.vocab_size for i in range(80)], list(range(0, 80, 5)),
         torch.zeros(16, model.config.vocab_size))]
    window = model.config.sliding_window if model.config.model_type == "mistral" else None
    if window:
        keep = [[k for k, p in enumerate(pos) if p < window] for _, pos, _ in prompts]
        prompts = [(ids, [pos[i] for i in k], logits[k]) for (ids, pos, logits), k in zip(prompts, keep)]
    want = peft_logits(model, prompts)
    with tempfile.TemporaryDirectory() as tmp:
        base, ids, out = args.base or os.path.join(tmp, "base.gguf"), os.path.join(tmp, "in"), os.path.join(tmp, "out")
        if not args.base:
            hf_to_gguf.write(hf_to_gguf.Model(args.model), base, f32=True)
        write_logits(ids, prompts)
        done = subprocess.run([args.llama, base, args.gguf, ids, out], stderr=subprocess.PIPE, text=True)
        need(done.returncode == 0, "llama.cpp refuses the adapter:\n%s", done.stderr[-1500:])
        compare("llama.cpp against PEFT", [x for _, _, x in read_logits(out)], want, args.nmse_max)
    if args.logits:
        compare("ours against PEFT", [x for _, _, x in prompts], want, args.nmse_max)


def run_gguf(args):
    model = load_peft(args.adapter, args.model)
    stored, config = check_files(args.adapter, model)
    check_gguf(args.gguf, stored, config, hf_to_gguf.Model(args.model))
    if args.llama:
        run_llama(args, model)


def run_golden(args):
    with open(os.path.join(args.case, "case.json")) as f:
        case = json.load(f)
    logits = load_file(os.path.join(args.case, "golden.safetensors"))["logits"]
    write_logits(args.out, [(case["rows"][0]["ids"], case["logit_pos"], logits)])


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = ap.add_subparsers(required=True)
    for name, run, paths in (("peft", run_peft, ("adapter", "model")), ("gguf", run_gguf, ("gguf", "adapter", "model")),
                             ("golden", run_golden, ("case", "out"))):
        one = sub.add_parser(name)
        one.set_defaults(run=run)
        for path in paths:
            one.add_argument(path)
        if name != "golden":
            one.add_argument("--logits")
            one.add_argument("--nmse-max", type=float, default=1e-4)
        for option in ("answers", "merged-answers", "vllm-answers", "vllm-merged-answers") if name == "peft" else ():
            one.add_argument("--" + option, nargs="+", default=[])
        for option in {"peft": ["--merged", "--asked"],
                       "gguf": ["--llama", "--base"]}.get(name, []):
            one.add_argument(option)
    args = ap.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    args.run(args)


if __name__ == "__main__":
    main()
