/* Pieces of the sampler: its state, what it asks of a shard's logits, and the shaping of rows; the host path
 * (sampler.h) and the device path (sampler_device.h) are made of them.
 *
 * Ownership: nt_sampler_layout takes the memory from the job's. Threading: one thread. Pieces that look at the whole
 * vocabulary are collective over the tensor-parallel ranks, which call with the same rows; only (value, index) pairs
 * travel. Errors: those of the ops and of the communicator. */
#ifndef NT_SAMPLER_PARTS_H
#define NT_SAMPLER_PARTS_H

#include "draw_pairs_cuda.h"
#include "model.h"
#include "penalty.h"

struct nt_sample_in {
    const struct nt_sampling *params;
    const struct nt_penalty *penalty; /* NULL: none */
    bool by_host;                     /* more candidates have to be seen than a device has lists for */
    bool pending;                     /* one more token is under way, of row pending_row of the step before */
    int32_t pending_row;
    const int32_t *masked; // [n_masked] ids that may not be chosen now
    int32_t n_masked;
    uint64_t seed, stream;
};

struct nt_sample_out {
    int32_t token;
    bool failed;    /* logits with NaN or infinity, or nothing left to choose from */
    bool undecided; /* no token yet: the host has to draw it (nt_sampler_goes_on says no from then on) */
    float logprob;  /* valid when params->top_logprobs >= 0 */
    int32_t n_top;
    int32_t top_id[NT_MAX_TOP_LOGPROBS]; /* best first */
    float top_lp[NT_MAX_TOP_LOGPROBS];
};

struct nt_sampler {
    struct nt_backend *be;
    struct nt_comm *tp;
    int64_t ld;
    int32_t max_rows, first, n_local, n_vocab; /* usable vocabulary: of this shard, and of all */
    int32_t n_head_rows, n_model_vocab;        /* the same with padding rows */
    float *raw;                                // [max_rows, ld] in the backend's memory: logits before they were shaped
    float *max, *sum;                          // [max_rows] of all shards
    int32_t *argmax;                           // [max_rows]
    struct nt_pair {
        float value;
        int32_t id;
    } * mine, *all, *merged; // [n_pair], [tp * n_pair], [n_pair], the batched pass's or a row's whole vocabulary
    /* exchanged with the ops */
    struct nt_both stats; // [3, max_rows] maximum, sum, argmax (int32_t) of this shard
    struct nt_both best;  // [2, n_pair] values, indices (int32_t)
    struct nt_both noise; // [max_rows] uint64_t seed, the same stream, float inv_temp
    struct nt_both drawn; // [2, max_rows] value, index (int32_t)
    struct nt_both picks; // [2, max_rows] id (int32_t), value
    struct nt_both rows;  // [max_rows] int32_t 0, 1, 2 ..., written once
    struct nt_both edits; // [NT_SAMPLER_EDITS] struct nt_logit_edit
    struct nt_both seen;  // [n_seen] struct nt_seen
    struct nt_both rules; // penalties of a call of the op: see struct penalty_rules
    struct nt_both scale; // [max_rows]
    int32_t n_edit, n_seen;
    /* On a device steps draw their own tokens (sampler_device.c): from logits that are whole there (one tensor-parallel
     * rank), or from the pairs that its model's ranks gather; greedy and plain ones from the head where that draws. */
    bool on_device, whole, head_draws;
    const struct nt_model *model; /* NULL: its ranks gather nothing on a device */
    struct nt_sampler_shard {
        int32_t first, n;          /* usable columns */
    } shard[NT_P2P_RANKS];         /* with model */
    float *part, *parts;           /* lists of pairs, of this rank and gathered (draw_pairs_cuda.h) */
    float *said;                   /* with model: this rank's part of answer */
    struct nt_both params, answer; // the parameters of all rows; what a step says: see struct said
    struct nt_step_wish {
        int32_t *logprobs;     // [max_rows] how many, -1: none
        int32_t k;             /* the most of them, at most n_vocab; -1: no row wants any */
    } wish[NT_DOWNLOAD_SLOTS]; /* of the steps under way */
};

/* Candidates per row in the batched pass; rows that need more are extended one by one. Edits, and tokens that were said
 * (or a vocabulary of them), per call of the ops. */
enum { NT_SAMPLER_K = NT_DRAW_K, NT_SAMPLER_EDITS = 8192, NT_SAMPLER_SEEN = 65536 };

bool nt_sample_is_random(const struct nt_sampling *p);
bool nt_sample_wants_logprobs(const struct nt_sampling *p);
bool nt_sample_is_edited(const struct nt_sample_in *in);                   /* bias, penalties or masks */
bool nt_sample_is_scaled(const struct nt_sampling *p);                     /* a temperature that is not 1 */
bool nt_sample_is_truncated(const struct nt_sampling *p, int32_t n_vocab); /* top-k, top-p or min-p */
size_t nt_sampler_rules_bytes(const struct nt_sampler *s);
bool nt_pair_better(struct nt_pair a, struct nt_pair b); /* larger, then lower id */

/* Maximum, its id and sum of exponentials over the first n_local columns of all shards, into s->max, argmax, sum. */
NT_MUST nt_status nt_sampler_stats(struct nt_sampler *s, const float *logits, int32_t n, int32_t n_local);
/* out[r].top_id/top_lp; needs the statistics of the raw logits. */
NT_MUST nt_status nt_sampler_top_logprobs(struct nt_sampler *s, const float *logits, const struct nt_sample_in *in,
                                          struct nt_sample_out *out, int32_t n);
/* Log-probability of out[r].token, given log(sum of exponentials) of each row. */
NT_MUST nt_status nt_sampler_chosen(struct nt_sampler *s, const float *logits, const float *lse,
                                    struct nt_sample_out *out, int32_t n);
NT_MUST nt_status nt_sampler_keep_raw(struct nt_sampler *s, const float *logits, int32_t n);
/* Bias, penalties and masks in place; with scale also the temperatures. pending: the tokens of the step before, in the
 * backend's memory; NULL where no row's is under way. */
NT_MUST nt_status nt_sampler_shape(struct nt_sampler *s, float *logits, const struct nt_sample_in *in, int32_t n,
                                   bool scale, const int32_t *pending);

/* The k best of rows over all shards into s->merged [n, k]; shards shorter than k are padded with -inf. n * k <=
 * max_rows * NT_SAMPLER_K, or n = 1 and k <= n_vocab where the host draws. */
NT_MUST nt_status nt_sampler_topk(struct nt_sampler *s, const float *logits, int32_t n, int32_t k);

/* How many of the k best (descending) the truncation keeps; 0: more candidates are needed to tell. total: sum of exp(v
 * - v[0]) over the whole vocabulary. */
int32_t nt_sample_keep(const struct nt_sampling *p, const struct nt_pair *best, int32_t k, bool all_seen, float total);
int32_t nt_sample_draw(const struct nt_sample_in *in, const struct nt_pair *best, int32_t keep);
/* A row whose kept set is larger than the batched candidates: ever longer lists, at last the whole vocabulary. */
NT_MUST nt_status nt_sampler_draw_long(struct nt_sampler *s, const float *row, const struct nt_sample_in *in,
                                       float total, int32_t *token);

#endif
