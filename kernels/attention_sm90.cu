/* Attention of prompts and chunks on compute capability 9.0: TMA, mbarriers and wgmma, warp-specialised, over a bf16
 * cache. Spec: ops.h; the tiles, the order of sums and the bits of attention.cu (attention_tile.cuh).
 *
 * Block (x, y) is a tile of 128 rows, as in attention.cu. One warp copies K and V of its pages into a ring of stages,
 * in the order in which they are needed: K of page 0, K of page 1, V of page 0, K of page 2, ... They come by TMA, but
 * for the first and the last page where some slots are seen by no row: by cp.async, which zero-fills those. Two
 * warpgroups have 64 rows each: q stays in registers as A fragments, K is a K-major operand, p becomes A fragments in
 * registers, V is turned by wgmma. While the softmax of a page runs, the product with V of the page before it does
 * (FlashAttention-3, Shah et al. 2024), and the other warpgroup has the tensor cores. Every warp goes over all pages of
 * the tile: what it does not see is masked, and changes no bit. A warpgroup without rows leaves at once.
 * Pages with NaN or Inf whose rows see different keys go by mma.sync as in attention.cu: products may not bring them to
 * rows that do not see them.
 * Layout: as attention.cu; a page in a stage lies in boxes of 64 columns, lines of 128 bytes with the 128-byte swizzle.
 * Registers (ptxas, no spills): 168 at launch; multiplying warpgroups take 232, the copying one keeps 40.
 * Roofline, prompt of n tokens, causal: 2 n^2 d n_head FLOP; bytes as attention.cu, 32 a cycle and multiprocessor from
 * L2 at the full rate. d 128: a page takes each warpgroup 512 cycles of the tensor cores, which read 64 of the 128 bytes
 * a cycle of shared memory, as q and p come from registers; a warp issues some 330 instructions for it, so two warps a
 * scheduler two thirds of its slots, and exponents take half of the time. A block alone on its multiprocessor has nothing
 * that hides its beginning and end. Expected, not measured: 45-55 % of the dense rate at d 128 for prompts of 2048 and
 * more (attention.cu on an H200: 25 %), 30-40 % at d 64, where instructions and exponents take longer than products. Heads
 * of 80 or 96 multiply zeros up to 128. */
#include "attention_prefill.cuh"
#include "attention_sm90_cuda.h"
#include "gemm_sm90_tile.cuh"

extern __shared__ __align__(1024) unsigned char nt_attention_sm90_shared[];

template <int D_> struct nt_attn_sm90_tile {
    enum {
        D = D_,
        BOXES = D / 64,
        STAGES = NT_ATTN_SM90_STAGES,
        STAGE_BYTES = NT_ATTN_SM90_STAGE(D),
        Q_AT = STAGES * STAGE_BYTES + NT_GEMM_SM90_BARRIERS,
        INFO_AT = Q_AT + NT_ATTN_SM90_ROWS * 2 * D,
        MULTIPLIERS = 4 * NT_ATTN_SM90_GROUPS, /* warps */
    };
    static_assert(nt_registers_suffice(NT_ATTN_SM90_GROUPS, 232, NT_ATTN_SM90_THREADS / 128 - NT_ATTN_SM90_GROUPS, 40),
                  "registers that others give back");
    static_assert(D % 64 == 0 && STAGE_BYTES % 1024 == 0, "whole boxes, which begin where swizzles do");
    static_assert(INFO_AT + NT_ATTN_TILE_BYTES == NT_ATTN_SM90_SHARED(D), "host and device agree");
};

/* ---- the copying warp ---- */

/* K or V of page `number` into the next stage; lo, hi: its first and last slot that some row sees. */
template <class T>
NT_DEVICE void copy_half(const struct nt_attention_sm90 &a, int32_t kv, uint32_t base, struct nt_sm90_place *p,
                         int64_t number, bool v, int32_t lo, int32_t hi) {
    const uint32_t to = base + (uint32_t)(p->stage * T::STAGE_BYTES), full = nt_sm90_full_at<T>(base, p->stage);
    nt_mbarrier_wait(nt_sm90_empty_at<T>(base, p->stage), p->phase ^ 1);
    if (lo > 0 || hi < NT_KV_PAGE - 1) {
        const unsigned char *head = a.l.cache + number * a.l.page_bytes + kv * a.l.head_bytes;
        nt_attn_copy_half<T::D, false, NT_WARP, true>(a.l, head, v, lo, hi, to, nt_lane());
        nt_cp_async_commit();
        nt_cp_async_wait<0>();
        nt_async_proxy_fence();
        __syncwarp();
        if (nt_elect()) nt_mbarrier_arrive(full);
    } else if (nt_elect()) {
        nt_mbarrier_arrive_expect(full, T::STAGE_BYTES);
#pragma unroll
        for (int i = 0; i < T::BOXES; i++)
            nt_tensor_copy_3d(to + i * NT_ATTN_BOX, &a.cache, 64 * i, (2 * kv + v) * NT_KV_PAGE, (int32_t)number, full);
    }
    __syncwarp();
    nt_sm90_next<T>(p);
}

template <class T>
NT_DEVICE void copy_pages(const struct nt_attention_sm90 &a, const struct nt_attn_block_info &info, uint32_t base) {
    const int32_t lo = info.all.first_lo, hi = info.all.last_hi, page0 = lo / NT_KV_PAGE, page1 = hi / NT_KV_PAGE;
    struct nt_attn_page_list list = {page0 - NT_WARP, page1, 0};
    struct nt_sm90_place p = {0, 0};
    int64_t before = 0;
#pragma unroll 1
    for (int32_t page = page0; page <= page1 + 1; page++) { /* K of this one, V of the one before */
        const int32_t at = page * NT_KV_PAGE;
        const int64_t number = page <= page1 ? nt_attn_page_number(list, info.tile.pages, page) : 0;
        if (page <= page1) copy_half<T>(a, info.tile.kv, base, &p, number, false, lo - at, hi - at);
        if (page > page0)
            copy_half<T>(a, info.tile.kv, base, &p, before, true, lo - at + NT_KV_PAGE, hi - at + NT_KV_PAGE);
        before = number;
    }
}

/* ---- the multiplying warpgroups ---- */

/* Of a warp. */
template <class T> struct nt_attn_sm90_rows {
    uint32_t base; /* of the stages */
    struct nt_sm90_place next;
    int32_t row0; /* in the tile */
    uint32_t q[T::D / 16][1][4];
    struct nt_attn_rows<T::D, 1> st;
    float s[1][8][4]; /* scores of a page, then what becomes p */
    uint32_t p[1][4][4];
};

template <class T> NT_DEVICE void wait_for(const struct nt_attn_sm90_rows<T> &r, struct nt_sm90_place p) {
    nt_mbarrier_wait(nt_sm90_full_at<T>(r.base, p.stage), p.phase);
}
/* s = q k^T is under way, as a group. */
template <class T> NT_DEVICE void multiply_keys(struct nt_attn_sm90_rows<T> &r, struct nt_sm90_place p) {
    const uint64_t k = nt_wgmma_tile(nt_sm90_stage_at<T>(r.base, p));
    wait_for<T>(r, p);
    nt_wgmma_fence();
#pragma unroll
    for (int i = 0; i < T::D / 16; i++)
        nt_wgmma_bf16_rs<NT_KV_PAGE>(&r.s[0][0][0], r.q[i][0], k + i / 4 * (NT_ATTN_BOX >> 4) + 2 * (i % 4), i > 0);
    nt_wgmma_commit();
}
/* o += p v is under way, as a group. */
template <class T> NT_DEVICE void multiply_values(struct nt_attn_sm90_rows<T> &r, struct nt_sm90_place p) {
    const uint64_t v = nt_wgmma_turned_tile(nt_sm90_stage_at<T>(r.base, p), NT_ATTN_BOX);
    wait_for<T>(r, p);
    nt_wgmma_fence();
#pragma unroll
    for (int i = 0; i < NT_KV_PAGE / 16; i++) nt_wgmma_bf16_rs<T::D, true>(&r.st.o[0][0][0], r.p[0][i], v + 128 * i, 1);
    nt_wgmma_commit();
}
/* The newest group but N are there: s, and with N = 0 o as well, whose stages have been read. */
template <class T, int N> NT_DEVICE void wait_products(struct nt_attn_sm90_rows<T> &r, struct nt_sm90_place p) {
    nt_wgmma_wait<N>();
    nt_wgmma_settle<NT_KV_PAGE / 2>(&r.s[0][0][0]);
    if (N == 0) nt_wgmma_settle<T::D / 2>(&r.st.o[0][0][0]);
    nt_sm90_give<T>(r.base, p);
}

NT_DEVICE bool sees_whole(const struct nt_attn_bounds &b, int32_t base) {
    return base + NT_KV_PAGE - 1 <= b.last_lo && base >= b.first_hi;
}

/* Has the page at position `base` NaN or Inf in V, and not all rows see it? A barrier of the warpgroup. */
template <class T>
NT_DEVICE bool is_apart(const struct nt_attn_sm90_rows<T> &r, const struct nt_attn_block_info &info,
                        struct nt_sm90_place p, int32_t base) {
    enum { THREADS = 4 * NT_WARP };
    const int32_t group = r.row0 / 64;
    if (sees_whole(info.part[group], base) || info.all.last_lo == info.all.last_hi) return false;
    wait_for<T>(r, p);
    const unsigned char *v = nt_attention_sm90_shared + p.stage * T::STAGE_BYTES;
    return nt_barrier_any(2 + group, THREADS, nt_attn_not_finite<T::D, THREADS>(v, (int32_t)threadIdx.x % THREADS));
}

/* o += p v of the page at position `base`, nothing else being under way. apart: wgmma would bring NaN and Inf to rows
 * that do not see them. */
template <class T>
NT_DEVICE void add_values(struct nt_attn_sm90_rows<T> &r, const struct nt_attn_block_info &info, int32_t span,
                          struct nt_sm90_place p, int32_t base, bool apart) {
    if (!apart) {
        multiply_values<T>(r, p);
        wait_products<T, 0>(r, p);
        return;
    }
    int32_t last[2];
    const unsigned char *v = nt_attention_sm90_shared + p.stage * T::STAGE_BYTES;
    nt_attn_last<1>(info.tile, r.row0, last);
    nt_attn_add_values<T::D, T::D, 1, false, true, true>(r.st, nt_shared_address(v), 0, r.p);
    nt_attn_add_not_finite<T::D, 1, true>(r.st, v, r.p, last, base, span);
    nt_sm90_give<T>(r.base, p);
}

/* s, the products of the page at `base`, becomes p; what nt_attn_weigh says. */
template <class T>
NT_DEVICE bool weigh(struct nt_attn_sm90_rows<T> &r, const struct nt_attn_launch &l,
                     const struct nt_attn_block_info &info, int32_t base, float alpha[2]) {
    nt_attn_scale<1, false>(r.s, l.scale_log2, NULL);
    if (!sees_whole(info.part[r.row0 / 64], base)) {
        int32_t last[2];
        nt_attn_last<1>(info.tile, r.row0, last);
        nt_attn_mask<1>(r.s, last, base, l.span);
    }
    return nt_attn_weigh<T::D, 1>(r.st, r.s, alpha);
}

/* All pages of the tile. */
template <class T>
NT_DEVICE void sum_pages(struct nt_attn_sm90_rows<T> &r, const struct nt_attn_launch &l,
                         const struct nt_attn_block_info &info) {
    const int32_t page0 = info.all.first_lo / NT_KV_PAGE, page1 = info.all.last_hi / NT_KV_PAGE;
    bool parked = false;
    float alpha[2];
    struct nt_sm90_place k = nt_sm90_take<T>(&r.next), v;
    nt_attn_reset(r.st);
    multiply_keys<T>(r, k);
    wait_products<T, 0>(r, k);
    (void)weigh<T>(r, l, info, page0 * NT_KV_PAGE, alpha); /* o is 0 */
    nt_attn_probabilities<1, false>(r.s, NULL, r.p);
#pragma unroll 1
    for (int32_t page = page0 + 1;; page++) { /* s and p of this one, o of the one before */
        const int32_t base = page * NT_KV_PAGE;
        const bool ends = page > page1, splits = ends || page % NT_ATTN_SPLIT_PAGES == 0;
        bool moved;
        if (!ends) k = nt_sm90_take<T>(&r.next);
        v = nt_sm90_take<T>(&r.next);
        const bool apart = is_apart<T>(r, info, v, base - NT_KV_PAGE);
        if (apart || splits) {
            add_values<T>(r, info, l.span, v, base - NT_KV_PAGE, apart);
            if (splits) nt_attn_end_split<T::D, 1, false>(l, info.tile, r.st, r.row0, parked, !ends);
            if (ends) break;
            parked |= splits;
            if (splits) nt_attn_reset(r.st);
            multiply_keys<T>(r, k);
            wait_products<T, 0>(r, k);
            moved = weigh<T>(r, l, info, base, alpha);
        } else {
            multiply_keys<T>(r, k);
            multiply_values<T>(r, v);
            wait_products<T, 1>(r, k);
            moved = weigh<T>(r, l, info, base, alpha);
            nt_wgmma_hold(fminf(r.st.sum[0], r.st.sum[1]));
            wait_products<T, 0>(r, v);
        }
        if (moved) nt_attn_bring_along<T::D, 1>(r.st, alpha);
        nt_attn_probabilities<1, false>(r.s, NULL, r.p);
    }
}

/* A warp's rows; own: those of q, where the output is put together. */
template <class T>
NT_DEVICE void multiply_rows(const struct nt_attn_launch &l, const struct nt_attn_block_info &info, uint32_t base,
                             int32_t row0, unsigned char *own) {
    struct nt_attn_sm90_rows<T> r;
    r.base = base;
    r.next = {0, 0};
    r.row0 = row0;
#pragma unroll
    for (int i = 0; i < T::D / 16; i++) nt_attn_load_rows<T::D, 1>(nt_shared_address(own), i, r.q[i]);
    sum_pages<T>(r, l, info);
    if (l.lse) nt_attn_write_lse<T::D, 1>(l, info.tile, r.st, row0);
    __syncwarp();
    nt_attn_stage_out<T::D, T::D, 1, false>(r.st, own, 0);
    __syncwarp();
    nt_attn_send_out<T::D, NT_WARP>(l, info.tile, own, info.tile.row0 + row0, min(max(info.tile.n_row - row0, 0), 16),
                                    nt_lane());
}

template <int D> NT_DEVICE void attention(const struct nt_attention_sm90 &a) {
    using T = nt_attn_sm90_tile<D>;
    unsigned char *shared = nt_attention_sm90_shared, *q = shared + T::Q_AT;
    struct nt_attn_block_info &info = *(struct nt_attn_block_info *)(shared + T::INFO_AT);
    const uint32_t base = nt_shared_address(shared);
    const int32_t warp = __shfl_sync(NT_ALL_LANES, nt_warp(), 0); /* the compiler sees that a warp takes one way */
    struct nt_attn_tile found;
    if (!nt_attn_find_block(a.l, NT_ATTN_SM90_ROWS, &found)) return;
    nt_attn_publish(a.l, found, 4 * NT_WARP, 64, info);
    if (threadIdx.x == 0) {
        nt_tensor_map_prefetch(&a.cache);
        nt_sm90_init_ring<T>(base, 1, found.n_row > 64 ? T::MULTIPLIERS : 4);
    }
    __syncthreads();
    if (warp >= T::MULTIPLIERS) {
        nt_registers_lower<40>();
        if (warp == T::MULTIPLIERS) copy_pages<T>(a, info, base);
        return;
    }
    nt_registers_raise<232>();
    nt_attn_load_q<D, false, NT_ATTN_SM90_ROWS, NT_WARP * T::MULTIPLIERS>(a.l, info.tile, q);
    nt_barrier(1, NT_WARP * T::MULTIPLIERS);
    if (warp / 4 * 64 < info.tile.n_row) multiply_rows<T>(a.l, info, base, 16 * warp, q + 16 * warp * 2 * D);
}

#define NT_ATTN_SM90_KERNEL(d)                                                                                         \
    extern "C" __global__ void __launch_bounds__(NT_ATTN_SM90_THREADS, 1)                                              \
        nt_attention_sm90_d##d(const __grid_constant__ struct nt_attention_sm90 a) {                                   \
        nt_launch_begin();                                                                                             \
        attention<d>(a);                                                                                               \
    }
NT_ATTN_SM90_WIDTHS(NT_ATTN_SM90_KERNEL)
