"""same_greedy.py A B: texts of all rows equal."""
import json
import sys

a, b = ([json.loads(line)["response"]["body"]["choices"][0] for line in open(p)] for p in sys.argv[1:])
assert len(a) == len(b) and len(a) > 0
different = sum(x.get("text") != y.get("text") or x["finish_reason"] != y["finish_reason"] for x, y in zip(a, b))
sys.exit(f"{different} of {len(a)} texts differ" if different else 0)
