#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "rope_table.h"
#include <math.h>
#include <string.h>

/* Expected frequencies: ROPE_INIT_FUNCTIONS of transformers 5.19 (float32 arithmetic) on these settings. */
struct point {
    int32_t j;
    double inv_freq;
};

static void check(const struct nt_spec *spec, double scale, const struct point *points, int n) {
    double inv[NT_MAX_D_HEAD / 2];
    assert_true(fabs(nt_rope_inv_freq(spec, NULL, inv) - scale) < 1e-12);
    for (int i = 0; i < n; i++) {
        const double rel = fabs(inv[points[i].j] / points[i].inv_freq - 1);
        if (!(rel < 2e-6))
            print_error("j %d: %.9g, expected %.9g\n", points[i].j, inv[points[i].j], points[i].inv_freq);
        assert_true(rel < 2e-6);
    }
}

#define CHECK(spec, scale, ...)                                                                                        \
    do {                                                                                                               \
        const struct point points_[] = {__VA_ARGS__};                                                                  \
        check(spec, scale, points_, sizeof points_ / sizeof *points_);                                                 \
    } while (0)

static void test_llama3(void **state) {
    (void)state;
    struct nt_spec s = {.d_head = 128}; /* Llama-3.1-8B */
    s.rope.theta = 500000;
    s.rope.scaling = NT_ROPE_LLAMA3;
    s.rope.factor = 8;
    s.rope.low_freq_factor = 1;
    s.rope.high_freq_factor = 4;
    s.rope.original_max_len = 8192;
    CHECK(&s, 1, {0, 1.0}, {1, 0.8146172165870667}, {20, 0.016560440883040428}, {29, 0.0021665706299245358},
          {30, 0.0013718936825171113}, {32, 0.0005248460220173001}, {35, 9.556212171446532e-05},
          {36, 7.784655463183299e-05}, {40, 3.428102354519069e-05}, {63, 3.068925877869333e-07});
}

static void test_yarn(void **state) {
    (void)state;
    struct nt_spec s = {.d_head = 128}; /* Qwen2.5-7B as its card says */
    s.rope.theta = 1e6;
    s.rope.scaling = NT_ROPE_YARN;
    s.rope.factor = 4;
    s.rope.original_max_len = 32768;
    s.rope.beta_fast = 32;
    s.rope.beta_slow = 1;
    s.rope.attention_factor = 0.1 * log(4) + 1;
    assert_true(fabs(s.rope.attention_factor - 1.138629436111989) < 1e-12);
    CHECK(&s, s.rope.attention_factor, {0, 1.0}, {1, 0.8058422207832336}, {22, 0.00865964312106371},
          {23, 0.006978305988013744}, {24, 0.005375321488827467}, {30, 0.0010643609566614032},
          {38, 9.262301318813115e-05}, {39, 6.490394298452884e-05}, {40, 4.4456985051510856e-05},
          {41, 3.582531644497067e-05}, {63, 3.102344408034696e-07});
}

static void test_yarn_untruncated(void **state) {
    (void)state;
    struct nt_spec s = {.d_head = 128};
    s.rope.theta = 1e4;
    s.rope.scaling = NT_ROPE_YARN;
    s.rope.factor = 16;
    s.rope.original_max_len = 4096;
    s.rope.beta_fast = 16;
    s.rope.beta_slow = 2;
    s.rope.no_truncate = true;
    s.rope.attention_factor = 1.25;
    CHECK(&s, 1.25, {0, 1.0}, {10, 0.23713736236095428}, {20, 0.05623412877321243}, {30, 0.009667566977441311},
          {40, 0.0002408111176919192}, {63, 7.217387064883951e-06});
}

static void test_linear_and_factors(void **state) {
    (void)state;
    struct nt_spec s = {.d_head = 128};
    s.rope.theta = 1e4;
    s.rope.scaling = NT_ROPE_LINEAR;
    s.rope.factor = 2;
    CHECK(&s, 1, {0, 0.5}, {1, 0.4329821765422821}, {63, 5.773909651907161e-05});
    float factors[64];
    for (int j = 0; j < 64; j++) factors[j] = (float)(j + 1);
    double inv[64], plain[64];
    s.rope.scaling = NT_ROPE_NONE;
    (void)nt_rope_inv_freq(&s, NULL, plain);
    s.rope.scaling = NT_ROPE_FREQ_FACTORS;
    (void)nt_rope_inv_freq(&s, factors, inv);
    for (int j = 0; j < 64; j++) assert_true(inv[j] == plain[j] / (j + 1));
}

/* The divisors of llama3 scaling, stored as floats in a GGUF file, give the same bits. */
static void test_llama3_equals_factors(void **state) {
    (void)state;
    struct nt_spec s = {.d_head = 64};
    s.rope.theta = 500000;
    s.rope.scaling = NT_ROPE_NONE;
    double plain[32], scaled[32], again[32];
    float factors[32];
    (void)nt_rope_inv_freq(&s, NULL, plain);
    s.rope.scaling = NT_ROPE_LLAMA3;
    s.rope.factor = 32;
    s.rope.low_freq_factor = 1;
    s.rope.high_freq_factor = 4;
    s.rope.original_max_len = 8192;
    (void)nt_rope_inv_freq(&s, NULL, scaled);
    for (int j = 0; j < 32; j++) factors[j] = (float)(plain[j] / scaled[j]);
    s.rope.scaling = NT_ROPE_FREQ_FACTORS;
    (void)nt_rope_inv_freq(&s, factors, again);
    assert_memory_equal(scaled, again, sizeof scaled);
}

static void test_fill(void **state) {
    (void)state;
    const double inv[3] = {1, 0.1, 0.001};
    float c[8 * 3], s[8 * 3], c2[8 * 3], s2[8 * 3];
    nt_rope_fill(inv, 1.5, 3, 0, 8, c, s);
    nt_rope_fill(inv, 1.5, 3, 0, 3, c2, s2);
    nt_rope_fill(inv, 1.5, 3, 3, 8, c2, s2);
    assert_memory_equal(c, c2, sizeof c);
    assert_memory_equal(s, s2, sizeof s);
    for (int p = 0; p < 8; p++)
        for (int j = 0; j < 3; j++) {
            assert_true(c[p * 3 + j] == (float)(cos(p * inv[j]) * 1.5));
            assert_true(s[p * 3 + j] == (float)(sin(p * inv[j]) * 1.5));
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_llama3),
        cmocka_unit_test(test_yarn),
        cmocka_unit_test(test_yarn_untruncated),
        cmocka_unit_test(test_linear_and_factors),
        cmocka_unit_test(test_llama3_equals_factors),
        cmocka_unit_test(test_fill),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
