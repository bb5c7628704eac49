/* The sampler over one shard: rules, distribution, log-probabilities, batch independence. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "rng.h"
#include "sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ROWS = 8 };

struct fixture {
    struct nt_world world;
    struct nt_pool *pool;
    struct nt_backend be;
    struct nt_job_memory memory;
};

static int open_fixture(void **state) {
    struct fixture *f = calloc(1, sizeof *f);
    assert_int_equal(nt_world_open(&f->world), NT_OK);
    assert_int_equal(nt_world_split(&f->world, 1), NT_OK);
    assert_int_equal(nt_pool_new(&f->pool, 2, false, 0, 1), NT_OK);
    assert_int_equal(nt_backend_open_cpu(&f->be, nt_isa_detect(), f->pool), NT_OK);
    *state = f;
    return 0;
}

static int close_fixture(void **state) {
    struct fixture *f = *state;
    nt_backend_close(&f->be);
    nt_pool_free(f->pool);
    nt_world_close(&f->world);
    free(f);
    return 0;
}

static void *take(size_t n, size_t size) {
    void *p = aligned_alloc(64, (n * size + 63) / 64 * 64);
    assert_non_null(p);
    return p;
}

/* A sampler and its memory: one at a time. */
static void make(struct nt_sampler *s, struct fixture *f, int32_t n_vocab) {
    *s = (struct nt_sampler){.tp = f->world.tp,
                             .ld = (n_vocab + 15) / 16 * 16,
                             .max_rows = MAX_ROWS,
                             .n_local = n_vocab,
                             .n_head_rows = n_vocab,
                             .n_model_vocab = n_vocab,
                             .n_vocab = n_vocab};
    nt_job_memory_init(&f->memory, &f->be);
    assert_int_equal(nt_sampler_take(s, &f->memory), NT_OK);
    assert_int_equal(nt_job_memory_bind(&f->memory), NT_OK);
    assert_int_equal(nt_sampler_take(s, &f->memory), NT_OK);
}

static void drop(struct fixture *f) {
    nt_job_memory_release(&f->memory);
}

static struct nt_sampling defaults(void) {
    return (struct nt_sampling){.temperature = 1, .top_p = 1, .repetition_penalty = 1, .top_logprobs = -1, .n = 1};
}

static struct nt_sample_out one(struct nt_sampler *s, const float *logits, const struct nt_sample_in *in) {
    float *copy = take((size_t)s->ld, sizeof *copy);
    struct nt_sample_out out;
    memcpy(copy, logits, (size_t)s->n_vocab * sizeof *copy);
    assert_int_equal(nt_sampler_run(s, copy, in, &out, 1), NT_OK);
    free(copy);
    return out;
}

static const float ramp[] = {0.0f, 1.0f, 3.0f, 2.0f, 3.0f, -1.0f, 0.5f};
enum { N_RAMP = sizeof ramp / sizeof *ramp };

static double softmax(const float *x, int32_t n, int32_t i) {
    double sum = 0;
    for (int32_t k = 0; k < n; k++) sum += exp((double)x[k]);
    return exp((double)x[i]) / sum;
}

static void greedy_takes_the_lowest_of_equals(void **state) {
    struct nt_sampler s;
    make(&s, *state, N_RAMP);
    struct nt_sampling p = defaults();
    p.temperature = 0;
    assert_int_equal(one(&s, ramp, &(struct nt_sample_in){.params = &p}).token, 2);
    drop(*state);
}

static void logprobs_are_of_the_raw_logits(void **state) {
    struct nt_sampler s;
    make(&s, *state, N_RAMP);
    struct nt_sampling p = defaults();
    struct nt_logit_bias bias = {5, 50.0f};
    p.temperature = 0.5f;
    p.top_logprobs = 3;
    p.n_bias = 1;
    p.bias = &bias;
    const struct nt_sample_out out = one(&s, ramp, &(struct nt_sample_in){.params = &p});
    assert_int_equal(out.token, 5);
    assert_true(fabs((double)out.logprob - log(softmax(ramp, N_RAMP, 5))) < 1e-5);
    assert_int_equal(out.n_top, 3);
    const int32_t expected[] = {2, 4, 3};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(out.top_id[i], expected[i]);
        assert_true(fabs((double)out.top_lp[i] - log(softmax(ramp, N_RAMP, expected[i]))) < 1e-5);
    }
    drop(*state);
}

/* 20,000 draws against the softmax: every frequency within five standard deviations. Seeds are fixed, so is the
 * outcome. */
static void check_distribution(struct fixture *f, struct nt_sampling p, const double *expected) {
    enum { DRAWS = 20000 };
    struct nt_sampler s;
    int count[N_RAMP] = {0};
    make(&s, f, N_RAMP);
    for (uint64_t i = 0; i < DRAWS; i++)
        count[one(&s, ramp, &(struct nt_sample_in){.params = &p, .seed = 7, .stream = i}).token]++;
    for (int i = 0; i < N_RAMP; i++) {
        const double sigma = sqrt(DRAWS * expected[i] * (1 - expected[i]));
        assert_true(fabs(count[i] - DRAWS * expected[i]) <= 5 * sigma);
        if (expected[i] == 0) assert_int_equal(count[i], 0);
    }
    drop(f);
}

static void draws_follow_the_softmax(void **state) {
    double expected[N_RAMP];
    for (int i = 0; i < N_RAMP; i++) expected[i] = softmax(ramp, N_RAMP, i);
    check_distribution(*state, defaults(), expected);
}

static void temperature_divides(void **state) {
    float hot[N_RAMP];
    double expected[N_RAMP];
    struct nt_sampling p = defaults();
    p.temperature = 2;
    for (int i = 0; i < N_RAMP; i++) hot[i] = ramp[i] / 2;
    for (int i = 0; i < N_RAMP; i++) expected[i] = softmax(hot, N_RAMP, i);
    check_distribution(*state, p, expected);
}

/* keep: which tokens survive; the others get probability 0 and the rest is renormalised. */
static void check_kept(struct fixture *f, struct nt_sampling p, const char *keep) {
    double expected[N_RAMP], sum = 0;
    for (int i = 0; i < N_RAMP; i++) sum += keep[i] == '1' ? softmax(ramp, N_RAMP, i) : 0;
    for (int i = 0; i < N_RAMP; i++) expected[i] = keep[i] == '1' ? softmax(ramp, N_RAMP, i) / sum : 0;
    check_distribution(f, p, expected);
}

static void truncations_keep_what_they_say(void **state) {
    struct nt_sampling p = defaults();
    p.top_k = 3;
    check_kept(*state, p, "0011100");
    p.top_k = 2; /* two equal logits: the lower ids first */
    check_kept(*state, p, "0010100");
    p = defaults();
    p.top_p = 0.5f; /* 0.37 + 0.37 reach it */
    check_kept(*state, p, "0010100");
    p.top_p = 0.9f;
    check_kept(*state, p, "0111100");
    p = defaults();
    p.min_p = 0.3f; /* exp(-1) = 0.37 stays, exp(-2) goes */
    check_kept(*state, p, "0011100");
    p = defaults();
    p.top_k = 3;
    p.top_p = 0.7f; /* of the three: 0.42 + 0.42 */
    check_kept(*state, p, "0010100");
}

static void penalties_follow_their_formulas(void **state) {
    struct nt_penalty seen = {0};
    struct nt_sampling p = defaults();
    struct nt_sampler s;
    make(&s, *state, N_RAMP);
    p.temperature = 0;
    p.top_logprobs = 0;
    p.repetition_penalty = 2;
    p.presence_penalty = 0.5f;
    p.frequency_penalty = 0.25f;
    nt_penalty_see(&seen, 2, 0);
    nt_penalty_see(&seen, 5, 1);
    nt_penalty_see(&seen, 5, 1);
    nt_penalty_see(&seen, 100, 1); /* another shard's token */
    _Alignas(64) float x[16] = {0};
    struct nt_sample_out out;
    memcpy(x, ramp, sizeof ramp);
    assert_int_equal(nt_sampler_run(&s, x, &(struct nt_sample_in){.params = &p, .penalty = &seen}, &out, 1), NT_OK);
    assert_true(x[2] == 1.5f);
    assert_true(x[5] == -2.0f - 0.5f - 0.5f);
    assert_true(x[0] == ramp[0] && x[4] == ramp[4]);
    assert_int_equal(out.token, 4);
    assert_true(fabs((double)out.logprob - log(softmax(ramp, N_RAMP, 4))) < 1e-5); /* of the raw logits */
    nt_penalty_release(&seen);
    drop(*state);
}

static void masked_tokens_never_come(void **state) {
    struct nt_sampler s;
    make(&s, *state, N_RAMP);
    struct nt_sampling p = defaults();
    const int32_t masked[] = {2, 4};
    p.temperature = 0;
    assert_int_equal(one(&s, ramp, &(struct nt_sample_in){.params = &p, .masked = masked, .n_masked = 2}).token, 3);
    drop(*state);
}

/* A flat distribution over 5,000 tokens with top-p 0.9 keeps 4,500: far beyond the batched candidates. */
static void long_tails_are_followed(void **state) {
    enum { N = 5000 };
    struct nt_sampler s;
    make(&s, *state, N);
    float *flat = take(N, sizeof *flat);
    for (int i = 0; i < N; i++) flat[i] = 1e-4f * (float)(N - i);
    struct nt_sampling p = defaults();
    p.top_p = 0.9f;
    int32_t largest = 0;
    for (uint64_t i = 0; i < 400; i++) {
        const int32_t token = one(&s, flat, &(struct nt_sample_in){.params = &p, .seed = 3, .stream = i}).token;
        assert_in_range(token, 0, N - 1);
        largest = token > largest ? token : largest;
    }
    double sum = 0, mass = 0;
    int32_t keep = 0;
    for (int i = 0; i < N; i++) sum += exp((double)flat[i]);
    while (mass < 0.9 * sum) mass += exp((double)flat[keep++]);
    assert_in_range(largest, keep * 9 / 10, keep);
    free(flat);
    drop(*state);
}

static void rows_do_not_see_each_other(void **state) {
    enum { N = 700 };
    struct nt_sampler s;
    make(&s, *state, N);
    float *logits = take((size_t)MAX_ROWS * (size_t)s.ld, sizeof *logits),
          *copy = take((size_t)MAX_ROWS * (size_t)s.ld, sizeof *copy);
    struct nt_sampling p[MAX_ROWS];
    struct nt_sample_in in[MAX_ROWS];
    struct nt_sample_out out[MAX_ROWS];
    for (int r = 0; r < MAX_ROWS; r++) {
        p[r] = defaults();
        p[r].temperature = r % 3 == 0 ? 0 : 0.7f;
        p[r].top_k = r % 4 == 1 ? 40 : 0;
        p[r].top_p = r % 4 == 2 ? 0.8f : 1;
        p[r].top_logprobs = r % 2 ? r : -1;
        in[r] = (struct nt_sample_in){.params = &p[r], .seed = (uint64_t)r, .stream = 11};
        for (int v = 0; v < N; v++) {
            uint32_t w[4];
            nt_philox(5, (uint64_t)r, (uint64_t)v, w);
            logits[r * s.ld + v] = 8 * nt_unit_float(w[0]);
        }
    }
    memcpy(copy, logits, (size_t)MAX_ROWS * (size_t)s.ld * sizeof *copy);
    assert_int_equal(nt_sampler_run(&s, copy, in, out, MAX_ROWS), NT_OK);
    for (int r = 0; r < MAX_ROWS; r++) {
        const struct nt_sample_out alone = one(&s, logits + r * s.ld, &in[r]);
        assert_int_equal(alone.token, out[r].token);
        if (p[r].top_logprobs < 0) continue;
        assert_memory_equal(&alone.logprob, &out[r].logprob, sizeof alone.logprob);
        assert_int_equal(alone.n_top, out[r].n_top);
        assert_memory_equal(alone.top_lp, out[r].top_lp, (size_t)alone.n_top * sizeof *alone.top_lp);
    }
    free(logits);
    free(copy);
    drop(*state);
}

/* The last two columns are padding rows of the head: they count in the sum, but are never chosen nor listed. */
static void padding_counts_but_never_comes(void **state) {
    static const float padded[] = {0.0f, 1.0f, 3.0f, 2.0f, 1.0f, 9.0f, 8.0f};
    struct nt_sampler s;
    make(&s, *state, N_RAMP);
    s.n_local = s.n_vocab = N_RAMP - 2;
    struct nt_sampling p = defaults();
    p.top_logprobs = 7;
    for (int sampled = 0; sampled < 3; sampled++) {
        p.temperature = sampled ? 1 : 0;
        p.top_k = sampled == 2 ? 6 : 0;
        float *copy = take((size_t)s.ld, sizeof *copy);
        memcpy(copy, padded, sizeof padded);
        struct nt_sample_out out;
        assert_int_equal(nt_sampler_run(&s, copy, &(struct nt_sample_in){.params = &p, .seed = 3}, &out, 1), NT_OK);
        free(copy);
        assert_false(out.failed);
        assert_in_range(out.token, 0, N_RAMP - 3);
        assert_int_equal(out.n_top, N_RAMP - 2);
        for (int i = 0; i < out.n_top; i++) assert_in_range(out.top_id[i], 0, N_RAMP - 3);
        assert_true(fabs((double)out.logprob - log(softmax(padded, N_RAMP, out.token))) < 1e-5);
    }
    drop(*state);
}

static void rows_that_broke_down_are_marked(void **state) {
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    struct nt_sampler s;
    make(&s, *state, N_RAMP);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        for (int kind = 0; kind < 4; kind++) {
            struct nt_sampling p = defaults();
            p.temperature = kind == 0 ? 0 : 1;
            p.top_p = kind == 2 ? 0.5f : 1;
            p.top_logprobs = kind == 3 ? 2 : -1;
            float row[N_RAMP];
            memcpy(row, ramp, sizeof row);
            for (int v = i == 2 ? 0 : 3; v < N_RAMP; v++) row[v] = bad[i]; /* -inf: nothing is left to choose */
            assert_true(one(&s, row, &(struct nt_sample_in){.params = &p}).failed);
            assert_false(one(&s, ramp, &(struct nt_sample_in){.params = &p}).failed);
        }
    }
    drop(*state);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_takes_the_lowest_of_equals), cmocka_unit_test(logprobs_are_of_the_raw_logits),
        cmocka_unit_test(draws_follow_the_softmax),          cmocka_unit_test(temperature_divides),
        cmocka_unit_test(truncations_keep_what_they_say),    cmocka_unit_test(penalties_follow_their_formulas),
        cmocka_unit_test(masked_tokens_never_come),          cmocka_unit_test(long_tails_are_followed),
        cmocka_unit_test(rows_do_not_see_each_other),        cmocka_unit_test(padding_counts_but_never_comes),
        cmocka_unit_test(rows_that_broke_down_are_marked),
    };
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
