/* Gradient of the RMS norm: g = dy w, s = rsqrt(mean(x^2) + eps); dx += s (g - x s^2 mean(g x)); dx16 = bf16(dx);
 * dw += sum over tokens of dy x s.
 *
 * nt_rmsnorm_bwd_warp: a warp per row, d_model <= 1024, 4 rows at a time; nt_rmsnorm_bwd_block: a block per row, up to
 * 16384 (8192 where 4 does not divide it: such widths go element by element). Both hold x and dy of the row in
 * registers between the two sums and dx, so all is read once. With dw a block takes 16 tokens and keeps the sums of its
 * columns in shared memory, each thread its own (warp: tokens 4 w .. 4 w + 3, then the warps); nt_rmsnorm_bwd_join adds
 * the blocks to dw, a column a thread. Without, a block takes 4 tokens or one. Order of a row's sums: that of
 * cuda_norm.cuh. Order of dw: within a warp's tokens ascending, warps ascending, blocks ascending. Neither depends on
 * the launch, and calls for whole blocks give the bits of one call. Layout: x, dy, dx [n_tok, d_model] f32, dx16 bf16,
 * w and dw [d_model] f32, part [n_block, d_model] f32; widths that 4 does not divide go element by element. Roofline:
 * bandwidth, 18 bytes per element (x, dy, dx read, dx and dx16 written); with dw 1/2 byte more for the parts, written
 * and read again, and 8 of shared memory. About 13 FLOP per element. Expected 80-85 % of copy bandwidth from about 1000
 * tokens; the join of 4096 tokens reads 256 parts a column, 16 at a time, about 6 us. */
#include "norm_bwd_cuda.h"
#include "cuda_norm.cuh"
#include "cuda_rows.cuh"
#include "ptx.cuh"

static_assert(NT_NORM_BWD_SCRATCH == 2 * NT_MAX_WARPS, "two sums over a block");

/* Columns of a thread in a row of d, by quads: thread + q * threads. */
#define FOR_QUADS(q, i)                                                                                                \
    _Pragma("unroll") for (int q = 0; q < QUADS; q++) if (const int32_t i = 4 * (thread + q * threads); i < d)

/* Row t of the args: dx and dx16; dy x s is added to sums [d], if there are any, at the thread's own columns. scratch
 * [2, NT_MAX_WARPS] of the block's sums; NULL: one warp. */
template <int QUADS, bool WIDE>
NT_DEVICE void row_back(const struct nt_rmsnorm_bwd_args *a, int64_t t, int32_t thread, int32_t threads, float *scratch,
                        float *sums) {
    const int32_t d = a->d_model;
    const int64_t at = t * d;
    float4 x[QUADS], dy[QUADS];
    float sum = 0, dot = 0;
#pragma unroll
    for (int q = 0; q < QUADS; q++) {
        const int32_t i = 4 * (thread + q * threads);
        x[q] = nt_load_quad<WIDE>(a->x + at + i, d - i);
        dy[q] = nt_load_quad<WIDE>(a->dy + at + i, d - i);
    }
    FOR_QUADS(q, i) {
        const float4 w = nt_load_quad<WIDE>(a->w + i, d - i);
        sum = fmaf(x[q].w, x[q].w, fmaf(x[q].z, x[q].z, fmaf(x[q].y, x[q].y, fmaf(x[q].x, x[q].x, sum))));
        dot = fmaf(dy[q].x * w.x, x[q].x, dot);
        dot = fmaf(dy[q].y * w.y, x[q].y, dot);
        dot = fmaf(dy[q].z * w.z, x[q].z, dot);
        dot = fmaf(dy[q].w * w.w, x[q].w, dot);
    }
    /* each sum's barrier also lets the other's scratch be written again */
    sum = scratch ? nt_block_sum(sum, scratch) : nt_warp_sum(sum);
    dot = scratch ? nt_block_sum(dot, scratch + NT_MAX_WARPS) : nt_warp_sum(dot);
    const float s = nt_rms_scale(sum, d, a->eps), c = s * s * __fdiv_rn(dot, (float)d);
    FOR_QUADS(q, i) {
        const float4 w = nt_load_quad<WIDE>(a->w + i, d - i);
        float4 dx = nt_load_quad<WIDE>(a->dx + at + i, d - i);
        dx.x += s * (dy[q].x * w.x - x[q].x * c);
        dx.y += s * (dy[q].y * w.y - x[q].y * c);
        dx.z += s * (dy[q].z * w.z - x[q].z * c);
        dx.w += s * (dy[q].w * w.w - x[q].w * c);
        nt_store_quad<WIDE>(a->dx + at + i, d - i, dx);
        if (a->dx16) nt_store_quad_bf16<WIDE>(a->dx16 + at + i, d - i, dx);
        if (!sums) continue;
        const float4 before = nt_load_f4(sums + i);
        nt_store_f4(sums + i, make_float4(fmaf(dy[q].x, x[q].x * s, before.x), fmaf(dy[q].y, x[q].y * s, before.y),
                                          fmaf(dy[q].z, x[q].z * s, before.z), fmaf(dy[q].w, x[q].w * s, before.w)));
    }
}

/* Tokens first .. end - 1; sums in shared memory, or NULL. */
template <int QUADS, bool WIDE>
NT_DEVICE void rows_back(const struct nt_rmsnorm_bwd_args *a, int64_t first, int64_t end, int32_t thread,
                         int32_t threads, float *scratch, float *sums) {
    const int32_t d = a->d_model;
    if (sums) FOR_QUADS(q, i) nt_store_f4(sums + i, make_float4(0, 0, 0, 0));
    if (end > a->n_tok) end = a->n_tok;
    for (int64_t t = first; t < end; t++) row_back<QUADS, WIDE>(a, t, thread, threads, scratch, sums);
}

/* A warp a row; shared [NT_NORM_WARP_ROWS, NT_NORM_WARP_MAX]. */
template <bool WIDE, bool SUMS> NT_DEVICE void warp_tokens(const struct nt_rmsnorm_bwd_cuda *b, float *shared) {
    const int32_t d = b->op.d_model, each = b->each / NT_NORM_WARP_ROWS;
    const int64_t first = (int64_t)blockIdx.x * b->each + nt_warp() * each;
    float *sums = SUMS ? shared + nt_warp() * NT_NORM_WARP_MAX : NULL;
    rows_back<NT_NORM_WARP_QUADS, WIDE>(&b->op, first, first + each, nt_lane(), NT_WARP, NULL, sums);
    if (SUMS) {
        __syncthreads();
        for (int32_t i = (int32_t)threadIdx.x; i < d; i += NT_WARP * NT_NORM_WARP_ROWS) {
            float sum = shared[i];
#pragma unroll
            for (int w = 1; w < NT_NORM_WARP_ROWS; w++) sum = __fadd_rn(sum, shared[w * NT_NORM_WARP_MAX + i]);
            b->part[(int64_t)blockIdx.x * d + i] = sum;
        }
    }
}

/* The block a row; shared [2, NT_MAX_WARPS], then [d] and what completes the last quad. */
template <bool WIDE, bool SUMS> NT_DEVICE void block_tokens(const struct nt_rmsnorm_bwd_cuda *b, float *shared) {
    enum { QUADS = WIDE ? NT_NORM_BLOCK_QUADS : NT_NORM_BWD_NARROW_QUADS };
    float *scratch = shared, *sums = SUMS ? shared + NT_NORM_BWD_SCRATCH : NULL;
    const int32_t d = b->op.d_model, thread = (int32_t)threadIdx.x, threads = (int32_t)blockDim.x;
    const int64_t first = (int64_t)blockIdx.x * b->each;
    rows_back<QUADS, WIDE>(&b->op, first, first + b->each, thread, threads, scratch, sums);
    if (SUMS) {
        float *part = b->part + (int64_t)blockIdx.x * d;
        FOR_QUADS(q, i) nt_store_quad<WIDE>(part + i, d - i, nt_load_f4(sums + i));
    }
}

/* Which of its forms a launch takes: the same in all threads. */
#define PICK_FORM(tokens, b, shared)                                                                                   \
    do {                                                                                                               \
        const bool wide = (b)->op.d_model % 4 == 0;                                                                    \
        if ((b)->part && wide)                                                                                         \
            tokens<true, true>(b, shared);                                                                             \
        else if ((b)->part)                                                                                            \
            tokens<false, true>(b, shared);                                                                            \
        else if (wide)                                                                                                 \
            tokens<true, false>(b, shared);                                                                            \
        else                                                                                                           \
            tokens<false, false>(b, shared);                                                                           \
    } while (0)

extern "C" __global__ void __launch_bounds__(NT_WARP *NT_NORM_WARP_ROWS)
    nt_rmsnorm_bwd_warp(const struct nt_rmsnorm_bwd_cuda b) {
    nt_launch_begin();
    __shared__ __align__(16) float shared[NT_NORM_WARP_ROWS * NT_NORM_WARP_MAX];
    PICK_FORM(warp_tokens, &b, shared);
}

extern "C" __global__ void __launch_bounds__(1024) nt_rmsnorm_bwd_block(const struct nt_rmsnorm_bwd_cuda b) {
    nt_launch_begin();
    extern __shared__ __align__(16) float shared[];
    PICK_FORM(block_tokens, &b, shared);
}

extern "C" __global__ void __launch_bounds__(NT_NORM_BWD_JOIN_THREADS)
    nt_rmsnorm_bwd_join(const struct nt_rmsnorm_bwd_cuda b) {
    nt_launch_begin();
    const int32_t d = b.op.d_model, i = (int32_t)(blockIdx.x * NT_NORM_BWD_JOIN_THREADS + threadIdx.x);
    if (i >= d) return;
    float sum = b.op.dw[i];
#pragma unroll 16
    for (int32_t k = 0; k < b.n_block; k++) sum = __fadd_rn(sum, b.part[(int64_t)k * d + i]);
    b.op.dw[i] = sum;
}
