/* Loops over the lanes of a warp, as bodies of the operations: whole warps take the first form, which vectorizes.
 *
 * Used inside functions (w, o, mask). DEFINE_* make one function an operation and type; tests have hundreds of such
 * pairs, and each is one line of a table this way. No state. */
#pragma once
#include "interp.h"

#define LANES(...)                                                                                                     \
    if (mask == UINT32_MAX) {                                                                                          \
        for (uint32_t l = 0; l < 32; l++) {                                                                            \
            __VA_ARGS__;                                                                                               \
        }                                                                                                              \
    } else {                                                                                                           \
        EACH_LANE(l, mask) {                                                                                           \
            __VA_ARGS__;                                                                                               \
        }                                                                                                              \
    }                                                                                                                  \
    return FLOW_NEXT

/* U: unsigned storage of the register (uint32_t or uint64_t), T: type of the operands, R: type of the result before it
 * is stored. */
#define P(U, i) ((const U *)lanes32(w, &o->src[i]))
#define D(U)    ((U *)to32(w, &o->dst[0]))

#define DEFINE_1(name, U, T, R, expr)                                                                                  \
    static enum flow name(struct warp *w, const struct ptx_op *o, uint32_t mask) {                                     \
        const U *pa = P(U, 0);                                                                                         \
        U *d = D(U);                                                                                                   \
        LANES(const T a = (T)pa[l]; d[l] = (U)(R)(expr));                                                              \
    }
#define DEFINE_2(name, U, T, R, expr)                                                                                  \
    static enum flow name(struct warp *w, const struct ptx_op *o, uint32_t mask) {                                     \
        const U *pa = P(U, 0), *pb = P(U, 1);                                                                          \
        U *d = D(U);                                                                                                   \
        LANES(const T a = (T)pa[l]; const T b = (T)pb[l]; d[l] = (U)(R)(expr));                                        \
    }
#define DEFINE_3(name, U, T, R, expr)                                                                                  \
    static enum flow name(struct warp *w, const struct ptx_op *o, uint32_t mask) {                                     \
        const U *pa = P(U, 0), *pb = P(U, 1), *pc = P(U, 2);                                                           \
        U *d = D(U);                                                                                                   \
        LANES(const T a = (T)pa[l]; const T b = (T)pb[l]; const T c = (T)pc[l]; d[l] = (U)(R)(expr));                  \
    }
/* The second operand is 32 bits wide whatever the first is: shift amounts, bit positions. */
#define DEFINE_SHIFT(name, U, T, R, expr)                                                                              \
    static enum flow name(struct warp *w, const struct ptx_op *o, uint32_t mask) {                                     \
        const U *pa = P(U, 0);                                                                                         \
        const uint32_t *pb = P(uint32_t, 1);                                                                           \
        U *d = D(U);                                                                                                   \
        LANES(const T a = (T)pa[l]; const uint32_t b = pb[l]; d[l] = (U)(R)(expr));                                    \
    }
/* One result twice as wide as the operands. */
#define DEFINE_WIDE_2(name, U, T, V, expr)                                                                             \
    static enum flow name(struct warp *w, const struct ptx_op *o, uint32_t mask) {                                     \
        const U *pa = P(U, 0), *pb = P(U, 1);                                                                          \
        V *d = D(V);                                                                                                   \
        LANES(const T a = (T)pa[l]; const T b = (T)pb[l]; d[l] = (V)(expr));                                           \
    }
#define DEFINE_WIDE_3(name, U, T, V, expr)                                                                             \
    static enum flow name(struct warp *w, const struct ptx_op *o, uint32_t mask) {                                     \
        const U *pa = P(U, 0), *pb = P(U, 1);                                                                          \
        const V *pc = P(V, 2);                                                                                         \
        V *d = D(V);                                                                                                   \
        LANES(const T a = (T)pa[l]; const T b = (T)pb[l]; const V c = pc[l]; d[l] = (V)(expr));                        \
    }

/* An operation for each of the six integer types; b types share the unsigned one. */
#define INTEGERS(name, arity, expr)                                                                                    \
    DEFINE_##arity(name##_u16, uint32_t, uint16_t, uint16_t, expr)                                                     \
        DEFINE_##arity(name##_s16, uint32_t, int16_t, uint16_t, expr)                                                  \
            DEFINE_##arity(name##_u32, uint32_t, uint32_t, uint32_t, expr)                                             \
                DEFINE_##arity(name##_s32, uint32_t, int32_t, int32_t, expr)                                           \
                    DEFINE_##arity(name##_u64, uint64_t, uint64_t, uint64_t, expr)                                     \
                        DEFINE_##arity(name##_s64, uint64_t, int64_t, int64_t, expr) INTEGER_TABLE(name)
#define INTEGER_TABLE(name)                                                                                            \
    static run_fn *const name##_by_type[] = {                                                                          \
        [PTX_B16] = name##_u16, [PTX_U16] = name##_u16, [PTX_S16] = name##_s16, [PTX_B32] = name##_u32,                \
        [PTX_U32] = name##_u32, [PTX_S32] = name##_s32, [PTX_B64] = name##_u64, [PTX_U64] = name##_u64,                \
        [PTX_S64] = name##_s64, [PTX_PRED] = NULL};

static inline float as_f32(uint32_t bits) {
    float f;
    __builtin_memcpy(&f, &bits, sizeof f);
    return f;
}
static inline uint32_t f32_bits(float f) {
    uint32_t bits;
    __builtin_memcpy(&bits, &f, sizeof bits);
    return bits;
}
static inline double as_f64(uint64_t bits) {
    double f;
    __builtin_memcpy(&f, &bits, sizeof f);
    return f;
}
static inline uint64_t f64_bits(double f) {
    uint64_t bits;
    __builtin_memcpy(&bits, &f, sizeof bits);
    return bits;
}
