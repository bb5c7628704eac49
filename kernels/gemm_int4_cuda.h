/* gemm with NT_WEIGHT_INT4 on CUDA: what gemm_int4.cu and its launcher agree on.
 *
 * NT_GEMM_INT4_TILES has a row per kernel nt_gemm_int4_<rows>x<cols>: tile of y and stages of shared memory. Epilogues,
 * x and y are those of gemm_cuda.h. The choice of a tile never changes a bit: in all of them NT_GEMM_INT4_SLOTS warps
 * take the groups of k in turn, and their sums are added in the order of the warps. Pointers are device memory. Errors:
 * the launcher's. */
#ifndef NT_GEMM_INT4_CUDA_H
#define NT_GEMM_INT4_CUDA_H

#include "gemm_cuda.h"

/* X(rows, cols, stages) */
#define NT_GEMM_INT4_TILES(X)                                                                                          \
    X(16, 32, 8)                                                                                                       \
    X(16, 64, 6)                                                                                                       \
    X(32, 32, 5)                                                                                                       \
    X(32, 64, 4)                                                                                                       \
    X(64, 32, 4)                                                                                                       \
    X(64, 64, 3)

/* nt_gemm_int4_adapter_<rows>x<cols>: with an adapter's product and pre-activations. */
#define NT_GEMM_INT4_ADAPTER_TILES(X)                                                                                  \
    X(16, 32, 8)                                                                                                       \
    X(32, 32, 5)                                                                                                       \
    X(64, 64, 3)

enum {
    NT_GEMM_INT4_SLOTS = 4,                                                  /* warps that share k */
    NT_GEMM_INT4_DEPTH = NT_INT4_GROUP / 2,                                  /* k of a stage of a slot */
    NT_GEMM_INT4_W_BYTES = (NT_INT4_BLOCK - 2 * NT_PANEL) / 2 + 2 * NT_PANEL /* half a block, and its scales */
};
#define NT_GEMM_INT4_SLOT_BYTES(rows, cols)     ((rows)*NT_GEMM_INT4_DEPTH * 2 + (cols) / NT_PANEL * NT_GEMM_INT4_W_BYTES)
#define NT_GEMM_INT4_SHARED(rows, cols, stages) ((stages)*NT_GEMM_INT4_SLOTS * NT_GEMM_INT4_SLOT_BYTES(rows, cols))
#define NT_GEMM_INT4_THREADS(cols)              (NT_GEMM_INT4_SLOTS * (cols))

struct nt_gemm_int4 {
    struct nt_gemm_cuda g;     /* w, n_pad and k_pad unused */
    const unsigned char *data; // [n_panel][n_group][NT_INT4_BLOCK] bytes
    int32_t n_panel, n_group;
};
struct nt_gemm_int4_adapted {
    struct nt_gemm_int4 own;
    struct nt_gemm_adapter second;
};

#ifndef __CUDACC__
#include "status.h"
struct nt_backend;
/* Weights of NT_WEIGHT_INT4. */
NT_MUST nt_status nt_gemm_int4(struct nt_backend *be, const struct nt_gemm_args *args);
#endif

#endif
