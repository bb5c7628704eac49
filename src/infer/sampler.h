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

#include "sampler_device.h"

/* Layout function; fails (when bound) with the errors of the backend's copies. n_vocab: tokens the tokenizer knows
 * (rows of padding beyond it are never chosen). */
NT_MUST nt_status nt_sampler_layout(struct nt_sampler *s, struct nt_job_memory *mem, const struct nt_model *m,
                                    struct nt_comm *tp, int32_t n_vocab, int32_t max_rows);
/* The one a job would have on devices that its ranks connect: for a plan, which only counts its memory. */
NT_MUST nt_status nt_sampler_layout_shape(struct nt_sampler *s, struct nt_job_memory *mem, const struct nt_model *m,
                                          struct nt_comm *tp, int32_t max_rows);
/* The second half of both: the buffers, for the sizes that are set. */
NT_MUST nt_status nt_sampler_take(struct nt_sampler *s, struct nt_job_memory *mem);
/* logits [n, ld], in the backend's memory, are overwritten. */
NT_MUST nt_status nt_sampler_run(struct nt_sampler *s, float *logits, const struct nt_sample_in *in,
                                 struct nt_sample_out *out, int32_t n);

#endif
