/* The table of all families, and look-ups in it (private to src/model).
 *
 * Each row is written in arch_<family>.c (arch.h says what a row holds); adding a family means adding its row here.
 * The readers of both containers search the table by their own names, everything after them by the family's.
 * Ownership: constant data. Threading: any. Errors: none; an unknown family is NULL, and the caller's error sentence
 * lists what is known. */
#ifndef NT_ARCH_TABLE_H
#define NT_ARCH_TABLE_H

#include "arch.h"
#include <stddef.h>

/* All rows; n receives their number. */
const struct nt_arch *const *nt_arch_table(int32_t *n);
const struct nt_arch *nt_arch_find(const char *family); /* NULL: none */
/* "llama (LlamaForCausalLM), ..." for error sentences. */
const char *nt_arch_list(char *buf, size_t cap, bool gguf);

int64_t nt_spec_dim(const struct nt_spec *spec, enum nt_dim dim); /* 0 for NT_DIM_NONE */
/* A slot row's name with # replaced by the layer number. */
void nt_slot_name(const char *pattern, int32_t layer, char *buf, size_t cap);
/* The family whose row describes GGUF files of this one: its own, or "llama" for families that GGUF calls so. */
const struct nt_arch *nt_arch_in_gguf(const struct nt_arch *arch);

#endif
