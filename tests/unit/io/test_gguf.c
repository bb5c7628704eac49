/* GGUF reader: typed metadata, tensor table, and what must hold for every damaged copy of a good file. The sentences
 * of single faults are in tests/fault/fault_models.c. */
#include "../../fault/model_bytes.h"
#include "gguf.h"
#include "tensor_source.h"
#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>
#include <cmocka.h>

static char dir[] = "/tmp/nt-gguf-XXXXXX";
static char path[64];

static struct nt_gguf *open_bytes(const struct nt_strbuf *b) {
    struct nt_gguf *g = NULL;
    write_file(path, nt_strbuf_cstr(b), b->len);
    const nt_status st = nt_gguf_open(path, &g);
    if (st != NT_OK) print_message("%s\n", nt_error_last()->text);
    assert_int_equal(st, NT_OK);
    return g;
}

static void put_key(struct nt_strbuf *b, const char *key, uint32_t type) {
    put_string(b, key, strlen(key), 0);
    put_uint(b, type, 4);
}

/* One entry of every type, then arrays; no tensors. */
static void put_all_types(struct nt_strbuf *b) {
    const float f = 1.5f;
    const double d = -2.25;
    nt_strbuf_adds(b, "GGUF");
    put_uint(b, 3, 4);
    put_uint(b, 0, 8);
    put_uint(b, 18, 8);
    put_key(b, "u8", 0), put_uint(b, 200, 1);
    put_key(b, "i8", 1), put_uint(b, (uint64_t)-100, 1);
    put_key(b, "u16", 2), put_uint(b, 60000, 2);
    put_key(b, "i16", 3), put_uint(b, (uint64_t)-30000, 2);
    put_key(b, "u32", 4), put_uint(b, 4000000000u, 4);
    put_key(b, "i32", 5), put_uint(b, (uint64_t)-2000000000, 4);
    put_key(b, "f32", 6), nt_strbuf_add(b, &f, 4);
    put_key(b, "bool", 7), put_uint(b, 1, 1);
    put_key(b, "str", 8), put_string(b, "a\0b", 3, 0);
    put_key(b, "u64", 10), put_uint(b, 1ull << 40, 8);
    put_key(b, "u64.max", 10), put_uint(b, UINT64_MAX, 8);
    put_key(b, "i64", 11), put_uint(b, (uint64_t)INT64_MIN, 8);
    put_key(b, "f64", 12), nt_strbuf_add(b, &d, 8);
    put_key(b, "a.str", 9), put_uint(b, 8, 4), put_uint(b, 3, 8);
    put_string(b, "x", 1, 0), put_string(b, "", 0, 0), put_string(b, "yz", 2, 0);
    put_key(b, "a.i16", 9), put_uint(b, 3, 4), put_uint(b, 2, 8), put_uint(b, 7, 2), put_uint(b, (uint64_t)-8, 2);
    put_key(b, "a.f32", 9), put_uint(b, 6, 4), put_uint(b, 2, 8), put_uint(b, 0, 4), nt_strbuf_add(b, &f, 4);
    put_key(b, "a.bool", 9), put_uint(b, 7, 4), put_uint(b, 2, 8), put_uint(b, 0, 1), put_uint(b, 1, 1);
    put_key(b, "a.none", 9), put_uint(b, 8, 4), put_uint(b, 0, 8);
}

static void test_scalars(void **state) {
    (void)state;
    struct nt_strbuf b = NT_STRBUF_INIT;
    put_all_types(&b);
    struct nt_gguf *g = open_bytes(&b);
    assert_int_equal(nt_gguf_n_kv(g), 18);
    assert_string_equal(nt_gguf_key_at(g, 0), "u8");
    assert_null(nt_gguf_key_at(g, 18));
    assert_int_equal(nt_gguf_i64(g, "u8", -1), 200);
    assert_int_equal(nt_gguf_i64(g, "i8", -1), -100);
    assert_int_equal(nt_gguf_i64(g, "u16", -1), 60000);
    assert_int_equal(nt_gguf_i64(g, "i16", -1), -30000);
    assert_int_equal(nt_gguf_i64(g, "u32", -1), 4000000000);
    assert_int_equal(nt_gguf_i64(g, "i32", -1), -2000000000);
    assert_int_equal(nt_gguf_i64(g, "u64", -1), 1ll << 40);
    assert_int_equal(nt_gguf_i64(g, "u64.max", -1), -1);
    assert_true(nt_gguf_i64(g, "i64", -1) == INT64_MIN);
    assert_int_equal(nt_gguf_i64(g, "f32", -1), -1);
    assert_int_equal(nt_gguf_i64(g, "bool", -1), -1);
    assert_int_equal(nt_gguf_i64(g, "absent", -1), -1);
    assert_true(nt_gguf_f64(g, "f32", 0) == 1.5);
    assert_true(nt_gguf_f64(g, "f64", 0) == -2.25);
    assert_true(nt_gguf_f64(g, "i8", 0) == -100.0);
    assert_true(nt_gguf_f64(g, "u64.max", 0) == 0x1p64);
    assert_true(nt_gguf_f64(g, "str", 9) == 9.0);
    assert_true(nt_gguf_bool(g, "bool", false));
    assert_true(nt_gguf_bool(g, "u8", true));
    size_t len = 99;
    assert_memory_equal(nt_gguf_str(g, "str", &len), "a\0b", 3);
    assert_int_equal(len, 3);
    assert_null(nt_gguf_str(g, "u8", &len));
    assert_int_equal(len, 0);
    assert_int_equal(nt_gguf_type(g, "i16"), NT_GGUF_I16);
    assert_int_equal(nt_gguf_type(g, "absent"), NT_GGUF_NONE);
    assert_string_equal(nt_gguf_type_name(NT_GGUF_F64), "f64");
    nt_gguf_close(g);
    nt_strbuf_release(&b);
}

static void test_arrays(void **state) {
    (void)state;
    struct nt_strbuf b = NT_STRBUF_INIT;
    put_all_types(&b);
    struct nt_gguf *g = open_bytes(&b);
    size_t len = 0;
    assert_int_equal(nt_gguf_array_len(g, "a.str"), 3);
    assert_int_equal(nt_gguf_array_len(g, "a.none"), 0);
    assert_int_equal(nt_gguf_array_len(g, "u8"), -1);
    assert_int_equal(nt_gguf_array_type(g, "a.f32"), NT_GGUF_F32);
    assert_int_equal(nt_gguf_array_type(g, "f32"), NT_GGUF_NONE);
    assert_memory_equal(nt_gguf_array_str(g, "a.str", 2, &len), "yz", 2);
    assert_int_equal(len, 2);
    assert_non_null(nt_gguf_array_str(g, "a.str", 1, &len));
    assert_int_equal(len, 0);
    assert_null(nt_gguf_array_str(g, "a.str", 3, &len));
    assert_null(nt_gguf_array_str(g, "a.str", -1, &len));
    assert_null(nt_gguf_array_str(g, "a.none", 0, &len));
    assert_null(nt_gguf_array_str(g, "a.i16", 0, &len));
    assert_int_equal(nt_gguf_array_i64(g, "a.i16", 1, 0), -8);
    assert_int_equal(nt_gguf_array_i64(g, "a.i16", 2, 5), 5);
    assert_int_equal(nt_gguf_array_i64(g, "a.bool", 1, 5), 1);
    assert_int_equal(nt_gguf_array_i64(g, "a.str", 0, 5), 5);
    assert_true(nt_gguf_array_f64(g, "a.f32", 1, 0) == 1.5);
    assert_true(nt_gguf_array_f64(g, "a.i16", 0, 0) == 7.0);
    size_t header = 0;
    assert_memory_equal(nt_gguf_header(g, &header), b.data, b.len);
    assert_int_equal(header, b.len);
    nt_gguf_close(g);
    nt_strbuf_release(&b);
}

static void test_tensors(void **state) {
    (void)state;
    struct nt_strbuf b = NT_STRBUF_INIT;
    put_gguf(&b, &(struct gguf_plan){.tensor = {TENSOR("v", 1, 0, 12, 3)}});
    struct nt_gguf *g = open_bytes(&b);
    assert_int_equal(nt_gguf_n_tensors(g), 3);
    const struct nt_gguf_tensor *a = nt_gguf_tensor_at(g, 0), *q = nt_gguf_tensor_at(g, 1),
                                *v = nt_gguf_tensor_at(g, 2);
    assert_string_equal(a->name, "a");
    assert_int_equal(a->n_dims, 2);
    assert_int_equal(a->shape[0], 2); // file order is reversed
    assert_int_equal(a->shape[1], 32);
    assert_int_equal(a->dtype, NT_WDTYPE_F32);
    assert_int_equal(a->n_bytes, 256);
    assert_int_equal(a->offset % 32, 0);
    assert_int_equal(q->dtype, NT_WDTYPE_Q8_0);
    assert_int_equal(q->offset, a->offset + 256);
    assert_int_equal(v->offset, q->offset + 64);
    assert_int_equal(v->n_bytes, 12);
    assert_null(nt_gguf_tensor_at(g, 3));
    nt_gguf_close(g);
    nt_strbuf_release(&b);
}

/* Opens whatever it is; when that succeeds, everything promised must hold. Returns whether it opened. */
static bool probe(const char *bytes, size_t len) {
    write_file(path, bytes, len);
    struct nt_tensor_source *s = NULL;
    nt_error_clear();
    const nt_status st = nt_tensor_source_open(path, &s);
    if (st != NT_OK) {
        assert_null(s);
        assert_true(st == NT_E_DATA || st == NT_E_UNSUPPORTED);
        assert_non_null(strstr(nt_error_last()->text, path));
        return false;
    }
    for (int64_t i = 0; i < s->n_tensors; i++) {
        const struct nt_tensor_info *t = &s->tensors[i];
        assert_true(t->offset > 0 && t->n_bytes > 0 && t->offset + t->n_bytes <= (int64_t)len);
        assert_ptr_equal(nt_tensor_source_find(s, t->name), t);
    }
    nt_tensor_source_close(s);
    return true;
}

static void test_every_prefix_fails(void **state) {
    (void)state;
    struct nt_strbuf b = NT_STRBUF_INIT;
    put_gguf(&b, &(struct gguf_plan){0});
    const size_t padding = 30; // after the last tensor: a file may lack it
    for (size_t n = 0; n < b.len; n++) assert_int_equal(probe(b.data, n), n >= b.len - padding);
    assert_true(probe(b.data, b.len));
    nt_strbuf_release(&b);
}

static void test_every_damaged_byte(void **state) {
    (void)state;
    static const uint8_t values[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
    struct nt_strbuf b = NT_STRBUF_INIT;
    put_gguf(&b, &(struct gguf_plan){.tensor = {TENSOR("v", 1, 0, 12, 3)}});
    int n_opened = 0;
    for (size_t i = 0; i < 300; i++) {
        const char was = b.data[i];
        for (size_t j = 0; j < sizeof values; j++) {
            b.data[i] = (char)values[j];
            n_opened += probe(b.data, b.len);
        }
        b.data[i] = was;
    }
    assert_true(n_opened > 0); // some damage is harmless: text of strings, padding
    nt_strbuf_release(&b);
}

/* A vector whose blocks straddle the range, and rows of a matrix, against the whole tensor. */
static void test_row_ranges(void **state) {
    (void)state;
    struct nt_strbuf b = NT_STRBUF_INIT;
    put_gguf(&b, &(struct gguf_plan){.tensor = {TENSOR("v", 1, 8, 102, 96)}});
    for (size_t i = b.len - 128; i < b.len; i++) b.data[i] = (char)(i % 34 < 2 ? 0x3c : i * 7);
    write_file(path, b.data, b.len);
    struct nt_tensor_source *s = NULL;
    assert_int_equal(nt_tensor_source_open(path, &s), NT_OK);
    const struct nt_tensor_info *v = nt_tensor_source_find(s, "v");
    assert_int_equal(nt_tensor_n_rows(v), 96);
    assert_int_equal(nt_tensor_n_cols(v), 1);
    float whole[96], part[96];
    uint16_t half[96];
    assert_int_equal(nt_tensor_source_read(s, v, 0, 96, NT_READ_F32, whole), NT_OK);
    for (int64_t r0 = 0; r0 <= 96; r0 += 5) {
        for (int64_t r1 = r0; r1 <= 96; r1 += 7) {
            assert_int_equal(nt_tensor_source_read(s, v, r0, r1, NT_READ_F32, part), NT_OK);
            assert_int_equal(nt_tensor_source_read(s, v, r0, r1, NT_READ_BF16, half), NT_OK);
            assert_memory_equal(part, whole + r0, (size_t)(r1 - r0) * sizeof *part);
            for (int64_t i = 0; i < r1 - r0; i++) assert_int_equal(half[i], nt_bf16_from_f32(whole[r0 + i]));
        }
    }
    nt_tensor_source_close(s);
    nt_strbuf_release(&b);
}

static void test_shrunk_file(void **state) {
    (void)state;
    struct nt_strbuf b = NT_STRBUF_INIT;
    put_gguf(&b, &(struct gguf_plan){0});
    write_file(path, b.data, b.len);
    struct nt_tensor_source *s = NULL;
    assert_int_equal(nt_tensor_source_open(path, &s), NT_OK);
    assert_int_equal(truncate(path, 300), 0);
    float row[32];
    assert_int_equal(nt_tensor_source_read(s, nt_tensor_source_find(s, "a"), 1, 2, NT_READ_F32, row), NT_E_IO);
    nt_tensor_source_close(s);
    nt_strbuf_release(&b);
}

static int setup(void **state) {
    (void)state;
    if (!mkdtemp(dir)) return 1;
    (void)snprintf(path, sizeof path, "%s/m.gguf", dir);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    (void)unlink(path);
    return rmdir(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scalars),
        cmocka_unit_test(test_arrays),
        cmocka_unit_test(test_tensors),
        cmocka_unit_test(test_every_prefix_fails),
        cmocka_unit_test(test_every_damaged_byte),
        cmocka_unit_test(test_row_ranges),
        cmocka_unit_test(test_shrunk_file),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
