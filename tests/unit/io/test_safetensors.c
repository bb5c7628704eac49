/* safetensors directories: single and sharded, row reading, and the tiny models of tools/make_tiny_model.py, whose
 * safetensors and GGUF files must hold the same numbers. Single faults: tests/fault/fault_models.c. */
#include "../../fault/model_bytes.h"
#include "fileio.h"
#include "tensor_source.h"
#include <dirent.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static char dir[] = "/tmp/nt-safetensors-XXXXXX";

static void empty_dir(const char *path) {
    DIR *d = opendir(path);
    assert_non_null(d);
    for (struct dirent *e = readdir(d); e; e = readdir(d)) {
        char name[PATH_MAX];
        if (e->d_name[0] == '.') continue;
        assert_true(snprintf(name, sizeof name, "%s/%s", path, e->d_name) < PATH_MAX);
        (void)unlink(name);
    }
    closedir(d);
}

static void write_in_dir(const char *name, const struct nt_strbuf *b) {
    char path[PATH_MAX];
    assert_int_equal(nt_path_join(path, sizeof path, dir, name), NT_OK);
    write_file(path, nt_strbuf_cstr(b), b->len);
}

static struct nt_tensor_source *open_source(const char *path) {
    struct nt_tensor_source *s = NULL;
    const nt_status st = nt_tensor_source_open(path, &s);
    if (st != NT_OK) print_message("%s\n", nt_error_last()->text);
    assert_int_equal(st, NT_OK);
    return s;
}

static const float weights[6] = {1, -2, 3.00390625f, 4, 0.1f, -6e20f}; // [2, 3]; the third is between two bfloat16

static void put_single(struct nt_strbuf *b) {
    put_safetensors(b, &(struct safetensors_plan){
                           .header = "{\"w\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
                                     "\"b\":{\"dtype\":\"BF16\",\"shape\":[3],\"data_offsets\":[24,30]},"
                                     "\"none\":{\"dtype\":\"F16\",\"shape\":[0,7],\"data_offsets\":[24,24]},"
                                     "\"scalar\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[30,31]}}     ",
                           .n_data = 24,
                           .data = (const char *)weights});
    nt_strbuf_add(b, "\x80\x3f\x00\xc0\x01\x00\x09", 7);
}

static void test_single(void **state) {
    (void)state;
    struct nt_strbuf b = NT_STRBUF_INIT;
    put_single(&b);
    write_in_dir("model.safetensors", &b);
    struct nt_tensor_source *s = open_source(dir);
    assert_null(s->gguf);
    assert_int_equal(s->n_files, 1);
    assert_int_equal(s->n_tensors, 4);
    for (int i = 1; i < 4; i++) assert_true(strcmp(s->tensors[i - 1].name, s->tensors[i].name) < 0);
    assert_null(nt_tensor_source_find(s, "x"));
    const struct nt_tensor_info *w = nt_tensor_source_find(s, "w");
    char text[64];
    assert_string_equal(nt_tensor_describe(w, text, sizeof text), "F32 [2, 3]");
    assert_string_equal(nt_tensor_describe(nt_tensor_source_find(s, "scalar"), text, sizeof text), "U8 []");
    assert_string_equal(nt_tensor_describe(w, text, 6), "F32 [");
    float f[6];
    uint16_t h[6];
    assert_int_equal(nt_tensor_source_read(s, w, 0, 2, NT_READ_F32, f), NT_OK);
    assert_memory_equal(f, weights, sizeof f);
    assert_int_equal(nt_tensor_source_read(s, w, 1, 2, NT_READ_BF16, h), NT_OK);
    for (int i = 0; i < 3; i++) assert_int_equal(h[i], nt_bf16_from_f32(weights[3 + i]));
    assert_int_equal(nt_tensor_source_read(s, nt_tensor_source_find(s, "b"), 1, 3, NT_READ_BF16, h), NT_OK);
    assert_int_equal(h[0], 0xc000);
    assert_int_equal(h[1], 0x0001); // subnormal bits pass untouched
    assert_int_equal(nt_tensor_source_read(s, nt_tensor_source_find(s, "none"), 0, 0, NT_READ_F32, f), NT_OK);
    assert_int_equal(nt_tensor_source_read(s, nt_tensor_source_find(s, "scalar"), 0, 1, NT_READ_F32, f),
                     NT_E_UNSUPPORTED);
    nt_tensor_source_close(s);
    empty_dir(dir);
    nt_strbuf_release(&b);
}

static void test_overflow_to_infinity(void **state) {
    (void)state;
    struct nt_strbuf b = NT_STRBUF_INIT;
    const float big[2] = {1, 3.4028235e38f}; // finite in float32, infinite once rounded to bfloat16
    put_safetensors(
        &b, &(struct safetensors_plan){.header = "{\"w\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[0,8]}}",
                                       .n_data = 8,
                                       .data = (const char *)big});
    write_in_dir("model.safetensors", &b);
    struct nt_tensor_source *s = open_source(dir);
    float f[2];
    uint16_t h[2];
    assert_int_equal(nt_tensor_source_read(s, &s->tensors[0], 0, 2, NT_READ_F32, f), NT_OK);
    assert_int_equal(nt_tensor_source_read(s, &s->tensors[0], 0, 2, NT_READ_BF16, h), NT_E_DATA);
    assert_non_null(strstr(nt_error_last()->text, "tensor w: 1 of the 2 weights"));
    assert_non_null(strstr(nt_error_last()->text, "infinite at [1, 0]"));
    nt_tensor_source_close(s);
    empty_dir(dir);
    nt_strbuf_release(&b);
}

static void put_shard(struct nt_strbuf *b, const char *name, int value, bool both) {
    char header[200];
    (void)snprintf(header, sizeof header, "{\"%s\":{\"dtype\":\"BF16\",\"shape\":[1],\"data_offsets\":[0,2]}%s}", name,
                   both ? ",\"extra\":{\"dtype\":\"BF16\",\"shape\":[1],\"data_offsets\":[2,4]}" : "");
    const char data[4] = {(char)value, 0x40, 0, 0};
    nt_strbuf_reset(b);
    put_safetensors(b, &(struct safetensors_plan){.header = header, .n_data = both ? 4 : 2, .data = data});
}

static void test_shards(void **state) {
    (void)state;
    struct nt_strbuf b = NT_STRBUF_INIT;
    put_shard(&b, "z", 1, true); // "extra" is not in the index: ignored
    write_in_dir("one.safetensors", &b);
    put_shard(&b, "a", 2, false);
    write_in_dir("two.safetensors", &b);
    nt_strbuf_reset(&b);
    nt_strbuf_adds(&b, "{\"metadata\":{\"total_size\":4},\"weight_map\":"
                       "{\"z\":\"one.safetensors\",\"a\":\"two.safetensors\"}}");
    write_in_dir("model.safetensors.index.json", &b);
    struct nt_tensor_source *s = open_source(dir);
    assert_int_equal(s->n_files, 2);
    assert_int_equal(s->n_tensors, 2);
    assert_string_equal(s->tensors[0].name, "a");
    assert_string_equal(s->tensors[1].name, "z");
    uint16_t h = 0;
    assert_int_equal(nt_tensor_source_read(s, &s->tensors[0], 0, 1, NT_READ_BF16, &h), NT_OK);
    assert_int_equal(h, 0x4002);
    assert_int_equal(nt_tensor_source_read(s, &s->tensors[1], 0, 1, NT_READ_BF16, &h), NT_OK);
    assert_int_equal(h, 0x4001);
    nt_tensor_source_close(s);
    empty_dir(dir);
    nt_strbuf_release(&b);
}

static void test_every_prefix_fails(void **state) {
    (void)state;
    struct nt_strbuf b = NT_STRBUF_INIT;
    put_single(&b);
    const size_t len = b.len;
    struct nt_tensor_source *s = NULL;
    for (size_t n = 0; n < len; n++) {
        b.len = n;
        write_in_dir("model.safetensors", &b);
        assert_int_equal(nt_tensor_source_open(dir, &s), NT_E_DATA);
    }
    empty_dir(dir);
    nt_strbuf_release(&b);
}

/* --- tiny models -------------------------------------------------------------------------------------------------- */

static bool make_tiny(const char *family, const char *options, char *gguf, size_t cap) {
    char command[2 * PATH_MAX];
    (void)snprintf(gguf, cap, "%s/tiny.gguf", dir);
    (void)snprintf(command, sizeof command, "python3 %s/../tools/make_tiny_model.py %s --family %s --gguf %s %s",
                   NT_TEST_DIR, dir, family, gguf, options);
    const int rc = system(command);
    if (WIFEXITED(rc) && WEXITSTATUS(rc) == 127) return false; // no python3
    assert_int_equal(rc, 0);
    return true;
}

static void same_rows(const struct nt_tensor_source *a, const char *name_a, const struct nt_tensor_source *b,
                      const char *name_b, int32_t n_head, int32_t d_head) {
    const struct nt_tensor_info *x = nt_tensor_source_find(a, name_a), *y = nt_tensor_source_find(b, name_b);
    assert_non_null(x);
    assert_non_null(y);
    assert_int_equal(nt_tensor_n_rows(x), nt_tensor_n_rows(y));
    assert_int_equal(nt_tensor_n_cols(x), nt_tensor_n_cols(y));
    const int64_t cols = nt_tensor_n_cols(x);
    uint16_t *p = malloc((size_t)cols * 4), *q = p + cols;
    assert_non_null(p);
    for (int64_t r = 0; r < nt_tensor_n_rows(x); r++) {
        const int64_t to = n_head ? nt_unpermute_qk_row(r, n_head, d_head) : r;
        assert_int_equal(nt_tensor_source_read(a, x, r, r + 1, NT_READ_BF16, p), NT_OK);
        assert_int_equal(nt_tensor_source_read(b, y, to, to + 1, NT_READ_BF16, q), NT_OK);
        assert_memory_equal(p, q, (size_t)cols * sizeof *p);
    }
    free(p);
}

static void compare_tiny(const char *family, const char *options, bool permuted, bool bias) {
    char gguf[PATH_MAX];
    if (!make_tiny(family, options, gguf, sizeof gguf)) skip();
    struct nt_tensor_source *a = open_source(dir), *b = open_source(gguf);
    assert_non_null(b->gguf);
    assert_int_equal(nt_gguf_array_len(b->gguf, "tokenizer.ggml.tokens"), 509);
    same_rows(a, "model.embed_tokens.weight", b, "token_embd.weight", 0, 0);
    same_rows(a, "model.norm.weight", b, "output_norm.weight", 0, 0);
    same_rows(a, "model.layers.1.mlp.down_proj.weight", b, "blk.1.ffn_down.weight", 0, 0);
    same_rows(a, "model.layers.0.self_attn.q_proj.weight", b, "blk.0.attn_q.weight", permuted ? 9 : 0, 16);
    same_rows(a, "model.layers.1.self_attn.k_proj.weight", b, "blk.1.attn_k.weight", permuted ? 3 : 0, 16);
    if (bias) same_rows(a, "model.layers.1.self_attn.q_proj.bias", b, "blk.1.attn_q.bias", permuted ? 9 : 0, 16);
    nt_tensor_source_close(a);
    nt_tensor_source_close(b);
    empty_dir(dir);
}

static void test_tiny_llama_sharded(void **state) {
    (void)state;
    compare_tiny("llama", "--sharded 3 --dtype f32 --gguf-type f16", true, false);
}

static void test_tiny_qwen2(void **state) {
    (void)state;
    compare_tiny("qwen2", "--dtype f16 --gguf-type f32", false, true);
}

/* --- threads ------------------------------------------------------------------------------------------------------ */

struct reader {
    const struct nt_tensor_source *s;
    int64_t first;
    bool ok;
};

static void *read_rows(void *arg) {
    struct reader *r = arg;
    float row[32];
    r->ok = true;
    for (int i = 0; i < 2000; i++) {
        const int64_t at = (r->first + i) % 512;
        r->ok = r->ok && nt_tensor_source_read(r->s, &r->s->tensors[0], at, at + 1, NT_READ_F32, row) == NT_OK;
        r->ok = r->ok && row[0] == (float)at && row[31] == (float)at;
    }
    return NULL;
}

static void test_threads(void **state) {
    (void)state;
    struct nt_strbuf b = NT_STRBUF_INIT;
    put_safetensors(&b, &(struct safetensors_plan){
                            .header = "{\"w\":{\"dtype\":\"F32\",\"shape\":[512,32],\"data_offsets\":[0,65536]}}"});
    for (int i = 0; i < 512 * 32; i++) {
        const float row = (float)(i / 32);
        nt_strbuf_add(&b, &row, sizeof row);
    }
    write_in_dir("model.safetensors", &b);
    struct nt_tensor_source *s = open_source(dir);
    struct reader readers[2] = {
        {.s = s, .first = 0  },
        {.s = s, .first = 100}
    };
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) assert_int_equal(pthread_create(&threads[i], NULL, read_rows, &readers[i]), 0);
    for (int i = 0; i < 2; i++) assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_true(readers[0].ok && readers[1].ok);
    nt_tensor_source_close(s);
    empty_dir(dir);
    nt_strbuf_release(&b);
}

static int setup(void **state) {
    (void)state;
    return mkdtemp(dir) ? 0 : 1;
}

static int teardown(void **state) {
    (void)state;
    empty_dir(dir);
    return rmdir(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_single),
        cmocka_unit_test(test_overflow_to_infinity),
        cmocka_unit_test(test_shards),
        cmocka_unit_test(test_every_prefix_fails),
        cmocka_unit_test(test_tiny_llama_sharded),
        cmocka_unit_test(test_tiny_qwen2),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
