#include "ops.h"

static int64_t round_up(int64_t x, int64_t unit) {
    return (x + unit - 1) / unit * unit;
}

size_t nt_packed_bytes(enum nt_weight_format format, int32_t n, int32_t k) {
    NT_CHECK(format == NT_WEIGHT_BF16 && n > 0 && k > 0);
    return (size_t)(round_up(n, NT_PANEL) * round_up(k, 2)) * sizeof(nt_bf16);
}

void nt_pack_row(const struct nt_packed *w, void *data, int32_t row, const nt_bf16 *values) {
    NT_CHECK(w->format == NT_WEIGHT_BF16 && row >= 0 && row < w->n);
    const int64_t n_pair = round_up(w->k, 2) / 2;
    nt_bf16 *lane = (nt_bf16 *)data + (row / NT_PANEL * n_pair * NT_PANEL + row % NT_PANEL) * 2;
    for (int64_t k = 0; k < w->k; k++) lane[k / 2 * NT_PANEL * 2 + k % 2] = values[k];
}

int32_t nt_packed_gate_row(int32_t j) {
    return j / (NT_PANEL / 2) * NT_PANEL + j % (NT_PANEL / 2);
}
int32_t nt_packed_up_row(int32_t j) {
    return nt_packed_gate_row(j) + NT_PANEL / 2;
}
