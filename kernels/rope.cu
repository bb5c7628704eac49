/* QKV split, optional q/k RMS norm, rotary embedding and the write into the paged cache, in one pass.
 *
 * Layout: row t of qkv is n_head q heads, n_kv k heads, n_kv v heads.
 * Grid (tokens, groups of heads); a warp takes a head and holds it in registers: lane i has the pairs (j, j +
 * d_head/2) of its columns, so norm and rotation need no exchange but the sum. q goes to [n_tok, n_head, d_pad]; k
 * and v to page pos / 64, slot pos % 64 of the token's sequence as bf16 rows, or as int8 rows with one scale per
 * head and position (layouts: ops.h). Padding columns become 0.
 * The token's sequence is found by a search over seqs in device memory, first at place t where a decode step has it;
 * rows of no sequence (a captured step's spare places, n_q 0) are left alone.
 * Even halves (every real model) go two columns per lane: 8-byte loads, 4-byte stores (int8: 2), whole sectors from
 * d_head 32 (int8: 64). Odd halves go by one column.
 * Sums over d_head in an order fixed by d_head: rows depend on nothing else.
 * Roofline: bandwidth, per token (n_head + 2 n_kv) * d_head * (4 read + 2 written, int8 cache 1) bytes; ~10 FLOP per
 * element. Expected 85 % of copy bandwidth in prefill; a decode step of 64 rows (2.4 MB at 32/8 heads of 128) is
 * bound by three dependent loads (seqs, page, qkv) and the launch: ~4 us. */
#include "cuda_rope.cuh"
#include "ptx.cuh"

/* What the warp does with its head. */
struct head_work {
    const float *x, *norm, *cos, *sin; /* norm, cos: NULL for none */
    int32_t d_head, d_pad;
    float eps;
};

/* The head's values after norm and rotation: low[p] at column j, high[p] at j + half; 0 beyond. */
template <bool TWO>
NT_DEVICE void compute_head(const struct head_work *w, float low[NT_ROPE_PAIRS], float high[NT_ROPE_PAIRS]) {
    const int32_t half = w->d_head / 2;
    enum { STEP = TWO ? 2 : 1 };
    float2 a[NT_ROPE_PAIRS], b[NT_ROPE_PAIRS]; /* element p in .x, p + 1 in .y */
#pragma unroll
    for (int p = 0; p < NT_ROPE_PAIRS; p += STEP) {
        const int32_t j = nt_rope_column<TWO>(p);
        a[p] = b[p] = make_float2(0, 0);
        if (j >= half) continue;
        a[p] = nt_rope_load<TWO>(w->x, j);
        b[p] = nt_rope_load<TWO>(w->x, j + half);
    }
    if (w->norm) {
        float sum = 0;
#pragma unroll
        for (int p = 0; p < NT_ROPE_PAIRS; p += STEP)
            sum = fmaf(b[p].y, b[p].y, fmaf(a[p].y, a[p].y, fmaf(b[p].x, b[p].x, fmaf(a[p].x, a[p].x, sum))));
        sum = nt_warp_sum(sum);
        const float s = __frcp_rn(__fsqrt_rn(__fadd_rn(__fdiv_rn(sum, (float)w->d_head), w->eps)));
#pragma unroll
        for (int p = 0; p < NT_ROPE_PAIRS; p += STEP) {
            const int32_t j = nt_rope_column<TWO>(p);
            if (j >= half) continue;
            const float2 na = nt_rope_load<TWO>(w->norm, j), nb = nt_rope_load<TWO>(w->norm, j + half);
            a[p] = make_float2(a[p].x * s * na.x, a[p].y * s * na.y);
            b[p] = make_float2(b[p].x * s * nb.x, b[p].y * s * nb.y);
        }
    }
    if (w->cos) {
#pragma unroll
        for (int p = 0; p < NT_ROPE_PAIRS; p += STEP) {
            const int32_t j = nt_rope_column<TWO>(p);
            if (j >= half) continue;
            const float2 c = nt_rope_load<TWO>(w->cos, j), s = nt_rope_load<TWO>(w->sin, j), x = a[p], y = b[p];
            a[p] = make_float2(x.x * c.x - y.x * s.x, x.y * c.y - y.y * s.y);
            b[p] = make_float2(y.x * c.x + x.x * s.x, y.y * c.y + x.y * s.y);
        }
    }
#pragma unroll
    for (int p = 0; p < NT_ROPE_PAIRS; p += STEP) {
        low[p] = a[p].x;
        high[p] = b[p].x;
        if (TWO) {
            low[p + 1] = a[p].y;
            high[p + 1] = b[p].y;
        }
    }
}

template <bool TWO>
NT_DEVICE void store_bf16(nt_bf16 *y, const struct head_work *w, const float *low, const float *high) {
    const int32_t half = w->d_head / 2;
#pragma unroll
    for (int p = 0; p < NT_ROPE_PAIRS; p++) {
        const int32_t j = nt_rope_column<TWO>(p);
        if ((TWO && p % 2) || j >= half) continue;
        nt_rope_store<TWO>(y, j, low[p], TWO ? low[p + 1] : 0);
        nt_rope_store<TWO>(y, j + half, high[p], TWO ? high[p + 1] : 0);
    }
    if (w->d_head + nt_lane() < w->d_pad) y[w->d_head + nt_lane()] = 0; /* fewer than 16 columns */
}

NT_DEVICE int8_t to_int8(float v, float scale) {
    return (int8_t)__float2int_rn(__fdiv_rn(v, scale)); /* NaN: 0; the NaN scale brings it back */
}

template <bool TWO>
NT_DEVICE void store_int8(int8_t *y, float *scale_at, const struct head_work *w, const float *low, const float *high) {
    const int32_t half = w->d_head / 2;
    float max = 0;
    bool nan = false;
#pragma unroll
    for (int p = 0; p < NT_ROPE_PAIRS; p++) {
        max = fmaxf(max, fmaxf(fabsf(low[p]), fabsf(high[p])));
        nan |= isnan(low[p]) || isnan(high[p]);
    }
    max = nt_warp_max(max);
    float scale = __fdiv_rn(max, 127.0f);
    if (scale == 0.0f) scale = 1.0f;
    if (__any_sync(NT_ALL_LANES, nan)) scale = __uint_as_float(0x7fc00000u);
#pragma unroll
    for (int p = 0; p < NT_ROPE_PAIRS; p++) {
        const int32_t j = nt_rope_column<TWO>(p);
        if ((TWO && p % 2) || j >= half) continue;
        if (TWO) {
            *(char2 *)(y + j) = make_char2(to_int8(low[p], scale), to_int8(low[p + 1], scale));
            *(char2 *)(y + j + half) = make_char2(to_int8(high[p], scale), to_int8(high[p + 1], scale));
        } else {
            y[j] = to_int8(low[p], scale);
            y[j + half] = to_int8(high[p], scale);
        }
    }
    if (w->d_head + nt_lane() < w->d_pad) y[w->d_head + nt_lane()] = 0;
    if (nt_lane() == 0) *scale_at = scale;
}

/* The sequence of row t, or -1. At most one thread finds it. */
NT_DEVICE int32_t find_seq(const struct nt_rope_cuda *a, int32_t t, int32_t *found) {
    if (threadIdx.x == 0) *found = -1;
    __syncthreads();
    const int32_t guess = t < a->n_seq ? t : 0;
    const struct nt_attn_seq *g = &a->seqs[guess];
    if (t >= g->q_row && t < g->q_row + g->n_q) return guess; /* the same in all threads */
    for (int32_t s = (int32_t)threadIdx.x; s < a->n_seq; s += (int32_t)blockDim.x) {
        const struct nt_attn_seq *q = &a->seqs[s];
        if (t >= q->q_row && t < q->q_row + q->n_q) *found = s;
    }
    __syncthreads();
    return *found;
}

template <bool INT8, bool TWO> NT_DEVICE void token(const struct nt_rope_cuda *a, int32_t *found) {
    const int32_t t = (int32_t)blockIdx.x, d = a->d_head, n_heads = a->n_head + 2 * a->n_kv;
    const int32_t s = find_seq(a, t, found);
    if (s < 0) return;
    const int32_t pos = a->seqs[s].pos0 + t - a->seqs[s].q_row, slot = pos % NT_KV_PAGE;
    char *page = a->pages + a->seqs[s].pages[pos / NT_KV_PAGE] * a->page_bytes;
    const int64_t angle = (int64_t)pos * (d / 2), row_bytes = (int64_t)a->d_pad * (INT8 ? 1 : 2);
    for (int32_t h = (int32_t)blockIdx.y * NT_ROPE_WARPS + nt_warp(); h < n_heads;
         h += (int32_t)gridDim.y * NT_ROPE_WARPS) {
        const bool is_q = h < a->n_head, is_v = h >= a->n_head + a->n_kv;
        const struct head_work w = {a->qkv + ((int64_t)t * n_heads + h) * d,
                                    is_q   ? a->q_norm
                                    : is_v ? NULL
                                           : a->k_norm,
                                    a->cos && !is_v ? a->cos + angle : NULL,
                                    a->cos && !is_v ? a->sin + angle : NULL,
                                    d,
                                    a->d_pad,
                                    a->eps};
        float low[NT_ROPE_PAIRS], high[NT_ROPE_PAIRS];
        compute_head<TWO>(&w, low, high);
        if (is_q) {
            store_bf16<TWO>(a->q + ((int64_t)t * a->n_head + h) * a->d_pad, &w, low, high);
            continue;
        }
        const int32_t kv = h - a->n_head - (is_v ? a->n_kv : 0);
        char *head = page + kv * a->head_bytes;
        char *row = head + ((is_v ? NT_KV_PAGE : 0) + slot) * row_bytes;
        if (INT8) {
            float *scales = (float *)(head + 2 * NT_KV_PAGE * row_bytes);
            store_int8<TWO>((int8_t *)row, scales + (is_v ? NT_KV_PAGE : 0) + slot, &w, low, high);
        } else {
            store_bf16<TWO>((nt_bf16 *)row, &w, low, high);
        }
    }
}

extern "C" __global__ void __launch_bounds__(NT_WARP *NT_ROPE_WARPS) nt_rope_kv_bf16(const struct nt_rope_cuda a) {
    nt_launch_begin();
    __shared__ int32_t found;
    if (a.d_head % 4 == 0) {
        token<false, true>(&a, &found);
    } else {
        token<false, false>(&a, &found);
    }
}

extern "C" __global__ void __launch_bounds__(NT_WARP *NT_ROPE_WARPS) nt_rope_kv_int8(const struct nt_rope_cuda a) {
    nt_launch_begin();
    __shared__ int32_t found;
    if (a.d_head % 4 == 0) {
        token<true, true>(&a, &found);
    } else {
        token<true, false>(&a, &found);
    }
}
