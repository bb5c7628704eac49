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
