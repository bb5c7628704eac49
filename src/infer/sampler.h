/* From logit rows to tokens, over a vocabulary that may be split across tensor-parallel ranks.
 *
 * Order per row: logit bias and penalties, stops masked before min_tokens, temperature, top-k, top-p (smallest set
 * whose probability reaches p), min-p (relative to the best), then one draw by the Gumbel-max trick (argmax of logit /
 * temperature + noise): the noise is a function of (seed, stream, token), so a draw does not depend on batch, threads
 * or ranks. Temperature 0 is argmax, ties to the lower id. Log-probabilities are those of the raw logits (vLLM's
 * logprobs_mode raw). Only (value, index) pairs and per-row sums travel between ranks; every rank computes the same
 * tokens. Memory comes from the job arena; all ranks of the tp communicator call with the same rows. */
#ifndef NT_SAMPLER_H
#define NT_SAMPLER_H

#include "model.h"
#include "penalty.h"

struct nt_sample_in {
    const struct nt_sampling *params;
    const struct nt_penalty *penalty; /* NULL: none */
    const int32_t *masked;            // [n_masked] ids that may not be chosen now
    int32_t n_masked;
    uint64_t seed, stream;
};

struct nt_sample_out {
    int32_t token;
    bool failed;   /* logits with NaN or infinity, or nothing left to choose from */
    float logprob; /* valid when params->top_logprobs >= 0 */
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
    } * mine, *all, *merged; // [max_rows * k], [tp * max_rows * k], [max_rows * k]
    /* exchanged with the ops */
    struct nt_both stats; // [3, max_rows] maximum, sum, argmax (int32_t) of this shard
    struct nt_both best;  // [2, max_rows * k] values, indices (int32_t)
    struct nt_both noise; // [max_rows] uint64_t seed, the same stream, float inv_temp
    struct nt_both drawn; // [2, max_rows] value, index (int32_t)
    struct nt_both picks; // [2, max_rows] id (int32_t), value
    struct nt_both rows;  // [max_rows] int32_t 0, 1, 2 ...
    struct nt_both edits; // [NT_SAMPLER_EDITS] struct nt_logit_edit
    struct nt_both scale; // [max_rows]
    int32_t n_edit;
    /* Where logits are whole on a device (one tensor-parallel rank), tokens are drawn there: sampler_device.c. */
    bool on_device;
    struct nt_both params, tokens; // the parameters of all rows; [max_rows] int32_t
};

/* Candidates per row in the batched pass; rows that need more are extended one by one. Edits per call of the op. */
enum { NT_SAMPLER_K = 256, NT_SAMPLER_EDITS = 8192 };

/* Layout function. n_vocab: tokens the tokenizer knows (rows of padding beyond it are never chosen). */
void nt_sampler_layout(struct nt_sampler *s, struct nt_job_memory *mem, const struct nt_model *m, struct nt_comm *tp,
                       int32_t n_vocab, int32_t max_rows);
/* Its second half: the buffers, for the sizes that are set. */
void nt_sampler_take(struct nt_sampler *s, struct nt_job_memory *mem);
/* Rows without edits and log-probabilities, on a device: their step can draw its own tokens. prepare fills args but
 * for logits, ld and n_row; start queues the way back of the tokens after the step, finish waits for it. */
bool nt_sampler_is_plain(const struct nt_sampler *s, const struct nt_sample_in *in, int32_t n);
NT_MUST nt_status nt_sampler_prepare(struct nt_sampler *s, const struct nt_sample_in *in, int32_t n,
                                     struct nt_logit_sample_args *args);
NT_MUST nt_status nt_sampler_start(struct nt_sampler *s, int slot, int32_t n);
NT_MUST nt_status nt_sampler_finish(struct nt_sampler *s, int slot, struct nt_sample_out *out, int32_t n);
/* logits [n, ld], in the backend's memory, are overwritten. */
NT_MUST nt_status nt_sampler_run(struct nt_sampler *s, float *logits, const struct nt_sample_in *in,
                                 struct nt_sample_out *out, int32_t n);

#endif
