/* Attention of prompts and chunks: variable-length, causal, over the paged cache (attention_tile.cuh has the design).
 *
 * Block (x, y): tile x, counted from the last, of sequence y. A tile is 128 rows (64 at d 256) of one KV head's group,
 * token-major; 4 warps of 32 (16) rows share every page. Tiles are launched for the bound max_q; those a sequence does
 * not have leave at once, and the longest ones come first. A row's state is parked in the workspace between splits.
 * Layout: q [n_tok, n_head, d_pad]; cache ROWS or ROWS_INT8; out [n_tok, ldo].
 * Roofline, prompt of n tokens, d 128, causal: 2 n^2 d n_head FLOP. Bytes: q and out 4 n d n_head; K and V from L2,
 * n / 2 keys per tile of 128 rows: 64 FLOP a byte for a head (128 rows share a page of 32 KB: 128 FLOP a byte where the
 * page is full). HBM is no limit; the tensor cores are. Shared memory: a B fragment serves 2 mma (32 rows a warp), half
 * of what 16 rows would read: 64 of 128 B a clock on A100. Expected 60-65 % of the A100 bf16 rate (2 blocks an SM, so
 * that one computes exponents while the other multiplies), 40-45 % of H100's, whose full rate needs wgmma.
 * Parking: 8 (d_pad + 2) bytes a row and split, under 1/4 of the L2 traffic of its 8 pages.
 * Budget: 128 threads, at most 255 registers, no spills, 2 blocks an SM. */
#include "attention_tile.cuh"

extern __shared__ __align__(128) unsigned char nt_attention_shared[];

template <int D, bool INT8> NT_DEVICE void nt_attn_prefill(const struct nt_attn_launch &a) {
    constexpr int mt = D <= 128 ? 2 : 1, rows = NT_ATTN_PREFILL_WARPS * 16 * mt;
    struct nt_attn_tile t;
    const int32_t seq = (int32_t)blockIdx.y, index = (int32_t)(gridDim.x - 1 - blockIdx.x);
    if (!nt_attn_find_tile(a, seq, -1, index, rows, &t)) return;
    const int32_t tok = t.q_row + t.row0 / t.group;
    if (tok < a.tok_begin || tok >= a.tok_end) return;
    nt_attn_block<D, mt, NT_ATTN_PREFILL_WARPS, NT_ATTN_PREFILL_HALVES(D), INT8, false>(a, t, seq, 0,
                                                                                        nt_attention_shared);
}

#define NT_ATTN_THREADS (NT_ATTN_PREFILL_WARPS * NT_WARP)

extern "C" __global__ void __launch_bounds__(NT_ATTN_THREADS, 2) nt_attention_d64(const struct nt_attn_launch a) {
    nt_attn_prefill<64, false>(a);
}
extern "C" __global__ void __launch_bounds__(NT_ATTN_THREADS, 2) nt_attention_d96(const struct nt_attn_launch a) {
    nt_attn_prefill<96, false>(a);
}
extern "C" __global__ void __launch_bounds__(NT_ATTN_THREADS, 2) nt_attention_d128(const struct nt_attn_launch a) {
    nt_attn_prefill<128, false>(a);
}
extern "C" __global__ void __launch_bounds__(NT_ATTN_THREADS, 2) nt_attention_d256(const struct nt_attn_launch a) {
    nt_attn_prefill<256, false>(a);
}
extern "C" __global__ void __launch_bounds__(NT_ATTN_THREADS, 2) nt_attention_int8_d64(const struct nt_attn_launch a) {
    nt_attn_prefill<64, true>(a);
}
extern "C" __global__ void __launch_bounds__(NT_ATTN_THREADS, 2) nt_attention_int8_d96(const struct nt_attn_launch a) {
    nt_attn_prefill<96, true>(a);
}
extern "C" __global__ void __launch_bounds__(NT_ATTN_THREADS, 2) nt_attention_int8_d128(const struct nt_attn_launch a) {
    nt_attn_prefill<128, true>(a);
}
extern "C" __global__ void __launch_bounds__(NT_ATTN_THREADS, 2) nt_attention_int8_d256(const struct nt_attn_launch a) {
    nt_attn_prefill<256, true>(a);
}
