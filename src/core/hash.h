/* Digests: SHA-256 (OpenSSL) for identity and manifests, XXH3-64 for maps, journal records and determinism checks.
 *
 * Ownership: nt_sha256_new gives a state that nt_sha256_finish frees. Threading: one state, one thread.
 * Errors: NT_E_SYSTEM when OpenSSL refuses SHA-256, NT_E_NOINPUT or NT_E_IO with the path for files.
 * Sources: FIPS 180-4 (SHA-256); the xxHash specification (XXH3, 64 bits, with seed). XXH3 is no defence against
 * anybody who wants a collision. */
#ifndef NT_HASH_H
#define NT_HASH_H

#include "status.h"
#include <stdint.h>

enum { NT_SHA256_BYTES = 32, NT_SHA256_HEX = 65 };

struct nt_sha256; /* opaque streaming state */
NT_MUST nt_status nt_sha256_new(struct nt_sha256 **out);
void nt_sha256_add(struct nt_sha256 *s, const void *bytes, size_t n);
void nt_sha256_finish(struct nt_sha256 *s, uint8_t digest[NT_SHA256_BYTES]); /* frees s */
void nt_sha256(const void *bytes, size_t n, uint8_t digest[NT_SHA256_BYTES]);
NT_MUST nt_status nt_sha256_file(const char *path, uint8_t digest[NT_SHA256_BYTES]);
void nt_hex(const uint8_t *bytes, size_t n, char *out);        /* 2n + NUL */
uint64_t nt_xxh64(const void *bytes, size_t n, uint64_t seed); /* XXH3 64 bit with seed */

#endif
