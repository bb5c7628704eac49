/* Gradient of attention over whole sequences: FlashAttention-2's backward (Dao 2023) without atomics, in three kernels.
 *
 * nt_attention_bwd_delta: a warp for 32 rows of one KV head's group: delta = out . dout, beside the row's lse.
 * nt_attention_bwd_keys_*: block (x, y, z) is 64 keys (128 at d 64) x of KV head y of sequence z; a warp
 * owns 16 (32) of them and walks the query rows that see the block in steps of 32: S^T = K q^T and dP^T = V dout^T,
 * whose accumulators are the A operand of dv += P^T dout and dk += dS^T q. nt_attention_bwd_queries_*: a tile of 64
 * (128) rows walks the pages it sees: S, dP, then dq += dS K. Shared memory, masks and rows: attention_tile.cuh.
 * Layout: q [n_tok, n_head, d_pad]; cache ROWS; out [n_tok, ldo]; dout [n_tok, lddo]; dqkv rows as qkv of rope_kv.
 * Order of sums: dq keys, dk and dv query rows (token, then head of the group), ascending in mma steps of 16, which
 * begin at multiples counted from the sequence's first key or row. Nothing depends on the batch.
 * dS = scale P (dP - delta) with P = 2^(s - lse). Invisible keys give 0 there; what no sequence owns is loaded as 0.
 * Roofline, one sequence of n tokens, causal: 7 products of n^2 / 2 d n_head multiply-adds (7 n^2 d n_head FLOP; 5 are
 * the least, 2 are repeated so that no sum needs atomics). Bytes: 14 n d n_head of HBM for q, out, dout and dq; pages
 * and rows come from L2: 64 rows or keys share each, 64 FLOP a byte. The tensor cores and shared memory bound it: 1.6
 * (at d 64 2.7) mma a ldmatrix for dk and dv, 1.7 (3) for dq. Expected 40 % of the A100 bf16 rate over the 7 products
 * (29 % of it counted as 5); 15 % counted as 5 on an H200, d 128, where heads of up to 128 columns are now
 * attention_bwd_sm90.cu's.
 * Budget: 128 threads, 255 registers, 2 blocks an SM; d 256: 256 threads for dk and dv, 1 block. No spills. */
#include "attention_bwd_tile.cuh"

extern __shared__ __align__(128) unsigned char nt_attention_bwd_shared[];

enum { THREADS = NT_ATTN_PREFILL_WARPS * NT_WARP };

/* o += p x: MT times 16 x 16 STEPS, times 16 STEPS rows of x (2 D bytes each), its first COLS columns. */
template <int D, int COLS, int MT, int STEPS>
NT_DEVICE void add_product(float o[MT][COLS / 8][4], const uint32_t p[MT][STEPS][4], uint32_t x) {
#pragma unroll
    for (int kk = 0; kk < STEPS; kk++)
#pragma unroll
        for (int j = 0; j < COLS / 16; j++) {
            uint32_t b[4];
            nt_ldmatrix_x4_trans(b, nt_attn_v_address<D, false>(x, kk, j));
#pragma unroll
            for (int m = 0; m < MT; m++) {
                nt_mma_bf16(o[m][2 * j], p[m][kk], b[0], b[1]);
                nt_mma_bf16(o[m][2 * j + 1], p[m][kk], b[2], b[3]);
            }
        }
}

template <int COLS, int MT> NT_DEVICE void clear(float o[MT][COLS / 8][4]) {
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int j = 0; j < COLS / 8; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) o[m][j][e] = 0;
}

/* ---- delta ---- */

/* lse and delta of the tile's rows, and with `staged` their dout in bf16, by one warp. Four rows are under way. */
NT_DEVICE void leave_deltas(const struct nt_attn_bwd_launch &a, const struct nt_attn_tile &t) {
    const int32_t d = a.f.d_head, lane = nt_lane(), n = t.n_row;
    for (int32_t i = 0; i < n; i += 4) {
        float sum[4] = {0, 0, 0, 0};
        const nt_bf16 *out[4];
        const float *dout[4];
        float *to[4], *stats[4], lse[4];
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const struct nt_attn_bwd_place p = nt_attn_bwd_place_of(t, min(i + k, n - 1));
            out[k] = a.out + p.tok * a.ldo + p.head * d;
            dout[k] = a.dout + p.tok * a.lddo + p.head * d;
            to[k] = nt_attn_bwd_dq_at(a, p);
            stats[k] = a.stats + 2 * nt_attn_bwd_row_at(a, p);
            lse[k] = a.f.lse[nt_attn_bwd_row_at(a, p)];
        }
        for (int32_t c = 4 * lane; a.staged && c < a.f.d_pad; c += 4 * NT_WARP) {
            float4 g[4];
            uint2 o[4];
#pragma unroll
            for (int k = 0; k < 4; k++) {
                g[k] = c < d ? nt_load_f4(dout[k] + c) : make_float4(0, 0, 0, 0);
                o[k] = c < d ? *(const uint2 *)(out[k] + c) : make_uint2(0, 0);
            }
#pragma unroll
            for (int k = 0; k < 4; k++) {
                const uint2 w = make_uint2(nt_bf16_pack(g[k].x, g[k].y), nt_bf16_pack(g[k].z, g[k].w));
                if (i + k < n) *(uint2 *)((nt_bf16 *)to[k] + c) = w;
                sum[k] += nt_bf16_low(o[k].x) * nt_bf16_low(w.x) + nt_bf16_high(o[k].x) * nt_bf16_high(w.x);
                sum[k] += nt_bf16_low(o[k].y) * nt_bf16_low(w.y) + nt_bf16_high(o[k].y) * nt_bf16_high(w.y);
            }
        }
#pragma unroll
        for (int k = 0; k < 4; k++) {
            for (int32_t c = lane; !a.staged && c < d; c += NT_WARP)
                sum[k] += nt_dev_to_f32(out[k][c]) * nt_dev_to_f32(nt_dev_to_bf16(dout[k][c]));
            sum[k] = nt_warp_sum(sum[k]);
            if (lane == 0 && i + k < n) *(float2 *)stats[k] = make_float2(lse[k], sum[k]);
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) nt_attention_bwd_delta(const struct nt_attn_bwd_launch a) {
    nt_launch_begin();
    struct nt_attn_tile t;
    const int32_t index = (int32_t)blockIdx.x * NT_ATTN_PREFILL_WARPS + nt_warp();
    if (nt_attn_find_tile(a.f, (int32_t)blockIdx.y, -1, index, NT_ATTN_BWD_DELTA_ROWS, &t)) leave_deltas(a, t);
}

/* ---- dk and dv ---- */

/* P^T and dS^T of a warp's keys, from `key` on in this lane, and 8 NT rows as A operands. stats and tok of the rows are
 * in shared memory; full: every row sees every key. */
template <int D, int MT, int NT>
NT_DEVICE void key_gradients(const struct nt_attn_bwd_launch &a, uint32_t k, uint32_t v, uint32_t q, uint32_t dout,
                             const float *stats, const int32_t *tok, int32_t key, bool full,
                             uint32_t p16[MT][NT / 2][4], uint32_t ds16[MT][NT / 2][4]) {
    float s[MT][NT][4], dp[MT][NT][4];
    nt_attn_dots<D, MT, false, NT>(k, q, s);
    nt_attn_dots<D, MT, false, NT>(v, dout, dp);
#pragma unroll
    for (int n = 0; n < NT; n++) {
        const int32_t row = 8 * n + 2 * (nt_lane() & 3);
        const float4 two = nt_load_f4(stats + 2 * row);
        const int2 toks = full ? make_int2(0, 0) : *(const int2 *)(tok + row);
#pragma unroll
        for (int m = 0; m < MT; m++) {
            float p[4], ds[4];
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const float2 stat = e & 1 ? make_float2(two.z, two.w) : make_float2(two.x, two.y);
                p[e] = nt_attn_bwd_p(a, s[m][n][e], stat);
                ds[e] = nt_attn_bwd_ds(a, p[e], dp[m][n][e], stat);
                const int32_t back = (e & 1 ? toks.y : toks.x) - key - 16 * m - 8 * (e / 2);
                if (!full && !nt_attn_bwd_sees(a, back)) p[e] = ds[e] = 0;
            }
#pragma unroll
            for (int h = 0; h < 2; h++) {
                p16[m][n / 2][2 * (n & 1) + h] = nt_bf16_pack(p[2 * h], p[2 * h + 1]);
                ds16[m][n / 2][2 * (n & 1) + h] = nt_bf16_pack(ds[2 * h], ds[2 * h + 1]);
            }
        }
    }
}

/* K and V of the block's pages, one page after the other; keys past the last as zeros. */
template <int D, int PAGES, int COUNT>
NT_DEVICE void copy_pages(const struct nt_attn_bwd_launch &a, const struct nt_attn_bwd_keys &b, uint32_t k) {
    constexpr int page_bytes = NT_KV_PAGE * 2 * D;
#pragma unroll
    for (int i = 0; i < PAGES; i++) {
        const int32_t left = b.n_key - i * NT_KV_PAGE, page = b.key0 / NT_KV_PAGE;
        const int64_t number = b.t.pages[left > 0 ? page + i : page];
        const unsigned char *head = a.f.cache + number * a.f.page_bytes + b.t.kv * a.f.head_bytes;
        nt_attn_copy_half<D, false, COUNT>(a.f, head, false, 0, left - 1, k + (uint32_t)(i * page_bytes),
                                           (int32_t)threadIdx.x);
        nt_attn_copy_half<D, false, COUNT>(a.f, head, true, 0, left - 1, k + (uint32_t)((PAGES + i) * page_bytes),
                                           (int32_t)threadIdx.x);
    }
}

template <int D> NT_DEVICE void keys_block(const struct nt_attn_bwd_launch &a) {
    constexpr int warps = NT_ATTN_BWD_KEY_WARPS(D), count = warps * NT_WARP, step = NT_ATTN_BWD_STEP;
    constexpr int mt = NT_ATTN_BWD_TILES(D), pages = NT_ATTN_BWD_PAGES(D), keys = pages * NT_KV_PAGE,
                  warp_keys = 16 * mt;
    constexpr int cols = D * 4 / warps, kv_bytes = keys * 2 * D, rows_bytes = step * 2 * D;
    constexpr int nt = mt == 1 ? 4 : 2; /* rows at once: registers */
    static_assert(4 * warp_keys == keys, "four warps have the block's keys");
    struct nt_attn_bwd_keys b;
    if (!nt_attn_bwd_find_keys<keys, step>(a, &b)) return;
    const struct nt_attn_tile &t = b.t;
    const int32_t key0 = b.key0, d = a.f.d_head;
    unsigned char *stages = nt_attention_bwd_shared + 2 * kv_bytes;
    copy_pages<D, pages, count>(a, b, nt_shared_address(nt_attention_bwd_shared));

    const uint32_t inverse = nt_attn_bwd_inverse(t.group);
    int32_t first = b.first, slot = 0;
    const int32_t mine = (int32_t)threadIdx.x; /* the row whose stats this thread brings */
    float2 stat = make_float2(0, 0);
    int32_t tok = -1;
    const auto bring = [&](int32_t row) { /* of the step from `row` on; rows that do not exist have -1 and give 0 */
        if (mine >= step || row >= b.end) return;
        const bool there = row + mine < t.n_row;
        const struct nt_attn_bwd_place p = nt_attn_bwd_place_by(t, there ? row + mine : 0, inverse);
        stat = nt_attn_bwd_stat(a, p, there);
        tok = there ? (int32_t)(p.tok - t.q_row) : -1;
    };
    const auto put = [&](int32_t to) {
        unsigned char *at = stages + to * NT_ATTN_BWD_STAGE(D) + 2 * rows_bytes;
        if (mine >= step) return;
        *(float2 *)(at + 8 * mine) = stat;
        *(int32_t *)(at + 8 * step + 4 * mine) = tok;
    };
    const auto copy = [&](int32_t row, int32_t to) {
        unsigned char *at = stages + to * NT_ATTN_BWD_STAGE(D);
        if (row < b.end) nt_attn_bwd_copy_rows<D, step, count>(a, t, row, inverse, at, at + rows_bytes, mine);
        nt_cp_async_commit();
    };
    copy(first, 0);
    bring(first);
    put(0);

    const int32_t part = nt_warp() / 4, key_lo = key0 + nt_warp() % 4 * warp_keys, key_hi = key_lo + warp_keys - 1;
    const uint32_t k = nt_shared_address(nt_attention_bwd_shared) + (uint32_t)((key_lo - key0) * 2 * D);
    float dk_sum[mt][cols / 8][4], dv_sum[mt][cols / 8][4];
    clear<cols, mt>(dk_sum);
    clear<cols, mt>(dv_sum);
#pragma unroll 1
    for (; first < b.end; first += step, slot ^= 1) {
        nt_cp_async_wait<0>();
        __syncthreads();
        copy(first + step, slot ^ 1);
        bring(first + step);
        const int32_t tok_lo = first / t.group, tok_hi = (min(first + step, t.n_row) - 1) / t.group;
        if (key_lo <= tok_hi && tok_lo - key_hi <= a.f.span) {
            const unsigned char *at = stages + slot * NT_ATTN_BWD_STAGE(D);
            const uint32_t q = nt_shared_address(at), dout = q + rows_bytes;
            const float *stats = (const float *)(at + 2 * rows_bytes);
            const int32_t *tok_at = (const int32_t *)(stats + 2 * step);
            const bool full = key_hi <= tok_lo && tok_hi - key_lo <= a.f.span && first + step <= t.n_row;
#pragma unroll 1
            for (int n = 0; n < step / 8; n += nt) {
                const uint32_t skip = 8 * n * 2 * D;
                uint32_t p[mt][nt / 2][4], ds[mt][nt / 2][4];
                key_gradients<D, mt, nt>(a, k, k + kv_bytes, q + skip, dout + skip, stats + 2 * 8 * n, tok_at + 8 * n,
                                         key_lo + nt_lane() / 4, full, p, ds);
                add_product<D, cols, mt, nt / 2>(dv_sum, p, dout + skip + (uint32_t)(part * 2 * cols));
                add_product<D, cols, mt, nt / 2>(dk_sum, ds, q + skip + (uint32_t)(part * 2 * cols));
            }
        }
        put(slot ^ 1);
    }
    nt_cp_async_wait<0>();
#pragma unroll
    for (int i = 0; i < 2 * mt; i++) {
        const int32_t row = key_lo - key0 + nt_lane() / 4 + 8 * i;
        if (row >= b.n_key) continue;
        nt_attn_bwd_store_row<cols>(dk_sum[i / 2], i & 1, b.dk + row * a.width + part * cols, d - part * cols);
        nt_attn_bwd_store_row<cols>(dv_sum[i / 2], i & 1, b.dv + row * a.width + part * cols, d - part * cols);
    }
}

/* ---- dq ---- */

/* What the block knows of its tile of `rows` query rows; false: there is none. */
NT_DEVICE bool begin_tile(const struct nt_attn_bwd_launch &a, int32_t rows, int32_t rows_warp,
                          struct nt_attn_block_info &info) {
    struct nt_attn_tile found;
    if (!nt_attn_find_longest(a.f, (int32_t)blockIdx.y, (int32_t)blockIdx.x, rows, &found)) return false;
    nt_attn_publish(a.f, found, NT_WARP, rows_warp, info);
    __syncthreads();
    return true;
}

/* dS of the warp's rows and 8 NT keys from `base` on as A operands, k steps step0 and on. stat: (lse, delta) of the
 * thread's rows. */
template <int D, int MT, int NT>
NT_DEVICE void query_gradients(const struct nt_attn_bwd_launch &a, uint32_t q, uint32_t dout, uint32_t k, uint32_t v,
                               const float2 stat[2 * MT], const int32_t last[2 * MT], int32_t base, bool full,
                               int step0, uint32_t ds16[MT][4][4]) {
    float s[MT][NT][4], dp[MT][NT][4];
    nt_attn_dots<D, MT, false, NT>(q, k, s);
    nt_attn_dots<D, MT, false, NT>(dout, v, dp);
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int n = 0; n < NT; n++) {
            float ds[4];
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int i = 2 * m + e / 2;
                ds[e] = nt_attn_bwd_ds(a, nt_attn_bwd_p(a, s[m][n][e], stat[i]), dp[m][n][e], stat[i]);
                const int32_t back = last[i] - base - (8 * n + 2 * (nt_lane() & 3) + (e & 1));
                if (!full && !nt_attn_bwd_sees(a, back)) ds[e] = 0;
            }
#pragma unroll
            for (int h = 0; h < 2; h++)
                ds16[m][step0 + n / 2][2 * (n & 1) + h] = nt_bf16_pack(ds[2 * h], ds[2 * h + 1]);
        }
}

template <int D> NT_DEVICE void queries_block(const struct nt_attn_bwd_launch &a) {
    constexpr int mt = NT_ATTN_BWD_TILES(D), rows = NT_ATTN_BWD_ROWS(D), rows_warp = 16 * mt;
    constexpr int page_bytes = NT_KV_PAGE * 2 * D, ring_at = 2 * rows * 2 * D;
    constexpr int v_at = ring_at + 2 * page_bytes, info_at = v_at + page_bytes;
    constexpr int nt = mt == 1 && D <= 128 ? 8 : 4; /* fewer keys at once where registers are short */
    unsigned char *shared = nt_attention_bwd_shared;
    struct nt_attn_block_info &info = *(struct nt_attn_block_info *)(shared + info_at);
    const struct nt_attn_tile &t = info.tile;
    const struct nt_attn_bounds &all = info.all, &mine = info.part[nt_warp()];
    const int32_t warp_row = nt_warp() * rows_warp;
    if (!begin_tile(a, rows, rows_warp, info)) return;
    const int32_t page0 = all.first_lo / NT_KV_PAGE, page1 = all.last_hi / NT_KV_PAGE; /* inclusive */
    const uint32_t q = nt_shared_address(shared) + (uint32_t)(warp_row * 2 * D), dout = q + rows * 2 * D;
    const uint32_t ring = nt_shared_address(shared + ring_at), v = nt_shared_address(shared + v_at);
    struct nt_attn_page_list list = {page0 - NT_WARP, page1, 0};
    const auto issue = [&](int32_t page, bool is_v) {
        if (page <= page1) {
            const int64_t number = nt_attn_page_number(list, t.pages, page);
            nt_attn_copy_half<D, false, THREADS>(a.f, a.f.cache + number * a.f.page_bytes + t.kv * a.f.head_bytes, is_v,
                                                 all.first_lo - page * NT_KV_PAGE, all.last_hi - page * NT_KV_PAGE,
                                                 is_v ? v : ring + (uint32_t)((page & 1) * page_bytes),
                                                 (int32_t)threadIdx.x);
        }
        nt_cp_async_commit();
    };
    nt_attn_bwd_copy_rows<D, rows, THREADS>(a, t, 0, nt_attn_bwd_inverse(t.group), shared, shared + rows * 2 * D,
                                            (int32_t)threadIdx.x);
    issue(page0, false);
    issue(page0, true);
    float2 stat[2 * mt];
    int32_t last[2 * mt];
    nt_attn_last<mt>(t, warp_row, last); /* -1: no row, which sees nothing */
#pragma unroll
    for (int i = 0; i < 2 * mt; i++) {
        const struct nt_attn_bwd_place p = nt_attn_bwd_place_of(t, last[i] < 0 ? 0 : warp_row + 8 * i + nt_lane() / 4);
        stat[i] = nt_attn_bwd_stat(a, p, last[i] >= 0);
    }
    float dq[mt][D / 8][4];
    clear<D, mt>(dq);
#pragma unroll 1
    for (int32_t page = page0; page <= page1; page++) {
        const int32_t base = page * NT_KV_PAGE;
        const uint32_t k = ring + (uint32_t)((page & 1) * page_bytes);
        const bool sees = warp_row < t.n_row && base <= mine.last_hi && base + NT_KV_PAGE > mine.first_lo;
        const bool full = base + NT_KV_PAGE - 1 <= mine.last_lo && base >= mine.first_hi;
        uint32_t ds[mt][4][4];
        nt_cp_async_wait<0>();
        __syncthreads();
        issue(page + 1, false);
        if (sees) {
#pragma unroll
            for (int n = 0; n < 8; n += nt)
                query_gradients<D, mt, nt>(a, q, dout, k + (uint32_t)(8 * n * 2 * D), v + (uint32_t)(8 * n * 2 * D),
                                           stat, last, base + 8 * n, full, n / 2, ds);
        }
        __syncthreads(); /* V has been read */
        issue(page + 1, true);
        if (sees) add_product<D, D, mt, 4>(dq, ds, k);
    }
    nt_cp_async_wait<0>();
#pragma unroll
    for (int i = 0; i < 2 * mt; i++) {
        if (last[i] < 0) continue;
        const struct nt_attn_bwd_place p = nt_attn_bwd_place_of(t, warp_row + 8 * i + nt_lane() / 4);
        nt_attn_bwd_store_row<D>(dq[i / 2], i & 1, nt_attn_bwd_dq_at(a, p), a.f.d_head);
    }
}

/* ---- entries ---- */

#define NT_ATTN_BWD_KERNELS(d)                                                                                         \
    extern "C" __global__ void __launch_bounds__(NT_ATTN_BWD_KEY_WARPS(d) * NT_WARP, 8 / NT_ATTN_BWD_KEY_WARPS(d))     \
        nt_attention_bwd_keys_d##d(const struct nt_attn_bwd_launch a) {                                                \
        nt_launch_begin();                                                                                             \
        keys_block<d>(a);                                                                                              \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS, 2)                                                           \
        nt_attention_bwd_queries_d##d(const struct nt_attn_bwd_launch a) {                                             \
        nt_launch_begin();                                                                                             \
        queries_block<d>(a);                                                                                           \
    }
NT_ATTN_BWD_KERNELS(64)
NT_ATTN_BWD_KERNELS(96)
NT_ATTN_BWD_KERNELS(128)
NT_ATTN_BWD_KERNELS(256)
