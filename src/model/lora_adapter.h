/* Whole adapters (adapter.h) made ready for the forward of this rank; private to src/model.
 *
 * An adapter lies whole and in f32 on every rank; a rank packs the rows and columns of its shard.
 * Memory of the packed pairs is an arena of the backend's; nt_arena_give frees it. Errors: NT_E_NOMEM, those of
 * the backend. One thread. */
#ifndef NT_LORA_ADAPTER_H
#define NT_LORA_ADAPTER_H

#include "adapter.h"
#include "model_state.h"
#include "params.h"

/* Memory for an adapter of that shape; nothing packed yet. */
NT_MUST nt_status nt_lora_open(struct nt_lora_weights *l, struct nt_arena *a, const struct nt_model *m,
                               const struct nt_lora_shape *shape);
struct nt_lora_shape nt_lora_shape_of(const struct nt_adapter *a);
/* Open, and this rank's part of it packed. */
NT_MUST nt_status nt_lora_load(struct nt_lora_weights *l, struct nt_arena *a, struct nt_model *m,
                               const struct nt_adapter *from);
/* This rank's part of the adapter into the parameters' w; linears the adapter lacks in a layer are 0. */
NT_MUST nt_status nt_params_from_adapter(const struct nt_params *p, const struct nt_adapter *from);
/* Rounds and packs the parameters' w; queued like any op. */
NT_MUST nt_status nt_params_pack(const struct nt_params *p, const struct nt_lora_weights *l);

#endif
