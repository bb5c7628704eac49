/* The CUDA backend at work: memory, launches, graphs. Runs on the emulator, which reports what the driver would let
 * pass; each of its reports fails the call that ran the work. */
#include "cuda_bench.h"
#include "cuda_bodies.h"
#include "cuda_fixture.h"
#include "cuda_images.h"
#include "gemm_cublaslt.h"
#include <math.h>
#include <string.h>

#if !defined NT_HAVE_CUDA || !defined NT_CUDA_EMU

int main(void) {
    return 0; /* nothing to run on */
}

#else

/* The top bits of a product have no period that the ring's length is a multiple of. */
static void fill(unsigned char *p, size_t n, uint32_t seed) {
    for (size_t i = 0; i < n; i++) p[i] = (unsigned char)((i + seed) * 0x9e3779b97f4a7c15u >> 56);
}

/* Sizes around the segments and halves of the staging, and more than the ring in flight at once. */
static void test_copies(void **state) {
    (void)state;
    static const size_t sizes[] = {
        1, 63, 4096, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (2 << 20) - 1, (2 << 20) + 64, (5 << 20) + 12345, 20 << 20};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        const size_t n = sizes[s];
        unsigned char *host = malloc(n), *want = malloc(n);
        void *device = NULL;
        OK(be.memory->take(&be, n, "a test", &device));
        assert_int_equal((uintptr_t)device % 256, 0);
        OK(be.memory->download(&be, host, device, n));
        memset(want, 0, n);
        assert_memory_equal(host, want, n); /* taken memory is zeroed */
        fill(want, n, (uint32_t)s);
        memcpy(host, want, n);
        OK(be.memory->upload(&be, device, host, n));
        memset(host, 0xee, n); /* the source may be used again at once */
        OK(be.memory->download(&be, host, device, n));
        assert_memory_equal(host, want, n);
        OK(be.memory->zero(&be, (char *)device + n / 2, n - n / 2));
        memset(want + n / 2, 0, n - n / 2);
        OK(be.memory->download(&be, host, device, n));
        assert_memory_equal(host, want, n);
        be.memory->give(&be, device, n);
        free(host);
        free(want);
    }
}

struct watched {
    int points, wholes;
};

static nt_status watch(void *arg, nt_status (*passed)(void *point, bool *done), void *point) {
    struct watched *w = arg;
    passed ? w->points++ : w->wholes++;
    for (bool done = !passed; !done;) NT_TRY(passed(point, &done));
    return NT_OK;
}

/* Who waits for the device looks at its peers meanwhile: a full ring of uploads, a wait, a download. */
static void test_waits_are_watched(void **state) {
    (void)state;
    const size_t n = 40 << 20;
    struct watched w = {0};
    void *device = NULL, *host = calloc(1, n);
    OK(be.memory->take(&be, n, "a test", &device));
    be.watch = watch;
    be.watch_arg = &w;
    OK(be.memory->upload(&be, device, host, n));
    assert_true(w.points > 0 && w.wholes == 0);
    OK(be.memory->wait(&be));
    assert_int_equal(w.wholes, 1);
    OK(be.memory->download(&be, host, device, 64));
    assert_int_equal(w.wholes, 2);
    be.watch = NULL;
    be.memory->give(&be, device, n);
    free(host);
}

static void test_small_uploads(void **state) {
    (void)state;
    enum { N = 3000, EACH = 1000 };
    void *device = NULL;
    OK(be.memory->take(&be, (size_t)N * EACH, "a test", &device));
    unsigned char *want = malloc((size_t)N * EACH), *got = malloc((size_t)N * EACH), piece[EACH];
    for (uint32_t i = 0; i < N; i++) {
        fill(piece, EACH, i * 7);
        memcpy(want + (size_t)i * EACH, piece, EACH);
        OK(be.memory->upload(&be, (char *)device + (size_t)i * EACH, piece, EACH));
    }
    bool done = false;
    OK(be.memory->wait(&be));
    OK(be.memory->query(&be, &done));
    assert_true(done);
    OK(be.memory->download(&be, got, device, (size_t)N * EACH));
    assert_memory_equal(got, want, (size_t)N * EACH);
    be.memory->give(&be, device, (size_t)N * EACH);
    free(want);
    free(got);
}

/* A slot holds its own copy when it is asked for it, whatever was queued before and behind. */
static void test_slots(void **state) {
    (void)state;
    enum { BYTES = 5000, CALLS = 3 * NT_DOWNLOAD_SLOTS };
    unsigned char want[NT_DOWNLOAD_SLOTS][BYTES], got[BYTES];
    void *device = NULL;
    OK(be.memory->take(&be, BYTES, "a test", &device));
    for (int call = 0; call < CALLS; call++) {
        const int slot = call % NT_DOWNLOAD_SLOTS, last = (call + 1) % NT_DOWNLOAD_SLOTS;
        fill(want[slot], BYTES, (uint32_t)call);
        OK(be.memory->upload(&be, device, want[slot], BYTES));
        OK(be.memory->start_download(&be, slot, device, BYTES));
        if (call < NT_DOWNLOAD_SLOTS - 1) continue;
        OK(be.memory->finish_download(&be, last, got, BYTES));
        assert_memory_equal(got, want[last], BYTES);
    }
    be.memory->give(&be, device, BYTES);
}

/* A mark has passed when everything queued before it has run. */
static void test_mark(void **state) {
    (void)state;
    struct nt_cuda_mark *mark = NULL;
    void *device = NULL;
    bool passed = false, done = false;
    OK(be.memory->take(&be, 64, "a test", &device));
    OK(nt_cuda_mark_open(&be, &mark));
    for (int i = 0; i < 5; i++) OK(be.memory->zero(&be, device, 64));
    OK(nt_cuda_mark_set(mark));
    while (!passed) OK(nt_cuda_mark_passed(mark, &passed));
    OK(be.memory->query(&be, &done));
    assert_true(done);
    nt_cuda_mark_close(mark);
    nt_cuda_mark_close(NULL);
    be.memory->give(&be, device, 64);
}

static void test_memory_limits(void **state) {
    (void)state;
    const size_t before = be.cuda->taken, available = be.memory->available(&be);
    void *device = &be;
    assert_true(available > 0);
    assert_int_equal(be.memory->take(&be, (size_t)1 << 44, "far too much", &device), NT_E_NOMEM);
    assert_null(device);
    assert_non_null(strstr(nt_error_last()->text, "far too much"));
    assert_int_equal(be.cuda->taken, before);
    assert_int_equal(nt_cuda_workspace(&be, NT_CUDA_WORKSPACE_BYTES, "a test", &device), NT_OK);
    assert_int_equal(nt_cuda_workspace(&be, NT_CUDA_WORKSPACE_BYTES + 1, "a test", &device), NT_E_UNSUPPORTED);
}

enum { ROWS = 7, WIDTH = 20 };

struct rows {
    int32_t *chosen; /* device [ROWS] */
    uint32_t *from;  /* device [10 * ROWS, WIDTH] */
    uint32_t *to;    /* device [ROWS, WIDTH] */
};

static void take_rows(struct rows *r) {
    void *p[3];
    OK(be.memory->take(&be, ROWS * sizeof *r->chosen, "rows", &p[0]));
    OK(be.memory->take(&be, 10 * ROWS * WIDTH * sizeof *r->from, "from", &p[1]));
    OK(be.memory->take(&be, ROWS * WIDTH * sizeof *r->to, "to", &p[2]));
    *r = (struct rows){p[0], p[1], p[2]};
    uint32_t from[10 * ROWS * WIDTH];
    for (uint32_t i = 0; i < 10 * ROWS * WIDTH; i++) from[i] = i * 3 + 1;
    OK(be.memory->upload(&be, r->from, from, sizeof from));
}

static void give_rows(const struct rows *r) {
    be.memory->give(&be, r->chosen, ROWS * sizeof *r->chosen);
    be.memory->give(&be, r->from, 10 * ROWS * WIDTH * sizeof *r->from);
    be.memory->give(&be, r->to, ROWS * WIDTH * sizeof *r->to);
}

static void choose(const struct rows *r, int32_t step) {
    int32_t chosen[ROWS];
    for (int32_t i = 0; i < ROWS; i++) chosen[i] = i * 10 + step;
    OK(be.memory->upload(&be, r->chosen, chosen, sizeof chosen));
}

static nt_status gather(const struct rows *r) {
    const struct nt_gather_args a = {
        .from = r->from, .to = r->to, .rows = r->chosen, .bytes = WIDTH * sizeof *r->from, .n_rows = ROWS};
    return be.ops.gather(&be, &a);
}

static void expect_rows(const struct rows *r, int32_t step) {
    uint32_t to[ROWS * WIDTH];
    OK(be.memory->download(&be, to, r->to, sizeof to));
    for (int32_t i = 0; i < ROWS * WIDTH; i++) {
        const int32_t row = i / WIDTH * 10 + step;
        assert_int_equal(to[i], (uint32_t)(row * WIDTH + i % WIDTH) * 3 + 1);
    }
}

static void test_launch(void **state) {
    (void)state;
    struct rows r;
    take_rows(&r);
    choose(&r, 4);
    OK(gather(&r));
    expect_rows(&r, 4);
    give_rows(&r);
    assert_false(nt_cuda_begins_early(&be)); /* an older device: test_cuda_early.c */
}

/* A captured step runs on what lies in its fixed buffers when it is launched. */
static void test_graph(void **state) {
    (void)state;
    struct rows r;
    take_rows(&r);
    struct nt_cuda_graph *graph = NULL;
    void *device = NULL;
    choose(&r, 1);
    OK(nt_cuda_capture_begin(&be));
    assert_int_equal(be.memory->upload(&be, r.to, &r, 8), NT_E_INTERNAL);
    assert_int_equal(be.memory->download(&be, &device, r.to, 8), NT_E_INTERNAL);
    assert_int_equal(be.memory->wait(&be), NT_E_INTERNAL);
    assert_int_equal(be.memory->take(&be, 8, "a test", &device), NT_E_INTERNAL);
    OK(be.memory->zero(&be, r.to, 4));
    OK(gather(&r));
    OK(nt_cuda_capture_end(&be, NT_OK, &graph));
    assert_true(nt_cuda_graph_nodes(graph) >= 2);
    uint32_t to[ROWS * WIDTH], zeros[ROWS * WIDTH] = {0};
    OK(be.memory->download(&be, to, r.to, sizeof to));
    assert_memory_equal(to, zeros, sizeof to); /* recorded, not run */
    for (int32_t step = 0; step < 5; step++) {
        choose(&r, step);
        OK(nt_cuda_graph_launch(&be, graph));
        expect_rows(&r, step);
    }
    for (int32_t step = 5; step < 8; step++) { /* queued behind each other */
        choose(&r, step);
        OK(nt_cuda_graph_launch(&be, graph));
    }
    expect_rows(&r, 7);
    nt_cuda_graph_free(&be, graph);
    nt_cuda_graph_free(&be, NULL);
    give_rows(&r);
}

/* What went wrong while a step was recorded is told, not that the capture is void for it. */
static void test_broken_graph(void **state) {
    (void)state;
    struct rows r;
    bool done = false;
    take_rows(&r);
    choose(&r, 1);
    for (int i = 0; i < 2; i++) {
        struct nt_cuda_graph *graph = NULL;
        OK(nt_cuda_capture_begin(&be));
        OK(gather(&r));
        const nt_status st = i == 0 ? be.memory->query(&be, &done) : NT_FAIL(NT_E_NOMEM, "cuStreamQuery, say");
        assert_int_equal(nt_cuda_capture_end(&be, st, &graph), i == 0 ? NT_E_SYSTEM : NT_E_NOMEM);
        assert_non_null(strstr(nt_error_last()->text, "cuStreamQuery"));
        assert_null(graph);
    }
    OK(gather(&r));
    expect_rows(&r, 1);
    give_rows(&r);
}

static nt_status launch_graph(struct nt_backend *b, void *graph) {
    return nt_cuda_graph_launch(b, graph);
}

static void test_time(void **state) {
    (void)state;
    struct rows r;
    take_rows(&r);
    choose(&r, 2);
    struct nt_cuda_graph *graph = NULL;
    OK(nt_cuda_capture_begin(&be));
    OK(gather(&r));
    OK(nt_cuda_capture_end(&be, NT_OK, &graph));
    double seconds = -1;
    OK(nt_cuda_time(&be, launch_graph, graph, 3, &seconds));
    assert_true(seconds >= 0);
    expect_rows(&r, 2);
    nt_cuda_graph_free(&be, graph);
    give_rows(&r);
}

static void test_matrix_rate(void **state) {
    (void)state;
    const size_t taken = be.cuda->taken;
    double rate = 0;
    OK(nt_cuda_matrix_rate(&be, &rate));
    assert_true(rate > 0);
    assert_int_equal(be.cuda->taken, taken);
}

static void test_launch_checks(void **state) {
    (void)state;
    char args[8192] = {0};
    const enum nt_cuda_kernel kernel = NT_CUDA_gather;
    const int64_t wide[3] = {1, 70000, 1}, negative[3] = {-1, 1, 1}, none[3] = {0, 1, 1}, one[3] = {1, 1, 1};
    const size_t bytes = be.cuda->functions[kernel].args_bytes > 0 ? be.cuda->functions[kernel].args_bytes : 64;
    assert_int_equal(nt_cuda_launch(&be, kernel, none, 32, 0, args, bytes), NT_OK);
    assert_int_equal(nt_cuda_launch(&be, kernel, wide, 32, 0, args, bytes), NT_E_UNSUPPORTED);
    assert_int_equal(nt_cuda_launch(&be, kernel, negative, 32, 0, args, bytes), NT_E_UNSUPPORTED);
    assert_int_equal(nt_cuda_launch(&be, kernel, one, 0, 0, args, bytes), NT_E_INTERNAL);
    assert_int_equal(nt_cuda_launch(&be, kernel, one, 2048, 0, args, bytes), NT_E_INTERNAL);
    assert_int_equal(nt_cuda_launch(&be, kernel, one, 32, 1 << 20, args, bytes), NT_E_UNSUPPORTED);
    assert_non_null(strstr(nt_error_last()->text, "dynamic shared memory"));
    assert_int_equal(nt_cuda_launch(&be, kernel, one, 32, 0, args, sizeof args), NT_E_INTERNAL);
    assert_non_null(strstr(nt_error_last()->text, nt_cuda_kernel_name(kernel)));
}

static void test_kernels(void **state) {
    (void)state;
    int n_images = 0;
    const struct nt_cuda_image *images = nt_cuda_images(&n_images);
    assert_true(n_images > 0 && NT_CUDA_KERNEL_COUNT > 0);
    for (int i = 0; i < n_images; i++) {
        assert_true(images[i].fatbin_end > images[i].fatbin);
        assert_int_equal(*images[i].ptx_end, 0);
        assert_non_null(strstr((const char *)images[i].ptx, ".version"));
    }
    for (int k = 0; k < NT_CUDA_KERNEL_COUNT; k++) {
        struct nt_cuda_kernel_facts f;
        OK(nt_cuda_kernel_facts(&be, (enum nt_cuda_kernel)k, 32, 0, &f));
        if (!nt_cuda_has(&be, (enum nt_cuda_kernel)k)) {
            assert_non_null(strstr(nt_cuda_kernel_image((enum nt_cuda_kernel)k), "_sm90")); /* only these may lack */
            continue;
        }
        assert_true(f.max_threads >= 32 && f.max_threads <= 1024 && f.blocks_per_sm > 0);
    }
}

/* ---- cuBLASLt ---- */

struct product {
    struct nt_packed w;
    struct nt_gemm_args args;
    nt_bf16 *x, *weights; /* host */
    float *bias, *y0;
    void *device[4];
    size_t bytes[4];
};

static void *on_device(struct product *p, int i, const void *from, size_t bytes) {
    p->bytes[i] = bytes;
    OK(be.memory->take(&be, bytes, "a product", &p->device[i]));
    OK(be.memory->upload(&be, p->device[i], from, bytes));
    return p->device[i];
}

static float number(uint32_t i) {
    return (float)((i * 2654435761u >> 20) % 17) * 0.125f - 1.0f; /* exact in bf16 */
}

static void make_product(struct product *p, int32_t n_tok, int32_t n, int32_t k, enum nt_gemm_out out, bool bias) {
    const size_t element = out == NT_GEMM_STORE_BF16 ? 2 : 4;
    *p = (struct product){
        .w = {.format = NT_WEIGHT_BF16_ROWS, .n = n, .k = k}
    };
    const size_t w_bytes = nt_packed_bytes(p->w.format, n, k), x_bytes = (size_t)(n_tok * k) * 2;
    p->weights = calloc(1, w_bytes);
    p->x = calloc(1, x_bytes);
    p->bias = calloc((size_t)n, sizeof *p->bias);
    p->y0 = calloc((size_t)(n_tok * n), sizeof *p->y0);
    for (int32_t i = 0; i < n * k; i++) p->weights[i] = nt_f32_to_bf16(number((uint32_t)i));
    for (int32_t i = 0; i < n_tok * k; i++) p->x[i] = nt_f32_to_bf16(number((uint32_t)i + 99));
    for (int32_t i = 0; i < n; i++) p->bias[i] = number((uint32_t)i + 7);
    for (int32_t i = 0; i < n_tok * n; i++) p->y0[i] = number((uint32_t)i + 3);
    p->w.data = on_device(p, 0, p->weights, w_bytes);
    p->args = (struct nt_gemm_args){.w = &p->w, .ldx = k, .ldy = n, .n_tok = n_tok, .out = out};
    p->args.x = on_device(p, 1, p->x, x_bytes);
    p->args.y = on_device(p, 2, p->y0, (size_t)(n_tok * n) * element); /* bf16: garbage that is overwritten */
    p->args.bias = bias ? on_device(p, 3, p->bias, (size_t)n * sizeof *p->bias) : NULL;
}

static void drop_product(struct product *p) {
    for (int i = 0; i < 4; i++) be.memory->give(&be, p->device[i], p->bytes[i]);
    free(p->weights);
    free(p->x);
    free(p->bias);
    free(p->y0);
}

static void check_product(struct product *p) {
    const int32_t n = p->w.n, k = p->w.k;
    const bool bf16 = p->args.out == NT_GEMM_STORE_BF16;
    void *y = malloc(p->bytes[2]);
    assert_true(nt_cublaslt_takes(&be, &p->args));
    OK(nt_cublaslt_gemm(&be, &p->args));
    OK(be.memory->download(&be, y, p->args.y, p->bytes[2]));
    for (int32_t i = 0; i < p->args.n_tok * n; i++) {
        double want = p->args.bias ? (double)p->bias[i % n] : 0;
        if (p->args.out == NT_GEMM_ADD_F32) want += (double)p->y0[i];
        for (int32_t j = 0; j < k; j++)
            want += (double)nt_bf16_to_f32(p->x[i / n * k + j]) * (double)nt_bf16_to_f32(p->weights[i % n * k + j]);
        const double got = bf16 ? (double)nt_bf16_to_f32(((nt_bf16 *)y)[i]) : (double)((float *)y)[i];
        if (fabs(got - want) > (bf16 ? 4e-3 * fabs(want) : 1e-5) + 1e-6) fail_msg("%d: %g, not %g", i, got, want);
    }
    free(y);
}

static void test_cublaslt(void **state) {
    (void)state;
    static const struct {
        int32_t n_tok, n, k;
        enum nt_gemm_out out;
        bool bias;
    } rows[] = {
        {64, 96, 64, NT_GEMM_STORE_F32,  false},
        {65, 96, 64, NT_GEMM_STORE_F32,  true },
        {70, 40, 24, NT_GEMM_ADD_F32,    false},
        {64, 40, 24, NT_GEMM_ADD_F32,    true },
        {64, 64, 32, NT_GEMM_STORE_BF16, false}
    };
    struct product p;
    make_product(&p, 64, 64, 32, NT_GEMM_STORE_F32, false);
    assert_false(nt_cublaslt_takes(&be, &p.args)); /* not enabled */
    OK(nt_cublaslt_enable(&be, 64));
    assert_true(nt_cublaslt_takes(&be, &p.args) && nt_cublaslt_version(&be) > 0);
    p.args.n_tok = 63;
    assert_false(nt_cublaslt_takes(&be, &p.args));
    p.args.n_tok = 64;
    p.args.ldx = 33;
    assert_false(nt_cublaslt_takes(&be, &p.args));
    p.args.ldx = 32;
    p.args.out = NT_GEMM_SWIGLU_BF16;
    assert_false(nt_cublaslt_takes(&be, &p.args));
    drop_product(&p);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        make_product(&p, rows[i].n_tok, rows[i].n, rows[i].k, rows[i].out, rows[i].bias);
        check_product(&p);
        drop_product(&p);
    }
}

/* The library takes operands for aligned to 256 bytes where it is not told that arenas align to 64. */
static void test_cublaslt_alignment(void **state) {
    (void)state;
    enum { AWAY = 16 };
    struct product p;
    void *moved = NULL;
    make_product(&p, 64, 40, 24, NT_GEMM_STORE_F32, false);
    OK(nt_cublaslt_enable(&be, 64));
    OK(be.memory->take(&be, p.bytes[1] + AWAY, "a product", &moved));
    p.args.x = (const nt_bf16 *)(const void *)((char *)moved + AWAY);
    OK(be.memory->upload(&be, (char *)moved + AWAY, p.x, p.bytes[1]));
    check_product(&p);
    p.args.x++;
    assert_int_equal(nt_cublaslt_gemm(&be, &p.args), NT_E_SYSTEM);
    assert_string_equal(nt_error_last()->text, "cublasLtMatmul failed: CUBLAS_STATUS_INVALID_VALUE (7)");
    be.memory->give(&be, moved, p.bytes[1] + AWAY);
    drop_product(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copies),        cmocka_unit_test(test_waits_are_watched),
        cmocka_unit_test(test_small_uploads), cmocka_unit_test(test_memory_limits),
        cmocka_unit_test(test_launch),        cmocka_unit_test(test_graph),
        cmocka_unit_test(test_broken_graph),  cmocka_unit_test(test_launch_checks),
        cmocka_unit_test(test_time),          cmocka_unit_test(test_kernels),
        cmocka_unit_test(test_cublaslt),      cmocka_unit_test(test_cublaslt_alignment),
        cmocka_unit_test(test_matrix_rate),   cmocka_unit_test(test_slots),
        cmocka_unit_test(test_mark),
    };
    return cmocka_run_group_tests(tests, open_be, close_be);
}

#endif
