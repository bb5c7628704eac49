#include "tensor_source.h"
#include "fileio.h"
#include "safetensors.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK_BYTES = 1 << 18 }; /* raw bytes converted at a time */

/* --- the table ---------------------------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b) {
    return strcmp(((const struct nt_tensor_info *)a)->name, ((const struct nt_tensor_info *)b)->name);
}

const struct nt_tensor_info *nt_tensor_source_find(const struct nt_tensor_source *s, const char *name) {
    const struct nt_tensor_info key = {.name = name};
    return s->n_tensors > 0 ? bsearch(&key, s->tensors, (size_t)s->n_tensors, sizeof key, by_name) : NULL;
}

const char *nt_tensor_describe(const struct nt_tensor_info *t, char *buf, size_t cap) {
    int at = snprintf(buf, cap, "%s [", nt_wdtype_info(t->dtype)->name);
    for (int32_t i = 0; i < t->n_dims && at >= 0 && (size_t)at < cap; i++) {
        at += snprintf(buf + at, cap - (size_t)at, "%s%lld", i > 0 ? ", " : "", (long long)t->shape[i]);
    }
    if (at >= 0 && (size_t)at < cap) (void)snprintf(buf + at, cap - (size_t)at, "]");
    return buf;
}

int64_t nt_tensor_n_rows(const struct nt_tensor_info *t) {
    return t->n_dims == 0 ? 1 : t->shape[0];
}
int64_t nt_tensor_n_cols(const struct nt_tensor_info *t) {
    return t->n_dims < 2 ? 1 : t->shape[1];
}

/* Digest of what the headers say: two files with the same one hold the same names, types, shapes and metadata. */
static void digest_part(struct nt_sha256 *h, int64_t size, const void *header, size_t len) {
    uint8_t sizes[16];
    for (int i = 0; i < 8; i++) {
        sizes[i] = (uint8_t)((uint64_t)size >> 8 * i);
        sizes[8 + i] = (uint8_t)((uint64_t)len >> 8 * i);
    }
    nt_sha256_add(h, sizes, sizeof sizes);
    nt_sha256_add(h, header, len);
}

static nt_status no_memory(const char *path) {
    return NT_FAIL(NT_E_NOMEM, "%s: no memory for its tensor table", path);
}

/* --- GGUF --------------------------------------------------------------------------------------------------------- */

static nt_status open_gguf(struct nt_tensor_source *s) {
    NT_TRY(nt_gguf_open(s->path, &s->gguf));
    const int64_t n = nt_gguf_n_tensors(s->gguf);
    s->tensors = calloc((size_t)n + 1, sizeof *s->tensors);
    s->files = calloc(1, sizeof *s->files);
    if (!s->tensors || !s->files) return no_memory(s->path);
    s->files[0] = (struct nt_tensor_file){.path = strdup(s->path), .fd = -1, .size = nt_gguf_file_size(s->gguf)};
    s->n_files = 1;
    if (!s->files[0].path) return no_memory(s->path);
    s->files[0].fd = dup(nt_gguf_fd(s->gguf));
    if (s->files[0].fd < 0) return NT_FAIL(NT_E_SYSTEM, "%s: cannot be opened twice: %s", s->path, strerror(errno));
    for (int64_t i = 0; i < n; i++) {
        const struct nt_gguf_tensor *g = nt_gguf_tensor_at(s->gguf, i);
        struct nt_tensor_info *t = &s->tensors[i];
        *t = (struct nt_tensor_info){
            .name = g->name, .dtype = g->dtype, .n_dims = g->n_dims, .offset = g->offset, .n_bytes = g->n_bytes};
        for (int32_t d = 0; d < NT_TENSOR_MAX_DIMS; d++) t->shape[d] = 1;
        memcpy(t->shape, g->shape, (size_t)g->n_dims * sizeof *t->shape);
    }
    s->n_tensors = n;
    struct nt_sha256 *h = NULL;
    NT_TRY(nt_sha256_new(&h));
    size_t len = 0;
    const uint8_t *header = nt_gguf_header(s->gguf, &len);
    digest_part(h, s->files[0].size, header, len);
    nt_sha256_finish(h, s->digest);
    return NT_OK;
}

/* --- Hugging Face directory --------------------------------------------------------------------------------------- */

static nt_status open_file(struct nt_tensor_file *f) {
    struct stat sb = {0};
    f->fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (f->fd < 0 || fstat(f->fd, &sb) != 0) {
        return NT_FAIL(NT_E_NOINPUT, "%s: cannot be opened: %s", f->path, strerror(errno));
    }
    if (!S_ISREG(sb.st_mode)) return NT_FAIL(NT_E_NOINPUT, "%s is not a regular file", f->path);
    f->size = (int64_t)sb.st_size;
    char start[8];
    if (f->size >= (int64_t)sizeof start && f->size < 1024) { // what a clone without git-lfs leaves in place of a model
        NT_TRY(nt_pread_full(f->fd, start, sizeof start, 0, f->path));
        if (memcmp(start, "version ", sizeof start) == 0) {
            return NT_FAIL(NT_E_DATA, "%s is a git-lfs pointer, not the weights; run git lfs pull", f->path);
        }
    }
    return NT_OK;
}

/* Adds the tensors of one file that the index wants from it, and their names to s->names (names_len bytes so far);
 * that may move, so tensors point to their names only when all files are read. */
static nt_status add_tensors(struct nt_tensor_source *s, int32_t file, const struct nt_safetensors *st,
                             const struct nt_safetensors_index *ix, size_t *names_len) {
    size_t more = 1;
    for (int64_t i = 0; i < st->n_tensors; i++) more += strlen(st->tensors[i].name) + 1;
    char *pool = realloc(s->names, *names_len + more);
    if (pool) s->names = pool;
    struct nt_tensor_info *grown = realloc(s->tensors, (size_t)(s->n_tensors + st->n_tensors + 1) * sizeof *grown);
    if (grown) s->tensors = grown;
    if (!pool || !grown) return no_memory(s->files[file].path);
    for (int64_t i = 0; i < st->n_tensors; i++) {
        const struct nt_safetensors_tensor *t = &st->tensors[i];
        const char *home = nt_safetensors_index_file_of(ix, t->name);
        if (!home || strcmp(home, ix->files[file]) != 0) continue; // not listed, or said to be elsewhere
        const size_t len = strlen(t->name) + 1;
        memcpy(s->names + *names_len, t->name, len);
        struct nt_tensor_info *to = &s->tensors[s->n_tensors++];
        *to = (struct nt_tensor_info){
            .dtype = t->dtype, .n_dims = t->n_dims, .file = file, .offset = t->offset, .n_bytes = t->n_bytes};
        memcpy(to->shape, t->shape, sizeof to->shape);
        *names_len += len;
    }
    return NT_OK;
}
_Static_assert(NT_TENSOR_MAX_DIMS == (int)NT_SAFETENSORS_MAX_DIMS, "shapes are copied whole");

static bool is_known(const void *source, const char *name) {
    return nt_tensor_source_find(source, name) != NULL;
}

static nt_status read_files(struct nt_tensor_source *s, const struct nt_safetensors_index *ix, struct nt_sha256 *h) {
    size_t names_len = 0;
    char path[PATH_MAX];
    s->files = calloc((size_t)ix->n_files, sizeof *s->files);
    if (!s->files) return no_memory(s->path);
    for (int32_t i = 0; i < ix->n_files; i++) {
        struct nt_tensor_file *f = &s->files[i];
        f->fd = -1;
        s->n_files = i + 1;
        NT_TRY(nt_path_join(path, sizeof path, s->path, ix->files[i]));
        f->path = strdup(path);
        if (!f->path) return no_memory(s->path);
        NT_TRY(open_file(f));
        struct nt_safetensors st;
        NT_TRY(nt_safetensors_read(f->fd, f->path, f->size, &st));
        digest_part(h, f->size, st.header, st.header_len);
        const nt_status added = add_tensors(s, i, &st, ix, &names_len);
        nt_safetensors_release(&st);
        NT_TRY(added);
    }
    const char *name = s->names;
    for (int64_t i = 0; i < s->n_tensors; i++) {
        s->tensors[i].name = name;
        name += strlen(name) + 1;
    }
    return NT_OK;
}

/* The files of an index, in order, with the digest of their headers. */
static nt_status open_listed(struct nt_tensor_source *s, const struct nt_safetensors_index *ix) {
    struct nt_sha256 *h = NULL;
    NT_TRY(nt_sha256_new(&h));
    const nt_status st = read_files(s, ix, h);
    nt_sha256_finish(h, s->digest);
    NT_TRY(st);
    qsort(s->tensors, (size_t)s->n_tensors, sizeof *s->tensors, by_name);
    const char *missing = nt_safetensors_index_missing(ix, is_known, s);
    if (!missing) return NT_OK;
    return NT_FAIL(
        NT_E_DATA,
        "%s: model.safetensors.index.json lists tensor %.200s in %s, which does not hold it; fetch the model again",
        s->path, missing, nt_safetensors_index_file_of(ix, missing));
}

static nt_status open_directory(struct nt_tensor_source *s) {
    struct nt_safetensors_index ix;
    NT_TRY(nt_safetensors_index_read(s->path, &ix));
    const nt_status st = open_listed(s, &ix);
    nt_safetensors_index_release(&ix);
    return st;
}

/* --- open and close ----------------------------------------------------------------------------------------------- */

static nt_status refuse(const char *path, const uint8_t *magic, size_t n) {
    const bool zip = n >= 4 && memcmp(magic, "PK\3\4", 4) == 0;
    const bool pickle = n >= 2 && magic[0] == 0x80 && magic[1] >= 2 && magic[1] <= 5;
    if (zip || pickle) {
        return NT_FAIL(NT_E_UNSUPPORTED,
                       "%s is a pickled checkpoint, which can run code when read; "
                       "convert it first: save_pretrained(DIR, safe_serialization=True)",
                       path);
    }
    if (n >= 9 && magic[8] == '{') {
        return NT_FAIL(NT_E_UNSUPPORTED,
                       "%s is a safetensors file; give its directory, which also holds config.json and tokenizer.json",
                       path);
    }
    return NT_FAIL(NT_E_DATA, "%s: offset 0: neither a GGUF file (magic GGUF) nor a Hugging Face directory", path);
}

static nt_status open_any(struct nt_tensor_source *s) {
    if (nt_is_dir(s->path)) return nt_trail_at(open_directory(s), __FILE__, __LINE__);
    struct nt_tensor_file f = {.path = s->path, .fd = -1};
    uint8_t magic[9];
    size_t n = 0;
    nt_status st = open_file(&f);
    if (st == NT_OK) {
        n = f.size < (int64_t)sizeof magic ? (size_t)f.size : sizeof magic;
        st = nt_pread_full(f.fd, magic, n, 0, f.path);
    }
    if (f.fd >= 0) close(f.fd);
    NT_TRY(st);
    if (n < 4 || memcmp(magic, "GGUF", 4) != 0) return refuse(s->path, magic, n);
    NT_TRY(open_gguf(s));
    qsort(s->tensors, (size_t)s->n_tensors, sizeof *s->tensors, by_name);
    return NT_OK;
}

static struct nt_tensor_source *new_source(const char *path) {
    struct nt_tensor_source *s = calloc(1, sizeof *s);
    if (s) s->path = strdup(path);
    return s;
}

static nt_status finish_open(struct nt_tensor_source *s, nt_status st, struct nt_tensor_source **out) {
    *out = NULL;
    if (st != NT_OK) {
        nt_tensor_source_close(s);
        return nt_trail_at(st, __FILE__, __LINE__);
    }
    for (int32_t i = 0; i < s->n_files; i++) (void)posix_fadvise(s->files[i].fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    *out = s;
    return NT_OK;
}

nt_status nt_tensor_source_open(const char *path, struct nt_tensor_source **out) {
    struct nt_tensor_source *s = new_source(path);
    return finish_open(s, s && s->path ? open_any(s) : no_memory(path), out);
}

nt_status nt_tensor_source_open_file(const char *dir, const char *name, struct nt_tensor_source **out) {
    char *names[1] = {(char *)(uintptr_t)name}; /* only read */
    const struct nt_safetensors_index ix = {.files = names, .n_files = 1};
    struct nt_tensor_source *s = new_source(dir);
    return finish_open(s, s && s->path ? open_listed(s, &ix) : no_memory(dir), out);
}

void nt_tensor_source_close(struct nt_tensor_source *s) {
    if (!s) return;
    for (int32_t i = 0; i < s->n_files; i++) {
        if (s->files[i].fd >= 0) close(s->files[i].fd);
        free(s->files[i].path);
    }
    nt_gguf_close(s->gguf);
    free(s->files);
    free(s->tensors);
    free(s->names);
    free(s->path);
    free(s);
}

/* --- reading ------------------------------------------------------------------------------------------------------ */

/* Elements [first, end) of a tensor, flat, on their way into dst. */
struct read {
    const struct nt_tensor_file *file;
    const struct nt_tensor_info *tensor;
    const struct nt_wdtype_info *type;
    int64_t first, end;
    enum nt_read_as as;
    uint8_t *dst;
};

static size_t element_bytes(enum nt_read_as as) {
    return as == NT_READ_F32 ? sizeof(float) : sizeof(uint16_t);
}

/* Blocks [block, block + n) through raw and floats; the ends are cut to [first, end). */
static nt_status convert_blocks(const struct read *r, int64_t block, int64_t n, uint8_t *raw, float *floats) {
    const int64_t at = r->tensor->offset + block * r->type->block_bytes;
    NT_TRY(nt_pread_full(r->file->fd, raw, (size_t)(n * r->type->block_bytes), at, r->file->path));
    r->type->dequantize(raw, n, floats);
    const int64_t begin = block * r->type->block_n;
    const int64_t lo = r->first > begin ? r->first : begin;
    const int64_t hi = r->end < begin + n * r->type->block_n ? r->end : begin + n * r->type->block_n;
    uint8_t *dst = r->dst + (size_t)(lo - r->first) * element_bytes(r->as);
    if (r->as == NT_READ_F32)
        memcpy(dst, floats + (lo - begin), (size_t)(hi - lo) * sizeof *floats);
    else
        nt_bf16_from_f32_n(floats + (lo - begin), hi - lo, (uint16_t *)(void *)dst);
    return NT_OK;
}

static nt_status convert(const struct read *r) {
    const int64_t block_n = r->type->block_n;
    const int64_t first = r->first / block_n, end = (r->end + block_n - 1) / block_n;
    const int64_t step = CHUNK_BYTES / r->type->block_bytes;
    const int64_t most = end - first < step ? end - first : step;
    uint8_t *raw = malloc((size_t)(most * r->type->block_bytes));
    float *floats = malloc((size_t)(most * block_n) * sizeof *floats);
    nt_status st = raw && floats ? NT_OK : no_memory(r->file->path);
    for (int64_t b = first; b < end && st == NT_OK; b += step) {
        st = convert_blocks(r, b, end - b < step ? end - b : step, raw, floats);
    }
    free(raw);
    free(floats);
    return st;
}

static bool finite_at(const struct read *r, int64_t i) {
    if (r->as == NT_READ_F32) return (((const uint32_t *)(const void *)r->dst)[i] & 0x7f800000u) != 0x7f800000u;
    return (((const uint16_t *)(const void *)r->dst)[i] & 0x7f80u) != 0x7f80u;
}

static bool all_finite(const struct read *r) {
    const int64_t n = r->end - r->first;
    uint32_t bad = 0; // two plain loops that vectorize: this runs over every weight
    if (r->as == NT_READ_F32) {
        const uint32_t *u = (const uint32_t *)(const void *)r->dst;
        for (int64_t i = 0; i < n; i++) bad |= (u[i] & 0x7f800000u) == 0x7f800000u;
    } else {
        const uint16_t *u = (const uint16_t *)(const void *)r->dst;
        for (int64_t i = 0; i < n; i++) bad |= (u[i] & 0x7f80u) == 0x7f80u;
    }
    return bad == 0;
}

static nt_status report_non_finite(const struct read *r) {
    int64_t n_bad = 0, first = -1;
    for (int64_t i = 0; i < r->end - r->first; i++) {
        if (finite_at(r, i)) continue;
        if (n_bad++ == 0) first = i;
    }
    const int64_t cols = nt_tensor_n_cols(r->tensor), index = r->first + first;
    const float value = r->as == NT_READ_F32 ? ((const float *)(const void *)r->dst)[first]
                                             : nt_f32_from_bf16(((const uint16_t *)(const void *)r->dst)[first]);
    return NT_FAIL(
        NT_E_DATA,
        "%s: tensor %s: %lld of the %lld weights from row %lld on are not finite, the first is %s at [%lld, %lld]; "
        "the model is damaged, fetch it again",
        r->file->path, r->tensor->name, (long long)n_bad, (long long)(r->end - r->first), (long long)(r->first / cols),
        isnan(value) ? "NaN" : "infinite", (long long)(index / cols), (long long)(index % cols));
}

nt_status nt_tensor_source_read(const struct nt_tensor_source *s, const struct nt_tensor_info *t, int64_t row0,
                                int64_t row1, enum nt_read_as as, void *dst) {
    char shape[160];
    const struct nt_tensor_file *f = &s->files[t->file];
    if (t->n_dims < 1 || t->n_dims > 2) {
        return NT_FAIL(NT_E_UNSUPPORTED, "%s: tensor %s is %s; a vector or a matrix was expected", f->path, t->name,
                       nt_tensor_describe(t, shape, sizeof shape));
    }
    if (!nt_wdtype_readable(t->dtype)) {
        return NT_FAIL(NT_E_UNSUPPORTED,
                       "%s: tensor %s is %s; weights of this type cannot be read, convert the model to BF16 or Q8_0",
                       f->path, t->name, nt_tensor_describe(t, shape, sizeof shape));
    }
    NT_CHECK(row0 >= 0 && row0 <= row1 && row1 <= nt_tensor_n_rows(t));
    const int64_t cols = nt_tensor_n_cols(t);
    const struct read r = {.file = f,
                           .tensor = t,
                           .type = nt_wdtype_info(t->dtype),
                           .first = row0 * cols,
                           .end = row1 * cols,
                           .as = as,
                           .dst = dst};
    if (r.first == r.end) return NT_OK;
    const bool straight = as == NT_READ_F32 ? t->dtype == NT_WDTYPE_F32 : t->dtype == NT_WDTYPE_BF16;
    if (straight) {
        const size_t bytes = element_bytes(as);
        NT_TRY(nt_pread_full(f->fd, dst, (size_t)(r.end - r.first) * bytes, t->offset + r.first * (int64_t)bytes,
                             f->path));
    } else {
        NT_TRY(convert(&r));
    }
    return all_finite(&r) ? NT_OK : report_non_finite(&r);
}
