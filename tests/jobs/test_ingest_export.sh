#!/usr/bin/env bash
# JSONL and the HDF5 corpus made from it are the same input; export gives back what was ingested; consent is kept.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/generate.sh"
cd "$WORK" || exit 1

tiny model --family smollm2 --layers 2
MODEL=model
python3 "$SOURCE/tests/jobs/prompts.py" 20 > all.jsonl
python3 - << 'END'
import json
def good(line):
    try: return isinstance(json.loads(line), dict)
    except ValueError: return False
lines = [l for l in open("all.jsonl") if good(l)]
lines.append(json.dumps({"custom_id": "late", "body": {"max_tokens": 4, "messages": [
    {"content": [{"type": "text", "text": "caf\u00e9"}, {"type": "text", "text": "\U0001f600"}], "role": "user"}], "user": "u1"},
    "url": "/v1/chat/completions", "method": "POST"}) + "\n")
open("good.jsonl", "w").writelines(lines)
END
gzip -k good.jsonl

expect_rc 0 "$NOCTURNE" ingest --input good.jsonl.gz --output c.h5
check "no bad rows" test ! -e c.h5.errors.jsonl
expect_rc 0 "$NOCTURNE" export --input c.h5 --output back.jsonl
python3 - << 'END' || fail "export differs from what was ingested"
import json
read = lambda name: [json.loads(l, object_pairs_hook=list) for l in open(name)]
assert read("good.jsonl") == read("back.jsonl") and len(read("back.jsonl")) > 10
END

# the same answers, but for the line numbers that a corpus does not have
for input in good.jsonl c.h5; do
    INPUT=$input
    expect_rc 0 generate "out-$input" --threads 1
done
cmp out-good.jsonl/results.jsonl out-c.h5/results.jsonl || fail "answers to JSONL and to HDF5 differ"
INPUT=c.h5
expect_rc 0 ranks 2 out-dp2
same out-c.h5 out-dp2

expect_rc 0 "$NOCTURNE" export --input out-c.h5/results.h5 --output answers.jsonl
expect_rc 65 "$NOCTURNE" inspect out-c.h5/results.h5
says "it holds answers: .nocturne export. turns them to JSONL"
expect_rc 2 "$NOCTURNE" inspect out-c.h5
says "output directory of a generate job: out-c.h5/run.json"
python3 - << 'END' || fail "export of results.h5 differs from results.jsonl"
import json
for a, b in zip(map(json.loads, open("answers.jsonl")), map(json.loads, open("out-c.h5/results.jsonl")), strict=True):
    assert a["custom_id"] == b["custom_id"] and a["status"] == b["response"]["status_code"]
    if a["status"] != 200: continue
    body = b["response"]["body"]
    texts = [c["message"]["content"] if "message" in c else c["text"] for c in body["choices"]]
    assert [c["content"] for c in a["choices"]] == texts
    assert sum(len(c["tokens"]) for c in a["choices"]) == body["usage"]["completion_tokens"]
END

# text that is no UTF-8 is told, not mended in silence
cp out-c.h5/results.h5 latin1.h5
if with_h5py 'import h5py
with h5py.File("latin1.h5", "r+") as f:
    text = f["generations/content/data"][:]
    text[f["generations/content/ptr"][1]] = 0xE9
    f["generations/content/data"][:] = text'; then
    expect_rc 65 "$NOCTURNE" export --input latin1.h5 --output latin1.jsonl
    says "latin1.h5: /generations/content.1. is not valid UTF-8"
    check "no file of half the answers" test ! -e latin1.jsonl
fi

# bad rows are left out and listed
(echo '{"prompt": "a"'; cat good.jsonl; echo '{"prompt": "b", "temperature": "hot"}') > bad.jsonl
expect_rc 65 "$NOCTURNE" ingest --input bad.jsonl --output bad.h5
check "two errors" test "$(wc -l < bad.h5.errors.jsonl)" -eq 2
check "line 1" grep -q '"line": 1, "row": 0' bad.h5.errors.jsonl
check "good rows" grep -q 'requests to bad.h5' out
expect_rc 0 "$NOCTURNE" export --input bad.h5 --output bad-back.jsonl
cmp back.jsonl bad-back.jsonl || fail "bad rows disturbed good ones"

# without consent nothing is answered
expect_rc 0 "$NOCTURNE" ingest --input good.jsonl --output none.h5 --consent none
INPUT=none.h5
expect_rc 0 generate out-none --threads 1
check "no row without consent" test ! -s out-none/results.jsonl

expect_rc 78 "$NOCTURNE" ingest --input good.jsonl --output x.h5 --consent generat
check "nearest word" grep -q 'maybe: generate?' out
expect_rc 2 "$NOCTURNE" ingest --output x.h5
expect_rc 66 "$NOCTURNE" ingest --input nowhere.jsonl --output x.h5
expect_rc 66 "$NOCTURNE" export --input nowhere.h5 --output x.jsonl
expect_rc 65 "$NOCTURNE" export --input good.jsonl --output x.jsonl
head -c 3000 c.h5 > cut.h5
expect_rc 65 "$NOCTURNE" export --input cut.h5 --output x.jsonl
check "nothing half-made" test ! -e x.h5 -a ! -e x.jsonl
check "no temporary files" test -z "$(ls -A | grep '^\.tmp')"
