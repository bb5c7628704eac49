/* GGUF metadata -> tokenizer.json and tokenizer_config.json, as `tokenizers` writes them.
 *
 * Every token goes into model.vocab, control tokens too: readers give an added token that the vocabulary lacks the next
 * free id, not the one written beside it. */
#include "tok_internal.h"

#include <string.h>

enum token_type { CONTROL = 3, USER_DEFINED = 4 };

static void add_str(struct nt_strbuf *s, const struct nt_tok_str *t) {
    nt_strbuf_add_json(s, t->data, t->len);
}

static void add_text(struct nt_strbuf *s, const char *text) {
    nt_strbuf_add_json(s, text, strlen(text));
}

static void add_added(const struct nt_tok_parts *p, struct nt_strbuf *s) {
    const char *comma = "";
    for (int64_t i = 0; i < p->n_tokens; i++) {
        const bool special = p->types[i] == CONTROL;
        if (!special && p->types[i] != USER_DEFINED) continue;
        nt_strbuf_addf(s, "%s\n    {\"id\": %lld, \"content\": ", comma, (long long)i);
        add_str(s, &p->tokens[i]);
        nt_strbuf_addf(s,
                       ", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, \"normalized\": false, "
                       "\"special\": %s}",
                       special ? "true" : "false");
        comma = ",";
    }
}

static void add_pre(const struct nt_tok_preset *pre, struct nt_strbuf *s) {
    nt_strbuf_adds(s, "{\"type\": \"Sequence\", \"pretokenizers\": [");
    for (int i = 0; i < NT_TOK_MAX_PRE && pre->pattern[i]; i++) {
        nt_strbuf_adds(s, "{\"type\": \"Split\", \"pattern\": {\"Regex\": ");
        add_text(s, pre->pattern[i]);
        nt_strbuf_adds(s, "}, \"behavior\": \"Isolated\", \"invert\": false}, ");
    }
    nt_strbuf_adds(s, "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, "
                      "\"use_regex\": false}]}");
}

static void add_special(const struct nt_tok_parts *p, const int32_t *ids, int32_t n, const char **comma,
                        struct nt_strbuf *s) {
    for (int32_t i = 0; i < n; i++) {
        nt_strbuf_addf(s, "%s{\"SpecialToken\": {\"id\": ", *comma);
        add_str(s, &p->tokens[ids[i]]);
        nt_strbuf_adds(s, ", \"type_id\": 0}}");
        *comma = ", ";
    }
}

static void add_ids(const struct nt_tok_parts *p, const int32_t *ids, int32_t n, const char **comma,
                    struct nt_strbuf *s) {
    for (int32_t i = 0; i < n; i++) {
        nt_strbuf_adds(s, *comma);
        add_str(s, &p->tokens[ids[i]]);
        nt_strbuf_adds(s, ": {\"id\": ");
        add_str(s, &p->tokens[ids[i]]);
        nt_strbuf_addf(s, ", \"ids\": [%d], \"tokens\": [", ids[i]);
        add_str(s, &p->tokens[ids[i]]);
        nt_strbuf_adds(s, "]}");
        *comma = ", ";
    }
}

/* bos and eos around a text, and around both texts of a pair. */
static void add_post(const struct nt_tokenizer *t, const struct nt_tok_parts *p, struct nt_strbuf *s) {
    if (t->n_before + t->n_after == 0) {
        nt_strbuf_adds(s, "{\"type\": \"ByteLevel\", \"add_prefix_space\": true, \"trim_offsets\": false, "
                          "\"use_regex\": true}");
        return;
    }
    static const char *const names[] = {"A", "B"};
    nt_strbuf_adds(s, "{\"type\": \"TemplateProcessing\"");
    for (int n_text = 1; n_text <= 2; n_text++) {
        const char *comma = "";
        nt_strbuf_addf(s, ", \"%s\": [", n_text == 1 ? "single" : "pair");
        for (int i = 0; i < n_text; i++) {
            add_special(p, t->post_before, t->n_before, &comma, s);
            nt_strbuf_addf(s, "%s{\"Sequence\": {\"id\": \"%s\", \"type_id\": %d}}", comma, names[i], i);
            comma = ", ";
            add_special(p, t->post_after, t->n_after, &comma, s);
        }
        nt_strbuf_addc(s, ']');
    }
    const char *comma = "";
    nt_strbuf_adds(s, ", \"special_tokens\": {");
    add_ids(p, t->post_before, t->n_before, &comma, s);
    add_ids(p, t->post_after, t->n_after, &comma, s);
    nt_strbuf_adds(s, "}}");
}

static void add_model(const struct nt_tok_preset *pre, const struct nt_tok_parts *p, struct nt_strbuf *s) {
    nt_strbuf_addf(s,
                   "{\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, \"continuing_subword_prefix\": null, "
                   "\"end_of_word_suffix\": null, \"fuse_unk\": false, \"byte_fallback\": false, "
                   "\"ignore_merges\": %s,\n  \"vocab\": {",
                   pre->ignore_merges ? "true" : "false");
    for (int64_t i = 0; i < p->n_tokens; i++) {
        nt_strbuf_adds(s, i ? ",\n    " : "\n    ");
        add_str(s, &p->tokens[i]);
        nt_strbuf_addf(s, ": %lld", (long long)i);
    }
    nt_strbuf_adds(s, "\n  },\n  \"merges\": [");
    for (int64_t i = 0; i < p->n_merges; i++) {
        nt_strbuf_adds(s, i ? ",\n    " : "\n    ");
        add_str(s, &p->merges[i]);
    }
    nt_strbuf_adds(s, "\n  ]}");
}

static void add_token(const struct nt_tok_parts *p, const char *key, int32_t id, struct nt_strbuf *s) {
    if (id < 0) return;
    nt_strbuf_addf(s, ",\n  \"%s\": ", key);
    add_str(s, &p->tokens[id]);
}

nt_status nt_tokenizer_to_hf(const struct nt_tokenizer *t, const struct nt_tok_parts *parts, const char *chat_template,
                             size_t chat_template_len, struct nt_strbuf *tokenizer, struct nt_strbuf *config) {
    const struct nt_tok_preset *pre = nt_tok_preset_find(parts->pre ? parts->pre : "default");
    if (strcmp(parts->model, "gpt2") != 0 || !pre)
        return NT_FAIL(
            NT_E_UNSUPPORTED,
            "%s: its tokenizer is SentencePiece-style, and GGUF does not keep what its tokenizer.json holds; "
            "copy tokenizer.json and tokenizer_config.json from the model that this file was made of",
            parts->origin);
    nt_strbuf_adds(tokenizer, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n"
                              "  \"added_tokens\": [");
    add_added(parts, tokenizer);
    nt_strbuf_addf(tokenizer,
                   "\n  ],\n  \"normalizer\": %s,\n  \"pre_tokenizer\": ", pre->nfc ? "{\"type\": \"NFC\"}" : "null");
    add_pre(pre, tokenizer);
    nt_strbuf_adds(tokenizer, ",\n  \"post_processor\": ");
    add_post(t, parts, tokenizer);
    nt_strbuf_adds(tokenizer, ",\n  \"decoder\": {\"type\": \"ByteLevel\", \"add_prefix_space\": true, "
                              "\"trim_offsets\": true, \"use_regex\": true},\n  \"model\": ");
    add_model(pre, parts, tokenizer);
    nt_strbuf_adds(tokenizer, "\n}\n");
    nt_strbuf_addf(config,
                   "{\n  \"tokenizer_class\": \"PreTrainedTokenizerFast\",\n  \"add_bos_token\": %s,\n"
                   "  \"add_eos_token\": %s,\n  \"clean_up_tokenization_spaces\": false",
                   t->n_before ? "true" : "false", t->n_after ? "true" : "false");
    add_token(parts, "bos_token", t->bos, config);
    add_token(parts, "eos_token", t->eos, config);
    add_token(parts, "unk_token", t->unk, config);
    add_token(parts, "pad_token", t->pad, config);
    if (chat_template) {
        nt_strbuf_adds(config, ",\n  \"chat_template\": ");
        nt_strbuf_add_json(config, chat_template, chat_template_len);
    }
    nt_strbuf_adds(config, "\n}\n");
    return NT_OK;
}
