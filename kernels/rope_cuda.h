/* What rope.cu and rope_cuda.c agree on: the kernel's struct, the args of ops.h with the cache of the layer unpacked
 * (struct nt_kv_layer is host memory).
 *
 * Sequences, page tables and all data are device memory and read by the kernel, so a captured step may change them.
 * No state; errors are the launcher's. */
#ifndef NT_ROPE_CUDA_H
#define NT_ROPE_CUDA_H

#include "ops.h"

enum { NT_ROPE_WARPS = 4, NT_ROPE_CUDA_MAX_D = 512 };

struct nt_rope_cuda {
    const float *qkv; // [n_tok, (n_head + 2 n_kv) * d_head]
    nt_bf16 *q;       // [n_tok, n_head, d_pad]
    char *pages;      /* first page of the layer */
    int64_t page_bytes, head_bytes;
    const struct nt_attn_seq *seqs; // [n_seq]
    const float *cos, *sin;         // [max_pos, d_head/2] or NULL
    const float *q_norm, *k_norm;   // [d_head] or NULL
    float eps;
    int32_t n_seq, n_head, n_kv, d_head, d_pad;
};

#endif
