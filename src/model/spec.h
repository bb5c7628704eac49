/* What a model is, as data: dimensions, flags, rotary scaling, and where its tensors are.
 *
 * Filled from a Hugging Face config.json or from GGUF metadata by the family's row (arch_*.c). Every number is range checked and
 * cross-checked with tensor shapes before use. Formulae: formats of the families are listed in docs/architecture.md. No ownership: plain data. */
#ifndef NT_SPEC_H
#define NT_SPEC_H

#include "status.h"
#include <stdbool.h>
#include <stdint.h>

enum nt_act { NT_ACT_SILU, NT_ACT_GELU_TANH };
enum nt_rope_scaling { NT_ROPE_NONE, NT_ROPE_LINEAR, NT_ROPE_LLAMA3, NT_ROPE_YARN, NT_ROPE_FREQ_FACTORS };

enum { NT_MAX_LAYERS = 512 };

struct nt_spec {
    char family[32]; /* row name: "llama", "mistral", "qwen2", "qwen3" */
    int32_t n_layer, d_model, d_ff, n_head, n_kv, d_head, n_vocab, max_len;
    float norm_eps, attn_scale;
    enum nt_act act;
    bool tied, qkv_bias, o_bias, mlp_bias, qk_norm;
    int32_t window;                    /* sliding window, 0: none */
    bool layer_window[NT_MAX_LAYERS];  /* which layers use it */
    struct {
        double theta;
        enum nt_rope_scaling scaling;
        double factor, low_freq_factor, high_freq_factor, original_max_len; /* llama3, linear, yarn */
        double beta_fast, beta_slow, attention_factor;                       /* yarn */
    } rope;
    int32_t bos_id, n_eos, eos_ids[8]; /* from config; -1 / 0 when absent */
};

#endif
