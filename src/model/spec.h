/* What a model is, as data: dimensions, flags, rotary scaling, and what its tensors are for.
 *
 * Filled from a Hugging Face config.json (with generation_config.json) or from GGUF metadata by spec_read.h, with the
 * family's row (arch.h); the tensors are found and checked against it by spec_bind.h. Every number is range checked on
 * the way in. Formulae of the families: docs/architecture.md.
 * Ownership: plain data. Threading: none. Errors: NT_E_DATA, NT_E_UNSUPPORTED. */
#ifndef NT_SPEC_H
#define NT_SPEC_H

#include "status.h"
#include <stdbool.h>
#include <stdint.h>

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

/* Adds a token that ends generation; ignores repeats, negatives and what exceeds NT_MAX_EOS. */
void nt_spec_add_eos(struct nt_spec *spec, int64_t id);
/* Cross checks of a filled spec, and what follows from it: attn_scale, the scaled max_len. path is for the sentence. */
NT_MUST nt_status nt_spec_check(const char *path, struct nt_spec *spec);

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

#endif
