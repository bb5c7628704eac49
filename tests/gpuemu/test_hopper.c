/* A product by TMA, mbarriers and wgmma, compiled by nvcc from kernels/hopper_sm90.cu: exact in every order and timing,
 * and with each of its mistakes caught, by a report or by a wrong result. */
#include "test_emu.h"

enum { M = 128, N = 64, K = 7 * 64 };

static uint16_t bf16(int v) {
    const float f = (float)v;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return (uint16_t)(bits >> 16);
}
static int a_at(int m, int k) {
    return (m * 7 + k * 5) % 13 - 6;
}
static int b_at(int n, int k) {
    return (n * 3 + k * 11) % 15 - 7;
}

static void make_map(CUtensorMap *map, int rows, int (*at)(int, int)) {
    uint16_t *host = malloc((size_t)rows * K * 2);
    CHECK(host != NULL);
    for (int r = 0; r < rows; r++)
        for (int k = 0; k < K; k++) host[r * K + k] = bf16(at(r, k));
    const CUdeviceptr matrix = device_bytes((size_t)rows * K * 2);
    OK(cuMemcpyHtoD(matrix, host, (size_t)rows * K * 2));
    free(host);
    const cuuint64_t dim[] = {K, (cuuint64_t)rows}, stride[] = {K * 2};
    const cuuint32_t box[] = {64, 64}, step[] = {1, 1};
    OK(cuTensorMapEncodeTiled(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, (void *)(uintptr_t)matrix, dim, stride, box,
                              step, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                              CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE));
}

static CUfunction kernel(const char *mistake) {
    CUmodule module = NULL;
    CUfunction function = NULL;
    char name[64];
    FILE *f = fopen(EMU_PTX_DIR "/hopper_sm90.ptx", "rb");
    char *text = calloc(1, 4 << 20);
    CHECK(f != NULL && text != NULL && fread(text, 1, (4 << 20) - 1, f) > 0);
    fclose(f);
    OK(cuModuleLoadData(&module, text));
    free(text);
    snprintf(name, sizeof name, "product_%s", mistake);
    OK(cuModuleGetFunction(&function, module, name));
    return function;
}

/* Whether it ran and every element is right. */
static bool right(const char *mistake) {
    static CUtensorMap a, b;
    static float out[M][N];
    int n = N, n_step = K / 64;
    start();
    make_map(&a, M, a_at);
    make_map(&b, N, b_at);
    CUdeviceptr c = device_bytes(sizeof out);
    CUfunction function = kernel(mistake);
    CUstream stream = new_stream();
    void *params[] = {&c, &a, &b, &n, &n_step};
    const unsigned shared = 6 * 8192 + 1024;
    OK(cuFuncSetAttribute(function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, (int)shared));
    OK(cuLaunchKernel(function, N / 64, M / 64, 1, 160, 1, 1, shared, stream, params, NULL));
    if (cuStreamSynchronize(stream) != CUDA_SUCCESS) return false;
    OK(cuMemcpyDtoH(out, c, sizeof out));
    for (int m = 0; m < M; m++)
        for (int i = 0; i < N; i++) {
            int want = 0;
            for (int k = 0; k < K; k++) want += a_at(m, k) * b_at(i, k);
            if (out[m][i] != (float)want) return false;
        }
    return true;
}

static void product(void) {
    CHECK(right("NONE"));
}

static const char *mistake;
static void is_caught(void) {
    CHECK(!right(mistake));
    emu_report_clear();
}

/* Each configuration alone must catch what it is listed with. */
static void mistakes(void **state) {
    static const char *const names[] = {"RELEASED_EARLY", "ONE_WARP_RELEASES", "NO_FULL_WAIT",  "NO_EMPTY_WAIT",
                                        "HALF_THE_BYTES", "WRONG_STRIDE",      "WRONG_SWIZZLE", "NO_LAST_WAIT",
                                        "NO_FENCE",       "SWAPPED_OPERANDS",  "STALE_PARITY",  "NO_INIT_FENCE"};
    static const char *const options[] = {"cc=90", "cc=90,order=backward", "cc=90,order=random,copies=random,seed=11"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        for (size_t j = 0; j < sizeof options / sizeof options[0]; j++) {
            mistake = names[i];
            if (run_case(options[j], is_caught) != 0) fail_msg("%s is not caught with %s", names[i], options[j]);
        }
}

static const struct row rows[] = {
    ROW("cc=90", product),
    ROW("cc=90,order=backward", product),
    ROW("cc=90,copies=early", product),
    ROW("cc=90,copies=early,order=backward", product),
    ROW("cc=90,order=random,copies=random,seed=2", product),
    ROW("cc=90,order=random,copies=random,seed=3,shuffle=1", product),
    ROW("cc=90,order=random,seed=4", product),
};

int main(void) {
    const struct CMUnitTest others[] = {cmocka_unit_test(mistakes)};
    return run_rows(rows, sizeof rows / sizeof rows[0]) + cmocka_run_group_tests(others, NULL, NULL);
}
