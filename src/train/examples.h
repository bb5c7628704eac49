/* The training set in memory: token ids, which of them are targets, and what each row weighs.
 *
 * An example is one sequence (sft), a pair over a shared prompt (dpo: member 0 chosen, member 1 rejected) or one
 * labelled sequence (kto). A target is a token whose log-probability enters the loss; runs list the targets of a
 * sequence with their weights, tokens outside of them have weight 0. The row before a target predicts it, so token 0 is
 * never one. The set is the same on every rank: it follows from configuration, corpora and tokenizer alone, and digest
 * says so.
 * Ownership: the set's arena holds everything its pointers point to; nt_example_set_release frees it. A builder
 * collects, nt_examples_finish copies into the arena in the order given. Threading: constant once finished.
 * Errors: NT_E_NOMEM naming the arena. */
#ifndef NT_EXAMPLES_H
#define NT_EXAMPLES_H

#include "arena.h"
#include "hash.h"
#include "status.h"
#include <stdbool.h>
#include <stdint.h>

enum nt_train_kind { NT_TRAIN_SFT, NT_TRAIN_DPO, NT_TRAIN_KTO };
enum { NT_CHOSEN, NT_REJECTED, NT_MAX_MEMBERS };

struct nt_loss_run {
    int32_t from, to; /* targets: tokens from .. to - 1 of the sequence, from >= 1 */
    float weight;     /* > 0, of the message they belong to */
};

struct nt_member {
    const int32_t *ids;             // [n_tok]
    const struct nt_loss_run *runs; // [n_runs] ascending, apart
    int32_t n_tok, n_runs;
    int32_t n_prompt; /* tokens before the completion (of sft: before the first target) */
    int32_t n_target; /* tokens in runs */
    uint64_t completion_hash;
};

struct nt_example {
    struct nt_member member[NT_MAX_MEMBERS]; /* [n_members] */
    int32_t n_members;
    float weight;            /* of the row: feedback weight times decay; the class weights of kto are the set's */
    bool label;              /* kto: desirable; true elsewhere */
    int32_t source, subject; /* index into set->sources; subject -1: anonymous */
    int64_t created_us;      /* 0: unknown */
    int32_t file;            /* of the dataset, that it was made from */
    int64_t conversation;    /* of the file */
};

struct nt_example_set {
    enum nt_train_kind kind;
    const struct nt_example *rows; // [n]
    int32_t n, n_sources;
    const char *const *sources; // [n_sources]
    int64_t n_tok, n_target;
    /* Sequences in tokens; shortest: also of one row's prompt with another's completion. */
    int32_t longest, shortest;
    int32_t longest_row; /* all members of an example together: what one micro-batch must hold */
    int32_t n_desirable; /* rows with label true */
    double desirable_weight, undesirable_weight; /* kto: factors of rows by label; 1 elsewhere */
    uint8_t digest[NT_SHA256_BYTES];             /* of all of the above but where rows stand (file, conversation) */
    struct nt_arena arena;
};
void nt_example_set_release(struct nt_example_set *s); /* accepts zeroed */

/* Sum of the weights of a member's targets. */
double nt_member_weight(const struct nt_member *m);
/* The row's weight times, for kto, that of its class. */
double nt_example_weight(const struct nt_example_set *s, int32_t example);

struct nt_example_builder; /* opaque */
NT_MUST nt_status nt_examples_begin(struct nt_example_builder **out, enum nt_train_kind kind);
/* Copies e and all it points to; returns its number. The hash, n_target and source are filled in from the rest. */
int32_t nt_examples_add(struct nt_example_builder *b, const struct nt_example *e, const char *source);
struct nt_example nt_examples_at(const struct nt_example_builder *b, int32_t i); /* pointers: until the next add */
struct nt_example_pick {
    const int32_t *examples; // [n] of the builder, in the order wanted
    const float *weights;    // [n] of the rows
    int32_t n;
    double desirable_weight, undesirable_weight; /* 1 but for kto */
};
NT_MUST nt_status nt_examples_finish(const struct nt_example_builder *b, const struct nt_example_pick *pick,
                                     struct nt_example_set *set);
void nt_examples_end(struct nt_example_builder *b); /* accepts NULL */

#endif
