#include "shell.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char mark[] = "$text", tables[] = "mcrgensaq";

void nt_text_refs_add(struct nt_text_refs *refs, const struct nt_json *leaf, char table, int32_t index, int64_t at,
                      int64_t len) {
    if (refs->n == refs->cap) {
        const int64_t cap = refs->cap ? 2 * refs->cap : 32;
        struct nt_text_ref *grown = realloc(refs->ref, (size_t)cap * sizeof *grown);
        if (!grown) nt_bug("out of memory for %lld text references", (long long)cap);
        refs->ref = grown;
        refs->cap = cap;
    }
    refs->ref[refs->n] = (struct nt_text_ref){leaf, table, index, at, len, refs->n};
    refs->n++;
}

void nt_text_refs_release(struct nt_text_refs *refs) {
    free(refs->ref);
    *refs = (struct nt_text_refs){0};
}

static const struct nt_json *marked(const struct nt_json *v) {
    if (!nt_json_is(v, NT_JSON_OBJECT) || nt_json_len(v) != 1) return NULL;
    return nt_json_get(v, mark);
}

bool nt_shell_reserved(const struct nt_json *doc) {
    if (nt_json_is(doc, NT_JSON_ARRAY)) {
        for (size_t i = 0; i < nt_json_len(doc); i++) {
            if (nt_shell_reserved(nt_json_at(doc, i))) return true;
        }
    } else if (nt_json_is(doc, NT_JSON_OBJECT)) {
        if (marked(doc)) return true;
        for (void *it = nt_json_first(doc); it; it = nt_json_next(doc, it)) {
            if (nt_shell_reserved(nt_json_value(it))) return true;
        }
    }
    return false;
}

/* ---- a row becomes a shell ---- */

static int by_leaf(const void *a, const void *b) {
    const struct nt_text_ref *x = a, *y = b;
    const uintptr_t p = (uintptr_t)x->leaf, q = (uintptr_t)y->leaf;
    if (p != q) return p < q ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

/* The first piece of the leaf, or NULL. */
static const struct nt_text_ref *find_ref(const struct nt_text_refs *refs, const struct nt_json *leaf) {
    int64_t low = 0, high = refs->n;
    while (low < high) {
        const int64_t mid = low + (high - low) / 2;
        if ((uintptr_t)refs->ref[mid].leaf < (uintptr_t)leaf)
            low = mid + 1;
        else
            high = mid;
    }
    return low < refs->n && refs->ref[low].leaf == leaf ? &refs->ref[low] : NULL;
}

static void dump_refs(const struct nt_text_refs *refs, const struct nt_text_ref *r, struct nt_strbuf *out) {
    const struct nt_json *leaf = r->leaf;
    nt_strbuf_addf(out, "{\"%s\":[", mark);
    for (const char *comma = ""; r < refs->ref + refs->n && r->leaf == leaf; r++, comma = ",") {
        nt_strbuf_addf(out, "%s\"%c%d", comma, r->table, r->index);
        if (r->at >= 0) nt_strbuf_addf(out, ":%" PRId64 ":%" PRId64, r->at, r->len);
        nt_strbuf_addc(out, '"');
    }
    nt_strbuf_adds(out, "]}");
}

static void dump(const struct nt_json *v, const struct nt_text_refs *refs, struct nt_strbuf *out) {
    if (nt_json_is(v, NT_JSON_ARRAY)) {
        nt_strbuf_addc(out, '[');
        for (size_t i = 0; i < nt_json_len(v); i++) {
            if (i > 0) nt_strbuf_addc(out, ',');
            dump(nt_json_at(v, i), refs, out);
        }
        nt_strbuf_addc(out, ']');
        return;
    }
    if (nt_json_is(v, NT_JSON_OBJECT)) {
        nt_strbuf_addc(out, '{');
        for (void *it = nt_json_first(v); it; it = nt_json_next(v, it)) {
            if (it != nt_json_first(v)) nt_strbuf_addc(out, ',');
            nt_strbuf_add_json(out, nt_json_key(it), strlen(nt_json_key(it)));
            nt_strbuf_addc(out, ':');
            dump(nt_json_value(it), refs, out);
        }
        nt_strbuf_addc(out, '}');
        return;
    }
    const struct nt_text_ref *r = find_ref(refs, v);
    if (r)
        dump_refs(refs, r, out);
    else
        nt_json_dump(v, out);
}

void nt_shell_dump(const struct nt_json *doc, struct nt_text_refs *refs, struct nt_strbuf *out) {
    if (refs->n > 1) qsort(refs->ref, (size_t)refs->n, sizeof *refs->ref, by_leaf);
    dump(doc, refs, out);
}

/* ---- and a row again ---- */

struct filling {
    nt_shell_text *text;
    void *ctx;
    const char *origin;
    struct nt_strbuf *out;
};

/* "m0" or "m0:3:7". */
static bool read_piece(const char *s, char *table, int64_t n[3]) {
    n[1] = -1;
    if (!s || s[0] == '\0' || !strchr(tables, s[0])) return false;
    *table = *s++;
    for (int i = 0; i < 3; i++) {
        char *end = NULL;
        if (s[0] < '0' || s[0] > '9') return false;
        errno = 0;
        n[i] = strtoll(s, &end, 10);
        if (errno != 0) return false;
        if (*end == '\0') return i != 1;
        if (*end != ':') return false;
        s = end + 1;
    }
    return false;
}

static nt_status add_piece(const struct filling *f, const struct nt_json *piece, struct nt_strbuf *whole) {
    char table = 0;
    int64_t n[3];
    struct nt_strbuf text = NT_STRBUF_INIT;
    if (!read_piece(nt_json_str(piece, NULL), &table, n))
        return NT_FAIL(NT_E_DATA, "%s: a piece of text is none, expected such as \"m0\" or \"m0:3:7\"", f->origin);
    nt_status st = f->text(f->ctx, table, n[0], &text);
    const int64_t size = (int64_t)text.len, at = n[1] < 0 ? 0 : n[1], len = n[1] < 0 ? size : n[2];
    if (st == NT_OK && (at > size || len > size - at))
        st = NT_FAIL(NT_E_DATA, "%s: bytes %" PRId64 " to %" PRId64 " of a text of %" PRId64, f->origin, at, at + len,
                     size);
    if (st == NT_OK) nt_strbuf_add(whole, nt_strbuf_cstr(&text) + at, (size_t)len);
    nt_strbuf_release(&text);
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}

static nt_status add_text(const struct filling *f, const struct nt_json *pieces) {
    struct nt_strbuf whole = NT_STRBUF_INIT;
    nt_status st = NT_OK;
    if (!nt_json_is(pieces, NT_JSON_ARRAY))
        st = NT_FAIL(NT_E_DATA, "%s: %s is no list of pieces of text", f->origin, mark);
    for (size_t i = 0; i < nt_json_len(pieces) && st == NT_OK; i++) st = add_piece(f, nt_json_at(pieces, i), &whole);
    if (st == NT_OK) nt_strbuf_add_json(f->out, nt_strbuf_cstr(&whole), whole.len);
    nt_strbuf_release(&whole);
    return st;
}

static nt_status fill(const struct filling *f, const struct nt_json *v) {
    const struct nt_json *pieces = marked(v);
    if (pieces) return add_text(f, pieces);
    if (nt_json_is(v, NT_JSON_ARRAY)) {
        nt_strbuf_addc(f->out, '[');
        for (size_t i = 0; i < nt_json_len(v); i++) {
            if (i > 0) nt_strbuf_addc(f->out, ',');
            NT_TRY(fill(f, nt_json_at(v, i)));
        }
        nt_strbuf_addc(f->out, ']');
    } else if (nt_json_is(v, NT_JSON_OBJECT)) {
        nt_strbuf_addc(f->out, '{');
        for (void *it = nt_json_first(v); it; it = nt_json_next(v, it)) {
            if (it != nt_json_first(v)) nt_strbuf_addc(f->out, ',');
            nt_strbuf_add_json(f->out, nt_json_key(it), strlen(nt_json_key(it)));
            nt_strbuf_addc(f->out, ':');
            NT_TRY(fill(f, nt_json_value(it)));
        }
        nt_strbuf_addc(f->out, '}');
    } else {
        nt_json_dump(v, f->out);
    }
    return NT_OK;
}

nt_status nt_shell_fill(const struct nt_json *shell, nt_shell_text *text, void *ctx, const char *origin,
                        struct nt_strbuf *out) {
    const struct filling f = {text, ctx, origin, out};
    return fill(&f, shell);
}
