/* Launches of head_argmax. */
#include "head_cuda.h"
#include "cuda_bodies.h"

_Static_assert(NT_HEAD_SHARED == 73728, "as cuda_kernels.def says");

nt_status nt_head_argmax_cuda(struct nt_backend *be, const struct nt_head_argmax_args *args) {
    const struct nt_packed *w = args->w;
    NT_CHECK(args->n_vocab > 0 && args->n_vocab <= w->n);
    if (w->format != NT_WEIGHT_BF16_ROWS || w->k % 2 != 0 || args->ldx % 2 != 0)
        return NT_FAIL(NT_E_UNSUPPORTED, "head_argmax on CUDA reads bf16 rows with even k and ldx, not format %d, k %d",
                       (int)w->format, w->k);
    struct nt_head_cuda a = {.x = args->x,
                             .w = w->data,
                             .ldx = args->ldx,
                             .inv_temp = args->inv_temp,
                             .seed = args->seed,
                             .stream = args->stream,
                             .value = args->value,
                             .index = args->index,
                             .n_row = args->n_row,
                             .n_vocab = args->n_vocab,
                             .first = args->first,
                             .k = w->k,
                             .k_pad = (w->k + 7) / 8 * 8,
                             .n_tile = (args->n_vocab + NT_HEAD_COLS - 1) / NT_HEAD_COLS};
    void *memory = NULL;
    NT_TRY(nt_cuda_workspace(be, (size_t)a.n_row * (size_t)a.n_tile * sizeof *a.part, "head_argmax", &memory));
    a.part = memory;
    const int32_t row_tiles = (a.n_row + NT_HEAD_ROWS - 1) / NT_HEAD_ROWS;
    NT_TRY(NT_CUDA_LAUNCH(be, NT_CUDA_head_argmax, row_tiles, a.n_tile, 1, NT_HEAD_THREADS, NT_HEAD_SHARED, &a));
    return NT_CUDA_LAUNCH(be, NT_CUDA_head_join, args->n_row, 1, 1, NT_HEAD_JOIN_THREADS, 0, &a);
}
