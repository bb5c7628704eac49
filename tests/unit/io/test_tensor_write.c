/* What the writers write, our readers read back to the same bits; one file of each is checked byte by byte. */
#include "../../fault/model_bytes.h"
#include "fileio.h"
#include "gguf_write.h"
#include "json.h"
#include "safetensors.h"
#include "safetensors_write.h"
#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>
#include <cmocka.h>

static char dir[] = "/tmp/nt-tensor-write-XXXXXX";

static const char *place(const char *name) {
    static char path[256];
    assert_int_equal(nt_path_join(path, sizeof path, dir, name), NT_OK);
    return path;
}

static void must(nt_status st) {
    if (st != NT_OK) print_message("%s\n", nt_error_last()->text);
    assert_int_equal(st, NT_OK);
}

static int n_files(void) {
    int n = 0;
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    closedir(d);
    return n;
}

static const float values[6] = {1, -2, 3.00390625f, 65519, 0.1f, -6e-8f};
static const struct nt_tensor_entry entries[] = {
    {"wide", NT_WDTYPE_F32,  2, {2, 3}},
    {"none", NT_WDTYPE_F32,  2, {0, 3}},
    {"half", NT_WDTYPE_F16,  1, {6}   },
    {"b\"f", NT_WDTYPE_BF16, 2, {3, 2}},
};
enum { N_ENTRIES = sizeof entries / sizeof *entries };

static void write_values(struct nt_tensor_writer *w) {
    must(nt_tensor_writer_append(w, values, 5)); // pieces of odd sizes
    must(nt_tensor_writer_append(w, (const char *)values + 5, sizeof values - 5));
    must(nt_tensor_writer_append_f32(w, values, 2));
    must(nt_tensor_writer_append_f32(w, values + 2, 4));
    must(nt_tensor_writer_append_f32(w, values, 6));
}

static void check_values(const uint8_t *data, enum nt_wdtype t) {
    float got[6];
    nt_wdtype_info(t)->dequantize(data, 6, got);
    for (int i = 0; i < 6; i++) {
        const float want = t == NT_WDTYPE_F32   ? values[i]
                           : t == NT_WDTYPE_F16 ? nt_f32_from_f16(nt_f16_from_f32(values[i]))
                                                : nt_f32_from_bf16(nt_bf16_from_f32(values[i]));
        assert_memory_equal(&got[i], &want, sizeof want);
    }
}

static void test_safetensors(void **state) {
    (void)state;
    const struct nt_text_pair meta[] = {
        {"nocturne.note", "line\n\"quoted\""}
    };
    struct nt_tensor_writer *w = NULL;
    must(nt_safetensors_create(place("a.safetensors"), entries, N_ENTRIES, meta, 1, &w));
    write_values(w);
    assert_false(nt_file_exists(place("a.safetensors"))); // nothing under the name before it is whole
    must(nt_tensor_writer_finish(w));
    char *bytes = NULL;
    size_t len = 0;
    must(nt_file_read(place("a.safetensors"), 1 << 20, &bytes, &len));
    const int fd = open(place("a.safetensors"), O_RDONLY);
    struct nt_safetensors st;
    must(nt_safetensors_read(fd, "a.safetensors", (int64_t)len, &st));
    assert_int_equal(st.n_tensors, N_ENTRIES);
    assert_int_equal((8 + st.header_len) % 8, 0);
    for (int64_t i = 0; i < st.n_tensors; i++) {
        const struct nt_safetensors_tensor *t = &st.tensors[i];
        int64_t e = 0;
        while (strcmp(entries[e].name, t->name) != 0) e++;
        assert_int_equal(t->dtype, entries[e].dtype);
        assert_int_equal(t->n_dims, entries[e].n_dims);
        assert_memory_equal(t->shape, entries[e].shape, (size_t)t->n_dims * sizeof *t->shape);
        assert_int_equal(t->offset % nt_wdtype_info(t->dtype)->block_bytes, 0);
        if (t->n_bytes > 0) check_values((const uint8_t *)bytes + t->offset, t->dtype);
    }
    struct nt_json *doc = NULL;
    must(nt_json_parse(st.header, st.header_len, "header", &doc));
    const struct nt_json *m = nt_json_get(doc, "__metadata__");
    assert_string_equal(nt_json_str(nt_json_get(m, "format"), NULL), "pt");
    assert_string_equal(nt_json_str(nt_json_get(m, "nocturne.note"), NULL), meta[0].value);
    nt_json_free(doc);
    nt_safetensors_release(&st);
    close(fd);
    free(bytes);
}

static void test_safetensors_bytes(void **state) {
    (void)state;
    static const char header[] = "{\"__metadata__\":{\"format\":\"pt\"},\"a\":{\"dtype\":\"F32\",\"shape\":[1,2],"
                                 "\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"BF16\",\"shape\":[3],"
                                 "\"data_offsets\":[8,14]}}  ";
    const struct nt_tensor_entry two[] = {
        {"a", NT_WDTYPE_F32,  2, {1, 2}},
        {"b", NT_WDTYPE_BF16, 1, {3}   }
    };
    struct nt_tensor_writer *w = NULL;
    must(nt_safetensors_create(place("b.safetensors"), two, 2, NULL, 0, &w));
    must(nt_tensor_writer_append_f32(w, (const float[]){1, -1}, 2));
    must(nt_tensor_writer_append_f32(w, (const float[]){2, 0.5f, 0}, 3));
    must(nt_tensor_writer_finish(w));
    struct nt_strbuf want = NT_STRBUF_INIT;
    put_safetensors(&want,
                    &(struct safetensors_plan){.header = header, .n_data = 8, .data = "\0\0\x80\x3f\0\0\x80\xbf"});
    nt_strbuf_add(&want, "\0\x40\0\x3f\0\0", 6);
    char *bytes = NULL;
    size_t len = 0;
    must(nt_file_read(place("b.safetensors"), 1 << 20, &bytes, &len));
    assert_int_equal(len, want.len);
    assert_memory_equal(bytes, want.data, len);
    free(bytes);
    nt_strbuf_release(&want);
}

static void put_meta(struct nt_gguf_meta *m) {
    nt_gguf_put_str(m, "general.architecture", "llama");
    nt_gguf_put_u32(m, "x.u32", 4000000000u);
    nt_gguf_put_u64(m, "x.u64", 1ull << 40);
    nt_gguf_put_f32(m, "x.f32", 0.1f);
    nt_gguf_put_bool(m, "x.yes", true);
    nt_gguf_put_bool(m, "x.no", false);
    nt_gguf_put_strs(m, "x.strs", (const char *const[]){"a", "", "ccc"}, 3);
    nt_gguf_put_i32s(m, "x.i32s", (const int32_t[]){1, -2}, 2);
    nt_gguf_put_f32s(m, "x.f32s", (const float[]){0.5f, -3}, 2);
}

static void check_meta(const struct nt_gguf *g) {
    size_t len = 0;
    const char *s = nt_gguf_str(g, "general.architecture", &len);
    assert_int_equal(len, 5);
    assert_memory_equal(s, "llama", 5);
    assert_int_equal(nt_gguf_i64(g, "x.u32", 0), 4000000000);
    assert_int_equal(nt_gguf_i64(g, "x.u64", 0), 1ll << 40);
    assert_true(nt_gguf_f64(g, "x.f32", 0) == (double)0.1f);
    assert_true(nt_gguf_bool(g, "x.yes", false));
    assert_false(nt_gguf_bool(g, "x.no", true));
    assert_int_equal(nt_gguf_array_len(g, "x.strs"), 3);
    s = nt_gguf_array_str(g, "x.strs", 2, &len);
    assert_int_equal(len, 3);
    assert_memory_equal(s, "ccc", 3);
    assert_int_equal(nt_gguf_array_i64(g, "x.i32s", 1, 0), -2);
    assert_true(nt_gguf_array_f64(g, "x.f32s", 1, 0) == -3);
}

static void test_gguf(void **state) {
    (void)state;
    for (int64_t align = 0; align <= 128; align = align ? 4 * align : 8) { // 0 (32), 8, 32, 128
        struct nt_gguf_meta meta = {0};
        struct nt_tensor_writer *w = NULL;
        put_meta(&meta);
        const struct nt_tensor_entry three[] = {entries[0], entries[2], entries[3]};
        must(nt_gguf_create(place("a.gguf"), &meta, three, 3, align, &w));
        write_values(w);
        must(nt_tensor_writer_finish(w));
        nt_gguf_meta_release(&meta);
        struct nt_gguf *g = NULL;
        must(nt_gguf_open(place("a.gguf"), &g));
        check_meta(g);
        assert_int_equal(nt_gguf_n_kv(g), 9 + (align == 8 || align == 128));
        assert_int_equal(nt_gguf_n_tensors(g), 3);
        for (int64_t i = 0; i < 3; i++) {
            const struct nt_gguf_tensor *t = nt_gguf_tensor_at(g, i);
            uint8_t data[24];
            assert_string_equal(t->name, three[i].name);
            assert_int_equal(t->n_dims, three[i].n_dims);
            assert_memory_equal(t->shape, three[i].shape, (size_t)t->n_dims * sizeof *t->shape);
            assert_int_equal(t->offset % (align ? align : 32), 0);
            must(nt_pread_full(nt_gguf_fd(g), data, (size_t)t->n_bytes, t->offset, "a.gguf"));
            check_values(data, t->dtype);
        }
        assert_int_equal(nt_gguf_file_size(g) % (align ? align : 32), 0); // the last tensor is padded too
        nt_gguf_close(g);
    }
}

static void test_refusals(void **state) {
    (void)state;
    const int before = n_files();
    struct nt_tensor_writer *w = NULL;
    struct nt_gguf_meta meta = {0};
    const struct nt_tensor_entry e = {
        "0123456789012345678901234567890123456789012345678901234567890123", NT_WDTYPE_F32, 1, {1}};
    assert_int_equal(nt_gguf_create(place("c.gguf"), &meta, &e, 1, 0, &w), NT_E_DATA);
    assert_non_null(strstr(nt_error_last()->text, "64 bytes"));
    assert_null(w);
    assert_int_equal(nt_safetensors_create(place("no/c"), entries, N_ENTRIES, NULL, 0, &w), NT_E_IO);
    assert_null(w);
    must(nt_safetensors_create(place("c.safetensors"), entries, N_ENTRIES, NULL, 0, &w));
    nt_tensor_writer_abandon(w); // nothing stays
    nt_tensor_writer_abandon(NULL);
    assert_int_equal(n_files(), before);
}

/* Every half is its own nearest; between two neighbours the even one wins, and a hair decides otherwise. */
static void test_f16_rounding(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x7c00; h++) {
        const float x = nt_f32_from_f16((uint16_t)h);
        const float next = h == 0x7bff ? 65536.0f : nt_f32_from_f16((uint16_t)(h + 1));
        const float middle = x + (next - x) / 2;
        assert_int_equal(nt_f16_from_f32(x), h);
        assert_int_equal(nt_f16_from_f32(-x), h | 0x8000u);
        assert_int_equal(nt_f16_from_f32(middle), h & 1 ? h + 1 : h);
        assert_int_equal(nt_f16_from_f32(nextafterf(middle, 0)), h);
        assert_int_equal(nt_f16_from_f32(nextafterf(middle, 1e30f)), h + 1);
    }
    assert_int_equal(nt_f16_from_f32(INFINITY), 0x7c00);
    assert_int_equal(nt_f16_from_f32(-1e20f), 0xfc00);
    assert_true((nt_f16_from_f32(NAN) & 0x7fff) > 0x7c00);
    assert_int_equal(nt_f16_from_f32(1e-30f), 0);
}

static int make_dir(void **state) {
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state) {
    (void)state;
    for (int i = 0; i < 3; i++) {
        const char *const names[] = {"a.safetensors", "b.safetensors", "a.gguf"};
        (void)unlink(place(names[i]));
    }
    return rmdir(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_safetensors), cmocka_unit_test(test_safetensors_bytes), cmocka_unit_test(test_gguf),
        cmocka_unit_test(test_refusals),    cmocka_unit_test(test_f16_rounding),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
