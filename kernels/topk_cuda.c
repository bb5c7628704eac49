/* Launches of logit_topk. */
#include "topk_cuda.h"
#include "cuda_bodies.h"
#include "launch_places.h"

/* As many rows as the workspace has places for. */
static nt_status launch(struct nt_backend *be, const struct nt_logit_topk_cuda *a) {
    NT_TRY(NT_CUDA_LAUNCH(be, NT_CUDA_topk_groups, a->n_chunk, a->op.n_row, 1, NT_LOGIT_THREADS, 0, a));
    return NT_CUDA_LAUNCH(be, NT_CUDA_topk_select, a->op.n_row, 1, 1, NT_TOPK_THREADS, 0, a);
}

nt_status nt_logit_topk_cuda(struct nt_backend *be, const struct nt_logit_topk_args *args) {
    if (args->k < 1 || args->k > args->n_vocab)
        return NT_FAIL(NT_E_UNSUPPORTED, "logit_topk on CUDA takes 1 to n_vocab of %d columns, not %d", args->n_vocab,
                       args->k);
    struct nt_logit_topk_cuda a = {.op = *args, .n_chunk = nt_logit_chunks(args->n_vocab)};
    const size_t place = nt_logit_topk_place(args->n_vocab);
    const int64_t most = nt_cuda_places(be, place, args->n_row);
    void *memory = NULL;
    NT_TRY(nt_cuda_workspace(be, (size_t)most * place, "logit_topk", &memory));
    a.group = memory;
    for (int64_t first = 0; first < args->n_row; first += most) {
        a.op.logits = args->logits + first * args->ld;
        a.op.value = args->value + first * args->k;
        a.op.index = args->index + first * args->k;
        a.op.n_row = (int32_t)(args->n_row - first < most ? args->n_row - first : most);
        NT_TRY(launch(be, &a));
    }
    return NT_OK;
}
