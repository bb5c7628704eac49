/* Decoding, whole and streaming. Whole decoding is streaming over all ids, so the two cannot differ. */
#include "tok_internal.h"

enum { STRIP_OVER = INT32_MAX };

void nt_detok_init(struct nt_detok *d, bool skip_special) {
    struct nt_strbuf pending = d->pending;
    nt_strbuf_reset(&pending);
    *d = (struct nt_detok){.pending = pending, .skip_special = skip_special};
}

void nt_detok_release(struct nt_detok *d) {
    nt_strbuf_release(&d->pending);
    *d = (struct nt_detok){0};
}

/* Valid text behind the decoder's Fuse: blanks at the very start are dropped up to the decoder's count. */
static void emit(struct nt_detok *d, const struct nt_tokenizer *t, const char *text, size_t len,
                 struct nt_strbuf *out) {
    while (len > 0 && d->strip_left < t->dec.strip_left) {
        if (*text != ' ') {
            d->strip_left = STRIP_OVER;
            break;
        }
        d->strip_left++;
        text++;
        len--;
    }
    nt_strbuf_add(out, text, len);
}

static void drop_front(struct nt_strbuf *s, size_t n) {
    if (n == 0) return;
    struct nt_strbuf rest = NT_STRBUF_INIT;
    nt_strbuf_add(&rest, s->data + n, s->len - n);
    nt_strbuf_reset(s);
    nt_strbuf_add(s, nt_strbuf_cstr(&rest), rest.len);
    nt_strbuf_release(&rest);
}

/* A run of SentencePiece byte tokens is text when all of it is; otherwise every byte is one U+FFFD. */
static void flush_run(struct nt_detok *d, const struct nt_tokenizer *t, struct nt_strbuf *out) {
    if (d->pending.len == 0) return;
    if (nt_utf8_valid(d->pending.data, d->pending.len)) {
        emit(d, t, d->pending.data, d->pending.len, out);
    } else {
        for (size_t i = 0; i < d->pending.len; i++) emit(d, t, "\xEF\xBF\xBD", 3, out);
    }
    nt_strbuf_reset(&d->pending);
}

static void step_bytes(struct nt_detok *d, const char *piece, size_t len, struct nt_strbuf *out) {
    if (d->pending.len == 0) {
        size_t took = nt_utf8_add_lossy_head(out, piece, len);
        nt_strbuf_add(&d->pending, piece + took, len - took);
        return;
    }
    nt_strbuf_add(&d->pending, piece, len);
    drop_front(&d->pending, nt_utf8_add_lossy_head(out, d->pending.data, d->pending.len));
}

/* Metaspace removes every mark of the first token. */
static void emit_without_marks(struct nt_detok *d, const struct nt_tokenizer *t, const char *text, size_t len,
                               struct nt_strbuf *out) {
    for (size_t i = 0; i < len;) {
        if (len - i >= 3 && text[i] == '\xE2' && text[i + 1] == '\x96' && text[i + 2] == '\x81') {
            i += 3;
            continue;
        }
        size_t n = nt_utf8_len((unsigned char)text[i]);
        emit(d, t, text + i, n, out);
        i += n;
    }
}

void nt_detok_step(struct nt_detok *d, const struct nt_tokenizer *t, int32_t id, struct nt_strbuf *out) {
    if (id < 0 || id >= t->vocab.n) return;
    const struct nt_tok_entry *e = &t->vocab.entry[id];
    if (!(e->attr & NT_TOK_ATTR_USED)) return;
    if (d->skip_special && (e->attr & NT_TOK_ATTR_SPECIAL)) return;
    const char *blob = nt_strbuf_cstr(&t->vocab.blob);
    bool first = !d->started;
    d->started = true;
    if (t->dec.byte_level) {
        step_bytes(d, blob + e->piece, e->piece_len, out);
    } else if (e->attr & NT_TOK_ATTR_BYTE) {
        nt_strbuf_add(&d->pending, blob + e->piece, e->piece_len);
    } else {
        flush_run(d, t, out);
        if (first && t->dec.metaspace_first)
            emit_without_marks(d, t, blob + e->text, e->text_len, out);
        else
            emit(d, t, blob + e->piece, e->piece_len, out);
    }
}

void nt_detok_finish(struct nt_detok *d, const struct nt_tokenizer *t, struct nt_strbuf *out) {
    if (!t->dec.byte_level)
        flush_run(d, t, out);
    else
        nt_utf8_add_lossy(out, nt_strbuf_cstr(&d->pending), d->pending.len);
    nt_detok_init(d, d->skip_special);
}

void nt_tokenizer_decode(const struct nt_tokenizer *t, const int32_t *ids, int64_t n, bool skip_special,
                         struct nt_strbuf *out) {
    struct nt_detok d = {0};
    nt_detok_init(&d, skip_special);
    for (int64_t i = 0; i < n; i++) nt_detok_step(&d, t, ids[i], out);
    nt_detok_finish(&d, t, out);
    nt_detok_release(&d);
}
