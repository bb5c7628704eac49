#!/usr/bin/env bash
# Gradients summed by the ranks' devices, on emulated GPUs: the bits of sums in host memory, for model copies, tensor-parallel ranks and
# both; a rank that dies or hangs in such a sum of `nocturne finetune` ends the job in time, with one sentence that names it.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/generate.sh"
. "$(dirname "$0")/finetune.sh"
cd "$WORK" || exit 1
emulated_gpus devices=4,stream0=0

for ranks_tp in 2,1 3,1 3,3 4,2; do
    expect_rc 0 mpi "${ranks_tp%,*}" "$NT_TEST_BIN/grad_sum_check" "${ranks_tp#*,}"
done

training_data
tune() { # RANKS TP RANK NCCL_FAULT [FLAG...]
    local ranks=$1 tp=$2; shift 2
    cat > on_rank.sh << END
#!/bin/bash
[ "\$OMPI_COMM_WORLD_RANK" = "$1" ] && export NT_EMU_NCCL=$2
exec "\$@"
END
    chmod +x on_rank.sh; shift 2
    mpi "$ranks" $LAUNCHER ./on_rank.sh "$NOCTURNE" finetune $shape --input rows.h5 --output disturbed --threads 1 --device cuda --tp "$tp" \
        --batch-size 4 --max-steps 3 "$@"
}
ended() { check "COMPLETE must not exist" test ! -e disturbed/COMPLETE; rm -rf disturbed; }

# a launcher that does not care: the other rank sees NCCL's error itself
LAUNCHER=--enable-recovery tune 2 1 1 rank=1,seq=2,fault=die 2>&1 | stamped > out
took=$(since "$(grep -m1 'emu: this process dies' out | cut -d' ' -f1)")
says ' nocturne: rank 0 on .*NCCL, rank 0 of dp: .*remote process exited'
check "$took s after the death of a rank its job ended" below "$took" "$(patience 10)"
ended

# beside tensor-parallel sums: rank 2 is the first of its model copy, which is the second
LAUNCHER= expect_rc 76 tune 4 2 2 rank=1,seq=2,fault=hang --set run.watchdog_s=5
says 'watchdog: .*rank 2 .*in ncclAllGather #2 on dp'
ended
echo "the devices' sums are the host's"
