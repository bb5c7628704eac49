/* What writer and readers of a training corpus share: its tables and columns, and how enumerations are spelled.
 *
 * The rows are those of dataset_columns.def; writer, reader, check and summary loop over them, so that a new column is
 * one row there (and a minor version here). No state, no ownership, no errors; constants and lookups.
 * Source of the schema: our own; ragged columns follow Arrow's LargeUtf8, attributes anndata. Layout: docs/formats.md.
 */
#ifndef NT_DATASET_TABLES_H
#define NT_DATASET_TABLES_H

#include "corpus_tables.h"
#include "dataset.h"
#include "hdf5file.h"

#define NT_DATASET_VERSION "1.1.0" /* 1.0.0: requests only */

enum nt_pair_side { NT_SIDE_CONVERSATION, NT_SIDE_GENERATION, NT_N_PAIR_SIDES };
/* Lines of JSONL that /rows remembers: the row itself, the response to it, feedback on that. */
enum nt_shell { NT_SHELL_ROW, NT_SHELL_RESPONSE, NT_SHELL_FEEDBACK, NT_N_SHELLS };

enum nt_table {
#define NT_TABLE(id, path) NT_T_##id,
#define NT_COL(id, table, path, type, width, check, arg)
#define NT_TEXT(id, table, path, encoding)
#include "dataset_columns.def"
#undef NT_TABLE
#undef NT_COL
#undef NT_TEXT
    NT_N_TABLES
};

enum nt_col {
#define NT_TABLE(id, path)
#define NT_COL(id, table, path, type, width, check, arg) NT_C_##id,
#define NT_TEXT(id, table, path, encoding)               NT_C_##id,
#include "dataset_columns.def"
#undef NT_TABLE
#undef NT_COL
#undef NT_TEXT
    NT_N_COLS
};

enum nt_col_check {
    NT_CHECK_NONE,
    NT_CHECK_BELOW,
    NT_CHECK_REF,
    NT_CHECK_REF_OR_NONE,
    NT_CHECK_PTR,
    NT_CHECK_TIME,
    NT_CHECK_WEIGHT,
    NT_CHECK_VALUE,
    NT_CHECK_ANY_F32,
    NT_CHECK_TEXT /* ragged */
};

struct nt_col_row {
    const char *path;
    enum nt_table table;
    enum nt_h5_type type;
    int32_t width;
    enum nt_col_check check;
    int32_t arg;
    const char *encoding; /* of ragged ones, else NULL */
};

extern const char *const nt_table_paths[NT_N_TABLES];
extern const struct nt_col_row nt_col_rows[NT_N_COLS];

enum { NT_MAX_TIME_DAYS = 2932896 }; /* 9999-12-31 */
#define NT_MAX_TIME_US ((int64_t)(NT_MAX_TIME_DAYS + 1) * 86400000000)
#define NT_MAX_WEIGHT  100.0f

/* What is known of one subject. */
struct nt_subject_facts {
    uint32_t consent;
    enum nt_basis basis;
    uint16_t version;
    int32_t key_id;
    int64_t updated_us, retention_until_us, erased_us;
};
/* Two statements become one: an erasure stays; else the later counts; of equally late ones what both allow. */
void nt_subject_merge(struct nt_subject_facts *have, const struct nt_subject_facts *more);
bool nt_subject_anonymous(const uint8_t id[NT_CORPUS_ID]); /* all zeros */
/* "subject:" and 32 hex digits are the id itself; false: user is another name, and id is as it was. */
bool nt_subject_spelled(const char *user, size_t len, uint8_t id[NT_CORPUS_ID]);
/* The id of a user in corpora without a key. */
void nt_subject_name(const char *user, size_t len, uint8_t id[NT_CORPUS_ID]);

/* What a conversation's sha256 is of, in a buffer that begin empties: its kind, then role and text's SHA-256 of each
 * message. */
void nt_conv_seed_begin(struct nt_strbuf *seed, enum nt_conv_kind kind);
void nt_conv_seed_add(struct nt_strbuf *seed, int role, const uint8_t digest[NT_SHA256_BYTES]);

/* Index of the name among an enumeration's, -1: none of them (NULL included). *near: the nearest, or NULL. */
int nt_basis_find(const char *name, const char **near);
int nt_split_find(const char *name, const char **near);
int nt_rater_find(const char *name, const char **near);
int nt_row_format_find(const char *name, const char **near);
enum nt_gen_finish nt_gen_finish_find(const char *name); /* an unknown one is OTHER */
/* "a,b,c" of column col for its attribute `values`; NULL: it has none. */
const char *nt_col_values(enum nt_col col);

#endif
