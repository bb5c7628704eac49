/* Preparation at work: what its files share; others use prepare.h.
 *
 * prepare.c runs the steps and builds the sets, prepare_rules.c reads the settings, prepare_votes.c settles
 * disagreement, prepare_rows.c turns records into examples, prepare_report.c tells what became of every row.
 * A row is an example in the builder with what the later steps decide on; rows and examples share their numbers.
 * Ownership: nt_prepare_run frees all but what goes into the result. Threading: one thread.
 * Errors: a row's fault is counted by reason (nt_prep_leave); whether it ends the job is decided when all are counted.
 */
#ifndef NT_PREPARE_IMPL_H
#define NT_PREPARE_IMPL_H

#include "prepare.h"
#include "prepare_votes.h"
#include "render.h"
#include <string.h>

enum nt_text_format { NT_TEXT_AUTO, NT_TEXT_CHAT, NT_TEXT_RAW };

struct nt_prep_rules {
    enum nt_train_kind kind;
    enum nt_text_format text_format;
    enum nt_conflict_rule conflicts;
    int64_t since_us, until_us, eval_since_us; /* 0: none */
    bool fatal[NT_N_LEFT_OUT];                 /* a row left out for this reason ends the job */
};

struct nt_prep_row {
    uint8_t person[32], key[NT_VOTE_KEY]; /* equal keys, equal examples */
    int64_t created_us;
    int64_t talk; /* the same in all rows of one conversation or answer, which stand together */
    float weight;
    int32_t group; /* into report->sources */
    bool good;     /* kto: its label; dpo: which member comes first by its tokens; rows of one key may disagree */
    bool asked;    /* for evaluation, by the corpus */
    bool tested;   /* one of its answers is also in split test */
    int16_t left;  /* enum nt_left_out, -1: kept */
    uint8_t side;  /* enum nt_side */
};

/* Order of keys, of NT_VOTE_KEY bytes each. */
static inline int nt_prep_by_key(const void *a, const void *b) {
    return memcmp(a, b, NT_VOTE_KEY);
}

struct nt_prep {
    const struct nt_prepare_input *in;
    const struct nt_config *c;
    struct nt_prep_rules rules;
    struct nt_render render;
    struct nt_record record; /* at work */
    int64_t at;              /* its number */
    struct nt_votes votes;
    int64_t next_vote;        /* of the second pass */
    bool heard;               /* there was an opinion in the record */
    bool tested;              /* an answer of the row at work is also in split test */
    struct nt_turn *turns[2]; // scratch
    int64_t cap_turns[2];
    struct nt_sequences sequences;
    struct nt_example_builder *builder;
    struct nt_prep_row *rows; // [n_rows]
    int64_t n_rows, cap_rows, n_talks;
    uint8_t (*testers)[32]; // [n_testers] persons of rows of split test, which no run trains on; more than once
    int64_t n_testers, cap_testers;
    uint8_t (*tested_keys)[NT_VOTE_KEY]; // [n_tested] of the answers in these rows, ascending
    int64_t n_tested, cap_tested;
    struct nt_prepare_report *report;
    char first[NT_N_LEFT_OUT][320]; /* where the first row of a fatal reason stands, and why */
};

NT_MUST nt_status nt_prep_read_rules(struct nt_prep_rules *r, const struct nt_config *c);
bool nt_prep_source_wanted(const struct nt_config *c, const char *source);

/* Both passes over the records: votes, then rows. */
NT_MUST nt_status nt_prep_gather(struct nt_prep *p);
NT_MUST nt_status nt_prep_make_rows(struct nt_prep *p);
/* Counts a row that is left out; why (or NULL) is kept for the first one. */
void nt_prep_leave(struct nt_prep *p, enum nt_left_out reason, const char *why);

#endif
