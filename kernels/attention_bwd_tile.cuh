/* Attention's gradient: what the kernels of attention_bwd.cu and attention_bwd_sm90.cu share beside the tile
 * (attention_tile.cuh): where rows lie and how they come to shared memory, P and dS, which keys are a block's. */
#ifndef NT_ATTENTION_BWD_TILE_CUH
#define NT_ATTENTION_BWD_TILE_CUH

#include "attention_bwd_cuda.h"
#include "attention_tile.cuh"

/* ---- rows ---- */

/* Where row r of the tile lies: its token's row of the step, and its head. */
struct nt_attn_bwd_place {
    int64_t tok;
    int32_t head;
};
NT_DEVICE struct nt_attn_bwd_place nt_attn_bwd_place_of(const struct nt_attn_tile &t, int32_t r) {
    const struct nt_attn_bwd_place p = {t.q_row + (t.row0 + r) / t.group, t.head0 + (t.row0 + r) % t.group};
    return p;
}
/* The same by a product: inverse = floor((2^32 - 1) / group), whose quotients are 1 too small at most. */
NT_DEVICE struct nt_attn_bwd_place nt_attn_bwd_place_by(const struct nt_attn_tile &t, int32_t r, uint32_t inverse) {
    int32_t tok = (int32_t)__umulhi((uint32_t)(t.row0 + r), inverse), head = t.row0 + r - tok * t.group;
    if (head >= t.group) {
        tok++;
        head -= t.group;
    }
    const struct nt_attn_bwd_place p = {t.q_row + tok, t.head0 + head};
    return p;
}
NT_DEVICE uint32_t nt_attn_bwd_inverse(int32_t group) {
    return 0xffffffffu / (uint32_t)group;
}
/* Its dq; with `staged` its dout in bf16 until dq is known. */
NT_DEVICE float *nt_attn_bwd_dq_at(const struct nt_attn_bwd_launch &a, struct nt_attn_bwd_place p) {
    return a.dqkv + p.tok * a.width + p.head * a.f.d_head;
}
NT_DEVICE int64_t nt_attn_bwd_row_at(const struct nt_attn_bwd_launch &a, struct nt_attn_bwd_place p) {
    return p.tok * a.f.n_head + p.head; /* of q and of stats */
}
/* Its lse and delta; of no row, zeros. */
NT_DEVICE float2 nt_attn_bwd_stat(const struct nt_attn_bwd_launch &a, struct nt_attn_bwd_place p, bool there) {
    return there ? *(const float2 *)(a.stats + 2 * nt_attn_bwd_row_at(a, p)) : make_float2(0, 0);
}

/* q and dout of rows first .. first + ROWS - 1 of the tile, by thread `thread` of COUNT; 0 past the tile's rows and the
 * columns. In swizzled rows of 2 D bytes, or with BOXES in boxes of 64 columns by ROWS, as wgmma has them. inverse: of
 * the group. */
template <int D, int ROWS, int COUNT, bool BOXES = false>
NT_DEVICE void nt_attn_bwd_copy_rows(const struct nt_attn_bwd_launch &a, const struct nt_attn_tile &t, int32_t first,
                                     uint32_t inverse, unsigned char *q, unsigned char *dout, int32_t thread) {
    constexpr int chunks = D / 8, all = ROWS * chunks;
    static_assert(all % COUNT == 0, "every thread copies the same number of chunks");
    static_assert(!BOXES || ROWS == NT_KV_PAGE, "boxes are those of a page");
    const uint32_t q_at = nt_shared_address(q), dout_at = nt_shared_address(dout);
#pragma unroll 2
    for (int i = 0; i < all / COUNT; i++) {
        const int32_t at = thread + i * COUNT, row = at / chunks, chunk = at % chunks;
        const bool there = first + row < t.n_row && chunk * 8 < a.f.d_pad;
        const uint32_t to = nt_attn_page_at<2 * D, BOXES>(row, chunk, 0);
        const struct nt_attn_bwd_place p = nt_attn_bwd_place_by(t, there ? first + row : 0, inverse);
        const int32_t col = there ? chunk * 8 : 0;
        nt_cp_async_16_zfill(q_at + to, a.f.q + nt_attn_bwd_row_at(a, p) * a.f.d_pad + col, there ? 16 : 0);
        if (a.staged) {
            nt_cp_async_16_zfill(dout_at + to, (const nt_bf16 *)nt_attn_bwd_dq_at(a, p) + col, there ? 16 : 0);
            continue;
        }
        const float *g = a.dout + p.tok * a.lddo + p.head * a.f.d_head + col;
        float f[8];
#pragma unroll
        for (int e = 0; e < 8; e++) f[e] = there && col + e < a.f.d_head ? g[e] : 0;
        nt_store128(dout + to, nt_bf16_pack8(f));
    }
}

/* Row h (0 or 1) of a warp's 16 x COLS accumulators, from `to` on; columns up to n. */
template <int COLS> NT_DEVICE void nt_attn_bwd_store_row(const float o[COLS / 8][4], int h, float *to, int32_t n) {
#pragma unroll
    for (int j = 0; j < COLS / 8; j++) {
        const int32_t col = 8 * j + 2 * (nt_lane() & 3);
        if (col < n) *(float2 *)(to + col) = make_float2(o[j][2 * h], o[j][2 * h + 1]);
    }
}

/* ---- P and dS ---- */

/* stat: lse and delta of the row. */
NT_DEVICE float nt_attn_bwd_p(const struct nt_attn_bwd_launch &a, float s, float2 stat) {
    return nt_exp2(__fmaf_rn(s, a.f.scale_log2, -stat.x));
}
NT_DEVICE float nt_attn_bwd_ds(const struct nt_attn_bwd_launch &a, float p, float dp, float2 stat) {
    return a.scale * p * (dp - stat.y);
}
/* Whether a row sees the key `back` positions before it. */
NT_DEVICE bool nt_attn_bwd_sees(const struct nt_attn_bwd_launch &a, int32_t back) {
    return back >= 0 && back <= a.f.span;
}

/* ---- a block's keys ---- */

struct nt_attn_bwd_keys {
    struct nt_attn_tile t; /* all rows of the KV head's group */
    int32_t key0, n_key;
    int32_t first, end; /* rows of the tokens that see one of them, from a multiple of STEP on */
    float *dk, *dv;     /* of key0 */
};

/* Block (x, y, z): KEYS keys y of KV head x of sequence z. False: there is nothing left to do; dk and dv of a KV head
 * that no head reads are 0 then. All threads. */
template <int KEYS, int STEP>
NT_DEVICE bool nt_attn_bwd_find_keys(const struct nt_attn_bwd_launch &a, struct nt_attn_bwd_keys *k) {
    const struct nt_attn_seq *seq = a.f.seqs + blockIdx.z;
    const int32_t kv = (int32_t)blockIdx.x, key0 = (int32_t)blockIdx.y * KEYS, d = a.f.d_head;
    k->t.n_q = seq->n_q;
    k->t.q_row = seq->q_row;
    k->t.pages = seq->pages;
    k->t.row0 = k->t.pos0 = 0;
    if (key0 >= k->t.n_q) return false;
    nt_attn_find_group(a.f, kv, &k->t);
    k->t.n_row = k->t.n_q * k->t.group;
    k->key0 = key0;
    k->n_key = min(k->t.n_q - key0, KEYS);
    k->dk = a.dqkv + (int64_t)(k->t.q_row + key0) * a.width + (int64_t)(a.f.n_head + kv) * d;
    k->dv = k->dk + (int64_t)a.f.n_kv * d;
    k->first = key0 * k->t.group / STEP * STEP;
    k->end = (key0 + k->n_key + min(k->t.n_q - key0 - k->n_key, a.f.span)) * k->t.group;
    if (k->t.group > 0) return true;
    for (int32_t i = (int32_t)threadIdx.x; i < k->n_key * d; i += (int32_t)blockDim.x)
        k->dk[i / d * a.width + i % d] = k->dv[i / d * a.width + i % d] = 0;
    return false;
}

#endif
