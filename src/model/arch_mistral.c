#include "arch.h"
#include "hf_config.h"

/* All layers share the window; null means none. An absent key means 4096, the value of the class in transformers. */
static nt_status mistral_window(const struct nt_json *config, const char *origin, struct nt_spec *spec) {
    const struct nt_json *value = nt_json_get(config, "sliding_window");
    if (value && nt_json_is(value, NT_JSON_NULL)) return NT_OK;
    NT_TRY(nt_hf_int(config, origin, "sliding_window", 1, INT32_MAX, 4096, &spec->window));
    for (int32_t i = 0; i < spec->n_layer; i++) spec->layer_window[i] = true;
    return NT_OK;
}

const struct nt_arch nt_arch_mistral = {
    .family = "mistral",
    .hf_class = "MistralForCausalLM",
    .hf_model_type = "mistral",
    .gguf = NULL, /* written as "llama" */
    .window = mistral_window,
    .slots = nt_decoder_slots,
};
