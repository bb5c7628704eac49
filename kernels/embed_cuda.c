/* Launches of embed and gather. */
#include "embed_cuda.h"
#include "cuda_bodies.h"

nt_status nt_embed_cuda(struct nt_backend *be, const struct nt_embed_args *args) {
    return NT_CUDA_LAUNCH(be, NT_CUDA_embed, args->n_tok, 1, 1, nt_embed_threads(args->d_model, NT_EMBED_THREADS), 0,
                          args);
}

nt_status nt_gather_cuda_pieces(const char *op, int64_t bytes, int64_t *pieces) {
    if (bytes % 4 != 0)
        return NT_FAIL(NT_E_UNSUPPORTED, "%s on CUDA copies rows of a multiple of 4 bytes, not %lld", op,
                       (long long)bytes);
    *pieces = (bytes + NT_GATHER_PIECE - 1) / NT_GATHER_PIECE;
    return NT_OK;
}

nt_status nt_gather_cuda(struct nt_backend *be, const struct nt_gather_args *args) {
    int64_t pieces;
    NT_TRY(nt_gather_cuda_pieces("gather", args->bytes, &pieces));
    NT_CHECK(args->n_rows == 0 || args->from != args->to); /* blocks run in any order: no copy within one buffer */
    return NT_CUDA_LAUNCH(be, NT_CUDA_gather, args->n_rows, pieces, 1, NT_GATHER_THREADS, 0, args);
}
