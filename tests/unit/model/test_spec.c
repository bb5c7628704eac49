/* Specs and their errors: Hugging Face directories are edits of the golden models, GGUF files are written here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "arch_table.h"
#include "fileio.h"
#include "spec_bind.h"
#include "spec_read.h"
#include "strbuf.h"
#include "tensor_source.h"
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char scratch[64];

static int make_scratch(void **state) {
    (void)state;
    snprintf(scratch, sizeof scratch, "/tmp/nt-spec-XXXXXX");
    return mkdtemp(scratch) ? 0 : -1;
}

static void empty_scratch(void) {
    DIR *d = opendir(scratch);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", scratch, e->d_name);
        if (e->d_name[0] != '.') (void)unlink(path);
    }
    closedir(d);
}

static int drop_scratch(void **state) {
    (void)state;
    empty_scratch();
    return rmdir(scratch);
}

static void write_file(const char *path, const void *bytes, size_t n) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

/* Copies a golden model's folder by links, with `find` of config.json replaced (NULL: the config as it is). */
static void copy_case(const char *name, const char *find, const char *replace) {
    char folder[256], from[600], to[600];
    snprintf(folder, sizeof folder, NT_TEST_DIR "/golden/logits/%s", name);
    empty_scratch();
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        snprintf(from, sizeof from, "%s/%s", folder, e->d_name);
        snprintf(to, sizeof to, "%s/%s", scratch, e->d_name);
        if (strstr(e->d_name, "safetensors") || !strcmp(e->d_name, "generation_config.json"))
            assert_int_equal(symlink(from, to), 0);
    }
    closedir(d);
    char *text = NULL;
    size_t len = 0;
    snprintf(from, sizeof from, "%s/config.json", folder);
    assert_int_equal(nt_file_read(from, 1 << 20, &text, &len), NT_OK);
    struct nt_strbuf out = NT_STRBUF_INIT;
    const char *at = find ? strstr(text, find) : text + len;
    assert_non_null(at);
    nt_strbuf_add(&out, text, (size_t)(at - text));
    if (find) nt_strbuf_adds(&out, replace);
    nt_strbuf_adds(&out, at + (find ? strlen(find) : 0));
    snprintf(to, sizeof to, "%s/config.json", scratch);
    write_file(to, out.data, out.len);
    nt_strbuf_release(&out);
    free(text);
}

static nt_status read_model(const char *path, struct nt_spec *spec) {
    struct nt_tensor_source *src = NULL;
    struct nt_binding b = {0};
    nt_status st = nt_tensor_source_open(path, &src);
    if (st == NT_OK) st = nt_spec_read(src, spec);
    if (st == NT_OK) st = nt_spec_bind(src, spec, &b);
    nt_binding_release(&b);
    nt_tensor_source_close(src);
    return st;
}

static void expect_error(nt_status got, nt_status want, const char *a, const char *b) {
    const char *text = nt_error_last()->text;
    if (got != want || !strstr(text, a) || !strstr(text, b))
        print_error("status %d: %s\nexpected status %d, \"%s\" and \"%s\"\n", got, got ? text : "", want, a, b);
    assert_int_equal(got, want);
    assert_non_null(strstr(text, a));
    assert_non_null(strstr(text, b));
}

struct hf_error {
    const char *model, *find, *replace;
    nt_status status;
    const char *say, *say_too;
};
static const struct hf_error hf_errors[] = {
    {"llama2",  "LlamaForCausalLM",               "GPT2LMHeadModel",                                            NT_E_UNSUPPORTED, "GPT2LMHeadModel",                             "Qwen3ForCausalLM"      },
    {"llama2",  "LlamaForCausalLM",               "LlamaForSequenceClassification",                             NT_E_UNSUPPORTED, "Classification",
     "expected one of"                                                                                                                                                                                   },
    {"llama2",  "\"hidden_size\": 40",            "\"hidden_sizes\": 40",                                       NT_E_DATA,        "\"hidden_size\" is missing",
     "expected an integer"                                                                                                                                                                               },
    {"llama2",  "\"hidden_size\": 40",            "\"hidden_size\": \"40\"",                                    NT_E_DATA,        "\"hidden_size\" is string",                   "integer"               },
    {"llama2",  "\"hidden_size\": 40",            "\"hidden_size\": -40",                                       NT_E_DATA,        "out of range",                                "from 2 to"             },
    {"llama2",  "\"hidden_size\": 40",            "\"hidden_size\": 44",                                        NT_E_DATA,        "model.embed_tokens.weight is BF16 [131, 40]",
     "[131, 44]"                                                                                                                                                                                         },
    {"llama2",  "\"vocab_size\": 131",            "\"vocab_size\": 132",                                        NT_E_DATA,        "[131, 40]",                                   "expected [132, 40]"    },
    {"llama2",  "\"num_hidden_layers\": 2",       "\"num_hidden_layers\": 3",                                   NT_E_DATA,
     "model.layers.2.input_layernorm.weight is missing",                                                                                                                         "[40]"                  },
    {"llama2",  "\"num_hidden_layers\": 2",       "\"num_hidden_layers\": 1",                                   NT_E_UNSUPPORTED, "model.layers.1.",
     "does not belong"                                                                                                                                                                                   },
    {"llama2",  "\"num_hidden_layers\": 2",       "\"num_hidden_layers\": 100000",                              NT_E_DATA,        "num_hidden_layers",                           "to 512"                },
    {"llama2",  "\"num_key_value_heads\": 4",     "\"num_key_value_heads\": 3",                                 NT_E_DATA,        "4 attention heads and 3",
     "multiple"                                                                                                                                                                                          },
    {"llama2",  "\"hidden_act\": \"silu\"",       "\"hidden_act\": \"relu\"",                                   NT_E_UNSUPPORTED, "hidden_act is relu",
     "expected silu"                                                                                                                                                                                     },
    {"llama2",  "\"tie_word_embeddings\": false", "\"tie_word_embeddings\": \"no\"",                            NT_E_DATA,        "tie_word_embeddings",
     "true or false"                                                                                                                                                                                     },
    {"llama2",  "\"attention_bias\": false",      "\"attention_bias\": true",                                   NT_E_DATA,        "q_proj.bias is missing",                      "[40]"                  },
    {"llama2",  "\"head_dim\": 10",               "\"head_dim\": 11",                                           NT_E_UNSUPPORTED, "head dimension 11",                           "even"                  },
    {"llama2",  "\"rope_scaling\": null",         "\"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 2.0}", NT_E_UNSUPPORTED,
     "\"dynamic\"",                                                                                                                                                              "linear, llama3 or yarn"},
    {"llama2",  "\"rope_scaling\": null",         "\"rope_scaling\": {\"rope_type\": \"longrope\"}",            NT_E_UNSUPPORTED,
     "\"longrope\"",                                                                                                                                                             "yarn"                  },
    {"llama2",  "\"rope_scaling\": null",         "\"rope_scaling\": {\"type\": \"linear\"}",                   NT_E_DATA,        "\"factor\" is missing",
     "number"                                                                                                                                                                                            },
    {"llama2",  "\"rope_scaling\": null",         "\"rope_scaling\": {\"type\": \"linear\", \"factor\": 0.5}",  NT_E_DATA,
     "\"factor\" is out of range",                                                                                                                                               "from 1"                },
    {"llama2",  "\"rope_scaling\": null",         "\"partial_rotary_factor\": 0.5",                             NT_E_UNSUPPORTED,
     "partial_rotary_factor is 0.5",                                                                                                                                             "expected 1"            },
    {"llama2",  "\"use_cache\": true",            "\"quantization_config\": {\"quant_method\": \"gptq\"}",      NT_E_UNSUPPORTED,
     "quantization_config (gptq)",                                                                                                                                               "GGUF"                  },
    {"llama3",  "\"high_freq_factor\": 4.0",      "\"high_freq_factor\": 1.0",                                  NT_E_DATA,        "high_freq_factor 1",                          "more than"             },
    {"qwen2",   "\"sliding_attention\"",          "\"chunked_attention\"",                                      NT_E_UNSUPPORTED, "chunked_attention",
     "\"layer_types\"[1]"                                                                                                                                                                                },
    {"qwen2",   "\"full_attention\",",            "",                                                           NT_E_DATA,        "\"layer_types\" has 2 entries",               "3 layers"              },
    {"qwen2",   "\"sliding_window\": 33",         "\"sliding_window\": 0",                                      NT_E_DATA,        "\"sliding_window\" is out of range",
     "from 1"                                                                                                                                                                                            },
    {"qwen3",   "Qwen3ForCausalLM",               "Qwen2ForCausalLM",                                           NT_E_DATA,        "q_proj.bias is missing",                      "qwen2 model"           },
    {"mistral", "MistralForCausalLM",             "Qwen3ForCausalLM",                                           NT_E_DATA,        "q_norm.weight is missing",                    "qwen3 model"           },
};

static void test_hf_errors(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof hf_errors / sizeof *hf_errors; i++) {
        const struct hf_error *e = &hf_errors[i];
        struct nt_spec spec;
        copy_case(e->model, e->find, e->replace);
        expect_error(read_model(scratch, &spec), e->status, e->say, e->say_too);
    }
}

static struct nt_spec good_case(const char *name, const char *find, const char *replace) {
    struct nt_spec spec;
    copy_case(name, find, replace);
    const nt_status st = read_model(scratch, &spec);
    if (st != NT_OK) print_error("%s: %s\n", name, nt_error_last()->text);
    assert_int_equal(st, NT_OK);
    return spec;
}

static void test_hf_good(void **state) {
    (void)state;
    struct nt_spec s = good_case("llama3", NULL, NULL);
    assert_string_equal(s.family, "llama");
    assert_int_equal(s.rope.scaling, NT_ROPE_LLAMA3);
    assert_true(s.rope.theta == 500000 && s.rope.factor == 8 && s.rope.original_max_len == 64);
    assert_true(s.tied && !s.qkv_bias && !s.qk_norm && s.d_head == 10 && s.norm_eps == 1e-5F);
    assert_true(s.n_eos == 2 && s.eos_ids[0] == 5 && s.eos_ids[1] == 7);
    assert_true(fabsf(s.attn_scale - 1 / sqrtf(10)) < 1e-7F);
    s = good_case("llama3_v5", NULL, NULL);
    assert_true(s.rope.scaling == NT_ROPE_LLAMA3 && s.rope.theta == 500000 && s.rope.high_freq_factor == 4);
    assert_int_equal(s.act, NT_ACT_GELU_TANH);
    s = good_case("llama_bias", NULL, NULL);
    assert_true(s.qkv_bias && s.o_bias && s.mlp_bias && s.rope.scaling == NT_ROPE_LINEAR && s.rope.factor == 2);
    assert_int_equal(s.max_len, 200); /* 100 unscaled positions, stretched by 2 */
    s = good_case("llama_yarn", NULL, NULL);
    assert_true(s.rope.scaling == NT_ROPE_YARN && s.rope.beta_fast == 32 && s.rope.beta_slow == 1);
    assert_true(fabs(s.rope.attention_factor - (0.1 * log(4) + 1)) < 1e-12);
    s = good_case("qwen3", NULL, NULL);
    assert_true(s.qk_norm && !s.qkv_bias && s.d_head == 24 && s.window == 0);
    /* the stop set is the union with generation_config.json, which says 2 */
    s = good_case("llama2", "\"eos_token_id\": 2", "\"eos_token_id\": [9, 2, 9]");
    assert_true(s.n_eos == 2 && s.eos_ids[0] == 9 && s.eos_ids[1] == 2);
    /* the key may be absent in old configs; then a missing head means tied */
    s = good_case("smollm2", "\"tie_word_embeddings\": true,", "");
    assert_true(s.tied);
    s = good_case("llama2", "\"tie_word_embeddings\": false,", "");
    assert_false(s.tied);
    /* model_type stands in where architectures is absent */
    s = good_case("llama2", "\"architectures\"", "\"was_architectures\"");
    assert_string_equal(s.family, "llama");
}

static void test_hf_windows(void **state) {
    (void)state;
    struct nt_spec s = good_case("mistral", NULL, NULL);
    assert_true(s.window == 21 && s.layer_window[0] && s.layer_window[1]);
    s = good_case("mistral", "\"sliding_window\": 21", "\"sliding_window\": null");
    assert_true(s.window == 0 && !s.layer_window[0]);
    s = good_case("mistral", "\"sliding_window\": 21", "\"no_window\": 0");
    assert_true(s.window == 4096 && s.layer_window[1]);
    s = good_case("qwen2", NULL, NULL);
    assert_true(s.window == 33 && !s.layer_window[0] && s.layer_window[1] && s.layer_window[2]);
    s = good_case("qwen2", "\"layer_types\"", "\"was_layer_types\""); /* from max_window_layers = 1 */
    assert_true(s.window == 33 && !s.layer_window[0] && s.layer_window[1] && s.layer_window[2]);
    s = good_case("qwen2", "\"use_sliding_window\": true", "\"use_sliding_window\": false");
    assert_true(s.window == 0 && !s.layer_window[2]);
}

/* ---- GGUF ------------------------------------------------------------------------------------------------------ */

struct gguf_file {
    struct nt_strbuf kv, infos;
    uint64_t n_kv, n_tensors, offset;
};

static void put(struct nt_strbuf *s, const void *x, size_t n) {
    nt_strbuf_add(s, x, n);
}
static void put_u32(struct nt_strbuf *s, uint32_t x) {
    put(s, &x, sizeof x);
}
static void put_u64(struct nt_strbuf *s, uint64_t x) {
    put(s, &x, sizeof x);
}
static void put_str(struct nt_strbuf *s, const char *x) {
    put_u64(s, strlen(x));
    put(s, x, strlen(x));
}

static void kv_u32(struct gguf_file *g, const char *key, uint32_t x) {
    put_str(&g->kv, key);
    put_u32(&g->kv, 4);
    put_u32(&g->kv, x);
    g->n_kv++;
}
static void kv_f32(struct gguf_file *g, const char *key, float x) {
    put_str(&g->kv, key);
    put_u32(&g->kv, 6);
    put(&g->kv, &x, sizeof x);
    g->n_kv++;
}
static void kv_str(struct gguf_file *g, const char *key, const char *x) {
    put_str(&g->kv, key);
    put_u32(&g->kv, 8);
    put_str(&g->kv, x);
    g->n_kv++;
}

static void tensor(struct gguf_file *g, const char *name, uint64_t rows, uint64_t cols) {
    put_str(&g->infos, name);
    put_u32(&g->infos, cols ? 2 : 1);
    if (cols) put_u64(&g->infos, cols);
    put_u64(&g->infos, rows);
    put_u32(&g->infos, 0); /* F32 */
    put_u64(&g->infos, g->offset);
    g->offset += (rows * (cols ? cols : 1) * 4 + 31) / 32 * 32;
    g->n_tensors++;
}

static void gguf_write(struct gguf_file *g, const char *path) {
    struct nt_strbuf out = NT_STRBUF_INIT;
    nt_strbuf_adds(&out, "GGUF");
    put_u32(&out, 3);
    put_u64(&out, g->n_tensors);
    put_u64(&out, g->n_kv);
    put(&out, g->kv.data, g->kv.len);
    put(&out, g->infos.data, g->infos.len);
    while (out.len % 32) nt_strbuf_addc(&out, 0);
    for (uint64_t i = 0; i < g->offset; i++) nt_strbuf_addc(&out, 0);
    write_file(path, out.data, out.len);
    nt_strbuf_release(&out);
    nt_strbuf_release(&g->kv);
    nt_strbuf_release(&g->infos);
}

/* A llama of one layer, two heads of 4, one KV head. `skip` names a key or tensor to leave out. */
static void gguf_llama(struct gguf_file *g, const char *arch, const char *skip) {
    const struct {
        const char *key;
        uint32_t value;
    } keys[] = {
        {"llama.block_count",             1 },
        {"llama.context_length",          64},
        {"llama.embedding_length",        8 },
        {"llama.feed_forward_length",     12},
        {"llama.attention.head_count",    2 },
        {"llama.attention.head_count_kv", 1 },
        {"llama.rope.dimension_count",    4 }
    };
    const struct {
        const char *name;
        uint64_t rows, cols;
    } tensors[] = {
        {"token_embd.weight",        20, 8 },
        {"output_norm.weight",       8,  0 },
        {"blk.0.attn_norm.weight",   8,  0 },
        {"blk.0.attn_q.weight",      8,  8 },
        {"blk.0.attn_k.weight",      4,  8 },
        {"blk.0.attn_v.weight",      4,  8 },
        {"blk.0.attn_output.weight", 8,  8 },
        {"blk.0.ffn_norm.weight",    8,  0 },
        {"blk.0.ffn_gate.weight",    12, 8 },
        {"blk.0.ffn_up.weight",      12, 8 },
        {"blk.0.ffn_down.weight",    8,  12}
    };
    kv_str(g, "general.architecture", arch);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!skip || strcmp(skip, keys[i].key) != 0) kv_u32(g, keys[i].key, keys[i].value);
    if (!skip || strcmp(skip, "llama.attention.layer_norm_rms_epsilon") != 0)
        kv_f32(g, "llama.attention.layer_norm_rms_epsilon", 1e-5F);
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
        if (!skip || strcmp(skip, tensors[i].name) != 0) tensor(g, tensors[i].name, tensors[i].rows, tensors[i].cols);
}

static nt_status gguf_read(struct gguf_file *g, struct nt_spec *spec) {
    char path[128];
    snprintf(path, sizeof path, "%s/model.gguf", scratch);
    gguf_write(g, path);
    return read_model(path, spec);
}

static void test_gguf_good(void **state) {
    (void)state;
    struct nt_spec s;
    struct gguf_file g = {0};
    gguf_llama(&g, "llama", NULL);
    kv_u32(&g, "tokenizer.ggml.eos_token_id", 2);
    kv_u32(&g, "tokenizer.ggml.eot_token_id", 3);
    kv_u32(&g, "llama.attention.sliding_window", 16);
    assert_int_equal(gguf_read(&g, &s), NT_OK);
    assert_true(s.n_layer == 1 && s.d_model == 8 && s.d_ff == 12 && s.n_head == 2 && s.n_kv == 1 && s.d_head == 4);
    assert_true(s.n_vocab == 20 && s.max_len == 64 && s.tied && s.qk_interleaved && s.norm_eps == 1e-5F);
    assert_true(s.n_eos == 2 && s.eos_ids[1] == 3 && s.window == 16 && s.layer_window[0] && s.rope.theta == 10000);
    g = (struct gguf_file){0};
    gguf_llama(&g, "llama", NULL);
    tensor(&g, "output.weight", 20, 8);
    tensor(&g, "rope_freqs.weight", 2, 0);
    tensor(&g, "blk.0.attn_q.bias", 8, 0);
    tensor(&g, "blk.0.attn_k.bias", 4, 0);
    tensor(&g, "blk.0.attn_v.bias", 4, 0);
    kv_f32(&g, "llama.rope.freq_base", 500000);
    assert_int_equal(gguf_read(&g, &s), NT_OK);
    assert_true(!s.tied && s.qkv_bias && !s.o_bias && s.rope.scaling == NT_ROPE_FREQ_FACTORS && s.rope.theta == 500000);
    g = (struct gguf_file){0};
    gguf_llama(&g, "llama", NULL);
    kv_str(&g, "llama.rope.scaling.type", "yarn");
    kv_f32(&g, "llama.rope.scaling.factor", 4);
    kv_u32(&g, "llama.rope.scaling.original_context_length", 32);
    kv_f32(&g, "llama.rope.scaling.attn_factor", 0.5F);
    assert_int_equal(gguf_read(&g, &s), NT_OK);
    assert_true(s.rope.scaling == NT_ROPE_YARN && s.max_len == 128 && s.rope.beta_fast == 32);
    assert_true(fabs(s.rope.attention_factor - 0.5 * (0.1 * log(4) + 1)) < 1e-12);
}

static void test_gguf_missing(void **state) {
    (void)state;
    const char *skips[] = {
        "llama.block_count",         "llama.context_length",       "llama.embedding_length",
        "llama.feed_forward_length", "llama.attention.head_count", "llama.attention.layer_norm_rms_epsilon",
        "output_norm.weight",        "blk.0.attn_norm.weight",     "blk.0.attn_q.weight",
        "blk.0.attn_k.weight",       "blk.0.attn_v.weight",        "blk.0.attn_output.weight",
        "blk.0.ffn_norm.weight",     "blk.0.ffn_gate.weight",      "blk.0.ffn_up.weight",
        "blk.0.ffn_down.weight"};
    for (size_t i = 0; i < sizeof skips / sizeof *skips; i++) {
        struct nt_spec s;
        struct gguf_file g = {0};
        gguf_llama(&g, "llama", skips[i]);
        expect_error(gguf_read(&g, &s), NT_E_DATA, skips[i], "is missing, expected");
    }
}

static void test_gguf_errors(void **state) {
    (void)state;
    struct nt_spec s;
    struct gguf_file g = {0};
    gguf_llama(&g, "mamba", NULL);
    expect_error(gguf_read(&g, &s), NT_E_UNSUPPORTED, "\"mamba\" is not known", "llama, qwen2, qwen3");
    g = (struct gguf_file){0};
    gguf_llama(&g, "llama", NULL);
    kv_u32(&g, "llama.vocab_size", 21);
    expect_error(gguf_read(&g, &s), NT_E_DATA, "token_embd.weight is F32 [20, 8]", "expected [21, 8]");
    g = (struct gguf_file){0};
    gguf_llama(&g, "llama", "llama.rope.dimension_count");
    kv_u32(&g, "llama.rope.dimension_count", 2);
    expect_error(gguf_read(&g, &s), NT_E_UNSUPPORTED, "rope.dimension_count 2", "equal");
    g = (struct gguf_file){0};
    gguf_llama(&g, "llama", NULL);
    kv_str(&g, "llama.rope.scaling.type", "longrope");
    expect_error(gguf_read(&g, &s), NT_E_UNSUPPORTED, "\"longrope\"", "none, linear or yarn");
    g = (struct gguf_file){0};
    gguf_llama(&g, "llama", NULL);
    kv_u32(&g, "llama.expert_count", 8);
    expect_error(gguf_read(&g, &s), NT_E_UNSUPPORTED, "a mixture of 8 experts", "dense model");
    g = (struct gguf_file){0};
    gguf_llama(&g, "llama", NULL);
    kv_u32(&g, "llama.expert_count", 0);
    assert_int_equal(gguf_read(&g, &s), NT_OK);
    g = (struct gguf_file){0};
    gguf_llama(&g, "llama", "llama.block_count");
    kv_str(&g, "llama.block_count", "one");
    expect_error(gguf_read(&g, &s), NT_E_DATA, "llama.block_count is str", "integer");
    g = (struct gguf_file){0};
    gguf_llama(&g, "llama", NULL);
    tensor(&g, "blk.0.ffn_gate_inp.weight", 4, 8);
    expect_error(gguf_read(&g, &s), NT_E_UNSUPPORTED, "ffn_gate_inp.weight F32 [4, 8] does not belong", "1 layers");
    g = (struct gguf_file){0};
    gguf_llama(&g, "llama", "general.architecture");
    g.n_kv = 0;
    nt_strbuf_reset(&g.kv);
    expect_error(gguf_read(&g, &s), NT_E_DATA, "general.architecture is missing", "string");
}

/* Every row names itself in both lists and has a table of tensors with names for its containers. */
static void test_rows(void **state) {
    (void)state;
    int32_t n = 0;
    const struct nt_arch *const *rows = nt_arch_table(&n);
    assert_true(n >= 4);
    for (int32_t i = 0; i < n; i++) {
        assert_ptr_equal(nt_arch_find(rows[i]->family), rows[i]);
        assert_non_null(rows[i]->hf_class);
        assert_non_null(rows[i]->hf_model_type);
        for (int slot = 0; slot < NT_SLOT_COUNT; slot++) {
            assert_non_null(rows[i]->slots[slot].gguf);
            assert_true(rows[i]->slots[slot].hf || slot == NT_SLOT_ROPE_FREQS);
            assert_true(!strchr(rows[i]->slots[slot].gguf, '#') == (slot < NT_SLOT_ATTN_NORM));
        }
    }
    assert_null(nt_arch_find("gpt2"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hf_errors), cmocka_unit_test(test_hf_good),      cmocka_unit_test(test_hf_windows),
        cmocka_unit_test(test_gguf_good), cmocka_unit_test(test_gguf_missing), cmocka_unit_test(test_gguf_errors),
        cmocka_unit_test(test_rows),
    };
    return cmocka_run_group_tests(tests, make_scratch, drop_scratch);
}
