#include "adapter_io.h"
#include "arch_table.h"
#include "fileio.h"
#include "gguf_write.h"
#include "hash.h"
#include "outdir.h"
#include "strbuf.h"
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_NAME = 192 };

/* The tensors of a file in the order of the flat parameters: 2 entries per pair, A then B. */
struct table {
    struct nt_tensor_entry *entries;
    char (*names)[MAX_NAME];
    int64_t n;
};

static void table_release(struct table *t) {
    free(t->entries);
    free(t->names);
}

/* "blk.3.ffn_up.weight.lora_a" */
static void gguf_name(const struct nt_spec *spec, int32_t layer, enum nt_linear linear, char part, char *buf,
                      size_t cap) {
    char base[MAX_NAME / 2];
    const struct nt_arch *arch = nt_arch_in_gguf(nt_arch_find(spec->family));
    nt_slot_name(arch->slots[nt_linear_slot(linear)].gguf, layer, base, sizeof base);
    (void)snprintf(buf, cap, "%s.lora_%c", base, part == 'A' ? 'a' : 'b');
}

typedef void name_fn(const struct nt_spec *, int32_t, enum nt_linear, char, char *, size_t);

static nt_status table_make(const struct nt_adapter *a, const struct nt_spec *spec, name_fn *name, struct table *t) {
    const int64_t most = 2 * (int64_t)a->n_layer * NT_LINEAR_COUNT;
    *t = (struct table){.entries = calloc((size_t)most, sizeof *t->entries),
                        .names = calloc((size_t)most, sizeof *t->names)};
    if (!t->entries || !t->names) {
        table_release(t);
        return NT_FAIL(NT_E_NOMEM, "no memory for the tensor table of an adapter");
    }
    for (int64_t i = 0; i < most; i++) {
        const struct nt_lora *l = &a->lora[i / 2];
        if (!l->a) continue;
        const bool is_a = i % 2 == 0;
        name(spec, (int32_t)(i / 2 / NT_LINEAR_COUNT), (enum nt_linear)(i / 2 % NT_LINEAR_COUNT), is_a ? 'A' : 'B',
             t->names[t->n], MAX_NAME);
        t->entries[t->n] = (struct nt_tensor_entry){
            .name = t->names[t->n],
            .dtype = NT_WDTYPE_F32,
            .n_dims = 2,
            .shape = {is_a ? a->r : l->out, is_a ? l->in : a->r}
        };
        t->n++;
    }
    return NT_OK;
}

/* --- PEFT --------------------------------------------------------------------------------------------------------- */

static const struct nt_adapter_card no_card;

/* lora_alpha for readers that know no rsLoRA: s r. */
static double plain_alpha(const struct nt_adapter *a) {
    return a->rslora ? nt_adapter_scale(a) * a->r : a->alpha;
}

static nt_status write_weights(const struct nt_adapter *a, const struct nt_spec *spec,
                               const struct nt_adapter_card *card, const char *path) {
    char base[NT_SHA256_HEX], tokenizer[NT_SHA256_HEX];
    struct nt_text_pair *pairs = calloc((size_t)card->n + 2, sizeof *pairs);
    if (!pairs) return NT_FAIL(NT_E_NOMEM, "%s: no memory for its metadata", path);
    int64_t n = 0;
    nt_hex(a->base_digest, NT_SHA256_BYTES, base);
    nt_hex(a->tokenizer_digest, NT_SHA256_BYTES, tokenizer);
    if (a->has_base) pairs[n++] = (struct nt_text_pair){NT_ADAPTER_BASE_KEY, base};
    if (a->has_tokenizer) pairs[n++] = (struct nt_text_pair){NT_ADAPTER_TOKENIZER_KEY, tokenizer};
    for (int64_t i = 0; i < card->n; i++) pairs[n++] = card->provenance[i];
    struct table t;
    struct nt_tensor_writer *w = NULL;
    nt_status st = table_make(a, spec, nt_adapter_tensor_name, &t);
    if (st == NT_OK) {
        st = nt_safetensors_create(path, t.entries, t.n, pairs, n, &w);
        if (st == NT_OK) st = nt_tensor_writer_append(w, a->data, (size_t)a->n_params * sizeof *a->data);
        if (st == NT_OK)
            st = nt_tensor_writer_finish(w);
        else
            nt_tensor_writer_abandon(w);
        table_release(&t);
    }
    free(pairs);
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}

static void add_targets(const struct nt_adapter *a, const char *quote, struct nt_strbuf *s) {
    const char *comma = "";
    for (int i = 0; i < NT_LINEAR_COUNT; i++) {
        if (!(a->targets & 1u << i)) continue;
        nt_strbuf_addf(s, "%s%s%s%s", comma, quote, nt_linear_name((enum nt_linear)i), quote);
        comma = ", ";
    }
}

/* The layers that have adapters; null where every layer has all targets, so that a reader may insist on them. */
static void add_layers(const struct nt_adapter *a, struct nt_strbuf *s) {
    bool whole = true;
    const char *comma = "";
    struct nt_strbuf list = NT_STRBUF_INIT;
    for (int32_t layer = 0; layer < a->n_layer; layer++) {
        uint32_t have = 0;
        for (int i = 0; i < NT_LINEAR_COUNT; i++) have |= nt_adapter_at(a, layer, (enum nt_linear)i)->a ? 1u << i : 0;
        whole = whole && have == a->targets;
        if (have == 0) continue;
        nt_strbuf_addf(&list, "%s%d", comma, layer);
        comma = ", ";
    }
    if (whole)
        nt_strbuf_adds(s, "null");
    else
        nt_strbuf_addf(s, "[%s]", nt_strbuf_cstr(&list));
    nt_strbuf_release(&list);
}

static nt_status write_config(const struct nt_adapter *a, const char *path) {
    struct nt_strbuf s = NT_STRBUF_INIT;
    nt_strbuf_adds(&s, "{\n  \"peft_type\": \"LORA\",\n  \"task_type\": \"CAUSAL_LM\",\n"
                       "  \"base_model_name_or_path\": ");
    if (a->base[0])
        nt_strbuf_add_json(&s, a->base, strlen(a->base));
    else
        nt_strbuf_adds(&s, "null");
    nt_strbuf_addf(&s, ",\n  \"revision\": null,\n  \"r\": %d,\n  \"lora_alpha\": ", a->r);
    nt_strbuf_add_json_num(&s, plain_alpha(a));
    nt_strbuf_adds(&s, ",\n  \"lora_dropout\": ");
    nt_strbuf_add_json_num(&s, a->dropout);
    nt_strbuf_adds(&s, ",\n  \"target_modules\": [");
    add_targets(a, "\"", &s);
    nt_strbuf_adds(&s, "],\n  \"layers_to_transform\": ");
    add_layers(a, &s);
    nt_strbuf_adds(&s, ",\n  \"layers_pattern\": null,\n  \"bias\": \"none\",\n  \"fan_in_fan_out\": false,\n"
                       "  \"inference_mode\": true,\n  \"init_lora_weights\": true,\n  \"modules_to_save\": null,\n"
                       "  \"use_rslora\": false,\n  \"use_dora\": false,\n  \"rank_pattern\": {},\n"
                       "  \"alpha_pattern\": {}\n}\n");
    const nt_status st = nt_publish_bytes(path, nt_strbuf_cstr(&s), s.len, NT_PUBLISH_NEW);
    nt_strbuf_release(&s);
    return st;
}

static void add_row(struct nt_strbuf *s, const char *name, const char *value) {
    nt_strbuf_addf(s, "| %s | %s |\n", name, value);
}

static void add_facts(const struct nt_adapter *a, struct nt_strbuf *s) {
    char hex[NT_SHA256_HEX];
    nt_strbuf_adds(s, "| | |\n| --- | --- |\n");
    add_row(s, "base model", a->base[0] ? a->base : "unknown");
    nt_hex(a->base_digest, NT_SHA256_BYTES, hex);
    if (a->has_base) add_row(s, "base sha256", hex);
    nt_hex(a->tokenizer_digest, NT_SHA256_BYTES, hex);
    if (a->has_tokenizer) add_row(s, "tokenizer sha256", hex);
    nt_strbuf_addf(s, "| rank, alpha | %d, %g%s |\n| scale | %.9g |\n| dropout in training | %g |\n| modules | ", a->r,
                   a->alpha, a->rslora ? " (rsLoRA; lora_alpha in the files has it folded in)" : "",
                   nt_adapter_scale(a), a->dropout);
    add_targets(a, "", s);
    nt_strbuf_addf(s, " |\n| parameters | %lld |\n", (long long)a->n_params);
}

static nt_status write_readme(const struct nt_adapter *a, const struct nt_adapter_card *card, const char *path) {
    struct nt_strbuf s = NT_STRBUF_INIT;
    nt_strbuf_adds(&s, "---\nlibrary_name: peft\npipeline_tag: text-generation\n");
    if (card->license) nt_strbuf_addf(&s, "license: %s\n", card->license);
    if (a->base[0]) {
        nt_strbuf_adds(&s, "base_model: "); // a JSON string is a YAML string
        nt_strbuf_add_json(&s, a->base, strlen(a->base));
        nt_strbuf_adds(&s, "\nbase_model_relation: adapter\n");
    }
    nt_strbuf_adds(&s, "tags:\n- lora\n- nocturne\n---\n\n# LoRA adapter\n\n");
    add_facts(a, &s);
    nt_strbuf_adds(&s, "\nPlain LoRA: y = x W^T + scale (x A^T) B^T. PEFT and vLLM load this directory; "
                       "`nocturne merge` adds it to the base's weights.\n");
    if (card->markdown) nt_strbuf_addf(&s, "\n%s", card->markdown);
    const nt_status st = nt_publish_bytes(path, nt_strbuf_cstr(&s), s.len, NT_PUBLISH_NEW);
    nt_strbuf_release(&s);
    return st;
}

static nt_status fill(const struct nt_adapter *a, const struct nt_spec *spec, const struct nt_adapter_card *card,
                      const char *dir) {
    char path[PATH_MAX];
    NT_TRY(nt_path_join(path, sizeof path, dir, "adapter_model.safetensors"));
    NT_TRY(write_weights(a, spec, card, path));
    NT_TRY(nt_path_join(path, sizeof path, dir, "adapter_config.json"));
    NT_TRY(write_config(a, path));
    NT_TRY(nt_path_join(path, sizeof path, dir, "README.md"));
    return write_readme(a, card, path);
}

nt_status nt_adapter_write_peft(const struct nt_adapter *a, const struct nt_spec *spec,
                                const struct nt_adapter_card *card, const char *dir, enum nt_publish_mode mode) {
    struct nt_outdir out;
    NT_TRY(nt_outdir_open(&out, dir, mode));
    const nt_status st = fill(a, spec, card ? card : &no_card, out.temp);
    if (st == NT_OK) return nt_outdir_publish(&out);
    nt_outdir_abandon(&out);
    return nt_trail_at(st, __FILE__, __LINE__);
}

/* --- GGUF --------------------------------------------------------------------------------------------------------- */

static void put_meta(const struct nt_adapter *a, const struct nt_spec *spec, const struct nt_adapter_card *card,
                     struct nt_gguf_meta *m) {
    char hex[NT_SHA256_HEX];
    nt_gguf_put_str(m, "general.architecture", nt_arch_in_gguf(nt_arch_find(spec->family))->gguf);
    nt_gguf_put_str(m, "general.type", "adapter");
    nt_gguf_put_str(m, "adapter.type", "lora");
    nt_gguf_put_f32(m, "adapter.lora.alpha", (float)plain_alpha(a)); // the reader's scale is alpha / r
    nt_gguf_put_u32(m, "general.file_type", 0);
    if (card->license) nt_gguf_put_str(m, "general.license", card->license);
    if (a->base[0]) {
        nt_gguf_put_u32(m, "general.base_model.count", 1);
        nt_gguf_put_str(m, "general.base_model.0.name", a->base);
    }
    nt_hex(a->base_digest, NT_SHA256_BYTES, hex);
    if (a->has_base) nt_gguf_put_str(m, NT_ADAPTER_BASE_KEY, hex);
    nt_hex(a->tokenizer_digest, NT_SHA256_BYTES, hex);
    if (a->has_tokenizer) nt_gguf_put_str(m, NT_ADAPTER_TOKENIZER_KEY, hex);
    for (int64_t i = 0; i < card->n; i++) nt_gguf_put_str(m, card->provenance[i].key, card->provenance[i].value);
}

/* Heads whose rows GGUF holds in pair order; 0: the rows keep their places. */
static int32_t paired_heads(const struct nt_spec *spec, enum nt_linear linear) {
    if (!nt_arch_in_gguf(nt_arch_find(spec->family))->gguf_interleaved) return 0;
    return linear == NT_LINEAR_Q ? spec->n_head : linear == NT_LINEAR_K ? spec->n_kv : 0;
}

static nt_status append_pair(const struct nt_adapter *a, const struct nt_spec *spec, enum nt_linear linear,
                             const struct nt_lora *l, struct nt_tensor_writer *w) {
    const size_t n = (size_t)l->out * (size_t)a->r;
    const int32_t heads = paired_heads(spec, linear);
    NT_TRY(nt_tensor_writer_append_f32(w, l->a, (int64_t)a->r * l->in));
    if (heads == 0) return nt_tensor_writer_append_f32(w, l->b, (int64_t)n);
    float *b = malloc(n * sizeof *b);
    if (!b) return NT_FAIL(NT_E_NOMEM, "no memory for the rows of %s", nt_linear_name(linear));
    for (int32_t row = 0; row < l->out; row++) {
        const int64_t to = nt_unpermute_qk_row(row, heads, spec->d_head);
        memcpy(b + to * a->r, l->b + (int64_t)row * a->r, (size_t)a->r * sizeof *b);
    }
    const nt_status st = nt_tensor_writer_append_f32(w, b, (int64_t)n);
    free(b);
    return st;
}

static nt_status append_pairs(const struct nt_adapter *a, const struct nt_spec *spec, struct nt_tensor_writer *w) {
    for (int32_t i = 0; i < a->n_layer * NT_LINEAR_COUNT; i++) {
        if (a->lora[i].a) NT_TRY(append_pair(a, spec, (enum nt_linear)(i % NT_LINEAR_COUNT), &a->lora[i], w));
    }
    return NT_OK;
}

nt_status nt_adapter_write_gguf(const struct nt_adapter *a, const struct nt_spec *spec,
                                const struct nt_adapter_card *card, const char *path) {
    struct table t;
    struct nt_gguf_meta meta = {0};
    struct nt_tensor_writer *w = NULL;
    NT_TRY(table_make(a, spec, gguf_name, &t));
    put_meta(a, spec, card ? card : &no_card, &meta);
    nt_status st = nt_gguf_create(path, &meta, t.entries, t.n, 0, &w);
    if (st == NT_OK) st = append_pairs(a, spec, w);
    if (st == NT_OK)
        st = nt_tensor_writer_finish(w);
    else
        nt_tensor_writer_abandon(w);
    nt_gguf_meta_release(&meta);
    table_release(&t);
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}
