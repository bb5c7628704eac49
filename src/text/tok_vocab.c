/* Vocabulary: spellings, the bytes they stand for, and the two hash maps. */
#include "tok_internal.h"

#include <stdlib.h>
#include <string.h>

size_t nt_tok_byte_spelling(uint8_t b, char out[2]) {
    /* Printable Latin-1 stands for itself; the 68 others get U+0100, U+0101, ... in order of their value. */
    uint32_t cp = b;
    if (b < 0x21)
        cp = 0x100u + b;
    else if (b >= 0x7F && b < 0xA1)
        cp = 0x100u + 0x21u + (b - 0x7Fu);
    else if (b == 0xAD)
        cp = 0x100u + 0x21u + 0x22u;
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    out[0] = (char)(0xC0 | cp >> 6);
    out[1] = (char)(0x80 | (cp & 0x3F));
    return 2;
}

/* The byte a character of a byte-level spelling stands for, or -1. */
static int spelling_byte(uint32_t cp) {
    if (cp < 0x21) return -1;
    if (cp < 0x7F) return (int)cp;
    if (cp >= 0xA1 && cp <= 0xFF) return cp == 0xAD ? -1 : (int)cp;
    if (cp < 0x100 || cp > 0x143) return -1;
    uint32_t i = cp - 0x100;
    if (i < 0x21) return (int)i;
    if (i < 0x21 + 0x22) return (int)(i - 0x21 + 0x7F);
    return 0xAD;
}

static nt_status map_init(struct nt_tok_map *m, int64_t n, const char *origin) {
    uint32_t slots = 64;
    while (slots < n * 2) slots *= 2;
    m->slot = calloc(slots, sizeof *m->slot);
    if (!m->slot) return NT_FAIL(NT_E_NOMEM, "%s: no memory for a vocabulary of %lld tokens", origin, (long long)n);
    m->mask = slots - 1;
    return NT_OK;
}

nt_status nt_tok_vocab_init(struct nt_tok_vocab *v, int64_t cap, const char *origin) {
    memset(v, 0, sizeof *v);
    if (cap < 1 || cap > NT_TOK_MAX_IDS)
        return NT_FAIL(NT_E_DATA, "%s: the vocabulary has %lld ids; expected 1 to %d", origin, (long long)cap,
                       NT_TOK_MAX_IDS);
    v->entry = calloc((size_t)cap, sizeof *v->entry);
    if (!v->entry) return NT_FAIL(NT_E_NOMEM, "%s: no memory for a vocabulary of %lld tokens", origin, (long long)cap);
    v->cap = (int32_t)cap;
    NT_TRY(map_init(&v->by_text, cap, origin));
    return map_init(&v->by_piece, cap, origin);
}

static uint32_t hash_bytes(const char *bytes, size_t len) {
    return (uint32_t)nt_xxh64(bytes, len, 0);
}

nt_status nt_tok_vocab_put(struct nt_tok_vocab *v, int64_t id, const char *text, size_t len, uint32_t attr,
                           const char *origin) {
    int shown = (int)(len < 60 ? len : 60);
    if (id < 0 || id >= v->cap)
        return NT_FAIL(NT_E_DATA, "%s: token \"%.*s\" has id %lld, outside 0..%d; ids must be dense", origin, shown,
                       text, (long long)id, v->cap - 1);
    if (len > NT_TOK_MAX_TOKEN)
        return NT_FAIL(NT_E_DATA, "%s: token %lld has %zu bytes; at most %d are accepted", origin, (long long)id, len,
                       NT_TOK_MAX_TOKEN);
    struct nt_tok_entry *e = &v->entry[id];
    if (e->attr & NT_TOK_ATTR_USED)
        return NT_FAIL(NT_E_DATA, "%s: id %lld belongs to two tokens, \"%.*s\" and \"%.*s\"", origin, (long long)id,
                       (int)(e->text_len < 60 ? e->text_len : 60), v->blob.data + e->text, shown, text);
    if (v->blob.len + len > UINT32_MAX / 4)
        return NT_FAIL(NT_E_DATA, "%s: the tokens' spellings take more than 1 GiB", origin);
    uint32_t at = hash_bytes(text, len) & v->by_text.mask;
    for (; v->by_text.slot[at]; at = (at + 1) & v->by_text.mask) {
        const struct nt_tok_entry *o = &v->entry[v->by_text.slot[at] - 1];
        if (o->text_len == len && memcmp(v->blob.data + o->text, text, len) == 0)
            return NT_FAIL(NT_E_DATA, "%s: token \"%.*s\" has two ids, %u and %lld", origin, shown, text,
                           v->by_text.slot[at] - 1, (long long)id);
    }
    v->by_text.slot[at] = (uint32_t)id + 1;
    e->text = (uint32_t)v->blob.len;
    e->text_len = (uint32_t)len;
    e->attr = attr | NT_TOK_ATTR_USED;
    nt_strbuf_add(&v->blob, text, len);
    if (id >= v->n) v->n = (int32_t)id + 1;
    return NT_OK;
}

int32_t nt_tok_vocab_find(const struct nt_tok_vocab *v, const char *text, size_t len) {
    for (uint32_t at = hash_bytes(text, len) & v->by_text.mask; v->by_text.slot[at]; at = (at + 1) & v->by_text.mask) {
        uint32_t id = v->by_text.slot[at] - 1;
        const struct nt_tok_entry *e = &v->entry[id];
        if (e->text_len == len && memcmp(v->blob.data + e->text, text, len) == 0) return (int32_t)id;
    }
    return -1;
}

int32_t nt_tok_vocab_find_piece(const struct nt_tok_vocab *v, const char *bytes, size_t len) {
    for (uint32_t at = hash_bytes(bytes, len) & v->by_piece.mask; v->by_piece.slot[at];
         at = (at + 1) & v->by_piece.mask) {
        uint32_t id = v->by_piece.slot[at] - 1;
        const struct nt_tok_entry *e = &v->entry[id];
        if (e->piece_len == len && memcmp(v->blob.data + e->piece, bytes, len) == 0) return (int32_t)id;
    }
    return -1;
}

/* False when some character stands for no byte: then the spelling is the text itself. */
static bool byte_level_piece(const char *text, size_t len, struct nt_strbuf *out) {
    for (size_t i = 0; i < len;) {
        size_t n;
        uint32_t cp;
        if (nt_utf8_look(text + i, len - i, &n, &cp) != NT_UTF8_OK) return false;
        int b = spelling_byte(cp);
        if (b < 0) return false;
        nt_strbuf_addc(out, (char)b);
        i += n;
    }
    return true;
}

static void marker_piece(const char *text, size_t len, struct nt_strbuf *out) {
    for (size_t i = 0; i < len;) {
        if (len - i >= 3 && memcmp(text + i, "\xE2\x96\x81", 3) == 0) {
            nt_strbuf_addc(out, ' ');
            i += 3;
        } else {
            nt_strbuf_addc(out, text[i++]);
        }
    }
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return -1;
}

static int byte_token(const char *text, size_t len) {
    if (len != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') return -1;
    int hi = hex_digit(text[3]), lo = hex_digit(text[4]);
    return hi < 0 || lo < 0 ? -1 : hi * 16 + lo;
}

static void map_piece(struct nt_tok_vocab *v, int32_t id) {
    const struct nt_tok_entry *e = &v->entry[id];
    if (nt_tok_vocab_find_piece(v, v->blob.data + e->piece, e->piece_len) >= 0) return;
    uint32_t at = hash_bytes(v->blob.data + e->piece, e->piece_len) & v->by_piece.mask;
    while (v->by_piece.slot[at]) at = (at + 1) & v->by_piece.mask;
    v->by_piece.slot[at] = (uint32_t)id + 1;
}

void nt_tok_vocab_make_pieces(struct nt_tok_vocab *v, bool byte_level, bool marker_blank, bool byte_tokens) {
    struct nt_strbuf piece = NT_STRBUF_INIT;
    nt_strbuf_reserve(&v->blob, 2 * v->blob.len);
    for (int32_t id = 0; id < v->n; id++) {
        struct nt_tok_entry *e = &v->entry[id];
        if (!(e->attr & NT_TOK_ATTR_USED)) continue;
        const char *text = v->blob.data + e->text;
        int b = byte_tokens ? byte_token(text, e->text_len) : -1;
        bool mapped = false;
        nt_strbuf_reset(&piece);
        if (b >= 0) {
            nt_strbuf_addc(&piece, (char)b);
            e->attr |= NT_TOK_ATTR_BYTE;
        } else if (byte_level) {
            mapped = byte_level_piece(text, e->text_len, &piece);
            if (!mapped) {
                nt_strbuf_reset(&piece);
                nt_strbuf_add(&piece, text, e->text_len);
            }
        } else if (marker_blank) {
            marker_piece(text, e->text_len, &piece);
        } else {
            nt_strbuf_add(&piece, text, e->text_len);
        }
        e->piece = (uint32_t)v->blob.len;
        e->piece_len = (uint32_t)piece.len;
        nt_strbuf_add(&v->blob, nt_strbuf_cstr(&piece), piece.len);
        if (mapped && (e->attr & NT_TOK_ATTR_MODEL)) map_piece(v, id);
    }
    nt_strbuf_release(&piece);
}

void nt_tok_vocab_release(struct nt_tok_vocab *v) {
    free(v->entry);
    free(v->by_text.slot);
    free(v->by_piece.slot);
    nt_strbuf_release(&v->blob);
    memset(v, 0, sizeof *v);
}
