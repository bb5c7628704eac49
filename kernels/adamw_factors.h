/* The scalars of a step of AdamW, combined in double and rounded once: what every body multiplies elements by.
 *
 * In the order torch.optim.AdamW applies them (Loshchilov & Hutter 2019; ops_bwd.h): p *= keep; m = beta1 m + new1 g;
 * v = beta2 v + new2 g^2; p -= step m / (sqrt(v) / root + eps), g = grad * scale. 1 - 0.999 has no digits to spare in
 * f32, hence the double. No state; any thread; no errors. */
#ifndef NT_ADAMW_FACTORS_H
#define NT_ADAMW_FACTORS_H

#include "ops_bwd.h"
#include <math.h>

struct nt_adamw_factors {
    float scale, keep, beta1, new1, beta2, new2, step, root, eps;
};

static inline struct nt_adamw_factors nt_adamw_factors_of(const struct nt_adamw_args *a) {
    struct nt_adamw_factors f;
    f.scale = (float)a->grad_scale;
    f.keep = (float)(1 - a->lr * a->decay);
    f.beta1 = (float)a->beta1;
    f.new1 = (float)(1 - a->beta1);
    f.beta2 = (float)a->beta2;
    f.new2 = (float)(1 - a->beta2);
    f.step = (float)(a->lr / a->bias1);
    f.root = (float)sqrt(a->bias2);
    f.eps = (float)a->eps;
    return f;
}

#endif
