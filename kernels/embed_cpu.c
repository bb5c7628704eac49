/* The specification of the embedding and row gathers, in portable C. */
#include "cpu_bodies.h"

static void embed_thread(void *arg, int thread, int n_threads) {
    const struct nt_embed_args *a = arg;
    int64_t begin, end;
    nt_split(a->n_tok, 1, thread, n_threads, &begin, &end);
    for (int64_t t = begin; t < end; t++) {
        float *x = a->x + t * a->d_model;
        const int64_t row = (int64_t)a->ids[t] - a->first;
        if (row < 0 || row >= a->n_rows) {
            memset(x, 0, (size_t)a->d_model * sizeof *x);
            continue;
        }
        const nt_bf16 *from = a->table + row * a->d_model;
        for (int32_t i = 0; i < a->d_model; i++) x[i] = nt_bf16_to_f32(from[i]) * a->scale;
    }
}

nt_status nt_embed_portable(struct nt_backend *be, const struct nt_embed_args *args) {
    struct nt_embed_args a = *args;
    nt_pool_run(be->pool, embed_thread, &a);
    return NT_OK;
}

nt_status nt_gather_portable(struct nt_backend *be, const struct nt_gather_args *args) {
    (void)be;
    for (int64_t i = 0; i < args->n_rows; i++) { /* in place: a row is read before an earlier one is written */
        const char *from = (const char *)args->from + args->rows[i] * args->bytes;
        char *to = (char *)args->to + i * args->bytes;
        if (from != to) memmove(to, from, (size_t)args->bytes);
    }
    return NT_OK;
}
