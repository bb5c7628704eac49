/* What `nocturne inspect` says of what finetune leaves: adapters (PEFT directory, GGUF) and checkpoints.
 *
 * Prints to stdout; no state. An adapter's tensors are only counted, for its base is not at hand; a checkpoint's
 * numbers are read and held against their digest. Threading: one thread. Errors: those of adapter_io.h and
 * checkpoint.h. */
#ifndef NT_INSPECT_TRAINING_H
#define NT_INSPECT_TRAINING_H

#include "tensor_source.h"

NT_MUST nt_status nt_inspect_adapter(const char *dir);
NT_MUST nt_status nt_inspect_adapter_gguf(const struct nt_tensor_source *src);
NT_MUST nt_status nt_inspect_checkpoint(const char *path);
/* Those of DIR/checkpoints, newest first, a line each; damaged ones with what is wrong. *n: how many there are. */
NT_MUST nt_status nt_inspect_checkpoints(const char *dir, int64_t *n);

/* "tensors  N TYPE, X MiB", a line per type. */
void nt_inspect_dtypes(const struct nt_tensor_source *src);

#endif
