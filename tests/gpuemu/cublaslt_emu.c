/* libcublasLt_emu.so: the calls of cuBLASLt that the product uses, computed on the CPU in stream order.
 *
 * D = alpha * op(A) op(B) + beta * C; bf16, f16 or f32 in and out, f32 inside; column- or row-major; strided batches;
 * optional bias along the rows of D. Anything else answers NOT_SUPPORTED: nothing is ignored. An algorithm takes no
 * operands that are less aligned than was said when it was asked for (256 bytes, if nothing was).
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "cublaslt_abi.h"
#include "half.h"
#include "work.h"

#pragma GCC visibility push(default)
int cublasLtCreate(void **handle);
int cublasLtDestroy(void *handle);
size_t cublasLtGetVersion(void);
const char *cublasLtGetStatusString(int status);
int cublasLtMatmulDescCreate(struct lt_desc **desc, int compute, int scale_type);
int cublasLtMatmulDescDestroy(struct lt_desc *desc);
int cublasLtMatmulDescSetAttribute(struct lt_desc *desc, int which, const void *value, size_t size);
int cublasLtMatrixLayoutCreate(struct lt_layout **layout, int type, uint64_t rows, uint64_t cols, int64_t ld);
int cublasLtMatrixLayoutDestroy(struct lt_layout *layout);
int cublasLtMatrixLayoutSetAttribute(struct lt_layout *layout, int which, const void *value, size_t size);
int cublasLtMatmulPreferenceCreate(struct lt_preference **preference);
int cublasLtMatmulPreferenceDestroy(struct lt_preference *preference);
int cublasLtMatmulPreferenceSetAttribute(struct lt_preference *preference, int which, const void *value, size_t size);
int cublasLtMatmulAlgoGetHeuristic(void *handle, const struct lt_desc *desc, const struct lt_layout *a,
                                   const struct lt_layout *b, const struct lt_layout *c, const struct lt_layout *d,
                                   const struct lt_preference *preference, int n_wanted, struct lt_heuristic *found,
                                   int *n_found);
int cublasLtMatmulAlgoConfigGetAttribute(const struct lt_algo *algo, int which, void *value, size_t size,
                                         size_t *written);
int cublasLtMatmul(void *handle, const struct lt_desc *desc, const void *alpha, const void *a,
                   const struct lt_layout *a_layout, const void *b, const struct lt_layout *b_layout, const void *beta,
                   const void *c, const struct lt_layout *c_layout, void *d, const struct lt_layout *d_layout,
                   const struct lt_algo *algo, void *workspace, size_t workspace_size, struct CUstream_st *stream);
#pragma GCC visibility pop

struct matmul { // one queued product
    struct lt_desc desc;
    struct lt_layout a_layout, b_layout, c_layout, d_layout;
    const void *a, *b, *c;
    void *d;
    float alpha, beta;
};

static size_t type_size(uint32_t type) {
    return type == LT_F32 ? 4 : 2;
}

static float load(const void *base, uint32_t type, size_t i) {
    if (type == LT_F32) return ((const float *)base)[i];
    const uint16_t h = ((const uint16_t *)base)[i];
    return type == LT_BF16 ? half_from_bf16(h) : half_from_f16(h);
}

static void store(void *base, uint32_t type, size_t i, float value) {
    if (type == LT_F32)
        ((float *)base)[i] = value;
    else
        ((uint16_t *)base)[i] = type == LT_BF16 ? half_to_bf16(value) : half_to_f16(value);
}

static size_t element(const struct lt_layout *m, size_t row, size_t col) {
    return m->order == LT_ORDER_COL ? row + col * (size_t)m->ld : row * (size_t)m->ld + col;
}

static size_t matrix_bytes(const struct lt_layout *m) {
    if (m->rows == 0 || m->cols == 0) return 0;
    return (element(m, m->rows - 1, m->cols - 1) + 1) * type_size(m->type);
}

static const void *batch_of(const void *base, const struct lt_layout *m, int32_t batch) {
    return (const uint8_t *)base + (int64_t)batch * m->batch_stride * (int64_t)type_size(m->type);
}

/* op(m) as f32 rows of length k, so that both operands are read along k: out[n_out, k]. */
static float *unpack(const void *base, const struct lt_layout *m, bool k_is_col, size_t n_out, size_t k) {
    float *out = malloc(n_out * k * sizeof *out + 1);
    for (size_t i = 0; out != NULL && i < n_out; i++)
        for (size_t j = 0; j < k; j++)
            out[i * k + j] = load(base, m->type, k_is_col ? element(m, i, j) : element(m, j, i));
    return out;
}

static float dot(const float *x, const float *y, size_t k) {
    float part[8] = {0};
    size_t i = 0;
    for (; i + 8 <= k; i += 8)
        for (size_t j = 0; j < 8; j++) part[j] += x[i + j] * y[i + j];
    for (; i < k; i++) part[i % 8] += x[i] * y[i];
    return ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
}

static float bias_at(const struct matmul *p, size_t row) {
    if (p->desc.epilogue != LT_EPILOGUE_BIAS) return 0;
    return load(p->desc.bias, p->desc.bias_type < 0 ? p->d_layout.type : (uint32_t)p->desc.bias_type, row);
}

static bool multiply(const struct matmul *p, int32_t batch) {
    const size_t m = p->d_layout.rows, n = p->d_layout.cols;
    const size_t k = p->desc.transa == LT_OP_N ? p->a_layout.cols : p->a_layout.rows;
    float *a = unpack(batch_of(p->a, &p->a_layout, batch), &p->a_layout, p->desc.transa == LT_OP_N, m, k);
    float *b = unpack(batch_of(p->b, &p->b_layout, batch), &p->b_layout, p->desc.transb != LT_OP_N, n, k);
    const void *c = p->beta != 0 ? batch_of(p->c, &p->c_layout, batch) : NULL;
    void *d = (uint8_t *)p->d + (int64_t)batch * p->d_layout.batch_stride * (int64_t)type_size(p->d_layout.type);
    const bool ok = a != NULL && b != NULL;
    for (size_t j = 0; ok && j < n; j++)
        for (size_t i = 0; i < m; i++) {
            float sum = p->alpha * dot(a + i * k, b + j * k, k) + bias_at(p, i);
            if (c != NULL) sum += p->beta * load(c, p->c_layout.type, element(&p->c_layout, i, j));
            store(d, p->d_layout.type, element(&p->d_layout, i, j), sum);
        }
    free(a);
    free(b);
    return ok;
}

static int run(void *arg, int first) {
    const struct matmul *p = arg;
    (void)first;
    for (int32_t batch = 0; batch < p->d_layout.n_batch; batch++) {
        const bool ok =
            emu_work_range("cublasLtMatmul A", batch_of(p->a, &p->a_layout, batch), matrix_bytes(&p->a_layout), 0) &&
            emu_work_range("cublasLtMatmul B", batch_of(p->b, &p->b_layout, batch), matrix_bytes(&p->b_layout), 0) &&
            (p->beta == 0 ||
             emu_work_range("cublasLtMatmul C", batch_of(p->c, &p->c_layout, batch), matrix_bytes(&p->c_layout), 0)) &&
            (p->desc.epilogue != LT_EPILOGUE_BIAS ||
             emu_work_range("cublasLtMatmul bias", p->desc.bias, p->d_layout.rows * type_size(p->d_layout.type), 0)) &&
            emu_work_range("cublasLtMatmul D", batch_of(p->d, &p->d_layout, batch), matrix_bytes(&p->d_layout), 1);
        if (!ok) return 1;
        if (!multiply(p, batch)) emu_work_fail("cublasLtMatmul: out of host memory");
    }
    return 1;
}

/* ---- handles and descriptors ---- */

int cublasLtCreate(void **handle) {
    if (handle == NULL) return LT_INVALID_VALUE;
    *handle = malloc(1);
    return *handle == NULL ? LT_ALLOC_FAILED : LT_SUCCESS;
}

int cublasLtDestroy(void *handle) {
    free(handle);
    return LT_SUCCESS;
}

size_t cublasLtGetVersion(void) {
    return 130000;
}

const char *cublasLtGetStatusString(int status) {
    switch (status) {
    case LT_SUCCESS:
        return "CUBLAS_STATUS_SUCCESS";
    case LT_ALLOC_FAILED:
        return "CUBLAS_STATUS_ALLOC_FAILED";
    case LT_INVALID_VALUE:
        return "CUBLAS_STATUS_INVALID_VALUE";
    case LT_EXECUTION_FAILED:
        return "CUBLAS_STATUS_EXECUTION_FAILED";
    case LT_NOT_SUPPORTED:
        return "CUBLAS_STATUS_NOT_SUPPORTED";
    default:
        return "unknown cuBLAS status";
    }
}

int cublasLtMatmulDescCreate(struct lt_desc **desc, int compute, int scale_type) {
    if (compute != LT_COMPUTE_F32 || scale_type != LT_F32) return LT_NOT_SUPPORTED;
    struct lt_desc *d = calloc(1, sizeof *d);
    if (d == NULL) return LT_ALLOC_FAILED;
    d->epilogue = LT_EPILOGUE_DEFAULT;
    d->bias_type = -1;
    *desc = d;
    return LT_SUCCESS;
}

int cublasLtMatmulDescDestroy(struct lt_desc *desc) {
    free(desc);
    return LT_SUCCESS;
}

static int set(void *field, size_t n_field, const void *value, size_t size) {
    if (value == NULL || size != n_field) return LT_INVALID_VALUE;
    memcpy(field, value, size);
    return LT_SUCCESS;
}

static int set_constant(int32_t wanted, const void *value, size_t size) {
    int32_t given = 0;
    const int status = set(&given, sizeof given, value, size);
    return status != LT_SUCCESS || given == wanted ? status : LT_NOT_SUPPORTED;
}

int cublasLtMatmulDescSetAttribute(struct lt_desc *desc, int which, const void *value, size_t size) {
    if (desc == NULL) return LT_INVALID_VALUE;
    switch (which) {
    case LT_DESC_COMPUTE:
        return set_constant(LT_COMPUTE_F32, value, size);
    case LT_DESC_SCALE:
        return set_constant(LT_F32, value, size);
    case LT_DESC_POINTER_MODE:
        return set_constant(0, value, size); // alpha and beta on the host
    case LT_DESC_TRANSA:
        return set(&desc->transa, sizeof desc->transa, value, size);
    case LT_DESC_TRANSB:
        return set(&desc->transb, sizeof desc->transb, value, size);
    case LT_DESC_EPILOGUE:
        return set(&desc->epilogue, sizeof desc->epilogue, value, size);
    case LT_DESC_BIAS_POINTER:
        return set(&desc->bias, sizeof desc->bias, value, size);
    case LT_DESC_BIAS_TYPE:
        return set(&desc->bias_type, sizeof desc->bias_type, value, size);
    default:
        return LT_NOT_SUPPORTED;
    }
}

int cublasLtMatrixLayoutCreate(struct lt_layout **layout, int type, uint64_t rows, uint64_t cols, int64_t ld) {
    if (type != LT_F32 && type != LT_F16 && type != LT_BF16) return LT_NOT_SUPPORTED;
    struct lt_layout *m = calloc(1, sizeof *m);
    if (m == NULL) return LT_ALLOC_FAILED;
    *m = (struct lt_layout){.type = (uint32_t)type, .rows = rows, .cols = cols, .ld = ld, .n_batch = 1};
    *layout = m;
    return LT_SUCCESS;
}

int cublasLtMatrixLayoutDestroy(struct lt_layout *layout) {
    free(layout);
    return LT_SUCCESS;
}

int cublasLtMatrixLayoutSetAttribute(struct lt_layout *m, int which, const void *value, size_t size) {
    if (m == NULL) return LT_INVALID_VALUE;
    switch (which) {
    case LT_LAYOUT_TYPE:
        return set(&m->type, sizeof m->type, value, size);
    case LT_LAYOUT_ORDER:
        return set(&m->order, sizeof m->order, value, size);
    case LT_LAYOUT_ROWS:
        return set(&m->rows, sizeof m->rows, value, size);
    case LT_LAYOUT_COLS:
        return set(&m->cols, sizeof m->cols, value, size);
    case LT_LAYOUT_LD:
        return set(&m->ld, sizeof m->ld, value, size);
    case LT_LAYOUT_BATCH_COUNT:
        return set(&m->n_batch, sizeof m->n_batch, value, size);
    case LT_LAYOUT_BATCH_STRIDE:
        return set(&m->batch_stride, sizeof m->batch_stride, value, size);
    default:
        return LT_NOT_SUPPORTED;
    }
}

int cublasLtMatmulPreferenceCreate(struct lt_preference **preference) {
    struct lt_preference *p = calloc(1, sizeof *p);
    for (int i = 0; p != NULL && i < 4; i++) p->alignment[i] = LT_ALIGNMENT;
    *preference = p;
    return p == NULL ? LT_ALLOC_FAILED : LT_SUCCESS;
}

int cublasLtMatmulPreferenceDestroy(struct lt_preference *preference) {
    free(preference);
    return LT_SUCCESS;
}

int cublasLtMatmulPreferenceSetAttribute(struct lt_preference *preference, int which, const void *value, size_t size) {
    if (preference == NULL || which < 0 || which > LT_PREF_LAST) return LT_INVALID_VALUE;
    if (which >= LT_PREF_ALIGNMENT_A && which <= LT_PREF_ALIGNMENT_D)
        return set(&preference->alignment[which - LT_PREF_ALIGNMENT_A], sizeof preference->alignment[0], value, size);
    if (which != LT_PREF_MAX_WORKSPACE) return LT_SUCCESS; // hints on the search: nothing to choose from here
    return set(&preference->max_workspace, sizeof preference->max_workspace, value, size);
}

/* ---- the product ---- */

static bool layout_fits(const struct lt_layout *m) {
    const uint64_t inner = m->order == LT_ORDER_COL ? m->rows : m->cols;
    return m->ld >= 0 && (uint64_t)m->ld >= inner && (m->order == LT_ORDER_COL || m->order == LT_ORDER_ROW);
}

static int check_shapes(const struct lt_desc *desc, const struct lt_layout *a, const struct lt_layout *b,
                        const struct lt_layout *c, const struct lt_layout *d) {
    if (desc == NULL || a == NULL || b == NULL || c == NULL || d == NULL) return LT_INVALID_VALUE;
    if (desc->transa > LT_OP_T || desc->transb > LT_OP_T) return LT_NOT_SUPPORTED;
    if (desc->epilogue != LT_EPILOGUE_DEFAULT && desc->epilogue != LT_EPILOGUE_BIAS) return LT_NOT_SUPPORTED;
    if (!layout_fits(a) || !layout_fits(b) || !layout_fits(c) || !layout_fits(d)) return LT_INVALID_VALUE;
    const bool an = desc->transa == LT_OP_N, bn = desc->transb == LT_OP_N;
    const uint64_t m = an ? a->rows : a->cols, k = an ? a->cols : a->rows;
    const uint64_t kb = bn ? b->rows : b->cols, n = bn ? b->cols : b->rows;
    if (k != kb || d->rows != m || d->cols != n || c->rows != m || c->cols != n) return LT_INVALID_VALUE;
    if (a->n_batch != d->n_batch || b->n_batch != d->n_batch || c->n_batch != d->n_batch) return LT_INVALID_VALUE;
    return a->type == b->type && c->type == d->type ? LT_SUCCESS : LT_NOT_SUPPORTED;
}

int cublasLtMatmulAlgoGetHeuristic(void *handle, const struct lt_desc *desc, const struct lt_layout *a,
                                   const struct lt_layout *b, const struct lt_layout *c, const struct lt_layout *d,
                                   const struct lt_preference *preference, int n_wanted, struct lt_heuristic *found,
                                   int *n_found) {
    if (handle == NULL || preference == NULL || found == NULL || n_found == NULL || n_wanted < 1)
        return LT_INVALID_VALUE;
    *n_found = 0;
    const int status = check_shapes(desc, a, b, c, d);
    if (status != LT_SUCCESS) return status;
    memset(found, 0, sizeof *found);
    found->algo.data[0] = 1;
    memcpy(&found->algo.data[1], preference->alignment, sizeof preference->alignment);
    found->waves = 1;
    *n_found = 1;
    return LT_SUCCESS;
}

/* There is one algorithm: number 1, one split, no reduction scheme, no stages. */
int cublasLtMatmulAlgoConfigGetAttribute(const struct lt_algo *algo, int which, void *value, size_t size,
                                         size_t *written) {
    const int32_t answer = which == LT_ALGO_ID || which == LT_ALGO_SPLITK ? 1 : 0;
    if (algo == NULL || algo->data[0] != 1 || value == NULL || size != sizeof answer) return LT_INVALID_VALUE;
    if (which != LT_ALGO_ID && which != LT_ALGO_TILE && which != LT_ALGO_SPLITK && which != LT_ALGO_REDUCTION &&
        which != LT_ALGO_STAGES)
        return LT_NOT_SUPPORTED;
    memcpy(value, &answer, sizeof answer);
    if (written != NULL) *written = sizeof answer;
    return LT_SUCCESS;
}

static bool aligned_as_chosen(const struct lt_algo *algo, const void *const operand[4]) {
    uint32_t alignment[4];
    memcpy(alignment, &algo->data[1], sizeof alignment);
    for (int i = 0; i < 4; i++) {
        if (alignment[i] == 0 || (uintptr_t)operand[i] % alignment[i] == 0) continue;
        fprintf(stderr, "emu: cublasLtMatmul: %c is not aligned to %u bytes, for which the algorithm was chosen\n",
                "ABCD"[i], alignment[i]);
        return false;
    }
    return true;
}

int cublasLtMatmul(void *handle, const struct lt_desc *desc, const void *alpha, const void *a,
                   const struct lt_layout *a_layout, const void *b, const struct lt_layout *b_layout, const void *beta,
                   const void *c, const struct lt_layout *c_layout, void *d, const struct lt_layout *d_layout,
                   const struct lt_algo *algo, void *workspace, size_t workspace_size, struct CUstream_st *stream) {
    (void)workspace;
    (void)workspace_size;
    if (handle == NULL || alpha == NULL || beta == NULL) return LT_INVALID_VALUE;
    const int status = check_shapes(desc, a_layout, b_layout, c_layout, d_layout);
    if (status != LT_SUCCESS) return status;
    if (algo != NULL && !aligned_as_chosen(algo, (const void *const[]){a, b, c, d})) return LT_INVALID_VALUE;
    struct matmul *p = malloc(sizeof *p);
    if (p == NULL) return LT_ALLOC_FAILED;
    *p = (struct matmul){.desc = *desc,
                         .a_layout = *a_layout,
                         .b_layout = *b_layout,
                         .c_layout = *c_layout,
                         .d_layout = *d_layout,
                         .a = a,
                         .b = b,
                         .c = c,
                         .d = d};
    memcpy(&p->alpha, alpha, sizeof p->alpha);
    memcpy(&p->beta, beta, sizeof p->beta);
    return emu_stream_work(stream, run, p, free) == 0 ? LT_SUCCESS : LT_EXECUTION_FAILED;
}
