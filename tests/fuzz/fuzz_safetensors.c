/* Any bytes as a safetensors file, and as the index of a sharded model: the bytes up to the first 0xff 0xfe are the
 * index (when there is such a mark), the rest is the file. */
#include "fuzz_file.h"
#include "safetensors.h"
#include <sys/stat.h>

static size_t split(const uint8_t *data, size_t size) {
    for (size_t i = 0; i + 1 < size; i++) {
        if (data[i] == 0xff && data[i + 1] == 0xfe) return i;
    }
    return SIZE_MAX;
}

static void one_file(const uint8_t *data, size_t size) {
    char path[64];
    struct nt_safetensors t;
    const int fd = fuzz_file(data, size, path, sizeof path);
    nt_error_clear();
    const nt_status st = nt_safetensors_read(fd, path, (int64_t)size, &t);
    fuzz_check_status(st);
    int64_t end = 8 + (int64_t)t.header_len;
    for (int64_t i = 0; st == NT_OK && i < t.n_tensors; i++) { // no hole, no overlap, to the last byte
        FUZZ_CHECK(t.tensors[i].offset == end && t.tensors[i].n_bytes >= 0);
        end += t.tensors[i].n_bytes;
    }
    FUZZ_CHECK(st != NT_OK || end == (int64_t)size);
    nt_safetensors_release(&t);
    (void)close(fd);
}

/* One directory per process, removed at its end: making one per input costs more than all the rest. */
static char dir[32], file[64], index_file[64];

static void remove_directory(void) {
    (void)unlink(file);
    (void)unlink(index_file);
    (void)rmdir(dir);
}

static void make_directory(void) {
    (void)snprintf(dir, sizeof dir, "%s/nt-fuzz-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    FUZZ_CHECK(mkdtemp(dir) != NULL);
    (void)snprintf(file, sizeof file, "%s/model.safetensors", dir);
    (void)snprintf(index_file, sizeof index_file, "%s/model.safetensors.index.json", dir);
    FUZZ_CHECK(atexit(remove_directory) == 0);
}

/* The same through a directory, with rows read. */
static void directory(const uint8_t *index, size_t index_size, const uint8_t *data, size_t size) {
    if (!dir[0]) make_directory();
    fuzz_write(file, data, size);
    if (index)
        fuzz_write(index_file, index, index_size);
    else
        (void)unlink(index_file);
    struct nt_tensor_source *s = NULL;
    nt_error_clear();
    const nt_status st = nt_tensor_source_open(dir, &s);
    fuzz_check_status(st);
    if (st == NT_OK) fuzz_read_tensors(s);
    nt_tensor_source_close(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const size_t at = split(data, size);
    if (at == SIZE_MAX) {
        one_file(data, size);
        directory(NULL, 0, data, size);
    } else {
        directory(data, at, data + at + 2, size - at - 2);
    }
    return 0;
}
