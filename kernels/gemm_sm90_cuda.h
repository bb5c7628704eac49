/* gemm by TMA and wgmma on compute capability 9.0: what gemm_sm90.cu and its launcher agree on.
 *
 * NT_GEMM_SM90_TILES has a row per kernel nt_gemm_sm90_<rows>x<cols>. Weights are NT_WEIGHT_BF16_ROWS, operands and
 * epilogues those of gemm_cuda.h.
 * Batch invariance: wgmma and mma.sync may round differently, so a weight must go one way for every n_tok. nt_gemm_sm90
 * therefore takes all row counts, 1 included, and nt_gemm_sm90_takes looks only at the device, the weights and the
 * alignment of x and x2, which a model's buffers have or have not once and for all (an adapter whose ranks are no
 * multiples of 8 goes the way of compute capability 8.0). In all tiles an element is one chain of
 * m64nNk16 over k, ascending from zero, with rows of x as the 64; N says how many columns share an instruction.
 * Tensor maps are encoded for each launch: x moves from call to call, encoding is host arithmetic far shorter than a
 * launch, and a captured step keeps its own.
 * Errors: NT_E_UNSUPPORTED with the driver's word when it refuses a map. */
#ifndef NT_GEMM_SM90_CUDA_H
#define NT_GEMM_SM90_CUDA_H

#include "gemm_cuda.h"

/* X(rows, cols, stages, blocks of a multiprocessor); rows / 64 warpgroups multiply */
#define NT_GEMM_SM90_TILES(X)                                                                                          \
    X(64, 32, 16, 1)                                                                                                   \
    X(64, 64, 6, 2)                                                                                                    \
    X(64, 128, 4, 2)                                                                                                   \
    X(128, 128, 6, 1)                                                                                                  \
    X(128, 256, 4, 1)

/* nt_gemm_sm90_adapter_<rows>x<cols>: with an adapter's product and pre-activations. */
#define NT_GEMM_SM90_ADAPTER_TILES(X)                                                                                  \
    X(64, 32, 16, 1)                                                                                                   \
    X(64, 128, 4, 2)                                                                                                   \
    X(128, 256, 4, 1)

enum {
    NT_GEMM_SM90_DEPTH = 64,    /* k of a stage: lines of 128 bytes, the width of the swizzle */
    NT_GEMM_SM90_BARRIERS = 256 /* bytes */
};
#define NT_GEMM_SM90_SHARED(rows, cols, stages)                                                                        \
    ((stages) * ((rows) + (cols)) * NT_GEMM_SM90_DEPTH * 2 + NT_GEMM_SM90_BARRIERS)
/* Blocks of 256 columns go on to further tiles, while whose stages come sums leave through lines of their own: of each
 * warp 8 rows of 128 f32 (NT_PIECE_FLOATS). */
#define NT_GEMM_SM90_GOES_ON(cols) ((cols) > 128)
#define NT_GEMM_SM90_LINES(rows)   ((rows) / 16 * 8 * (128 + 8) * 4)
#define NT_GEMM_SM90_BLOCK_SHARED(rows, cols, stages)                                                                  \
    (NT_GEMM_SM90_SHARED(rows, cols, stages) + (NT_GEMM_SM90_GOES_ON(cols) ? NT_GEMM_SM90_LINES(rows) : 0))
/* An H100 has 228 KiB a multiprocessor, 1 KiB of a block is the system's. */
#define NT_SM90_FIT_BYTES(shared, blocks)       (((shared) + 1024) * (blocks) <= 228 * 1024)
#define NT_SM90_FIT(rows, cols, stages, blocks) NT_SM90_FIT_BYTES(NT_GEMM_SM90_BLOCK_SHARED(rows, cols, stages), blocks)
/* One warp copies; with 256 columns a whole warpgroup, whose registers the multiplying ones take. */
#define NT_GEMM_SM90_THREADS(rows, cols) (2 * (rows) + ((cols) > 128 ? 128 : 32))

struct nt_tensor_map {
    uint64_t opaque[16];
} __attribute__((aligned(64)));

struct nt_sm90_operands {
    struct nt_tensor_map x, w; /* boxes of DEPTH columns by x_rows or the tile's cols (SUM_LINES: DEPTH) */
    int32_t x_rows;            /* the tile's, or as few times 8 as there are: rows outside x cost as much as others */
};
struct nt_gemm_sm90 {
    struct nt_sm90_operands operands;
    struct nt_gemm_cuda g; /* x and w unused */
};
struct nt_gemm_sm90_adapted {
    struct nt_gemm_sm90 own;
    struct nt_sm90_operands behind; /* the adapter's x and w, if second.k > 0 */
    struct nt_gemm_adapter second;
};

#ifndef __CUDACC__
#include "backend.h"

struct nt_sm90_tile_row {
    enum nt_cuda_kernel kernel;
    int32_t rows, cols, blocks, threads;
    size_t shared;
};
/* As nt_gemm_choose. Ties go to the larger tile; none has a warpgroup without rows. */
const struct nt_sm90_tile_row *nt_sm90_choose(const struct nt_sm90_tile_row *from, int count, int32_t n_tok, int32_t n,
                                              int64_t times, int32_t n_sm);
/* Blocks of a launch that computes so many tiles. */
static inline int64_t nt_sm90_blocks(const struct nt_sm90_tile_row *tile, int64_t tiles, int32_t n_sm) {
    return NT_GEMM_SM90_GOES_ON(tile->cols) && tiles > n_sm ? n_sm : tiles;
}
/* Whether the device has the kernel, and the driver makes the tensor maps it reads by. */
bool nt_sm90_has(const struct nt_backend *be, enum nt_cuda_kernel kernel);
/* Whether the copy engine takes rows of x, ldx apart. */
bool nt_sm90_is_copied(const nt_bf16 *x, int64_t ldx);

bool nt_gemm_sm90_takes(const struct nt_backend *be, const struct nt_gemm_args *args);
/* Only what nt_gemm_sm90_takes; shapes as nt_gemm_cuda has checked them. */
NT_MUST nt_status nt_gemm_sm90(struct nt_backend *be, const struct nt_gemm_args *args);
/* What a tensor map says; dimension 0 is dense, strides of the others in bytes. */
enum { NT_SM90_RANK = 3 };
struct nt_sm90_tensor {
    const void *data;
    int type; /* CUtensorMapDataType */
    uint32_t rank;
    uint64_t dim[NT_SM90_RANK], stride[NT_SM90_RANK - 1];
    uint32_t box[NT_SM90_RANK];
    int swizzle; /* CUtensorMapSwizzle */
};
/* Reads beyond the dimensions give zeros. */
NT_MUST nt_status nt_sm90_encode_tensor(const struct nt_backend *be, const struct nt_sm90_tensor *t,
                                        struct nt_tensor_map *out);
/* Rows of k bf16, ld apart, in boxes of NT_GEMM_SM90_DEPTH columns by box_rows. */
NT_MUST nt_status nt_sm90_encode_rows(const struct nt_backend *be, const void *data, int32_t rows, int32_t k,
                                      int64_t ld, int32_t box_rows, struct nt_tensor_map *out);
/* x [n_tok, k] for tiles of so many rows: its map and x_rows. */
NT_MUST nt_status nt_sm90_encode_x(const struct nt_backend *be, const nt_bf16 *x, int32_t n_tok, int32_t k, int64_t ldx,
                                   int32_t rows, struct nt_sm90_operands *out);
/* The tensor maps of x and w for tiles of rows x cols. */
NT_MUST nt_status nt_sm90_encode(const struct nt_backend *be, const struct nt_gemm_args *args, int32_t rows,
                                 int32_t cols, struct nt_sm90_operands *out);
#endif

#endif
