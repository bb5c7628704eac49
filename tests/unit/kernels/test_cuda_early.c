/* Launches that begin before the one before them has ended, on an emulated device of compute capability 9.0: behind
 * what they do, the sums of products whose weights and inputs the launch before has just written, and other ways of
 * launching. The emulator reports what a thread does before it has waited. */
#include "cuda_bodies.h"
#include "cuda_fixture.h"
#include "ops_bwd.h"
#include <string.h>

#if !defined NT_HAVE_CUDA || !defined NT_CUDA_EMU

int main(void) {
    return 0; /* nothing to run on */
}

#else

enum { TOK = 3, WIDTH = 64 };

static struct {
    float *numbers, *y; // [WIDTH, WIDTH] to become weights; [TOK, WIDTH]
    nt_bf16 *x, *mid;   // [TOK, WIDTH]
    struct nt_packed w;
} on; /* device memory */

static size_t w_bytes(void) {
    return nt_packed_bytes(NT_WEIGHT_BF16_ROWS, WIDTH, WIDTH);
}

static void *device(size_t bytes) {
    void *p = NULL;
    OK(be.memory->take(&be, bytes, "a test", &p));
    return p;
}

static float number(int32_t i) {
    return (float)(i * 7 % 13 - 6) * 0.25f; /* exact in bf16, and so are the sums in f32 */
}

static void take(void) {
    float numbers[WIDTH * WIDTH];
    nt_bf16 x[TOK * WIDTH];
    for (int32_t i = 0; i < WIDTH * WIDTH; i++) numbers[i] = number(i);
    for (int32_t i = 0; i < TOK * WIDTH; i++) x[i] = nt_f32_to_bf16(number(i + 5));
    on.numbers = device(sizeof numbers);
    on.x = device(sizeof x);
    on.mid = device(sizeof x);
    on.y = device((size_t)TOK * WIDTH * sizeof *on.y);
    on.w = (struct nt_packed){.format = NT_WEIGHT_BF16_ROWS, .n = WIDTH, .k = WIDTH, .data = device(w_bytes())};
    OK(be.memory->upload(&be, on.numbers, numbers, sizeof numbers));
    OK(be.memory->upload(&be, on.x, x, sizeof x));
}

static void give(void) {
    be.memory->give(&be, on.numbers, (size_t)WIDTH * WIDTH * sizeof *on.numbers);
    be.memory->give(&be, on.x, (size_t)TOK * WIDTH * sizeof *on.x);
    be.memory->give(&be, on.mid, (size_t)TOK * WIDTH * sizeof *on.mid);
    be.memory->give(&be, on.y, (size_t)TOK * WIDTH * sizeof *on.y);
    be.memory->give(&be, (void *)(uintptr_t)on.w.data, w_bytes());
}

static void pack(void) {
    const struct nt_pack_args a = {.x = on.numbers, .w = &on.w, .scale = 1, .n = WIDTH, .k = WIDTH};
    OK(be.ops.pack(&be, &a));
}

static struct nt_gemm_args product_of(const struct nt_packed *w, const nt_bf16 *x, void *y, enum nt_gemm_out out) {
    return (struct nt_gemm_args){.w = w, .x = x, .ldx = WIDTH, .y = y, .ldy = WIDTH, .n_tok = TOK, .out = out};
}
/* mid = x w^T, y = mid second^T. */
static void multiply_by(const struct nt_packed *second) {
    const struct nt_gemm_args a = product_of(&on.w, on.x, on.mid, NT_GEMM_STORE_BF16),
                              b = product_of(second, on.mid, on.y, NT_GEMM_STORE_F32);
    OK(be.ops.gemm(&be, &a));
    OK(be.ops.gemm(&be, &b));
}
static void multiply(void) {
    multiply_by(&on.w);
}

static float product(const float *x, int32_t column) {
    float sum = 0;
    for (int32_t k = 0; k < WIDTH; k++) sum += x[k] * number(column * WIDTH + k);
    return sum;
}

static void expect_sums(void) {
    float y[TOK * WIDTH], x[WIDTH], mid[WIDTH];
    OK(be.memory->download(&be, y, on.y, sizeof y));
    for (int32_t t = 0; t < TOK; t++) {
        for (int32_t i = 0; i < WIDTH; i++) x[i] = number(t * WIDTH + i + 5);
        for (int32_t i = 0; i < WIDTH; i++) mid[i] = nt_bf16_to_f32(nt_f32_to_bf16(product(x, i)));
        for (int32_t i = 0; i < WIDTH; i++) assert_true(y[t * WIDTH + i] == product(mid, i));
    }
}

/* Products read weights before they wait: not those that the launch before them wrote. */
static void test_weights_just_written(void **state) {
    (void)state;
    take();
    pack();
    multiply();
    assert_true(be.cuda->behind_launch);
    multiply();
    expect_sums();
    give();
}

/* Integer weights, all zero: what matters is when their product reads the input that the launch before wrote. */
static void test_integer_weights(void **state) {
    (void)state;
    const size_t bytes = nt_packed_bytes(NT_WEIGHT_INT4, WIDTH, WIDTH);
    const struct nt_packed zeros = {.format = NT_WEIGHT_INT4, .n = WIDTH, .k = WIDTH, .data = device(bytes)};
    float y[TOK * WIDTH], none[TOK * WIDTH] = {0};
    take();
    pack();
    multiply_by(&zeros);
    OK(be.memory->download(&be, y, on.y, sizeof y));
    assert_memory_equal(y, none, sizeof y);
    be.memory->give(&be, (void *)(uintptr_t)zeros.data, bytes);
    give();
}

static void test_what_is_no_launch(void **state) {
    (void)state;
    struct nt_cuda_graph *graph = NULL;
    take();
    pack();
    OK(nt_cuda_capture_begin(&be));
    multiply();
    assert_true(be.cuda->behind_launch);
    multiply();
    OK(be.memory->zero(&be, on.y, sizeof *on.y));
    assert_false(be.cuda->behind_launch);
    multiply();
    OK(nt_cuda_capture_end(&be, NT_OK, &graph));
    assert_false(be.cuda->behind_launch);
    OK(nt_cuda_graph_launch(&be, graph));
    expect_sums();
    multiply();
    OK(nt_cuda_graph_launch(&be, graph));
    assert_false(be.cuda->behind_launch);
    expect_sums();
    nt_cuda_graph_free(&be, graph);
    give();
}

static void test_one_by_one(void **state) {
    (void)state;
    take();
    pack();
    assert_true(nt_cuda_begins_early(&be));
    be.cuda->one_by_one = true;
    assert_false(nt_cuda_begins_early(&be));
    multiply();
    multiply();
    expect_sums();
    be.cuda->one_by_one = false;
    give();
}

/* Before CUDA 12.3 they could not be captured. */
static void test_older_driver(void **state) {
    (void)state;
    const struct nt_cuda_facts facts = be.cuda->facts;
    be.cuda->facts.driver = 12020;
    assert_false(nt_cuda_begins_early(&be));
    be.cuda->facts = facts;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weights_just_written), cmocka_unit_test(test_integer_weights),
        cmocka_unit_test(test_what_is_no_launch),    cmocka_unit_test(test_one_by_one),
        cmocka_unit_test(test_older_driver),
    };
    setenv("NT_EMU", "cc=90", 0);
    return cmocka_run_group_tests(tests, open_be, close_be);
}

#endif
