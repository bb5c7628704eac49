#include "model_digest.h"
#include "comm.h"
#include "fileio.h"
#include "hash.h"
#include "pool.h"
#include "tensor_source.h"
#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* digest = SHA-256( config digests | per file: size | SHA-256 of each 4 MiB piece ): pieces are hashed in parallel. */
enum { PIECE = 4 << 20 };

struct hashing {
    const struct nt_tensor_source *src;
    struct nt_world *world;
    struct nt_pool *pool;
    int64_t first, n; /* this rank's pieces */
    uint8_t *out;     // [n, 32]
    atomic_bool failed;
    atomic_flag error_set;
    struct nt_error error;
};

static int64_t file_pieces(const struct nt_tensor_file *f) {
    return (f->size + PIECE - 1) / PIECE;
}

static nt_status hash_piece(const struct hashing *h, int64_t piece, uint8_t *buf, uint8_t *digest) {
    const struct nt_tensor_file *f = h->src->files;
    for (; piece >= file_pieces(f); f++) piece -= file_pieces(f);
    const int64_t offset = piece * PIECE, left = f->size - offset;
    const size_t n = left < PIECE ? (size_t)left : PIECE;
    NT_TRY(nt_pread_full(f->fd, buf, n, offset, f->path));
    nt_sha256(buf, n, digest);
    return NT_OK;
}

static void hash_thread(void *arg, int thread, int n_threads) {
    (void)thread;
    (void)n_threads;
    struct hashing *h = arg;
    uint8_t *buf = malloc(PIECE);
    for (int64_t i = nt_pool_next(h->pool, h->n); i >= 0; i = nt_pool_next(h->pool, h->n)) {
        if (atomic_load(&h->failed)) continue;
        nt_comm_beat(h->world);
        const nt_status st = buf ? hash_piece(h, h->first + i, buf, h->out + i * NT_SHA256_BYTES)
                                 : NT_FAIL(NT_E_NOMEM, "%s: no memory to hash the model", h->src->path);
        if (st == NT_OK) continue;
        if (!atomic_flag_test_and_set(&h->error_set)) nt_error_take(&h->error);
        atomic_store(&h->failed, true);
    }
    free(buf);
}

static nt_status hash_own_part(struct hashing *h) {
    nt_pool_run(h->pool, hash_thread, h);
    if (!atomic_load(&h->failed)) return NT_OK;
    nt_error_give(&h->error);
    return nt_trail_at(h->error.code, __FILE__, __LINE__);
}

static nt_status add_config(struct nt_sha256 *sum, const char *dir, const char *name) {
    char path[PATH_MAX];
    uint8_t digest[NT_SHA256_BYTES] = {0};
    NT_TRY(nt_path_join(path, sizeof path, dir, name));
    if (nt_file_exists(path)) NT_TRY(nt_sha256_file(path, digest));
    nt_sha256_add(sum, digest, sizeof digest);
    return NT_OK;
}

static nt_status add_configs(struct nt_sha256 *sum, const struct nt_tensor_source *src) {
    if (src->gguf) return NT_OK;
    NT_TRY(add_config(sum, src->path, "config.json"));
    return add_config(sum, src->path, "generation_config.json");
}

static void add_le64(struct nt_sha256 *sum, int64_t x) {
    uint8_t bytes[8];
    for (int i = 0; i < 8; i++) bytes[i] = (uint8_t)((uint64_t)x >> (8 * i));
    nt_sha256_add(sum, bytes, sizeof bytes);
}

static nt_status combine(const struct nt_tensor_source *src, const uint8_t *pieces, uint8_t digest[32]) {
    struct nt_sha256 *sum = NULL;
    NT_TRY(nt_sha256_new(&sum));
    const nt_status st = add_configs(sum, src);
    for (int32_t i = 0; i < src->n_files; i++) {
        const int64_t n = file_pieces(&src->files[i]);
        add_le64(sum, src->files[i].size);
        nt_sha256_add(sum, pieces, (size_t)n * NT_SHA256_BYTES);
        pieces += n * NT_SHA256_BYTES;
    }
    nt_sha256_finish(sum, digest);
    return st;
}

nt_status nt_model_digest_compute(const struct nt_tensor_source *src, struct nt_world *w, struct nt_pool *pool,
                                  uint8_t digest[32]) {
    int64_t total = 0;
    for (int32_t i = 0; i < src->n_files; i++) total += file_pieces(&src->files[i]);
    const int64_t each = (total + w->size - 1) / w->size;
    struct hashing h = {.src = src, .world = w, .pool = pool, .first = w->rank * each, .error_set = ATOMIC_FLAG_INIT};
    h.n = total - h.first < each ? total - h.first : each;
    if (h.n < 0) h.n = 0;
    const size_t bytes = (size_t)each * NT_SHA256_BYTES;
    uint8_t *all = calloc((size_t)w->size + 1, bytes);
    nt_status st = NT_OK;
    if (all) {
        h.out = all + (size_t)w->size * bytes;
        st = hash_own_part(&h);
    } else {
        st = NT_FAIL(NT_E_NOMEM, "%s: no memory to hash the model", src->path);
    }
    st = nt_comm_agree(w->world, st);
    if (st == NT_OK) st = nt_comm_allgather(w->world, h.out, all, bytes);
    if (st == NT_OK) st = combine(src, all, digest);
    free(all);
    return st;
}
