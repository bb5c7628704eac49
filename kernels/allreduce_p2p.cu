/* One-shot all-reduce over peer memory, plain (nt_allreduce_p2p) and as the delta of residual add + RMS norm
 * (nt_allreduce_norm_p2p). Protocol and reuse of the buffers: allreduce_p2p_cuda.h.
 *
 * Each block meets its namesakes of all ranks (p2p.cuh), then reads all ranks' partial sums in rank order with 16-byte
 * loads. Fixed order of sums: all ranks have the same bits.
 * Layout: from[rank] and out [count] f32, 16-byte aligned; fused as rmsnorm's x and y, [n_rows, d_model].
 * Roofline: latency. One round of flags over NVLink ~2 us, then size * bytes read per rank: 8 ranks x 256 KiB at
 * ~400 GB/s is 5 us; 1 FLOP per 4 bytes read. Expected 5-6 us up to 32 KiB, 12-17 us at 256 KiB on 8 H100 (30-40 % of
 * the links: a round of flags takes as long as the data), within 10 % of other one-shot kernels (NCCL: 22 us). Fused,
 * the norm adds no traffic but x and y and saves a launch. */
#include "allreduce_p2p_cuda.h"
#include "cuda_norm.cuh"
#include "norm_cuda.h"
#include "p2p.cuh"

extern "C" __global__ void __launch_bounds__(NT_P2P_THREADS) nt_allreduce_p2p(const struct nt_allreduce_p2p_args a) {
    nt_launch_begin();
    nt_meet_peers(&a.group);
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
    nt_launch_begin();
    __shared__ float scratch[NT_MAX_WARPS];
    nt_meet_peers(&a.group);
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
