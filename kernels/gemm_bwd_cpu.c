/* The specification of gemm's backward, in portable C. */
#include "cpu_bodies.h"
#include "ops_bwd.h"

enum { ROWS = 16, COLS = NT_INT4_GROUP }; /* rows for which a block of weights is unpacked once, and its columns */

/* Columns k0 .. k0 + count - 1 of a panel's rows, as bf16. */
static void unpack(const struct nt_packed *w, int32_t panel, int32_t k0, int32_t count, nt_bf16 out[NT_PANEL][COLS]) {
    nt_bf16 unpacked[COLS * NT_PANEL];
    const nt_bf16 *pairs = unpacked;
    if (nt_weight_is_quantized(w->format))
        nt_unpack_pairs(w, panel, k0 / NT_INT4_GROUP, unpacked);
    else
        pairs = (const nt_bf16 *)w->data + ((int64_t)panel * w->k + k0) * NT_PANEL;
    for (int32_t n = 0; n < NT_PANEL; n++)
        for (int32_t k = 0; k < count; k++) out[n][k] = pairs[(k / 2 * NT_PANEL + n) * 2 + k % 2];
}

/* acc[t][k] += sum over n, ascending, of dy[t, n] w[n, k0 + k] */
static void add_product(const nt_bf16 *dy, int64_t lddy, int32_t rows, const struct nt_packed *w, int32_t k0,
                        int32_t count, float acc[ROWS][COLS]) {
    nt_bf16 block[NT_PANEL][COLS];
    for (int32_t n0 = 0; n0 < w->n; n0 += NT_PANEL) {
        const int32_t n_row = w->n - n0 < NT_PANEL ? w->n - n0 : NT_PANEL;
        unpack(w, n0 / NT_PANEL, k0, count, block);
        for (int32_t t = 0; t < rows; t++) {
            for (int32_t n = 0; n < n_row; n++) {
                const float v = nt_bf16_to_f32(dy[t * lddy + n0 + n]);
                for (int32_t k = 0; k < count; k++) acc[t][k] += v * nt_bf16_to_f32(block[n][k]);
            }
        }
    }
}

static void store(const struct nt_gemm_dgrad_args *a, int32_t t, int32_t k0, int32_t count, const float *acc) {
    const int64_t at = t * a->lddx + k0;
    for (int32_t k = 0; k < count; k++) {
        if (a->out == NT_GEMM_STORE_BF16)
            ((nt_bf16 *)a->dx)[at + k] = nt_f32_to_bf16(acc[k]);
        else
            ((float *)a->dx)[at + k] = a->out == NT_GEMM_ADD_F32 ? ((float *)a->dx)[at + k] + acc[k] : acc[k];
    }
}

static void dgrad_thread(void *arg, int thread, int n_threads) {
    const struct nt_gemm_dgrad_args *a = arg;
    int64_t begin, end;
    nt_split((a->w->k + COLS - 1) / COLS, 1, thread, n_threads, &begin, &end);
    for (int32_t k0 = (int32_t)begin * COLS; k0 < (int32_t)end * COLS && k0 < a->w->k; k0 += COLS) {
        const int32_t count = a->w->k - k0 < COLS ? a->w->k - k0 : COLS;
        for (int32_t t0 = 0; t0 < a->n_tok; t0 += ROWS) {
            const int32_t rows = a->n_tok - t0 < ROWS ? a->n_tok - t0 : ROWS;
            float acc[ROWS][COLS] = {{0}};
            add_product(a->dy + t0 * a->lddy, a->lddy, rows, a->w, k0, count, acc);
            if (a->w2) add_product(a->dy2 + t0 * a->lddy2, a->lddy2, rows, a->w2, k0, count, acc);
            for (int32_t t = 0; t < rows; t++) store(a, t0 + t, k0, count, acc[t]);
        }
    }
}

void nt_gemm_dgrad_check(const struct nt_gemm_dgrad_args *args) {
    const struct nt_packed *w = args->w, *w2 = args->w2;
    NT_CHECK(w->format != NT_WEIGHT_BF16_ROWS && w->k % 2 == 0);
    NT_CHECK(!w2 || (w2->format == NT_WEIGHT_BF16 && w2->k == w->k));
    nt_packed_check_parts(w);
    NT_CHECK(args->out <= NT_GEMM_STORE_BF16);
}

nt_status nt_gemm_dgrad_portable(struct nt_backend *be, const struct nt_gemm_dgrad_args *args) {
    nt_gemm_dgrad_check(args);
    struct nt_gemm_dgrad_args a = *args;
    nt_pool_run(be->pool, dgrad_thread, &a);
    return NT_OK;
}

/* Columns j0 .. j0 + count - 1 of one row of dw, over tokens [t0, t1). */
static void add_tokens(const struct nt_gemm_wgrad_args *a, int32_t i, int32_t j0, int32_t count, int32_t t0,
                       int32_t t1) {
    float acc[NT_PANEL] = {0};
    for (int32_t t = t0; t < t1; t++) {
        const float v = nt_bf16_to_f32(a->a[t * a->lda + i]);
        for (int32_t j = 0; j < count; j++)
            acc[j] += v * nt_bf16_to_f32(a->b[t * a->ldb + nt_gemm_wgrad_column(a, j0 + j)]);
    }
    for (int32_t j = 0; j < count; j++) a->dw[i * a->lddw + j0 + j] += a->alpha * acc[j];
}

static void wgrad_thread(void *arg, int thread, int n_threads) {
    const struct nt_gemm_wgrad_args *a = arg;
    int64_t begin, end;
    nt_split((a->n + NT_PANEL - 1) / NT_PANEL, 1, thread, n_threads, &begin, &end);
    for (int32_t j0 = (int32_t)begin * NT_PANEL; j0 < (int32_t)end * NT_PANEL && j0 < a->n; j0 += NT_PANEL) {
        const int32_t count = a->n - j0 < NT_PANEL ? a->n - j0 : NT_PANEL;
        for (int32_t i = 0; i < a->m; i++) {
            for (int32_t t = 0; t < a->n_tok; t += NT_WGRAD_TOKENS)
                add_tokens(a, i, j0, count, t, a->n_tok - t < NT_WGRAD_TOKENS ? a->n_tok : t + NT_WGRAD_TOKENS);
        }
    }
}

void nt_gemm_wgrad_check(const struct nt_gemm_wgrad_args *args) {
    NT_CHECK(args->m > 0 && args->n > 0 && args->b_run >= 0 && args->b_run % (NT_PANEL / 2) == 0);
}

nt_status nt_gemm_wgrad_portable(struct nt_backend *be, const struct nt_gemm_wgrad_args *args) {
    nt_gemm_wgrad_check(args);
    struct nt_gemm_wgrad_args a = *args;
    nt_pool_run(be->pool, wgrad_thread, &a);
    return NT_OK;
}
