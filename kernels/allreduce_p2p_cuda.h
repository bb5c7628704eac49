/* What ranks take from each other's memory by one kernel: small all-reduces, plain or fused with residual add + RMS
 * norm, and the choice of tokens over a sharded vocabulary.
 *
 * Every rank's partial sums lie in memory that all ranks of the node can read, from[rank]; each rank reads all of them
 * in rank order, so all get the same bits, and nothing is written but the caller's own result. Ranks meet at flags:
 * flags[p] is rank p's block of NT_P2P_FLAGS words, zeroed once; epoch is this rank's own NT_P2P_BLOCKS words, zeroed
 * once. Both belong to the group of ranks, and all ranks call in the same order with the same shapes.
 * Reuse: consecutive calls must alternate between two sets of from buffers. A rank that passes the flags of call e + 1
 * knows that all peers have finished call e, so what it writes for call e + 2 disturbs nobody; with one set it would.
 * (A captured step with an odd number of calls needs a last one of its own.) The result may not lie in a from buffer.
 * A peer that never calls leaves the kernel waiting, until its process ends (peer_sum.h). Threading: as the backend.
 * Errors: NT_E_UNSUPPORTED for more than NT_P2P_MAX_BYTES or a width without a kernel. */
#ifndef NT_ALLREDUCE_P2P_CUDA_H
#define NT_ALLREDUCE_P2P_CUDA_H

#include "norm_cuda.h"
#include "ops.h"

enum {
    NT_P2P_RANKS = 8,
    NT_P2P_BLOCKS = 64, /* at most, so that all are resident at once on any device */
    NT_P2P_FLAGS = NT_P2P_BLOCKS * NT_P2P_RANKS,
    NT_P2P_THREADS = 512,
    NT_P2P_MAX_BYTES = 256 << 10, /* beyond, NCCL is faster */
    NT_BEST_THREADS = 256,
};

struct nt_p2p_group {
    const float *from[NT_P2P_RANKS];
    uint32_t *flags[NT_P2P_RANKS]; // [NT_P2P_BLOCKS, NT_P2P_RANKS]; word [b, r] is set by rank r
    uint32_t *epoch;               // [NT_P2P_BLOCKS], this rank's
    int32_t rank, size;
};

/* out[i] = sum over ranks of from[rank][i]; count % 4 == 0. */
struct nt_allreduce_p2p_args {
    struct nt_p2p_group group;
    float *out; // [count]
    int64_t count;
};
/* rmsnorm of norm, with the sum over ranks of from[rank] as its delta, [n_rows, d_model]; norm.rows and norm.delta
 * are NULL; d_model as nt_allreduce_norm_p2p_takes. */
struct nt_allreduce_norm_p2p_args {
    struct nt_p2p_group group;
    struct nt_rmsnorm_args norm;
};

/* token[row] = the index of the best pair of all ranks, larger value, then lower index; -1 where that value is not
 * finite. A rank's pairs: value [n_row], then index [n_row] (int32_t), at from[rank], or at gathered + rank * stride
 * where they are all in this rank's own memory already (then flags and epoch are not used). */
struct nt_best_pairs_args {
    struct nt_p2p_group group;
    const float *gathered; // [size, stride] or NULL
    int64_t stride;
    int32_t *token; // [n_row]
    int32_t n_row;
};

/* Widths of the fused kernel: rows held in registers. */
static inline bool nt_allreduce_norm_p2p_takes(int32_t d_model) {
    return d_model % 4 == 0 && d_model <= NT_NORM_BLOCK_MAX;
}

struct nt_backend;
NT_MUST nt_status nt_allreduce_p2p_cuda(struct nt_backend *be, const struct nt_allreduce_p2p_args *args);
NT_MUST nt_status nt_allreduce_norm_p2p_cuda(struct nt_backend *be, const struct nt_allreduce_norm_p2p_args *args);
NT_MUST nt_status nt_best_pairs_cuda(struct nt_backend *be, const struct nt_best_pairs_args *args);

#endif
