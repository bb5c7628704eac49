"""golden_text.py rows GREEDY LLAMA              the rows of one job, JSONL
golden_text.py check GREEDY LLAMA RESULTS.h5   judges its results

Rows, in this order: the prompts of greedy.json as messages; the same as token ids; every place of llama.json as token
ids, and each of its texts as text. All numbers that are compared are float32 log-probabilities.

Bounds. bf16 rounds weights and activations, so no two programs agree in the last digits; what is allowed is derived
from what others have at the same places, all against transformers in float32 on the same bf16 weights:
  * TOLERANCE, by which the distance of two tokens may change. transformers' own bf16 run changes the margins of
    greedy.json by up to bf16.max; nocturne, which keeps the residual stream in float32, must stay within half of that.
    A token other than float32's is allowed only where its margin is below the tolerance.
  * the mean |difference| to float32 may be 1.25 times that of llama.cpp with a bf16 KV cache, which rounds where
    nocturne does;
  * the mean |difference| to llama.cpp (float32 KV cache) may be the two distances to float32 added in squares, as
    independent roundings add;
  * the maximum of both may be the one of transformers' bf16 run.
"""
import json
import math
import sys

STEPS, N_TOP, EOS = 40, 20, 2
MIN_PROMPTS, MIN_STEPS = 50, 20  # so many prompts must be compared over so many tokens, or over their whole answers


class Results:
    """Generation i of results.h5: n_prompt, ids, and per token {id: log-prob} of the likeliest 20."""

    def __init__(self, path):
        import h5py
        with h5py.File(path) as f:
            g = f["generations"]
            self.n_prompt, self.finish, self.ptr, self.tok = (g[k][:].tolist() for k in
                                                              ("n_prompt", "finish", "tok_ptr", "tok"))
            self.top_id, self.top_lp = g["top_id"][:].tolist(), g["top_lp"][:].tolist()
            self.stop = g["finish"].attrs["values"]
        self.stop = (self.stop.decode() if isinstance(self.stop, bytes) else self.stop).split(",").index("stop")

    def ids(self, i):
        return self.tok[self.ptr[i]:self.ptr[i + 1]] + ([EOS] if self.finish[i] == self.stop else [])

    def top(self, i):
        return [dict(zip(a, b)) for a, b in zip(self.top_id[self.ptr[i]:self.ptr[i + 1]],
                                                self.top_lp[self.ptr[i]:self.ptr[i + 1]])]

    def same(self, i, j):
        return self.n_prompt[i] == self.n_prompt[j] and self.ids(i) == self.ids(j) and self.top(i) == self.top(j)


def mean(values):
    return sum(values) / len(values)


def rows(greedy, llama):
    chat = {"temperature": 0, "max_tokens": STEPS, "logprobs": True, "top_logprobs": N_TOP}
    text = {"temperature": 0, "max_tokens": STEPS, "logprobs": N_TOP}
    one = dict(text, max_tokens=1, ignore_eos=True)
    for r in greedy["rows"]:
        yield dict(chat, messages=[{"role": "user", "content": r["text"]}])
    for r in greedy["rows"]:
        yield dict(text, prompt=r["prompt"])
    for r in llama["rows"]:
        for p in r["places"]:
            yield dict(one, prompt=r["ids"][:p["at"]])
        yield dict(one, prompt=r["text"])


def check_greedy(greedy, results):
    """Problems, as sentences; prints what was compared."""
    bad, changes, splits, n_whole, n_long, n_steps = [], [], [], 0, 0, 0
    tolerance = greedy["bf16"]["max"] / 2
    n = len(greedy["rows"])
    for i, r in enumerate(greedy["rows"]):
        if results.n_prompt[i] != len(r["prompt"]):
            bad.append("%r: %d prompt tokens, transformers has %d" % (r["text"], results.n_prompt[i], len(r["prompt"])))
        if not results.same(i, n + i):
            bad.append("%r: the answer to the messages is not the answer to transformers' prompt ids" % r["text"])
        got, top, equal = results.ids(i), results.top(i), 0
        for t, want in enumerate(r["ids"]):
            a, b = (top[t].get(want), top[t].get(r["second"][t])) if t < len(top) else (None, None)
            if a is not None and b is not None:
                changes.append(abs(a - b - r["margin"][t]))
            if t >= len(got) or got[t] != want:
                splits.append(r["margin"][t])
                if r["margin"][t] > tolerance:
                    bad.append("%r: token %d is %s, float32 chooses %d by %.3f" %
                               (r["text"], t, got[t] if t < len(got) else "missing", want, r["margin"][t]))
                break
            equal += 1
        n_steps += equal
        n_whole += equal == len(r["ids"]) == len(got)
        n_long += equal >= min(MIN_STEPS, len(r["ids"]))
    print("greedy: %d prompts, %d answers equal to float32's from end to end, %d over %d tokens or the whole answer; "
          "%d tokens equal; first differences at margins %s (tolerance %.3f)" %
          (n, n_whole, n_long, MIN_STEPS, n_steps, sorted(splits), tolerance))
    print("greedy: |change of the top-2 margin| over %d tokens: mean %.4f, max %.4f; transformers bf16 %.4f, %.4f" %
          (len(changes), mean(changes), max(changes), greedy["bf16"]["mean"], greedy["bf16"]["max"]))
    if n_long < MIN_PROMPTS:
        bad.append("only %d prompts could be compared, %d are needed" % (n_long, MIN_PROMPTS))
    if max(changes) > tolerance or mean(changes) > greedy["bf16"]["mean"] / 2:
        bad.append("margins change more than half as much as in transformers' bf16 run")
    return bad


def check_places(llama, results, first):
    bad, ours, theirs, n_same, n_place, n_shared, n_tight = [], {}, {}, 0, 0, 0, 0
    i = first
    places = [p for r in llama["rows"] for p in r["places"]]
    tolerance = max(abs(b - f) for p in places for b, f in zip(p["bf16"], p["float32"]))
    for r in llama["rows"]:
        for p in r["places"]:
            got = results.top(i)[0]
            margin = p["llama"][0] - p["llama"][1]
            n_same += results.ids(i)[0] == p["top"][0]
            if results.ids(i)[0] != p["top"][0] and margin > tolerance:
                bad.append("%.30r after %d tokens: %d, llama.cpp chooses %d by %.3f" %
                           (r["text"], p["at"], results.ids(i)[0], p["top"][0], margin))
            n_tight += margin <= tolerance
            for k, token in enumerate(p["top"]):
                for key in ("llama", "float32"):
                    if token in got:
                        ours.setdefault(key, []).append(abs(got[token] - p[key][k]))
                for key in ("llama", "llama_bf16_kv", "bf16"):
                    theirs.setdefault(key, []).append(abs(p[key][k] - p["float32"][k]))
            n_shared += sum(token in got for token in p["top"])
            n_place += 1
            i += 1
        if not results.same(i - 1, i):
            bad.append("%.30r: the text is not tokenized as llama.cpp does" % r["text"])
        i += 1
    bound = 1.25 * mean(theirs["llama_bf16_kv"])
    both = math.hypot(bound, mean(theirs["llama"]))
    print("llama.cpp: %d texts, %d places, best token equal at %d (tolerance %.3f, %d places are closer); %d of %d "
          "tokens shared" % (len(llama["rows"]), n_place, n_same, tolerance, n_tight, n_shared, N_TOP * n_place))
    for key, most in (("llama", both), ("float32", bound)):
        print("|difference| of log-probs to %s: mean %.4f (at most %.4f), max %.4f (at most %.4f)" %
              (key, mean(ours[key]), most, max(ours[key]), tolerance))
        if not mean(ours[key]) <= most or not max(ours[key]) <= tolerance:
            bad.append("log-probs are too far from %s" % key)
    print("  of others to float32, mean and max: " + "; ".join(
        "%s %.4f %.4f" % (key, mean(v), max(v)) for key, v in theirs.items()))
    return bad


def main():
    with open(sys.argv[2]) as f, open(sys.argv[3]) as g:
        greedy, llama = json.load(f), json.load(g)
    if sys.argv[1] == "rows":
        for row in rows(greedy, llama):
            print(json.dumps(row))
        return
    results = Results(sys.argv[4])
    n_rows = sum(1 for _ in rows(greedy, llama))
    if len(results.n_prompt) != n_rows:
        sys.exit("%d answers to %d rows" % (len(results.n_prompt), n_rows))
    bad = check_greedy(greedy, results) + check_places(llama, results, 2 * len(greedy["rows"]))
    for sentence in bad:
        print(sentence)
    sys.exit(1 if bad else 0)


main()
