/* Launches of embed and gather. */
#include "embed_cuda.h"
#include "cuda_bodies.h"

nt_status nt_embed_cuda(struct nt_backend *be, const struct nt_embed_args *args) {
    const int32_t turns = (args->d_model + 3) / 4;
    const int32_t threads = turns >= NT_EMBED_THREADS ? NT_EMBED_THREADS : (turns + 31) / 32 * 32;
    return NT_CUDA_LAUNCH(be, NT_CUDA_embed, args->n_tok, 1, 1, threads, 0, args);
}

nt_status nt_gather_cuda(struct nt_backend *be, const struct nt_gather_args *args) {
    if (args->bytes % 4 != 0)
        return NT_FAIL(NT_E_UNSUPPORTED, "gather on CUDA copies rows of a multiple of 4 bytes, not %lld",
                       (long long)args->bytes);
    NT_CHECK(args->n_rows == 0 || args->from != args->to); /* blocks run in any order: no copy within one buffer */
    const int64_t pieces = (args->bytes + NT_GATHER_PIECE - 1) / NT_GATHER_PIECE;
    return NT_CUDA_LAUNCH(be, NT_CUDA_gather, args->n_rows, pieces, 1, NT_GATHER_THREADS, 0, args);
}
