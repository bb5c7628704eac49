#include "ops.h"
#include <string.h>

static int64_t round_up(int64_t x, int64_t unit) {
    return (x + unit - 1) / unit * unit;
}

static int64_t k_pad(enum nt_weight_format format, int32_t k) {
    return round_up(k, format == NT_WEIGHT_BF16_ROWS ? 8 : 2);
}

size_t nt_packed_bytes(enum nt_weight_format format, int32_t n, int32_t k) {
    NT_CHECK(format < NT_WEIGHT_FORMAT_COUNT && n > 0 && k > 0);
    return (size_t)(round_up(n, NT_PANEL) * k_pad(format, k)) * sizeof(nt_bf16);
}

static void pack_in_panel(nt_bf16 *data, int32_t row, const nt_bf16 *values, int32_t k) {
    nt_bf16 *lane = data + (row / NT_PANEL * (round_up(k, 2) / 2) * NT_PANEL + row % NT_PANEL) * 2;
    for (int64_t i = 0; i < k; i++) lane[i / 2 * NT_PANEL * 2 + i % 2] = values[i];
}

void nt_pack_row(const struct nt_packed *w, void *data, int32_t row, const nt_bf16 *values) {
    NT_CHECK(w->format < NT_WEIGHT_FORMAT_COUNT && row >= 0 && row < w->n);
    if (w->format == NT_WEIGHT_BF16)
        pack_in_panel(data, row, values, w->k);
    else
        memcpy((nt_bf16 *)data + row * k_pad(w->format, w->k), values, (size_t)w->k * sizeof *values);
}

int32_t nt_packed_gate_row(int32_t j) {
    return j / (NT_PANEL / 2) * NT_PANEL + j % (NT_PANEL / 2);
}
int32_t nt_packed_up_row(int32_t j) {
    return nt_packed_gate_row(j) + NT_PANEL / 2;
}
