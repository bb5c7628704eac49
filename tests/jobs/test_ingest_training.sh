#!/usr/bin/env bash
# Training rows of every format become a corpus and come back as they were; consent, bad rows and names are as promised.
. "$(dirname "$0")/lib.sh"
cd "$WORK" || exit 1
rows() { python3 "$SOURCE/tests/jobs/train_rows.py" "$@"; }
ingest() { "$NOCTURNE" ingest "$@"; }

rows . || fail "no rows"
for f in messages completion sharegpt alpaca preference label; do
    expect_rc 0 ingest --input $f.jsonl --output $f.h5
    says "rows \($f\) to $f.h5"
    case $f in
        completion | preference) says "the completions of 1 rows begin with their prompt, which is there twice" ;;
        *) grep -q "begin with their prompt" out && fail "$f: a warning of repeated prompts" ;;
    esac
    check "$f: no bad rows" test ! -e $f.h5.errors.jsonl
    expect_rc 0 "$NOCTURNE" export --input $f.h5 --output $f.back
    check "$f: export differs from what was ingested" rows --same $f.jsonl $f.back
    expect_rc 0 ingest --input $f.back --output $f.again.h5 --format $f # and once more: the same rows
    expect_rc 0 "$NOCTURNE" export --input $f.again.h5 --output $f.twice
    cmp -s $f.back $f.twice || fail "$f: a second round changes the rows"
    rc=0
    rows --h5 $f.h5 || rc=$?
    [ $rc -eq 0 ] || [ $rc -eq 77 ] || fail "$f: h5py sees another file"
    [ $rc -eq 0 ] || [ "${CI:-}" != true ] || fail "no h5py in CI"
done

# Batch lines alone are requests; with responses they are rows to train on
expect_rc 0 ingest --input batch.jsonl --output requests.h5
says "5 requests to requests.h5"
gzip -k batch.responses.jsonl
zstd -q batch.feedback.jsonl
expect_rc 0 ingest --input batch.jsonl --responses batch.responses.jsonl.gz --feedback batch.feedback.jsonl.zst --output batch.h5
says "5 rows \(batch\) to batch.h5: 4 answers, 6 feedback, 1 pairs"
says "2 requests have no answer"
expect_rc 0 "$NOCTURNE" export --input batch.h5 --output batch.back
check "requests differ" rows --same batch.jsonl batch.back
check "responses differ" rows --same batch.responses.jsonl batch.back.responses.jsonl
check "feedback differs" rows --same batch.feedback.jsonl batch.back.feedback.jsonl
check "a corpus for h5py" test "$(rows --h5 batch.h5; echo $?)" != 1
expect_rc 0 "$NOCTURNE" inspect batch.h5
for line in '^rows +5 ' '^labels +1 up, 1 down$' '^ratings +2, mean 0.625 of 1$' '^edits +2 of 2 texts$' '^preferences +1$' '^source +1 app$' \
    '^consent +1 train \(basis: consent\)$' '^for train +1 rows may be seen, 4 no consent$' '^for generate +0 rows'; do says "$line"; done
expect_rc 0 "$NOCTURNE" inspect label.h5
says '^labels +1 up, 2 down$'
expect_rc 0 "$NOCTURNE" inspect messages.h5
for line in '^source +1 web$' '^license +1 CC-BY-4.0$' '^split +1 valid$' '^created +2026-01-02T03:04:05Z to'; do says "$line"; done

# what comes from files is shown, not obeyed by the terminal: no escape, no line of its own
printf '%s\n' '{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "source": "a\u001b[31mb\nrows 9\u009b\u202e\u007f", "license": "caf\u00e9"}' \
    '{"messages": [{"role": "us\u001b[2Jer", "content": "q"}]}' > terminal.jsonl
expect_rc 65 ingest --input terminal.jsonl --output terminal.h5
expect_rc 0 "$NOCTURNE" inspect terminal.h5
for line in '^source +1 a\\x1b\[31mb\\nrows 9\\u009b\\u202e\\x7f$' '^license +1 café$'; do says "$line"; done
check "control characters" test "$(LC_ALL=C tr -d '\n\40-\176\303\251' < out | wc -c)" -eq 0
expect_rc 66 "$NOCTURNE" inspect $'no\e]0;title\asuch\nfile'
says '^nocturne: no\\x1b\]0;title\\x07such\\nfile: no such file'

# consent is nowhere assumed: only a stated one with its basis opens silent rows, and a row's own word stays
expect_rc 0 ingest --input messages.jsonl --output m.h5
says "2 rows have no consent"
expect_rc 78 ingest --input messages.jsonl --output m.h5 --consent train
says "needs the basis"
expect_rc 0 ingest --input messages.jsonl --output m.h5 --consent train,distill --basis license --retention-until 2030-01-01
expect_rc 0 "$NOCTURNE" inspect m.h5
for line in '^consent +2 train,distill \(basis: license\)$' '^consent +1 train \(basis: consent\)$' '^for train +3 rows' '^for distill +2 rows'; do says "$line"; done
expect_rc 0 ingest --input messages.jsonl --output m.h5 --consent train --basis license --retention-until 2020-01-01
expect_rc 0 "$NOCTURNE" inspect m.h5
says '^for train +0 rows may be seen, 3 past retention$'

# with a key no name stays in the file, and names that are names already are kept
head -c 40 /dev/urandom > key
expect_rc 0 ingest --input batch.jsonl --responses batch.responses.jsonl --feedback batch.feedback.jsonl.zst --output k.h5 --subject-key key
expect_rc 0 "$NOCTURNE" export --input k.h5 --output k.back
grep -qE '"(ann|bob|zoe|teacher)"' k.back k.back.feedback.jsonl && fail "a name came through"
check "five names" test "$(grep -ohE '"subject:[0-9a-f]{32}"' k.back k.back.feedback.jsonl | wc -l)" -eq 5
expect_rc 0 ingest --input k.back --responses k.back.responses.jsonl --feedback k.back.feedback.jsonl --output k2.h5
expect_rc 0 "$NOCTURNE" export --input k2.h5 --output k2.back
cmp k.back k2.back || fail "names change in a second round"
head -c 20 key > short
expect_rc 78 ingest --input batch.jsonl --output x.h5 --format batch --subject-key short
says "expected 32 or more"

# duplicates
cat label.jsonl label.jsonl > twice.jsonl
expect_rc 0 ingest --input twice.jsonl --output t.h5
says "3 rows have the content of an earlier one: keep"
expect_rc 0 ingest --input twice.jsonl --output t.h5 --duplicates drop
expect_rc 0 "$NOCTURNE" export --input t.h5 --output t.back
check "dropped" rows --same label.jsonl t.back

# bad rows are named with file and line, the others stay; the exit status tells
(echo '{"messages": [}'; cat messages.jsonl; echo '{"prompt": "a request"}'; printf '{"messages": [{"role": "user", "content": "\xff"}]}\n') > bad.jsonl
expect_rc 65 ingest --input bad.jsonl --output bad.h5
says "3 bad rows were left out, see bad.h5.errors.jsonl; the other 3 are in bad.h5"
check "lines" test "$(grep -oE '"line": [0-9]+' bad.h5.errors.jsonl | tr -dc '0-9\n' | paste -sd,)" = 1,5,6
expect_rc 0 "$NOCTURNE" export --input bad.h5 --output bad.back
check "bad rows disturbed good ones" rows --same messages.jsonl bad.back
cat > fb.jsonl << 'END'
{"custom_id": "a"}
{"custom_id": "nobody", "thumb": "up"}
{"custom_id": "a", "choice": 3, "thumb": "up"}
{"custom_id": "a", "thumb": "sideways"}
{"custom_id": "a", "rating": 9}
{"custom_id": "e", "thumb": "up"}
{"custom_id": "b", "pair": {"chosen": 1, "rejected": 1}}
{"custom_id": "b", "thumb": "up", "pair": {"chosen": 0, "rejected": 5}}
{"custom_id": "a", "rating": 1e308, "scale": [-1e308, 1e308]}
{"custom_id": "a", "rating": 2, "scale": [1, 5, 9]}
{"custom_id": "a", "rating": 2, "scale": [3, 3]}
{"custom_id": "a", "thumb": "up", "weight": 101}
{"custom_id": "b", "pair": {"chosen": 0, "rejected": 1, "margin": "much"}}
{"custom_id": "a", "thumb": "up", "rater": [1]}
END
expect_rc 65 ingest --input batch.jsonl --responses batch.responses.jsonl --feedback fb.jsonl --output fb.h5
says "batch.jsonl with its answers and feedback: 14 bad rows were left out"
says "4 answers, 0 feedback, 0 pairs"
cat fb.h5.errors.jsonl > out
for line in '"line": 1, .*none of thumb' '"line": 2, .*is no row of batch.jsonl' '"line": 3, .*no choice 3' '"line": 4, .*thumb is none' \
    '"line": 5, .*from 1 to 5' '"line": 6, .*no choice 0' '"line": 7, .*the same choice' '"line": 8, .*no choice 5' \
    '"line": 9, .*scale is no list of two' '"line": 10, .*scale is no list' '"line": 11, .*scale is no list' '"line": 12, .*from 0 to 100' \
    '"line": 13, .*margin is no number' '"line": 14, .*rater is no string'; do says "$line"; done
echo '{"custom_id": "a", "thumb": "up", "rater": 7}' > fb.jsonl # a name by number
expect_rc 0 ingest --input batch.jsonl --responses batch.responses.jsonl --feedback fb.jsonl --output fb.h5
expect_rc 0 "$NOCTURNE" export --input fb.h5 --output fb.back
check "a rater by number" rows --same fb.jsonl fb.back.feedback.jsonl
# one answer to a request; an error is none, whatever comes with it
(sed 's/"status_code": 200/"status_code": 500/' batch.responses.jsonl; cat batch.responses.jsonl; head -1 batch.responses.jsonl) > twice.jsonl
expect_rc 65 ingest --input batch.jsonl --responses twice.jsonl --output twice.h5
says "4 answers, 0 feedback"
cat twice.h5.errors.jsonl > out
says "\"line\": $(wc -l < twice.jsonl), .*has been answered already"
check "one line too many" test "$(wc -l < twice.h5.errors.jsonl)" -eq 1

# options that do not fit, files that are not what they should be
expect_rc 2 ingest --input messages.jsonl --output x.h5 --feedback batch.feedback.jsonl.zst
expect_rc 2 ingest --input batch.jsonl --output x.h5 --feedback batch.feedback.jsonl.zst --format batch
expect_rc 66 ingest --input nowhere.jsonl --output x.h5
expect_rc 65 ingest --input key --output x.h5
says "in a known format"
printf '[\n  {"instruction": "i", "output": "o"}\n]\n' > list.json
expect_rc 65 "$NOCTURNE" ingest --input list.json --output list.h5
says "list.json: begins with a list, expected one JSON object per line"
printf '{"system": "s", "question": "q%d", "chosen": "c", "rejected": "r"}\n' 1 2 > apart.jsonl
expect_rc 0 "$NOCTURNE" ingest --input apart.jsonl --output apart.h5 --consent train --basis public
says "2 rows have words in \"system\", which this format does not read"
printf '\n\n' > blank.jsonl
expect_rc 65 ingest --input blank.jsonl --output x.h5
says "blank.jsonl: no rows"
printf '\n{"prompt": "p", "completion": "c", "completion": "d"}\n' > double.jsonl
expect_rc 65 ingest --input double.jsonl --output x.h5
says "none of its first 1 rows is in a known format .* Line 2 is not valid JSON at byte [0-9]+: duplicate object key"
check "nothing half-made" test ! -e x.h5
check "no temporary files" test -z "$(ls -A | grep '^\.tmp')"
