/* Launches of logit_topk. */
#include "topk_cuda.h"
#include "cuda_bodies.h"

nt_status nt_logit_topk_cuda(struct nt_backend *be, const struct nt_logit_topk_args *args) {
    if (args->k < 1 || args->k > args->n_vocab)
        return NT_FAIL(NT_E_UNSUPPORTED, "logit_topk on CUDA takes 1 to n_vocab of %d columns, not %d", args->n_vocab,
                       args->k);
    struct nt_logit_topk_cuda a = {.op = *args, .n_chunk = nt_logit_chunks(args->n_vocab)};
    const size_t groups = (size_t)args->n_row * (size_t)a.n_chunk * NT_TOPK_CHUNK_GROUPS;
    void *memory = NULL;
    NT_TRY(nt_cuda_workspace(be, groups * sizeof *a.group, "logit_topk", &memory));
    a.group = memory;
    NT_TRY(NT_CUDA_LAUNCH(be, NT_CUDA_topk_groups, a.n_chunk, args->n_row, 1, NT_LOGIT_THREADS, 0, &a));
    return NT_CUDA_LAUNCH(be, NT_CUDA_topk_select, args->n_row, 1, 1, NT_TOPK_THREADS, 0, &a);
}
