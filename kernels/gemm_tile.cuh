/* A tile of y = x w^T on tensor cores: stages of x and w in shared memory by cp.async, ldmatrix, mma.m16n8k16.
 *
 * Shared memory: a stage holds ROWS lines of x, then COLS lines of w, each DEPTH elements, in 16-byte chunks. Chunk c of
 * line r lies at chunk c ^ (r & 7) of 128-byte lines, c ^ (r >> 1 & 3) of 64-byte lines: the 8 rows of an ldmatrix and
 * the chunks of a copy touch all banks once.
 * Pipeline: STAGES - 1 stages are under way; one barrier per stage says both that the next stage has arrived and that
 * nobody reads the slot filled next. Fragments are loaded one step ahead of their mma, across stages too.
 * Order of sums: k in steps of 16 ascending, one accumulator per element; the padding of k adds products with zeros.
 * Rows of x that are not 16-byte aligned go through registers (`aligned` false): same bits, slower. */
#ifndef NT_GEMM_TILE_CUH
#define NT_GEMM_TILE_CUH

#include "gemm_cuda.h"
#include "ptx.cuh"

template <int ROWS_, int COLS_, int DEPTH_, int STAGES_, int WARPS_M_, int WARPS_N_> struct nt_gemm_tile {
    enum {
        ROWS = ROWS_,
        COLS = COLS_,
        DEPTH = DEPTH_,
        STAGES = STAGES_,
        WARPS_M = WARPS_M_,
        WARPS_N = WARPS_N_,
        THREADS = WARPS_M * WARPS_N * NT_WARP,
        LINE = DEPTH * 2,     /* bytes */
        CHUNKS = LINE / 16,
        STEPS = DEPTH / 16,
        WARP_ROWS = ROWS / WARPS_M,
        WARP_COLS = COLS / WARPS_N,
        M = WARP_ROWS / 16, /* mma tiles of a warp */
        N = WARP_COLS / 8,
        STAGE_BYTES = (ROWS + COLS) * LINE,
        PASS_ROWS = THREADS / CHUNKS, /* lines copied by one instruction of every thread */
    };
    static_assert(DEPTH == 32 || DEPTH == 64, "a line is 64 or 128 bytes: the swizzle");
    static_assert(STEPS % 2 == 0, "two sets of fragments take turns");
    static_assert(WARP_ROWS % 16 == 0 && WARP_COLS % NT_PANEL == 0, "whole mma tiles, gate and up in one warp");
    static_assert(THREADS % CHUNKS == 0 && ROWS % PASS_ROWS == 0 && COLS % PASS_ROWS == 0, "no thread is left out");
    static_assert(STAGES >= 2, "one stage is filled while another is read");
};

template <class T> struct nt_gemm_fragments {
    uint32_t x[T::M][4];
    uint32_t w[T::N / 2][4]; /* of a pair of mma tiles: k 0-7 and 8-15 of the first, of the second */
};

template <class T> NT_DEVICE uint32_t nt_gemm_chunk_at(int32_t row, int32_t chunk) {
    return (uint32_t)(row * T::LINE + ((chunk ^ (T::CHUNKS == 8 ? row & 7 : row >> 1 & 3)) << 4));
}

/* Bytes of the chunk at column col that lie before column end. */
NT_DEVICE int nt_gemm_bytes_before(int32_t col, int32_t end) {
    const int left = 2 * (end - col);
    return left < 0 ? 0 : left < 16 ? left : 16;
}

/* Starts the copies of x for stage kt into the slot at `to`; k and ldx are even, so pairs are whole. */
template <class T>
NT_DEVICE void nt_gemm_load_x(const struct nt_gemm_cuda *a, char *to, int32_t m0, int32_t kt, bool aligned) {
    const int32_t line = (int32_t)threadIdx.x / T::CHUNKS, chunk = (int32_t)threadIdx.x % T::CHUNKS;
    const int32_t col = kt * T::DEPTH + 8 * chunk;
    const int left = nt_gemm_bytes_before(col, a->k);
#pragma unroll
    for (int i = 0; i < T::ROWS / T::PASS_ROWS; i++) {
        const int32_t row = line + i * T::PASS_ROWS;
        const int bytes = m0 + row < a->n_tok ? left : 0;
        const nt_bf16 *from = bytes > 0 ? a->x + (m0 + row) * a->ldx + col : a->x;
        const uint32_t at = nt_gemm_chunk_at<T>(row, chunk);
        if (aligned) {
            nt_cp_async_16_zfill(nt_shared_address(to) + at, from, bytes);
        } else {
            uint32_t pair[4];
#pragma unroll
            for (int j = 0; j < 4; j++) pair[j] = 4 * j < bytes ? ((const uint32_t *)from)[j] : 0;
            nt_store128(to + at, make_uint4(pair[0], pair[1], pair[2], pair[3]));
        }
    }
}

template <class T> NT_DEVICE void nt_gemm_load_w(const struct nt_gemm_cuda *a, char *to, int32_t n0, int32_t kt) {
    const int32_t line = (int32_t)threadIdx.x / T::CHUNKS, chunk = (int32_t)threadIdx.x % T::CHUNKS;
    const int32_t col = kt * T::DEPTH + 8 * chunk;
#pragma unroll
    for (int i = 0; i < T::COLS / T::PASS_ROWS; i++) {
        const int32_t row = line + i * T::PASS_ROWS;
        const bool inside = n0 + row < a->n_pad && col < a->k_pad;
        const nt_bf16 *from = inside ? a->w + (int64_t)(n0 + row) * a->k_pad + col : a->w;
        nt_cp_async_16_zfill(nt_shared_address(to) + nt_gemm_chunk_at<T>(row, chunk), from, inside ? 16 : 0);
    }
}

template <class T>
NT_DEVICE void nt_gemm_fragments_of(struct nt_gemm_fragments<T> *f, uint32_t stage, int32_t row0, int32_t col0, int step) {
    const int32_t lane = nt_lane();
#pragma unroll
    for (int m = 0; m < T::M; m++)
        nt_ldmatrix_x4(f->x[m], stage + nt_gemm_chunk_at<T>(row0 + m * 16 + (lane & 15), 2 * step + (lane >> 4)));
    const uint32_t w_tile = stage + T::ROWS * T::LINE;
#pragma unroll
    for (int n = 0; n < T::N / 2; n++)
        nt_ldmatrix_x4(f->w[n], w_tile + nt_gemm_chunk_at<T>(col0 + n * 16 + (lane >> 4) * 8 + (lane & 7),
                                                             2 * step + (lane >> 3 & 1)));
}

template <class T> NT_DEVICE void nt_gemm_multiply(float acc[T::M][T::N][4], const struct nt_gemm_fragments<T> *f) {
#pragma unroll
    for (int m = 0; m < T::M; m++)
#pragma unroll
        for (int n = 0; n < T::N; n++)
            nt_mma_bf16(acc[m][n], f->x[m], f->w[n / 2][2 * (n % 2)], f->w[n / 2][2 * (n % 2) + 1]);
}

/* The tile of this block, counted in tiles: NT_GEMM_GROUP row tiles pass over the columns together. */
NT_DEVICE void nt_gemm_place(const struct nt_gemm_cuda *a, int32_t *row_tile, int32_t *col_tile) {
    const int32_t per_group = NT_GEMM_GROUP * a->col_tiles, block = (int32_t)blockIdx.x;
    const int32_t first = block / per_group * NT_GEMM_GROUP, in_group = block % per_group;
    const int32_t rows = min(NT_GEMM_GROUP, a->row_tiles - first);
    *row_tile = first + in_group % rows;
    *col_tile = in_group / rows;
}

/* acc = the sums of this warp's part of the tile at row m0, column n0. */
template <class T>
NT_DEVICE void nt_gemm_main_loop(const struct nt_gemm_cuda *a, char *stages, int32_t m0, int32_t n0,
                                 float acc[T::M][T::N][4]) {
    const int32_t row0 = nt_warp() % T::WARPS_M * T::WARP_ROWS, col0 = nt_warp() / T::WARPS_M * T::WARP_COLS;
    const int32_t n_k = (a->k + T::DEPTH - 1) / T::DEPTH;
    const bool aligned = a->ldx % 8 == 0 && nt_is_aligned16(a->x);
    const uint32_t base = nt_shared_address(stages);
#pragma unroll
    for (int32_t kt = 0; kt < T::STAGES - 1; kt++) {
        char *slot = stages + kt * T::STAGE_BYTES;
        if (kt < n_k) {
            nt_gemm_load_x<T>(a, slot, m0, kt, aligned);
            nt_gemm_load_w<T>(a, slot + T::ROWS * T::LINE, n0, kt);
        }
        nt_cp_async_commit();
    }
    struct nt_gemm_fragments<T> f[2];
    nt_cp_async_wait<T::STAGES - 2>();
    __syncthreads();
    nt_gemm_fragments_of<T>(&f[0], base, row0, col0, 0);
    int32_t read = 0, fill = T::STAGES - 1; /* slots */
    for (int32_t kt = 0; kt < n_k; kt++) {
        const int32_t next = read + 1 == T::STAGES ? 0 : read + 1;
#pragma unroll
        for (int s = 0; s < T::STEPS; s++) {
            if (s + 1 < T::STEPS) {
                nt_gemm_fragments_of<T>(&f[(s + 1) & 1], base + (uint32_t)(read * T::STAGE_BYTES), row0, col0, s + 1);
            } else if (kt + 1 < n_k) {
                nt_cp_async_wait<T::STAGES - 2>();
                __syncthreads(); /* stage kt + 1 is there for all; all have taken their fragments of stage kt */
                nt_gemm_fragments_of<T>(&f[0], base + (uint32_t)(next * T::STAGE_BYTES), row0, col0, 0);
            }
            if (s == 0) {
                const int32_t ahead = kt + T::STAGES - 1;
                char *slot = stages + fill * T::STAGE_BYTES;
                if (ahead < n_k) {
                    nt_gemm_load_x<T>(a, slot, m0, ahead, aligned);
                    nt_gemm_load_w<T>(a, slot + T::ROWS * T::LINE, n0, ahead);
                }
                nt_cp_async_commit();
            }
            nt_gemm_multiply<T>(acc, &f[s & 1]);
        }
        fill = read;
        read = next;
    }
}

#endif
