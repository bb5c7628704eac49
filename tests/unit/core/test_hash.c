/* SHA-256 against FIPS 180-2 examples, XXH3 against values of the reference implementation. */
#include "hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void hex_of(const void *bytes, size_t n, char out[NT_SHA256_HEX]) {
    uint8_t digest[NT_SHA256_BYTES];
    nt_sha256(bytes, n, digest);
    nt_hex(digest, sizeof digest, out);
}

static void sha256_known_vectors(void **state) {
    (void)state;
    char hex[NT_SHA256_HEX];
    hex_of("", 0, hex);
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    hex_of("abc", 3, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    hex_of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56, hex);
    assert_string_equal(hex, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    char *million = malloc(1000000);
    memset(million, 'a', 1000000);
    hex_of(million, 1000000, hex);
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");

    struct nt_sha256 *s = NULL; /* the same in uneven pieces */
    assert_int_equal(nt_sha256_new(&s), NT_OK);
    for (size_t at = 0, n = 1; at < 1000000; at += n, n = n * 3 % 7919) {
        if (n > 1000000 - at) n = 1000000 - at;
        nt_sha256_add(s, million + at, n);
    }
    uint8_t digest[NT_SHA256_BYTES];
    nt_sha256_finish(s, digest);
    nt_hex(digest, sizeof digest, hex);
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    free(million);
}

static void sha256_of_a_file(void **state) {
    (void)state;
    char path[] = "/tmp/nt_test_hash_XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    FILE *f = fdopen(fd, "w");
    for (int i = 0; i < 1000000; i++) (void)fputc('a', f);
    (void)fclose(f);
    uint8_t digest[NT_SHA256_BYTES];
    char hex[NT_SHA256_HEX];
    assert_int_equal(nt_sha256_file(path, digest), NT_OK);
    nt_hex(digest, sizeof digest, hex);
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    (void)remove(path);
    assert_int_equal(nt_sha256_file(path, digest), NT_E_NOINPUT);
    assert_non_null(strstr(nt_error_last()->text, path));
    assert_int_equal(nt_sha256_file("/tmp", digest), NT_E_IO);
}

static void xxh3_values(void **state) {
    (void)state;
    assert_true(nt_xxh64("", 0, 0) == 0x2d06800538d394c2u); /* XXH3_64bits of nothing, as its specification gives it */
    uint8_t bytes[300];
    for (int i = 0; i < 300; i++) bytes[i] = (uint8_t)i;
    uint64_t h = nt_xxh64(bytes, 300, 0);
    assert_true(h != nt_xxh64(bytes, 299, 0) && h != nt_xxh64(bytes, 300, 1));
    bytes[150] ^= 1;
    assert_true(h != nt_xxh64(bytes, 300, 0));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sha256_known_vectors),
        cmocka_unit_test(sha256_of_a_file),
        cmocka_unit_test(xxh3_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
