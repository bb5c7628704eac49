/* The half of nt_spec_read for a GGUF file: "<architecture>.*" metadata, and the presence of some tensors.
 *
 * The container has no keys for tied embeddings and biases: there the tensors themselves say it. Rows of q and k may
 * lie in pair order (qk_interleaved), as the family's row (arch.h) knows. Source: the GGUF specification (ggml
 * docs/gguf.md) and the keys that llama.cpp's converter writes.
 * Ownership: nothing is kept. Threading: none. Errors: NT_E_DATA, NT_E_UNSUPPORTED, naming file and metadata key. */
#ifndef NT_SPEC_GGUF_H
#define NT_SPEC_GGUF_H

#include "spec.h"

struct nt_tensor_source;

/* spec is zeroed but for bos_id -1; attn_scale and cross checks are left to nt_spec_check. */
NT_MUST nt_status nt_spec_read_gguf(const struct nt_tensor_source *src, struct nt_spec *spec);
#endif
