#!/usr/bin/env python3
"""Writes a Hugging Face directory as one GGUF file, for tests: Python standard library only.

    hf_to_gguf.py MODEL_DIR OUT.gguf [--f32]

Families llama, mistral, qwen2 and qwen3; single or sharded safetensors of F32, F16 or BF16. Matrices keep their type
(--f32: become F32, with which llama.cpp does not round activations), vectors become F32. As llama.cpp's converter does:
rows of q and k are put in pair order for general.architecture "llama", llama3 rope scaling becomes the divisors of
rope_freqs.weight, a tied head is left out. A tokenizer is not written; sliding windows that only some layers have
cannot be written and are refused.
"""
import json
import math
import os
import struct
import sys
from array import array

sys.dont_write_bytecode = True
from make_tiny_model import GGML_IDS, gguf_name, gguf_string, gguf_value  # noqa: E402

ARCH = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}


def read_safetensors(folder):
    """{name: (dtype, shape, bytes)} of all shards."""
    index = os.path.join(folder, "model.safetensors.index.json")
    files = ["model.safetensors"]
    if os.path.exists(index):
        with open(index) as f:
            files = sorted(set(json.load(f)["weight_map"].values()))
    out = {}
    for name in files:
        with open(os.path.join(folder, name), "rb") as f:
            data = f.read()
        n = struct.unpack_from("<Q", data)[0]
        for tensor, info in json.loads(data[8:8 + n]).items():
            if tensor != "__metadata__":
                begin, end = info["data_offsets"]
                out[tensor] = (info["dtype"].lower(), info["shape"], data[8 + n + begin:8 + n + end])
    return out


def to_f32(dtype, blob):
    if dtype == "f32":
        return array("f", blob)
    if dtype == "f16":
        return array("f", struct.unpack("<%de" % (len(blob) // 2), blob))
    return array("f", array("I", [h << 16 for h in array("H", blob)]).tobytes())


def permute(dtype, blob, n_head, d_head):
    """Halves to interleaved pairs, per head of d_head rows."""
    values = array("I" if dtype == "f32" else "H", blob)
    rows = n_head * d_head
    cols = len(values) // rows
    out = array(values.typecode)
    for h in range(n_head):
        for j in range(d_head):
            row = h * d_head + (j // 2 if j % 2 == 0 else j // 2 + d_head // 2)
            out += values[row * cols:(row + 1) * cols]
    return out.tobytes()


def llama3_divisors(rope, theta, d_head, context):
    out = array("f")
    length = rope.get("original_max_position_embeddings", context)
    for j in range(d_head // 2):
        ratio = length / (2.0 * math.pi * theta ** (2.0 * j / d_head))
        smooth = (ratio - rope["low_freq_factor"]) / (rope["high_freq_factor"] - rope["low_freq_factor"])
        out.append(1.0 if ratio > rope["high_freq_factor"] else rope["factor"] if ratio < rope["low_freq_factor"]
                   else 1.0 / ((1.0 - smooth) / rope["factor"] + smooth))
    return out


class Model:
    def __init__(self, folder):
        with open(os.path.join(folder, "config.json")) as f:
            self.config = c = json.load(f)
        self.arch = ARCH[c["model_type"]]
        self.n_head = c["num_attention_heads"]
        self.n_kv = c.get("num_key_value_heads") or self.n_head
        self.d_head = c.get("head_dim") or c["hidden_size"] // self.n_head
        rope = c.get("rope_parameters") or c.get("rope_scaling") or {}
        self.theta = rope.get("rope_theta") or c.get("rope_theta", 10000.0)
        self.rope_type = rope.get("rope_type") or rope.get("type") or "default"
        self.rope = rope
        self.tensors = read_safetensors(folder)
        if c.get("hidden_act", "silu") != "silu":
            raise SystemExit("hf_to_gguf: %s: the container has no key for this activation" % c["hidden_act"])

    def window(self):
        c = self.config
        window = c.get("sliding_window")
        if self.arch.startswith("qwen"):
            first = c.get("max_window_layers", 28)
            window = window if c.get("use_sliding_window") and first < c["num_hidden_layers"] else None
            if window and first > 0:
                raise SystemExit("hf_to_gguf: a window on some layers only has no place in this container")
        return window

    def metadata(self):
        c, a = self.config, self.arch
        kv = [
            ("general.architecture", "str", a), ("general.type", "str", "model"), ("general.alignment", "u32", 32),
            (a + ".block_count", "u32", c["num_hidden_layers"]),
            (a + ".context_length", "u32", c["max_position_embeddings"]),
            (a + ".embedding_length", "u32", c["hidden_size"]),
            (a + ".feed_forward_length", "u32", c["intermediate_size"]),
            (a + ".attention.head_count", "u32", self.n_head), (a + ".attention.head_count_kv", "u32", self.n_kv),
            (a + ".attention.layer_norm_rms_epsilon", "f32", c["rms_norm_eps"]),
            (a + ".attention.key_length", "u32", self.d_head), (a + ".attention.value_length", "u32", self.d_head),
            (a + ".rope.dimension_count", "u32", self.d_head), (a + ".rope.freq_base", "f32", self.theta),
            (a + ".vocab_size", "u32", c["vocab_size"]),
        ]
        if self.rope_type in ("linear", "yarn"):
            kv += [(a + ".rope.scaling.type", "str", self.rope_type),
                   (a + ".rope.scaling.factor", "f32", self.rope["factor"])]
        if self.rope_type == "yarn":
            kv.append((a + ".rope.scaling.original_context_length", "u32",
                       self.rope["original_max_position_embeddings"]))
        if self.window():
            kv.append((a + ".attention.sliding_window", "u32", self.window()))
        for key in ("bos", "eos"):
            ids = c.get(key + "_token_id")
            if isinstance(ids, int):
                kv.append(("tokenizer.ggml.%s_token_id" % key, "u32", ids))
        return kv

    def gguf_tensors(self, f32):
        out = []
        if self.rope_type == "llama3":
            divisors = llama3_divisors(self.rope, self.theta, self.d_head, self.config["max_position_embeddings"])
            out.append(("rope_freqs.weight", [len(divisors)], "f32", divisors.tobytes()))
        for name, (dtype, shape, blob) in sorted(self.tensors.items()):
            if name == "lm_head.weight" and self.config.get("tie_word_embeddings"):
                continue
            if f32 or len(shape) == 1:
                dtype, blob = "f32", to_f32(dtype, blob).tobytes()
            if self.arch == "llama" and (".q_proj." in name or ".k_proj." in name):
                blob = permute(dtype, blob, self.n_head if ".q_proj." in name else self.n_kv, self.d_head)
            out.append((gguf_name(name), shape, dtype, blob))
        return out


def write(model, path, f32=False):
    kv, tensors = model.metadata(), model.gguf_tensors(f32)
    head = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(kv)))
    for key, kind, value in kv:
        head += gguf_string(key) + gguf_value(kind, value)
    at = 0
    for name, shape, dtype, blob in tensors:
        head += gguf_string(name) + struct.pack("<I", len(shape))
        head += b"".join(struct.pack("<Q", n) for n in reversed(shape)) + struct.pack("<IQ", GGML_IDS[dtype], at)
        at += len(blob) + -len(blob) % 32
    head += b"\0" * (-len(head) % 32)
    with open(path, "wb") as f:
        f.write(head)
        for _, _, _, blob in tensors:
            f.write(blob + b"\0" * (-len(blob) % 32))


if __name__ == "__main__":
    if len(sys.argv) != 3 and sys.argv[3:] != ["--f32"]:
        raise SystemExit(__doc__)
    write(Model(sys.argv[1]), sys.argv[2], len(sys.argv) == 4)
