#include "spec_write.h"
#include "arch_table.h"
#include "rope_table.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static void add_num(struct nt_strbuf *s, const char *key, double v) {
    nt_strbuf_addf(s, ",\n  \"%s\": ", key);
    nt_strbuf_add_json_num(s, v);
}

/* The shortest decimal that reads back as the same float: 1e-05, not 9.999999747378752e-06. */
static void add_float(struct nt_strbuf *s, const char *key, float v) {
    char text[40];
    for (int digits = 1; digits <= 9; digits++) {
        (void)snprintf(text, sizeof text, "%.*g", digits, (double)v);
        if (strtof(text, NULL) == v) break;
    }
    nt_strbuf_addf(s, ",\n  \"%s\": %s", key, text);
}

static void add_int(struct nt_strbuf *s, const char *key, int64_t v) {
    nt_strbuf_addf(s, ",\n  \"%s\": %lld", key, (long long)v);
}

static void add_bool(struct nt_strbuf *s, const char *key, bool v) {
    nt_strbuf_addf(s, ",\n  \"%s\": %s", key, v ? "true" : "false");
}

static void add_eos(const struct nt_spec *spec, struct nt_strbuf *s) {
    if (spec->n_eos == 1) add_int(s, "eos_token_id", spec->eos_ids[0]);
    if (spec->n_eos < 2) return;
    nt_strbuf_adds(s, ",\n  \"eos_token_id\": [");
    for (int32_t i = 0; i < spec->n_eos; i++) nt_strbuf_addf(s, "%s%d", i ? ", " : "", spec->eos_ids[i]);
    nt_strbuf_addc(s, ']');
}

/* The scalings of the Llama 3 releases: 3.1 and 3.3, then 3.2. */
static const struct {
    double factor, low, high, original;
} llama3[] = {
    {8,  1, 4, 8192},
    {32, 1, 4, 8192}
};

/* Turns a table of factors into the four numbers that make it. */
static nt_status recognise(struct nt_spec *spec, const float *freq_factors, const char *path) {
    double want[NT_MAX_D_HEAD / 2], have[NT_MAX_D_HEAD / 2];
    (void)nt_rope_inv_freq(spec, freq_factors, want);
    spec->rope.scaling = NT_ROPE_LLAMA3;
    for (size_t i = 0; i < sizeof llama3 / sizeof *llama3; i++) {
        double worst = 0;
        spec->rope.factor = llama3[i].factor;
        spec->rope.low_freq_factor = llama3[i].low;
        spec->rope.high_freq_factor = llama3[i].high;
        spec->rope.original_max_len = llama3[i].original;
        (void)nt_rope_inv_freq(spec, NULL, have);
        for (int32_t j = 0; j < spec->d_head / 2; j++) worst = fmax(worst, fabs(have[j] / want[j] - 1));
        if (worst < 1e-5) return NT_OK;
    }
    return NT_FAIL(NT_E_UNSUPPORTED,
                   "%s: rope_freqs.weight holds factors that are not Llama 3's, which no config.json can say; use the "
                   "Hugging Face directory of this model",
                   path);
}

static void add_rope(const struct nt_spec *spec, struct nt_strbuf *s) {
    static const char *const types[] = {
        [NT_ROPE_LINEAR] = "linear", [NT_ROPE_LLAMA3] = "llama3", [NT_ROPE_YARN] = "yarn"};
    add_num(s, "rope_theta", spec->rope.theta);
    if (spec->rope.scaling == NT_ROPE_NONE) {
        nt_strbuf_adds(s, ",\n  \"rope_scaling\": null");
        return;
    }
    nt_strbuf_addf(s, ",\n  \"rope_scaling\": {\n    \"rope_type\": \"%s\"", types[spec->rope.scaling]);
    const bool is_llama3 = spec->rope.scaling == NT_ROPE_LLAMA3, is_yarn = spec->rope.scaling == NT_ROPE_YARN;
    add_num(s, "factor", spec->rope.factor);
    if (is_llama3) add_num(s, "low_freq_factor", spec->rope.low_freq_factor);
    if (is_llama3) add_num(s, "high_freq_factor", spec->rope.high_freq_factor);
    if (is_yarn) add_num(s, "beta_fast", spec->rope.beta_fast);
    if (is_yarn) add_num(s, "beta_slow", spec->rope.beta_slow);
    if (is_yarn) add_num(s, "attention_factor", spec->rope.attention_factor);
    if (is_yarn) add_bool(s, "truncate", !spec->rope.no_truncate);
    add_int(s, "original_max_position_embeddings", (int64_t)spec->rope.original_max_len);
    nt_strbuf_adds(s, "\n  }");
}

static void add_window(const struct nt_spec *spec, const struct nt_arch *arch, struct nt_strbuf *s) {
    if (!arch->window) return;
    if (spec->window == 0) {
        nt_strbuf_adds(s, ",\n  \"sliding_window\": null");
    } else {
        add_int(s, "sliding_window", spec->window);
        if (arch == &nt_arch_mistral) return;
        add_bool(s, "use_sliding_window", true);
        add_int(s, "max_window_layers", 0); // the layers from here on have it
    }
}

static void add_config(const struct nt_spec *spec, const struct nt_arch *arch, struct nt_strbuf *s) {
    nt_strbuf_addf(s, "{\n  \"architectures\": [\"%s\"],\n  \"model_type\": \"%s\"", arch->hf_class,
                   arch->hf_model_type);
    add_int(s, "hidden_size", spec->d_model);
    add_int(s, "intermediate_size", spec->d_ff);
    add_int(s, "num_hidden_layers", spec->n_layer);
    add_int(s, "num_attention_heads", spec->n_head);
    add_int(s, "num_key_value_heads", spec->n_kv);
    add_int(s, "head_dim", spec->d_head);
    add_int(s, "vocab_size", spec->n_vocab);
    add_int(s, "max_position_embeddings", spec->max_len);
    add_float(s, "rms_norm_eps", spec->norm_eps);
    nt_strbuf_addf(s, ",\n  \"hidden_act\": \"%s\"", spec->act == NT_ACT_SILU ? "silu" : "gelu_pytorch_tanh");
    add_bool(s, "tie_word_embeddings", spec->tied);
    if (arch->attention_bias_key) add_bool(s, "attention_bias", spec->qkv_bias);
    if (arch->mlp_bias_key) add_bool(s, "mlp_bias", spec->mlp_bias);
    add_rope(spec, s);
    add_window(spec, arch, s);
    if (spec->bos_id >= 0) add_int(s, "bos_token_id", spec->bos_id);
    add_eos(spec, s);
    nt_strbuf_adds(s, ",\n  \"torch_dtype\": \"bfloat16\",\n  \"use_cache\": true\n}\n");
}

nt_status nt_spec_write_hf(const struct nt_spec *spec, const float *freq_factors, const char *path,
                           struct nt_strbuf *config, struct nt_strbuf *generation) {
    struct nt_spec s = *spec;
    const struct nt_arch *arch = nt_arch_find(spec->family);
    if (arch == &nt_arch_llama && spec->window > 0) arch = &nt_arch_mistral;
    /* q, k, v and o share one key, if any; qwen2 always has them on q, k and v */
    const bool qkv = arch->attention_bias_key ? spec->qkv_bias == spec->o_bias : spec->qkv_bias == arch->qkv_bias;
    const bool fits = qkv && (arch->attention_bias_key || !spec->o_bias) && (arch->mlp_bias_key || !spec->mlp_bias);
    if (!fits)
        return NT_FAIL(NT_E_UNSUPPORTED,
                       "%s: biases that no config.json of %s can say; use the Hugging Face directory of this model",
                       path, arch->hf_class);
    if (s.rope.scaling == NT_ROPE_FREQ_FACTORS) NT_TRY(recognise(&s, freq_factors, path));
    add_config(&s, arch, config);
    nt_strbuf_adds(generation, "{\n  \"_from_model_config\": true");
    if (s.bos_id >= 0) add_int(generation, "bos_token_id", s.bos_id);
    add_eos(&s, generation);
    nt_strbuf_adds(generation, "\n}\n");
    return NT_OK;
}
