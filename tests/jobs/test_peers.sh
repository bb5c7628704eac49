#!/usr/bin/env bash
# Two tensor-parallel ranks that sum in each other's memory, on the emulated GPU: one dies, loses its device, cannot write
# its journal, hangs on the device or on the host, or is told to stop, each in the middle of the job. The job ends in time
# with the documented status and one sentence that names the rank, and the same command then finishes with the same bytes.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/generate.sh"
cd "$WORK" || exit 1
emulated_gpus devices=4,stream0=0
NT_TIMEOUT=300

tiny model --family smollm2 --layers 2
MODEL=model INPUT=in.jsonl
# rows whose tokens are chosen in the peers' memory too: what penalties and truncation need is gathered by NCCL
python3 "$SOURCE/tests/jobs/prompts.py" 12 4 | sed -E 's/, "(top_k|top_p|min_p|repetition_penalty|frequency_penalty|presence_penalty|logprobs|top_logprobs)": [a-z0-9.]+//g' > in.jsonl

# on_rank.sh RANK SETUP COMMAND...: SETUP is run first on that rank
cat > on_rank.sh << 'EOF'
#!/bin/bash
[ "$OMPI_COMM_WORLD_RANK" = "$1" ] && eval "$2"
shift 2
exec "$@"
EOF
chmod +x on_rank.sh
LAUNCHER= RANKS=2 # more flags for mpirun; of the job
# job DIR RANK SETUP [FLAG...]
job() {
    local dir=$1 rank=$2 setup=$3; shift 3
    mpi $RANKS $LAUNCHER ./on_rank.sh "$rank" "$setup" "$NOCTURNE" generate $(run_flags) --max-num-seqs 2 --threads 1 --output "$dir" --device cuda --tp 2 "$@"
}
# disturbed DIR RC...: it ended with one of these, over the peers' memory, and not as complete
disturbed() {
    local dir=$1; shift
    case " $* " in *" $rc "*) ;; *) cat out >&2; fail "$dir: exit status $rc, expected $*" ;; esac
    check "$dir: the ranks did not sum in each other's memory" grep -q "sums up to .* KiB are taken from the peers' memory" out
    check "$dir: COMPLETE must not exist" test ! -e "$dir/COMPLETE"
    echo "$dir: exit status $rc"
}
# resumes DIR: some rows were kept, and the others come out as if nothing had happened
resumes() {
    expect_rc 0 job "$1" 0 true
    grep -q 'resuming: [1-9]' out || { cat out >&2; fail "$1: nothing was resumed"; }
    same whole "$1"
}

start=$EPOCHREALTIME
NT_EMU=$NT_EMU,count=$PWD/launches.%p expect_rc 0 job whole 0 true
undisturbed=$(since "$start")
# limit RANKS: seconds without progress that no honest rank needs on this machine now: all of that job, once more with four ranks
limit() { awk -v s="$undisturbed" -v n="$1" 'BEGIN { s *= n / 2; printf "%d\n", (s > 5 ? s + 1 : 5) }'; }
echo "an undisturbed job takes $undisturbed s: the watchdog gets $(limit 2) s, with four ranks $(limit 4) s"
check "sums over peers" grep -q "are taken from the peers' memory" out
launches=$(for f in launches.*; do grep -oE '"launches": *[0-9]+' "$f" | awk '{ n += $NF } END { print n }'; done | sort -n | head -1)
at=$((launches * 2 / 3))
fault() { echo "export NT_EMU=\$NT_EMU,fault_at=$at,fault=$1"; }

# ---- killed: the launcher names it
job dies 1 "$(fault die)" 2>&1 | stamped > out
rc=${PIPESTATUS[0]} took=$(since "$(grep -m1 'emu: this process dies' out | cut -d' ' -f1)")
disturbed dies 137 143 42
says 'rank 1 .*signal 9'
check "$took s after the death of a rank its job ended" below "$took" "$(patience 10)"
resumes dies

# ---- the same under a launcher that does not care: the watchdog names it, and ends the other
LAUNCHER=--enable-recovery job left 1 "$(fault die)" --set run.watchdog_s=$(limit 2) > out 2>&1 # mpirun's status says nothing then
check "left: COMPLETE must not exist" test ! -e left/COMPLETE
says 'watchdog: rank 1 \(.*in peer (sum|choice) #[0-9]+ on tp\) is stopped or dead: .* noticed by rank 0'
echo "left: named by the watchdog"
resumes left

# ---- the same in a sum so large that NCCL makes it between theirs: whoever polls sees its error
python3 -c 'import json; print(json.dumps({"prompt": "night shift reads logs and waits " * 90, "max_tokens": 2}))' > long.jsonl
INPUT=long.jsonl NT_EMU_NCCL=rank=1,seq=3,fault=die LAUNCHER=--enable-recovery job large 0 true > out 2>&1
check "large: COMPLETE must not exist" test ! -e large/COMPLETE
check "large: the ranks did not sum in each other's memory" grep -q "are taken from the peers' memory" out
says '^nocturne: rank 0 on .*NCCL, rank 0 of tp: [A-Za-z ]+ #[0-9]+: remote process exited'

# ---- an error of the device, while the other's kernel waits for this one's
rc=0; job fails 1 "$(fault fail)" > out 2>&1 || rc=$?
disturbed fails 71
says '^nocturne: rank 1 on .*CUDA_ERROR_ECC_UNCORRECTABLE'
check "one sentence" test "$(grep -c '^nocturne: ' out)" -eq 1
resumes fails

# ---- the device hangs: all wait, those of another model copy too, and are told whose device is missing in which sum
rc=0; RANKS=4 job hangs 1 "$(at=$((launches / 8)) fault hang)" --set run.watchdog_s=$(limit 4) > out 2>&1 || rc=$?
disturbed hangs 76
says 'watchdog: all ranks wait for a device: rank 0 .*in peer (sum|choice) #[0-9]+ on tp\); rank 1 .*in peer (sum|choice) #[0-9]+ on tp\); rank 2 .*on world\); rank 3 .*; the device of rank 1 has not come to sum [0-9]+ in the peers. memory'
resumes hangs

# ---- the host hangs between two launches: that rank alone is named, and who waits for it in which sum
python3 -c 'print("the quick brown fox jumps over the lazy dog\n" * 20)' > text.txt
score() { mpi 2 ./on_rank.sh "$@" "$NOCTURNE" score --model model --input text.txt --threads 1 --output scored --device cuda --tp 2 --set run.watchdog_s=$(limit 2); }
NT_EMU=$NT_EMU,count=$PWD/score.%p expect_rc 0 score 0 true
rm -rf scored
# in the middle of a forward, of which each begins with one launch of nt_embed
at=$(cat score.* | awk '/"launches"/ { match($0, /"launches": *[0-9]+/); n = substr($0, RSTART + 11, RLENGTH - 11) + 0; all += n; if (/"nt_embed/) forwards += n }
    END { each = all / forwards; printf "%d\n", int(forwards / 4) * each + each / 2 }')
rc=0; score 1 "$(fault stall)" > out 2>&1 || rc=$?
disturbed scored 76
says 'watchdog: rank 1 \([^)]*\) made no progress for [0-9]+ s; noticed by'
check "who waits for it is not in a peer sum" grep -qE '"call":"peer (sum|choice)","on":"tp","inside":true' scored/.heartbeat/rank-0

# ---- in the middle: the rows are under way
# later DIR COMMAND...: the job DIR, and COMMAND with the pid of its rank 0 when rows are journaled; sets rc
later() {
    local dir=$1 pid i victim; shift
    job "$dir" 0 'trap "" XFSZ' > out 2>&1 &
    pid=$!
    for i in $(seq 1200); do [ -n "$(find "$dir/journal" -type f -size +0 2>/dev/null)" ] && break; sleep .05; done
    victim=$(pgrep -f "^$NOCTURNE generate .*--output $dir " | sort -n | head -1)
    [ -n "$victim" ] || { cat out >&2; fail "$dir: the job is not in the middle of its rows"; }
    "$@" "$victim"
    rc=0; wait $pid || rc=$?
}
full() { prlimit --fsize=1 --pid "$1"; } # no file of the process grows any more
later full full
disturbed full 74
says '^nocturne: rank 0 on .*journal'
expect_rc 0 job full 0 true
same whole full
later stops kill -USR1
disturbed stops 85
says 'stopped after [0-9]+ of 13 rows'
expect_rc 0 job stops 0 true
same whole stops
echo "no rank waits for one that is gone"
