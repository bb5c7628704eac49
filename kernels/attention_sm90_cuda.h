/* attention of prompts and chunks by TMA and wgmma on compute capability 9.0: what attention_sm90.cu and its launcher
 * agree on.
 *
 * The args, the tiles and their order, the workspace and the bits are those of attention.cu (attention_cuda.h), so a
 * row goes either way; nt_attention_sm90_takes looks at the device and the cache alone. The cache is one tensor map,
 * [page][row of K or V of a KV head][d_pad], in boxes of 64 columns by the rows of a page. How many pages there are
 * nobody says: the map has as many as an int32_t numbers, and only those of sequences are asked for.
 * Pointers are device memory. Errors: NT_E_UNSUPPORTED with the driver's word when it refuses the map. */
#ifndef NT_ATTENTION_SM90_CUDA_H
#define NT_ATTENTION_SM90_CUDA_H

#include "attention_cuda.h"
#include "gemm_sm90_cuda.h"

/* X(d): nt_attention_sm90_d<d>, heads of up to so many columns */
#define NT_ATTN_SM90_WIDTHS(X)                                                                                         \
    X(64)                                                                                                              \
    X(128)

enum {
    NT_ATTN_SM90_GROUPS = 2, /* warpgroups that multiply, 64 rows each */
    NT_ATTN_SM90_ROWS = 64 * NT_ATTN_SM90_GROUPS,
    NT_ATTN_SM90_THREADS = 128 * NT_ATTN_SM90_GROUPS + 128, /* and one of which a warp copies */
    NT_ATTN_SM90_STAGES = 8                                 /* K or V of a page each */
};
#define NT_ATTN_SM90_STAGE(d) ((d) / 64 * NT_ATTN_BOX)
/* The stages, their barriers, q's rows, what the block knows of its tile. */
#define NT_ATTN_SM90_SHARED(d)                                                                                         \
    (NT_ATTN_SM90_STAGES * NT_ATTN_SM90_STAGE(d) + NT_GEMM_SM90_BARRIERS + NT_ATTN_SM90_ROWS * 2 * (d) +               \
     NT_ATTN_TILE_BYTES)

struct nt_attention_sm90 {
    struct nt_tensor_map cache;
    struct nt_attn_launch l;
};

#ifndef __CUDACC__
bool nt_attention_sm90_takes(const struct nt_backend *be, const struct nt_attention_args *args);
/* Only what it takes; l: a launch as nt_attention_cuda has prepared it, of so many tiles of a sequence. */
NT_MUST nt_status nt_attention_sm90(struct nt_backend *be, const struct nt_attention_args *args,
                                    const struct nt_attn_launch *l, int64_t tiles);
#endif

#endif
