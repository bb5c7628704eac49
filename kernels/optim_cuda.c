/* Launches of adamw, sum_squares and sum_parts. */
#include "optim_cuda.h"
#include "cuda_bodies.h"

static int32_t misaligned(const void *p) {
    return (int32_t)((uintptr_t)p / sizeof(float) % 4);
}

nt_status nt_adamw_cuda(struct nt_backend *be, const struct nt_adamw_args *args) {
    const int32_t at = misaligned(args->p);
    const bool alike = misaligned(args->m) == at && misaligned(args->v) == at && misaligned(args->grad) == at;
    const struct nt_adamw_cuda a = {.p = args->p,
                                    .m = args->m,
                                    .v = args->v,
                                    .grad = args->grad,
                                    .n = args->n,
                                    .f = nt_adamw_factors_of(args),
                                    .lead = alike ? (4 - at) % 4 : -1};
    if (args->n == 0) return NT_OK;
    const int64_t quads = (args->n + (a.lead > 0 ? 4 - a.lead : 0) + 3) / 4;
    return NT_CUDA_LAUNCH(be, NT_CUDA_adamw, (quads + NT_ADAMW_THREADS - 1) / NT_ADAMW_THREADS, 1, 1, NT_ADAMW_THREADS,
                          0, &a);
}

nt_status nt_sum_squares_cuda(struct nt_backend *be, const struct nt_sum_squares_args *args) {
    struct nt_sum_squares_cuda a = {.sum = args->sum};
    const int64_t blocks = (args->n + NT_SUM_BLOCK - 1) / NT_SUM_BLOCK;
    const int64_t most = nt_cuda_places(be, sizeof *a.part, blocks) * NT_SUM_BLOCK;
    int64_t done = 0;
    do { /* one pass up to 3 * 10^10 values; none still has a sum */
        void *memory;
        a.n = args->n - done < most ? args->n - done : most;
        a.n_block = (a.n + NT_SUM_BLOCK - 1) / NT_SUM_BLOCK;
        a.x = a.n > 0 ? args->x + done : NULL;
        a.add = done > 0;
        NT_TRY(nt_cuda_workspace(be, (size_t)a.n_block * sizeof *a.part, "sum_squares", &memory));
        a.part = memory;
        NT_TRY(NT_CUDA_LAUNCH(be, NT_CUDA_sum_squares, a.n_block, 1, 1, NT_SQUARES_THREADS, 0, &a));
        NT_TRY(NT_CUDA_LAUNCH(be, NT_CUDA_sum_squares_join, 1, 1, 1, NT_SQUARES_JOIN_THREADS, 0, &a));
        done += a.n;
    } while (done < args->n);
    return NT_OK;
}

nt_status nt_sum_parts_cuda(struct nt_backend *be, const struct nt_sum_parts_args *args) {
    const struct nt_sum_parts_cuda a = {.x = args->x,
                                        .y = args->y,
                                        .n = args->n,
                                        .n_part = args->n_part,
                                        .wide =
                                            args->n % 4 == 0 && misaligned(args->x) == 0 && misaligned(args->y) == 0};
    NT_CHECK(a.n_part >= 1 && a.n >= 0);
    if (a.n == 0) return NT_OK;
    return NT_CUDA_LAUNCH(be, NT_CUDA_sum_parts, nt_ceil_div(a.n, 4 * NT_PARTS_THREADS), 1, 1, NT_PARTS_THREADS, 0, &a);
}
