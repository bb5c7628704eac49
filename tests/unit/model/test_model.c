/* The model as its users see it: open, digest, cache pages, layouts, forwards without logits. Numbers: tests/golden. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "fileio.h"
#include "model.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct nt_world world;
static struct nt_pool *pool;
static struct nt_backend backend;

static int open_backend(void **state) {
    (void)state;
    const bool ok = nt_world_open(&world) == NT_OK && nt_world_split(&world, 1) == NT_OK &&
                    nt_pool_new(&pool, 2, false, 0, 1) == NT_OK &&
                    nt_backend_open_cpu(&backend, NT_ISA_PORTABLE, pool) == NT_OK;
    return ok ? 0 : -1;
}

static int close_backend(void **state) {
    (void)state;
    nt_backend_close(&backend);
    nt_pool_free(pool);
    nt_world_close(&world);
    return 0;
}

static struct nt_model *open_case(const char *name) {
    char path[256];
    snprintf(path, sizeof path, NT_TEST_DIR "/golden/logits/%s", name);
    struct nt_model *m = NULL;
    assert_int_equal(nt_model_open(&m, path, &world, &backend), NT_OK);
    return m;
}

static void test_facts(void **state) {
    (void)state;
    struct nt_model *m = open_case("smollm2");
    const struct nt_spec *s = nt_model_spec(m);
    assert_int_equal(s->n_head, 9);
    assert_int_equal(nt_model_vocab_first(m), 0);
    assert_int_equal(nt_model_vocab_count(m), s->n_vocab);
    assert_true(nt_model_logit_ld(m) >= s->n_vocab);
    /* pages: 2 layers, 3 KV heads, K and V of 64 positions, d_head 6 padded to 16, bf16 */
    assert_int_equal(nt_model_kv_page_bytes(m), 2 * 3 * 2 * 64 * 16 * 2);
    const double d = 54, per_layer = 2 * d * (54 + 2 * 18) + 2 * 54 * d + 6 * d * 52;
    assert_true(nt_model_flops(m, 0, false) == 2 * per_layer);
    assert_true(nt_model_flops(m, 100, true) == 2 * (per_layer + 4 * 100 * 54) + 2 * d * 203);
    nt_model_close(m);
    nt_model_close(NULL);
}

struct setup {
    struct nt_model *m;
    struct nt_job_memory job;
    struct nt_kv_pool kv;
    float *logits;
};

static void layout(struct setup *s, int32_t n_page, int32_t max_tok, int32_t max_out) {
    assert_int_equal(nt_kv_pool_take(&s->job, s->m, n_page, &s->kv), NT_OK);
    s->logits = NT_TAKE(&s->job.device, float, (size_t)max_out *(size_t)nt_model_logit_ld(s->m));
    const struct nt_step_limits max = {.tok = max_tok, .out = max_out, .seq = 1, .pages = n_page};
    assert_int_equal(nt_model_layout(s->m, &s->job, &max), NT_OK);
}

static void setup(struct setup *s, const char *name, int32_t n_page, int32_t max_tok, int32_t max_out) {
    s->m = open_case(name);
    nt_job_memory_init(&s->job, &backend);
    layout(s, n_page, max_tok, max_out);
    const size_t counted = nt_job_memory_bytes(&s->job);
    assert_int_equal(nt_job_memory_bind(&s->job), NT_OK);
    layout(s, n_page, max_tok, max_out);
    assert_int_equal(nt_job_memory_bytes(&s->job), counted);
}

static void teardown(struct setup *s) {
    nt_job_memory_release(&s->job);
    nt_model_close(s->m);
}

static void test_page_zero(void **state) {
    (void)state;
    struct setup s;
    setup(&s, "qwen2", 5, 8, 1);
    const size_t page = nt_model_kv_page_bytes(s.m), total = 5 * page;
    memset(s.kv.base, 0x5a, total);
    nt_kv_page_zero(s.m, &s.kv, 3);
    const uint8_t *bytes = (const uint8_t *)s.kv.base;
    size_t zeros = 0;
    for (size_t i = 0; i < total; i++) {
        zeros += bytes[i] == 0;
        const size_t in_layer = i / (page / 3) % 5; /* [n_layer = 3][n_page = 5] pages of page / 3 bytes */
        assert_int_equal(bytes[i], in_layer == 3 ? 0 : 0x5a);
    }
    assert_int_equal(zeros, page);
    struct nt_kv_pool none;
    struct nt_job_memory a;
    nt_job_memory_init(&a, &backend);
    assert_int_equal(nt_kv_pool_take(&a, s.m, 0, &none), NT_E_CONFIG);
    teardown(&s);
}

/* A prompt fed first without any logits, then its last token with: the same bits as the whole prompt at once. */
static void test_forward_without_logits(void **state) {
    (void)state;
    struct setup s;
    setup(&s, "mistral", 4, 80, 1);
    int32_t ids[71];
    for (int32_t i = 0; i < 71; i++) ids[i] = i * 37 % nt_model_spec(s.m)->n_vocab;
    const int32_t pages[2] = {2, 0}, last = 70, zero = 0;
    for (int32_t i = 0; i < 4; i++) nt_kv_page_zero(s.m, &s.kv, i);
    struct nt_attn_seq seq = {.n_q = 71, .pages = pages};
    struct nt_batch b = {.ids = ids, .seqs = &seq, .out_rows = &last, .n_tok = 71, .n_seq = 1, .n_out = 1};
    assert_int_equal(nt_model_forward(s.m, &b, &s.kv, s.logits), NT_OK);
    const size_t n = (size_t)nt_model_vocab_count(s.m) * sizeof(float);
    float *whole = malloc(n);
    assert_non_null(whole);
    memcpy(whole, s.logits, n);

    for (int32_t i = 0; i < 4; i++) nt_kv_page_zero(s.m, &s.kv, i);
    memset(s.logits, 0, n);
    seq.n_q = 70;
    b = (struct nt_batch){.ids = ids, .seqs = &seq, .n_tok = 70, .n_seq = 1};
    assert_int_equal(nt_model_forward(s.m, &b, &s.kv, NULL), NT_OK);
    seq = (struct nt_attn_seq){.n_q = 1, .pos0 = 70, .pages = pages};
    b = (struct nt_batch){.ids = ids + 70, .seqs = &seq, .out_rows = &zero, .n_tok = 1, .n_seq = 1, .n_out = 1};
    assert_int_equal(nt_model_forward(s.m, &b, &s.kv, s.logits), NT_OK);
    assert_memory_equal(whole, s.logits, n);
    free(whole);
    teardown(&s);
}

static void test_limit_len(void **state) {
    (void)state;
    struct nt_model *m = open_case("llama3"); /* 512 positions, d_head 10 */
    struct nt_job_memory all, few;
    const struct nt_step_limits max = {.tok = 16, .out = 1, .seq = 1, .pages = 1};
    nt_job_memory_init(&all, &backend);
    assert_int_equal(nt_model_layout(m, &all, &max), NT_OK);
    nt_model_limit_len(m, 100000); /* ignored */
    nt_model_limit_len(m, 64);
    nt_job_memory_init(&few, &backend);
    assert_int_equal(nt_model_layout(m, &few, &max), NT_OK);
    assert_true(nt_job_memory_bytes(&all) - nt_job_memory_bytes(&few) >= 2 * (512 - 64) * 5 * sizeof(float));
    nt_model_close(m);
}

/* ---- damaged weights ------------------------------------------------------------------------------------------- */

struct copy {
    char dir[64], weights[128], config[128];
    char *bytes;
    size_t len;
};

static void copy_open(struct copy *c, const char *name) {
    char from[256];
    snprintf(c->dir, sizeof c->dir, "/tmp/nt-model-XXXXXX");
    assert_non_null(mkdtemp(c->dir));
    snprintf(c->weights, sizeof c->weights, "%s/model.safetensors", c->dir);
    snprintf(c->config, sizeof c->config, "%s/config.json", c->dir);
    snprintf(from, sizeof from, NT_TEST_DIR "/golden/logits/%s/config.json", name);
    assert_int_equal(symlink(from, c->config), 0);
    snprintf(from, sizeof from, NT_TEST_DIR "/golden/logits/%s/model.safetensors", name);
    assert_int_equal(nt_file_read(from, 1 << 20, &c->bytes, &c->len), NT_OK);
}

static void copy_write(const struct copy *c) {
    assert_int_equal(nt_publish_bytes(c->weights, c->bytes, c->len, NT_PUBLISH_REPLACE), NT_OK);
}

static void copy_close(struct copy *c) {
    (void)unlink(c->weights);
    (void)unlink(c->config);
    assert_int_equal(rmdir(c->dir), 0);
    free(c->bytes);
}

static void test_digest(void **state) {
    (void)state;
    struct copy c;
    copy_open(&c, "llama2");
    uint8_t digest[3][32];
    for (int i = 0; i < 3; i++) {
        if (i == 2) c.bytes[c.len - 1000] ^= 1; /* one bit of one weight */
        copy_write(&c);
        struct nt_model *m = NULL;
        assert_int_equal(nt_model_open(&m, c.dir, &world, &backend), NT_OK);
        nt_model_digest(m, digest[i]);
        nt_model_close(m);
    }
    assert_memory_equal(digest[0], digest[1], 32);
    assert_true(memcmp(digest[0], digest[2], 32) != 0);
    copy_close(&c);
}

static void test_nan_weight(void **state) {
    (void)state;
    struct copy c;
    copy_open(&c, "llama2");
    c.bytes[c.len - 1] = 0x7f; /* bf16 0x7fc0 in the last tensor of the file */
    c.bytes[c.len - 2] = (char)0xc0;
    copy_write(&c);
    struct nt_model *m = NULL;
    assert_int_equal(nt_model_open(&m, c.dir, &world, &backend), NT_E_DATA);
    assert_null(m);
    assert_non_null(strstr(nt_error_last()->text, "model.norm.weight"));
    copy_close(&c);
}

static void test_absent(void **state) {
    (void)state;
    struct nt_model *m = NULL;
    assert_int_equal(nt_model_open(&m, "/nonexistent/model", &world, &backend), NT_E_NOINPUT);
    assert_null(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_facts),
        cmocka_unit_test(test_page_zero),
        cmocka_unit_test(test_forward_without_logits),
        cmocka_unit_test(test_limit_len),
        cmocka_unit_test(test_digest),
        cmocka_unit_test(test_nan_weight),
        cmocka_unit_test(test_absent),
    };
    return cmocka_run_group_tests(tests, open_backend, close_backend);
}
