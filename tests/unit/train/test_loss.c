/* Losses: every row's derivatives against differences of its loss, the values that its formula has at points where they
 * are known, and which members the added likelihood is of. What training makes of them: tests/golden/train. */
#include "loss.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static const struct nt_loss_settings plain = {.beta = 0.25};
static const struct nt_loss_in point = {
    .logp = {-3.5, -7.25},
    .reference = {-4,   -6.5 },
    .n_target = {3,    4.5  },
    .mean_target = 2.5,
    .desirable = true,
    .kl = 0.125
};

static struct nt_loss_out at(const struct nt_loss *l, const struct nt_loss_settings *s, const struct nt_loss_in *in) {
    struct nt_loss_out out;
    l->run(s, in, &out);
    return out;
}

static void check_derivatives(const struct nt_loss *l, const struct nt_loss_settings *s, const struct nt_loss_in *in) {
    const double step = 1e-5;
    const struct nt_loss_out out = at(l, s, in);
    for (int32_t i = 0; i < l->n_members; i++) {
        struct nt_loss_in above = *in, below = *in;
        above.logp[i] += step;
        below.logp[i] -= step;
        const double slope = (at(l, s, &above).loss - at(l, s, &below).loss) / (2 * step);
        assert_true(fabs(slope - out.d[i]) < 1e-7);
        assert_true(fabs(out.reward[i] - (l->reference ? s->beta * (in->logp[i] - in->reference[i]) : 0)) < 1e-12);
    }
}

static void test_derivatives(void **state) {
    (void)state;
    static const struct nt_loss_settings settings[] = {
        {.beta = 0.25},
        {            .beta = 2           },
        { .beta = 0.25,            .label_smoothing = 0.25},
        {            .beta = 0.25,            .sft_weight = 1.5}
    };
    for (int32_t i = 0; i < nt_loss_count; i++) {
        for (size_t s = 0; s < sizeof settings / sizeof *settings; s++) {
            struct nt_loss_in in = point;
            check_derivatives(&nt_losses[i], &settings[s], &in);
            in.desirable = false;
            in.logp[0] = -9;
            check_derivatives(&nt_losses[i], &settings[s], &in);
        }
    }
}

static double loss_at(const char *name, const char *type, double x0, double x1, const struct nt_loss_settings *s) {
    struct nt_loss_in in = point;
    in.logp[0] = in.reference[0] + x0;
    in.logp[1] = in.reference[1] + x1;
    return at(nt_loss_find(name, type), s, &in).loss;
}

static void test_known_values(void **state) {
    (void)state;
    const struct nt_loss_settings smooth = {.beta = 1, .label_smoothing = 0.25};
    assert_true(fabs(loss_at("sft", "", 1, 0, &plain) - 3) < 1e-12);
    assert_true(fabs(loss_at("dpo", "sigmoid", 2, 2, &plain) - log(2)) < 1e-12);
    assert_true(fabs(loss_at("dpo", "sigmoid", 4, 0, &plain) - log1p(exp(-1))) < 1e-12);
    assert_true(fabs(loss_at("dpo", "sigmoid", 1, 0, &smooth) - (log1p(exp(-1)) + 0.25)) < 1e-12);
    assert_true(fabs(loss_at("dpo", "ipo", 6, 0, &plain)) < 1e-12); /* 6 / 3 targets = 1 / (2 beta) */
    assert_true(fabs(loss_at("dpo", "ipo", 6, 4.5, &plain) - 1) < 1e-12);
    assert_true(fabs(loss_at("dpo", "hinge", 2, 2, &plain) - 1) < 1e-12);
    assert_true(loss_at("dpo", "hinge", 5, 0, &plain) == 0);
    assert_true(fabs(loss_at("kto", "", 0.125, 0, &plain) - 0.5) < 1e-12);
    assert_true(fabs(loss_at("kto", "", 4.125, 0, &plain) - 1 / (1 + exp(1))) < 1e-12);
    assert_null(nt_loss_find("dpo", "cosine"));
    assert_null(nt_loss_find("grpo", "sigmoid"));
}

/* Far from where exp has numbers, the loss and its derivatives are still some. */
static void test_extremes(void **state) {
    (void)state;
    for (int32_t i = 0; i < nt_loss_count; i++) {
        for (int k = 0; k < 2; k++) {
            struct nt_loss_in in = point;
            in.logp[k] = -1e6;
            const struct nt_loss_out out = at(&nt_losses[i], &plain, &in);
            assert_true(isfinite(out.loss) && isfinite(out.d[0]) && isfinite(out.d[1]));
        }
    }
}

/* sft_weight counts for what should be said: the chosen, the desirable. */
static void test_likelihood_of_chosen(void **state) {
    (void)state;
    const struct nt_loss_settings with = {.beta = 0.25, .sft_weight = 2};
    for (int32_t i = 0; i < nt_loss_count; i++) {
        const struct nt_loss *l = &nt_losses[i];
        for (int desirable = 0; desirable < 2; desirable++) {
            struct nt_loss_in in = point;
            in.desirable = desirable;
            const struct nt_loss_out a = at(l, &plain, &in), b = at(l, &with, &in);
            const bool counts = l->reference && (l->n_members == 2 || desirable);
            assert_true(fabs(b.loss - a.loss - (counts ? 2 * 3.5 / 2.5 : 0)) < 1e-12);
            assert_true(fabs(b.d[0] - a.d[0] + (counts ? 2 / 2.5 : 0)) < 1e-12);
            assert_true(b.d[1] == a.d[1]);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_derivatives),
        cmocka_unit_test(test_known_values),
        cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_likelihood_of_chosen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
