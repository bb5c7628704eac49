#include "cpu_isa.h"
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum feature {
    FEATURE_AVX2,
    FEATURE_FMA,
    FEATURE_F16C,
    FEATURE_BMI2,
    FEATURE_AVX512F,
    FEATURE_AVX512BW,
    FEATURE_AVX512DQ,
    FEATURE_AVX512VL,
    FEATURE_AVX512_BF16,
    FEATURE_AVX512_VNNI,
    FEATURE_COUNT
};

#if defined __x86_64__
#include <cpuid.h>

enum reg { EAX, EBX, ECX, EDX };

/* Where each feature bit is (Intel SDM volume 2, CPUID). state: the XCR0 bits the operating system must have set. */
enum { STATE_AVX = 0x06, STATE_AVX512 = 0xe6 };
static const struct {
    const char *name;
    uint32_t leaf, subleaf;
    enum reg reg;
    int bit;
    uint32_t state;
} features[] = {
    [FEATURE_AVX2] = {"avx2",        7, 0, EBX, 5,  STATE_AVX   },
    [FEATURE_FMA] = {"fma",         1, 0, ECX, 12, STATE_AVX   },
    [FEATURE_F16C] = {"f16c",        1, 0, ECX, 29, STATE_AVX   },
    [FEATURE_BMI2] = {"bmi2",        7, 0, EBX, 8,  0           },
    [FEATURE_AVX512F] = {"avx512f",     7, 0, EBX, 16, STATE_AVX512},
    [FEATURE_AVX512BW] = {"avx512bw",    7, 0, EBX, 30, STATE_AVX512},
    [FEATURE_AVX512DQ] = {"avx512dq",    7, 0, EBX, 17, STATE_AVX512},
    [FEATURE_AVX512VL] = {"avx512vl",    7, 0, EBX, 31, STATE_AVX512},
    [FEATURE_AVX512_BF16] = {"avx512_bf16", 7, 1, EAX, 5,  STATE_AVX512},
    [FEATURE_AVX512_VNNI] = {"avx512_vnni", 7, 0, ECX, 11, STATE_AVX512},
};
_Static_assert(sizeof features / sizeof features[0] == FEATURE_COUNT, "one row per feature");

static uint32_t saved_state(void) {
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & (1u << 27))) return 0; /* OSXSAVE */
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

static bool has(enum feature f) {
    uint32_t r[4];
    if (!__get_cpuid_count(features[f].leaf, features[f].subleaf, &r[EAX], &r[EBX], &r[ECX], &r[EDX])) return false;
    return (r[features[f].reg] >> features[f].bit & 1) && (saved_state() & features[f].state) == features[f].state;
}

static const char *feature_name(enum feature f) {
    return features[f].name;
}

static void model_name(char out[49]) {
    uint32_t r[12] = {0};
    for (uint32_t i = 0; i < 3; i++)
        if (!__get_cpuid(0x80000002u + i, &r[4 * i], &r[4 * i + 1], &r[4 * i + 2], &r[4 * i + 3])) break;
    memcpy(out, r, 48);
    out[48] = 0;
}
#else
static bool has(enum feature f) {
    return (void)f, false;
}
static const char *feature_name(enum feature f) {
    return (void)f, "x86";
}
static void model_name(char out[49]) {
    snprintf(out, 49, "not x86");
}
#endif

/* The features a level adds to the one below it are the half-open range up to its end. */
static const struct {
    const char *name;
    int n_features;
} levels[] = {
    [NT_ISA_PORTABLE] = {"portable", 0              },
    [NT_ISA_AVX2] = {"avx2",     FEATURE_AVX512F},
    [NT_ISA_AVX512] = {"avx512",   FEATURE_COUNT  },
};
_Static_assert(sizeof levels / sizeof levels[0] == NT_ISA_COUNT, "one row per level");

const char *nt_isa_name(enum nt_isa isa) {
    return levels[isa].name;
}

enum nt_isa nt_isa_detect(void) {
    int have = 0;
    while (have < FEATURE_COUNT && has((enum feature)have)) have++;
    enum nt_isa best = NT_ISA_PORTABLE;
    for (int i = 0; i < NT_ISA_COUNT; i++)
        if (levels[i].n_features <= have) best = (enum nt_isa)i;
    return best;
}

static nt_status missing_features(enum nt_isa isa) {
    char list[160] = "";
    size_t used = 0;
    for (int f = 0; f < levels[isa].n_features; f++) {
        if (has((enum feature)f)) continue;
        const int n = snprintf(list + used, sizeof list - used, " %s", feature_name((enum feature)f));
        if (n < 0 || (size_t)n >= sizeof list - used) break;
        used += (size_t)n;
    }
    return NT_FAIL(NT_E_UNSUPPORTED,
                   "isa \"%s\" needs CPU features this machine lacks:%s; set isa to \"auto\" or \"%s\"",
                   nt_isa_name(isa), list, nt_isa_name(nt_isa_detect()));
}

nt_status nt_isa_choose(const char *name, enum nt_isa *out) {
    const enum nt_isa best = nt_isa_detect();
    if (strcmp(name, "auto") == 0) {
        *out = best;
        return NT_OK;
    }
    for (int i = 0; i < NT_ISA_COUNT; i++) {
        if (strcmp(name, levels[i].name) != 0) continue;
        if ((enum nt_isa)i > best) return missing_features((enum nt_isa)i);
        *out = (enum nt_isa)i;
        return NT_OK;
    }
    return NT_FAIL(NT_E_CONFIG, "isa \"%s\" is not known; expected auto, portable, avx2 or avx512", name);
}

void nt_cpu_describe(char *buf, size_t cap) {
    char model[49];
    model_name(model);
    const char *start = model + strspn(model, " ");
    size_t used = 0;
    int n = snprintf(buf, cap, "%s;", *start ? start : "unknown model");
    for (int f = 0; n >= 0 && (used += (size_t)n) < cap && f < FEATURE_COUNT; f++)
        n = has((enum feature)f) ? snprintf(buf + used, cap - used, " %s", feature_name((enum feature)f)) : 0;
}
