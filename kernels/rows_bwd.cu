/* Gradients that move by row: nt_embed_bwd (rows added to a table), nt_scatter (the inverse of gather), nt_dropout.
 *
 * Embed: dtable[ids[t] - first, :] += scale dx[t, :], t ascending. Block (t, piece of 4096 columns): the block of the
 * first token with an id walks the later ones and holds its piece of the table's row in registers; those of repeated
 * ids end after a look at the ids before. So a row has one writer, no atomics, and its sum the order of the tokens.
 * Scatter: to[rows[i], :] = from[i, :], zeros elsewhere. Block (row of to, piece of 16 KiB); every warp searches the
 * ascending rows 32 at a time.
 * Dropout: a warp takes 128 columns of a row, a lane 4 of them: one Philox call. Bits as the CPU bodies.
 * Layout: ids [n_tok], dx [n_tok, d_model] and dtable [n_rows, d_model] f32; rows of scatter `bytes` apart; x and y of
 * dropout [n_row, ld] bf16, f32 with add; rows that are not whole quads go element by element.
 * Roofline: bandwidth. Embed 12 bytes per element (dx and table read, table written) and 2 FLOP, less where ids repeat;
 * the look at the ids is n_tok^2 / 2 words of L1 and L2, a tenth of the time at 4096 tokens of 4096. Expected 75 % of
 * copy bandwidth; one id on every token makes it a walk by one block: 1 us for each 4 tokens. Scatter: 1 to 2 bytes per
 * byte written, expected 85 %: a copy behind 3 dependent loads. Dropout 4 bytes per element (add: 12) and about 50
 * instructions, 40 of them Philox: expected 50 % of copy bandwidth bf16, bound by issue, 80 % with add. */
#include "rows_bwd_cuda.h"
#include "cuda_rows.cuh"
#include "ptx.cuh"

/* ---- embed_bwd ---- */

enum { LOOK = 4 }; /* ids a thread looks at before the block agrees */

/* Whether one of ids[0 .. t - 1] is id; in all threads of the block. */
NT_DEVICE bool came_before(const int32_t *ids, int64_t t, int32_t id) {
    const int32_t threads = (int32_t)blockDim.x;
    for (int64_t t0 = 0; t0 < t; t0 += LOOK * threads) {
        bool found = false;
#pragma unroll
        for (int k = 0; k < LOOK; k++) {
            const int64_t at = t0 + k * threads + threadIdx.x;
            found |= at < t && ids[at] == id;
        }
        if (__syncthreads_or(found)) return true;
    }
    return false;
}

template <bool WIDE> NT_DEVICE void add_quads(const float *dx, int32_t begin, int32_t d, float scale, float4 *sum) {
    float4 x[NT_EMBED_BWD_QUADS];
#pragma unroll
    for (int q = 0; q < NT_EMBED_BWD_QUADS; q++) {
        const int32_t i = begin + 4 * q * (int32_t)blockDim.x;
        x[q] = nt_load_quad<WIDE>(dx + i, d - i);
    }
#pragma unroll
    for (int q = 0; q < NT_EMBED_BWD_QUADS; q++)
        sum[q] =
            make_float4(__fadd_rn(sum[q].x, __fmul_rn(x[q].x, scale)), __fadd_rn(sum[q].y, __fmul_rn(x[q].y, scale)),
                        __fadd_rn(sum[q].z, __fmul_rn(x[q].z, scale)), __fadd_rn(sum[q].w, __fmul_rn(x[q].w, scale)));
}

/* masks [2, NT_MAX_WARPS]: which of the next tokens have the id, in turn; one barrier each. */
template <bool WIDE> NT_DEVICE void add_tokens(const struct nt_embed_bwd_args *a, int64_t row, uint32_t *masks) {
    const int32_t d = a->d_model, threads = (int32_t)blockDim.x, warps = threads / NT_WARP, id = a->ids[blockIdx.x];
    const int32_t begin = (int32_t)blockIdx.y * NT_EMBED_BWD_PIECE + 4 * (int32_t)threadIdx.x;
    float *to = a->dtable + row * d;
    float4 sum[NT_EMBED_BWD_QUADS];
#pragma unroll
    for (int q = 0; q < NT_EMBED_BWD_QUADS; q++) {
        const int32_t i = begin + 4 * q * threads;
        sum[q] = nt_load_quad<WIDE>(to + i, d - i);
    }
    uint32_t turn = 0;
    for (int64_t t0 = blockIdx.x; t0 < a->n_tok; t0 += threads, turn ^= NT_MAX_WARPS) {
        const int64_t t = t0 + threadIdx.x;
        const uint32_t mine = __ballot_sync(NT_ALL_LANES, t < a->n_tok && a->ids[t] == id);
        if (nt_lane() == 0) masks[turn + nt_warp()] = mine;
        __syncthreads();
        for (int32_t w = 0; w < warps; w++)
            for (uint32_t left = masks[turn + w]; left; left &= left - 1)
                add_quads<WIDE>(a->dx + (t0 + w * NT_WARP + __ffs((int)left) - 1) * d, begin, d, a->scale, sum);
    }
#pragma unroll
    for (int q = 0; q < NT_EMBED_BWD_QUADS; q++) {
        const int32_t i = begin + 4 * q * threads;
        nt_store_quad<WIDE>(to + i, d - i, sum[q]);
    }
}

/* 4 blocks: 64 registers, of which 60 are used; left to itself ptxas spills for a fifth. */
extern "C" __global__ void __launch_bounds__(NT_EMBED_BWD_THREADS, 4) nt_embed_bwd(const struct nt_embed_bwd_args a) {
    nt_launch_begin();
    __shared__ uint32_t masks[2 * NT_MAX_WARPS];
    const int32_t id = a.ids[blockIdx.x];
    const int64_t row = (int64_t)id - a.first;
    if (row < 0 || row >= a.n_rows || came_before(a.ids, blockIdx.x, id)) return;
    if (a.d_model % 4 == 0)
        add_tokens<true>(&a, row, masks);
    else
        add_tokens<false>(&a, row, masks);
}

/* ---- scatter ---- */

/* How many of the n ascending rows are below `row`, in all lanes: 32 are compared at a time. */
NT_DEVICE int32_t rows_below(const int32_t *rows, int32_t n, int32_t row) {
    int32_t low = 0, high = n; /* the answer is one of these or between them */
    while (low < high) {
        const int32_t step = (high - low + NT_WARP - 1) / NT_WARP, at = low + nt_lane() * step;
        const int32_t below = __popc(__ballot_sync(NT_ALL_LANES, at < high && rows[at] < row));
        high = min(high, low + below * step);
        if (below > 0) low += (below - 1) * step + 1;
    }
    return low;
}

extern "C" __global__ void __launch_bounds__(NT_GATHER_THREADS) nt_scatter(const struct nt_scatter_args a) {
    nt_launch_begin();
    const int64_t begin = (int64_t)blockIdx.y * NT_GATHER_PIECE;
    const int64_t end = begin + NT_GATHER_PIECE < a.bytes ? begin + NT_GATHER_PIECE : a.bytes;
    const int32_t row = (int32_t)blockIdx.x, i = rows_below(a.rows, a.n_rows, row);
    const char *from = i < a.n_rows && a.rows[i] == row ? (const char *)a.from + i * a.bytes : NULL;
    nt_copy_piece((char *)a.to + row * a.bytes, from, begin, end, a.bytes % 16 == 0);
}

/* ---- dropout ---- */

/* Columns c .. c + 3 of row t: what is kept of x, or y with that added. */
template <bool ADD, bool WIDE>
NT_DEVICE void drop_quad(const struct nt_dropout_args *a, int64_t t, int32_t c, float f) {
    const int32_t left = a->n_col - c;
    const int64_t x_at = t * a->ldx + c, y_at = t * a->ldy + c;
    float4 x, y = make_float4(0, 0, 0, 0);
    if (ADD) {
        x = nt_load_quad<WIDE>((const float *)a->x + x_at, left);
        y = nt_load_quad<WIDE>((const float *)a->y + y_at, left);
    } else {
        x = nt_load_quad_bf16<WIDE>((const nt_bf16 *)a->x + x_at, left);
    }
    const uint4 w = nt_dev_philox(a->seed, a->stream[t], (uint64_t)(a->first + c) / 4);
    const uint32_t word[4] = {w.x, w.y, w.z, w.w};
    const float from[4] = {x.x, x.y, x.z, x.w};
    float v[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        if (!(nt_dev_unit_float(word[i]) >= a->p)) continue;
        const float kept = __fmul_rn(from[i], f);
        v[i] = ADD ? __fadd_rn(v[i], kept) : kept;
    }
    y = make_float4(v[0], v[1], v[2], v[3]);
    if (ADD)
        nt_store_quad<WIDE>((float *)a->y + y_at, left, y);
    else
        nt_store_quad_bf16<WIDE>((nt_bf16 *)a->y + y_at, left, y);
}

extern "C" __global__ void __launch_bounds__(NT_WARP *NT_DROPOUT_WARPS) nt_dropout(const struct nt_dropout_args a) {
    nt_launch_begin();
    const int32_t pieces = (a.n_col + NT_DROPOUT_PIECE - 1) / NT_DROPOUT_PIECE;
    const int64_t piece = (int64_t)blockIdx.x * NT_DROPOUT_WARPS + nt_warp(), t = piece / pieces;
    const int32_t c = (int32_t)(piece - t * pieces) * NT_DROPOUT_PIECE + 4 * nt_lane();
    if (t >= a.n_row || c >= a.n_col) return;
    const float f = __fdiv_rn(1.0f, __fsub_rn(1.0f, a.p));
    const int64_t bytes = a.add ? sizeof(float) : sizeof(nt_bf16);
    const bool wide = a.n_col % 4 == 0 && nt_rows_aligned(a.x, a.ldx, bytes) && nt_rows_aligned(a.y, a.ldy, bytes);
    if (a.add && wide)
        drop_quad<true, true>(&a, t, c, f);
    else if (a.add)
        drop_quad<true, false>(&a, t, c, f);
    else if (wide)
        drop_quad<false, true>(&a, t, c, f);
    else
        drop_quad<false, false>(&a, t, c, f);
}
