/* What the kernels of attention_bwd.cu are launched with (host side attention_bwd_cuda.c).
 *
 * stats: two floats for each (token, head), in the workspace: lse and delta, so that one load brings both. Rows of a
 * tile are (token, head of the KV head's group), token-major, as in the forward; the order of every sum follows from
 * positions and the group alone. staged: the first kernel leaves dout in bf16, d_pad columns, where dq of the same
 * (token, head) will be, and the others copy it from there; where alignment forbids that they read dout themselves.
 * Pointers are device memory. No state, no errors. */
#ifndef NT_ATTENTION_BWD_CUDA_H
#define NT_ATTENTION_BWD_CUDA_H

#include "attention_cuda.h"
#include "ops_bwd.h"

struct nt_attn_bwd_launch {
    struct nt_attn_launch f; /* as the forward's, lse to be read; out and state unused */
    const nt_bf16 *out;      // [n_tok, ldo]
    const float *dout;       // [n_tok, lddo]
    float *dqkv;             // [n_tok, width]
    float *stats;            // [n_tok, n_head, 2]
    int64_t ldo, lddo, width;
    float scale;
    int32_t staged;
};

/* A warp has so many tiles of 16 keys or query rows; a B fragment serves all. dq: rows of a tile of 4 warps. dk and dv:
 * pages of a block, query rows of a step, warps: 4, at d 256 8, each for half of the columns. */
#define NT_ATTN_BWD_TILES(d)     ((d) <= 64 ? 2 : 1)
#define NT_ATTN_BWD_ROWS(d)      (NT_ATTN_PREFILL_WARPS * 16 * NT_ATTN_BWD_TILES(d))
#define NT_ATTN_BWD_PAGES(d)     NT_ATTN_BWD_TILES(d)
#define NT_ATTN_BWD_KEY_WARPS(d) ((d) <= 128 ? 4 : 8)
enum { NT_ATTN_BWD_STEP = 32, NT_ATTN_BWD_DELTA_ROWS = 32 /* of a warp */ };
/* Bytes of dynamic shared memory. dq: q, dout, two pages of K and one of V. dk and
 * dv: K, V, two steps of q, dout, stats and positions. */
#define NT_ATTN_BWD_QUERIES_SHARED(d) NT_ATTN_SHARED(d, 2 * NT_ATTN_BWD_ROWS(d), 3, false)
#define NT_ATTN_BWD_STAGE(d)          (NT_ATTN_BWD_STEP * (4 * (d) + 12))
#define NT_ATTN_BWD_KEYS_SHARED(d)    (2 * NT_ATTN_BWD_PAGES(d) * NT_KV_PAGE * 2 * (d) + 2 * NT_ATTN_BWD_STAGE(d))

#endif
