#include "idset.h"

#include "hash.h"
#include "json.h"
#include "request.h"
#include <stdlib.h>
#include <string.h>

/* From the opening quote at p: the closing one, or NULL. */
static const char *string_end(const char *p, const char *end) {
    for (const char *q = p + 1; q < end; q++) {
        q = memchr(q, '"', (size_t)(end - q));
        if (!q) return NULL;
        const char *b = q;
        while (b - 1 > p && b[-1] == '\\') b--;
        if ((q - b) % 2 == 0) return q;
    }
    return NULL;
}

/* The text of the JSON string [p, q] with its quotes into out. */
static bool unquote(const char *p, const char *q, struct nt_strbuf *out) {
    nt_strbuf_reset(out);
    if (!memchr(p, '\\', (size_t)(q - p))) {
        nt_strbuf_add(out, p + 1, (size_t)(q - p - 1));
        return true;
    }
    struct nt_json *doc = NULL;
    if (nt_json_parse(p, (size_t)(q - p + 1), "custom_id", &doc) != NT_OK) {
        nt_error_clear();
        return false;
    }
    size_t len = 0;
    const char *text = nt_json_str(doc, &len);
    if (text) nt_strbuf_add(out, text, len);
    nt_json_free(doc);
    return text != NULL;
}

bool nt_find_custom_id(const char *line, size_t len, struct nt_strbuf *id) {
    const char *end = line + len;
    int depth = 0;
    bool key = false, wanted = false; /* the next string is a key; the next value is the one */
    for (const char *p = line; p < end; p++) {
        if (*p == '"') {
            const char *q = string_end(p, end);
            if (!q) return false;
            if (depth == 1 && wanted)
                return unquote(p, q, id) && id->len > 0 && id->len <= NT_MAX_CUSTOM_ID && !memchr(id->data, 0, id->len);
            if (depth == 1 && key) wanted = unquote(p, q, id) && id->len == 9 && memcmp(id->data, "custom_id", 9) == 0;
            key = false;
            p = q;
        } else if (*p == '{' || *p == '[') {
            if (depth == 0 && *p == '[') return false;
            if (wanted) return false;
            key = depth++ == 0;
        } else if (*p == '}' || *p == ']') {
            if (--depth <= 0) return false;
        } else if (*p == ',' && depth == 1) {
            if (wanted) return false; /* a number or a word */
            key = true;
        }
    }
    return false;
}

void nt_id_set_release(struct nt_id_set *s) {
    free(s->entry);
    *s = (struct nt_id_set){0};
}

static struct nt_id_entry *find_slot(struct nt_id_entry *entry, int64_t cap, uint64_t hash, uint32_t more) {
    const uint64_t mask = (uint64_t)cap - 1;
    uint64_t i = hash & mask;
    while (entry[i].line != 0 && (entry[i].hash != hash || entry[i].more != more)) i = (i + 1) & mask;
    return &entry[i];
}

static nt_status grow(struct nt_id_set *s) {
    const int64_t cap = s->cap ? s->cap * 2 : 1024;
    struct nt_id_entry *entry = calloc((size_t)cap, sizeof *entry);
    if (!entry) return NT_FAIL(NT_E_NOMEM, "no memory to remember %lld custom_ids", (long long)cap);
    for (int64_t i = 0; i < s->cap; i++) {
        if (s->entry[i].line != 0) *find_slot(entry, cap, s->entry[i].hash, s->entry[i].more) = s->entry[i];
    }
    free(s->entry);
    s->entry = entry;
    s->cap = cap;
    return NT_OK;
}

nt_status nt_id_set_add(struct nt_id_set *s, const char *id, size_t len, int64_t line, int64_t *first) {
    if (line > UINT32_MAX)
        return NT_FAIL(NT_E_UNSUPPORTED, "line %lld: an input has at most 4294967295 lines; split it", (long long)line);
    if (s->n >= s->cap / 4 * 3) NT_TRY(grow(s));
    const uint64_t hash = nt_xxh64(id, len, 0);
    const uint32_t more = (uint32_t)nt_xxh64(id, len, 1);
    struct nt_id_entry *e = find_slot(s->entry, s->cap, hash, more);
    *first = e->line;
    if (e->line != 0) return NT_OK;
    *e = (struct nt_id_entry){.hash = hash, .more = more, .line = (uint32_t)line};
    s->n++;
    return NT_OK;
}

int64_t nt_id_set_find(const struct nt_id_set *s, const char *id, size_t len) {
    if (s->cap == 0) return 0;
    return find_slot(s->entry, s->cap, nt_xxh64(id, len, 0), (uint32_t)nt_xxh64(id, len, 1))->line;
}
