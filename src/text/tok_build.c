/* Building blocks of the two readers, and the tables made when all is known. */
#include "tok_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

nt_status nt_tok_new(const char *origin, struct nt_tokenizer **out) {
    struct nt_tokenizer *t = calloc(1, sizeof *t);
    struct nt_tok_pool *pool = t ? nt_tok_pool_new() : NULL;
    if (!pool) {
        free(t);
        return NT_FAIL(NT_E_NOMEM, "%s: no memory for a tokenizer", origin);
    }
    t->pool = pool;
    (void)snprintf(t->origin, sizeof t->origin, "%s", origin);
    t->bos = t->eos = t->unk = t->pad = t->unk_model = -1;
    for (int i = 0; i < 256; i++) t->byte_id[i] = -1;
    *out = t;
    return NT_OK;
}

void nt_tokenizer_free(struct nt_tokenizer *t) {
    if (!t) return;
    nt_tok_vocab_release(&t->vocab);
    nt_tok_merges_release(&t->merges);
    nt_tok_trie_release(&t->raw);
    nt_tok_trie_release(&t->cooked);
    nt_tok_trie_release(&t->mixed);
    for (int32_t i = 0; i < t->n_pre; i++) {
        if (t->pre[i].code) pcre2_code_free(t->pre[i].code);
    }
    free(t->added);
    free(t->char_id);
    nt_strbuf_release(&t->added_blob);
    nt_strbuf_release(&t->pipeline);
    nt_tok_pool_free(t->pool);
    free(t);
}

nt_status nt_tok_add_norm(struct nt_tokenizer *t, enum nt_tok_norm_kind kind, int unicode, const char *from,
                          size_t from_len, const char *to, size_t to_len) {
    if (t->n_norm == NT_TOK_MAX_STEPS)
        return NT_FAIL(NT_E_UNSUPPORTED, "%s: more than %d normalizers", t->origin, NT_TOK_MAX_STEPS);
    struct nt_tok_norm *n = &t->norm[t->n_norm];
    if (from_len > sizeof n->from || to_len > sizeof n->to || (kind == NT_TOK_NORM_REPLACE && from_len == 0))
        return NT_FAIL(NT_E_UNSUPPORTED, "%s: normalizer: strings of 1 to %zu bytes are supported", t->origin,
                       sizeof n->from);
    *n = (struct nt_tok_norm){.kind = kind, .unicode = unicode, .from_len = from_len, .to_len = to_len};
    if (from_len) memcpy(n->from, from, from_len);
    if (to_len) memcpy(n->to, to, to_len);
    t->n_norm++;
    nt_strbuf_addf(&t->pipeline, "norm %d %d ", (int)kind, unicode);
    nt_strbuf_add_json(&t->pipeline, n->from, from_len);
    nt_strbuf_add_json(&t->pipeline, n->to, to_len);
    nt_strbuf_addc(&t->pipeline, '\n');
    return NT_OK;
}

static nt_status next_pre(struct nt_tokenizer *t, struct nt_tok_pre **out) {
    if (t->n_pre == NT_TOK_MAX_STEPS)
        return NT_FAIL(NT_E_UNSUPPORTED, "%s: more than %d pre-tokenizers", t->origin, NT_TOK_MAX_STEPS);
    *out = &t->pre[t->n_pre];
    memset(*out, 0, sizeof **out);
    return NT_OK;
}

nt_status nt_tok_add_split(struct nt_tokenizer *t, const char *pattern, size_t len, enum nt_tok_split behavior,
                           bool invert, const char *where) {
    struct nt_tok_pre *p;
    NT_TRY(next_pre(t, &p));
    NT_TRY(nt_tok_regex_compile(pattern, len, t->origin, where, p));
    p->behavior = behavior;
    p->invert = invert;
    t->n_pre++;
    nt_strbuf_addf(&t->pipeline, "split %d %d ", (int)behavior, (int)invert);
    nt_strbuf_add_json(&t->pipeline, pattern, len);
    nt_strbuf_addc(&t->pipeline, '\n');
    return NT_OK;
}

nt_status nt_tok_add_metaspace(struct nt_tokenizer *t, enum nt_tok_prepend prepend, bool split, const char *marker,
                               size_t len) {
    struct nt_tok_pre *p;
    NT_TRY(next_pre(t, &p));
    if (len == 0 || len > sizeof p->marker)
        return NT_FAIL(NT_E_UNSUPPORTED, "%s: Metaspace: the replacement must be one character", t->origin);
    p->kind = NT_TOK_PRE_METASPACE;
    p->prepend = prepend;
    p->split = split;
    memcpy(p->marker, marker, len);
    p->marker_len = len;
    t->n_pre++;
    nt_strbuf_addf(&t->pipeline, "metaspace %d %d %.*s\n", (int)prepend, (int)split, (int)len, marker);
    return NT_OK;
}

nt_status nt_tok_add_prefix_space(struct nt_tokenizer *t) {
    struct nt_tok_pre *p;
    NT_TRY(next_pre(t, &p));
    p->kind = NT_TOK_PRE_PREFIX_SPACE;
    t->n_pre++;
    nt_strbuf_adds(&t->pipeline, "prefix space\n");
    return NT_OK;
}

static bool has_blank(const char *s, size_t len) {
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)s[i] <= ' ') return true;
    }
    return false;
}

/* Shapes that models use for markup: <...> and [...]. */
static bool is_markup(const char *s, size_t len) {
    if (len < 3 || has_blank(s, len)) return false;
    return (s[0] == '<' && s[len - 1] == '>') || (s[0] == '[' && s[len - 1] == ']');
}

nt_status nt_tok_add_added(struct nt_tokenizer *t, const struct nt_tok_added *a, const char *content) {
    if (a->id < 0 || a->id >= t->vocab.cap)
        return NT_FAIL(NT_E_DATA, "%s: added token \"%.60s\" has id %d, outside 0..%d", t->origin, content, a->id,
                       t->vocab.cap - 1);
    int32_t known = nt_tok_vocab_find(&t->vocab, content, a->len);
    if (known < 0) {
        NT_TRY(nt_tok_vocab_put(&t->vocab, a->id, content, a->len, 0, t->origin));
    } else if (known != a->id) {
        return NT_FAIL(NT_E_DATA, "%s: added token \"%.60s\" has id %d but the vocabulary gives it %d", t->origin,
                       content, a->id, known);
    }
    struct nt_tok_entry *e = &t->vocab.entry[a->id];
    int32_t i = 0;
    if (e->attr & NT_TOK_ATTR_ADDED) {
        while (t->added[i].id != a->id) i++;
    } else {
        i = t->n_added;
        if ((i & (i + 1)) == 0) { /* 0, 1, 3, 7, ...: room for twice as many */
            struct nt_tok_added *grown = realloc(t->added, (size_t)(2 * i + 1) * sizeof *grown);
            if (!grown) return NT_FAIL(NT_E_NOMEM, "%s: no memory for %d added tokens", t->origin, 2 * i + 1);
            t->added = grown;
        }
        t->n_added++;
    }
    t->added[i] = *a;
    t->added[i].markup = a->special || is_markup(content, a->len);
    t->added[i].text = (uint32_t)t->added_blob.len;
    nt_strbuf_add(&t->added_blob, content, a->len);
    e->attr &= ~(uint32_t)(NT_TOK_ATTR_SPECIAL | NT_TOK_ATTR_MARKUP);
    e->attr |=
        NT_TOK_ATTR_ADDED | (a->special ? NT_TOK_ATTR_SPECIAL : 0u) | (t->added[i].markup ? NT_TOK_ATTR_MARKUP : 0u);
    return NT_OK;
}

static nt_status build_tries(struct nt_tokenizer *t) {
    struct nt_strbuf norm = NT_STRBUF_INIT, tmp = NT_STRBUF_INIT;
    nt_status st = NT_OK;
    for (int32_t i = 0; i < t->n_added && st == NT_OK; i++) {
        const struct nt_tok_added *a = &t->added[i];
        const char *text = t->added_blob.data + a->text;
        if (!a->normalized) {
            st = nt_tok_trie_add(&t->raw, text, a->len, i);
        } else {
            st = nt_tok_normalize(t, text, a->len, &norm, &tmp);
            if (st == NT_OK) st = nt_tok_trie_add(&t->cooked, nt_strbuf_cstr(&norm), norm.len, i);
        }
        if (st == NT_OK && (!a->normalized || a->markup)) st = nt_tok_trie_add(&t->mixed, text, a->len, i);
    }
    nt_strbuf_release(&norm);
    nt_strbuf_release(&tmp);
    return st;
}

static void find_bytes(struct nt_tokenizer *t) {
    t->all_bytes = true;
    for (int b = 0; b < 256; b++) {
        char text[8];
        size_t len;
        if (t->byte_level) {
            len = nt_tok_byte_spelling((uint8_t)b, text);
        } else {
            (void)snprintf(text, sizeof text, "<0x%02X>", (unsigned)b);
            len = 6;
        }
        t->byte_id[b] = nt_tok_vocab_find(&t->vocab, text, len);
        if (t->byte_id[b] < 0) t->all_bytes = false;
    }
}

/* One table look-up per character, and where words may be cut: no token joins a byte that is not in marker_after with
 * a mark behind it, so cutting there changes nothing and lets the cache work. */
static nt_status char_tables(struct nt_tokenizer *t) {
    static const char marker[] = "\xE2\x96\x81";
    t->char_id = malloc(65536 * sizeof *t->char_id);
    if (!t->char_id) return NT_FAIL(NT_E_NOMEM, "%s: no memory for a tokenizer", t->origin);
    for (int i = 0; i < 65536; i++) t->char_id[i] = -1;
    for (int32_t id = 0; id < t->vocab.n; id++) {
        const struct nt_tok_entry *e = &t->vocab.entry[id];
        if (!(e->attr & NT_TOK_ATTR_MODEL) || e->text_len == 0) continue;
        const char *text = t->vocab.blob.data + e->text;
        size_t used;
        uint32_t cp;
        if (nt_utf8_look(text, e->text_len, &used, &cp) == NT_UTF8_OK && used == e->text_len && cp < 65536)
            t->char_id[cp] = id;
        for (uint32_t i = 1; i + 3 <= e->text_len; i++) {
            if (memcmp(text + i, marker, 3) == 0) t->marker_after[(unsigned char)text[i - 1]] = true;
        }
    }
    t->marker_split = !t->ignore_merges && t->char_id[0x2581] >= 0;
    return NT_OK;
}

static void hash_u32(struct nt_sha256 *s, uint32_t v) {
    uint8_t le[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)};
    nt_sha256_add(s, le, 4);
}

static nt_status make_digest(struct nt_tokenizer *t) {
    struct nt_sha256 *s;
    NT_TRY(nt_sha256_new(&s));
    for (int32_t id = 0; id < t->vocab.n; id++) {
        const struct nt_tok_entry *e = &t->vocab.entry[id];
        hash_u32(s, e->attr);
        hash_u32(s, e->text_len);
        nt_sha256_add(s, t->vocab.blob.data + e->text, e->text_len);
    }
    for (uint64_t i = 0; t->merges.slot && i <= t->merges.mask; i++) {
        const struct nt_tok_pair *p = &t->merges.slot[i];
        if (p->key == UINT64_MAX) continue;
        hash_u32(s, (uint32_t)(p->key >> 32));
        hash_u32(s, (uint32_t)p->key);
        hash_u32(s, (uint32_t)p->rank);
    }
    for (int32_t i = 0; i < t->n_added; i++) {
        const struct nt_tok_added *a = &t->added[i];
        hash_u32(s, (uint32_t)a->id);
        hash_u32(s,
                 (uint32_t)(a->single_word | a->lstrip << 1 | a->rstrip << 2 | a->normalized << 3 | a->special << 4));
    }
    for (int32_t i = 0; i < t->n_before; i++) hash_u32(s, (uint32_t)t->post_before[i]);
    hash_u32(s, UINT32_MAX);
    for (int32_t i = 0; i < t->n_after; i++) hash_u32(s, (uint32_t)t->post_after[i]);
    nt_strbuf_addf(&t->pipeline, "model %d %d %d %d %d\ndecoder %d %d %d %d %d\n", t->byte_level, t->byte_fallback,
                   t->fuse_unk, t->ignore_merges, t->unk_model, t->dec.byte_level, t->dec.byte_fallback,
                   t->dec.marker_blank, t->dec.metaspace_first, t->dec.strip_left);
    nt_sha256_add(s, t->pipeline.data, t->pipeline.len);
    nt_sha256_finish(s, t->digest);
    return NT_OK;
}

nt_status nt_tok_finish(struct nt_tokenizer *t) {
    nt_tok_vocab_make_pieces(&t->vocab, t->dec.byte_level, t->dec.marker_blank, t->dec.byte_fallback);
    find_bytes(t);
    if (!t->byte_level) NT_TRY(char_tables(t));
    if (t->unk_missing && !(t->all_bytes && (t->byte_level || t->byte_fallback)))
        return NT_FAIL(NT_E_DATA, "%s: model.unk_token is not in the vocabulary", t->origin);
    NT_TRY(build_tries(t));
    NT_TRY(make_digest(t));
    (void)snprintf(t->describe, sizeof t->describe, "%s BPE, %d ids, %lld merges, %d added tokens",
                   t->byte_level ? "byte-level" : "SentencePiece-style", t->vocab.n, (long long)t->merges.n,
                   t->n_added);
    return NT_OK;
}
