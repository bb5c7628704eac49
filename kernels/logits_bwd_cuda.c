/* Launches of logit_bwd. */
#include "cuda_bodies.h"
#include "logits_cuda.h"
#include "ops_bwd.h"

nt_status nt_logit_bwd_cuda(struct nt_backend *be, const struct nt_logit_bwd_args *args) {
    return NT_CUDA_LAUNCH(be, NT_CUDA_logit_bwd, nt_logit_chunks(args->n_vocab), args->n_row, 1, NT_LOGIT_THREADS, 0,
                          args);
}
