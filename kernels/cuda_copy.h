/* Copies within device memory, random contents for measurements, and a clock that waits for nothing it does not time.
 *
 * nt_cuda_copy is queued like an op and may be captured. nt_cuda_fill writes bf16 values, uniform in (-scale, scale),
 * that repeat after 4 MB; read as f32 they have the same range. Random data matters: a matrix unit that multiplies
 * zeros draws less power and clocks higher.
 * No state. Threading: as the backend. Errors: those of the driver, NT_E_NOMEM. */
#ifndef NT_CUDA_COPY_H
#define NT_CUDA_COPY_H

#include "cuda_backend.h"

NT_MUST nt_status nt_cuda_copy(struct nt_backend *be, void *to, const void *from, size_t bytes);
NT_MUST nt_status nt_cuda_fill(struct nt_backend *be, void *to, size_t bytes, float scale);

#endif
