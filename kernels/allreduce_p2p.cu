/* One-shot all-reduce over peer memory, plain (nt_allreduce_p2p) and as the delta of residual add + RMS norm
 * (nt_allreduce_norm_p2p). Protocol and reuse of the buffers: allreduce_p2p_cuda.h.
 *
 * Each block announces itself to its namesake on every rank (a store with release at system scope into the peer's
 * memory), waits for all of them (loads with acquire from its own memory), then reads all ranks' partial sums in rank
 * order with 16-byte loads. The flags are counted up, never reset: a peer may be one call ahead, so the wait is for
 * "this call or later". The producer of the partial sums ran before this kernel in its stream; the release makes its
 * writes visible with the flag. Fixed order of sums: all ranks have the same bits.
 * Roofline: latency. One round of flags over NVLink ~2 us, then size * bytes read per rank: 8 ranks x 256 KiB at
 * ~400 GB/s is 5 us. Expected 5-6 us up to 32 KiB, 12-17 us at 256 KiB on 8 H100, within 10 % of other one-shot
 * kernels (NCCL: 22 us). Fused, the norm adds no traffic but x and y and saves a launch. */
#include "allreduce_p2p_cuda.h"
#include "cuda_norm.cuh"
#include "norm_cuda.h"
#include "ptx.cuh"

/* All threads of the block; after it the peers' partial sums may be read. */
NT_DEVICE void meet_peers(const struct nt_p2p_group *g) {
    const int32_t peer = (int32_t)threadIdx.x, at = (int32_t)blockIdx.x * NT_P2P_RANKS;
    const uint32_t call = g->epoch[blockIdx.x] + 1;
    if (peer < g->size) {
        nt_store_release_sys(&g->flags[peer][at + g->rank], call);
        while ((int32_t)(nt_load_acquire_sys(&g->flags[g->rank][at + peer]) - call) < 0) {}
    }
    __syncthreads(); /* and all have read the epoch */
    if (threadIdx.x == 0) g->epoch[blockIdx.x] = call;
}

extern "C" __global__ void __launch_bounds__(NT_P2P_THREADS) nt_allreduce_p2p(const struct nt_allreduce_p2p_args a) {
    meet_peers(&a.group);
    for (int64_t i = 4 * ((int64_t)blockIdx.x * NT_P2P_THREADS + threadIdx.x); i < a.count;
         i += 4 * (int64_t)gridDim.x * NT_P2P_THREADS) {
        float4 part[NT_P2P_RANKS];
#pragma unroll
        for (int r = 0; r < NT_P2P_RANKS; r++) /* all loads first */
            part[r] = r < a.group.size ? nt_load_f4_once(a.group.from[r] + i) : make_float4(0, 0, 0, 0);
        float4 sum = part[0];
#pragma unroll
        for (int r = 1; r < NT_P2P_RANKS; r++)
            if (r < a.group.size)
                sum = make_float4(sum.x + part[r].x, sum.y + part[r].y, sum.z + part[r].z, sum.w + part[r].w);
        nt_store_f4(a.out + i, sum);
    }
}

extern "C" __global__ void __launch_bounds__(1024)
    nt_allreduce_norm_p2p(const struct nt_allreduce_norm_p2p_args a) {
    __shared__ float scratch[NT_MAX_WARPS];
    meet_peers(&a.group);
    for (int64_t r = blockIdx.x; r < a.norm.n_rows; r += gridDim.x) {
        if (a.norm.d_model <= NT_NORM_WARP_MAX) { /* one warp, as rmsnorm takes such rows */
            nt_norm_row<NT_NORM_WARP_QUADS, NT_P2P_RANKS>(&a.norm, a.group.from, a.group.size, r, nt_lane(), NT_WARP,
                                                          NULL);
        } else {
            nt_norm_row<NT_NORM_BLOCK_QUADS, NT_P2P_RANKS>(&a.norm, a.group.from, a.group.size, r,
                                                           (int32_t)threadIdx.x, (int32_t)blockDim.x, scratch);
        }
        __syncthreads(); /* scratch */
    }
}
