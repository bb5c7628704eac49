/* What sample.cu and sample_cuda.c agree on: the parts of a row and the kernels' struct.
 *
 * Parts and group maxima lie in the backend's workspace. Per row parameters are device memory, read by the kernels, so
 * a captured step may change them: which rule a row follows costs nothing on the host.
 * No state; any thread; errors are the launcher's (kernels/sample_cuda.c). */
#ifndef NT_SAMPLE_CUDA_H
#define NT_SAMPLE_CUDA_H

#include "topk_cuda.h"

/* What a chunk of a row leaves: its best logit, its best draw (rows without truncation), its mass (top-p alone). */
struct nt_sample_part {
    float best, drawn;
    int32_t best_index, drawn_index;
    uint64_t mass; /* relative to best */
};

struct nt_logit_sample_cuda {
    struct nt_logit_sample_args op;
    struct nt_sample_part *part; // [n_row, n_chunk]
    uint32_t *group;             // [n_row, n_chunk * NT_TOPK_CHUNK_GROUPS]
    int32_t n_chunk;
};

/* Candidates wanted by a row whose number of kept logits is not known beforehand. */
enum { NT_SAMPLE_CANDIDATES = 768 };

#endif
