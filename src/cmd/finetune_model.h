/* A model whose weights were all trained, as a Hugging Face directory in bf16.
 *
 * config.json, tokenizer and template are the base's (hf_files.h); weights are rounded once from the trained f32
 * numbers. The directory takes an older one's place in one step. Collective over tp: every rank gives its part of each
 * tensor, world rank 0 writes. Errors: those of files and communicators; NT_E_DATA for a weight that is not finite. */
#ifndef NT_FINETUNE_MODEL_H
#define NT_FINETUNE_MODEL_H

#include "training.h"

/* Before the training: what is written beside the weights is written and removed again, so that a base that has no such
 * files, or a place that takes none, is told now. */
NT_MUST nt_status nt_finetune_model_try(struct nt_world *w, const char *base, const char *dir);
NT_MUST nt_status nt_finetune_model_write(const struct nt_training *t, struct nt_world *w, const char *base,
                                          const char *dir);

#endif
