/* Conversions: PTX ISA, "Data Movement and Conversion: cvt". Integer to integer truncates or extends, with .sat
 * clamps; float to integer rounds as told and clamps, NaN gives 0 (all ones' sign bit for 64 bits); the rest rounds to
 * nearest even. cvt.rn.bf16x2.f32 d, a, b puts a in the upper half. */
#include <math.h>
#include <string.h>

#include "half.h"
#include "lanes.h"

enum rounding { RN, RZ, RM, RP, RNI, RZI, RMI, RPI, NO_ROUNDING };
static const char *const rounding_names[] = {"rn", "rz", "rm", "rp", "rni", "rzi", "rmi", "rpi"};

static bool is_float_type(enum ptx_type t) {
    return t == PTX_F16 || t == PTX_BF16 || t == PTX_F32 || t == PTX_F64;
}
static bool is_signed_type(enum ptx_type t) {
    return t == PTX_S8 || t == PTX_S16 || t == PTX_S32 || t == PTX_S64;
}

static double to_double(uint64_t bits, enum ptx_type t) {
    switch (t) {
    case PTX_F16:
        return (double)half_from_f16((uint16_t)bits);
    case PTX_BF16:
        return (double)half_from_bf16((uint16_t)bits);
    case PTX_F32:
        return (double)as_f32((uint32_t)bits);
    default:
        return as_f64(bits);
    }
}

static uint64_t extended(uint64_t v, enum ptx_type t) {
    const int bits = type_bytes(t) * 8;
    if (bits == 64) return v;
    v &= ((uint64_t)1 << bits) - 1;
    return is_signed_type(t) && v >> (bits - 1) & 1 ? v | ~(((uint64_t)1 << bits) - 1) : v;
}

static double rounded(double v, int32_t how) {
    switch (how) {
    case RNI:
    case RN:
        return nearbyint(v);
    case RMI:
    case RM:
        return floor(v);
    case RPI:
    case RP:
        return ceil(v);
    default:
        return trunc(v);
    }
}

static uint64_t float_to_int(double v, const struct ptx_op *o) {
    const int bits = type_bytes(o->type) * 8;
    const bool is_signed = is_signed_type(o->type);
    if (v != v) return bits == 64 ? (uint64_t)1 << 63 : 0;
    v = rounded(v, o->mode);
    const double low = is_signed ? -ldexp(1, bits - 1) : 0, high = ldexp(1, is_signed ? bits - 1 : bits);
    if (v <= low) return is_signed ? (uint64_t)-1 << (bits - 1) : 0;
    if (v >= high)
        return is_signed ? ((uint64_t)1 << (bits - 1)) - 1 : bits == 64 ? UINT64_MAX : ((uint64_t)1 << bits) - 1;
    return is_signed ? (uint64_t)(int64_t)v : (uint64_t)v;
}

static uint64_t int_to_int(uint64_t v, const struct ptx_op *o) {
    if (!o->sat) return v;
    const int bits = type_bytes(o->type) * 8;
    const bool from_signed = is_signed_type(o->from);
    const __int128 x = from_signed ? (__int128)(int64_t)v : (__int128)v;
    const __int128 one = 1, low = is_signed_type(o->type) ? -(one << (bits - 1)) : 0;
    const __int128 high = (one << (is_signed_type(o->type) ? bits - 1 : bits)) - 1;
    return (uint64_t)(x < low ? low : x > high ? high : x);
}

/* f32 toward a direction, from double: neighbours of the nearest. */
static float directed(double v, int32_t how) {
    float f = (float)v;
    if (how == RZ && fabs((double)f) > fabs(v)) f = nextafterf(f, 0);
    if (how == RM && (double)f > v) f = nextafterf(f, -INFINITY);
    if (how == RP && (double)f < v) f = nextafterf(f, INFINITY);
    return f;
}

static uint16_t to_bf16(float f, int32_t how) {
    return how == RZ && f == f ? (uint16_t)(f32_bits(f) >> 16) : half_to_bf16(f);
}

static uint16_t to_f16(float f, int32_t how) {
    const uint16_t h = half_to_f16(f);
    return how == RZ && f == f && fabsf(half_from_f16(h)) > fabsf(f) ? (uint16_t)(h - 1) : h;
}

/* To float toward zero, with the last bit set when that was not exact: a second rounding then is as good as one. */
static float sticky(double v) {
    const float f = (float)v;
    if ((double)f == v || !isfinite(f)) return f;
    const uint32_t bits = f32_bits(f) - (fabs((double)f) > fabs(v));
    return as_f32(bits | 1);
}

static uint64_t from_double(double v, enum ptx_type t, int32_t how, bool sat) {
    if (sat) v = v > 0 ? v < 1 ? v : 1 : 0;
    if (how >= RNI && how != NO_ROUNDING) v = rounded(v, how);
    switch (t) {
    case PTX_F16:
        return to_f16(sticky(v), how);
    case PTX_BF16:
        return to_bf16(sticky(v), how);
    case PTX_F32:
        return v != v ? 0x7fffffffu : f32_bits(directed(v, how));
    default:
        return f64_bits(v);
    }
}

/* 64-bit integers have more digits than a double. */
static uint64_t int_to_float(uint64_t v, const struct ptx_op *o) {
    const bool is_signed = is_signed_type(o->from);
    if (o->type == PTX_F32 && o->mode == RN) return f32_bits(is_signed ? (float)(int64_t)v : (float)v);
    return from_double(is_signed ? (double)(int64_t)v : (double)v, o->type, o->mode, o->sat);
}

static uint64_t converted(uint64_t bits, const struct ptx_op *o) {
    const bool from_float = is_float_type(o->from), to_float = is_float_type(o->type);
    if (!from_float) {
        const uint64_t v = extended(bits, o->from);
        return to_float ? int_to_float(v, o) : int_to_int(v, o);
    }
    double v = to_double(bits, o->from);
    if (o->ftz && o->from == PTX_F32 && fabs(v) < 0x1p-126) v = copysign(0, v);
    return to_float ? from_double(v, o->type, o->mode, o->sat) : float_to_int(v, o);
}

static enum flow cvt(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    EACH_LANE(l, mask) {
        const uint64_t v = converted(lane_value(w, &o->src[0], (int)l), o);
        set_lane(w, &o->dst[0], (int)l, is_float_type(o->type) ? v : extended(v, o->type));
    }
    return FLOW_NEXT;
}

static enum flow widen_s32(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    const uint32_t *pa = P(uint32_t, 0);
    uint64_t *d = D(uint64_t);
    LANES(d[l] = (uint64_t)(int64_t)(int32_t)pa[l]);
}
static enum flow widen_u32(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    const uint32_t *pa = P(uint32_t, 0);
    uint64_t *d = D(uint64_t);
    LANES(d[l] = pa[l]);
}
static enum flow narrow_64(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    const uint64_t *pa = P(uint64_t, 0);
    uint32_t *d = D(uint32_t);
    LANES(d[l] = (uint32_t)pa[l]);
}
static enum flow s32_to_f32(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    const uint32_t *pa = P(uint32_t, 0);
    uint32_t *d = D(uint32_t);
    LANES(d[l] = f32_bits((float)(int32_t)pa[l]));
}

/* d = {a, b}, a above. */
static enum flow cvt_pair(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    const uint32_t *pa = P(uint32_t, 0), *pb = P(uint32_t, 1);
    uint32_t *d = D(uint32_t);
    const bool relu = o->n;
    EACH_LANE(l, mask) {
        float a = as_f32(pa[l]), b = as_f32(pb[l]);
        if (relu) a = a < 0 ? 0 : a, b = b < 0 ? 0 : b;
        const uint16_t high = o->type == PTX_BF16X2 ? to_bf16(a, o->mode) : to_f16(a, o->mode);
        const uint16_t low = o->type == PTX_BF16X2 ? to_bf16(b, o->mode) : to_f16(b, o->mode);
        d[l] = (uint32_t)high << 16 | low;
    }
    return FLOW_NEXT;
}

static run_fn *plain_form(const struct ptx_op *o) {
    const bool from32 = o->from == PTX_U32 || o->from == PTX_S32 || o->from == PTX_B32;
    const bool to64 = o->type == PTX_U64 || o->type == PTX_S64 || o->type == PTX_B64;
    const bool from64 = o->from == PTX_U64 || o->from == PTX_S64 || o->from == PTX_B64;
    if (o->sat || o->ftz) return cvt;
    if (from32 && to64) return o->from == PTX_S32 ? widen_s32 : widen_u32;
    if (from64 && (o->type == PTX_U32 || o->type == PTX_S32 || o->type == PTX_B32)) return narrow_64;
    if (o->from == PTX_S32 && o->type == PTX_F32 && o->mode == RN) return s32_to_f32;
    return cvt;
}

static bool build_cvt(struct build *b) {
    struct ptx_op *o = b->o;
    if (o->from == PTX_NONE) return false;
    o->mode = NO_ROUNDING;
    for (int i = 0; i < NO_ROUNDING; i++)
        if (has_mod(b, rounding_names[i])) o->mode = i;
    if (has_mod(b, "rna") || has_mod(b, "rs") || has_mod(b, "satfinite")) return false;
    if (o->type == PTX_BF16X2 || o->type == PTX_F16X2) {
        o->n = has_mod(b, "relu");
        o->run = cvt_pair;
        return o->from == PTX_F32 && take_dst(b, 0, false) && take_src(b, 1, false) && take_src(b, 2, false);
    }
    if (has_mod(b, "relu")) return false;
    /* registers may be wider than the types */
    const bool wide_dst = b->arg[0].ref.wide || is_wide(o->type), wide_src = b->arg[1].ref.wide || is_wide(o->from);
    o->run = wide_dst == is_wide(o->type) && wide_src == is_wide(o->from) ? plain_form(o) : cvt;
    return take_dst(b, 0, wide_dst) && take_src(b, 1, wide_src);
}

const struct opcode cvt_opcodes[] = {
    {"cvt", build_cvt, EMU_CLASS_FLOAT},
    {NULL,  NULL,      0              },
};
