/* Where the tensors of a model are: each slot of the spec bound to a tensor of the open source.
 *
 * Every tensor's presence and shape is checked against the family's table (arch.h) before the first weight is read; a
 * tensor that belongs to nothing is an error too, because it means a model that would be computed wrongly.
 * Ownership: struct nt_binding owns one array of pointers into the tensor source and must be released before the source
 * is closed. Threading: none. Errors: NT_E_DATA, NT_E_UNSUPPORTED, naming the tensor and the shape expected. */
#ifndef NT_SPEC_BIND_H
#define NT_SPEC_BIND_H

#include "spec.h"

struct nt_tensor_info;
struct nt_tensor_source;

struct nt_binding {
    const struct nt_tensor_info *
        *tensors; /* [n_layer][NT_SLOT_COUNT]; slots outside the layers in row 0; NULL: unused */
};

/* Finds every tensor the spec needs and checks its shape; a tensor that belongs to nothing is an error too. */
NT_MUST nt_status nt_spec_bind(const struct nt_tensor_source *src, const struct nt_spec *spec, struct nt_binding *b);
void nt_binding_release(struct nt_binding *b); /* accepts a zeroed struct */
const struct nt_tensor_info *nt_binding_get(const struct nt_binding *b, int32_t layer, enum nt_slot slot);

#endif
