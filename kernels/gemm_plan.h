/* How a product of rows and panels is cut into pieces for the threads, and the panel function that computes it.
 *
 * A piece is a block of rows times a few panels. Every thread has its own pieces, neighbouring panels, so that threads
 * do not fetch each other's lines of y and find their own again in the next call; a thread without work takes the last
 * piece of another. A block is as high as caches allow; pieces are small enough that a delayed
 * thread costs little. Which thread computes a piece never changes a result. State: one word per thread at the end of
 * its scratch, from the start of a plan to the last piece. Used by gemm (gemm_run.c) and its backward (gemm_blocks.c).
 */
#ifndef NT_GEMM_PLAN_H
#define NT_GEMM_PLAN_H

#include "cpu_bodies.h"

/* Memory that is read soon after: n pieces of `bytes`, `stride` bytes apart. */
struct nt_gemm_ahead {
    const char *at;
    int64_t stride;
    int32_t bytes, n;
};

enum { NT_GEMM_RUN = NT_PANEL / 4 }; /* pairs of rows in a run of gate or up */

/* Pairs of a sum. */
struct nt_gemm_span {
    int32_t first, n;
};

/* A block of rows times one panel: sums over n_pair pairs of x and w, then those of x2 and w2, in one chain. */
struct nt_gemm_panel {
    const char *x; // [rows, 2 n_pair]
    int64_t ldx;   /* bytes */
    int32_t rows, n_pair;
    const char *w;      /* the panel */
    const char *w_next; /* the panel this thread computes next, NULL: unknown */
    const char *x2;     // [rows, ...]
    int64_t ldx2;       /* bytes */
    const char *w2;
    struct nt_gemm_span second[2]; /* pairs of x2 and w2 for each half of the panel; the same if not traits.parts */
    bool runs;         /* after every NT_GEMM_RUN pairs of x and w as many are left out; of traits.parts alone */
    float *begin;      // [rows, NT_PANEL] what the chains begin with, or NULL: zero
    float scale;       /* of the sum, before it is added; 1 unless ADD_F32 */
    const float *bias; /* of this panel, or NULL */
    int32_t n_valid;   /* columns of this panel that exist */
    enum nt_gemm_out out;
    char *y;     /* first element of the block in this panel */
    int64_t ldy; /* bytes */
    char *pre;   /* NULL, or where a gated epilogue stores all columns */
    int64_t ldpre;
    struct nt_gemm_ahead ahead; /* to be fetched into L2 meanwhile, where w_next does not say it */
};

struct nt_gemm_traits {
    void (*panel)(const struct nt_gemm_panel *p);
    /* Copies rows of `count` elements, as the panel function reads them, to rows ld_to bytes apart. */
    void (*copy)(const nt_bf16 *from, int64_t ld, int32_t rows, int32_t count, char *to, int64_t ld_to);
    /* Columns k0 .. k0 + NT_PANEL - 1 of a panel of quantized weights as pairs, [NT_PANEL/2][NT_PANEL][2]; k0 is a
     * multiple of NT_PANEL; columns from w->k on hold anything. */
    void (*unpack)(const struct nt_packed *w, int32_t panel, int32_t k0, nt_bf16 *to);
    int32_t tile_rows;
    int32_t row_bytes;      /* bytes of one element of a row as the panel function reads it */
    int32_t lookahead_rows; /* from this many rows on w_next is wanted */
    bool in_place;          /* the panel function can read rows where they are */
    bool parts;             /* it leaves out pairs of matrices with parts, and halves of panels without columns */
};
/* Part i of n of what is to be fetched. */
static inline void nt_gemm_fetch_ahead(const struct nt_gemm_ahead *a, int32_t i, int32_t n) {
    const int32_t each = (a->n + n - 1) / n, end = (i + 1) * each < a->n ? (i + 1) * each : a->n;
    for (int32_t at = i * each; at < end; at++)
        for (int32_t byte = 0; byte < a->bytes; byte += 64) __builtin_prefetch(a->at + at * a->stride + byte, 0, 2);
}

const struct nt_gemm_traits *nt_gemm_traits_avx2(void);
const struct nt_gemm_traits *nt_gemm_traits_avx512(void);
void nt_gemm_unpack_avx2(const struct nt_packed *w, int32_t panel, int32_t k0, nt_bf16 *to);
void nt_gemm_unpack_avx512(const struct nt_packed *w, int32_t panel, int32_t k0, nt_bf16 *to);

/* Bytes from one copied row to the next: a line more than needed, and never a multiple of 2 KiB, so that the rows of a
 * tile keep out of each other's cache sets. */
static inline int64_t nt_gemm_row_stride(int64_t bytes) {
    const int64_t stride = (bytes + 63) / 64 * 64 + 64;
    return stride % 2048 == 0 ? stride + 64 : stride;
}

/* What is to be cut. */
struct nt_gemm_cut {
    int32_t n_row, n_panel;
    bool half_last;    /* the last panel takes half the time of another */
    int32_t depth;     /* elements of the sums */
    int64_t row_bytes; /* of a row that should stay in a cache */
    bool in_place;     /* rows are not copied */
    int64_t room;      /* bytes of scratch for what a block of rows takes, 0: nothing */
    int64_t room_per_row;
    int32_t tile_rows;              /* a block of rows is a multiple */
    int32_t min_panels, max_panels; /* of a piece, 0: any; the first holds if it can */
};

struct nt_gemm_plan {
    struct nt_backend *be;
    int32_t n_row, n_panel, n_thread;
    int32_t grid_rows, grid_cols; /* of threads: thread i is at row i / grid_cols, column i % grid_cols */
    int32_t n_block;              /* blocks of rows of one thread */
    int32_t n_unit;               /* pieces its panels are cut into, per block */
};

struct nt_gemm_piece {
    int64_t row, row_end, panel, panel_end; /* panel == panel_end: none left */
};
static inline bool nt_gemm_piece_empty(const struct nt_gemm_piece *p) {
    return p->panel >= p->panel_end || p->row >= p->row_end;
}

void nt_gemm_plan_start(struct nt_gemm_plan *plan, struct nt_backend *be, const struct nt_gemm_cut *cut);
/* The next of a thread's own pieces, blocks of rows ascending: taken early by who wants to know what comes. */
struct nt_gemm_piece nt_gemm_plan_own(const struct nt_gemm_plan *plan, int thread);
/* The next piece to compute: *ahead, which becomes empty, if it was taken early; else its own; else another's last. */
bool nt_gemm_plan_next(const struct nt_gemm_plan *plan, int thread, struct nt_gemm_piece *ahead,
                       struct nt_gemm_piece *piece);
/* Scratch of a thread that the plan does not use. */
int64_t nt_gemm_plan_room(const struct nt_backend *be);

/* cut.half_last for a product with n columns. */
static inline bool nt_gemm_half_last(const struct nt_gemm_traits *traits, int32_t n) {
    return traits->parts && n % NT_PANEL > 0 && n % NT_PANEL <= NT_PANEL / 2;
}
/* Whether rows ldx elements apart are read where they are. Those a multiple of 2 KiB apart share few sets of an 8-way
 * L1: unless they are few, they are copied apart first. */
bool nt_gemm_in_place(const struct nt_gemm_traits *traits, int64_t ldx, int32_t n_row);

/* The pairs of columns that each half of a panel has in w's parts, among [begin, end); without parts, or unless
 * `parts`, all of them. second counts from begin. */
void nt_gemm_second(const struct nt_packed *w, int64_t panel, int32_t begin, int32_t end, bool parts,
                    struct nt_gemm_span second[2]);

nt_status nt_gemm_run(struct nt_backend *be, const struct nt_gemm_args *args, const struct nt_gemm_traits *traits);

#endif
