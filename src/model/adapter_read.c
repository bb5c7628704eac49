#include "adapter_io.h"
#include "arch_table.h"
#include "fileio.h"
#include "hash.h"
#include "hf_config.h"
#include "safetensors.h"
#include "tensor_source.h"
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CONFIG = 1 << 20, MAX_NAME = 256 };
static const char weights_file[] = "adapter_model.safetensors";
static const char prefix[] = "base_model.model.";

/* "base_model.model.model.layers.3.mlp.up_proj.lora_A.weight" */
void nt_adapter_tensor_name(const struct nt_spec *spec, int32_t layer, enum nt_linear linear, char part, char *buf,
                            size_t cap) {
    char module[MAX_NAME / 2];
    const enum nt_slot slot = nt_linear_slot(linear);
    nt_slot_name(nt_arch_find(spec->family)->slots[slot].hf, layer, module, sizeof module);
    (void)snprintf(buf, cap, "%s%.*s.lora_%c.weight", prefix, (int)(strlen(module) - strlen(".weight")), module, part);
}

static void tensor_name(const struct nt_spec *spec, int32_t layer, int linear, char part, char buf[MAX_NAME]) {
    nt_adapter_tensor_name(spec, layer, (enum nt_linear)linear, part, buf, MAX_NAME);
}

/* --- adapter_config.json ------------------------------------------------------------------------------------------ */

/* What makes an adapter more than W + s B A. A key counts when it is neither absent, null, false nor empty. */
static const struct {
    const char *key, *what;
} refused[] = {
    {"use_dora",                "DoRA (weight-decomposed LoRA)"     },
    {"modules_to_save",         "whole modules beside the adapter"  },
    {"rank_pattern",            "ranks that differ between modules" },
    {"alpha_pattern",           "alphas that differ between modules"},
    {"lora_bias",               "biases in the adapter"             },
    {"fan_in_fan_out",          "transposed weights"                },
    {"layer_replication",       "replicated layers"                 },
    {"trainable_token_indices", "trained rows of the embedding"     },
    {"target_parameters",       "adapters of bare parameters"       },
    {"alora_invocation_tokens", "activated LoRA"                    },
    {"use_qalora",              "QALoRA"                            },
    {"use_bdlora",              "block-diagonal LoRA"               },
    {"arrow_config",            "Arrow routing"                     },
    {"kasa_config",             "KaSA"                              },
    {"monteclora_config",       "MonteCLoRA"                        },
    {"velora_config",           "VeLoRA"                            },
};

static bool is_on(const struct nt_json *v) {
    switch (nt_json_type(v)) {
    case NT_JSON_NULL:
        return false;
    case NT_JSON_BOOL:
        return nt_json_bool(v, true);
    case NT_JSON_ARRAY:
    case NT_JSON_OBJECT:
        return nt_json_len(v) > 0;
    case NT_JSON_INT:
    case NT_JSON_REAL:
    case NT_JSON_STRING:
        return true;
    }
    return true;
}

/* Inits that only set A and B; the others (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA) take something from the base's weights,
 * which this adapter alone does not say. */
static bool is_plain_init(const char *name) {
    static const char *const plain[] = {"gaussian", "eva", "orthogonal", "mica"};
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (strcmp(name, plain[i]) == 0) return true;
    return false;
}

static nt_status check_kind(const struct nt_json *config, const char *path) {
    const char *type = nt_json_str(nt_json_get(config, "peft_type"), NULL);
    if (!type || strcmp(type, "LORA") != 0)
        return NT_FAIL(NT_E_UNSUPPORTED, "%s: peft_type is %s, expected LORA", path, type ? type : "missing");
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        if (!is_on(nt_hf_get(config, refused[i].key))) continue;
        return NT_FAIL(NT_E_UNSUPPORTED,
                       "%s: \"%s\" is set: %s; only plain LoRA is read, so merge this adapter with the program that "
                       "made it",
                       path, refused[i].key, refused[i].what);
    }
    const char *bias = nt_json_str(nt_hf_get(config, "bias"), NULL);
    if (bias && strcmp(bias, "none") != 0)
        return NT_FAIL(NT_E_UNSUPPORTED, "%s: bias is \"%s\", expected \"none\": trained biases are not read", path,
                       bias);
    const char *init = nt_json_str(nt_hf_get(config, "init_lora_weights"), NULL);
    if (init && !is_plain_init(init))
        return NT_FAIL(NT_E_UNSUPPORTED,
                       "%s: init_lora_weights is \"%s\", which changes the base's weights; save the adapter with "
                       "path_initial_model_for_weight_conversion",
                       path, init);
    return NT_OK;
}

struct wanted {
    int32_t r;
    double alpha, dropout;
    bool rslora;
    bool every_layer; /* the config names modules and no layers: each layer has them all */
    uint32_t targets; /* of the config; 0: it gives a pattern, the tensors decide */
    bool some_layers; /* the config names layers: */
    bool layers[NT_MAX_LAYERS];
    char base[sizeof((struct nt_adapter *)0)->base];
};

/* Entries are suffixes of module names: "q_proj" or "self_attn.q_proj". */
static nt_status read_targets(const struct nt_json *config, const char *path, struct wanted *w) {
    const struct nt_json *list = nt_hf_get(config, "target_modules");
    if (nt_json_is(list, NT_JSON_STRING)) return NT_OK; // "all-linear" or a regular expression
    if (nt_json_len(list) == 0)
        return NT_FAIL(NT_E_DATA, "%s: target_modules is missing, expected a list of module names", path);
    for (size_t i = 0; i < nt_json_len(list); i++) {
        const char *name = nt_json_str(nt_json_at(list, i), NULL);
        if (!name) return NT_FAIL(NT_E_DATA, "%s: target_modules[%zu] is no string", path, i);
        const char *dot = strrchr(name, '.');
        uint32_t bits = 0;
        if (nt_adapter_targets(dot ? dot + 1 : name, &bits) != NT_OK)
            return NT_FAIL(NT_E_UNSUPPORTED,
                           "%s: target_modules has \"%.100s\"; adapters of q_proj, k_proj, v_proj, o_proj, gate_proj, "
                           "up_proj and down_proj are read",
                           path, name);
        w->targets |= bits;
    }
    w->every_layer = !is_on(nt_hf_get(config, "layers_to_transform")) && !is_on(nt_hf_get(config, "layers_pattern")) &&
                     !is_on(nt_hf_get(config, "exclude_modules"));
    return NT_OK;
}

/* layers_to_transform: a layer, a list of them, or all. */
static void read_layers(const struct nt_json *config, struct wanted *w) {
    const struct nt_json *v = nt_hf_get(config, "layers_to_transform");
    const bool list = nt_json_is(v, NT_JSON_ARRAY);
    const size_t n = list ? nt_json_len(v) : nt_json_is(v, NT_JSON_INT) ? 1 : 0;
    w->some_layers = n > 0;
    for (size_t i = 0; i < n; i++) {
        const int64_t layer = nt_json_int(list ? nt_json_at(v, i) : v, -1);
        if (layer >= 0 && layer < NT_MAX_LAYERS) w->layers[layer] = true;
    }
}

static nt_status read_config(const char *dir, struct wanted *w) {
    char path[PATH_MAX];
    *w = (struct wanted){0};
    NT_TRY(nt_path_join(path, sizeof path, dir, "adapter_config.json"));
    if (!nt_file_exists(path))
        return NT_FAIL(NT_E_NOINPUT, "%s: not found; an adapter is a directory with adapter_config.json and %s", path,
                       weights_file);
    struct nt_json *config = NULL;
    nt_status st = NT_OK;
    NT_TRY(nt_json_parse_file(path, MAX_CONFIG, &config));
    NT_TRY_GOTO(st, release, check_kind(config, path));
    NT_TRY_GOTO(st, release, nt_hf_int(config, path, "r", 1, NT_ADAPTER_MAX_RANK, -1, &w->r));
    NT_TRY_GOTO(st, release, nt_hf_num(config, path, "lora_alpha", 1e-6, 1e9, NAN, &w->alpha));
    NT_TRY_GOTO(st, release, nt_hf_num(config, path, "lora_dropout", 0, 1, 0, &w->dropout));
    NT_TRY_GOTO(st, release, nt_hf_bool(config, path, "use_rslora", false, &w->rslora));
    NT_TRY_GOTO(st, release, read_targets(config, path, w));
    read_layers(config, w);
    const char *base = nt_json_str(nt_hf_get(config, "base_model_name_or_path"), NULL);
    (void)snprintf(w->base, sizeof w->base, "%s", base ? base : "");
release:
    nt_json_free(config);
    return st;
}

/* --- adapter_model.safetensors ------------------------------------------------------------------------------------ */

static nt_status open_weights(const char *dir, struct nt_tensor_source **src) {
    char path[PATH_MAX], pickle[PATH_MAX];
    NT_TRY(nt_path_join(path, sizeof path, dir, weights_file));
    NT_TRY(nt_path_join(pickle, sizeof pickle, dir, "adapter_model.bin"));
    if (!nt_file_exists(path) && nt_file_exists(pickle))
        return NT_FAIL(NT_E_UNSUPPORTED,
                       "%s is a pickle, which can run code when read; save the adapter again: "
                       "save_pretrained(DIR, safe_serialization=True)",
                       pickle);
    if (!nt_file_exists(path)) return NT_FAIL(NT_E_NOINPUT, "%s: not found", path);
    return nt_tensor_source_open_file(dir, weights_file, src);
}

/* A or B of one linear: NULL when the file has none; its shape is checked. */
static nt_status find_part(const struct nt_tensor_source *src, const struct nt_spec *spec, const struct wanted *w,
                           int32_t layer, int linear, char part, const struct nt_tensor_info **out) {
    char name[MAX_NAME], shape[160];
    tensor_name(spec, layer, linear, part, name);
    const struct nt_tensor_info *t = nt_tensor_source_find(src, name);
    *out = t;
    if (!t) return NT_OK;
    const int64_t rows = part == 'A' ? w->r : nt_linear_out(spec, (enum nt_linear)linear);
    const int64_t cols = part == 'A' ? nt_linear_in(spec, (enum nt_linear)linear) : w->r;
    if (t->n_dims != 2 || t->shape[0] != rows || t->shape[1] != cols)
        return NT_FAIL(
            NT_E_DATA,
            "%s: tensor %s is %s, expected [%lld, %lld] for rank %d of this base model; was it trained on another?",
            src->files[0].path, name, nt_tensor_describe(t, shape, sizeof shape), (long long)rows, (long long)cols,
            w->r);
    if (t->dtype != NT_WDTYPE_F32 && t->dtype != NT_WDTYPE_BF16 && t->dtype != NT_WDTYPE_F16)
        return NT_FAIL(NT_E_UNSUPPORTED, "%s: tensor %s is %s, expected F32, F16 or BF16", src->files[0].path, name,
                       nt_tensor_describe(t, shape, sizeof shape));
    return NT_OK;
}

/* A tensor that is none of the pairs: the error says which. */
static nt_status find_stranger(const struct nt_tensor_source *src, const struct nt_spec *spec) {
    for (int64_t i = 0; i < src->n_tensors; i++) {
        bool known = false;
        char name[MAX_NAME];
        for (int32_t k = 0; k < 2 * spec->n_layer * NT_LINEAR_COUNT && !known; k++) {
            tensor_name(spec, k / 2 / NT_LINEAR_COUNT, k / 2 % NT_LINEAR_COUNT, k % 2 ? 'B' : 'A', name);
            known = strcmp(name, src->tensors[i].name) == 0;
        }
        if (known) continue;
        return NT_FAIL(NT_E_UNSUPPORTED,
                       "%s: tensor %.200s is no LoRA matrix of the attention or MLP of this %s model of %d layers; "
                       "expected names like %s",
                       src->files[0].path, src->tensors[i].name, spec->family, spec->n_layer, name);
    }
    return NT_OK;
}

/* Which linears each layer has: each[n_layer]. */
static nt_status survey(const struct nt_tensor_source *src, const struct nt_spec *spec, const struct wanted *w,
                        uint32_t *each) {
    int64_t n_found = 0;
    for (int32_t i = 0; i < spec->n_layer * NT_LINEAR_COUNT; i++) {
        const int32_t layer = i / NT_LINEAR_COUNT, linear = i % NT_LINEAR_COUNT;
        const struct nt_tensor_info *a = NULL, *b = NULL;
        char name[MAX_NAME];
        if (linear == 0) each[layer] = 0;
        NT_TRY(find_part(src, spec, w, layer, linear, 'A', &a));
        NT_TRY(find_part(src, spec, w, layer, linear, 'B', &b));
        const bool due = w->every_layer && (w->targets & 1u << linear) != 0;
        if (!a != !b || (due && !a)) {
            tensor_name(spec, layer, linear, a ? 'B' : 'A', name);
            return NT_FAIL(NT_E_DATA, "%s: tensor %s is missing; the adapter is not whole, copy it again",
                           src->files[0].path, name);
        }
        if (!a) continue;
        if ((w->targets && !(w->targets & 1u << linear)) || (w->some_layers && !w->layers[layer])) {
            tensor_name(spec, layer, linear, 'A', name);
            return NT_FAIL(NT_E_DATA,
                           "%s: tensor %s is not of the target_modules and layers_to_transform of adapter_config.json, "
                           "and PEFT would leave it out; name it there, or copy both files again",
                           src->files[0].path, name);
        }
        n_found += 2;
        each[layer] |= 1u << linear;
    }
    if (n_found != src->n_tensors) NT_TRY(find_stranger(src, spec));
    if (n_found == 0) return NT_FAIL(NT_E_DATA, "%s: no tensors, expected an adapter", src->files[0].path);
    return NT_OK;
}

static nt_status read_pairs(const struct nt_tensor_source *src, const struct nt_spec *spec,
                            const struct nt_adapter *a) {
    for (int32_t i = 0; i < a->n_layer * NT_LINEAR_COUNT; i++) {
        const struct nt_lora *l = &a->lora[i];
        if (!l->a) continue;
        char name[MAX_NAME];
        tensor_name(spec, i / NT_LINEAR_COUNT, i % NT_LINEAR_COUNT, 'A', name);
        NT_TRY(nt_tensor_source_read(src, nt_tensor_source_find(src, name), 0, a->r, NT_READ_F32, l->a));
        tensor_name(spec, i / NT_LINEAR_COUNT, i % NT_LINEAR_COUNT, 'B', name);
        NT_TRY(nt_tensor_source_read(src, nt_tensor_source_find(src, name), 0, l->out, NT_READ_F32, l->b));
    }
    return NT_OK;
}

static nt_status read_digest(const struct nt_json *meta, const char *path, const char *key, bool *has, uint8_t *out) {
    size_t len = 0;
    const char *hex = nt_json_str(nt_json_get(meta, key), &len);
    *has = hex != NULL;
    if (!hex) return NT_OK;
    bool ok = len == 2 * NT_SHA256_BYTES;
    for (size_t i = 0; ok && i < len; i++) {
        const char *digits = "0123456789abcdef", *d = strchr(digits, hex[i]);
        ok = d != NULL && *d != '\0';
        if (ok) out[i / 2] = (uint8_t)(i % 2 ? out[i / 2] | (d - digits) : (d - digits) << 4);
    }
    if (ok) return NT_OK;
    return NT_FAIL(NT_E_DATA, "%s: __metadata__ key %s is \"%.80s\", expected 64 hexadecimal digits", path, key, hex);
}

static nt_status read_digests(const struct nt_tensor_source *src, struct nt_adapter *a) {
    struct nt_json *header = NULL;
    const char *path = src->files[0].path;
    NT_TRY(nt_safetensors_read_header(path, &header));
    const struct nt_json *meta = nt_json_get(header, "__metadata__");
    nt_status st = read_digest(meta, path, NT_ADAPTER_BASE_KEY, &a->has_base, a->base_digest);
    if (st == NT_OK) st = read_digest(meta, path, NT_ADAPTER_TOKENIZER_KEY, &a->has_tokenizer, a->tokenizer_digest);
    nt_json_free(header);
    return st;
}

nt_status nt_adapter_read(const char *dir, const struct nt_spec *spec, struct nt_adapter **out) {
    struct wanted w;
    uint32_t each[NT_MAX_LAYERS];
    struct nt_tensor_source *src = NULL;
    struct nt_adapter *a = NULL;
    nt_status st = NT_OK;
    *out = NULL;
    NT_TRY(read_config(dir, &w));
    NT_TRY(open_weights(dir, &src));
    NT_TRY_GOTO(st, close, survey(src, spec, &w, each));
    NT_TRY_GOTO(st, close, nt_adapter_new_at(spec, w.r, w.alpha, w.rslora, each, &a));
    NT_TRY_GOTO(st, close, read_pairs(src, spec, a));
    NT_TRY_GOTO(st, close, read_digests(src, a));
    a->dropout = w.dropout;
    memcpy(a->base, w.base, sizeof a->base);
    *out = a;
    a = NULL;
close:
    nt_adapter_free(a);
    nt_tensor_source_close(src);
    return st;
}

nt_status nt_adapter_open(const char *dir, struct nt_adapter_facts *facts, struct nt_tensor_source **src) {
    struct wanted w;
    NT_TRY(read_config(dir, &w));
    *facts = (struct nt_adapter_facts){.r = w.r, .alpha = w.alpha, .dropout = w.dropout};
    const struct nt_adapter scaled = {.r = w.r, .alpha = w.alpha, .rslora = w.rslora};
    facts->scale = nt_adapter_scale(&scaled);
    memcpy(facts->base, w.base, sizeof facts->base);
    return open_weights(dir, src);
}

/* --- the base ----------------------------------------------------------------------------------------------------- */

static nt_status compare(const char *dir, const char *what, const uint8_t *trained, const uint8_t *here) {
    char want[NT_SHA256_HEX], have[NT_SHA256_HEX];
    if (memcmp(trained, here, NT_SHA256_BYTES) == 0) return NT_OK;
    nt_hex(trained, NT_SHA256_BYTES, want);
    nt_hex(here, NT_SHA256_BYTES, have);
    return NT_FAIL(NT_E_CONFIG,
                   "%s: this adapter was trained on another %s: sha256 %.16s... there, %.16s... here; use the model "
                   "that its README.md names",
                   dir, what, want, have);
}

nt_status nt_adapter_check_base(const struct nt_adapter *a, const char *dir, const uint8_t base_digest[32],
                                const uint8_t tokenizer_digest[32]) {
    if (a->has_base && base_digest) NT_TRY(compare(dir, "base model", a->base_digest, base_digest));
    if (a->has_tokenizer && tokenizer_digest) NT_TRY(compare(dir, "tokenizer", a->tokenizer_digest, tokenizer_digest));
    return NT_OK;
}
