"""What test_finetune.sh asks of metrics, adapters and answers; a failed assertion is its verdict.

    tune_check.py events DIR EVENT FIELD | falls DIR | grows DIR | level DIR | near DIR DIR LIMIT | losses DIR DIR LIMIT |
    kl DIR LEAST MOST | recount DIR | spikes DIR FACTOR | answers DIR DIR WORD
"""
import json
import struct
import sys


def events(folder, event, field):
    lines = [json.loads(line) for line in open(folder + "/metrics.jsonl")]
    return [line.get(field) for line in lines if line["event"] == event]


def factors(folder):
    """lora_B of an adapter by name: it begins at 0, so it is what training did."""
    data = open(folder + "/adapter/adapter_model.safetensors", "rb").read()
    size = struct.unpack("<Q", data[:8])[0]
    out = {}
    for name, info in json.loads(data[8:8 + size]).items():
        if "lora_B" not in name:
            continue
        begin, end = (8 + size + x for x in info["data_offsets"])
        out[name] = struct.unpack("<%df" % ((end - begin) // 4), data[begin:end])
    return out


def falls(folder):
    losses = [float(x) for x in events(folder, "eval", "eval_loss")]
    print("held-out losses", losses)
    assert len(losses) >= 2 and losses[-1] < 0.5 * losses[0]


def grows(folder):
    margins = [float(x) for x in events(folder, "step", "margin")]
    print("margins", margins[0], "to", margins[-1])
    assert margins[-1] > margins[0] + 0.05


def level(folder):
    """The first step, away from nothing yet; reference sums are kept in float32."""
    assert abs(float(events(folder, "step", "margin")[0])) < 1e-5


def recount(folder):
    """The card's figures are those of the metrics."""
    card = json.load(open(folder + "/training_card.json"))
    run, results, losses = card["run"], card["results"], events(folder, "step", "loss")
    assert len(losses) > 20 and events(folder, "step", "skipped") == [0] * len(losses)
    want = {"steps": len(losses), "samples": events(folder, "step", "samples")[-1], "tokens": events(folder, "step", "tokens")[-1],
            "train_loss_first": losses[0], "train_loss": sum(losses[-20:]) / 20,
            "eval_loss_first": events(folder, "eval", "eval_loss")[0], "eval_loss": events(folder, "eval", "eval_loss")[-1]}
    for key, value in want.items():
        found = {**run, **results}[key]
        assert abs(found - value) <= 1e-9 * abs(value), (key, found, value)


def near(one, other, limit):
    a, b = factors(one), factors(other)
    assert a.keys() == b.keys()
    error = sum((x - y) ** 2 for k in a for x, y in zip(a[k], b[k]))
    norm = sum(x * x for k in a for x in a[k])
    print(f"{one}, {other}: {error / norm:.2e}")
    assert 0 < norm and error <= float(limit) * norm


def losses(one, other, limit):
    """Of all steps, relative."""
    a, b = (list(map(float, events(d, "step", "loss"))) for d in (one, other))
    worst = max(abs(x - y) / x for x, y in zip(a, b))
    print(f"{one}, {other}: {worst:.2e}")
    assert len(a) == len(b) > 0 and worst <= float(limit)


def kl(folder, least, most):
    """The largest divergence of a step."""
    found = max(map(float, events(folder, "step", "kl")))
    print(f"{folder}: {found:.2e}")
    assert float(least) <= found <= float(most)


def spikes(folder, factor):
    """Left out are the steps after ten whose norm is above the factor times the mean of those before, which follows spikes as far as they are none."""
    norm_mean, counted = 0, []
    for step, norm, loss, skipped in zip(*(events(folder, "step", x) for x in ("step", "grad_norm", "loss", "skipped"))):
        limit = float(factor) * norm_mean
        assert skipped == (step > 10 and norm > limit), step
        norm_mean = 0.9 * norm_mean + 0.1 * min(norm, limit if skipped else norm) if step > 1 else norm
        counted += [] if skipped else [loss]
    card = json.load(open(folder + "/training_card.json"))
    n_skipped, mean = step - len(counted), sum(counted[-20:]) / 20
    print(f"{folder}: {n_skipped} spikes, mean loss {mean:.4f}")
    assert n_skipped > 1 and card["run"]["skipped_steps"] == n_skipped
    assert abs(card["results"]["train_loss"] / mean - 1) < 1e-9


def answers(one, other, word):
    a, b = (json.loads(open(d + "/results.jsonl").readline())["response"]["body"]["choices"][0]["message"]["content"]
            for d in (one, other))
    print(repr(a))
    assert a == b and word in a


if sys.argv[1] == "events":
    print(*events(*sys.argv[2:]), sep="\n")
else:
    {"falls": falls, "grows": grows, "level": level, "near": near, "losses": losses, "kl": kl, "recount": recount, "spikes": spikes, "answers": answers}[sys.argv[1]](*sys.argv[2:])
