/* Attention of prompts and chunks: variable-length, causal, over the paged cache (attention_tile.cuh has the design).
 *
 * Block (x, y): tile x, the longest first, of sequence y. A tile is 128 rows (64 at d 256) of one KV head's group,
 * token-major; 4 warps of 32 (16) rows share every page. Tiles are launched for the bounds max_q and max_group; those a
 * sequence does not have leave at once. A row's state is parked in the workspace between splits.
 * Layout: q [n_tok, n_head, d_pad]; cache ROWS or ROWS_INT8; out [n_tok, ldo].
 * Roofline, prompt of n tokens, d 128, causal: 2 n^2 d n_head FLOP. Bytes: q and out 4 n d n_head; K and V from L2,
 * n / 2 keys per tile of 128 rows: 64 FLOP a byte for a head (128 rows share a page of 32 KB: 128 FLOP a byte where the
 * page is full). HBM is no limit; the tensor cores are. Shared memory: a B fragment serves 2 mma (32 rows a warp), half
 * of what 16 rows would read: 64 of 128 B a clock on A100. Expected 60-65 % of the A100 bf16 rate (2 blocks an SM, so
 * that one computes exponents while the other multiplies), 40-45 % of H100's, whose full rate needs wgmma (an H200
 * reached 25 %; attention_sm90.cu takes heads of up to 128 over a bf16 cache there).
 * Parking: 8 (d_pad + 2) bytes a row and split, under 1/4 of the L2 traffic of its 8 pages.
 * Budget: 128 threads, at most 255 registers, no spills, 2 blocks an SM. */
#include "attention_prefill.cuh"

extern __shared__ __align__(128) unsigned char nt_attention_shared[];

/* ---- the block ---- */

/* The whole tile. */
template <int D, int MT, bool INT8>
NT_DEVICE void nt_attn_block(const struct nt_attn_launch &a, const struct nt_attn_tile &found, unsigned char *shared) {
    constexpr int rows_warp = 16 * MT, rows = NT_ATTN_PREFILL_WARPS * rows_warp,
                  threads = NT_ATTN_PREFILL_WARPS * NT_WARP;
    constexpr int halves = NT_ATTN_PREFILL_HALVES(D), ring_at = rows * 2 * D;
    struct nt_attn_ring<D, INT8, threads, halves, false> ring;
    constexpr int info_at = ring_at + halves * ring.half;
    static_assert(D % 32 == 0, "V of int8 is loaded 32 columns at a time");
    static_assert(info_at + NT_ATTN_TILE_BYTES == NT_ATTN_SHARED(D, rows, halves, INT8), "host and device agree");
    struct nt_attn_block_info &info = *(struct nt_attn_block_info *)(shared + info_at);
    const struct nt_attn_tile &t = info.tile;
    const struct nt_attn_bounds &all = info.all, &mine = info.part[nt_warp()];
    const int32_t warp_row = nt_warp() * rows_warp;
    nt_attn_publish(a, found, NT_WARP, rows_warp, info);
    __syncthreads();
    const int32_t warp_rows = min(max(t.n_row - warp_row, 0), rows_warp);
    const int32_t page0 = all.first_lo / NT_KV_PAGE, page1 = all.last_hi / NT_KV_PAGE; /* inclusive */
    unsigned char *own = shared + warp_row * 2 * D;
    nt_attn_begin(ring, a, t, shared + ring_at, page0, page1, all.first_lo, all.last_hi);
    nt_attn_load_q<D, INT8, rows, threads>(a, t, shared);

    struct nt_attn_rows<D, MT> st;
    nt_attn_reset(st);
    bool parked = false;
#pragma unroll 1
    for (int32_t page = page0; page <= page1; page++) {
        const int32_t base = page * NT_KV_PAGE;
        const unsigned char *k = nt_attn_next(ring, a, t, all.first_lo, all.last_hi);
        const bool sees = warp_rows > 0 && base <= mine.last_hi && base + NT_KV_PAGE > mine.first_lo;
        const bool full = base + NT_KV_PAGE - 1 <= mine.last_lo && base >= mine.first_hi;
        uint32_t p[MT][4][4];
        if (sees) {
            const float *scales = (const float *)(k + ring.values); /* of K, then of V */
            float s[MT][8][4];
            nt_attn_dots<D, MT, INT8>(nt_shared_address(own), nt_shared_address(k), s);
            nt_attn_scale<MT, INT8>(s, a.scale_log2, scales);
            if (!full) {
                int32_t last[2 * MT];
                nt_attn_last<MT>(t, warp_row, last);
                nt_attn_mask<MT>(s, last, base, a.span);
            }
            nt_attn_softmax<D, MT>(st, s);
            nt_attn_probabilities<MT, INT8>(s, scales + NT_KV_PAGE, p);
        }
        const unsigned char *v = nt_attn_next(ring, a, t, all.first_lo, all.last_hi);
        if (sees) {
            if (!INT8 && !full && all.last_lo != all.last_hi &&
                __any_sync(NT_ALL_LANES, nt_attn_not_finite<D, NT_WARP>(v, nt_lane()))) {
                int32_t last[2 * MT];
                nt_attn_last<MT>(t, warp_row, last);
                nt_attn_add_values<D, D, MT, false, true>(st, nt_shared_address(v), 0, p);
                nt_attn_add_not_finite<D, MT>(st, v, p, last, base, a.span);
            } else {
                nt_attn_add_values<D, D, MT, INT8, false>(st, nt_shared_address(v), 0, p);
            }
        }
        const bool ends = page == page1;
        if (!(ends || page % NT_ATTN_SPLIT_PAGES == NT_ATTN_SPLIT_PAGES - 1)) continue;
        nt_attn_end_split<D, MT, INT8>(a, t, st, warp_row, parked, !ends);
        parked = true;
        if (!ends) nt_attn_reset(st);
    }
    nt_cp_async_wait<0>();
    if (a.lse) nt_attn_write_lse<D, MT>(a, t, st, warp_row);
    __syncwarp();
    nt_attn_stage_out<D, D, MT, INT8>(st, own, 0);
    __syncwarp();
    nt_attn_send_out<D, NT_WARP>(a, t, own, t.row0 + warp_row, warp_rows, nt_lane());
}

template <int D, bool INT8> NT_DEVICE void nt_attn_prefill(const struct nt_attn_launch &a) {
    constexpr int mt = D <= 128 ? 2 : 1, rows = NT_ATTN_PREFILL_WARPS * 16 * mt;
    struct nt_attn_tile t;
    if (!nt_attn_find_block(a, rows, &t)) return;
    nt_attn_block<D, mt, INT8>(a, t, nt_attention_shared);
}

#define NT_ATTN_THREADS (NT_ATTN_PREFILL_WARPS * NT_WARP)

extern "C" __global__ void __launch_bounds__(NT_ATTN_THREADS, 2) nt_attention_d64(const struct nt_attn_launch a) {
    nt_launch_begin();
    nt_attn_prefill<64, false>(a);
}
extern "C" __global__ void __launch_bounds__(NT_ATTN_THREADS, 2) nt_attention_d96(const struct nt_attn_launch a) {
    nt_launch_begin();
    nt_attn_prefill<96, false>(a);
}
extern "C" __global__ void __launch_bounds__(NT_ATTN_THREADS, 2) nt_attention_d128(const struct nt_attn_launch a) {
    nt_launch_begin();
    nt_attn_prefill<128, false>(a);
}
extern "C" __global__ void __launch_bounds__(NT_ATTN_THREADS, 2) nt_attention_d256(const struct nt_attn_launch a) {
    nt_launch_begin();
    nt_attn_prefill<256, false>(a);
}
extern "C" __global__ void __launch_bounds__(NT_ATTN_THREADS, 2) nt_attention_int8_d64(const struct nt_attn_launch a) {
    nt_launch_begin();
    nt_attn_prefill<64, true>(a);
}
extern "C" __global__ void __launch_bounds__(NT_ATTN_THREADS, 2) nt_attention_int8_d96(const struct nt_attn_launch a) {
    nt_launch_begin();
    nt_attn_prefill<96, true>(a);
}
extern "C" __global__ void __launch_bounds__(NT_ATTN_THREADS, 2) nt_attention_int8_d128(const struct nt_attn_launch a) {
    nt_launch_begin();
    nt_attn_prefill<128, true>(a);
}
extern "C" __global__ void __launch_bounds__(NT_ATTN_THREADS, 2) nt_attention_int8_d256(const struct nt_attn_launch a) {
    nt_launch_begin();
    nt_attn_prefill<256, true>(a);
}
