/* What the kernels of prompts and chunks share beside the tile (attention_tile.cuh): which tile is a block's, pages
 * with NaN or Inf, the ends of splits. A row's state is parked in the workspace between splits (attention_cuda.h). */
#ifndef NT_ATTENTION_PREFILL_CUH
#define NT_ATTENTION_PREFILL_CUH

#include "attention_tile.cuh"

/* The tile of block (x, y), of `rows` rows: tile x, the longest first, of sequence y. False: there is none, or it is
 * another launch's. */
NT_DEVICE bool nt_attn_find_block(const struct nt_attn_launch &a, int32_t rows, struct nt_attn_tile *t) {
    if (!nt_attn_find_longest(a, (int32_t)blockIdx.y, (int32_t)blockIdx.x, rows, t)) return false;
    const int32_t tok = t->q_row + t->row0 / t->group;
    return tok >= a.tok_begin && tok < a.tok_end;
}

/* ---- pages with NaN or Inf ---- */

/* Is a NaN or Inf in what thread `thread` of THREADS looks at of the page's V (bf16)? */
template <int D, int THREADS> NT_DEVICE bool nt_attn_not_finite(const unsigned char *v, int32_t thread) {
    uint32_t carry = 0; /* an exponent of all ones carries into the sign's place */
#pragma unroll 4
    for (int at = thread; at < NT_KV_PAGE * D / 8; at += THREADS) {
        const uint4 x = nt_load128(v + 16 * at);
        carry |= (x.x & 0x7f807f80u) + 0x00800080u;
        carry |= (x.y & 0x7f807f80u) + 0x00800080u;
        carry |= (x.z & 0x7f807f80u) + 0x00800080u;
        carry |= (x.w & 0x7f807f80u) + 0x00800080u;
    }
    return (carry & 0x80008000u) != 0;
}

/* Adds what the page's NaN and Inf (bf16, value by value) give the rows that see them: p * v, NaN where p is 0. */
template <int D, int MT, bool BOXES = false>
NT_DEVICE void nt_attn_add_not_finite(struct nt_attn_rows<D, MT> &st, const unsigned char *v,
                                      const uint32_t p[MT][4][4], const int32_t last[2 * MT], int32_t base,
                                      int32_t span) {
    uint64_t used[2 * MT]; /* bit k: p of key k is not 0 */
#pragma unroll
    for (int i = 0; i < 2 * MT; i++) {
        used[i] = 0;
#pragma unroll
        for (int n = 0; n < 8; n++) {
            const uint32_t pair = p[i / 2][n / 2][2 * (n & 1) + (i & 1)];
            const uint64_t bits = (pair & 0x00007fffu ? 1 : 0) | (pair & 0x7fff0000u ? 2 : 0);
            used[i] |= bits << (8 * n + 2 * (nt_lane() & 3));
        }
        used[i] |= __shfl_xor_sync(NT_ALL_LANES, used[i], 1);
        used[i] |= __shfl_xor_sync(NT_ALL_LANES, used[i], 2);
    }
#pragma unroll 1
    for (int32_t k = 0; k < NT_KV_PAGE; k++) {
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
            const uint32_t w = *(const uint32_t *)(v + nt_attn_page_at<2 * D, BOXES>(k, n, 0) + 4 * (nt_lane() & 3));
            const float x[2] = {nt_bf16_low(w), nt_bf16_high(w)};
#pragma unroll
            for (int i = 0; i < 4 * MT; i++) {
                const int32_t back = last[i / 2] - base - k;
                if (isfinite(x[i & 1]) || back < 0 || back > span) continue;
                const float add = used[i / 2] >> k & 1 ? x[i & 1] : nt_dev_to_f32(0x7fc0);
                st.o[i / 4][n][i & 3] = __fadd_rn(st.o[i / 4][n][i & 3], add);
            }
        }
    }
}

/* ---- ends of splits ---- */

template <int D, int MT, bool INT8>
NT_DEVICE void nt_attn_unpark(struct nt_attn_rows<D, MT> &st, int i, const float *from, float2 old, int32_t d_pad) {
    const int m = i / 2, h = 2 * (i & 1), t = nt_lane() & 3;
    float max = old.x, older, newer;
    nt_attn_merge_factors(&max, st.max[i], &older, &newer);
    st.max[i] = max;
    st.sum[i] = nt_attn_merge(old.y, older, st.sum[i], newer);
#pragma unroll
    for (int n = 0; n < D / 8; n += 2) {
        if (8 * n >= d_pad) continue;
        float x[4];
        if (INT8) {
            const float4 f = nt_load_f4(from + 8 * n + 4 * t);
            x[0] = f.x, x[2] = f.y, x[1] = f.z, x[3] = f.w;
        } else {
            const float2 f = *(const float2 *)(from + 8 * n + 2 * t), g = *(const float2 *)(from + 8 * n + 8 + 2 * t);
            x[0] = f.x, x[1] = f.y, x[2] = g.x, x[3] = g.y;
        }
#pragma unroll
        for (int e = 0; e < 4; e++)
            st.o[m][n + e / 2][h + e % 2] = nt_attn_merge(x[e], older, st.o[m][n + e / 2][h + e % 2], newer);
    }
}
/* The place of row r of the tile. */
NT_DEVICE int64_t nt_attn_row_place(const struct nt_attn_launch &a, const struct nt_attn_tile &t, int32_t r) {
    const int32_t tok = (t.row0 + r) / t.group, head = t.head0 + (t.row0 + r) % t.group;
    return (int64_t)(t.q_row + tok - a.tok_begin) * a.n_head + head;
}

/* A split's state is merged behind the parked one, and parked when other splits follow. */
template <int D, int MT, bool INT8>
NT_DEVICE void nt_attn_end_split(const struct nt_attn_launch &a, const struct nt_attn_tile &t,
                                 struct nt_attn_rows<D, MT> &st, int32_t warp_row, bool parked, bool park) {
    const int32_t r0 = warp_row + nt_lane() / 4;
    float2 old[2 * MT];
    nt_attn_close<D, MT, INT8>(st);
#pragma unroll
    for (int i = 0; i < 2 * MT; i++)
        if (parked && r0 + 8 * i < t.n_row)
            old[i] = *(const float2 *)(a.state_ml + nt_attn_row_place(a, t, r0 + 8 * i) * 2);
    __syncwarp(); /* a quad has read before one of its lanes writes */
#pragma unroll
    for (int i = 0; i < 2 * MT; i++) {
        if (r0 + 8 * i >= t.n_row) continue;
        const int64_t place = nt_attn_row_place(a, t, r0 + 8 * i);
        if (parked) nt_attn_unpark<D, MT, INT8>(st, i, a.state + place * a.d_pad, old[i], a.d_pad);
        if (!park) continue;
        nt_attn_park<D, MT, INT8>(st, i, a.state + place * a.d_pad, a.d_pad);
        if ((nt_lane() & 3) == 0) *(float2 *)(a.state_ml + place * 2) = make_float2(st.max[i], st.sum[i]);
    }
}

#endif
