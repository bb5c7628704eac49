/* Sampling on a device: by the head, which stores no logits, where no row is truncated (also over tensor-parallel
 * ranks, of which only (value, index) pairs are exchanged), else by one op on the logits where these are whole (one
 * rank).
 *
 * A row's token is the same whoever its neighbours are and whichever of the two ways is taken: rows without edits and
 * log-probabilities are plain, and their step draws its own tokens (prepare, the forward, start, finish); others take
 * nt_sampler_run_device after the forward. Ownership and threading: as sampler_parts.h. Errors: those of the ops. */
#ifndef NT_SAMPLER_DEVICE_H
#define NT_SAMPLER_DEVICE_H

#include "sampler_parts.h"

/* Rows without edits and log-probabilities, on a device: their step can draw its own tokens (struct nt_batch), by_head
 * where that says so. prepare fills args but for logits, ld and n_row; start queues the way back of the tokens after
 * the step, finish waits for it. */
bool nt_sampler_by_head(const struct nt_sampler *s, const struct nt_sample_in *in, int32_t n);
bool nt_sampler_is_plain(const struct nt_sampler *s, const struct nt_sample_in *in, int32_t n);
NT_MUST nt_status nt_sampler_prepare(struct nt_sampler *s, const struct nt_sample_in *in, int32_t n,
                                     struct nt_logit_sample_args *args);
NT_MUST nt_status nt_sampler_start(struct nt_sampler *s, int slot, int32_t n);
NT_MUST nt_status nt_sampler_finish(struct nt_sampler *s, int slot, struct nt_sample_out *out, int32_t n);
void nt_sampler_take_params(struct nt_sampler *s, struct nt_job_memory *mem);
NT_MUST nt_status nt_sampler_run_device(struct nt_sampler *s, float *logits, const struct nt_sample_in *in,
                                        struct nt_sample_out *out, int32_t n);

#endif
