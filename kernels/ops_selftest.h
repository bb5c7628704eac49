/* What the self-tests of doctor share: inputs from an arena, the same for both sides, and the results they keep.
 *
 * A test of an op draws its arguments with nt_selftest_floats and nt_selftest_halves (deterministic: counter-based),
 * runs the op of t->ops on t->be and keeps what it wrote; ops_selftest.c runs it on the portable and on the active
 * bodies and compares. Memory is the arena's and ends with the test. One thread. Errors: those of the op. */
#ifndef NT_OPS_SELFTEST_H
#define NT_OPS_SELFTEST_H

#include "arena.h"
#include "cpu_bodies.h"
#include "rng.h"

enum { NT_SELFTEST_VALUES = 1 << 20 };

struct nt_selftest {
    struct nt_backend *be;
    struct nt_ops ops; /* of the side that runs */
    struct nt_arena arena;
    int32_t width; /* d_model of rmsnorm, d_head of rope_kv, attention and their gradients, rows of head_argmax and of
                      gemm's gradients; 0: a small one */
    uint64_t seed, index;
    float *values; // [NT_SELFTEST_VALUES]
    int64_t n_values;
};

static inline float nt_selftest_random(struct nt_selftest *t) { /* in (-1, 1), the same for both sides */
    uint32_t word[4];
    nt_philox(t->seed, 0, t->index++, word);
    return 2 * nt_unit_float(word[0]) - 1;
}

static inline float *nt_selftest_floats(struct nt_selftest *t, int64_t count, float scale) {
    float *p = NT_TAKE(&t->arena, float, count);
    for (int64_t i = 0; i < count; i++) p[i] = nt_selftest_random(t) * scale;
    return p;
}

static inline nt_bf16 *nt_selftest_halves(struct nt_selftest *t, int64_t count, float scale) {
    nt_bf16 *p = NT_TAKE(&t->arena, nt_bf16, count);
    for (int64_t i = 0; i < count; i++) p[i] = nt_f32_to_bf16(nt_selftest_random(t) * scale);
    return p;
}

static inline void nt_selftest_keep(struct nt_selftest *t, float v) {
    NT_CHECK(t->n_values < NT_SELFTEST_VALUES);
    t->values[t->n_values++] = v;
}

static inline void nt_selftest_keep_f32(struct nt_selftest *t, const float *v, int64_t count) {
    for (int64_t i = 0; i < count; i++) nt_selftest_keep(t, v[i]);
}

static inline void nt_selftest_keep_bf16(struct nt_selftest *t, const nt_bf16 *v, int64_t count) {
    for (int64_t i = 0; i < count; i++) nt_selftest_keep(t, nt_bf16_to_f32(v[i]));
}

static inline void nt_selftest_keep_i32(struct nt_selftest *t, const int32_t *v, int64_t count) {
    for (int64_t i = 0; i < count; i++) nt_selftest_keep(t, (float)v[i]);
}

/* Tests of the backward ops, in ops_selftest_bwd.c. */
nt_status nt_selftest_rmsnorm_bwd(struct nt_selftest *t);
nt_status nt_selftest_glu_bwd(struct nt_selftest *t);
nt_status nt_selftest_attention_bwd(struct nt_selftest *t);
nt_status nt_selftest_rope_bwd(struct nt_selftest *t);
nt_status nt_selftest_logit_bwd(struct nt_selftest *t);
nt_status nt_selftest_embed_bwd(struct nt_selftest *t);
nt_status nt_selftest_scatter(struct nt_selftest *t);
nt_status nt_selftest_dropout(struct nt_selftest *t);
nt_status nt_selftest_adamw(struct nt_selftest *t);
nt_status nt_selftest_sum_squares(struct nt_selftest *t);
nt_status nt_selftest_sum_parts(struct nt_selftest *t);
nt_status nt_selftest_pack(struct nt_selftest *t);

#endif
