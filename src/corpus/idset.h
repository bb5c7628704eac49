/* custom_ids: finding one in a line without parsing the line, and remembering which were seen.
 *
 * Every rank walks over all lines but parses only its own, so the question "is this id used before?" must be answered
 * from the bytes alone, and alike for lines that are read and lines that are skipped. The set keeps a 96-bit
 * fingerprint and the line, 16 bytes per id (up to a third more for the table), never the text.
 * Lifecycle: zero-initialise struct nt_id_set, nt_id_set_add, nt_id_set_release. Not thread safe.
 * Errors: NT_E_NOMEM; NT_E_UNSUPPORTED beyond 2^32 - 1 lines. */
#ifndef NT_IDSET_H
#define NT_IDSET_H

#include "status.h"
#include "strbuf.h"
#include <stdbool.h>
#include <stdint.h>

/* The string value of the top-level key custom_id into id (reset first). False: no such string of 1 to
 * NT_MAX_CUSTOM_ID bytes. The line may be broken JSON; what stands before the break is found. */
bool nt_find_custom_id(const char *line, size_t len, struct nt_strbuf *id);

struct nt_id_set {
    struct nt_id_entry {
        uint64_t hash;
        uint32_t more, line; /* line 0: free */
    } * entry;               // [cap], cap a power of two
    int64_t n, cap;
};
/* *first: the line that has the id already, or 0 when it is new (and now taken by line). */
NT_MUST nt_status nt_id_set_add(struct nt_id_set *s, const char *id, size_t len, int64_t line, int64_t *first);
int64_t nt_id_set_find(const struct nt_id_set *s, const char *id, size_t len); /* its line, or 0 */
void nt_id_set_release(struct nt_id_set *s);

#endif
