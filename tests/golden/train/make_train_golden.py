#!/usr/bin/env python3
"""Writes tests/golden/train: steps of the tiny models in ../logits by transformers and PEFT, in float32.

    make_train_golden.py [--out tests/golden/train] [--only CASE]    needs torch, transformers, peft; trl cross-checks

The models are those of tests/golden/logits (tools/make_logit_golden.py), read where they lie. Every case is a folder:
  case.json            what is trained, token rows, batches, hyper-parameters and every scalar result
  adapter/             the initial adapter in PEFT format, F32 or BF16 (some cases use another's: "../smollm2/adapter")
  model/               mistral_w80 only: another config.json, and links to the weights of ../logits/mistral
  golden.safetensors   float32 tensors; P is the parameter's name as in the adapter or the model file
      grad.P           gradient of the loss of batch 0 at the initial weights, before clipping
      step20.P         weights after 20 steps (full: of vectors; of llama_bias one q and down too)
      alone.P          weights after the steps of the optimizer alone, at most N_ALONE of a tensor: element k n / N_ALONE
      grad.V.P, step20.V.P, alone.V.P   the same for variant V of a preference loss
      logits           [n_pos, n_vocab] of rows[0] at "logit_pos", adapter on
versions.json names the versions, and the worst bf16_nmse of each class of tensors over the cases.

Step s = 0..n_step-1 uses batches[s % n_batch]; every row is computed alone, without padding, from position 0.
  sft    loss = sum_i w[i] * -log p(ids[i] | ids[<i]) / sum_i w[i], over all rows of the batch; w[0] = 0
  dpo    per pair: c, r = sum of log p over the tokens after n_prompt, policy less reference, of chosen and rejected
         sigmoid  -log sigmoid(beta (c - r))      hinge  max(0, 1 - beta (c - r))
         ipo      (c / n_chosen - r / n_rejected - 1 / (2 beta))^2, n = completion tokens
         sigmoid_sft  sigmoid + sft_weight * mean over all chosen completion tokens of -log p
         loss = mean over pairs; margin = beta (c - r)
  kto    per row: c as above; z = max(0, mean over the rows of policy less reference of kl_ids after n_prompt), no
         gradient; kl_ids = this row's prompt and another row's completion
         desirable  1 - sigmoid(beta (c - z)), undesirable 1 - sigmoid(beta (z - c)), times desirable_weight or
         undesirable_weight; loss = mean over rows; reward = beta c
         [TRL 1.16.0 trainer/dpo_trainer.py and kto_trainer.py, _compute_loss; KTO: arXiv 2402.01306 eq. 7; checked here
         against TRL's own code where it is installed]
  The reference is the base with the adapter off.
  clip   g *= min(1, max_norm / (norm + 1e-6)), norm over all trained tensors [torch.nn.utils.clip_grad_norm_]
  adamw  m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; w *= 1 - lr wd;
         w -= lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps), t = s + 1 [torch.optim.AdamW]
         decay: all of an adapter; of a full model only matrices, not norms and biases [transformers.Trainer]
  lr     s < warmup: peak (s + 1) / warmup; then peak / 2 (1 + cos(pi (s - warmup) / (n_step - warmup)));
         the JSON has the rate of every step
  alone  AdamW on grad.P times a scale per step, so that only the optimizer is looked at, in float32 exactly: other
         settings, of which a hundredth more of any moves weights by far more than rounding does (asserted here)

bf16_nmse: sum (a - b)^2 / sum b^2 of gradients b in float32 and a in bf16, per class of tensors over all layers, then
"worst" over single tensors. autocast: products in bf16, residual stream, norms and weights in float32 (what our kernels
do); pure: everything in bf16. "bf16" has the autocast run's losses and the NMSE of its updates w - w0.
"""
import argparse
import contextlib
import hashlib
import json
import math
import os
import shutil
import sys
import types
from collections import defaultdict

import peft
import torch
import transformers
from peft import PeftModel
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
MODELS = os.path.join(HERE, "..", "logits")
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
OPT = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.01, "max_grad_norm": 1.0, "warmup": 2,
       "n_step": 20}
# norms: of the gradient at each step, by its scale; some are clipped, signs differ
ALONE = {"beta1": 0.7, "beta2": 0.8, "eps": 1e-3, "weight_decay": 0.1, "max_grad_norm": 1.0}
ALONE_STEPS = [{"lr": lr, "grad_norm": n} for lr, n in ((1e-2, 2.0), (2e-2, 0.5), (2e-2, -4.0), (1e-2, 0.25), (5e-3, -0.75),
                                                        (2e-2, 1.5))]
N_ALONE = 64
ALONE_LIMIT = 1e-6  # what test_train.c allows
# hinge: a beta that leaves one pair of the first batch beyond the kink
PREFERENCE = {"dpo": {"sigmoid": {"beta": 0.1}, "ipo": {"beta": 0.1}, "hinge": {"beta": 0.5},
                      "sigmoid_sft": {"beta": 0.1, "sft_weight": 0.5}},
              "kto": {"kto": {"beta": 0.1, "desirable_weight": 1.25, "undesirable_weight": 0.75}}}

# name: (kind, model, settings); all = also step20
CASES = {
    "llama2": ("lora", "llama2", dict(all=True, dtype=torch.float32)),
    "llama3": ("lora", "llama3", dict(all=True, dtype=torch.float32)),
    "mistral": ("lora", "mistral", dict(all=True)),
    "qwen2": ("lora", "qwen2", dict(all=True)),
    "qwen3": ("lora", "qwen3", dict(all=True)),
    "smollm2": ("lora", "smollm2", dict(all=True, dtype=torch.float32)),
    "llama3_v5": ("lora", "llama3_v5", dict()),
    "llama_bias": ("lora", "llama_bias", dict()),
    "llama_yarn": ("lora", "llama_yarn", dict(rslora=True)),
    "qwen2_full": ("lora", "qwen2_full", dict(targets=["q_proj", "v_proj", "down_proj"])),
    "odd_rank": ("lora", "smollm2", dict(r=3, targets=["q_proj", "k_proj", "v_proj", "o_proj", "up_proj"])),
    "mistral_w80": ("lora", "mistral", dict(window=80, adapter="mistral", rows="mistral")),
    "full_llama_bias": ("full", "llama_bias", dict(rows="llama_bias", step20=("0.self_attn.q_proj.weight",
                                                                             "1.mlp.down_proj.weight"))),
    "full_qwen3": ("full", "qwen3", dict(rows="qwen3", step20=())),
    "dpo": ("dpo", "smollm2", dict(adapter="smollm2")),
    "kto": ("kto", "smollm2", dict(adapter="smollm2")),
}
LENGTHS = [[145, 37, 9], [70, 66]]


def generator(*what):
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256("/".join(what).encode()).digest()[:4], "little"))


# ---- inputs


def make_adapter(folder, model, gen, targets, rslora, dtype, r):
    """Values are bfloat16 numbers, so that an engine that rounds factors to bf16 loses nothing at the first step."""
    alpha = 8
    state = {}
    for name, module in sorted(model.named_modules()):
        if name.rsplit(".", 1)[-1] not in targets:
            continue
        prefix = "base_model.model." + name
        a = (2 * torch.rand(r, module.in_features, generator=gen) - 1) / module.in_features ** 0.5
        b = 0.1 * torch.randn(module.out_features, r, generator=gen)
        state[prefix + ".lora_A.weight"] = a.to(torch.bfloat16).to(dtype)
        state[prefix + ".lora_B.weight"] = b.to(torch.bfloat16).to(dtype)
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": None, "r": r,
              "lora_alpha": alpha, "lora_dropout": 0.0, "target_modules": targets, "bias": "none",
              "fan_in_fan_out": False, "inference_mode": True, "use_rslora": rslora, "use_dora": False}
    os.makedirs(folder)
    save_file(state, os.path.join(folder, "adapter_model.safetensors"), {"format": "pt"})
    write_json(os.path.join(folder, "adapter_config.json"), config)


def make_rows(config, gen):
    """Random tokens; weights of turns: 0 for the user's, 1 or now and then 0.5 or 2 for the assistant's."""
    rows, batches = [], []
    for lengths in LENGTHS:
        batches.append([])
        for n in lengths:
            n = min(n, config.max_position_embeddings)
            ids = torch.randint(0, config.vocab_size, (n,), generator=gen).tolist()
            weights, on = [], False
            while len(weights) < n - 2:
                span = int(torch.randint(3, 13, (1,), generator=gen))
                w = [1, 1, 0.5, 2][int(torch.randint(0, 4, (1,), generator=gen))] if on else 0
                weights += [w] * span
                on = not on
            rows.append({"ids": ids, "weights": weights[:n - 2] + [1, 1]})
            batches[-1].append(len(rows) - 1)
    return rows, batches


def make_pairs(config, gen):
    def draw(n):
        return torch.randint(0, config.vocab_size, (n,), generator=gen).tolist()

    rows = []
    for n_prompt, n_chosen, n_rejected in ((11, 70, 40), (30, 5, 9), (3, 21, 21), (17, 33, 60), (5, 12, 2)):
        prompt = draw(n_prompt)
        rows.append({"n_prompt": n_prompt, "chosen": prompt + draw(n_chosen), "rejected": prompt + draw(n_rejected)})
    rows[1]["chosen"], rows[1]["rejected"] = rows[1]["rejected"], rows[1]["chosen"]  # the adapter now prefers chosen
    return rows, [[0, 1, 2], [3, 4]]


def make_labelled(config, gen):
    rows = []
    for n_prompt, n, label in ((11, 60, True), (30, 5, False), (3, 21, True), (7, 14, True),
                               (17, 33, False), (5, 12, True), (66, 8, False), (4, 40, False)):
        ids = torch.randint(0, config.vocab_size, (n_prompt + n,), generator=gen).tolist()
        rows.append({"n_prompt": n_prompt, "label": label, "ids": ids})
    batches = [[4, 5, 6, 7], [0, 1, 2, 3]]  # z is positive in the first, and clamped to 0 in the second
    for batch in batches:  # TRL turns the completions of a batch by one
        for k, i in enumerate(batch):
            other = rows[batch[k - 1]]
            rows[i]["kl_ids"] = rows[i]["ids"][:rows[i]["n_prompt"]] + other["ids"][other["n_prompt"]:]
    return rows, batches


# ---- losses


def token_logprob(model, ids):
    """log p(ids[i] | ids[<i]) for i = 1..n-1."""
    logits = model(torch.tensor([ids]), use_cache=False).logits[0, :-1].float()
    return torch.log_softmax(logits, -1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]


def completion_logprob(model, ids, n_prompt):
    return token_logprob(model, ids)[n_prompt - 1:]


def sft_loss(model, case, batch):
    total, weight = 0, 0
    for i in batch:
        w = torch.tensor(case["rows"][i]["weights"][1:], dtype=torch.float32)
        total = total - (w * token_logprob(model, case["rows"][i]["ids"])).sum()
        weight += float(w.sum())
    return total / weight, {}


def dpo_terms(variant, p, c, r, n_c, n_r, chosen_tokens):
    delta = c - r
    if variant == "hinge":
        return torch.relu(1 - p["beta"] * delta).mean()
    if variant == "ipo":
        return ((c / n_c - r / n_r - 1 / (2 * p["beta"])) ** 2).mean()
    loss = -torch.nn.functional.logsigmoid(p["beta"] * delta).mean()
    return loss - p["sft_weight"] * chosen_tokens.mean() if variant == "sigmoid_sft" else loss


def dpo_loss(model, case, batch, variant):
    rows = [case["rows"][i] for i in batch]
    chosen = [completion_logprob(model, x["chosen"], x["n_prompt"]) for x in rows]
    rejected = [completion_logprob(model, x["rejected"], x["n_prompt"]) for x in rows]
    c = torch.stack([x.sum() for x in chosen]) - torch.tensor([x["ref_chosen"] for x in rows])
    r = torch.stack([x.sum() for x in rejected]) - torch.tensor([x["ref_rejected"] for x in rows])
    n_c, n_r = (torch.tensor([float(len(x)) for x in y]) for y in (chosen, rejected))
    loss = dpo_terms(variant, case["loss"][variant], c, r, n_c, n_r, torch.cat(chosen))
    return loss, {"chosen": [x.sum().item() for x in chosen], "rejected": [x.sum().item() for x in rejected],
                  "margins": (case["loss"][variant]["beta"] * (c - r)).tolist()}


def kto_terms(p, c, z, label):
    gain = torch.sigmoid(p["beta"] * torch.where(label, c - z, z - c))
    weight = torch.where(label, p["desirable_weight"], p["undesirable_weight"])
    return (weight * (1 - gain)).mean()


def kto_loss(model, case, batch):
    rows = [case["rows"][i] for i in batch]
    logps = torch.stack([completion_logprob(model, x["ids"], x["n_prompt"]).sum() for x in rows])
    with torch.no_grad():
        kl = torch.stack([completion_logprob(model, x["kl_ids"], x["n_prompt"]).sum() for x in rows])
    ratio = (kl - torch.tensor([x["ref_kl"] for x in rows])).mean()
    c = logps - torch.tensor([x["ref"] for x in rows])
    z = ratio.clamp(min=0)
    loss = kto_terms(case["loss"]["kto"], c, z, torch.tensor([x["label"] for x in rows]))
    return loss, {"logps": logps.tolist(), "kl_logps": kl.tolist(), "kl_unclamped": ratio.item(), "kl": z.item(),
                  "rewards": (case["loss"]["kto"]["beta"] * c).tolist()}


def add_references(model, case):
    """Log-probabilities with the adapter off, rounded to the nine digits that the JSON holds."""
    def score(ids, n_prompt):
        return float("%.9g" % float(completion_logprob(model, ids, n_prompt).sum()))

    with torch.no_grad(), model.disable_adapter():
        for x in case["rows"]:
            names = (("chosen", "ref_chosen"), ("rejected", "ref_rejected")) if "chosen" in x else (
                ("ids", "ref"), ("kl_ids", "ref_kl"))
            for ids, ref in names:
                x[ref] = score(x[ids], x["n_prompt"])


# ---- TRL's own code on the same log-probabilities


def trl_self(**more):
    same = types.SimpleNamespace(device=torch.device("cpu"), gather=lambda x: x, gather_for_metrics=lambda x: x)
    return types.SimpleNamespace(
        accelerator=same, model=types.SimpleNamespace(training=True), aux_loss_enabled=False, precompute_ref_logps=True,
        _metrics={"train": defaultdict(list)}, _total_train_tokens=0, _tp_size=1, **more)


def trl_batch(sequences, n_prompts, rows):
    """Padded ids and mask, and a stand-in for the model that returns the given log-probabilities."""
    width = max(len(s) for s in sequences)
    ids, mask, logp = (torch.zeros(len(sequences), width - skip, dtype=kind)
                       for skip, kind in ((0, torch.long), (0, torch.long), (1, torch.float32)))
    for i, (s, n) in enumerate(zip(sequences, n_prompts)):
        ids[i, :len(s)] = torch.tensor(s)
        mask[i, n:len(s)] = 1
        logp[i, n - 1:len(s) - 1] = rows[i]
    logp.requires_grad_(True)
    zero = torch.zeros(len(sequences), width - 1)
    out = types.SimpleNamespace(log_probs=logp, entropy=zero, mean_logits=zero, is_top1=zero.bool())
    return {"input_ids": ids, "completion_mask": mask, "attention_mask": (ids >= 0).long()}, logp, lambda **_: out


def check_trl(model, case, batch, variant, loss):
    """TRL's loss must be ours, and its derivative by every token's log-probability ours too."""
    try:
        from trl.trainer.dpo_trainer import DPOTrainer
        from trl.trainer.kto_trainer import KTOTrainer
    except ImportError:
        return
    rows = [case["rows"][i] for i in batch]
    p = case["loss"][variant]
    if variant == "kto":
        ids, n = [x["ids"] for x in rows], [x["n_prompt"] for x in rows]
        with torch.no_grad():
            logp = [completion_logprob(model, s, k) for s, k in zip(ids, n)]
            kl = torch.stack([completion_logprob(model, x["kl_ids"], x["n_prompt"]).sum() for x in rows])
        inputs, leaf, fake = trl_batch(ids, n, logp)
        label, ref, ref_kl = (torch.tensor([x[k] for x in rows]) for k in ("label", "ref", "ref_kl"))
        inputs.update(label=label, ref_logps=ref, ref_KL_logps=ref_kl)
        me = trl_self(calculate_KL=True, loss_type="kto", _compute_kl_logps=lambda *_: kl, **p)
        theirs = KTOTrainer._compute_loss(me, fake, inputs, False)
        ours = kto_terms(p, leaf.sum(1) - ref, (kl - ref_kl).mean().clamp(min=0), label)
    else:
        ids = [x["chosen"] for x in rows] + [x["rejected"] for x in rows]
        n = [x["n_prompt"] for x in rows] * 2
        with torch.no_grad():
            logp = [completion_logprob(model, s, k) for s, k in zip(ids, n)]
        inputs, leaf, fake = trl_batch(ids, n, logp)
        ref_c, ref_r = (torch.tensor([x[k] for x in rows]) for k in ("ref_chosen", "ref_rejected"))
        inputs.update(ref_chosen_logps=ref_c, ref_rejected_logps=ref_r)
        sft = variant == "sigmoid_sft"
        me = trl_self(beta=p["beta"], ld_alpha=None, f_divergence_type="reverse_kl", use_weighting=False,
                      loss_types=["sigmoid", "sft"] if sft else [variant],
                      loss_weights=[1.0, p["sft_weight"]] if sft else [1.0], label_smoothing=0.0)
        theirs = DPOTrainer._compute_loss(me, fake, inputs, False)
        count = torch.tensor([float(len(s) - k) for s, k in zip(ids, n)])
        c, r = leaf.sum(1).chunk(2)
        chosen = torch.cat([leaf[i, k - 1:len(s) - 1] for i, (s, k) in enumerate(zip(ids[:len(rows)], n))])
        ours = dpo_terms(variant, p, c - ref_c, r - ref_r, *count.chunk(2), chosen)
    mask = inputs["completion_mask"][:, 1:]
    grads = [torch.autograd.grad(x, leaf, retain_graph=True)[0] * mask for x in (ours, theirs)]
    torch.testing.assert_close(theirs, loss, rtol=1e-5, atol=1e-5)  # sums of padded rows round otherwise
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-5, atol=1e-8)
    assert grads[1].abs().sum() > 0


# ---- runs


def load(folder, adapter, dtype=torch.float32):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager")
    if adapter:
        model = PeftModel.from_pretrained(model, adapter, is_trainable=True)
        if dtype != torch.float32:
            model.to(dtype)
    return model.train()


def trained(model):
    """{name as in the file: parameter}; a tied head is its embedding."""
    return {n.replace(".default.", "."): p for n, p in sorted(model.named_parameters()) if p.requires_grad}


def gradients(model, loss_fn, case, batch):
    model.zero_grad()
    loss, more = loss_fn(model, case, batch)
    loss.backward()
    return loss.item(), more, {n: p.grad.detach().float().clone() for n, p in trained(model).items()}


def rate(s):
    if s < OPT["warmup"]:
        return OPT["lr"] * (s + 1) / OPT["warmup"]
    return OPT["lr"] / 2 * (1 + math.cos(math.pi * (s - OPT["warmup"]) / (OPT["n_step"] - OPT["warmup"])))


def train(model, loss_fn, case, decay):
    """(trace of the steps, weights after the last, after the first)"""
    params = trained(model)
    groups = [{"params": [p for n, p in params.items() if decay(p) == d], "weight_decay": OPT["weight_decay"] * d}
              for d in (True, False)]
    opt = torch.optim.AdamW([g for g in groups if g["params"]], lr=OPT["lr"], betas=(OPT["beta1"], OPT["beta2"]),
                            eps=OPT["eps"], foreach=False)
    trace, first = [], None
    for s in range(OPT["n_step"]):
        for g in opt.param_groups:
            g["lr"] = rate(s)
        model.zero_grad()
        batch = case["batches"][s % len(case["batches"])]
        loss, more = loss_fn(model, case, batch)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(params.values(), OPT["max_grad_norm"])
        opt.step()
        trace.append({"lr": rate(s), "loss": loss.item(), "grad_norm": float(norm),
                      **{k: more[k] for k in ("margins", "rewards", "kl") if k in more}})
        if s == 0:
            first = {n: p.detach().clone() for n, p in params.items()}
    return trace, {n: p.detach().clone() for n, p in params.items()}, first


def alone(start, grads, decay, **changed):
    """Weights after AdamW's steps on the gradient times the scales."""
    o = {**ALONE, **changed}
    params = {n: torch.nn.Parameter(p.clone()) for n, p in start.items()}
    groups = [{"params": [p for p in params.values() if decay(p) == d], "weight_decay": o["weight_decay"] * d}
              for d in (True, False)]
    opt = torch.optim.AdamW([g for g in groups if g["params"]], betas=(o["beta1"], o["beta2"]), eps=o["eps"], foreach=False)
    norm = math.sqrt(sum(error(g, g)[1] for g in grads.values()))
    for step in ALONE_STEPS:
        for n, p in params.items():
            p.grad = grads[n] * (step["grad_norm"] / norm)
        for g in opt.param_groups:
            g["lr"] = step["lr"]
        torch.nn.utils.clip_grad_norm_(params.values(), o["max_grad_norm"])
        opt.step()
    out = {}
    for n, p in params.items():
        flat = p.detach().flatten()
        m = min(N_ALONE, flat.numel())
        out[n] = flat[torch.arange(m) * flat.numel() // m].clone()
    return out


def write_alone(start, grads, decay, prefix, result, tensors):
    want = alone(start, grads, decay)
    for name, value in ALONE.items():
        other = alone(start, grads, decay, **{name: 1 - 1.01 * (1 - value) if name.startswith("beta") else 1.01 * value})
        moved = max(float((other[n] - want[n]).abs().max()) for n in want)
        assert moved > 4 * ALONE_LIMIT, (name, moved)
        print("   1 %% of %-14s moves a weight by %.1e" % (name, moved))
    add(tensors, prefix, want)
    norm = math.sqrt(sum(error(g, g)[1] for g in grads.values()))
    result["alone"] = {**ALONE, "steps": [{"lr": s["lr"], "scale": s["grad_norm"] / norm, "grad_norm": abs(s["grad_norm"])}
                                          for s in ALONE_STEPS]}


def tensor_class(name):
    """q_proj.lora_A, q_proj.weight, q_proj.bias, q_norm, norm, embed_tokens, lm_head"""
    part = name.split(".")
    if "lora_A" in part or "lora_B" in part:
        return ".".join(part[-3:-1])
    if part[-2] in LINEARS:
        return ".".join(part[-2:])
    return "norm" if part[-2] in ("norm", "input_layernorm", "post_attention_layernorm") else part[-2]


def error(a, b):
    return float(((a - b).double() ** 2).sum()), float((b.double() ** 2).sum())


def nmse(got, want):
    e = [error(got[n], want[n]) for n in want]
    return sum(x for x, _ in e) / sum(y for _, y in e)


def class_nmse(got, want):
    groups = defaultdict(list)
    for n in want:
        groups[tensor_class(n)].append(error(got[n], want[n]))
    out = {c: sum(x for x, _ in e) / sum(y for _, y in e) for c, e in sorted(groups.items())}
    out["worst"] = max(x / y for e in groups.values() for x, y in e)
    return out


def less(a, b):
    return {n: a[n] - b[n] for n in a}


def autocast(loss_fn):
    def run(*args):
        with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
            return loss_fn(*args)
    return run


def run_loss(case, files, loss_fn, decay):
    """Everything about one loss: gradients, steps, and the same in bf16. (JSON part, gradients, w0, w20)"""
    model = load(*files)
    batch = case["batches"][0]
    start = {n: p.detach().clone() for n, p in trained(model).items()}
    loss, more, grads = gradients(model, loss_fn, case, batch)
    assert all(torch.isfinite(g).all() and g.abs().sum() > 0 for g in grads.values())
    trace, last, first = train(model, loss_fn, case, decay)
    model = load(*files)
    half_loss, _, half = gradients(model, autocast(loss_fn), case, batch)
    half_trace, half_last, half_first = train(model, autocast(loss_fn), case, decay)
    _, _, pure = gradients(load(*files, dtype=torch.bfloat16), loss_fn, case, batch)
    out = {"value": loss, "grad_norm": math.sqrt(sum(error(g, g)[1] for g in grads.values())), **more,
           "bf16": {"value": half_loss, "losses": [t["loss"] for t in half_trace],
                    "grad_norms": [t["grad_norm"] for t in half_trace],
                    "step1_nmse": nmse(less(half_first, start), less(first, start)),
                    "step20_nmse": nmse(less(half_last, start), less(last, start))},
           "bf16_nmse": {"autocast": class_nmse(half, grads), "pure": class_nmse(pure, grads)}, "steps": trace}
    if case["kind"] == "full":
        out["update_norm"] = {n: math.sqrt(error(d, d)[1]) for n, d in less(last, start).items()}
    return out, grads, start, last


def add(tensors, prefix, state, keep=lambda n: True):
    tensors.update({prefix + n: t.contiguous() for n, t in state.items() if keep(n)})


def window_model(folder, model, window):
    """The same weights by links, another window in config.json."""
    os.makedirs(folder)
    for name in sorted(os.listdir(os.path.join(MODELS, model))):
        if name.endswith((".safetensors", ".index.json")):
            os.symlink(os.path.join("..", "..", "..", "logits", model, name), os.path.join(folder, name))
    with open(os.path.join(MODELS, model, "config.json")) as f:
        doc = json.load(f)
    doc["sliding_window"] = window
    write_json(os.path.join(folder, "config.json"), doc)


def logit_positions(n):
    return sorted(p for p in {0, 13, 20, n // 2, 63, 64, 80, n - 1} if p < n)


def base_case(out, name):
    """(case as in the JSON, (model folder, adapter folder))"""
    kind, model, more = CASES[name]
    folder = os.path.join(out, name)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    model_at, adapter = "../../logits/" + model, None
    if "window" in more:
        window_model(os.path.join(folder, "model"), model, more["window"])
        model_at = "model"
    config = transformers.AutoConfig.from_pretrained(os.path.join(MODELS, model))
    if kind != "full":
        adapter = "../%s/adapter" % more["adapter"] if "adapter" in more else "adapter"
        if "adapter" not in more:
            make_adapter(os.path.join(folder, adapter), load(os.path.join(MODELS, model), None),
                         generator(name, "adapter"), more.get("targets", LINEARS), more.get("rslora", False),
                         more.get("dtype", torch.bfloat16), more.get("r", 4))
    make = {"dpo": make_pairs, "kto": make_labelled}.get(kind, make_rows)
    rows, batches = make(config, generator(more.get("rows", name), "rows"))
    case = {"name": name, "kind": kind, "model": model_at, "adapter": adapter, "optimizer": OPT,
            "loss": PREFERENCE.get(kind, {}), "rows": rows, "batches": batches}
    files = tuple(x and os.path.normpath(os.path.join(folder, x)) for x in (model_at, adapter))
    return case, files


def write_sft(case, files, more, tensors):
    full = case["kind"] == "full"
    result, grads, start, last = run_loss(case, files, sft_loss, lambda p: not full or p.dim() > 1)
    write_alone(start, grads, lambda p: not full or p.dim() > 1, "alone.", result, tensors)
    model = load(*files)
    with torch.no_grad():
        result["nll"] = [(-token_logprob(model, case["rows"][i]["ids"])).tolist() for i in case["batches"][0]]
        ids = case["rows"][0]["ids"]
        case["logit_pos"] = logit_positions(len(ids))
        tensors["logits"] = model(torch.tensor([ids])).logits[0, case["logit_pos"]].contiguous()
    add(tensors, "grad.", grads)
    if full:
        add(tensors, "step20.", last, lambda n: last[n].dim() == 1 or n.endswith(more["step20"]))
    elif more.get("all"):
        add(tensors, "step20.", last)
    case["result"] = result


def write_preference(case, files, tensors):
    model = load(*files)
    add_references(model, case)
    case["results"] = {}
    for variant in case["loss"]:
        def loss_fn(model, case, batch, variant=variant):
            return kto_loss(model, case, batch) if case["kind"] == "kto" else dpo_loss(model, case, batch, variant)

        for batch in case["batches"]:
            check_trl(model, case, batch, variant, loss_fn(model, case, batch)[0])
        result, grads, start, last = run_loss(case, files, loss_fn, lambda p: True)
        add(tensors, "grad.%s." % variant, grads)
        if variant in ("sigmoid", "kto"):
            add(tensors, "step20.%s." % variant, last)
            write_alone(start, grads, lambda p: True, "alone.%s." % variant, result, tensors)
        case["results"][variant] = result


# ---- files


def write_json(path, doc):
    """One line per key, and per element of a list of objects; float32 values in nine digits."""
    def text(x):
        if isinstance(x, dict):
            return "{%s}" % ", ".join("%s: %s" % (json.dumps(k), text(v)) for k, v in x.items())
        if isinstance(x, (list, tuple)):
            return "[%s]" % ", ".join(text(v) for v in x)
        return "%.9g" % x if isinstance(x, float) else json.dumps(x)

    def tree(x, pad):
        deep = isinstance(x, dict) and any(isinstance(v, (dict, list)) for v in x.values())
        if deep and len(text(x)) > 110:
            inside = ",\n".join("%s %s: %s" % (pad, json.dumps(k), tree(v, pad + " ")) for k, v in x.items())
            return "{\n%s\n%s}" % (inside, pad)
        if isinstance(x, list) and x and isinstance(x[0], (dict, list)):
            return "[\n%s\n%s]" % (",\n".join(pad + " " + text(v) for v in x), pad)
        return text(x)

    with open(path, "w") as f:
        f.write(tree(doc, "") + "\n")


def write_case(out, name):
    case, files = base_case(out, name)
    tensors = {}
    if case["kind"] in ("dpo", "kto"):
        write_preference(case, files, tensors)
    else:
        write_sft(case, files, CASES[name][2], tensors)
    save_file(tensors, os.path.join(out, name, "golden.safetensors"))
    write_json(os.path.join(out, name, "case.json"), case)
    for variant, r in case.get("results", {"": case.get("result")}).items():
        print("%-16s %-12s loss %.4f -> %.4f, norm %.3f, bf16 nmse autocast %.1e pure %.1e, step20 %.1e %s" % (
            name, variant, r["value"], r["steps"][-1]["loss"], r["grad_norm"], r["bf16_nmse"]["autocast"]["worst"],
            r["bf16_nmse"]["pure"]["worst"], r["bf16"]["step20_nmse"],
            r.get("margins", r.get("rewards", ""))))


def versions(out):
    worst = {"autocast": defaultdict(float), "pure": defaultdict(float)}
    for name in CASES:
        path = os.path.join(out, name, "case.json")
        if not os.path.exists(path):
            continue
        with open(path) as f:
            case = json.load(f)
        for r in case.get("results", {"": case.get("result")}).values():
            for mode, rows in r["bf16_nmse"].items():
                for c, x in rows.items():
                    worst[mode][c] = max(worst[mode][c], x)
    with contextlib.suppress(ImportError):
        import trl
    return {"script": "tests/golden/train/make_train_golden.py", "python": sys.version.split()[0],
            "torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__,
            "trl": trl.__version__ if "trl" in locals() else None,
            "bf16_nmse": {m: dict(sorted(x.items())) for m, x in worst.items()}}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", default=HERE)
    ap.add_argument("--only")
    args = ap.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    for name in CASES:
        if not args.only or args.only == name:
            write_case(args.out, name)
    write_json(os.path.join(args.out, "versions.json"), versions(args.out))


if __name__ == "__main__":
    main()
