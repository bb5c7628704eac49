/* tokenizer.json -> tokenizer. Every component is either compiled or refused by name. */
#include "json.h"
#include "tok_internal.h"

#include <string.h>
#include <utf8proc.h>

static const char *type_of(const struct nt_json *v) {
    const char *type = nt_json_str(nt_json_get(v, "type"), NULL);
    return type ? type : "(no type)";
}

static bool is_type(const struct nt_json *v, const char *type) {
    return strcmp(type_of(v), type) == 0;
}

static nt_status unsupported(const struct nt_tokenizer *t, const char *where, const struct nt_json *v) {
    return NT_FAIL(NT_E_UNSUPPORTED, "%s: %s \"%s\" is not supported", t->origin, where, type_of(v));
}

/* Calls visit for v, or for the members of a Sequence (nested ones too). */
typedef nt_status visit_fn(struct nt_tokenizer *t, const struct nt_json *v);

static nt_status each(struct nt_tokenizer *t, const struct nt_json *v, const char *members, int depth,
                      visit_fn *visit) {
    if (nt_json_type(v) == NT_JSON_NULL) return NT_OK;
    if (!nt_json_is(v, NT_JSON_OBJECT))
        return NT_FAIL(NT_E_DATA, "%s: a component is %s; expected an object", t->origin, nt_json_type_name(v));
    if (!is_type(v, "Sequence")) return visit(t, v);
    if (depth > 4) return NT_FAIL(NT_E_UNSUPPORTED, "%s: %s nested deeper than 4", t->origin, members);
    const struct nt_json *list = nt_json_get(v, members);
    if (!nt_json_is(list, NT_JSON_ARRAY)) return NT_FAIL(NT_E_DATA, "%s: Sequence without \"%s\"", t->origin, members);
    for (size_t i = 0; i < nt_json_len(list); i++) NT_TRY(each(t, nt_json_at(list, i), members, depth + 1, visit));
    return NT_OK;
}

/* ---- normalizers ---- */

static nt_status norm_component(struct nt_tokenizer *t, const struct nt_json *v) {
    static const struct {
        const char *name;
        int options;
    } forms[] = {
        {"NFC",  UTF8PROC_STABLE | UTF8PROC_COMPOSE                    },
        {"NFD",  UTF8PROC_STABLE | UTF8PROC_DECOMPOSE                  },
        {"NFKC", UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT  },
        {"NFKD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT},
    };
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        if (is_type(v, forms[i].name))
            return nt_tok_add_norm(t, NT_TOK_NORM_UNICODE, forms[i].options, NULL, 0, NULL, 0);
    }
    size_t to_len = 0, from_len = 0;
    if (is_type(v, "Prepend")) {
        const char *to = nt_json_str(nt_json_get(v, "prepend"), &to_len);
        if (!to) return NT_FAIL(NT_E_DATA, "%s: normalizer Prepend without \"prepend\"", t->origin);
        return nt_tok_add_norm(t, NT_TOK_NORM_PREPEND, 0, NULL, 0, to, to_len);
    }
    if (is_type(v, "Replace")) {
        const char *from = nt_json_str(nt_json_get(nt_json_get(v, "pattern"), "String"), &from_len);
        const char *to = nt_json_str(nt_json_get(v, "content"), &to_len);
        if (!from)
            return NT_FAIL(NT_E_UNSUPPORTED, "%s: normalizer \"Replace\" is supported with a String pattern only",
                           t->origin);
        if (!to) return NT_FAIL(NT_E_DATA, "%s: normalizer Replace without \"content\"", t->origin);
        return nt_tok_add_norm(t, NT_TOK_NORM_REPLACE, 0, from, from_len, to, to_len);
    }
    return unsupported(t, "normalizer", v);
}

/* ---- pre-tokenizers ---- */

static nt_status split_behavior(const struct nt_tokenizer *t, const struct nt_json *v, enum nt_tok_split *out) {
    static const char *const names[] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    const char *name = nt_json_str(nt_json_get(v, "behavior"), NULL);
    for (size_t i = 0; name && i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = (enum nt_tok_split)i;
            return NT_OK;
        }
    }
    return NT_FAIL(NT_E_DATA,
                   "%s: %s: behavior \"%s\"; expected Isolated, Removed, MergedWithPrevious, "
                   "MergedWithNext or Contiguous",
                   t->origin, type_of(v), name ? name : "(none)");
}

static nt_status pre_split(struct nt_tokenizer *t, const struct nt_json *v) {
    const struct nt_json *pattern = nt_json_get(v, "pattern");
    enum nt_tok_split behavior;
    NT_TRY(split_behavior(t, v, &behavior));
    bool invert = nt_json_bool(nt_json_get(v, "invert"), false);
    size_t len;
    const char *text = nt_json_str(nt_json_get(pattern, "Regex"), &len);
    if (text) return nt_tok_add_split(t, text, len, behavior, invert, "pre_tokenizer Split");
    text = nt_json_str(nt_json_get(pattern, "String"), &len);
    if (!text) return NT_FAIL(NT_E_DATA, "%s: pre_tokenizer Split: pattern must have Regex or String", t->origin);
    if (len == 0) return NT_OK; /* an empty string splits nowhere */
    struct nt_strbuf quoted = NT_STRBUF_INIT;
    nt_tok_regex_quote(text, len, &quoted);
    nt_status st = nt_tok_add_split(t, nt_strbuf_cstr(&quoted), quoted.len, behavior, invert, "pre_tokenizer Split");
    nt_strbuf_release(&quoted);
    return st;
}

static nt_status pre_metaspace(struct nt_tokenizer *t, const struct nt_json *v) {
    size_t len = 0;
    const char *marker = nt_json_str(nt_json_get(v, "replacement"), &len);
    const char *scheme = nt_json_str(nt_json_get(v, "prepend_scheme"), NULL);
    enum nt_tok_prepend prepend = NT_TOK_PREPEND_ALWAYS;
    if (scheme && strcmp(scheme, "first") == 0)
        prepend = NT_TOK_PREPEND_FIRST;
    else if (scheme && strcmp(scheme, "never") == 0)
        prepend = NT_TOK_PREPEND_NEVER;
    else if (scheme && strcmp(scheme, "always") != 0)
        return NT_FAIL(NT_E_DATA, "%s: Metaspace: prepend_scheme \"%s\"; expected first, never or always", t->origin,
                       scheme);
    else if (!scheme && !nt_json_bool(nt_json_get(v, "add_prefix_space"), true))
        prepend = NT_TOK_PREPEND_NEVER;
    return nt_tok_add_metaspace(t, prepend, nt_json_bool(nt_json_get(v, "split"), true), marker ? marker : "", len);
}

static nt_status pre_component(struct nt_tokenizer *t, const struct nt_json *v) {
    if (t->byte_level)
        return NT_FAIL(NT_E_UNSUPPORTED, "%s: pre_tokenizer \"%s\" after ByteLevel is not supported", t->origin,
                       type_of(v));
    if (is_type(v, "Split")) return pre_split(t, v);
    if (is_type(v, "Metaspace")) return pre_metaspace(t, v);
    if (is_type(v, "ByteLevel")) {
        t->byte_level = true;
        if (nt_json_bool(nt_json_get(v, "add_prefix_space"), true)) NT_TRY(nt_tok_add_prefix_space(t));
        if (!nt_json_bool(nt_json_get(v, "use_regex"), true)) return NT_OK;
        return nt_tok_add_split(t, nt_tok_gpt2_pattern, strlen(nt_tok_gpt2_pattern), NT_TOK_ISOLATED, false,
                                "pre_tokenizer ByteLevel");
    }
    if (is_type(v, "Digits")) {
        bool single = nt_json_bool(nt_json_get(v, "individual_digits"), false);
        return nt_tok_add_split(t, "\\p{N}", 5, single ? NT_TOK_ISOLATED : NT_TOK_CONTIGUOUS, false,
                                "pre_tokenizer Digits");
    }
    if (is_type(v, "Punctuation")) {
        static const char pattern[] = "[\\p{P}$+<=>\\^`|~]";
        enum nt_tok_split behavior = NT_TOK_ISOLATED;
        if (nt_json_get(v, "behavior")) NT_TRY(split_behavior(t, v, &behavior));
        return nt_tok_add_split(t, pattern, sizeof pattern - 1, behavior, false, "pre_tokenizer Punctuation");
    }
    if (is_type(v, "WhitespaceSplit"))
        return nt_tok_add_split(t, "\\s", 2, NT_TOK_REMOVED, false, "pre_tokenizer WhitespaceSplit");
    return unsupported(t, "pre_tokenizer", v);
}

/* ---- post-processors ---- */

static nt_status template_ids(struct nt_tokenizer *t, const struct nt_json *v, const char *name, bool after) {
    const struct nt_json *ids = nt_json_get(nt_json_get(nt_json_get(v, "special_tokens"), name), "ids");
    int32_t *list = after ? t->post_after : t->post_before;
    int32_t *n = after ? &t->n_after : &t->n_before;
    if (nt_json_len(ids) == 0)
        return NT_FAIL(NT_E_DATA, "%s: TemplateProcessing uses \"%.60s\" without ids in special_tokens", t->origin,
                       name);
    for (size_t i = 0; i < nt_json_len(ids); i++) {
        int64_t id = nt_json_int(nt_json_at(ids, i), -1);
        if (id < 0 || id >= t->vocab.n)
            return NT_FAIL(NT_E_DATA, "%s: TemplateProcessing: id %lld of \"%.60s\" is outside the vocabulary",
                           t->origin, (long long)id, name);
        if (*n == NT_TOK_MAX_POST)
            return NT_FAIL(NT_E_UNSUPPORTED, "%s: TemplateProcessing adds more than %d ids", t->origin,
                           NT_TOK_MAX_POST);
        list[(*n)++] = (int32_t)id;
    }
    return NT_OK;
}

static nt_status post_component(struct nt_tokenizer *t, const struct nt_json *v) {
    if (is_type(v, "ByteLevel")) return NT_OK; /* trims offsets only */
    if (!is_type(v, "TemplateProcessing")) return unsupported(t, "post_processor", v);
    const struct nt_json *single = nt_json_get(v, "single");
    bool seen = false;
    if (!nt_json_is(single, NT_JSON_ARRAY) || t->n_before + t->n_after > 0)
        return NT_FAIL(NT_E_UNSUPPORTED, "%s: TemplateProcessing: expected one template with a list \"single\"",
                       t->origin);
    for (size_t i = 0; i < nt_json_len(single); i++) {
        const struct nt_json *item = nt_json_at(single, i);
        const char *name = nt_json_str(nt_json_get(nt_json_get(item, "SpecialToken"), "id"), NULL);
        if (name) {
            NT_TRY(template_ids(t, v, name, seen));
        } else if (nt_json_get(item, "Sequence") && !seen) {
            seen = true;
        } else {
            return NT_FAIL(NT_E_UNSUPPORTED,
                           "%s: TemplateProcessing: item %zu of \"single\" is neither a special "
                           "token nor the one text",
                           t->origin, i);
        }
    }
    return NT_OK;
}

/* ---- decoders ---- */

static bool str_is(const struct nt_json *v, const char *want) {
    size_t len;
    const char *s = nt_json_str(v, &len);
    return s && len == strlen(want) && memcmp(s, want, len) == 0;
}

static nt_status dec_component(struct nt_tokenizer *t, const struct nt_json *v) {
    struct nt_tok_decoder *d = &t->dec;
    if (d->byte_level) return NT_FAIL(NT_E_UNSUPPORTED, "%s: decoder \"%s\" after ByteLevel", t->origin, type_of(v));
    if (is_type(v, "ByteLevel")) {
        d->byte_level = true;
        return NT_OK;
    }
    if (is_type(v, "ByteFallback")) {
        d->byte_fallback = true;
        return NT_OK;
    }
    if (is_type(v, "Fuse")) return NT_OK;
    if (is_type(v, "Replace") && str_is(nt_json_get(nt_json_get(v, "pattern"), "String"), "\xE2\x96\x81") &&
        str_is(nt_json_get(v, "content"), " ")) {
        d->marker_blank = true;
        return NT_OK;
    }
    if (is_type(v, "Metaspace") && str_is(nt_json_get(v, "replacement"), "\xE2\x96\x81")) {
        const char *scheme = nt_json_str(nt_json_get(v, "prepend_scheme"), NULL);
        d->marker_blank = true;
        d->metaspace_first =
            scheme ? strcmp(scheme, "never") != 0 : nt_json_bool(nt_json_get(v, "add_prefix_space"), true);
        return NT_OK;
    }
    if (is_type(v, "Strip") && str_is(nt_json_get(v, "content"), " ") && nt_json_int(nt_json_get(v, "stop"), 0) == 0) {
        int64_t start = nt_json_int(nt_json_get(v, "start"), 0);
        if (start < 0 || start > 1000) return NT_FAIL(NT_E_DATA, "%s: decoder Strip: start out of range", t->origin);
        d->strip_left = (int32_t)start;
        return NT_OK;
    }
    return unsupported(t, "decoder", v);
}

/* ---- model ---- */

static nt_status read_vocab(struct nt_tokenizer *t, const struct nt_json *model, size_t n_extra) {
    const struct nt_json *vocab = nt_json_get(model, "vocab");
    if (!nt_json_is(vocab, NT_JSON_OBJECT) || nt_json_len(vocab) == 0)
        return NT_FAIL(NT_E_DATA, "%s: model.vocab is %s; expected an object of token: id", t->origin,
                       nt_json_type_name(vocab));
    /* Ids may have holes, but a table of ids must not be far larger than the file that asks for it. */
    NT_TRY(nt_tok_vocab_init(&t->vocab, (int64_t)(nt_json_len(vocab) + n_extra) * 2 + 1024, t->origin));
    for (void *it = nt_json_first(vocab); it; it = nt_json_next(vocab, it)) {
        const char *token = nt_json_key(it);
        const struct nt_json *id = nt_json_value(it);
        if (!nt_json_is(id, NT_JSON_INT))
            return NT_FAIL(NT_E_DATA, "%s: model.vocab: the id of \"%.60s\" is %s; expected an integer", t->origin,
                           token, nt_json_type_name(id));
        NT_TRY(nt_tok_vocab_put(&t->vocab, nt_json_int(id, -1), token, strlen(token), NT_TOK_ATTR_MODEL, t->origin));
    }
    return NT_OK;
}

static nt_status split_merge(const struct nt_tokenizer *t, const struct nt_json *m, size_t i, const char *half[2],
                             size_t len[2]) {
    size_t all;
    const char *text = nt_json_str(m, &all);
    if (text) {
        const char *blank = memchr(text, ' ', all);
        if (blank && !memchr(blank + 1, ' ', all - (size_t)(blank - text) - 1)) {
            half[0] = text;
            len[0] = (size_t)(blank - text);
            half[1] = blank + 1;
            len[1] = all - len[0] - 1;
            return NT_OK;
        }
    } else if (nt_json_len(m) == 2) {
        half[0] = nt_json_str(nt_json_at(m, 0), &len[0]);
        half[1] = nt_json_str(nt_json_at(m, 1), &len[1]);
        if (half[0] && half[1]) return NT_OK;
    }
    return NT_FAIL(NT_E_DATA, "%s: model.merges[%zu]: expected \"left right\" or [\"left\", \"right\"]", t->origin, i);
}

static nt_status read_merges(struct nt_tokenizer *t, const struct nt_json *model) {
    const struct nt_json *merges = nt_json_get(model, "merges");
    if (!nt_json_is(merges, NT_JSON_ARRAY))
        return NT_FAIL(NT_E_DATA, "%s: model.merges is %s; expected an array", t->origin, nt_json_type_name(merges));
    size_t n = nt_json_len(merges);
    NT_TRY(nt_tok_merges_init(&t->merges, (int64_t)n, t->origin));
    struct nt_strbuf joined = NT_STRBUF_INIT;
    nt_status st = NT_OK;
    for (size_t i = 0; i < n; i++) {
        const char *half[2];
        size_t len[2];
        NT_TRY_GOTO(st, release, split_merge(t, nt_json_at(merges, i), i, half, len));
        nt_strbuf_reset(&joined);
        nt_strbuf_add(&joined, half[0], len[0]);
        nt_strbuf_add(&joined, half[1], len[1]);
        int32_t left = nt_tok_vocab_find(&t->vocab, half[0], len[0]);
        int32_t right = nt_tok_vocab_find(&t->vocab, half[1], len[1]);
        int32_t id = nt_tok_vocab_find(&t->vocab, nt_strbuf_cstr(&joined), joined.len);
        if (left < 0 || right < 0 || id < 0) {
            st = NT_FAIL(NT_E_DATA,
                         "%s: model.merges[%zu]: \"%.40s\" + \"%.40s\": a part or the result is not in "
                         "model.vocab",
                         t->origin, i, half[0], half[1]);
            goto release;
        }
        nt_tok_merges_put(&t->merges, left, right, (int32_t)i, id, false);
    }
release:
    nt_strbuf_release(&joined);
    return st;
}

static nt_status read_model(struct nt_tokenizer *t, const struct nt_json *model, size_t n_extra) {
    if (!nt_json_is(model, NT_JSON_OBJECT))
        return NT_FAIL(NT_E_DATA, "%s: no \"model\" object; expected a Hugging Face tokenizer.json", t->origin);
    bool untyped_bpe = nt_json_type(nt_json_get(model, "type")) == NT_JSON_NULL && nt_json_get(model, "merges");
    if (!is_type(model, "BPE") && !untyped_bpe) return unsupported(t, "model", model);
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (size_t i = 0; i < 2; i++) {
        size_t len = 0;
        if (nt_json_str(nt_json_get(model, affixes[i]), &len) && len > 0)
            return NT_FAIL(NT_E_UNSUPPORTED, "%s: model.%s is not supported", t->origin, affixes[i]);
    }
    if (nt_json_num(nt_json_get(model, "dropout"), 0) > 0)
        return NT_FAIL(NT_E_UNSUPPORTED, "%s: model.dropout is not supported: encoding must be deterministic",
                       t->origin);
    NT_TRY(read_vocab(t, model, n_extra));
    NT_TRY(read_merges(t, model));
    t->byte_fallback = nt_json_bool(nt_json_get(model, "byte_fallback"), false);
    t->fuse_unk = nt_json_bool(nt_json_get(model, "fuse_unk"), false);
    t->ignore_merges = nt_json_bool(nt_json_get(model, "ignore_merges"), false);
    size_t len;
    const char *unk = nt_json_str(nt_json_get(model, "unk_token"), &len);
    if (unk) {
        t->unk_model = nt_tok_vocab_find(&t->vocab, unk, len);
        t->unk_missing = t->unk_model < 0;
    }
    return NT_OK;
}

/* ---- added tokens and tokenizer_config.json ---- */

static nt_status read_added(struct nt_tokenizer *t, const struct nt_json *v, int64_t id, const char *where) {
    struct nt_tok_added a = {0};
    size_t len = 0;
    const char *content = nt_json_str(nt_json_get(v, "content"), &len);
    if (!content || id < 0 || id > INT32_MAX)
        return NT_FAIL(NT_E_DATA, "%s: %s: expected an id and a string \"content\"", t->origin, where);
    if (len > NT_TOK_MAX_TOKEN)
        return NT_FAIL(NT_E_DATA, "%s: %s: content of %zu bytes; at most %d are accepted", t->origin, where, len,
                       NT_TOK_MAX_TOKEN);
    a.id = (int32_t)id;
    a.len = (uint32_t)len;
    a.single_word = nt_json_bool(nt_json_get(v, "single_word"), false);
    a.lstrip = nt_json_bool(nt_json_get(v, "lstrip"), false);
    a.rstrip = nt_json_bool(nt_json_get(v, "rstrip"), false);
    a.special = nt_json_bool(nt_json_get(v, "special"), false);
    a.normalized = nt_json_bool(nt_json_get(v, "normalized"), !a.special);
    return nt_tok_add_added(t, &a, content);
}

static nt_status read_added_list(struct nt_tokenizer *t, const struct nt_json *list) {
    for (size_t i = 0; i < nt_json_len(list); i++) {
        const struct nt_json *v = nt_json_at(list, i);
        NT_TRY(read_added(t, v, nt_json_int(nt_json_get(v, "id"), -1), "added_tokens"));
    }
    return NT_OK;
}

/* Entries of tokenizer_config.json override the flags in tokenizer.json, as transformers does. */
static nt_status read_added_map(struct nt_tokenizer *t, const struct nt_json *map) {
    for (void *it = nt_json_first(map); it; it = nt_json_next(map, it)) {
        int64_t id = 0;
        const char *key = nt_json_key(it);
        size_t digits = strspn(key, "0123456789");
        if (digits == 0 || digits > 9 || key[digits])
            return NT_FAIL(NT_E_DATA, "%s: added_tokens_decoder: key \"%.40s\" is not an id", t->origin, key);
        for (size_t i = 0; i < digits; i++) id = id * 10 + (key[i] - '0');
        NT_TRY(read_added(t, nt_json_value(it), id, "added_tokens_decoder"));
    }
    return NT_OK;
}

static int32_t named_token(const struct nt_tokenizer *t, const struct nt_json *config, const char *key) {
    const struct nt_json *v = nt_json_get(config, key);
    size_t len;
    const char *s = nt_json_str(v, &len);
    if (!s) s = nt_json_str(nt_json_get(v, "content"), &len);
    return s ? nt_tok_vocab_find(&t->vocab, s, len) : -1;
}

static nt_status read_all(struct nt_tokenizer *t, const struct nt_json *doc, const struct nt_json *config) {
    const struct nt_json *added = nt_json_get(doc, "added_tokens");
    const struct nt_json *more = nt_json_get(config, "added_tokens_decoder");
    NT_TRY(read_model(t, nt_json_get(doc, "model"), nt_json_len(added) + nt_json_len(more)));
    NT_TRY(each(t, nt_json_get(doc, "normalizer"), "normalizers", 0, norm_component));
    NT_TRY(each(t, nt_json_get(doc, "pre_tokenizer"), "pretokenizers", 0, pre_component));
    NT_TRY(read_added_list(t, added));
    NT_TRY(read_added_map(t, more));
    NT_TRY(each(t, nt_json_get(doc, "post_processor"), "processors", 0, post_component));
    if (nt_json_type(nt_json_get(doc, "decoder")) == NT_JSON_NULL)
        return NT_FAIL(NT_E_UNSUPPORTED, "%s: no decoder; expected ByteLevel, ByteFallback or Metaspace", t->origin);
    NT_TRY(each(t, nt_json_get(doc, "decoder"), "decoders", 0, dec_component));
    if (t->byte_level != t->dec.byte_level)
        return NT_FAIL(NT_E_UNSUPPORTED, "%s: pre_tokenizer and decoder must both be ByteLevel or both not", t->origin);
    if (config) {
        t->bos = named_token(t, config, "bos_token");
        t->eos = named_token(t, config, "eos_token");
        t->unk = named_token(t, config, "unk_token");
        t->pad = named_token(t, config, "pad_token");
    }
    if (t->unk < 0) t->unk = t->unk_model;
    if (t->eos >= 0) NT_TRY(nt_tokenizer_add_stop(t, t->eos));
    return nt_tok_finish(t);
}

nt_status nt_tokenizer_from_json(const char *text, size_t len, const char *origin, const char *config,
                                 size_t config_len, struct nt_tokenizer **out) {
    struct nt_json *doc = NULL, *config_doc = NULL;
    struct nt_tokenizer *t = NULL;
    nt_status st;
    NT_TRY_GOTO(st, free_all, nt_json_parse(text, len, origin, &doc));
    if (config) NT_TRY_GOTO(st, free_all, nt_json_parse_wide(config, config_len, "tokenizer_config.json", &config_doc));
    NT_TRY_GOTO(st, free_all, nt_tok_new(origin, &t));
    NT_TRY_GOTO(st, free_all, read_all(t, doc, config_doc));
    *out = t;
    t = NULL;
free_all:
    nt_tokenizer_free(t);
    nt_json_free(config_doc);
    nt_json_free(doc);
    return st;
}
