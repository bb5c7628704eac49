/* Encoding: the order of the stages, and the accessors. */
#include "tok_internal.h"

#include <stdlib.h>
#include <string.h>

static void encode_range(const struct nt_tokenizer *t, struct nt_tok_scratch *s, const char *text, size_t len,
                         struct nt_ids *ids) {
    if (!t->marker_split) {
        nt_tok_bpe(t, s, text, len, ids);
        return;
    }
    size_t word = 0;
    for (size_t i = 1; i + 2 < len; i++) {
        const char *e2 = memchr(text + i, '\xE2', len - 2 - i);
        if (!e2) break;
        i = (size_t)(e2 - text);
        if (memcmp(e2, "\xE2\x96\x81", 3) != 0 || t->marker_after[(unsigned char)text[i - 1]]) continue;
        nt_tok_bpe(t, s, text + word, i - word, ids);
        word = i;
    }
    nt_tok_bpe(t, s, text + word, len - word, ids);
}

/* s->norm holds normalized text without added tokens. */
static nt_status encode_words(const struct nt_tokenizer *t, struct nt_tok_scratch *s, bool at_start,
                              struct nt_ids *ids) {
    if (s->norm.len == 0) return NT_OK;
    NT_TRY(nt_tok_pretokenize(t, s, 0, s->norm.len, at_start));
    for (int64_t i = 0; i < s->n_range; i++) {
        const struct nt_tok_range *r = &s->ranges[i];
        encode_range(t, s, s->norm.data + r->start, r->end - r->start, ids);
    }
    return NT_OK;
}

/* One trust for the whole stretch: after normalization positions are no longer those of the zones. */
static enum nt_tok_trust least_trust(const struct nt_tok_scratch *s, size_t start, size_t end) {
    enum nt_tok_trust trust = NT_TOK_TRUST_ALL;
    size_t begin = 0;
    for (int64_t i = 0; i < s->n_zone && begin < end; begin = s->zones[i++].end) {
        if (s->zones[i].end > start && s->zones[i].trust > trust) trust = s->zones[i].trust;
    }
    return trust;
}

/* s->text[start, end) holds no unnormalized added token. */
static nt_status encode_stretch(const struct nt_tokenizer *t, struct nt_tok_scratch *s, size_t start, size_t end,
                                struct nt_ids *ids) {
    NT_TRY(nt_tok_normalize(t, s->text.data + start, end - start, &s->norm, &s->norm_tmp));
    if (t->cooked.n_node == 0) return encode_words(t, s, start == 0, ids);

    struct nt_strbuf swap = s->cooked;
    s->cooked = s->norm;
    s->norm = swap;
    const char *text = nt_strbuf_cstr(&s->cooked);
    size_t len = s->cooked.len, last = 0, pos = 0;
    struct nt_tok_zone zone = {.end = len, .trust = least_trust(s, start, end)};
    struct nt_tok_match m;
    for (;;) {
        bool hit = nt_tok_trie_next(&t->cooked, t->added, text, len, last, &pos, &zone, 1, &m);
        size_t stop = hit ? m.start : len;
        if (stop > last) {
            nt_strbuf_reset(&s->norm);
            nt_strbuf_add(&s->norm, text + last, stop - last);
            NT_TRY(encode_words(t, s, start == 0 && last == 0, ids));
        }
        if (!hit) return NT_OK;
        nt_ids_push(ids, t->added[m.added].id);
        last = m.end;
    }
}

static nt_status encode_text(const struct nt_tokenizer *t, struct nt_tok_scratch *s, unsigned flags,
                             struct nt_ids *ids) {
    const char *text = nt_strbuf_cstr(&s->text);
    size_t len = s->text.len, last = 0, pos = 0;
    bool mixed = s->n_zone > 1;
    const struct nt_tok_trie *trie = mixed ? &t->mixed : &t->raw;
    struct nt_tok_match m;
    if (flags & NT_TOK_ADD_SPECIAL) nt_ids_append(ids, t->post_before, t->n_before);
    while (nt_tok_trie_next(trie, t->added, text, len, last, &pos, s->zones, s->n_zone, &m)) {
        if (m.start > last) NT_TRY(encode_stretch(t, s, last, m.start, ids));
        nt_ids_push(ids, t->added[m.added].id);
        last = m.end;
    }
    if (last < len) NT_TRY(encode_stretch(t, s, last, len, ids));
    if (flags & NT_TOK_ADD_SPECIAL) nt_ids_append(ids, t->post_after, t->n_after);
    return NT_OK;
}

static nt_status add_zone(const struct nt_tokenizer *t, struct nt_tok_scratch *s, const char *text, size_t len,
                          enum nt_tok_trust trust) {
    if (len > NT_TOK_MAX_TEXT || s->text.len + len > NT_TOK_MAX_TEXT)
        return NT_FAIL(NT_E_DATA, "%s: a text longer than %d bytes cannot be encoded; split it", t->origin,
                       NT_TOK_MAX_TEXT);
    if (len) nt_utf8_add_lossy(&s->text, text, len);
    if (s->n_zone > 0 && s->zones[s->n_zone - 1].trust == trust) {
        s->zones[s->n_zone - 1].end = s->text.len;
        return NT_OK;
    }
    if (s->n_zone == s->cap_zone) nt_tok_grow((void **)&s->zones, &s->cap_zone, s->n_zone + 1, sizeof *s->zones);
    s->zones[s->n_zone++] = (struct nt_tok_zone){.end = s->text.len, .trust = trust};
    return NT_OK;
}

nt_status nt_tokenizer_encode(const struct nt_tokenizer *t, const char *text, size_t len, unsigned flags,
                              struct nt_ids *ids) {
    struct nt_tok_scratch *s = nt_tok_scratch_take(t);
    nt_strbuf_reset(&s->text);
    s->n_zone = 0;
    nt_status st;
    NT_TRY_GOTO(st, give,
                add_zone(t, s, text, len, flags & NT_TOK_PARSE_SPECIAL ? NT_TOK_TRUST_ALL : NT_TOK_TRUST_PLAIN));
    NT_TRY_GOTO(st, give, encode_text(t, s, flags, ids));
give:
    nt_tok_scratch_give(t, s);
    return st;
}

nt_status nt_tokenizer_encode_spans(const struct nt_tokenizer *t, const struct nt_tok_span *spans, int64_t n,
                                    unsigned flags, struct nt_ids *ids) {
    struct nt_tok_scratch *s = nt_tok_scratch_take(t);
    nt_strbuf_reset(&s->text);
    s->n_zone = 0;
    nt_status st = NT_OK;
    for (int64_t i = 0; i < n; i++) {
        if (spans[i].len == 0) continue;
        NT_TRY_GOTO(
            st, give,
            add_zone(t, s, spans[i].text, spans[i].len, spans[i].trusted ? NT_TOK_TRUST_ALL : NT_TOK_TRUST_USER));
    }
    NT_TRY_GOTO(st, give, encode_text(t, s, flags, ids));
give:
    nt_tok_scratch_give(t, s);
    return st;
}

static const struct nt_tok_entry *entry_of(const struct nt_tokenizer *t, int32_t id) {
    if (id < 0 || id >= t->vocab.n || !(t->vocab.entry[id].attr & NT_TOK_ATTR_USED)) return NULL;
    return &t->vocab.entry[id];
}

int32_t nt_tokenizer_n_vocab(const struct nt_tokenizer *t) {
    return t->vocab.n;
}

const char *nt_tokenizer_piece(const struct nt_tokenizer *t, int32_t id, size_t *len) {
    const struct nt_tok_entry *e = entry_of(t, id);
    if (len) *len = e ? e->piece_len : 0;
    return e ? nt_strbuf_cstr(&t->vocab.blob) + e->piece : NULL;
}

const char *nt_tokenizer_token(const struct nt_tokenizer *t, int32_t id, size_t *len) {
    const struct nt_tok_entry *e = entry_of(t, id);
    if (len) *len = e ? e->text_len : 0;
    return e ? nt_strbuf_cstr(&t->vocab.blob) + e->text : NULL;
}

int32_t nt_tokenizer_find(const struct nt_tokenizer *t, const char *token, size_t len) {
    return nt_tok_vocab_find(&t->vocab, token, len);
}

bool nt_tokenizer_is_special(const struct nt_tokenizer *t, int32_t id) {
    const struct nt_tok_entry *e = entry_of(t, id);
    return e && (e->attr & NT_TOK_ATTR_SPECIAL);
}

int32_t nt_tokenizer_bos(const struct nt_tokenizer *t) {
    return t->bos;
}

int32_t nt_tokenizer_eos(const struct nt_tokenizer *t) {
    return t->eos;
}

int32_t nt_tokenizer_unk(const struct nt_tokenizer *t) {
    return t->unk;
}

int32_t nt_tokenizer_pad(const struct nt_tokenizer *t) {
    return t->pad;
}

const int32_t *nt_tokenizer_stops(const struct nt_tokenizer *t, int64_t *n) {
    *n = t->n_stop;
    return t->stops;
}

nt_status nt_tokenizer_add_stop(struct nt_tokenizer *t, int64_t id) {
    if (id < 0 || id >= t->vocab.n)
        return NT_FAIL(NT_E_DATA, "%s: stop id %lld is outside the vocabulary of %d ids", t->origin, (long long)id,
                       t->vocab.n);
    int32_t at = 0;
    while (at < t->n_stop && t->stops[at] < id) at++;
    if (at < t->n_stop && t->stops[at] == id) return NT_OK;
    if (t->n_stop == NT_TOK_MAX_STOPS)
        return NT_FAIL(NT_E_DATA, "%s: more than %d stop ids", t->origin, NT_TOK_MAX_STOPS);
    memmove(t->stops + at + 1, t->stops + at, (size_t)(t->n_stop - at) * sizeof *t->stops);
    t->stops[at] = (int32_t)id;
    t->n_stop++;
    return NT_OK;
}

void nt_tokenizer_digest(const struct nt_tokenizer *t, uint8_t digest[NT_SHA256_BYTES]) {
    memcpy(digest, t->digest, NT_SHA256_BYTES);
}

const char *nt_tokenizer_describe(const struct nt_tokenizer *t) {
    return t->describe;
}
