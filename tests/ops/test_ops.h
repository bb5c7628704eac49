/* The op test: every body of every instruction set and of CUDA against a double-precision reference.
 *
 * A cases_<op>.c file exports one struct op_cases; test_ops.c lists them. A case checks one op: it draws its inputs
 * from op_random (deterministic), runs the op on both backends of the environment (one and two threads) and compares
 * with op_compare_* or reports with op_fail. Special values are compared by position first, then the normalized mean
 * squared error and the largest error, against the row (op, dtype) of the tolerance table in test_ops.c. `perf` of a
 * case calls op_measure for each of its shapes. Single threaded; cases own what they allocate. */
#ifndef NT_TEST_OPS_H
#define NT_TEST_OPS_H

#include "backend.h"
#include "cpu_bodies.h"

enum { OP_BACKENDS = 2 };

struct op_env {
    /* Same level, 1 and 2 threads; CUDA: both stage to one device (cuda_staged.h), the second with tight_workspace.h.
     */
    struct nt_backend be[OP_BACKENDS];
    enum nt_isa isa;
    bool cuda;
    bool kv_int8;   /* CUDA: the cache is int8; tolerances are wider and cases of special values left out */
    bool perturbed; /* approximate functions and sums of mma differ from run to run: only tolerances are compared */
    bool emulated;  /* the CUDA device is an interpreter: cases leave out what op_too_large says */
    enum nt_op op;
    const char *name; /* of the case */
    int n_failed;     /* failures of this case so far */
    int64_t n_checked;
    double read_gb_s, gflops; /* measured for perf: the best so far */
};

struct op_case {
    enum nt_op op;
    const char *name;
    void (*check)(struct op_env *env);
    void (*perf)(struct op_env *env); /* or NULL */
};

struct op_cases {
    int count;
    const struct op_case *cases;
};

/* dtype of a result: its tolerances are a row of the table in test_ops.c. */
enum op_dtype { OP_F32, OP_BF16 };

/* Prints "op/case isa: text" and counts a failure; at most a few lines per case. */
void op_fail(struct op_env *env, const char *fmt, ...) NT_PRINTF(2, 3);
/* want [count] in double; got as stored. what names the shape in a failure. Returns false on a failure. */
bool op_compare_f32(struct op_env *env, const char *what, const double *want, const float *got, int64_t count);
bool op_compare_bf16(struct op_env *env, const char *what, const double *want, const nt_bf16 *got, int64_t count);
/* Every NaN becomes the same one: which bits it has is the machine's. For bitwise comparisons with a reference. */
void op_settle_nans(void *x, enum op_dtype dtype, int64_t count);
/* Bitwise. */
bool op_compare_bytes(struct op_env *env, const char *what, const void *want, const void *got, size_t bytes);

/* Deterministic random numbers: state is any seed. */
uint32_t op_random(uint64_t *state);
int32_t op_random_int(uint64_t *state, int32_t low, int32_t high); /* inclusive */
float op_random_normal(uint64_t *state);                           /* mean 0, deviation 1 */
void op_random_f32(uint64_t *state, float *to, int64_t count, float scale);
void op_random_bf16(uint64_t *state, nt_bf16 *to, int64_t count, float scale);
/* Zeroed, 64-byte aligned; ends the test when there is no memory. */
void *op_alloc(size_t bytes);

/* Whether a call of so many multiply-adds, or elements touched, would take the emulator too long. Never on hardware. */
bool op_too_large(const struct op_env *env, double work);

/* Runs every op once on the device be stages to (count_ops.c); the number of ops that failed. */
int op_count_all(struct nt_backend *be);

/* Times run(ctx) (best of several, at least 20 ms in all) on the 2-thread backend and prints us, GB/s, GFLOP/s and the
 * larger of the two shares of the measured peaks. flops, bytes: of one run. run returns the op's status. */
typedef nt_status op_run_fn(struct nt_backend *be, void *ctx);
void op_measure(struct op_env *env, const char *what, double flops, double bytes, op_run_fn *run, void *ctx);

#endif
