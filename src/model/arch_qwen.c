#include "arch.h"
#include "hf_config.h"
#include <string.h>

/* The window is off unless use_sliding_window; then layer_types lists its layers, else those from max_window_layers
 * on have it. */
static nt_status qwen_window(const struct nt_json *config, const char *origin, struct nt_spec *spec) {
    const struct nt_json *value = nt_json_get(config, "sliding_window");
    if (!nt_json_bool(nt_json_get(config, "use_sliding_window"), false) || (value && nt_json_is(value, NT_JSON_NULL)))
        return NT_OK;
    int32_t window = 0, first = 0;
    NT_TRY(nt_hf_int(config, origin, "sliding_window", 1, INT32_MAX, 4096, &window));
    NT_TRY(nt_hf_int(config, origin, "max_window_layers", 0, INT32_MAX, 28, &first));
    const struct nt_json *types = nt_json_get(config, "layer_types");
    const bool listed = nt_json_is(types, NT_JSON_ARRAY);
    if (listed && nt_json_len(types) != (size_t)spec->n_layer)
        return NT_FAIL(NT_E_DATA, "%s: \"layer_types\" has %zu entries, expected one for each of the %d layers", origin,
                       nt_json_len(types), spec->n_layer);
    for (int32_t i = 0; i < spec->n_layer; i++) {
        spec->layer_window[i] = i >= first;
        if (!listed) continue;
        const char *type = nt_json_str(nt_json_at(types, (size_t)i), NULL);
        spec->layer_window[i] = type && !strcmp(type, "sliding_attention");
        if (!spec->layer_window[i] && !(type && !strcmp(type, "full_attention")))
            return NT_FAIL(NT_E_UNSUPPORTED,
                           "%s: \"layer_types\"[%d] is %s, expected \"full_attention\" or \"sliding_attention\"",
                           origin, i, type ? type : "no string");
    }
    spec->window = window;
    return NT_OK;
}

/* Qwen2 and Qwen2.5: biases on q, k and v, none on o. */
const struct nt_arch nt_arch_qwen2 = {
    .family = "qwen2",
    .hf_class = "Qwen2ForCausalLM",
    .hf_model_type = "qwen2",
    .gguf = "qwen2",
    .qkv_bias = true,
    .window = qwen_window,
    .slots = nt_decoder_slots,
};

/* Qwen3: q and k are normalized per head before rotation; d_head is a key of its own. */
const struct nt_arch nt_arch_qwen3 = {
    .family = "qwen3",
    .hf_class = "Qwen3ForCausalLM",
    .hf_model_type = "qwen3",
    .gguf = "qwen3",
    .attention_bias_key = true,
    .qk_norm = true,
    .default_d_head = 128,
    .window = qwen_window,
    .slots = nt_decoder_slots,
};
