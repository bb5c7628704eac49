/* Arenas: count equals bind, alignment, zeroed memory, foreign memory, and the bug when the passes differ. */
#include "arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct layout {
    float *a;
    uint8_t *b;
    int64_t *c;
    void *none;
};

static void lay_out(struct nt_arena *arena, struct layout *l) {
    l->a = NT_TAKE(arena, float, 1000);
    l->b = NT_TAKE(arena, uint8_t, 3);
    l->none = nt_arena_take(arena, 0, 8);
    l->c = NT_TAKE(arena, int64_t, 17);
}

static void count_equals_bind(void **state) {
    (void)state;
    struct nt_arena arena;
    struct layout l;
    nt_arena_init(&arena, "test");
    lay_out(&arena, &l);
    assert_null(l.a);
    assert_null(l.c);
    size_t counted = arena.used;
    assert_true(counted >= 4000 + 64 + 136);
    assert_int_equal(counted % 64, 0);
    assert_int_equal(nt_arena_bind(&arena), NT_OK);
    assert_int_equal(arena.used, 0);
    for (int round = 0; round < 2; round++) {
        lay_out(&arena, &l);
        assert_int_equal(arena.used, counted);
        assert_int_equal(arena.size, counted);
        assert_null(l.none);
        assert_int_equal((uintptr_t)l.a % 64, 0);
        assert_int_equal((uintptr_t)l.b % 64, 0);
        assert_int_equal((uintptr_t)l.c % 64, 0);
        assert_true((uint8_t *)l.a + 4000 <= l.b && l.b + 3 <= (uint8_t *)l.c);
        if (round == 0) {
            for (int i = 0; i < 1000; i++) assert_true(l.a[i] == 0);
            for (int i = 0; i < 17; i++) assert_true(l.c[i] == 0);
        }
        memset(l.a, 1, 4000);
        memset(l.b, 2, 3);
        memset(l.c, 3, 136);
        assert_int_equal(((uint8_t *)l.a)[3999], 1);
        nt_arena_reset(&arena);
    }
    nt_arena_release(&arena);
    assert_null(arena.base);
    nt_arena_release(&arena);
}

static void take_shared(struct nt_arena *a, char *set[2], const size_t bytes[2], char **behind) {
    const size_t before = a->used;
    set[0] = NT_TAKE(a, char, bytes[0]);
    const size_t after = a->used;
    nt_arena_back(a, before);
    set[1] = NT_TAKE(a, char, bytes[1]);
    nt_arena_raise(a, after);
    *behind = NT_TAKE(a, char, 1);
}

static void sets_that_share_memory(void **state) {
    static const size_t bytes[][2] = {
        {100,  3000},
        {3000, 100 }
    };
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct nt_arena arena;
        char *set[2], *behind;
        nt_arena_init(&arena, "test");
        take_shared(&arena, set, bytes[i], &behind);
        assert_in_range(arena.used, 3001, 3400); /* the larger one, one more, and what lies between */
        assert_int_equal(nt_arena_bind(&arena), NT_OK);
        take_shared(&arena, set, bytes[i], &behind);
        assert_ptr_equal(set[0], set[1]);
        assert_true(behind >= set[0] + 3000);
        memset(set[0], 1, bytes[i][0]);
        memset(set[1], 2, bytes[i][1]);
        nt_arena_release(&arena);
    }
}

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>

static void red_zones_under_asan(void **state) {
    (void)state;
    struct nt_arena arena;
    struct layout l;
    nt_arena_init(&arena, "test");
    lay_out(&arena, &l);
    assert_int_equal(nt_arena_bind(&arena), NT_OK);
    uint8_t *base = arena.base;
    assert_true(__asan_address_is_poisoned(base));
    lay_out(&arena, &l);
    assert_false(__asan_address_is_poisoned(l.a));
    assert_false(__asan_address_is_poisoned((uint8_t *)l.a + 3999));
    assert_true(__asan_address_is_poisoned((uint8_t *)l.a + 4000));
    assert_true(__asan_address_is_poisoned(l.b + 3));
    assert_true(__asan_address_is_poisoned((uint8_t *)l.c - 1));
    assert_true(__asan_address_is_poisoned((uint8_t *)l.c + 136));
    nt_arena_reset(&arena);
    assert_true(__asan_address_is_poisoned(l.a));
    lay_out(&arena, &l);
    assert_false(__asan_address_is_poisoned(l.a));
#ifndef __OPTIMIZE__
    assert_true(l.a[0] != l.a[0]); /* reset left NaN */
#endif
    nt_arena_release(&arena);
}
#endif

static void huge_arena_is_aligned_to_huge_pages(void **state) {
    (void)state;
    struct nt_arena arena;
    nt_arena_init(&arena, "big");
    (void)nt_arena_take(&arena, 5u << 20, 1);
    assert_int_equal(nt_arena_bind(&arena), NT_OK);
    uint8_t *p = nt_arena_take(&arena, 5u << 20, 1);
    assert_int_equal((uintptr_t)p % (2u << 20), 0);
    p[0] = 1;
    p[(5u << 20) - 1] = 1;
    nt_arena_release(&arena);
}

static void foreign_memory(void **state) {
    (void)state;
    struct nt_arena arena;
    struct layout l;
    nt_arena_init(&arena, "window");
    lay_out(&arena, &l);
    size_t need = arena.used;
    uint8_t *memory = aligned_alloc(64, need + 64);
    memset(memory, 0, need + 64);
    assert_int_equal(nt_arena_bind_to(&arena, memory, need - 1), NT_E_NOMEM);
    assert_non_null(strstr(nt_error_last()->text, "arena window"));
    assert_int_equal(nt_arena_bind_to(&arena, memory + 8, need + 56), NT_E_INTERNAL);
    assert_int_equal(nt_arena_bind_to(&arena, memory, need), NT_OK);
    lay_out(&arena, &l);
    assert_ptr_equal(l.a, memory);
    nt_arena_release(&arena);
    memset(memory, 7, need); /* still ours, and readable again under ASan */
    free(memory);
}

static void refused_memory_names_the_arena(void **state) {
    (void)state;
    struct nt_arena arena;
    nt_arena_init(&arena, "kv");
    (void)nt_arena_take(&arena, (size_t)1 << 60, 1);
    assert_int_equal(nt_arena_bind(&arena), NT_E_NOMEM);
    assert_non_null(strstr(nt_error_last()->text, "arena kv"));
    assert_non_null(strstr(nt_error_last()->text, "GiB"));
    nt_arena_release(&arena);
}

static jmp_buf back;
static char bug_text[256];

static void jump_back(const char *file, int line, const char *text) {
    (void)file;
    (void)line;
    (void)snprintf(bug_text, sizeof bug_text, "%s", text);
    longjmp(back, 1);
}

static void overflow_is_a_bug(void **state) {
    (void)state;
    struct nt_arena arena;
    nt_bug_set_hook(jump_back);
    nt_arena_init(&arena, "step");
    if (setjmp(back) == 0) {
        (void)nt_arena_take(&arena, SIZE_MAX / 2, 3);
        fail();
    }
    assert_non_null(strstr(bug_text, "arena step"));
    if (setjmp(back) == 0) {
        (void)nt_arena_take(&arena, SIZE_MAX - 200, 1);
        (void)nt_arena_take(&arena, 1000, 1);
        fail();
    }
    assert_non_null(strstr(bug_text, "overflows"));

    nt_arena_init(&arena, "step");
    (void)nt_arena_take(&arena, 100, 4);
    assert_int_equal(nt_arena_bind(&arena), NT_OK);
    assert_non_null(nt_arena_take(&arena, 100, 4));
    if (setjmp(back) == 0) {
        (void)nt_arena_take(&arena, 1, 1);
        fail();
    }
    assert_non_null(strstr(bug_text, "counting pass"));
    nt_bug_set_hook(NULL);
    nt_arena_release(&arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(count_equals_bind),
        cmocka_unit_test(huge_arena_is_aligned_to_huge_pages),
        cmocka_unit_test(foreign_memory),
        cmocka_unit_test(sets_that_share_memory),
        cmocka_unit_test(refused_memory_names_the_arena),
        cmocka_unit_test(overflow_is_a_bug),
#if defined(__SANITIZE_ADDRESS__)
        cmocka_unit_test(red_zones_under_asan),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
