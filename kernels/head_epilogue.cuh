/* What becomes of the sums of the vocabulary head: the best (value, index) of each row of a tile, plain or with Gumbel
 * noise. Shared by head.cu and head_sm90.cu; spec: ops.h.
 *
 * The sums of a tile go through shared memory, where the stages were, so that a lane has four neighbouring tokens of a
 * row: one call of Philox gives all its words, and the noise of a row, some 80 instructions a token, is a loop over rows
 * that fits the instruction cache, which 64 copies of it in line do not (H200: 2.7 times the product's time). Tokens at
 * or after n do not take part. No state. */
#ifndef NT_HEAD_EPILOGUE_CUH
#define NT_HEAD_EPILOGUE_CUH

#include "cuda_lines.cuh"
#include "head_cuda.h"

static_assert(NT_HEAD_COLS == 4 * NT_WARP, "a lane has four tokens of a row: one call of Philox");

/* The random words of ids id .. id + 3. */
NT_DEVICE uint4 nt_head_words(uint64_t seed, uint64_t stream, uint64_t id) {
    const uint4 w = nt_dev_philox(seed, stream, id >> 2);
    const int32_t skip = (int32_t)(id & 3);
    if (skip == 0) return w; /* everywhere but in a shard that begins between multiples of four */
    const uint4 x = nt_dev_philox(seed, stream, (id >> 2) + 1);
    return skip == 1   ? make_uint4(w.y, w.z, w.w, x.x)
           : skip == 2 ? make_uint4(w.z, w.w, x.x, x.y)
                       : make_uint4(w.w, x.x, x.y, x.z);
}

NT_DEVICE void nt_head_offer(struct nt_best *best, float value, int32_t v, int32_t n) {
    if (v >= n || !nt_dev_better(value, v, best->value, best->index)) return;
    best->value = value;
    best->index = v;
}

NT_DEVICE float nt_head_noisy(float x, float inv_temp, uint32_t word) {
    return __fsub_rn(__fmul_rn(x, inv_temp), nt_dev_log_neg_log(word));
}

/* The best of the NT_HEAD_COLS tokens from n0 on of a row, which lie in `line`; in all lanes. Called by whole warps. */
NT_DEVICE struct nt_best nt_head_of_line(const struct nt_head_cuda *a, const float *line, int32_t row, int32_t n0) {
    const int32_t at = n0 + 4 * nt_lane();
    const float inv_temp = a->inv_temp ? a->inv_temp[row] : 0.0f;
    float4 x = *(const float4 *)(line + 4 * nt_lane());
    if (inv_temp != 0.0f) {
        const uint4 w = nt_head_words(a->seed[row], a->stream[row], (uint64_t)((int64_t)a->first + at));
        x = make_float4(nt_head_noisy(x.x, inv_temp, w.x), nt_head_noisy(x.y, inv_temp, w.y),
                        nt_head_noisy(x.z, inv_temp, w.z), nt_head_noisy(x.w, inv_temp, w.w));
    }
    struct nt_best best = nt_best_none();
    nt_head_offer(&best, x.x, at, a->g.n);
    nt_head_offer(&best, x.y, at + 1, a->g.n);
    nt_head_offer(&best, x.z, at + 2, a->g.n);
    nt_head_offer(&best, x.w, at + 3, a->g.n);
    return nt_warp_best(best);
}

/* Of `rows` lines of a tile of COLS tokens, whose first is row m0, each part becomes a pair: parts first, first + step,
 * ... by this warp. */
template <int COLS>
NT_DEVICE void nt_head_join_lines(const struct nt_head_cuda *a, const float *lines, int32_t first, int32_t step,
                                  int32_t rows, int32_t m0, int32_t col_tile) {
    enum { PARTS = COLS / NT_HEAD_COLS };
    const int32_t end = PARTS * min(rows, a->g.n_tok - m0);
#pragma unroll 2
    for (int32_t i = first; i < end; i += step) {
        const int32_t l = i / PARTS, part = col_tile * PARTS + i % PARTS;
        if (part >= a->n_part) continue;
        const struct nt_best best = nt_head_of_line(a, lines + l * NT_LINE(COLS) + i % PARTS * NT_HEAD_COLS, m0 + l,
                                                    part * NT_HEAD_COLS);
        const struct nt_head_pair pair = {best.value, best.index};
        if (nt_lane() == 0) a->part[(int64_t)(m0 + l) * a->n_part + part] = pair;
    }
}

#endif
