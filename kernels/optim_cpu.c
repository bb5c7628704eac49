/* The specification of the optimizer's ops, in portable C. */
#include "cpu_adamw.h"

nt_status nt_adamw_portable(struct nt_backend *be, const struct nt_adamw_args *args) {
    nt_adamw_run(be, args);
    return NT_OK;
}

/* Sums of blocks, in the scratch of thread 0. */
enum { BLOCKS = NT_CPU_SCRATCH_BYTES / (int)sizeof(double) };

struct squares {
    const float *x;
    double *block;
    int64_t n;
};

static void squares_thread(void *arg, int thread, int n_threads) {
    const struct squares *s = arg;
    int64_t begin, end;
    nt_split((s->n + NT_SUM_BLOCK - 1) / NT_SUM_BLOCK, 1, thread, n_threads, &begin, &end);
    for (int64_t b = begin; b < end; b++) {
        const float *x = s->x + b * NT_SUM_BLOCK;
        const int64_t left = s->n - b * NT_SUM_BLOCK, n = left < NT_SUM_BLOCK ? left : NT_SUM_BLOCK;
        double lane[8] = {0};
        for (int64_t i = 0; i + 8 <= n; i += 8)
            for (int64_t j = 0; j < 8; j++) lane[j] += (double)x[i + j] * (double)x[i + j];
        for (int64_t i = n / 8 * 8; i < n; i++) lane[i % 8] += (double)x[i] * (double)x[i];
        s->block[b] = ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
    }
}

nt_status nt_sum_squares_portable(struct nt_backend *be, const struct nt_sum_squares_args *args) {
    const int64_t most = (int64_t)BLOCKS * NT_SUM_BLOCK;
    struct squares s = {.block = nt_cpu_scratch(be, 0)};
    double sum = 0;
    for (int64_t i = 0; i < args->n; i += most) {
        s.x = args->x + i;
        s.n = args->n - i < most ? args->n - i : most;
        nt_rows_run(be, squares_thread, &s, s.n, 1);
        for (int64_t b = 0; b < (s.n + NT_SUM_BLOCK - 1) / NT_SUM_BLOCK; b++) sum += s.block[b];
    }
    *args->sum = sum;
    return NT_OK;
}
