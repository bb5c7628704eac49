/* Attention of sequences with few new tokens: split over the keys, the heads of a group packed into one mma tile.
 *
 * Layout: q [n_tok, n_head, d_pad]; cache ROWS or ROWS_INT8; out [n_tok, ldo].
 * nt_attention_decode_*: block (x, y, z) is one warp: token x % max_q of sequence z, tile x / max_q (16 heads of one
 * KV head's group), over split y of NT_ATTN_SPLIT positions. A sequence inside one split is finished here; else the
 * split's (m, sum, o) goes to the workspace. nt_attention_merge: one warp per (sequence, token, head) merges the splits
 * in ascending order. Which splits exist follows from positions alone, so the order of sums does not depend on the
 * batch. Sequences and page lists are read from device memory and bounds (max_q, max_pos) only size the grid: a
 * captured graph stays valid; blocks of places without tokens or beyond a sequence's end leave at once. Roofline, one
 * token at context n: 4 n d n_kv bytes of cache (bf16; 2 n (d + 4) n_kv for int8) and 4 n d n_head FLOP: n_head / n_kv
 * FLOP a byte, memory-bound by far (A100: 150, H100: 290). An SM needs about 40 KB in flight for its share of HBM; d
 * 128: 3 blocks with 3 of 4 half pages (16 KB) under way each. mma does 16 rows for the group's few, 64 x 16 x 4 d FLOP
 * a page, hidden. Workspace traffic 8 (d + 2) n_head bytes per split of 1024 d n_kv ... 2048 d n_kv: below 2 % per 4
 * heads a group. Expected 85-90 % of the copy bandwidth for batch * n_kv * splits of a few hundred and more; a lone
 * short sequence is bound by the latency of 8 pages in a row. Budget: one warp, at most 255 registers, no spills. */
#include "attention_tile.cuh"

extern __shared__ __align__(128) unsigned char nt_attention_shared[];

/* First and last split of a sequence. */
NT_DEVICE void nt_attn_splits(const struct nt_attn_launch &a, int32_t pos0, int32_t n_q, int32_t *first,
                              int32_t *last) {
    *first = max(pos0 - a.span, 0) / NT_ATTN_SPLIT;
    *last = (pos0 + n_q - 1) / NT_ATTN_SPLIT;
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
    nt_attn_block<D, 1, 1, NT_ATTN_DECODE_HALVES(D), INT8, true>(a, t, seq, split, nt_attention_shared);
}

extern "C" __global__ void __launch_bounds__(NT_WARP) nt_attention_decode_d64(const struct nt_attn_launch a) {
    nt_attn_decode<64, false>(a);
}
extern "C" __global__ void __launch_bounds__(NT_WARP) nt_attention_decode_d96(const struct nt_attn_launch a) {
    nt_attn_decode<96, false>(a);
}
extern "C" __global__ void __launch_bounds__(NT_WARP) nt_attention_decode_d128(const struct nt_attn_launch a) {
    nt_attn_decode<128, false>(a);
}
extern "C" __global__ void __launch_bounds__(NT_WARP) nt_attention_decode_d256(const struct nt_attn_launch a) {
    nt_attn_decode<256, false>(a);
}
extern "C" __global__ void __launch_bounds__(NT_WARP) nt_attention_decode_int8_d64(const struct nt_attn_launch a) {
    nt_attn_decode<64, true>(a);
}
extern "C" __global__ void __launch_bounds__(NT_WARP) nt_attention_decode_int8_d96(const struct nt_attn_launch a) {
    nt_attn_decode<96, true>(a);
}
extern "C" __global__ void __launch_bounds__(NT_WARP) nt_attention_decode_int8_d128(const struct nt_attn_launch a) {
    nt_attn_decode<128, true>(a);
}
extern "C" __global__ void __launch_bounds__(NT_WARP) nt_attention_decode_int8_d256(const struct nt_attn_launch a) {
    nt_attn_decode<256, true>(a);
}

static_assert(NT_ATTN_CUDA_MAX_D <= 2 * 4 * NT_WARP, "a lane of the merge has at most 2 groups of 4 columns");

extern "C" __global__ void __launch_bounds__(NT_ATTN_MERGE_THREADS) nt_attention_merge(const struct nt_attn_launch a) {
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
