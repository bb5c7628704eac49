#include "cuda_copy.h"

#include "gpu_api.h"
#include "rng.h"
#include <stdlib.h>

nt_status nt_cuda_copy(struct nt_backend *be, void *to, const void *from, size_t bytes) {
    if (bytes == 0) return NT_OK;
    NT_TRY(NT_CU(be->cuda->driver, cuMemcpyDtoDAsync((CUdeviceptr)(uintptr_t)to, (CUdeviceptr)(uintptr_t)from, bytes,
                                                     nt_cuda_stream(be->cuda))));
    return NT_OK;
}

/* Not a power of two, so that the rows of a matrix differ. */
enum { BLOCK = 3999744 };
_Static_assert(BLOCK % 256 == 0, "pieces keep the alignment");

static nt_status fill(struct nt_backend *be, char *to, size_t bytes, const nt_bf16 *block) {
    size_t done = bytes < BLOCK ? bytes : BLOCK;
    NT_TRY(be->memory->upload(be, to, block, done));
    while (done < bytes) { /* the part that is there doubles */
        const size_t n = bytes - done < done ? bytes - done : done;
        NT_TRY(nt_cuda_copy(be, to + done, to, n));
        done += n;
    }
    return NT_OK;
}

nt_status nt_cuda_fill(struct nt_backend *be, void *to, size_t bytes, float scale) {
    if (bytes == 0) return NT_OK;
    nt_bf16 *block = malloc(BLOCK);
    if (!block) return NT_FAIL(NT_E_NOMEM, "no memory for random data");
    const size_t n = (bytes < BLOCK ? bytes : BLOCK) / sizeof *block;
    for (size_t i = 0; i < n; i += 4) {
        uint32_t word[4];
        nt_philox(23, 0, i, word);
        for (size_t j = 0; j < 4 && i + j < n; j++)
            block[i + j] = nt_f32_to_bf16((2 * nt_unit_float(word[j]) - 1) * scale);
    }
    const nt_status st = fill(be, to, bytes, block);
    free(block);
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}
