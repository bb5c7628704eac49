#!/usr/bin/env python3
"""A LoRA adapter as PEFT saves it, and what PEFT adds to the weights with it: make_adapter_golden.py tests/golden/adapter

Made with peft 0.21.2, transformers 5.19.0, torch 2.13. The base is a random Llama of 2 layers (d_model 16, 4 heads,
2 kv, d_ff 24); rank 3, alpha 5, rsLoRA, all seven linears, saved in bfloat16. delta.safetensors has s B A of every
linear under the base's names, in float32, as get_delta_weight gives it.
"""
import os
import sys

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

out = sys.argv[1]
torch.manual_seed(7)
config = LlamaConfig(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
                     num_key_value_heads=2, head_dim=4, vocab_size=32, max_position_embeddings=64)
lora = LoraConfig(r=3, lora_alpha=5, use_rslora=True, lora_dropout=0.25, task_type="CAUSAL_LM",
                  target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"])
model = get_peft_model(LlamaForCausalLM(config), lora)
delta = {}
for name, module in model.named_modules():
    if not hasattr(module, "lora_A") or "default" not in module.lora_A:
        continue
    for part in (module.lora_A, module.lora_B):
        weight = part["default"].weight
        weight.data = torch.randn_like(weight).bfloat16().float()
    delta[name.removeprefix("base_model.model.") + ".weight"] = module.get_delta_weight("default").contiguous()
model = model.bfloat16()
model.peft_config["default"].base_model_name_or_path = "tiny/llama"
model.save_pretrained(out)
os.remove(os.path.join(out, "README.md"))
save_file({k: v.detach().float() for k, v in delta.items()}, os.path.join(out, "delta.safetensors"))
