#!/bin/bash
# jobs/generate.sbatch and finetune.sbatch, unchanged, on a throw-away Slurm of two nodes: success, checkpoint and requeue after
# USR1, the loss of a node, a launch that fails silently. And the communicators across the nodes. Needs root (see slurmbox.sh).
. "$(dirname "$0")/lib.sh"
. "$SOURCE/tests/jobs/slurmbox.sh"
box_possible || skip "$BOX_REASON"
[ -x "$NOCTURNE" ] || fail "$NOCTURNE is missing: build the target nocturne"

trap 'box_down; rm -rf "$WORK"' EXIT
trap 'exit 130' INT TERM
chmod 755 "$WORK" # munged wants its socket reachable
box_up 2 || fail "the throw-away Slurm did not start"
cd "$WORK" || exit 1
say() { echo "$(date +%T) $*"; }

# ---- communicators, two ranks on each of two nodes ----
across() { timeout -k 5 "$NT_TIMEOUT" srun --immediate=20 --mpi=pmix -N2 --ntasks-per-node=2 --mem=1G --kill-on-bad-exit=1 "$@"; }
for args in "collectives 1" "collectives 2" "collectives 4" "shared 1" "shared 2" tickets agree; do
    expect_rc 0 across "$NT_TEST_BIN/comm_check" $args
    grep -Ev ' warn |^srun: job' "$WORK/out"
    case $args in # one copy per node and tp index
    "shared 1") grep -q '4 ranks, 2 copies' "$WORK/out" || fail "two nodes do not hold one copy each" ;;
    "shared 2") grep -q '4 ranks, 4 copies' "$WORK/out" || fail "two nodes do not hold two copies each" ;;
    esac
done
expect_rc 76 across "$NT_TEST_BIN/comm_check" hang stop "$WORK/hang" 2
check "the hang is not named: $(cat "$WORK/out")" grep -Eq "rank 1 \(host n1, pid [0-9]+, doing 'read input'.*stopped or dead" "$WORK/out"
say "a hang across nodes: $(grep -m1 -o 'rank 1 (host n1.*' "$WORK/out")"
rc=0; across --mpi=none "$NT_TEST_BIN/comm_check" agree >"$WORK/out" 2>&1 || rc=$?
[ $rc -ne 0 ] && grep -q 'srun started 4 tasks without MPI' "$WORK/out" || fail "srun without MPI went on with $rc: $(cat "$WORK/out")"

# ---- the job ----
ROWS=${ROWS:-400}
python3 - "$ROWS" >prompts.jsonl <<'P'
import json, sys
for i in range(int(sys.argv[1])):
    print(json.dumps({"custom_id": f"row-{i}", "prompt": f"Tell me a story about station {i} and a river.", "max_tokens": 1000 + i % 400}))
P
python3 "$SOURCE/tools/make_tiny_model.py" "$WORK/model" >/dev/null || fail "make_tiny_model.py"

export NOCTURNE
# a site's file as sites write them: a variable that is not set, a last command that is false
export NOCTURNE_SITE="$WORK/the site.env"
printf '%s\n' 'SITE_MODULES="base $LOADEDMODULES"' 'MPI_TYPE=pmix' '[ -d /no/such/scratch ] && export TMPDIR=/no/such/scratch' >"$NOCTURNE_SITE"
script() { # NAME OUT FLAG...: a job script as users start it, made small by flags only
    local name=$1 out=$2
    shift 2
    sbatch --parsable --nodes=2 --cpus-per-task=1 --mem=1G --time=10 --output="$out-%j.log" "$SOURCE/jobs/$name.sbatch" \
        --model "$WORK/model" --output "$out" --set run.threads=1 "$@"
}
submit() { # OUT
    script generate "$1" --input "${INPUT:-prompts.jsonl}" --set generate.max_num_seqs=2 --set generate.checkpoint_s=0.2 \
        --set generate.ignore_eos=true ${ARGS:-}
}
ended() { # JOB STATE OUT
    local got
    got=$(box_wait "$1" 300)
    say "job $1 ($3): $got, restarts $(box_field "$1" Restarts)"
    case $got in "$2") ;; *) cat "$3-$1.log"; fail "job $1 ended as $got, expected $2" ;; esac
}
# The job is in the middle of its rows or steps: some are done, and nothing is complete.
in_the_middle() { # JOB OUT
    for _ in $(seq 600); do
        [ -n "$(find "$2/journal" -type f -size +8k 2>/dev/null)" ] && break
        [ "$(grep -cs '"event":"step"' "$2/metrics.jsonl")" -gt 20 ] 2>/dev/null && break
        [ "$(box_field "$1" JobState)" = FAILED ] && break
        sleep .1
    done
    [ "$(box_field "$1" JobState)" = RUNNING ] && [ ! -e "$2/COMPLETE" ] || { cat "$2-$1.log"; fail "job $1 is not in the middle of its work"; }
}
same_results() { # OUT
    [ -e "$1/COMPLETE" ] || fail "$1/COMPLETE is missing"
    cmp whole/results.jsonl "$1/results.jsonl" || fail "$1/results.jsonl differs from the undisturbed run"
    cmp whole/errors.jsonl "$1/errors.jsonl" || fail "$1/errors.jsonl differs from the undisturbed run"
    cmp whole/results.h5 "$1/results.h5" || fail "$1/results.h5 differs"
}

say "success"
job=$(submit whole) && ended "$job" "COMPLETED 0:0" whole
[ -e whole/COMPLETE ] && [ "$(wc -l <whole/results.jsonl)" = "$ROWS" ] || fail "not $ROWS rows in whole/results.jsonl"

say "a finished job submitted again, its journal gone: nothing is done anew"
rm -r whole/journal
job=$(submit whole) && ended "$job" "COMPLETED 0:0" whole
grep -q 'complete already' "whole-$job.log" || fail "a finished job ran again"
grep -q ' restart 0 on n\[1-2\], 2 ranks' "whole-$job.log" || { cat "whole-$job.log"; fail "not two ranks on two nodes"; }

say "tensor parallel across the nodes: the bits of the same job on one node"
head -20 prompts.jsonl >few.jsonl
job=$(INPUT=few.jsonl ARGS="--tp 2" submit tp2) && ended "$job" "COMPLETED 0:0" tp2
expect_rc 0 mpi 2 "$NOCTURNE" generate --model model --input few.jsonl --output one-node --set generate.ignore_eos=true --threads 1 --tp 2
cmp one-node/results.jsonl tp2/results.jsonl || fail "two nodes compute other bits than one"

say "USR1, as Slurm sends it before the time limit: checkpoint, requeue, resume"
job=$(submit usr1) && in_the_middle "$job" usr1
scancel --batch --signal=USR1 "$job"
box_restart_now "$job" 1 || { cat "usr1-$job.log"; fail "job $job was not requeued after USR1"; }
grep -q 'restart 0: srun ended with 85' "usr1-$job.log" || { cat "usr1-$job.log"; fail "the ranks did not stop with 85"; }
ended "$job" "COMPLETED 0:0" usr1
grep -Eq 'resuming: [1-9][0-9]* of' "usr1-$job.log" || { cat "usr1-$job.log"; fail "the job started over instead of resuming"; }
same_results usr1

say "USR1 to the ranks only"
job=$(submit ranks) && in_the_middle "$job" ranks
scancel --signal=USR1 "$job"
box_restart_now "$job" 1 || { cat "ranks-$job.log"; fail "job $job was not requeued after USR1"; }
ended "$job" "COMPLETED 0:0" ranks
same_results ranks

say "the end of the job's time comes near, without a signal"
job=$(ARGS="--set run.stop_margin_s=595" submit end) # of --time=10: after 5 s
box_restart_now "$job" 1 || { cat "end-$job.log"; fail "job $job did not stop near its end time"; }
scontrol update jobid="$job" timelimit=50
grep -q "stopping: the job's end time" "end-$job.log" || { cat "end-$job.log"; fail "job $job stopped for another reason"; }
ended "$job" "COMPLETED 0:0" end
same_results end

say "a node loses power: Slurm notices, requeues, and the job resumes when the node is back"
job=$(submit node) && in_the_middle "$job" node
box_node_crash n2 || fail "n2 could not be crashed"
for _ in $(seq 120); do [ "$(box_field "$job" Restarts)" = 1 ] && break; sleep .5; done
say "job $job: $(box_field "$job" JobState), nodes $(sinfo -h -N -o '%N=%t' | tr '\n' ' ')"
grep -q 'Node failure on n2' "node-$job.log" || { cat "node-$job.log"; fail "Slurm did not notice the loss of n2"; }
box_node_up n2 || fail "n2 did not come back"
box_restart_now "$job" 1 || { cat "node-$job.log"; fail "job $job was not requeued after the loss of n2"; }
ended "$job" "COMPLETED 0:0" node
same_results node

say "a rank is killed: the job goes back to the queue by itself"
job=$(submit killed) && in_the_middle "$job" killed
pids=$(pgrep -f "^$NOCTURNE generate .*--output killed ")
kill -9 $(echo "$pids" | tail -1)
box_restart_now "$job" 1 || { cat "killed-$job.log"; fail "job $job was not requeued after the death of a rank"; }
ended "$job" "COMPLETED 0:0" killed
same_results killed
[ -z "$(ls -A killed | grep failures)" ] || fail "the count of failures is left behind"

say "a launch that fails, with a stale marker in the output directory"
mkdir fail && touch fail/COMPLETE
for n in 1 2; do mv "$BOX/tmp/n$n" "$BOX/tmp/n$n.away" && touch "$BOX/tmp/n$n"; done # PMIx has no place for its files
job=$(NOCTURNE_MAX_FAILURES=1 submit fail)
box_restart_now "$job" 1 || { cat "fail-$job.log"; fail "job $job was not tried again after a failed launch"; }
got=$(box_wait "$job" 120)
for n in 1 2; do rm "$BOX/tmp/n$n" && mv "$BOX/tmp/n$n.away" "$BOX/tmp/n$n"; done
say "job $job: $got"
case $got in FAILED*) ;; *) cat "fail-$job.log"; fail "a job whose ranks never ran ended as $got" ;; esac
grep -q 'the ranks were not launched' "fail-$job.log" || echo "note: this Slurm tells a failed launch by srun's exit status"

say "a rank that fails: its exit code is the job's"
printf '#!/bin/sh\nexit 65\n' >bad-program && chmod +x bad-program
job=$(NOCTURNE=$WORK/bad-program submit bad) && ended "$job" "FAILED 65:0" bad

say "a job script that was copied finds what all have in common by a variable, or says what it misses"
mkdir copy && cp "$SOURCE/jobs/generate.sbatch" copy
copied() { sbatch --parsable --nodes=2 --output="usage-%j.log" --cpus-per-task=1 --mem=1G copy/generate.sbatch --model m; }
job=$(NOCTURNE_JOBS=$SOURCE/jobs copied) && ended "$job" "FAILED 2:0" usage
job=$(NOCTURNE=$WORK/bad-program copied) && ended "$job" "FAILED 78:0" usage
grep -q "no nocturne_job.sh beside $WORK/copy/generate.sbatch" "usage-$job.log" || { cat "usage-$job.log"; fail "the missing file is not named"; }

# ---- fine-tuning ----
python3 "$SOURCE/tests/jobs/tune_rows.py" || fail "no rows to train on"
expect_rc 0 "$NOCTURNE" ingest --input rows.jsonl --output rows.h5 --consent train --basis synthetic
tune() { # OUT
    script finetune "$1" --input rows.h5 --max-steps 250 --batch-size 8 --max-length 96 --lora-r 4 --learning-rate 0.01 \
        --eval-fraction 0.25 --save-steps 10
}
same_adapter() { # OUT
    [ -e "$1/COMPLETE" ] || fail "$1/COMPLETE is missing"
    cmp tuned/adapter/adapter_model.safetensors "$1/adapter/adapter_model.safetensors" || fail "$1 has another adapter than the undisturbed run"
    cmp tuned/adapter.gguf "$1/adapter.gguf" || fail "$1 has another GGUF adapter than the undisturbed run"
}

say "fine-tuning: success, and again"
job=$(tune tuned) && ended "$job" "COMPLETED 0:0" tuned
grep -q ' restart 0 on n\[1-2\], 2 ranks' "tuned-$job.log" || { cat "tuned-$job.log"; fail "not two ranks on two nodes"; }
job=$(tune tuned) && ended "$job" "COMPLETED 0:0" tuned
grep -q 'complete already' "tuned-$job.log" || fail "a finished run was made again"

say "fine-tuning: USR1 in the middle: checkpoint, requeue, resume, the same bytes"
job=$(tune tuned.usr1) && in_the_middle "$job" tuned.usr1
scancel --batch --signal=USR1 "$job"
box_restart_now "$job" 1 || { cat "tuned.usr1-$job.log"; fail "job $job was not requeued after USR1"; }
grep -q 'restart 0: srun ended with 85' "tuned.usr1-$job.log" || { cat "tuned.usr1-$job.log"; fail "the ranks did not stop with 85"; }
ended "$job" "COMPLETED 0:0" tuned.usr1
grep -q 'resuming after step [1-9]' "tuned.usr1-$job.log" || { cat "tuned.usr1-$job.log"; fail "the run started over instead of resuming"; }
same_adapter tuned.usr1

say "fine-tuning: a rank is killed: back to the queue, on from the last checkpoint, the same bytes"
job=$(tune tuned.killed) && in_the_middle "$job" tuned.killed
pids=$(pgrep -f "^$NOCTURNE finetune .*--output tuned.killed ")
kill -9 $(echo "$pids" | tail -1)
box_restart_now "$job" 1 || { cat "tuned.killed-$job.log"; fail "job $job was not requeued after the death of a rank"; }
ended "$job" "COMPLETED 0:0" tuned.killed
grep -q 'resuming after step [1-9]' "tuned.killed-$job.log" || { cat "tuned.killed-$job.log"; fail "the run started over instead of resuming"; }
same_adapter tuned.killed
say "done"
