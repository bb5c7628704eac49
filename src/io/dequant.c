#include "dequant.h"
#include "status.h"
#include <string.h>

static uint32_t bits_of(float x) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static float float_of(uint32_t u) {
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

uint16_t nt_bf16_from_f32(float x) {
    const uint32_t u = bits_of(x);
    const uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    const uint32_t nan = (u >> 16) | 64u; // rounding up could carry a NaN into infinity
    return (uint16_t)((u & 0x7fffffffu) > 0x7f800000u ? nan : rounded);
}

float nt_f32_from_bf16(uint16_t b) {
    return float_of((uint32_t)b << 16);
}

float nt_f32_from_f16(uint16_t h) {
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    const uint32_t rest = (uint32_t)(h & 0x7fffu) << 13;
    // Exact for normal and subnormal halves: the exponent bias differs by 112.
    const uint32_t scaled = bits_of(float_of(rest) * 0x1p112f);
    return float_of(sign | (rest >= 0x0f800000u ? rest | 0x7f800000u : scaled));
}

void nt_bf16_from_f32_n(const float *src, int64_t n, uint16_t *dst) {
    for (int64_t i = 0; i < n; i++) dst[i] = nt_bf16_from_f32(src[i]);
}

uint16_t nt_f16_from_f32(float x) {
    const uint32_t u = bits_of(x);
    const uint32_t sign = u >> 16 & 0x8000u, mag = u & 0x7fffffffu;
    if (mag > 0x7f800000u) return (uint16_t)(sign | 0x7e00u);
    if (mag >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* rounds to 2^16 or more */
    if (mag < 0x33000001u) return (uint16_t)sign;              /* at most half of the smallest subnormal */
    const int e = (int)(mag >> 23) - 127;
    const uint32_t m = (mag & 0x7fffffu) | 0x800000u;
    const int drop = e >= -14 ? 13 : -1 - e; /* bits below the last place; subnormals have one fixed place, 2^-24 */
    uint32_t q = m >> drop;
    const uint32_t rest = m & ((1u << drop) - 1), half = 1u << (drop - 1);
    q += rest > half || (rest == half && (q & 1));
    /* normal: q has the hidden bit, which adds one to the exponent field; a carry out of q does the same */
    return (uint16_t)(sign | (e >= -14 ? ((uint32_t)(e + 14) << 10) + q : q));
}

static uint16_t u16_at(const uint8_t *p) {
    return (uint16_t)(p[0] | (p[1] << 8));
}
static uint32_t u32_at(const uint8_t *p) {
    return (uint32_t)u16_at(p) | ((uint32_t)u16_at(p + 2) << 16);
}
static float half_at(const uint8_t *p) {
    return nt_f32_from_f16(u16_at(p));
}
static int low(uint8_t b) {
    return b & 15;
}
static int high(uint8_t b) {
    return b >> 4;
}

static void dequantize_f32(const uint8_t *src, int64_t n, float *dst) {
    memcpy(dst, src, (size_t)n * 4);
}

static void dequantize_f16(const uint8_t *src, int64_t n, float *dst) {
    for (int64_t i = 0; i < n; i++) dst[i] = half_at(src + 2 * i);
}

static void dequantize_bf16(const uint8_t *src, int64_t n, float *dst) {
    for (int64_t i = 0; i < n; i++) dst[i] = nt_f32_from_bf16(u16_at(src + 2 * i));
}

static void dequantize_q8_0(const uint8_t *src, int64_t n, float *dst) {
    for (int64_t b = 0; b < n; b++, src += 34, dst += 32) { // d | q[32]
        const float d = half_at(src);
        for (int i = 0; i < 32; i++) dst[i] = d * (float)(int8_t)src[2 + i];
    }
}

static void dequantize_q4_0(const uint8_t *src, int64_t n, float *dst) {
    for (int64_t b = 0; b < n; b++, src += 18, dst += 32) { // d | nibbles[16]
        const float d = half_at(src);
        for (int i = 0; i < 16; i++) {
            dst[i] = d * (float)(low(src[2 + i]) - 8);
            dst[i + 16] = d * (float)(high(src[2 + i]) - 8);
        }
    }
}

static void dequantize_q4_1(const uint8_t *src, int64_t n, float *dst) {
    for (int64_t b = 0; b < n; b++, src += 20, dst += 32) { // d | m | nibbles[16]
        const float d = half_at(src), m = half_at(src + 2);
        for (int i = 0; i < 16; i++) {
            dst[i] = d * (float)low(src[4 + i]) + m;
            dst[i + 16] = d * (float)high(src[4 + i]) + m;
        }
    }
}

static void dequantize_q5_0(const uint8_t *src, int64_t n, float *dst) {
    for (int64_t b = 0; b < n; b++, src += 22, dst += 32) { // d | fifth bits u32 | nibbles[16]
        const float d = half_at(src);
        const uint32_t fifth = u32_at(src + 2);
        for (int i = 0; i < 16; i++) {
            dst[i] = d * (float)((low(src[6 + i]) | (int)((fifth >> i) & 1u) << 4) - 16);
            dst[i + 16] = d * (float)((high(src[6 + i]) | (int)((fifth >> (i + 16)) & 1u) << 4) - 16);
        }
    }
}

static void dequantize_q5_1(const uint8_t *src, int64_t n, float *dst) {
    for (int64_t b = 0; b < n; b++, src += 24, dst += 32) { // d | m | fifth bits u32 | nibbles[16]
        const float d = half_at(src), m = half_at(src + 2);
        const uint32_t fifth = u32_at(src + 4);
        for (int i = 0; i < 16; i++) {
            dst[i] = d * (float)(low(src[8 + i]) | (int)((fifth >> i) & 1u) << 4) + m;
            dst[i + 16] = d * (float)(high(src[8 + i]) | (int)((fifth >> (i + 16)) & 1u) << 4) + m;
        }
    }
}

/* Six-bit scale and minimum of sub-block k (0..7) from the 12 packed bytes of Q4_K and Q5_K. */
static void scale_min_k4(const uint8_t *p, int k, int *scale, int *min) {
    if (k < 4) {
        *scale = p[k] & 63;
        *min = p[k + 4] & 63;
    } else {
        *scale = (p[k + 4] & 15) | (p[k - 4] >> 6) << 4;
        *min = (p[k + 4] >> 4) | (p[k] >> 6) << 4;
    }
}

static void dequantize_q4_k(const uint8_t *src, int64_t n, float *dst) {
    for (int64_t b = 0; b < n; b++, src += 144, dst += 256) { // d | dmin | scales[12] | nibbles[128]
        const float d = half_at(src), dmin = half_at(src + 2);
        for (int k = 0; k < 8; k++) {
            int scale, min;
            scale_min_k4(src + 4, k, &scale, &min);
            const float ds = d * (float)scale, dm = dmin * (float)min;
            const uint8_t *q = src + 16 + 32 * (k / 2); // pairs of sub-blocks share bytes: low nibbles, then high
            const int shift = 4 * (k % 2);
            for (int i = 0; i < 32; i++) dst[32 * k + i] = ds * (float)((q[i] >> shift) & 15) - dm;
        }
    }
}

static void dequantize_q5_k(const uint8_t *src, int64_t n, float *dst) {
    for (int64_t b = 0; b < n; b++, src += 176, dst += 256) { // d | dmin | scales[12] | fifth bits[32] | nibbles[128]
        const float d = half_at(src), dmin = half_at(src + 2);
        const uint8_t *fifth = src + 16;
        for (int k = 0; k < 8; k++) {
            int scale, min;
            scale_min_k4(src + 4, k, &scale, &min);
            const float ds = d * (float)scale, dm = dmin * (float)min;
            const uint8_t *q = src + 48 + 32 * (k / 2);
            const int shift = 4 * (k % 2);
            for (int i = 0; i < 32; i++) {
                const int v = ((q[i] >> shift) & 15) | ((fifth[i] >> k) & 1) << 4;
                dst[32 * k + i] = ds * (float)v - dm;
            }
        }
    }
}

static void dequantize_q6_k(const uint8_t *src, int64_t n, float *dst) {
    for (int64_t b = 0; b < n; b++, src += 210, dst += 256) { // low nibbles[128] | high pairs[64] | scales i8[16] | d
        const float d = half_at(src + 208);
        for (int k = 0; k < 8; k++) { // runs of 32 elements; k / 4 is the half, k % 4 the quarter within it
            const uint8_t *lo = src + 64 * (k / 4) + 32 * (k % 2);
            const uint8_t *hi = src + 128 + 32 * (k / 4);
            const int shift = k % 4 < 2 ? 0 : 4;
            for (int i = 0; i < 32; i++) {
                const float ds = d * (float)(int8_t)src[192 + 2 * k + i / 16];
                const int v = ((lo[i] >> shift) & 15) | ((hi[i] >> 2 * (k % 4)) & 3) << 4;
                dst[32 * k + i] = ds * (float)(v - 32);
            }
        }
    }
}

static const struct nt_wdtype_info rows[] = {
#define X(id, ggml, st, n, bytes, fn) [NT_WDTYPE_##id] = {#id, (ggml), (st), (n), (bytes), (fn)},
    NT_WDTYPE_LIST(X)
#undef X
};
_Static_assert(sizeof rows / sizeof rows[0] == NT_WDTYPE_COUNT, "one row per type");

const struct nt_wdtype_info *nt_wdtype_info(enum nt_wdtype t) {
    NT_CHECK((int)t >= 0 && t < NT_WDTYPE_COUNT);
    return &rows[t];
}

enum nt_wdtype nt_wdtype_from_ggml(uint32_t id) {
    for (int t = 0; t < NT_WDTYPE_COUNT; t++) {
        if (rows[t].ggml_id >= 0 && (uint32_t)rows[t].ggml_id == id) return (enum nt_wdtype)t;
    }
    return NT_WDTYPE_COUNT;
}

enum nt_wdtype nt_wdtype_from_safetensors(const char *name, int64_t len) {
    if (len <= 0) return NT_WDTYPE_COUNT;
    for (int t = 0; t < NT_WDTYPE_COUNT; t++) {
        const char *s = rows[t].safetensors;
        if (strlen(s) == (size_t)len && memcmp(s, name, (size_t)len) == 0) return (enum nt_wdtype)t;
    }
    return NT_WDTYPE_COUNT;
}

void nt_wdtype_round(enum nt_wdtype t, const float *src, int64_t n, uint8_t *dst) {
    if (t == NT_WDTYPE_F32) {
        memcpy(dst, src, (size_t)n * sizeof *src);
        return;
    }
    NT_CHECK(t == NT_WDTYPE_F16 || t == NT_WDTYPE_BF16);
    for (int64_t i = 0; i < n; i++) {
        const uint16_t h = t == NT_WDTYPE_F16 ? nt_f16_from_f32(src[i]) : nt_bf16_from_f32(src[i]);
        memcpy(dst + 2 * i, &h, sizeof h);
    }
}

bool nt_wdtype_readable(enum nt_wdtype t) {
    return nt_wdtype_info(t)->dequantize != NULL;
}

int64_t nt_unpermute_qk_row(int64_t row, int32_t n_head, int32_t d_head) {
    NT_CHECK(d_head > 0 && d_head % 2 == 0 && row >= 0 && row / d_head < n_head);
    const int64_t i = row % d_head, half = d_head / 2;
    return row - i + (i < half ? 2 * i : 2 * (i - half) + 1);
}
