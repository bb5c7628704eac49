/* Growable byte strings: always NUL terminated after len, may hold NUL bytes.
 *
 * Lifecycle: zero-initialise (NT_STRBUF_INIT), use, nt_strbuf_release. Appends cannot fail: out of memory is nt_bug
 * (sizes that come from untrusted bytes are checked by the reader before they reach a strbuf).
 * The JSON helpers write exactly what Python's json.dumps(ensure_ascii=False) writes. */
#ifndef NT_STRBUF_H
#define NT_STRBUF_H

#include "status.h"
#include <stdbool.h>
#include <stdint.h>

struct nt_strbuf {
    char *data; /* NULL only while len == cap == 0; use nt_strbuf_cstr */
    size_t len, cap;
};
#define NT_STRBUF_INIT                                                                                                 \
    { 0 }

void nt_strbuf_release(struct nt_strbuf *s);
void nt_strbuf_reset(struct nt_strbuf *s); /* len = 0, memory kept */
void nt_strbuf_reserve(struct nt_strbuf *s, size_t extra);
const char *nt_strbuf_cstr(const struct nt_strbuf *s);
void nt_strbuf_add(struct nt_strbuf *s, const void *bytes, size_t n);
void nt_strbuf_adds(struct nt_strbuf *s, const char *text);
void nt_strbuf_addc(struct nt_strbuf *s, char c);
void nt_strbuf_addf(struct nt_strbuf *s, const char *fmt, ...) NT_PRINTF(2, 3);
/* The bytes as a JSON string with quotes; invalid UTF-8 becomes U+FFFD. */
void nt_strbuf_add_json(struct nt_strbuf *s, const char *bytes, size_t n);
/* The bytes as they may be shown on a terminal, on one line: control characters (C0, DEL, C1), line separators and
 * those that turn the direction of text come as \n, \x1b or \u202e, bytes that are no UTF-8 as \xe9. Whatever comes
 * from a file or another process passes here before people see it (log.h, cmd.h, main.c). */
void nt_strbuf_add_shown(struct nt_strbuf *s, const char *bytes, size_t n);
/* Shortest decimal that reads back as the same double; NaN and infinities become null. */
void nt_strbuf_add_json_num(struct nt_strbuf *s, double v);

#endif
