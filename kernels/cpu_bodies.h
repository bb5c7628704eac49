/* The CPU bodies of every op, named nt_<op>_<isa> with the signature of struct nt_ops.
 *
 * All names an instruction set may have are declared here, generated from ops.def; those that exist are entered in the
 * table of cpu_backend.c, so an op gets a tuned body by one definition and one table entry. A body reads its threads
 * and its scratch from the backend, allocates nothing, and is called by one thread at a time.
 * Scratch: thread i owns NT_CPU_SCRATCH_BYTES from nt_cpu_scratch(be, i), 64-byte aligned, contents undefined between
 * calls. */
#ifndef NT_CPU_BODIES_H
#define NT_CPU_BODIES_H

#include "backend.h"
#include "strbuf.h"

#define NT_OP(name, doc)                                                                                               \
    nt_status nt_##name##_portable(struct nt_backend *be, const struct nt_##name##_args *args);                        \
    nt_status nt_##name##_avx2(struct nt_backend *be, const struct nt_##name##_args *args);                            \
    nt_status nt_##name##_avx512(struct nt_backend *be, const struct nt_##name##_args *args);
#include "ops.def"
#undef NT_OP

/* The bodies written for exactly this level; absent ones are NULL. */
const struct nt_ops *nt_cpu_bodies(enum nt_isa isa);

/* acc[n] += sum of x[k] w[n, k] over one panel of BF16 weights, k ascending: the product of the portable bodies. */
void nt_panel_product(const nt_bf16 *x, const nt_bf16 *w, int32_t k, float acc[NT_PANEL]);

/* What every body of gemm asks of the optional operands. */
void nt_gemm_check_options(const struct nt_gemm_args *args);

/* Runs every op of the backend and its portable body on small inputs; one line per op is added to the report. Fails
 * with NT_E_INTERNAL, naming the ops, when a result lies outside the op's tolerance. Milliseconds. */
NT_MUST nt_status nt_ops_selftest(struct nt_backend *be, struct nt_strbuf *report);
/* The same for one op, which is no error when it differs. width: d_model of rmsnorm, d_head of rope_kv and attention,
 * rows of head_argmax; 0: a small one. The backend takes arguments in host memory. */
struct nt_selftest_row {
    double difference, limit; /* normalized mean squared */
    bool ok;
};
NT_MUST nt_status nt_ops_selftest_op(struct nt_backend *be, enum nt_op op, int32_t width, struct nt_selftest_row *row);

enum { NT_CPU_SCRATCH_BYTES = 1 << 20 };
static inline void *nt_cpu_scratch(const struct nt_backend *be, int thread) {
    return (char *)be->scratch + (size_t)thread * be->scratch_per_thread;
}

#endif
