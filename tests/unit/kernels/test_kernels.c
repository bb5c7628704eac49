/* CPU levels, packing, the self-test and the backend table. */
#include "cpu_bodies.h"
#include "gemm_bench.h"
#include "peak.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

static void test_isa_names(void **state) {
    (void)state;
    enum nt_isa isa = NT_ISA_AVX512;
    assert_int_equal(nt_isa_choose("portable", &isa), NT_OK);
    assert_int_equal(isa, NT_ISA_PORTABLE);
    assert_int_equal(nt_isa_choose("auto", &isa), NT_OK);
    assert_int_equal(isa, nt_isa_detect());
    assert_int_equal(nt_isa_choose("sse9", &isa), NT_E_CONFIG);
    assert_non_null(strstr(nt_error_last()->text, "portable, avx2 or avx512"));
    for (int i = 0; i < NT_ISA_COUNT; i++) {
        const nt_status st = nt_isa_choose(nt_isa_name((enum nt_isa)i), &isa);
        assert_int_equal(st, i <= (int)nt_isa_detect() ? NT_OK : NT_E_UNSUPPORTED);
        if (st == NT_OK)
            assert_int_equal(isa, i);
        else
            assert_non_null(strstr(nt_error_last()->text, "lacks: "));
    }
}

/* /proc/cpuinfo is a second opinion. */
static void test_isa_against_kernel(void **state) {
    (void)state;
    FILE *f = fopen("/proc/cpuinfo", "r");
    if (!f) skip();
    char line[8192], text[2048];
    bool flags = false, avx2 = false, avx512 = false;
    while (!flags && fgets(line, sizeof line, f)) {
        flags = strncmp(line, "flags", 5) == 0;
        if (!flags) continue;
        avx2 = strstr(line, " avx2 ") && strstr(line, " fma ") && strstr(line, " f16c ") && strstr(line, " bmi2 ");
        avx512 = avx2 && strstr(line, " avx512f ") && strstr(line, " avx512bw ") && strstr(line, " avx512dq ") &&
                 strstr(line, " avx512vl ") && strstr(line, " avx512_bf16 ") && strstr(line, " avx512_vnni ");
    }
    fclose(f);
    if (!flags) skip();
    assert_int_equal(nt_isa_detect(), avx512 ? NT_ISA_AVX512 : avx2 ? NT_ISA_AVX2 : NT_ISA_PORTABLE);
    nt_cpu_describe(text, sizeof text);
    assert_int_equal(strstr(text, " avx2") != NULL, avx2);
    char small[8];
    nt_cpu_describe(small, sizeof small);
    assert_true(strlen(small) < sizeof small);
}

static void test_packing(void **state) {
    (void)state;
    enum { N = 70, K = 6 };
    const struct nt_packed w = {.format = NT_WEIGHT_BF16, .n = N, .k = K};
    assert_int_equal(nt_packed_bytes(NT_WEIGHT_BF16, N, K), 96 * 6 * 2);
    assert_int_equal(nt_packed_bytes(NT_WEIGHT_BF16, 49152, 14336), 49152ull * 14336 * 2);
    nt_bf16 data[96 * K] = {0}, row[K];
    for (int32_t r = 0; r < N; r++) {
        for (int32_t k = 0; k < K; k++) row[k] = (nt_bf16)(1 + r * K + k);
        nt_pack_row(&w, data, r, row);
    }
    for (int32_t r = 0; r < 96; r++)
        for (int32_t k = 0; k < K; k++)
            assert_int_equal(data[((r / 32 * (K / 2) + k / 2) * 32 + r % 32) * 2 + k % 2], r < N ? 1 + r * K + k : 0);
}

static void test_gated_rows(void **state) {
    (void)state;
    enum { D_FF = 100 };
    bool used[2 * 112] = {0};
    for (int32_t j = 0; j < D_FF; j++) {
        assert_int_equal(nt_packed_gate_row(j) / NT_PANEL, nt_packed_up_row(j) / NT_PANEL);
        assert_int_equal(nt_packed_up_row(j) - nt_packed_gate_row(j), NT_PANEL / 2);
        assert_int_equal(nt_packed_gate_row(j) / NT_PANEL * NT_PANEL / 2 + nt_packed_gate_row(j) % NT_PANEL, j);
        assert_false(used[nt_packed_gate_row(j)] || used[nt_packed_up_row(j)]);
        used[nt_packed_gate_row(j)] = used[nt_packed_up_row(j)] = true;
    }
}

static nt_status no_op(struct nt_backend *be, const struct nt_gemm_args *args) {
    (void)be;
    (void)args;
    return NT_OK;
}

static void test_selftest(void **state) {
    (void)state;
    struct nt_pool *pool;
    assert_int_equal(nt_pool_new(&pool, 2, false, 0, 1), NT_OK);
    for (int i = 0; i <= (int)nt_isa_detect(); i++) {
        struct nt_backend be;
        struct nt_strbuf report = NT_STRBUF_INIT;
        assert_int_equal(nt_backend_open_cpu(&be, (enum nt_isa)i, pool), NT_OK);
        if (nt_ops_selftest(&be, &report) != NT_OK) fail_msg("%s", nt_strbuf_cstr(&report));
        for (int op = 0; op < NT_OP_COUNT; op++)
            assert_non_null(strstr(nt_strbuf_cstr(&report), nt_op_name((enum nt_op)op)));
        be.ops.gemm = no_op; /* a body that does nothing is found */
        assert_int_equal(nt_ops_selftest(&be, &report), NT_E_INTERNAL);
        assert_non_null(strstr(nt_error_last()->text, "gemm"));
        nt_strbuf_release(&report);
        nt_backend_close(&be);
    }
    nt_pool_free(pool);
}

static void test_backend_table(void **state) {
    (void)state;
    struct nt_pool *pool;
    struct nt_backend be;
    assert_int_equal(nt_pool_new(&pool, 1, false, 0, 1), NT_OK);
    for (int i = 0; i < NT_ISA_COUNT; i++) {
        assert_int_equal(nt_backend_open_cpu(&be, (enum nt_isa)i, pool), NT_OK);
#define NT_OP(name, doc)                                                                                               \
    assert_ptr_equal(be.ops.name, nt_cpu_bodies(be.body_isa[NT_OP_##name])->name);                                     \
    assert_true(be.ops.name != NULL && be.body_isa[NT_OP_##name] <= be.isa);
#include "ops.def"
#undef NT_OP
        nt_backend_close(&be);
    }
    nt_pool_free(pool);
}

static void count_row(void *ctx, const struct nt_gemm_bench_row *row) {
    ++*(int *)ctx;
    assert_true(row->us > 0 && row->gflops > 0 && row->gb_s > 0 && row->peak > 0 && isfinite(row->peak));
}

static void test_peaks_and_bench(void **state) {
    (void)state;
    struct nt_pool *pool;
    struct nt_peaks peaks;
    struct nt_backend be;
    int n_rows = 0;
    assert_int_equal(nt_pool_new(&pool, 2, false, 0, 1), NT_OK);
    assert_int_equal(nt_peak_measure(pool, nt_isa_detect(), &peaks), NT_OK);
    for (int u = 0; u < NT_PEAK_UNIT_COUNT; u++)
        for (int all = 0; all < 2; all++) assert_true(peaks.gflops[u][all] > 0 && isfinite(peaks.gflops[u][all]));
    assert_true(peaks.read_gb_s[0] > 0 && peaks.read_gb_s[1] > 0);
    assert_int_equal(nt_backend_open_cpu(&be, nt_isa_detect(), pool), NT_OK);
    assert_int_equal(nt_gemm_bench(&be, 576, 576, 32, count_row, &n_rows), NT_OK);
    assert_int_equal(n_rows, 1);
    nt_backend_close(&be);
    nt_pool_free(pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_isa_names),       cmocka_unit_test(test_isa_against_kernel),
        cmocka_unit_test(test_packing),         cmocka_unit_test(test_gated_rows),
        cmocka_unit_test(test_backend_table),   cmocka_unit_test(test_selftest),
        cmocka_unit_test(test_peaks_and_bench),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
