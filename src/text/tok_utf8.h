/* UTF-8 as the tokenizers see it: strict decoding, replacement of what is not UTF-8, and the character classes of
 * rules.
 *
 * An ill-formed sequence becomes one U+FFFD per maximal subpart (Unicode 15 section 3.9, table 3-8): the practice of
 * Python's errors="replace" and of Rust's from_utf8_lossy, which the reference tokenizers go through.
 * No state, no allocation but the caller's buffer; every function is thread safe and cannot fail.
 * Classes: white space and word characters as in Rust's regex crate, which decides lstrip/rstrip/single_word. */
#ifndef NT_TOK_UTF8_H
#define NT_TOK_UTF8_H

#include "strbuf.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum nt_utf8_kind { NT_UTF8_OK, NT_UTF8_BAD, NT_UTF8_CUT };

/* Looks at the sequence at s (n >= 1 bytes): OK a character of *len bytes; BAD *len bytes that one U+FFFD replaces;
 * CUT all n bytes are the beginning of a character. cp may be NULL, set when OK. */
enum nt_utf8_kind nt_utf8_look(const char *s, size_t n, size_t *len, uint32_t *cp);

bool nt_utf8_valid(const char *s, size_t n);
/* Appends s with ill-formed sequences replaced. */
void nt_utf8_add_lossy(struct nt_strbuf *out, const char *s, size_t n);
/* As above, but an unfinished character at the end is left: returns the number of bytes taken. */
size_t nt_utf8_add_lossy_head(struct nt_strbuf *out, const char *s, size_t n);

/* Length of the character that begins with byte c, for text known to be valid. */
static inline size_t nt_utf8_len(unsigned char c) {
    return c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
}
void nt_utf8_put(struct nt_strbuf *out, uint32_t cp);

bool nt_cp_is_space(uint32_t cp);
bool nt_cp_is_word(uint32_t cp);

#endif
