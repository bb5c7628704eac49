#!/usr/bin/env bash
# SIGUSR1, SIGTERM and a near SLURM_JOB_END_TIME: checkpoint, exit 85, resume to the same bytes; a finished job is left alone.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/generate.sh"
cd "$WORK" || exit 1

tiny model --family llama --layers 2
MODEL=model INPUT=in.jsonl
python3 "$SOURCE/tests/jobs/prompts.py" 200 3 > in.jsonl
expect_rc 0 generate base

stop_with() { # SIGNAL COMMAND...: sends it when the first rows are journaled
    local signal=$1 rc=0 i; shift
    "$@" > out 2>&1 < /dev/null &
    local pid=$!
    for i in $(seq 600); do
        [ -n "$(find out_dir/journal -name '*.ntj' -size +1k 2> /dev/null)" ] && break
        sleep 0.05
    done
    kill -s "$signal" $pid
    wait $pid || rc=$?
    [ $rc -eq 85 ] || { cat out >&2; fail "$signal: exit status $rc, expected 85"; }
    check "$signal: COMPLETE must not exist" test ! -e out_dir/COMPLETE
    grep -q "stopped after [0-9]* of 201 rows" out || { cat out >&2; fail "$signal: the log does not say how far it came"; }
}

slow="--max-num-seqs 2 --set generate.checkpoint_s=0"
for signal in USR1 TERM INT; do
    stop_with $signal "$NOCTURNE" generate $(run_flags) $slow --output out_dir
    expect_rc 0 generate out_dir
    grep -q "resuming: [1-9]" "$WORK/out" || fail "$signal: nothing was resumed"
    same base out_dir
    rm -rf out_dir
done

expect_rc 85 env SLURM_JOB_END_TIME=$(($(date +%s) + 60)) "$NOCTURNE" generate $(run_flags) --set run.stop_margin_s=120 --output out_dir
grep -q "the job's end time" "$WORK/out" || fail "the end time is not named"
rm -rf out_dir

# complete: nothing is done again; other settings are refused; --fresh starts over
expect_rc 0 generate base
grep -q "complete already" "$WORK/out" || fail "a complete job ran again"
expect_rc 65 generate base --temperature 0.123
grep -q -- "--fresh" "$WORK/out" || fail "the remedy is missing"
expect_rc 0 generate base --temperature 0.123 --fresh
expect_rc 0 generate base --fresh
expect_rc 0 generate again
same base again
echo "stops and resumes"
