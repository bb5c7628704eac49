/* Sampling on a device. The host does not wait for a step: it launches the next one, whose penalties count the token
 * under way on the device, and then looks at what came back.
 *
 *   no row truncated, edited or with log-probabilities   the head draws and stores no logits
 *   the same with truncated rows, one rank               logit_sample, in the captured step
 *   rows of any kind, one rank                           edits, logit_sample and what log-probabilities need, behind it
 *   rows of any kind, several ranks                      the same on shards, which hand their best pairs to all ranks,
 *                                                        and the draw from these (draw_pairs_cuda.h)
 *
 * Over several ranks only (value, index) pairs and sums per row are exchanged. Where more of a row would have to be
 * seen than the lists have it comes back undecided, and its token is drawn once more in a step that the host ends; so
 * are those of rows whose top-k is longer than the lists, and of steps that say more than fits a way back. A row's
 * token is the same whoever its neighbours are and whichever of the ways is taken. A step is made by prepare, the
 * forward, start, finish where all rows are plain (neither edits nor log-probabilities), else by the forward, queue,
 * start, finish. Ownership and threading: as sampler_parts.h; with several ranks all call alike. Errors: those of the
 * ops and of the communicator. */
#ifndef NT_SAMPLER_DEVICE_H
#define NT_SAMPLER_DEVICE_H

#include "sampler_parts.h"

/* Does a step of these rows need nothing of the host before the next one is launched? */
bool nt_sampler_goes_on(const struct nt_sampler *s, const struct nt_sample_in *in, int32_t n);
/* Plain rows, whose step can draw its own tokens (struct nt_batch), by_head where that says so. prepare fills args but
 * for logits, ld and n_row. */
bool nt_sampler_by_head(const struct nt_sampler *s, const struct nt_sample_in *in, int32_t n);
bool nt_sampler_is_plain(const struct nt_sampler *s, const struct nt_sample_in *in, int32_t n);
NT_MUST nt_status nt_sampler_prepare(struct nt_sampler *s, const struct nt_sample_in *in, int32_t n,
                                     struct nt_logit_sample_args *args);
/* Tokens and log-probabilities of rows of any kind from the logits of a forward, behind it in the stream. logits are
 * overwritten. */
NT_MUST nt_status nt_sampler_queue(struct nt_sampler *s, float *logits, const struct nt_sample_in *in, int32_t n);
/* start queues the way back of what the step says, finish waits for it. tokens: where the step after finds them. */
NT_MUST nt_status nt_sampler_start(struct nt_sampler *s, int slot, const struct nt_sample_in *in, int32_t n);
NT_MUST nt_status nt_sampler_finish(struct nt_sampler *s, int slot, struct nt_sample_out *out, int32_t n);
const int32_t *nt_sampler_tokens(const struct nt_sampler *s);
void nt_sampler_take_params(struct nt_sampler *s, struct nt_job_memory *mem);
/* queue, start and finish at once, of any number of rows. */
NT_MUST nt_status nt_sampler_run_device(struct nt_sampler *s, float *logits, const struct nt_sample_in *in,
                                        struct nt_sample_out *out, int32_t n);

#endif
