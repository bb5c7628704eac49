/* The best (value, index) of each row over the ranks of a sharded vocabulary: the choice of tokens by head_argmax, when
 * all ranks' pairs can be read. Spec: allreduce_p2p_cuda.h.
 *
 * One block, a thread per row: it meets its namesakes when the pairs lie in the peers' memory (p2p.cuh), then reads the
 * ranks' pairs, neighbouring rows next to each other. Larger values win, NaN above all, then lower indices, in any order
 * with the same result, so all ranks choose the same tokens.
 * Layout: a rank's pairs are value [n_row] f32, then index [n_row] i32; token [n_row].
 * Roofline: latency. 8 bytes per row and rank (64 rows, 8 ranks: 4 KiB) and no FLOP but comparisons; expected one
 * round of flags over NVLink, about 2-3 us, or a launch where NCCL has gathered the pairs: below 1 % of any bandwidth,
 * because 4 KiB are nothing beside either. */
#include "cuda_common.cuh"
#include "p2p.cuh"

extern "C" __global__ void __launch_bounds__(NT_BEST_THREADS) nt_best_pairs(const struct nt_best_pairs_args a) {
    nt_launch_begin();
    if (a.gathered == NULL) nt_meet_peers(&a.group);
    for (int32_t row = (int32_t)threadIdx.x; row < a.n_row; row += NT_BEST_THREADS) {
        struct nt_best pair[NT_P2P_RANKS];
#pragma unroll
        for (int r = 0; r < NT_P2P_RANKS; r++) { /* all loads first */
            pair[r] = nt_best_none();
            if (r >= a.group.size) continue;
            const float *from = a.gathered ? a.gathered + (int64_t)r * a.stride : a.group.from[r];
            pair[r].value = __ldcs(from + row);
            pair[r].index = __float_as_int(__ldcs(from + a.n_row + row));
        }
        struct nt_best best = pair[0];
#pragma unroll
        for (int r = 1; r < NT_P2P_RANKS; r++) best = nt_best_of(best, pair[r]);
        a.token[row] = nt_dev_finite(best.value) ? best.index : -1;
    }
}
