#!/usr/bin/env python3
"""Writes tests/golden/logits: tiny random models saved by transformers itself, and its float32 logits.

    make_logit_golden.py [--out tests/golden/logits] [--only CASE]      needs torch and transformers
    make_logit_golden.py --real MODEL.gguf [--llama OUT.bin --llama-version COMMIT] [--text data/alice.txt]
                                                                        needs the gguf package too

One folder per case: config.json and safetensors as save_pretrained writes them (some configs are then respelled as
transformers 4 did), and golden.bin. versions.json names the versions. Weights are rounded to bfloat16 first and hold in
float16 and float32 exactly, so the reference differs from a bf16 engine only in the rounding of activations.

golden.bin, little-endian: "NTLG" | i32 n_prompt, n_vocab | per prompt: i32 n_tok, n_pos, ids[n_tok], pos[n_pos],
f32 logits[n_pos, n_vocab].

--real writes tests/golden/real.bin: the token log-probabilities of a text under a real model, in float32 with the
weights rounded to bfloat16, and those of transformers' own bf16 run and of llama.cpp on the same weights beside them
(OUT.bin of tools/llama_cpp_logprobs.c, which reads the ids of an earlier real.bin; without --llama the ones already in
real.bin are kept). n = n_tok - 1, row i predicts ids[i + 1]; margin: float32 logit of the best token less the second.
real.bin: "NTLR" | i32 n_tok | ids[n_tok] | f32 float32_logprob[n] | f32 bf16_logprob[n] | f32 llama_logprob[n] |
i32 float32_best[n] | f32 float32_margin[n] | i32 llama_best[n] | u8 digest[32] (SHA-256 of the model file).
"""
import argparse
import hashlib
import json
import os
import shutil
import struct
import sys

import torch
import transformers

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)

LLAMA3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 48}

# name: (config class, settings, dtype of the file, shard size or None, respell config as transformers 4)
CASES = {
    "llama2": ("LlamaConfig", dict(hidden_size=40, num_attention_heads=4, num_key_value_heads=4, intermediate_size=44,
                                   vocab_size=131, max_position_embeddings=200, rms_norm_eps=1e-5), "bfloat16", None,
               True),
    "llama3": ("LlamaConfig", dict(hidden_size=36, num_attention_heads=6, num_key_value_heads=2, head_dim=10,
                                   intermediate_size=37, vocab_size=71, max_position_embeddings=512,
                                   tie_word_embeddings=True, rms_norm_eps=1e-5, eos_token_id=[5, 7],
                                   rope_parameters=LLAMA3), "float32", None, True),
    "llama3_v5": ("LlamaConfig", dict(hidden_size=32, num_attention_heads=4, num_key_value_heads=1, head_dim=12,
                                      intermediate_size=33, vocab_size=97, max_position_embeddings=512,
                                      hidden_act="gelu_pytorch_tanh", rms_norm_eps=1e-5, rope_parameters=LLAMA3),
                  "bfloat16", 20000, False),
    "llama_bias": ("LlamaConfig", dict(hidden_size=42, num_attention_heads=3, num_key_value_heads=3, head_dim=18,
                                       intermediate_size=57, vocab_size=101, max_position_embeddings=100,
                                       tie_word_embeddings=True, attention_bias=True, mlp_bias=True,
                                       rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}),
                   "bfloat16", None, True),
    "llama_yarn": ("LlamaConfig", dict(hidden_size=36, num_attention_heads=3, num_key_value_heads=1, head_dim=32,
                                       intermediate_size=48, vocab_size=89, max_position_embeddings=192,
                                       tie_word_embeddings=True, rope_parameters=YARN), "bfloat16", None, False),
    "smollm2": ("LlamaConfig", dict(hidden_size=54, num_attention_heads=9, num_key_value_heads=3, intermediate_size=52,
                                    vocab_size=203, max_position_embeddings=256, tie_word_embeddings=True,
                                    rms_norm_eps=1e-5,
                                    rope_parameters={"rope_type": "default", "rope_theta": 100000.0}),
                "bfloat16", 40000, False),
    "mistral": ("MistralConfig", dict(hidden_size=40, num_attention_heads=4, num_key_value_heads=2, head_dim=24,
                                      intermediate_size=52, vocab_size=97, sliding_window=21,
                                      max_position_embeddings=300), "float16", 30000, True),
    "qwen2": ("Qwen2Config", dict(hidden_size=40, num_attention_heads=4, num_key_value_heads=2, intermediate_size=45,
                                  vocab_size=103, num_hidden_layers=3, max_position_embeddings=256,
                                  use_sliding_window=True, sliding_window=33, max_window_layers=1,
                                  tie_word_embeddings=True, eos_token_id=3,
                                  rope_parameters={"rope_type": "default", "rope_theta": 1000000.0}),
              "float16", None, False),
    "qwen2_full": ("Qwen2Config", dict(hidden_size=42, num_attention_heads=3, num_key_value_heads=1,
                                       intermediate_size=39, vocab_size=99, max_position_embeddings=256), "bfloat16",
                   None, True),
    "qwen3": ("Qwen3Config", dict(hidden_size=40, num_attention_heads=4, num_key_value_heads=2, head_dim=24,
                                  intermediate_size=46, vocab_size=113, max_position_embeddings=256,
                                  rope_parameters={"rope_type": "default", "rope_theta": 1000000.0}),
              "bfloat16", 25000, True),
}
LENGTHS = [1, 37, 145]


def randomize(model, seed):
    """Scales that give logits a spread of about 2; every value a bfloat16 that float16 holds exactly."""
    gen = torch.Generator().manual_seed(seed)
    for name, p in sorted(model.named_parameters()):
        x = torch.randn(p.shape, generator=gen)
        if name.endswith("norm.weight"):
            x = 1 + 0.1 * x
        elif name.endswith("bias"):
            x = 0.3 * x
        elif "embed_tokens" in name or "lm_head" in name:
            x = x * 2 / p.shape[1] ** 0.5
        else:
            x = x * (2 if "o_proj" in name or "down_proj" in name else 1) / p.shape[1] ** 0.5
        x = x.to(torch.bfloat16).float()
        p.data = torch.where(x.abs() < 2.0 ** -16, torch.zeros_like(x), x)


def respell(path):
    """config.json in the spelling of transformers 4: rope_theta and rope_scaling, torch_dtype."""
    with open(path) as f:
        doc = json.load(f)
    rope = doc.pop("rope_parameters")
    doc["rope_theta"] = rope.pop("rope_theta")
    doc["rope_scaling"] = rope if rope.get("rope_type", "default") != "default" else None
    if doc["rope_scaling"] and doc["rope_scaling"]["rope_type"] == "linear":
        doc["rope_scaling"] = {"type": "linear", "factor": rope["factor"]}
    doc["torch_dtype"] = doc.pop("dtype")
    doc.pop("layer_types", None)
    with open(path, "w") as f:
        json.dump(doc, f, indent=2)
        f.write("\n")


def positions(n):
    wanted = {0, 1, n // 2, 20, 21, 22, 33, 63, 64, 65, n - 2, n - 1}
    return sorted(p for p in wanted if 0 <= p < n)


def write_case(out, name):
    class_name, settings, dtype, shard, old = CASES[name]
    config = getattr(transformers, class_name)(**{"num_hidden_layers": 2, "tie_word_embeddings": False, **settings})
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
    randomize(model, seed)
    model.eval()
    folder = os.path.join(out, name)
    shutil.rmtree(folder, ignore_errors=True)
    # the reference is what was saved and read again, with positions and masks as transformers makes them
    saved = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    saved.load_state_dict(model.state_dict())
    saved.to(getattr(torch, dtype)).save_pretrained(folder, **({"max_shard_size": shard} if shard else {}))
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    if old:
        respell(os.path.join(folder, "config.json"))
        again = transformers.AutoConfig.from_pretrained(folder)
        assert model.config.rope_parameters.items() <= again.rope_parameters.items(), again.rope_parameters

    gen = torch.Generator().manual_seed(seed + 1)
    blob = struct.pack("<4sii", b"NTLG", len(LENGTHS), config.vocab_size)
    for n in LENGTHS:
        ids = torch.randint(0, config.vocab_size, (1, n), generator=gen)
        with torch.no_grad():
            logits = model(ids).logits[0].float()
        pos = positions(n)
        blob += struct.pack("<ii", n, len(pos)) + ids[0].to(torch.int32).numpy().tobytes()
        blob += struct.pack("<%di" % len(pos), *pos) + logits[pos].numpy().astype("<f4").tobytes()
    with open(os.path.join(folder, "golden.bin"), "wb") as f:
        f.write(blob)
    print("%-12s logits std %.2f" % (name, logits.std()))


GGUF_LAYER = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
              "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
              "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
GGUF_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def load_gguf(path):
    """A Llama-family GGUF file as a float32 transformers model; matrices rounded to bfloat16."""
    import gguf
    import numpy as np
    reader = gguf.GGUFReader(path)

    def meta(key):
        return reader.fields["llama." + key].contents()

    def unpermute(w, heads):
        return w.reshape(heads, w.shape[0] // heads // 2, 2, w.shape[-1]).transpose(1, 2).reshape(w.shape)

    state = {}
    for t in reader.tensors:
        w = torch.from_numpy(np.array(gguf.dequantize(t.data, t.tensor_type), dtype=np.float32))
        rounded = w.to(torch.bfloat16).float()
        assert w.dim() > 1 or torch.equal(w, rounded), t.name  # norms: the bf16 run has the same
        part = t.name.split(".")
        if part[0] != "blk":
            state[GGUF_TOP[part[0]] + ".weight"] = rounded
            continue
        if part[2] in ("attn_q", "attn_k"):
            rounded = unpermute(rounded, meta("attention.head_count" + ("" if part[2] == "attn_q" else "_kv")))
        state["model.layers.%s.%s.weight" % (part[1], GGUF_LAYER[part[2]])] = rounded
    tied = "lm_head.weight" not in state
    config = transformers.LlamaConfig(
        vocab_size=state["model.embed_tokens.weight"].shape[0], hidden_size=meta("embedding_length"),
        intermediate_size=meta("feed_forward_length"), num_hidden_layers=meta("block_count"),
        num_attention_heads=meta("attention.head_count"), num_key_value_heads=meta("attention.head_count_kv"),
        max_position_embeddings=meta("context_length"), rms_norm_eps=meta("attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": meta("rope.freq_base")}, tie_word_embeddings=tied)
    if tied:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model = transformers.LlamaForCausalLM(config)
    model.load_state_dict(state, strict=True)
    return model.eval()


def token_logprobs(model, ids):
    """Log-probability of each next token; the best token and its margin to the second."""
    with torch.no_grad():
        logits = model(ids).logits[0, :-1].float()
    top = logits.topk(2)
    logprob = torch.log_softmax(logits.double(), -1).gather(1, ids[0, 1:, None])[:, 0]
    return logprob, top.indices[:, 0], top.values[:, 0] - top.values[:, 1]


def llama_part(llama, old, n):
    """(log-probabilities, best tokens) as bytes: of the tool's file, else of the real.bin that is replaced."""
    with open(llama or old, "rb") as f:
        data = f.read()
    if llama:
        assert len(data) == 8 * n, "%s was made from other ids" % llama
        return data[:4 * n], data[4 * n:]
    at = 8 + 4 * (n + 1) + 8 * n
    return data[at:at + 4 * n], data[-32 - 4 * n:-32]


def write_real(path, text_path, out, llama):
    with open(path, "rb") as f:
        digest = hashlib.sha256(f.read()).digest()
    with open(text_path, encoding="utf-8") as f:
        text = f.read()
    folder, name = os.path.split(os.path.abspath(path))
    tok = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=name)
    ids = torch.tensor([tok(text, add_special_tokens=False)["input_ids"]])
    model = load_gguf(path)
    full, best, margin = token_logprobs(model, ids)
    half, _, _ = token_logprobs(model.to(torch.bfloat16), ids)
    print("%d tokens, perplexity float32 %.5f, bf16 %.5f, mean |difference| of log-probs %.5f" % (
        ids.shape[1], torch.exp(-full.mean()), torch.exp(-half.mean()), (full - half).abs().mean()))

    def raw(x, kind):
        return x.numpy().astype(kind).tobytes()

    llama_logprob, llama_best = llama_part(llama, out, ids.shape[1] - 1)
    with open(out, "wb") as f:
        f.write(struct.pack("<4si", b"NTLR", ids.shape[1]) + raw(ids[0], "<i4") + raw(full, "<f4") + raw(half, "<f4"))
        f.write(llama_logprob + raw(best, "<i4") + raw(margin, "<f4") + llama_best + digest)


def write_versions(path, versions):
    with open(path, "w") as f:
        json.dump(versions, f, indent=2)
        f.write("\n")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", default=os.path.join(ROOT, "tests", "golden", "logits"))
    ap.add_argument("--only")
    ap.add_argument("--real", help="GGUF file of the real model")
    ap.add_argument("--llama", help="with --real: output of tools/llama_cpp_logprobs.c")
    ap.add_argument("--llama-version", default="unchanged")
    ap.add_argument("--text", default=os.path.join(ROOT, "data", "alice.txt"))
    args = ap.parse_args()
    torch.set_num_threads(2)
    versions = {"script": "tools/make_logit_golden.py", "python": sys.version.split()[0], "torch": torch.__version__,
                "transformers": transformers.__version__}
    if args.real:
        write_real(args.real, args.text, os.path.join(ROOT, "tests", "golden", "real.bin"), args.llama)
        versions["llama.cpp"] = args.llama_version
        write_versions(os.path.join(ROOT, "tests", "golden", "real.json"), versions)
        return
    os.makedirs(args.out, exist_ok=True)
    for name in CASES:
        if not args.only or args.only == name:
            write_case(args.out, name)
    write_versions(os.path.join(args.out, "versions.json"), versions)


if __name__ == "__main__":
    main()
