/* The way back of spec_hf.h: what a model is, as config.json and generation_config.json of a Hugging Face directory.
 *
 * For models that come from a GGUF file. The spec read back from the text is the same, but for rope factors: GGUF holds
 * them as a tensor (NT_ROPE_FREQ_FACTORS), config.json as four numbers; they are recognised where they are Llama 3's.
 * Keys are those that transformers 4 and 5 both read; dtype is bfloat16. A "llama" of GGUF with a sliding window is
 * written as Mistral, the family that has one.
 * Ownership: appends to the caller's strings. Threading: none. Errors: NT_E_UNSUPPORTED. */
#ifndef NT_SPEC_WRITE_H
#define NT_SPEC_WRITE_H

#include "spec.h"
#include "strbuf.h"

/* freq_factors: [d_head / 2] of rope_freqs.weight, or NULL; path is for error sentences. */
NT_MUST nt_status nt_spec_write_hf(const struct nt_spec *spec, const float *freq_factors, const char *path,
                                   struct nt_strbuf *config, struct nt_strbuf *generation);

#endif
