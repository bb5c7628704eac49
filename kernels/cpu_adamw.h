/* The step of AdamW over a range, one loop that each instruction set's file compiles for itself.
 *
 * Every operation is elementwise and rounds once (products and sums are not fused), so all bodies give the same bits.
 * Factors are those of adamw_factors.h (Loshchilov & Hutter 2019).
 * A thread has a range of its own; nothing is kept between calls.
 * Errors: none, ops cannot fail. */
#ifndef NT_CPU_ADAMW_H
#define NT_CPU_ADAMW_H

#include "adamw_factors.h"
#include "cpu_rows.h"

static inline void nt_adamw_range(const struct nt_adamw_args *a, int64_t begin, int64_t end) {
    const struct nt_adamw_factors f = nt_adamw_factors_of(a);
    float *restrict p = a->p, *restrict m = a->m, *restrict v = a->v;
    const float *restrict grad = a->grad;
    for (int64_t i = begin; i < end; i++) {
        const float g = grad[i] * f.scale;
        const float m1 = f.beta1 * m[i] + f.new1 * g, v1 = f.beta2 * v[i] + f.new2 * (g * g);
        m[i] = m1;
        v[i] = v1;
        p[i] = p[i] * f.keep - f.step * m1 / (sqrtf(v1) / f.root + f.eps);
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
