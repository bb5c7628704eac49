/* The stand-in of cuBLASLt against double, in stream order and inside a graph. */
#include <math.h>

#include "cublaslt_abi.h"
#include "half.h"
#include "test_emu.h"

int cublasLtCreate(void **handle);
int cublasLtDestroy(void *handle);
int cublasLtMatmulDescCreate(void **desc, int compute, int scale_type);
int cublasLtMatmulDescDestroy(void *desc);
int cublasLtMatmulDescSetAttribute(void *desc, int which, const void *value, size_t size);
int cublasLtMatrixLayoutCreate(void **layout, int type, uint64_t rows, uint64_t cols, int64_t ld);
int cublasLtMatrixLayoutDestroy(void *layout);
int cublasLtMatmulPreferenceCreate(void **preference);
int cublasLtMatmulPreferenceDestroy(void *preference);
int cublasLtMatmulPreferenceSetAttribute(void *preference, int which, const void *value, size_t size);
int cublasLtMatmulAlgoGetHeuristic(void *handle, void *desc, void *a, void *b, void *c, void *d, void *preference,
                                   int n_wanted, struct lt_heuristic *found, int *n_found);
int cublasLtMatmul(void *handle, void *desc, const void *alpha, const void *a, void *a_layout, const void *b,
                   void *b_layout, const void *beta, const void *c, void *c_layout, void *d, void *d_layout,
                   const struct lt_algo *algo, void *workspace, size_t workspace_size, CUstream stream);

enum { M = 5, N_COL = 7, K = 33 };

struct product {
    void *handle, *desc, *a, *b, *d;
    CUdeviceptr pa, pb, pd;
};

static float element(int which, int i) {
    return (float)((i * 37 + which * 11) % 17 - 8) / 8;
}

static CUdeviceptr upload(int which, int n, CUstream stream) {
    uint16_t host[M * K + N_COL * K];
    for (int i = 0; i < n; i++) host[i] = half_to_bf16(element(which, i));
    const CUdeviceptr p = device_bytes(2 * (size_t)n);
    OK(cuMemcpyHtoDAsync(p, host, 2 * (size_t)n, stream));
    return p;
}

/* op(A) is M x K, op(B) is K x N_COL; both stored column-major, transposed or not. */
static struct product make(int32_t ta, int32_t tb, int d_type, CUstream stream) {
    struct product p = {0};
    CHECK(cublasLtCreate(&p.handle) == LT_SUCCESS);
    CHECK(cublasLtMatmulDescCreate(&p.desc, LT_COMPUTE_F32, LT_F32) == LT_SUCCESS);
    CHECK(cublasLtMatmulDescSetAttribute(p.desc, LT_DESC_TRANSA, &ta, sizeof ta) == LT_SUCCESS);
    CHECK(cublasLtMatmulDescSetAttribute(p.desc, LT_DESC_TRANSB, &tb, sizeof tb) == LT_SUCCESS);
    CHECK(cublasLtMatrixLayoutCreate(&p.a, LT_BF16, ta ? K : M, ta ? M : K, ta ? K : M) == LT_SUCCESS);
    CHECK(cublasLtMatrixLayoutCreate(&p.b, LT_BF16, tb ? N_COL : K, tb ? K : N_COL, tb ? N_COL : K) == LT_SUCCESS);
    CHECK(cublasLtMatrixLayoutCreate(&p.d, d_type, M, N_COL, M) == LT_SUCCESS);
    p.pa = upload(0, M * K, stream);
    p.pb = upload(1, N_COL * K, stream);
    p.pd = device_bytes((d_type == LT_F32 ? 4 : 2) * M * N_COL);
    return p;
}

static int multiply(const struct product *p, float alpha, float beta, CUstream stream) {
    return cublasLtMatmul(p->handle, p->desc, &alpha, (void *)(uintptr_t)p->pa, p->a, (void *)(uintptr_t)p->pb, p->b,
                          &beta, (void *)(uintptr_t)p->pd, p->d, (void *)(uintptr_t)p->pd, p->d, NULL, NULL, 0, stream);
}

static double exact(int32_t ta, int32_t tb, int row, int col) {
    double sum = 0;
    for (int k = 0; k < K; k++)
        sum +=
            (double)element(0, ta ? k + row * K : row + k * M) * (double)element(1, tb ? col + k * N_COL : k + col * K);
    return sum;
}

static void all_transposes(void) {
    start();
    CUstream stream = new_stream();
    for (int t = 0; t < 4; t++) {
        float out[M * N_COL];
        const struct product p = make(t & 1, t >> 1, LT_F32, stream);
        CHECK(multiply(&p, 2, 0, stream) == LT_SUCCESS);
        CHECK(multiply(&p, 1, 0.5f, stream) == LT_SUCCESS);
        OK(cuStreamSynchronize(stream));
        OK(cuMemcpyDtoH(out, p.pd, sizeof out));
        for (int i = 0; i < M * N_COL; i++) CHECK(fabs((double)out[i] - 2 * exact(t & 1, t >> 1, i % M, i / M)) < 1e-5);
    }
}

static void bf16_with_bias(void) {
    start();
    CUstream stream = new_stream();
    uint16_t out[M * N_COL], bias[M];
    const struct product p = make(1, 0, LT_BF16, stream);
    const CUdeviceptr pbias = device_bytes(sizeof bias);
    const uint32_t epilogue = LT_EPILOGUE_BIAS;
    for (int i = 0; i < M; i++) bias[i] = half_to_bf16((float)i);
    OK(cuMemcpyHtoDAsync(pbias, bias, sizeof bias, stream));
    CHECK(cublasLtMatmulDescSetAttribute(p.desc, LT_DESC_EPILOGUE, &epilogue, sizeof epilogue) == LT_SUCCESS);
    CHECK(cublasLtMatmulDescSetAttribute(p.desc, LT_DESC_BIAS_POINTER, &pbias, sizeof pbias) == LT_SUCCESS);
    CHECK(multiply(&p, 1, 0, stream) == LT_SUCCESS);
    OK(cuStreamSynchronize(stream));
    OK(cuMemcpyDtoH(out, p.pd, sizeof out));
    for (int i = 0; i < M * N_COL; i++) {
        const double want = exact(1, 0, i % M, i / M) + i % M;
        CHECK(fabs((double)half_from_bf16(out[i]) - want) <= fabs(want) * 0x1p-8 + 1e-6);
    }
}

static void inside_a_graph(void) {
    start();
    CUstream stream = new_stream();
    CUgraph graph = NULL;
    CUgraphExec exec = NULL;
    float out[M * N_COL];
    const struct product p = make(1, 0, LT_F32, stream);
    OK(cuMemsetD32Async(p.pd, 0, M * N_COL, stream));
    OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    CHECK(multiply(&p, 1, 1, stream) == LT_SUCCESS);
    OK(cuStreamEndCapture(stream, &graph));
    OK(cuGraphInstantiate(&exec, graph, 0));
    OK(cuGraphDestroy(graph));
    for (int i = 0; i < 3; i++) OK(cuGraphLaunch(exec, stream));
    OK(cuStreamSynchronize(stream));
    OK(cuGraphExecDestroy(exec));
    OK(cuMemcpyDtoH(out, p.pd, sizeof out));
    for (int i = 0; i < M * N_COL; i++) CHECK(fabs((double)out[i] - 3 * exact(1, 0, i % M, i / M)) < 1e-4);
}

static void uninitialised_operands_are_found(void) {
    start();
    CUstream stream = new_stream();
    struct product p = make(1, 0, LT_F32, stream);
    p.pa = device_bytes(2 * M * K);
    CHECK(multiply(&p, 1, 0, stream) == LT_SUCCESS);
    CHECK(cuStreamSynchronize(stream) != CUDA_SUCCESS);
    CHECK(reported("cublasLtMatmul A: some of its 330 bytes are uninitialised"));
}

static void a_short_output_is_found(void) {
    start();
    CUstream stream = new_stream();
    struct product p = make(1, 0, LT_F32, stream);
    p.pd = device_bytes(4 * M * N_COL - 4);
    CHECK(multiply(&p, 1, 0, stream) == LT_SUCCESS);
    CHECK(cuStreamSynchronize(stream) != CUDA_SUCCESS);
    CHECK(reported("cublasLtMatmul D of 140 bytes"));
}

static void operands_are_aligned_as_was_said(void) {
    start();
    CUstream stream = new_stream();
    const struct product p = make(1, 0, LT_F32, stream);
    const float one = 1, zero = 0;
    const uint32_t alignment = 16;
    const CUdeviceptr moved = device_bytes(2 * M * K + 48) + 48;
    struct lt_heuristic found;
    void *preference = NULL;
    int n = 0;
    OK(cuMemcpyDtoDAsync(moved, p.pa, 2 * M * K, stream));
    CHECK(cublasLtMatmulPreferenceCreate(&preference) == LT_SUCCESS);
    for (int said = 0; said < 2; said++) {
        if (said == 1)
            CHECK(cublasLtMatmulPreferenceSetAttribute(preference, LT_PREF_ALIGNMENT_A, &alignment, sizeof alignment) ==
                  LT_SUCCESS);
        CHECK(cublasLtMatmulAlgoGetHeuristic(p.handle, p.desc, p.a, p.b, p.d, p.d, preference, 1, &found, &n) ==
              LT_SUCCESS);
        for (int away = 0; away < 2; away++)
            CHECK(cublasLtMatmul(p.handle, p.desc, &one, (void *)(uintptr_t)(away == 1 ? moved : p.pa), p.a,
                                 (void *)(uintptr_t)p.pb, p.b, &zero, (void *)(uintptr_t)p.pd, p.d,
                                 (void *)(uintptr_t)p.pd, p.d, &found.algo, NULL, 0,
                                 stream) == (away > said ? LT_INVALID_VALUE : LT_SUCCESS));
    }
    OK(cuStreamSynchronize(stream));
    CHECK(cublasLtMatmulPreferenceDestroy(preference) == LT_SUCCESS);
}

static void what_is_not_computed_is_refused(void) {
    start();
    CUstream stream = new_stream();
    struct product p = make(1, 0, LT_F32, stream);
    struct lt_heuristic found;
    void *preference = NULL, *other = NULL;
    int n = 0;
    const uint32_t gelu = 32;
    CHECK(cublasLtMatmulPreferenceCreate(&preference) == LT_SUCCESS);
    CHECK(cublasLtMatmulAlgoGetHeuristic(p.handle, p.desc, p.a, p.b, p.d, p.d, preference, 1, &found, &n) ==
          LT_SUCCESS);
    CHECK(n == 1 && found.state == LT_SUCCESS && found.workspace_size == 0);
    CHECK(cublasLtMatrixLayoutCreate(&other, LT_F32, M + 1, N_COL, M + 1) == LT_SUCCESS);
    CHECK(cublasLtMatmulAlgoGetHeuristic(p.handle, p.desc, p.a, p.b, other, other, preference, 1, &found, &n) ==
          LT_INVALID_VALUE);
    CHECK(cublasLtMatmulDescSetAttribute(p.desc, LT_DESC_EPILOGUE, &gelu, sizeof gelu) == LT_SUCCESS);
    CHECK(multiply(&p, 1, 0, stream) == LT_NOT_SUPPORTED);
    CHECK(cublasLtMatmulPreferenceDestroy(preference) == LT_SUCCESS);
    CHECK(cublasLtMatrixLayoutDestroy(other) == LT_SUCCESS);
    CHECK(cublasLtMatmulDescDestroy(p.desc) == LT_SUCCESS && cublasLtDestroy(p.handle) == LT_SUCCESS);
}

static const struct row rows[] = {
    ROW("streams=late", all_transposes),
    ROW("streams=late,hostguard=1", all_transposes),
    ROW("streams=late", bf16_with_bias),
    ROW("streams=late", inside_a_graph),
    ROW("streams=late", uninitialised_operands_are_found),
    ROW("streams=late", a_short_output_is_found),
    ROW("streams=late", operands_are_aligned_as_was_said),
    ROW("streams=late", what_is_not_computed_is_refused),
};

int main(void) {
    return run_rows(rows, sizeof rows / sizeof rows[0]);
}
