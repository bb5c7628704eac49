#include "gguf_impl.h"
#include "fileio.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    FILL_BYTES = 1 << 16,                 /* least read from disk at once while parsing */
    HEADER_BYTES = 24,                    /* magic, version, two counts */
    KV_LEAST = 8 + 1 + 4 + 1,             /* bytes of the smallest possible entry: key length, key, type, value */
    TENSOR_LEAST = 8 + 1 + 4 + 8 + 4 + 8, /* name length, name, n_dims, one dimension, type, offset */
};

struct reader {
    struct nt_gguf *g;
    size_t at;
};

#define FAIL_AT(g, at, code, fmt, ...)                                                                                 \
    NT_FAIL((code), "%s: offset %zu: " fmt, (g)->path, (size_t)(at)__VA_OPT__(, ) __VA_ARGS__)

/* --- bytes ------------------------------------------------------------------------------------------------------ */

/* Makes n bytes from r->at present in head. The bytes left in the file are compared before anything is allocated. */
static nt_status need(struct reader *r, uint64_t n, const char *what) {
    struct nt_gguf *g = r->g;
    const uint64_t left = (uint64_t)g->size - r->at;
    if (n > left) {
        return FAIL_AT(g, r->at, NT_E_DATA,
                       "%s needs %llu bytes but the file ends after %llu; it is truncated or damaged, fetch it again",
                       what, (unsigned long long)n, (unsigned long long)left);
    }
    const size_t end = r->at + (size_t)n;
    if (end <= g->head_have) return NT_OK;
    if (end > NT_GGUF_MAX_HEADER) {
        return FAIL_AT(g, r->at, NT_E_DATA, "metadata is longer than %d bytes, the limit", NT_GGUF_MAX_HEADER);
    }
    size_t want = end > g->head_have + FILL_BYTES ? end : g->head_have + FILL_BYTES;
    if (want > (uint64_t)g->size) want = (size_t)g->size;
    if (want > g->head_cap) {
        size_t cap = g->head_cap + g->head_cap / 2 > want ? g->head_cap + g->head_cap / 2 : want;
        if (cap > (uint64_t)g->size) cap = (size_t)g->size;
        uint8_t *grown = realloc(g->head, cap);
        if (!grown) return FAIL_AT(g, r->at, NT_E_NOMEM, "no memory for %zu bytes of metadata", cap);
        g->head = grown;
        g->head_cap = cap;
    }
    NT_TRY(nt_pread_full(g->fd, g->head + g->head_have, want - g->head_have, (int64_t)g->head_have, g->path));
    g->head_have = want;
    return NT_OK;
}

static nt_status take_uint(struct reader *r, int bytes, const char *what, uint64_t *out) {
    NT_TRY(need(r, (uint64_t)bytes, what));
    *out = nt_gguf_uint(r->g->head + r->at, bytes);
    r->at += (size_t)bytes;
    return NT_OK;
}

/* A length and that many bytes; *at is where the bytes begin. */
static nt_status take_string(struct reader *r, uint64_t max, const char *what, size_t *at, size_t *len) {
    uint64_t n = 0;
    const size_t begin = r->at;
    NT_TRY(take_uint(r, 8, what, &n));
    if (n > max) {
        return FAIL_AT(r->g, begin, NT_E_DATA, "%s of %llu bytes; at most %llu are allowed", what,
                       (unsigned long long)n, (unsigned long long)max);
    }
    NT_TRY(need(r, n, what));
    *at = r->at;
    *len = (size_t)n;
    r->at += (size_t)n;
    return NT_OK;
}

/* Keys and names end up in logs and error sentences: printable ASCII only. */
static nt_status take_name(struct reader *r, uint64_t max, const char *what, size_t *at, size_t *len) {
    NT_TRY(take_string(r, max, what, at, len));
    if (*len == 0) return FAIL_AT(r->g, *at - 8, NT_E_DATA, "%s is empty", what);
    for (size_t i = 0; i < *len; i++) {
        const uint8_t c = r->g->head[*at + i];
        if (c < 0x20 || c > 0x7e) {
            return FAIL_AT(r->g, *at + i, NT_E_DATA, "%s holds byte 0x%02x; printable ASCII was expected", what, c);
        }
    }
    return NT_OK;
}

/* --- metadata ----------------------------------------------------------------------------------------------------- */

static nt_status take_type(struct reader *r, bool item, enum nt_gguf_type *out) {
    uint64_t id = 0;
    NT_TRY(take_uint(r, 4, "value type", &id));
    if (id >= NT_GGUF_NONE) {
        return FAIL_AT(r->g, r->at - 4, NT_E_DATA, "unknown value type %llu; 0 to 12 were expected",
                       (unsigned long long)id);
    }
    if (item && id == NT_GGUF_ARRAY)
        return FAIL_AT(r->g, r->at - 4, NT_E_DATA, "array of arrays; only flat ones are allowed");
    *out = (enum nt_gguf_type)id;
    return NT_OK;
}

static nt_status check_bools(struct reader *r, size_t at, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (r->g->head[at + i] > 1) {
            return FAIL_AT(r->g, at + i, NT_E_DATA, "bool of value %d; 0 or 1 was expected", r->g->head[at + i]);
        }
    }
    return NT_OK;
}

static nt_status take_array(struct reader *r, struct nt_gguf_kv *kv) {
    NT_TRY(take_type(r, true, &kv->item_type));
    uint64_t n = 0;
    const size_t count_at = r->at;
    NT_TRY(take_uint(r, 8, "array length", &n));
    if (n > NT_GGUF_MAX_ARRAY) {
        return FAIL_AT(r->g, count_at, NT_E_DATA, "array of %llu items; at most %d are allowed", (unsigned long long)n,
                       NT_GGUF_MAX_ARRAY);
    }
    const uint64_t least = kv->item_type == NT_GGUF_STRING ? 8 : nt_gguf_item_bytes[kv->item_type];
    const uint64_t left = (uint64_t)r->g->size - r->at;
    if (n > left / least) {
        return FAIL_AT(r->g, count_at, NT_E_DATA, "array of %llu %s items but only %llu bytes are left in the file",
                       (unsigned long long)n, nt_gguf_type_name(kv->item_type), (unsigned long long)left);
    }
    kv->at = r->at;
    kv->n_items = (int64_t)n;
    if (kv->item_type != NT_GGUF_STRING) {
        NT_TRY(need(r, n * least, "array"));
        if (kv->item_type == NT_GGUF_BOOL) NT_TRY(check_bools(r, r->at, (size_t)n));
        r->at += (size_t)(n * least);
        return NT_OK;
    }
    if (n == 0) return NT_OK;
    kv->item_at = malloc((size_t)n * sizeof *kv->item_at); // n * 8 is at most the bytes left, see above
    if (!kv->item_at)
        return FAIL_AT(r->g, count_at, NT_E_NOMEM, "no memory for an array of %llu", (unsigned long long)n);
    for (uint64_t i = 0; i < n; i++) {
        size_t at = 0, len = 0;
        kv->item_at[i] = r->at;
        NT_TRY(take_string(r, NT_GGUF_MAX_STRING, "string", &at, &len));
    }
    return NT_OK;
}

static nt_status take_kv(struct reader *r, struct nt_gguf_kv *kv) {
    NT_TRY(take_name(r, NT_GGUF_MAX_KEY, "metadata key", &kv->key_at, &kv->key_len));
    NT_TRY(take_type(r, false, &kv->type));
    if (kv->type == NT_GGUF_ARRAY) return nt_trail_at(take_array(r, kv), __FILE__, __LINE__);
    if (kv->type == NT_GGUF_STRING) {
        NT_TRY(take_string(r, NT_GGUF_MAX_STRING, "string", &kv->at, &kv->len));
        return NT_OK;
    }
    const uint64_t n = nt_gguf_item_bytes[kv->type];
    NT_TRY(need(r, n, "value"));
    if (kv->type == NT_GGUF_BOOL) NT_TRY(check_bools(r, r->at, 1));
    kv->at = r->at;
    r->at += (size_t)n;
    return NT_OK;
}

/* --- tensors ------------------------------------------------------------------------------------------------------ */

static nt_status take_shape(struct reader *r, struct nt_gguf_tensor *t) {
    uint64_t n_dims = 0;
    NT_TRY(take_uint(r, 4, "number of dimensions", &n_dims));
    if (n_dims < 1 || n_dims > NT_GGUF_MAX_DIMS) {
        return FAIL_AT(r->g, r->at - 4, NT_E_DATA, "tensor with %llu dimensions; 1 to %d were expected",
                       (unsigned long long)n_dims, NT_GGUF_MAX_DIMS);
    }
    t->n_dims = (int32_t)n_dims;
    for (int32_t i = t->n_dims - 1; i >= 0; i--) { // the file has the contiguous one first
        uint64_t n = 0;
        NT_TRY(take_uint(r, 8, "dimension", &n));
        if (n < 1 || n > INT64_MAX) {
            return FAIL_AT(r->g, r->at - 8, NT_E_DATA, "dimension of %llu; 1 to 2^63-1 was expected",
                           (unsigned long long)n);
        }
        t->shape[i] = (int64_t)n;
    }
    return NT_OK;
}

static nt_status size_tensor(struct reader *r, size_t begin, struct nt_gguf_tensor *t) {
    const struct nt_wdtype_info *w = nt_wdtype_info(t->dtype);
    int64_t n = 1, bytes = 0;
    bool fits = true;
    for (int32_t i = 0; i < t->n_dims; i++) fits = fits && !__builtin_mul_overflow(n, t->shape[i], &n);
    if (fits && t->shape[t->n_dims - 1] % w->block_n != 0) {
        return FAIL_AT(r->g, begin, NT_E_DATA, "rows of %lld elements are no whole number of %s blocks of %d",
                       (long long)t->shape[t->n_dims - 1], w->name, w->block_n);
    }
    if (!fits || __builtin_mul_overflow(n / w->block_n, (int64_t)w->block_bytes, &bytes)) {
        return FAIL_AT(r->g, begin, NT_E_DATA, "size of the tensor overflows 64 bits");
    }
    t->n_bytes = bytes;
    return NT_OK;
}

static nt_status take_tensor(struct reader *r, struct nt_gguf_tensor *t, struct nt_gguf_place *place) {
    const size_t begin = r->at;
    NT_TRY(take_name(r, NT_GGUF_MAX_NAME, "tensor name", &place->name_at, &place->name_len));
    NT_TRY(take_shape(r, t));
    uint64_t type = 0;
    NT_TRY(take_uint(r, 4, "tensor type", &type));
    t->dtype = nt_wdtype_from_ggml((uint32_t)type);
    if (t->dtype == NT_WDTYPE_COUNT) {
        return FAIL_AT(r->g, r->at - 4, NT_E_DATA,
                       "tensor of unknown type %llu; convert the model to a common type (Q8_0, BF16)",
                       (unsigned long long)type);
    }
    NT_TRY(size_tensor(r, begin, t));
    place->offset_at = r->at;
    NT_TRY(take_uint(r, 8, "tensor offset", &place->offset));
    return NT_OK;
}

static nt_status read_alignment(const struct nt_gguf *g, int64_t *align) {
    const enum nt_gguf_type type = nt_gguf_type(g, "general.alignment");
    *align = 32;
    if (type == NT_GGUF_NONE) return NT_OK;
    if (type != NT_GGUF_U32) {
        return NT_FAIL(NT_E_DATA, "%s: general.alignment has type %s; u32 was expected", g->path,
                       nt_gguf_type_name(type));
    }
    *align = nt_gguf_i64(g, "general.alignment", 0);
    if (*align < 1 || *align > NT_GGUF_MAX_ALIGN || (*align & (*align - 1)) != 0) {
        return NT_FAIL(NT_E_DATA, "%s: general.alignment is %lld; a power of two up to %d was expected", g->path,
                       (long long)*align, NT_GGUF_MAX_ALIGN);
    }
    return NT_OK;
}

/* Turns offsets into positions in the file: each must be the sum of the padded sizes before it. */
static nt_status place_tensors(struct nt_gguf *g) {
    int64_t align = 0;
    NT_TRY(read_alignment(g, &align));
    const int64_t data = ((int64_t)g->head_len + align - 1) / align * align;
    int64_t sum = 0;
    for (int64_t i = 0; i < g->n_tensors; i++) {
        struct nt_gguf_tensor *t = &g->tensors[i];
        const struct nt_gguf_place *p = &g->places[i];
        if (p->offset != (uint64_t)sum) {
            return FAIL_AT(g, p->offset_at, NT_E_DATA,
                           "tensor %s at data offset %llu; %lld was expected, the end of the one before", t->name,
                           (unsigned long long)p->offset, (long long)sum);
        }
        const int64_t left = g->size - data - sum; // no overflow: sum has stayed below the file size plus one padding
        if (t->n_bytes > left) {
            return FAIL_AT(
                g, p->offset_at, NT_E_DATA,
                "tensor %s needs %lld bytes from offset %lld but the file ends after %lld; fetch the file again",
                t->name, (long long)t->n_bytes, (long long)(data + sum), (long long)(left < 0 ? 0 : left));
        }
        t->offset = data + sum;
        sum += (t->n_bytes + align - 1) / align * align;
    }
    return NT_OK;
}

/* --- names and look-up -------------------------------------------------------------------------------------------- */

static char *pool_name(const struct nt_gguf *g, char **pool, size_t at, size_t len) {
    char *name = *pool;
    memcpy(name, g->head + at, len);
    name[len] = '\0';
    *pool += len + 1;
    return name;
}

static int by_key_order(const void *a, const void *b, void *kv) {
    const struct nt_gguf_kv *rows = kv;
    return strcmp(rows[*(const int32_t *)a].key, rows[*(const int32_t *)b].key);
}

static int by_name_order(const void *a, const void *b, void *tensors) {
    const struct nt_gguf_tensor *rows = tensors;
    return strcmp(rows[*(const int32_t *)a].name, rows[*(const int32_t *)b].name);
}

static nt_status check_tensor_names(const struct nt_gguf *g) {
    if (g->n_tensors == 0) return NT_OK;
    int32_t *order = malloc((size_t)g->n_tensors * sizeof *order);
    if (!order) return NT_FAIL(NT_E_NOMEM, "%s: no memory for %lld tensors", g->path, (long long)g->n_tensors);
    for (int32_t i = 0; i < g->n_tensors; i++) order[i] = i;
    qsort_r(order, (size_t)g->n_tensors, sizeof *order, by_name_order, g->tensors);
    nt_status st = NT_OK;
    for (int64_t i = 1; i < g->n_tensors && st == NT_OK; i++) {
        const int32_t a = order[i - 1], b = order[i];
        if (strcmp(g->tensors[a].name, g->tensors[b].name) == 0) {
            st = FAIL_AT(g, g->places[a > b ? a : b].name_at, NT_E_DATA, "second tensor of the name %s",
                         g->tensors[a].name);
        }
    }
    free(order);
    return st;
}

/* NUL terminated copies of all keys and tensor names, and the index by key. Duplicates are refused. */
static nt_status finish_names(struct nt_gguf *g) {
    size_t bytes = 1;
    for (int64_t i = 0; i < g->n_kv; i++) bytes += g->kv[i].key_len + 1;
    for (int64_t i = 0; i < g->n_tensors; i++) bytes += g->places[i].name_len + 1;
    g->names = malloc(bytes);
    g->by_key = malloc(((size_t)g->n_kv + 1) * sizeof *g->by_key);
    if (!g->names || !g->by_key) return NT_FAIL(NT_E_NOMEM, "%s: no memory for %zu bytes of names", g->path, bytes);
    char *pool = g->names;
    for (int32_t i = 0; i < g->n_kv; i++) {
        g->kv[i].key = pool_name(g, &pool, g->kv[i].key_at, g->kv[i].key_len);
        g->by_key[i] = i;
    }
    for (int64_t i = 0; i < g->n_tensors; i++) {
        g->tensors[i].name = pool_name(g, &pool, g->places[i].name_at, g->places[i].name_len);
    }
    qsort_r(g->by_key, (size_t)g->n_kv, sizeof *g->by_key, by_key_order, g->kv);
    for (int64_t i = 1; i < g->n_kv; i++) {
        const int32_t a = g->by_key[i - 1], b = g->by_key[i];
        if (strcmp(g->kv[a].key, g->kv[b].key) == 0) {
            return FAIL_AT(g, g->kv[a > b ? a : b].key_at, NT_E_DATA, "second value for the key %.200s", g->kv[a].key);
        }
    }
    return nt_trail_at(check_tensor_names(g), __FILE__, __LINE__);
}

/* --- open -------------------------------------------------------------------------------------------------------- */

static nt_status take_count(struct reader *r, uint64_t max, uint64_t least_bytes, const char *what, int64_t *out) {
    uint64_t n = 0;
    NT_TRY(take_uint(r, 8, what, &n));
    if (n > max) {
        return FAIL_AT(r->g, r->at - 8, NT_E_DATA, "%s is %llu; at most %llu are allowed", what, (unsigned long long)n,
                       (unsigned long long)max);
    }
    const uint64_t left = (uint64_t)r->g->size - r->at;
    if (n > left / least_bytes) {
        return FAIL_AT(r->g, r->at - 8, NT_E_DATA, "%s is %llu but only %llu bytes are left in the file", what,
                       (unsigned long long)n, (unsigned long long)left);
    }
    *out = (int64_t)n;
    return NT_OK;
}

static nt_status take_header(struct reader *r) {
    struct nt_gguf *g = r->g;
    NT_TRY(need(r, HEADER_BYTES, "GGUF header"));
    if (memcmp(g->head, "GGUF", 4) != 0) return FAIL_AT(g, 0, NT_E_DATA, "no GGUF magic; a GGUF file was expected");
    const uint64_t version = nt_gguf_uint(g->head + 4, 4);
    if (version == 0x03000000) {
        return FAIL_AT(g, 4, NT_E_UNSUPPORTED, "big-endian GGUF; convert it with gguf-convert-endian FILE little");
    }
    if (version != 3) {
        return FAIL_AT(g, 4, NT_E_UNSUPPORTED, "GGUF version %llu; version 3 was expected, convert the model again",
                       (unsigned long long)version);
    }
    r->at = 8;
    NT_TRY(take_count(r, NT_GGUF_MAX_TENSORS, TENSOR_LEAST, "tensor count", &g->n_tensors));
    NT_TRY(take_count(r, NT_GGUF_MAX_KV, KV_LEAST, "metadata count", &g->n_kv));
    return NT_OK;
}

static nt_status parse(struct nt_gguf *g) {
    struct reader r = {.g = g};
    NT_TRY(take_header(&r));
    g->kv = calloc((size_t)g->n_kv + 1, sizeof *g->kv);
    g->tensors = calloc((size_t)g->n_tensors + 1, sizeof *g->tensors);
    g->places = calloc((size_t)g->n_tensors + 1, sizeof *g->places);
    if (!g->kv || !g->tensors || !g->places) return NT_FAIL(NT_E_NOMEM, "%s: no memory for its tables", g->path);
    for (int64_t i = 0; i < g->n_kv; i++) NT_TRY(take_kv(&r, &g->kv[i]));
    for (int64_t i = 0; i < g->n_tensors; i++) NT_TRY(take_tensor(&r, &g->tensors[i], &g->places[i]));
    g->head_len = r.at;
    NT_TRY(finish_names(g));
    NT_TRY(place_tensors(g));
    free(g->places);
    g->places = NULL;
    const int64_t parts = nt_gguf_i64(g, "split.count", 1);
    if (parts > 1) {
        return NT_FAIL(NT_E_UNSUPPORTED, "%s is one of %lld parts; join them first with llama-gguf-split --merge",
                       g->path, (long long)parts);
    }
    return NT_OK;
}

nt_status nt_gguf_open(const char *path, struct nt_gguf **out) {
    *out = NULL;
    struct nt_gguf *g = calloc(1, sizeof *g);
    if (!g) return NT_FAIL(NT_E_NOMEM, "%s: no memory", path);
    g->fd = -1;
    g->path = strdup(path);
    nt_status st = NT_OK;
    struct stat sb = {0};
    if (!g->path) {
        st = NT_FAIL(NT_E_NOMEM, "%s: no memory", path);
    } else if ((g->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)) < 0 || fstat(g->fd, &sb) != 0) {
        st = NT_FAIL(NT_E_NOINPUT, "%s: cannot be opened: %s", path, strerror(errno));
    } else if (!S_ISREG(sb.st_mode)) {
        st = NT_FAIL(NT_E_NOINPUT, "%s is not a regular file; a GGUF file was expected", path);
    } else {
        g->size = (int64_t)sb.st_size;
        st = parse(g);
    }
    if (st != NT_OK) {
        nt_gguf_close(g);
        return nt_trail_at(st, __FILE__, __LINE__);
    }
    *out = g;
    return NT_OK;
}
