/* A tile of y = x w^T, of x w or of x^T w, by TMA, mbarriers and wgmma, compute capability 9.0: what the kernels of
 * *_sm90.cu share.
 *
 * One elected thread of the last warp(group) copies stages of x and w by TMA into a ring; each of rows / 64 warpgroups
 * multiplies 64 rows by all columns of the tile (m64nNk16, both operands from shared memory) with one group of four
 * wgmma under way while the next is issued. `full` of a stage ends when its bytes are there, `empty` when every
 * multiplying warp has seen its wgmma end. A line of a stage is 64 k = 128 bytes with the 128-byte swizzle of TMA and
 * wgmma: no bank conflicts; of x w, w's lines are read as they lie and are the k, in boxes of 64 columns side by side,
 * and wgmma turns them; of x^T w, x's lie so too. Rows beyond n_tok, n_pad and k arrive as zeros, or are cleared once
 * where x has few rows: the copy engine takes longer for rows outside x than for those inside (H200, one row of 64: 1.4
 * times the whole time).
 * Order of sums: k in steps of 16 ascending, one accumulator per element, the same in every tile; then an adapter's
 * product (`behind`, k2 terms) in the same way. */
#ifndef NT_GEMM_SM90_TILE_CUH
#define NT_GEMM_SM90_TILE_CUH

#include "cuda_common.cuh"
#include "gemm_sm90_cuda.h"
#include "ptx.cuh"

/* SUM_LINES: a line of w is an element of the sum, its columns are the tile's (dgrad); else it is a column of the tile.
 * X_SUM_LINES: a line of x is one too, its columns are the tile's rows (wgrad); else it is a row. */
template <int ROWS_, int COLS_, int STAGES_, bool SUM_LINES_ = false, bool X_SUM_LINES_ = false> struct nt_sm90_tile {
    enum {
        ROWS = ROWS_,
        COLS = COLS_,
        STAGES = STAGES_,
        SUM_LINES = SUM_LINES_,
        X_SUM_LINES = X_SUM_LINES_,
        GROUPS = ROWS / 64,
        LINE = NT_GEMM_SM90_DEPTH * 2,   /* bytes */
        BOX = NT_GEMM_SM90_DEPTH * LINE, /* of what has SUM_LINES: as many columns by as many lines; x of a warpgroup */
        BOXES = SUM_LINES ? COLS / NT_GEMM_SM90_DEPTH : 1,
        X_BOXES = X_SUM_LINES ? GROUPS : 1,
        STAGE_BYTES = (ROWS + COLS) * LINE,
        MULTIPLIERS = 4 * GROUPS, /* warps */
        THREADS = NT_GEMM_SM90_THREADS(ROWS, COLS),
        GIVES_REGISTERS = COLS > 128, /* 128 accumulators: 2 x 128 x 240 + 128 x 24 registers */
        LINES_AT = STAGES * STAGE_BYTES + NT_GEMM_SM90_BARRIERS, /* what lies behind stages and mbarriers */
    };
    static_assert(ROWS == 64 || ROWS == 128, "one or two warpgroups");
    static_assert(!GIVES_REGISTERS || nt_registers_suffice(GROUPS, 240, THREADS / 128 - GROUPS, 24),
                  "registers that others give back");
    static_assert(LINE == 128, "the swizzle of the tensor maps and descriptors");
    static_assert(STAGES >= 2 && 2 * STAGES * 8 <= NT_GEMM_SM90_BARRIERS, "two mbarriers a stage");
    static_assert(COLS % NT_PANEL == 0 && COLS <= 256, "one instruction spans the columns; gate and up in one thread");
    static_assert(!SUM_LINES || COLS % NT_GEMM_SM90_DEPTH == 0, "whole boxes");
};

/* The mbarriers lie behind the stages. */
template <class T> NT_DEVICE uint32_t nt_sm90_full_at(uint32_t base, int32_t stage) {
    return base + T::STAGES * T::STAGE_BYTES + 8 * stage;
}
template <class T> NT_DEVICE uint32_t nt_sm90_empty_at(uint32_t base, int32_t stage) {
    return nt_sm90_full_at<T>(base, T::STAGES + stage);
}

/* A stage of the ring, and the parity of the phase in which it is filled this time. */
struct nt_sm90_place {
    int32_t stage;
    uint32_t phase;
};
template <class T> NT_DEVICE void nt_sm90_next(struct nt_sm90_place *p) {
    if (++p->stage == T::STAGES) {
        p->stage = 0;
        p->phase ^= 1;
    }
}

/* The stage that comes next. */
template <class T> NT_DEVICE struct nt_sm90_place nt_sm90_take(struct nt_sm90_place *next) {
    const struct nt_sm90_place p = *next;
    nt_sm90_next<T>(next);
    return p;
}
/* This warp has read it. */
template <class T> NT_DEVICE void nt_sm90_give(uint32_t base, struct nt_sm90_place p) {
    __syncwarp();
    if (nt_lane() == 0) nt_mbarrier_arrive(nt_sm90_empty_at<T>(base, p.stage));
}
/* Where it begins, seen to be the same in all lanes: descriptors are computed once a warp. */
template <class T> NT_DEVICE uint32_t nt_sm90_stage_at(uint32_t base, struct nt_sm90_place p) {
    return __shfl_sync(NT_ALL_LANES, base + (uint32_t)(p.stage * T::STAGE_BYTES), 0);
}

/* writers: threads that say when they have filled a stage (its bytes may come later); readers: warps that say when they
 * have read it. */
template <class T> NT_DEVICE void nt_sm90_init_ring(uint32_t base, int32_t writers, int32_t readers) {
    for (int32_t s = 0; s < T::STAGES; s++) {
        nt_mbarrier_init(nt_sm90_full_at<T>(base, s), writers);
        nt_mbarrier_init(nt_sm90_empty_at<T>(base, s), readers);
    }
    nt_mbarrier_init_fence();
}
/* x, w: the tensor maps. */
template <class T> NT_DEVICE void nt_sm90_init_barriers(const void *x, const void *w, uint32_t base) {
    nt_tensor_map_prefetch(x);
    nt_tensor_map_prefetch(w);
    nt_sm90_init_ring<T>(base, 1, T::MULTIPLIERS);
}

/* An operand's part of a stage: the sum from element `at` on, the tile's rows or columns from n0 on. */
template <class T, int BOXES, bool SUM_LINES>
NT_DEVICE void nt_sm90_copy_boxes(uint32_t to, const struct nt_tensor_map *map, int32_t at, int32_t n0, uint32_t full) {
#pragma unroll
    for (int i = 0; i < BOXES; i++) {
        const int32_t n = n0 + i * NT_GEMM_SM90_DEPTH;
        nt_tensor_copy_2d(to + i * T::BOX, map, SUM_LINES ? n : at, SUM_LINES ? at : n, full);
    }
}
template <class T>
NT_DEVICE void nt_sm90_copy_x(uint32_t to, const struct nt_tensor_map *x, int32_t at, int32_t m0, uint32_t full) {
    nt_sm90_copy_boxes<T, T::X_BOXES, T::X_SUM_LINES>(to, x, at, m0, full);
}
template <class T>
NT_DEVICE void nt_sm90_copy_w(uint32_t to, const struct nt_tensor_map *w, int32_t at, int32_t n0, uint32_t full) {
    nt_sm90_copy_boxes<T, T::BOXES, T::SUM_LINES>(to, w, at, n0, full);
}

/* That come to a stage. */
template <class T> NT_DEVICE uint32_t nt_sm90_bytes(const struct nt_sm90_operands *own) {
    return (uint32_t)(own->x_rows + T::COLS) * T::LINE;
}
/* One thread, before it waits for the launch before it: starts the copies of the weights of a tile's first stages, in a
 * ring that is still empty. How many. */
template <class T>
NT_DEVICE int32_t nt_sm90_copy_ahead(const struct nt_sm90_operands *own, uint32_t base, int32_t n0, int32_t n_own) {
    const int32_t n = min((int32_t)T::STAGES, n_own);
    for (int32_t s = 0; s < n; s++) {
        const uint32_t to = base + (uint32_t)(s * T::STAGE_BYTES), full = nt_sm90_full_at<T>(base, s);
        nt_mbarrier_arrive_expect(full, nt_sm90_bytes<T>(own));
        nt_sm90_copy_w<T>(to + T::ROWS * T::LINE, &own->w, s * NT_GEMM_SM90_DEPTH, n0, full);
    }
    return n;
}
/* The same thread, from place p on. Of the n_k stages those from n_own on are of `behind`, if there is one; n_ahead were
 * begun by nt_sm90_copy_ahead. */
template <class T>
NT_DEVICE void nt_sm90_copy_stages(const struct nt_sm90_operands *own, const struct nt_sm90_operands *behind,
                                   uint32_t base, int32_t m0, int32_t n0, int32_t n_own, int32_t n_k, int32_t n_ahead,
                                   struct nt_sm90_place *p) {
    for (int32_t kt = 0; kt < n_k; kt++, nt_sm90_next<T>(p)) {
        const uint32_t to = base + (uint32_t)(p->stage * T::STAGE_BYTES), full = nt_sm90_full_at<T>(base, p->stage);
        const bool second = behind && kt >= n_own;
        const struct nt_sm90_operands *a = second ? behind : own;
        const int32_t col = (second ? kt - n_own : kt) * NT_GEMM_SM90_DEPTH;
        if (kt >= n_ahead) {
            nt_mbarrier_wait(nt_sm90_empty_at<T>(base, p->stage), p->phase ^ 1);
            nt_mbarrier_arrive_expect(full, nt_sm90_bytes<T>(own));
            nt_sm90_copy_w<T>(to + T::ROWS * T::LINE, &a->w, col, n0, full);
        }
        nt_sm90_copy_x<T>(to, &a->x, col, m0, full);
    }
}

/* A warpgroup of a tile of 64 rows, of which x has `rows`: the others become zeros, once for all n_k copies. */
template <class T> NT_DEVICE void nt_sm90_clear_rows(char *stages, int32_t rows, int32_t n_k) {
    const int32_t from = rows * T::LINE / 16, chunks = (64 - rows) * T::LINE / 16;
    for (int32_t s = 0; s < min((int32_t)T::STAGES, n_k); s++)
        for (int32_t i = (int32_t)threadIdx.x; i < chunks; i += 4 * NT_WARP)
            nt_store128(stages + s * T::STAGE_BYTES + 16 * (from + i), make_uint4(0, 0, 0, 0));
    nt_async_proxy_fence();
    nt_barrier(1, 4 * NT_WARP);
}

/* How an operand lies: the descriptor of a tile at address 0, and what it grows by per 16 of the sum. */
struct nt_sm90_lay {
    uint64_t tile;
    uint32_t step;
};
template <class T> NT_DEVICE struct nt_sm90_lay nt_sm90_lay_of(bool sum_lines) {
    if (sum_lines) return {nt_wgmma_turned_tile(0, T::BOX), 128};
    return {nt_wgmma_tile(0), 2};
}

/* A warpgroup: acc = its 64 rows by the tile's columns, over n_k stages from p on. They are free then but for the last of
 * them, which is returned. */
template <class T>
NT_DEVICE int32_t nt_sm90_multiply_stages(float *acc, uint32_t base, int32_t group, int32_t n_k,
                                          struct nt_sm90_place *p, const struct nt_sm90_lay w_lay) {
    const struct nt_sm90_lay x_lay = nt_sm90_lay_of<T>(T::X_SUM_LINES);
    int32_t before = T::STAGES - 1;
    for (int32_t kt = 0; kt < n_k; kt++, nt_sm90_next<T>(p)) {
        const uint32_t at = base + (uint32_t)(p->stage * T::STAGE_BYTES);
        const uint64_t x = nt_wgmma_at(x_lay.tile, at + (uint32_t)(group * T::BOX));
        const uint64_t w = nt_wgmma_at(w_lay.tile, at + T::ROWS * T::LINE);
        nt_mbarrier_wait(nt_sm90_full_at<T>(base, p->stage), p->phase);
        nt_wgmma_fence();
#pragma unroll
        for (int s = 0; s < NT_GEMM_SM90_DEPTH / 16; s++)
            nt_wgmma_bf16<T::COLS, T::X_SUM_LINES, T::SUM_LINES>(acc, x + s * x_lay.step, w + s * w_lay.step,
                                                                 kt > 0 || s > 0);
        nt_wgmma_commit();
        nt_wgmma_wait<1>(); /* the stage before this one has been read */
        if (kt > 0 && nt_lane() == 0) nt_mbarrier_arrive(nt_sm90_empty_at<T>(base, before));
        before = p->stage;
    }
    nt_wgmma_wait<0>();
    nt_wgmma_settle<T::COLS / 2>(acc);
    return before;
}

/* All threads, once in a kernel: readies the mbarriers. The warp's number, as the same in all its lanes for the compiler.
 */
template <class T> NT_DEVICE int32_t nt_sm90_begin(const void *x, const void *w, uint32_t base) {
    const int32_t warp = __shfl_sync(NT_ALL_LANES, nt_warp(), 0);
    if (threadIdx.x == 0) nt_sm90_init_barriers<T>(x, w, base);
    __syncthreads();
    return warp;
}

NT_DEVICE int32_t nt_sm90_stages_of(int32_t k) {
    return (k + NT_GEMM_SM90_DEPTH - 1) / NT_GEMM_SM90_DEPTH;
}
/* acc = this warp's part of the tile at row m0, column n0 of k terms, and of k2 of behind, if that is not NULL; false in
 * the warps that only copy, which are done. Those that return true have all read the stages, whose memory is theirs.
 * All threads, once in a kernel, in place of nt_launch_begin: a->w is read before the launch before this one has ended,
 * nothing else is. stages 1024-byte aligned. */
template <class T>
NT_DEVICE bool nt_sm90_product(const struct nt_sm90_operands *a, const struct nt_sm90_operands *behind, char *stages,
                               int32_t m0, int32_t n0, int32_t k, int32_t k2, float *acc) {
    const uint32_t base = nt_shared_address(stages);
    const int32_t warp = nt_sm90_begin<T>(&a->x, &a->w, base);
    const int32_t n_own = nt_sm90_stages_of(k), n_k = behind ? n_own + nt_sm90_stages_of(k2) : n_own;
    struct nt_sm90_place p = {0, 0};
    if (warp >= T::MULTIPLIERS) {
        if (T::GIVES_REGISTERS) nt_registers_lower<24>();
        if (warp > T::MULTIPLIERS || !nt_elect()) return false;
        const int32_t n_ahead = nt_sm90_copy_ahead<T>(a, base, n0, n_own);
        nt_launch_wait();
        nt_sm90_copy_stages<T>(a, behind, base, m0, n0, n_own, n_k, n_ahead, &p);
        return false;
    }
    if (T::GIVES_REGISTERS) nt_registers_raise<240>();
    nt_launch_begin();
    if (T::GROUPS == 1 && a->x_rows < 64) nt_sm90_clear_rows<T>(stages, a->x_rows, n_k);
    nt_sm90_multiply_stages<T>(acc, base, warp / 4, n_k, &p, nt_sm90_lay_of<T>(T::SUM_LINES));
    nt_barrier(1, NT_WARP * T::MULTIPLIERS);
    return true;
}

#endif
