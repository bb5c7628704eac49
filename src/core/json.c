#include "json.h"

#include "fileio.h"
#include "strbuf.h"
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* struct nt_json is never defined: a pointer to it is a json_t. jansson refuses nesting beyond 2048 levels
 * (JSON_PARSER_MAX_DEPTH) and bad UTF-8 on its own. */
static const json_t *native(const struct nt_json *v) {
    return (const json_t *)(const void *)v;
}
static json_t *native_mut(const struct nt_json *v) {
    return (json_t *)(uintptr_t)v;
}
static const struct nt_json *ours(const json_t *v) {
    return (const struct nt_json *)(const void *)v;
}

nt_status nt_json_parse(const char *text, size_t len, const char *origin, struct nt_json **out) {
    json_error_t e;
    json_t *doc = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &e);
    if (!doc) {
        /* position is the byte after the last one read */
        if (json_error_code(&e) == json_error_out_of_memory)
            return NT_FAIL(NT_E_NOMEM, "%s: no memory to parse %zu bytes of JSON", origin, len);
        return NT_FAIL(NT_E_DATA, "%s: not valid JSON at byte %d (line %d): %s", origin, e.position, e.line, e.text);
    }
    *out = (struct nt_json *)(void *)doc;
    return NT_OK;
}

static size_t digits(const char *text, size_t len) {
    size_t n = 0;
    while (n < len && text[n] >= '0' && text[n] <= '9') n++;
    return n;
}

/* An integer of n digits beyond 64 bits as a real of the same length, so that offsets stay: 17 digits, exponent. */
static void widen(char *at, size_t n) {
    static const char most[] = "9223372036854775807";
    enum { KEPT = 17, MOST = sizeof most - 1 };
    char exponent[32];
    if (n < MOST || (n == MOST && memcmp(at, most, MOST) <= 0) || n > KEPT + sizeof exponent) return;
    (void)snprintf(exponent, sizeof exponent, "%0*d", (int)(n - KEPT - 1), (int)(n - KEPT));
    at[KEPT] = 'e';
    memcpy(at + KEPT + 1, exponent, n - KEPT - 1);
}

static void widen_integers(char *text, size_t len) {
    for (size_t i = 0; i < len; i++) {
        if (text[i] == '"') /* strings are left alone */
            for (i++; i < len && text[i] != '"'; i++) i += text[i] == '\\';
        else if (digits(text + i, 1) > 0) {
            const size_t n = digits(text + i, len - i), end = i + n;
            if (end == len || !strchr(".eE", text[end])) widen(text + i, n);
            for (i = end; i < len && strchr("0123456789.eE+-", text[i]) && text[i]; i++) continue;
            i--;
        }
    }
}

nt_status nt_json_parse_wide(const char *text, size_t len, const char *origin, struct nt_json **out) {
    char *copy = malloc(len + 1);
    if (!copy) return NT_FAIL(NT_E_NOMEM, "%s: no memory for %zu bytes of JSON", origin, len);
    memcpy(copy, text, len);
    widen_integers(copy, len);
    const nt_status st = nt_json_parse(copy, len, origin, out);
    free(copy);
    return st;
}

nt_status nt_json_parse_file(const char *path, size_t max_bytes, struct nt_json **out) {
    char *text = NULL;
    size_t len = 0;
    NT_TRY(nt_file_read(path, max_bytes, &text, &len));
    nt_status status = nt_json_parse(text, len, path, out);
    free(text);
    return status == NT_OK ? NT_OK : nt_trail_at(status, __FILE__, __LINE__);
}

void nt_json_free(struct nt_json *doc) {
    json_decref(native_mut(doc));
}

enum nt_json_type nt_json_type(const struct nt_json *v) {
    if (!v) return NT_JSON_NULL;
    switch (json_typeof(native(v))) {
    case JSON_OBJECT:
        return NT_JSON_OBJECT;
    case JSON_ARRAY:
        return NT_JSON_ARRAY;
    case JSON_STRING:
        return NT_JSON_STRING;
    case JSON_INTEGER:
        return NT_JSON_INT;
    case JSON_REAL:
        return NT_JSON_REAL;
    case JSON_TRUE:
    case JSON_FALSE:
        return NT_JSON_BOOL;
    case JSON_NULL:
        break;
    }
    return NT_JSON_NULL;
}

const char *nt_json_type_name(const struct nt_json *v) {
    static const char *const names[] = {
        [NT_JSON_NULL] = "null",     [NT_JSON_BOOL] = "boolean", [NT_JSON_INT] = "integer",   [NT_JSON_REAL] = "number",
        [NT_JSON_STRING] = "string", [NT_JSON_ARRAY] = "array",  [NT_JSON_OBJECT] = "object",
    };
    return v ? names[nt_json_type(v)] : "nothing";
}

bool nt_json_is(const struct nt_json *v, enum nt_json_type t) {
    return v != NULL && nt_json_type(v) == t;
}

const struct nt_json *nt_json_get(const struct nt_json *obj, const char *key) {
    return obj ? ours(json_object_get(native(obj), key)) : NULL;
}

const struct nt_json *nt_json_given(const struct nt_json *obj, const char *key) {
    const struct nt_json *v = nt_json_get(obj, key);
    return nt_json_is(v, NT_JSON_NULL) ? NULL : v;
}

size_t nt_json_len(const struct nt_json *v) {
    if (nt_json_is(v, NT_JSON_ARRAY)) return json_array_size(native(v));
    return nt_json_is(v, NT_JSON_OBJECT) ? json_object_size(native(v)) : 0;
}

const struct nt_json *nt_json_at(const struct nt_json *array, size_t i) {
    return array ? ours(json_array_get(native(array), i)) : NULL;
}

void *nt_json_first(const struct nt_json *obj) {
    return obj ? json_object_iter(native_mut(obj)) : NULL;
}

void *nt_json_next(const struct nt_json *obj, void *it) {
    return json_object_iter_next(native_mut(obj), it);
}

const char *nt_json_key(void *it) {
    return json_object_iter_key(it);
}

const struct nt_json *nt_json_value(void *it) {
    return ours(json_object_iter_value(it));
}

const char *nt_json_str(const struct nt_json *v, size_t *len) {
    if (!nt_json_is(v, NT_JSON_STRING)) return NULL;
    if (len) *len = json_string_length(native(v));
    return json_string_value(native(v));
}

int64_t nt_json_int(const struct nt_json *v, int64_t def) {
    if (nt_json_is(v, NT_JSON_INT)) return (int64_t)json_integer_value(native(v));
    if (!nt_json_is(v, NT_JSON_REAL)) return def;
    double d = json_real_value(native(v));
    return d >= -0x1p63 && d < 0x1p63 && d == trunc(d) ? (int64_t)d : def;
}

double nt_json_num(const struct nt_json *v, double def) {
    if (nt_json_is(v, NT_JSON_INT)) return (double)json_integer_value(native(v));
    return nt_json_is(v, NT_JSON_REAL) ? json_real_value(native(v)) : def;
}

bool nt_json_bool(const struct nt_json *v, bool def) {
    return nt_json_is(v, NT_JSON_BOOL) ? json_is_true(native(v)) : def;
}

static void dump_children(const struct nt_json *v, struct nt_strbuf *out) {
    bool object = nt_json_is(v, NT_JSON_OBJECT);
    nt_strbuf_addc(out, object ? '{' : '[');
    if (object) {
        for (void *it = nt_json_first(v); it; it = nt_json_next(v, it)) {
            if (it != nt_json_first(v)) nt_strbuf_addc(out, ',');
            nt_strbuf_add_json(out, nt_json_key(it), json_object_iter_key_len(it));
            nt_strbuf_addc(out, ':');
            nt_json_dump(nt_json_value(it), out);
        }
    } else {
        for (size_t i = 0; i < nt_json_len(v); i++) {
            if (i > 0) nt_strbuf_addc(out, ',');
            nt_json_dump(nt_json_at(v, i), out);
        }
    }
    nt_strbuf_addc(out, object ? '}' : ']');
}

/* Recursion is bounded by the parser's depth limit. */
void nt_json_dump(const struct nt_json *v, struct nt_strbuf *out) {
    switch (nt_json_type(v)) {
    case NT_JSON_NULL:
        nt_strbuf_adds(out, "null");
        return;
    case NT_JSON_BOOL:
        nt_strbuf_adds(out, nt_json_bool(v, false) ? "true" : "false");
        return;
    case NT_JSON_INT:
        nt_strbuf_addf(out, "%lld", (long long)nt_json_int(v, 0));
        return;
    case NT_JSON_REAL:
        nt_strbuf_add_json_num(out, nt_json_num(v, 0));
        return;
    case NT_JSON_STRING: {
        size_t len = 0;
        const char *s = nt_json_str(v, &len);
        nt_strbuf_add_json(out, s, len);
        return;
    }
    case NT_JSON_ARRAY:
    case NT_JSON_OBJECT:
        dump_children(v, out);
        return;
    }
}
