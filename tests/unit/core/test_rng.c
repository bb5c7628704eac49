/* Philox4x32-10 against the known answers of Random123 (kat_vectors), and the float conversion. */
#include "rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void known_answers(void **state) {
    (void)state;
    static const struct {
        uint64_t seed, stream, index;
        uint32_t want[4];
    } rows[] = {
        {0,                  0,                  0,                  {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {UINT64_MAX,         UINT64_MAX,         UINT64_MAX,         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88, {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint32_t out[4];
        nt_philox(rows[i].seed, rows[i].stream, rows[i].index, out);
        for (int j = 0; j < 4; j++) assert_int_equal(out[j], rows[i].want[j]);
    }
}

static void streams_and_indices_differ(void **state) {
    (void)state;
    uint32_t a[4], b[4], c[4], again[4];
    nt_philox(1, 2, 3, a);
    nt_philox(1, 3, 2, b);
    nt_philox(2, 2, 3, c);
    nt_philox(1, 2, 3, again);
    assert_memory_equal(a, again, sizeof a);
    assert_memory_not_equal(a, b, sizeof a);
    assert_memory_not_equal(a, c, sizeof a);
}

static void unit_float_is_open(void **state) {
    (void)state;
    assert_true(nt_unit_float(0) > 0.0f);
    assert_true(nt_unit_float(UINT32_MAX) < 1.0f);
    assert_true(nt_unit_float(0x7fffffff) < nt_unit_float(0x80000000) || nt_unit_float(0x7fffffff) == 0.5f);
    double sum = 0;
    for (uint64_t i = 0; i < 4096; i++) {
        uint32_t w[4];
        nt_philox(7, 0, i, w);
        for (int j = 0; j < 4; j++) sum += nt_unit_float(w[j]);
    }
    assert_true(sum / 16384 > 0.49 && sum / 16384 < 0.51); /* 4.4 standard deviations; the numbers never change */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answers),
        cmocka_unit_test(streams_and_indices_differ),
        cmocka_unit_test(unit_float_is_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
