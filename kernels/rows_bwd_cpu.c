/* The specification of the ops that move gradients by row: embedding, scatter; and of dropout. Portable C. */
#include "cpu_rows.h"
#include "ops_bwd.h"
#include "rng.h"

/* A thread owns columns: rows of the table may be named several times, and their sums have the order of the tokens. */
static void embed_thread(void *arg, int thread, int n_threads) {
    const struct nt_embed_bwd_args *a = arg;
    int64_t begin, end;
    nt_split(a->d_model, 16, thread, n_threads, &begin, &end);
    for (int64_t t = 0; t < a->n_tok; t++) {
        const int64_t row = (int64_t)a->ids[t] - a->first;
        if (row < 0 || row >= a->n_rows) continue;
        const float *dx = a->dx + t * a->d_model;
        float *to = a->dtable + row * a->d_model;
        for (int64_t i = begin; i < end; i++) to[i] += dx[i] * a->scale;
    }
}

nt_status nt_embed_bwd_portable(struct nt_backend *be, const struct nt_embed_bwd_args *args) {
    struct nt_embed_bwd_args a = *args;
    nt_rows_run(be, embed_thread, &a, args->n_tok, args->d_model);
    return NT_OK;
}

/* A thread owns rows of `to`. */
static void scatter_thread(void *arg, int thread, int n_threads) {
    const struct nt_scatter_args *a = arg;
    const size_t bytes = (size_t)a->bytes;
    int64_t begin, end, i = 0;
    nt_split(a->n_to, 1, thread, n_threads, &begin, &end);
    while (i < a->n_rows && a->rows[i] < begin) i++;
    for (int64_t row = begin; row < end; row++) {
        char *to = (char *)a->to + row * a->bytes;
        if (i < a->n_rows && a->rows[i] == row)
            memcpy(to, (const char *)a->from + i++ * a->bytes, bytes);
        else
            memset(to, 0, bytes);
    }
}

nt_status nt_scatter_portable(struct nt_backend *be, const struct nt_scatter_args *args) {
    struct nt_scatter_args a = *args;
    nt_rows_run(be, scatter_thread, &a, args->n_to, args->bytes / 4);
    return NT_OK;
}

static void dropout_row(const struct nt_dropout_args *a, int64_t t, float f) {
    const nt_bf16 *x = (const nt_bf16 *)a->x + t * a->ldx;
    const float *dx = (const float *)a->x + t * a->ldx;
    nt_bf16 *y = (nt_bf16 *)a->y + t * a->ldy;
    float *sum = (float *)a->y + t * a->ldy;
    uint32_t word[4];
    for (int32_t c = 0; c < a->n_col; c++) {
        if (c % 4 == 0) nt_philox(a->seed, a->stream[t], (uint64_t)(a->first + c) / 4, word);
        const bool keep = nt_unit_float(word[c % 4]) >= a->p;
        if (!a->add)
            y[c] = keep ? nt_f32_to_bf16(nt_bf16_to_f32(x[c]) * f) : 0;
        else if (keep)
            sum[c] += dx[c] * f;
    }
}

static void dropout_thread(void *arg, int thread, int n_threads) {
    const struct nt_dropout_args *a = arg;
    int64_t begin, end;
    nt_split(a->n_row, 1, thread, n_threads, &begin, &end);
    for (int64_t t = begin; t < end; t++) dropout_row(a, t, 1.0f / (1.0f - a->p));
}

nt_status nt_dropout_portable(struct nt_backend *be, const struct nt_dropout_args *args) {
    NT_CHECK(args->p >= 0 && args->p < 1 && args->first % 4 == 0);
    struct nt_dropout_args a = *args;
    nt_pool_run(be->pool, dropout_thread, &a);
    return NT_OK;
}
