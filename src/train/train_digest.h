/* The identity of a fine-tuning job: SHA-256 over model, tokenizer, prepared data and every setting that can change an
 * update.
 *
 * Not in it: where files lie, how often is saved or evaluated, ranks and threads, and what changes only rounding
 * (micro-batch size, recompute, rows of logits): a run may be resumed with other ones. Pure but for memory. */
#ifndef NT_TRAIN_DIGEST_H
#define NT_TRAIN_DIGEST_H

#include "trainer.h"

NT_MUST nt_status nt_train_digest(const struct nt_train_job *job, const struct nt_prepared *data, uint8_t out[32]);

#endif
