/* The step of AdamW over a range, one loop that each instruction set's file compiles for itself.
 *
 * Every operation is elementwise and rounds once (products and sums are not fused), so all bodies give the same bits.
 * Factors are combined in double and rounded once, as ops_bwd.h says (Loshchilov & Hutter 2019).
 * A thread has a range of its own; nothing is kept between calls.
 * Errors: none, ops cannot fail. */
#ifndef NT_CPU_ADAMW_H
#define NT_CPU_ADAMW_H

#include "cpu_rows.h"
#include "ops_bwd.h"
#include <math.h>

static inline void nt_adamw_range(const struct nt_adamw_args *a, int64_t begin, int64_t end) {
    const float scale = (float)a->grad_scale, keep = (float)(1 - a->lr * a->decay), eps = (float)a->eps;
    const float b1 = (float)a->beta1, c1 = (float)(1 - a->beta1), b2 = (float)a->beta2, c2 = (float)(1 - a->beta2);
    const float step = (float)(a->lr / a->bias1), root = (float)sqrt(a->bias2);
    float *restrict p = a->p, *restrict m = a->m, *restrict v = a->v;
    const float *restrict grad = a->grad;
    for (int64_t i = begin; i < end; i++) {
        const float g = grad[i] * scale;
        const float m1 = b1 * m[i] + c1 * g, v1 = b2 * v[i] + c2 * (g * g);
        m[i] = m1;
        v[i] = v1;
        p[i] = p[i] * keep - step * m1 / (sqrtf(v1) / root + eps);
    }
}

static void nt_adamw_thread(void *arg, int thread, int n_threads) {
    const struct nt_adamw_args *a = arg;
    int64_t begin, end;
    nt_split(a->n, 16, thread, n_threads, &begin, &end);
    nt_adamw_range(a, begin, end);
}

static inline void nt_adamw_run(struct nt_backend *be, const struct nt_adamw_args *args) {
    struct nt_adamw_args a = *args;
    nt_rows_run(be, nt_adamw_thread, &a, args->n, 1);
}

#endif
