/* Attention of sequences with few new tokens: split over the keys, the heads of a group packed into one mma tile.
 *
 * Layout: q [n_tok, n_head, d_pad]; cache ROWS or ROWS_INT8; out [n_tok, ldo].
 * nt_attention_decode_*: block (x, y, z) is token x % max_q of sequence z, tile x / max_q (16 heads of one KV head's
 * group), over split y of NT_ATTN_SPLIT positions. Its two warps share every page: each scores half of the keys, all
 * scores go through shared memory, the softmax is done by both (so that each has every p in its fragments), and each
 * adds p V to half of the columns. The barrier at which V has arrived is the one behind which the scores are read, and
 * that of the next K the one behind which they are overwritten. A sequence inside one split is finished here; else the
 * split's (m, sum, o) goes to the workspace. nt_attention_merge: one warp per (sequence, token, head) merges the splits
 * in ascending order. Which splits exist follows from positions alone, so the order of sums does not depend on the
 * batch. Sequences and page lists are read from device memory and bounds (max_q, max_pos) only size the grid: a
 * captured graph stays valid; blocks of places without tokens or beyond a sequence's end leave at once.
 * Roofline, one token at context n: 4 n d n_kv bytes of cache (bf16; 2 n (d + 4) n_kv for int8) and 4 n d n_head FLOP:
 * n_head / n_kv FLOP a byte, memory-bound by far (A100: 150, H100: 290). An SM needs about 40 KB in flight for its
 * share of HBM; d 128: 3 blocks with 3 of 4 half pages (16 KB) under way each, int8: 6 with halves of 8 KB. What can
 * come in the way is the issue of instructions: at d 128 and up to 8 heads a group 450 a warp and page, int8 870. mma
 * does 16 rows for the group's few, 64 x 16 x 4 d FLOP a page, hidden. Workspace traffic 8 (d + 2) n_head bytes per
 * split of 1024 d n_kv ... 2048 d n_kv: below 2 % per 4 heads a group. Expected, as an H200 has it, 98 % of the copy
 * bandwidth at d 128 with 256 sequences of 1024, int8 89 %; a lone short sequence is bound by the latency of 8 pages in
 * a row (14 us): at d 128 each is 8 mma behind each other, a barrier, the softmax and 4 mma.
 * Budget: 64 threads, no spills; at d 128 registers and shared memory (228 KB an SM) for 3 blocks, int8 for 6. */
#include "attention_tile.cuh"

extern __shared__ __align__(128) unsigned char nt_attention_shared[];

/* First and last split of a sequence. */
NT_DEVICE void nt_attn_splits(const struct nt_attn_launch &a, int32_t pos0, int32_t n_q, int32_t *first,
                              int32_t *last) {
    *first = max(pos0 - a.span, 0) / NT_ATTN_SPLIT;
    *last = (pos0 + n_q - 1) / NT_ATTN_SPLIT;
}

/* ---- the block: one split of a tile of one token ---- */

/* Both warps score half of a page's keys each and weigh all of them: a warp has so many columns of V. */
template <int D, bool INT8> constexpr int nt_attn_warp_cols = INT8 ? (D + 63) / 64 * 32 : D / 2;

/* Scores of the warp's half of the keys to the block, and those of all keys from it: fragments as they are, so that
 * lanes find their own place and no bank conflict. */
NT_DEVICE void nt_attn_put_scores(float4 *exchange, const float s[1][4][4]) {
#pragma unroll
    for (int n = 0; n < 4; n++)
        exchange[NT_WARP * (4 * nt_warp() + n) + nt_lane()] =
            make_float4(s[0][n][0], s[0][n][1], s[0][n][2], s[0][n][3]);
}
NT_DEVICE void nt_attn_get_scores(const float4 *exchange, float s[1][8][4]) {
#pragma unroll
    for (int n = 0; n < 8; n++) {
        const float4 f = exchange[NT_WARP * n + nt_lane()];
        s[0][n][0] = f.x, s[0][n][1] = f.y, s[0][n][2] = f.z, s[0][n][3] = f.w;
    }
}

/* p of a page, of rows in EIGHTS groups of 8. */
template <int COLS, bool INT8, int EIGHTS>
NT_DEVICE void nt_attn_weigh(struct nt_attn_rows<COLS, 1> &st, float s[1][8][4], const float *v_scale,
                             uint32_t p[1][4][4]) {
    nt_attn_softmax<COLS, 1, EIGHTS>(st, s);
    nt_attn_probabilities<1, INT8, EIGHTS>(s, v_scale, p);
}

/* The split's state is left for the merge. */
template <int COLS, bool INT8>
NT_DEVICE void nt_attn_leave_split(const struct nt_attn_launch &a, const struct nt_attn_tile &t,
                                   const struct nt_attn_rows<COLS, 1> &st, int32_t seq, int32_t nth, int32_t col0) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int32_t row = 8 * i + nt_lane() / 4, r = t.row0 + row;
        if (row >= t.n_row) continue;
        const int64_t place =
            ((int64_t)(seq * a.max_q + r / t.group) * a.n_head + t.head0 + r % t.group) * a.n_split + nth;
        nt_attn_park<COLS, 1, INT8>(st, i, a.state + place * a.d_pad + col0, a.d_pad - col0);
        if (threadIdx.x < NT_WARP && (nt_lane() & 3) == 0)
            *(float2 *)(a.state_ml + place * 2) = make_float2(st.max[i], st.sum[i]);
    }
}

/* Of a sequence inside one split. */
template <int D, int COLS, bool INT8>
NT_DEVICE void nt_attn_finish(const struct nt_attn_launch &a, const struct nt_attn_tile &t,
                              const struct nt_attn_rows<COLS, 1> &st, unsigned char *shared, int32_t col0) {
    if (a.lse && threadIdx.x < NT_WARP) nt_attn_write_lse<COLS, 1>(a, t, st, 0);
    __syncthreads(); /* the scores have been read */
    nt_attn_stage_out<D, COLS, 1, INT8>(st, shared, col0);
    __syncthreads();
    nt_attn_send_out<D, NT_ATTN_DECODE_WARPS * NT_WARP>(a, t, shared, t.row0, t.n_row, (int32_t)threadIdx.x);
}

/* Split `split` of a sequence that has those from `begin` to `end`. */
template <int D, bool INT8>
NT_DEVICE void nt_attn_split(const struct nt_attn_launch &a, const struct nt_attn_tile &t, int32_t seq, int32_t split,
                             int32_t begin, int32_t end, unsigned char *shared) {
    constexpr int threads = NT_ATTN_DECODE_WARPS * NT_WARP, halves = NT_ATTN_DECODE_HALVES(D);
    constexpr int cols = nt_attn_warp_cols<D, INT8>, half_rows = NT_KV_PAGE / 2 * (INT8 ? D : 2 * D);
    struct nt_attn_ring<D, INT8, threads, halves, true> ring;
    static_assert(D % 32 == 0, "V of int8 is loaded 32 columns at a time");
    static_assert(NT_ATTN_DECODE_FRONT(D) >= 8 * NT_WARP * 16, "the scores have room");
    static_assert(NT_ATTN_DECODE_FRONT(D) + halves * ring.half == NT_ATTN_DECODE_SHARED(D, INT8),
                  "host and device agree");
    const int32_t last = t.pos0 + t.row0 / t.group, first = max(last - a.span, 0); /* visible positions */
    const int32_t warp = nt_warp(), col0 = warp * cols, key0 = warp * (NT_KV_PAGE / 2);
    const int32_t page0 = max(first / NT_KV_PAGE, split * NT_ATTN_SPLIT_PAGES);
    const int32_t page1 = min(last / NT_KV_PAGE, split * NT_ATTN_SPLIT_PAGES + NT_ATTN_SPLIT_PAGES - 1);
    nt_attn_begin(ring, a, t, shared + NT_ATTN_DECODE_FRONT(D), page0, page1, first, last);
    nt_attn_load_q<D, INT8, NT_ATTN_DECODE_ROWS, threads>(a, t, shared);
    __syncthreads();
    uint32_t q[D / 16][1][4];
#pragma unroll
    for (int ks = 0; ks < D / 16; ks++) nt_attn_load_rows<D, 1>(nt_shared_address(shared), ks, q[ks]);

    struct nt_attn_rows<cols, 1> st;
    nt_attn_reset(st);
#pragma unroll 1
    for (int32_t page = page0; page <= page1; page++) {
        const int32_t base = page * NT_KV_PAGE;
        const unsigned char *k = nt_attn_next(ring, a, t, first, last);
        float mine[1][4][4], s[1][8][4];
        nt_attn_clear<1, 4>(mine);
#pragma unroll
        for (int ks = 0; ks < D / 16; ks++)
            nt_attn_dots_step<D, 1, INT8, 4>(q[ks], nt_shared_address(k) + (uint32_t)(warp * half_rows), ks, mine);
        nt_attn_scale<1, INT8>(mine, a.scale_log2, (const float *)(k + ring.values) + key0);
        if (base < first || base + NT_KV_PAGE - 1 > last) {
            const int32_t both[2] = {last, last};
            nt_attn_mask<1>(mine, both, base + key0, a.span);
        }
        nt_attn_put_scores((float4 *)shared, mine);
        const unsigned char *v = nt_attn_next(ring, a, t, first, last);
        nt_attn_get_scores((const float4 *)shared, s);
        const float *v_scale = (const float *)(v + ring.values);
        uint32_t p[1][4][4];
        if (t.n_row <= 8)
            nt_attn_weigh<cols, INT8, 1>(st, s, v_scale, p);
        else
            nt_attn_weigh<cols, INT8, 2>(st, s, v_scale, p);
        nt_attn_add_values<D, cols, 1, INT8, false>(st, nt_shared_address(v), col0, p);
    }
    nt_cp_async_wait<0>();
    nt_attn_close<cols, 1, INT8>(st);
    if (begin != end)
        nt_attn_leave_split<cols, INT8>(a, t, st, seq, split - begin, col0);
    else
        nt_attn_finish<D, cols, INT8>(a, t, st, shared, col0);
}

template <int D, bool INT8> NT_DEVICE void nt_attn_decode(const struct nt_attn_launch &a) {
    struct nt_attn_tile t;
    int32_t first, last;
    const int32_t seq = (int32_t)blockIdx.z;
    const struct nt_attn_seq *s = a.seqs + seq;
    nt_attn_splits(a, s->pos0, s->n_q, &first, &last);
    const int32_t split = first + (int32_t)blockIdx.y;
    const int32_t tok = (int32_t)blockIdx.x % a.max_q, index = (int32_t)blockIdx.x / a.max_q;
    if (split > last || !nt_attn_find_tile(a, seq, tok, index, NT_ATTN_DECODE_ROWS, &t)) return;
    nt_attn_split<D, INT8>(a, t, seq, split, first, last, nt_attention_shared);
}

#define NT_ATTN_DECODE_KERNELS(d)                                                                                      \
    extern "C" __global__ void __launch_bounds__(NT_ATTN_DECODE_WARPS *NT_WARP)                                        \
        nt_attention_decode_d##d(const struct nt_attn_launch a) {                                                      \
        nt_launch_begin();                                                                                             \
        nt_attn_decode<d, false>(a);                                                                                   \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(NT_ATTN_DECODE_WARPS *NT_WARP)                                        \
        nt_attention_decode_int8_d##d(const struct nt_attn_launch a) {                                                 \
        nt_launch_begin();                                                                                             \
        nt_attn_decode<d, true>(a);                                                                                    \
    }
NT_ATTN_DECODE_KERNELS(64)
NT_ATTN_DECODE_KERNELS(96)
NT_ATTN_DECODE_KERNELS(128)
NT_ATTN_DECODE_KERNELS(256)

static_assert(NT_ATTN_CUDA_MAX_D <= 2 * 4 * NT_WARP, "a lane of the merge has at most 2 groups of 4 columns");

extern "C" __global__ void __launch_bounds__(NT_ATTN_MERGE_THREADS) nt_attention_merge(const struct nt_attn_launch a) {
    nt_launch_begin();
    const int32_t row = (int32_t)blockIdx.x * (NT_ATTN_MERGE_THREADS / NT_WARP) + nt_warp();
    const int32_t head = row % a.n_head, tok = row / a.n_head % a.max_q, seq = row / a.n_head / a.max_q;
    if (seq >= a.n_seq) return;
    const struct nt_attn_seq *s = a.seqs + seq;
    int32_t first, last;
    nt_attn_splits(a, s->pos0, s->n_q, &first, &last);
    if (s->n_q < a.min_q || s->n_q > a.max_q || tok >= s->n_q || first == last) return;
    const int64_t place = (int64_t)row * a.n_split;
    const float *ml = a.state_ml + place * 2, *o = a.state + place * a.d_pad;
    const int32_t col = 4 * nt_lane();
    const bool use[2] = {col < a.d_pad, col + 4 * NT_WARP < a.d_pad};
    float max = -NT_INF, sum = 0, x[8] = {0, 0, 0, 0, 0, 0, 0, 0};
#pragma unroll 2
    for (int32_t split = 0; split <= last - first; split++, ml += 2, o += a.d_pad) {
        const float2 part = *(const float2 *)ml;
        float4 f[2] = {make_float4(0, 0, 0, 0), make_float4(0, 0, 0, 0)};
        if (use[0]) f[0] = nt_load_f4_once(o + col);
        if (use[1]) f[1] = nt_load_f4_once(o + col + 4 * NT_WARP);
        float older, newer;
        nt_attn_merge_factors(&max, part.x, &older, &newer);
        sum = nt_attn_merge(sum, older, part.y, newer);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            x[4 * i] = nt_attn_merge(x[4 * i], older, f[i].x, newer);
            x[4 * i + 1] = nt_attn_merge(x[4 * i + 1], older, f[i].y, newer);
            x[4 * i + 2] = nt_attn_merge(x[4 * i + 2], older, f[i].z, newer);
            x[4 * i + 3] = nt_attn_merge(x[4 * i + 3], older, f[i].w, newer);
        }
    }
    const float inverse = nt_attn_inverse(sum);
    if (a.lse && nt_lane() == 0) a.lse[(int64_t)(s->q_row + tok) * a.n_head + head] = nt_attn_lse(max, sum);
    nt_bf16 *out = a.out + (int64_t)(s->q_row + tok) * a.ldo + (int64_t)head * a.d_head;
    const bool wide = a.d_head % 4 == 0 && a.ldo % 4 == 0 && ((uintptr_t)a.out & 7) == 0;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int32_t c = col + 4 * NT_WARP * i;
        float y[4];
#pragma unroll
        for (int e = 0; e < 4; e++) y[e] = __fmul_rn(x[4 * i + e], inverse);
        if (wide) {
            if (c < a.d_head)
                __stcg((uint2 *)(out + c), make_uint2(nt_bf16_pack(y[0], y[1]), nt_bf16_pack(y[2], y[3])));
            continue;
        }
#pragma unroll
        for (int e = 0; e < 4; e++)
            if (c + e < a.d_head) out[c + e] = nt_dev_to_bf16(y[e]);
    }
}
