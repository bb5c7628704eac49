#include "op_gradient.h"
#include <math.h>

void op_check_gradient(struct op_env *env, const char *what, op_loss_fn *loss, void *ctx, double *x, const double *grad,
                       int64_t count) {
    double largest = 0;
    env->n_checked++;
    for (int64_t i = 0; i < count; i++) largest = fmax(largest, fabs(grad[i]));
    for (int64_t i = 0; i < count; i++) {
        const double x0 = x[i], h = 1e-5 * (1 + fabs(x0));
        x[i] = x0 + h;
        const double up = loss(ctx), step_up = x[i] - x0;
        x[i] = x0 - h;
        const double down = loss(ctx), step_down = x0 - x[i];
        x[i] = x0;
        const double slope = (up - down) / (step_up + step_down);
        if (fabs(slope - grad[i]) <= 1e-7 * (fabs(grad[i]) + largest)) continue;
        op_fail(env, "%s: the gradient at %lld is %.12g, the slope %.12g", what, (long long)i, grad[i], slope);
        return;
    }
}

double *op_doubles(const float *x, int64_t count) {
    double *to = op_alloc((size_t)count * sizeof *to);
    for (int64_t i = 0; i < count; i++) to[i] = (double)x[i];
    return to;
}

double *op_doubles_bf16(const nt_bf16 *x, int64_t count) {
    double *to = op_alloc((size_t)count * sizeof *to);
    for (int64_t i = 0; i < count; i++) to[i] = (double)nt_bf16_to_f32(x[i]);
    return to;
}
