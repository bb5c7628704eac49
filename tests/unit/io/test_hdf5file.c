/* The HDF5 door: what goes through comes back, a full disk leaves nothing behind, foreign tricks are refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fileio.h"
#include "hdf5file.h"
#include <hdf5.h> /* to make files that our writer would never write */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[64], path[96];

static int make_dir(void **state) {
    (void)state;
    (void)snprintf(dir, sizeof dir, "/tmp/nt-h5-XXXXXX");
    if (!mkdtemp(dir)) return -1;
    (void)snprintf(path, sizeof path, "%s/f.h5", dir);
    return 0;
}

static int remove_dir(void **state) {
    (void)state;
    char cmd[128];
    (void)snprintf(cmd, sizeof cmd, "rm -rf '%s'", dir);
    return system(cmd);
}

static void ok(nt_status st) {
    if (st != NT_OK) fail_msg("%s", nt_error_last()->text);
}

/* Sizes around the chunk borders, written in uneven pieces. */
static void test_columns(void **state) {
    (void)state;
    static const int64_t sizes[] = {0, 1, 65535, 65536, 65537, 200001};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        const int64_t n = sizes[s];
        struct nt_h5_writer *w = NULL;
        struct nt_h5_column *a = NULL, *b = NULL;
        ok(nt_h5_create(&w, path));
        ok(nt_h5_group(w, "/g", "group"));
        ok(nt_h5_column(w, "/g/a", NT_H5_I64, 0, &a));
        ok(nt_h5_column(w, "/b", NT_H5_F32, 3, &b));
        for (int64_t i = 0; i < n;) {
            int64_t piece[1000];
            int64_t k = 0;
            for (; k < 1 + i % 1000 && i + k < n; k++) piece[k] = (i + k) * (i + k) - 7;
            ok(nt_h5_append(a, piece, k));
            i += k;
        }
        for (int64_t i = 0; i < n; i += 40) {
            const float row[3] = {(float)i, 0.5f, NAN};
            ok(nt_h5_append(b, row, 1));
        }
        ok(nt_h5_publish(w));
        struct nt_h5_file *f = NULL;
        struct nt_h5_array *x = NULL, *y = NULL;
        ok(nt_h5_open(&f, path));
        ok(nt_h5_array(f, "/g/a", NT_H5_I64, 0, n, &x));
        ok(nt_h5_array(f, "/b", NT_H5_F32, 3, -1, &y));
        assert_int_equal(nt_h5_rows(y), (n + 39) / 40);
        for (int64_t i = 0; i < n; i += i % 3 ? 1 : 977) {
            int64_t v = 0;
            ok(nt_h5_get(x, i, &v));
            assert_true(v == i * i - 7);
        }
        float row[3] = {0};
        if (n > 0) {
            ok(nt_h5_get(y, nt_h5_rows(y) - 1, row));
            assert_true(row[0] == (float)((n - 1) / 40 * 40) && row[1] == 0.5f && isnan(row[2]));
        }
        int64_t v = 0;
        assert_int_equal(nt_h5_get(x, n, &v), NT_E_DATA);
        assert_int_equal(nt_h5_get(x, -1, &v), NT_E_DATA);
        assert_int_equal(nt_h5_read(x, 0, n + 1, &v), NT_E_DATA);
        nt_h5_close(f);
    }
}

static void test_ragged(void **state) {
    (void)state;
    struct nt_h5_writer *w = NULL;
    struct nt_h5_ragged r;
    char *big = malloc(3 << 20);
    memset(big, 'b', 3 << 20);
    ok(nt_h5_create(&w, path));
    ok(nt_h5_attr_str(w, "/", "name", "caf\xc3\xa9"));
    ok(nt_h5_attr_str(w, "/", "empty", ""));
    ok(nt_h5_attr_i64(w, "/", "count", 4));
    ok(nt_h5_ragged(w, "/t", NT_H5_U8, "ragged-utf8", &r));
    ok(nt_h5_ragged_append(&r, "one", 3));
    ok(nt_h5_ragged_append(&r, "", 0));
    ok(nt_h5_ragged_append(&r, big, 3 << 20)); /* longer than a chunk */
    ok(nt_h5_ragged_append(&r, "z\0z", 3));
    ok(nt_h5_publish(w));
    struct nt_h5_file *f = NULL;
    struct nt_h5_text t;
    struct nt_strbuf s = NT_STRBUF_INIT;
    char name[32];
    ok(nt_h5_open(&f, path));
    ok(nt_h5_read_attr(f, "/", "name", name, sizeof name));
    assert_string_equal(name, "caf\xc3\xa9");
    assert_int_equal(nt_h5_read_attr(f, "/", "name", name, 5), NT_E_DATA); /* does not fit */
    ok(nt_h5_read_attr(f, "/", "empty", name, sizeof name));
    assert_string_equal(name, "");
    assert_int_equal(nt_h5_read_attr(f, "/", "count", name, sizeof name), NT_E_DATA);
    assert_int_equal(nt_h5_read_attr(f, "/", "nothing", name, sizeof name), NT_E_DATA);
    ok(nt_h5_text(f, "/t", NT_H5_U8, 4, &t));
    for (int i = 3; i >= 0; i--) ok(nt_h5_text_get(&t, i, &s));
    assert_int_equal(s.len, 3 + (3 << 20) + 0 + 3);
    assert_memory_equal(s.data, "z\0zbbb", 6);
    assert_memory_equal(s.data + s.len - 4, "bone", 4);
    assert_int_equal(nt_h5_text(f, "/t", NT_H5_U8, 5, &t), NT_E_DATA);
    assert_int_equal(nt_h5_text(f, "/t", NT_H5_U32, 4, &t), NT_E_DATA);
    assert_int_equal(nt_h5_text(f, "/u", NT_H5_U8, 4, &t), NT_E_DATA);
    nt_strbuf_release(&s);
    nt_h5_close(f);
    free(big);
}

/* ptr is data from outside: descending, beyond the data, negative. */
static void test_bad_ptr(void **state) {
    (void)state;
    static const int64_t bad[][3] = {
        {0,         5,         3},
        {0,         3,         9},
        {-1,        3,         5},
        {0,         INT64_MAX, 5},
        {INT64_MIN, 0,         5}
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct nt_h5_writer *w = NULL;
        struct nt_h5_column *ptr = NULL, *data = NULL;
        struct nt_h5_file *f = NULL;
        struct nt_h5_text t;
        struct nt_strbuf s = NT_STRBUF_INIT;
        ok(nt_h5_create(&w, path));
        ok(nt_h5_group(w, "/t", "ragged-utf8"));
        ok(nt_h5_column(w, "/t/ptr", NT_H5_I64, 0, &ptr));
        ok(nt_h5_column(w, "/t/data", NT_H5_U8, 0, &data));
        ok(nt_h5_append(ptr, bad[i], 3));
        ok(nt_h5_append(data, "hello", 5));
        ok(nt_h5_publish(w));
        ok(nt_h5_open(&f, path));
        ok(nt_h5_text(f, "/t", NT_H5_U8, 2, &t));
        const nt_status a = nt_h5_text_get(&t, 0, &s), b = nt_h5_text_get(&t, 1, &s);
        assert_true(a == NT_E_DATA || b == NT_E_DATA);
        nt_strbuf_release(&s);
        nt_h5_close(f);
    }
}

/* ---- foreign files ---- */

static hid_t begin(H5F_libver_t low) {
    const hid_t fapl = H5Pcreate(H5P_FILE_ACCESS);
    (void)H5Pset_libver_bounds(fapl, low, H5F_LIBVER_V110);
    const hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, fapl);
    (void)H5Pclose(fapl);
    assert_true(file >= 0);
    return file;
}

/* /x as i64[4] with this creation list (closed) and type. */
static void add_x(hid_t file, hid_t type, int rank, hid_t dcpl) {
    const hsize_t dims[2] = {4, 2}, most[2] = {H5S_UNLIMITED, 2};
    const int64_t values[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    const hid_t space = H5Screate_simple(rank, dims, H5Pget_layout(dcpl) == H5D_CHUNKED ? most : NULL);
    const hid_t set = H5Dcreate2(file, "/x", type, space, H5P_DEFAULT, dcpl, H5P_DEFAULT);
    assert_true(set >= 0 && H5Dwrite(set, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    assert_true(H5Dclose(set) >= 0 && H5Sclose(space) >= 0 && H5Pclose(dcpl) >= 0);
}

static void expect_refused(hid_t file, const char *why) {
    struct nt_h5_file *f = NULL;
    struct nt_h5_array *a = NULL;
    assert_true(H5Fclose(file) >= 0);
    ok(nt_h5_open(&f, path));
    assert_int_equal(nt_h5_array(f, "/x", NT_H5_I64, 0, -1, &a), NT_E_DATA);
    if (!strstr(nt_error_last()->text, why)) fail_msg("\"%s\" does not say \"%s\"", nt_error_last()->text, why);
    assert_non_null(strstr(nt_error_last()->text, path));
    nt_h5_close(f);
}

static hid_t plain(void) {
    return H5Pcreate(H5P_DATASET_CREATE);
}

static size_t pass_through(unsigned flags, size_t n_values, const unsigned values[], size_t n, size_t *size,
                           void **buf) {
    (void)flags, (void)n_values, (void)values, (void)size, (void)buf;
    return n;
}

static void test_refused_shapes(void **state) {
    (void)state;
    hid_t file = begin(H5F_LIBVER_V110);
    expect_refused(file, "/x is missing");
    file = begin(H5F_LIBVER_V110);
    add_x(file, H5T_STD_I32LE, 1, plain());
    expect_refused(file, "does not have the type i64");
    file = begin(H5F_LIBVER_V110);
    add_x(file, H5T_STD_I64BE, 1, plain());
    expect_refused(file, "does not have the type i64");
    file = begin(H5F_LIBVER_V110);
    add_x(file, H5T_STD_I64LE, 2, plain());
    expect_refused(file, "2 dimensions, expected 1");
    file = begin(H5F_LIBVER_V110);
    const hid_t group = H5Gcreate2(file, "/x", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Gclose(group) >= 0);
    expect_refused(file, "cannot open /x");
}

static void test_refused_links(void **state) {
    (void)state;
    hid_t file = begin(H5F_LIBVER_V110);
    add_x(file, H5T_STD_I64LE, 1, plain());
    assert_true(H5Lmove(file, "/x", file, "/y", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    assert_true(H5Lcreate_soft("/y", file, "/x", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    expect_refused(file, "soft or external link");
    file = begin(H5F_LIBVER_V110);
    assert_true(H5Lcreate_external("/etc/passwd", "/y", file, "/x", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    expect_refused(file, "soft or external link");
}

static void test_refused_storage(void **state) {
    (void)state;
    char other[128];
    (void)snprintf(other, sizeof other, "%s/raw", dir);
    hid_t file = begin(H5F_LIBVER_V110), dcpl = plain();
    assert_true(H5Pset_external(dcpl, other, 0, H5F_UNLIMITED) >= 0);
    add_x(file, H5T_STD_I64LE, 1, dcpl);
    expect_refused(file, "storage in another file");

    file = begin(H5F_LIBVER_V110);
    dcpl = plain();
    const hsize_t dims[1] = {4};
    const hid_t space = H5Screate_simple(1, dims, NULL);
    assert_true(H5Pset_virtual(dcpl, space, "other.h5", "/y", space) >= 0);
    const hid_t set = H5Dcreate2(file, "/x", H5T_STD_I64LE, space, H5P_DEFAULT, dcpl, H5P_DEFAULT);
    assert_true(set >= 0 && H5Dclose(set) >= 0 && H5Sclose(space) >= 0 && H5Pclose(dcpl) >= 0);
    expect_refused(file, "virtual storage");

    const H5Z_class2_t filter = {H5Z_CLASS_T_VERS, 300, 1, 1, "own", NULL, NULL, pass_through};
    const hsize_t chunk[1] = {4}, huge[1] = {(hsize_t)16 << 20};
    assert_true(H5Zregister(&filter) >= 0);
    file = begin(H5F_LIBVER_V110);
    dcpl = plain();
    assert_true(H5Pset_chunk(dcpl, 1, chunk) >= 0 && H5Pset_filter(dcpl, 300, 0, 0, NULL) >= 0);
    add_x(file, H5T_STD_I64LE, 1, dcpl);
    expect_refused(file, "a filter other than");

    file = begin(H5F_LIBVER_V110);
    dcpl = plain();
    assert_true(H5Pset_chunk(dcpl, 1, huge) >= 0 && H5Pset_deflate(dcpl, 1) >= 0);
    add_x(file, H5T_STD_I64LE, 1, dcpl);
    expect_refused(file, "has chunks above");
}

/* A few KB that claim 2^40 rows would read as zeros for hours. */
static void test_refused_extent(void **state) {
    (void)state;
    hid_t file = begin(H5F_LIBVER_V110), dcpl = plain();
    const hsize_t dims[1] = {(hsize_t)1 << 40}, most[1] = {H5S_UNLIMITED}, chunk[1] = {1024};
    assert_true(H5Pset_chunk(dcpl, 1, chunk) >= 0);
    const hid_t space = H5Screate_simple(1, dims, most);
    const hid_t set = H5Dcreate2(file, "/x", H5T_STD_I64LE, space, H5P_DEFAULT, dcpl, H5P_DEFAULT);
    assert_true(set >= 0 && H5Dclose(set) >= 0 && H5Sclose(space) >= 0 && H5Pclose(dcpl) >= 0);
    expect_refused(file, "more than its stored bytes can hold");
}

/* What the library says of a damaged file reaches the sentence, though what was open is closed before it is written. */
static void test_damage_is_named(void **state) {
    (void)state;
    static const int64_t values[4] = {1, 2, 3, 4};
    struct nt_h5_file *f = NULL;
    struct nt_h5_array *a = NULL;
    int64_t x[4];
    char *bytes;
    size_t n;
    const hid_t file = begin(H5F_LIBVER_V110), dcpl = plain();
    const hsize_t chunk[1] = {4};
    assert_true(H5Pset_chunk(dcpl, 1, chunk) >= 0 && H5Pset_fletcher32(dcpl) >= 0);
    add_x(file, H5T_STD_I64LE, 1, dcpl);
    assert_true(H5Fclose(file) >= 0);
    ok(nt_file_read(path, 1 << 20, &bytes, &n));
    ok(nt_publish_bytes(path, bytes, n - 1, NT_PUBLISH_REPLACE));
    assert_int_equal(nt_h5_open(&f, path), NT_E_DATA);
    assert_non_null(strstr(nt_error_last()->text, "truncated file"));
    char *at = memmem(bytes, n, values, sizeof values);
    assert_non_null(at);
    at[3] ^= 4;
    ok(nt_publish_bytes(path, bytes, n, NT_PUBLISH_REPLACE));
    ok(nt_h5_open(&f, path));
    ok(nt_h5_array(f, "/x", NT_H5_I64, 0, -1, &a));
    assert_int_equal(nt_h5_read(a, 0, 4, x), NT_E_DATA);
    assert_non_null(strstr(nt_error_last()->text, "Fletcher32"));
    nt_h5_close(f);
    free(bytes);
}

static void test_refused_files(void **state) {
    (void)state;
    struct nt_h5_file *f = NULL;
    hid_t file = begin(H5F_LIBVER_EARLIEST); /* the default of most writers: metadata without checksums */
    add_x(file, H5T_STD_I64LE, 1, plain());
    assert_true(H5Fclose(file) >= 0);
    assert_true(nt_h5_is_file(path));
    assert_int_equal(nt_h5_open(&f, path), NT_E_DATA);
    assert_non_null(strstr(nt_error_last()->text, "superblock version 0"));
    ok(nt_publish_bytes(path, "text\n", 5, NT_PUBLISH_REPLACE));
    assert_false(nt_h5_is_file(path));
    assert_int_equal(nt_h5_open(&f, path), NT_E_DATA);
    assert_int_equal(nt_h5_open(&f, "/nowhere.h5"), NT_E_NOINPUT);
    assert_false(nt_h5_is_file("/nowhere.h5"));
}

/* Variable-length strings lie in a heap without checksum, where damage crashes the library: not even looked at. */
static void test_refused_attribute(void **state) {
    (void)state;
    struct nt_h5_file *f = NULL;
    char text[64];
    const char *value = "nocturne-corpus";
    const hid_t file = begin(H5F_LIBVER_V110), type = H5Tcopy(H5T_C_S1), space = H5Screate(H5S_SCALAR);
    assert_true(H5Tset_size(type, H5T_VARIABLE) >= 0);
    const hid_t attr = H5Acreate2(file, "encoding-type", type, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Awrite(attr, type, &value) >= 0 && H5Aclose(attr) >= 0 && H5Sclose(space) >= 0);
    assert_true(H5Tclose(type) >= 0 && H5Fclose(file) >= 0);
    ok(nt_h5_open(&f, path));
    assert_int_equal(nt_h5_read_attr(f, "/", "encoding-type", text, sizeof text), NT_E_DATA);
    assert_non_null(strstr(nt_error_last()->text, "of fixed length"));
    nt_h5_close(f);
}

/* ---- failing disks ---- */

/* In a child, because a file size limit stays: writes beyond limit fail with EFBIG as on a full disk. The process must
 * also come to a clean end, which HDF5 alone does not after a failed write. */
static int write_with_limit(rlim_t limit) {
    struct nt_h5_writer *w = NULL;
    struct nt_h5_column *c = NULL;
    const struct rlimit r = {limit, limit};
    (void)signal(SIGXFSZ, SIG_IGN);
    if (setrlimit(RLIMIT_FSIZE, &r) != 0) return 3;
    if (nt_h5_create(&w, path) != NT_OK) return 10;
    nt_status st = nt_h5_column(w, "/x", NT_H5_I64, 0, &c);
    uint64_t v = 88172645463325252u;
    for (int i = 0; i < 300000 && st == NT_OK; i++) { /* noise does not shrink */
        v ^= v << 13;
        v ^= v >> 7;
        v ^= v << 17;
        st = nt_h5_append(c, &v, 1);
    }
    if (st != NT_OK) {
        nt_h5_abandon(w);
        return st == NT_E_IO ? 10 : 4;
    }
    st = nt_h5_publish(w);
    return st == NT_OK ? 11 : st == NT_E_IO ? 10 : 4;
}

static void test_full_disk(void **state) {
    (void)state;
    int n_failed = 0, n_written = 0;
    for (rlim_t limit = 0; limit < 3000000; limit = limit < 8192 ? limit + 600 : limit * 3 / 2) {
        (void)unlink(path);
        const pid_t pid = fork();
        if (pid == 0) exit(write_with_limit(limit)); /* exit, not _exit: the handlers are part of the test */
        int status = 0;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (!WIFEXITED(status) || WEXITSTATUS(status) < 10) fail_msg("limit %ld: status 0x%x", (long)limit, status);
        const bool written = WEXITSTATUS(status) == 11;
        assert_int_equal(nt_file_exists(path), written); /* all or nothing */
        n_failed += !written;
        n_written += written;
    }
    assert_true(n_failed > 10 && n_written > 0);
    char cmd[160];
    (void)snprintf(cmd, sizeof cmd, "ls -A '%s' | grep -c '^\\.tmp' | grep -q '^0$'", dir);
    assert_int_equal(system(cmd), 0);
}

static void test_library(void **state) {
    (void)state;
    char text[64];
    ok(nt_h5_check_library(text, sizeof text));
    assert_non_null(strstr(text, "HDF5 1."));
    assert_non_null(strstr(text, nt_hdf5_version()));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full_disk), /* first: its children must not inherit a library in use */
        cmocka_unit_test(test_columns),         cmocka_unit_test(test_ragged),
        cmocka_unit_test(test_bad_ptr),         cmocka_unit_test(test_refused_shapes),
        cmocka_unit_test(test_refused_links),   cmocka_unit_test(test_refused_storage),
        cmocka_unit_test(test_refused_extent),  cmocka_unit_test(test_refused_files),
        cmocka_unit_test(test_damage_is_named), cmocka_unit_test(test_refused_attribute),
        cmocka_unit_test(test_library),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
