/* Code of NVIDIA's that is known to be right on hardware, run by the emulator and compared with plain C: CUB,
 * cooperative groups and libcu++ (thirdparty_cub.cu, from CUDA's own headers) and CUTLASS (thirdparty_cutlass_sm90.cu,
 * where NT_CUTLASS_INCLUDE was found). The emulator and our kernels come from one reading of the PTX ISA; these do not.
 * Their shared memory is checked like ours, so a report would be a false alarm. */
#include "test_emu.h"

enum { THREADS = 128, ITEMS = 4, N = THREADS * ITEMS };

static CUmodule module;

static CUfunction kernel(const char *file, const char *name) {
    CUfunction function = NULL;
    if (module == NULL) {
        char *text = read_text(file);
        OK(cuModuleLoadData(&module, text));
        free(text);
    }
    OK(cuModuleGetFunction(&function, module, name));
    return function;
}

static int hash(int i) { // of no order, some equal
    const uint32_t h = (uint32_t)i * 2654435761u;
    return (int)((h ^ h >> 15) % 401);
}

/* ---- CUB and cooperative groups: one block ---- */

#ifdef THIRDPARTY_CUB

/* Runs the kernel on N items, as ints or as floats; out has n ints. */
static void run_block(const char *name, bool floats, int *in, int *out, int n) {
    float real[N];
    start();
    for (int i = 0; i < N; i++) {
        in[i] = hash(i);
        real[i] = (float)(in[i] - 200);
    }
    CUdeviceptr d_in = device_bytes(sizeof real), d_out = device_bytes(sizeof(int) * (size_t)n);
    OK(cuMemcpyHtoD(d_in, floats ? (const void *)real : in, sizeof real));
    void *params[] = {&d_in, &d_out};
    CUstream stream = new_stream();
    OK(cuLaunchKernel(kernel(THIRDPARTY_CUB, name), 1, 1, 1, THREADS, 1, 1, 0, stream, params, NULL));
    OK(cuStreamSynchronize(stream));
    OK(cuMemcpyDtoH(out, d_out, sizeof(int) * (size_t)n));
}

static void check_reduce(const char *name) {
    int in[N], out[3], sum = 0, part = 0, largest = 0;
    run_block(name, false, in, out, 3);
    for (int i = 0; i < N; i++) {
        sum += in[i];
        if (i % ITEMS == 0 && i / ITEMS < 100) part += in[i];
        if (in[i] > largest) largest = in[i];
    }
    CHECK(out[0] == sum && out[1] == part && out[2] == largest);
}
static void reduce_raking(void) {
    check_reduce("reduce_raking");
}
static void reduce_warps(void) {
    check_reduce("reduce_warps");
}

static void check_scan(const char *name) {
    int in[N], out[2 * N], sum = 0, largest = 0;
    run_block(name, false, in, out, 2 * N);
    for (int i = 0; i < N; i++) {
        if (in[i] > largest) largest = in[i];
        CHECK(out[i] == sum && out[N + i] == largest);
        sum += in[i];
    }
}
static void scan_raking(void) {
    check_scan("scan_raking");
}
static void scan_warps(void) {
    check_scan("scan_warps");
}

static void check_sort(const char *name) {
    int in[N], out[2 * N];
    bool seen[N] = {false};
    run_block(name, true, in, out, 2 * N);
    for (int i = 0; i < N; i++) {
        const int from = out[N + i];
        float key;
        memcpy(&key, &out[i], sizeof key);
        CHECK(from >= 0 && from < N && !seen[from] && key == (float)(in[from] - 200));
        seen[from] = true;
        if (i == 0) continue;
        const int before = out[N + i - 1];
        CHECK(in[before] < in[from] || (in[before] == in[from] && before < from)); /* stable */
    }
}
static void sort_radix(void) {
    check_sort("sort_radix");
}
static void sort_merge(void) {
    check_sort("sort_merge");
}

static void exchange_histogram(void) {
    int in[N], out[N + 16], bins[16] = {0};
    run_block("exchange_histogram", false, in, out, N + 16);
    for (int i = 0; i < N; i++) {
        const int thread = i % THREADS, item = i / THREADS;
        bins[(in[i] & 255) / 16]++;
        CHECK(out[thread * ITEMS + item] == in[i]);
    }
    CHECK(memcmp(bins, out + N, sizeof bins) == 0);
}

static int sum_of(const int *v, int from, int to) {
    int sum = 0;
    for (int i = from; i < to; i++) sum += v[i];
    return sum;
}

static void warps(void) {
    int in[N], out[4 * THREADS];
    run_block("warps", false, in, out, 4 * THREADS);
    for (int t = 0; t < THREADS; t++) {
        const int first = t / 32 * 32, *at = out + 4 * t;
        int end = t + 1;
        while (end < first + 32 && in[end] % 4 != 0) end++;
        if (t % 32 == 0) CHECK(at[0] == sum_of(in, t, t + 32));
        if (t % 8 == 0) CHECK(at[1] == sum_of(in, t, t + 8));
        CHECK(at[2] == sum_of(in, first, t));
        if (in[t] % 4 == 0 || t == first) CHECK(at[3] == sum_of(in, t, end));
    }
}

static void groups(void) {
    int in[N], out[8 * THREADS];
    run_block("groups", false, in, out, 8 * THREADS);
    for (int t = 0; t < THREADS; t++) {
        const int warp = t / 32 * 32, tile = t / 16 * 16, *at = out + 8 * t;
        int largest = 0, alike = 0, n_alike = 0, least = INT32_MAX, bits = 0, any = 0;
        float sum;
        memcpy(&sum, &at[1], sizeof sum);
        for (int i = tile; i < tile + 16; i++) largest = in[i] > largest ? in[i] : largest;
        for (int i = warp; i < warp + 32; i++) {
            const bool parity = (in[i] & 1) == (in[t] & 1);
            alike += parity ? in[i] : 0;
            n_alike += parity;
            if (in[i] % 5 == in[t] % 5 && in[i] < least) least = in[i];
            bits ^= in[i];
            any |= in[i] == 7;
        }
        CHECK(at[0] == largest && sum == (float)sum_of(in, warp, warp + 32) && at[2] == sum_of(in, tile, t));
        CHECK(at[3] == alike && at[4] == n_alike && at[5] == least && at[6] == bits && at[7] == any + 2);
    }
}

static void copies(void) {
    int in[N], out[N];
    run_block("copies", false, in, out, N);
    for (int i = 0; i < N; i++) {
        const int tile = i / THREADS * THREADS;
        CHECK(out[i] == in[tile + THREADS - 1 - i % THREADS] + sum_of(in, tile, tile + THREADS));
    }
}

#endif

/* ---- CUTLASS: y[m][n] = sum of x[m][k] w[n][k] ---- */

#ifdef THIRDPARTY_CUTLASS

static float number(int i) { // small integers: every order of the sums is exact
    return (float)(hash(i) % 17 - 8);
}

static CUdeviceptr bf16_numbers(int n, int from) {
    uint16_t *host = malloc(2 * (size_t)n);
    CHECK(host != NULL);
    for (int i = 0; i < n; i++) {
        const float f = number(from + i);
        uint32_t bits;
        memcpy(&bits, &f, sizeof bits);
        host[i] = (uint16_t)(bits >> 16);
    }
    const CUdeviceptr p = device_bytes(2 * (size_t)n);
    OK(cuMemcpyHtoD(p, host, 2 * (size_t)n));
    free(host);
    return p;
}

static void check_product(const char *name, int m, int n, int k, unsigned threads, unsigned shared) {
    enum { W_FROM = 100000 };
    const size_t bytes = sizeof(float) * (size_t)(m * n);
    CUdeviceptr x = bf16_numbers(m * k, 0), w = bf16_numbers(n * k, W_FROM), y = device_bytes(bytes);
    void *params[] = {&x, &w, &y, &m, &n, &k};
    CUfunction f = kernel(THIRDPARTY_CUTLASS, name);
    CUstream stream = new_stream();
    if (shared > 0) OK(cuFuncSetAttribute(f, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, (int)shared));
    OK(cuLaunchKernel(f, (unsigned)(m + 63) / 64, (unsigned)(n + 63) / 64, 1, threads, 1, 1, shared, stream, params,
                      NULL));
    OK(cuStreamSynchronize(stream));
    float *got = malloc(bytes);
    CHECK(got != NULL);
    OK(cuMemcpyDtoH(got, y, bytes));
    for (int i = 0; i < m; i++) {
        for (int j = 0; j < n; j++) {
            float want = 0;
            for (int l = 0; l < k; l++) want += number(i * k + l) * number(W_FROM + j * k + l);
            CHECK(got[i * n + j] == want);
        }
    }
    free(got);
}

static void gemm_sm80(void) {
    int size[2];
    start();
    CUdeviceptr d_size = device_bytes(sizeof size);
    void *params[] = {&d_size};
    CUstream stream = new_stream();
    OK(cuLaunchKernel(kernel(THIRDPARTY_CUTLASS, "gemm_sm80_size"), 1, 1, 1, 1, 1, 1, 0, stream, params, NULL));
    OK(cuStreamSynchronize(stream));
    OK(cuMemcpyDtoH(size, d_size, sizeof size));
    check_product("gemm_sm80", 128, 64, 96, (unsigned)size[1], (unsigned)size[0]);
    check_product("gemm_sm80", 50, 72, 104, (unsigned)size[1], (unsigned)size[0]); /* parts of tiles in all three */
}

static void gemm_sm90(void) {
    start();
    check_product("gemm_sm90", 64, 128, 192, 128, 0);
}

#endif

#ifdef THIRDPARTY_CUB
#define CUB(body) ROW("cc=80", body), ROW("cc=90,order=random,seed=3,copies=early", body)
#endif

int main(void) {
    static const struct row rows[] = {
#ifdef THIRDPARTY_CUB
        CUB(reduce_raking),
        CUB(reduce_warps),
        CUB(scan_raking),
        CUB(scan_warps),
        CUB(sort_radix),
        CUB(sort_merge),
        CUB(exchange_histogram),
        CUB(warps),
        CUB(groups),
        CUB(copies),
#endif
#ifdef THIRDPARTY_CUTLASS
        ROW("cc=90", gemm_sm80),
        ROW("cc=90,order=random,seed=3,copies=early", gemm_sm80),
        ROW("cc=90", gemm_sm90),
        ROW("cc=90,order=random,seed=3", gemm_sm90),
#endif
        {.name = NULL}};
    const size_t n = sizeof rows / sizeof rows[0] - 1;
#ifndef THIRDPARTY_CUTLASS
    puts("SKIP: CUTLASS's products: its headers were not found (NT_CUTLASS_INCLUDE)");
#endif
#ifndef THIRDPARTY_CUB
    puts("SKIP: CUB's primitives: this CUDA has no headers of CCCL");
#endif
    return n > 0 ? run_rows(rows, n) : 77;
}
