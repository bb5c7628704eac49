/* A tile of y = x w^T on tensor cores: stages of x and w in shared memory by cp.async, ldmatrix, mma.m16n8k16.
 *
 * Shared memory: a stage holds ROWS lines of x, then COLS lines of w, each DEPTH elements, in 16-byte chunks. Chunk c
 * of line r lies at chunk c ^ (r & 7) of lines of 128 bytes and more, c ^ (r >> 1 & 3) of 64-byte lines: the 8 rows of an
 * ldmatrix and the chunks of a copy touch all banks once.
 * Pipeline: STAGES - 1 stages are under way; one barrier per stage says both that the next stage has arrived and that
 * nobody reads the slot filled next. Fragments are loaded one step ahead of their mma, across stages too.
 * Order of sums: k in steps of 16 ascending, one accumulator per element; the padding of k adds products with zeros.
 * With an adapter the stages of x2 and w2 follow those of x and w, into the same accumulators.
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
    static_assert(PASS_ROWS % 8 == 0 || (CHUNKS == 8 && 8 % PASS_ROWS == 0), "the swizzle of a pass is a constant");
    static_assert(ROWS / PASS_ROWS <= 32 && COLS / PASS_ROWS <= 32, "a bit per line");
    static_assert(STAGES >= 2, "one stage is filled while another is read");
};

template <class T> struct nt_gemm_fragments {
    uint32_t x[T::M][4];
    uint32_t w[T::N / 2][4]; /* of a pair of mma tiles: k 0-7 and 8-15 of the first, of the second */
};

template <class T> NT_DEVICE uint32_t nt_gemm_chunk_at(int32_t row, int32_t chunk) {
    const int32_t swizzle = T::CHUNKS >= 8 ? row & 7 : T::CHUNKS == 4 ? row >> 1 & 3 : row >> 2 & 1;
    return (uint32_t)(row * T::LINE + ((chunk ^ swizzle) << 4));
}

/* Bytes of the chunk at column col that lie before column end. */
NT_DEVICE int nt_gemm_bytes_before(int32_t col, int32_t end) {
    const int left = 2 * (end - col);
    return left < 0 ? 0 : left < 16 ? left : 16;
}

/* What a thread copies of x or of w: its chunk of every PASS_ROWS-th line, from stage to stage. */
struct nt_gemm_copier {
    const char *from; /* first line, next stage */
    int64_t pass;     /* bytes from one of its lines to the next */
    uint32_t to;      /* offset of the first chunk in a slot */
    uint32_t lines;   /* bit i: line i exists; others become zeros */
    int32_t col, end; /* of the next stage; columns at or after end become zeros */
};

/* matrix [rows, ld] from line row0 on; the part of a slot at `to`. */
template <class T>
NT_DEVICE struct nt_gemm_copier nt_gemm_copier_of(const nt_bf16 *matrix, int64_t ld, int32_t row0, int32_t rows,
                                                  int32_t end, uint32_t to, int passes) {
    const int32_t line = (int32_t)threadIdx.x / T::CHUNKS, chunk = (int32_t)threadIdx.x % T::CHUNKS;
    struct nt_gemm_copier c = {(const char *)(matrix + (row0 + line) * ld + 8 * chunk),
                               2 * T::PASS_ROWS * ld,
                               to + nt_gemm_chunk_at<T>(line, chunk),
                               0,
                               8 * chunk,
                               end};
#pragma unroll
    for (int i = 0; i < passes; i++) c.lines |= (uint32_t)(row0 + line + i * T::PASS_ROWS < rows) << i;
    return c;
}

/* Starts the copies of the next stage into the slot at address `slot` of shared memory; an address that is not read (0
 * bytes) may lie anywhere. Unaligned rows (even columns: whole pairs) pass through registers. */
template <class T, int PASSES, bool MAY_BE_UNALIGNED>
NT_DEVICE void nt_gemm_copy(struct nt_gemm_copier *c, char *slot, uint32_t slot_address, bool aligned) {
    const int left = nt_gemm_bytes_before(c->col, c->end);
#pragma unroll
    for (int i = 0; i < PASSES; i++) {
        const char *from = c->from + i * c->pass;
        const uint32_t swizzle = T::PASS_ROWS % 8 ? (uint32_t)(i * T::PASS_ROWS % 8) << 4 : 0;
        const uint32_t to = (c->to ^ swizzle) + (uint32_t)(i * T::PASS_ROWS * T::LINE);
        const int bytes = c->lines >> i & 1 ? left : 0;
        if (!MAY_BE_UNALIGNED || aligned) {
            nt_cp_async_16_zfill(slot_address + to, from, bytes);
        } else {
            uint32_t pair[4];
#pragma unroll
            for (int j = 0; j < 4; j++) pair[j] = 4 * j < bytes ? ((const uint32_t *)from)[j] : 0;
            nt_store128(slot + to, make_uint4(pair[0], pair[1], pair[2], pair[3]));
        }
    }
    c->from += T::LINE;
    c->col += T::DEPTH;
}

/* The fragments of one step: x_at, w_at are the lane's offsets of step 0, which differ from other steps' in two bits of
 * the chunk. */
template <class T>
NT_DEVICE void nt_gemm_fragments_of(struct nt_gemm_fragments<T> *f, uint32_t slot, uint32_t x_at, uint32_t w_at,
                                    int step) {
    const uint32_t x = slot + (x_at ^ (uint32_t)step << 5), w = slot + (w_at ^ (uint32_t)step << 5);
#pragma unroll
    for (int m = 0; m < T::M; m++) nt_ldmatrix_x4(f->x[m], x + m * 16 * T::LINE);
#pragma unroll
    for (int n = 0; n < T::N / 2; n++) nt_ldmatrix_x4(f->w[n], w + n * 16 * T::LINE);
}

template <class T> NT_DEVICE void nt_gemm_multiply(float acc[T::M][T::N][4], const struct nt_gemm_fragments<T> *f) {
#pragma unroll
    for (int m = 0; m < T::M; m++)
#pragma unroll
        for (int n = 0; n < T::N; n++)
            nt_mma_bf16(acc[m][n], f->x[m], f->w[n / 2][2 * (n % 2)], f->w[n / 2][2 * (n % 2) + 1]);
}

/* The tile of a number, counted in tiles: NT_GEMM_GROUP row tiles pass over the columns together. */
NT_DEVICE void nt_gemm_place_of(int32_t tile, int32_t row_tiles, int32_t col_tiles, int32_t *row_tile,
                                int32_t *col_tile) {
    const int32_t per_group = NT_GEMM_GROUP * col_tiles;
    const int32_t first = tile / per_group * NT_GEMM_GROUP, in_group = tile % per_group;
    const int32_t rows = min(NT_GEMM_GROUP, row_tiles - first);
    *row_tile = first + in_group % rows;
    *col_tile = in_group / rows;
}
/* The tile of this block. */
NT_DEVICE void nt_gemm_place_in(int32_t row_tiles, int32_t col_tiles, int32_t *row_tile, int32_t *col_tile) {
    nt_gemm_place_of(nt_block_again(), row_tiles, col_tiles, row_tile, col_tile);
}
NT_DEVICE void nt_gemm_place(const struct nt_gemm_cuda *a, int32_t *row_tile, int32_t *col_tile) {
    nt_gemm_place_in(a->row_tiles, a->col_tiles, row_tile, col_tile);
}

/* From now on the stages are those of the adapter's product. */
template <class T>
NT_DEVICE void nt_gemm_turn_to_adapter(const struct nt_gemm_cuda *a, const struct nt_gemm_adapter *b, int32_t m0,
                                       int32_t n0, struct nt_gemm_copier *x, struct nt_gemm_copier *w, bool *aligned) {
    *x = nt_gemm_copier_of<T>(b->x, b->ldx, m0, a->n_tok, b->k, 0, T::ROWS / T::PASS_ROWS);
    *w = nt_gemm_copier_of<T>(b->w, b->k_pad, n0, a->n_pad, b->k_pad, T::ROWS * T::LINE, T::COLS / T::PASS_ROWS);
    *aligned = b->ldx % 8 == 0 && nt_is_aligned16(b->x);
}

/* acc = the sums of this warp's part of the tile at row m0, column n0. */
template <class T>
NT_DEVICE void nt_gemm_main_loop(const struct nt_gemm_cuda *a, char *stages, int32_t m0, int32_t n0,
                                 float acc[T::M][T::N][4], const struct nt_gemm_adapter *second = NULL) {
    enum { X_PASSES = T::ROWS / T::PASS_ROWS, W_PASSES = T::COLS / T::PASS_ROWS, W_AT = T::ROWS * T::LINE };
    const int32_t n_own = (a->k + T::DEPTH - 1) / T::DEPTH, lane = nt_lane();
    const int32_t n_k = second ? n_own + (second->k + T::DEPTH - 1) / T::DEPTH : n_own;
    const int32_t row = nt_warp() % T::WARPS_M * T::WARP_ROWS + (lane & 15);
    const int32_t col = nt_warp() / T::WARPS_M * T::WARP_COLS + (lane >> 4) * 8 + (lane & 7);
    const uint32_t x_at = nt_gemm_chunk_at<T>(row, lane >> 4), w_at = W_AT + nt_gemm_chunk_at<T>(col, lane >> 3 & 1);
    bool aligned = a->ldx % 8 == 0 && nt_is_aligned16(a->x);
    const uint32_t base = nt_shared_address(stages);
    struct nt_gemm_copier x = nt_gemm_copier_of<T>(a->x, a->ldx, m0, a->n_tok, a->k, 0, X_PASSES);
    struct nt_gemm_copier w = nt_gemm_copier_of<T>(a->w, a->k_pad, n0, a->n_pad, a->k_pad, W_AT, W_PASSES);
#pragma unroll
    for (int32_t kt = 0; kt < T::STAGES - 1; kt++) {
        if (kt < n_k) {
            if (second && kt == n_own) nt_gemm_turn_to_adapter<T>(a, second, m0, n0, &x, &w, &aligned);
            nt_gemm_copy<T, X_PASSES, true>(&x, stages + kt * T::STAGE_BYTES, base + kt * T::STAGE_BYTES, aligned);
            nt_gemm_copy<T, W_PASSES, false>(&w, stages + kt * T::STAGE_BYTES, base + kt * T::STAGE_BYTES, true);
        }
        nt_cp_async_commit();
    }
    struct nt_gemm_fragments<T> f[2];
    nt_cp_async_wait<T::STAGES - 2>();
    __syncthreads();
    nt_gemm_fragments_of<T>(&f[0], base, x_at, w_at, 0);
    uint32_t read = 0, fill = (T::STAGES - 1) * T::STAGE_BYTES; /* slots */
    for (int32_t kt = 0; kt < n_k; kt++) {
        const uint32_t next = read + T::STAGE_BYTES == T::STAGES * T::STAGE_BYTES ? 0 : read + T::STAGE_BYTES;
#pragma unroll
        for (int s = 0; s < T::STEPS; s++) {
            if (s + 1 < T::STEPS) {
                nt_gemm_fragments_of<T>(&f[(s + 1) & 1], base + read, x_at, w_at, s + 1);
            } else if (kt + 1 < n_k) {
                nt_cp_async_wait<T::STAGES - 2>();
                __syncthreads(); /* stage kt + 1 is there for all; all have taken their fragments of stage kt */
                nt_gemm_fragments_of<T>(&f[0], base + next, x_at, w_at, 0);
            }
            if (s == 0) {
                if (kt + T::STAGES - 1 < n_k) {
                    if (second && kt + T::STAGES - 1 == n_own)
                        nt_gemm_turn_to_adapter<T>(a, second, m0, n0, &x, &w, &aligned);
                    nt_gemm_copy<T, X_PASSES, true>(&x, stages + fill, base + fill, aligned);
                    nt_gemm_copy<T, W_PASSES, false>(&w, stages + fill, base + fill, true);
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
