/* What a row of training data says about itself beside its texts: subject, consent, source, time, license, split.
 *
 * The fields' names are settings (ingest.*_field; a dot leads into an object). What a row does not say comes from the
 * settings that state it for all rows; consent is nowhere assumed: without a word of the row or the operator there is
 * none. `consent` of a row is "train,distill", ["train", "distill"], or an object {"purposes", "basis", "updated",
 * "retention_until", "version"}; its basis is "consent" unless named.
 * Ownership: strings borrow the document and the settings. Threading: plain data.
 * Errors: nt_row_defaults NT_E_CONFIG; of a row, a sentence into error. */
#ifndef NT_ROW_META_H
#define NT_ROW_META_H

#include "config.h"
#include "dataset_writer.h"
#include "json.h"

struct nt_row_meta {
    struct nt_subject subject;
    const char *source, *license; /* "" none */
    int64_t created_us;
    enum nt_split split;
    const struct nt_json *user; /* where the subject's name stands; NULL: nowhere */
    char number[32];            /* a subject given as a number, spelled */
};

/* The settings as a row that says nothing. */
NT_MUST nt_status nt_row_defaults(const struct nt_config *c, struct nt_row_meta *defaults);
/* False: error has the sentence. */
bool nt_row_meta_read(const struct nt_config *c, const struct nt_row_meta *defaults, const struct nt_json *doc,
                      struct nt_row_meta *meta, char *error, size_t cap);
/* Seconds since 1970 or RFC 3339; absent and null: 0. False: neither. */
bool nt_row_time(const struct nt_json *v, int64_t *us);

#endif
