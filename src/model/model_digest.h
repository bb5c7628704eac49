/* The digest of a model's files, by which runs and ranks know that they have the same model.
 *
 * SHA-256 over the configs' digest and, for each file, its size and the SHA-256 of each of its pieces: the pieces are
 * hashed in parallel, by all ranks and threads, and the result does not depend on how many there are.
 * Collective over the world. Ownership: nothing is kept. Threading: called by one thread per rank, uses the pool.
 * Errors: those of reading, NT_E_NOMEM, NT_E_COMM. */
#ifndef NT_MODEL_DIGEST_H
#define NT_MODEL_DIGEST_H

#include "status.h"
#include <stdint.h>

struct nt_pool;
struct nt_tensor_source;
struct nt_world;

/* SHA-256 over the bytes of all model files; the ranks of the world hash a part each, every rank gets the result. */
NT_MUST nt_status nt_model_digest_compute(const struct nt_tensor_source *src, struct nt_world *w, struct nt_pool *pool,
                                          uint8_t digest[32]);

#endif
