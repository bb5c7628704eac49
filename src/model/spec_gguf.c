#include "spec_gguf.h"
#include "arch_table.h"
#include "safetensors.h"
#include "tensor_source.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

struct gguf_meta {
    const struct nt_gguf *gguf;
    const char *path;
    char arch[64];
};

/* "llama.embedding_length" from "embedding_length". */
static const char *gguf_key(const struct gguf_meta *m, const char *key, char *buf, size_t cap) {
    snprintf(buf, cap, "%s.%s", m->arch, key);
    return buf;
}

static nt_status gguf_int(const struct gguf_meta *m, const char *suffix, int64_t min, int64_t max, int64_t def,
                          int32_t *out) {
    char key[160];
    gguf_key(m, suffix, key, sizeof key);
    const enum nt_gguf_type type = nt_gguf_type(m->gguf, key);
    if (type == NT_GGUF_NONE && def >= 0) {
        *out = (int32_t)def;
        return NT_OK;
    }
    const int64_t x = nt_gguf_i64(m->gguf, key, INT64_MIN);
    if (x < min || x > max)
        return NT_FAIL(NT_E_DATA, "%s: metadata key %s is %s, expected an integer from %lld to %lld", m->path, key,
                       type == NT_GGUF_NONE ? "missing"
                       : x == INT64_MIN     ? nt_gguf_type_name(type)
                                            : "out of range",
                       (long long)min, (long long)max);
    *out = (int32_t)x;
    return NT_OK;
}

static nt_status gguf_num(const struct gguf_meta *m, const char *suffix, double min, double max, double def,
                          double *out) {
    char key[160];
    gguf_key(m, suffix, key, sizeof key);
    const enum nt_gguf_type type = nt_gguf_type(m->gguf, key);
    if (type == NT_GGUF_NONE && !isnan(def)) {
        *out = def;
        return NT_OK;
    }
    const double x = nt_gguf_f64(m->gguf, key, NAN);
    if (!(x >= min && x <= max))
        return NT_FAIL(NT_E_DATA, "%s: metadata key %s is %s, expected a number from %g to %g", m->path, key,
                       type == NT_GGUF_NONE ? "missing"
                       : isnan(x)           ? nt_gguf_type_name(type)
                                            : "out of range",
                       min, max);
    *out = x;
    return NT_OK;
}

static nt_status gguf_find_arch(struct gguf_meta *m, const struct nt_arch **out) {
    size_t len = 0;
    const char *name = nt_gguf_str(m->gguf, "general.architecture", &len);
    if (!name)
        return NT_FAIL(NT_E_DATA, "%s: metadata key general.architecture is missing, expected a string", m->path);
    snprintf(m->arch, sizeof m->arch, "%.*s", (int)(len < 60 ? len : 60), name);
    int32_t n = 0;
    const struct nt_arch *const *table = nt_arch_table(&n);
    for (int32_t i = 0; i < n; i++) {
        if (!table[i]->gguf || strcmp(m->arch, table[i]->gguf) != 0) continue;
        *out = table[i];
        return NT_OK;
    }
    char list[512];
    return NT_FAIL(NT_E_UNSUPPORTED, "%s: general.architecture \"%s\" is not known, expected one of %s", m->path,
                   m->arch, nt_arch_list(list, sizeof list, true));
}

/* Mixtral is "llama" with experts. */
static nt_status gguf_refuse_experts(const struct gguf_meta *m) {
    int32_t n = 0;
    NT_TRY(gguf_int(m, "expert_count", 0, 1 << 20, 0, &n));
    if (n == 0) return NT_OK;
    return NT_FAIL(NT_E_UNSUPPORTED, "%s: a mixture of %d experts (%s.expert_count), expected a dense model", m->path,
                   n, m->arch);
}

static nt_status gguf_dims(const struct nt_tensor_source *src, const struct gguf_meta *m, const struct nt_arch *arch,
                           struct nt_spec *spec) {
    NT_TRY(gguf_int(m, "block_count", 1, NT_MAX_LAYERS, -1, &spec->n_layer));
    NT_TRY(gguf_int(m, "embedding_length", 2, 1 << 20, -1, &spec->d_model));
    NT_TRY(gguf_int(m, "feed_forward_length", 1, 1 << 22, -1, &spec->d_ff));
    NT_TRY(gguf_int(m, "attention.head_count", 1, NT_MAX_HEADS, -1, &spec->n_head));
    NT_TRY(gguf_int(m, "attention.head_count_kv", 1, NT_MAX_HEADS, spec->n_head, &spec->n_kv));
    NT_TRY(gguf_int(m, "attention.key_length", 2, NT_MAX_D_HEAD, spec->d_model / spec->n_head, &spec->d_head));
    int32_t d_value = 0, d_rope = 0;
    NT_TRY(gguf_int(m, "attention.value_length", 2, NT_MAX_D_HEAD, spec->d_head, &d_value));
    NT_TRY(gguf_int(m, "rope.dimension_count", 1, NT_MAX_D_HEAD, spec->d_head, &d_rope));
    if (d_value != spec->d_head || d_rope != spec->d_head)
        return NT_FAIL(NT_E_UNSUPPORTED,
                       "%s: key length %d, value length %d and rope.dimension_count %d, expected three equal numbers",
                       m->path, spec->d_head, d_value, d_rope);
    const struct nt_tensor_info *embed = nt_tensor_source_find(src, arch->slots[NT_SLOT_EMBED].gguf);
    const int64_t rows = embed && embed->n_dims == 2 ? embed->shape[0] : -1;
    NT_TRY(gguf_int(m, "vocab_size", 1, 1 << 26, rows <= 1 << 26 ? rows : -1, &spec->n_vocab));
    NT_TRY(gguf_int(m, "context_length", 1, 1 << 30, -1, &spec->max_len));
    double eps = 0;
    NT_TRY(gguf_num(m, "attention.layer_norm_rms_epsilon", 0, 1, NAN, &eps));
    spec->norm_eps = (float)eps;
    return NT_OK;
}

static nt_status gguf_rope(const struct nt_tensor_source *src, const struct gguf_meta *m, const struct nt_arch *arch,
                           struct nt_spec *spec) {
    NT_TRY(gguf_num(m, "rope.freq_base", 1, 1e12, 10000, &spec->rope.theta));
    char key[160];
    size_t len = 0;
    const char *type = nt_gguf_str(m->gguf, gguf_key(m, "rope.scaling.type", key, sizeof key), &len);
    const bool factors = nt_tensor_source_find(src, arch->slots[NT_SLOT_ROPE_FREQS].gguf) != NULL;
    if (factors) spec->rope.scaling = NT_ROPE_FREQ_FACTORS;
    if (!type || (len == 4 && !memcmp(type, "none", 4))) return NT_OK;
    const bool linear = len == 6 && !memcmp(type, "linear", 6), yarn = len == 4 && !memcmp(type, "yarn", 4);
    if ((!linear && !yarn) || factors)
        return NT_FAIL(NT_E_UNSUPPORTED, "%s: %s is \"%.*s\"%s, expected none, linear or yarn", m->path, key,
                       (int)(len < 40 ? len : 40), type, factors ? " beside rope_freqs.weight" : "");
    spec->rope.scaling = linear ? NT_ROPE_LINEAR : NT_ROPE_YARN;
    NT_TRY(gguf_num(m, "rope.scaling.factor", 1, 1e6, NAN, &spec->rope.factor));
    NT_TRY(gguf_num(m, "rope.scaling.original_context_length", 1, 1e9, spec->max_len, &spec->rope.original_max_len));
    if (linear) return NT_OK;
    NT_TRY(gguf_num(m, "rope.scaling.yarn_beta_fast", 0.001, 1e6, 32, &spec->rope.beta_fast));
    NT_TRY(gguf_num(m, "rope.scaling.yarn_beta_slow", 0.001, 1e6, 1, &spec->rope.beta_slow));
    /* attn_factor comes on top of YaRN's own 0.1 ln(factor) + 1 in this container */
    double extra = 1;
    NT_TRY(gguf_num(m, "rope.scaling.attn_factor", 0, 1e6, 1, &extra));
    spec->rope.attention_factor = extra * (0.1 * log(spec->rope.factor) + 1);
    return NT_OK;
}

static bool gguf_has(const struct nt_tensor_source *src, const char *name) {
    return nt_tensor_source_find(src, name) != NULL;
}

nt_status nt_spec_read_gguf(const struct nt_tensor_source *src, struct nt_spec *spec) {
    struct gguf_meta m = {.gguf = src->gguf, .path = src->path};
    const struct nt_arch *arch = NULL;
    if (nt_gguf_is_adapter(src->gguf)) return nt_refuse_adapter(src->path);
    NT_TRY(gguf_find_arch(&m, &arch));
    snprintf(spec->family, sizeof spec->family, "%s", arch->family);
    NT_TRY(gguf_refuse_experts(&m));
    NT_TRY(gguf_dims(src, &m, arch, spec));
    NT_TRY(gguf_rope(src, &m, arch, spec));
    spec->act = NT_ACT_SILU;
    spec->qk_norm = arch->qk_norm;
    spec->qk_interleaved = arch->gguf_interleaved;
    /* the container has no keys for these: the tensors themselves say it */
    spec->tied = !gguf_has(src, arch->slots[NT_SLOT_HEAD].gguf);
    spec->qkv_bias = arch->qkv_bias || gguf_has(src, "blk.0.attn_q.bias");
    spec->o_bias = gguf_has(src, "blk.0.attn_output.bias");
    spec->mlp_bias = gguf_has(src, "blk.0.ffn_gate.bias");
    NT_TRY(gguf_int(&m, "attention.sliding_window", 0, INT32_MAX, 0, &spec->window));
    for (int32_t i = 0; i < spec->n_layer; i++) spec->layer_window[i] = spec->window > 0;
    spec->bos_id = (int32_t)nt_gguf_i64(src->gguf, "tokenizer.ggml.bos_token_id", -1);
    nt_spec_add_eos(spec, nt_gguf_i64(src->gguf, "tokenizer.ggml.eos_token_id", -1));
    nt_spec_add_eos(spec, nt_gguf_i64(src->gguf, "tokenizer.ggml.eot_token_id", -1));
    nt_spec_add_eos(spec, nt_gguf_i64(src->gguf, "tokenizer.ggml.eom_token_id", -1));
    return NT_OK;
}
