/* Reads what a model is out of its files' descriptions; weights and shapes are not looked at (spec_bind.h does).
 *
 * The container decides who reads: config.json of a Hugging Face directory (spec_hf.h) or GGUF metadata (spec_gguf.h);
 * the cross checks are common (spec.h). Unknown families, rope types and quantized directories are errors that name
 * what was expected. The spec is zeroed first, so that two of them can be compared byte by byte.
 * Ownership: plain data, nothing of the source is kept. Threading: none.
 * Errors: NT_E_DATA, NT_E_UNSUPPORTED, NT_E_NOINPUT. */
#ifndef NT_SPEC_READ_H
#define NT_SPEC_READ_H

#include "spec.h"

struct nt_tensor_source;

NT_MUST nt_status nt_spec_read(const struct nt_tensor_source *src, struct nt_spec *spec);

#endif
