/* The specification of the gradient of the gated activation, in portable C. */
#include "cpu_bodies.h"
#include "cpu_math.h"
#include "ops_bwd.h"
#include <math.h>

enum { HALF = NT_PANEL / 2 };

/* act(x) = x g with g = 1 / (1 + exp(-v)): v = x is silu, v = 2u with u = sqrt(2/pi) (x + 0.044715 x^3) is gelu_tanh
 * (Hendrycks & Gimpel 2016). Its derivative is g + x v'(x) g (1 - g), x v' taken within +-64: beyond, g (1 - g) is 0
 * and x v' may be infinite. Only exp of a negative number is taken, so that neither g nor 1 - g cancels. */
static float activate(float x, bool gelu, float *slope) {
    const float l = x > 64.0f ? 64.0f : x < -64.0f ? -64.0f : x; /* a NaN stays */
    const float v = gelu ? 1.5957691216f * (x + 0.044715f * x * x * x) : x;
    const float lv = gelu ? 1.5957691216f * (l + 0.134145f * l * l * l) : l;
    const float t = nt_exp2_neg(-fabsf(v) * NT_LOG2E), large = 1.0f / (1.0f + t), small = t / (1.0f + t);
    const float g = v < 0 ? small : large;
    *slope = g + lv * (large * small);
    return x * g;
}

/* Sixteen gates and their ups; j: the first of them among the n. */
static void half_panel(const struct nt_glu_bwd_args *a, int64_t t, int32_t j) {
    const nt_bf16 *pre = a->pre + t * a->ldpre + 2 * j;
    nt_bf16 *dpre = a->dy ? a->dpre + t * a->ldpre + 2 * j : NULL;
    for (int32_t i = 0; i < HALF; i++) {
        const float gate = nt_bf16_to_f32(pre[i]), up = nt_bf16_to_f32(pre[HALF + i]);
        float slope;
        const float value = activate(gate, a->gelu, &slope);
        if (a->y) a->y[t * a->ldy + j + i] = nt_f32_to_bf16(value * up);
        if (!a->dy) continue;
        const float dy = a->dy[t * a->lddy + j + i];
        dpre[i] = nt_f32_to_bf16(dy * up * slope);
        dpre[HALF + i] = nt_f32_to_bf16(dy * value);
    }
}

static void glu_thread(void *arg, int thread, int n_threads) {
    const struct nt_glu_bwd_args *a = arg;
    int64_t begin, end;
    nt_split(a->n_tok, 1, thread, n_threads, &begin, &end);
    for (int64_t t = begin; t < end; t++)
        for (int32_t j = 0; j < a->n; j += HALF) half_panel(a, t, j);
}

nt_status nt_glu_bwd_portable(struct nt_backend *be, const struct nt_glu_bwd_args *args) {
    NT_CHECK(args->n % HALF == 0 && !args->dy == !args->dpre);
    struct nt_glu_bwd_args a = *args;
    nt_pool_run(be->pool, glu_thread, &a);
    return NT_OK;
}
