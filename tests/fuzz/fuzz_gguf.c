/* Any bytes as a GGUF file: open, walk all metadata, read every tensor. Promises checked: an error has a sentence and
 * one of the statuses for foreign data; what opens lies inside the file. */
#include "fuzz_file.h"

static void walk_array(const struct nt_gguf *g, const char *key) {
    const int64_t n = nt_gguf_array_len(g, key);
    size_t len = 0;
    for (int64_t i = -1; i <= n && i < 1000; i++) {
        const char *s = nt_gguf_array_str(g, key, i, &len);
        if (s) fuzz_touch(s, len);
        (void)nt_gguf_array_i64(g, key, i, 0);
        (void)nt_gguf_array_f64(g, key, i, 0);
    }
    FUZZ_CHECK(nt_gguf_array_str(g, key, n, &len) == NULL);
}

static void walk_metadata(const struct nt_gguf *g) {
    for (int64_t i = 0; i < nt_gguf_n_kv(g); i++) {
        const char *key = nt_gguf_key_at(g, i);
        size_t len = 0;
        FUZZ_CHECK(nt_gguf_type(g, key) != NT_GGUF_NONE);
        const char *s = nt_gguf_str(g, key, &len);
        if (s) fuzz_touch(s, len);
        (void)nt_gguf_i64(g, key, 0);
        (void)nt_gguf_f64(g, key, 0);
        (void)nt_gguf_bool(g, key, false);
        walk_array(g, key);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[64];
    struct nt_tensor_source *s = NULL;
    const int fd = fuzz_file(data, size, path, sizeof path);
    nt_error_clear();
    nt_status st = nt_tensor_source_open(path, &s);
    fuzz_check_status(st);
    if (st == NT_OK) {
        walk_metadata(s->gguf);
        fuzz_read_tensors(s);
    }
    nt_tensor_source_close(s);
    (void)close(fd);
    return 0;
}
