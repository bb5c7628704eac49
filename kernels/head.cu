/* The vocabulary head fused with the choice of a token: y = x w^T on tensor cores, and of each row only the best
 * (value, index), plain or with Gumbel noise, leaves the multiprocessor. Spec: ops.h.
 *
 * nt_head_argmax: a block of 4 warps computes 64 rows by 128 tokens, k in steps of 64 through 3 stages of cp.async;
 * lines of 128 bytes are swizzled (chunk ^ row & 7), so ldmatrix has no bank conflicts. A warp has 32 x 64 outputs in
 * registers: 16 mma.m16n8k16 for 6 ldmatrix.x4 per 16 of k. k ascends in steps of 16 whatever the batch, so a row's
 * bits do not depend on its neighbours. The epilogue takes the best of a thread's 16 tokens per row, of the quad, of
 * the two warps side by side. Grid (row tiles, token tiles): row tiles of the same tokens run together and share the
 * weights in L2. nt_head_join, a block per row, takes the best of the tiles, in any order with the same result.
 * Rows of x that are not 16-byte aligned go through registers instead of cp.async.
 * Roofline: 2 n k bytes of weights once, 2 n_row n k FLOP: bandwidth up to about 256 rows on H100 (295 FLOP per byte),
 * expected 80-85 % of copy bandwidth (1 GB of an 8B head: 0.37 ms); beyond, mma.sync at 55-60 % of the dense peak: the
 * engine then takes the large GEMM and logit ops. Saved: the logits, 8 bytes per token and row (64 x 128k: 67 MB). */
#include "head_cuda.h"
#include "ptx.cuh"

static_assert(NT_HEAD_DEPTH * 2 == 128, "a tile row is one swizzled line");
static_assert(NT_HEAD_THREADS == 4 * NT_WARP, "2 x 2 warps of 32 x 64");

enum { LINE = 2 * NT_HEAD_DEPTH, CHUNKS = LINE / 16, STEPS = NT_HEAD_DEPTH / 16 };

/* Byte offset of a 16-byte chunk of a tile's row. */
NT_DEVICE uint32_t chunk_at(int32_t row, int32_t chunk) {
    return (uint32_t)(row * LINE + ((chunk ^ (row & 7)) << 4));
}

/* Bytes of the chunk at column col that lie before column end. */
NT_DEVICE int bytes_before(int32_t col, int32_t end) {
    const int left = 2 * (end - col);
    return left < 0 ? 0 : left < 16 ? left : 16;
}

/* Starts the copies of stage kt. */
NT_DEVICE void load_stage(const struct nt_head_cuda *a, char *stage, int32_t m0, int32_t n0, int32_t kt, bool x_async) {
#pragma unroll
    for (int32_t c = (int32_t)threadIdx.x; c < NT_HEAD_ROWS * CHUNKS; c += NT_HEAD_THREADS) {
        const int32_t row = c / CHUNKS, chunk = c % CHUNKS, col = kt * NT_HEAD_DEPTH + 8 * chunk;
        const int bytes = m0 + row < a->n_row ? bytes_before(col, a->k) : 0;
        const nt_bf16 *from = bytes > 0 ? a->x + (m0 + row) * a->ldx + col : a->x;
        if (x_async) {
            nt_cp_async_16_zfill(nt_shared_address(stage) + chunk_at(row, chunk), from, bytes);
        } else { /* k and ldx are even: pairs are whole */
            uint32_t pair[4];
#pragma unroll
            for (int i = 0; i < 4; i++) pair[i] = 4 * i < bytes ? ((const uint32_t *)from)[i] : 0;
            nt_store128(stage + chunk_at(row, chunk), make_uint4(pair[0], pair[1], pair[2], pair[3]));
        }
    }
    const uint32_t w_tile = nt_shared_address(stage) + NT_HEAD_ROWS * LINE;
#pragma unroll
    for (int32_t c = (int32_t)threadIdx.x; c < NT_HEAD_COLS * CHUNKS; c += NT_HEAD_THREADS) {
        const int32_t row = c / CHUNKS, chunk = c % CHUNKS, col = kt * NT_HEAD_DEPTH + 8 * chunk;
        const bool inside = n0 + row < a->n_vocab && col < a->k_pad;
        const nt_bf16 *from = inside ? a->w + (int64_t)(n0 + row) * a->k_pad + col : a->w;
        nt_cp_async_16_zfill(w_tile + chunk_at(row, chunk), from, inside ? 16 : 0);
    }
}

/* acc += the stage's product of this warp. */
NT_DEVICE void multiply_stage(float acc[2][8][4], const char *stage, int32_t warp_m, int32_t warp_n) {
    const uint32_t x_tile = nt_shared_address(stage), w_tile = x_tile + NT_HEAD_ROWS * LINE;
#pragma unroll
    for (int s = 0; s < STEPS; s++) {
        uint32_t x[2][4], w[4][4];
#pragma unroll
        for (int m = 0; m < 2; m++)
            nt_ldmatrix_x4(x[m], x_tile + chunk_at(warp_m * 32 + m * 16 + (nt_lane() & 15), 2 * s + (nt_lane() >> 4)));
#pragma unroll
        for (int n = 0; n < 4; n++)
            nt_ldmatrix_x4(w[n], w_tile + chunk_at(warp_n * 64 + n * 16 + (nt_lane() >> 4) * 8 + (nt_lane() & 7),
                                                   2 * s + (nt_lane() >> 3 & 1)));
#pragma unroll
        for (int m = 0; m < 2; m++)
#pragma unroll
            for (int n = 0; n < 8; n++)
                nt_mma_bf16(acc[m][n], x[m], w[n / 2][2 * (n % 2)], w[n / 2][2 * (n % 2) + 1]);
    }
}

NT_DEVICE uint32_t word_of(uint4 w, uint32_t which) {
    return which & 2 ? (which & 1 ? w.w : w.z) : (which & 1 ? w.y : w.x);
}

NT_DEVICE void offer(struct nt_best *best, float value, int32_t v, int32_t n_vocab) {
    if (v >= n_vocab || !nt_dev_better(value, v, best->value, best->index)) return;
    best->value = value;
    best->index = v;
}

/* The best of this thread's 16 tokens of one row: acc[n][half], acc[n][half + 1] are tokens v0 + 8 n, + 1. */
NT_DEVICE struct nt_best best_of_row(const struct nt_head_cuda *a, const float acc[8][4], int half, int32_t row,
                                     int32_t v0) {
    struct nt_best best = nt_best_none();
    if (row >= a->n_row) return best;
    const float inv_temp = a->inv_temp ? a->inv_temp[row] : 0.0f;
    const bool drawn = inv_temp != 0.0f;
    const uint64_t seed = drawn ? a->seed[row] : 0, stream = drawn ? a->stream[row] : 0;
#pragma unroll
    for (int n = 0; n < 8; n++) {
        float low = acc[n][half], high = acc[n][half + 1];
        const int32_t v = v0 + 8 * n;
        if (v >= a->n_vocab) break;
        if (drawn) {
            const uint64_t id = (uint64_t)((int64_t)a->first + v);
            uint4 w = nt_dev_philox(seed, stream, id >> 2);
            low = __fsub_rn(__fmul_rn(low, inv_temp), nt_dev_log_neg_log(word_of(w, (uint32_t)id & 3)));
            if ((id & 3) == 3) w = nt_dev_philox(seed, stream, (id >> 2) + 1);
            high = __fsub_rn(__fmul_rn(high, inv_temp), nt_dev_log_neg_log(word_of(w, (uint32_t)(id + 1) & 3)));
        }
        offer(&best, low, v, a->n_vocab);
        offer(&best, high, v + 1, a->n_vocab);
    }
    return best;
}

extern "C" __global__ void __launch_bounds__(NT_HEAD_THREADS, 2) nt_head_argmax(const struct nt_head_cuda a) {
    extern __shared__ __align__(128) char stages[];
    __shared__ struct nt_best best_of_side[2][NT_HEAD_ROWS];
    const int32_t m0 = (int32_t)blockIdx.x * NT_HEAD_ROWS, n0 = (int32_t)blockIdx.y * NT_HEAD_COLS;
    const int32_t warp_m = nt_warp() & 1, warp_n = nt_warp() >> 1, n_k = (a.k + NT_HEAD_DEPTH - 1) / NT_HEAD_DEPTH;
    const bool x_async = a.ldx % 8 == 0 && nt_is_aligned16(a.x);
    float acc[2][8][4] = {};
    for (int32_t kt = 0; kt < NT_HEAD_STAGES - 1; kt++) {
        if (kt < n_k) load_stage(&a, stages + kt * NT_HEAD_STAGE_BYTES, m0, n0, kt, x_async);
        nt_cp_async_commit();
    }
    for (int32_t kt = 0; kt < n_k; kt++) {
        nt_cp_async_wait<NT_HEAD_STAGES - 2>();
        __syncthreads(); /* stage kt is there for all; nobody reads the one that is filled next */
        const int32_t next = kt + NT_HEAD_STAGES - 1;
        if (next < n_k)
            load_stage(&a, stages + next % NT_HEAD_STAGES * NT_HEAD_STAGE_BYTES, m0, n0, next, x_async);
        nt_cp_async_commit();
        multiply_stage(acc, stages + kt % NT_HEAD_STAGES * NT_HEAD_STAGE_BYTES, warp_m, warp_n);
    }
    const int32_t v0 = n0 + warp_n * 64 + 2 * (nt_lane() & 3);
#pragma unroll
    for (int m = 0; m < 2; m++) {
#pragma unroll
        for (int half = 0; half < 4; half += 2) {
            const int32_t row = warp_m * 32 + m * 16 + 4 * half + (nt_lane() >> 2);
            struct nt_best best = best_of_row(&a, acc[m], half, m0 + row, v0);
#pragma unroll
            for (int d = 1; d < 4; d *= 2) {
                struct nt_best other;
                other.value = __shfl_xor_sync(NT_ALL_LANES, best.value, d);
                other.index = __shfl_xor_sync(NT_ALL_LANES, best.index, d);
                best = nt_best_of(best, other);
            }
            if ((nt_lane() & 3) == 0) best_of_side[warp_n][row] = best;
        }
    }
    __syncthreads();
    const int32_t row = (int32_t)threadIdx.x;
    if (row >= NT_HEAD_ROWS || m0 + row >= a.n_row) return;
    const struct nt_best best = nt_best_of(best_of_side[0][row], best_of_side[1][row]);
    const struct nt_head_pair pair = {best.value, best.index};
    a.part[(int64_t)(m0 + row) * a.n_tile + blockIdx.y] = pair;
}

extern "C" __global__ void __launch_bounds__(NT_HEAD_JOIN_THREADS) nt_head_join(const struct nt_head_cuda a) {
    __shared__ struct nt_best best_of_warp[NT_MAX_WARPS];
    const struct nt_head_pair *part = a.part + (int64_t)blockIdx.x * a.n_tile;
    struct nt_best best = nt_best_none();
    for (int32_t i = (int32_t)threadIdx.x; i < a.n_tile; i += NT_HEAD_JOIN_THREADS) {
        const struct nt_best b = {part[i].value, part[i].index};
        best = nt_best_of(best, b);
    }
    best = nt_block_best(best, best_of_warp);
    if (threadIdx.x != 0) return;
    a.value[blockIdx.x] = best.value;
    a.index[blockIdx.x] = best.index;
}
