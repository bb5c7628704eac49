/* Pieces of the sampler that its host and its device path share; nobody else includes this.
 *
 * No state of its own: everything is in struct nt_sampler (sampler.h), whose ownership and threading hold. Each piece
 * is collective over the tensor-parallel ranks where it says so there. Errors: those of the ops and of the
 * communicator. */
#ifndef NT_SAMPLER_IMPL_H
#define NT_SAMPLER_IMPL_H

#include "sampler.h"

bool nt_sample_is_random(const struct nt_sampling *p);
bool nt_sample_wants_logprobs(const struct nt_sampling *p);
bool nt_sample_is_edited(const struct nt_sample_in *in); /* bias, penalties or masks */

/* Maximum, its id and sum of exponentials over the first n_local columns of all shards, into s->max, argmax, sum. */
NT_MUST nt_status nt_sampler_stats(struct nt_sampler *s, const float *logits, int32_t n, int32_t n_local);
/* out[r].top_id/top_lp; needs the statistics of the raw logits. */
NT_MUST nt_status nt_sampler_top_logprobs(struct nt_sampler *s, const float *logits, const struct nt_sample_in *in,
                                          struct nt_sample_out *out, int32_t n);
/* Log-probability of out[r].token, given log(sum of exponentials) of each row. */
NT_MUST nt_status nt_sampler_chosen(struct nt_sampler *s, const float *logits, const float *lse,
                                    struct nt_sample_out *out, int32_t n);
NT_MUST nt_status nt_sampler_keep_raw(struct nt_sampler *s, const float *logits, int32_t n);
/* Bias, penalties and masks in place; with scale also the temperatures. */
NT_MUST nt_status nt_sampler_shape(struct nt_sampler *s, float *logits, const struct nt_sample_in *in, int32_t n,
                                   bool scale);

/* The device path (sampler_device.c). */
void nt_sampler_take_params(struct nt_sampler *s, struct nt_job_memory *mem);
NT_MUST nt_status nt_sampler_run_device(struct nt_sampler *s, float *logits, const struct nt_sample_in *in,
                                        struct nt_sample_out *out, int32_t n);

#endif
