/* What finetune trains on: from an opened dataset to a training set and a held-out set, with an account of every row.
 *
 * In this order: filters on records (split, source, time); votes on completions are gathered over all files and
 * conflicts settled per (prompt, completion); candidates are rendered (render.h) and filtered (rating, length,
 * duplicates); conversations and answers per subject are capped, newest first; the rest is split (split.h), and rows
 * with an answer that is also held out behind the same tokens are left out, whoever they are from; rows are weighted
 * (feedback weight, decay by age against the newest row, kto class weights). Nothing depends on the clock, the world
 * size or the file names: equal configuration and corpora give equal sets (set.digest). Votes are heard from everybody,
 * also from people held out: they decide what an answer is worth, and an answer behind the same tokens is on one side
 * at most. sft takes conversations and generations, kto thumbs and ratings (an edit counts for its text and against an
 * original that it changes), dpo pairs (an edit is one).
 * What is left out is counted by reason, logged and part of the training card. Nothing to train on, a set or class that
 * is empty, and rows that do not fit while the policy says error, are errors that give counts and the setting to
 * change.
 * Ownership: nt_prepared_release frees sets and report. Threading: one thread. Settings: section train. */
#ifndef NT_PREPARE_H
#define NT_PREPARE_H

#include "beat.h"
#include "chat.h"
#include "config.h"
#include "dataset.h"
#include "examples.h"

/* X(name, of records or else of examples, text). Each row left out counts once, under the first that applies. */
#define NT_LEFT_OUT_LIST(X)                                                                                            \
    X(SPLIT, true, "other split")                                                                                      \
    X(SOURCE, true, "other source")                                                                                    \
    X(NO_MATERIAL, true, "nothing for this loss")                                                                      \
    X(CONFLICT, false, "in conflict")                                                                                  \
    X(DUPLICATE, false, "duplicate")                                                                                   \
    X(SAME, false, "chosen equals rejected")                                                                           \
    X(TIME, false, "outside the time window")                                                                          \
    X(RATING, false, "rated too low")                                                                                  \
    X(UNRATED, false, "not rated")                                                                                     \
    X(UNFINISHED, false, "answer not finished")                                                                        \
    X(EMPTY, false, "empty completion")                                                                                \
    X(NO_TARGET, false, "no token to train on")                                                                        \
    X(TOOLS, false, "tools the format cannot show")                                                                    \
    X(REFUSED, false, "refused by the chat format")                                                                    \
    X(TOO_LONG, false, "too long")                                                                                     \
    X(LONG_COMPLETION, false, "completion too long")                                                                   \
    X(SHORT, false, "completion too short")                                                                            \
    X(SUBJECT_CAP, false, "over the subject's share")                                                                  \
    X(HELD_OUT, false, "subject held out")                                                                             \
    X(EVALUATED, false, "also held out")                                                                               \
    X(TESTED, false, "also in the split test")                                                                         \
    X(DECAYED, false, "so old that its weight is 0")

enum nt_left_out {
#define X(name, of_records, text) NT_LEFT_##name,
    NT_LEFT_OUT_LIST(X)
#undef X
        NT_N_LEFT_OUT
};

struct nt_source_count { /* kept rows of one source and one ground of consent */
    const char *source;
    enum nt_basis basis;
    uint32_t consent; /* enum nt_purpose */
    int64_t n_train, n_eval;
};

struct nt_prepare_report {
    enum nt_train_kind kind;
    int64_t n_conversations, refused[NT_N_REFUSALS]; /* in the files; not seen, by reason */
    int64_t n_records;                               /* seen */
    int64_t n_candidates;                            /* examples before filters of examples */
    int64_t left_out[NT_N_LEFT_OUT];
    int64_t n_train, n_eval;             /* n_candidates = n_train + n_eval + those left out */
    int64_t n_talks_train, n_talks_eval; /* conversations that these rows are of */
    int64_t n_votes, n_conflicts;        /* feedback used; completions or pairs with votes for and against */
    int64_t unheard[NT_N_REFUSALS];      /* feedback and pairs by subjects that are refused, by reason */
    int64_t n_undated;                   /* kept rows without a time: not decayed, and before train.eval_since */
    bool by_time;                        /* half_life_days or eval_since is given */
    int64_t n_prompts_cut, n_completions_cut, n_split, n_apart;
    int64_t n_sequences, n_ended;                             /* kept and not; with an end-of-turn token in the loss */
    int64_t n_tok, n_target;                                  /* of the training set */
    int64_t first_us, last_us;                                /* window of the training set's rows; 0: none dated */
    int64_t n_desirable, n_undesirable;                       /* kto: rows of the training set */
    double desirable_sum, undesirable_sum;                    /* kto: their weights as served, before class weights */
    double desirable_weight, undesirable_weight, class_ratio; /* effective desirable : undesirable */
    int32_t n_subjects_train, n_subjects_eval;
    int64_t n_nameless_train, n_nameless_eval; /* rows that name no subject: of nobody in the counts above */
    struct nt_source_count *sources;           // [n_sources] in order of first appearance
    int32_t n_sources;
    char dataset_sha256[NT_SHA256_HEX], train_sha256[NT_SHA256_HEX], eval_sha256[NT_SHA256_HEX];
    char chat[64]; /* name of the format; "" texts are joined */
};

struct nt_prepared {
    struct nt_example_set train, eval; /* eval.n may be 0 */
    struct nt_prepare_report report;
    char **files; // [n_files] paths that examples name by number
    int32_t n_files;
};

struct nt_prepare_input {
    const struct nt_config *config;
    struct nt_dataset *dataset;
    const struct nt_tokenizer *tok;
    const struct nt_chat *chat; /* NULL: the model has none */
    const char *chat_error;     /* with chat NULL: why, for the error of a row that needs one */
    int32_t max_len;            /* positions the model has for a sequence: train.max_length counts up to here */
    const struct nt_beat *beat; /* once per record; or NULL */
};
/* On failure out holds the report as far as it got (for the log) and no sets; release it in any case. */
NT_MUST nt_status nt_prepare_run(const struct nt_prepare_input *in, struct nt_prepared *out);
void nt_prepared_release(struct nt_prepared *p); /* accepts zeroed */
const char *nt_left_out_text(enum nt_left_out r);
void nt_prepare_log(const struct nt_prepare_report *r); /* the table of counts */
/* Members for the training card: {"window": ..., "rows": ..., "sources": [...], "left_out": {...}, ...}. */
void nt_prepare_json(const struct nt_prepare_report *r, struct nt_strbuf *out);

#endif
