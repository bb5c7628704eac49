/* Writes a training corpus: conversations with their subjects, generations, feedback, pairs and the rows they came
 * from.
 *
 * Rows are appended in any order that keeps references backwards (a conversation before what hangs on it); the subjects
 * are gathered and written last, so that a subject's consent is decided over all its rows: the latest statement counts,
 * of equally late ones only what all of them allow. Texts are digested here. The file appears whole or not at all, and
 * equal calls make equal bytes. Lifecycle: nt_dataset_create, adds, nt_dataset_publish or nt_dataset_abandon.
 * Memory: 16 to 64 bytes per subject and conversation. Threading: one thread.
 * Errors: those of hdf5file.h; NT_E_DATA for text that is not UTF-8 and values out of range. Layout: docs/formats.md.
 */
#ifndef NT_DATASET_WRITER_H
#define NT_DATASET_WRITER_H

#include "dataset_tables.h"

/* What a row says about the person it is from. */
struct nt_subject {
    const char *user; /* NULL: not named */
    size_t user_len;
    uint32_t consent; /* bits of enum nt_purpose; needs a basis */
    enum nt_basis basis;
    uint16_t version;                      /* of the text that was consented to */
    int64_t updated_us;                    /* when it was said; 0: unknown */
    int64_t retention_until_us, erased_us; /* 0: none */
};

struct nt_new_message {
    const char *role; /* one of NT_CORPUS_ROLES */
    const char *text;
    size_t len;
    float weight;
    bool has_more;
    int64_t created_us;
};

struct nt_new_conversation {
    enum nt_row_format format;
    enum nt_conv_kind kind;
    const struct nt_subject *subject;
    const char *source, *license; /* NULL or "": none */
    int64_t created_us;
    enum nt_split split;
    uint32_t flags;            /* enum nt_conv_flag */
    const uint8_t *row_sha256; /* NULL: the messages' */
    const struct nt_new_message *messages;
    int32_t n_messages;
};

struct nt_new_generation {
    int64_t conversation;
    int32_t choice;
    const char *model; /* NULL or "": unknown */
    enum nt_gen_finish finish;
    const char *text;
    size_t len;
    bool has_more;
    int64_t created_us;
};

/* Who judged, when, and how much it counts. */
struct nt_judgement {
    const char *rater; /* NULL: not named */
    size_t rater_len;
    enum nt_rater source;
    float weight;
    int64_t created_us;
};

struct nt_new_feedback {
    int64_t conversation;
    enum nt_target target_kind;
    int64_t target; /* of a message: within its conversation; of a generation: as nt_dataset_add_generation counted */
    enum nt_feedback_kind kind;
    float value;
    const char *comment, *edit; /* NULL: none */
    size_t comment_len, edit_len;
    struct nt_judgement by;
};

struct nt_new_pair {
    int64_t conversation;
    int32_t n_prompt;
    enum nt_pair_side side;
    int64_t chosen, rejected; /* conversations of kind completion, or generations */
    float margin;             /* NaN: none */
    enum nt_pair_origin origin;
    struct nt_judgement by;
};

struct nt_dataset_writer;
/* key, if not NULL: subjects and raters are named by HMAC-SHA-256 with it, else by a plain digest. creator: for the
 * attribute; license: of the whole file, or "". */
NT_MUST nt_status nt_dataset_create(struct nt_dataset_writer **out, const char *path, const char *creator,
                                    const char *license, const uint8_t *key, size_t key_len);
/* Each gives the number of the new row of its table. */
NT_MUST nt_status nt_dataset_add_conversation(struct nt_dataset_writer *w, const struct nt_new_conversation *c,
                                              int64_t *conversation);
NT_MUST nt_status nt_dataset_add_generation(struct nt_dataset_writer *w, const struct nt_new_generation *g,
                                            int64_t *generation);
NT_MUST nt_status nt_dataset_add_feedback(struct nt_dataset_writer *w, const struct nt_new_feedback *f,
                                          int64_t *feedback);
NT_MUST nt_status nt_dataset_add_pair(struct nt_dataset_writer *w, const struct nt_new_pair *p, int64_t *pair);
/* The JSON line that a row came from, its texts replaced by references (shell.h). target: the first row that it made of
 * preferences (-1: none), generations or feedback, by kind. */
NT_MUST nt_status nt_dataset_add_shell(struct nt_dataset_writer *w, enum nt_shell kind, int64_t conversation,
                                       int64_t target, const char *json, size_t len);
NT_MUST nt_status nt_dataset_add_step(struct nt_dataset_writer *w, const char *json, size_t len);
/* The name that a user gets: 16 bytes. One that is spelled "subject:" and 32 hex digits is that name already. */
void nt_dataset_name_user(const struct nt_dataset_writer *w, const char *user, size_t len, uint8_t id[16]);
int64_t nt_dataset_count(const struct nt_dataset_writer *w, enum nt_table table); /* rows so far */
int32_t nt_dataset_n_messages(const struct nt_dataset_writer *w, int64_t conversation);
NT_MUST nt_status nt_dataset_publish(struct nt_dataset_writer *w); /* frees w in any case */
void nt_dataset_abandon(struct nt_dataset_writer *w);              /* accepts NULL */

#endif
