/* What is trained, as this rank holds it: f32 numbers, their gradients and AdamW's moments; private to src/model.
 *
 * One flat array each for w, grad, m and v, in the same order, so that clipping, summing over ranks and the update are
 * passes over memory. A row of the table says which numbers belong to which logical tensor: with an adapter A [r, k]
 * and B as [r, n] (transposed) of each adapted linear, without one every weight of the model, matrices as [k, n]
 * (transposed). Checkpoints and adapters are made of logical tensors, which do not depend on tp or padding
 * (nt_params_gather, nt_params_scatter).
 * The arrays lie in the backend's memory, where its ops work on them. Host code sees them through views. Shards: most
 * parameters are this rank's alone; those every rank holds (replicated) have one owner; keys and values are shared by
 * neighbours when tp exceeds the KV heads. `summed`: this rank's gradient is a part of the whole (grad_sum.h).
 * Ownership: the struct's own arrays. Errors: NT_E_NOMEM, those of the communicator and of the device. One thread. */
#ifndef NT_PARAMS_H
#define NT_PARAMS_H

#include "backend.h"
#include "comm.h"
#include "lora.h"

enum nt_param_part { NT_PARAM_W, NT_PARAM_A, NT_PARAM_B, NT_PARAM_PARTS };
struct nt_param {
    enum nt_slot slot;
    enum nt_param_part part;
    int32_t layer;             /* 0 for tensors of the model */
    int32_t rows, cols;        /* as stored; vectors have one row */
    int64_t at;                /* first number in the flat arrays */
    bool transposed;           /* logical [i, j] is stored [j, i] */
    int32_t out0, in0;         /* logical row and column of the stored first number */
    int32_t n_rows, n_cols;    /* stored rows and columns that are not padding */
    int32_t out_size, in_size; /* of the logical tensor; a vector: [1, in_size] */
    bool summed, owned, decay; /* owned: gather takes this rank's numbers; decay: AdamW shrinks it */
    int32_t own0;              /* stored columns before it are another rank's, which holds them too */
};

struct nt_params {
    struct nt_world *world; /* borrowed */
    struct nt_backend *be;  /* borrowed */
    struct nt_param *rows;  // [n]
    int32_t n, n_layer;
    int32_t *index; // [n_layer][NT_SLOT_COUNT][NT_PARAM_PARTS] row, -1: none
    int64_t n_floats;
    float *w, *grad, *m, *v; // [n_floats]; gaps are 0; w alone until nt_params_train
    double *squares;         // [n] of the backend
};

/* w alone: numbers to be packed. targets 0: every weight. linears: of the same targets. */
NT_MUST nt_status nt_params_init(struct nt_params *p, struct nt_world *world, struct nt_backend *be,
                                 const struct nt_spec *spec, const struct nt_shard *s,
                                 const struct nt_linear_place linears[NT_LINEAR_COUNT],
                                 const struct nt_lora_shape *shape);
NT_MUST nt_status nt_params_train(struct nt_params *p); /* takes the other arrays */
void nt_params_release(struct nt_params *p);            /* accepts a zeroed struct */
size_t nt_params_bytes(const struct nt_params *p);      /* of the backend's memory, with all arrays */
const struct nt_param *nt_params_find(const struct nt_params *p, int32_t layer, enum nt_slot slot,
                                      enum nt_param_part part); /* NULL: not trained */
int64_t nt_param_logical_count(const struct nt_param *p);       /* numbers of the logical tensor */
int64_t nt_param_count(const struct nt_param *p);               /* as stored */
/* Stored numbers of host memory, from column col0 on, to their places in the logical tensor; and back, all columns,
 * what is padding left as it is. */
void nt_param_place(const struct nt_param *p, const float *from, int32_t col0, float *logical);
void nt_param_take(const struct nt_param *p, const float *logical, float *to);

/* Numbers [at, at + n) of one of the arrays, for host code: those themselves, or a copy of a device's, which close
 * takes back when written. */
struct nt_params_view {
    float *host; // [n]
    float *array, *copy;
    int64_t n;
};
NT_MUST nt_status nt_params_view_open(const struct nt_params *p, float *array, int64_t at, int64_t n,
                                      struct nt_params_view *v);
NT_MUST nt_status nt_params_view_close(const struct nt_params *p, struct nt_params_view *v, bool written);
NT_MUST nt_status nt_params_zero(const struct nt_params *p, float *array); /* all n_floats */

/* logical [out_size, in_size] = the whole tensor, from the array `from` (w, grad, m or v) of all tp ranks. Collective
 * over tp. Exact, but -0 may become 0. */
NT_MUST nt_status nt_params_gather(const struct nt_params *p, const struct nt_param *row, float *from, float *logical);
/* This rank's part of a logical tensor into `to`. */
NT_MUST nt_status nt_params_scatter(const struct nt_params *p, const struct nt_param *row, const float *logical,
                                    float *to);

/* Sum of squares of all gradients of the model, each counted once. Collective over tp. */
NT_MUST nt_status nt_params_grad_squares(const struct nt_params *p, double *out);

#endif
