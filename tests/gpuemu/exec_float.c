/* Floating-point operations. Semantics: PTX ISA, "Floating Point Instructions" and "Half Precision Floating-Point".
 * f32 and f64 arithmetic is the host's, rounded to nearest; .ftz makes subnormal inputs and results zeros of their
 * sign. The approximate functions are computed in double, rounded, and with option ulp moved by up to 2 units in the
 * last place, since hardware promises no more. Half types are computed in double and rounded once. */
#include <fenv.h>
#include <math.h>
#include <string.h>

#include "half.h"
#include "lanes.h"

static inline float flushed(float f) {
    return fabsf(f) < 0x1p-126f ? copysignf(0.0f, f) : f;
}

enum { ADD, SUB, MUL, FMA, DIV, MIN, MAX, NEG, ABS, SQRT, RCP, RSQRT, EX2, LG2, SIN, COS, TANH, N_FLOAT };
static const struct {
    const char *name;
    int32_t n;
} float_ops[] = {
    [ADD] = {"add",   2},
      [SUB] = {"sub",   2},
      [MUL] = {"mul",   2},
      [FMA] = {"fma",   3},
      [DIV] = {"div",   2},
    [MIN] = {"min",   2},
      [MAX] = {"max",   2},
      [NEG] = {"neg",   1},
      [ABS] = {"abs",   1},
      [SQRT] = {"sqrt",  1},
    [RCP] = {"rcp",   1},
      [RSQRT] = {"rsqrt", 1},
      [EX2] = {"ex2",   1},
      [LG2] = {"lg2",   1},
      [SIN] = {"sin",   1},
    [COS] = {"cos",   1},
      [TANH] = {"tanh",  1},
};

enum { KEEP_NAN = 1, APPROX = 2, BY_RECIPROCAL = 4 }; /* o->n */

/* ---- one lane, in double ---- */

static double smaller(double a, double b, bool keep_nan) {
    if (a != a || b != b) return keep_nan ? NAN : a != a ? b : a;
    if (a == b) return signbit(a) ? a : b; /* -0 < +0 */
    return a < b ? a : b;
}

static double function(int32_t which, double a, double b, double c, bool keep_nan) {
    switch (which) {
    case ADD:
        return a + b;
    case SUB:
        return a - b;
    case MUL:
        return a * b;
    case FMA:
        return fma(a, b, c);
    case DIV:
        return a / b;
    case MIN:
        return smaller(a, b, keep_nan);
    case MAX:
        return -smaller(-a, -b, keep_nan);
    case NEG:
        return -a;
    case ABS:
        return fabs(a);
    case SQRT:
        return sqrt(a);
    case RCP:
        return 1 / a;
    case RSQRT:
        return 1 / sqrt(a);
    case EX2:
        return exp2(a);
    case LG2:
        return log2(a);
    case SIN:
        return sin(a);
    case COS:
        return cos(a);
    default:
        return tanh(a);
    }
}

/* Up to 2 ulp away; the sign and the class stay. */
static float perturbed(struct warp *w, float f) {
    if (!isfinite(f) || f == 0.0f) return f;
    const int32_t by = (int32_t)(emu_random(&w->run->random) % 5) - 2;
    const float moved = as_f32(f32_bits(f) + (uint32_t)by);
    return isfinite(moved) && signbit(moved) == signbit(f) ? moved : f;
}

/* ---- f32, the common ones fast ---- */

/* A result that is a NaN is the canonical one, whatever the operands'. */
static inline uint32_t f32_canonical(float f) {
    return f != f ? 0x7fffffffu : f32_bits(f);
}

#define F32_2(name, expr)                                                                                              \
    static enum flow name(struct warp *w, const struct ptx_op *o, uint32_t mask) {                                     \
        const uint32_t *pa = P(uint32_t, 0), *pb = P(uint32_t, 1);                                                     \
        uint32_t *d = D(uint32_t);                                                                                     \
        LANES(const float a = as_f32(pa[l]); const float b = as_f32(pb[l]); d[l] = f32_canonical(expr));               \
    }
F32_2(add_f32, a + b)
F32_2(sub_f32, a - b)
F32_2(mul_f32, a *b)
static enum flow fma_f32(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    const uint32_t *pa = P(uint32_t, 0), *pb = P(uint32_t, 1), *pc = P(uint32_t, 2);
    uint32_t *d = D(uint32_t);
    LANES(d[l] = f32_canonical(fmaf(as_f32(pa[l]), as_f32(pb[l]), as_f32(pc[l]))));
}
DEFINE_1(neg_f32, uint32_t, uint32_t, uint32_t, a ^ 0x80000000u)
DEFINE_1(abs_f32, uint32_t, uint32_t, uint32_t, a & 0x7fffffffu)

static __attribute__((noinline)) float f32_result(const struct ptx_op *o, float a, float b, float c) {
    switch (o->mode) { /* rounded once, in f32 */
    case ADD:
        return a + b;
    case SUB:
        return a - b;
    case MUL:
        return a * b;
    case FMA:
        return fmaf(a, b, c);
    case DIV: /* div.approx is a * (1 / b), of which nothing is left beyond 2^126 */
        return (o->n & BY_RECIPROCAL) && fabsf(b) > 0x1p126f ? a * copysignf(0.0f, b) : a / b;
    case SQRT:
        return sqrtf(a);
    case RCP:
        return 1.0f / a;
    default:
        return (float)function(o->mode, (double)a, (double)b, (double)c, o->n & KEEP_NAN);
    }
}

/* The directed roundings: the host's, with operands the compiler cannot fold. */
static float f32_directed(const struct ptx_op *o, float a, float b, float c) {
    volatile float x = a, y = b, z = c;
    const int before = fegetround();
    (void)fesetround((int)o->immediate);
    volatile float r = f32_result(o, x, y, z);
    (void)fesetround(before);
    return r;
}

static enum flow any_f32(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    const uint32_t *pa = P(uint32_t, 0), *pb = o->n_src > 1 ? P(uint32_t, 1) : pa,
                   *pc = o->n_src > 2 ? P(uint32_t, 2) : pa;
    uint32_t *d = D(uint32_t);
    const bool perturb = (o->n & APPROX) && emu_options()->ulp;
    EACH_LANE(l, mask) {
        float a = as_f32(pa[l]), b = as_f32(pb[l]), c = as_f32(pc[l]);
        if (o->ftz) a = flushed(a), b = flushed(b), c = flushed(c);
        float r = o->immediate ? f32_directed(o, a, b, c) : f32_result(o, a, b, c);
        if (perturb) r = perturbed(w, r);
        if (o->ftz) r = flushed(r);
        if (o->sat) r = r > 0 ? r < 1 ? r : 1 : 0; /* NaN becomes 0 */
        d[l] = f32_canonical(r);
    }
    return FLOW_NEXT;
}

static enum flow any_f64(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    const uint64_t *pa = P(uint64_t, 0), *pb = o->n_src > 1 ? P(uint64_t, 1) : pa,
                   *pc = o->n_src > 2 ? P(uint64_t, 2) : pa;
    uint64_t *d = D(uint64_t);
    LANES(d[l] = f64_bits(function(o->mode, as_f64(pa[l]), as_f64(pb[l]), as_f64(pc[l]), o->n & KEEP_NAN)));
}

/* ---- half types ---- */

static double half_value(uint16_t h, bool bf16) {
    return (double)(bf16 ? half_from_bf16(h) : half_from_f16(h));
}
/* Once: float keeps 24 bits of a double's 53, so ties are broken by a sticky last bit before the second rounding. */
static uint16_t half_rounded(double v, bool bf16) {
    float f = (float)v;
    if ((double)f != v && isfinite(f)) {
        uint32_t bits = f32_bits(f);
        if (fabs((double)f) > fabs(v)) bits--; /* toward zero, then odd */
        f = as_f32(bits | 1);
    }
    return bf16 ? half_to_bf16(f) : half_to_f16(f);
}

static uint16_t half_result(const struct ptx_op *o, bool bf16, uint16_t a, uint16_t b, uint16_t c) {
    if (o->mode == NEG) return a ^ 0x8000;
    if (o->mode == ABS) return a & 0x7fff;
    double v = function(o->mode, half_value(a, bf16), half_value(b, bf16), half_value(c, bf16), o->n & KEEP_NAN);
    if (o->sat) v = v > 0 ? v < 1 ? v : 1 : 0;
    return half_rounded(v, bf16);
}

static enum flow any_half(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    const uint32_t *pa = P(uint32_t, 0), *pb = o->n_src > 1 ? P(uint32_t, 1) : pa,
                   *pc = o->n_src > 2 ? P(uint32_t, 2) : pa;
    uint32_t *d = D(uint32_t);
    const bool bf16 = o->type == PTX_BF16 || o->type == PTX_BF16X2, two = type_bytes(o->type) == 4;
    EACH_LANE(l, mask) {
        uint32_t r = half_result(o, bf16, (uint16_t)pa[l], (uint16_t)pb[l], (uint16_t)pc[l]);
        if (two)
            r |= (uint32_t)half_result(o, bf16, (uint16_t)(pa[l] >> 16), (uint16_t)(pb[l] >> 16),
                                       (uint16_t)(pc[l] >> 16))
                 << 16;
        d[l] = r;
    }
    return FLOW_NEXT;
}

/* ---- building ---- */

static run_fn *fast_f32(const struct ptx_op *o) {
    if (o->ftz || o->sat || o->immediate) return any_f32;
    switch (o->mode) {
    case ADD:
        return add_f32;
    case SUB:
        return sub_f32;
    case MUL:
        return mul_f32;
    case FMA:
        return fma_f32;
    case NEG:
        return neg_f32;
    case ABS:
        return abs_f32;
    default:
        return any_f32;
    }
}

bool build_float(struct build *b, const char *name) {
    struct ptx_op *o = b->o;
    o->mode = -1;
    for (int i = 0; i < N_FLOAT; i++)
        if (strcmp(float_ops[i].name, name) == 0) o->mode = i;
    o->immediate = has_mod(b, "rz") ? FE_TOWARDZERO : has_mod(b, "rm") ? FE_DOWNWARD : has_mod(b, "rp") ? FE_UPWARD : 0;
    if (o->mode < 0 || has_mod(b, "xorsign") || has_mod(b, "relu") || o->from != PTX_NONE) return false;
    if (o->immediate && (o->type != PTX_F32 || o->mode > RCP)) return false;
    if (o->mode == FMA && b->n_arg == 3) return false;
    o->n = (has_mod(b, "NaN") ? KEEP_NAN : 0) | (has_mod(b, "approx") || has_mod(b, "full") ? APPROX : 0) |
           (has_mod(b, "approx") ? BY_RECIPROCAL : 0);
    o->info.opcode_class = o->mode >= SQRT || o->mode == DIV ? EMU_CLASS_SPECIAL : EMU_CLASS_FLOAT;
    o->run = o->type == PTX_F32 ? fast_f32(o) : o->type == PTX_F64 ? any_f64 : any_half;
    const bool wide = o->type == PTX_F64;
    if (!take_dst(b, 0, wide)) return false;
    for (int32_t i = 1; i <= float_ops[o->mode].n; i++)
        if (!take_src(b, i, wide)) return false;
    return true;
}

#define BUILD(name)                                                                                                    \
    static bool build_##name(struct build *b) {                                                                        \
        return build_float(b, #name);                                                                                  \
    }
BUILD(fma)
BUILD(sqrt)
BUILD(rcp)
BUILD(rsqrt)
BUILD(ex2)
BUILD(lg2)
BUILD(sin)
BUILD(cos)
BUILD(tanh)

DEFINE_2(copysign_32, uint32_t, uint32_t, uint32_t, (a & 0x80000000u) | (b & 0x7fffffffu))
static bool build_copysign(struct build *b) {
    b->o->run = copysign_32;
    return b->o->type == PTX_F32 && take_dst(b, 0, false) && take_src(b, 1, false) && take_src(b, 2, false);
}

/* testp.CLASS.f32 */
static const char *const classes[] = {"finite", "infinite", "number", "notanumber", "normal", "subnormal"};
static enum flow testp(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    const uint32_t *pa = P(uint32_t, 0);
    uint32_t *d = D(uint32_t);
    LANES(const float a = as_f32(pa[l]); const int class = fpclassify(a);
          const bool is[] = {isfinite(a), isinf(a), a == a, a != a, class == FP_NORMAL, class == FP_SUBNORMAL};
          d[l] = is[o->mode]);
}
static bool build_testp(struct build *b) {
    b->o->mode = -1;
    b->o->run = testp;
    for (int i = 0; i < 6; i++)
        if (has_mod(b, classes[i])) b->o->mode = i;
    return b->o->mode >= 0 && b->o->type == PTX_F32 && take_dst(b, 0, false) && take_src(b, 1, false);
}

const struct opcode float_opcodes[] = {
    {"fma",      build_fma,      EMU_CLASS_FLOAT  },
    {"sqrt",     build_sqrt,     EMU_CLASS_SPECIAL},
    {"rcp",      build_rcp,      EMU_CLASS_SPECIAL},
    {"rsqrt",    build_rsqrt,    EMU_CLASS_SPECIAL},
    {"ex2",      build_ex2,      EMU_CLASS_SPECIAL},
    {"lg2",      build_lg2,      EMU_CLASS_SPECIAL},
    {"sin",      build_sin,      EMU_CLASS_SPECIAL},
    {"cos",      build_cos,      EMU_CLASS_SPECIAL},
    {"tanh",     build_tanh,     EMU_CLASS_SPECIAL},
    {"copysign", build_copysign, EMU_CLASS_FLOAT  },
    {"testp",    build_testp,    EMU_CLASS_FLOAT  },
    {NULL,       NULL,           0                },
};
