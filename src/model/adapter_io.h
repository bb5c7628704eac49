/* Adapters as files: PEFT directories, read and written, and GGUF adapters, written.
 *
 * PEFT (its docs/developer_guides/checkpoint.md): adapter_config.json and adapter_model.safetensors with tensors
 * "base_model.model.<module>.lora_A.weight" [r, in] and ".lora_B.weight" [out, r]. Read in F32, F16 or BF16; every
 * tensor's name and shape is checked against the spec before memory is allocated. What this program would compute
 * wrongly is refused by name: DoRA, modules_to_save, rank_pattern, alpha_pattern, bias, other adapter types and inits
 * that change the base. Written plain: F32, uniform rank, rsLoRA folded into lora_alpha (s r), because some readers do
 * not know use_rslora; so alpha may change between write and read, the scale does not.
 * GGUF (llama.cpp, convert_lora_to_gguf.py): general.type "adapter", adapter.lora.alpha = s r, tensors
 * "<base tensor>.lora_a" and ".lora_b"; rows of B of q and k in pair order where the base's GGUF has it.
 * Both appear whole or not at all. Threading: one thread per adapter. Errors: NT_E_DATA, NT_E_UNSUPPORTED, NT_E_NOINPUT
 * naming file and key or tensor, NT_E_IO. */
#ifndef NT_ADAPTER_IO_H
#define NT_ADAPTER_IO_H

#include "adapter.h"
#include "fileio.h"
#include "safetensors_write.h"

/* Keys of the digests in the safetensors metadata: 64 hexadecimal digits. */
#define NT_ADAPTER_BASE_KEY      "nocturne.base_sha256"
#define NT_ADAPTER_TOKENIZER_KEY "nocturne.tokenizer_sha256"

/* The name of A or B (part 'A', 'B') in a PEFT file. */
void nt_adapter_tensor_name(const struct nt_spec *spec, int32_t layer, enum nt_linear linear, char part, char *buf,
                            size_t cap);

NT_MUST nt_status nt_adapter_read(const char *dir, const struct nt_spec *spec, struct nt_adapter **out);

/* An adapter without its base: what adapter_config.json says, and the tensors, whose names and shapes nobody checked.
 * Refuses what nt_adapter_read refuses by the config. The caller closes *src. */
struct nt_adapter_facts {
    int32_t r;
    double alpha, dropout, scale;
    char base[256];
};
struct nt_tensor_source;
NT_MUST nt_status nt_adapter_open(const char *dir, struct nt_adapter_facts *facts, struct nt_tensor_source **src);

/* The base and tokenizer an adapter was trained on are these? NULL or unknown digests are not compared.
 * NT_E_CONFIG naming dir and both digests otherwise. */
NT_MUST nt_status nt_adapter_check_base(const struct nt_adapter *a, const char *dir, const uint8_t base_digest[32],
                                        const uint8_t tokenizer_digest[32]);

struct nt_adapter_card {
    const struct nt_text_pair *provenance; // [n] more keys of the safetensors metadata and the GGUF file: "nocturne.*"
    int64_t n;
    const char *license;  /* SPDX name for the card's front matter; NULL: left out */
    const char *markdown; /* body of README.md after the table of facts; NULL: none */
};

/* dir appears with adapter_model.safetensors, adapter_config.json and README.md; mode: outdir.h. card may be NULL. */
NT_MUST nt_status nt_adapter_write_peft(const struct nt_adapter *a, const struct nt_spec *spec,
                                        const struct nt_adapter_card *card, const char *dir, enum nt_publish_mode mode);
NT_MUST nt_status nt_adapter_write_gguf(const struct nt_adapter *a, const struct nt_spec *spec,
                                        const struct nt_adapter_card *card, const char *path);

#endif
