/* Launches of logit_sample. */
#include "sample_cuda.h"
#include "cuda_bodies.h"
#include "launch_places.h"

/* As many rows as the workspace has places for. */
static nt_status launch(struct nt_backend *be, const struct nt_logit_sample_cuda *a) {
    NT_TRY(NT_CUDA_LAUNCH(be, NT_CUDA_sample_chunks, a->n_chunk, a->op.n_row, 1, NT_LOGIT_THREADS, 0, a));
    return NT_CUDA_LAUNCH(be, NT_CUDA_sample_pick, a->op.n_row, 1, 1, NT_TOPK_THREADS, 0, a);
}

static struct nt_logit_sample_args rows_of(const struct nt_logit_sample_args *args, int64_t first, int64_t n) {
    return (struct nt_logit_sample_args){.logits = args->logits + first * args->ld,
                                         .ld = args->ld,
                                         .inv_temp = args->inv_temp + first,
                                         .top_p = args->top_p + first,
                                         .min_p = args->min_p + first,
                                         .top_k = args->top_k + first,
                                         .seed = args->seed + first,
                                         .stream = args->stream + first,
                                         .index = args->index + first,
                                         .n_row = (int32_t)n,
                                         .n_vocab = args->n_vocab};
}

nt_status nt_logit_sample_cuda(struct nt_backend *be, const struct nt_logit_sample_args *args) {
    struct nt_logit_sample_cuda a = {.n_chunk = nt_logit_chunks(args->n_vocab)};
    NT_TRY(nt_logit_cuda_check(args->n_vocab, "logit_sample"));
    const size_t place = nt_logit_sample_place(args->n_vocab);
    const int64_t most = nt_cuda_places(be, place, args->n_row);
    void *memory = NULL;
    NT_TRY(nt_cuda_workspace(be, (size_t)most * place, "logit_sample", &memory));
    a.part = memory;
    a.group = (uint32_t *)(void *)(a.part + most * a.n_chunk);
    for (int64_t first = 0; first < args->n_row; first += most) {
        a.op = rows_of(args, first, args->n_row - first < most ? args->n_row - first : most);
        NT_TRY(launch(be, &a));
    }
    return NT_OK;
}
