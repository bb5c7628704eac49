/* A line of JSON without its texts: what a corpus keeps of a row, so that export can give the row back.
 *
 * Every string that became text of a table is replaced by {"$text": ["m0", "c0:3:7", ...]}: the pieces that it is made
 * of, in order. A letter names the table (m: message of the row's conversation, c and r: chosen and rejected message of
 * its pair, g: generation, e and n: edit and comment of feedback, s: the subject's name, a: the rater's), then the
 * index, and for a part of a text its first byte and length. Everything else stays as it was. A row that holds such an
 * object itself cannot be told apart and is refused (nt_shell_reserved). Ownership: references borrow the document.
 * Threading: no state. Errors: NT_E_DATA for a shell that is not one. */
#ifndef NT_SHELL_H
#define NT_SHELL_H

#include "json.h"
#include "strbuf.h"

struct nt_text_ref {
    const struct nt_json *leaf; /* the string, or a number that names a subject */
    char table;
    int32_t index;
    int64_t at, len; /* at -1: the whole text */
    int64_t order;   /* of several pieces of one leaf */
};

struct nt_text_refs {
    struct nt_text_ref *ref; // [n]
    int64_t n, cap;
};

void nt_text_refs_add(struct nt_text_refs *refs, const struct nt_json *leaf, char table, int32_t index, int64_t at,
                      int64_t len);
void nt_text_refs_release(struct nt_text_refs *refs);

bool nt_shell_reserved(const struct nt_json *doc);
/* Appends the shell of doc; sorts refs. */
void nt_shell_dump(const struct nt_json *doc, struct nt_text_refs *refs, struct nt_strbuf *out);

/* Appends text `index` of a table to out. */
typedef nt_status nt_shell_text(void *ctx, char table, int64_t index, struct nt_strbuf *out);
/* Appends the row that the shell was made of. origin: for errors. */
NT_MUST nt_status nt_shell_fill(const struct nt_json *shell, nt_shell_text *text, void *ctx, const char *origin,
                                struct nt_strbuf *out);

#endif
