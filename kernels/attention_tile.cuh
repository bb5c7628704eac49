/* Attention of one tile of query rows over pages of the cache: what the prefill and the decode kernels share.
 *
 * FlashAttention-2 (Dao 2023) over the paged cache. Rows are (token, head of one KV head's group), so all heads of a
 * group and neighbouring tokens share every K and V read. A warp has MT * 16 rows, in the prefill kernels to itself; two
 * warps of the decode kernel share 16. A block step is one page of 64 keys, K and V separate stages of a ring of HALVES
 * buffers filled by cp.async. Shared rows are swizzled in 16-byte chunks, so that cp.async, ldmatrix and the output are
 * free of bank conflicts. Scores and state are f32, products mma m16n8k16 bf16. attention_sm90.cu copies and multiplies
 * in its own way; rows, order of sums, masks, parking and output are those here.
 * Order of sums, the same for every tile shape (that is what makes results independent of chunks and batches):
 *   score: d in steps of 16, ascending;  s = dot * scale_log2, int8: s = dot * (k_scale * scale_log2)
 *   page: m' = max(m, s), alpha = 2^(m - m'), p = 2^(s - m');  sum: per lane of a quad (keys 8n + 2t, +1), n ascending,
 *   then over the quad at the end of a split;  o = alpha o + sum of bf16(p) v, keys in steps of 16, ascending
 *   int8: bf16(p * v_scale) for bf16(p), 0 where p is 0
 *   split: every NT_ATTN_SPLIT positions a new (m, sum, o); nt_attn_merge in ascending order
 *   out = bf16(o * (1 / sum))
 * Invisible keys have s = -inf, p = +0, and adding +0 * v is exact unless v is not finite. Slots no row of the tile
 * sees are zero-filled on the way in; a page whose rows see different keys is searched for NaN and Inf first and, when
 * one is there, its finite values are added first and the others one by one to the rows that see them.
 * int8: values enter products as 64ths (cuda_int8.cuh), which the factor of the scores and the end of a split give
 * back: powers of two, exact above 2^-100. The 4 values of a lane in an 8 x 16 byte ldmatrix stand for d = 4t .. 4t+3
 * of a k step, so q's pairs are exchanged to match on the way into shared memory; in V they are 2 keys x 2 columns, so
 * columns of the two output tiles of 16 columns are the even and the odd ones. */
#ifndef NT_ATTENTION_TILE_CUH
#define NT_ATTENTION_TILE_CUH

#include "attention_cuda.h"
#include "cuda_common.cuh"
#include "cuda_int8.cuh"
#include "ptx.cuh"

static_assert(NT_KV_PAGE == 64, "a page is 4 k steps of P V and 8 n tiles of the scores");
static_assert(NT_ATTN_SPLIT % NT_KV_PAGE == 0, "a page lies in one split");

/* ---- order of sums, shared with nt_attention_merge ---- */

NT_DEVICE float nt_attn_base(float max) {
    return max == -NT_INF ? 0.0f : max; /* all scores -inf: 2^(-inf - 0), not 2^(-inf + inf) */
}
/* Factors that bring the older part (max *m) and the newer part (max m1) to a common maximum, left in *m. */
NT_DEVICE void nt_attn_merge_factors(float *m, float m1, float *older, float *newer) {
    const float max = fmaxf(*m, m1), base = nt_attn_base(max);
    *older = nt_exp2(__fsub_rn(*m, base));
    *newer = nt_exp2(__fsub_rn(m1, base));
    *m = max;
}
NT_DEVICE float nt_attn_merge(float x, float older, float x1, float newer) {
    return __fmaf_rn(x, older, __fmul_rn(x1, newer));
}
NT_DEVICE float nt_attn_inverse(float sum) {
    return __frcp_rn(sum);
}

NT_DEVICE float nt_attn_lse(float max, float sum) {
    return sum > 0 ? nt_attn_base(max) + log2f(sum) : __uint_as_float(0x7fc00000u);
}

/* ---- which rows ---- */

struct nt_attn_tile {
    int32_t kv, head0, group; /* KV head and its query heads */
    int32_t row0, n_row;      /* rows of the tile among the n_q * group of sequence and KV head */
    int32_t q_row, n_q, pos0; /* of the sequence */
    const int32_t *pages;
};

/* Tile `index` of a sequence: its KV heads in order, each cut into tiles of `rows` rows. tok >= 0: of the rows of that
 * token alone. False: there is none. Called by whole warps. */
NT_DEVICE bool nt_attn_find_tile(const struct nt_attn_launch &a, int32_t seq, int32_t tok, int32_t index, int32_t rows,
                                 struct nt_attn_tile *t) {
    const struct nt_attn_seq *s = a.seqs + seq;
    t->n_q = s->n_q;
    if (t->n_q < a.min_q || t->n_q > a.max_q || tok >= t->n_q) return false;
    for (int32_t head = 0; head < a.n_head;) {
        int32_t kv = -1, group = 0;
        for (uint32_t same = NT_ALL_LANES; same == NT_ALL_LANES;) {
            const int32_t h = head + group + nt_lane(), mine = h < a.n_head ? a.kv_of_head[h] : -1;
            if (group == 0) kv = __shfl_sync(NT_ALL_LANES, mine, 0);
            same = __ballot_sync(NT_ALL_LANES, mine == kv);
            group += __popc(same);
        }
        const int32_t n_row = tok < 0 ? t->n_q * group : group, n_tile = (n_row + rows - 1) / rows;
        if (index < n_tile) {
            t->kv = kv;
            t->head0 = head;
            t->group = group;
            t->row0 = index * rows + (tok < 0 ? 0 : tok * group);
            t->n_row = min(rows, n_row - index * rows);
            t->q_row = s->q_row;
            t->pos0 = s->pos0;
            t->pages = s->pages;
            return true;
        }
        index -= n_tile;
        head += group;
    }
    return false;
}

/* Head and group of a KV head; group 0: nobody reads it. Called by whole warps. */
NT_DEVICE void nt_attn_find_group(const struct nt_attn_launch &a, int32_t kv, struct nt_attn_tile *t) {
    t->kv = kv;
    t->head0 = t->group = 0;
    for (int32_t h0 = 0; h0 < a.n_head; h0 += NT_WARP) {
        const int32_t h = h0 + nt_lane();
        const uint32_t same = __ballot_sync(NT_ALL_LANES, h < a.n_head && a.kv_of_head[min(h, a.n_head - 1)] == kv);
        if (same && t->group == 0) t->head0 = h0 + __ffs((int)same) - 1;
        t->group += __popc(same);
    }
}

/* The tiles of all tokens of a sequence with the longest first: the last tile of each KV head, then those before them.
 * Blocks start in their order, and a long one that starts last is waited for by the whole device. False: the KV head has
 * no tile so far from its end. Called by whole warps. */
NT_DEVICE bool nt_attn_find_longest(const struct nt_attn_launch &a, int32_t seq, int32_t index, int32_t rows,
                                    struct nt_attn_tile *t) {
    const struct nt_attn_seq *s = a.seqs + seq;
    t->n_q = s->n_q;
    if (t->n_q < a.min_q || t->n_q > a.max_q) return false;
    nt_attn_find_group(a, index % a.n_kv, t);
    const int32_t n_row = t->n_q * t->group;
    t->row0 = ((n_row + rows - 1) / rows - 1 - index / a.n_kv) * rows;
    if (t->row0 < 0) return false;
    t->n_row = min(rows, n_row - t->row0);
    t->q_row = s->q_row;
    t->pos0 = s->pos0;
    t->pages = s->pages;
    return true;
}

/* Positions some row of a run of rows sees: the first and last token's bounds. Row r is of the tile. */
struct nt_attn_bounds {
    int32_t first_lo, first_hi, last_lo, last_hi; /* first and last visible position, of the first and last token */
};
NT_DEVICE struct nt_attn_bounds nt_attn_bounds_of(const struct nt_attn_launch &a, const struct nt_attn_tile &t,
                                                  int32_t r_lo, int32_t r_hi) {
    struct nt_attn_bounds b;
    b.last_lo = t.pos0 + (t.row0 + r_lo) / t.group;
    b.last_hi = t.pos0 + (t.row0 + r_hi) / t.group;
    b.first_lo = max(b.last_lo - a.span, 0);
    b.first_hi = max(b.last_hi - a.span, 0);
    return b;
}

/* ---- shared memory ---- */

/* Byte offset of 16-byte chunk `chunk` ^ `bit` of a row. The chunk's low bits are exchanged with the row's, so that 8
 * rows at one chunk, and 8 neighbouring chunks, lie in 8 different bank groups. A constant (even) chunk and a lane's
 * bit are taken apart: few addresses differ by more than an immediate, which saves registers. */
template <int ROW_BYTES> NT_DEVICE uint32_t nt_attn_at(int32_t row, int32_t chunk, int32_t bit) {
    constexpr int n = ROW_BYTES / 16, mask = n % 8 == 0 ? 7 : n % 4 == 0 ? 3 : 1;
    constexpr int shift = mask == 7 ? 0 : mask == 3 ? 1 : 2;
    static_assert(ROW_BYTES % 32 == 0, "the swizzle exchanges pairs of chunks at least");
    return (uint32_t)(row * ROW_BYTES + (((((row >> shift) & mask) ^ bit) ^ (chunk & mask)) << 4) +
                      (chunk & ~mask) * 16);
}

/* The same in a page. BOXES: in boxes of 64 columns one after the other, as tensor maps and wgmma have them. */
template <int ROW_BYTES, bool BOXES> NT_DEVICE uint32_t nt_attn_page_at(int32_t row, int32_t chunk, int32_t bit) {
    if (!BOXES) return nt_attn_at<ROW_BYTES>(row, chunk, bit);
    return (uint32_t)(chunk / 8 * NT_ATTN_BOX) + nt_attn_at<128>(row, chunk % 8, bit);
}

/* K or V of one page and KV head into a buffer by thread `thread` of THREADS, rows outside [lo, hi] and columns from
 * d_pad on as zeros. */
template <int D, bool INT8, int THREADS, bool BOXES = false>
NT_DEVICE void nt_attn_copy_half(const struct nt_attn_launch &a, const unsigned char *head, bool v, int32_t lo,
                                 int32_t hi, uint32_t to, int32_t thread) {
    constexpr int row_bytes = INT8 ? D : 2 * D, chunks = row_bytes / 16, all = NT_KV_PAGE * chunks;
    static_assert(all % THREADS == 0, "every thread copies the same number of chunks");
    const int32_t bytes = INT8 ? a.d_pad : 2 * a.d_pad;
    const unsigned char *from = head + (v ? NT_KV_PAGE * bytes : 0);
#pragma unroll 2
    for (int i = 0; i < all / THREADS; i++) {
        const int32_t at = thread + i * THREADS, row = at / chunks, chunk = at % chunks;
        const bool there = row >= lo && row <= hi && chunk * 16 < bytes;
        nt_cp_async_16_zfill(to + nt_attn_page_at<row_bytes, BOXES>(row, chunk, 0),
                             from + (there ? row * bytes + chunk * 16 : 0), there ? 16 : 0);
    }
}

/* The same of a page seen whole, d_pad being D: one instruction a chunk, as the addresses differ by constants. */
template <int D, bool INT8, int THREADS>
NT_DEVICE void nt_attn_copy_whole_half(const unsigned char *head, bool v, uint32_t to) {
    constexpr int chunks = (INT8 ? D : 2 * D) / 16, all = NT_KV_PAGE * chunks;
    constexpr int eight = 8 * chunks; /* the swizzle begins anew every 8 rows: after `turn` chunks of a thread */
    constexpr int turn = eight % THREADS == 0 ? eight / THREADS : THREADS % eight == 0 ? 1 : 3;
    static_assert(turn * THREADS % eight == 0 && all % THREADS == 0, "a multiple of 8 rows, and of the threads");
    const unsigned char *from = head + ((v ? all : 0) + (int32_t)threadIdx.x) * 16;
#pragma unroll
    for (int i = 0; i < all / THREADS; i++) {
        const int32_t at = (int32_t)threadIdx.x + i % turn * THREADS;
        nt_cp_async_16(to + nt_attn_at<16 * chunks>(at / chunks, at % chunks, 0) + i / turn * turn * THREADS * 16,
                       from + i * THREADS * 16);
    }
}

/* int8: scales behind the values, four at a time: those of slots nobody sees may be anything, as their scores are
 * masked and their p is 0. */
NT_DEVICE void nt_attn_copy_scales(const unsigned char *from, int32_t bytes, int32_t hi, uint32_t to) {
    const int32_t at = 16 * (int32_t)threadIdx.x;
    const bool there = at / 4 % NT_KV_PAGE <= hi;
    if (at < bytes) nt_cp_async_16_zfill(to + at, from + (there ? at : 0), there ? 16 : 0);
}

/* q of the tile's rows into swizzled rows of 2 D bytes; rows past the tile and columns past d_pad are zero. */
template <int D, bool INT8, int ROWS, int THREADS>
NT_DEVICE void nt_attn_load_q(const struct nt_attn_launch &a, const struct nt_attn_tile &t, unsigned char *to) {
    constexpr int chunks = D / 8, all = ROWS * chunks;
    static_assert(all % THREADS == 0, "every lane takes part in the exchange");
#pragma unroll 2
    for (int i = 0; i < all / THREADS; i++) {
        const int32_t at = (int32_t)threadIdx.x + i * THREADS, row = at / chunks, chunk = at % chunks;
        uint4 x = make_uint4(0, 0, 0, 0);
        if (row < t.n_row && chunk * 8 < a.d_pad) {
            const int32_t r = t.row0 + row, tok = r / t.group, head = t.head0 + r % t.group;
            x = nt_load128(a.q + ((int64_t)(t.q_row + tok) * a.n_head + head) * a.d_pad + chunk * 8);
        }
        if (INT8) { /* columns 2t, 2t + 1, 2t + 8, 2t + 9 of a k step stand for 4t .. 4t + 3: words 0 2 4 6, 1 3 5 7 */
            const bool odd = chunk & 1;
            const uint32_t y = __shfl_xor_sync(NT_ALL_LANES, odd ? x.x : x.y, 1);
            const uint32_t z = __shfl_xor_sync(NT_ALL_LANES, odd ? x.z : x.w, 1);
            x = odd ? make_uint4(y, z, x.y, x.w) : make_uint4(x.x, x.z, y, z);
        }
        nt_store128(to + nt_attn_at<2 * D>(row, chunk, 0), x);
    }
}

/* ---- fragments ---- */

/* A warp's rows: MT tiles of 16, and COLS columns of their result; row i of a thread is row 16 (i / 2) + 8 (i % 2) +
 * lane / 4 of the warp. int8: o is 1/64 until a split ends. */
template <int COLS, int MT> struct nt_attn_rows {
    float o[MT][COLS / 8][4];
    float max[2 * MT], sum[2 * MT]; /* sum: this lane's share */
};

template <int MT, int NT> NT_DEVICE void nt_attn_clear(float s[MT][NT][4]) {
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) s[m][n][e] = 0;
}
template <int COLS, int MT> NT_DEVICE void nt_attn_reset(struct nt_attn_rows<COLS, MT> &st) {
    nt_attn_clear<MT, COLS / 8>(st.o);
#pragma unroll
    for (int i = 0; i < 2 * MT; i++) {
        st.max[i] = -NT_INF;
        st.sum[i] = 0;
    }
}

/* A fragments of a warp's rows for k step ks. q: shared address of the rows. */
template <int D, int MT> NT_DEVICE void nt_attn_load_rows(uint32_t q, int ks, uint32_t qa[MT][4]) {
    const int32_t lane = nt_lane(), row = (lane & 7) + 8 * ((lane >> 3) & 1);
#pragma unroll
    for (int m = 0; m < MT; m++) nt_ldmatrix_x4(qa[m], q + nt_attn_at<2 * D>(16 * m + row, 2 * ks, lane >> 4));
}

/* A k step of s += q k^T, for 8 NT keys. int8: of q k^T / 64. */
template <int D, int MT, bool INT8, int NT>
NT_DEVICE void nt_attn_dots_step(const uint32_t qa[MT][4], uint32_t k, int ks, float s[MT][NT][4]) {
    const int32_t lane = nt_lane(), r8 = lane & 7, b3 = (lane >> 3) & 1, b4 = lane >> 4;
    constexpr int tiles = INT8 ? 4 : 2; /* n tiles per ldmatrix of K */
#pragma unroll
    for (int n = 0; n < NT; n += tiles) {
        uint32_t b[4];
        if (INT8)
            nt_ldmatrix_x4(b, k + nt_attn_at<D>(8 * n + lane, ks, 0));
        else
            nt_ldmatrix_x4(b, k + nt_attn_at<2 * D>(8 * n + r8 + 8 * b4, 2 * ks, b3));
#pragma unroll
        for (int i = 0; i < tiles; i++) {
            const uint32_t bytes = nt_int8_biased(b[i]);
            const uint32_t b0 = INT8 ? nt_int8_64ths(bytes, 0x4140) : b[2 * i % 4];
            const uint32_t b1 = INT8 ? nt_int8_64ths(bytes, 0x4342) : b[2 * i % 4 + 1];
#pragma unroll
            for (int m = 0; m < MT; m++) nt_mma_bf16(s[m][n + i], qa[m], b0, b1);
        }
    }
}

/* s = q k^T for the page, or 8 NT keys, unscaled; int8: / 64. q: shared address of the warp's rows. */
template <int D, int MT, bool INT8, int NT = 8>
NT_DEVICE void nt_attn_dots(uint32_t q, uint32_t k, float s[MT][NT][4]) {
    nt_attn_clear<MT, NT>(s);
#pragma unroll(D *MT >= 192 ? 2 : D / 16)
    for (int ks = 0; ks < D / 16; ks++) {
        uint32_t qa[MT][4];
        nt_attn_load_rows<D, MT>(q, ks, qa);
        nt_attn_dots_step<D, MT, INT8, NT>(qa, k, ks, s);
    }
}

/* Scores in units of log2: times scale, and times each key's own scale for int8. */
template <int MT, bool INT8, int NT>
NT_DEVICE void nt_attn_scale(float s[MT][NT][4], float scale_log2, const float *k_scale) {
    if (INT8) scale_log2 = __fmul_rn(64, scale_log2);
#pragma unroll
    for (int n = 0; n < NT; n++) {
        float c[2] = {scale_log2, scale_log2};
        if (INT8) {
            const float2 k = *(const float2 *)(k_scale + 8 * n + 2 * (nt_lane() & 3));
            c[0] = __fmul_rn(k.x, scale_log2);
            c[1] = __fmul_rn(k.y, scale_log2);
        }
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int e = 0; e < 4; e++) s[m][n][e] = __fmul_rn(s[m][n][e], c[e & 1]);
    }
}

/* Last visible position of the thread's rows, -1: no row. Recomputed where it is needed: registers are scarce. */
template <int MT> NT_DEVICE void nt_attn_last(const struct nt_attn_tile &t, int32_t warp_row, int32_t last[2 * MT]) {
#pragma unroll
    for (int i = 0; i < 2 * MT; i++) {
        const int32_t r = warp_row + 8 * i + nt_lane() / 4;
        last[i] = r < t.n_row ? t.pos0 + (t.row0 + r) / t.group : -1;
    }
}

/* -inf where a row does not see the key. last: the rows' last visible positions; base: position of the first key. */
template <int MT, int NT>
NT_DEVICE void nt_attn_mask(float s[MT][NT][4], const int32_t last[2 * MT], int32_t base, int32_t span) {
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int n = 0; n < NT; n++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int32_t back = last[2 * m + e / 2] - base - (8 * n + 2 * (nt_lane() & 3) + (e & 1));
                if (back < 0 || back > span) s[m][n][e] = -NT_INF;
            }
}

/* The page's block of the online softmax: s becomes p, maxima and sums become those with the page; alpha: what the
 * accumulators are to be multiplied with. False: all of that is 1, or the row is still zero. The first EIGHTS groups of
 * 8 rows alone. */
template <int COLS, int MT, int EIGHTS = 2 * MT>
NT_DEVICE bool nt_attn_weigh(struct nt_attn_rows<COLS, MT> &st, float s[MT][8][4], float *alpha) {
    bool moved = false;
#pragma unroll
    for (int i = 0; i < EIGHTS; i++) {
        float max = st.max[i];
#pragma unroll
        for (int n = 0; n < 8; n++) max = fmaxf(max, fmaxf(s[i / 2][n][2 * (i & 1)], s[i / 2][n][2 * (i & 1) + 1]));
        max = fmaxf(max, __shfl_xor_sync(NT_ALL_LANES, max, 1));
        max = fmaxf(max, __shfl_xor_sync(NT_ALL_LANES, max, 2));
        const float base = nt_attn_base(max);
        alpha[i] = nt_exp2(__fsub_rn(st.max[i], base));
        moved |= max != st.max[i];
        st.max[i] = max;
        float sum = 0;
#pragma unroll
        for (int n = 0; n < 8; n++)
#pragma unroll
            for (int e = 2 * (i & 1); e < 2 * (i & 1) + 2; e++) {
                s[i / 2][n][e] = nt_exp2(__fsub_rn(s[i / 2][n][e], base));
                sum = __fadd_rn(sum, s[i / 2][n][e]);
            }
        st.sum[i] = __fmaf_rn(st.sum[i], alpha[i], sum);
    }
    return __any_sync(NT_ALL_LANES, moved);
}

template <int COLS, int MT, int EIGHTS = 2 * MT>
NT_DEVICE void nt_attn_bring_along(struct nt_attn_rows<COLS, MT> &st, const float *alpha) {
#pragma unroll
    for (int i = 0; i < EIGHTS; i++)
#pragma unroll
        for (int n = 0; n < COLS / 8; n++)
#pragma unroll
            for (int e = 2 * (i & 1); e < 2 * (i & 1) + 2; e++)
                st.o[i / 2][n][e] = __fmul_rn(st.o[i / 2][n][e], alpha[i]);
}

/* Both, where no product is under way. */
template <int COLS, int MT, int EIGHTS = 2 * MT>
NT_DEVICE void nt_attn_softmax(struct nt_attn_rows<COLS, MT> &st, float s[MT][8][4]) {
    float alpha[EIGHTS];
    if (nt_attn_weigh<COLS, MT, EIGHTS>(st, s, alpha)) nt_attn_bring_along<COLS, MT, EIGHTS>(st, alpha);
}

/* A fragments of bf16(p) for the 4 k steps; rows past EIGHTS groups of 8 are zero. */
template <int MT, bool INT8, int EIGHTS = 2 * MT>
NT_DEVICE void nt_attn_probabilities(const float s[MT][8][4], const float *v_scale, uint32_t p[MT][4][4]) {
#pragma unroll
    for (int n = 0; n < 8; n++) {
        float2 v = make_float2(1.0f, 1.0f);
        if (INT8) v = *(const float2 *)(v_scale + 8 * n + 2 * (nt_lane() & 3));
#pragma unroll
        for (int i = 0; i < 2 * MT; i++) {
            float x = s[i / 2][n][2 * (i & 1)], y = s[i / 2][n][2 * (i & 1) + 1];
            if (INT8) {
                x = x == 0.0f ? 0.0f : __fmul_rn(x, v.x);
                y = y == 0.0f ? 0.0f : __fmul_rn(y, v.y);
            }
            p[i / 2][n / 2][2 * (n & 1) + (i & 1)] = i < EIGHTS ? nt_bf16_pack(x, y) : 0;
        }
    }
}

/* A pair of bf16 with NaN and Inf taken as 0. */
NT_DEVICE uint32_t nt_attn_clean_pair(uint32_t w) {
    const uint32_t carry = (w & 0x7f807f80u) + 0x00800080u;
    return w & ~((carry & 0x00008000u ? 0x0000ffffu : 0) | (carry & 0x80000000u ? 0xffff0000u : 0));
}

/* Shared address of the x4 transposed load that gives V of keys 16 kk .. +15 and columns 16 j .. +15 (int8: .. +31). */
template <int D, bool INT8, bool BOXES = false> NT_DEVICE uint32_t nt_attn_v_address(uint32_t v, int kk, int j) {
    const int32_t lane = nt_lane(), row = 16 * kk + (lane & 7) + 8 * ((lane >> 3) & 1);
    return INT8 ? v + nt_attn_at<D>(row, j, lane >> 4) : v + nt_attn_page_at<2 * D, BOXES>(row, 2 * j, lane >> 4);
}

/* o += p v for COLS columns from col0 on. CLEAN: NaN and Inf in V (bf16) count as 0. */
template <int D, int COLS, int MT, bool INT8, bool CLEAN, bool BOXES = false>
NT_DEVICE void nt_attn_add_values(struct nt_attn_rows<COLS, MT> &st, uint32_t v, int32_t col0,
                                  const uint32_t p[MT][4][4]) {
#pragma unroll
    for (int kk = 0; kk < 4; kk++) {
        if (CLEAN) __syncwarp(); /* rare: keeps the loads of all steps from being moved to the front */
#pragma unroll
        for (int j = 0; j < COLS / 16; j += INT8 ? 2 : 1) {
            if (D % COLS != 0 && col0 + 16 * j >= D) continue;
            uint32_t b[4];
            nt_ldmatrix_x4_trans(b, nt_attn_v_address<D, INT8, BOXES>(v, kk, col0 / 16 + j));
            if (CLEAN) {
#pragma unroll
                for (int i = 0; i < 4; i++) b[i] = nt_attn_clean_pair(b[i]);
            }
            if constexpr (INT8) {
#pragma unroll
                for (int i = 0; i < 4; i++) b[i] = nt_int8_biased(b[i]);
#pragma unroll
                for (int i = 0; i < 4; i++) { /* columns 16 (j + i / 2), the even or the odd ones */
                    const uint32_t pick = i % 2 ? 0x4341 : 0x4240;
                    const uint32_t b0 = nt_int8_64ths(b[i & 2], pick);
                    const uint32_t b1 = nt_int8_64ths(b[(i & 2) + 1], pick);
#pragma unroll
                    for (int m = 0; m < MT; m++) nt_mma_bf16(st.o[m][2 * j + i], p[m][kk], b0, b1);
                }
            } else {
#pragma unroll
                for (int m = 0; m < MT; m++) {
                    nt_mma_bf16(st.o[m][2 * j], p[m][kk], b[0], b[1]);
                    nt_mma_bf16(st.o[m][2 * j + 1], p[m][kk], b[2], b[3]);
                }
            }
        }
    }
}

/* ---- ends of splits ---- */

NT_DEVICE float nt_attn_quad_sum(float x) {
    x = __fadd_rn(x, __shfl_xor_sync(NT_ALL_LANES, x, 1));
    return __fadd_rn(x, __shfl_xor_sync(NT_ALL_LANES, x, 2));
}

/* A split is over: this lane's share of the sums becomes the row's, and o is whole. */
template <int COLS, int MT, bool INT8> NT_DEVICE void nt_attn_close(struct nt_attn_rows<COLS, MT> &st) {
#pragma unroll
    for (int i = 0; i < 2 * MT; i++) st.sum[i] = nt_attn_quad_sum(st.sum[i]);
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int n = 0; n < COLS / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                if (INT8) st.o[m][n][e] = __fmul_rn(64, st.o[m][n][e]);
}

/* Columns a lane holds of row half h = 2 (i & 1):  bf16: o[n][h], o[n][h + 1] are columns 8n + 2t, + 1.
 * int8: o[2j][h], o[2j + 1][h], o[2j][h + 1], o[2j + 1][h + 1] are columns 16j + 4t .. + 3. */
template <int COLS, int MT, bool INT8>
NT_DEVICE void nt_attn_park(const struct nt_attn_rows<COLS, MT> &st, int i, float *to, int32_t n_col) {
    const int m = i / 2, h = 2 * (i & 1), t = nt_lane() & 3;
#pragma unroll
    for (int n = 0; n < COLS / 8; n += 2) {
        if (8 * n >= n_col) continue;
        const float *x = &st.o[m][n][h], *y = &st.o[m][n + 1][h];
        if (INT8) {
            nt_store_f4_whole(to + 8 * n + 4 * t, make_float4(x[0], y[0], x[1], y[1]));
        } else {
            *(float2 *)(to + 8 * n + 2 * t) = make_float2(x[0], x[1]);
            *(float2 *)(to + 8 * n + 8 + 2 * t) = make_float2(y[0], y[1]);
        }
    }
}

/* lse of the warp's rows. */
template <int COLS, int MT>
NT_DEVICE void nt_attn_write_lse(const struct nt_attn_launch &a, const struct nt_attn_tile &t,
                                 const struct nt_attn_rows<COLS, MT> &st, int32_t warp_row) {
#pragma unroll
    for (int i = 0; i < 2 * MT; i++) {
        const int32_t in_tile = warp_row + 8 * i + nt_lane() / 4, r = t.row0 + in_tile;
        if ((nt_lane() & 3) != 0 || in_tile >= t.n_row) continue;
        a.lse[(int64_t)(t.q_row + r / t.group) * a.n_head + t.head0 + r % t.group] = nt_attn_lse(st.max[i], st.sum[i]);
    }
}

/* bf16(o / sum) of columns from col0 on into rows of 2 D bytes, swizzled as those of q. */
template <int D, int COLS, int MT, bool INT8>
NT_DEVICE void nt_attn_stage_out(const struct nt_attn_rows<COLS, MT> &st, unsigned char *shared, int32_t col0) {
    const int32_t lane = nt_lane(), g = lane / 4, q4 = lane & 3;
#pragma unroll
    for (int i = 0; i < 2 * MT; i++) {
        const int m = i / 2, h = 2 * (i & 1), row = 8 * i + g;
        const float inverse = nt_attn_inverse(st.sum[i]);
#pragma unroll
        for (int n = 0; n < COLS / 8; n += 2) {
            const int32_t chunk = col0 / 8 + n;
            if (D % COLS != 0 && 8 * chunk >= D) continue;
            float x[4];
#pragma unroll
            for (int e = 0; e < 4; e++) x[e] = __fmul_rn(st.o[m][n + e / 2][h + e % 2], inverse);
            if (INT8) { /* rows of a swizzle pair store their two words in opposite order: no bank conflict */
                const uint32_t w0 = nt_bf16_pack(x[0], x[2]), w1 = nt_bf16_pack(x[1], x[3]);
                const int32_t odd = D % 64 == 0 ? g & 1 : (g >> 1) & 1, at = 8 * (q4 & 1);
                *(uint32_t *)(shared + nt_attn_at<2 * D>(row, chunk, q4 / 2) + at + 4 * odd) = odd ? w1 : w0;
                *(uint32_t *)(shared + nt_attn_at<2 * D>(row, chunk, q4 / 2) + at + 4 * (1 - odd)) = odd ? w0 : w1;
            } else {
                *(uint32_t *)(shared + nt_attn_at<2 * D>(row, chunk, 0) + 4 * q4) = nt_bf16_pack(x[0], x[1]);
                *(uint32_t *)(shared + nt_attn_at<2 * D>(row, chunk, 1) + 4 * q4) = nt_bf16_pack(x[2], x[3]);
            }
        }
    }
}

/* Rows that stand there leave in 16-byte pieces, by thread `thread` of THREADS. r0: the number of the first one in
 * sequence and KV head. */
template <int D, int THREADS>
NT_DEVICE void nt_attn_send_out(const struct nt_attn_launch &a, const struct nt_attn_tile &t,
                                const unsigned char *shared, int32_t r0, int32_t rows, int32_t thread) {
    const bool wide = a.d_head % 8 == 0 && a.ldo % 8 == 0 && nt_is_aligned16(a.out);
    const int32_t piece = wide ? 8 : 1, per_row = a.d_head / piece;
    for (int32_t at = thread; at < rows * per_row; at += THREADS) {
        const int32_t row = at / per_row, col = at % per_row * piece, r = r0 + row;
        nt_bf16 *out = a.out + (int64_t)(t.q_row + r / t.group) * a.ldo + (t.head0 + r % t.group) * a.d_head + col;
        const unsigned char *from = shared + nt_attn_at<2 * D>(row, col / 8, 0) + 2 * (col % 8);
        if (wide)
            nt_store128(out, nt_load128(from));
        else
            *out = *(const nt_bf16 *)from;
    }
}

/* ---- the ring ---- */

/* Page numbers [first, first + 32) are in the lanes; none after `last` is read. */
struct nt_attn_page_list {
    int32_t first, last, mine;
};
NT_DEVICE int64_t nt_attn_page_number(struct nt_attn_page_list &list, const int32_t *pages, int32_t page) {
    if (page >= list.first + NT_WARP) {
        list.first = page;
        list.mine = pages[min(page + nt_lane(), list.last)];
    }
    return __shfl_sync(NT_ALL_LANES, list.mine, page - list.first);
}

/* Buffers of one half each, K or V of a page, which the block's threads fill and use in order: K and V of page0, K and
 * V of the next one, ... up to page1. int8: both scales come with K, or APART with what they scale. */
template <int D, bool INT8, int THREADS, int HALVES, bool APART> struct nt_attn_ring {
    static constexpr int values = NT_KV_PAGE * (INT8 ? D : 2 * D), scales = INT8 ? NT_ATTN_SCALES / (1 + APART) : 0;
    static constexpr int half = values + scales;
    unsigned char *buffers;
    int32_t page0, page1, issued, issue_slot, use_slot;
    struct nt_attn_page_list list;
};

/* lo, hi: first and last position that some row sees. */
template <int D, bool INT8, int THREADS, int HALVES, bool APART>
NT_DEVICE void nt_attn_issue(struct nt_attn_ring<D, INT8, THREADS, HALVES, APART> &r, const struct nt_attn_launch &a,
                             const struct nt_attn_tile &t, int32_t lo, int32_t hi) {
    const int32_t page = r.page0 + r.issued / 2;
    const bool v = r.issued & 1;
    if (page <= r.page1) {
        const int64_t number = nt_attn_page_number(r.list, t.pages, page);
        const unsigned char *head = a.cache + number * a.page_bytes + t.kv * a.head_bytes;
        const uint32_t to = nt_shared_address(r.buffers) + (uint32_t)(r.issue_slot * r.half);
        lo -= page * NT_KV_PAGE, hi -= page * NT_KV_PAGE;
        if (lo <= 0 && hi >= NT_KV_PAGE - 1 && a.d_pad == D)
            nt_attn_copy_whole_half<D, INT8, THREADS>(head, v, to);
        else
            nt_attn_copy_half<D, INT8, THREADS>(a, head, v, lo, hi, to, (int32_t)threadIdx.x);
        if (INT8 && (APART || !v))
            nt_attn_copy_scales(head + 2 * NT_KV_PAGE * a.d_pad + (v ? r.scales : 0), r.scales, hi, to + r.values);
    }
    nt_cp_async_commit();
    r.issued++;
    r.issue_slot = r.issue_slot + 1 == HALVES ? 0 : r.issue_slot + 1;
}

/* Its first halves are under way. */
template <int D, bool INT8, int THREADS, int HALVES, bool APART>
NT_DEVICE void nt_attn_begin(struct nt_attn_ring<D, INT8, THREADS, HALVES, APART> &r, const struct nt_attn_launch &a,
                             const struct nt_attn_tile &t, unsigned char *buffers, int32_t page0, int32_t page1,
                             int32_t lo, int32_t hi) {
    r.buffers = buffers;
    r.page0 = page0, r.page1 = page1;
    r.issued = r.issue_slot = 0, r.use_slot = -1;
    r.list = {page0 - NT_WARP, page1, 0};
#pragma unroll 1
    for (int i = 0; i < HALVES - 1; i++) nt_attn_issue(r, a, t, lo, hi);
}

/* The next half, which has arrived for every thread; the one used before it makes room for that HALVES - 1 ahead. A
 * barrier of the block: what was written before is visible. */
template <int D, bool INT8, int THREADS, int HALVES, bool APART>
NT_DEVICE const unsigned char *nt_attn_next(struct nt_attn_ring<D, INT8, THREADS, HALVES, APART> &r,
                                            const struct nt_attn_launch &a, const struct nt_attn_tile &t, int32_t lo,
                                            int32_t hi) {
    nt_cp_async_wait<HALVES - 2>();
    __syncthreads();
    nt_attn_issue(r, a, t, lo, hi);
    r.use_slot = r.use_slot + 1 == HALVES ? 0 : r.use_slot + 1;
    return r.buffers + r.use_slot * r.half;
}

/* ---- what a block and its warps know ---- */

/* In shared memory, read where needed: registers are for the accumulators. */
struct nt_attn_block_info {
    struct nt_attn_tile tile;
    struct nt_attn_bounds all, part[NT_ATTN_PREFILL_WARPS]; /* of the tile's rows, of each warp's or warpgroup's */
};
static_assert(sizeof(struct nt_attn_block_info) <= NT_ATTN_TILE_BYTES, "fits its place");

/* Thread 0 and the first thread of each part of the block's threads, which has `rows` rows, write what is read later. */
NT_DEVICE void nt_attn_publish(const struct nt_attn_launch &a, const struct nt_attn_tile &found, int32_t threads,
                               int32_t rows, struct nt_attn_block_info &info) {
    const int32_t part = (int32_t)threadIdx.x / threads, first = part * rows;
    if (threadIdx.x == 0) {
        info.tile = found;
        info.all = nt_attn_bounds_of(a, found, 0, found.n_row - 1);
    }
    if ((int32_t)threadIdx.x % threads == 0)
        info.part[part] = nt_attn_bounds_of(a, found, first, max(min(found.n_row, first + rows) - 1, first));
}

#endif
