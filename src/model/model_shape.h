/* A model of a given spec without weights: its forward runs on a backend that does not read them (ledger_backend.h).
 *
 * The weights get the layout and the addresses they would have on this rank of w->tp, in the backend's memory; nothing
 * is loaded, and the digest is zero. All of model.h works on it, nt_model_close included.
 * int4_group > 0: the matrices of the blocks are taken as 4-bit values with one f32 scale per that many (embedding,
 * head, norms and biases stay as they are). Threading: as model.h. Errors: those of nt_shard_plan and of the memory. */
#ifndef NT_MODEL_SHAPE_H
#define NT_MODEL_SHAPE_H

#include "model.h"

NT_MUST nt_status nt_model_open_shape(struct nt_model **out, const struct nt_spec *spec, struct nt_world *w,
                                      struct nt_backend *be, int32_t int4_group);
/* Where they lie, nt_model_weight_bytes of them: who measures on a device fills them with random data. */
void *nt_model_shape_weights(struct nt_model *m);
/* As nt_model_weight_bytes, with what int4 saves. */
double nt_model_shape_bytes(const struct nt_model *m);

#endif
