"""prompts.py ROWS [SEED]: a deterministic mix of input rows for the job tests: chat and completion, batch and plain, sampled and greedy."""
import json
import random
import sys

rows = int(sys.argv[1])
rng = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 1)
words = "the night shift reads logs and waits for numbers that never come back from tape while fans hum".split()


def text(n):
    return " ".join(rng.choice(words) for _ in range(n))


for i in range(rows):
    body = {"max_tokens": rng.randint(1, 40)}
    kind = rng.randrange(6)
    if kind:
        body |= [{}, {"temperature": 0}, {"temperature": 0.8, "seed": i}, {"temperature": 1.1, "top_k": 20, "top_p": 0.9},
                 {"temperature": 0.7, "min_p": 0.05, "repetition_penalty": 1.2}, {"frequency_penalty": 0.5, "presence_penalty": 0.3}][kind]
    if i % 7 == 3:
        body["n"] = 3
    if i % 5 == 0:
        body["stop"] = [rng.choice(["e", "th", " a"])]
    prompt = text(rng.choice([1, 3, 9, 30, 70]))
    if i % 2:
        body["messages"] = [{"role": "user", "content": prompt}]
        if i % 4 == 1:
            body |= {"logprobs": True, "top_logprobs": i % 6}
        line = {"custom_id": f"chat-{i}", "method": "POST", "url": "/v1/chat/completions", "body": body} if i % 3 else body
    else:
        body["prompt"] = prompt
        if i % 4 == 2:
            body["logprobs"] = i % 6
        line = {"custom_id": f"text-{i}", "method": "POST", "url": "/v1/completions", "body": body} if i % 3 else body
    print(json.dumps(line))
    if i == 10:
        print('{"prompt": "this line is broken"')
