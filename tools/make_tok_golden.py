#!/usr/bin/env python3
"""Golden files of the tokenizer tests: tests/golden/tok/<family>.json (a small tokenizer.json) and <family>.sha.

    tools/make_tok_golden.py                 digests of the committed tokenizers, by HF tokenizers (rewrites *.sha)
    tools/make_tok_golden.py --train         trains the small tokenizers anew first (rewrites *.json)
    tools/make_tok_golden.py --show FAMILY I prints string I and its ids, to find a difference inside a block
    tools/make_tok_golden.py --model DIR|GGUF|FILE.json --out FILE   digests for another tokenizer; real_smollm2.sha is
                                             that of SmolLM2-135M-Instruct.Q4_1.gguf

The strings are made by the same small generator here and in tests/unit/text/tok_strings.h, from the pieces in
atoms.json, so they need not be stored. Per block of 100 strings one line: the first 16 hex digits of the SHA-256 of
    ids(parse special, add special) | ids(special tokens as text) | decode(first) | decode(first, skip special)
    | decode(first in reverse order, which cuts characters apart)
for each string; lists as u32 count + i32 ids, texts as u32 length + UTF-8, little endian. The versions used are in
versions.txt. Needs: pip install tokenizers (0.23.3), and gguf for --model FILE.gguf.
"""
import argparse
import hashlib
import json
import os
import struct

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "golden", "tok")
N_STRINGS, BLOCK = 20000, 100
MASK = (1 << 64) - 1

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CL100K = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
TEKKEN = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
          r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
          r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")


class Rng:
    """xorshift64, as in tok_strings.h."""

    def __init__(self, i):
        self.x = ((i + 1) * 0x9E3779B97F4A7C15) & MASK

    def below(self, n):
        x = self.x
        x ^= (x << 13) & MASK
        x ^= x >> 7
        x ^= (x << 17) & MASK
        self.x = x
        return (x >> 33) % n


class Strings:
    def __init__(self):
        with open(os.path.join(HERE, "atoms.json"), encoding="utf-8") as f:
            doc = json.load(f)
        self.mix = doc["classes"]
        self.atoms = {k: [a.encode() for a in v] for k, v in doc["atoms"].items()}

    def make(self, i):
        r = Rng(i)
        kind = self.mix[i % len(self.mix)]
        pick = lambda: (lambda l: l[r.below(len(l))])(self.atoms[kind["mix"][r.below(len(kind["mix"]))]])
        if kind["how"] == "repeat":
            atom = pick()
            n = 100000 // len(atom) if i % 4000 == 9 else 1 + r.below(300)
            return atom * n
        out = b""
        for _ in range(1 + r.below(14)):
            atom = pick()
            if kind["how"] == "invalid":
                atom = atom[: 1 + r.below(len(atom))]
                if r.below(3) == 0:
                    for _ in range(1 + r.below(3)):
                        atom += bytes([128 + r.below(128)])
            out += atom
            if r.below(40) == 0:
                out += bytes([r.below(128)])
        return out


def pack_ids(ids):
    return struct.pack("<I%di" % len(ids), len(ids), *ids)


def pack_text(text):
    b = text.encode()
    return struct.pack("<I", len(b)) + b


def digests(tok, n=N_STRINGS):
    strings = Strings()
    lines = []
    for begin in range(0, n, BLOCK):
        h = hashlib.sha256()
        for i in range(begin, begin + BLOCK):
            text = strings.make(i).decode("utf-8", "replace")
            tok.encode_special_tokens = False
            full = tok.encode(text).ids
            tok.encode_special_tokens = True
            plain = tok.encode(text, add_special_tokens=False).ids
            h.update(pack_ids(full) + pack_ids(plain))
            h.update(pack_text(tok.decode(full, skip_special_tokens=False)) + pack_text(tok.decode(full)))
            h.update(pack_text(tok.decode(full[::-1], skip_special_tokens=False)))
        lines.append(h.hexdigest()[:16])
    return lines


def added(content, special=True, **kw):
    kw.setdefault("normalized", False)
    return AddedToken(content, special=special, **kw)


def byte_level(regex=None, digits=False, norm=None, ignore_merges=False):
    t = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if norm:
        t.normalizer = norm
    if digits:
        t.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    elif regex:
        t.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(regex), "isolated"),
             pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    else:
        t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    return t


def spm(norm=None, pre=None, strip=True):
    t = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if norm:
        t.normalizer = norm
    if pre:
        t.pre_tokenizer = pre
    chain = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    t.decoder = decoders.Sequence(chain + ([decoders.Strip(" ", 1, 0)] if strip else []))
    return t


BYTES = ["<0x%02X>" % b for b in range(256)]
LEGACY = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])


def families():
    """name -> (untrained tokenizer, added tokens in order of ids, tokens in front of each text, is SPM)"""
    qwen = [added("<|endoftext|>"), added("<|im_start|>"), added("<|im_end|>"), added("<think>", False),
            added("</think>", False), added("<tool_call>", False), added("</tool_call>", False)]
    flags = [added("<|endoftext|>"), added("<mask>", lstrip=True), added("<sep>", rstrip=True),
             added("<both>", lstrip=True, rstrip=True), added("the", False, single_word=True),
             added("Ångström", False, normalized=True), added("<N>", True, normalized=True), added("   ", False),
             added("\n\n", False), added("<|", False), added("<|im_start|>"), added(" <gap> ", False, rstrip=True)]
    return {
        "gpt2": (byte_level(), [added("<|endoftext|>")], [], False),
        "smollm2": (byte_level(digits=True), [added(x) for x in
                    ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<file_sep>")], [], False),
        "llama3": (byte_level(CL100K % r"\p{N}{1,3}", ignore_merges=True), [added(x) for x in
                   ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")],
                   ["<|begin_of_text|>"], False),
        "qwen2": (byte_level(CL100K % r"\p{N}", norm=normalizers.NFC()), qwen, [], False),
        "tekken": (byte_level(TEKKEN, ignore_merges=True), [added(x) for x in
                   ("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]")], ["<s>"], False),
        "llama2": (spm(LEGACY), [added(x) for x in ("<unk>", "<s>", "</s>")], ["<s>"], True),
        "mistral3": (spm(pre=pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)), [added(x) for x in
                     ("<unk>", "<s>", "</s>", "[INST]", "[/INST]")], ["<s>"], True),
        "gemma": (spm(normalizers.Replace(" ", "▁"), pre_tokenizers.Split(" ", "merged_with_previous"), strip=False),
                  [added("<pad>"), added("<eos>"), added("<bos>"), added("<unk>"), added("<start_of_turn>"),
                   added("<end_of_turn>"), added("\n\n", False), added("\n\n\n", False), added("▁▁", False),
                   added("▁▁▁▁", False), added("<table>", False)], ["<bos>"], True),
        "flags": (byte_level(norm=normalizers.NFC()), flags, [], False),
        "metaspace": (spm(pre=pre_tokenizers.Sequence([pre_tokenizers.Metaspace("▁", prepend_scheme="always"),
                                                       pre_tokenizers.Punctuation()])),
                      [added("<unk>"), added("<s>", normalized=True), added("</s>", rstrip=True)], [], True),
    }


def train(name, row, corpus):
    tok, specials, front, is_spm = row
    alphabet = [] if is_spm else pre_tokenizers.ByteLevel.alphabet()
    first = [s.content for s in specials if s.special] + (BYTES if is_spm else [])
    trainer = trainers.BpeTrainer(vocab_size=1500, special_tokens=first, initial_alphabet=alphabet, limit_alphabet=500,
                                  min_frequency=2, max_token_length=16, show_progress=False)
    tok.train_from_iterator(corpus, trainer)
    # The trainer marks all special_tokens as special, the byte tokens too; put the wanted flags into the file instead.
    doc = json.loads(tok.to_str())
    vocab = doc["model"]["vocab"]
    if not is_spm and name != "flags" and not doc["model"].get("ignore_merges"):
        doc["model"]["merges"] = [m if isinstance(m, str) else " ".join(m) for m in doc["model"]["merges"]]
    if doc["model"].get("ignore_merges"):  # some tokens can be reached as whole words only, as in the real ones
        doc["model"]["merges"] = [m for i, m in enumerate(doc["model"]["merges"]) if i % 7 != 3]
    n = len(vocab)
    doc["added_tokens"] = []
    for s in specials:
        if s.content not in vocab:
            vocab_id, n = n, n + 1
        else:
            vocab_id = vocab[s.content]
        doc["added_tokens"].append({"id": vocab_id, "content": s.content, "single_word": s.single_word,
                                    "lstrip": s.lstrip, "rstrip": s.rstrip, "normalized": s.normalized,
                                    "special": s.special})
    doc["added_tokens"].sort(key=lambda a: a["id"])
    tok = Tokenizer.from_str(json.dumps(doc, ensure_ascii=False))
    if front:
        tok.post_processor = processors.TemplateProcessing(
            single=front + ["$A"], pair=front + ["$A", "$B"], special_tokens=[(f, tok.token_to_id(f)) for f in front])
    # compact, one line per top-level key
    doc = json.loads(tok.to_str())
    if not is_spm and name in ("gpt2", "smollm2"):
        doc["model"]["merges"] = [m if isinstance(m, str) else " ".join(m) for m in doc["model"]["merges"]]
    with open(os.path.join(HERE, name + ".json"), "w", encoding="utf-8") as f:
        f.write("{\n" + ",\n".join(json.dumps(k) + ":" + json.dumps(v, ensure_ascii=False, separators=(",", ":"))
                                   for k, v in doc.items()) + "\n}\n")


def from_gguf(path):
    """A byte-level GGUF vocabulary as HF tokenizer, for the pre-tokenizers smollm, qwen2, llama-bpe, gpt-2."""
    import gguf

    r = gguf.GGUFReader(path)
    get = lambda key: r.fields["tokenizer.ggml." + key].contents()
    tokens, types = get("tokens"), get("token_type")
    t = {"smollm": lambda: byte_level(digits=True), "gpt-2": lambda: byte_level(),
         "qwen2": lambda: byte_level(CL100K % r"\p{N}", norm=normalizers.NFC()),
         "llama-bpe": lambda: byte_level(CL100K % r"\p{N}{1,3}", ignore_merges=True)}[get("pre")]()
    t.model = models.BPE(vocab={k: i for i, k in enumerate(tokens)}, merges=[tuple(m.split(" ")) for m in get("merges")])
    t.add_special_tokens([added(k) for k, ty in zip(tokens, types) if ty == 3])
    return t


def load(path):
    if path.endswith(".gguf"):
        return from_gguf(path)
    return Tokenizer.from_file(os.path.join(path, "tokenizer.json") if os.path.isdir(path) else path)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--train", action="store_true")
    p.add_argument("--show", nargs=2, metavar=("FAMILY", "I"))
    p.add_argument("--only")
    p.add_argument("--model")
    p.add_argument("--out")
    a = p.parse_args()
    if a.show:
        family, i = a.show[0], int(a.show[1])
        tok = load(a.model or os.path.join(HERE, family + ".json"))
        text = Strings().make(i).decode("utf-8", "replace")
        print(repr(text))
        for special in (False, True):
            tok.encode_special_tokens = special
            e = tok.encode(text, add_special_tokens=not special)
            print(e.ids, e.tokens)
        print(repr(tok.decode(e.ids, skip_special_tokens=False)))
        return
    if a.model:
        with open(a.out, "w") as f:
            f.write("\n".join(digests(load(a.model))) + "\n")
        return
    strings = Strings()
    corpus = None
    for name, row in families().items():
        if a.only and name not in a.only.split(","):
            continue
        if a.train:
            if corpus is None:
                # Without NUL: as a key of the vocabulary it cannot be read by every JSON library.
                corpus = [s.replace(b"\0", b"").decode("utf-8", "replace") for s in map(strings.make, range(12000)) if len(s) < 5000]
            train(name, row, corpus)
        lines = digests(load(os.path.join(HERE, name + ".json")))
        with open(os.path.join(HERE, name + ".sha"), "w") as f:
            f.write("\n".join(lines) + "\n")
        print(name, len(lines), "blocks")
    with open(os.path.join(HERE, "versions.txt"), "w") as f:
        f.write("tokenizers %s\n" % tokenizers.__version__)


if __name__ == "__main__":
    main()
