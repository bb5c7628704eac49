#!/usr/bin/env python3
"""Writes a tiny random language model for tests: Python standard library only, the same bytes for the same options.

    make_tiny_model.py OUT_DIR [--family smollm2|llama|mistral|qwen2|qwen3] [--dtype bf16|f16|f32] [--sharded N]
                       [--gguf FILE.gguf [--gguf-type f32|f16|bf16|q8_0|q4_0|q4_1|q5_0|q5_1]]

OUT_DIR becomes a Hugging Face directory: config.json, generation_config.json, tokenizer.json (byte-level BPE trained
here on TEXT), tokenizer_config.json (ChatML template) and safetensors. --gguf writes the same model as GGUF with the
tokenizer in its metadata, and q/k rows permuted where llama.cpp's architecture wants that. Mistral's sliding window is
written to GGUF too, as llama.attention.sliding_window, which llama.cpp itself ignores: the two agree up to its length.

Every weight is a bfloat16 number that float16 and float32 hold exactly, so all unquantized variants are the same model.
Scales: embeddings and head 2/sqrt(d_model), matrices 1/sqrt(inputs), twice that for the two that write the residual
stream (or tied models would only repeat their last token). Logits get a standard deviation of about 2, so the best two
are usually far enough apart for greedy decoding to be the same in any order of summation.
"""
import argparse
import json
import math
import os
import random
import re
import struct
from array import array

TEXT = """
The night train leaves the harbour at nine and crosses the long bridge before the city lights go out. In the last
carriage a clerk counts letters, sorts them by street, and writes the number of each bundle on a slip of paper.
Nobody talks to the clerk, but everyone on the line knows the lamp in that window. When the train stops at the mill,
the miller's daughter brings bread and asks what the letters say. The clerk answers that letters are not read here,
they are only carried. She laughs and says that is what all clerks say. There are forty stations between the harbour
and the mountains. At some of them no one waits, and the train goes through without stopping; at others there is a
crowd with baskets, dogs, bicycles and a brass band. The driver keeps a small book with the time of every stop, and
if the train is late he writes the reason: snow on the rails, a cow, a wedding. Once he wrote only the word stars.
What is the capital of the country? How do I write a function that returns the sum of two numbers? Please explain in
one sentence why the sky is blue. You are a helpful assistant. Tell me a story about a river and a stone. The answer
is short: because light from the sun is scattered by the air, and the blue part is scattered most. def add(a, b):
return a + b. for i in range(10): print(i). It's what they're saying, isn't it? I'm sure we'll see that you've done it.
user assistant system question answer summary translate the following text into another language and list three
reasons. First, second, third. The stone asked the river where it was going. To the sea, said the river, where else?
"""

SMOLLM2_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
CHATML_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")

LLAMA3_REGEX = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2_REGEX = LLAMA3_REGEX.replace(r"\p{N}{1,3}", r"\p{N}")

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]

# regex: pre-tokenizer kind; pre: its name in GGUF; head_dim_explicit: d_head is a setting of its own.
FAMILIES = {
    "smollm2": dict(arch="LlamaForCausalLM", model_type="llama", gguf="llama", theta=100000.0, eps=1e-5, tie=True,
                    pre="smollm", specials_first=True, template=SMOLLM2_TEMPLATE),
    "llama": dict(arch="LlamaForCausalLM", model_type="llama", gguf="llama", theta=500000.0, eps=1e-5, tie=False,
                  pre="llama-bpe", regex=LLAMA3_REGEX, llama3_scaling=True),
    "mistral": dict(arch="MistralForCausalLM", model_type="mistral", gguf="llama", theta=10000.0, eps=1e-5, tie=False,
                    pre="gpt-2", explicit_head=True, window=True),
    "qwen2": dict(arch="Qwen2ForCausalLM", model_type="qwen2", gguf="qwen2", theta=1000000.0, eps=1e-6, tie=False,
                  pre="qwen2", regex=QWEN2_REGEX, nfc=True, bias=True, eos_list=True),
    "qwen3": dict(arch="Qwen3ForCausalLM", model_type="qwen3", gguf="qwen3", theta=1000000.0, eps=1e-6, tie=True,
                  pre="qwen2", regex=QWEN2_REGEX, nfc=True, qk_norm=True, explicit_head=True, new_style=True),
}


# ---------------------------------------------------------------------------------------------------- tokenizer

def byte_letters():
    """GPT-2's printable stand-in for each byte."""
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    table, extra = {}, 0
    for b in range(256):
        if b in keep:
            table[b] = chr(b)
        else:
            table[b] = chr(256 + extra)
            extra += 1
    return table


def train_bpe(n_merges):
    """Plain BPE: the most frequent pair first, ties by text order. Returns (base letters, merges)."""
    letters = byte_letters()
    counts = {}
    for word in re.findall(r"'(?:s|t|re|ve|m|ll|d)| ?[A-Za-z]+| ?[0-9]| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+",
                           TEXT.replace("\n", " ")):
        key = tuple(letters[b] for b in word.encode())
        counts[key] = counts.get(key, 0) + 1
    merges = []
    while len(merges) < n_merges:
        pairs = {}
        for word, n in counts.items():
            for pair in zip(word, word[1:]):
                pairs[pair] = pairs.get(pair, 0) + n
        if not pairs:
            break
        best = max(sorted(pairs), key=lambda p: pairs[p])
        merges.append(best)
        merged = {}
        for word, n in counts.items():
            out, i = [], 0
            while i < len(word):
                if i + 1 < len(word) and (word[i], word[i + 1]) == best:
                    out.append(word[i] + word[i + 1])
                    i += 2
                else:
                    out.append(word[i])
                    i += 1
            merged[tuple(out)] = merged.get(tuple(out), 0) + n
        counts = merged
    return [letters[b] for b in sorted(letters, key=lambda b: letters[b])], merges


class Tokenizer:
    def __init__(self, fam, n_vocab, n_pad):
        n_merges = n_vocab - n_pad - 256 - len(SPECIALS)
        if n_merges < 0:
            raise SystemExit("make_tiny_model: --vocab must be at least %d" % (256 + len(SPECIALS) + n_pad))
        base, self.merges = train_bpe(n_merges)
        ordinary = base + [a + b for a, b in self.merges]
        self.tokens = SPECIALS + ordinary if fam.get("specials_first") else ordinary + SPECIALS
        self.id = {t: i for i, t in enumerate(self.tokens)}
        self.n_vocab = n_vocab
        self.fam = fam

    def write_json(self, folder):
        fam = self.fam
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        if fam["pre"] == "smollm":
            pre = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level]}
        elif "regex" in fam:
            split = {"type": "Split", "pattern": {"Regex": fam["regex"]}, "behavior": "Isolated", "invert": False}
            pre = {"type": "Sequence", "pretokenizers": [split, dict(byte_level, use_regex=False)]}
        else:
            pre = byte_level
        special = set(SPECIALS)
        vocab = {t: i for t, i in self.id.items() if fam.get("specials_first") or t not in special}
        merges = [list(m) for m in self.merges] if fam.get("new_style") else ["%s %s" % m for m in self.merges]
        doc = {
            "version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [{"id": self.id[s], "content": s, "single_word": False, "lstrip": False, "rstrip": False,
                              "normalized": False, "special": True} for s in sorted(SPECIALS, key=self.id.get)],
            "normalizer": {"type": "NFC"} if fam.get("nfc") else None,
            "pre_tokenizer": pre,
            "post_processor": None,
            "decoder": dict(byte_level, add_prefix_space=True),
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                      "ignore_merges": fam["pre"] == "llama-bpe", "vocab": vocab, "merges": merges},
        }
        write_json(folder, "tokenizer.json", doc)
        write_json(folder, "tokenizer_config.json", {
            "add_prefix_space": False,
            "added_tokens_decoder": {str(t["id"]): {k: v for k, v in t.items() if k != "id"}
                                     for t in doc["added_tokens"]},
            "bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "unk_token": None,
            "chat_template": fam.get("template", CHATML_TEMPLATE), "clean_up_tokenization_spaces": False,
            "model_max_length": 1000000, "tokenizer_class": "PreTrainedTokenizerFast"})

    def gguf_kv(self):
        n_pad = self.n_vocab - len(self.tokens)
        special = set(SPECIALS)
        types = [3 if t in special else 1 for t in self.tokens] + [5] * n_pad
        tokens = self.tokens + ["[PAD%d]" % (len(self.tokens) + i) for i in range(n_pad)]
        return [
            ("tokenizer.ggml.model", "str", "gpt2"),
            ("tokenizer.ggml.pre", "str", self.fam["pre"]),
            ("tokenizer.ggml.tokens", "[str]", tokens),
            ("tokenizer.ggml.token_type", "[i32]", types),
            ("tokenizer.ggml.merges", "[str]", ["%s %s" % m for m in self.merges]),
            ("tokenizer.ggml.bos_token_id", "u32", self.id["<|im_start|>"]),
            ("tokenizer.ggml.eos_token_id", "u32", self.id["<|im_end|>"]),
            ("tokenizer.ggml.padding_token_id", "u32", self.id["<|endoftext|>"]),
            ("tokenizer.ggml.add_bos_token", "bool", False),
            ("tokenizer.ggml.add_space_prefix", "bool", False),
            ("tokenizer.chat_template", "str", self.fam.get("template", CHATML_TEMPLATE)),
        ]


# ------------------------------------------------------------------------------------------------------ weights

def round_bf16(values):
    """To the nearest bfloat16; what float16 could not hold exactly becomes 0."""
    bits = array("I", array("f", values).tobytes())
    bits = array("I", [((b + 0x7FFF + ((b >> 16) & 1)) >> 16) << 16 for b in bits])
    return array("f", [0.0 if -2.0 ** -16 < v < 2.0 ** -16 else v for v in array("f", bits.tobytes())])


def normal(args, name, n, scale, mean=0.0):
    rng = random.Random("%d/%s/%s" % (args.seed, args.family, name))
    return round_bf16([mean + scale * rng.gauss(0.0, 1.0) for _ in range(n)])


def matrix(args, name, rows, cols, scale=None, used_rows=None):
    """rows x cols; rows from used_rows on are zero (embedding rows without a token)."""
    values = normal(args, name, rows * cols, scale or 1.0 / math.sqrt(cols))
    for i in range((used_rows if used_rows is not None else rows) * cols, rows * cols):
        values[i] = 0.0
    return name, [rows, cols], values


def make_weights(args, fam, n_used):
    """List of (HF name, shape, float32 values)."""
    d, f, h, kv, dh = args.d_model, args.d_ff, args.heads, args.kv, args.d_head
    out = [matrix(args, "model.embed_tokens.weight", args.vocab, d, 2.0 / math.sqrt(d), n_used)]
    for i in range(args.layers):
        p = "model.layers.%d." % i
        out += [
            (p + "input_layernorm.weight", [d], normal(args, p + "n1", d, 0.1, 1.0)),
            (p + "post_attention_layernorm.weight", [d], normal(args, p + "n2", d, 0.1, 1.0)),
            matrix(args, p + "self_attn.q_proj.weight", h * dh, d),
            matrix(args, p + "self_attn.k_proj.weight", kv * dh, d),
            matrix(args, p + "self_attn.v_proj.weight", kv * dh, d),
            matrix(args, p + "self_attn.o_proj.weight", d, h * dh, 2.0 / math.sqrt(h * dh)),
            matrix(args, p + "mlp.gate_proj.weight", f, d),
            matrix(args, p + "mlp.up_proj.weight", f, d),
            matrix(args, p + "mlp.down_proj.weight", d, f, 2.0 / math.sqrt(f)),
        ]
        if fam.get("bias"):
            out += [(p + "self_attn.%s_proj.bias" % x, [n * dh], normal(args, p + x + "bias", n * dh, 0.3))
                    for x, n in (("q", h), ("k", kv), ("v", kv))]
        if fam.get("qk_norm"):
            out += [(p + "self_attn.%s_norm.weight" % x, [dh], normal(args, p + x + "norm", dh, 0.1, 1.0)) for x in "qk"]
    out.append(("model.norm.weight", [d], normal(args, "norm", d, 0.1, 1.0)))
    if not args.tie:
        out.append(matrix(args, "lm_head.weight", args.vocab, d, 2.0 / math.sqrt(d), n_used))
    return out


def to_bytes(values, kind):
    if kind == "f32":
        return values.tobytes()
    if kind == "bf16":
        return array("H", [b >> 16 for b in array("I", values.tobytes())]).tobytes()
    if kind == "f16":
        return struct.pack("<%de" % len(values), *values)
    return quantize(values, kind)


def quantize(values, kind):
    """Blocks of 32, scales from the extremes (GGUF Q8_0, Q4_0, Q4_1, Q5_0, Q5_1)."""
    out = bytearray()
    for at in range(0, len(values), 32):
        x = values[at:at + 32]
        half = lambda v: struct.unpack("<e", struct.pack("<e", v))[0]
        if kind == "q8_0":
            d = half(max(abs(v) for v in x) / 127)
            out += struct.pack("<e32b", d, *[max(-127, min(127, round(v / d))) if d else 0 for v in x])
            continue
        top = 31 if kind[1] == "5" else 15
        if kind.endswith("_0"):
            extreme = max(x, key=abs)
            d, m = half(extreme / -((top + 1) // 2)), None
            q = [max(0, min(top, int(v / d + (top + 1) // 2 + 0.5))) if d else (top + 1) // 2 for v in x]
        else:
            m = half(min(x))
            d = half((max(x) - m) / top)
            q = [max(0, min(top, round((v - m) / d))) if d else 0 for v in x]
        out += struct.pack("<e", d) if m is None else struct.pack("<ee", d, m)
        if top == 31:
            out += struct.pack("<I", sum((c >> 4) << j for j, c in enumerate(q)))
        out += bytes((q[j] & 15) | ((q[j + 16] & 15) << 4) for j in range(16))
    return bytes(out)


# ------------------------------------------------------------------------------------------- Hugging Face files

def write_json(folder, name, doc):
    with open(os.path.join(folder, name), "w", encoding="utf-8", newline="\n") as f:
        json.dump(doc, f, ensure_ascii=False, indent=2)
        f.write("\n")


def write_safetensors(path, tensors, kind):
    header, blobs, at = {"__metadata__": {"format": "pt"}}, [], 0
    for name, shape, values in sorted(tensors):
        blob = to_bytes(values, kind)
        header[name] = {"dtype": kind.upper(), "shape": shape, "data_offsets": [at, at + len(blob)]}
        blobs.append(blob)
        at += len(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))
    return at


def write_weights(args, weights):
    if args.sharded <= 1:
        write_safetensors(os.path.join(args.out, "model.safetensors"), weights, args.dtype)
        return
    names, total = {}, 0
    for s in range(args.sharded):
        part = weights[s * len(weights) // args.sharded:(s + 1) * len(weights) // args.sharded]
        name = "model-%05d-of-%05d.safetensors" % (s + 1, args.sharded)
        total += write_safetensors(os.path.join(args.out, name), part, args.dtype)
        names.update({t[0]: name for t in part})
    write_json(args.out, "model.safetensors.index.json",
               {"metadata": {"total_size": total}, "weight_map": dict(sorted(names.items()))})


def rope_scaling(args):
    return {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": args.context // 8}


def write_config(args, fam, tok):
    eos = tok.id["<|im_end|>"]
    if fam.get("eos_list"):
        eos = [eos, tok.id["<|endoftext|>"]]
    torch_name = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}[args.dtype]
    doc = {
        "architectures": [fam["arch"]], "model_type": fam["model_type"], "hidden_size": args.d_model,
        "intermediate_size": args.d_ff, "num_hidden_layers": args.layers, "num_attention_heads": args.heads,
        "num_key_value_heads": args.kv, "vocab_size": args.vocab, "max_position_embeddings": args.context,
        "rms_norm_eps": fam["eps"], "hidden_act": "silu", "tie_word_embeddings": args.tie, "attention_dropout": 0.0,
        "initializer_range": 0.02, "use_cache": True, "bos_token_id": tok.id["<|im_start|>"], "eos_token_id": eos,
    }
    if fam.get("new_style"):  # transformers 5 spelling
        doc.update({"dtype": torch_name, "rope_parameters": {"rope_type": "default", "rope_theta": fam["theta"]}})
    else:
        doc.update({"torch_dtype": torch_name, "rope_theta": fam["theta"]})
        doc["rope_scaling"] = rope_scaling(args) if fam.get("llama3_scaling") else None
    if fam.get("explicit_head"):
        doc["head_dim"] = args.d_head
    if fam["model_type"] in ("llama", "qwen3"):
        doc["attention_bias"] = False
    if fam["model_type"] == "llama":
        doc["mlp_bias"] = False
    if fam["model_type"] == "mistral":
        doc["sliding_window"] = args.window or None
    if fam["model_type"].startswith("qwen"):
        doc.update({"use_sliding_window": False, "sliding_window": None, "max_window_layers": args.layers})
    write_json(args.out, "config.json", doc)
    write_json(args.out, "generation_config.json", {
        "bos_token_id": tok.id["<|im_start|>"], "eos_token_id": eos, "pad_token_id": tok.id["<|endoftext|>"]})


# --------------------------------------------------------------------------------------------------------- GGUF

GGUF_TYPES = {"u32": (4, "<I"), "i32": (5, "<i"), "f32": (6, "<f"), "bool": (7, "<?"), "str": (8, None)}
GGML_IDS = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "bf16": 30}
FILE_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q5_1": 9, "bf16": 32}
GGUF_NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
              "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
              "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
              "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}


def gguf_name(name):
    fixed = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
             "lm_head.weight": "output.weight"}
    if name in fixed:
        return fixed[name]
    _, _, layer, rest = name.split(".", 3)
    stem, ending = rest.rsplit(".", 1)
    return "blk.%s.%s.%s" % (layer, GGUF_NAMES[stem], ending)


def permute_heads(values, n_head, d_head):
    """HF row order (halves) to interleaved pairs, per head; cols follow from the length."""
    rows = n_head * d_head
    cols = len(values) // rows
    out = array("f")
    for h in range(n_head):
        for j in range(d_head):
            row = h * d_head + (j // 2 if j % 2 == 0 else j // 2 + d_head // 2)
            out += values[row * cols:(row + 1) * cols]
    return out


def gguf_string(s):
    raw = s.encode()
    return struct.pack("<Q", len(raw)) + raw


def gguf_value(kind, value):
    if kind.startswith("["):
        kind = kind[1:-1]
        return struct.pack("<IIQ", 9, GGUF_TYPES[kind][0], len(value)) + b"".join(gguf_item(kind, v) for v in value)
    return struct.pack("<I", GGUF_TYPES[kind][0]) + gguf_item(kind, value)


def gguf_item(kind, value):
    return gguf_string(value) if kind == "str" else struct.pack(GGUF_TYPES[kind][1], value)


def gguf_metadata(args, fam, tok):
    a = fam["gguf"]
    kv = [
        ("general.architecture", "str", a), ("general.type", "str", "model"),
        ("general.name", "str", "tiny %s" % args.family), ("general.file_type", "u32", FILE_TYPES[args.gguf_type]),
        ("general.quantization_version", "u32", 2), ("general.alignment", "u32", 32),
        (a + ".block_count", "u32", args.layers), (a + ".context_length", "u32", args.context),
        (a + ".embedding_length", "u32", args.d_model), (a + ".feed_forward_length", "u32", args.d_ff),
        (a + ".attention.head_count", "u32", args.heads), (a + ".attention.head_count_kv", "u32", args.kv),
        (a + ".attention.layer_norm_rms_epsilon", "f32", fam["eps"]), (a + ".rope.freq_base", "f32", fam["theta"]),
        (a + ".vocab_size", "u32", args.vocab), (a + ".rope.dimension_count", "u32", args.d_head),
        (a + ".attention.key_length", "u32", args.d_head), (a + ".attention.value_length", "u32", args.d_head),
    ]
    if fam.get("window") and args.window:
        kv.append((a + ".attention.sliding_window", "u32", args.window))
    return kv + tok.gguf_kv()


def gguf_tensors(args, fam, weights):
    """List of (name, shape, type, bytes)."""
    out = []
    if fam.get("llama3_scaling"):
        out.append(("rope_freqs.weight", [args.d_head // 2], "f32", llama3_divisors(args, fam).tobytes()))
    for name, shape, values in weights:
        if fam["gguf"] == "llama" and (".q_proj." in name or ".k_proj." in name):
            values = permute_heads(values, args.heads if ".q_proj." in name else args.kv, args.d_head)
        kind = args.gguf_type if len(shape) == 2 else "f32"
        if kind.startswith("q") and shape[-1] % 32:
            kind = "f16"
        out.append((gguf_name(name), shape, kind, to_bytes(values, kind)))
    return out


def llama3_divisors(args, fam):
    s, out = rope_scaling(args), array("f")
    for j in range(args.d_head // 2):
        wavelen = 2.0 * math.pi * fam["theta"] ** (2.0 * j / args.d_head)
        ratio = s["original_max_position_embeddings"] / wavelen
        smooth = (ratio - s["low_freq_factor"]) / (s["high_freq_factor"] - s["low_freq_factor"])
        if ratio > s["high_freq_factor"]:
            out.append(1.0)
        elif ratio < s["low_freq_factor"]:
            out.append(s["factor"])
        else:
            out.append(1.0 / ((1.0 - smooth) / s["factor"] + smooth))
    return out


def write_gguf(args, fam, tok, weights):
    kv = gguf_metadata(args, fam, tok)
    tensors = gguf_tensors(args, fam, weights)
    head = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(kv)))
    for key, kind, value in kv:
        head += gguf_string(key) + gguf_value(kind, value)
    at = 0
    for name, shape, kind, blob in tensors:
        head += gguf_string(name) + struct.pack("<I", len(shape))
        head += b"".join(struct.pack("<Q", n) for n in reversed(shape)) + struct.pack("<IQ", GGML_IDS[kind], at)
        at += len(blob) + -len(blob) % 32
    head += b"\0" * (-len(head) % 32)
    with open(args.gguf, "wb") as f:
        f.write(head)
        for _, _, _, blob in tensors:
            f.write(blob + b"\0" * (-len(blob) % 32))


# --------------------------------------------------------------------------------------------------------- main

def parse_args():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("out", help="directory to write")
    p.add_argument("--family", choices=sorted(FAMILIES), default="smollm2")
    p.add_argument("--layers", type=int, default=2)
    p.add_argument("--heads", type=int, default=9)
    p.add_argument("--kv", type=int, default=3, help="KV heads; a divisor of --heads")
    p.add_argument("--d-head", type=int, default=16)
    p.add_argument("--d-model", type=int, help="default: heads * d_head; less by 24 in families with their own head_dim")
    p.add_argument("--d-ff", type=int, default=200)
    p.add_argument("--vocab", type=int, default=509, help="embedding rows")
    p.add_argument("--pad-rows", type=int, default=3, help="embedding rows without a token")
    p.add_argument("--context", type=int, default=2048)
    p.add_argument("--window", type=int, default=48, help="sliding window (mistral); 0: none")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--tie", action=argparse.BooleanOptionalAction, help="share embedding and head; default: by family")
    p.add_argument("--dtype", choices=["f32", "f16", "bf16"], default="bf16")
    p.add_argument("--sharded", type=int, default=1, metavar="N", help="number of safetensors files")
    p.add_argument("--gguf", metavar="FILE", help="also write the model as GGUF")
    p.add_argument("--gguf-type", choices=sorted(GGML_IDS), default="bf16", help="of matrices; vectors are f32")
    args = p.parse_args()
    fam = FAMILIES[args.family]
    if args.d_model is None:
        args.d_model = args.heads * args.d_head - (24 if fam.get("explicit_head") else 0)
    if args.tie is None:
        args.tie = fam["tie"]
    if args.heads % args.kv or args.d_head % 2:
        p.error("--heads must be a multiple of --kv and --d-head even")
    if not fam.get("explicit_head") and args.d_model != args.heads * args.d_head:
        p.error("family %s has d_model = heads * d_head" % args.family)
    return args, fam


def main():
    args, fam = parse_args()
    os.makedirs(args.out, exist_ok=True)
    tok = Tokenizer(fam, args.vocab, args.pad_rows)
    weights = make_weights(args, fam, len(tok.tokens))
    tok.write_json(args.out)
    write_config(args, fam, tok)
    write_weights(args, weights)
    if args.gguf:
        write_gguf(args, fam, tok, weights)


if __name__ == "__main__":
    main()
