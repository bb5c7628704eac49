/* The specification of the packed-weight product, in portable C. */
#include "cpu_bodies.h"
#include <math.h>

static float silu(float x) {
    return x / (1.0f + expf(-x));
}

/* 0.5 x (1 + tanh(u)) = x / (1 + exp(-2u)) with u = sqrt(2/pi) (x + 0.044715 x^3), Hendrycks & Gimpel 2016. */
static float gelu_tanh(float x) {
    const float two_u = 1.5957691216f * (x + 0.044715f * x * x * x);
    return x / (1.0f + expf(-two_u));
}

/* acc[n] += x[k] w[n, k] over one panel, k pairs ascending. */
void nt_panel_product(const nt_bf16 *x, const nt_bf16 *w, int32_t k, float acc[NT_PANEL]) {
    for (int32_t p = 0; p < k / 2; p++, w += NT_PANEL * 2) {
        const float x0 = nt_bf16_to_f32(x[2 * p]), x1 = nt_bf16_to_f32(x[2 * p + 1]);
        for (int32_t n = 0; n < NT_PANEL; n++) {
            acc[n] += x0 * nt_bf16_to_f32(w[2 * n]);
            acc[n] += x1 * nt_bf16_to_f32(w[2 * n + 1]);
        }
    }
}

static void store_gated(const struct nt_gemm_args *a, const float acc[NT_PANEL], int32_t tok, int32_t n0) {
    nt_bf16 *y = (nt_bf16 *)a->y + tok * a->ldy + n0 / 2;
    if (a->pre)
        for (int32_t j = 0; j < NT_PANEL; j++) a->pre[tok * a->ldpre + n0 + j] = nt_f32_to_bf16(acc[j]);
    for (int32_t j = 0; j < NT_PANEL / 2; j++) {
        const float gate = acc[j], up = acc[NT_PANEL / 2 + j];
        y[j] = nt_f32_to_bf16((a->out == NT_GEMM_SWIGLU_BF16 ? silu(gate) : gelu_tanh(gate)) * up);
    }
}

/* What follows the sum over k. */
static void store_panel(const struct nt_gemm_args *a, float acc[NT_PANEL], int32_t tok, int32_t n0) {
    const int32_t count = a->w->n - n0 < NT_PANEL ? a->w->n - n0 : NT_PANEL;
    if (a->w2) {
        const nt_bf16 *w2 = (const nt_bf16 *)a->w2->data + (int64_t)n0 * a->w2->k;
        nt_panel_product(a->x2 + tok * a->ldx2, w2, a->w2->k, acc);
    }
    if (a->bias)
        for (int32_t j = 0; j < count; j++) acc[j] += a->bias[n0 + j];
    const int64_t at = tok * a->ldy + n0;
    switch (a->out) {
    case NT_GEMM_STORE_F32:
        for (int32_t j = 0; j < count; j++) ((float *)a->y)[at + j] = acc[j];
        break;
    case NT_GEMM_ADD_F32:
        for (int32_t j = 0; j < count; j++) ((float *)a->y)[at + j] += acc[j];
        break;
    case NT_GEMM_STORE_BF16:
        for (int32_t j = 0; j < count; j++) ((nt_bf16 *)a->y)[at + j] = nt_f32_to_bf16(acc[j]);
        break;
    default:
        store_gated(a, acc, tok, n0);
    }
}

enum { ROWS = 64 }; /* rows for which a block of weights is unpacked once */

/* A panel of quantized weights for every row of x, groups ascending. */
static void quantized_panel(const struct nt_gemm_args *a, int32_t panel) {
    nt_bf16 pairs[NT_INT4_GROUP * NT_PANEL];
    for (int32_t first = 0; first < a->n_tok; first += ROWS) {
        const int32_t rows = a->n_tok - first < ROWS ? a->n_tok - first : ROWS;
        float acc[ROWS][NT_PANEL] = {{0}};
        for (int32_t k = 0; k < a->w->k; k += NT_INT4_GROUP) {
            const int32_t count = a->w->k - k < NT_INT4_GROUP ? a->w->k - k : NT_INT4_GROUP;
            nt_unpack_pairs(a->w, panel, k / NT_INT4_GROUP, pairs);
            for (int32_t t = 0; t < rows; t++) nt_panel_product(a->x + (first + t) * a->ldx + k, pairs, count, acc[t]);
        }
        for (int32_t t = 0; t < rows; t++) store_panel(a, acc[t], first + t, panel * NT_PANEL);
    }
}

static void gemm_thread(void *arg, int thread, int n_threads) {
    const struct nt_gemm_args *a = arg;
    const int32_t k = a->w->k;
    int64_t begin, end;
    nt_split((a->w->n + NT_PANEL - 1) / NT_PANEL, 1, thread, n_threads, &begin, &end);
    for (int64_t panel = begin; panel < end; panel++) {
        if (nt_weight_is_quantized(a->w->format)) {
            quantized_panel(a, (int32_t)panel);
            continue;
        }
        const nt_bf16 *w = (const nt_bf16 *)a->w->data + panel * NT_PANEL * k;
        for (int32_t tok = 0; tok < a->n_tok; tok++) {
            float acc[NT_PANEL] = {0};
            nt_panel_product(a->x + tok * a->ldx, w, k, acc);
            store_panel(a, acc, tok, (int32_t)panel * NT_PANEL);
        }
    }
}

void nt_gemm_check_options(const struct nt_gemm_args *args) {
    const struct nt_packed *w2 = args->w2;
    NT_CHECK(!w2 || (w2->format == NT_WEIGHT_BF16 && w2->n == args->w->n && w2->k % 2 == 0));
    if (w2) nt_packed_check_parts(w2);
    NT_CHECK(!args->pre || args->out == NT_GEMM_SWIGLU_BF16 || args->out == NT_GEMM_GEGLU_BF16);
}

nt_status nt_gemm_portable(struct nt_backend *be, const struct nt_gemm_args *args) {
    NT_CHECK(args->w->format != NT_WEIGHT_BF16_ROWS && args->w->k % 2 == 0);
    nt_gemm_check_options(args);
    struct nt_gemm_args a = *args;
    nt_pool_run(be->pool, gemm_thread, &a);
    return NT_OK;
}
