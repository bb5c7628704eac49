/* gemm with NT_WEIGHT_INT4 and NT_WEIGHT_INT8 on CUDA: what gemm_quant.cu and its launcher agree on.
 *
 * NT_GEMM_INT4_TILES and NT_GEMM_INT8_TILES have a row per kernel nt_gemm_<type>_<rows>x<cols>: tile of y; slots, each
 * of which sums parts of k on its own; stages of a slot's ring in shared memory; slots whose sums lie in shared memory
 * at a time; blocks a multiprocessor is expected to hold. Order of sums, the same in every tile and in
 * gemm_quant_sm90.cu: the groups of k are cut into NT_GEMM_QUANT_PARTS parts; a part is a chain of fma(scale, sum of a
 * group, part) from zero over its groups; y is part 0 + part 1 + ... in order, then an adapter's product. Epilogues, x
 * and y are those of gemm_cuda.h. Pointers are device memory. Errors: the launcher's. */
#ifndef NT_GEMM_QUANT_CUDA_H
#define NT_GEMM_QUANT_CUDA_H

#include "gemm_cuda.h"

/* X(type, rows, cols, slots, stages, together, blocks) */
#define NT_GEMM_INT4_TILES(X)                                                                                          \
    X(int4, 8, 32, 16, 3, 16, 2)                                                                                       \
    X(int4, 16, 32, 16, 3, 16, 1)                                                                                      \
    X(int4, 16, 64, 8, 3, 8, 1)                                                                                        \
    X(int4, 32, 32, 8, 3, 8, 1)                                                                                        \
    X(int4, 32, 64, 4, 3, 4, 1)                                                                                        \
    X(int4, 64, 32, 4, 3, 4, 1)                                                                                        \
    X(int4, 64, 64, 4, 3, 2, 1)
#define NT_GEMM_INT8_TILES(X)                                                                                          \
    X(int8, 8, 32, 16, 2, 16, 2)                                                                                       \
    X(int8, 16, 32, 16, 2, 16, 1)                                                                                      \
    X(int8, 16, 64, 8, 2, 8, 1)                                                                                        \
    X(int8, 32, 32, 8, 2, 8, 1)                                                                                        \
    X(int8, 32, 64, 4, 3, 4, 1)                                                                                        \
    X(int8, 64, 32, 4, 3, 4, 1)                                                                                        \
    X(int8, 64, 64, 4, 2, 2, 1)

/* nt_gemm_<type>_adapter_<rows>x<cols>: with an adapter's product and pre-activations. */
#define NT_GEMM_INT4_ADAPTER_TILES(X)                                                                                  \
    X(int4, 8, 32, 16, 3, 16, 2)                                                                                       \
    X(int4, 32, 32, 8, 3, 8, 1)                                                                                        \
    X(int4, 64, 64, 4, 3, 2, 1)
#define NT_GEMM_INT8_ADAPTER_TILES(X)                                                                                  \
    X(int8, 8, 32, 16, 2, 16, 2)                                                                                       \
    X(int8, 32, 32, 8, 2, 8, 1)                                                                                        \
    X(int8, 64, 64, 4, 2, 2, 1)

enum {
    NT_GEMM_QUANT_PARTS = 16,
    NT_GEMM_QUANT_DEPTH = NT_INT4_GROUP / 2,           /* k of a stage of a slot */
    nt_quant_half_int4 = NT_PANEL * NT_INT4_GROUP / 4, /* bytes of the integers of half a block */
    nt_quant_half_int8 = NT_PANEL * NT_INT4_GROUP / 2
};
#define NT_GEMM_QUANT_STAGE(half, rows, cols)                                                                          \
    ((rows)*NT_GEMM_QUANT_DEPTH * 2 + (cols) / NT_PANEL * ((half) + 2 * NT_PANEL))
#define NT_GEMM_QUANT_RINGS(half, rows, cols, slots, stages) ((slots) * (stages)*NT_GEMM_QUANT_STAGE(half, rows, cols))
/* As lines of NT_LINE floats (cuda_lines.cuh). */
#define NT_GEMM_QUANT_SUMS(rows, cols, together) ((together) * (rows) * ((cols) + 8) * 4)
/* One slot a part: when their sums are there, the rings have run dry. */
#define NT_GEMM_QUANT_SUMS_AT(half, rows, cols, slots, stages)                                                         \
    ((slots) == NT_GEMM_QUANT_PARTS ? 0 : NT_GEMM_QUANT_RINGS(half, rows, cols, slots, stages))
#define NT_GEMM_QUANT_LARGER(a, b) ((a) > (b) ? (a) : (b))
#define NT_GEMM_QUANT_SHARED(type, rows, cols, slots, stages, together)                                                \
    NT_GEMM_QUANT_LARGER(NT_GEMM_QUANT_RINGS(nt_quant_half_##type, rows, cols, slots, stages),                         \
                         NT_GEMM_QUANT_SUMS_AT(nt_quant_half_##type, rows, cols, slots, stages) +                      \
                             NT_GEMM_QUANT_SUMS(rows, cols, together))
#define NT_GEMM_QUANT_THREADS(cols, slots) ((slots) * (cols))

struct nt_gemm_quant {
    struct nt_gemm_cuda g;     /* w, n_pad and k_pad unused */
    const unsigned char *data; // [n_panel][n_group][bytes of a block]
    int32_t n_panel, n_group;
};
struct nt_gemm_quant_adapted {
    struct nt_gemm_quant own;
    struct nt_gemm_adapter second;
};

#ifndef __CUDACC__
#include "status.h"
struct nt_backend;
/* Weights of a quantized format. */
NT_MUST nt_status nt_gemm_quant(struct nt_backend *be, const struct nt_gemm_args *args);
#endif

#endif
