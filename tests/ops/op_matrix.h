/* A packed matrix beside its numbers, for the cases of products.
 *
 * values are what the packed bytes mean: those drawn for BF16; for INT4 and INT8 those that nt_unpack_block
 * gives, exact or as CPUs multiply them, rounded to bf16. Owned by the case, released by op_matrix_drop. Single
 * threaded; ends the test when there is no memory. Packing follows ops.h. */
#ifndef NT_OP_MATRIX_H
#define NT_OP_MATRIX_H

#include "test_ops.h"

struct op_matrix {
    struct nt_packed w;
    nt_bf16 *rows;   // [n, k], as packed; op_matrix_pack packs them again
    double *values;  // [n, k]
    double *rounded; // [n, k], through bf16
};

struct op_matrix op_matrix_make(uint64_t seed, enum nt_weight_format format, int32_t n, int32_t k, float scale);
void op_matrix_pack(struct op_matrix *m);
/* States n_part parts; what is outside them becomes zero. */
void op_matrix_state_parts(struct op_matrix *m, const struct nt_packed_part *parts, int n_part);
bool op_matrix_part_has(const struct nt_packed_part *p, int32_t row);
void op_matrix_drop(struct op_matrix *m);

#endif
