/* dw += alpha a^T b on compute capability 9.0: TMA, mbarriers and wgmma, warp-specialised. Spec: ops_bwd.h; the same
 * bits as gemm_wgrad.cu.
 *
 * A block computes a tile of dw (gemm_sm90_tile.cuh); one kernel per row of NT_GEMM_WGRAD_SM90_TILES. Lines of both
 * operands are tokens, which TMA copies as they lie and wgmma turns (A and B MN-major). Tokens beyond n_tok and columns
 * beyond m and n arrive as zeros. Order of sums, blocks of tokens and their join: gemm_wgrad.cu's.
 * Between chains: a chain's last stage is free as soon as its product is there, so the ring fills while sums leave. They
 * go through lines of shared memory, 8 rows by 128 columns of a warp at a time: dw is read and written in whole lines of
 * 128 bytes. It is loaded ahead, for the first piece while the chain is summed, for others while the piece before is
 * added. An element is always added by the same thread.
 * Columns of b in every second run (gate or up): boxes of 16 columns, lines of 32 bytes with the 32-byte swizzle, leave
 * out what is between the runs; the product finds them side by side.
 * Registers (ptxas, no spills): 168 a thread; at 256 columns the copying warpgroup gives its own away (240 and 24).
 * Layout: as gemm_wgrad.cu; a and b by tensor maps, so their rows must be 16-byte aligned. A stage has a box [64 tokens,
 * 64] of a for each warpgroup, and boxes [64 tokens, 64] or [64 tokens, 16] of b one behind the other.
 * Roofline: 2 n_tok (m + n) bytes once each in an ideal tiling, 8 m n per chain; 2 n_tok m n FLOP. A 128 x 256 tile has
 * the tensor cores busy for 16384 cycles a chain; gemm_sm90.cu, with the same bytes of operands, takes 21000 for that on
 * an H200 (78 % of the dense rate). Then nothing is multiplied while 128 KiB of dw are read and written, 3000 to 5000
 * cycles where they lie in L2: expected 60-67 % (gemm_wgrad.cu there, measured: 25 %). Of gate and up less: lines of
 * their boxes are a quarter as long. Fewer than 64 rows, an adapter's, are bound by bytes and stay with gemm_wgrad.cu,
 * whose tiles have as few. */
#include "cuda_lines.cuh"
#include "gemm_epilogue.cuh"
#include "gemm_sm90_tile.cuh"
#include "gemm_tile.cuh"
#include "gemm_wgrad_sm90_cuda.h"

extern __shared__ __align__(1024) char nt_gemm_wgrad_sm90_stages[];

enum {
    PIECE_ROWS = NT_WGRAD_SM90_PIECE_ROWS,
    PIECE_COLS = NT_WGRAD_SM90_PIECE_COLS,
    LINE = NT_LINE(PIECE_COLS),
    RUN_BOX = NT_GEMM_SM90_DEPTH * NT_WGRAD_SM90_RUN * 2, /* bytes */
};
static_assert(PIECE_COLS == 4 * NT_WARP, "a lane has 4 columns");
static_assert(NT_WGRAD_SM90_LINES == PIECE_ROWS * LINE, "as cuda_lines.cuh");

/* b's part of a stage where it has runs. */
template <class T>
NT_DEVICE void copy_runs(uint32_t to, const struct nt_gemm_wgrad_sm90 *a, int32_t token, int32_t n0, uint32_t full) {
    const int32_t run = a->w.b_run;
    int32_t col = n0 + n0 / run * run, left = run - n0 % run;
#pragma unroll 1
    for (int32_t i = 0; i < T::COLS / NT_WGRAD_SM90_RUN; i++) {
        nt_tensor_copy_2d(to + i * RUN_BOX, &a->b, col, token, full);
        col += NT_WGRAD_SM90_RUN;
        left -= NT_WGRAD_SM90_RUN;
        if (left > 0) continue;
        col += run;
        left = run;
    }
}

/* One thread. */
template <class T>
NT_DEVICE void copy_stages(const struct nt_gemm_wgrad_sm90 *a, uint32_t base, int32_t m0, int32_t n0, int32_t first,
                           int32_t n_stage) {
    struct nt_sm90_place p = {0, 0};
    for (int32_t i = 0; i < n_stage; i++, nt_sm90_next<T>(&p)) {
        const uint32_t to = base + (uint32_t)(p.stage * T::STAGE_BYTES), full = nt_sm90_full_at<T>(base, p.stage);
        const uint32_t b_to = to + T::ROWS * T::LINE;
        const int32_t token = first + i * NT_GEMM_SM90_DEPTH;
        nt_mbarrier_wait(nt_sm90_empty_at<T>(base, p.stage), p.phase ^ 1);
        nt_mbarrier_arrive_expect(full, T::STAGE_BYTES);
        nt_sm90_copy_x<T>(to, &a->a, token, m0, full);
        if (a->w.b_run > 0)
            copy_runs<T>(b_to, a, token, n0, full);
        else
            nt_sm90_copy_w<T>(b_to, &a->b, token, n0, full);
    }
}

/* Where a warp's sums go: its 16 rows of the tile in dw, or in the sums of this block's own tokens. */
struct target {
    float *at; /* its first row and the tile's first column */
    int64_t ld;
    int32_t rows, cols; /* that exist from there on */
    float alpha;
    bool adds, whole; /* whole: fours of columns are aligned, and none is cut */
};
NT_DEVICE struct target target_of(const struct nt_gemm_wgrad_cuda *w, int32_t row, int32_t col) {
    const bool own = w->part;
    float *dw = own ? w->part + (int64_t)blockIdx.y * w->m * w->n : w->dw;
    const int64_t ld = own ? w->n : w->lddw;
    return {dw + row * ld + col,
            ld,
            w->m - row,
            w->n - col,
            own ? 1.0f : w->alpha,
            !own,
            nt_is_aligned16(dw) && ld % 4 == 0 && w->n % 4 == 0};
}

NT_DEVICE float4 scaled(float alpha, float4 v) {
    return make_float4(__fmul_rn(alpha, v.x), __fmul_rn(alpha, v.y), __fmul_rn(alpha, v.z), __fmul_rn(alpha, v.w));
}
NT_DEVICE float4 sum_of(float4 a, float4 b) {
    return make_float4(__fadd_rn(a.x, b.x), __fadd_rn(a.y, b.y), __fadd_rn(a.z, b.z), __fadd_rn(a.w, b.w));
}

/* Of a piece, 8 rows from `row` on by 128 columns from `col` on: those of this lane's column that exist. */
NT_DEVICE int32_t piece_rows(const struct target *t, int32_t row, int32_t col) {
    return col + 4 * nt_lane() < t->cols ? t->rows - row : 0;
}
/* What a piece is added to; what does not exist, or is not added to, is -0, which changes no sum. */
NT_DEVICE void load_piece(const struct target *t, float4 *old, int32_t row, int32_t col) {
    const int32_t rows = t->adds && t->whole ? piece_rows(t, row, col) : 0;
    const float *from = t->at + row * t->ld + col + 4 * nt_lane();
#pragma unroll
    for (int r = 0; r < PIECE_ROWS; r++) {
        old[r] = make_float4(-0.0f, -0.0f, -0.0f, -0.0f);
        if (r < rows) old[r] = nt_load_f4(from + r * t->ld);
    }
}
/* Columns col to col + 3, of which n exist. */
NT_DEVICE void store_singly(float *row, int32_t col, int32_t n, float4 v, bool add) {
    const float x[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (col + i < n) row[col + i] = add ? row[col + i] + x[i] : x[i];
}
/* lines: of a piece; old: of load_piece. */
NT_DEVICE void add_piece(const struct target *t, const float *lines, float4 *old, int32_t row, int32_t col) {
    const int32_t rows = piece_rows(t, row, col), at = col + 4 * nt_lane();
    const float *line = lines + 4 * nt_lane();
    float *to = t->at + row * t->ld;
    if (!t->whole) {
#pragma unroll 1
        for (int32_t r = 0; r < min(rows, (int32_t)PIECE_ROWS); r++)
            store_singly(to + r * t->ld, at, t->cols, scaled(t->alpha, nt_load_f4(line + r * LINE)), t->adds);
        return;
    }
#pragma unroll
    for (int r = 0; r < PIECE_ROWS; r++) old[r] = sum_of(old[r], scaled(t->alpha, nt_load_f4(line + r * LINE)));
#pragma unroll
    for (int r = 0; r < PIECE_ROWS; r++)
        if (r < rows) nt_store_f4_whole(to + r * t->ld + at, old[r]);
}

/* A multiplying warp: chain after chain. What the first piece of a chain is added to is under way while it is summed,
 * what the next one is while a piece is added (in the registers of sums that lie in lines already). */
template <class T>
NT_DEVICE void multiply_chains(const struct nt_gemm_wgrad_cuda *w, char *stages, const struct target *t, int32_t warp,
                               int32_t n_stage) {
    enum { CHAIN = NT_WGRAD_TOKENS / NT_GEMM_SM90_DEPTH, PIECES = T::COLS / PIECE_COLS * 2 };
    static_assert(NT_WGRAD_TOKENS % NT_GEMM_SM90_DEPTH == 0, "a stage lies in one block of tokens");
    static_assert(T::COLS % PIECE_COLS == 0, "whole pieces");
    const uint32_t base = nt_shared_address(stages);
    float *lines = (float *)(stages + T::STAGES * T::STAGE_BYTES + NT_GEMM_SM90_BARRIERS) + warp * NT_WGRAD_SM90_LINES;
    const struct nt_sm90_lay runs = {nt_wgmma_turned_runs(0, RUN_BOX), 32};
    const struct nt_sm90_lay b = w->b_run > 0 ? runs : nt_sm90_lay_of<T>(T::SUM_LINES);
    struct nt_sm90_place p = {0, 0};
    float acc[T::COLS / 2];
    float4 old[2][PIECE_ROWS];
    for (int32_t left = n_stage; left > 0; left -= CHAIN) {
        load_piece(t, old[0], 0, 0);
        const int32_t last = nt_sm90_multiply_stages<T>(acc, base, warp / 4, min(left, (int32_t)CHAIN), &p, b);
        if (nt_lane() == 0) nt_mbarrier_arrive(nt_sm90_empty_at<T>(base, last));
#pragma unroll
        for (int i = 0; i < PIECES; i++) {
            const int next = i + 1;
            __syncwarp(); /* the piece before has been read */
            nt_lines_put<PIECE_COLS / 8, PIECE_COLS>(lines, acc + i / 2 * PIECE_COLS / 2 + i % 2 * 2);
            if (next < PIECES) load_piece(t, old[next % 2], next % 2 * PIECE_ROWS, next / 2 * PIECE_COLS);
            __syncwarp();
            add_piece(t, lines, old[i % 2], i % 2 * PIECE_ROWS, i / 2 * PIECE_COLS);
        }
    }
}

template <class T> NT_DEVICE void wgrad(const struct nt_gemm_wgrad_sm90 *a, char *stages) {
    const struct nt_gemm_wgrad_cuda *w = &a->w;
    const uint32_t base = nt_shared_address(stages);
    const int32_t warp = nt_sm90_begin<T>(&a->a, &a->b, base);
    const int32_t first = (int32_t)blockIdx.y * NT_WGRAD_TOKENS;
    const int32_t n_tok = w->part ? min(w->n_tok - first, (int32_t)NT_WGRAD_TOKENS) : w->n_tok;
    const int32_t n_stage = (n_tok + NT_GEMM_SM90_DEPTH - 1) / NT_GEMM_SM90_DEPTH;
    int32_t m0, n0;
    nt_gemm_place_in(w->row_tiles, w->col_tiles, &m0, &n0);
    m0 *= T::ROWS;
    n0 *= T::COLS;
    if (warp >= T::MULTIPLIERS) {
        if (T::GIVES_REGISTERS) nt_registers_lower<24>();
        if (warp == T::MULTIPLIERS && nt_elect()) copy_stages<T>(a, base, m0, n0, first, n_stage);
        return;
    }
    if (T::GIVES_REGISTERS) nt_registers_raise<240>();
    const struct target t = target_of(w, m0 + 16 * warp, n0);
    multiply_chains<T>(w, stages, &t, warp, n_stage);
}

#define NT_GEMM_WGRAD_SM90_KERNEL(rows, cols, stages, blocks)                                                          \
    extern "C" __global__ void __launch_bounds__(NT_GEMM_SM90_THREADS(rows, cols), blocks)                             \
        nt_gemm_wgrad_sm90_##rows##x##cols(const __grid_constant__ struct nt_gemm_wgrad_sm90 a) {                      \
        nt_launch_begin();                                                                                             \
        wgrad<nt_sm90_tile<rows, cols, stages, true, true>>(&a, nt_gemm_wgrad_sm90_stages);                            \
    }
NT_GEMM_WGRAD_SM90_TILES(NT_GEMM_WGRAD_SM90_KERNEL)
