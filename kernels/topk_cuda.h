/* What topk.cu and topk_cuda.c agree on: group and candidate sizes, and the kernels' struct.
 *
 * The maxima of groups of NT_TOPK_GROUP neighbouring logits lie in the backend's workspace, padded to whole chunks of
 * logits_cuda.h. 4096 words of 8 bytes fit into shared memory without asking for more than every kernel may have.
 * No state; any thread; errors are the launcher's (kernels/topk_cuda.c). */
#ifndef NT_TOPK_CUDA_H
#define NT_TOPK_CUDA_H

#include "logits_cuda.h"

enum {
    NT_TOPK_GROUP = 32, /* a warp */
    NT_TOPK_CHUNK_GROUPS = NT_LOGIT_CHUNK / NT_TOPK_GROUP,
    NT_TOPK_THREADS = 512,
    NT_TOPK_SORTED = 4096, /* words that one block sorts in shared memory */
};

struct nt_logit_topk_cuda {
    struct nt_logit_topk_args op;
    uint32_t *group; // [n_row, n_chunk * NT_TOPK_CHUNK_GROUPS] keys of the groups' maxima
    int32_t n_chunk;
};

#endif
