/* What becomes of the sums of a product: bias, gate, conversion, store. Shared by all gemm kernels; spec: ops.h.
 *
 * Sums in registers, as mma and wgmma leave them to a warp, 16 rows at a time (nt_gemm_store_rows): gate and up of a
 * column are one thread's, so what is bf16 in y is bf16 before it leaves the registers. It goes through lines of shared
 * memory, 16 rows by up to 128 columns, and a lane stores 8 columns in one piece. f32 goes through lines of 8 rows
 * (cuda_lines.cuh); what it is added to is loaded ahead, a piece at a time: one load after the other, as they come, would
 * wait for memory 32 times in a 128 x 256 tile.
 * Sums that several warps leave come as lines of f32 (nt_gemm_store_lines); a lane then has 4 neighbouring columns.
 * Rows that are not aligned for that, and the last columns of a ragged n, are stored one by one. Columns at or after n
 * are not stored. The arithmetic of an element is the same everywhere. */
#ifndef NT_GEMM_EPILOGUE_CUH
#define NT_GEMM_EPILOGUE_CUH

#include "cuda_lines.cuh"
#include "gemm_cuda.h"
#include "ptx.cuh"

/* x / (1 + 2^v) by the special function units, each within 2 ulp; 0 where 2^v is beyond 2^126. */
NT_DEVICE float nt_gate(float x, float v) {
    return __fmul_rn(x, nt_rcp(__fadd_rn(1.0f, nt_exp2(v))));
}
NT_DEVICE float nt_silu(float x) {
    return nt_gate(x, __fmul_rn(x, -NT_LOG2E));
}
/* As gemm_cpu.c, -2 sqrt(2 / pi) log2(e) (x + 0.044715 x^3) being x (c + 0.044715 c x^2). */
NT_DEVICE float nt_gelu_tanh(float x) {
    const float c = -1.5957691216f * NT_LOG2E;
    return nt_gate(x, __fmul_rn(x, __fmaf_rn(0.044715f * c, __fmul_rn(x, x), c)));
}
template <bool GELU> NT_DEVICE float nt_gated(float gate, float up) {
    return __fmul_rn(GELU ? nt_gelu_tanh(gate) : nt_silu(gate), up);
}

NT_DEVICE bool nt_gemm_is_gated(const struct nt_gemm_cuda *a) {
    return a->out == NT_GEMM_SWIGLU_BF16 || a->out == NT_GEMM_GEGLU_BF16;
}

/* Where sums go: the first of a warp's rows and columns in y or beside it, and how many exist from there on. */
template <class V> struct nt_target {
    V *at;
    int64_t ld;
    int32_t rows, cols;
};
/* Whether pieces of EACH elements of its first COLS columns are aligned, and none is cut. */
template <int COLS, int EACH, class V> NT_DEVICE bool nt_target_is_whole(const struct nt_target<V> *t) {
    return ((uintptr_t)t->at & (EACH * sizeof(V) - 1)) == 0 && t->ld % EACH == 0 &&
           (t->cols >= COLS || t->cols % EACH == 0);
}
template <class V>
NT_DEVICE struct nt_target<V> nt_target_of(const struct nt_gemm_cuda *a, V *y, int64_t ldy, int32_t tok0, int32_t col0,
                                           int32_t n) {
    return {y + tok0 * ldy + col0, ldy, a->n_tok - tok0, n - col0};
}
/* Of y: columns of a gated product are half as many. */
template <class V>
NT_DEVICE struct nt_target<V> nt_target_of_y(const struct nt_gemm_cuda *a, int32_t tok0, int32_t n0) {
    const int half = nt_gemm_is_gated(a);
    return nt_target_of<V>(a, (V *)a->y, a->ldy, tok0, n0 >> half, a->n >> half);
}

/* ---- f32: lines of 8 rows by COLS columns of a warp, which has COLS / 16 times 4 columns a lane ---- */

/* The floats of lines that a warp needs for sums of `cols` columns: of 8 rows of f32, or, no more, of 16 of bf16. */
#define NT_PIECE_COLS(cols)   ((cols) < 128 ? (cols) : 128)
#define NT_PIECE_FLOATS(cols) (8 * NT_LINE(NT_PIECE_COLS(cols)))

/* This lane's first row of a piece, and its column; the next one is STEP rows further. */
template <int COLS> struct nt_fours {
    enum { STEP = NT_WARP / (COLS / 4), COUNT = 8 / STEP };
    int32_t row, col;
};
template <int COLS> NT_DEVICE struct nt_fours<COLS> nt_fours_of_lane(void) {
    return {nt_lane() / (COLS / 4), nt_lane() % (COLS / 4) * 4};
}
/* What the piece is added to; -0, which changes no sum, where nothing is. */
template <int COLS> NT_DEVICE void nt_piece_load(const struct nt_target<float> *t, float4 *old, bool add) {
    typedef struct nt_fours<COLS> fours;
    const fours f = nt_fours_of_lane<COLS>();
    const int32_t rows = add && f.col < t->cols && nt_target_is_whole<COLS, 4>(t) ? t->rows - f.row : 0;
    const float *from = t->at + f.row * t->ld + f.col;
#pragma unroll
    for (int i = 0; i < fours::COUNT; i++, from += fours::STEP * t->ld) {
        old[i] = make_float4(-0.0f, -0.0f, -0.0f, -0.0f);
        if (fours::STEP * i < rows) old[i] = nt_load_f4(from);
    }
}
/* old: of nt_piece_load. */
template <int COLS>
NT_DEVICE void nt_piece_store(const struct nt_target<float> *t, const float *lines, float4 *old, bool add) {
    if (!nt_target_is_whole<COLS, 4>(t)) {
#pragma unroll 1
        for (int32_t i = nt_lane(); i < min(8, t->rows) * COLS; i += NT_WARP) {
            const int32_t row = i / COLS, col = i % COLS;
            if (col >= t->cols) continue;
            float *to = t->at + row * t->ld + col;
            *to = add ? *to + lines[row * NT_LINE(COLS) + col] : lines[row * NT_LINE(COLS) + col];
        }
        return;
    }
    typedef struct nt_fours<COLS> fours;
    const fours f = nt_fours_of_lane<COLS>();
    const int32_t rows = f.col < t->cols ? t->rows - f.row : 0;
    const float *line = lines + f.row * NT_LINE(COLS) + f.col;
    float *to = t->at + f.row * t->ld + f.col;
#pragma unroll
    for (int i = 0; i < fours::COUNT; i++) {
        const float4 v = nt_load_f4(line + fours::STEP * i * NT_LINE(COLS));
        old[i] = make_float4(__fadd_rn(old[i].x, v.x), __fadd_rn(old[i].y, v.y), __fadd_rn(old[i].z, v.z),
                             __fadd_rn(old[i].w, v.w));
    }
#pragma unroll
    for (int i = 0; i < fours::COUNT; i++, to += fours::STEP * t->ld)
        if (fours::STEP * i < rows) nt_store_f4_whole(to, old[i]);
}
/* The same t, rows and columns further. */
template <class V>
NT_DEVICE struct nt_target<V> nt_target_further(const struct nt_target<V> *t, int32_t row, int32_t col) {
    return {t->at + row * t->ld + col, t->ld, t->rows - row, t->cols - col};
}

/* 16 rows by 8 N columns of sums; a piece is loaded while the one before it is added. */
template <int N>
NT_DEVICE void nt_rows_store_f32(const struct nt_target<float> *t, float *lines, const float *acc, bool add) {
    enum { COLS = NT_PIECE_COLS(8 * N), ACROSS = 8 * N / COLS };
    float4 old[2][nt_fours<COLS>::COUNT];
    struct nt_target<float> next = *t;
#pragma unroll
    for (int i = 0; i < 2 * ACROSS; i++) {
        const struct nt_target<float> here = next;
        if (N <= 8 && here.rows <= 0) break; /* tiles for few rows are narrow */
        __syncwarp(); /* the lines before these have been read */
        nt_lines_put<COLS / 8, COLS>(lines, acc + i % ACROSS * COLS / 2 + i / ACROSS * 2);
        if (i == 0) nt_piece_load<COLS>(&here, old[0], add);
        if (i + 1 < 2 * ACROSS) {
            next = nt_target_further(t, (i + 1) / ACROSS * 8, (i + 1) % ACROSS * COLS);
            nt_piece_load<COLS>(&next, old[(i + 1) % 2], add);
        }
        __syncwarp();
        nt_piece_store<COLS>(&here, lines, old[i % 2], add);
    }
}

/* ---- bf16: lines of 16 rows by COLS columns of a warp, two in a word ---- */

/* The word where the 8 columns of a chunk begin: the 8 rows of a store and the 8 chunks of a load touch all banks. */
template <int COLS> NT_DEVICE int32_t nt_chunk_at(int32_t row, int32_t chunk) {
    enum { CHUNKS = COLS / 8 };
    static_assert(CHUNKS == 2 || CHUNKS == 4 || CHUNKS % 8 == 0, "the turns");
    const int32_t turn = CHUNKS >= 8 ? row & 7 : CHUNKS == 4 ? row >> 1 & 3 : row >> 2 & 1;
    return 4 * (row * CHUNKS + (chunk ^ turn));
}
/* Two neighbours of row lane / 4, or of that 8 further, whose turn is the same. */
template <int COLS> NT_DEVICE void nt_pair_put(uint32_t *lines, int half, int chunk, float low, float high) {
    enum { CHUNKS = COLS / 8, TURNED = CHUNKS < 8 ? CHUNKS : 8 };
    uint32_t *to = lines + nt_chunk_at<COLS>(nt_lane() / 4, chunk % TURNED) + (nt_lane() & 3);
    to[4 * (chunk / TURNED * TURNED + 8 * half * CHUNKS)] = nt_bf16_pack(low, high);
}
/* COLS / 8 groups of 8 columns of sums, of `rows` rows: the second 8, if there are any, in a branch of their own. */
template <int COLS> NT_DEVICE void nt_pairs_put(uint32_t *lines, const float *acc, int32_t rows) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        if (rows <= 8 * half) continue;
#pragma unroll
        for (int i = 0; i < COLS / 8; i++)
            nt_pair_put<COLS>(lines, half, i, acc[4 * i + 2 * half], acc[4 * i + 2 * half + 1]);
    }
}
/* The same gated, of 2 COLS columns: of each panel the first half gates the second. */
template <int COLS, bool GELU> NT_DEVICE void nt_pairs_put_gated(uint32_t *lines, const float *acc, int32_t rows) {
    enum { EIGHTS = NT_PANEL / 2 / 8 };
#pragma unroll
    for (int half = 0; half < 2; half++) {
        if (rows <= 8 * half) continue;
#pragma unroll
        for (int i = 0; i < COLS / 8; i++) {
            const float *gate = acc + 4 * (i / EIGHTS * 2 * EIGHTS + i % EIGHTS) + 2 * half, *up = gate + 4 * EIGHTS;
            nt_pair_put<COLS>(lines, half, i, nt_gated<GELU>(gate[0], up[0]), nt_gated<GELU>(gate[1], up[1]));
        }
    }
}
template <int COLS> NT_DEVICE void nt_pairs_store(const struct nt_target<nt_bf16> *t, const uint32_t *lines) {
    enum { CHUNKS = COLS / 8, STEP = NT_WARP / CHUNKS, COUNT = 16 / STEP };
    if (!nt_target_is_whole<COLS, 8>(t)) {
#pragma unroll 1
        for (int32_t i = nt_lane(); i < min(16, t->rows) * COLS; i += NT_WARP) {
            const int32_t row = i / COLS, col = i % COLS;
            const uint32_t pair = lines[nt_chunk_at<COLS>(row, col / 8) + col % 8 / 2];
            if (col < t->cols) t->at[row * t->ld + col] = (nt_bf16)(pair >> (col & 1) * 16);
        }
        return;
    }
    const int32_t row = nt_lane() / CHUNKS, chunk = nt_lane() % CHUNKS, rows = 8 * chunk < t->cols ? t->rows - row : 0;
    nt_bf16 *to = t->at + row * t->ld + 8 * chunk;
    uint4 eight[COUNT];
#pragma unroll
    for (int i = 0; i < COUNT; i++) /* of absent rows anything */
        eight[i] = nt_load128(lines + nt_chunk_at<COLS>(row + STEP * i, chunk));
#pragma unroll
    for (int i = 0; i < COUNT; i++, to += STEP * t->ld)
        if (STEP * i < rows) nt_store128_whole(to, eight[i]);
}

/* 16 rows by 8 N columns of sums. */
template <int N>
NT_DEVICE void nt_rows_store_bf16(const struct nt_target<nt_bf16> *t, uint32_t *lines, const float *acc) {
    enum { COLS = NT_PIECE_COLS(8 * N) };
#pragma unroll
    for (int i = 0; i < 8 * N / COLS; i++) {
        const struct nt_target<nt_bf16> here = nt_target_further(t, 0, i * COLS);
        __syncwarp(); /* the lines before these have been read */
        nt_pairs_put<COLS>(lines, acc + i * COLS / 2, t->rows);
        __syncwarp();
        nt_pairs_store<COLS>(&here, lines);
    }
}
template <int N>
NT_DEVICE void nt_rows_store_gated(const struct nt_target<nt_bf16> *t, uint32_t *lines, const float *acc, bool gelu) {
    static_assert(4 * N <= 128, "one piece");
    __syncwarp(); /* the lines before these have been read */
    if (gelu)
        nt_pairs_put_gated<4 * N, true>(lines, acc, t->rows);
    else
        nt_pairs_put_gated<4 * N, false>(lines, acc, t->rows);
    __syncwarp();
    nt_pairs_store<4 * N>(t, lines);
}

/* The sums of 16 rows by 8 N columns from n0 on += the biases of their columns. */
template <int N> NT_DEVICE void nt_rows_add_bias(const struct nt_gemm_cuda *a, float *acc, int32_t n0) {
    const int32_t col = n0 + 2 * (nt_lane() & 3);
#pragma unroll
    for (int i = 0; i < N; i++)
#pragma unroll
        for (int odd = 0; odd < 2; odd++) {
            if (col + 8 * i + odd >= a->n) continue;
            const float bias = a->bias[col + 8 * i + odd];
            acc[4 * i + odd] = __fadd_rn(acc[4 * i + odd], bias);
            acc[4 * i + 2 + odd] = __fadd_rn(acc[4 * i + 2 + odd], bias);
        }
}

/* 16 rows by 8 N columns of sums as mma and wgmma leave them to a warp, at row tok0, column n0 of y. `lines`: this warp's
 * NT_PIECE_FLOATS(8 N) floats of shared memory, 16-byte aligned. acc is overwritten. All lanes come. */
template <int N>
NT_DEVICE void nt_gemm_store_rows(const struct nt_gemm_cuda *a, const struct nt_gemm_adapter *second, float *lines,
                                  float *acc, int32_t tok0, int32_t n0) {
    if (a->bias) nt_rows_add_bias<N>(a, acc, n0);
    if (a->out == NT_GEMM_STORE_F32 || a->out == NT_GEMM_ADD_F32) {
        const struct nt_target<float> y = nt_target_of_y<float>(a, tok0, n0);
        nt_rows_store_f32<N>(&y, lines, acc, a->out == NT_GEMM_ADD_F32);
        return;
    }
    const struct nt_target<nt_bf16> y = nt_target_of_y<nt_bf16>(a, tok0, n0);
    const bool gated = nt_gemm_is_gated(a), keeps = gated && second && second->pre;
    if (!gated || keeps) {
        const struct nt_target<nt_bf16> sums =
            keeps ? nt_target_of(a, second->pre, second->ldpre, tok0, n0, a->n) : y;
        nt_rows_store_bf16<N>(&sums, (uint32_t *)lines, acc);
    }
    if (gated) nt_rows_store_gated<N>(&y, (uint32_t *)lines, acc, a->out == NT_GEMM_GEGLU_BF16);
}

/* This warp's part of the tile at row m0, column n0. All threads; the lines lie where the stages were. */
template <class T>
NT_DEVICE void nt_gemm_store_tile(const struct nt_gemm_cuda *a, const struct nt_gemm_adapter *second, char *stages,
                                  float acc[T::M][T::N][4], int32_t m0, int32_t n0) {
    enum { LINES = NT_PIECE_FLOATS(T::WARP_COLS) }; /* floats of a warp */
    static_assert(T::THREADS / NT_WARP * LINES * 4 <= T::STAGES * T::STAGE_BYTES, "the lines find room");
    const int32_t row0 = m0 + nt_warp() % T::WARPS_M * T::WARP_ROWS, col0 = n0 + nt_warp() / T::WARPS_M * T::WARP_COLS;
    float *lines = (float *)stages + nt_warp() * LINES;
    __syncthreads(); /* nobody reads stages any more */
#pragma unroll
    for (int m = 0; m < T::M; m++) nt_gemm_store_rows<T::N>(a, second, lines, &acc[m][0][0], row0 + 16 * m, col0);
}

/* ---- lines of f32 that other warps may have written ---- */

/* ROWS lines += the biases of their columns. */
template <int ROWS, int COLS> NT_DEVICE void nt_lines_add_bias(const struct nt_gemm_cuda *a, float *lines, int32_t n0) {
#pragma unroll 1
    for (int32_t i = nt_lane(); i < ROWS * COLS; i += NT_WARP) {
        const int32_t col = n0 + i % COLS;
        float *sum = lines + i / COLS * NT_LINE(COLS) + i % COLS;
        if (col < a->n) *sum = __fadd_rn(*sum, a->bias[col]);
    }
    __syncwarp();
}
template <int ROWS, int COLS>
NT_DEVICE void nt_lines_store_f32(const struct nt_target<float> *t, const float *lines, bool add) {
    static_assert(ROWS % 8 == 0, "whole pieces");
#pragma unroll 1
    for (int32_t row = 0; row < min(ROWS, t->rows); row += 8) {
        const struct nt_target<float> here = nt_target_further(t, row, 0);
        float4 old[nt_fours<COLS>::COUNT];
        nt_piece_load<COLS>(&here, old, add);
        nt_piece_store<COLS>(&here, lines + row * NT_LINE(COLS), old, add);
    }
}

NT_DEVICE void nt_four_store_bf16(nt_bf16 *to, int32_t left, float4 v, bool whole) {
    if (whole && left >= 4) {
        __stwb((uint2 *)to, make_uint2(nt_bf16_pack(v.x, v.y), nt_bf16_pack(v.z, v.w)));
        return;
    }
    const float x[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (i < left) to[i] = nt_dev_to_bf16(x[i]);
}
template <int ROWS, int COLS> NT_DEVICE void nt_lines_store_bf16(const struct nt_target<nt_bf16> *t, const float *lines) {
    enum { PER_ROW = COLS / 4 };
    const bool whole = nt_target_is_whole<COLS, 4>(t);
#pragma unroll 1
    for (int32_t i = nt_lane(); i < min(ROWS, t->rows) * PER_ROW; i += NT_WARP) {
        const int32_t row = i / PER_ROW, at = i % PER_ROW * 4;
        const float4 v = nt_load_f4(lines + row * NT_LINE(COLS) + at);
        nt_four_store_bf16(t->at + row * t->ld + at, t->cols - at, v, whole);
    }
}
/* Gated; n is whole panels. Lanes of every second panel load the second half first: 8 lanes in turn touch all banks. */
template <int ROWS, int COLS, bool GELU>
NT_DEVICE void nt_lines_store_gated(const struct nt_target<nt_bf16> *t, const float *lines) {
    enum { HALF = NT_PANEL / 2, PER_ROW = COLS / 8 };
    const bool whole = nt_target_is_whole<COLS / 2, 4>(t);
#pragma unroll 1
    for (int32_t i = nt_lane(); i < min(ROWS, t->rows) * PER_ROW; i += NT_WARP) {
        const int32_t row = i / PER_ROW, at = i % PER_ROW * 4, gate_at = at / HALF * NT_PANEL + at % HALF;
        const int32_t turn = at / HALF % 2 * HALF;
        const float4 x = nt_load_f4(lines + row * NT_LINE(COLS) + gate_at + turn);
        const float4 y = nt_load_f4(lines + row * NT_LINE(COLS) + gate_at + HALF - turn);
        const float4 gate = turn ? y : x, up = turn ? x : y;
        const float4 v = make_float4(nt_gated<GELU>(gate.x, up.x), nt_gated<GELU>(gate.y, up.y),
                                     nt_gated<GELU>(gate.z, up.z), nt_gated<GELU>(gate.w, up.w));
        nt_four_store_bf16(t->at + row * t->ld + at, t->cols - at, v, whole);
    }
}

/* ROWS lines of COLS sums at row tok0, column n0 of y, of which this warp alone reads. The lines are overwritten. */
template <int ROWS, int COLS>
NT_DEVICE void nt_gemm_store_lines(const struct nt_gemm_cuda *a, const struct nt_gemm_adapter *second, float *lines,
                                   int32_t tok0, int32_t n0) {
    if (a->bias) nt_lines_add_bias<ROWS, COLS>(a, lines, n0);
    if (a->out == NT_GEMM_STORE_F32 || a->out == NT_GEMM_ADD_F32) {
        const struct nt_target<float> y = nt_target_of_y<float>(a, tok0, n0);
        nt_lines_store_f32<ROWS, COLS>(&y, lines, a->out == NT_GEMM_ADD_F32);
        return;
    }
    const struct nt_target<nt_bf16> y = nt_target_of_y<nt_bf16>(a, tok0, n0);
    const bool gated = nt_gemm_is_gated(a), keeps = gated && second && second->pre;
    if (!gated || keeps) {
        const struct nt_target<nt_bf16> sums =
            keeps ? nt_target_of(a, second->pre, second->ldpre, tok0, n0, a->n) : y;
        nt_lines_store_bf16<ROWS, COLS>(&sums, lines);
    }
    if (a->out == NT_GEMM_SWIGLU_BF16) nt_lines_store_gated<ROWS, COLS, false>(&y, lines);
    if (a->out == NT_GEMM_GEGLU_BF16) nt_lines_store_gated<ROWS, COLS, true>(&y, lines);
}

#endif
