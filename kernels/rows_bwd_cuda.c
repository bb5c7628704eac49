/* Launches of embed_bwd, scatter and dropout. */
#include "rows_bwd_cuda.h"
#include "cuda_bodies.h"

nt_status nt_embed_bwd_cuda(struct nt_backend *be, const struct nt_embed_bwd_args *args) {
    const int32_t threads = nt_embed_threads(args->d_model, NT_EMBED_BWD_THREADS);
    const int32_t pieces = (args->d_model + NT_EMBED_BWD_PIECE - 1) / NT_EMBED_BWD_PIECE;
    return NT_CUDA_LAUNCH(be, NT_CUDA_embed_bwd, args->n_tok, pieces, 1, threads, 0, args);
}

nt_status nt_scatter_cuda(struct nt_backend *be, const struct nt_scatter_args *args) {
    int64_t pieces;
    NT_TRY(nt_gather_cuda_pieces("scatter", args->bytes, &pieces));
    NT_CHECK(args->n_rows == 0 || args->from != args->to); /* blocks run in any order: no copy within one buffer */
    return NT_CUDA_LAUNCH(be, NT_CUDA_scatter, args->n_to, pieces, 1, NT_GATHER_THREADS, 0, args);
}

nt_status nt_dropout_cuda(struct nt_backend *be, const struct nt_dropout_args *args) {
    NT_CHECK(args->p >= 0 && args->p < 1 && args->first % 4 == 0); /* p is a probability, on any backend */
    const int64_t pieces = (args->n_col + NT_DROPOUT_PIECE - 1) / NT_DROPOUT_PIECE;
    const int64_t blocks = (args->n_row * pieces + NT_DROPOUT_WARPS - 1) / NT_DROPOUT_WARPS;
    return NT_CUDA_LAUNCH(be, NT_CUDA_dropout, blocks, 1, 1, 32 * NT_DROPOUT_WARPS, 0, args);
}
