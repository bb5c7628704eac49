/* Held-out rows: by subject and by time, so that no subject is on both sides.
 *
 * A row is asked for evaluation by its corpus split, by its time, or by the hash of its person. A person is a subject,
 * or for rows that name none their prompt. A person with one row for evaluation is held out altogether: its
 * other rows are neither trained on nor evaluated (they are older than the cut, or of another split). So are the other
 * rows of a person of whom the corpus keeps a row for a later test.
 * The hash is SHA-256 of (salt, person), its first 64 bits as a fraction of 2^64 below `fraction`: a person stays where
 * it is when rows are added, and a larger fraction holds out more and releases nobody.
 * No ownership beyond the caller's arrays. Threading: pure. Errors: none but NT_E_NOMEM. */
#ifndef NT_SPLIT_H
#define NT_SPLIT_H

#include "status.h"
#include <stdbool.h>
#include <stdint.h>

struct nt_split_row {
    uint8_t person[32]; /* equal bytes, equal person */
    int64_t created_us; /* 0: unknown, never behind the cut */
    bool asked;         /* the corpus says so (split valid) */
    bool elsewhere;     /* the corpus keeps it for another evaluation (split test): on neither side */
};

struct nt_split_rule {
    double fraction; /* of persons */
    uint64_t salt;
    int64_t since_us; /* rows from here on; 0: no cut */
};

enum nt_side { NT_SIDE_TRAIN, NT_SIDE_EVAL, NT_SIDE_NEITHER };

NT_MUST nt_status nt_split_rows(const struct nt_split_rule *rule, const struct nt_split_row *rows, int32_t n,
                                uint8_t *side);

#endif
