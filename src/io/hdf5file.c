#include "hdf5file.h"

#include "fileio.h"
#include "hash.h"
#include <errno.h>
#include <fcntl.h>
#include <hdf5.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    TEXT_CHUNK = 1 << 20,   /* elements of u8 columns */
    INT_CHUNK = 64 << 10,   /* elements of other columns */
    ROWS_CHUNK = 4096,      /* rows of two-dimensional ones */
    MAX_CHUNK = 64 << 20,   /* bytes, in foreign files */
    MAX_ELEMENT = 64 << 20, /* elements of one ragged entry, in foreign files */
    MAX_WIDTH = 1 << 16,
    WINDOW = 64 << 10, /* bytes of the reading window */
    MAX_PATH = 128,
};

static hid_t h5_type(enum nt_h5_type t) {
    switch (t) {
    case NT_H5_U8:
        return H5T_STD_U8LE;
    case NT_H5_U16:
        return H5T_STD_U16LE;
    case NT_H5_U32:
        return H5T_STD_U32LE;
    case NT_H5_I32:
        return H5T_STD_I32LE;
    case NT_H5_I64:
        return H5T_STD_I64LE;
    case NT_H5_F32:
        break;
    }
    return H5T_IEEE_F32LE;
}

static const char *type_name(enum nt_h5_type t) {
    static const char *const names[] = {"u8", "u16", "u32", "i32", "i64", "f32"};
    return names[t];
}

static size_t type_size(enum nt_h5_type t) {
    static const size_t sizes[] = {1, 2, 4, 4, 8, 4};
    return sizes[t];
}

/* Before any other call of the library: after a failed write its exit handler would crash. Repeating it does no harm.
 */
static void start_library(void) {
    (void)H5dont_atexit();
    (void)H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    (void)H5PLset_loading_state(0); /* no filter plugins from the environment */
}

static herr_t keep_first(unsigned n, const H5E_error2_t *e, void *arg) {
    const char **desc = arg;
    if (n == 0 && e->desc) *desc = e->desc;
    return 0;
}

/* Of "file write failed: time = ..., error message = 'No space left on device', buf = ..." what counts. */
static void shorten(const char *desc, char *cause, size_t cap) {
    static const char key[] = "error message = '";
    const char *said = strstr(desc, key);
    if (said) said += sizeof key - 1;
    const int len = said ? (int)strcspn(said, "'") : (int)strcspn(desc, "\n");
    (void)snprintf(cause, cap, "%.*s", len, said ? said : desc);
}

/* Innermost cause the library recorded, into the sentence. */
static nt_status fail_h5(nt_status code, const char *path, const char *object, const char *doing) {
    const char *desc = "no cause given";
    char cause[200];
    (void)H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_first, &desc);
    shorten(desc, cause, sizeof cause);
    (void)H5Eclear2(H5E_DEFAULT);
    return NT_FAIL(code, "%s: cannot %s %s: %s (HDF5)%s", path, doing, object, cause,
                   code == NT_E_DATA ? "; is it damaged? Copy or make it again" : "");
}

/* A call of the library forgets why the one before failed. These keep it over calls that close what was open; -1:
 * nothing failed. */
static hid_t keep_cause(bool ok) {
    return ok ? -1 : H5Eget_current_stack();
}

static void restore_cause(hid_t cause) {
    if (cause >= 0) (void)H5Eset_current_stack(cause);
}

bool nt_h5_is_file(const char *path) {
    static const uint8_t signature[8] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
    uint8_t head[8];
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    const ssize_t got = pread(fd, head, sizeof head, 0);
    (void)close(fd);
    return got == (ssize_t)sizeof head && memcmp(head, signature, sizeof head) == 0;
}

const char *nt_hdf5_version(void) {
    static const char text[] = H5_VERS_INFO;
    static const char prefix[] = "HDF5 library version: ";
    return strncmp(text, prefix, sizeof prefix - 1) == 0 ? text + sizeof prefix - 1 : text;
}

nt_status nt_h5_check_library(char *text, size_t cap) {
    unsigned major = 0, minor = 0, release = 0;
    start_library();
    if (H5get_libversion(&major, &minor, &release) < 0) return NT_FAIL(NT_E_SYSTEM, "HDF5 gives no version");
    (void)snprintf(text, cap, "HDF5 %u.%u.%u", major, minor, release);
    if (major != H5_VERS_MAJOR || minor != H5_VERS_MINOR)
        return NT_FAIL(NT_E_SYSTEM, "HDF5 %u.%u is loaded, the program was built with %d.%d; fix the library path",
                       major, minor, H5_VERS_MAJOR, H5_VERS_MINOR);
    if (H5Zfilter_avail(H5Z_FILTER_DEFLATE) <= 0 || H5Zfilter_avail(H5Z_FILTER_FLETCHER32) <= 0)
        return NT_FAIL(NT_E_SYSTEM, "%s: built without deflate or fletcher32; use the distribution's library", text);
    return NT_OK;
}

static hid_t access_list(void) {
    const hid_t fapl = H5Pcreate(H5P_FILE_ACCESS);
    if (fapl < 0) return fapl;
    if (H5Pset_libver_bounds(fapl, H5F_LIBVER_V110, H5F_LIBVER_V110) < 0 ||
        H5Pset_fclose_degree(fapl, H5F_CLOSE_SEMI) < 0) { /* SEMI: a forgotten handle is an error, not a delay */
        (void)H5Pclose(fapl);
        return -1;
    }
    return fapl;
}

/* ---- writing ---- */

struct nt_h5_column {
    struct nt_h5_writer *w;
    struct nt_h5_column *next;
    char path[MAX_PATH];
    hid_t set;
    enum nt_h5_type type;
    int32_t width;
    size_t row_bytes;
    int64_t n_rows, chunk_rows; /* n_rows: written, without pending */
    uint8_t *pending;           // [chunk_rows] rows
    int64_t n_pending;
    uint64_t hash; /* chained over the chunks */
};

struct nt_h5_writer {
    char path[PATH_MAX], temp[PATH_MAX];
    hid_t file;
    struct nt_h5_column *columns;
};

/* ids of the library are closed here; a failure to close is the first sign of a full disk. */
static nt_status close_set(const struct nt_h5_writer *w, struct nt_h5_column *c) {
    const hid_t set = c->set;
    c->set = -1;
    if (set >= 0 && H5Dclose(set) < 0) return fail_h5(NT_E_IO, w->path, c->path, "finish writing");
    return NT_OK;
}

nt_status nt_h5_create(struct nt_h5_writer **out, const char *path) {
    start_library();
    struct nt_h5_writer *w = calloc(1, sizeof *w);
    if (!w) return NT_FAIL(NT_E_NOMEM, "%s: no memory to write it", path);
    w->file = -1;
    nt_status st = NT_OK;
    const int n = snprintf(w->path, sizeof w->path, "%s", path);
    if (n < 0 || (size_t)n >= sizeof w->path) {
        free(w);
        return NT_FAIL(NT_E_USAGE, "%.60s...: path too long", path);
    }
    NT_TRY_GOTO(st, free_writer, nt_publish_temp_name(path, w->temp, sizeof w->temp));
    const hid_t fapl = access_list(), fcpl = H5Pcreate(H5P_FILE_CREATE);
    if (fapl >= 0 && fcpl >= 0 && H5Pset_obj_track_times(fcpl, false) >= 0)
        w->file = H5Fcreate(w->temp, H5F_ACC_TRUNC, fcpl, fapl);
    if (w->file < 0) st = fail_h5(NT_E_IO, w->temp, "the file", "create");
    if (fapl >= 0) (void)H5Pclose(fapl);
    if (fcpl >= 0) (void)H5Pclose(fcpl);
    if (st != NT_OK) goto remove_temp;
    *out = w;
    return NT_OK;

remove_temp:
    (void)unlink(w->temp);
free_writer:
    free(w);
    return st;
}

static nt_status write_attr(struct nt_h5_writer *w, const char *object, const char *name, hid_t type,
                            const void *value) {
    const hid_t obj = H5Oopen(w->file, object, H5P_DEFAULT), space = H5Screate(H5S_SCALAR);
    const hid_t attr = obj < 0 || space < 0 ? -1 : H5Acreate2(obj, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    bool ok = attr >= 0 && H5Awrite(attr, type, value) >= 0;
    nt_status st = ok ? NT_OK : fail_h5(NT_E_IO, w->path, name, "write the attribute");
    if (attr >= 0) ok &= H5Aclose(attr) >= 0;
    if (space >= 0) ok &= H5Sclose(space) >= 0;
    if (obj >= 0) ok &= H5Oclose(obj) >= 0;
    if (!ok && st == NT_OK) st = fail_h5(NT_E_IO, w->path, name, "close the attribute");
    return st;
}

/* Fixed length: it lies in the object header and so under its checksum. Variable-length strings go to the global heap,
 * which has none, and damage there crashes the library's readers. */
nt_status nt_h5_attr_str(struct nt_h5_writer *w, const char *object, const char *name, const char *value) {
    const size_t n = strlen(value);
    const hid_t type = H5Tcopy(H5T_C_S1);
    if (type < 0 || H5Tset_size(type, n ? n : 1) < 0 || H5Tset_strpad(type, H5T_STR_NULLPAD) < 0 ||
        H5Tset_cset(type, H5T_CSET_UTF8) < 0)
        return fail_h5(NT_E_INTERNAL, w->path, name, "make a string type for");
    const nt_status st = write_attr(w, object, name, type, value);
    (void)H5Tclose(type);
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}

nt_status nt_h5_attr_i64(struct nt_h5_writer *w, const char *object, const char *name, int64_t value) {
    return write_attr(w, object, name, H5T_STD_I64LE, &value);
}

nt_status nt_h5_group(struct nt_h5_writer *w, const char *path, const char *encoding) {
    const hid_t gcpl = H5Pcreate(H5P_GROUP_CREATE);
    hid_t group = -1;
    if (gcpl >= 0 && H5Pset_obj_track_times(gcpl, false) >= 0)
        group = H5Gcreate2(w->file, path, H5P_DEFAULT, gcpl, H5P_DEFAULT);
    if (gcpl >= 0) (void)H5Pclose(gcpl);
    if (group < 0 || H5Gclose(group) < 0) return fail_h5(NT_E_IO, w->path, path, "create the group");
    NT_TRY(nt_h5_attr_str(w, path, "encoding-type", encoding));
    return nt_h5_attr_str(w, path, "encoding-version", "1.0.0");
}

static hid_t create_list(const struct nt_h5_column *c) {
    const hsize_t chunk[2] = {(hsize_t)c->chunk_rows, (hsize_t)c->width};
    const hid_t dcpl = H5Pcreate(H5P_DATASET_CREATE);
    if (dcpl < 0) return dcpl;
    if (H5Pset_chunk(dcpl, c->width ? 2 : 1, chunk) < 0 || (type_size(c->type) > 1 && H5Pset_shuffle(dcpl) < 0) ||
        H5Pset_deflate(dcpl, 1) < 0 || H5Pset_fletcher32(dcpl) < 0 || H5Pset_obj_track_times(dcpl, false) < 0) {
        (void)H5Pclose(dcpl);
        return -1;
    }
    return dcpl;
}

nt_status nt_h5_column(struct nt_h5_writer *w, const char *path, enum nt_h5_type type, int32_t width,
                       struct nt_h5_column **out) {
    NT_CHECK(strlen(path) < MAX_PATH && width >= 0 && width <= MAX_WIDTH);
    struct nt_h5_column *c = calloc(1, sizeof *c);
    if (!c) return NT_FAIL(NT_E_NOMEM, "%s: no memory for %s", w->path, path);
    c->w = w;
    c->set = -1;
    c->type = type;
    c->width = width;
    c->chunk_rows = width ? ROWS_CHUNK : type == NT_H5_U8 ? TEXT_CHUNK : INT_CHUNK;
    c->row_bytes = type_size(type) * (size_t)(width ? width : 1);
    (void)snprintf(c->path, sizeof c->path, "%s", path);
    c->next = w->columns;
    w->columns = c;
    c->pending = malloc((size_t)c->chunk_rows * c->row_bytes);
    if (!c->pending) return NT_FAIL(NT_E_NOMEM, "%s: no memory for %s", w->path, path);
    const hsize_t dims[2] = {0, (hsize_t)width}, most[2] = {H5S_UNLIMITED, (hsize_t)width};
    const hid_t space = H5Screate_simple(width ? 2 : 1, dims, most), dcpl = create_list(c);
    if (space >= 0 && dcpl >= 0)
        c->set = H5Dcreate2(w->file, path, h5_type(type), space, H5P_DEFAULT, dcpl, H5P_DEFAULT);
    const nt_status st = c->set < 0 ? fail_h5(NT_E_IO, w->path, path, "create") : NT_OK;
    if (space >= 0) (void)H5Sclose(space);
    if (dcpl >= 0) (void)H5Pclose(dcpl);
    *out = c;
    return st;
}

/* Reads or writes rows [first, first + n) of an open dataset. */
static bool move_rows(hid_t set, enum nt_h5_type type, int32_t width, int64_t first, int64_t n, void *rows,
                      bool write) {
    const hsize_t start[2] = {(hsize_t)first, 0}, count[2] = {(hsize_t)n, (hsize_t)width};
    const int rank = width ? 2 : 1;
    const hid_t disk = H5Dget_space(set), memory = H5Screate_simple(rank, count, NULL);
    bool ok = disk >= 0 && memory >= 0 && H5Sselect_hyperslab(disk, H5S_SELECT_SET, start, NULL, count, NULL) >= 0;
    if (ok && write) ok = H5Dwrite(set, h5_type(type), memory, disk, H5P_DEFAULT, rows) >= 0;
    if (ok && !write) ok = H5Dread(set, h5_type(type), memory, disk, H5P_DEFAULT, rows) >= 0;
    const hid_t cause = keep_cause(ok);
    if (disk >= 0) (void)H5Sclose(disk);
    if (memory >= 0) (void)H5Sclose(memory);
    restore_cause(cause);
    return ok;
}

static nt_status write_pending(struct nt_h5_column *c) {
    if (c->n_pending == 0) return NT_OK;
    const hsize_t dims[2] = {(hsize_t)(c->n_rows + c->n_pending), (hsize_t)c->width};
    if (H5Dset_extent(c->set, dims) < 0 ||
        !move_rows(c->set, c->type, c->width, c->n_rows, c->n_pending, c->pending, true))
        return fail_h5(NT_E_IO, c->w->path, c->path, "write");
    c->hash = nt_xxh64(c->pending, (size_t)c->n_pending * c->row_bytes, c->hash);
    c->n_rows += c->n_pending;
    c->n_pending = 0;
    return NT_OK;
}

nt_status nt_h5_append(struct nt_h5_column *c, const void *rows, int64_t n) {
    const uint8_t *from = rows;
    while (n > 0) {
        const int64_t room = c->chunk_rows - c->n_pending, take = n < room ? n : room;
        memcpy(c->pending + (size_t)c->n_pending * c->row_bytes, from, (size_t)take * c->row_bytes);
        c->n_pending += take;
        from += (size_t)take * c->row_bytes;
        n -= take;
        if (c->n_pending == c->chunk_rows) NT_TRY(write_pending(c));
    }
    return NT_OK;
}

nt_status nt_h5_ragged(struct nt_h5_writer *w, const char *path, enum nt_h5_type type, const char *encoding,
                       struct nt_h5_ragged *out) {
    char part[MAX_PATH];
    const int64_t zero = 0;
    *out = (struct nt_h5_ragged){0};
    NT_TRY(nt_h5_group(w, path, encoding));
    (void)snprintf(part, sizeof part, "%s/ptr", path);
    NT_TRY(nt_h5_column(w, part, NT_H5_I64, 0, &out->ptr));
    (void)snprintf(part, sizeof part, "%s/data", path);
    NT_TRY(nt_h5_column(w, part, type, 0, &out->data));
    return nt_h5_append(out->ptr, &zero, 1);
}

nt_status nt_h5_ragged_append(struct nt_h5_ragged *r, const void *elements, int64_t n) {
    NT_TRY(nt_h5_append(r->data, elements, n));
    r->end += n;
    return nt_h5_append(r->ptr, &r->end, 1);
}

/* Reads a column back in the blocks it was written in. */
static nt_status compare_column(const struct nt_h5_writer *w, hid_t file, struct nt_h5_column *c) {
    c->set = H5Dopen2(file, c->path, H5P_DEFAULT);
    if (c->set < 0) return fail_h5(NT_E_IO, w->path, c->path, "read back");
    uint64_t hash = 0;
    for (int64_t first = 0; first < c->n_rows; first += c->chunk_rows) {
        const int64_t left = c->n_rows - first, n = left < c->chunk_rows ? left : c->chunk_rows;
        if (!move_rows(c->set, c->type, c->width, first, n, c->pending, false))
            return fail_h5(NT_E_IO, w->path, c->path, "read back");
        hash = nt_xxh64(c->pending, (size_t)n * c->row_bytes, hash);
    }
    if (hash != c->hash)
        return NT_FAIL(NT_E_IO, "%s: %s reads back otherwise than it was written; is the disk or memory bad?", w->path,
                       c->path);
    return close_set(w, c);
}

static nt_status compare_all(struct nt_h5_writer *w) {
    const hid_t fapl = access_list();
    const hid_t file = fapl < 0 ? -1 : H5Fopen(w->temp, H5F_ACC_RDONLY, fapl);
    nt_status st = file < 0 ? fail_h5(NT_E_IO, w->path, "the file", "read back") : NT_OK;
    if (fapl >= 0) (void)H5Pclose(fapl);
    for (struct nt_h5_column *c = w->columns; c && st == NT_OK; c = c->next) st = compare_column(w, file, c);
    for (struct nt_h5_column *c = w->columns; c; c = c->next) {
        const nt_status closed = close_set(w, c);
        if (st == NT_OK) st = closed;
    }
    if (file >= 0 && H5Fclose(file) < 0 && st == NT_OK) st = fail_h5(NT_E_IO, w->path, "the file", "close");
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}

static nt_status finish(struct nt_h5_writer *w) {
    for (struct nt_h5_column *c = w->columns; c; c = c->next) {
        NT_TRY(write_pending(c));
        NT_TRY(close_set(w, c));
    }
    const hid_t file = w->file;
    w->file = -1;
    if (H5Fclose(file) < 0) return fail_h5(NT_E_IO, w->path, "the file", "close");
    NT_TRY(compare_all(w));
    NT_TRY(nt_publish_file(w->temp, w->path, NT_PUBLISH_REPLACE));
    w->temp[0] = '\0';
    return NT_OK;
}

nt_status nt_h5_publish(struct nt_h5_writer *w) {
    const nt_status st = finish(w);
    nt_h5_abandon(w);
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}

void nt_h5_abandon(struct nt_h5_writer *w) {
    if (!w) return;
    struct nt_h5_column *c = w->columns;
    while (c) {
        struct nt_h5_column *next = c->next;
        if (c->set >= 0) (void)H5Dclose(c->set);
        free(c->pending);
        free(c);
        c = next;
    }
    if (w->file >= 0) (void)H5Fclose(w->file);
    if (w->temp[0] != '\0') (void)unlink(w->temp);
    (void)H5Eclear2(H5E_DEFAULT);
    free(w);
}

/* ---- reading ---- */

struct nt_h5_array {
    struct nt_h5_file *f;
    struct nt_h5_array *next;
    char path[MAX_PATH];
    hid_t set;
    enum nt_h5_type type;
    int32_t width; /* 0: one dimension */
    size_t row_bytes;
    int64_t rows;
    uint8_t *window; /* rows [w_first, w_first + w_n) */
    int64_t w_first, w_n, w_cap;
};

struct nt_h5_file {
    char *path;
    hid_t file;
    struct nt_h5_array *arrays;
};

/* Superblock 2 and 3 have checksums over all metadata; older ones do not, and damaged ones crash the library. */
static nt_status check_superblock(const char *path) {
    uint8_t version = 0;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NT_FAIL(errno == ENOENT ? NT_E_NOINPUT : NT_E_IO, "%s: cannot open it for reading: %s", path,
                       strerror(errno));
    const ssize_t got = pread(fd, &version, 1, 8);
    (void)close(fd);
    if (!nt_h5_is_file(path)) return NT_FAIL(NT_E_DATA, "%s: not an HDF5 file, its first 8 bytes are others", path);
    if (got != 1 || version < 2)
        return NT_FAIL(NT_E_DATA,
                       "%s: HDF5 superblock version %d without checksums, expected 2 or 3; write it with `nocturne "
                       "ingest` or with h5py's libver=\"v110\"",
                       path, version);
    return NT_OK;
}

nt_status nt_h5_open(struct nt_h5_file **out, const char *path) {
    start_library();
    NT_TRY(check_superblock(path));
    struct nt_h5_file *f = calloc(1, sizeof *f);
    if (f) f->path = strdup(path);
    if (!f || !f->path) {
        free(f);
        return NT_FAIL(NT_E_NOMEM, "%s: no memory to read it", path);
    }
    const hid_t fapl = access_list();
    f->file = fapl < 0 ? -1 : H5Fopen(path, H5F_ACC_RDONLY, fapl);
    const hid_t cause = keep_cause(f->file >= 0);
    if (fapl >= 0) (void)H5Pclose(fapl);
    restore_cause(cause);
    if (f->file < 0) {
        const nt_status st = fail_h5(NT_E_DATA, path, "the file", "open");
        nt_h5_close(f);
        return st;
    }
    *out = f;
    return NT_OK;
}

void nt_h5_close(struct nt_h5_file *f) {
    if (!f) return;
    struct nt_h5_array *a = f->arrays;
    while (a) {
        struct nt_h5_array *next = a->next;
        if (a->set >= 0) (void)H5Dclose(a->set);
        free(a->window);
        free(a);
        a = next;
    }
    if (f->file >= 0) (void)H5Fclose(f->file);
    free(f->path);
    free(f);
}

/* Every component of the path must be a hard link: soft and external ones lead out of what was checked. */
bool nt_h5_has(struct nt_h5_file *f, const char *path) {
    char part[MAX_PATH];
    const size_t n = strlen(path);
    if (n >= sizeof part) return false;
    for (size_t i = 1; i <= n; i++) {
        if (path[i] != '/' && path[i] != '\0') continue;
        memcpy(part, path, i);
        part[i] = '\0';
        H5L_info_t info;
        const bool hard = H5Lexists(f->file, part, H5P_DEFAULT) > 0 &&
                          H5Lget_info(f->file, part, &info, H5P_DEFAULT) >= 0 && info.type == H5L_TYPE_HARD;
        (void)H5Eclear2(H5E_DEFAULT);
        if (!hard) return false;
    }
    return true;
}

/* Never a variable-length one: see nt_h5_attr_str. */
static bool read_string(hid_t attr, hid_t type, char *buf, size_t cap) {
    if (H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) != 0) return false;
    const size_t n = H5Tget_size(type);
    if (n == 0 || n >= cap) return false;
    memset(buf, 0, cap);
    return H5Aread(attr, type, buf) >= 0;
}

nt_status nt_h5_read_attr(struct nt_h5_file *f, const char *object, const char *name, char *buf, size_t cap) {
    const hid_t attr = H5Aopen_by_name(f->file, object, name, H5P_DEFAULT, H5P_DEFAULT);
    const hid_t type = attr < 0 ? -1 : H5Aget_type(attr), space = attr < 0 ? -1 : H5Aget_space(attr);
    const bool ok =
        type >= 0 && space >= 0 && H5Sget_simple_extent_type(space) == H5S_SCALAR && read_string(attr, type, buf, cap);
    if (type >= 0) (void)H5Tclose(type);
    if (space >= 0) (void)H5Sclose(space);
    if (attr >= 0) (void)H5Aclose(attr);
    (void)H5Eclear2(H5E_DEFAULT);
    if (!ok)
        return NT_FAIL(NT_E_DATA,
                       "%s: attribute %s of %s is missing or no scalar string of fixed length up to %zu bytes (h5py: "
                       "numpy.bytes_)",
                       f->path, name, object, cap - 1);
    return NT_OK;
}

/* Storage inside the file, filters that are built in, chunks of a bearable size. */
static const char *refuse_storage(hid_t dcpl) {
    const H5D_layout_t layout = H5Pget_layout(dcpl);
    if (layout != H5D_CONTIGUOUS && layout != H5D_CHUNKED && layout != H5D_COMPACT) return "virtual storage";
    if (layout != H5D_CHUNKED && H5Pget_external_count(dcpl) != 0) return "storage in another file";
    const int n = H5Pget_nfilters(dcpl);
    for (int i = 0; i < n; i++) {
        unsigned flags = 0, config = 0;
        size_t n_values = 0;
        const H5Z_filter_t id = H5Pget_filter2(dcpl, (unsigned)i, &flags, &n_values, NULL, 0, NULL, &config);
        if (id != H5Z_FILTER_DEFLATE && id != H5Z_FILTER_SHUFFLE && id != H5Z_FILTER_FLETCHER32)
            return "a filter other than shuffle, deflate, fletcher32";
    }
    return n < 0 || n > 8 ? "too many filters" : NULL;
}

static bool chunk_too_big(hid_t dcpl, int rank, size_t elem) {
    hsize_t chunk[2] = {0, 1};
    if (H5Pget_layout(dcpl) != H5D_CHUNKED) return false;
    if (H5Pget_chunk(dcpl, 2, chunk) != rank) return true;
    return chunk[0] > MAX_CHUNK || chunk[1] > MAX_CHUNK || chunk[0] * chunk[1] > MAX_CHUNK / elem;
}

/* deflate makes at most about 1032 bytes of one: a small file cannot claim many rows. */
static bool extent_beyond_storage(hid_t set, hsize_t rows, size_t row_bytes) {
    const hsize_t stored = H5Dget_storage_size(set), slack = 64 << 20;
    hsize_t bytes = 0;
    return __builtin_mul_overflow(rows, (hsize_t)row_bytes, &bytes) || (bytes > slack && bytes / 1100 > stored) ||
           (bytes > 0 && stored == 0);
}

static nt_status check_array(struct nt_h5_array *a, int32_t width, int64_t rows, hid_t type, hid_t space, hid_t dcpl) {
    const char *path = a->f->path;
    hsize_t dims[2] = {0, 0};
    const int rank = H5Sget_simple_extent_ndims(space), want_rank = width ? 2 : 1;
    if (H5Tequal(type, h5_type(a->type)) <= 0)
        return NT_FAIL(NT_E_DATA, "%s: %s does not have the type %s (little endian)", path, a->path,
                       type_name(a->type));
    if (rank != want_rank || H5Sget_simple_extent_dims(space, dims, NULL) != rank)
        return NT_FAIL(NT_E_DATA, "%s: %s has %d dimensions, expected %d", path, a->path, rank, want_rank);
    if (rank == 2 && (dims[1] == 0 || dims[1] > MAX_WIDTH || (width > 0 && dims[1] != (hsize_t)width)))
        return NT_FAIL(NT_E_DATA, "%s: %s has rows of %llu, expected %d", path, a->path, (unsigned long long)dims[1],
                       width > 0 ? width : MAX_WIDTH);
    const char *refused = refuse_storage(dcpl);
    if (refused) return NT_FAIL(NT_E_DATA, "%s: %s uses %s, which is not read", path, a->path, refused);
    a->width = rank == 2 ? (int32_t)dims[1] : 0;
    a->row_bytes = type_size(a->type) * (rank == 2 ? (size_t)dims[1] : 1);
    if (chunk_too_big(dcpl, rank, type_size(a->type)))
        return NT_FAIL(NT_E_DATA, "%s: %s has chunks above %d bytes", path, a->path, MAX_CHUNK);
    if (dims[0] > INT64_MAX / 2 || extent_beyond_storage(a->set, dims[0], a->row_bytes))
        return NT_FAIL(NT_E_DATA, "%s: %s claims %llu rows, more than its stored bytes can hold", path, a->path,
                       (unsigned long long)dims[0]);
    if (rows >= 0 && dims[0] != (hsize_t)rows)
        return NT_FAIL(NT_E_DATA, "%s: %s has %llu rows, expected %" PRId64, path, a->path, (unsigned long long)dims[0],
                       rows);
    a->rows = (int64_t)dims[0];
    return NT_OK;
}

nt_status nt_h5_array(struct nt_h5_file *f, const char *path, enum nt_h5_type type, int32_t width, int64_t rows,
                      struct nt_h5_array **out) {
    if (!nt_h5_has(f, path)) return NT_FAIL(NT_E_DATA, "%s: %s is missing (or a soft or external link)", f->path, path);
    struct nt_h5_array *a = calloc(1, sizeof *a);
    if (!a) return NT_FAIL(NT_E_NOMEM, "%s: no memory for %s", f->path, path);
    a->f = f;
    a->type = type;
    (void)snprintf(a->path, sizeof a->path, "%s", path);
    a->next = f->arrays;
    f->arrays = a; /* from here on nt_h5_close frees it */
    const hid_t dapl = H5Pcreate(H5P_DATASET_ACCESS);
    a->set = dapl >= 0 && H5Pset_chunk_cache(dapl, 521, 4 << 20, 0.75) >= 0 ? H5Dopen2(f->file, path, dapl) : -1;
    if (dapl >= 0) (void)H5Pclose(dapl);
    if (a->set < 0) return fail_h5(NT_E_DATA, f->path, path, "open");
    const hid_t t = H5Dget_type(a->set), s = H5Dget_space(a->set), p = H5Dget_create_plist(a->set);
    const nt_status st =
        t < 0 || s < 0 || p < 0 ? fail_h5(NT_E_DATA, f->path, path, "look at") : check_array(a, width, rows, t, s, p);
    if (t >= 0) (void)H5Tclose(t);
    if (s >= 0) (void)H5Sclose(s);
    if (p >= 0) (void)H5Pclose(p);
    *out = a;
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}

int64_t nt_h5_rows(const struct nt_h5_array *a) {
    return a->rows;
}

int32_t nt_h5_width(const struct nt_h5_array *a) {
    return a->width;
}

nt_status nt_h5_read(struct nt_h5_array *a, int64_t first, int64_t n, void *rows) {
    if (first < 0 || n < 0 || first > a->rows || n > a->rows - first)
        return NT_FAIL(NT_E_DATA, "%s: %s has %" PRId64 " rows, rows %" PRId64 " to %" PRId64 " were asked for",
                       a->f->path, a->path, a->rows, first, first + n);
    if (n > 0 && !move_rows(a->set, a->type, a->width, first, n, rows, false))
        return fail_h5(NT_E_DATA, a->f->path, a->path, "read");
    return NT_OK;
}

nt_status nt_h5_get(struct nt_h5_array *a, int64_t row, void *out) {
    if (row < a->w_first || row >= a->w_first + a->w_n) {
        if (!a->window) {
            a->w_cap = a->row_bytes < WINDOW ? (int64_t)(WINDOW / a->row_bytes) : 1;
            a->window = malloc((size_t)a->w_cap * a->row_bytes);
            if (!a->window) return NT_FAIL(NT_E_NOMEM, "%s: no memory for %s", a->f->path, a->path);
        }
        const int64_t left = a->rows - row, n = left < a->w_cap ? left : a->w_cap;
        a->w_n = 0;
        NT_TRY(nt_h5_read(a, row, n < 1 ? 1 : n, a->window));
        a->w_first = row;
        a->w_n = n;
    }
    memcpy(out, a->window + (size_t)(row - a->w_first) * a->row_bytes, a->row_bytes);
    return NT_OK;
}

nt_status nt_h5_text(struct nt_h5_file *f, const char *path, enum nt_h5_type type, int64_t rows,
                     struct nt_h5_text *out) {
    char part[MAX_PATH];
    (void)snprintf(part, sizeof part, "%s/ptr", path);
    NT_TRY(nt_h5_array(f, part, NT_H5_I64, 0, rows < 0 ? -1 : rows + 1, &out->ptr));
    (void)snprintf(part, sizeof part, "%s/data", path);
    NT_TRY(nt_h5_array(f, part, type, 0, -1, &out->data));
    if (out->ptr->rows < 1) return NT_FAIL(NT_E_DATA, "%s: %s/ptr is empty, expected at least the 0", f->path, path);
    out->n = out->ptr->rows - 1;
    return NT_OK;
}

nt_status nt_h5_text_range(struct nt_h5_text *t, int64_t i, int64_t *first, int64_t *n) {
    int64_t a = 0, b = 0;
    NT_TRY(nt_h5_get(t->ptr, i, &a));
    NT_TRY(nt_h5_get(t->ptr, i + 1, &b));
    if (a < 0 || b < a || b > t->data->rows || b - a > MAX_ELEMENT)
        return NT_FAIL(NT_E_DATA,
                       "%s: %s: entry %" PRId64 " is [%" PRId64 ", %" PRId64 "), expected a range within %" PRId64
                       " of at most %d elements",
                       t->ptr->f->path, t->ptr->path, i, a, b, t->data->rows, MAX_ELEMENT);
    *first = a;
    *n = b - a;
    return NT_OK;
}

nt_status nt_h5_text_get(struct nt_h5_text *t, int64_t i, struct nt_strbuf *out) {
    int64_t first = 0, n = 0;
    NT_CHECK(t->data->type == NT_H5_U8);
    NT_TRY(nt_h5_text_range(t, i, &first, &n));
    nt_strbuf_reserve(out, (size_t)n);
    NT_TRY(nt_h5_read(t->data, first, n, out->data + out->len));
    out->len += (size_t)n;
    out->data[out->len] = '\0';
    return NT_OK;
}
