/* Gradient of attention on compute capability 9.0: mbarriers and wgmma, warp-specialised. Spec: ops_bwd.h; the three
 * steps and the order of sums of attention_bwd.cu, whose first kernel leaves lse, delta and dout in bf16.
 *
 * nt_attention_bwd_sm90_keys_*: block (x, y, z) is 128 keys y of KV head x of sequence z, a warpgroup a page of them.
 * One warpgroup copies q, dout, lse and delta of the rows that see them into a ring, 64 rows a stage; the others compute
 * S^T = K q^T and dP^T = V dout^T with all operands in shared memory, then dv += P^T dout and dk += dS^T q with the
 * weights as A fragments in registers. P is formed while dP runs, dS while dv does; the two warpgroups fill each other's
 * gaps. nt_attention_bwd_sm90_queries_*: block (x, y) is a tile of 128 rows as in attention_sm90.cu, 64 a warpgroup, q
 * as A fragments, dout in shared memory (registers); K and V of the pages come through a ring, and while dS of a page is
 * formed dq += dS K of the page before it runs. Copies are cp.async: rows of a group lie in two strides, and what no row sees is zero-filled.
 * Layout: as attention_bwd.cu; 64 rows or keys in shared memory are boxes of 64 columns with the 128-byte swizzle.
 * Registers (ptxas, no spills): 168 at launch; multiplying warpgroups take 232, the copying one keeps 40.
 * Roofline, one sequence of n tokens, causal: as attention_bwd.cu, 7 n^2 d n_head FLOP, 5 of 7 of them counted. d 128:
 * 64 keys by 64 rows are 1024 cycles of the tensor cores for dk and dv, which read 96 of the 128 bytes a cycle of shared
 * memory, and 768 for dq, with 85 bytes; a warp issues some 400 instructions for either, so two warps a scheduler two
 * to three fifths of its slots. Expected, not measured: 55-65 % of the dense rate over the 7 products at d 128 (counted
 * as 5: 40-45 %; attention_bwd.cu on an H200: 15 %), 25-30 % counted at d 64, where exponents and instructions take as
 * long as products. */
#include "attention_bwd_sm90_cuda.h"
#include "attention_bwd_tile.cuh"
#include "gemm_sm90_tile.cuh"

extern __shared__ __align__(1024) unsigned char nt_attention_bwd_sm90_shared[];

enum {
    COPIERS = 4 * NT_WARP,
    MULTIPLIERS = 4 * NT_ATTN_BWD_SM90_GROUPS, /* warps */
    ROWS = NT_ATTN_BWD_SM90_ROWS,
    STEP = NT_KV_PAGE
};
static_assert(nt_registers_suffice(NT_ATTN_BWD_SM90_GROUPS, 232, 1, 40), "registers that others give back");

/* Rings: K or V of a page a stage; q, dout and the numbers of 64 rows a stage. They lie behind what stays. */
template <int D_> struct pages_ring {
    enum {
        D = D_,
        LINES = NT_ATTN_BWD_SM90_LINES(D),
        STAGES = NT_ATTN_BWD_SM90_PAGES,
        STAGE_BYTES = LINES,
        AT = 2 * NT_ATTN_BWD_SM90_GROUPS * LINES,
        INFO_AT = AT + STAGES * STAGE_BYTES + NT_GEMM_SM90_BARRIERS
    };
    static_assert(INFO_AT + NT_ATTN_TILE_BYTES == NT_ATTN_BWD_SM90_QUERIES_SHARED(D), "host and device agree");
};
template <int D_> struct rows_ring {
    enum {
        D = D_,
        LINES = NT_ATTN_BWD_SM90_LINES(D),
        STAGES = NT_ATTN_BWD_SM90_STEPS,
        STAGE_BYTES = NT_ATTN_BWD_SM90_STEP(D),
        STATS_AT = 2 * LINES,              /* in a stage */
        TOKENS_AT = STATS_AT + 8 * STEP,
        AT = 2 * NT_ATTN_BWD_SM90_GROUPS * LINES
    };
    static_assert(TOKENS_AT + 4 * STEP <= STAGE_BYTES && STAGE_BYTES % 1024 == 0, "rows' numbers fit behind them");
    static_assert(AT + STAGES * STAGE_BYTES + NT_GEMM_SM90_BARRIERS == NT_ATTN_BWD_SM90_KEYS_SHARED(D),
                  "host and device agree");
};

/* ---- the copying warpgroup ---- */

/* Stages that are filled one after the other; one is on its way when the next begins. */
struct filling {
    struct nt_sm90_place next, told;
    bool under_way;
};
template <class T> NT_DEVICE uint32_t begin_stage(const struct filling &f, uint32_t base) {
    nt_mbarrier_wait(nt_sm90_empty_at<T>(base, f.next.stage), f.next.phase ^ 1);
    return (uint32_t)(f.next.stage * T::STAGE_BYTES);
}
/* What this thread copied N stages ago and before is there. */
template <class T, int N> NT_DEVICE void tell_stage(struct filling &f, uint32_t base) {
    nt_cp_async_wait<N>();
    nt_async_proxy_fence();
    nt_mbarrier_arrive(nt_sm90_full_at<T>(base, f.told.stage));
    nt_sm90_next<T>(&f.told);
}
template <class T> NT_DEVICE void end_stage(struct filling &f, uint32_t base) {
    nt_cp_async_commit();
    if (f.under_way) tell_stage<T, 1>(f, base);
    f.under_way = true;
    nt_sm90_next<T>(&f.next);
}

/* K and V of the tile's pages. */
template <class T>
NT_DEVICE void copy_pages(const struct nt_attn_bwd_launch &a, const struct nt_attn_block_info &info, uint32_t base) {
    const int32_t lo = info.all.first_lo, hi = info.all.last_hi, page1 = hi / NT_KV_PAGE;
    const int32_t thread = (int32_t)threadIdx.x % COPIERS;
    struct nt_attn_page_list list = {lo / NT_KV_PAGE - NT_WARP, page1, 0};
    struct filling f = {{0, 0}, {0, 0}, false};
#pragma unroll 1
    for (int32_t page = lo / NT_KV_PAGE; page <= page1; page++) {
        const int64_t number = nt_attn_page_number(list, info.tile.pages, page);
        const unsigned char *head = a.f.cache + number * a.f.page_bytes + info.tile.kv * a.f.head_bytes;
#pragma unroll 1
        for (int v = 0; v < 2; v++) {
            const uint32_t to = base + begin_stage<T>(f, base);
            nt_attn_copy_half<T::D, false, COPIERS, true>(a.f, head, v, lo - page * NT_KV_PAGE, hi - page * NT_KV_PAGE,
                                                          to, thread);
            end_stage<T>(f, base);
        }
    }
    tell_stage<T, 0>(f, base);
}

/* q, dout, lse, delta and token of the rows that see the block's keys; a row that does not exist has token -1. */
template <class T>
NT_DEVICE void copy_steps(const struct nt_attn_bwd_launch &a, const struct nt_attn_bwd_keys &b, unsigned char *ring) {
    const uint32_t base = nt_shared_address(ring), inverse = nt_attn_bwd_inverse(b.t.group);
    const int32_t thread = (int32_t)threadIdx.x % COPIERS;
    struct filling f = {{0, 0}, {0, 0}, false};
#pragma unroll 1
    for (int32_t first = b.first; first < b.end; first += STEP) {
        unsigned char *to = ring + begin_stage<T>(f, base);
        nt_attn_bwd_copy_rows<T::D, STEP, COPIERS, true>(a, b.t, first, inverse, to, to + T::LINES, thread);
        if (thread < STEP) {
            const bool there = first + thread < b.t.n_row;
            const struct nt_attn_bwd_place p = nt_attn_bwd_place_by(b.t, there ? first + thread : 0, inverse);
            *(float2 *)(to + T::STATS_AT + 8 * thread) = nt_attn_bwd_stat(a, p, there);
            *(int32_t *)(to + T::TOKENS_AT + 4 * thread) = there ? (int32_t)(p.tok - b.t.q_row) : -1;
        }
        end_stage<T>(f, base);
    }
    tell_stage<T, 0>(f, base);
}

/* ---- products, each a group ---- */

/* What a descriptor of lines grows by for columns 16 i and on. */
NT_DEVICE uint64_t columns(int i) {
    return (uint64_t)(i / 4 * (NT_ATTN_BOX >> 4) + 2 * (i % 4));
}
/* d = x y^T: 64 lines by 64 lines of D columns; x in shared memory or as A fragments. */
template <int D> NT_DEVICE void dots(float d[8][4], uint64_t x, uint64_t y) {
    nt_wgmma_fence();
#pragma unroll
    for (int i = 0; i < D / 16; i++) nt_wgmma_bf16<64>(&d[0][0], x + columns(i), y + columns(i), i > 0);
    nt_wgmma_commit();
}
template <int D> NT_DEVICE void dots(float d[8][4], const uint32_t x[D / 16][4], uint64_t y) {
    nt_wgmma_fence();
#pragma unroll
    for (int i = 0; i < D / 16; i++) nt_wgmma_bf16_rs<64>(&d[0][0], x[i], y + columns(i), i > 0);
    nt_wgmma_commit();
}
/* o += w x: 64 rows by 64 lines, D columns of x, which is turned. */
template <int D> NT_DEVICE void add_lines(float o[D / 8][4], const uint32_t w[4][4], uint64_t x) {
    nt_wgmma_fence();
#pragma unroll
    for (int i = 0; i < 4; i++) nt_wgmma_bf16_rs<D, true>(&o[0][0], w[i], x + 128 * i, 1);
    nt_wgmma_commit();
}
NT_DEVICE uint64_t turned(uint32_t at) {
    return nt_wgmma_turned_tile(at, NT_ATTN_BOX);
}

/* A fragments of what dots gave. */
NT_DEVICE void pack(const float x[8][4], uint32_t to[4][4]) {
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int h = 0; h < 2; h++) to[n / 2][2 * (n & 1) + h] = nt_bf16_pack(x[n][2 * h], x[n][2 * h + 1]);
}
template <int N> NT_DEVICE void clear(float x[N][4]) {
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) x[n][e] = 0;
}

/* ---- dk and dv ---- */

/* lse and delta of rows 8 n + 2 t + (e & 1) of a stage, t the lane's place in its quad. */
NT_DEVICE float2 stat_of(float4 two, int e) {
    return e & 1 ? make_float2(two.z, two.w) : make_float2(two.x, two.y);
}
NT_DEVICE float4 stats_at(const unsigned char *stats, int n) {
    return nt_load_f4((const float *)(stats + 8 * (8 * n + 2 * (nt_lane() & 3))));
}

/* Bit 4 n + e: row 8 n + 2 t + (e & 1) sees key + 8 (e / 2). */
NT_DEVICE uint32_t who_sees(const struct nt_attn_bwd_launch &a, const unsigned char *tokens, int32_t key) {
    uint32_t seen = 0;
#pragma unroll
    for (int n = 0; n < 8; n++) {
        const int2 two = *(const int2 *)(tokens + 4 * (8 * n + 2 * (nt_lane() & 3)));
#pragma unroll
        for (int e = 0; e < 4; e++)
            seen |= (uint32_t)nt_attn_bwd_sees(a, (e & 1 ? two.y : two.x) - key - 8 * (e / 2)) << (4 * n + e);
    }
    return seen;
}
/* s becomes P^T, and dS^T with it 0 where a row does not see the key. */
NT_DEVICE void weigh(const struct nt_attn_bwd_launch &a, const unsigned char *stats, bool full, uint32_t seen,
                     float s[8][4]) {
#pragma unroll
    for (int n = 0; n < 8; n++) {
        const float4 two = stats_at(stats, n);
#pragma unroll
        for (int e = 0; e < 4; e++) s[n][e] = nt_attn_bwd_p(a, s[n][e], stat_of(two, e));
    }
    if (full) return;
#pragma unroll
    for (int i = 0; i < 32; i++)
        if (!(seen >> i & 1)) s[i / 4][i % 4] = 0;
}
/* dp becomes dS^T. */
NT_DEVICE void slope(const struct nt_attn_bwd_launch &a, const unsigned char *stats, const float p[8][4],
                     float dp[8][4]) {
#pragma unroll
    for (int n = 0; n < 8; n++) {
        const float4 two = stats_at(stats, n);
#pragma unroll
        for (int e = 0; e < 4; e++) dp[n][e] = nt_attn_bwd_ds(a, p[n][e], dp[n][e], stat_of(two, e));
    }
}

template <int D> struct key_sums {
    float dk[D / 8][4], dv[D / 8][4];
};

/* Adds a stage, whose rows are those from `at` of shared memory on; k, v: of the warpgroup's page; key: the lane's. */
template <class T>
NT_DEVICE void add_step(struct key_sums<T::D> &sum, const struct nt_attn_bwd_launch &a, uint64_t k, uint64_t v,
                        const unsigned char *stage, uint32_t at, int32_t key, bool full) {
    const unsigned char *stats = stage + T::STATS_AT;
    float s[8][4], dp[8][4];
    uint32_t p16[4][4], ds16[4][4];
    dots<T::D>(s, k, nt_wgmma_tile(at));
    dots<T::D>(dp, v, nt_wgmma_tile(at + T::LINES));
    const uint32_t seen = full ? 0 : who_sees(a, stage + T::TOKENS_AT, key);
    nt_wgmma_wait<1>();
    nt_wgmma_settle<32>(&s[0][0]);
    weigh(a, stats, full, seen, s);
    pack(s, p16);
    add_lines<T::D>(sum.dv, p16, turned(at + T::LINES));
    nt_wgmma_wait<1>();
    nt_wgmma_settle<32>(&dp[0][0]);
    slope(a, stats, s, dp);
    pack(dp, ds16);
    add_lines<T::D>(sum.dk, ds16, turned(at));
    nt_wgmma_wait<0>();
    nt_wgmma_settle<T::D / 2>(&sum.dv[0][0]);
    nt_wgmma_settle<T::D / 2>(&sum.dk[0][0]);
}

/* The keys of warpgroup `group`. */
template <class T>
NT_DEVICE void sum_keys(const struct nt_attn_bwd_launch &a, const struct nt_attn_bwd_keys &b, unsigned char *shared,
                        int32_t group) {
    const uint32_t kept = nt_shared_address(shared), base = kept + T::AT;
    const uint64_t k = nt_wgmma_tile(kept + (uint32_t)(2 * group * T::LINES)),
                   v = nt_wgmma_tile(kept + (uint32_t)((2 * group + 1) * T::LINES));
    const int32_t key_lo = b.key0 + group * NT_KV_PAGE, key_hi = key_lo + NT_KV_PAGE - 1;
    const int32_t in_page = nt_warp() % 4 * 16 + nt_lane() / 4;
    struct nt_sm90_place next = {0, 0};
    struct key_sums<T::D> sum;
    clear<T::D / 8>(sum.dk);
    clear<T::D / 8>(sum.dv);
#pragma unroll 1
    for (int32_t first = b.first; first < b.end; first += STEP) {
        const struct nt_sm90_place p = nt_sm90_take<T>(&next);
        const int32_t tok_lo = first / b.t.group, tok_hi = (min(first + STEP, b.t.n_row) - 1) / b.t.group;
        nt_mbarrier_wait(nt_sm90_full_at<T>(base, p.stage), p.phase);
        if (key_lo <= tok_hi && tok_lo - key_hi <= a.f.span) {
            const bool full = key_hi <= tok_lo && tok_hi - key_lo <= a.f.span && first + STEP <= b.t.n_row;
            add_step<T>(sum, a, k, v, shared + T::AT + p.stage * T::STAGE_BYTES, nt_sm90_stage_at<T>(base, p),
                        key_lo + in_page, full);
        }
        nt_sm90_give<T>(base, p);
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int32_t row = key_lo - b.key0 + in_page + 8 * h;
        if (row >= b.n_key) continue;
        nt_attn_bwd_store_row<T::D>(sum.dk, h, b.dk + row * a.width, a.f.d_head);
        nt_attn_bwd_store_row<T::D>(sum.dv, h, b.dv + row * a.width, a.f.d_head);
    }
}

/* K and V of the warpgroup's keys, by itself; keys past the last as zeros. */
template <class T>
NT_DEVICE void keep_page(const struct nt_attn_bwd_launch &a, const struct nt_attn_bwd_keys &b, uint32_t kept,
                         int32_t group) {
    enum { THREADS = 4 * NT_WARP };
    const int64_t number = b.t.pages[b.key0 / NT_KV_PAGE + group];
    const unsigned char *head = a.f.cache + number * a.f.page_bytes + b.t.kv * a.f.head_bytes;
    for (int v = 0; v < 2; v++)
        nt_attn_copy_half<T::D, false, THREADS, true>(a.f, head, v, 0, b.n_key - group * NT_KV_PAGE - 1,
                                                      kept + (uint32_t)((2 * group + v) * T::LINES),
                                                      (int32_t)threadIdx.x % THREADS);
    nt_cp_async_commit();
    nt_cp_async_wait<0>();
    nt_async_proxy_fence();
    nt_barrier(1 + group, THREADS);
}

template <int D> NT_DEVICE void keys_block(const struct nt_attn_bwd_launch &a) {
    using T = rows_ring<D>;
    unsigned char *shared = nt_attention_bwd_sm90_shared;
    const uint32_t kept = nt_shared_address(shared);
    const int32_t warp = __shfl_sync(NT_ALL_LANES, nt_warp(), 0); /* the compiler sees that a warp takes one way */
    struct nt_attn_bwd_keys b;
    if (!nt_attn_bwd_find_keys<ROWS, STEP>(a, &b)) return;
    if (threadIdx.x == 0) nt_sm90_init_ring<T>(kept + T::AT, COPIERS, b.n_key > NT_KV_PAGE ? MULTIPLIERS : 4);
    __syncthreads();
    if (warp >= MULTIPLIERS) {
        nt_registers_lower<40>();
        copy_steps<T>(a, b, shared + T::AT);
        return;
    }
    nt_registers_raise<232>();
    if (warp / 4 * NT_KV_PAGE >= b.n_key) return;
    keep_page<T>(a, b, kept, warp / 4);
    sum_keys<T>(a, b, shared, warp / 4);
}

/* ---- dq ---- */

/* Of a warp. */
template <class T> struct query_rows {
    uint32_t base; /* of the stages */
    struct nt_sm90_place next;
    int32_t row0; /* in the tile */
    uint32_t q[T::D / 16][4];
    uint64_t dout; /* of the warpgroup */
    float2 stat[2]; /* lse and delta of the lane's rows */
    float s[8][4], dp[8][4], dq[T::D / 8][4];
    uint32_t ds16[4][4];
};

/* dp becomes dS of the page at position `base`. */
template <class T>
NT_DEVICE void slope_rows(const struct nt_attn_bwd_launch &a, const struct nt_attn_tile &t, struct query_rows<T> &r,
                          int32_t base, bool full) {
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const float2 stat = r.stat[e / 2];
            r.dp[n][e] = nt_attn_bwd_ds(a, nt_attn_bwd_p(a, r.s[n][e], stat), r.dp[n][e], stat);
        }
    if (full) return;
    int32_t last[2];
    nt_attn_last<1>(t, r.row0, last); /* -1: no row, which sees nothing */
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            if (!nt_attn_bwd_sees(a, last[e / 2] - base - (8 * n + 2 * (nt_lane() & 3) + (e & 1)))) r.dp[n][e] = 0;
}

/* All pages of the tile. */
template <class T>
NT_DEVICE void sum_pages(const struct nt_attn_bwd_launch &a, struct query_rows<T> &r,
                         const struct nt_attn_block_info &info) {
    const struct nt_attn_bounds &mine = info.part[nt_warp() / 4];
    const int32_t page0 = info.all.first_lo / NT_KV_PAGE, page1 = info.all.last_hi / NT_KV_PAGE;
    struct nt_sm90_place k, v, k_before = {0, 0};
    uint32_t before = 0; /* where K of the page before lies */
#pragma unroll 1
    for (int32_t page = page0; page <= page1; page++) {
        const int32_t base = page * NT_KV_PAGE;
        const bool full = base + NT_KV_PAGE - 1 <= mine.last_lo && base >= mine.first_hi;
        k = nt_sm90_take<T>(&r.next);
        v = nt_sm90_take<T>(&r.next);
        const uint32_t k_at = nt_sm90_stage_at<T>(r.base, k), v_at = nt_sm90_stage_at<T>(r.base, v);
        nt_mbarrier_wait(nt_sm90_full_at<T>(r.base, k.stage), k.phase);
        dots<T::D>(r.s, r.q, nt_wgmma_tile(k_at));
        nt_mbarrier_wait(nt_sm90_full_at<T>(r.base, v.stage), v.phase);
        dots<T::D>(r.dp, r.dout, nt_wgmma_tile(v_at));
        if (page > page0) {
            add_lines<T::D>(r.dq, r.ds16, turned(before));
            nt_wgmma_wait<1>();
        } else {
            nt_wgmma_wait<0>();
        }
        nt_wgmma_settle<32>(&r.s[0][0]);
        nt_wgmma_settle<32>(&r.dp[0][0]);
        nt_sm90_give<T>(r.base, v);
        slope_rows<T>(a, info.tile, r, base, full);
        if (page > page0) {
            nt_wgmma_hold(fabsf(r.dp[7][3]));
            nt_wgmma_wait<0>();
            nt_wgmma_settle<T::D / 2>(&r.dq[0][0]);
            nt_sm90_give<T>(r.base, k_before);
        }
        pack(r.dp, r.ds16);
        k_before = k;
        before = k_at;
    }
    add_lines<T::D>(r.dq, r.ds16, turned(before));
    nt_wgmma_wait<0>();
    nt_wgmma_settle<T::D / 2>(&r.dq[0][0]);
}

/* q and dout of the warpgroup's rows into boxes, by itself. */
template <class T>
NT_DEVICE void keep_rows(const struct nt_attn_bwd_launch &a, const struct nt_attn_tile &t, unsigned char *q,
                         unsigned char *dout, int32_t group) {
    enum { THREADS = 4 * NT_WARP };
    nt_attn_bwd_copy_rows<T::D, NT_KV_PAGE, THREADS, true>(a, t, group * NT_KV_PAGE, nt_attn_bwd_inverse(t.group), q,
                                                           dout, (int32_t)threadIdx.x % THREADS);
    nt_cp_async_commit();
    nt_cp_async_wait<0>();
    nt_async_proxy_fence();
    nt_barrier(1 + group, THREADS);
}

/* A warp's rows; q, dout: of its warpgroup, in shared memory. */
template <class T>
NT_DEVICE void multiply_rows(const struct nt_attn_bwd_launch &a, const struct nt_attn_block_info &info, uint32_t base,
                             int32_t row0, uint32_t q, uint32_t dout) {
    const int32_t lane = nt_lane(), line = row0 % NT_KV_PAGE + (lane & 15);
    struct query_rows<T> r;
    r.base = base;
    r.next = {0, 0};
    r.row0 = row0;
    r.dout = nt_wgmma_tile(dout);
#pragma unroll
    for (int i = 0; i < T::D / 16; i++)
        nt_ldmatrix_x4(r.q[i], q + nt_attn_page_at<2 * T::D, true>(line, 2 * i, lane >> 4));
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int32_t row = row0 + 8 * i + nt_lane() / 4;
        const bool there = row < info.tile.n_row;
        r.stat[i] = nt_attn_bwd_stat(a, nt_attn_bwd_place_of(info.tile, there ? row : 0), there);
    }
    clear<T::D / 8>(r.dq);
    sum_pages<T>(a, r, info);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int32_t row = row0 + 8 * i + nt_lane() / 4;
        if (row >= info.tile.n_row) continue;
        const struct nt_attn_bwd_place p = nt_attn_bwd_place_of(info.tile, row);
        nt_attn_bwd_store_row<T::D>(r.dq, i, nt_attn_bwd_dq_at(a, p), a.f.d_head);
    }
}

template <int D> NT_DEVICE void queries_block(const struct nt_attn_bwd_launch &a) {
    using T = pages_ring<D>;
    unsigned char *shared = nt_attention_bwd_sm90_shared;
    struct nt_attn_block_info &info = *(struct nt_attn_block_info *)(shared + T::INFO_AT);
    const uint32_t base = nt_shared_address(shared + T::AT);
    const int32_t warp = __shfl_sync(NT_ALL_LANES, nt_warp(), 0);
    struct nt_attn_tile found;
    if (!nt_attn_find_longest(a.f, (int32_t)blockIdx.y, (int32_t)blockIdx.x, ROWS, &found)) return;
    nt_attn_publish(a.f, found, 4 * NT_WARP, NT_KV_PAGE, info);
    if (threadIdx.x == 0) nt_sm90_init_ring<T>(base, COPIERS, found.n_row > NT_KV_PAGE ? MULTIPLIERS : 4);
    __syncthreads();
    if (warp >= MULTIPLIERS) {
        nt_registers_lower<40>();
        copy_pages<T>(a, info, base);
        return;
    }
    nt_registers_raise<232>();
    if (warp / 4 * NT_KV_PAGE >= info.tile.n_row) return;
    unsigned char *q = shared + warp / 4 * 2 * T::LINES, *dout = q + T::LINES;
    keep_rows<T>(a, info.tile, q, dout, warp / 4);
    multiply_rows<T>(a, info, base, 16 * warp, nt_shared_address(q), nt_shared_address(dout));
}

/* ---- entries ---- */

#define NT_ATTN_BWD_SM90_KERNELS(d)                                                                                    \
    extern "C" __global__ void __launch_bounds__(NT_ATTN_BWD_SM90_THREADS, 1)                                          \
        nt_attention_bwd_sm90_keys_d##d(const __grid_constant__ struct nt_attn_bwd_launch a) {                         \
        nt_launch_begin();                                                                                             \
        keys_block<d>(a);                                                                                              \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(NT_ATTN_BWD_SM90_THREADS, 1)                                          \
        nt_attention_bwd_sm90_queries_d##d(const __grid_constant__ struct nt_attn_bwd_launch a) {                      \
        nt_launch_begin();                                                                                             \
        queries_block<d>(a);                                                                                           \
    }
NT_ATTN_BWD_SM90_WIDTHS(NT_ATTN_BWD_SM90_KERNELS)
