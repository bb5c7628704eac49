/* JSON reading (the only module that sees jansson; writing is in strbuf.h).
 *
 * Values are borrowed from the document; nt_json_free releases the document. Strict UTF-8, duplicate keys refused,
 * integers exact to int64, depth limited. Errors name the origin (file, and line for JSONL) and the byte offset.
 * Accessors never fail: a missing key or wrong type gives NULL / the default, and `nt_json_is` tells which. */
#ifndef NT_JSON_H
#define NT_JSON_H

#include "status.h"
#include <stdbool.h>
#include <stdint.h>

struct nt_json; /* opaque */

enum nt_json_type {
    NT_JSON_NULL,
    NT_JSON_BOOL,
    NT_JSON_INT,
    NT_JSON_REAL,
    NT_JSON_STRING,
    NT_JSON_ARRAY,
    NT_JSON_OBJECT
};

/* origin: what error sentences call the text, e.g. "model/config.json". */
NT_MUST nt_status nt_json_parse(const char *text, size_t len, const char *origin, struct nt_json **out);
/* For files that come with models: integers beyond 64 bits, which Python writes there ("model_max_length": int(1e30)),
 * are reals. */
NT_MUST nt_status nt_json_parse_wide(const char *text, size_t len, const char *origin, struct nt_json **out);
NT_MUST nt_status nt_json_parse_file(const char *path, size_t max_bytes, struct nt_json **out);
void nt_json_free(struct nt_json *doc); /* accepts NULL */

enum nt_json_type nt_json_type(const struct nt_json *v); /* NULL counts as NT_JSON_NULL */
const char *nt_json_type_name(const struct nt_json *v);
bool nt_json_is(const struct nt_json *v, enum nt_json_type t);
const struct nt_json *nt_json_get(const struct nt_json *obj, const char *key);   /* NULL: absent or not an object */
const struct nt_json *nt_json_given(const struct nt_json *obj, const char *key); /* as get, but NULL for null too */
size_t nt_json_len(const struct nt_json *v);                                     /* array or object size, else 0 */
const struct nt_json *nt_json_at(const struct nt_json *array, size_t i);
/* Objects in insertion order: it = nt_json_first(o); it; it = nt_json_next(o, it). */
void *nt_json_first(const struct nt_json *obj);
void *nt_json_next(const struct nt_json *obj, void *it);
const char *nt_json_key(void *it);
const struct nt_json *nt_json_value(void *it);

const char *nt_json_str(const struct nt_json *v, size_t *len); /* NULL when not a string; len may be NULL */
int64_t nt_json_int(const struct nt_json *v, int64_t def);     /* integers, and reals with an integral value */
double nt_json_num(const struct nt_json *v, double def);       /* integers and reals */
bool nt_json_bool(const struct nt_json *v, bool def);

struct nt_strbuf;
void nt_json_dump(const struct nt_json *v, struct nt_strbuf *out); /* compact, keys in order, numbers as read */

#endif
