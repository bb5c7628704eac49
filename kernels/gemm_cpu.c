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
    for (int32_t n = 0; n < NT_PANEL; n++) acc[n] = 0;
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
    for (int32_t j = 0; j < NT_PANEL / 2; j++) {
        const float gate = acc[j], up = acc[NT_PANEL / 2 + j];
        y[j] = nt_f32_to_bf16((a->out == NT_GEMM_SWIGLU_BF16 ? silu(gate) : gelu_tanh(gate)) * up);
    }
}

static void store_panel(const struct nt_gemm_args *a, float acc[NT_PANEL], int32_t tok, int32_t n0) {
    const int32_t count = a->w->n - n0 < NT_PANEL ? a->w->n - n0 : NT_PANEL;
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

/* acc[n] of a panel of INT4 weights for every row of x: groups ascending, in a group k ascending. */
static void int4_panel(const struct nt_gemm_args *a, int32_t panel) {
    const int32_t k = a->w->k, n_group = (k + NT_INT4_GROUP - 1) / NT_INT4_GROUP;
    int8_t q[NT_INT4_GROUP][NT_PANEL];
    float scale[NT_PANEL];
    for (int32_t tok = 0; tok < a->n_tok; tok++) {
        float acc[NT_PANEL] = {0};
        for (int32_t g = 0; g < n_group; g++) {
            const nt_bf16 *x = a->x + tok * a->ldx + g * NT_INT4_GROUP;
            const int32_t count = k - g * NT_INT4_GROUP < NT_INT4_GROUP ? k - g * NT_INT4_GROUP : NT_INT4_GROUP;
            float sum[NT_PANEL] = {0};
            nt_unpack_int4(a->w, panel, g, q, scale);
            for (int32_t i = 0; i < count; i++)
                for (int32_t n = 0; n < NT_PANEL; n++) sum[n] += nt_bf16_to_f32(x[i]) * q[i][n];
            for (int32_t n = 0; n < NT_PANEL; n++) acc[n] += scale[n] * sum[n];
        }
        store_panel(a, acc, tok, panel * NT_PANEL);
    }
}

static void gemm_thread(void *arg, int thread, int n_threads) {
    const struct nt_gemm_args *a = arg;
    const int32_t k = a->w->k;
    int64_t begin, end;
    nt_split((a->w->n + NT_PANEL - 1) / NT_PANEL, 1, thread, n_threads, &begin, &end);
    for (int64_t panel = begin; panel < end; panel++) {
        if (a->w->format == NT_WEIGHT_INT4) {
            int4_panel(a, (int32_t)panel);
            continue;
        }
        const nt_bf16 *w = (const nt_bf16 *)a->w->data + panel * NT_PANEL * k;
        for (int32_t tok = 0; tok < a->n_tok; tok++) {
            float acc[NT_PANEL];
            nt_panel_product(a->x + tok * a->ldx, w, k, acc);
            store_panel(a, acc, tok, (int32_t)panel * NT_PANEL);
        }
    }
}

nt_status nt_gemm_portable(struct nt_backend *be, const struct nt_gemm_args *args) {
    const enum nt_weight_format format = args->w->format;
    NT_CHECK((format == NT_WEIGHT_BF16 || format == NT_WEIGHT_INT4) && args->w->k % 2 == 0);
    struct nt_gemm_args a = *args;
    nt_pool_run(be->pool, gemm_thread, &a);
    return NT_OK;
}
