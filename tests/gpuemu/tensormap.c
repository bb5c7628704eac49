/* cuTensorMapEncodeTiled: the checks that the driver makes, and our own encoding of the 128 opaque bytes. */
#include <stdio.h>
#include <string.h>

#include "driver.h"
#include "emu.h"

struct encoded {
    char magic[8];
    struct {
        uint64_t address;
        uint64_t stride[4]; // bytes, of dimensions 1..4
        uint32_t dim[5];
        uint16_t box[5];
        uint8_t element_stride[5];
        uint8_t rank, element_bytes, swizzle, nan_fill;
    } map;
};
_Static_assert(sizeof(struct encoded) <= sizeof(CUtensorMap), "the encoding must fit");

static int32_t element_bytes(CUtensorMapDataType type) {
    switch (type) {
    case CU_TENSOR_MAP_DATA_TYPE_UINT8:
        return 1;
    case CU_TENSOR_MAP_DATA_TYPE_UINT16:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT16:
    case CU_TENSOR_MAP_DATA_TYPE_BFLOAT16:
        return 2;
    case CU_TENSOR_MAP_DATA_TYPE_UINT32:
    case CU_TENSOR_MAP_DATA_TYPE_INT32:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT32:
        return 4;
    case CU_TENSOR_MAP_DATA_TYPE_UINT64:
    case CU_TENSOR_MAP_DATA_TYPE_INT64:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT64:
        return 8;
    default:
        return 0;
    }
}

static int32_t swizzle_bytes(CUtensorMapSwizzle swizzle) {
    switch (swizzle) {
    case CU_TENSOR_MAP_SWIZZLE_NONE:
        return 0;
    case CU_TENSOR_MAP_SWIZZLE_32B:
        return 32;
    case CU_TENSOR_MAP_SWIZZLE_64B:
        return 64;
    case CU_TENSOR_MAP_SWIZZLE_128B:
        return 128;
    default:
        return -1;
    }
}

static CUresult refuse(const char *text) {
    fprintf(stderr, "emu: cuTensorMapEncodeTiled refused: %s\n", text);
    return CUDA_ERROR_INVALID_VALUE;
}

static CUresult check_dimensions(const cuuint64_t *dim, const cuuint64_t *stride, const cuuint32_t *box,
                                 const cuuint32_t *element_stride, uint32_t rank, int32_t bytes, int32_t swizzle) {
    for (uint32_t i = 0; i < rank; i++) {
        if (dim[i] == 0 || dim[i] >= (uint64_t)1 << 32) return refuse("a dimension is 0 or 2^32 and more");
        if (box[i] == 0 || box[i] > 256) return refuse("a box dimension is not in 1..256");
        if (element_stride[i] == 0 || element_stride[i] > 8) return refuse("an element stride is not in 1..8");
        if (i + 1 < rank && (stride[i] % 16 != 0 || stride[i] >= (uint64_t)1 << 40))
            return refuse("a global stride is no multiple of 16 bytes, or too large");
    }
    const uint64_t inner = (uint64_t)box[0] * (uint64_t)bytes;
    if (inner % 16 != 0) return refuse("the inner box dimension is no multiple of 16 bytes");
    if (swizzle > 0 && inner > (uint64_t)swizzle) return refuse("the inner box dimension exceeds the swizzle width");
    return CUDA_SUCCESS;
}

CUresult cuTensorMapEncodeTiled(CUtensorMap *out, CUtensorMapDataType type, cuuint32_t rank, void *address,
                                const cuuint64_t *dim, const cuuint64_t *stride, const cuuint32_t *box,
                                const cuuint32_t *element_stride, CUtensorMapInterleave interleave,
                                CUtensorMapSwizzle swizzle, CUtensorMapL2promotion promotion,
                                CUtensorMapFloatOOBfill fill) {
    (void)promotion; // a hint
    if (emu_options()->cc < 90) return CUDA_ERROR_NOT_SUPPORTED;
    const int32_t bytes = element_bytes(type), width = swizzle_bytes(swizzle);
    if (out == NULL || dim == NULL || box == NULL || element_stride == NULL) return refuse("a null pointer");
    if (rank < 1 || rank > 5 || (rank > 1 && stride == NULL)) return refuse("rank is not in 1..5");
    if (bytes == 0 || width < 0 || interleave != CU_TENSOR_MAP_INTERLEAVE_NONE) return CUDA_ERROR_NOT_SUPPORTED;
    if ((uintptr_t)out % 64 != 0) return refuse("the tensor map is not aligned to 64 bytes");
    if ((uintptr_t)address % 16 != 0) return refuse("the global address is not aligned to 16 bytes");
    const CUresult result = check_dimensions(dim, stride, box, element_stride, rank, bytes, width);
    if (result != CUDA_SUCCESS) return result;
    struct encoded e = {.magic = "emu-tma"};
    e.map.address = (uint64_t)(uintptr_t)address;
    e.map.rank = (uint8_t)rank;
    e.map.element_bytes = (uint8_t)bytes;
    e.map.swizzle = (uint8_t)width;
    e.map.nan_fill = fill == CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA;
    for (uint32_t i = 0; i < rank; i++) {
        e.map.dim[i] = (uint32_t)dim[i];
        e.map.box[i] = (uint16_t)box[i];
        e.map.element_stride[i] = (uint8_t)element_stride[i];
        if (i + 1 < rank) e.map.stride[i] = stride[i];
    }
    memset(out, 0, sizeof *out);
    memcpy(out, &e, sizeof e);
    return CUDA_SUCCESS;
}

bool emu_tensor_map_decode(const void *map, struct emu_tensor_map *out) {
    struct encoded e;
    memcpy(&e, map, sizeof e);
    if (memcmp(e.magic, "emu-tma", 8) != 0) return false;
    *out = (struct emu_tensor_map){.address = e.map.address,
                                   .rank = e.map.rank,
                                   .element_bytes = e.map.element_bytes,
                                   .swizzle = e.map.swizzle,
                                   .nan_fill = e.map.nan_fill};
    out->stride[0] = e.map.element_bytes;
    for (int i = 0; i < 5; i++) {
        out->dim[i] = e.map.dim[i];
        out->box[i] = e.map.box[i];
        out->element_stride[i] = e.map.element_stride[i];
        if (i > 0) out->stride[i] = e.map.stride[i - 1];
    }
    return true;
}
