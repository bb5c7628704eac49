/* Launches of the ops on logit rows, but for top-k (topk_cuda.c). */
#include "logits_cuda.h"
#include "cuda_bodies.h"

nt_status nt_logit_cuda_check(int32_t n_vocab, const char *op) {
    if (n_vocab > 0) return NT_OK;
    return NT_FAIL(NT_E_UNSUPPORTED, "%s on CUDA needs at least one column, got %d", op, n_vocab);
}

static nt_status take_parts(struct nt_backend *be, int32_t n_row, int32_t n_chunk, const char *what,
                            struct nt_logit_part **out) {
    void *memory = NULL;
    NT_TRY(nt_cuda_workspace(be, (size_t)n_row * (size_t)n_chunk * sizeof **out, what, &memory));
    *out = memory;
    return NT_OK;
}

nt_status nt_logit_stats_cuda(struct nt_backend *be, const struct nt_logit_stats_args *args) {
    struct nt_logit_stats_cuda a = {.op = *args, .n_chunk = nt_logit_chunks(args->n_vocab)};
    NT_TRY(nt_logit_cuda_check(args->n_vocab, "logit_stats"));
    NT_TRY(take_parts(be, args->n_row, a.n_chunk, "logit_stats", &a.part));
    NT_TRY(NT_CUDA_LAUNCH(be, NT_CUDA_logit_stats, a.n_chunk, args->n_row, 1, NT_LOGIT_THREADS, 0, &a));
    const int32_t blocks = (args->n_row + NT_LOGIT_JOIN_ROWS - 1) / NT_LOGIT_JOIN_ROWS;
    return NT_CUDA_LAUNCH(be, NT_CUDA_logit_stats_join, blocks, 1, 1, 32 * NT_LOGIT_JOIN_ROWS, 0, &a);
}

nt_status nt_logit_gumbel_cuda(struct nt_backend *be, const struct nt_logit_gumbel_args *args) {
    struct nt_logit_gumbel_cuda a = {.op = *args, .n_chunk = nt_logit_chunks(args->n_vocab + (args->first & 3))};
    NT_TRY(nt_logit_cuda_check(args->n_vocab, "logit_gumbel"));
    NT_CHECK(args->first >= 0); /* a column of the vocabulary, on any backend */
    NT_TRY(take_parts(be, args->n_row, a.n_chunk, "logit_gumbel", &a.part));
    NT_TRY(NT_CUDA_LAUNCH(be, NT_CUDA_logit_gumbel, a.n_chunk, args->n_row, 1, NT_LOGIT_THREADS, 0, &a));
    const int32_t blocks = (args->n_row + NT_LOGIT_JOIN_ROWS - 1) / NT_LOGIT_JOIN_ROWS;
    return NT_CUDA_LAUNCH(be, NT_CUDA_logit_gumbel_join, blocks, 1, 1, 32 * NT_LOGIT_JOIN_ROWS, 0, &a);
}

nt_status nt_logit_edit_cuda(struct nt_backend *be, const struct nt_logit_edit_args *args) {
    const int32_t blocks = (args->n_edit + NT_LOGIT_THREADS - 1) / NT_LOGIT_THREADS;
    NT_TRY(NT_CUDA_LAUNCH(be, NT_CUDA_logit_edit, blocks, 1, 1, NT_LOGIT_THREADS, 0, args));
    if (!args->scale) return NT_OK;
    return NT_CUDA_LAUNCH(be, NT_CUDA_logit_scale, nt_logit_chunks(args->n_vocab), args->n_row, 1, NT_LOGIT_THREADS, 0,
                          args);
}

nt_status nt_logit_penalty_cuda(struct nt_backend *be, const struct nt_logit_penalty_args *args) {
    return NT_CUDA_LAUNCH(be, NT_CUDA_logit_penalty, args->n_row, 1, 1, NT_LOGIT_THREADS, 0, args);
}

nt_status nt_logit_pick_cuda(struct nt_backend *be, const struct nt_logit_pick_args *args) {
    const int32_t blocks = (args->n_row + NT_LOGIT_THREADS - 1) / NT_LOGIT_THREADS;
    return NT_CUDA_LAUNCH(be, NT_CUDA_logit_pick, blocks, 1, 1, NT_LOGIT_THREADS, 0, args);
}
