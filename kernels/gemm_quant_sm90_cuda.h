/* gemm with NT_WEIGHT_INT4 and NT_WEIGHT_INT8 and many rows on compute capability 9.0: what gemm_quant_sm90.cu and its
 * launcher agree on.
 *
 * NT_GEMM_QUANT_SM90_TILES has a row per kernel nt_gemm_<type>_sm90_<rows>x128, and nt_gemm_<type>_adapter_sm90_* with
 * an adapter's product and pre-activations. Weights, x, y and epilogues are those of gemm_quant_cuda.h, and so are the
 * bits: the same sums in the same order, by wgmma instead of mma.sync, whose bits an H200 found the same. So a row goes
 * either way, by how many there are (nt_gemm_quant_sm90_takes); doctor --gpu compares rows alone with rows in a batch.
 * Pointers are device memory. Errors: NT_E_UNSUPPORTED with the driver's word when it refuses a tensor map. */
#ifndef NT_GEMM_QUANT_SM90_CUDA_H
#define NT_GEMM_QUANT_SM90_CUDA_H

#include "gemm_quant_cuda.h"
#include "gemm_sm90_cuda.h"

/* X(type, rows, stages) */
#define NT_GEMM_QUANT_SM90_TILES(X)                                                                                    \
    X(int4, 64, 8)                                                                                                     \
    X(int4, 128, 5)                                                                                                    \
    X(int8, 64, 6)                                                                                                     \
    X(int8, 128, 4)

enum {
    NT_GEMM_QUANT_SM90_COLS = 128,    /* of y: rows of w, 64 a multiplying warpgroup */
    NT_GEMM_QUANT_SM90_THREADS = 384, /* two warpgroups multiply, one copies */
    NT_GEMM_QUANT_SM90_LINE = 64      /* bytes of a line of packed weights: blocks are whole ones */
};
#define NT_GEMM_QUANT_BLOCK(half) (2 * (half) + 2 * NT_PANEL)
/* A stage: a group of k, of x in two boxes of 64, then of four panels; a multiple of 1024, where swizzles begin. */
#define NT_GEMM_QUANT_SM90_STAGE(half, rows)                                                                           \
    (((rows)*NT_INT4_GROUP * 2 + NT_GEMM_QUANT_SM90_COLS / NT_PANEL * NT_GEMM_QUANT_BLOCK(half) + 1023) / 1024 * 1024)
#define NT_GEMM_QUANT_SM90_SHARED(type, rows, stages)                                                                  \
    ((stages)*NT_GEMM_QUANT_SM90_STAGE(nt_quant_half_##type, rows) + NT_GEMM_SM90_BARRIERS)

struct nt_gemm_quant_sm90 {
    struct nt_tensor_map x, w; /* boxes of 64 columns by the tile's rows; of lines of a block, by the tile's panels */
    struct nt_gemm_cuda g;     /* x, w, n_pad and k_pad unused */
    int32_t n_group, n_panel;
};
struct nt_gemm_quant_sm90_adapted {
    struct nt_gemm_quant_sm90 own;
    struct nt_gemm_adapter second;
};

#ifndef __CUDACC__
/* Rows enough, and as TMA wants them; a device that has the kernels. */
bool nt_gemm_quant_sm90_takes(const struct nt_backend *be, const struct nt_gemm_args *args);
/* Only what it takes; shapes as nt_gemm_cuda has checked them. */
NT_MUST nt_status nt_gemm_quant_sm90(struct nt_backend *be, const struct nt_gemm_args *args);
#endif

#endif
