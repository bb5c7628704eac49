/* Where tokenizers come from: a Hugging Face directory or the metadata of a GGUF file. */
#include "tokload.h"

#include "fileio.h"
#include "gguf.h"
#include "json.h"
#include "safetensors.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TOKENIZER = 256 << 20, MAX_SMALL = 16 << 20, MAX_TEMPLATE = 1 << 20 };

void nt_tok_bundle_release(struct nt_tok_bundle *b) {
    nt_tokenizer_free(b->tok);
    free(b->chat_template);
    *b = (struct nt_tok_bundle){0};
}

/* Reads dir/name when it is there; *data stays NULL otherwise. */
static nt_status read_optional(const char *dir, const char *name, size_t max, char **data, size_t *len) {
    char path[PATH_MAX];
    NT_TRY(nt_path_join(path, sizeof path, dir, name));
    *data = NULL;
    *len = 0;
    if (!nt_file_exists(path)) return NT_OK;
    return nt_file_read(path, max, data, len);
}

static nt_status set_template(struct nt_tok_bundle *b, const char *text, size_t len, const char *origin) {
    if (len > MAX_TEMPLATE)
        return NT_FAIL(NT_E_DATA, "%s: chat_template of %zu bytes; at most %d are accepted", origin, len, MAX_TEMPLATE);
    char *copy = malloc(len + 1);
    if (!copy) return NT_FAIL(NT_E_NOMEM, "%s: no memory for the chat template", origin);
    memcpy(copy, text, len);
    copy[len] = 0;
    free(b->chat_template);
    b->chat_template = copy;
    b->chat_template_len = len;
    return NT_OK;
}

/* chat_template in tokenizer_config.json: a string, or a list of {name, template} of which "default" counts. */
static nt_status template_from_config(struct nt_tok_bundle *b, const struct nt_json *config, const char *origin) {
    const struct nt_json *v = nt_json_get(config, "chat_template");
    size_t len;
    const char *text = nt_json_str(v, &len);
    for (size_t i = 0; !text && i < nt_json_len(v); i++) {
        const struct nt_json *item = nt_json_at(v, i);
        const char *name = nt_json_str(nt_json_get(item, "name"), NULL);
        if (name && strcmp(name, "default") == 0) text = nt_json_str(nt_json_get(item, "template"), &len);
    }
    return text ? set_template(b, text, len, origin) : NT_OK;
}

/* eos_token_id of generation_config.json (or, in older directories, of config.json): an id or a list. Ids beyond the
 * vocabulary can never be generated. */
static nt_status stops_from_config(struct nt_tokenizer *tok, const char *dir) {
    char path[PATH_MAX];
    NT_TRY(nt_path_join(path, sizeof path, dir, "generation_config.json"));
    if (!nt_file_exists(path)) NT_TRY(nt_path_join(path, sizeof path, dir, "config.json"));
    if (!nt_file_exists(path)) return NT_OK;
    struct nt_json *doc;
    NT_TRY(nt_json_parse_file(path, MAX_SMALL, &doc));
    const struct nt_json *eos = nt_json_get(doc, "eos_token_id");
    size_t n = nt_json_is(eos, NT_JSON_INT) ? 1 : nt_json_len(eos);
    nt_status st = NT_OK;
    for (size_t i = 0; i < n && st == NT_OK; i++) {
        const struct nt_json *v = nt_json_is(eos, NT_JSON_INT) ? eos : nt_json_at(eos, i);
        int64_t id = nt_json_int(v, -1);
        if (id < 0)
            st = NT_FAIL(NT_E_DATA, "%s: eos_token_id: expected an id or a list of ids", path);
        else if (id < nt_tokenizer_n_vocab(tok))
            st = nt_tokenizer_add_stop(tok, id);
    }
    nt_json_free(doc);
    return st;
}

static nt_status missing(const char *dir, const char *path) {
    char config[PATH_MAX];
    NT_TRY(nt_path_join(config, sizeof config, dir, "adapter_config.json"));
    if (nt_file_exists(config)) return nt_refuse_adapter(dir);
    return NT_FAIL(NT_E_NOINPUT,
                   "%s: not found; a model directory needs tokenizer.json (save_pretrained of a fast "
                   "tokenizer writes it)",
                   path);
}

/* Older directories name bos and eos in special_tokens_map.json only; its keys are those of the config. */
static nt_status load_dir(const char *dir, struct nt_tok_bundle *b) {
    char path[PATH_MAX], *text = NULL, *config = NULL, *jinja = NULL;
    size_t len = 0, config_len = 0, jinja_len = 0;
    struct nt_json *doc = NULL;
    nt_status st;
    NT_TRY(nt_path_join(path, sizeof path, dir, "tokenizer.json"));
    if (!nt_file_exists(path)) return missing(dir, path);
    NT_TRY_GOTO(st, release, nt_file_read(path, MAX_TOKENIZER, &text, &len));
    NT_TRY_GOTO(st, release, read_optional(dir, "tokenizer_config.json", MAX_SMALL, &config, &config_len));
    if (!config)
        NT_TRY_GOTO(st, release, read_optional(dir, "special_tokens_map.json", MAX_SMALL, &config, &config_len));
    NT_TRY_GOTO(st, release, nt_tokenizer_from_json(text, len, path, config, config_len, &b->tok));
    NT_TRY_GOTO(st, release, stops_from_config(b->tok, dir));
    if (config) {
        NT_TRY_GOTO(st, release, nt_json_parse_wide(config, config_len, "tokenizer_config.json", &doc));
        NT_TRY_GOTO(st, release, template_from_config(b, doc, dir));
    }
    NT_TRY_GOTO(st, release, read_optional(dir, "chat_template.jinja", MAX_TEMPLATE, &jinja, &jinja_len));
    if (jinja) NT_TRY_GOTO(st, release, set_template(b, jinja, jinja_len, dir)); /* newer than the config's entry */
release:
    nt_json_free(doc);
    free(jinja);
    free(config);
    free(text);
    return st;
}

/* ---- GGUF ---- */

struct gguf_arrays {
    struct nt_tok_str *tokens, *merges;
    float *scores;
    int32_t *types;
};

static void release_arrays(struct gguf_arrays *a) {
    free(a->tokens);
    free(a->merges);
    free(a->scores);
    free(a->types);
}

/* *n = -1 and NULL when the key is absent; the reader has already compared the length with the file. */
static nt_status read_strings(const struct nt_gguf *g, const char *key, struct nt_tok_str **out, int64_t *n) {
    *n = nt_gguf_array_len(g, key);
    if (*n <= 0) return NT_OK;
    if (nt_gguf_array_type(g, key) != NT_GGUF_STRING)
        return NT_FAIL(NT_E_DATA, "%s: %s: expected an array of strings", nt_gguf_path(g), key);
    *out = calloc((size_t)*n, sizeof **out);
    if (!*out) return NT_FAIL(NT_E_NOMEM, "%s: no memory for %s", nt_gguf_path(g), key);
    for (int64_t i = 0; i < *n; i++) {
        (*out)[i].data = nt_gguf_array_str(g, key, i, &(*out)[i].len);
        if (!(*out)[i].data) (*out)[i] = (struct nt_tok_str){"", 0};
    }
    return NT_OK;
}

static nt_status read_types(const struct nt_gguf *g, const char *key, int32_t **out, int64_t *n) {
    *n = nt_gguf_array_len(g, key);
    if (*n <= 0) return NT_OK;
    *out = calloc((size_t)*n, sizeof **out);
    if (!*out) return NT_FAIL(NT_E_NOMEM, "%s: no memory for %s", nt_gguf_path(g), key);
    for (int64_t i = 0; i < *n; i++) {
        int64_t v = nt_gguf_array_i64(g, key, i, -1);
        (*out)[i] = v < 0 || v > 100 ? -1 : (int32_t)v; /* from_parts refuses -1 by its place */
    }
    return NT_OK;
}

static nt_status read_scores(const struct nt_gguf *g, const char *key, float **out, int64_t *n) {
    *n = nt_gguf_array_len(g, key);
    if (*n <= 0) return NT_OK;
    *out = calloc((size_t)*n, sizeof **out);
    if (!*out) return NT_FAIL(NT_E_NOMEM, "%s: no memory for %s", nt_gguf_path(g), key);
    for (int64_t i = 0; i < *n; i++) (*out)[i] = (float)nt_gguf_array_f64(g, key, i, 0.0);
    return NT_OK;
}

static int switch_of(const struct nt_gguf *g, const char *key) {
    return nt_gguf_type(g, key) == NT_GGUF_BOOL ? nt_gguf_bool(g, key, false) : -1;
}

static nt_status copy_str(const struct nt_gguf *g, const char *key, char *buf, size_t cap, const char **out) {
    size_t len;
    const char *s = nt_gguf_str(g, key, &len);
    *out = NULL;
    if (!s) return NT_OK;
    if (len >= cap || memchr(s, 0, len))
        return NT_FAIL(NT_E_DATA, "%s: %s: expected a name of less than %zu bytes", nt_gguf_path(g), key, cap);
    memcpy(buf, s, len);
    buf[len] = 0;
    *out = buf;
    return NT_OK;
}

/* The tokenizer's metadata, borrowed from the file but for the arrays. */
struct gguf_tok {
    struct nt_gguf *g;
    struct gguf_arrays a;
    char model[64], pre[64];
    struct nt_tok_parts parts;
};

static void release_gguf(struct gguf_tok *f) {
    release_arrays(&f->a);
    nt_gguf_close(f->g);
}

static nt_status read_parts(struct gguf_tok *f) {
    const struct nt_gguf *g = f->g;
    struct gguf_arrays *a = &f->a;
    struct nt_tok_parts p = NT_TOK_PARTS_INIT;
    p.origin = nt_gguf_path(g);
    NT_TRY(copy_str(g, "tokenizer.ggml.model", f->model, sizeof f->model, &p.model));
    NT_TRY(copy_str(g, "tokenizer.ggml.pre", f->pre, sizeof f->pre, &p.pre));
    if (!p.model) return NT_FAIL(NT_E_DATA, "%s: tokenizer.ggml.model is missing", p.origin);
    NT_TRY(read_strings(g, "tokenizer.ggml.tokens", &a->tokens, &p.n_tokens));
    NT_TRY(read_strings(g, "tokenizer.ggml.merges", &a->merges, &p.n_merges));
    NT_TRY(read_types(g, "tokenizer.ggml.token_type", &a->types, &p.n_types));
    NT_TRY(read_scores(g, "tokenizer.ggml.scores", &a->scores, &p.n_scores));
    p.tokens = a->tokens;
    p.merges = a->merges;
    p.types = a->types;
    p.scores = a->scores;
    p.bos = nt_gguf_i64(g, "tokenizer.ggml.bos_token_id", -1);
    p.eos = nt_gguf_i64(g, "tokenizer.ggml.eos_token_id", -1);
    p.eot = nt_gguf_i64(g, "tokenizer.ggml.eot_token_id", -1);
    p.eom = nt_gguf_i64(g, "tokenizer.ggml.eom_token_id", -1);
    p.unk = nt_gguf_i64(g, "tokenizer.ggml.unknown_token_id", -1);
    p.pad = nt_gguf_i64(g, "tokenizer.ggml.padding_token_id", -1);
    p.add_bos = switch_of(g, "tokenizer.ggml.add_bos_token");
    p.add_eos = switch_of(g, "tokenizer.ggml.add_eos_token");
    p.add_space_prefix = switch_of(g, "tokenizer.ggml.add_space_prefix");
    f->parts = p;
    return NT_OK;
}

static nt_status load_gguf(const char *path, struct nt_tok_bundle *b) {
    struct gguf_tok f = {0};
    size_t len;
    NT_TRY(nt_gguf_open(path, &f.g));
    nt_status st = NT_OK;
    if (nt_gguf_is_adapter(f.g)) NT_TRY_GOTO(st, close, nt_refuse_adapter(path));
    NT_TRY_GOTO(st, close, read_parts(&f));
    NT_TRY_GOTO(st, close, nt_tokenizer_from_parts(&f.parts, &b->tok));
    const char *text = nt_gguf_str(f.g, "tokenizer.chat_template", &len);
    if (text) NT_TRY_GOTO(st, close, set_template(b, text, len, path));
close:
    release_gguf(&f);
    return st;
}

nt_status nt_tokenizer_gguf_to_hf(const char *path, struct nt_strbuf *tokenizer, struct nt_strbuf *config) {
    struct gguf_tok f = {0};
    struct nt_tokenizer *tok = NULL;
    size_t len = 0;
    NT_TRY(nt_gguf_open(path, &f.g));
    nt_status st;
    NT_TRY_GOTO(st, close, read_parts(&f));
    NT_TRY_GOTO(st, close, nt_tokenizer_from_parts(&f.parts, &tok));
    const char *text = nt_gguf_str(f.g, "tokenizer.chat_template", &len);
    st = nt_tokenizer_to_hf(tok, &f.parts, text, len, tokenizer, config);
close:
    nt_tokenizer_free(tok);
    release_gguf(&f);
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}

nt_status nt_tokenizer_load(const char *model_path, struct nt_tok_bundle *out) {
    struct nt_tok_bundle b = {0};
    if (!nt_is_dir(model_path) && !nt_file_exists(model_path))
        return NT_FAIL(NT_E_NOINPUT, "%s: not found; expected a model directory or a .gguf file", model_path);
    nt_status st = nt_is_dir(model_path) ? load_dir(model_path, &b) : load_gguf(model_path, &b);
    if (st != NT_OK) {
        nt_tok_bundle_release(&b);
        return nt_trail_at(st, __FILE__, __LINE__);
    }
    *out = b;
    return NT_OK;
}
