#include "arch.h"

/* The tensors of a decoder with grouped-query attention and a gated MLP; every family here has these names. */
const struct nt_slot_row nt_decoder_slots[NT_SLOT_COUNT] = {
#define LAYER(hf, gguf) "model.layers.#." hf, "blk.#." gguf
    [NT_SLOT_EMBED] = {"model.embed_tokens.weight",             "token_embd.weight",   NT_DIM_VOCAB,     NT_DIM_MODEL, NT_WHEN_ALWAYS      },
    [NT_SLOT_FINAL_NORM] = {"model.norm.weight",                     "output_norm.weight",  NT_DIM_MODEL,     NT_DIM_NONE,  NT_WHEN_ALWAYS      },
    [NT_SLOT_HEAD] = {"lm_head.weight",                        "output.weight",       NT_DIM_VOCAB,     NT_DIM_MODEL, NT_WHEN_UNTIED      },
    [NT_SLOT_ROPE_FREQS] = {NULL,                                    "rope_freqs.weight",   NT_DIM_HALF_HEAD, NT_DIM_NONE,  NT_WHEN_FREQ_FACTORS},
    [NT_SLOT_ATTN_NORM] = {LAYER("input_layernorm.weight",          "attn_norm.weight"),   NT_DIM_MODEL,     NT_DIM_NONE,
                       NT_WHEN_ALWAYS                                                                                                      },
    [NT_SLOT_Q] = {LAYER("self_attn.q_proj.weight",         "attn_q.weight"),      NT_DIM_Q,         NT_DIM_MODEL, NT_WHEN_ALWAYS      },
    [NT_SLOT_K] = {LAYER("self_attn.k_proj.weight",         "attn_k.weight"),      NT_DIM_KV,        NT_DIM_MODEL, NT_WHEN_ALWAYS      },
    [NT_SLOT_V] = {LAYER("self_attn.v_proj.weight",         "attn_v.weight"),      NT_DIM_KV,        NT_DIM_MODEL, NT_WHEN_ALWAYS      },
    [NT_SLOT_O] = {LAYER("self_attn.o_proj.weight",         "attn_output.weight"), NT_DIM_MODEL,     NT_DIM_Q,     NT_WHEN_ALWAYS      },
    [NT_SLOT_Q_BIAS] = {LAYER("self_attn.q_proj.bias",           "attn_q.bias"),        NT_DIM_Q,         NT_DIM_NONE,  NT_WHEN_QKV_BIAS    },
    [NT_SLOT_K_BIAS] = {LAYER("self_attn.k_proj.bias",           "attn_k.bias"),        NT_DIM_KV,        NT_DIM_NONE,  NT_WHEN_QKV_BIAS    },
    [NT_SLOT_V_BIAS] = {LAYER("self_attn.v_proj.bias",           "attn_v.bias"),        NT_DIM_KV,        NT_DIM_NONE,  NT_WHEN_QKV_BIAS    },
    [NT_SLOT_O_BIAS] = {LAYER("self_attn.o_proj.bias",           "attn_output.bias"),   NT_DIM_MODEL,     NT_DIM_NONE,  NT_WHEN_O_BIAS      },
    [NT_SLOT_Q_NORM] = {LAYER("self_attn.q_norm.weight",         "attn_q_norm.weight"), NT_DIM_HEAD,      NT_DIM_NONE,
                       NT_WHEN_QK_NORM                                                                                                     },
    [NT_SLOT_K_NORM] = {LAYER("self_attn.k_norm.weight",         "attn_k_norm.weight"), NT_DIM_HEAD,      NT_DIM_NONE,
                       NT_WHEN_QK_NORM                                                                                                     },
    [NT_SLOT_MLP_NORM] = {LAYER("post_attention_layernorm.weight", "ffn_norm.weight"),    NT_DIM_MODEL,     NT_DIM_NONE,
                       NT_WHEN_ALWAYS                                                                                                      },
    [NT_SLOT_GATE] = {LAYER("mlp.gate_proj.weight",            "ffn_gate.weight"),    NT_DIM_FF,        NT_DIM_MODEL, NT_WHEN_ALWAYS      },
    [NT_SLOT_UP] = {LAYER("mlp.up_proj.weight",              "ffn_up.weight"),      NT_DIM_FF,        NT_DIM_MODEL, NT_WHEN_ALWAYS      },
    [NT_SLOT_DOWN] = {LAYER("mlp.down_proj.weight",            "ffn_down.weight"),    NT_DIM_MODEL,     NT_DIM_FF,    NT_WHEN_ALWAYS      },
    [NT_SLOT_GATE_BIAS] = {LAYER("mlp.gate_proj.bias",              "ffn_gate.bias"),      NT_DIM_FF,        NT_DIM_NONE,  NT_WHEN_MLP_BIAS    },
    [NT_SLOT_UP_BIAS] = {LAYER("mlp.up_proj.bias",                "ffn_up.bias"),        NT_DIM_FF,        NT_DIM_NONE,  NT_WHEN_MLP_BIAS    },
    [NT_SLOT_DOWN_BIAS] = {LAYER("mlp.down_proj.bias",              "ffn_down.bias"),      NT_DIM_MODEL,     NT_DIM_NONE,  NT_WHEN_MLP_BIAS    },
#undef LAYER
};

/* Llama 2 and 3, SmolLM2. general.architecture "llama" is also what Mistral's GGUF files say. */
const struct nt_arch nt_arch_llama = {
    .family = "llama",
    .hf_class = "LlamaForCausalLM",
    .hf_model_type = "llama",
    .gguf = "llama",
    .gguf_interleaved = true,
    .attention_bias_key = true,
    .mlp_bias_key = true,
    .slots = nt_decoder_slots,
};
