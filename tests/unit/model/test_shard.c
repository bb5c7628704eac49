#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "shard.h"
#include <string.h>

static struct nt_spec model(int32_t n_head, int32_t n_kv, int32_t d_ff, int32_t n_vocab) {
    return (struct nt_spec){.n_head = n_head, .n_kv = n_kv, .d_ff = d_ff, .n_vocab = n_vocab, .d_head = 8};
}

/* Every head, d_ff row and token belongs to exactly one rank, in rank order, and heads find their KV head. */
static void check_cover(struct nt_spec spec, int32_t size) {
    int32_t head = 0, kv = 0, ff = 0, vocab = 0;
    for (int32_t r = 0; r < size; r++) {
        struct nt_shard s;
        assert_int_equal(nt_shard_plan(&spec, r, size, &s), NT_OK);
        assert_int_equal(s.head0, head);
        assert_int_equal(s.ff0, ff);
        assert_int_equal(s.vocab0, vocab);
        assert_true(s.n_head > 0 && s.n_kv > 0 && s.n_ff > 0 && s.n_vocab > 0);
        if (size <= spec.n_kv) assert_int_equal(s.kv0, kv);
        for (int32_t h = 0; h < s.n_head; h++) {
            assert_int_equal(s.kv0 + s.kv_of_head[h], (s.head0 + h) / (spec.n_head / spec.n_kv));
            assert_in_range(s.kv_of_head[h], h ? s.kv_of_head[h - 1] : 0, s.n_kv - 1);
        }
        assert_int_equal(s.kv_of_head[0], 0);
        assert_int_equal(s.kv_of_head[s.n_head - 1], s.n_kv - 1);
        assert_true(s.ff_pad >= s.n_ff && s.ff_pad - s.n_ff < NT_FF_UNIT && s.ff_pad % NT_FF_UNIT == 0);
        assert_int_equal(s.ff0 % NT_FF_UNIT, 0);
        assert_int_equal(s.vocab0 % NT_VOCAB_UNIT, 0);
        head += s.n_head;
        kv += s.n_kv;
        ff += s.n_ff;
        vocab += s.n_vocab;
    }
    assert_int_equal(head, spec.n_head);
    assert_int_equal(ff, spec.d_ff);
    assert_int_equal(vocab, spec.n_vocab);
}

static void test_cover(void **state) {
    (void)state;
    for (int32_t size = 1; size <= 3; size++) check_cover(model(9, 3, 1536, 49152), size);
    for (int32_t size = 1; size <= 9; size++) check_cover(model(9, 3, 200, 331), size);
    for (int32_t size = 1; size <= 7; size++) check_cover(model(32, 8, 100, 1000), size);
    for (int32_t size = 1; size <= 6; size++) check_cover(model(12, 1, 95, 500), size);
}

static void test_uneven_groups(void **state) {
    (void)state;
    const struct nt_spec spec = model(9, 3, 1536, 49152);
    struct nt_shard s;
    assert_int_equal(nt_shard_plan(&spec, 0, 2, &s), NT_OK);
    assert_int_equal(s.n_head, 6);
    assert_int_equal(s.n_kv, 2);
    assert_int_equal(nt_shard_plan(&spec, 1, 2, &s), NT_OK);
    assert_int_equal(s.n_head, 3);
    assert_int_equal(s.n_kv, 1);
}

/* 4 query heads of 2 KV heads on 3 ranks: 2 + 1 + 1 heads; ranks 1 and 2 both hold KV head 1. */
static void test_replicated_kv(void **state) {
    (void)state;
    const struct nt_spec spec = model(4, 2, 64, 128);
    const int32_t kv0[3] = {0, 1, 1}, n_head[3] = {2, 1, 1};
    for (int32_t r = 0; r < 3; r++) {
        struct nt_shard s;
        assert_int_equal(nt_shard_plan(&spec, r, 3, &s), NT_OK);
        assert_int_equal(s.n_head, n_head[r]);
        assert_int_equal(s.kv0, kv0[r]);
        assert_int_equal(s.n_kv, 1);
    }
}

static void check_too_many(struct nt_spec spec, int32_t size) {
    struct nt_shard s;
    assert_int_equal(nt_shard_plan(&spec, 0, size, &s), NT_E_CONFIG);
    assert_non_null(strstr(nt_error_last()->text, "run.tp is"));
}

static void test_too_many_ranks(void **state) {
    (void)state;
    check_too_many(model(4, 2, 1024, 1024), 5); /* heads */
    check_too_many(model(8, 2, 40, 1024), 4);   /* units of d_ff */
    check_too_many(model(8, 2, 1024, 64), 3);   /* units of the vocabulary */
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cover), cmocka_unit_test(test_uneven_groups),
                                       cmocka_unit_test(test_replicated_kv), cmocka_unit_test(test_too_many_ranks)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
