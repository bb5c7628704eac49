"""train_rows.py DIR: a file of training rows per format in DIR, with what the formats allow and exporters write.
train_rows.py --same A B: 0 when both files hold the same rows (parsed JSON, keys in their order).
train_rows.py --h5 FILE: 0 when h5py reads the corpus and its offsets and references hold (77: no h5py)."""
import json
import sys

odd = "caf\u00e9 \U0001f600 \"quoted\" \\ \u0000 end\n"


def files():
    user = lambda text: {"role": "user", "content": text}
    assistant = lambda text, **more: {"role": "assistant", "content": text, **more}
    yield "messages", [
        {"messages": [user("q"), assistant("a")]},
        {"messages": [{"role": "system", "content": odd}, user(odd), assistant(odd, weight=0), user("again"), assistant("b", weight=0.5)],
         "user": "ann", "consent": ["train"], "source": "web", "created": 1767323045, "license": "CC-BY-4.0", "split": "valid"},
        {"messages": [{"content": [{"type": "text", "text": "one"}, {"type": "text", "text": ""}], "role": "user"},
                      {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": "{}"}}]},
                      {"role": "tool", "tool_call_id": "c1", "content": "42"}, assistant("")],
         "tools": [{"type": "function"}], "n": 1.5e-3, "big": 9223372036854775807, "none": None},
    ]
    yield "completion", [
        {"prompt": "Once upon", "completion": " a time" + odd},
        {"completion": [assistant("a")], "prompt": [user("q"), assistant("mid"), user(odd)]},
        {"prompt": "", "completion": ""},
        {"prompt": [user("s"), assistant("m"), user("q")], "completion": [assistant("m"), user("q"), assistant("a", n=1)]},
        {"prompt": "Once", "completion": "Once upon"},
    ]
    yield "sharegpt", [
        {"conversations": [{"from": "human", "value": odd}, {"value": "a", "from": "gpt"}], "system": "Be brief.", "tools": "[]"},
        {"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "q"}, {"from": "function_call", "value": "{}"},
                           {"from": "observation", "value": "1"}, {"from": "gpt", "value": "a"}], "id": 7},
        {"conversations": [{"from": "human", "value": "q"}], "chosen": {"from": "gpt", "value": "x"}, "rejected": {"from": "gpt", "value": odd}},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "bad"}], "kto_tag": False, "system": None},
    ]
    yield "alpaca", [
        {"instruction": "Add.", "input": "1 2", "output": "3"},
        {"instruction": odd, "input": "", "output": odd, "system": "s", "history": [["q1", "a1"], ["q2", odd]]},
        {"output": "x", "instruction": "order"},
        {"instruction": "i", "input": None, "chosen": "c", "rejected": "r"},
        {"instruction": "i", "output": "o", "kto_tag": True},
    ]
    yield "preference", [
        {"prompt": "p", "chosen": "c" + odd, "rejected": "r"},
        {"chosen": [user("q"), assistant("good")], "rejected": [user("q"), assistant("bad"), user("?"), assistant("worse")], "margin": 0.5},
        {"prompt": [user("q")], "chosen": [assistant("good")], "rejected": [assistant("bad")]},
        {"prompt": [user("q")], "chosen": [user("q"), assistant("good")], "rejected": [user("q"), assistant("bad")]},
        {"prompt": "q", "chosen": [user("q"), assistant("good")], "rejected": [user("q"), assistant("bad")], "score": 3},
        {"prompt": "q", "chosen": [assistant("good")], "rejected": [assistant("bad")]},
        {"chosen": "\n\nHuman: h\u00e9\n\nAssistant: yes", "rejected": "\n\nHuman: h\u00e9\n\nAssistant: yet", "prompt": None},
        {"chosen": "\u00e9", "rejected": "\u00ea"},
        {"prompt": "p", "chosen": "p c", "rejected": "p r"},
        {"prompt": "q", "chosen": [assistant("m"), user("x"), assistant("c")], "rejected": [assistant("m"), assistant("r")]},
    ]
    yield "label", [
        {"prompt": "p", "completion": "c" + odd, "label": True},
        {"prompt": [user("q")], "completion": [assistant("a")], "label": False},
        {"prompt": "p", "completion": "d", "label": 0},
    ]
    request = lambda i, messages, **more: {"custom_id": i, "method": "POST", "url": "/v1/chat/completions", "body": {"model": "m", "messages": messages, **more}}
    answer = lambda i, choices, **more: {"id": "batch_req_1", "custom_id": i, "response": {"status_code": 200, "request_id": "r", "body": {
        "id": "x", "object": "chat.completion", "created": 1767323045, "model": "m-1", "choices": choices, "usage": {"total_tokens": 3}, **more}}, "error": None}
    choice = lambda i, text, finish="stop": {"index": i, "message": {"role": "assistant", "content": text}, "logprobs": None, "finish_reason": finish}
    yield "batch", [
        request("a", [user(odd)], user="ann", metadata={"consent": "train", "source": "app"}),
        request("b", [{"role": "system", "content": "s"}, user("q")], n=2),
        {"custom_id": "c", "method": "POST", "url": "/v1/completions", "body": {"prompt": ["Once"], "user": "bob"}},
        request("d", [user("fails")]),
        request("e", [user("never answered")]),
    ]
    yield "batch.responses", [
        answer("b", [choice(1, "second", "length"), choice(0, odd)]),
        answer("a", [choice(0, "hello")]),
        answer("c", [{"index": 0, "text": " upon", "finish_reason": "stop"}]),
        {"id": "batch_req_2", "custom_id": "d", "response": {"status_code": 400, "request_id": "r", "body": {"error": {"message": "no"}}}, "error": None},
    ]
    yield "batch.feedback", [
        {"custom_id": "a", "thumb": "up", "rater": "zoe", "created": "2026-02-03T04:05:06.5+01:00"},
        {"custom_id": "b", "choice": 1, "thumb": -1, "rating": 2, "scale": [1, 5], "comment": odd, "edit": "as it should be", "source": "annotator", "weight": 0.5},
        {"custom_id": "b", "pair": {"chosen": 0, "rejected": 1, "margin": 2}, "rater": "zoe"},
        {"custom_id": "c", "edit": " upon a time", "extra": {"kept": True}},
        {"custom_id": "c", "rating": 1, "scale": [6, 1], "rater": "teacher"},
    ]


def write(where):
    for name, rows in files():
        with open(f"{where}/{name}.jsonl", "w") as f:
            for row in rows:
                f.write(json.dumps(row, ensure_ascii=len(json.dumps(row)) % 2 == 0) + "\n")


def same(a, b):
    read = lambda name: [json.loads(line, object_pairs_hook=list) for line in open(name)]
    a, b = read(a), read(b)
    if a != b or not a:
        sys.exit(f"{len(a)} rows and {len(b)} rows differ: " + next((f"{x}\n{y}" for x, y in zip(a, b) if x != y), ""))


def check_h5(path):
    try:
        import h5py
    except ImportError:
        sys.path.append("/usr/lib/python3/dist-packages")
        try:
            import h5py
        except ImportError:
            sys.exit(77)
    with h5py.File(path) as f:
        assert f.attrs["encoding-type"] == b"nocturne-corpus" and f.attrs["encoding-version"] == b"1.1.0", dict(f.attrs)
        n_ragged = 0

        def visit(name, item):
            nonlocal n_ragged
            if not isinstance(item, h5py.Group) or "ptr" not in item:
                return
            n_ragged += 1
            p, d = item["ptr"][:], item["data"][:].tobytes()
            assert p[0] == 0 and p[-1] == len(d) and all(x <= y for x, y in zip(p, p[1:])), name
            for x, y in zip(p, p[1:]):
                d[x:y].decode()
                if item.attrs["encoding-type"] == b"ragged-json":
                    json.loads(d[x:y])

        f.visititems(visit)
        assert n_ragged == 9, n_ragged
        c, m = f["conversations"], f["messages"]
        n = len(c["subject"])
        assert f.attrs["n_conversations"] == n and f.attrs["n_messages"] == len(m["role"]) == c["msg_ptr"][-1] and len(c["msg_ptr"]) == n + 1
        assert (c["subject"][:] < len(f["subjects/id"])).all() and (f["rows/conversation"][:] < n).all()
        import hashlib
        p, d = m["content/ptr"][:], m["content/data"][:].tobytes()
        for i in range(len(p) - 1):
            assert hashlib.sha256(d[p[i]:p[i + 1]]).digest() == m["sha256"][i].tobytes(), i


if sys.argv[1] == "--same":
    same(sys.argv[2], sys.argv[3])
elif sys.argv[1] == "--h5":
    check_h5(sys.argv[2])
else:
    write(sys.argv[1])
