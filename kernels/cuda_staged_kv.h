/* Pages of the KV cache between the layout of CPUs (NT_KV_PAIRED) and those of GPUs, on the host: for cuda_staged.c.
 *
 * A slot is the K or the V of one head and position. Going to int8 loses bits, so that on the way back only slots that
 * the device changed are written, as bf16(scale * int8); bf16 slots come back as they are. What lies between the
 * heads of a page and the next page is copied. A cache that is in a layout of GPUs already is copied. Nothing is
 * allocated; no errors, any thread. Layouts: ops.h. */
#ifndef NT_CUDA_STAGED_KV_H
#define NT_CUDA_STAGED_KV_H

#include "ops.h"

/* The pages 0 .. n_pages - 1 of kv in a layout of GPUs: the distance of pages, and all of them up to the last head's
 * end, in units of nt_bf16. */
int64_t nt_staged_stride(const struct nt_kv_layer *kv, enum nt_kv_format format);
int64_t nt_staged_elems(const struct nt_kv_layer *kv, enum nt_kv_format format, int64_t n_pages);

void nt_staged_to_device(const struct nt_kv_layer *kv, enum nt_kv_format format, int64_t n_pages, nt_bf16 *image);
/* before: the image that went to the device; after: the one that came back. */
void nt_staged_to_host(const struct nt_kv_layer *kv, enum nt_kv_format format, int64_t n_pages, const nt_bf16 *before,
                       const nt_bf16 *after);

#endif
