/* The specification of residual add + RMS norm, in portable C. */
#include "cpu_bodies.h"
#include <math.h>

static void norm_thread(void *arg, int thread, int n_threads) {
    const struct nt_rmsnorm_args *a = arg;
    int64_t begin, end;
    nt_split(a->n_rows, 1, thread, n_threads, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        const int64_t t = a->rows ? a->rows[r] : r;
        float *x = a->x + t * a->d_model;
        float sum = 0;
        if (a->delta)
            for (int32_t i = 0; i < a->d_model; i++) x[i] += a->delta[t * a->d_model + i];
        for (int32_t i = 0; i < a->d_model; i++) sum += x[i] * x[i];
        const float s = 1.0f / sqrtf(sum / (float)a->d_model + a->eps);
        nt_bf16 *y = a->y + r * a->ldy;
        for (int32_t i = 0; i < a->d_model; i++) y[i] = nt_f32_to_bf16(x[i] * s * a->w[i]);
        if (a->keep) memcpy(a->keep + r * a->d_model, x, (size_t)a->d_model * sizeof *x);
    }
}

nt_status nt_rmsnorm_portable(struct nt_backend *be, const struct nt_rmsnorm_args *args) {
    NT_CHECK(!(args->rows && args->delta));
    struct nt_rmsnorm_args a = *args;
    nt_pool_run(be->pool, norm_thread, &a);
    return NT_OK;
}
