/* What becomes of the sums of the vocabulary head: the best (value, index) of each row of a tile, plain or with Gumbel
 * noise. Shared by head.cu and head_sm90.cu; spec: ops.h.
 *
 * A thread brings what mma and wgmma leave it of one row: of every 8 tokens two neighbours (fragment layout: ptx.cuh).
 * The best of the thread's tokens, then of the quad of lanes that holds the row. A pair of neighbours has one call of
 * Philox but where it crosses a multiple of 4. Tokens at or after n do not take part. No state. */
#ifndef NT_HEAD_EPILOGUE_CUH
#define NT_HEAD_EPILOGUE_CUH

#include "cuda_common.cuh"
#include "head_cuda.h"

NT_DEVICE uint32_t nt_head_word(uint4 w, uint32_t which) {
    return which & 2 ? (which & 1 ? w.w : w.z) : (which & 1 ? w.y : w.x);
}

NT_DEVICE void nt_head_offer(struct nt_best *best, float value, int32_t v, int32_t n) {
    if (v >= n || !nt_dev_better(value, v, best->value, best->index)) return;
    best->value = value;
    best->index = v;
}

/* The best of this thread's tokens of a row: v[2 i], v[2 i + 1] are tokens v0 + 8 i, + 1. */
template <int N>
NT_DEVICE struct nt_best nt_head_of_thread(const struct nt_head_cuda *a, const float v[2 * N], int32_t row, int32_t v0) {
    struct nt_best best = nt_best_none();
    if (row >= a->g.n_tok) return best;
    const float inv_temp = a->inv_temp ? a->inv_temp[row] : 0.0f;
    const bool drawn = inv_temp != 0.0f;
    const uint64_t seed = drawn ? a->seed[row] : 0, stream = drawn ? a->stream[row] : 0;
#pragma unroll
    for (int i = 0; i < N; i++) {
        float low = v[2 * i], high = v[2 * i + 1];
        const int32_t at = v0 + 8 * i;
        if (at >= a->g.n) break;
        if (drawn) {
            const uint64_t id = (uint64_t)((int64_t)a->first + at);
            uint4 w = nt_dev_philox(seed, stream, id >> 2);
            low = __fsub_rn(__fmul_rn(low, inv_temp), nt_dev_log_neg_log(nt_head_word(w, (uint32_t)id & 3)));
            if ((id & 3) == 3) w = nt_dev_philox(seed, stream, (id >> 2) + 1);
            high = __fsub_rn(__fmul_rn(high, inv_temp), nt_dev_log_neg_log(nt_head_word(w, (uint32_t)(id + 1) & 3)));
        }
        nt_head_offer(&best, low, at, a->g.n);
        nt_head_offer(&best, high, at + 1, a->g.n);
    }
    return best;
}

/* The same of the quad, whose lane 0 brings tokens n0 + 8 i; in all of its lanes. All lanes of the warp come. */
template <int N>
NT_DEVICE struct nt_best nt_head_of_quad(const struct nt_head_cuda *a, const float v[2 * N], int32_t row, int32_t n0) {
    struct nt_best best = nt_head_of_thread<N>(a, v, row, n0 + 2 * (nt_lane() & 3));
#pragma unroll
    for (int d = 1; d < 4; d *= 2) {
        struct nt_best other;
        other.value = __shfl_xor_sync(NT_ALL_LANES, best.value, d);
        other.index = __shfl_xor_sync(NT_ALL_LANES, best.index, d);
        best = nt_best_of(best, other);
    }
    return best;
}

NT_DEVICE void nt_head_put(const struct nt_head_cuda *a, int32_t row, int32_t col_tile, struct nt_best best) {
    const struct nt_head_pair pair = {best.value, best.index};
    a->part[(int64_t)row * a->g.col_tiles + col_tile] = pair;
}

#endif
