/* Whole adapters (adapter.h) into the trained numbers, and out of them. */
#include "lora_adapter.h"
#include "training_state.h"

nt_status nt_training_from_adapter(struct nt_training *t, const struct nt_adapter *a) {
    NT_CHECK(a->r == t->config.lora.r && a->targets == t->config.lora.targets);
    NT_TRY(nt_params_from_adapter(&t->params, a));
    return nt_training_publish(t);
}

nt_status nt_training_to_adapter(const struct nt_training *t, struct nt_adapter *a) {
    for (int32_t i = 0; i < nt_training_tensors(t); i++) {
        struct nt_training_tensor info;
        nt_training_tensor(t, i, &info);
        int linear = 0;
        while (nt_linear_slot((enum nt_linear)linear) != info.slot) linear++;
        const struct nt_lora *pair = nt_adapter_at(a, info.layer, (enum nt_linear)linear);
        if (!pair->a) continue; /* begun from an adapter without it: A and B stay 0, for each is the other's gradient */
        NT_TRY(nt_training_get(t, i, NT_TRAINING_W, info.part == 'A' ? pair->a : pair->b));
    }
    return NT_OK;
}

nt_status nt_training_set_reference(struct nt_training *t, const struct nt_adapter *a) {
    return nt_lora_load(&t->reference, &t->reference_arena, t->m, a);
}
