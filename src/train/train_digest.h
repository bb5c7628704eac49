/* The identity of a fine-tuning job: SHA-256 over model, tokenizer, the adapters it begins from and compares with,
 * prepared data and every setting that can change an update.
 *
 * Not in it: where files lie, how often is saved or evaluated, ranks and threads, and what changes only rounding
 * (micro-batch size, recompute, rows of logits): a run may be resumed with other ones. Pure but for memory. */
#ifndef NT_TRAIN_DIGEST_H
#define NT_TRAIN_DIGEST_H

#include "trainer.h"

/* r: data and the digests of models are read. */
NT_MUST nt_status nt_train_digest(const struct nt_train_job *job, const struct nt_train_result *r, uint8_t out[32]);

#endif
