# What every job script does after its resources: run `nocturne SUBCOMMAND` on all ranks of a Slurm job, pass a stop on, and
# requeue what may pass. Sourced by jobs/*.sbatch, README.md says how they find it; needs bash, srun, squeue, scontrol.
#   nocturne_job SUBCOMMAND FLAG...     does not return
# Functions only: bash has read all of it before the job begins, so that the file may be replaced while a job runs.

# The directory of --output: its COMPLETE is how a job script knows that the work was done.
nocturne_output() { # FLAG...
    local arg prev= out=
    for arg in "$@"; do
        case $arg in --output=*) out=${arg#*=} ;; esac
        [ "$prev" = --output ] && out=$arg
        prev=$arg
    done
    printf '%s' "$out"
}

nocturne_srun() { # SUBCOMMAND FLAG...: sets rc; the variables are nocturne_job's
    # A restarted job counts its steps from 0 again, but a crashed node keeps the PMIx sockets of the old step 0, and a new step 0
    # cannot start there. Empty steps move the number on: restart N runs as step N.
    for _ in $(seq "$restart"); do timeout 60 srun --mpi=none --nodes=1 --ntasks=1 true >/dev/null 2>&1; done
    srun --mpi="${MPI_TYPE:-pmix}" --kill-on-bad-exit=1 --wait=60 --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" \
        "${NOCTURNE:-nocturne}" "$@" &
    pid=$!
    [ $stop = 0 ] || kill -USR1 "$pid" # it came while there was no srun yet
    while [ $again = 1 ]; do # a signal interrupts wait: its status is then the signal's, not srun's
        again=0
        wait "$pid"
        rc=$?
    done
}

nocturne_job() { # SUBCOMMAND FLAG...
    local out tries rc restart=${SLURM_RESTART_COUNT:-0} name="$1.sbatch" id=$SLURM_JOB_ID stop=0 again=1 pid=
    # USR1 comes 180 s before the time limit. It goes on to srun, which passes it to every rank; TERM would kill them.
    trap 'stop=1 again=1; [ -z "$pid" ] || kill -USR1 "$pid" 2>/dev/null' USR1
    export SLURM_EXPORT_ENV=ALL # srun finds the program also after sbatch --export=NONE
    # Slurm before 23.02 does not tell the job its end; the program stops some time before it.
    export SLURM_JOB_END_TIME="${SLURM_JOB_END_TIME:-$(date -d "$(squeue -h -j "$id" -o %e)" +%s 2>/dev/null)}"
    out=$(nocturne_output "$@")
    [ -n "$out" ] || { echo "$name: --output DIR is missing; it is how this script knows that the work was done"; exit 2; }
    mkdir -p "$out" && : >"$out/.started" || exit 74 # a marker older than this does not count

    echo "$(date +%FT%T) job $id restart $restart on $SLURM_JOB_NODELIST, $SLURM_NTASKS ranks, locked memory limit $(ulimit -l)"
    nocturne_srun "$@"
    echo "$(date +%FT%T) job $id restart $restart: srun ended with $rc"

    # What may pass goes back to the queue, and the output directory keeps what was done. srun of Slurm 22.05 ends with 0 also when
    # no task could be launched: only the program's own marker tells success.
    tries=$out/.failures-$id
    case $rc in
    0)
        [ "$out/COMPLETE" -nt "$out/.started" ] && { rm -f "$tries" "$out/.started"; exit 0; }
        echo "$name: srun ended with 0, but $out/COMPLETE was not written: the ranks were not launched, see the lines above"
        rc=70 ;;
    85) rm -f "$tries" ;;     # stopped at a checkpoint: what failed before did pass
    1 | 76) ;;                # srun itself failed; a rank was lost or hung
    *) [ $rc -gt 128 ] || exit $rc ;; # killed by a signal; all else is the program's own error, and final
    esac
    if [ $rc -ne 85 ] && [ $stop = 0 ]; then # after USR1 a signal may have met a rank that did not listen yet
        echo "$(date +%FT%T) restart $restart rc $rc" >>"$tries"
        [ "$(wc -l <"$tries")" -le "${NOCTURNE_MAX_FAILURES:-3}" ] || { echo "$name: failed too often, see $tries"; exit $rc; }
    elif [ "$restart" -ge "${NOCTURNE_MAX_RESTARTS:-100}" ]; then
        echo "$name: restarted $restart times; giving up, submit again to go on"
        exit $rc
    fi
    scontrol requeue "$id" || echo "$name: scontrol requeue failed; submit again to go on"
    exit $rc
}
