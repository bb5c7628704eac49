/* The choice of tokens over a sharded vocabulary where rows are truncated: from the best pairs of every rank.
 *
 * Each rank's best logits (after edits and temperature), best first, lie in this rank's memory, and with them the
 * shard's maximum, its sum of exp(logit - maximum), and its draw by logit_gumbel. By the row's kind:
 *
 *   GREEDY      the best pair of all
 *   PLAIN       the best of the ranks' draws
 *   TRUNCATED   the lists, merged to the k best of all and cut as logit_sample does (ops.h), then a draw among the rest
 *
 * The cut: top_k, then top_p of their mass (without top-k: of the mass of all shards), then min_p. The draw: the
 * largest logit with logit_gumbel's noise. Masses are f32, added best first, those of shards in rank order. Larger
 * values win, NaN above all, then lower ids. token: the id in the whole vocabulary; -1 where a shard's numbers are not
 * finite or nothing is left; NT_DRAW_UNDECIDED where more than the k best would have to be seen, which is the case for
 * a row whatever is around it. All ranks compute the same. Threading: as the backend. Errors: NT_E_UNSUPPORTED for more
 * ranks or longer lists than the kernel takes. */
#ifndef NT_DRAW_PAIRS_CUDA_H
#define NT_DRAW_PAIRS_CUDA_H

#include "allreduce_p2p_cuda.h"

enum { NT_DRAW_K = 256, NT_DRAW_THREADS = 256, NT_DRAW_UNDECIDED = -2 };
enum nt_draw_kind { NT_DRAW_GREEDY, NT_DRAW_PLAIN, NT_DRAW_TRUNCATED };

/* A rank's part, one after the other: value [n_row, have] and index [n_row, have] (int32_t, in the shard), then draw's
 * value and index, maximum and sum, of n_row each. A shard without columns: have 0, nothing of it is read. */
struct nt_draw_pairs_args {
    const float *gathered; // [size, stride]
    int64_t stride;
    int32_t have[NT_P2P_RANKS], first[NT_P2P_RANKS]; /* length of the lists; id of column 0 */
    const int32_t *kind;                             // [n_row] enum nt_draw_kind
    const float *top_p, *min_p;                      // [n_row]
    const int32_t *top_k;                            // [n_row]
    const uint64_t *seed, *stream;                   // [n_row]
    int32_t *token;                                  // [n_row]
    int32_t size, n_row, k;                          /* k: of the merged list, at most NT_DRAW_K */
    bool all;                                        /* the lists are the whole vocabulary */
};

/* Floats of a rank's part. */
static inline int64_t nt_draw_floats(int32_t n_row, int32_t have) {
    return (int64_t)n_row * (2 * have + 4);
}

struct nt_backend;
NT_MUST nt_status nt_draw_pairs_cuda(struct nt_backend *be, const struct nt_draw_pairs_args *args);

#endif
