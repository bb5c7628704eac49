/* Launches of logit_bwd. */
#include "cuda_bodies.h"
#include "logits_cuda.h"
#include "ops_bwd.h"

nt_status nt_logit_bwd_cuda(struct nt_backend *be, const struct nt_logit_bwd_args *args) {
    const int32_t chunks = (args->n_vocab + NT_LOGIT_CHUNK - 1) / NT_LOGIT_CHUNK;
    return NT_CUDA_LAUNCH(be, NT_CUDA_logit_bwd, chunks, args->n_row, 1, NT_LOGIT_THREADS, 0, args);
}
