"""golden_text.py rows GREEDY LLAMA [RESULTS.h5 ...]   the rows of the next job, JSONL
golden_text.py check GREEDY LLAMA RESULTS.h5 ...     judges the results of all jobs

Rows of the first job: the prompts of greedy.json as messages; the same as token ids; every place of llama.json as
token ids, and each of its texts as text. Where an answer leaves float32's, the next job goes on behind float32's
token, until all tokens of greedy.json have been compared.

Bounds. bf16 rounds weights and activations, so no two programs agree in the last digits; what is allowed is derived
from what others have at the same places, all against transformers in float32 on the same bf16 weights:
  * the tolerance, by which the distance of two tokens may change. transformers' own bf16 run changes the margins of
    greedy.json by 0.07 and at most 0.55 ("bf16"); nocturne, which keeps the residual stream in float32, must stay within
    half of both (0.023 and 0.17 when this was written). A token other than float32's or llama.cpp's is allowed only
    where their margin is below the tolerance.
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
TEXT = {"temperature": 0, "logprobs": N_TOP}


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


def tolerance(greedy):
    return greedy["bf16"]["max"] / 2


def rows(greedy, llama):
    chat = {"temperature": 0, "max_tokens": STEPS, "logprobs": True, "top_logprobs": N_TOP}
    text = dict(TEXT, max_tokens=STEPS)
    one = dict(TEXT, max_tokens=1, ignore_eos=True)
    for r in greedy["rows"]:
        yield dict(chat, messages=[{"role": "user", "content": r["text"]}])
    for r in greedy["rows"]:
        yield dict(text, prompt=r["prompt"])
    for r in llama["rows"]:
        for p in r["places"]:
            yield dict(one, prompt=r["ids"][:p["at"]])
        yield dict(one, prompt=r["text"])


def next_row(r, t):
    """Goes on after float32's first t tokens."""
    return dict(TEXT, prompt=r["prompt"] + r["ids"][:t], max_tokens=len(r["ids"]) - t)


class Walk:
    """Follows float32's answers through the runs. Where another token is chosen the next run goes on after float32's."""

    def __init__(self, greedy, runs):
        self.rows, self.bad, self.changes, self.splits, self.n_equal = greedy["rows"], [], [], [], 0
        self.tolerance = tolerance(greedy)
        self.n_whole = 0  # answers equal from end to end in the first run
        self.pending = [(i, 0) for i in range(len(self.rows))]
        for run in runs:
            left = [self.follow(run, g, i, start) for g, (i, start) in enumerate(self.pending)]
            if run is runs[0]:
                self.n_whole = len(self.rows) - len(self.splits)
            self.pending = [(i, t) for (i, _), t in zip(self.pending, left) if t < len(self.rows[i]["ids"])]

    def follow(self, run, g, i, start):
        """Compares generation g to row i from token start on; the token from which the next run has to go on."""
        r, got, top = self.rows[i], run.ids(g), run.top(g)
        for t in range(start, len(r["ids"])):
            want, margin, k = r["ids"][t], r["margin"][t], t - start
            a, b = (top[k].get(want), top[k].get(r["second"][t])) if k < len(top) else (None, None)
            if a is not None and b is not None:
                self.changes.append(abs(a - b - margin))
            if k < len(got) and got[k] == want:
                self.n_equal += 1
                continue
            self.splits.append(margin)
            if margin > self.tolerance or k >= len(got):
                self.bad.append("%r: token %d is %s, float32 chooses %d by %.3f" %
                                (r["text"], t, got[k] if k < len(got) else "missing", want, margin))
            return t + 1
        return len(r["ids"])


def check_greedy(greedy, runs):
    """Problems, as sentences; prints what was compared."""
    n, walk, bf16 = len(greedy["rows"]), Walk(greedy, runs), greedy["bf16"]
    bad = walk.bad
    for i, r in enumerate(greedy["rows"]):
        if runs[0].n_prompt[i] != len(r["prompt"]):
            bad.append("%r: %d prompt tokens, transformers has %d" % (r["text"], runs[0].n_prompt[i], len(r["prompt"])))
        if not runs[0].same(i, n + i):
            bad.append("%r: the answer to the messages is not the answer to transformers' prompt ids" % r["text"])
    n_tok = sum(len(r["ids"]) for r in greedy["rows"])
    print("greedy: %d of %d answers are float32's from end to end; of %d tokens %d are equal, %d differ, at margins up to "
          "%.3f (tolerance %.3f); transformers bf16 differs at %d" %
          (walk.n_whole, n, n_tok, walk.n_equal, len(walk.splits), max(walk.splits, default=0), walk.tolerance, bf16["other"]))
    print("greedy: |change of the top-2 margin| over %d tokens: mean %.4f, max %.4f; transformers bf16 %.4f, %.4f" %
          (len(walk.changes), mean(walk.changes), max(walk.changes), bf16["mean"], bf16["max"]))
    if walk.pending or walk.n_equal + len(walk.splits) != n_tok or len(walk.changes) < 0.95 * n_tok:
        bad.append("not all tokens were compared")
    if max(walk.changes) > walk.tolerance or mean(walk.changes) > bf16["mean"] / 2:
        bad.append("margins change more than half as much as in transformers' bf16 run")
    if len(walk.splits) > bf16["other"] / 2:
        bad.append("more than half as many tokens differ as in transformers' bf16 run")
    return bad


def check_places(llama, results, first, tolerance):
    bad, ours, theirs, n_same, n_place, n_shared, n_tight = [], {}, {}, 0, 0, 0, 0
    i = first
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
    worst = max(theirs["bf16"])
    both = math.hypot(bound, mean(theirs["llama"]))
    print("llama.cpp: %d texts, %d places, best token equal at %d (tolerance %.3f, %d places are closer); %d of %d "
          "tokens shared" % (len(llama["rows"]), n_place, n_same, tolerance, n_tight, n_shared, N_TOP * n_place))
    for key, most in (("llama", both), ("float32", bound)):
        print("|difference| of log-probs to %s: mean %.4f (at most %.4f), max %.4f (at most %.4f)" %
              (key, mean(ours[key]), most, max(ours[key]), worst))
        if not mean(ours[key]) <= most or not max(ours[key]) <= worst:
            bad.append("log-probs are too far from %s" % key)
    if n_shared < 0.95 * N_TOP * n_place:
        bad.append("the likeliest tokens are not llama.cpp's")
    print("  of others to float32, mean and max: " + "; ".join(
        "%s %.4f %.4f" % (key, mean(v), max(v)) for key, v in theirs.items()))
    return bad


def main():
    with open(sys.argv[2]) as f, open(sys.argv[3]) as g:
        greedy, llama = json.load(f), json.load(g)
    runs = [Results(path) for path in sys.argv[4:]]
    first = list(rows(greedy, llama))
    if sys.argv[1] == "rows":
        more = ((greedy["rows"][i], t) for i, t in Walk(greedy, runs).pending)
        for row in first if not runs else (next_row(r, t) for r, t in more):
            print(json.dumps(row))
        return
    if len(runs[0].n_prompt) != len(first):
        sys.exit("%d answers to %d rows" % (len(runs[0].n_prompt), len(first)))
    bad = check_greedy(greedy, runs)
    bad += check_places(llama, runs[0], 2 * len(greedy["rows"]), tolerance(greedy))
    for sentence in bad:
        print(sentence)
    sys.exit(1 if bad else 0)


main()
