#include "arch_table.h"
#include <stdio.h>
#include <string.h>

static const struct nt_arch *const arch_table[] = {&nt_arch_llama, &nt_arch_mistral, &nt_arch_qwen2, &nt_arch_qwen3};
enum { N_ARCH = sizeof arch_table / sizeof *arch_table };

const struct nt_arch *const *nt_arch_table(int32_t *n) {
    *n = N_ARCH;
    return arch_table;
}

const struct nt_arch *nt_arch_find(const char *family) {
    for (int32_t i = 0; i < N_ARCH; i++)
        if (!strcmp(arch_table[i]->family, family)) return arch_table[i];
    return NULL;
}

const char *nt_arch_list(char *buf, size_t cap, bool gguf) {
    size_t len = 0;
    buf[0] = 0;
    for (int32_t i = 0; i < N_ARCH && len < cap; i++) {
        const char *name = gguf ? arch_table[i]->gguf : arch_table[i]->hf_class;
        if (name) len += (size_t)snprintf(buf + len, cap - len, "%s%s", len ? ", " : "", name);
    }
    return buf;
}

int64_t nt_spec_dim(const struct nt_spec *spec, enum nt_dim dim) {
    switch (dim) {
    case NT_DIM_MODEL:
        return spec->d_model;
    case NT_DIM_FF:
        return spec->d_ff;
    case NT_DIM_Q:
        return (int64_t)spec->n_head * spec->d_head;
    case NT_DIM_KV:
        return (int64_t)spec->n_kv * spec->d_head;
    case NT_DIM_HEAD:
        return spec->d_head;
    case NT_DIM_HALF_HEAD:
        return spec->d_head / 2;
    case NT_DIM_VOCAB:
        return spec->n_vocab;
    case NT_DIM_NONE:
        break;
    }
    return 0;
}

void nt_slot_name(const char *pattern, int32_t layer, char *buf, size_t cap) {
    const char *mark = strchr(pattern, '#');
    if (!mark)
        snprintf(buf, cap, "%s", pattern);
    else
        snprintf(buf, cap, "%.*s%d%s", (int)(mark - pattern), pattern, layer, mark + 1);
}

const struct nt_arch *nt_arch_in_gguf(const struct nt_arch *arch) {
    return arch->gguf ? arch : &nt_arch_llama;
}
