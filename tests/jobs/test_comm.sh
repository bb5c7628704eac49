#!/bin/bash
# Communicators on 1 to 4 ranks of this machine, the death of a rank, and the watchdog.
. "$(dirname "$0")/lib.sh"
CHECK=$NT_TEST_BIN/comm_check
[ -x "$CHECK" ] || fail "$CHECK is missing: build the target comm_check"

for n_tp in 1,1 2,1 2,2 3,3 4,1 4,2; do
    for mode in collectives shared; do
        expect_rc 0 mpi ${n_tp%,*} "$CHECK" $mode ${n_tp#*,}
        cat "$WORK/out"
    done
done
for n in 2 3 4; do
    for mode in tickets agree; do expect_rc 0 mpi $n "$CHECK" $mode; cat "$WORK/out"; done
done

# Where the node has no room to share, each rank has its own copy.
if [ "$(id -u)" = 0 ] && unshare --mount true 2>/dev/null; then
    expect_rc 0 unshare --mount sh -c 'mount -t tmpfs -o size=14m tmpfs /dev/shm && shift && exec "$@"' sh \
        x timeout -k 5 "$NT_TIMEOUT" mpirun --oversubscribe -np 2 "$CHECK" shared 1
    check "no private copies in a small /dev/shm: $(cat "$WORK/out")" grep -q '2 copies' "$WORK/out"
else
    echo "not root: the test of a small /dev/shm is left out"
fi

# A rank dies: the job ends within 10 s, and not with success.
for how in kill segv exit abort; do
    rc=0; mpi 3 "$CHECK" die $how "$WORK/died" >"$WORK/out" 2>&1 || rc=$?
    took=$(since "$(cat "$WORK/died")")
    echo "rank 1 dies by $how: mpirun ends with $rc after $took s"
    [ $rc -ne 0 ] && [ $rc -ne 124 ] || fail "mpirun ended with $rc after the death of a rank"
    below "$took" "$(patience 10)" || fail "the job lived on for $took s after a rank died by $how"
done

# A rank hangs: the others name it, its host and process, what it did and where, and end the job within 10 s of the limit.
hang() { # HOW PATTERN
    local rc=0 limit=2 start took
    start=$(date +%s.%N)
    mpi 3 "$CHECK" hang "$1" "$WORK/$1" $limit >"$WORK/out" 2>&1 || rc=$?
    took=$(since "$start")
    grep -m1 'watchdog:' "$WORK/out"
    [ $rc -eq 76 ] || { cat "$WORK/out"; fail "a hang by $1 ended with $rc, expected 76"; }
    grep -Eq "$2" "$WORK/out" || { cat "$WORK/out"; fail "no sentence like: $2"; }
    below "$took" "$(patience $((limit + 10)))" || fail "a hang by $1 lasted $took s"
}
who="rank 1 \(host $(hostname), pid [0-9]+, doing 'read input',"
hang stop "$who after barrier #2 on world\) is stopped or dead: this was its last heartbeat, [0-9]+ s ago"
hang sleep "$who after barrier #2 on world\) made no progress for [0-9]+ s"
hang other "that do not meet: rank 0 .* in allreduce_f32 #3 on world\); $who in barrier #2 on tp\);"

expect_rc 0 mpi 3 "$CHECK" wait "$WORK/wait" 2
check "nobody told that the others wait" grep -q 'waited .* for ranks that still work' "$WORK/out"
[ ! -e "$WORK/wait/.heartbeat" ] || fail "heartbeats are left behind: $(ls "$WORK/wait/.heartbeat")"
tail -1 "$WORK/out"
