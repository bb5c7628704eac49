/* Cache pages between the layouts: bf16 rows lose nothing, int8 rows hold what int8 can hold. */
#include "cuda_staged_kv.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#ifndef NT_HAVE_CUDA

int main(void) {
    return 0; /* a build without the CUDA backend has no such pages */
}

#else

enum { N_PAGES = 3, N_KV = 2, D = 10, GAP = 32 };

static struct nt_kv_layer make(nt_bf16 **cache, size_t *bytes, uint32_t seed) {
    const int64_t stride = N_KV * nt_kv_head_elems(NT_KV_PAIRED, D) + GAP;
    *bytes = (size_t)(N_PAGES * stride) * sizeof(nt_bf16);
    *cache = malloc(*bytes);
    for (size_t i = 0; i < *bytes / 2; i++) (*cache)[i] = (nt_bf16)((i + seed) * 40503u >> 3); /* NaNs too */
    return (struct nt_kv_layer){*cache, stride, N_KV, D, NT_KV_PAIRED};
}

/* Where the contract says that an element of K or V lies in a head. */
static int64_t paired(int32_t slot, bool v, int32_t i) {
    const int32_t d_pad = nt_d_pad(D);
    return v ? NT_KV_PAGE * d_pad + (slot / 2 * d_pad + i) * 2 + slot % 2 : (i / 2 * NT_KV_PAGE + slot) * 2 + i % 2;
}

static void test_rows(void **state) {
    (void)state;
    nt_bf16 *cache;
    size_t bytes;
    const struct nt_kv_layer kv = make(&cache, &bytes, 7);
    const int64_t elems = nt_staged_elems(&kv, NT_KV_ROWS, N_PAGES), head = nt_kv_head_elems(NT_KV_ROWS, D);
    assert_int_equal(nt_staged_stride(&kv, NT_KV_ROWS), kv.page_stride);
    assert_int_equal(elems, N_PAGES * kv.page_stride - GAP);
    assert_int_equal(nt_staged_elems(&kv, NT_KV_ROWS, 0), 0);
    nt_bf16 *image = calloc((size_t)elems, sizeof *image), *was = malloc(bytes);
    memcpy(was, cache, bytes);
    nt_staged_to_device(&kv, NT_KV_ROWS, N_PAGES, image);
    for (int32_t slot = 0; slot < NT_KV_PAGE; slot++) {
        for (int32_t i = 0; i < D; i++) {
            const int64_t base = 2 * kv.page_stride + head; /* page 2, head 1 */
            assert_int_equal(image[base + slot * nt_d_pad(D) + i], cache[base + paired(slot, false, i)]);
            assert_int_equal(image[base + (NT_KV_PAGE + slot) * nt_d_pad(D) + i], cache[base + paired(slot, true, i)]);
        }
    }
    for (int64_t slot = 0; slot < NT_KV_PAGE; slot++) /* padding columns are the host's own */
        for (int32_t i = 0; i < D; i++)
            for (int32_t v = 0; v < 2; v++) cache[head + paired((int32_t)slot, v, i)] = 0;
    nt_staged_to_host(&kv, NT_KV_ROWS, N_PAGES, image, image);
    assert_memory_equal(cache, was, bytes);
    free(cache);
    free(was);
    free(image);
}

static void test_int8(void **state) {
    (void)state;
    nt_bf16 *cache;
    size_t bytes;
    const struct nt_kv_layer kv = make(&cache, &bytes, 7);
    const int64_t stride = nt_staged_stride(&kv, NT_KV_ROWS_INT8), head = nt_kv_head_elems(NT_KV_ROWS_INT8, D);
    const int64_t elems = nt_staged_elems(&kv, NT_KV_ROWS_INT8, N_PAGES);
    assert_int_equal(stride, N_KV * head + GAP);
    for (int64_t i = 0; i < (int64_t)(bytes / sizeof *cache); i++) cache[i] = 0;
    nt_bf16 *page = cache + kv.page_stride; /* page 1, head 0, slot 5 of V: multiples of 1/4, the largest 127/4 */
    for (int32_t i = 0; i < D; i++) page[paired(5, true, i)] = nt_f32_to_bf16(0.25f * (float)(i == 3 ? -127 : 12 * i));
    nt_bf16 *before = calloc((size_t)elems, sizeof *before), *after = calloc((size_t)elems, sizeof *after);
    nt_staged_to_device(&kv, NT_KV_ROWS_INT8, N_PAGES, before);
    const int8_t *row = (const int8_t *)(before + stride) + (NT_KV_PAGE + 5) * nt_d_pad(D);
    const float *scales =
        (const float *)(const void *)((const int8_t *)(before + stride) + 2 * NT_KV_PAGE * nt_d_pad(D));
    assert_true(scales[NT_KV_PAGE + 5] == 0.25f && scales[5] == 1.0f && scales[NT_KV_PAGE + 4] == 1.0f);
    for (int32_t i = 0; i < D; i++) assert_int_equal(row[i], i == 3 ? -127 : 12 * i);
    memcpy(after, before, (size_t)elems * sizeof *after);
    ((int8_t *)(after + stride))[7 * nt_d_pad(D) + 2] = 9; /* the device writes slot 7 of K */
    page[paired(5, true, 0)] = 77;                         /* a slot it leaves alone keeps its bits */
    nt_staged_to_host(&kv, NT_KV_ROWS_INT8, N_PAGES, before, after);
    assert_int_equal(page[paired(5, true, 0)], 77);
    assert_true(nt_bf16_to_f32(page[paired(7, false, 2)]) == 9.0f);
    assert_true(nt_bf16_to_f32(page[paired(7, false, 3)]) == 0.0f);
    free(cache);
    free(before);
    free(after);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows), cmocka_unit_test(test_int8)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
