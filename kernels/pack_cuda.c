/* Launches of pack. */
#include "pack_cuda.h"
#include "cuda_bodies.h"
#include "ops_bwd.h"

static bool divides(int64_t unit, const void *p, int64_t bytes) {
    return (uintptr_t)p % (uintptr_t)unit == 0 && bytes % unit == 0;
}

static nt_status pack_turned(struct nt_backend *be, struct nt_pack_cuda *a) {
    a->wide_x = a->n % 4 == 0 && divides(16, a->x, 0);
    a->wide_w = divides(16, a->w, a->ld * (int64_t)sizeof *a->w);
    return NT_CUDA_LAUNCH(be, NT_CUDA_pack_turned, nt_ceil_div(a->n, NT_PACK_TILE), nt_ceil_div(a->k, NT_PACK_TILE), 1,
                          NT_PACK_THREADS, 0, a);
}

static nt_status pack_rows(struct nt_backend *be, struct nt_pack_cuda *a) {
    a->wide_x = a->k % 4 == 0 && divides(16, a->x, 0);
    a->wide_w = divides(8, a->w, a->ld * (int64_t)sizeof *a->w) && divides(8, a->table, 0);
    a->across = (int32_t)nt_ceil_div(a->k, NT_PACK_PIECE);
    a->width = (int32_t)(nt_ceil_div(nt_ceil_div(a->k, a->across), 128) * 128);
    return NT_CUDA_LAUNCH(be, NT_CUDA_pack_rows, nt_ceil_div((int64_t)a->n * a->across, NT_PACK_WARPS), 1, 1,
                          NT_PACK_THREADS, 0, a);
}

nt_status nt_pack_cuda(struct nt_backend *be, const struct nt_pack_args *args) {
    struct nt_pack_cuda a = {.x = args->x,
                             .table = args->table,
                             .vector = args->vector,
                             .scale = args->scale,
                             .n = args->n,
                             .k = args->k,
                             .row0 = args->row0,
                             .run = args->run};
    nt_pack_check(args);
    if (a.n == 0 || a.k == 0) return NT_OK;
    if (args->w) {
        NT_CHECK(args->w->format == NT_WEIGHT_BF16_ROWS);
        a.ld = nt_ceil_div(args->w->k, 8) * 8;
        a.w = (nt_bf16 *)(uintptr_t)args->w->data + args->col0;
    }
    if (a.vector)
        return NT_CUDA_LAUNCH(be, NT_CUDA_pack_vector, nt_ceil_div(a.n, NT_PACK_THREADS), 1, 1, NT_PACK_THREADS, 0, &a);
    if (!a.w && !a.table) return NT_OK;
    return args->turned ? pack_turned(be, &a) : pack_rows(be, &a);
}
