/* LoRA adapters: PEFT's own file and what PEFT makes of it (tests/golden/adapter), our files read back, and every kind
 * of adapter that must be refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "adapter_io.h"
#include "fileio.h"
#include "gguf.h"
#include "json.h"
#include "strbuf.h"
#include "tensor_source.h"
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char golden[] = NT_TEST_DIR "/golden/adapter";
static char scratch[] = "/tmp/nt-adapter-XXXXXX";

static const struct nt_spec tiny = {
    .family = "llama", .n_layer = 2, .d_model = 16, .d_ff = 24, .n_head = 4, .n_kv = 2, .d_head = 4, .n_vocab = 32};

static void must(nt_status st) {
    if (st != NT_OK) print_message("%s\n", nt_error_last()->text);
    assert_int_equal(st, NT_OK);
}

static void remove_dir(const char *dir) {
    DIR *d = opendir(dir);
    if (!d) return;
    for (struct dirent *e; (e = readdir(d));) {
        char path[1024];
        assert_true(snprintf(path, sizeof path, "%s/%s", dir, e->d_name) < (int)sizeof path);
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) (void)unlink(path);
    }
    closedir(d);
    (void)rmdir(dir);
}

static const char *place(const char *name) {
    static char path[256];
    assert_int_equal(nt_path_join(path, sizeof path, scratch, name), NT_OK);
    return path;
}

static void read_text(const char *dir, const char *name, char **text, size_t *len) {
    char path[512];
    must(nt_path_join(path, sizeof path, dir, name));
    must(nt_file_read(path, 1 << 20, text, len));
}

static void write_text(const char *dir, const char *name, const char *text, size_t len) {
    char path[512];
    must(nt_path_join(path, sizeof path, dir, name));
    must(nt_publish_bytes(path, text, len, NT_PUBLISH_REPLACE));
}

/* --- PEFT's file ------------------------------------------------------------------------------------------------- */

static void test_peft_reads(void **state) {
    (void)state;
    struct nt_adapter *a = NULL;
    struct nt_tensor_source *delta = NULL;
    must(nt_adapter_read(golden, &tiny, &a));
    must(nt_tensor_source_open_file(golden, "delta.safetensors", &delta));
    assert_int_equal(a->r, 3);
    assert_true(a->rslora && a->alpha == 5 && a->dropout == 0.25);
    assert_int_equal(a->targets, NT_TARGETS_ALL);
    assert_string_equal(a->base, "tiny/llama");
    assert_false(a->has_base || a->has_tokenizer);
    assert_int_equal(delta->n_tensors, 2 * NT_LINEAR_COUNT);
    for (int32_t layer = 0; layer < 2; layer++) {
        for (int i = 0; i < NT_LINEAR_COUNT; i++) {
            const struct nt_lora *l = nt_adapter_at(a, layer, (enum nt_linear)i);
            char name[128];
            snprintf(name, sizeof name, "model.layers.%d.%s.%s.weight", layer, i < NT_LINEAR_GATE ? "self_attn" : "mlp",
                     nt_linear_name((enum nt_linear)i));
            float want[24 * 16];
            const struct nt_tensor_info *t = nt_tensor_source_find(delta, name);
            assert_non_null(t);
            assert_int_equal(t->shape[0], l->out);
            assert_int_equal(t->shape[1], l->in);
            must(nt_tensor_source_read(delta, t, 0, l->out, NT_READ_F32, want));
            for (int32_t k = 0; k < l->out * l->in; k++) {
                double sum = 0;
                for (int32_t r = 0; r < a->r; r++)
                    sum += (double)l->b[k / l->in * a->r + r] * (double)l->a[r * l->in + k % l->in];
                assert_true(fabs(nt_adapter_scale(a) * sum - (double)want[k]) < 2e-5);
            }
        }
    }
    nt_tensor_source_close(delta);
    nt_adapter_free(a);
}

/* --- init --------------------------------------------------------------------------------------------------------- */

static void test_init(void **state) {
    (void)state;
    struct nt_spec spec = tiny;
    spec.d_model = 256;
    struct nt_adapter *all = NULL, *up = NULL;
    must(nt_adapter_new(&spec, 8, 16, false, NT_TARGETS_ALL, &all));
    must(nt_adapter_new(&spec, 8, 16, false, 1u << NT_LINEAR_UP, &up));
    nt_adapter_init(all, 5);
    nt_adapter_init(up, 5);
    const struct nt_lora *x = nt_adapter_at(all, 1, NT_LINEAR_UP), *y = nt_adapter_at(up, 1, NT_LINEAR_UP);
    assert_int_equal(y->in, 256);
    assert_int_equal(y->out, 24);
    assert_null(nt_adapter_at(up, 1, NT_LINEAR_Q)->a);
    assert_memory_equal(x->a, y->a, 8 * 256 * sizeof(float)); // other targets change nothing
    double sum = 0, square = 0, most = 0;
    for (int i = 0; i < 8 * 256; i++) {
        sum += (double)x->a[i];
        square += (double)x->a[i] * (double)x->a[i];
        most = fmax(most, fabs((double)x->a[i]));
    }
    assert_true(most < 1.0 / 16 && most > 0.99 / 16);                             // 1 / sqrt(256)
    assert_true(fabs(sum / 2048) < 0.003 && fabs(square / 2048 * 768 - 1) < 0.1); // variance of a uniform: bound^2 / 3
    for (int i = 0; i < 24 * 8; i++) assert_true(x->b[i] == 0);
    assert_true(memcmp(x->a, nt_adapter_at(all, 0, NT_LINEAR_UP)->a, 8 * 256 * sizeof(float)) != 0);
    float first = y->a[0];
    nt_adapter_init(up, 6);
    assert_true(y->a[0] != first);
    assert_true(nt_adapter_scale(up) == 2);
    nt_adapter_free(all);
    nt_adapter_free(up);
}

static void test_targets(void **state) {
    (void)state;
    uint32_t t = 0;
    must(nt_adapter_targets("all", &t));
    assert_int_equal(t, NT_TARGETS_ALL);
    must(nt_adapter_targets("all-linear", &t));
    assert_int_equal(t, NT_TARGETS_ALL);
    must(nt_adapter_targets("q_proj, down_proj", &t));
    assert_int_equal(t, 1 << NT_LINEAR_Q | 1 << NT_LINEAR_DOWN);
    static const char *const bad[] = {"", "q_proj,", "lm_head", "q_proj down_proj", "Q_PROJ"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(nt_adapter_targets(bad[i], &t), NT_E_CONFIG);
        assert_non_null(strstr(nt_error_last()->text, "expected all"));
    }
    struct nt_adapter *a = NULL;
    assert_int_equal(nt_adapter_new(&tiny, 0, 1, false, NT_TARGETS_ALL, &a), NT_E_CONFIG);
    assert_int_equal(nt_adapter_new(&tiny, 4, 0, false, NT_TARGETS_ALL, &a), NT_E_CONFIG);
    assert_int_equal(nt_adapter_new(&tiny, 4, NAN, false, NT_TARGETS_ALL, &a), NT_E_CONFIG);
    assert_int_equal(nt_adapter_new(&tiny, 4, 8, false, 0, &a), NT_E_CONFIG);
    assert_null(a);
}

/* --- our files --------------------------------------------------------------------------------------------------- */

static struct nt_adapter *filled(const struct nt_spec *spec, bool rslora, const uint32_t *targets) {
    struct nt_adapter *a = NULL;
    must(nt_adapter_new_at(spec, 3, 5, rslora, targets, &a));
    for (int64_t i = 0; i < a->n_params; i++) a->data[i] = (float)sin(0.1 * (double)i);
    a->dropout = 0.125;
    snprintf(a->base, sizeof a->base, "models/\"tiny\"");
    a->has_base = a->has_tokenizer = true;
    memset(a->base_digest, 0xab, 32);
    memset(a->tokenizer_digest, 0x01, 32);
    return a;
}

static void check_same(const struct nt_adapter *a, const struct nt_adapter *b) {
    assert_int_equal(a->r, b->r);
    assert_int_equal(a->targets, b->targets);
    assert_int_equal(a->n_params, b->n_params);
    assert_memory_equal(a->data, b->data, (size_t)a->n_params * sizeof *a->data);
    assert_true(fabs(nt_adapter_scale(a) / nt_adapter_scale(b) - 1) < 1e-15);
    assert_true(a->dropout == b->dropout);
    assert_string_equal(a->base, b->base);
    assert_memory_equal(a->base_digest, b->base_digest, 32);
    assert_memory_equal(a->tokenizer_digest, b->tokenizer_digest, 32);
    for (int32_t i = 0; i < a->n_layer * NT_LINEAR_COUNT; i++) assert_int_equal(!a->lora[i].a, !b->lora[i].a);
}

static void test_round_trip(void **state) {
    (void)state;
    const uint32_t cases[3][2] = {
        {NT_TARGETS_ALL,                      NT_TARGETS_ALL                     },
        {1 << NT_LINEAR_Q | 1 << NT_LINEAR_V, 1 << NT_LINEAR_Q | 1 << NT_LINEAR_V},
        {0,                                   1 << NT_LINEAR_DOWN                }
    };
    const struct nt_text_pair more[] = {
        {"nocturne.corpus", "x"}
    };
    const struct nt_adapter_card card = {.provenance = more, .n = 1, .license = "mit", .markdown = "## Training\n"};
    for (int i = 0; i < 6; i++) {
        struct nt_adapter *a = filled(&tiny, i % 2 == 1, cases[i / 2]), *b = NULL;
        char dir[300], *text = NULL;
        size_t len = 0;
        snprintf(dir, sizeof dir, "%s/", place("ours")); // a slash at the end is no other name
        must(nt_adapter_write_peft(a, &tiny, &card, dir, NT_PUBLISH_NEW));
        must(nt_adapter_read(dir, &tiny, &b));
        check_same(a, b);
        assert_false(b->rslora); // folded: every reader gets the same scale
        assert_int_equal(nt_adapter_write_peft(a, &tiny, NULL, dir, NT_PUBLISH_NEW), NT_E_IO);
        assert_non_null(strstr(nt_error_last()->text, "exists already"));
        read_text(dir, "README.md", &text, &len);
        assert_non_null(strstr(text, "base_model: \"models/\\\"tiny\\\"\"\n"));
        assert_non_null(strstr(text, "license: mit\n"));
        assert_non_null(strstr(text, "## Training\n"));
        assert_non_null(strstr(text, "abababab"));
        free(text);
        nt_adapter_free(a);
        nt_adapter_free(b);
        remove_dir(dir);
    }
}

static void test_check_base(void **state) {
    (void)state;
    struct nt_adapter *a = filled(&tiny, false, (const uint32_t[]){NT_TARGETS_ALL, NT_TARGETS_ALL});
    uint8_t base[32], tokenizer[32];
    memset(base, 0xab, sizeof base);
    memset(tokenizer, 0x01, sizeof tokenizer);
    must(nt_adapter_check_base(a, "D", base, tokenizer));
    must(nt_adapter_check_base(a, "D", NULL, NULL));
    tokenizer[31] = 0;
    assert_int_equal(nt_adapter_check_base(a, "D", base, tokenizer), NT_E_CONFIG);
    assert_non_null(strstr(nt_error_last()->text, "another tokenizer"));
    base[31] = 0;
    assert_int_equal(nt_adapter_check_base(a, "D", base, NULL), NT_E_CONFIG);
    assert_non_null(strstr(nt_error_last()->text, "another base model"));
    a->has_base = a->has_tokenizer = false;
    must(nt_adapter_check_base(a, "D", base, tokenizer));
    nt_adapter_free(a);
}

static void check_gguf_pair(const struct nt_gguf *g, int64_t i, const struct nt_adapter *a, enum nt_linear linear,
                            const char *name, bool paired) {
    const struct nt_lora *l = nt_adapter_at(a, 1, linear);
    const struct nt_gguf_tensor *ta = nt_gguf_tensor_at(g, i), *tb = nt_gguf_tensor_at(g, i + 1);
    char want[64];
    float values[24 * 3 * 8];
    snprintf(want, sizeof want, "blk.1.%s.weight.lora_a", name);
    assert_string_equal(ta->name, want);
    assert_true(ta->shape[0] == a->r && ta->shape[1] == l->in && ta->dtype == NT_WDTYPE_F32);
    must(nt_pread_full(nt_gguf_fd(g), values, (size_t)ta->n_bytes, ta->offset, "gguf"));
    assert_memory_equal(values, l->a, (size_t)ta->n_bytes);
    snprintf(want, sizeof want, "blk.1.%s.weight.lora_b", name);
    assert_string_equal(tb->name, want);
    assert_true(tb->shape[0] == l->out && tb->shape[1] == a->r);
    must(nt_pread_full(nt_gguf_fd(g), values, (size_t)tb->n_bytes, tb->offset, "gguf"));
    for (int32_t row = 0; row < l->out; row++) {
        // heads of 4 rows: 0 1 2 3 become 0 2 1 3
        const int32_t in_head = row % 4, to = paired ? row - in_head + (int32_t[]){0, 2, 1, 3}[in_head] : row;
        assert_memory_equal(values + to * a->r, l->b + row * a->r, (size_t)a->r * sizeof *values);
    }
}

static void test_gguf(void **state) {
    (void)state;
    static const struct {
        const char *family, *arch;
        bool paired;
    } cases[] = {
        {"llama",   "llama", true },
        {"mistral", "llama", true },
        {"qwen2",   "qwen2", false}
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct nt_spec spec = tiny;
        size_t len = 0;
        snprintf(spec.family, sizeof spec.family, "%s", cases[i].family);
        const uint32_t targets[2] = {0, 1 << NT_LINEAR_Q | 1 << NT_LINEAR_K | 1 << NT_LINEAR_V | 1 << NT_LINEAR_DOWN};
        struct nt_adapter *a = filled(&spec, true, targets);
        struct nt_gguf *g = NULL;
        must(nt_adapter_write_gguf(a, &spec, NULL, place("a.gguf")));
        must(nt_gguf_open(place("a.gguf"), &g));
        const char *arch = nt_gguf_str(g, "general.architecture", &len);
        assert_true(len == strlen(cases[i].arch) && memcmp(arch, cases[i].arch, len) == 0);
        assert_int_equal(nt_gguf_type(g, "adapter.lora.alpha"), NT_GGUF_F32);
        const double alpha = nt_gguf_f64(g, "adapter.lora.alpha", 0);
        assert_true(fabs(alpha / 3 - 5 / sqrt(3)) < 1e-6); // their scale is alpha / r
        assert_int_equal(nt_gguf_n_tensors(g), 8);
        check_gguf_pair(g, 0, a, NT_LINEAR_Q, "attn_q", cases[i].paired);
        check_gguf_pair(g, 2, a, NT_LINEAR_K, "attn_k", cases[i].paired);
        check_gguf_pair(g, 4, a, NT_LINEAR_V, "attn_v", false);
        check_gguf_pair(g, 6, a, NT_LINEAR_DOWN, "ffn_down", false);
        nt_gguf_close(g);
        nt_adapter_free(a);
        (void)unlink(place("a.gguf"));
    }
}

/* --- refusals ------------------------------------------------------------------------------------------------------
 */

static void copy_golden(const char *dir, const char *from, const char *to) {
    char *text = NULL;
    size_t len = 0;
    read_text(golden, "adapter_config.json", &text, &len);
    struct nt_strbuf s = NT_STRBUF_INIT;
    const char *at = from ? strstr(text, from) : NULL;
    assert_true(!from || at);
    if (at) {
        nt_strbuf_add(&s, text, (size_t)(at - text));
        nt_strbuf_adds(&s, to);
        nt_strbuf_adds(&s, at + strlen(from));
    } else {
        nt_strbuf_add(&s, text, len);
    }
    must(nt_mkdir_p(dir));
    write_text(dir, "adapter_config.json", s.data, s.len);
    nt_strbuf_release(&s);
    free(text);
    read_text(golden, "adapter_model.safetensors", &text, &len);
    write_text(dir, "adapter_model.safetensors", text, len);
    free(text);
}

static void refuse(const char *dir, const struct nt_spec *spec, nt_status code, const char *says) {
    struct nt_adapter *a = NULL;
    nt_error_clear();
    const nt_status st = nt_adapter_read(dir, spec, &a);
    if (st != code || !strstr(nt_error_last()->text, says)) print_message("%d: %s\n", st, nt_error_last()->text);
    assert_int_equal(st, code);
    assert_non_null(strstr(nt_error_last()->text, says));
    assert_null(a);
}

static void test_config_refusals(void **state) {
    (void)state;
    static const struct {
        const char *from, *to;
        nt_status code;
        const char *says;
    } cases[] = {
        {"\"use_dora\": false",           "\"use_dora\": true",                       NT_E_UNSUPPORTED, "DoRA"                                             },
        {"\"modules_to_save\": null",     "\"modules_to_save\": [\"lm_head\"]",       NT_E_UNSUPPORTED, "modules_to_save"                                  },
        {"\"rank_pattern\": {}",          "\"rank_pattern\": {\"q_proj\": 8}",        NT_E_UNSUPPORTED, "rank_pattern"                                     },
        {"\"alpha_pattern\": {}",         "\"alpha_pattern\": {\"q_proj\": 8}",       NT_E_UNSUPPORTED, "alpha_pattern"                                    },
        {"\"bias\": \"none\"",            "\"bias\": \"all\"",                        NT_E_UNSUPPORTED, "bias"                                             },
        {"\"lora_bias\": false",          "\"lora_bias\": true",                      NT_E_UNSUPPORTED, "lora_bias"                                        },
        {"\"fan_in_fan_out\": false",     "\"fan_in_fan_out\": true",                 NT_E_UNSUPPORTED, "fan_in_fan_out"                                   },
        {"\"init_lora_weights\": true",   "\"init_lora_weights\": \"pissa_niter_4\"", NT_E_UNSUPPORTED, "pissa_niter_4"                                    },
        {"\"init_lora_weights\": true",   "\"init_lora_weights\": \"lora_ga\"",       NT_E_UNSUPPORTED, "lora_ga"                                          },
        {"\"o_proj\"",                    "\"q_proj\"",                               NT_E_DATA,        "layers.0.self_attn.o_proj.lora_A.weight is not of"},
        {"\"layers_to_transform\": null", "\"layers_to_transform\": 0",               NT_E_DATA,
         "layers.1.self_attn.q_proj.lora_A.weight is not of"                                                                                               },
        {"\"layers_to_transform\": null", "\"layers_to_transform\": [1]",             NT_E_DATA,
         "layers.0.self_attn.q_proj.lora_A.weight is not of"                                                                                               },
        {"\"peft_type\": \"LORA\"",       "\"peft_type\": \"IA3\"",                   NT_E_UNSUPPORTED, "IA3"                                              },
        {"\"peft_type\"",                 "\"type\"",                                 NT_E_UNSUPPORTED, "peft_type is missing"                             },
        {"\"r\": 3",                      "\"r\": 4",                                 NT_E_DATA,        "BF16 [3, 16], expected [4, 16]"                   },
        {"\"r\": 3",                      "\"r\": 0",                                 NT_E_DATA,        "\"r\""                                            },
        {"\"r\": 3",                      "\"rank\": 3",                              NT_E_DATA,        "\"r\""                                            },
        {"\"lora_alpha\": 5",             "\"lora_alpha\": \"5\"",                    NT_E_DATA,        "lora_alpha"                                       },
        {"\"o_proj\"",                    "\"lm_head\"",                              NT_E_UNSUPPORTED, "lm_head"                                          },
        {"\"o_proj\"",                    "7",                                        NT_E_DATA,        "target_modules[0]"                                },
        {"\"target_modules\"",            "\"targets\"",                              NT_E_DATA,        "target_modules is missing"                        },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        copy_golden(place("bad"), cases[i].from, cases[i].to);
        refuse(place("bad"), &tiny, cases[i].code, cases[i].says);
        remove_dir(place("bad"));
    }
    static const char *const good[][2] = {
        {"\"init_lora_weights\": true",   "\"init_lora_weights\": \"gaussian\""},
        {"\"o_proj\"",                    "\"self_attn.o_proj\""               },
        {"\"layers_to_transform\": null", "\"layers_to_transform\": [0, 1]"    },
        {"\"eva_config\": null",          "\"eva_config\": {\"rho\": 2.0}"     }
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct nt_adapter *a = NULL;
        copy_golden(place("good"), good[i][0], good[i][1]);
        must(nt_adapter_read(place("good"), &tiny, &a));
        nt_adapter_free(a);
        remove_dir(place("good"));
    }
}

/* A safetensors file with one edit of its header, of the same length. */
static void edit_weights(const char *dir, const char *from, const char *to) {
    char *bytes = NULL;
    size_t len = 0;
    copy_golden(dir, NULL, NULL);
    read_text(dir, "adapter_model.safetensors", &bytes, &len);
    char *at = memmem(bytes, len, from, strlen(from));
    assert_non_null(at);
    assert_int_equal(strlen(from), strlen(to));
    memcpy(at, to, strlen(to));
    write_text(dir, "adapter_model.safetensors", bytes, len);
    free(bytes);
}

static void test_weight_refusals(void **state) {
    (void)state;
    struct nt_spec other = tiny;
    other.d_ff = 32;
    refuse(golden, &other, NT_E_DATA, "expected [32, 3]");
    other = tiny;
    other.n_layer = 3;
    refuse(golden, &other, NT_E_DATA, "layers.2.self_attn.q_proj.lora_A.weight is missing");
    other.n_layer = 1;
    refuse(golden, &other, NT_E_UNSUPPORTED, "is no LoRA matrix");
    refuse(place("nowhere"), &tiny, NT_E_NOINPUT, "adapter_config.json");
    edit_weights(place("bad"), "layers.1.mlp.up_proj.lora_A", "layers.1.mlp.xx_proj.lora_A");
    refuse(place("bad"), &tiny, NT_E_DATA, "layers.1.mlp.up_proj.lora_A.weight is missing");
    edit_weights(place("bad"), "\"BF16\",\"shape\":[3,16]", "\"I16\", \"shape\":[3,16]");
    refuse(place("bad"), &tiny, NT_E_UNSUPPORTED, "expected F32, F16 or BF16");
    edit_weights(place("bad"), "\"format\":\"pt\"", "\"format\":\"np\""); // ours too may say what it likes
    struct nt_adapter *a = NULL;
    must(nt_adapter_read(place("bad"), &tiny, &a));
    nt_adapter_free(a);
    char *bytes = NULL;
    size_t len = 0;
    copy_golden(place("bad"), NULL, NULL);
    read_text(golden, "adapter_model.safetensors", &bytes, &len);
    write_text(place("bad"), "adapter_model.safetensors", bytes, len - 2);
    refuse(place("bad"), &tiny, NT_E_DATA, "truncated");
    memcpy(bytes + len - 2, "\xc0\x7f", 2); // NaN
    write_text(place("bad"), "adapter_model.safetensors", bytes, len);
    refuse(place("bad"), &tiny, NT_E_DATA, "NaN");
    free(bytes);
    char path[300];
    must(nt_path_join(path, sizeof path, place("bad"), "adapter_model.safetensors"));
    assert_int_equal(unlink(path), 0);
    refuse(place("bad"), &tiny, NT_E_NOINPUT, "not found");
    write_text(place("bad"), "adapter_model.bin", "PK", 2);
    refuse(place("bad"), &tiny, NT_E_UNSUPPORTED, "pickle");
    remove_dir(place("bad"));
}

static void test_bad_digest(void **state) {
    (void)state;
    struct nt_adapter *a = filled(&tiny, false, (const uint32_t[]){NT_TARGETS_ALL, NT_TARGETS_ALL});
    must(nt_adapter_write_peft(a, &tiny, NULL, place("bad"), NT_PUBLISH_NEW));
    nt_adapter_free(a);
    char *bytes = NULL;
    size_t len = 0;
    read_text(place("bad"), "adapter_model.safetensors", &bytes, &len);
    char *at = memmem(bytes, len, "abab", 4);
    assert_non_null(at);
    *at = 'x';
    write_text(place("bad"), "adapter_model.safetensors", bytes, len);
    free(bytes);
    refuse(place("bad"), &tiny, NT_E_DATA, "64 hexadecimal digits");
    remove_dir(place("bad"));
}

/* Another base, number, scale or set of modules is another model; what an adapter is called is not. */
static void test_digest(void **state) {
    (void)state;
    enum { N = 5 };
    static const uint32_t all[] = {NT_TARGETS_ALL, NT_TARGETS_ALL};
    uint8_t base[32] = {1}, digest[N + 1][32];
    struct nt_adapter *a = filled(&tiny, false, all);
    nt_adapter_digest(a, base, digest[0]);
    snprintf(a->base, sizeof a->base, "elsewhere");
    a->dropout = 0.5;
    nt_adapter_digest(a, base, digest[N]);
    assert_memory_equal(digest[N], digest[0], 32);
    const float last = a->data[a->n_params - 1];
    a->data[a->n_params - 1] = 2;
    nt_adapter_digest(a, base, digest[1]);
    a->data[a->n_params - 1] = last;
    a->alpha = 6;
    nt_adapter_digest(a, base, digest[2]);
    a->alpha = 5;
    a->targets = 1;
    nt_adapter_digest(a, base, digest[3]);
    a->targets = NT_TARGETS_ALL;
    base[31] = 1;
    nt_adapter_digest(a, base, digest[4]);
    for (int i = 0; i < N; i++)
        for (int k = 0; k < i; k++) assert_memory_not_equal(digest[i], digest[k], 32);
    nt_adapter_digest(a, base, base); /* in place */
    assert_memory_equal(base, digest[4], 32);
    nt_adapter_free(a);
}

static int make_scratch(void **state) {
    (void)state;
    return mkdtemp(scratch) ? 0 : -1;
}

static int drop_scratch(void **state) {
    (void)state;
    return rmdir(scratch); // nothing is left behind, also by what failed
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_peft_reads),      cmocka_unit_test(test_init),
        cmocka_unit_test(test_targets),         cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_check_base),      cmocka_unit_test(test_gguf),
        cmocka_unit_test(test_config_refusals), cmocka_unit_test(test_weight_refusals),
        cmocka_unit_test(test_bad_digest),      cmocka_unit_test(test_digest),
    };
    return cmocka_run_group_tests(tests, make_scratch, drop_scratch);
}
