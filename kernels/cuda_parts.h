/* How the files of the CUDA backend fit together: what nt_backend_open_cuda calls in order. Internal to kernels/cuda_*.
 *
 * Each part has a function that fills its fields of struct nt_cuda and one that empties them; the second may be called
 * when the first failed half-way or never ran. All run in the thread that opens and closes the backend.
 * Errors: as cuda_backend.h. */
#ifndef NT_CUDA_PARTS_H
#define NT_CUDA_PARTS_H

#include "cuda_backend.h"
#include "gpu_api.h"

struct CUevent_st;

/* cuda_device.c */
NT_MUST nt_status nt_cuda_read_facts(const struct nt_gpu_driver *driver, int32_t device, struct nt_cuda_facts *out);
NT_MUST nt_status nt_cuda_check_facts(const struct nt_cuda_facts *facts,
                                      int32_t device); /* new enough for the kernels */

/* cuda_launch.c: modules and functions. */
NT_MUST nt_status nt_cuda_load_kernels(struct nt_cuda *cuda);
void nt_cuda_unload_kernels(struct nt_cuda *cuda);

/* cuda_memory.c: workspace and staging; the table of memory operations. */
NT_MUST nt_status nt_cuda_open_memory(struct nt_cuda *cuda);
void nt_cuda_close_memory(struct nt_cuda *cuda);
const struct nt_memory *nt_cuda_memory(void);

/* cuda_graph.c: asks without waiting. */
NT_MUST nt_status nt_cuda_event_passed(const struct nt_gpu_driver *driver, struct CUevent_st *event, bool *passed);

#endif
