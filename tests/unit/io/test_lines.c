#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fileio.h"
#include "lines.h"
#include "strbuf.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

static char dir[64];

static int make_dir(void **state) {
    (void)state;
    (void)snprintf(dir, sizeof dir, "/tmp/nt-lines-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state) {
    (void)state;
    char cmd[128];
    (void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    return system(cmd);
}

static const char *write_file(const char *name, const void *bytes, size_t n) {
    static char path[128];
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(nt_publish_bytes(path, bytes, n, NT_PUBLISH_REPLACE), NT_OK);
    return path;
}

static void gzip(struct nt_strbuf *out, const char *text, size_t n) {
    z_stream z = {0};
    assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    const size_t cap = deflateBound(&z, n) + 64;
    nt_strbuf_reserve(out, cap);
    z.next_in = (Bytef *)(uintptr_t)text;
    z.avail_in = (uInt)n;
    z.next_out = (Bytef *)out->data + out->len;
    z.avail_out = (uInt)cap;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    out->len += cap - z.avail_out;
    assert_int_equal(deflateEnd(&z), Z_OK);
}

static void zstandard(struct nt_strbuf *out, const char *text, size_t n) {
    const size_t cap = ZSTD_compressBound(n);
    nt_strbuf_reserve(out, cap);
    const size_t got = ZSTD_compress(out->data + out->len, cap, text, n, 3);
    assert_false(ZSTD_isError(got));
    out->len += got;
}

/* All lines as "number:offset:text|", long ones as "number:offset:LEN!|". */
static nt_status dump(const char *path, size_t max_line, struct nt_strbuf *out) {
    struct nt_lines *l = NULL;
    struct nt_line line;
    NT_TRY(nt_lines_open(&l, path, max_line, NULL));
    nt_status st = NT_OK;
    while ((st = nt_lines_next(l, &line)) == NT_OK && line.data) {
        nt_strbuf_addf(out, "%d:%d:", (int)line.number, (int)line.offset);
        if (line.too_long)
            nt_strbuf_addf(out, "%zu!", line.len);
        else
            nt_strbuf_add(out, line.data, line.len);
        nt_strbuf_addc(out, '|');
    }
    nt_lines_close(l);
    return st;
}

static void expect(const char *name, const char *bytes, size_t n, size_t max_line, const char *want) {
    struct nt_strbuf got = NT_STRBUF_INIT;
    assert_int_equal(dump(write_file(name, bytes, n), max_line, &got), NT_OK);
    assert_string_equal(nt_strbuf_cstr(&got), want);
    nt_strbuf_release(&got);
}

static void test_plain(void **state) {
    (void)state;
    expect("a", "", 0, 0, "");
    expect("a", "\n", 1, 0, "1:0:|");
    expect("a", "x", 1, 0, "1:0:x|");
    expect("a", "one\ntwo\r\n\nlast", 14, 0, "1:0:one|2:4:two|3:9:|4:10:last|");
    expect("a", "\xef\xbb\xbfone\nx\xef\xbb\xbfy\n", 13, 0, "1:3:one|2:7:x\xef\xbb\xbfy|");
    expect("a", "\xef\xbb\xbf", 3, 0, "");
    expect("a", "a\rb\r\r\n", 6, 0, "1:0:a\rb\r|");
}

static void test_cap(void **state) {
    (void)state;
    expect("a", "12345678\n123456789\nend\n", 23, 8, "1:0:12345678|2:9:9!|3:19:end|");
    expect("a", "12345678\r\n123456789\r\nend", 24, 8, "1:0:12345678|2:10:9!|3:21:end|");
    struct nt_strbuf big = NT_STRBUF_INIT;
    nt_strbuf_adds(&big, "a\n");
    for (int i = 0; i < 700000; i++) nt_strbuf_addc(&big, (char)('a' + i % 26)); /* over several buffers */
    nt_strbuf_adds(&big, "\r\nb\n");
    expect("a", big.data, big.len, 1000, "1:0:a|2:2:700000!|3:700004:b|");
    struct nt_strbuf got = NT_STRBUF_INIT;
    assert_int_equal(dump(write_file("a", big.data, big.len), 0, &got), NT_OK);
    assert_true(got.len > 700000);
    assert_non_null(strstr(got.data, "|3:700004:b|"));
    nt_strbuf_release(&got);
    nt_strbuf_release(&big);
}

/* Two members and a third with a line across the border; also with padding behind. */
static void test_packed(void **state) {
    (void)state;
    for (int zst = 0; zst < 2; zst++) {
        struct nt_strbuf file = NT_STRBUF_INIT;
        void (*pack)(struct nt_strbuf *, const char *, size_t) = zst ? zstandard : gzip;
        const char *name = zst ? "p.jsonl.zst" : "p.jsonl.gz";
        pack(&file, "one\ntw", 6);
        pack(&file, "o\n", 2);
        pack(&file, "", 0);
        pack(&file, "three", 5);
        expect(name, file.data, file.len, 0, "1:0:one|2:4:two|3:8:three|");
        expect("anyname", file.data, file.len, 0, "1:0:one|2:4:two|3:8:three|"); /* told by content */
        if (!zst) {
            nt_strbuf_add(&file, "\0\0\0\0", 4);
            expect(name, file.data, file.len, 0, "1:0:one|2:4:two|3:8:three|");
            nt_strbuf_adds(&file, "junk");
            struct nt_strbuf got = NT_STRBUF_INIT;
            assert_int_equal(dump(write_file(name, file.data, file.len), 0, &got), NT_E_DATA);
            assert_non_null(strstr(nt_error_last()->text, "no gzip member"));
            nt_strbuf_release(&got);
        }
        nt_strbuf_release(&file);
    }
}

/* Every cut of a packed file is an error that names the file and an offset, except cuts between members. */
static void test_cut(void **state) {
    (void)state;
    for (int zst = 0; zst < 2; zst++) {
        struct nt_strbuf file = NT_STRBUF_INIT;
        void (*pack)(struct nt_strbuf *, const char *, size_t) = zst ? zstandard : gzip;
        pack(&file, "{\"prompt\": \"one\"}\n{\"prompt\": \"two\"}\n", 36);
        const size_t first = file.len;
        pack(&file, "{\"prompt\": \"three\"}\n", 20);
        for (size_t n = 0; n < file.len; n++) {
            struct nt_strbuf got = NT_STRBUF_INIT;
            const char *path = write_file(zst ? "c.zst" : "c.gz", file.data, n);
            const nt_status st = dump(path, 0, &got);
            assert_int_equal(st, n == first ? NT_OK : NT_E_DATA);
            if (st != NT_OK) {
                assert_non_null(strstr(nt_error_last()->text, zst ? "c.zst" : "c.gz"));
                assert_non_null(strstr(nt_error_last()->text, "offset"));
            }
            nt_strbuf_release(&got);
        }
        nt_strbuf_release(&file);
    }
}

/* Damage is found (gzip has a CRC; zstd frames here have no checksum, so only the structure is checked). */
static void test_damage(void **state) {
    (void)state;
    struct nt_strbuf file = NT_STRBUF_INIT;
    gzip(&file, "{\"prompt\": \"one\"}\n{\"prompt\": \"two\"}\n", 36);
    size_t n_refused = 0;
    for (size_t i = 10; i < file.len; i++) { /* behind the header, whose mtime and OS may be anything */
        struct nt_strbuf got = NT_STRBUF_INIT;
        file.data[i] ^= 0x10;
        const nt_status st = dump(write_file("d.gz", file.data, file.len), 0, &got);
        if (st == NT_OK) /* a padding bit behind the last code */
            assert_string_equal(nt_strbuf_cstr(&got), "1:0:{\"prompt\": \"one\"}|2:18:{\"prompt\": \"two\"}|");
        else
            assert_int_equal(st, NT_E_DATA);
        n_refused += st != NT_OK;
        file.data[i] ^= 0x10;
        nt_strbuf_release(&got);
    }
    assert_true(n_refused >= file.len - 12);
    nt_strbuf_release(&file);
}

static void test_wrong_files(void **state) {
    (void)state;
    struct nt_lines *l = NULL;
    assert_int_equal(nt_lines_open(&l, "/nowhere/x.jsonl", 0, NULL), NT_E_NOINPUT);
    assert_int_equal(nt_lines_open(&l, dir, 0, NULL), NT_E_NOINPUT);
    assert_int_equal(nt_lines_open(&l, write_file("u16", "\xff\xfe{\0", 4), 0, NULL), NT_E_DATA);
    assert_non_null(strstr(nt_error_last()->text, "iconv"));
    assert_int_equal(nt_lines_open(&l, write_file("n.gz", "text\n", 5), 0, NULL), NT_E_DATA);
    assert_int_equal(nt_lines_open(&l, write_file("n.zst", "text\n", 5), 0, NULL), NT_E_DATA);
}

/* The tap sees the uncompressed bytes, whatever the packing. */
static void test_digest(void **state) {
    (void)state;
    const char text[] = "\xef\xbb\xbfone\r\n\r\nlast";
    uint8_t want[NT_SHA256_BYTES], got[NT_SHA256_BYTES];
    nt_sha256(text, sizeof text - 1, want);
    for (int kind = 0; kind < 3; kind++) {
        struct nt_strbuf file = NT_STRBUF_INIT;
        if (kind == 0) nt_strbuf_add(&file, text, sizeof text - 1);
        if (kind == 1) gzip(&file, text, sizeof text - 1);
        if (kind == 2) zstandard(&file, text, sizeof text - 1);
        const char *path = write_file("t", file.data, file.len);
        struct nt_sha256 *sha = NULL;
        struct nt_lines *l = NULL;
        struct nt_line line;
        assert_int_equal(nt_sha256_new(&sha), NT_OK);
        assert_int_equal(nt_lines_open(&l, path, 0, sha), NT_OK);
        do assert_int_equal(nt_lines_next(l, &line), NT_OK);
        while (line.data);
        nt_lines_close(l);
        nt_sha256_finish(sha, got);
        assert_memory_equal(got, want, sizeof want);
        nt_strbuf_release(&file);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),  cmocka_unit_test(test_cap),    cmocka_unit_test(test_packed),
        cmocka_unit_test(test_cut),    cmocka_unit_test(test_damage), cmocka_unit_test(test_wrong_files),
        cmocka_unit_test(test_digest),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
