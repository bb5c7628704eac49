/* Dequantization against the gguf package's floats (tests/golden/dequant.bin), bit for bit, and the number formats. */
#include "dequant.h"
#include "fileio.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static uint32_t u32(const char **p) {
    uint32_t v;
    memcpy(&v, *p, 4);
    *p += 4;
    return v;
}

static enum nt_wdtype type_named(const char *name) {
    for (int t = 0; t < NT_WDTYPE_COUNT; t++) {
        if (strcmp(nt_wdtype_info((enum nt_wdtype)t)->name, name) == 0) return (enum nt_wdtype)t;
    }
    return NT_WDTYPE_COUNT;
}

static void test_golden(void **state) {
    (void)state;
    char *file = NULL;
    size_t len = 0;
    assert_int_equal(nt_file_read(NT_TEST_DIR "/golden/dequant.bin", 1 << 20, &file, &len), NT_OK);
    assert_memory_equal(file, "NTDQ", 4);
    const char *p = file + 4;
    const uint32_t n_types = u32(&p);
    int n_seen = 0;
    for (uint32_t i = 0; i < n_types; i++) {
        char name[9] = {0};
        memcpy(name, p, 8);
        p += 8;
        const uint32_t n_blocks = u32(&p), bytes = u32(&p), n_floats = u32(&p);
        const enum nt_wdtype t = type_named(name);
        assert_true(t != NT_WDTYPE_COUNT && nt_wdtype_readable(t));
        const struct nt_wdtype_info *w = nt_wdtype_info(t);
        assert_int_equal(n_blocks * (uint32_t)w->block_n, n_floats);
        assert_int_equal(n_blocks * (uint32_t)w->block_bytes, bytes);
        float *got = malloc(n_floats * sizeof *got);
        assert_non_null(got);
        w->dequantize((const uint8_t *)p, n_blocks, got);
        const char *want = p + bytes;
        for (uint32_t j = 0; j < n_floats; j++) {
            uint32_t a, b;
            memcpy(&a, &got[j], 4);
            memcpy(&b, want + 4 * (size_t)j, 4);
            if (a != b) fail_msg("%s element %u: %08x, expected %08x", name, j, a, b);
        }
        free(got);
        p = want + 4 * (size_t)n_floats;
        n_seen++;
    }
    assert_ptr_equal(p, file + len);
    int n_readable = 0;
    for (int t = 0; t < NT_WDTYPE_COUNT; t++) n_readable += nt_wdtype_readable((enum nt_wdtype)t);
    assert_int_equal(n_seen, n_readable); // no readable type without an oracle
    free(file);
}

/* Every float16, from its definition. */
static void test_f16_exhaustive(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        const int exponent = (int)(h >> 10) & 31;
        const double m = h & 1023, sign = h & 0x8000 ? -1.0 : 1.0;
        const double want = exponent == 31  ? (m != 0 ? (double)NAN : (double)INFINITY)
                            : exponent == 0 ? ldexp(m, -24)
                                            : ldexp(1024 + m, exponent - 25);
        const float got = nt_f32_from_f16((uint16_t)h);
        if (isnan(want)) {
            assert_true(isnan(got));
            continue;
        }
        assert_true((double)got == sign * want);
        assert_int_equal(signbit(got) != 0, h >> 15);
    }
}

static uint16_t rounded(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return nt_bf16_from_f32(x);
}

static void test_bf16_rounding(void **state) {
    (void)state;
    assert_int_equal(rounded(0x3f800000), 0x3f80);
    assert_int_equal(rounded(0x3f808000), 0x3f80); // tie to even, down
    assert_int_equal(rounded(0x3f818000), 0x3f82); // tie to even, up
    assert_int_equal(rounded(0x3f808001), 0x3f81);
    assert_int_equal(rounded(0x3f807fff), 0x3f80);
    assert_int_equal(rounded(0x80000000), 0x8000);
    assert_int_equal(rounded(0x00000001), 0x0000);
    assert_int_equal(rounded(0x7f7fffff), 0x7f80); // beyond the largest: infinity
    assert_int_equal(rounded(0xff800000), 0xff80);
    assert_int_equal(rounded(0x7fffffff) & 0x7fff, 0x7fff);
    assert_int_equal(rounded(0x7f800001), 0x7fc0); // a NaN that truncation would turn into infinity
    for (uint32_t b = 0; b < 65536; b++) {         // bfloat16 numbers are fixed points
        const float x = nt_f32_from_bf16((uint16_t)b);
        uint16_t back = 0;
        nt_bf16_from_f32_n(&x, 1, &back);
        if (!isnan(x))
            assert_int_equal(back, b);
        else
            assert_true(isnan(nt_f32_from_bf16(back)));
    }
}

static void test_lookup(void **state) {
    (void)state;
    assert_int_equal(nt_wdtype_from_ggml(30), NT_WDTYPE_BF16);
    assert_int_equal(nt_wdtype_from_ggml(14), NT_WDTYPE_Q6_K);
    assert_int_equal(nt_wdtype_from_ggml(4), NT_WDTYPE_COUNT);
    assert_int_equal(nt_wdtype_from_ggml(UINT32_MAX), NT_WDTYPE_COUNT);
    assert_int_equal(nt_wdtype_from_safetensors("BF16", 4), NT_WDTYPE_BF16);
    assert_int_equal(nt_wdtype_from_safetensors("BF16", 3), NT_WDTYPE_COUNT);
    assert_int_equal(nt_wdtype_from_safetensors("", 0), NT_WDTYPE_COUNT);
    assert_int_equal(nt_wdtype_from_safetensors("Q8_0", 4), NT_WDTYPE_COUNT);
    assert_false(nt_wdtype_readable(NT_WDTYPE_I64));
}

/* The writer's rule (llama.cpp's conversion): row 2j is the HF row j, row 2j+1 the HF row j + d_head/2. */
static void test_unpermute(void **state) {
    (void)state;
    const int32_t n_head = 3, d_head = 10;
    for (int32_t h = 0; h < n_head; h++) {
        for (int32_t j = 0; j < d_head / 2; j++) {
            assert_int_equal(nt_unpermute_qk_row(h * d_head + j, n_head, d_head), h * d_head + 2 * j);
            assert_int_equal(nt_unpermute_qk_row(h * d_head + j + d_head / 2, n_head, d_head), h * d_head + 2 * j + 1);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden), cmocka_unit_test(test_f16_exhaustive), cmocka_unit_test(test_bf16_rounding),
        cmocka_unit_test(test_lookup), cmocka_unit_test(test_unpermute),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
