#!/usr/bin/env python3
"""LoRA adapters for job tests, and the sums that merge must give: Python standard library only.

    lora.py make MODEL_DIR OUT [--rank 4] [--alpha 8] [--size 0.05] [--rslora] [--targets q_proj,...] [--layer N] [--base-sha256 HEX]
    lora.py check MODEL_DIR ADAPTER MERGED        every weight of MERGED is bf16(W + s B A) to half a step, or exits 1
    lora.py same MERGED MERGED2                   the same tensors bit for bit
"""
import argparse
import json
import math
import os
import random
import struct
import sys
from array import array

MODULES = {"q_proj": "self_attn", "k_proj": "self_attn", "v_proj": "self_attn", "o_proj": "self_attn", "gate_proj": "mlp",
           "up_proj": "mlp", "down_proj": "mlp"}


def read_file(path):
    """{name: (dtype, shape, bytes)} and the metadata of one safetensors file."""
    data = open(path, "rb").read()
    n, = struct.unpack("<Q", data[:8])
    head = json.loads(data[8:8 + n])
    meta = head.pop("__metadata__", {})
    at = 8 + n
    return {k: (v["dtype"], v["shape"], data[at + v["data_offsets"][0]:at + v["data_offsets"][1]]) for k, v in head.items()}, meta


def read_dir(path):
    files = [f for f in sorted(os.listdir(path)) if f.endswith(".safetensors")]
    out = {}
    for f in files:
        out.update(read_file(os.path.join(path, f))[0])
    return out


def floats(tensor):
    dtype, _, raw = tensor
    if dtype == "F32":
        out = array("f")
        out.frombytes(raw)
        return out
    half = array("H")
    half.frombytes(raw)
    if dtype == "BF16":
        out = array("f")
        out.frombytes(array("I", [h << 16 for h in half]).tobytes())
        return out
    return array("f", struct.unpack("<%de" % len(half), raw))


def make(args):
    rng = random.Random(args.seed)
    base = read_dir(args.model)
    header, blob = {"__metadata__": {"format": "pt"}}, b""
    if args.base_sha256:
        header["__metadata__"]["nocturne.base_sha256"] = args.base_sha256
    targets = args.targets.split(",") if args.targets else sorted(MODULES)
    for name, (_, shape, _) in sorted(base.items()):
        module = name[:-len(".weight")]
        if not name.endswith(".weight") or module.rsplit(".", 1)[-1] not in targets:
            continue
        if args.layer is not None and ".layers.%d." % args.layer not in name:
            continue
        for part, (rows, cols), size in (("A", (args.rank, shape[1]), 1 / math.sqrt(shape[1])),
                                         ("B", (shape[0], args.rank), args.size)):
            raw = array("f", [rng.uniform(-size, size) if size == size else size for _ in range(rows * cols)]).tobytes()
            header["base_model.model.%s.lora_%s.weight" % (module, part)] = {
                "dtype": "F32", "shape": [rows, cols], "data_offsets": [len(blob), len(blob) + len(raw)]}
            blob += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    os.makedirs(args.out)
    with open(os.path.join(args.out, "adapter_model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + blob)
    with open(os.path.join(args.out, "adapter_config.json"), "w") as f:
        json.dump({"peft_type": "LORA", "r": args.rank, "lora_alpha": args.alpha, "use_rslora": args.rslora,
                   "target_modules": targets, "layers_to_transform": None if args.layer is None else [args.layer], "bias": "none", "base_model_name_or_path": "tiny"}, f)


def check(args):
    base, merged = read_dir(args.model), read_dir(args.merged)
    lora, _ = read_file(os.path.join(args.adapter, "adapter_model.safetensors"))
    config = json.load(open(os.path.join(args.adapter, "adapter_config.json")))
    rank = config["r"]
    scale = config["lora_alpha"] / (math.sqrt(rank) if config["use_rslora"] else rank)
    assert set(base) == set(merged), set(base) ^ set(merged)
    n_lora = 0
    for name in base:
        assert merged[name][0] == "BF16" and merged[name][1] == base[name][1], name
        w, got = floats(base[name]), floats(merged[name])
        stem = "base_model.model." + name[:-len(".weight")] + ".lora_"
        want = [float(x) for x in w]
        if stem + "A.weight" in lora:
            n_lora += 2
            a, b = floats(lora[stem + "A.weight"]), floats(lora[stem + "B.weight"])
            out, inp = base[name][1]
            for i in range(out):
                for k in range(rank):
                    f = scale * b[i * rank + k]
                    for j in range(inp):
                        want[i * inp + j] += f * a[k * inp + j]
        for i, (x, y) in enumerate(zip(want, got)):
            step = 2.0 ** (math.frexp(y)[1] - 8) if y else 0.0
            assert abs(x - y) <= 0.5 * step + 4e-6 * max(abs(float(w[i])), abs(x - w[i])), (name, i, float(w[i]), x, y)
    assert n_lora == len(lora), (n_lora, len(lora))


def same(args):
    a, b = read_dir(args.merged), read_dir(args.other)
    assert set(a) == set(b), set(a) ^ set(b)
    for name in a:
        assert a[name] == b[name], name


def main():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    p = commands.add_parser("make")
    p.add_argument("model")
    p.add_argument("out")
    p.add_argument("--rank", type=int, default=4)
    p.add_argument("--alpha", type=float, default=8)
    p.add_argument("--size", type=float, default=0.05)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--rslora", action="store_true")
    p.add_argument("--targets")
    p.add_argument("--layer", type=int, help="this layer alone")
    p.add_argument("--base-sha256")
    p = commands.add_parser("check")
    p.add_argument("model")
    p.add_argument("adapter")
    p.add_argument("merged")
    p = commands.add_parser("same")
    p.add_argument("merged")
    p.add_argument("other")
    args = parser.parse_args()
    {"make": make, "check": check, "same": same}[args.command](args)


if __name__ == "__main__":
    sys.exit(main())
