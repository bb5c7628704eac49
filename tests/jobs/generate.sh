# For scripts that run `nocturne generate` on a tiny model; source after lib.sh.
#   tiny DIR [OPTION...]        writes a tiny model
#   generate DIR [FLAG...]      one rank, $MODEL over $INPUT
#   ranks N DIR [FLAG...]       N ranks
#   same A B                    fails unless both directories hold the same answers, byte for byte
tiny() { check "tiny model" python3 "$SOURCE/tools/make_tiny_model.py" "$@"; }
run_flags() { echo --model "$MODEL" --input "$INPUT" --set run.watchdog_s=60 --set generate.checkpoint_s=0.2; }
generate() { local dir=$1; shift; timeout -k 5 "$NT_TIMEOUT" "$NOCTURNE" generate $(run_flags) --output "$dir" "$@" < /dev/null; }
ranks() { local n=$1 dir=$2; shift 2; mpi "$n" "$NOCTURNE" generate $(run_flags) --threads 1 --output "$dir" "$@"; }
same() {
    local file
    for file in results.jsonl errors.jsonl; do cmp "$1/$file" "$2/$file" || fail "$file differs between $1 and $2"; done
    check "results.h5 differs between $1 and $2" python3 "$SOURCE/tests/jobs/same_h5.py" "$1/results.h5" "$2/results.h5"
}
