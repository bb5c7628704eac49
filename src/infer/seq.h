/* One sequence being generated: its tokens, pages, text so far, and when it ends.
 *
 * Owned by the engine; a sequence is one choice of one row. Tokens 0 .. n_cached-1 have their keys and values in
 * the cache. nt_seq_accept takes a sampled token, extends the text and decides the end: a stop id, a stop string (the
 * text is cut before it), max_tokens, or the longest length; a failed sample ends it with
 * NT_FINISH_ERROR. All decisions are functions of the row alone. */
#ifndef NT_SEQ_H
#define NT_SEQ_H

#include "result.h"
#include "sampler.h"
#include "tokenizer.h"

struct nt_row; /* engine.c */

struct nt_seq {
    struct nt_row *row;
    const struct nt_sampling *params;
    int32_t choice, n_prompt, n_cached, limit; /* limit: most tokens of prompt + answer */
    int32_t pending_row;                       /* row of the step under way that draws a token for it, -1: none */
    struct nt_ids ids;                         /* prompt and answer */
    int32_t *pages;                            // [n_pages], owned
    int32_t n_pages;
    uint64_t seed;
    struct nt_detok detok;
    struct nt_strbuf text;
    float *logprob;   // [n answer], NULL when not asked
    uint32_t *top_id; // [n answer, n_top]
    float *top_lp;
    int32_t n_top, cap_lp;
    struct nt_penalty penalty;
    int32_t *masked; // [n_masked] stops that may not come before min_tokens
    int32_t n_masked;
    bool use_penalty, done;
    bool by_host; /* its next token could not be drawn on the device */
    enum nt_finish finish;
};

static inline int32_t nt_seq_n_answer(const struct nt_seq *s) {
    return (int32_t)s->ids.len - s->n_prompt;
}

/* params must outlive the sequence. */
void nt_seq_init(struct nt_seq *s, const struct nt_sampling *params, int32_t choice, uint64_t seed,
                 const struct nt_ids *prompt, int32_t limit);
void nt_seq_release(struct nt_seq *s);
/* For the next token, or where pending_row >= 0 for the one after a token that is not known yet, of that row of the
 * step under way. stops [n_stops]: ids that end the answer unless params->ignore_eos. */
void nt_seq_sample_in(struct nt_seq *s, int32_t pending_row, const int32_t *stops, int32_t n_stops,
                      struct nt_sample_in *in);
void nt_seq_accept(struct nt_seq *s, const struct nt_tokenizer *tok, const int32_t *stops, int32_t n_stops,
                   const struct nt_sample_out *out);
/* Moves the finished answer into c. */
void nt_seq_take_choice(struct nt_seq *s, struct nt_choice *c);

#endif
