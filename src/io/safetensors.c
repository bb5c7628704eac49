#include "safetensors.h"
#include "fileio.h"
#include "json.h"
#include "strbuf.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_INDEX_BYTES = 64 << 20, MAX_NAME = 1024 };

/* --- one file ----------------------------------------------------------------------------------------------------- */

static nt_status read_header(int fd, const char *path, int64_t size, struct nt_safetensors *st) {
    uint8_t raw[8];
    if (size < 8) {
        return NT_FAIL(NT_E_DATA, "%s: offset 0: header length needs 8 bytes but the file has %lld; fetch it again",
                       path, (long long)size);
    }
    NT_TRY(nt_pread_full(fd, raw, sizeof raw, 0, path));
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--) n = n << 8 | raw[i];
    if (n > NT_SAFETENSORS_MAX_HEADER) {
        return NT_FAIL(NT_E_DATA, "%s: offset 0: header of %llu bytes; at most %d are allowed", path,
                       (unsigned long long)n, NT_SAFETENSORS_MAX_HEADER);
    }
    if (n > (uint64_t)size - 8) {
        return NT_FAIL(
            NT_E_DATA,
            "%s: offset 8: header of %llu bytes but the file ends after %lld; it is truncated, fetch it again", path,
            (unsigned long long)n, (long long)size - 8);
    }
    st->header = malloc((size_t)n + 1);
    if (!st->header)
        return NT_FAIL(NT_E_NOMEM, "%s: no memory for a header of %llu bytes", path, (unsigned long long)n);
    NT_TRY(nt_pread_full(fd, st->header, (size_t)n, 8, path));
    st->header[n] = '\0';
    st->header_len = (size_t)n;
    if (n == 0 || st->header[0] != '{') {
        return NT_FAIL(NT_E_DATA, "%s: offset 8: header does not begin with '{'; a safetensors file was expected",
                       path);
    }
    return NT_OK;
}

static nt_status check_metadata(const char *path, const struct nt_json *meta) {
    if (!nt_json_is(meta, NT_JSON_OBJECT)) {
        return NT_FAIL(NT_E_DATA, "%s: __metadata__ is of type %s; an object was expected", path,
                       nt_json_type_name(meta));
    }
    for (void *it = nt_json_first(meta); it; it = nt_json_next(meta, it)) {
        if (!nt_json_is(nt_json_value(it), NT_JSON_STRING)) {
            return NT_FAIL(NT_E_DATA, "%s: __metadata__ value of %.100s is of type %s; a string was expected", path,
                           nt_json_key(it), nt_json_type_name(nt_json_value(it)));
        }
    }
    return NT_OK;
}

static nt_status read_shape(const char *path, const struct nt_json *shape, struct nt_safetensors_tensor *t) {
    const size_t n = nt_json_len(shape);
    if (!nt_json_is(shape, NT_JSON_ARRAY) || n > NT_SAFETENSORS_MAX_DIMS) {
        return NT_FAIL(NT_E_DATA, "%s: tensor %s: shape must be an array of at most %d sizes", path, t->name,
                       NT_SAFETENSORS_MAX_DIMS);
    }
    t->n_dims = (int32_t)n;
    for (size_t i = 0; i < n; i++) {
        const struct nt_json *v = nt_json_at(shape, i);
        if (!nt_json_is(v, NT_JSON_INT) || nt_json_int(v, -1) < 0) {
            return NT_FAIL(NT_E_DATA, "%s: tensor %s: shape[%zu] must be an integer of at least 0", path, t->name, i);
        }
        t->shape[i] = nt_json_int(v, 0);
    }
    for (size_t i = n; i < NT_SAFETENSORS_MAX_DIMS; i++) t->shape[i] = 1;
    return NT_OK;
}

/* Bytes that dtype and shape ask for. */
static nt_status shape_bytes(const char *path, const struct nt_safetensors_tensor *t, int64_t *out) {
    const struct nt_wdtype_info *w = nt_wdtype_info(t->dtype);
    int64_t n = 1, bytes = 0;
    bool fits = true;
    for (int32_t i = 0; i < t->n_dims; i++) fits = fits && !__builtin_mul_overflow(n, t->shape[i], &n);
    if (!fits || __builtin_mul_overflow(n, (int64_t)w->block_bytes, &bytes)) {
        return NT_FAIL(NT_E_DATA, "%s: tensor %s: size of the shape overflows 64 bits", path, t->name);
    }
    if (bytes % w->block_n != 0) {
        return NT_FAIL(NT_E_DATA, "%s: tensor %s: %lld elements of %s do not end on a whole byte", path, t->name,
                       (long long)n, w->name);
    }
    *out = bytes / w->block_n;
    return NT_OK;
}

static nt_status read_tensor(const char *path, const struct nt_json *v, struct nt_safetensors_tensor *t) {
    size_t len = 0;
    const char *dtype = nt_json_str(nt_json_get(v, "dtype"), &len);
    if (!dtype) return NT_FAIL(NT_E_DATA, "%s: tensor %s: dtype missing; a string was expected", path, t->name);
    t->dtype = nt_wdtype_from_safetensors(dtype, (int64_t)len);
    if (t->dtype == NT_WDTYPE_COUNT) {
        return NT_FAIL(NT_E_DATA, "%s: tensor %s: unknown dtype %.32s; F32, F16 or BF16 was expected", path, t->name,
                       dtype);
    }
    NT_TRY(read_shape(path, nt_json_get(v, "shape"), t));
    const struct nt_json *at = nt_json_get(v, "data_offsets");
    const struct nt_json *b = nt_json_at(at, 0), *e = nt_json_at(at, 1);
    if (nt_json_len(at) != 2 || !nt_json_is(b, NT_JSON_INT) || !nt_json_is(e, NT_JSON_INT) || nt_json_int(b, -1) < 0 ||
        nt_json_int(e, -1) < nt_json_int(b, 0)) {
        return NT_FAIL(NT_E_DATA, "%s: tensor %s: data_offsets must be two integers, begin and end", path, t->name);
    }
    t->offset = nt_json_int(b, 0);
    t->n_bytes = nt_json_int(e, 0) - t->offset;
    int64_t bytes = 0;
    NT_TRY(shape_bytes(path, t, &bytes));
    if (bytes != t->n_bytes) {
        return NT_FAIL(NT_E_DATA, "%s: tensor %s: data_offsets span %lld bytes but dtype and shape need %lld", path,
                       t->name, (long long)t->n_bytes, (long long)bytes);
    }
    return NT_OK;
}

static nt_status check_name(const char *path, const char *name) {
    const size_t n = strlen(name);
    bool ok = n > 0 && n <= MAX_NAME;
    for (size_t i = 0; i < n && ok; i++) ok = (unsigned char)name[i] >= 0x20 && name[i] != 0x7f;
    if (ok) return NT_OK;
    return NT_FAIL(NT_E_DATA, "%s: a tensor name of %zu bytes; 1 to %d without control characters were expected", path,
                   n, MAX_NAME);
}

static nt_status read_tensors(const char *path, const struct nt_json *doc, struct nt_safetensors *st) {
    if (!nt_json_is(doc, NT_JSON_OBJECT)) return NT_FAIL(NT_E_DATA, "%s: header is no JSON object", path);
    size_t bytes = 1;
    for (void *it = nt_json_first(doc); it; it = nt_json_next(doc, it)) bytes += strlen(nt_json_key(it)) + 1;
    st->names = malloc(bytes);
    st->tensors = calloc(nt_json_len(doc) + 1, sizeof *st->tensors);
    if (!st->names || !st->tensors) return NT_FAIL(NT_E_NOMEM, "%s: no memory for its tensor table", path);
    char *pool = st->names;
    for (void *it = nt_json_first(doc); it; it = nt_json_next(doc, it)) {
        const char *key = nt_json_key(it);
        if (strcmp(key, "__metadata__") == 0) {
            NT_TRY(check_metadata(path, nt_json_value(it)));
            continue;
        }
        NT_TRY(check_name(path, key));
        struct nt_safetensors_tensor *t = &st->tensors[st->n_tensors];
        const size_t len = strlen(key) + 1;
        memcpy(pool, key, len);
        t->name = pool;
        pool += len;
        NT_TRY(read_tensor(path, nt_json_value(it), t));
        st->n_tensors++;
    }
    return NT_OK;
}

static int by_offset(const void *a, const void *b) {
    const struct nt_safetensors_tensor *x = a, *y = b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    if (x->n_bytes != y->n_bytes)
        return x->n_bytes < y->n_bytes ? -1 : 1; // empty tensors before the one they share a place with
    return strcmp(x->name, y->name);
}

/* Data has no holes and no overlaps, and ends where the file ends; offsets become positions in the file. */
static nt_status place_tensors(const char *path, int64_t size, struct nt_safetensors *st) {
    const int64_t data = 8 + (int64_t)st->header_len;
    qsort(st->tensors, (size_t)st->n_tensors, sizeof *st->tensors, by_offset);
    int64_t end = 0;
    for (int64_t i = 0; i < st->n_tensors; i++) {
        struct nt_safetensors_tensor *t = &st->tensors[i];
        if (t->offset != end) {
            return NT_FAIL(NT_E_DATA, "%s: tensor %s: data begins at %lld; %lld was expected (%s)", path, t->name,
                           (long long)t->offset, (long long)end,
                           t->offset < end ? "it overlaps another" : "there is a hole");
        }
        end += t->n_bytes; // at most INT64_MAX: offset + n_bytes came from one integer
        if (end > size - data) {
            return NT_FAIL(
                NT_E_DATA,
                "%s: tensor %s: data ends at offset %lld but the file has %lld bytes; it is truncated, fetch it again",
                path, t->name, (long long)end, (long long)size - data);
        }
        t->offset += data;
    }
    if (end != size - data) {
        return NT_FAIL(NT_E_DATA,
                       "%s: offset %lld: %lld bytes after the last tensor; the file was expected to end here", path,
                       (long long)(data + end), (long long)(size - data - end));
    }
    return NT_OK;
}

nt_status nt_safetensors_read(int fd, const char *path, int64_t size, struct nt_safetensors *out) {
    *out = (struct nt_safetensors){0};
    struct nt_json *doc = NULL;
    struct nt_strbuf origin = NT_STRBUF_INIT;
    nt_status st = NT_OK;
    NT_TRY_GOTO(st, release, read_header(fd, path, size, out));
    nt_strbuf_addf(&origin, "%s: header (from offset 8)", path);
    NT_TRY_GOTO(st, release, nt_json_parse(out->header, out->header_len, nt_strbuf_cstr(&origin), &doc));
    NT_TRY_GOTO(st, release, read_tensors(path, doc, out));
    NT_TRY_GOTO(st, release, place_tensors(path, size, out));
release:
    nt_json_free(doc);
    nt_strbuf_release(&origin);
    if (st != NT_OK) nt_safetensors_release(out);
    return st;
}

nt_status nt_safetensors_read_header(const char *path, struct nt_json **doc) {
    int64_t size = 0;
    struct nt_safetensors st = {0};
    NT_TRY(nt_file_size(path, &size));
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return NT_FAIL(NT_E_NOINPUT, "%s: cannot be opened: %s", path, strerror(errno));
    nt_status status = read_header(fd, path, size, &st);
    (void)close(fd);
    if (status == NT_OK) status = nt_json_parse(st.header, st.header_len, path, doc);
    nt_safetensors_release(&st);
    return status == NT_OK ? NT_OK : nt_trail_at(status, __FILE__, __LINE__);
}

void nt_safetensors_release(struct nt_safetensors *st) {
    free(st->tensors);
    free(st->names);
    free(st->header);
    *st = (struct nt_safetensors){0};
}

/* --- the files of a directory ------------------------------------------------------------------------------------- */

static int by_text(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* A name inside the directory, not a way out of it. */
static bool plain_file_name(const char *s, size_t len) {
    static const char ending[] = ".safetensors";
    const size_t tail = sizeof ending - 1;
    if (len <= tail || len > 255 || strlen(s) != len || s[0] == '.' || strcmp(s + len - tail, ending) != 0)
        return false;
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)s[i] < 0x20 || s[i] == '/' || s[i] == '\\' || s[i] == 0x7f) return false;
    }
    return true;
}

static nt_status no_memory(const char *path) {
    return NT_FAIL(NT_E_NOMEM, "%s: no memory for its file names", path);
}

/* Keeps one copy of each of n names, sorted. Reorders the array. */
static nt_status keep_unique(struct nt_safetensors_index *ix, const char *path, const char **names, size_t n) {
    qsort(names, n, sizeof *names, by_text);
    size_t n_unique = 0;
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || strcmp(names[i], names[i - 1]) != 0) n_unique++;
    }
    if (n_unique > NT_SAFETENSORS_MAX_SHARDS) {
        return NT_FAIL(NT_E_DATA, "%s: %zu weight files; at most %d are allowed", path, n_unique,
                       NT_SAFETENSORS_MAX_SHARDS);
    }
    ix->files = calloc(n_unique, sizeof *ix->files);
    if (!ix->files) return no_memory(path);
    for (size_t i = 0; i < n; i++) {
        if (i > 0 && strcmp(names[i], names[i - 1]) == 0) continue;
        if (!(ix->files[ix->n_files] = strdup(names[i]))) return no_memory(path);
        ix->n_files++;
    }
    return NT_OK;
}

static nt_status read_weight_map(struct nt_safetensors_index *ix, const char *path) {
    const struct nt_json *map = nt_json_get(ix->json, "weight_map");
    const size_t n = nt_json_len(map);
    if (!nt_json_is(map, NT_JSON_OBJECT) || n == 0) {
        return NT_FAIL(NT_E_DATA, "%s: weight_map missing or empty; an object {tensor: file} was expected", path);
    }
    const char **names = malloc(n * sizeof *names);
    if (!names) return no_memory(path);
    nt_status st = NT_OK;
    size_t i = 0;
    for (void *it = nt_json_first(map); it && st == NT_OK; it = nt_json_next(map, it)) {
        size_t len = 0;
        names[i] = nt_json_str(nt_json_value(it), &len);
        if (!names[i] || !plain_file_name(names[i], len)) {
            st = NT_FAIL(NT_E_DATA, "%s: weight_map gives no plain .safetensors file name for %.200s", path,
                         nt_json_key(it));
        }
        i++;
    }
    if (st == NT_OK) st = keep_unique(ix, path, names, n);
    free(names);
    return st;
}

nt_status nt_refuse_adapter(const char *path) {
    return NT_FAIL(NT_E_UNSUPPORTED,
                   "%s is a LoRA adapter and no model; give the model it was trained on as --model, and the adapter's "
                   "PEFT directory as --adapter to commands that take one",
                   path);
}

nt_status nt_safetensors_index_read(const char *dir, struct nt_safetensors_index *out) {
    *out = (struct nt_safetensors_index){0};
    char path[PATH_MAX];
    nt_status st = NT_OK;
    NT_TRY(nt_path_join(path, sizeof path, dir, "model.safetensors.index.json"));
    if (nt_file_exists(path)) {
        NT_TRY_GOTO(st, fail, nt_json_parse_file(path, MAX_INDEX_BYTES, &out->json));
        NT_TRY_GOTO(st, fail, read_weight_map(out, path));
        return NT_OK;
    }
    NT_TRY(nt_path_join(path, sizeof path, dir, "model.safetensors"));
    if (nt_file_exists(path)) {
        const char *single = "model.safetensors";
        NT_TRY_GOTO(st, fail, keep_unique(out, path, &single, 1));
        return NT_OK;
    }
    NT_TRY(nt_path_join(path, sizeof path, dir, "pytorch_model.bin"));
    bool pickled = nt_file_exists(path);
    NT_TRY(nt_path_join(path, sizeof path, dir, "pytorch_model.bin.index.json"));
    pickled = pickled || nt_file_exists(path);
    if (pickled) {
        return NT_FAIL(NT_E_UNSUPPORTED,
                       "%s holds pickled weights (pytorch_model.bin), which can run code when read; "
                       "convert them first: save_pretrained(DIR, safe_serialization=True)",
                       dir);
    }
    NT_TRY(nt_path_join(path, sizeof path, dir, "adapter_config.json"));
    if (nt_file_exists(path)) return nt_refuse_adapter(dir);
    return NT_FAIL(NT_E_NOINPUT,
                   "%s holds no weights; model.safetensors, model.safetensors.index.json or a .gguf file was expected",
                   dir);
fail:
    nt_safetensors_index_release(out);
    return st;
}

const char *nt_safetensors_index_file_of(const struct nt_safetensors_index *ix, const char *tensor) {
    if (!ix->json) return ix->files[0];
    return nt_json_str(nt_json_get(nt_json_get(ix->json, "weight_map"), tensor), NULL);
}

const char *nt_safetensors_index_missing(const struct nt_safetensors_index *ix,
                                         bool (*found)(const void *, const char *), const void *arg) {
    const struct nt_json *map = nt_json_get(ix->json, "weight_map");
    for (void *it = nt_json_first(map); it; it = nt_json_next(map, it)) {
        if (!found(arg, nt_json_key(it))) return nt_json_key(it);
    }
    return NULL;
}

void nt_safetensors_index_release(struct nt_safetensors_index *ix) {
    for (int32_t i = 0; i < ix->n_files; i++) free(ix->files[i]);
    free(ix->files);
    nt_json_free(ix->json);
    *ix = (struct nt_safetensors_index){0};
}
