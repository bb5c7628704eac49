#!/usr/bin/env python3
"""Golden file of the training masks: tests/golden/mask/cases.json.

    tools/make_mask_golden.py

For the small tokenizers of tests/golden/tok and four chat formats: the ids of conversations and the assistant mask, as
transformers makes them with apply_chat_template(return_assistant_tokens_mask=True). The templates print what the
formats of src/text/chat.c print (tests/golden/chat checks those against the models' own templates) and mark what the
assistant generates with {% generation %}: its text and the token that ends its turn, not the line end behind it.
Needs: pip install transformers (5.19.0 made the committed file) and its tokenizers.
"""
import json
import os

import transformers
from transformers import PreTrainedTokenizerFast

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "golden")
OUT = os.path.join(HERE, "mask", "cases.json")
U, A, S = "user", "assistant", "system"

CHATML = ("{%% if messages[0]['role'] != 'system' %%}{{ '<|im_start|>system\n%s<|im_end|>\n' }}{%% endif %%}"
          "{%% for m in messages %%}{{ '<|im_start|>' + m['role'] + '\n' }}{%% if m['role'] == 'assistant' %%}"
          "{%% generation %%}{{ m['content'] + '<|im_end|>' }}{%% endgeneration %%}{{ '\n' }}{%% else %%}"
          "{{ m['content'] + '<|im_end|>\n' }}{%% endif %%}{%% endfor %%}"
          "{%% if add_generation_prompt %%}{{ '<|im_start|>assistant\n' }}{%% endif %%}")
LLAMA3 = ("{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' }}"
          "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] | trim + '<|eot_id|>' }}{% endgeneration %}"
          "{% else %}{{ m['content'] | trim + '<|eot_id|>' }}{% endif %}{% endfor %}"
          "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}")
MISTRAL = ("{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
           "{% else %}{% generation %}{{ m['content'] + eos_token }}{% endgeneration %}{% endif %}{% endfor %}")
ROWS = [
    ("smollm2", "smollm2", "", "<|endoftext|>",
     CHATML % "You are a helpful AI assistant named SmolLM, trained by Hugging Face"),
    ("qwen2", "qwen2", "", "<|im_end|>", CHATML % "You are a helpful assistant."),
    ("llama3", "llama3", "<|begin_of_text|>", "<|eot_id|>", LLAMA3),
    ("llama2", "mistral", "<s>", "</s>", MISTRAL),
]


def m(*turns):
    return [{"role": r, "content": c} for r, c in turns]


CONVERSATIONS = [
    m((U, "Hello"), (A, "Hi!")),
    m((U, "Hello"), (A, "Hi!"), (U, "How are you?"), (A, "Well, thank you.\nAnd you?")),
    m((U, "1"), (A, "2"), (U, "3"), (A, "4"), (U, "5"), (A, "6")),
    m((U, "na\u00efve \u4f60\u597d"), (A, "\u00e9 \u4f60\u597d \U0001f600 done")),
    m((U, "say nothing"), (A, "")),
    m((U, "code"), (A, "```c\nint main(void) {\n    return 0;\n}\n```")),
    m((U, "  padded  "), (A, "list:\n- one\n- two\n")),
]
SYSTEM = m((S, "Be brief."))


def main():
    rows = []
    for tok, chat, bos, eos, template in ROWS:
        t = PreTrainedTokenizerFast(tokenizer_file=os.path.join(HERE, "tok", tok + ".json"), bos_token=bos or None,
                                    eos_token=eos)
        cases = []
        for talk in CONVERSATIONS + ([] if chat == "mistral" else [SYSTEM + c for c in CONVERSATIONS[:3]]):
            made = t.apply_chat_template(talk, chat_template=template, tokenize=True, return_dict=True,
                                         return_assistant_tokens_mask=True)
            mask = made["assistant_masks"]
            assert sum(mask) > 0
            cases.append({"messages": talk, "ids": made["input_ids"], "mask": "".join(map(str, mask))})
        rows.append({"tokenizer": tok, "chat": chat, "bos": bos, "eos": eos, "cases": cases})
    os.makedirs(os.path.dirname(OUT), exist_ok=True)
    with open(OUT, "w", encoding="ascii") as f:
        f.write('{"transformers": "%s", "rows": [\n' % transformers.__version__)
        for i, row in enumerate(rows):
            cases = row.pop("cases")
            f.write(json.dumps(row)[:-1] + ', "cases": [\n')
            f.write(",\n".join(json.dumps(c, separators=(",", ":")) for c in cases))
            f.write("\n]}%s\n" % ("," if i + 1 < len(rows) else ""))
        f.write("]}\n")


main()
