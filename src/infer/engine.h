/* The engine: continuous batching over a paged KV cache.
 *
 * Rows are added, each step forwards every running sequence (one token when decoding, a chunk of its prompt before
 * that, together at most max_tokens_per_step), and finished rows are taken out in any order. A sequence is admitted
 * when the pages for its prompt and its longest answer are free, so nothing is ever evicted and no two sequences can
 * wait for each other. What a row answers does not depend on its neighbours (see ops.h), so admission order is free.
 * Threading: one thread. All ranks of a tensor-parallel group add the same rows in the same order and step together.
 * Errors of one row (prompt too long, template refuses) become its result; nt_status is for the job. */
#ifndef NT_ENGINE_H
#define NT_ENGINE_H

#include "chat.h"
#include "pages.h"
#include "seq.h"

struct nt_engine_config {
    struct nt_world *world;
    struct nt_backend *backend;
    struct nt_model *model;
    const struct nt_tokenizer *tok;
    const struct nt_chat *chat; /* NULL: chat rows are errors that say chat_error */
    const char *chat_error;
    int32_t max_seqs, max_tokens_per_step, max_len;
    size_t kv_bytes; /* budget of the cache; 0: what max_seqs sequences of max_len need */
};

struct nt_engine;
/* Lays out and binds the job arena; logs the memory plan first. */
NT_MUST nt_status nt_engine_new(struct nt_engine **out, const struct nt_engine_config *c);
/* Waits until no step is under way: an error of one that nobody needs any more shows here, before ranks meet. */
NT_MUST nt_status nt_engine_settle(struct nt_engine *e);
void nt_engine_free(struct nt_engine *e); /* accepts NULL */

/* Takes req over (released by the engine). */
NT_MUST nt_status nt_engine_add(struct nt_engine *e, struct nt_request *req);
/* Sequences the engine would still take before it has more waiting than it can run. */
int32_t nt_engine_room(const struct nt_engine *e);
int32_t nt_engine_active(const struct nt_engine *e); /* rows added and not yet popped */
NT_MUST nt_status nt_engine_step(struct nt_engine *e);
/* A finished row, or false. The caller releases it. */
bool nt_engine_pop(struct nt_engine *e, struct nt_result *out);

struct nt_engine_stats {
    int64_t steps, peak_seqs;
    int64_t steps_ahead; /* of steps: launched before the host had seen the tokens of the step before */
    int64_t prompt_tokens, answer_tokens; /* forwarded and sampled, for rates: a prompt counts once per choice */
    int64_t usage_prompt, usage_answer;   /* of finished rows, as their usage says */
    double forward_s, sample_s;
    size_t weight_bytes, kv_bytes, activation_bytes;
    int32_t n_pages, max_seqs;
};
const struct nt_engine_stats *nt_engine_stats(const struct nt_engine *e);

/* Prompt ids of a request (chat rendering, tokenization or given ids), as generate and score use them. A refusal
 * becomes *why (malloc'd). */
NT_MUST nt_status nt_prompt_ids(const struct nt_engine_config *c, const struct nt_request *req, struct nt_ids *ids,
                                char **why);
/* Seed of a row that names none: a mix of the job's seed and the row's index. */
uint64_t nt_row_seed(uint64_t job_seed, int64_t row);

#endif
