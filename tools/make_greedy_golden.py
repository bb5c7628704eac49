#!/usr/bin/env python3
"""What transformers makes of SmolLM2-135M-Instruct in float32, for tests/jobs/test_golden_text.sh.

    make_greedy_golden.py greedy MODEL_DIR greedy.json   greedy answers to 60 chat prompts: writes the file
    make_greedy_golden.py noise MODEL_DIR greedy.json    adds the second-best tokens, and how far bf16 is from float32
    make_greedy_golden.py places MODEL_DIR llama.json    adds float32 and bf16 log-probs to what make_llama_golden.c wrote

MODEL_DIR is the model as a Hugging Face directory with the weights of SmolLM2-135M-Instruct.Q4_1.gguf rounded to bf16, which are what
nocturne computes with. Rows of greedy.json: the prompt's ids as rendered by the model's own template, the ids that float32 chooses, and
at each step "margin", the distance of the two best logits, and "second", the id that came second. "bf16" has the |change of margin| in
transformers' own bf16 run over the same texts, and at how many steps it would choose another token. The files name the versions that
made them."""
import json
import sys

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

SUBJECTS = ["the tides", "a printing press", "photosynthesis", "the number pi", "a lighthouse", "bread", "glass", "the moon", "salt", "a violin",
            "rain", "a compass", "honey bees", "the alphabet", "a bicycle", "volcanoes", "maps", "clocks", "silk", "ice"]
FORMS = ["What is {}?", "Write one sentence about {}.", "List three facts about {}."]
STEPS = 40
VERSIONS = {"torch": torch.__version__, "transformers": transformers.__version__}


def load(path, dtype):
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype).eval()


def logits_of(model, ids):
    return model(torch.tensor([ids])).logits[0].float()


def write(out, data, rows):
    with open(out, "w") as f:
        f.write(json.dumps(data)[:-1] + ', "rows": [\n')
        f.write(",\n".join(rows) + "\n]}\n")


def compact(value):
    return json.dumps(value, separators=(",", ":"))


def greedy(path, out):
    tok = AutoTokenizer.from_pretrained(path)
    model = load(path, torch.float32)
    rows = []
    for form in FORMS:
        for subject in SUBJECTS:
            ids = tok.apply_chat_template([{"role": "user", "content": form.format(subject)}], add_generation_prompt=True, return_dict=True)["input_ids"]
            chosen, margins, past, step = [], [], None, torch.tensor([ids])
            for _ in range(STEPS):
                result = model(step, past_key_values=past, use_cache=True)
                past = result.past_key_values
                best = result.logits[0, -1].topk(2)
                chosen.append(int(best.indices[0]))
                margins.append(round(float(best.values[0] - best.values[1]), 3))
                if chosen[-1] == 2:
                    break
                step = torch.tensor([[chosen[-1]]])
            rows.append({"text": form.format(subject), "prompt": list(ids), "ids": chosen, "margin": margins})
    write(out, {"made_by": "tools/make_greedy_golden.py", "versions": VERSIONS}, [compact(r) for r in rows])


def noise(path, out):
    with open(out) as f:
        data = json.load(f)
    full, half, off, other = load(path, torch.float32), load(path, torch.bfloat16), [], 0
    for row in data["rows"]:
        ids, first = row["prompt"] + row["ids"][:-1], len(row["prompt"]) - 1
        want, got = logits_of(full, ids)[first:], logits_of(half, ids)[first:]
        best = want.topk(2)
        steps = torch.arange(len(row["ids"]))
        # one pass over the whole text and 40 cached steps are the same numbers, but for the order of additions
        for t in range(len(row["ids"])):
            margin = float(best.values[t, 0] - best.values[t, 1])
            if abs(margin - row["margin"][t]) > 2e-3 or (int(best.indices[t, 0]) != row["ids"][t] and margin > 2e-3):
                sys.exit("%s: step %d: margin %.4f, was %.4f" % (row["text"], t, margin, row["margin"][t]))
        row["second"] = [b if a == chosen else a for (a, b), chosen in zip(best.indices.tolist(), row["ids"])]
        chosen, second = torch.tensor(row["ids"]), torch.tensor(row["second"])
        off.append((got[steps, chosen] - got[steps, second] - (want[steps, chosen] - want[steps, second])).abs())
        other += int((got.argmax(-1) != chosen).sum())
    off = torch.cat(off)
    data["bf16"] = {"steps": len(off), "mean": round(float(off.mean()), 4), "max": round(float(off.max()), 4), "other": other}
    rows = data.pop("rows")
    write(out, data, [compact(r) for r in rows])


def places(path, out):
    with open(out) as f:
        data = json.load(f)
    data["versions"].update(VERSIONS)
    rows = data.pop("rows")
    for dtype, key in ((torch.float32, "float32"), (torch.bfloat16, "bf16")):
        model = load(path, dtype)
        for row in rows:
            logprobs = torch.log_softmax(logits_of(model, row["ids"]), -1)
            for place in row["places"]:
                place[key] = [round(v, 5) for v in logprobs[place["at"] - 1, place["top"]].tolist()]
    lines = []
    for row in rows:
        head = compact({k: v for k, v in row.items() if k != "places"})
        lines.append(head[:-1] + ',\n "places":[\n  ' + ",\n  ".join(compact(p) for p in row["places"]) + "]}")
    write(out, data, lines)


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in ("greedy", "noise", "places"):
        sys.exit(__doc__)
    with torch.no_grad():
        {"greedy": greedy, "noise": noise, "places": places}[sys.argv[1]](sys.argv[2], sys.argv[3])
