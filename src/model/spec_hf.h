/* The half of nt_spec_read for a Hugging Face directory: config.json, then generation_config.json for more end tokens.
 *
 * Knows the key names that all families share, in the spellings of transformers 4 and 5 (rope_scaling and
 * rope_parameters); what differs between families comes from the family's row (arch.h). Keys are read with the helpers
 * of hf_config.h. Sources: the configuration files of transformers; YaRN: Peng et al. 2023.
 * Ownership: nothing is kept. Threading: none. Errors: NT_E_DATA, NT_E_UNSUPPORTED, NT_E_NOINPUT, naming file and key.
 */
#ifndef NT_SPEC_HF_H
#define NT_SPEC_HF_H

#include "spec.h"

struct nt_tensor_source;

/* spec is zeroed but for bos_id -1; attn_scale and cross checks are left to nt_spec_check. */
NT_MUST nt_status nt_spec_read_hf(const struct nt_tensor_source *src, struct nt_spec *spec);

#endif
