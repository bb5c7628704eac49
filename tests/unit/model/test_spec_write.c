/* A spec written as config.json reads back as the same spec, for every family and every kind of rope scaling. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "arch_table.h"
#include "fileio.h"
#include "json.h"
#include "rope_table.h"
#include "spec_read.h"
#include "spec_write.h"
#include "tensor_source.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[] = "/tmp/nt-spec-write-XXXXXX";

static void must(nt_status st) {
    if (st != NT_OK) print_message("%s\n", nt_error_last()->text);
    assert_int_equal(st, NT_OK);
}

static void put(const char *name, const struct nt_strbuf *text) {
    char path[256];
    must(nt_path_join(path, sizeof path, dir, name));
    must(nt_publish_bytes(path, nt_strbuf_cstr(text), text->len, NT_PUBLISH_REPLACE));
}

/* What the directory's files say; the weights are looked at only where the config does not say enough. */
static void read_back(struct nt_spec *out) {
    struct nt_tensor_source none = {.path = dir};
    must(nt_spec_read(&none, out));
}

static struct nt_spec base_spec(const char *family) {
    struct nt_spec s;
    memset(&s, 0, sizeof s); // also the padding: specs are compared byte by byte
    snprintf(s.family, sizeof s.family, "%s", family);
    s.n_layer = 3;
    s.d_model = 96;
    s.d_ff = 200;
    s.n_head = 6;
    s.n_kv = 2;
    s.d_head = 32; // not d_model / n_head
    s.n_vocab = 500;
    s.max_len = 4096;
    s.norm_eps = 1e-5f;
    s.rope.theta = 123456.5;
    s.bos_id = 7;
    s.n_eos = 1;
    s.eos_ids[0] = 9;
    const struct nt_arch *arch = nt_arch_find(family);
    s.qkv_bias = arch->qkv_bias;
    s.qk_norm = arch->qk_norm;
    return s;
}

static void round_trip(struct nt_spec *s, const float *freq_factors, struct nt_spec *back) {
    struct nt_strbuf config = NT_STRBUF_INIT, generation = NT_STRBUF_INIT;
    must(nt_spec_check("spec", s));
    must(nt_spec_write_hf(s, freq_factors, "x.gguf", &config, &generation));
    put("config.json", &config);
    put("generation_config.json", &generation);
    read_back(back);
    nt_strbuf_release(&config);
    nt_strbuf_release(&generation);
}

static void check(struct nt_spec s) {
    struct nt_spec back;
    round_trip(&s, NULL, &back);
    s.qk_interleaved = false; // of the container it came from
    assert_memory_equal(&s, &back, sizeof s);
}

static void set_window(struct nt_spec *s, int32_t window) {
    s->window = window;
    for (int32_t i = 0; i < s->n_layer; i++) s->layer_window[i] = true;
}

static void test_families(void **state) {
    (void)state;
    int32_t n = 0;
    const struct nt_arch *const *table = nt_arch_table(&n);
    for (int32_t i = 0; i < n; i++) {
        struct nt_spec s = base_spec(table[i]->family);
        check(s);
        s.tied = true;
        s.qk_interleaved = true;
        s.bos_id = -1;
        s.n_eos = 3;
        s.eos_ids[1] = 2;
        s.eos_ids[2] = 400;
        s.norm_eps = 1e-6f;
        check(s);
        s.n_eos = 0;
        memset(s.eos_ids, 0, sizeof s.eos_ids);
        s.act = NT_ACT_GELU_TANH;
        check(s);
        if (table[i]->window) {
            set_window(&s, 333);
            check(s);
        }
        if (table[i]->attention_bias_key) {
            s.qkv_bias = s.o_bias = true;
            check(s);
        }
        if (table[i]->mlp_bias_key) {
            s.mlp_bias = true;
            check(s);
        }
    }
}

static void test_rope(void **state) {
    (void)state;
    struct nt_spec s = base_spec("llama");
    s.rope.scaling = NT_ROPE_LINEAR;
    s.rope.factor = 2.5;
    s.rope.original_max_len = 2048;
    check(s);
    s.rope.scaling = NT_ROPE_LLAMA3;
    s.rope.low_freq_factor = 1;
    s.rope.high_freq_factor = 4;
    check(s);
    s.rope.low_freq_factor = s.rope.high_freq_factor = 0;
    s.rope.scaling = NT_ROPE_YARN;
    s.rope.beta_fast = 30;
    s.rope.beta_slow = 1.5;
    s.rope.attention_factor = 1.25;
    check(s);
    s.rope.no_truncate = true;
    check(s);
}

/* GGUF's table of divisors becomes the four numbers where they are those of a release. */
static void test_llama3_factors(void **state) {
    (void)state;
    float factors[16];
    double freq[16];
    for (int k = 0; k < 3; k++) {
        struct nt_spec s = base_spec("llama"), back;
        s.rope.theta = 500000;
        s.max_len = 131072;
        s.rope.scaling = NT_ROPE_LLAMA3;
        s.rope.factor = k == 0 ? 8 : k == 1 ? 32 : 4;
        s.rope.low_freq_factor = 1;
        s.rope.high_freq_factor = 4;
        s.rope.original_max_len = 8192;
        nt_rope_inv_freq(&s, NULL, freq);
        for (int j = 0; j < 16; j++) factors[j] = (float)(pow(s.rope.theta, -2.0 * j / 32) / freq[j]);
        struct nt_spec gguf = base_spec("llama");
        gguf.rope.theta = 500000;
        gguf.max_len = 131072;
        gguf.rope.scaling = NT_ROPE_FREQ_FACTORS;
        if (k < 2) {
            round_trip(&gguf, factors, &back);
            assert_int_equal(back.rope.scaling, NT_ROPE_LLAMA3);
            assert_true(back.rope.factor == s.rope.factor && back.rope.original_max_len == 8192);
        } else {
            struct nt_strbuf config = NT_STRBUF_INIT, generation = NT_STRBUF_INIT;
            assert_int_equal(nt_spec_write_hf(&gguf, factors, "x.gguf", &config, &generation), NT_E_UNSUPPORTED);
            assert_non_null(strstr(nt_error_last()->text, "rope_freqs.weight"));
            nt_strbuf_release(&config);
            nt_strbuf_release(&generation);
        }
    }
}

/* What GGUF can hold and no config.json can say. */
static void test_refusals(void **state) {
    (void)state;
    struct nt_spec s = base_spec("llama"), back;
    struct nt_strbuf config = NT_STRBUF_INIT, generation = NT_STRBUF_INIT;
    set_window(&s, 64); // a llama with a window is Mistral
    round_trip(&s, NULL, &back);
    assert_string_equal(back.family, "mistral");
    assert_int_equal(back.window, 64);
    s = base_spec("llama");
    s.qkv_bias = true; // without one on o
    assert_int_equal(nt_spec_write_hf(&s, NULL, "x.gguf", &config, &generation), NT_E_UNSUPPORTED);
    s = base_spec("qwen2");
    s.o_bias = true;
    assert_int_equal(nt_spec_write_hf(&s, NULL, "x.gguf", &config, &generation), NT_E_UNSUPPORTED);
    s = base_spec("qwen3");
    s.mlp_bias = true;
    assert_int_equal(nt_spec_write_hf(&s, NULL, "x.gguf", &config, &generation), NT_E_UNSUPPORTED);
    assert_non_null(strstr(nt_error_last()->text, "biases"));
    nt_strbuf_release(&config);
    nt_strbuf_release(&generation);
}

static int make_dir(void **state) {
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int drop_dir(void **state) {
    (void)state;
    char path[256];
    snprintf(path, sizeof path, "%s/config.json", dir);
    (void)unlink(path);
    snprintf(path, sizeof path, "%s/generation_config.json", dir);
    (void)unlink(path);
    return rmdir(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_families),
        cmocka_unit_test(test_rope),
        cmocka_unit_test(test_llama3_factors),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, make_dir, drop_dir);
}
