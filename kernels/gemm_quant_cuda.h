/* gemm with NT_WEIGHT_INT4 and NT_WEIGHT_INT8 on CUDA: what gemm_quant.cu and its launcher agree on.
 *
 * NT_GEMM_INT4_TILES and NT_GEMM_INT8_TILES have a row per kernel nt_gemm_<type>_<rows>x<cols>: tile of y and stages of
 * shared memory. Epilogues, x and y are those of gemm_cuda.h. The choice of a tile never changes a bit: in all of them
 * NT_GEMM_QUANT_SLOTS warps take the groups of k in turn, and their sums are added in the order of the warps. Pointers
 * are device memory. Errors: the launcher's. */
#ifndef NT_GEMM_QUANT_CUDA_H
#define NT_GEMM_QUANT_CUDA_H

#include "gemm_cuda.h"

/* X(type, rows, cols, stages) */
#define NT_GEMM_INT4_TILES(X)                                                                                          \
    X(int4, 16, 32, 8)                                                                                                 \
    X(int4, 16, 64, 6)                                                                                                 \
    X(int4, 32, 32, 5)                                                                                                 \
    X(int4, 32, 64, 4)                                                                                                 \
    X(int4, 64, 32, 4)                                                                                                 \
    X(int4, 64, 64, 3)
#define NT_GEMM_INT8_TILES(X)                                                                                          \
    X(int8, 16, 32, 6)                                                                                                 \
    X(int8, 16, 64, 4)                                                                                                 \
    X(int8, 32, 32, 4)                                                                                                 \
    X(int8, 32, 64, 3)                                                                                                 \
    X(int8, 64, 32, 4)                                                                                                 \
    X(int8, 64, 64, 3)

/* nt_gemm_<type>_adapter_<rows>x<cols>: with an adapter's product and pre-activations. */
#define NT_GEMM_INT4_ADAPTER_TILES(X)                                                                                  \
    X(int4, 16, 32, 8)                                                                                                 \
    X(int4, 32, 32, 5)                                                                                                 \
    X(int4, 64, 64, 3)
#define NT_GEMM_INT8_ADAPTER_TILES(X)                                                                                  \
    X(int8, 16, 32, 6)                                                                                                 \
    X(int8, 32, 32, 4)                                                                                                 \
    X(int8, 64, 64, 3)

enum {
    NT_GEMM_QUANT_SLOTS = 4,                           /* warps that share k */
    NT_GEMM_QUANT_DEPTH = NT_INT4_GROUP / 2,           /* k of a stage of a slot */
    nt_quant_half_int4 = NT_PANEL * NT_INT4_GROUP / 4, /* bytes of the integers of half a block */
    nt_quant_half_int8 = NT_PANEL * NT_INT4_GROUP / 2
};
#define NT_GEMM_QUANT_SLOT_BYTES(half, rows, cols)                                                                     \
    ((rows)*NT_GEMM_QUANT_DEPTH * 2 + (cols) / NT_PANEL * ((half) + 2 * NT_PANEL))
#define NT_GEMM_QUANT_SHARED(type, rows, cols, stages)                                                                 \
    ((stages)*NT_GEMM_QUANT_SLOTS * NT_GEMM_QUANT_SLOT_BYTES(nt_quant_half_##type, rows, cols))
#define NT_GEMM_QUANT_THREADS(cols) (NT_GEMM_QUANT_SLOTS * (cols))

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
