#include "spec.h"
#include <math.h>

void nt_spec_add_eos(struct nt_spec *spec, int64_t id) {
    if (id < 0 || id > INT32_MAX || spec->n_eos == NT_MAX_EOS) return;
    for (int32_t i = 0; i < spec->n_eos; i++)
        if (spec->eos_ids[i] == id) return;
    spec->eos_ids[spec->n_eos++] = (int32_t)id;
}

nt_status nt_spec_check(const char *path, struct nt_spec *spec) {
    if (spec->n_head % spec->n_kv != 0)
        return NT_FAIL(NT_E_DATA, "%s: %d attention heads and %d key/value heads, expected a multiple", path,
                       spec->n_head, spec->n_kv);
    if (spec->d_head < 2 || spec->d_head > NT_MAX_D_HEAD || spec->d_head % 2 != 0)
        return NT_FAIL(NT_E_UNSUPPORTED, "%s: head dimension %d, expected an even number up to %d", path, spec->d_head,
                       NT_MAX_D_HEAD);
    if (spec->d_model % 2 != 0)
        return NT_FAIL(NT_E_UNSUPPORTED, "%s: hidden size %d, expected an even number", path, spec->d_model);
    if (spec->bos_id >= spec->n_vocab) spec->bos_id = -1;
    spec->attn_scale = (float)(1.0 / sqrt((double)spec->d_head));
    /* configs with scaling may still state the unscaled length */
    const double scaled = spec->rope.factor * spec->rope.original_max_len;
    if (scaled > spec->max_len) spec->max_len = (int32_t)fmin(scaled, 1 << 30);
    return NT_OK;
}
