/* A model of a given spec without weights: its forward runs on a backend that does not read them (ledger_backend.h).
 *
 * The weights get the layout, the formats and the addresses they would have on this rank of w->tp, in the backend's
 * memory; nothing is loaded, and the digest is zero. All of model.h works on it, nt_model_close included. Threading: as
 * model.h. Errors: those of nt_shard_plan and of the memory. */
#ifndef NT_MODEL_SHAPE_H
#define NT_MODEL_SHAPE_H

#include "model.h"

NT_MUST nt_status nt_model_open_shape(struct nt_model **out, const struct nt_spec *spec, struct nt_world *w,
                                      struct nt_backend *be);
/* Where they lie, nt_model_weight_bytes of them: who measures on a device fills them with random data. */
void *nt_model_shape_weights(struct nt_model *m);

#endif
