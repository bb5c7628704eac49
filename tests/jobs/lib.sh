# Shared by the job tests: . "$(dirname "$0")/lib.sh" as the first command of a script.
#   a test script gets two arguments: the nocturne binary and the source directory; NT_TEST_BIN names the folder of
#   the test programs (comm_check). It runs in a new folder $WORK that goes away with it.
#   mpi N COMMAND...     N ranks of COMMAND on this machine; the exit status is mpirun's (124: it hung)
#   fail SENTENCE        ends the test with status 1
#   skip REASON          ends it with 77, which ctest shows as skipped; where CI is true that is a failure
#   check SENTENCE COMMAND...   fail SENTENCE unless COMMAND succeeds
#   expect_rc RC COMMAND...     fail unless COMMAND ends with RC; its output is in $WORK/out
#   emulated_gpus OPTIONS       commands find emulated GPUs from here on, the libraries in $EMU, with these options of NT_EMU; skips without them
#   says PATTERN                fail unless a line of $WORK/out is like it
#   with_h5py CODE ARG...       runs CODE in a python that has h5py; 1 where there is none, which in CI is a failure
#   ... | stamped               each line with its time before it
#   patience SECONDS            prints the seconds, times the load of a core where it is above one: a limit for what takes CPU time
#   since UNIX_SECONDS          prints the seconds since then; below A B: is A less than B (decimals allowed)
set -u
NOCTURNE=${1:?usage: $0 NOCTURNE SOURCE_DIR} SOURCE=${2:?usage: $0 NOCTURNE SOURCE_DIR}
NT_TEST_BIN=${NT_TEST_BIN:-$(dirname "$NOCTURNE")/tests/jobs}
NT_TIMEOUT=${NT_TIMEOUT:-120}           # seconds one command may take: a hang is a failure, not a wait
TEST_NAME=$(basename "$0" .sh)
WORK=$(mktemp -d "/tmp/nt-$TEST_NAME.XXXXXX") || exit 1
trap 'rm -rf "$WORK"' EXIT

# What Open MPI needs as root, in containers and on fewer cores than ranks. None of it belongs into a job script of a cluster.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_mpi_yield_when_idle=1   # without it an 8-byte reduction on a crowded core takes 8 ms, not 9 us
export OMPI_MCA_btl_tcp_if_include=lo OMPI_MCA_oob_tcp_if_include=lo
export OMPI_MCA_pml=ob1 OMPI_MCA_btl=vader,tcp,self
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
export ASAN_OPTIONS=detect_leaks=0${ASAN_OPTIONS:+:$ASAN_OPTIONS} # Open MPI leaks at its end; unit tests look for our leaks

fail() { echo "$TEST_NAME: FAILED: $*" >&2; exit 1; }
skip() {
    [ "${CI:-}" = true ] && fail "skipped in CI: $*"
    echo "$TEST_NAME: SKIPPED: $*"; exit 77
}
check() { local s=$1; shift; "$@" || fail "$s"; }
mpi() { local n=$1; shift; timeout -k 5 "$NT_TIMEOUT" mpirun --oversubscribe --bind-to none -np "$n" "$@" </dev/null; }
expect_rc() {
    local want=$1 rc=0; shift
    "$@" >"$WORK/out" 2>&1 || rc=$?
    [ $rc -eq "$want" ] || { cat "$WORK/out" >&2; fail "exit status $rc, expected $want: $*"; }
}
emulated_gpus() {
    EMU=$(cd "$NT_TEST_BIN/../gpuemu" 2>/dev/null && pwd)
    [ -e "$EMU/libcuda_emu.so" ] || skip "no emulated GPU in this build (nvcc was not found)"
    export NOCTURNE_CUDA_DRIVER=$EMU/libcuda_emu.so NOCTURNE_NCCL=$EMU/libnccl_emu.so NT_EMU=$1
}
says() { grep -qE -- "$1" "$WORK/out" || { cat "$WORK/out" >&2; fail "no sentence like: $1"; }; }
with_h5py() {
    local python
    for python in python3 /usr/bin/python3; do # the first may be one of its own, without the distribution's packages
        "$python" -c 'import h5py' 2> /dev/null || continue
        "$python" -c "$@" || fail "h5py could not do: $1"
        return 0
    done
    [ "${CI:-}" != true ] || fail "no h5py in CI"
    return 1
}
stamped() { while IFS= read -r line; do printf '%s %s\n' "$EPOCHREALTIME" "$line"; done; }
patience() { awk -v s="$1" -v n="$(nproc)" '{ print ($1 > n ? s * $1 / n : s) }' /proc/loadavg; }
since() { awk -v now="$(date +%s.%N)" -v then="$1" 'BEGIN { printf "%.2f\n", now - then }'; }
below() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a < b) }'; }
