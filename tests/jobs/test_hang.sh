#!/bin/bash
# nocturne generate itself: a rank that is stopped is named and ends the job; a rank that is killed ends it; the same
# command then finishes with the bytes of an undisturbed run.
. "$(dirname "$0")/lib.sh"
[ -x "$NOCTURNE" ] || fail "$NOCTURNE is missing: build the target nocturne"
cd "$WORK" || exit 1
python3 "$SOURCE/tools/make_tiny_model.py" model >/dev/null || fail "make_tiny_model.py"
python3 - >prompts.jsonl <<'P'
import json
for i in range(200):
    print(json.dumps({"prompt": f"Tell me a story about station {i}.", "max_tokens": 1000 + i % 400}))
P
generate() { # OUT RANKS TP
    mpi "$2" "$NOCTURNE" generate --model model --input prompts.jsonl --output "$1" --tp "$3" --set generate.max_num_seqs=2 \
        --set run.threads=1 --set generate.checkpoint_s=0.2 --set generate.ignore_eos=true --set run.watchdog_s=2
}
disturb() { # SIGNAL OUT RANKS TP -> rc, took: exit status, seconds from the signal to the end
    local start pid victim
    generate "$2" "$3" "$4" >"$2.log" 2>&1 &
    pid=$!
    for _ in $(seq 300); do [ -n "$(find "$2/journal" -type f -size +8k 2>/dev/null)" ] && break; sleep .1; done
    victim=$(pgrep -f "^$NOCTURNE generate .*--output $2 " | sort -n | tail -1)
    [ -n "$victim" ] && [ ! -e "$2/COMPLETE" ] || { cat "$2.log"; fail "the job is not in the middle of its rows"; }
    start=$(date +%s.%N)
    kill "-$1" "$victim"
    rc=0; wait $pid || rc=$?
    took=$(since "$start")
    echo "$3 ranks, tp $4, SIG$1 to the last: ended with $rc after $took s"
    [ ! -e "$2/COMPLETE" ] || fail "a disturbed job is complete"
}
resumes() { # OUT
    expect_rc 0 generate "$1" 2 1
    grep -Eq 'resuming: [1-9][0-9]* of' "$WORK/out" || { cat "$WORK/out"; fail "nothing was resumed"; }
    cmp whole/results.jsonl "$1/results.jsonl" && cmp whole/results.h5 "$1/results.h5" || fail "the results of $1 differ"
}

expect_rc 0 generate whole 1 1
for n_tp in 2,1 3,3; do
    n=${n_tp%,*} tp=${n_tp#*,}
    disturb STOP stop-$n "$n" "$tp"
    [ $rc -eq 76 ] || { cat stop-$n.log; fail "a stopped rank ended the job with $rc, expected 76"; }
    below "$took" "$(patience 12)" || fail "a stopped rank held the job for $took s"
    grep -Eom1 "rank $((n - 1)) \(host $(hostname), pid [0-9]+, doing '.*', .*\) is stopped or dead: .* ago" stop-$n.log ||
        { cat stop-$n.log; fail "the stopped rank is not named"; }
    disturb KILL kill-$n "$n" "$tp"
    [ $rc -ne 0 ] && [ $rc -ne 124 ] && below "$took" "$(patience 10)" || fail "a killed rank: $rc after $took s"
    grep -q 'signal 9' kill-$n.log || { cat kill-$n.log; fail "the cause is not told"; }
done
resumes stop-2 # the tp 1 jobs: sums over other ranks have other bits
resumes kill-2
