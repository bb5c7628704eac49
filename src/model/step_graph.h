/* Decode steps as CUDA graphs: captured once per size, then launched with nothing but new inputs.
 *
 * A step whose sequences all decode one token is padded to a bucket of sequences (places without tokens are skipped by
 * the kernels and write nothing) and of context length (the grids of the split attention); block tables, positions and
 * ids are read from the device buffers of the inputs, so a captured step serves every later one of its bucket. Row
 * results do not depend on the padding. Ownership: graphs belong to the model and hold the addresses of its
 * activations, the cache and the logits: nt_step_graphs_drop before any of these moves. Not used on CPUs, nor when
 * tensors are summed through host memory. Errors: those of the ops and of the driver. */
#ifndef NT_STEP_GRAPH_H
#define NT_STEP_GRAPH_H

#include "batch.h"
#include "comm_device.h"

struct nt_model;
struct nt_cuda_graph;
enum { NT_STEP_GRAPHS = 64 };
struct nt_step_graphs {
    struct nt_step_graph {
        int32_t n_seq, max_pos; /* the bucket */
        const float *logits;
        const void *kv, *drawn, *prev;       /* where tokens are drawn to and taken from, or NULL */
        bool by_head;                        /* the kind of ending: no logits */
        bool one_by_one;                     /* as the backend's (cuda_backend.h) */
        struct nt_device_queued collectives; /* of one launch */
        struct nt_cuda_graph *graph;
    } of[NT_STEP_GRAPHS];
    int32_t n;
};

bool nt_step_graph_fits(const struct nt_model *m, const struct nt_batch *b);
NT_MUST nt_status nt_step_graph_forward(struct nt_model *m, const struct nt_batch *b, const struct nt_kv_pool *kv,
                                        float *logits);
void nt_step_graphs_drop(struct nt_model *m);

#endif
