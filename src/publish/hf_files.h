/* The files beside the weights of a Hugging Face directory made from another model.
 *
 * From a directory: config.json (its dtype becomes bfloat16), generation_config.json, the tokenizer's files, chat
 * templates and licences are copied; from a GGUF file they are written from its metadata. A SentencePiece-style
 * tokenizer cannot be written from GGUF: that is told by no_tokenizer, not an error, because the weights are good.
 * Ownership: none. Threading: none. Errors: those of reading and writing, naming the file. */
#ifndef NT_HF_FILES_H
#define NT_HF_FILES_H

#include "spec.h"

struct nt_tensor_source;
struct nt_binding;

NT_MUST nt_status nt_hf_files_write(const struct nt_tensor_source *src, const struct nt_spec *spec,
                                    const struct nt_binding *b, const char *dir, bool *no_tokenizer);

#endif
