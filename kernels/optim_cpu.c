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

enum { PARTS_PIECE = 1024 }; /* of y, stays in L1 */

static void parts_thread(void *arg, int thread, int n_threads) {
    const struct nt_sum_parts_args *a = arg;
    int64_t begin, end;
    nt_split(a->n, PARTS_PIECE, thread, n_threads, &begin, &end);
    for (int64_t at = begin; at < end; at += PARTS_PIECE) {
        const int64_t n = end - at < PARTS_PIECE ? end - at : PARTS_PIECE;
        memcpy(a->y + at, a->x + at, (size_t)n * sizeof *a->y);
        for (int32_t r = 1; r < a->n_part; r++)
            for (int64_t i = at; i < at + n; i++) a->y[i] += a->x[r * a->n + i];
    }
}

nt_status nt_sum_parts_portable(struct nt_backend *be, const struct nt_sum_parts_args *args) {
    struct nt_sum_parts_args a = *args;
    NT_CHECK(a.n_part >= 1 && a.n >= 0);
    nt_rows_run(be, parts_thread, &a, a.n, a.n_part);
    return NT_OK;
}
