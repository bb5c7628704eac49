/* The state of one ingest, for ingest.c (rows) and ingest_batch.c (answers to Batch requests and feedback on them).
 *
 * A file is walked by nt_ingest_file, which parses each line and hands it to a function; what that function writes into
 * error (nothing: all is well) becomes the line's error record. custom_ids lead to conversations, conversations to
 * their generations. Ownership: struct nt_ingest owns all; ingest.c releases it. One thread. Errors: ingest.h. */
#ifndef NT_INGEST_IMPL_H
#define NT_INGEST_IMPL_H

#include "dataset_writer.h"
#include "idset.h"
#include "ingest.h"
#include "outfile.h"
#include "row_meta.h"
#include "train_row.h"

enum { NT_INGEST_ERROR = 400 };

struct nt_ingest_answers {
    int64_t first; /* generation */
    int32_t n;
    bool answered;
};

struct nt_ingest {
    const struct nt_config *config;
    struct nt_ingest_report *report;
    struct nt_dataset_writer *writer;
    struct nt_outfile errors;
    struct nt_row_meta defaults;
    struct nt_train_row row;
    struct nt_strbuf shell, inputs; /* inputs: JSON list of what was read, for provenance */
    struct nt_new_message *messages;
    int32_t cap_messages;
    struct nt_id_set digests, custom_ids; /* custom_ids: "line" is the conversation + 1 */
    bool keyed;
    struct nt_ingest_answers *answers; // [cap_answers] by conversation
    int64_t cap_answers;
    int32_t *choice; // [cap_choice] of each generation
    int64_t cap_choice;
};

typedef nt_status nt_ingest_line(struct nt_ingest *m, const struct nt_json *doc, char error[NT_INGEST_ERROR]);
/* Every line of path through take. */
NT_MUST nt_status nt_ingest_file(struct nt_ingest *m, const char *path, nt_ingest_line *take);
nt_ingest_line nt_ingest_response, nt_ingest_feedback;

#endif
