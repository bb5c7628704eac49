/* A chunk of a prompt whole and some of its tokens alone: the rows of cuda_check.h that say whether the kernels of
 * prompts and of few tokens agree bit by bit; internal to kernels/cuda_check*.
 *
 * On compute capability 9.0 the first go by wgmma and the second by mma.sync. The chunk crosses the positions where a
 * new state begins, has the rows of two warpgroups, and more pages than any ring has stages. small: bf16 caches of the
 * widths 64 and 128 alone. be->kv_format is changed. Threading: as the backend. Errors: none; a run that failed is a
 * row. */
#ifndef NT_CUDA_CHECK_ATTENTION_H
#define NT_CUDA_CHECK_ATTENTION_H

#include "cuda_check_rows.h"

/* staged: be's staged backend. */
void nt_cuda_check_attention(struct nt_cuda_check *out, struct nt_backend *staged, struct nt_backend *be, bool small);

#endif
