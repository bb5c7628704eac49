/* A low-rank adapter as the forward applies it: y = W x + s B (A x), in the product's own accumulators.
 *
 * The seven linears of a block are four products (q, k, v are one, gate and up are one), so an adapter is at most four
 * pairs per layer: A [rank, k] holds the A of each of the product's linears one below the other; B [n, rank], rows in
 * packed order and times s, is zero where a row belongs to another linear (its parts, where r is even). rank = linears
 * * r, rounded up to even. With tp > 1 each rank holds what its shard needs: A whole and rows of B for qkv and gate/up,
 * columns of A and B whole for o and down. Packed from f32 (nt_params_pack): by `--adapter` once, by training after
 * each step. Padding, and the columns of B that are another linear's, are the zeros of fresh memory. Memory: the
 * backend's, from the arena given to layout; the model borrows the struct. (Hu et al. 2021, LoRA; rsLoRA's scale:
 * Kalajdzievski 2023.) Errors: none. One thread. */
#ifndef NT_LORA_H
#define NT_LORA_H

#include "adapter.h"
#include "arena.h"
#include "backend.h"
#include "shard.h"

enum nt_lora_group { NT_LORA_QKV, NT_LORA_O, NT_LORA_GATE_UP, NT_LORA_DOWN, NT_LORA_GROUPS };

struct nt_lora_shape {
    int32_t r;
    float scale;      /* alpha / r, or alpha / sqrt(r) */
    uint32_t targets; /* bits 1 << enum nt_linear; 0: no adapter */
};

/* One of the seven linears: its product, and which of the product's rows and columns are its own. */
struct nt_linear_place {
    enum nt_slot slot;
    enum nt_lora_group group;
    int32_t index;                        /* among the adapted linears of the group; -1: not adapted */
    int32_t row0, n;                      /* rows of the product; of gate and up: rows of the half */
    int32_t k;                            /* columns of the product, padding included */
    int32_t out0, out_size, in0, in_size; /* where the shard begins in the whole linear, and the linear's sizes */
    int32_t n_valid, k_valid;             /* without padding */
    int32_t run; /* 0, or NT_PANEL / 2: rows alternate in runs with those of another linear, row0 is the first */
};
/* The seven, in the order of enum nt_linear; targets: bits 1 << enum nt_linear. */
void nt_linear_places(const struct nt_spec *spec, const struct nt_shard *s, uint32_t targets,
                      struct nt_linear_place out[NT_LINEAR_COUNT]);
int32_t nt_linear_widest(const struct nt_linear_place linears[NT_LINEAR_COUNT]); /* most columns, k */

struct nt_lora_pair {
    struct nt_packed a; // [rank, k]; n 0: no adapter on this product
    struct nt_packed b; // [n, rank]
};
struct nt_lora_weights {
    struct nt_lora_shape shape;
    int32_t n_layer;
    struct nt_linear_place linears[NT_LINEAR_COUNT];
    struct nt_lora_pair layers[NT_MAX_LAYERS][NT_LORA_GROUPS];
};

/* Layout function (arena.h): counts or binds. */
void nt_lora_layout(struct nt_lora_weights *l, struct nt_arena *a, const struct nt_spec *spec, const struct nt_shard *s,
                    const struct nt_lora_shape *shape, enum nt_weight_format format);
/* Rows of A of a group, 0 without an adapted linear. */
int32_t nt_lora_rank(const struct nt_linear_place linears[NT_LINEAR_COUNT], enum nt_lora_group group, int32_t r);

#endif
