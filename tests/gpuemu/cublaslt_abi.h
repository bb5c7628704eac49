/* The part of cuBLASLt's public ABI that the stand-in answers: our own declarations, so that NVIDIA's header may be
 * absent. test_abi.c compares every value with the header where it is installed. Numbers from the cuBLAS manual.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

enum { LT_SUCCESS = 0, LT_ALLOC_FAILED = 3, LT_INVALID_VALUE = 7, LT_EXECUTION_FAILED = 13, LT_NOT_SUPPORTED = 15 };
enum { LT_F32 = 0, LT_F16 = 2, LT_BF16 = 14 };
enum { LT_COMPUTE_F32 = 68 };
enum { LT_OP_N = 0, LT_OP_T = 1 };
enum { LT_ORDER_COL = 0, LT_ORDER_ROW = 1 };
enum {
    LT_LAYOUT_TYPE,
    LT_LAYOUT_ORDER,
    LT_LAYOUT_ROWS,
    LT_LAYOUT_COLS,
    LT_LAYOUT_LD,
    LT_LAYOUT_BATCH_COUNT,
    LT_LAYOUT_BATCH_STRIDE
};
enum {
    LT_DESC_COMPUTE,
    LT_DESC_SCALE,
    LT_DESC_POINTER_MODE,
    LT_DESC_TRANSA,
    LT_DESC_TRANSB,
    LT_DESC_TRANSC,
    LT_DESC_FILL,
    LT_DESC_EPILOGUE,
    LT_DESC_BIAS_POINTER,
    LT_DESC_BIAS_TYPE = 26
};
enum { LT_EPILOGUE_DEFAULT = 1, LT_EPILOGUE_BIAS = 4 };
enum { LT_ALIGNMENT = 256 /* of operands, unless a preference says otherwise */ };
enum { LT_PREF_MAX_WORKSPACE = 1, LT_PREF_ALIGNMENT_A = 5, LT_PREF_ALIGNMENT_D = 8, LT_PREF_LAST = 12 };
enum { LT_ALGO_ID, LT_ALGO_TILE, LT_ALGO_SPLITK, LT_ALGO_REDUCTION, LT_ALGO_STAGES = 6 };

struct lt_layout {
    uint32_t type;
    int32_t order, n_batch;
    uint64_t rows, cols;
    int64_t ld, batch_stride;
};

struct lt_desc {
    int32_t transa, transb;
    uint32_t epilogue;
    const void *bias;
    int32_t bias_type; // -1: that of D
};

struct lt_preference {
    uint64_t max_workspace;
    uint32_t alignment[4]; // bytes, of A, B, C, D
};

struct lt_algo {
    uint64_t data[8]; // number, and as chosen for: alignment of A and B, of C and D
};

struct lt_heuristic {
    struct lt_algo algo;
    size_t workspace_size;
    int state;
    float waves;
    int reserved[4];
};
