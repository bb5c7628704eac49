/* The model: weights, one shared decoder block, forward over a batch of paged sequences.
 *
 * This header is the architecture document. A family is data (spec.h) plus one block (block_fwd.c); nothing here knows
 * a model's name. Ownership: nt_model_open reads and packs this rank's shard (once per node, in shared memory) and
 * keeps it until nt_model_close. Threading: one forward at a time. Tensor parallel: heads are divided by KV group
 * (unevenly if need be), d_ff and the vocabulary by rows; every rank of w->tp calls nt_model_forward with the same
 * batch.
 *
 *   x      = embed[id]                                  f32 residual stream [n_tok, d_model], allreduced over tp
 *   block: h  = rmsnorm(x) -> qkv -> (q/k norm) rope -> cache, attention -> o  ; x += o (allreduce)
 *          h  = rmsnorm(x) -> gate, up -> act(gate) * up -> down               ; x += down (allreduce)
 *   logits = head(rmsnorm(x[out_rows]))                 f32 [n_out, n_vocab_local] */
#ifndef NT_MODEL_H
#define NT_MODEL_H

#include "batch.h"
#include "comm.h"
#include "job_memory.h"
#include "spec.h"

struct nt_model;

/* Opens path (GGUF file or Hugging Face directory); the spec is checked against every tensor's shape before memory is
 * allocated. */
NT_MUST nt_status nt_model_open(struct nt_model **out, const char *path, struct nt_world *w, struct nt_backend *be);
/* Before training on devices: connects this rank's with those of the other model copies, which add their gradients on
 * them; without NCCL, or where two have one device, in host memory. Collective over dp. */
NT_MUST nt_status nt_model_connect_copies(struct nt_model *m);
void nt_model_close(struct nt_model *m);
bool nt_model_takes(const struct nt_spec *spec, enum nt_weight_format blocks); /* as its backend's block_format? */
const struct nt_spec *nt_model_spec(const struct nt_model *m);
size_t nt_model_weight_bytes(const struct nt_model *m); /* this rank's packed shard, and an adapter's */
size_t nt_model_peer_bytes(const struct nt_model *m);   /* of the device's memory, taken for peers to read */
void nt_model_digest(const struct nt_model *m,
                     uint8_t digest[32]); /* SHA-256 over the source files' identity (headers and tensor data) */

/* From now on the model is its base with this adapter, unmerged. Before layout. */
struct nt_adapter;
NT_MUST nt_status nt_model_adapt(struct nt_model *m, const struct nt_adapter *a);

/* This rank's slice of the vocabulary: logits columns are tokens vocab_first .. vocab_first + vocab_count - 1. */
int32_t nt_model_vocab_first(const struct nt_model *m);
int32_t nt_model_vocab_count(const struct nt_model *m);

/* KV cache: bytes of one page (NT_KV_PAGE positions, all layers, this rank's heads). The pool is [n_layer][n_page]
 * pages. */
size_t nt_model_kv_page_bytes(const struct nt_model *m);
NT_MUST nt_status nt_kv_pool_take(struct nt_job_memory *mem, const struct nt_model *m, int32_t n_page,
                                  struct nt_kv_pool *pool); /* layout: counts or binds */
/* Before a page is handed out; nothing on a device, whose kernels never read what was not written. */
void nt_kv_page_zero(const struct nt_model *m, const struct nt_kv_pool *pool, int32_t page);

/* Longest position + 1 that forward will see; default: the model's own limit. Larger values are ignored. Before layout.
 */
void nt_model_limit_len(struct nt_model *m, int32_t max_len);

/* Activations and step inputs; a layout function (job_memory.h). Call before forward. Fails (when bound) with the
 * errors of the backend's copies. */
NT_MUST nt_status nt_model_layout(struct nt_model *m, struct nt_job_memory *mem, const struct nt_step_limits *max);

/* logits [n_out, ld >= vocab_count] in the backend's memory; ld = nt_model_logit_ld. Scaled/capped as the model says.
 */
int64_t nt_model_logit_ld(const struct nt_model *m);
NT_MUST nt_status nt_model_forward(struct nt_model *m, const struct nt_batch *b, const struct nt_kv_pool *kv,
                                   float *logits);

/* May a batch be drawn by_head? False on CPUs, where gemm is a library's, and where tensor-parallel ranks have no
 * device communicator. */
bool nt_model_head_draws(const struct nt_model *m);
/* Can tensor-parallel ranks gather on the device what the sampler needs of every shard? */
bool nt_model_gathers(const struct nt_model *m);
/* to [tp size, n] = from [n] of every rank, device memory, in stream order. */
NT_MUST nt_status nt_model_allgather(const struct nt_model *m, const float *from, float *to, int64_t n);
/* The shard of the vocabulary that a rank of the group holds. */
void nt_model_vocab_of(const struct nt_model *m, int32_t rank, int32_t *first, int32_t *count);
/* Tensor-parallel ranks of a device: mark puts a point behind all that was called, watch returns when that has run or a
 * peer is lost (NT_E_COMM). Whoever waits for less than all calls watch first. Nothing where there is one rank. */
NT_MUST nt_status nt_model_mark(struct nt_model *m, int slot);
NT_MUST nt_status nt_model_watch(struct nt_model *m, int slot);

/* Work of one token at context length n_ctx, for rates: FLOPs of a full forward (with or without the head). */
double nt_model_flops(const struct nt_model *m, double n_ctx, bool head);

#endif
