/* Integer, logic, comparison and move operations. Semantics: PTX ISA, "Integer Arithmetic Instructions",
 * "Comparison and Selection", "Logic and Shift", "Data Movement: mov". */
#include <string.h>

#include "half.h"
#include "lanes.h"

#pragma GCC diagnostic ignored "-Wtype-limits" /* signed and unsigned types share an expression */

/* ---- arithmetic ---- */

#define U128(x) ((unsigned __int128)(x))
#define S128(x) ((__int128)(x))
/* Overflow wraps: sums and products are taken unsigned. */
INTEGERS(add, 2, (uint64_t)a + (uint64_t)b)
INTEGERS(sub, 2, (uint64_t)a - (uint64_t)b)
INTEGERS(mul_lo, 2, (uint64_t)a *(uint64_t)b)
INTEGERS(mad_lo, 3, (uint64_t)a *(uint64_t)b + (uint64_t)c)
INTEGERS(min, 2, a < b ? a : b)
INTEGERS(max, 2, a > b ? a : b)
INTEGERS(neg, 1, 0 - (uint64_t)a)
INTEGERS(abs, 1, a < 0 ? 0 - (uint64_t)a : (uint64_t)a)
/* Division by zero gives all ones, as the hardware's sequences do. */
INTEGERS(div, 2, b == 0 ? (uint64_t)-1 : (uint64_t)b == (uint64_t)-1 && a < 0 ? 0 - (uint64_t)a : (uint64_t)(a / b))
INTEGERS(rem, 2, b == 0 ? (uint64_t)a : (uint64_t)b == (uint64_t)-1 && a < 0 ? 0 : (uint64_t)(a % b))

DEFINE_2(mul_hi_u16, uint32_t, uint16_t, uint16_t, (uint32_t)a *b >> 16)
DEFINE_2(mul_hi_s16, uint32_t, int16_t, uint16_t, (int32_t)a *b >> 16)
DEFINE_2(mul_hi_u32, uint32_t, uint32_t, uint32_t, (uint64_t)a *b >> 32)
DEFINE_2(mul_hi_s32, uint32_t, int32_t, int32_t, (int64_t)a *b >> 32)
DEFINE_2(mul_hi_u64, uint64_t, uint64_t, uint64_t, U128(a) * b >> 64)
DEFINE_2(mul_hi_s64, uint64_t, int64_t, int64_t, S128(a) * b >> 64)
INTEGER_TABLE(mul_hi)
DEFINE_3(mad_hi_u16, uint32_t, uint16_t, uint16_t, ((uint32_t)a * b >> 16) + c)
DEFINE_3(mad_hi_s16, uint32_t, int16_t, uint16_t, ((int32_t)a * b >> 16) + c)
DEFINE_3(mad_hi_u32, uint32_t, uint32_t, uint32_t, ((uint64_t)a * b >> 32) + c)
DEFINE_3(mad_hi_s32, uint32_t, int32_t, uint32_t, (uint64_t)((int64_t)a *b >> 32) + (uint64_t)c)
DEFINE_3(mad_hi_u64, uint64_t, uint64_t, uint64_t, (uint64_t)(U128(a) * b >> 64) + c)
DEFINE_3(mad_hi_s64, uint64_t, int64_t, uint64_t, (uint64_t)(S128(a) * b >> 64) + (uint64_t)c)
INTEGER_TABLE(mad_hi)
DEFINE_WIDE_2(mul_wide_u16, uint32_t, uint16_t, uint32_t, (uint32_t)a *b)
DEFINE_WIDE_2(mul_wide_s16, uint32_t, int16_t, uint32_t, (int32_t)a *b)
DEFINE_WIDE_2(mul_wide_u32, uint32_t, uint32_t, uint64_t, (uint64_t)a *b)
DEFINE_WIDE_2(mul_wide_s32, uint32_t, int32_t, uint64_t, (int64_t)a *b)
DEFINE_WIDE_3(mad_wide_u16, uint32_t, uint16_t, uint32_t, (uint32_t)a *b + c)
DEFINE_WIDE_3(mad_wide_s16, uint32_t, int16_t, uint32_t, (uint32_t)((int32_t)a *b) + c)
DEFINE_WIDE_3(mad_wide_u32, uint32_t, uint32_t, uint64_t, (uint64_t)a *b + c)
DEFINE_WIDE_3(mad_wide_s32, uint32_t, int32_t, uint64_t, (uint64_t)((int64_t)a *b) + c)

static run_fn *wide_product(enum ptx_type t, bool add) {
    switch (t) {
    case PTX_U16:
        return add ? mad_wide_u16 : mul_wide_u16;
    case PTX_S16:
        return add ? mad_wide_s16 : mul_wide_s16;
    case PTX_U32:
        return add ? mad_wide_u32 : mul_wide_u32;
    case PTX_S32:
        return add ? mad_wide_s32 : mul_wide_s32;
    default:
        return NULL;
    }
}

/* Float forms of the same names are rows of exec_float.c, which these builders hand over to. */
bool build_float(struct build *b, const char *name);
static bool is_float(enum ptx_type t) {
    return t == PTX_F32 || t == PTX_F64 || t == PTX_F16 || t == PTX_BF16 || t == PTX_F16X2 || t == PTX_BF16X2;
}

static bool operands(struct build *b, int32_t n, run_fn *run) {
    const bool wide = is_wide(b->o->type);
    b->o->run = run;
    if (run == NULL || !take_dst(b, 0, wide)) return false;
    for (int32_t i = 1; i <= n; i++)
        if (!take_src(b, i, wide)) return false;
    return true;
}

#define BUILD_2(name, n)                                                                                               \
    static bool build_##name(struct build *b) {                                                                        \
        if (is_float(b->o->type)) return build_float(b, #name);                                                        \
        if (b->o->type > PTX_PRED || b->o->type == PTX_PRED || b->o->sat) return false;                                \
        return operands(b, n, name##_by_type[b->o->type]);                                                             \
    }
BUILD_2(min, 2)
BUILD_2(max, 2)
BUILD_2(neg, 1)
BUILD_2(abs, 1)
BUILD_2(div, 2)
BUILD_2(rem, 2)

/* Carry: add.cc leaves one, addc takes it; 32 bits. */
static enum flow add_carry(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    const uint32_t *pa = P(uint32_t, 0), *pb = P(uint32_t, 1);
    uint32_t *d = D(uint32_t), *cc = w->reg + PTX_CC * 32;
    const bool subtract = o->mode & 1, takes = o->mode & 2, leaves = o->mode & 4;
    LANES(const uint64_t carry = takes ? cc[l] : subtract; const uint64_t b = subtract ? ~pb[l] : pb[l];
          const uint64_t sum = (uint64_t)pa[l] + b + carry; if (leaves) cc[l] = (uint32_t)(sum >> 32);
          d[l] = (uint32_t)sum);
}

static bool build_carry(struct build *b, int32_t mode) {
    b->o->mode = mode | (has_mod(b, "cc") ? 4 : 0);
    if (is_wide(b->o->type)) return build_fail(b, "carry is known for 32 bits only");
    return operands(b, 2, add_carry);
}

static enum flow add_sat(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    const uint32_t *pa = P(uint32_t, 0), *pb = P(uint32_t, 1);
    uint32_t *d = D(uint32_t);
    const int64_t sign = o->mode ? -1 : 1;
    LANES(int64_t v = (int64_t)(int32_t)pa[l] + sign * (int32_t)pb[l]; if (v > INT32_MAX) v = INT32_MAX;
          if (v < INT32_MIN) v = INT32_MIN; d[l] = (uint32_t)v);
}

static bool build_add(struct build *b) {
    if (is_float(b->o->type)) return build_float(b, "add");
    if (has_mod(b, "cc")) return build_carry(b, 0);
    if (b->o->sat) return b->o->type == PTX_S32 && operands(b, 2, add_sat);
    return operands(b, 2, add_by_type[b->o->type]);
}
static bool build_sub(struct build *b) {
    if (is_float(b->o->type)) return build_float(b, "sub");
    if (has_mod(b, "cc")) return build_carry(b, 1);
    b->o->mode = 1;
    if (b->o->sat) return b->o->type == PTX_S32 && operands(b, 2, add_sat);
    return operands(b, 2, sub_by_type[b->o->type]);
}
static bool build_addc(struct build *b) {
    return build_carry(b, 2);
}
static bool build_subc(struct build *b) {
    return build_carry(b, 3);
}

static bool build_product(struct build *b, bool add) {
    const enum ptx_type t = b->o->type;
    const int32_t n = add ? 3 : 2;
    if (has_mod(b, "cc")) return false;
    if (has_mod(b, "wide")) {
        const bool to_wide = t == PTX_U32 || t == PTX_S32;
        b->o->run = wide_product(t, add);
        return b->o->run != NULL && take_dst(b, 0, to_wide) && take_src(b, 1, false) && take_src(b, 2, false) &&
               (!add || take_src(b, 3, to_wide));
    }
    if (has_mod(b, "hi")) return operands(b, n, add ? mad_hi_by_type[t] : mul_hi_by_type[t]);
    return operands(b, n, add ? mad_lo_by_type[t] : mul_lo_by_type[t]);
}
static bool build_mul(struct build *b) {
    return is_float(b->o->type) ? build_float(b, "mul") : build_product(b, false);
}
static bool build_mad(struct build *b) {
    return is_float(b->o->type) ? build_float(b, "fma") : build_product(b, true);
}

/* ---- logic ---- */

INTEGERS(and, 2, a &b)
INTEGERS(or, 2, a | b)
INTEGERS(xor, 2, a ^ b)
INTEGERS(not, 1, ~a)
DEFINE_1(not_pred, uint32_t, uint32_t, uint32_t, !a)

#define BUILD_LOGIC(name, n)                                                                                           \
    static bool build_##name(struct build *b) {                                                                        \
        return operands(b, n, b->o->type == PTX_PRED ? name##_u32 : name##_by_type[b->o->type]);                       \
    }
BUILD_LOGIC(and, 2)
BUILD_LOGIC(or, 2)
BUILD_LOGIC(xor, 2)
static bool build_not(struct build *b) {
    return operands(b, 1, b->o->type == PTX_PRED ? not_pred : not_by_type[b->o->type]);
}
DEFINE_1(cnot_32, uint32_t, uint32_t, uint32_t, a == 0)
static bool build_cnot(struct build *b) {
    return operands(b, 1, is_wide(b->o->type) ? NULL : cnot_32);
}

/* Amounts beyond the width act as the width. */
DEFINE_SHIFT(shl_16, uint32_t, uint16_t, uint16_t, b > 15 ? 0 : (uint32_t)a << b)
DEFINE_SHIFT(shl_32, uint32_t, uint32_t, uint32_t, b > 31 ? 0 : a << b)
DEFINE_SHIFT(shl_64, uint64_t, uint64_t, uint64_t, b > 63 ? 0 : a << b)
DEFINE_SHIFT(shr_u16, uint32_t, uint16_t, uint16_t, b > 15 ? 0 : a >> b)
DEFINE_SHIFT(shr_s16, uint32_t, int16_t, uint16_t, a >> (b > 15 ? 15 : b))
DEFINE_SHIFT(shr_u32, uint32_t, uint32_t, uint32_t, b > 31 ? 0 : a >> b)
DEFINE_SHIFT(shr_s32, uint32_t, int32_t, int32_t, a >> (b > 31 ? 31 : b))
DEFINE_SHIFT(shr_u64, uint64_t, uint64_t, uint64_t, b > 63 ? 0 : a >> b)
DEFINE_SHIFT(shr_s64, uint64_t, int64_t, int64_t, a >> (b > 63 ? 63 : b))
INTEGER_TABLE(shr)

static bool shift_operands(struct build *b, run_fn *run) {
    const bool wide = is_wide(b->o->type);
    b->o->run = run;
    return run != NULL && take_dst(b, 0, wide) && take_src(b, 1, wide) && take_src(b, 2, false);
}
static bool build_shl(struct build *b) {
    const int32_t bytes = type_bytes(b->o->type);
    return shift_operands(b, bytes == 2 ? shl_16 : bytes == 4 ? shl_32 : bytes == 8 ? shl_64 : NULL);
}
static bool build_shr(struct build *b) {
    return shift_operands(b, shr_by_type[b->o->type]);
}

static enum flow shf(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    const uint32_t *pa = P(uint32_t, 0), *pb = P(uint32_t, 1), *pc = P(uint32_t, 2);
    uint32_t *d = D(uint32_t);
    const bool left = o->mode & 1, wrap = o->mode & 2;
    LANES(const uint32_t n = wrap         ? pc[l] & 31
                             : pc[l] > 32 ? 32
                                          : pc[l];
          const uint64_t both = (uint64_t)pb[l] << 32 | pa[l]; d[l] = (uint32_t)(left ? both << n >> 32 : both >> n));
}
static bool build_shf(struct build *b) {
    b->o->mode = (has_mod(b, "l") ? 1 : 0) | (has_mod(b, "wrap") ? 2 : 0);
    return operands(b, 3, shf);
}

static enum flow lop3(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    const uint32_t *pa = P(uint32_t, 0), *pb = P(uint32_t, 1), *pc = P(uint32_t, 2);
    uint32_t *d = D(uint32_t);
    const uint32_t f = (uint32_t)o->immediate;
    LANES(uint32_t v = 0; for (uint32_t i = 0; i < 8; i++) if (f >> i & 1) v |=
                          (i & 4 ? pa[l] : ~pa[l]) & (i & 2 ? pb[l] : ~pb[l]) & (i & 1 ? pc[l] : ~pc[l]);
          d[l] = v);
}
static bool build_lop3(struct build *b) {
    if (b->n_arg != 5 || !b->arg[4].is_constant || b->n_mod != 1) return false;
    b->o->immediate = (int64_t)b->arg[4].value;
    b->n_taken = 5;
    return operands(b, 3, lop3);
}

static uint32_t permute(uint32_t a, uint32_t b, uint32_t selector, int32_t mode) {
    static const char *const by_mode[] = {"3210432154326543",
                                          "5670670170120123"}; /* f4e, b4e: bytes of selector 0..3 */
    const uint64_t bytes = (uint64_t)b << 32 | a;
    uint32_t v = 0;
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t s = selector >> (4 * i) & 15;
        const uint32_t k = selector & 3;
        if (mode == 1 || mode == 2) s = (uint32_t)(by_mode[mode - 1][4 * k + 3 - i] - '0');
        if (mode == 3) s = k;                            /* rc8 */
        if (mode == 4) s = i > k ? i : k;                /* ecl */
        if (mode == 5) s = i < k ? i : k;                /* ecr */
        if (mode == 6) s = 2 * (selector & 1) + (i & 1); /* rc16 */
        uint32_t byte = (uint32_t)(bytes >> (8 * (s & 7))) & 255;
        if (s & 8) byte = byte & 128 ? 255 : 0;
        v |= byte << (8 * i);
    }
    return v;
}
static enum flow prmt(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    const uint32_t *pa = P(uint32_t, 0), *pb = P(uint32_t, 1), *pc = P(uint32_t, 2);
    uint32_t *d = D(uint32_t);
    LANES(d[l] = permute(pa[l], pb[l], pc[l], o->mode));
}
static bool build_prmt(struct build *b) {
    static const char *const modes[] = {"f4e", "b4e", "rc8", "ecl", "ecr", "rc16"};
    for (int i = 0; i < 6; i++)
        if (has_mod(b, modes[i])) b->o->mode = i + 1;
    return operands(b, 3, prmt);
}

/* ---- bits ---- */

DEFINE_1(popc_32, uint32_t, uint32_t, uint32_t, __builtin_popcount(a))
DEFINE_1(clz_32, uint32_t, uint32_t, uint32_t, a == 0 ? 32 : __builtin_clz(a))
static enum flow popc_64(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    const uint64_t *pa = P(uint64_t, 0);
    uint32_t *d = D(uint32_t);
    LANES(d[l] = (uint32_t)__builtin_popcountll(pa[l]));
}
static enum flow clz_64(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    const uint64_t *pa = P(uint64_t, 0);
    uint32_t *d = D(uint32_t);
    LANES(d[l] = pa[l] == 0 ? 64 : (uint32_t)__builtin_clzll(pa[l]));
}
static bool count_operands(struct build *b, run_fn *narrow, run_fn *wide) {
    const bool is = is_wide(b->o->type);
    b->o->run = is ? wide : narrow;
    return take_dst(b, 0, false) && take_src(b, 1, is);
}
static bool build_popc(struct build *b) {
    return count_operands(b, popc_32, popc_64);
}
static bool build_clz(struct build *b) {
    return count_operands(b, clz_32, clz_64);
}

static uint64_t reversed(uint64_t v, int bits) {
    uint64_t r = 0;
    for (int i = 0; i < bits; i++) r |= (v >> i & 1) << (bits - 1 - i);
    return r;
}
DEFINE_1(brev_32, uint32_t, uint32_t, uint32_t, reversed(a, 32))
DEFINE_1(brev_64, uint64_t, uint64_t, uint64_t, reversed(a, 64))
static bool build_brev(struct build *b) {
    return operands(b, 1, is_wide(b->o->type) ? brev_64 : brev_32);
}

static uint32_t find_bit(uint64_t v, int bits, bool is_signed, bool shift) {
    if (is_signed && v >> (bits - 1) & 1) v = ~v & (bits == 64 ? UINT64_MAX : UINT32_MAX);
    if (v == 0) return UINT32_MAX;
    const uint32_t at = 63 - (uint32_t)__builtin_clzll(v);
    return shift ? (uint32_t)bits - 1 - at : at;
}
static enum flow bfind(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    uint32_t *d = D(uint32_t);
    const bool is_signed = o->type == PTX_S32 || o->type == PTX_S64;
    const int bits = type_bytes(o->type) * 8;
    LANES(d[l] = find_bit(lane_value(w, &o->src[0], (int)l), bits, is_signed, o->mode));
}
static bool build_bfind(struct build *b) {
    b->o->mode = has_mod(b, "shiftamt");
    return count_operands(b, bfind, bfind);
}

static uint64_t extract(uint64_t a, uint32_t pos, uint32_t len, int bits, bool is_signed) {
    pos &= 255;
    len &= 255;
    const uint32_t top = pos + len - 1 < (uint32_t)bits - 1 ? pos + len - 1 : (uint32_t)bits - 1;
    const bool sign = is_signed && len > 0 && (a >> top & 1);
    uint64_t v = 0;
    for (int i = 0; i < bits; i++) {
        const bool inside = (uint32_t)i < len && pos + (uint32_t)i < (uint32_t)bits;
        v |= (uint64_t)(inside ? a >> (pos + (uint32_t)i) & 1 : sign) << i;
    }
    return v;
}
static enum flow bfe(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    const uint32_t *pb = P(uint32_t, 1), *pc = P(uint32_t, 2);
    const bool is_signed = o->type == PTX_S32 || o->type == PTX_S64;
    const int bits = type_bytes(o->type) * 8;
    LANES(set_lane(w, &o->dst[0], (int)l, extract(lane_value(w, &o->src[0], (int)l), pb[l], pc[l], bits, is_signed)));
}
static bool build_bfe(struct build *b) {
    const bool wide = is_wide(b->o->type);
    b->o->run = bfe;
    return take_dst(b, 0, wide) && take_src(b, 1, wide) && take_src(b, 2, false) && take_src(b, 3, false);
}
static enum flow bfi(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    const uint32_t *pc = P(uint32_t, 2), *pd = P(uint32_t, 3);
    const uint32_t bits = (uint32_t)type_bytes(o->type) * 8;
    LANES(const uint64_t a = lane_value(w, &o->src[0], (int)l); uint64_t v = lane_value(w, &o->src[1], (int)l);
          const uint32_t pos = pc[l] & 255; const uint32_t len = pd[l] & 255;
          for (uint32_t i = 0; i < len && pos + i < bits; i++) v =
              (v & ~((uint64_t)1 << (pos + i))) | (i < bits ? a >> i & 1 : 0) << (pos + i);
          set_lane(w, &o->dst[0], (int)l, v));
}
static bool build_bfi(struct build *b) {
    const bool wide = is_wide(b->o->type);
    b->o->run = bfi;
    return take_dst(b, 0, wide) && take_src(b, 1, wide) && take_src(b, 2, wide) && take_src(b, 3, false) &&
           take_src(b, 4, false);
}

/* Ones from bit a, b of them; clamp: all of a and b counts, wrap: their low 5 bits do. PTX ISA, "bmsk". */
static enum flow bmsk(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    const uint32_t *pa = P(uint32_t, 0), *pb = P(uint32_t, 1), all = o->mode ? 31 : UINT32_MAX;
    uint32_t *d = D(uint32_t);
    LANES(const uint64_t a = pa[l] & all; const uint64_t b = pb[l] & all; const uint64_t end = a + b < 32 ? a + b : 32;
          d[l] = a < end ? (uint32_t)(((uint64_t)1 << end) - ((uint64_t)1 << a)) : 0);
}
static bool build_bmsk(struct build *b) {
    b->o->run = bmsk;
    b->o->mode = has_mod(b, "wrap");
    return take_dst(b, 0, false) && take_src(b, 1, false) && take_src(b, 2, false);
}

static enum flow dp4a(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    const uint32_t *pa = P(uint32_t, 0), *pb = P(uint32_t, 1), *pc = P(uint32_t, 2);
    uint32_t *d = D(uint32_t);
    const bool sa = o->type == PTX_S32, sb = o->from == PTX_S32 || (o->from == PTX_NONE && sa);
    LANES(uint32_t sum = pc[l]; for (int i = 0; i < 4; i++) {
        const uint8_t x = (uint8_t)(pa[l] >> (8 * i)), y = (uint8_t)(pb[l] >> (8 * i));
        sum += (uint32_t)((sa ? (int8_t)x : x) * (sb ? (int8_t)y : y));
    } d[l] = sum);
}
static bool build_dp4a(struct build *b) {
    return operands(b, 3, dp4a);
}

/* ---- comparisons ---- */

enum compare { EQ, NE, LT, LE, GT, GE, EQU, NEU, LTU, LEU, GTU, GEU, NUM, NAN_ANY, N_COMPARE };
static const char *const compare_names[] = {"eq",  "ne",  "lt",  "le",  "gt",  "ge",  "equ",
                                            "neu", "ltu", "leu", "gtu", "geu", "num", "nan"};
static const char *const unsigned_names[] = {"lo", "ls", "hi", "hs"};

static int32_t compare_named(const struct build *b) {
    static const int32_t as[] = {LT, LE, GT, GE};
    for (int i = 0; i < N_COMPARE; i++)
        if (has_mod(b, compare_names[i])) return i;
    for (int i = 0; i < 4; i++)
        if (has_mod(b, unsigned_names[i])) return as[i];
    return -1;
}

#define COMPARE(op)                                                                                                    \
    if (mask == UINT32_MAX)                                                                                            \
        for (int l = 0; l < 32; l++) r[l] = VALUE(pa[l]) op VALUE(pb[l]);                                              \
    else                                                                                                               \
        EACH_LANE(l, mask) r[l] = VALUE(pa[l]) op VALUE(pb[l]);                                                        \
    break
#define COMPARE_ALL(name, U)                                                                                           \
    static void name(const struct warp *w, const struct ptx_op *o, uint32_t mask, uint32_t r[32]) {                    \
        const U *pa = P(U, 0), *pb = P(U, 1);                                                                          \
        switch (o->mode) {                                                                                             \
        case EQ:                                                                                                       \
            COMPARE(==);                                                                                               \
        case NE:                                                                                                       \
            COMPARE(!=);                                                                                               \
        case LT:                                                                                                       \
            COMPARE(<);                                                                                                \
        case LE:                                                                                                       \
            COMPARE(<=);                                                                                               \
        case GT:                                                                                                       \
            COMPARE(>);                                                                                                \
        case GE:                                                                                                       \
            COMPARE(>=);                                                                                               \
        default:                                                                                                       \
            break;                                                                                                     \
        }                                                                                                              \
    }
#define VALUE(x) ((uint16_t)(x))
COMPARE_ALL(compare_u16, uint32_t)
#undef VALUE
#define VALUE(x) ((int16_t)(x))
COMPARE_ALL(compare_s16, uint32_t)
#undef VALUE
#define VALUE(x) (x)
COMPARE_ALL(compare_u32, uint32_t)
COMPARE_ALL(compare_u64, uint64_t)
#undef VALUE
#define VALUE(x) ((int32_t)(x))
COMPARE_ALL(compare_s32, uint32_t)
#undef VALUE
#define VALUE(x) ((int64_t)(x))
COMPARE_ALL(compare_s64, uint64_t)
#undef VALUE

static bool compare_floats(double a, double b, int32_t mode) {
    const bool unordered = a != a || b != b;
    switch (mode) {
    case EQ:
        return a == b;
    case NE:
        return !unordered && a != b;
    case LT:
        return a < b;
    case LE:
        return a <= b;
    case GT:
        return a > b;
    case GE:
        return a >= b;
    case EQU:
        return unordered || a == b;
    case NEU:
        return unordered || a != b;
    case LTU:
        return unordered || a < b;
    case LEU:
        return unordered || a <= b;
    case GTU:
        return unordered || a > b;
    case GEU:
        return unordered || a >= b;
    case NUM:
        return !unordered;
    default:
        return unordered;
    }
}

static double float_value(uint64_t bits, enum ptx_type t, bool ftz) {
    if (t == PTX_F64) return as_f64(bits);
    if (t == PTX_BF16) return (double)as_f32((uint32_t)bits << 16);
    if (t == PTX_F16) return (double)half_from_f16((uint16_t)bits);
    const float f = as_f32((uint32_t)bits);
    return ftz && __builtin_fabsf(f) < 0x1p-126f ? 0.0 : (double)f;
}

static void compare_lanes(const struct warp *w, const struct ptx_op *o, uint32_t mask, uint32_t r[32]) {
    const enum ptx_type t = o->type;
    if (t == PTX_F32 || t == PTX_F64 || t == PTX_BF16 || t == PTX_F16) {
        EACH_LANE(l, mask)
        r[l] = compare_floats(float_value(lane_value(w, &o->src[0], (int)l), t, o->ftz),
                              float_value(lane_value(w, &o->src[1], (int)l), t, o->ftz), o->mode);
        return;
    }
    switch (t) {
    case PTX_U16:
    case PTX_B16:
        compare_u16(w, o, mask, r);
        break;
    case PTX_S16:
        compare_s16(w, o, mask, r);
        break;
    case PTX_U32:
    case PTX_B32:
        compare_u32(w, o, mask, r);
        break;
    case PTX_S32:
        compare_s32(w, o, mask, r);
        break;
    case PTX_U64:
    case PTX_B64:
        compare_u64(w, o, mask, r);
        break;
    default:
        compare_s64(w, o, mask, r);
        break;
    }
}

/* setp.CMP{.and|.or|.xor} p{|q}, a, b{, {!}c}: n is 0, or 1 and, 2 or, 3 xor. */
static uint32_t joined(uint32_t v, uint32_t c, int32_t how) {
    return how == 1 ? v & c : how == 2 ? v | c : v ^ c;
}
static enum flow setp(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    uint32_t r[32];
    compare_lanes(w, o, mask, r);
    uint32_t *p = to32(w, &o->dst[0]);
    if (o->n == 0 && o->n_dst == 1) {
        LANES(p[l] = r[l]);
    }
    const uint32_t *pc = o->n ? P(uint32_t, 2) : NULL;
    LANES(const uint32_t c = pc ? pc[l] ^ o->not_src : 0;
          if (!o->dst[0].none) p[l] = o->n ? joined(r[l], c, o->n) : r[l];
          if (o->n_dst > 1 && !o->dst[1].none) to32(w, &o->dst[1])[l] = o->n ? joined(!r[l], c, o->n) : !r[l]);
}
static bool build_setp(struct build *b) {
    struct ptx_op *o = b->o;
    const bool wide = is_wide(o->type);
    o->mode = compare_named(b);
    o->n = has_mod(b, "and") ? 1 : has_mod(b, "or") ? 2 : has_mod(b, "xor") ? 3 : 0;
    o->run = setp;
    if (o->mode < 0 || o->type == PTX_F16X2 || o->type == PTX_BF16X2) return false;
    if (!take_dst(b, 0, false) || !take_src(b, 1, wide) || !take_src(b, 2, wide)) return false;
    if (b->arg[0].has_pair) o->dst[o->n_dst++] = b->arg[0].pair;
    if (o->n == 0) return true;
    o->not_src = b->arg[3].negated;
    return take_src(b, 3, false);
}

/* set.CMP.dtype.stype: 1.0 or all ones. */
static enum flow set(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    struct ptx_op as = *o;
    uint32_t r[32], *d = D(uint32_t);
    as.type = o->from;
    compare_lanes(w, &as, mask, r);
    const uint32_t yes = o->type == PTX_F32 ? 0x3f800000u : UINT32_MAX;
    LANES(d[l] = r[l] ? yes : 0);
}
static bool build_set(struct build *b) {
    const bool wide = is_wide(b->o->from);
    b->o->mode = compare_named(b);
    b->o->run = set;
    if (b->o->mode < 0 || b->o->from == PTX_NONE || has_mod(b, "and") || has_mod(b, "or")) return false;
    return take_dst(b, 0, false) && take_src(b, 1, wide) && take_src(b, 2, wide);
}

static enum flow selp_32(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    const uint32_t *pa = P(uint32_t, 0), *pb = P(uint32_t, 1), *pc = P(uint32_t, 2);
    uint32_t *d = D(uint32_t);
    LANES(d[l] = pc[l] ? pa[l] : pb[l]);
}
static enum flow selp_64(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    const uint64_t *pa = P(uint64_t, 0), *pb = P(uint64_t, 1);
    const uint32_t *pc = P(uint32_t, 2);
    uint64_t *d = D(uint64_t);
    LANES(d[l] = pc[l] ? pa[l] : pb[l]);
}
static bool build_selp(struct build *b) {
    const bool wide = is_wide(b->o->type);
    b->o->run = wide ? selp_64 : selp_32;
    return take_dst(b, 0, wide) && take_src(b, 1, wide) && take_src(b, 2, wide) && take_src(b, 3, false);
}

/* ---- moves ---- */

DEFINE_1(mov_32, uint32_t, uint32_t, uint32_t, a)
DEFINE_1(mov_64, uint64_t, uint64_t, uint64_t, a)

/* A register of n parts: into, or out of, a vector of registers. */
static enum flow pack(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    const int bits = o->n;
    EACH_LANE(l, mask) {
        uint64_t v = 0;
        for (int32_t i = 0; i < o->n_src; i++) {
            const uint64_t part = lane_value(w, &o->src[i], (int)l);
            v |= (bits == 64 ? part : part & (((uint64_t)1 << bits) - 1)) << (i * bits);
        }
        set_lane(w, &o->dst[0], (int)l, v);
    }
    return FLOW_NEXT;
}
static enum flow unpack(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    const int bits = o->n;
    EACH_LANE(l, mask) {
        const uint64_t v = lane_value(w, &o->src[0], (int)l);
        for (int32_t i = 0; i < o->n_dst; i++)
            set_lane(w, &o->dst[i], (int)l, v >> (i * bits) & (((uint64_t)1 << bits) - 1));
    }
    return FLOW_NEXT;
}
static bool take_parts(struct build *b, const struct arg *a, bool as_dst) {
    struct ptx_op *o = b->o;
    const int32_t bits = type_bytes(o->type) * 8 / (a->n_vec > 0 ? a->n_vec : 1);
    o->n = bits;
    if (a->n_vec < 2 || a->n_vec > 8) return false;
    for (int32_t i = 0; i < a->n_vec; i++) {
        const struct arg *part = &a->vec[i];
        if (as_dst)
            o->dst[o->n_dst++] = part->ref;
        else
            o->src[o->n_src++] = part->is_constant ? constant_ref(b->code, part->value, false) : part->ref;
        if (part->kind != ARG_REF || (as_dst && part->is_constant)) return false;
    }
    return true;
}
static bool build_mov(struct build *b) {
    const bool wide = is_wide(b->o->type);
    if (b->n_arg != 2 || b->o->type == PTX_B128) return false;
    if (b->arg[1].kind == ARG_VEC) {
        b->o->run = pack;
        return take_dst(b, 0, wide) && take_parts(b, &b->arg[1], false);
    }
    if (b->arg[0].kind == ARG_VEC) {
        b->o->run = unpack;
        return take_src(b, 1, wide) && take_parts(b, &b->arg[0], true);
    }
    b->o->copies = true;
    return operands(b, 1, wide ? mov_64 : mov_32);
}

const struct opcode alu_opcodes[] = {
    {"add",   build_add,   EMU_CLASS_ALU},
    {"sub",   build_sub,   EMU_CLASS_ALU},
    {"addc",  build_addc,  EMU_CLASS_ALU},
    {"subc",  build_subc,  EMU_CLASS_ALU},
    {"mul",   build_mul,   EMU_CLASS_ALU},
    {"mad",   build_mad,   EMU_CLASS_ALU},
    {"div",   build_div,   EMU_CLASS_ALU},
    {"rem",   build_rem,   EMU_CLASS_ALU},
    {"min",   build_min,   EMU_CLASS_ALU},
    {"max",   build_max,   EMU_CLASS_ALU},
    {"neg",   build_neg,   EMU_CLASS_ALU},
    {"abs",   build_abs,   EMU_CLASS_ALU},
    {"and",   build_and,   EMU_CLASS_ALU},
    {"or",    build_or,    EMU_CLASS_ALU},
    {"xor",   build_xor,   EMU_CLASS_ALU},
    {"not",   build_not,   EMU_CLASS_ALU},
    {"cnot",  build_cnot,  EMU_CLASS_ALU},
    {"shl",   build_shl,   EMU_CLASS_ALU},
    {"shr",   build_shr,   EMU_CLASS_ALU},
    {"shf",   build_shf,   EMU_CLASS_ALU},
    {"lop3",  build_lop3,  EMU_CLASS_ALU},
    {"prmt",  build_prmt,  EMU_CLASS_ALU},
    {"popc",  build_popc,  EMU_CLASS_ALU},
    {"clz",   build_clz,   EMU_CLASS_ALU},
    {"brev",  build_brev,  EMU_CLASS_ALU},
    {"bfind", build_bfind, EMU_CLASS_ALU},
    {"bfe",   build_bfe,   EMU_CLASS_ALU},
    {"bfi",   build_bfi,   EMU_CLASS_ALU},
    {"bmsk",  build_bmsk,  EMU_CLASS_ALU},
    {"dp4a",  build_dp4a,  EMU_CLASS_ALU},
    {"setp",  build_setp,  EMU_CLASS_ALU},
    {"set",   build_set,   EMU_CLASS_ALU},
    {"selp",  build_selp,  EMU_CLASS_ALU},
    {"mov",   build_mov,   EMU_CLASS_ALU},
    {NULL,    NULL,        0            },
};
