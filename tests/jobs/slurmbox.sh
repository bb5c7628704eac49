# A throw-away real Slurm (controller and nodes n1, n2, ...) on one machine: root, no systemd, nothing outside $BOX.
#   . slurmbox.sh; box_possible || skip "$BOX_REASON"; box_up 2; sbatch ...; box_wait JOB SECONDS; box_down
# Every node has its own host name and /dev/shm, because Open MPI's shared-memory files of two "nodes" must not meet:
# between the nodes MPI speaks TCP over the loopback device, as on a cluster. All state, keys, ports and sockets are new
# in $BOX, so an installed Slurm, a second box or the leftovers of a killed one cannot interfere.
BOX=${BOX:-$WORK/box} # keep it short: unix socket paths have 108 bytes

box_possible() {
    local tool
    BOX_REASON=
    [ "$(id -u)" = 0 ] || { BOX_REASON="a throw-away Slurm needs root"; return 1; }
    for tool in munged slurmctld slurmd sbatch srun scontrol; do
        command -v $tool >/dev/null || { BOX_REASON="$tool is missing: apt-get install slurmctld slurmd slurm-client munge"; return 1; }
    done
    [ -e /usr/lib/x86_64-linux-gnu/pmix2/lib/libpmix.so ] || ldconfig -p | grep -q 'libpmix\.so ' ||
        { BOX_REASON="libpmix.so is missing, srun --mpi=pmix loads it: apt-get install libpmix-dev"; return 1; }
    unshare --uts --mount true 2>/dev/null || { BOX_REASON="this root may not make namespaces (unshare)"; return 1; }
}

box_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

box_conf() { # NODES
    local i
    cat <<C
ClusterName=box
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=$(box_port)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$BOX/run/munge.socket
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation=$BOX/state
SlurmdSpoolDir=$BOX/spool/%n
SlurmctldPidFile=$BOX/run/slurmctld.pid
SlurmdPidFile=$BOX/run/slurmd.%n.pid
SlurmctldLogFile=$BOX/log/slurmctld.log
SlurmdLogFile=$BOX/log/slurmd.%n.log
TmpFS=$BOX/tmp/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
SlurmdTimeout=15
KillWait=3
MinJobAge=3600
FirstJobId=$((10000 + RANDOM))
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=2
C
    # One real core pretends to be four, so that the job script's own request fits.
    for i in $(seq "$1"); do
        echo "NodeName=n$i NodeHostname=n$i NodeAddr=127.0.0.1 Port=$(box_port) CPUs=8 Sockets=1 CoresPerSocket=8 ThreadsPerCore=1 RealMemory=32000"
    done
    echo "PartitionName=box Nodes=n[1-$1] Default=YES MaxTime=60 State=UP"
}

box_node_up() { # NODE: also after a crash, with what was left in its spool and /tmp
    mkdir -p "$BOX/spool/$1" "$BOX/tmp/$1"
    unshare --uts --mount --propagation slave sh -c "hostname $1 && mount --bind '$BOX/etc/hosts' /etc/hosts &&
        mount -t tmpfs -o mode=1777,size=1g tmpfs /dev/shm && exec slurmd -N $1"
}

# The node loses power: whatever lives in its namespace is killed, the controller hears nothing more from it.
box_node_crash() { # NODE
    local p ns
    ns=$(readlink "/proc/$(cat "$BOX/run/slurmd.$1.pid")/ns/uts") || return 1
    [ -n "$ns" ] && [ "$ns" != "$(readlink /proc/self/ns/uts)" ] || return 1
    for p in /proc/[0-9]*; do [ "$(readlink "$p/ns/uts" 2>/dev/null)" = "$ns" ] && kill -9 "${p#/proc/}"; done
    rm -f "$BOX/run/slurmd.$1.pid"
}

# A test that was killed (kill -9, a CI time limit) leaves its daemons behind: end those whose owner is gone.
box_reap() {
    local d
    for d in /tmp/nt-*/box; do
        [ -f "$d/run/owner" ] && ! kill -0 "$(cat "$d/run/owner")" 2>/dev/null || continue
        (BOX=$d && export SLURM_CONF=$d/etc/slurm.conf && box_down)
        rm -rf "${d%/box}"
    done
}

box_up() { # NODES
    local i n=$1
    box_reap
    mkdir -p "$BOX"/{run,log,state,etc} && chmod 755 "$BOX" && echo $$ >"$BOX/run/owner" || return 1
    head -c 1024 /dev/urandom >"$BOX/etc/munge.key" && chmod 400 "$BOX/etc/munge.key"
    munged --key-file="$BOX/etc/munge.key" --socket="$BOX/run/munge.socket" --pid-file="$BOX/run/munged.pid" \
        --log-file="$BOX/log/munged.log" --seed-file="$BOX/run/munged.seed" --num-threads=2 || return 1
    echo "127.0.0.1 localhost $(hostname) $(seq -f 'n%g' -s' ' "$n")" >"$BOX/etc/hosts"
    echo 'CgroupPlugin=cgroup/v1' >"$BOX/etc/cgroup.conf" # lets slurmd start where /sys/fs/cgroup is absent; unused otherwise
    box_conf "$n" >"$BOX/etc/slurm.conf"
    export SLURM_CONF=$BOX/etc/slurm.conf
    slurmctld -c || return 1
    for i in $(seq "$n"); do
        box_node_up "n$i" || return 1
    done
    for i in $(seq 300); do
        [ "$(sinfo -h -t idle -o %D 2>/dev/null)" = "$n" ] && return 0
        sleep .1
    done
    sinfo -N -l; tail -n 5 "$BOX"/log/*.log
    return 1
}

box_field() { scontrol -o show job "$1" 2>/dev/null | sed -n "s/.*[ ]$2=\([^ ]*\).*/\1/p" | head -1; } # JOB FIELD

box_wait() { # JOB SECONDS -> prints "STATE CODE:SIGNAL"; state TIMEOUT when it did not end
    local s end=$((SECONDS + $2))
    while [ $SECONDS -lt $end ]; do
        s=$(box_field "$1" JobState)
        case $s in
        PENDING | RUNNING | CONFIGURING | COMPLETING | REQUEUED | SUSPENDED | "") sleep .2 ;;
        *) echo "$s $(box_field "$1" ExitCode)"; return 0 ;;
        esac
    done
    echo "TIMEOUT in $s, reason $(box_field "$1" Reason)"
}

# A requeued job waits two minutes, because the old step may still be dying. Here we can see when it is gone; but slurmd
# refuses a job in the second in which its credential was revoked ("Job credential revoked").
box_restart_now() { # JOB RESTARTS: waits until it was requeued so often; false when it ended instead
    local i
    for i in $(seq 600); do
        case $(box_field "$1" JobState) in COMPLETED | FAILED | CANCELLED | TIMEOUT) return 1 ;; esac
        [ "$(box_field "$1" Restarts)" = "$2" ] && [ "$(squeue -h -j "$1" -o %t)" = PD ] &&
            ! pgrep -f "slurmstepd: \[$1\." >/dev/null && { sleep 3; scontrol update jobid="$1" starttime=now; return 0; }
        sleep .1
    done
    return 1
}

box_end_pids() { # SIGNAL PID_FILES...: only processes that are ours, a pid file may be stale
    local f p sig=$1 pids=
    shift
    for f in "$@"; do
        p=$(cat "$f" 2>/dev/null) && [ -n "$p" ] || continue
        tr '\0' ' ' <"/proc/$p/environ" 2>/dev/null | grep -q "SLURM_CONF=$BOX/" ||
            tr '\0' ' ' <"/proc/$p/cmdline" 2>/dev/null | grep -q "$BOX/" || continue
        kill "-$sig" "$p" && pids="$pids $p"
    done
    for p in $pids; do
        for _ in $(seq 80); do kill -0 "$p" 2>/dev/null || break; sleep .1; done
        kill -9 "$p" 2>/dev/null
    done
    return 0
}

box_down() {
    [ -d "$BOX/run" ] || return 0
    if [ -n "$(squeue -h -o %i 2>/dev/null)" ]; then
        scancel -u root 2>/dev/null
        for _ in $(seq 80); do [ -z "$(squeue -h -o %i 2>/dev/null)" ] && break; sleep .1; done
    fi
    box_end_pids TERM "$BOX"/run/slurmd.n*.pid
    box_end_pids KILL "$BOX"/run/slurmctld.pid "$BOX"/run/munged.pid
}
