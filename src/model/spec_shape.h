/* The spec of a model whose weights need not be there: for planning.
 *
 * Accepts, in this order: a Hugging Face directory or its config.json alone, a GGUF file, or the name of a row of the
 * table below (sizes of well-known models). Without weights a config.json that does not say whether the embedding is
 * the head counts as tied, as in transformers. A name that is neither is an error with the nearest row.
 * Ownership: plain data. No state. Errors: those of spec_read.h, NT_E_NOINPUT. */
#ifndef NT_SPEC_SHAPE_H
#define NT_SPEC_SHAPE_H

#include "spec.h"

NT_MUST nt_status nt_spec_of(const char *model, struct nt_spec *spec);
/* "llama3-8b, llama3-70b, ..." into buf; returns buf. */
const char *nt_spec_shape_list(char *buf, size_t cap);

#endif
