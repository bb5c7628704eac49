/* Shared by the fuzz targets that read model files: bytes as a file, and what must hold after any of them.
 *
 * A target is LLVMFuzzerTestOneInput in fuzz_<what>.c; fuzz_replay.c runs it over the committed corpus without
 * libFuzzer. FUZZ_CHECK traps: both runners report the input that did it.
 * Files live in memory (memfd); a directory, where one is needed, in /tmp. */
#ifndef NT_TEST_FUZZ_FILE_H
#define NT_TEST_FUZZ_FILE_H

#include "tensor_source.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_CHECK(cond)                                                                                               \
    do {                                                                                                               \
        if (!(cond)) {                                                                                                 \
            fprintf(stderr, "%s:%d: violated: %s\n", __FILE__, __LINE__, #cond);                                       \
            __builtin_trap();                                                                                          \
        }                                                                                                              \
    } while (0)

/* Reads every byte, so that a sanitizer sees a range that is too long. */
static inline void fuzz_touch(const void *bytes, size_t n) {
    volatile uint8_t sum = 0;
    for (size_t i = 0; i < n; i++) sum = (uint8_t)(sum + ((const uint8_t *)bytes)[i]);
}

/* A file of these bytes; path is good until the descriptor is closed. */
static inline int fuzz_file(const uint8_t *data, size_t size, char *path, size_t cap) {
    const int fd = memfd_create("fuzz", MFD_CLOEXEC);
    FUZZ_CHECK(fd >= 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
    FUZZ_CHECK(snprintf(path, cap, "/proc/self/fd/%d", fd) < (int)cap);
    return fd;
}

static inline void fuzz_write(const char *path, const uint8_t *data, size_t size) {
    FILE *f = fopen(path, "wb");
    FUZZ_CHECK(f && fwrite(data, 1, size, f) == size);
    FUZZ_CHECK(fclose(f) == 0);
}

static inline void fuzz_check_status(nt_status st) {
    if (st == NT_OK) return;
    FUZZ_CHECK(st == NT_E_DATA || st == NT_E_UNSUPPORTED || st == NT_E_NOINPUT);
    FUZZ_CHECK(nt_error_last()->code == st && strlen(nt_error_last()->text) > 10);
}

static inline void fuzz_read_tensors(const struct nt_tensor_source *s) {
    for (int64_t i = 0; i < s->n_tensors; i++) {
        const struct nt_tensor_info *t = &s->tensors[i];
        FUZZ_CHECK(t->offset >= 0 && t->n_bytes >= 0 && t->offset + t->n_bytes <= s->files[t->file].size);
        FUZZ_CHECK(nt_tensor_source_find(s, t->name) == t);
        if (t->n_dims < 1 || t->n_dims > 2) continue;
        const int64_t rows = nt_tensor_n_rows(t), n = rows * nt_tensor_n_cols(t);
        FUZZ_CHECK(n / 8 <= t->n_bytes); // no type has more than eight weights in a byte
        float *floats = malloc((size_t)n * sizeof *floats + 1);
        FUZZ_CHECK(floats);
        fuzz_check_status(nt_tensor_source_read(s, t, 0, rows, NT_READ_F32, floats));
        fuzz_check_status(nt_tensor_source_read(s, t, rows / 2, rows, NT_READ_BF16, floats));
        free(floats);
    }
}

#endif
