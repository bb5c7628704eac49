/* The polynomials of cpu_math.h against libm in double, over their whole ranges, and their exact points. */
#include "cpu_math.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static void test_exp2(void **state) {
    double worst = 0;
    (void)state;
    for (double x = -126; x <= 0; x += 0.00031) {
        const float f = (float)x;
        const double want = exp2((double)f), e = fabs(nt_exp2_neg(f) - want) / want;
        if (e > worst) worst = e;
    }
    assert_true(worst < 2.0e-7);
}

static void test_exp2_points(void **state) {
    (void)state;
    assert_true(nt_exp2_neg(0.0f) == 1.0f); /* a page without visible keys must leave the state alone */
    assert_true(nt_exp2_neg(-1.0f) == 0.5f);
    assert_true(nt_exp2_neg(-126.0f) == 0x1p-126f);
    assert_true(nt_exp2_neg(-126.5f) == 0.0f);
    assert_true(nt_exp2_neg(-INFINITY) == 0.0f);
    assert_true(isnan(nt_exp2_neg(NAN)));
}

static void check_log(float x, double *worst) {
    const double want = log((double)x), e = fabs(nt_log_pos(x) - want);
    if (want != 0 && e / fabs(want) > *worst) *worst = e / fabs(want);
}

static void test_log(void **state) {
    double worst = 0;
    (void)state;
    for (double x = 0x1p-126; x < 0x1p127; x *= 1.00037) check_log((float)x, &worst);
    /* next to 1, where the Gumbel noise has its tail */
    for (int i = 1; i < 4096; i++) {
        check_log(1.0f - (float)i * 0x1p-24f, &worst);
        check_log(1.0f + (float)i * 0x1p-23f, &worst);
    }
    assert_true(worst < 2.0e-7);
    assert_true(nt_log_pos(1.0f) == 0.0f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exp2),
        cmocka_unit_test(test_exp2_points),
        cmocka_unit_test(test_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
