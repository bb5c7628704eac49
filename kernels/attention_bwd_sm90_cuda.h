/* attention_bwd by wgmma on compute capability 9.0: what attention_bwd_sm90.cu and its launcher (attention_bwd_cuda.c)
 * agree on.
 *
 * The args, the workspace, attention_bwd_delta and the order of sums are those of attention_bwd.cu. Heads of up to 128
 * columns; no tensor maps: rows of a group do not lie apart by one stride. Pointers are device memory. No state, no
 * errors. */
#ifndef NT_ATTENTION_BWD_SM90_CUDA_H
#define NT_ATTENTION_BWD_SM90_CUDA_H

#include "attention_bwd_cuda.h"
#include "gemm_sm90_cuda.h"

/* X(d): nt_attention_bwd_sm90_keys_d<d> and nt_attention_bwd_sm90_queries_d<d>, heads of up to so many columns */
#define NT_ATTN_BWD_SM90_WIDTHS(X)                                                                                     \
    X(64)                                                                                                              \
    X(128)

enum {
    NT_ATTN_BWD_SM90_GROUPS = 2,                                    /* warpgroups that multiply */
    NT_ATTN_BWD_SM90_ROWS = NT_KV_PAGE * NT_ATTN_BWD_SM90_GROUPS,   /* of a tile of dq; keys of a block of dk and dv */
    NT_ATTN_BWD_SM90_THREADS = 128 * (NT_ATTN_BWD_SM90_GROUPS + 1), /* and one warpgroup that copies */
    NT_ATTN_BWD_SM90_PAGES = 6,                                     /* stages of dq: K or V of a page each */
    NT_ATTN_BWD_SM90_STEPS = 3                                      /* of dk and dv: q and dout of 64 rows each */
};
#define NT_ATTN_BWD_SM90_LINES(d) ((d) / 64 * NT_ATTN_BOX)               /* bytes of 64 rows or keys */
#define NT_ATTN_BWD_SM90_STEP(d)  (2 * NT_ATTN_BWD_SM90_LINES(d) + 1024) /* and 12 bytes a row: lse, delta, token */
/* q and dout of the tile, the stages, their barriers, what the block knows of its tile. */
#define NT_ATTN_BWD_SM90_QUERIES_SHARED(d)                                                                             \
    ((2 * NT_ATTN_BWD_SM90_GROUPS + NT_ATTN_BWD_SM90_PAGES) * NT_ATTN_BWD_SM90_LINES(d) + NT_GEMM_SM90_BARRIERS +      \
     NT_ATTN_TILE_BYTES)
/* K and V of the block, the stages, their barriers. */
#define NT_ATTN_BWD_SM90_KEYS_SHARED(d)                                                                                \
    (2 * NT_ATTN_BWD_SM90_GROUPS * NT_ATTN_BWD_SM90_LINES(d) + NT_ATTN_BWD_SM90_STEPS * NT_ATTN_BWD_SM90_STEP(d) +     \
     NT_GEMM_SM90_BARRIERS)

#endif
