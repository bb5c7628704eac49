/* Gradients of the double-precision references, checked against central differences of the formula of the forward.
 *
 * A case of a backward op has its gradient twice: as a formula in double, which the bodies are compared with, and as
 * the slope of the forward's formula, also in double, which that formula is compared with here. The step is 1e-5 of (1
 * + |x|): its error of the second order and the rounding of the function are both near 1e-10 of the slope. The caller
 * owns everything; x is restored. Failures are counted by op_fail. */
#ifndef NT_OP_GRADIENT_H
#define NT_OP_GRADIENT_H

#include "ops_bwd.h"
#include "test_ops.h"

/* value of the loss from what lies in ctx, x [count] among it. */
typedef double op_loss_fn(void *ctx);
/* grad [count] = d loss / d x. */
void op_check_gradient(struct op_env *env, const char *what, op_loss_fn *loss, void *ctx, double *x, const double *grad,
                       int64_t count);

/* [count] doubles of floats, of bf16; the caller frees them. */
double *op_doubles(const float *x, int64_t count);
double *op_doubles_bf16(const nt_bf16 *x, int64_t count);

#endif
