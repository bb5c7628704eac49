/* Trained f32 numbers, rounded to bf16, into the rows that the products read: nt_pack_rows (x as it lies),
 * nt_pack_turned (x [inputs, outputs]), nt_pack_vector (f32 numbers to their places).
 *
 * Rows: a warp takes a piece of a row, up to 512 columns, a lane four quads of it: a float4 in, 8 bytes out to w, to
 * the table, or both. Pieces of a row are equally long, so that few lanes idle whatever the width.
 * Turned: a block takes 64 outputs by 64 inputs. A warp reads four neighbours of 16 quads of two pairs of inputs, 256
 * bytes in a row, and puts bf16 pairs of inputs into shared memory, 32 words to an output; then eight lanes write the
 * 128 bytes of an output. Word (j, i) lies at i ^ 2 (j / 4) of its row: the 32 lanes of a store have 16 values of j / 4
 * and two neighbouring i, one bank each; a quad of words stays a quad (its halves swapped where j / 4 is odd), so the
 * eight lanes of a row read different quads.
 * Layout: x [n, k] or [k, n] f32; w rows of ld bf16, output j in row place(j); table [n, k] bf16; vector f32. Columns
 * or addresses that do not suit vectors go element by element.
 * Roofline: bandwidth. 6 bytes per number, 8 with the table (4 read), 1 FLOP and about 3 instructions: expected 85 % of
 * copy bandwidth for rows, 80 % turned, behind one barrier (8 blocks of an SM overlap them). The matrices of an adapter
 * (10^5 numbers) are as long as their launches: 2 us each. */
#include "pack_cuda.h"
#include "cuda_rows.cuh"
#include "ptx.cuh"

NT_DEVICE int64_t place(const struct nt_pack_cuda *a, int32_t j) {
    return a->row0 + (a->run == 0 ? j : (int64_t)(j / a->run) * 2 * a->run + j % a->run);
}

/* ---- as they lie ---- */

NT_DEVICE float4 scaled(float4 x, float scale) {
    return make_float4(__fmul_rn(x.x, scale), __fmul_rn(x.y, scale), __fmul_rn(x.z, scale), __fmul_rn(x.w, scale));
}

template <bool WIDE> NT_DEVICE void pack_piece(const struct nt_pack_cuda *a, int32_t j, int32_t begin, int32_t end) {
    const float *from = a->x + (int64_t)j * a->k;
    nt_bf16 *row = a->w ? a->w + place(a, j) * a->ld : NULL, *table = a->table ? a->table + (int64_t)j * a->k : NULL;
    float4 x[NT_PACK_QUADS];
#pragma unroll
    for (int q = 0; q < NT_PACK_QUADS; q++) {
        const int32_t i = begin + 4 * (q * NT_WARP + nt_lane());
        x[q] = nt_load_quad<WIDE>(from + i, end - i);
    }
#pragma unroll
    for (int q = 0; q < NT_PACK_QUADS; q++) {
        const int32_t i = begin + 4 * (q * NT_WARP + nt_lane());
        const float4 y = scaled(x[q], a->scale);
        if (row) nt_store_quad_bf16<WIDE>(row + i, end - i, y);
        if (table) nt_store_quad_bf16<WIDE>(table + i, end - i, y);
    }
}

extern "C" __global__ void __launch_bounds__(NT_PACK_THREADS) nt_pack_rows(const struct nt_pack_cuda a) {
    nt_launch_begin();
    const int64_t piece = (int64_t)blockIdx.x * NT_PACK_WARPS + nt_warp();
    const int32_t j = (int32_t)(piece / a.across), begin = (int32_t)(piece % a.across) * a.width;
    if (j >= a.n) return;
    if (a.wide_x && a.wide_w)
        pack_piece<true>(&a, j, begin, min(begin + a.width, a.k));
    else
        pack_piece<false>(&a, j, begin, min(begin + a.width, a.k));
}

/* ---- turned ---- */

enum { TILE = NT_PACK_TILE, WORDS = TILE / 2, QUADS = TILE / 4, EIGHTS = TILE / 8 };
static_assert(WORDS == NT_WARP, "a row of the tile has each bank once");
static_assert(NT_PACK_THREADS % QUADS == 0 && NT_PACK_THREADS / QUADS <= WORDS, "threads have whole pairs");

NT_DEVICE int32_t turn_of(int32_t j) {
    return j / 4 * 2 & (WORDS - 1);
}

/* Two inputs of four outputs a time. */
template <bool WIDE> NT_DEVICE void fill_tile(const struct nt_pack_cuda *a, int32_t j0, int32_t i0, uint32_t *tile) {
    const int32_t j = 4 * ((int32_t)threadIdx.x % QUADS), left = a->n - j0 - j;
#pragma unroll
    for (int32_t pass = 0; pass < WORDS; pass += NT_PACK_THREADS / QUADS) {
        const int32_t pair = pass + (int32_t)threadIdx.x / QUADS, i = i0 + 2 * pair;
        const float *x = a->x + (int64_t)i * a->n + j0 + j;
        const float4 u = scaled(nt_load_quad<WIDE>(x, i < a->k ? left : 0), a->scale);
        const float4 v = scaled(nt_load_quad<WIDE>(x + a->n, i + 1 < a->k ? left : 0), a->scale);
        const uint32_t word[4] = {nt_bf16_pack(u.x, v.x), nt_bf16_pack(u.y, v.y), nt_bf16_pack(u.z, v.z),
                                  nt_bf16_pack(u.w, v.w)};
#pragma unroll
        for (int q = 0; q < 4; q++) tile[(j + q) * WORDS + (pair ^ turn_of(j))] = word[q];
    }
}

/* Eight inputs of an output a time. */
NT_DEVICE void empty_tile(const struct nt_pack_cuda *a, int32_t j0, int32_t i0, const uint32_t *tile) {
    const int32_t eight = (int32_t)threadIdx.x % EIGHTS, i = i0 + 8 * eight;
#pragma unroll
    for (int32_t pass = 0; pass < TILE; pass += NT_PACK_THREADS / EIGHTS) {
        const int32_t j = pass + (int32_t)threadIdx.x / EIGHTS, turn = turn_of(j);
        if (j0 + j >= a->n || i >= a->k) continue;
        const uint4 t = nt_load128(tile + j * WORDS + (4 * eight ^ (turn & ~3)));
        const uint4 x = turn & 2 ? make_uint4(t.z, t.w, t.x, t.y) : t;
        nt_bf16 *to = a->w + place(a, j0 + j) * a->ld + i;
        const uint32_t word[4] = {x.x, x.y, x.z, x.w};
        if (a->wide_w && i + 8 <= a->k) {
            nt_store128_whole(to, x);
            continue;
        }
#pragma unroll
        for (int k = 0; k < 8; k++)
            if (i + k < a->k) to[k] = (nt_bf16)(word[k / 2] >> 16 * (k % 2));
    }
}

extern "C" __global__ void __launch_bounds__(NT_PACK_THREADS) nt_pack_turned(const struct nt_pack_cuda a) {
    nt_launch_begin();
    __shared__ __align__(16) uint32_t tile[TILE * WORDS];
    const int32_t j0 = (int32_t)blockIdx.x * TILE, i0 = (int32_t)blockIdx.y * TILE;
    if (a.wide_x)
        fill_tile<true>(&a, j0, i0, tile);
    else
        fill_tile<false>(&a, j0, i0, tile);
    __syncthreads();
    empty_tile(&a, j0, i0, tile);
}

/* ---- vectors ---- */

extern "C" __global__ void __launch_bounds__(NT_PACK_THREADS) nt_pack_vector(const struct nt_pack_cuda a) {
    nt_launch_begin();
    const int64_t j = (int64_t)blockIdx.x * NT_PACK_THREADS + threadIdx.x;
    if (j < a.n) a.vector[place(&a, (int32_t)j)] = a.x[j];
}
