#include "hash.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

struct nt_sha256 {
    EVP_MD_CTX *ctx;
};

nt_status nt_sha256_new(struct nt_sha256 **out) {
    struct nt_sha256 *s = malloc(sizeof *s);
    if (!s) return NT_FAIL(NT_E_NOMEM, "no memory for a SHA-256 state");
    s->ctx = EVP_MD_CTX_new();
    if (!s->ctx || EVP_DigestInit_ex(s->ctx, EVP_sha256(), NULL) != 1) {
        EVP_MD_CTX_free(s->ctx);
        free(s);
        return NT_FAIL(NT_E_SYSTEM, "OpenSSL gives no SHA-256; is a provider configuration in force that hides it?");
    }
    *out = s;
    return NT_OK;
}

void nt_sha256_add(struct nt_sha256 *s, const void *bytes, size_t n) {
    if (EVP_DigestUpdate(s->ctx, bytes, n) != 1) nt_bug("SHA-256 update failed");
}

void nt_sha256_finish(struct nt_sha256 *s, uint8_t digest[NT_SHA256_BYTES]) {
    if (EVP_DigestFinal_ex(s->ctx, digest, NULL) != 1) nt_bug("SHA-256 finish failed");
    EVP_MD_CTX_free(s->ctx);
    free(s);
}

void nt_sha256(const void *bytes, size_t n, uint8_t digest[NT_SHA256_BYTES]) {
    struct nt_sha256 *s = NULL;
    if (nt_sha256_new(&s) != NT_OK) nt_bug("%s", nt_error_last()->text);
    nt_sha256_add(s, bytes, n);
    nt_sha256_finish(s, digest);
}

/* Reads fd to its end in blocks; the caller closes fd and finishes s. */
static nt_status add_file(struct nt_sha256 *s, int fd, const char *path) {
    enum { BLOCK = 1 << 20 };
    uint8_t *block = malloc(BLOCK);
    if (!block) return NT_FAIL(NT_E_NOMEM, "%s: no memory for a block of %d bytes", path, BLOCK);
    ssize_t got = 0;
    while ((got = read(fd, block, BLOCK)) != 0) {
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) break;
        nt_sha256_add(s, block, (size_t)got);
    }
    int saved = errno;
    free(block);
    if (got < 0) return NT_FAIL(NT_E_IO, "%s: cannot read it for its SHA-256: %s", path, strerror(saved));
    return NT_OK;
}

nt_status nt_sha256_file(const char *path, uint8_t digest[NT_SHA256_BYTES]) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NT_FAIL(errno == ENOENT ? NT_E_NOINPUT : NT_E_IO, "%s: cannot open it for its SHA-256: %s", path,
                       strerror(errno));
    struct nt_sha256 *s = NULL;
    nt_status status = nt_sha256_new(&s);
    if (status == NT_OK) {
        status = add_file(s, fd, path);
        uint8_t unused[NT_SHA256_BYTES];
        nt_sha256_finish(s, status == NT_OK ? digest : unused);
    }
    (void)close(fd);
    return status;
}

void nt_hex(const uint8_t *bytes, size_t n, char *out) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
    out[2 * n] = '\0';
}

uint64_t nt_xxh64(const void *bytes, size_t n, uint64_t seed) {
    return XXH3_64bits_withSeed(bytes, n, seed);
}
