/* The row of a family: one per architecture, data only (private to src/model).
 *
 * A family is a row: its names in both containers, its flags, the rule of its sliding window, and the table of its
 * tensors with expected shapes. To add a family, write a row in arch_<family>.c and list it in arch_table.c; a family
 * whose block differs from the one in block_fwd.c needs a new flag there. The key names of config.json and GGUF
 * metadata are common to all families (spec_hf.c, spec_gguf.c). Sources: the configuration and modeling files of
 * transformers, the GGUF specification. Immutable; no errors. */
#ifndef NT_ARCH_H
#define NT_ARCH_H

#include "spec.h"

struct nt_json;

/* Dimensions that a tensor's shape is made of. */
enum nt_dim { NT_DIM_NONE, NT_DIM_MODEL, NT_DIM_FF, NT_DIM_Q, NT_DIM_KV, NT_DIM_HEAD, NT_DIM_HALF_HEAD, NT_DIM_VOCAB };
/* When a tensor belongs to the model. */
enum nt_when {
    NT_WHEN_ALWAYS,
    NT_WHEN_UNTIED,
    NT_WHEN_QKV_BIAS,
    NT_WHEN_O_BIAS,
    NT_WHEN_MLP_BIAS,
    NT_WHEN_QK_NORM,
    NT_WHEN_FREQ_FACTORS
};

struct nt_slot_row {
    const char *hf, *gguf;  /* names; # stands for the layer; NULL: not in this container */
    enum nt_dim rows, cols; /* [rows, cols]; cols NT_DIM_NONE: a vector */
    enum nt_when when;
};
extern const struct nt_slot_row nt_decoder_slots[NT_SLOT_COUNT];

struct nt_arch {
    const char *family;
    const char *hf_class, *hf_model_type;  /* architectures[0] and model_type of config.json */
    const char *gguf;                      /* general.architecture, NULL: its GGUF files are the llama row's */
    bool gguf_interleaved;                 /* GGUF holds q and k rows as rotation pairs */
    bool qkv_bias;                         /* always; otherwise as attention_bias says */
    bool attention_bias_key, mlp_bias_key; /* the config keys are obeyed */
    bool qk_norm;
    int32_t default_d_head; /* 0: d_model / n_head */
    /* Sets window and layer_window from config.json; NULL: no window. */
    nt_status (*window)(const struct nt_json *config, const char *origin, struct nt_spec *spec);
    const struct nt_slot_row *slots; // [NT_SLOT_COUNT]
};
extern const struct nt_arch nt_arch_llama, nt_arch_mistral, nt_arch_qwen2, nt_arch_qwen3;

#endif
