#include "spec_bind.h"
#include "arch_table.h"
#include "tensor_source.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool spec_wants(const struct nt_spec *spec, enum nt_when when) {
    switch (when) {
    case NT_WHEN_ALWAYS:
        return true;
    case NT_WHEN_UNTIED:
        return !spec->tied;
    case NT_WHEN_QKV_BIAS:
        return spec->qkv_bias;
    case NT_WHEN_O_BIAS:
        return spec->o_bias;
    case NT_WHEN_MLP_BIAS:
        return spec->mlp_bias;
    case NT_WHEN_QK_NORM:
        return spec->qk_norm;
    case NT_WHEN_FREQ_FACTORS:
        return spec->rope.scaling == NT_ROPE_FREQ_FACTORS;
    }
    return false;
}

static nt_status bind_slot(const struct nt_tensor_source *src, const struct nt_spec *spec,
                           const struct nt_slot_row *row, int32_t layer, const struct nt_tensor_info **out) {
    char name[128], found[160];
    nt_slot_name(src->gguf ? row->gguf : row->hf, layer, name, sizeof name);
    const int64_t rows = nt_spec_dim(spec, row->rows), cols = nt_spec_dim(spec, row->cols);
    char want[64];
    if (row->cols == NT_DIM_NONE)
        snprintf(want, sizeof want, "[%lld]", (long long)rows);
    else
        snprintf(want, sizeof want, "[%lld, %lld]", (long long)rows, (long long)cols);
    const struct nt_tensor_info *t = nt_tensor_source_find(src, name);
    if (!t)
        return NT_FAIL(NT_E_DATA, "%s: tensor %s is missing, expected %s for a %s model", src->path, name, want,
                       spec->family);
    const bool fits = row->cols == NT_DIM_NONE ? t->n_dims == 1 && t->shape[0] == rows
                                               : t->n_dims == 2 && t->shape[0] == rows && t->shape[1] == cols;
    if (!fits)
        return NT_FAIL(NT_E_DATA, "%s: tensor %s is %s, expected %s for a %s model", src->path, name,
                       nt_tensor_describe(t, found, sizeof found), want, spec->family);
    if (!nt_wdtype_readable(t->dtype))
        return NT_FAIL(NT_E_UNSUPPORTED, "%s: tensor %s is %s: weights of this type are not read", src->path, name,
                       nt_tensor_describe(t, found, sizeof found));
    *out = t;
    return NT_OK;
}

/* Stored by old versions of transformers, computed here. */
static bool tensor_ignorable(const struct nt_tensor_source *src, const struct nt_spec *spec, const char *name) {
    const char *suffix = ".rotary_emb.inv_freq";
    const size_t n = strlen(name), k = strlen(suffix);
    if (n >= k && !strcmp(name + n - k, suffix)) return true;
    return spec->tied && !src->gguf && !strcmp(name, nt_decoder_slots[NT_SLOT_HEAD].hf);
}

/* A tensor nobody asked for means a model that would be computed wrongly. */
static nt_status check_strangers(const struct nt_tensor_source *src, const struct nt_spec *spec, bool *used) {
    for (int64_t i = 0; i < src->n_tensors; i++) {
        const struct nt_tensor_info *t = &src->tensors[i];
        if (used[i] || tensor_ignorable(src, spec, t->name)) continue;
        char found[160];
        return NT_FAIL(NT_E_UNSUPPORTED, "%s: tensor %s %s does not belong to a %s model of %d layers", src->path,
                       t->name, nt_tensor_describe(t, found, sizeof found), spec->family, spec->n_layer);
    }
    return NT_OK;
}

static nt_status bind_all(const struct nt_tensor_source *src, const struct nt_spec *spec, struct nt_binding *b,
                          bool *used) {
    const struct nt_slot_row *rows = nt_arch_find(spec->family)->slots;
    for (int32_t layer = 0; layer < spec->n_layer; layer++) {
        const int32_t first = layer == 0 ? 0 : NT_SLOT_ATTN_NORM;
        for (int32_t slot = first; slot < NT_SLOT_COUNT; slot++) {
            if (!spec_wants(spec, rows[slot].when)) continue;
            const struct nt_tensor_info *t = NULL;
            NT_TRY(bind_slot(src, spec, &rows[slot], layer, &t));
            b->tensors[(size_t)layer * NT_SLOT_COUNT + (size_t)slot] = t;
            used[t - src->tensors] = true;
        }
    }
    return check_strangers(src, spec, used);
}

nt_status nt_spec_bind(const struct nt_tensor_source *src, const struct nt_spec *spec, struct nt_binding *b) {
    b->tensors = calloc((size_t)spec->n_layer * NT_SLOT_COUNT, sizeof(*b->tensors));
    bool *used = calloc((size_t)src->n_tensors + 1, sizeof *used);
    nt_status st = b->tensors && used ? bind_all(src, spec, b, used)
                                      : NT_FAIL(NT_E_NOMEM, "%s: no memory for the tensor table", src->path);
    free(used);
    if (st != NT_OK) nt_binding_release(b);
    return st;
}

void nt_binding_release(struct nt_binding *b) {
    free(b->tensors);
    b->tensors = NULL;
}

const struct nt_tensor_info *nt_binding_get(const struct nt_binding *b, int32_t layer, enum nt_slot slot) {
    return b->tensors[(slot < NT_SLOT_ATTN_NORM ? 0 : (size_t)layer * NT_SLOT_COUNT) + (size_t)slot];
}
