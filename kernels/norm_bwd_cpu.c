/* The specification of the gradient of the RMS norm, in portable C. */
#include "cpu_norm_bwd.h"
#include "cpu_rows.h"
#include <math.h>

static void rows_thread(void *arg, int thread, int n_threads) {
    const struct nt_norm_bwd_block *block = arg;
    const struct nt_rmsnorm_bwd_args *a = block->args;
    const int32_t n = a->d_model;
    int64_t begin, end;
    nt_split(block->n, 1, thread, n_threads, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        const int64_t at = (block->first + r) * n;
        const float *x = a->x + at, *dy = a->dy + at;
        float *dx = a->dx + at, sum = 0, dot = 0;
        for (int32_t i = 0; i < n; i++) {
            sum += x[i] * x[i];
            dot += dy[i] * a->w[i] * x[i];
        }
        const float s = 1.0f / sqrtf(sum / (float)n + a->eps), c = s * s * (dot / (float)n);
        block->scale[r] = s;
        for (int32_t i = 0; i < n; i++) {
            dx[i] += s * (dy[i] * a->w[i] - x[i] * c);
            if (a->dx16) a->dx16[at + i] = nt_f32_to_bf16(dx[i]);
        }
    }
}

static void columns_thread(void *arg, int thread, int n_threads) {
    const struct nt_norm_bwd_block *block = arg;
    const struct nt_rmsnorm_bwd_args *a = block->args;
    float *sum = (float *)nt_cpu_scratch(block->be, thread) + NT_NORM_BWD_BLOCK;
    int64_t begin, end;
    nt_split(a->d_model, 16, thread, n_threads, &begin, &end);
    const int64_t width = end - begin;
    memset(sum, 0, (size_t)width * sizeof *sum);
    for (int64_t r = 0; r < block->n; r++) {
        const int64_t at = (block->first + r) * a->d_model + begin;
        const float *x = a->x + at, *dy = a->dy + at, s = block->scale[r];
        for (int64_t i = 0; i < width; i++) sum[i] += dy[i] * (x[i] * s);
    }
    for (int64_t i = 0; i < width; i++) a->dw[begin + i] += sum[i];
}

void nt_norm_bwd_run(struct nt_backend *be, const struct nt_rmsnorm_bwd_args *args, nt_pool_fn *rows) {
    NT_CHECK(args->d_model <= NT_CPU_SCRATCH_BYTES / (int)sizeof(float) - NT_NORM_BWD_BLOCK);
    struct nt_norm_bwd_block block = {.args = args, .be = be, .scale = nt_cpu_scratch(be, 0)};
    for (; block.first < args->n_tok; block.first += block.n) {
        const int64_t left = args->n_tok - block.first;
        block.n = left < NT_NORM_BWD_BLOCK ? left : NT_NORM_BWD_BLOCK;
        nt_rows_run(be, rows, &block, block.n, args->d_model);
        if (args->dw) nt_rows_run(be, columns_thread, &block, block.n, args->d_model);
    }
}

nt_status nt_rmsnorm_bwd_portable(struct nt_backend *be, const struct nt_rmsnorm_bwd_args *args) {
    nt_norm_bwd_run(be, args, rows_thread);
    return NT_OK;
}
