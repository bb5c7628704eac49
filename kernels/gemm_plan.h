/* How a packed-weight product is cut into pieces for the threads; shared by the tuned bodies.
 *
 * A piece is a block of rows times a few panels. Every thread has its own pieces, neighbouring panels, so that threads
 * do not fetch each other's lines of y and find their own again in the next call; a thread without work takes the last
 * piece of another. A block is as high as leaves room in L2 for two panels; pieces are small enough that a delayed
 * thread costs little. A body brings its traits: the panel function and, when rows must be rearranged first, a copy
 * function. Which thread computes a piece never changes a result. State: one word per thread at the end of its scratch,
 * during a call. */
#ifndef NT_GEMM_PLAN_H
#define NT_GEMM_PLAN_H

#include "cpu_bodies.h"

/* A block of rows times one panel. */
struct nt_gemm_panel {
    const char *x; // [rows, k]
    int64_t ldx;   /* bytes */
    int32_t rows, n_pair;
    const char *w;      /* the panel */
    const char *w_next; /* the panel this thread computes next, NULL: unknown */
    const float *bias;  /* of this panel, or NULL */
    int32_t n_valid;    /* columns of this panel that exist */
    enum nt_gemm_out out;
    char *y;     /* first element of the block in this panel */
    int64_t ldy; /* bytes */
};

struct nt_gemm_traits {
    void (*panel)(const struct nt_gemm_panel *p);
    /* Copies rows [rows, k] to at with *ldx bytes from row to row; NULL: rows are always read in place. */
    void (*copy)(const struct nt_gemm_args *a, int32_t row, int32_t rows, void *at, int64_t *ldx);
    int32_t tile_rows;
    int32_t row_bytes;      /* bytes of one k element of a row as the panel function reads it */
    int32_t lookahead_rows; /* from this many rows on w_next is wanted */
};

nt_status nt_gemm_run(struct nt_backend *be, const struct nt_gemm_args *args, const struct nt_gemm_traits *traits,
                      bool copy);

#endif
