/* What a model is, as data: dimensions, flags, rotary scaling, and where its tensors are.
 *
 * Filled from a Hugging Face config.json (with generation_config.json) or from GGUF metadata by the family's row
 * (arch.h). Every number is range checked, and every tensor's presence and shape is checked against it before the
 * first weight is read (nt_spec_bind). Unknown families, rope types, quantized directories and unexpected tensors are
 * errors that name what was expected. Formulae of the families: docs/architecture.md.
 * Ownership: struct nt_spec is plain data; a struct nt_binding owns one array of pointers into the tensor source and
 * must be released before the source is closed. Threading: none. Errors: NT_E_DATA, NT_E_UNSUPPORTED, NT_E_NOINPUT. */
#ifndef NT_SPEC_H
#define NT_SPEC_H

#include "status.h"
#include <stdbool.h>
#include <stdint.h>

struct nt_tensor_info;
struct nt_tensor_source;

enum nt_act { NT_ACT_SILU, NT_ACT_GELU_TANH };
enum nt_rope_scaling { NT_ROPE_NONE, NT_ROPE_LINEAR, NT_ROPE_LLAMA3, NT_ROPE_YARN, NT_ROPE_FREQ_FACTORS };

enum { NT_MAX_LAYERS = 512, NT_MAX_HEADS = 1024, NT_MAX_D_HEAD = 512, NT_MAX_EOS = 8 };

struct nt_spec {
    char family[32]; /* row name: "llama", "mistral", "qwen2", "qwen3" */
    int32_t n_layer, d_model, d_ff, n_head, n_kv, d_head, n_vocab, max_len;
    float norm_eps, attn_scale;
    enum nt_act act;
    bool tied, qkv_bias, o_bias, mlp_bias, qk_norm;
    bool qk_interleaved;              /* rows of q and k lie in GGUF's pair order and are put back at load */
    int32_t window;                   /* sliding window, 0: none */
    bool layer_window[NT_MAX_LAYERS]; /* which layers use it */
    struct {
        double theta;
        enum nt_rope_scaling scaling;
        double factor, low_freq_factor, high_freq_factor, original_max_len; /* llama3, linear, yarn */
        double beta_fast, beta_slow, attention_factor;                      /* yarn */
        bool no_truncate;                                                   /* yarn: ramp bounds are not rounded */
    } rope;
    int32_t bos_id, n_eos, eos_ids[NT_MAX_EOS]; /* from config; -1 / 0 when absent */
};

/* Reads the spec of an open source; shapes are not looked at yet. */
NT_MUST nt_status nt_spec_read(const struct nt_tensor_source *src, struct nt_spec *spec);

/* What a tensor is for. Slots from NT_SLOT_ATTN_NORM on exist once per layer. */
enum nt_slot {
    NT_SLOT_EMBED,
    NT_SLOT_FINAL_NORM,
    NT_SLOT_HEAD,
    NT_SLOT_ROPE_FREQS,
    NT_SLOT_ATTN_NORM,
    NT_SLOT_Q,
    NT_SLOT_K,
    NT_SLOT_V,
    NT_SLOT_O,
    NT_SLOT_Q_BIAS,
    NT_SLOT_K_BIAS,
    NT_SLOT_V_BIAS,
    NT_SLOT_O_BIAS,
    NT_SLOT_Q_NORM,
    NT_SLOT_K_NORM,
    NT_SLOT_MLP_NORM,
    NT_SLOT_GATE,
    NT_SLOT_UP,
    NT_SLOT_DOWN,
    NT_SLOT_GATE_BIAS,
    NT_SLOT_UP_BIAS,
    NT_SLOT_DOWN_BIAS,
    NT_SLOT_COUNT
};

struct nt_binding {
    const struct nt_tensor_info *
        *tensors; /* [n_layer][NT_SLOT_COUNT]; slots outside the layers in row 0; NULL: unused */
};

/* Finds every tensor the spec needs and checks its shape; a tensor that belongs to nothing is an error too. */
NT_MUST nt_status nt_spec_bind(const struct nt_tensor_source *src, const struct nt_spec *spec, struct nt_binding *b);
void nt_binding_release(struct nt_binding *b); /* accepts a zeroed struct */
const struct nt_tensor_info *nt_binding_get(const struct nt_binding *b, int32_t layer, enum nt_slot slot);

#endif
