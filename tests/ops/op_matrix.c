#include "op_matrix.h"

#include <stdlib.h>
#include <string.h>

static void read_block(struct op_matrix *m, int32_t panel, int32_t group) {
    const int32_t n0 = panel * NT_PANEL, k0 = group * NT_INT4_GROUP;
    int8_t q[NT_INT4_GROUP][NT_PANEL];
    float scale[NT_PANEL];
    nt_unpack_block(&m->w, panel, group, q, scale);
    for (int32_t n = 0; n < NT_PANEL && n0 + n < m->w.n; n++)
        for (int32_t k = 0; k < NT_INT4_GROUP && k0 + k < m->w.k; k++)
            m->values[(int64_t)(n0 + n) * m->w.k + k0 + k] = (double)scale[n] * q[k][n];
}

void op_matrix_pack(struct op_matrix *m) {
    void *data = (void *)(uintptr_t)m->w.data;
    const int64_t count = (int64_t)m->w.n * m->w.k;
    for (int32_t r = 0; r < m->w.n; r++) nt_pack_row(&m->w, data, r, m->rows + (int64_t)r * m->w.k);
    for (int64_t i = 0; i < count; i++) m->values[i] = (double)nt_bf16_to_f32(m->rows[i]);
    for (int32_t p = 0; nt_weight_is_quantized(m->w.format) && p * NT_PANEL < m->w.n; p++)
        for (int32_t g = 0; g * NT_INT4_GROUP < m->w.k; g++) read_block(m, p, g);
    for (int64_t i = 0; i < count; i++) m->rounded[i] = (double)nt_bf16_to_f32(nt_f32_to_bf16((float)m->values[i]));
}

struct op_matrix op_matrix_make(uint64_t seed, enum nt_weight_format format, int32_t n, int32_t k, float scale) {
    struct op_matrix m = {
        .w = {.format = format, .n = n, .k = k}
    };
    const size_t count = (size_t)n * (size_t)k;
    m.w.data = op_alloc(nt_packed_bytes(format, n, k));
    m.rows = op_alloc(count * sizeof *m.rows);
    m.values = op_alloc(count * sizeof *m.values);
    m.rounded = op_alloc(count * sizeof *m.rounded);
    op_random_bf16(&seed, m.rows, (int64_t)count, scale);
    op_matrix_pack(&m);
    return m;
}

bool op_matrix_part_has(const struct nt_packed_part *p, int32_t row) {
    for (int32_t j = 0; j < p->n; j++)
        if (row == p->row0 + (p->run ? j / p->run * 2 * p->run + j % p->run : j)) return true;
    return false;
}

void op_matrix_state_parts(struct op_matrix *m, const struct nt_packed_part *parts, int n_part) {
    int32_t k0 = 0;
    for (int i = 0; i < n_part; k0 += parts[i++].k) {
        m->w.part[i] = parts[i];
        for (int32_t row = 0; row < m->w.n; row++)
            if (!op_matrix_part_has(&parts[i], row))
                memset(m->rows + (int64_t)row * m->w.k + k0, 0, (size_t)parts[i].k * sizeof *m->rows);
    }
    NT_CHECK(k0 == m->w.k);
    m->w.n_part = n_part;
    op_matrix_pack(m);
}

void op_matrix_drop(struct op_matrix *m) {
    free((void *)(uintptr_t)m->w.data);
    free(m->rows);
    free(m->values);
    free(m->rounded);
}
