#include "spec_hf.h"
#include "arch_table.h"
#include "fileio.h"
#include "hf_config.h"
#include "tensor_source.h"
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { HF_MAX_CONFIG = 16 << 20 };

static nt_status hf_find_arch(const struct nt_json *config, const char *origin, const struct nt_arch **out) {
    const char *class = nt_json_str(nt_json_at(nt_json_get(config, "architectures"), 0), NULL);
    const char *type = nt_json_str(nt_json_get(config, "model_type"), NULL);
    int32_t n = 0;
    const struct nt_arch *const *table = nt_arch_table(&n);
    for (int32_t i = 0; i < n; i++) {
        /* the class decides: LlamaForSequenceClassification has model_type llama too */
        const bool hit = class ? !strcmp(class, table[i]->hf_class) : type && !strcmp(type, table[i]->hf_model_type);
        if (!hit) continue;
        *out = table[i];
        return NT_OK;
    }
    char list[512];
    return NT_FAIL(NT_E_UNSUPPORTED, "%s: model family %s is not known, expected one of %s", origin,
                   class  ? class
                   : type ? type
                          : "(no \"architectures\", no \"model_type\")",
                   nt_arch_list(list, sizeof list, false));
}

static nt_status hf_yarn(const struct nt_json *rope, const char *origin, struct nt_spec *spec) {
    NT_TRY(nt_hf_num(rope, origin, "beta_fast", 0.001, 1e6, 32, &spec->rope.beta_fast));
    NT_TRY(nt_hf_num(rope, origin, "beta_slow", 0.001, 1e6, 1, &spec->rope.beta_slow));
    bool truncate = true;
    NT_TRY(nt_hf_bool(rope, origin, "truncate", true, &truncate));
    spec->rope.no_truncate = !truncate;
    /* Peng et al. 2023 (YaRN), eq. 22: sqrt(1/t) = 0.1 ln(s) + 1; mscale generalizes it (DeepSeek) */
    double mscale = 0, mscale_all = 0;
    NT_TRY(nt_hf_num(rope, origin, "mscale", 0, 1e6, 0, &mscale));
    NT_TRY(nt_hf_num(rope, origin, "mscale_all_dim", 0, 1e6, 0, &mscale_all));
    const double ln = spec->rope.factor > 1 ? log(spec->rope.factor) : 0;
    const double inferred =
        mscale > 0 && mscale_all > 0 ? (0.1 * mscale * ln + 1) / (0.1 * mscale_all * ln + 1) : 0.1 * ln + 1;
    return nt_hf_num(rope, origin, "attention_factor", 0, 1e6, inferred, &spec->rope.attention_factor);
}

/* Both spellings: rope_parameters {rope_theta, rope_type, ...} of transformers 5, rope_theta + rope_scaling before. */
static nt_status hf_rope(const struct nt_json *config, const char *origin, struct nt_spec *spec) {
    const struct nt_json *rope = nt_hf_get(config, "rope_parameters");
    if (!rope) rope = nt_hf_get(config, "rope_scaling");
    if (nt_hf_get(rope, "full_attention") || nt_hf_get(rope, "sliding_attention"))
        return NT_FAIL(NT_E_UNSUPPORTED, "%s: rope parameters per layer type, expected one set for all layers", origin);
    const struct nt_json *holder = nt_hf_get(rope, "rope_theta") ? rope : config;
    NT_TRY(nt_hf_num(holder, origin, "rope_theta", 1, 1e12, 10000, &spec->rope.theta));
    double partial = 1;
    NT_TRY(nt_hf_num(config, origin, "partial_rotary_factor", 0, 1, 1, &partial));
    NT_TRY(nt_hf_num(rope, origin, "partial_rotary_factor", 0, 1, partial, &partial));
    if (partial < 1)
        return NT_FAIL(NT_E_UNSUPPORTED, "%s: partial_rotary_factor is %g, expected 1 (all of the head rotated)",
                       origin, partial);
    const char *type = nt_json_str(nt_hf_get(rope, "rope_type"), NULL);
    if (!type) type = nt_json_str(nt_hf_get(rope, "type"), NULL);
    if (!type || !strcmp(type, "default")) return NT_OK;
    if (!strcmp(type, "linear"))
        spec->rope.scaling = NT_ROPE_LINEAR;
    else if (!strcmp(type, "llama3"))
        spec->rope.scaling = NT_ROPE_LLAMA3;
    else if (!strcmp(type, "yarn"))
        spec->rope.scaling = NT_ROPE_YARN;
    else
        return NT_FAIL(NT_E_UNSUPPORTED, "%s: rope type \"%s\", expected default, linear, llama3 or yarn", origin,
                       type);
    NT_TRY(nt_hf_num(rope, origin, "factor", 1, 1e6, NAN, &spec->rope.factor));
    holder = nt_hf_get(config, "original_max_position_embeddings") ? config : rope;
    NT_TRY(nt_hf_num(holder, origin, "original_max_position_embeddings", 1, 1e9, spec->max_len,
                     &spec->rope.original_max_len));
    if (spec->rope.scaling == NT_ROPE_YARN) return hf_yarn(rope, origin, spec);
    if (spec->rope.scaling != NT_ROPE_LLAMA3) return NT_OK;
    NT_TRY(nt_hf_num(rope, origin, "low_freq_factor", 1e-6, 1e6, NAN, &spec->rope.low_freq_factor));
    NT_TRY(nt_hf_num(rope, origin, "high_freq_factor", 1e-6, 1e6, NAN, &spec->rope.high_freq_factor));
    if (spec->rope.high_freq_factor <= spec->rope.low_freq_factor)
        return NT_FAIL(NT_E_DATA, "%s: high_freq_factor %g, expected more than low_freq_factor %g", origin,
                       spec->rope.high_freq_factor, spec->rope.low_freq_factor);
    return NT_OK;
}

static void hf_eos(const struct nt_json *config, struct nt_spec *spec) {
    const struct nt_json *eos = nt_hf_get(config, "eos_token_id");
    nt_spec_add_eos(spec, nt_json_int(eos, -1));
    for (size_t i = 0; i < nt_json_len(eos); i++) nt_spec_add_eos(spec, nt_json_int(nt_json_at(eos, i), -1));
}

static nt_status hf_dims(const struct nt_json *config, const char *origin, const struct nt_arch *arch,
                         struct nt_spec *spec) {
    NT_TRY(nt_hf_int(config, origin, "num_hidden_layers", 1, NT_MAX_LAYERS, -1, &spec->n_layer));
    NT_TRY(nt_hf_int(config, origin, "hidden_size", 2, 1 << 20, -1, &spec->d_model));
    NT_TRY(nt_hf_int(config, origin, "intermediate_size", 1, 1 << 22, -1, &spec->d_ff));
    NT_TRY(nt_hf_int(config, origin, "num_attention_heads", 1, NT_MAX_HEADS, -1, &spec->n_head));
    NT_TRY(nt_hf_int(config, origin, "num_key_value_heads", 1, NT_MAX_HEADS, spec->n_head, &spec->n_kv));
    const int32_t d_head = arch->default_d_head ? arch->default_d_head : spec->d_model / spec->n_head;
    NT_TRY(nt_hf_int(config, origin, "head_dim", 2, NT_MAX_D_HEAD, d_head, &spec->d_head));
    NT_TRY(nt_hf_int(config, origin, "vocab_size", 1, 1 << 26, -1, &spec->n_vocab));
    NT_TRY(nt_hf_int(config, origin, "max_position_embeddings", 1, 1 << 30, -1, &spec->max_len));
    double eps = 0;
    NT_TRY(nt_hf_num(config, origin, "rms_norm_eps", 0, 1, 1e-6, &eps));
    spec->norm_eps = (float)eps;
    return NT_OK;
}

static nt_status hf_flags(const struct nt_tensor_source *src, const struct nt_json *config, const char *origin,
                          const struct nt_arch *arch, struct nt_spec *spec) {
    const struct nt_json *act = nt_hf_get(config, "hidden_act");
    if (!act) act = nt_hf_get(config, "hidden_activation");
    const char *name = act ? nt_json_str(act, NULL) : "silu";
    if (name && (!strcmp(name, "silu") || !strcmp(name, "swish")))
        spec->act = NT_ACT_SILU;
    else if (name && (!strcmp(name, "gelu_pytorch_tanh") || !strcmp(name, "gelu_new")))
        spec->act = NT_ACT_GELU_TANH;
    else
        return NT_FAIL(NT_E_UNSUPPORTED, "%s: hidden_act is %s, expected silu or gelu_pytorch_tanh", origin,
                       name ? name : nt_json_type_name(act));
    bool bias = false;
    NT_TRY(nt_hf_bool(config, origin, "attention_bias", false, &bias));
    spec->qkv_bias = arch->qkv_bias || (arch->attention_bias_key && bias);
    spec->o_bias = arch->attention_bias_key && bias;
    NT_TRY(nt_hf_bool(config, origin, "mlp_bias", false, &bias));
    spec->mlp_bias = arch->mlp_bias_key && bias;
    spec->qk_norm = arch->qk_norm;
    const bool no_head = !nt_tensor_source_find(src, arch->slots[NT_SLOT_HEAD].hf);
    return nt_hf_bool(config, origin, "tie_word_embeddings", no_head, &spec->tied);
}

static nt_status hf_generation_config(const char *dir, struct nt_spec *spec) {
    char path[PATH_MAX];
    NT_TRY(nt_path_join(path, sizeof path, dir, "generation_config.json"));
    if (!nt_file_exists(path)) return NT_OK;
    struct nt_json *doc = NULL;
    NT_TRY(nt_json_parse_file(path, HF_MAX_CONFIG, &doc));
    hf_eos(doc, spec);
    nt_json_free(doc);
    return NT_OK;
}

static nt_status hf_read_config(const struct nt_tensor_source *src, const struct nt_json *config, const char *origin,
                                struct nt_spec *spec) {
    if (!nt_json_is(config, NT_JSON_OBJECT))
        return NT_FAIL(NT_E_DATA, "%s: %s at the top, expected an object", origin, nt_json_type_name(config));
    const struct nt_arch *arch = NULL;
    NT_TRY(hf_find_arch(config, origin, &arch));
    snprintf(spec->family, sizeof spec->family, "%s", arch->family);
    const struct nt_json *quant = nt_hf_get(config, "quantization_config");
    if (quant) {
        const char *method = nt_json_str(nt_json_get(quant, "quant_method"), NULL);
        return NT_FAIL(NT_E_UNSUPPORTED,
                       "%s: quantization_config (%s): quantized safetensors are not read; use the F32, F16 or BF16 "
                       "model, or a GGUF file",
                       origin, method ? method : "no quant_method");
    }
    NT_TRY(hf_dims(config, origin, arch, spec));
    NT_TRY(hf_flags(src, config, origin, arch, spec));
    NT_TRY(hf_rope(config, origin, spec));
    if (arch->window) NT_TRY(arch->window(config, origin, spec));
    spec->bos_id = (int32_t)nt_json_int(nt_hf_get(config, "bos_token_id"), -1);
    hf_eos(config, spec);
    return NT_OK;
}

nt_status nt_spec_read_hf(const struct nt_tensor_source *src, struct nt_spec *spec) {
    char path[PATH_MAX];
    NT_TRY(nt_path_join(path, sizeof path, src->path, "config.json"));
    struct nt_json *config = NULL;
    NT_TRY(nt_json_parse_file(path, HF_MAX_CONFIG, &config));
    const nt_status st = hf_read_config(src, config, path, spec);
    nt_json_free(config);
    NT_TRY(st);
    return hf_generation_config(src->path, spec);
}
