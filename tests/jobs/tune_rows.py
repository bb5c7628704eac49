"""Rows to fine-tune on: rows.jsonl (conversations), pairs.jsonl (chosen, rejected) and thumbs.jsonl (labels), the same every time."""
import json
import random

random.seed(3)
WORDS = "night shift tape log core rank node queue lamp door".split()
with open("rows.jsonl", "w") as rows, open("pairs.jsonl", "w") as pairs, open("thumbs.jsonl", "w") as thumbs:
    for i in range(48):
        ask = " ".join(random.choice(WORDS) for _ in range(random.randint(2, 9)))
        meta = {"user": f"u{i % 12}", "created": 1700000000 + 3600 * i, "source": "desk" if i % 3 else "night"}
        good, bad = "all is well " * random.randint(1, 3), "go away"
        talk = [{"role": "user", "content": ask}, {"role": "assistant", "content": good}]
        print(json.dumps({**meta, "messages": talk}), file=rows)
        print(json.dumps({**meta, "prompt": ask, "chosen": good, "rejected": bad}), file=pairs)
        print(json.dumps({**meta, "prompt": ask, "completion": good if i % 2 else bad, "label": bool(i % 2)}), file=thumbs)
