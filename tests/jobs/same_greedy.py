"""same_greedy.py A B [INPUT]: texts of all rows equal, or of the rows that are greedy in INPUT."""
import json
import sys

a, b = ([json.loads(line)["response"]["body"]["choices"][0] for line in open(p)] for p in sys.argv[1:3])
assert len(a) == len(b) and len(a) > 0
if len(sys.argv) > 3:
    greedy = [json.loads(line).get("temperature") == 0 for line in open(sys.argv[3])]
    a, b = ([x for x, g in zip(rows, greedy) if g] for rows in (a, b))
    assert len(a) > 0
different = sum(x.get("text") != y.get("text") or x["finish_reason"] != y["finish_reason"] for x, y in zip(a, b))
sys.exit(f"{different} of {len(a)} texts differ" if different else 0)
