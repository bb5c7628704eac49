#!/usr/bin/env bash
# kill -9 at 50 moments, then the same command (on changing numbers of ranks): the bytes of an undisturbed run.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/generate.sh"
cd "$WORK" || exit 1

tiny model --family smollm2 --layers 2
MODEL=model INPUT=in.jsonl
python3 "$SOURCE/tests/jobs/prompts.py" 150 2 > in.jsonl
begin=$(date +%s%N)
expect_rc 0 generate base
whole_ms=$((($(date +%s%N) - begin) / 1000000)) # kills fall anywhere in a run, however fast the machine is
RANDOM=${NT_SEED:-20}
kills=0 finished=0

# kill_one MORE_MS COMMAND...: ends it after a random time; the whole process group dies at once, as on a power cut of the node.
kill_one() {
    local ms=$((RANDOM % (whole_ms + $1) + 5)) delay; shift
    delay=$(printf '%d.%03d' $((ms / 1000)) $((ms % 1000)))
    setsid "$@" > out 2>&1 < /dev/null &
    local pid=$!
    sleep "$delay"
    if kill -9 -- -$pid 2> /dev/null; then kills=$((kills + 1)); fi
    wait $pid 2> /dev/null
}

while [ $kills -lt 50 ]; do
    if [ $((kills % 10)) -eq 9 ]; then
        kill_one 700 mpirun --oversubscribe --bind-to none -np 2 "$NOCTURNE" generate $(run_flags) --set generate.checkpoint_s=0 --threads 1 --output out_dir
    else
        kill_one 0 "$NOCTURNE" generate $(run_flags) --set generate.checkpoint_s=0 --max-num-seqs 4 --output out_dir
    fi
    if [ -f out_dir/COMPLETE ]; then
        same base out_dir
        rm -rf out_dir
        finished=$((finished + 1))
    fi
done
expect_rc 0 generate out_dir
same base out_dir
check "temporary files are left" test -z "$(find out_dir -name '.tmp-*' -print -quit)"
echo "$kills kills, $((finished + 1)) completed runs, same bytes"
