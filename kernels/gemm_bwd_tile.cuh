/* A tile of A B on tensor cores where lines of B are elements of the sum: what gemm_tile.cuh is for the backward.
 *
 * B [sum, cols] is read as it lies, row by row, and turned by ldmatrix.trans; A is either [rows, sum] (dgrad: dy) or,
 * with SUM_LINES, [sum, rows] and turned too (wgrad: both are activations, a line a token). Order of sums, swizzle and
 * the roles of stages and barriers are gemm_tile.cuh's. A ring is begun once; nt_bwd_advance takes so many stages from
 * it, with the next ones under way, so that who must look at sums between (wgrad) does not empty it.
 * Lines beyond the sum and columns beyond a line's end become zeros and are not read. Operands whose lines are not
 * 16-byte aligned go through registers one element at a time: same bits, slower; adapters of an odd rank, odd shapes. */
#ifndef NT_GEMM_BWD_TILE_CUH
#define NT_GEMM_BWD_TILE_CUH

#include "gemm_bwd_cuda.h"
#include "gemm_tile.cuh"

/* An operand's part of a stage: lines of LINE bytes, and how a block's threads copy it. */
template <int LINE_, int LINES_, int THREADS_> struct nt_bwd_part {
    enum {
        LINE = LINE_,
        LINES = LINES_,
        CHUNKS = LINE / 16,
        PASS = THREADS_ / CHUNKS, /* lines copied by one instruction of every thread */
        PASSES = LINES / PASS,
        BYTES = LINE * LINES,
    };
    static_assert(LINE == 32 || LINE == 64 || LINE % 128 == 0, "a swizzle for its lines");
    static_assert(THREADS_ % CHUNKS == 0 && LINES % PASS == 0, "no thread is left out");
    static_assert(PASS % 8 == 0 || (CHUNKS >= 8 && 8 % PASS == 0), "the swizzle of a pass is a constant");
};

template <int ROWS_, int COLS_, int DEPTH_, int STAGES_, int WARPS_M_, int WARPS_N_, bool SUM_LINES_>
struct nt_bwd_tile {
    enum {
        ROWS = ROWS_,
        COLS = COLS_,
        DEPTH = DEPTH_,
        STAGES = STAGES_,
        WARPS_M = WARPS_M_,
        WARPS_N = WARPS_N_,
        SUM_LINES = SUM_LINES_,
        THREADS = WARPS_M * WARPS_N * NT_WARP,
        STEPS = DEPTH / 16,
        WARP_ROWS = ROWS / WARPS_M,
        WARP_COLS = COLS / WARPS_N,
        M = WARP_ROWS / 16, /* mma tiles of a warp */
        N = WARP_COLS / 8,
    };
    using A = nt_bwd_part<2 * (SUM_LINES ? ROWS : DEPTH), SUM_LINES ? DEPTH : ROWS, THREADS>;
    using B = nt_bwd_part<2 * COLS, DEPTH, THREADS>;
    enum { STAGE_BYTES = A::BYTES + B::BYTES };
    static_assert(SUM_LINES || A::LINE <= 128, "a step's chunks differ from another's in two bits");
    static_assert(STEPS % 2 == 0, "two sets of fragments take turns");
    static_assert(WARP_ROWS % 16 == 0 && (WARP_ROWS & (WARP_ROWS - 1)) == 0, "m differs in bits of the chunk");
    static_assert(WARP_COLS % (SUM_LINES ? 16 : NT_PANEL) == 0, "pairs of mma tiles; whole panels are stored");
    static_assert((WARP_COLS & (WARP_COLS - 1)) == 0, "n, likewise");
    static_assert(STAGES >= 2, "one stage is filled while another is read");
};

/* What a thread copies of an operand: its chunk of every PASS-th line, from stage to stage. */
struct nt_bwd_copier {
    const nt_bf16 *from; /* its chunk of its first line in the next stage */
    int64_t ld;
    uint32_t to;          /* offset in the part */
    int32_t line, n_line; /* its first line; lines at or after n_line become zeros */
    int32_t left;         /* columns from its chunk to the end */
    bool aligned;
};

/* matrix [n_line, ld] from line line0 and column col0 on; columns end at n_col. */
template <class P>
NT_DEVICE struct nt_bwd_copier nt_bwd_copier_of(const nt_bf16 *matrix, int64_t ld, int32_t line0, int32_t n_line,
                                                int32_t col0, int32_t n_col) {
    const int32_t line = (int32_t)threadIdx.x / P::CHUNKS, chunk = (int32_t)threadIdx.x % P::CHUNKS;
    struct nt_bwd_copier c = {matrix + (line0 + line) * ld + col0 + 8 * chunk,
                              ld,
                              nt_gemm_chunk_at<P>(line, chunk),
                              line0 + line,
                              n_line,
                              n_col - col0 - 8 * chunk,
                              ld % 8 == 0 && nt_is_aligned16(matrix)};
    return c;
}

/* Starts the copies of a part; what follows is `lines` lines and `cols` columns further. */
template <class P>
NT_DEVICE void nt_bwd_copy(struct nt_bwd_copier *c, char *part, uint32_t part_address, int32_t lines, int32_t cols) {
    const int bytes = nt_gemm_bytes_before(0, c->left);
#pragma unroll
    for (int i = 0; i < P::PASSES; i++) {
        const nt_bf16 *from = c->from + i * P::PASS * c->ld;
        const uint32_t swizzle = P::PASS % 8 ? (uint32_t)(i * P::PASS % 8) << 4 : 0;
        const uint32_t to = (c->to ^ swizzle) + (uint32_t)(i * P::PASS * P::LINE);
        const int n = c->line + i * P::PASS < c->n_line ? bytes : 0;
        if (c->aligned) {
            nt_cp_async_16_zfill(part_address + to, from, n);
        } else {
            uint32_t pair[4];
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const uint32_t low = 4 * j < n ? from[2 * j] : 0, high = 4 * j + 2 < n ? from[2 * j + 1] : 0;
                pair[j] = low | high << 16;
            }
            nt_store128(part + to, make_uint4(pair[0], pair[1], pair[2], pair[3]));
        }
    }
    c->from += lines * c->ld + cols;
    c->line += lines;
    c->left -= cols;
}

/* From a stage on the operands are others. */
struct nt_bwd_second {
    const struct nt_gemm_dgrad_cuda *args; /* NULL: they are not */
    int32_t from, m0, n0;                  /* stage; first row and column of the tile */
};

template <class T> struct nt_bwd_loop {
    struct nt_bwd_copier a, b; /* of the next stage that is copied */
    struct nt_bwd_second second;
    char *stages;
    int32_t copied, n_stage;
    uint32_t read, fill; /* slots */
    uint32_t a_at, b_at; /* the lane's offsets of step 0 in a part */
    struct nt_gemm_fragments<T> f[2];
};

/* The lane's offsets in parts whose lines are elements of the sum: element 0 of a step, the warp's first column. */
template <class P> NT_DEVICE uint32_t nt_bwd_turned_at(int32_t col0, int32_t line, int32_t chunk) {
    return nt_gemm_chunk_at<P>(8 * line + (nt_lane() & 7), col0 / 8 + chunk);
}

/* The fragments of one step from the parts at a and b; a_at, b_at are the lane's offsets of step 0. */
template <class T>
NT_DEVICE void nt_bwd_fragments_of(struct nt_gemm_fragments<T> *f, uint32_t a, uint32_t a_at, uint32_t b, uint32_t b_at,
                                   int step) {
#pragma unroll
    for (int m = 0; m < T::M; m++) {
        if (T::SUM_LINES)
            nt_ldmatrix_x4_trans(f->x[m], a + (a_at ^ (uint32_t)m << 5) + (uint32_t)(16 * step * T::A::LINE));
        else
            nt_ldmatrix_x4(f->x[m], a + (a_at ^ (uint32_t)step << 5) + (uint32_t)(16 * m * T::A::LINE));
    }
#pragma unroll
    for (int n = 0; n < T::N / 2; n++)
        nt_ldmatrix_x4_trans(f->w[n], b + (b_at ^ (uint32_t)n << 5) + (uint32_t)(16 * step * T::B::LINE));
}

/* The lane's offsets. Matrices of an x4: of A rows 0-7 and 8-15 of sum 0-7, then of 8-15; of B sum 0-7 and 8-15 of
 * columns 0-7, then of 8-15. */
template <class T> NT_DEVICE uint32_t nt_bwd_a_at(void) {
    const int32_t row0 = nt_warp() % T::WARPS_M * T::WARP_ROWS, lane = nt_lane();
    return T::SUM_LINES ? nt_bwd_turned_at<typename T::A>(row0, lane >> 4, lane >> 3 & 1)
                        : nt_gemm_chunk_at<typename T::A>(row0 + (lane & 15), lane >> 4);
}
template <class T> NT_DEVICE uint32_t nt_bwd_b_at(void) {
    const int32_t col0 = nt_warp() / T::WARPS_M * T::WARP_COLS, lane = nt_lane();
    return nt_bwd_turned_at<typename T::B>(col0, lane >> 3 & 1, lane >> 4);
}

template <class T> NT_DEVICE void nt_bwd_copy_a(struct nt_bwd_copier *a, char *part) {
    nt_bwd_copy<typename T::A>(a, part, nt_shared_address(part), T::SUM_LINES ? T::DEPTH : 0,
                               T::SUM_LINES ? 0 : T::DEPTH);
}
template <class T> NT_DEVICE void nt_bwd_turn_to_second(struct nt_bwd_loop<T> *l) {
    const struct nt_gemm_dgrad_cuda *d = l->second.args;
    const struct nt_gemm_adapter *s = &d->second;
    l->a = nt_bwd_copier_of<typename T::A>(s->x, s->ldx, l->second.m0, d->g.n_tok, 0, s->k);
    l->b = nt_bwd_copier_of<typename T::B>(s->w, d->g.n_pad, 0, s->k, l->second.n0, d->g.n_pad);
}
/* The next stage, if there is one, into the slot; a group of copies in any case. */
template <class T> NT_DEVICE void nt_bwd_copy_stage(struct nt_bwd_loop<T> *l, uint32_t slot) {
    if (l->copied < l->n_stage) {
        char *b = l->stages + slot + T::A::BYTES;
        if (l->second.args && l->copied == l->second.from) nt_bwd_turn_to_second<T>(l);
        nt_bwd_copy_a<T>(&l->a, l->stages + slot);
        nt_bwd_copy<typename T::B>(&l->b, b, nt_shared_address(b), T::DEPTH, 0);
    }
    l->copied++;
    nt_cp_async_commit();
}

/* a, b, second, stages, n_stage > 0 are the caller's; nobody uses the shared memory any more. */
template <class T> NT_DEVICE void nt_bwd_begin(struct nt_bwd_loop<T> *l) {
    l->copied = 0;
    l->a_at = nt_bwd_a_at<T>();
    l->b_at = nt_bwd_b_at<T>();
#pragma unroll
    for (int32_t s = 0; s < T::STAGES - 1; s++) nt_bwd_copy_stage<T>(l, (uint32_t)(s * T::STAGE_BYTES));
    nt_cp_async_wait<T::STAGES - 2>();
    __syncthreads();
    const uint32_t base = nt_shared_address(l->stages);
    nt_bwd_fragments_of<T>(&l->f[0], base, l->a_at, base + T::A::BYTES, l->b_at, 0);
    l->read = 0;
    l->fill = (T::STAGES - 1) * T::STAGE_BYTES;
}

/* acc += the products of `count` stages; last: none follow. */
template <class T>
NT_DEVICE void nt_bwd_advance(struct nt_bwd_loop<T> *l, int32_t count, bool last, float acc[T::M][T::N][4]) {
    const uint32_t base = nt_shared_address(l->stages);
    for (int32_t i = 0; i < count; i++) {
        const uint32_t next = l->read + T::STAGE_BYTES == T::STAGES * T::STAGE_BYTES ? 0 : l->read + T::STAGE_BYTES;
        const uint32_t a = base + l->read, b = a + T::A::BYTES;
#pragma unroll
        for (int s = 0; s < T::STEPS; s++) {
            if (s + 1 < T::STEPS) {
                nt_bwd_fragments_of<T>(&l->f[(s + 1) & 1], a, l->a_at, b, l->b_at, s + 1);
            } else if (!last || i + 1 < count) {
                nt_cp_async_wait<T::STAGES - 2>();
                __syncthreads(); /* the next stage is there for all; all have taken their fragments of this one */
                nt_bwd_fragments_of<T>(&l->f[0], base + next, l->a_at, base + next + T::A::BYTES, l->b_at, 0);
            }
            if (s == 0) nt_bwd_copy_stage<T>(l, l->fill);
            nt_gemm_multiply<T>(acc, &l->f[s & 1]);
        }
        l->fill = l->read;
        l->read = next;
    }
}

#endif
