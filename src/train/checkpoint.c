#include "checkpoint.h"
#include "fileio.h"
#include "hash.h"
#include "hdf5file.h"
#include "log.h"
#include "outdir.h"
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FOLDER "checkpoints"
#define KIND   "nocturne-checkpoint"

enum { N_ARRAYS = 3, COUNTS = 5, LOSSES_TEXT = 32 * NT_TRAIN_RECENT };
static const enum nt_training_array arrays[N_ARRAYS] = {NT_TRAINING_W, NT_TRAINING_M, NT_TRAINING_V};
static const char *const array_names[N_ARRAYS] = {"/parameters", "/moment1", "/moment2"};

/* ---- names ----------------------------------------------------------------------------------------------------- */

enum { MAX_NAME = 64 };

static void name_of(int64_t step, char name[MAX_NAME]) {
    snprintf(name, MAX_NAME, "step-%08" PRId64 ".h5", step);
}

nt_status nt_checkpoint_path(char *buf, size_t cap, const char *dir, int64_t step) {
    char name[MAX_NAME], folder[PATH_MAX];
    name_of(step, name);
    NT_TRY(nt_path_join(folder, sizeof folder, dir, FOLDER));
    return nt_path_join(buf, cap, folder, name);
}

/* -1: not the name of a checkpoint, which a step has one of. */
static int64_t step_of(const char *name) {
    char again[MAX_NAME];
    int64_t step;
    if (sscanf(name, "step-%18" SCNd64, &step) != 1) return -1;
    name_of(step, again);
    return step >= 0 && strcmp(name, again) == 0 ? step : -1;
}

static int newest_first(const void *a, const void *b) {
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

nt_status nt_checkpoint_list(const char *dir, int64_t **steps, int64_t *n) {
    char path[PATH_MAX];
    *steps = NULL;
    *n = 0;
    NT_TRY(nt_path_join(path, sizeof path, dir, FOLDER));
    DIR *d = opendir(path);
    if (!d && errno == ENOENT) return NT_OK;
    if (!d) return NT_FAIL(NT_E_IO, "%s: cannot list the checkpoints: %s", path, strerror(errno));
    int64_t cap = 0;
    nt_status st = NT_OK;
    for (const struct dirent *e = readdir(d); e; e = readdir(d)) {
        const int64_t step = step_of(e->d_name);
        if (step < 0) continue;
        if (*n == cap) {
            cap = cap ? 2 * cap : 16;
            int64_t *more = realloc(*steps, (size_t)cap * sizeof *more);
            if (!more) {
                st = NT_FAIL(NT_E_NOMEM, "%s: no memory for the list of checkpoints", path);
                break;
            }
            *steps = more;
        }
        (*steps)[(*n)++] = step;
    }
    closedir(d);
    if (*n > 0) qsort(*steps, (size_t)*n, sizeof **steps, newest_first);
    return st;
}

static nt_status remove_from(const char *dir, int64_t keep) {
    int64_t *steps, n;
    nt_status st = nt_checkpoint_list(dir, &steps, &n);
    for (int64_t i = keep; i < n && st == NT_OK; i++) {
        char path[PATH_MAX];
        st = nt_checkpoint_path(path, sizeof path, dir, steps[i]);
        if (st == NT_OK && unlink(path) != 0 && errno != ENOENT)
            st = NT_FAIL(NT_E_IO, "%s: cannot remove an old checkpoint: %s", path, strerror(errno));
    }
    free(steps);
    return st;
}

nt_status nt_checkpoint_discard(const char *dir) {
    return remove_from(dir, 0);
}

nt_status nt_checkpoint_remove_temps(const char *dir) {
    static const char *const names[] = {"step-"};
    char path[PATH_MAX];
    NT_TRY(nt_path_join(path, sizeof path, dir, FOLDER));
    return nt_outdir_remove_temps(path, names, 1);
}

/* ---- the last losses -------------------------------------------------------------------------------------------- */

void nt_train_state_add_loss(struct nt_train_state *s, double loss) {
    if (s->n_loss == NT_TRAIN_RECENT) {
        s->n_loss--;
        memmove(s->losses, s->losses + 1, (size_t)s->n_loss * sizeof *s->losses);
    }
    s->losses[s->n_loss++] = loss;
}

double nt_train_state_loss(const struct nt_train_state *s) {
    double sum = 0;
    for (int64_t i = 0; i < s->n_loss; i++) sum += s->losses[i];
    return s->n_loss > 0 ? sum / (double)s->n_loss : NAN;
}

/* As hexadecimal floats with blanks between. */
static void print_losses(const struct nt_train_state *s, char text[LOSSES_TEXT]) {
    int at = 0;
    text[0] = '\0';
    for (int64_t i = 0; i < s->n_loss; i++)
        at += snprintf(text + at, (size_t)(LOSSES_TEXT - at), i > 0 ? " %a" : "%a", s->losses[i]);
}

static bool scan_losses(const char *text, struct nt_train_state *s) {
    for (int64_t i = 0; i < s->n_loss; i++) {
        char *end;
        s->losses[i] = strtod(text, &end);
        if (end == text || !isfinite(s->losses[i])) return false;
        text = end;
    }
    return *text == '\0';
}

/* ---- writing --------------------------------------------------------------------------------------------------- */

static nt_status write_state(struct nt_h5_writer *w, const struct nt_checkpoint_job *j,
                             const struct nt_train_state *s) {
    char hex[NT_SHA256_HEX], means[128], losses[LOSSES_TEXT];
    nt_hex(j->job_digest, NT_SHA256_BYTES, hex);
    snprintf(means, sizeof means, "%a %a", s->norm_mean, s->eval_first);
    print_losses(s, losses);
    NT_TRY(nt_h5_attr_str(w, "/", "encoding-type", KIND));
    NT_TRY(nt_h5_attr_str(w, "/", "encoding-version", "2.0.0"));
    NT_TRY(nt_h5_attr_str(w, "/", "job", hex));
    NT_TRY(nt_h5_attr_str(w, "/", "means", means)); /* exact, in hexadecimal */
    NT_TRY(nt_h5_attr_str(w, "/", "losses", losses));
    struct nt_h5_column *state;
    const int64_t row[COUNTS] = {s->step, s->cursor, s->n_tokens, s->n_skipped, s->n_loss};
    NT_TRY(nt_h5_column(w, "/state", NT_H5_I64, COUNTS, &state));
    return nt_h5_append(state, row, 1);
}

static nt_status write_table(struct nt_h5_writer *w, const struct nt_training *t) {
    struct nt_h5_ragged names;
    struct nt_h5_column *shape;
    NT_TRY(nt_h5_ragged(w, "/names", NT_H5_U8, "ragged-utf8", &names));
    NT_TRY(nt_h5_column(w, "/shape", NT_H5_I32, 2, &shape));
    for (int32_t i = 0; i < nt_training_tensors(t); i++) {
        struct nt_training_tensor info;
        nt_training_tensor(t, i, &info);
        const int32_t row[2] = {info.n_row, info.n_col};
        NT_TRY(nt_h5_ragged_append(&names, info.name, (int64_t)strlen(info.name)));
        NT_TRY(nt_h5_append(shape, row, 1));
    }
    return NT_OK;
}

static int64_t largest(const struct nt_training *t) {
    int64_t most = 0;
    for (int32_t i = 0; i < nt_training_tensors(t); i++) {
        struct nt_training_tensor info;
        nt_training_tensor(t, i, &info);
        const int64_t n = (int64_t)info.n_row * info.n_col;
        if (n > most) most = n;
    }
    return most;
}

/* Collective: every rank gives its part of each tensor; w is NULL but on rank 0. */
static nt_status write_numbers(struct nt_h5_writer *w, const struct nt_checkpoint_job *j, float *buf) {
    struct nt_sha256 *sha = NULL;
    nt_status mine = NT_OK;
    if (w) mine = nt_sha256_new(&sha);
    for (int a = 0; a < N_ARRAYS; a++) {
        struct nt_h5_column *column = NULL;
        if (w && mine == NT_OK) mine = nt_h5_column(w, array_names[a], NT_H5_F32, 0, &column);
        for (int32_t i = 0; i < nt_training_tensors(j->training); i++) {
            struct nt_training_tensor info;
            nt_training_tensor(j->training, i, &info);
            const int64_t n = (int64_t)info.n_row * info.n_col;
            NT_TRY(nt_training_get(j->training, i, arrays[a], buf));
            if (!w || mine != NT_OK) continue;
            nt_sha256_add(sha, buf, (size_t)n * sizeof *buf);
            mine = nt_h5_append(column, buf, n);
        }
    }
    if (!w) return NT_OK;
    uint8_t digest[NT_SHA256_BYTES];
    char hex[NT_SHA256_HEX];
    if (sha) nt_sha256_finish(sha, digest);
    NT_TRY(mine);
    nt_hex(digest, sizeof digest, hex);
    return nt_h5_attr_str(w, "/", "numbers_sha256", hex);
}

static nt_status open_file(const struct nt_checkpoint_job *j, const struct nt_train_state *state,
                           struct nt_h5_writer **w) {
    char path[PATH_MAX], folder[PATH_MAX];
    NT_TRY(nt_path_join(folder, sizeof folder, j->dir, FOLDER));
    NT_TRY(nt_mkdir_p(folder));
    NT_TRY(nt_checkpoint_path(path, sizeof path, j->dir, state->step));
    NT_TRY(nt_h5_create(w, path));
    NT_TRY(write_state(*w, j, state));
    return write_table(*w, j->training);
}

nt_status nt_checkpoint_save(const struct nt_checkpoint_job *j, const struct nt_train_state *state) {
    struct nt_comm *world = j->world->world;
    struct nt_h5_writer *w = NULL;
    const bool first = j->world->rank == 0;
    float *buf = malloc((size_t)largest(j->training) * sizeof *buf);
    nt_status st = buf ? NT_OK : NT_FAIL(NT_E_NOMEM, "no memory for a tensor of the checkpoint");
    if (st == NT_OK && first) st = open_file(j, state, &w);
    st = nt_comm_agree(world, st);
    /* Model copies are equal: the first one writes. */
    if (st == NT_OK && j->world->dp_rank == 0) st = write_numbers(w, j, buf);
    if (first && st == NT_OK)
        st = nt_h5_publish(w);
    else if (first)
        nt_h5_abandon(w);
    free(buf);
    if (first && st == NT_OK) st = remove_from(j->dir, j->keep);
    return nt_comm_agree(world, st);
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

struct loaded {
    bool other_job;
    struct nt_h5_file *file;
    struct nt_h5_array *numbers[N_ARRAYS], *shape, *state;
    struct nt_h5_text names;
};

static nt_status same_text(const char *path, const char *what, const char *want, const char *found) {
    if (strcmp(want, found) == 0) return NT_OK;
    return NT_FAIL(NT_E_DATA, "%s: %s is %s, expected %s", path, what, found, want);
}

static nt_status check_kind(struct nt_h5_file *f, const char *path) {
    char text[NT_SHA256_HEX];
    NT_TRY(nt_h5_read_attr(f, "/", "encoding-type", text, sizeof text));
    NT_TRY(same_text(path, "encoding-type", KIND, text));
    NT_TRY(nt_h5_read_attr(f, "/", "encoding-version", text, sizeof text));
    if (strncmp(text, "2.", 2) == 0) return NT_OK;
    return NT_FAIL(NT_E_UNSUPPORTED, "%s: encoding-version %s, expected 2.x", path, text);
}

static nt_status check_job(const struct nt_checkpoint_job *j, struct loaded *l, const char *path) {
    struct nt_h5_file *f = l->file;
    char text[NT_SHA256_HEX], want[NT_SHA256_HEX];
    NT_TRY(check_kind(f, path));
    NT_TRY(nt_h5_read_attr(f, "/", "job", text, sizeof text));
    nt_hex(j->job_digest, NT_SHA256_BYTES, want);
    l->other_job = strcmp(text, want) != 0;
    if (!l->other_job) return NT_OK;
    return NT_FAIL(NT_E_DATA,
                   "%s belongs to another job (other model, data or training settings; a retention that ended changes "
                   "the data too); choose another --output, or "
                   "add --fresh to discard it",
                   path);
}

static nt_status check_table(struct loaded *l, const struct nt_training *t, const char *path) {
    struct nt_strbuf name = NT_STRBUF_INIT;
    nt_status st = NT_OK;
    for (int32_t i = 0; i < nt_training_tensors(t) && st == NT_OK; i++) {
        struct nt_training_tensor info;
        int32_t shape[2];
        nt_training_tensor(t, i, &info);
        name.len = 0;
        st = nt_h5_text_get(&l->names, i, &name);
        if (st == NT_OK) st = nt_h5_get(l->shape, i, shape);
        if (st != NT_OK) break;
        if (strcmp(nt_strbuf_cstr(&name), info.name) != 0 || shape[0] != info.n_row || shape[1] != info.n_col)
            st = NT_FAIL(NT_E_DATA, "%s: tensor %d is %s [%d, %d], expected %s [%d, %d]", path, i,
                         nt_strbuf_cstr(&name), shape[0], shape[1], info.name, info.n_row, info.n_col);
    }
    nt_strbuf_release(&name);
    return st;
}

/* Ends sha, which is of all numbers, and holds it against the file's word. */
static nt_status check_digest(struct loaded *l, const char *path, struct nt_sha256 *sha, nt_status st) {
    uint8_t digest[NT_SHA256_BYTES];
    char hex[NT_SHA256_HEX], want[NT_SHA256_HEX];
    if (sha) nt_sha256_finish(sha, digest);
    NT_TRY(st);
    NT_TRY(nt_h5_read_attr(l->file, "/", "numbers_sha256", want, sizeof want));
    nt_hex(digest, sizeof digest, hex);
    return same_text(path, "the SHA-256 of its numbers", want, hex);
}

/* All numbers once, against their digest; with set they become the run's. */
static nt_status read_numbers(struct loaded *l, struct nt_training *t, const char *path, bool set) {
    float *buf = malloc((size_t)largest(t) * sizeof *buf);
    struct nt_sha256 *sha = NULL;
    nt_status st = buf ? nt_sha256_new(&sha) : NT_FAIL(NT_E_NOMEM, "%s: no memory for a tensor", path);
    for (int a = 0; a < N_ARRAYS; a++) {
        int64_t at = 0;
        for (int32_t i = 0; i < nt_training_tensors(t) && st == NT_OK; i++) {
            struct nt_training_tensor info;
            nt_training_tensor(t, i, &info);
            const int64_t n = (int64_t)info.n_row * info.n_col;
            st = nt_h5_read(l->numbers[a], at, n, buf);
            if (st != NT_OK) break;
            at += n;
            nt_sha256_add(sha, buf, (size_t)n * sizeof *buf);
            if (set) st = nt_training_set(t, i, arrays[a], buf);
        }
    }
    free(buf);
    return check_digest(l, path, sha, st);
}

/* count: of the numbers in each array, -1: any. */
static nt_status open_arrays(struct loaded *l, int64_t n, int64_t count) {
    NT_TRY(nt_h5_text(l->file, "/names", NT_H5_U8, n, &l->names));
    NT_TRY(nt_h5_array(l->file, "/shape", NT_H5_I32, 2, l->names.n, &l->shape));
    NT_TRY(nt_h5_array(l->file, "/state", NT_H5_I64, COUNTS, 1, &l->state));
    for (int a = 0; a < N_ARRAYS; a++)
        NT_TRY(nt_h5_array(l->file, array_names[a], NT_H5_F32, 0, count, &l->numbers[a]));
    return NT_OK;
}

static nt_status read_state(struct loaded *l, const char *path, struct nt_train_state *s) {
    int64_t row[COUNTS];
    char means[128], losses[LOSSES_TEXT], rest;
    NT_TRY(nt_h5_get(l->state, 0, row));
    NT_TRY(nt_h5_read_attr(l->file, "/", "means", means, sizeof means));
    NT_TRY(nt_h5_read_attr(l->file, "/", "losses", losses, sizeof losses));
    *s = (struct nt_train_state){
        .step = row[0], .cursor = row[1], .n_tokens = row[2], .n_skipped = row[3], .n_loss = row[4]};
    bool good = s->n_skipped <= s->step && s->n_loss <= s->step && s->n_loss <= NT_TRAIN_RECENT;
    for (int i = 0; i < COUNTS; i++) good = good && row[i] >= 0;
    good = good && sscanf(means, "%la %la%c", &s->norm_mean, &s->eval_first, &rest) == 2;
    good = good && s->norm_mean >= 0 && isfinite(s->norm_mean) && scan_losses(losses, s);
    return good ? NT_OK : NT_FAIL(NT_E_DATA, "%s: a count or mean of its state is out of range or no number", path);
}

static nt_status read_file(struct loaded *l, const struct nt_checkpoint_job *j, const char *path,
                           struct nt_train_state *s, bool set) {
    const int32_t n = nt_training_tensors(j->training);
    const int64_t count = nt_training_count(j->training);
    NT_TRY(nt_h5_open(&l->file, path));
    NT_TRY(check_job(j, l, path));
    NT_TRY(open_arrays(l, n, count));
    NT_TRY(check_table(l, j->training, path));
    NT_TRY(read_state(l, path, s));
    return read_numbers(l, j->training, path, set);
}

static nt_status try_file(const struct nt_checkpoint_job *j, int64_t step, struct nt_train_state *s, bool set,
                          bool *other_job) {
    char path[PATH_MAX];
    struct loaded l = {0};
    NT_TRY(nt_checkpoint_path(path, sizeof path, j->dir, step));
    nt_status st = read_file(&l, j, path, s, set);
    if (st == NT_OK && s->step != step)
        st = NT_FAIL(NT_E_DATA, "%s: is of step %" PRId64 " by its state", path, s->step);
    nt_h5_close(l.file);
    *other_job = l.other_job;
    return st;
}

/* Rank 0: the newest whole checkpoint, -1: none. Damage is passed over with a warning; another job's is an error. */
static nt_status choose(const struct nt_checkpoint_job *j, int64_t *step) {
    int64_t *steps, n;
    NT_TRY(nt_checkpoint_list(j->dir, &steps, &n));
    nt_status st = NT_OK;
    bool other_job = false;
    *step = -1;
    for (int64_t i = 0; i < n && *step < 0; i++) {
        struct nt_train_state s;
        st = try_file(j, steps[i], &s, false, &other_job);
        if (st == NT_OK) *step = steps[i];
        if (other_job || (st != NT_E_DATA && st != NT_E_IO)) break;
        nt_warn("train", "passing over a damaged checkpoint: %s", nt_error_last()->text);
        if (i + 1 < n) nt_error_clear();
    }
    free(steps);
    if (st == NT_OK || n == 0) return NT_OK;
    if (other_job || (st != NT_E_DATA && st != NT_E_IO)) return st;
    return NT_FAIL(NT_E_DATA,
                   "%s/" FOLDER ": none of %lld checkpoints is whole; restore one, or start over with --fresh", j->dir,
                   (long long)n);
}

nt_status nt_checkpoint_load(const struct nt_checkpoint_job *j, struct nt_train_state *state, bool *found) {
    struct nt_comm *world = j->world->world;
    int64_t step = -1;
    NT_TRY(nt_comm_agree(world, j->world->rank == 0 ? choose(j, &step) : NT_OK));
    NT_TRY(nt_comm_broadcast(world, &step, sizeof step, 0));
    *found = step >= 0;
    bool other_job;
    return *found ? nt_comm_agree(world, try_file(j, step, state, true, &other_job)) : NT_OK;
}

/* ---- for people ------------------------------------------------------------------------------------------------ */

nt_status nt_checkpoint_detect(const char *path, bool *is) {
    struct nt_h5_file *f = NULL;
    char text[NT_SHA256_HEX] = "";
    NT_TRY(nt_h5_open(&f, path));
    *is = nt_h5_read_attr(f, "/", "encoding-type", text, sizeof text) == NT_OK && strcmp(text, KIND) == 0;
    nt_error_clear(); // another file's own reader says what it misses
    nt_h5_close(f);
    return NT_OK;
}

static nt_status sum_table(struct loaded *l, const char *path, struct nt_checkpoint_facts *out) {
    struct nt_strbuf name = NT_STRBUF_INIT;
    nt_status st = NT_OK;
    out->n_tensors = l->names.n;
    for (int64_t i = 0; i < l->names.n && st == NT_OK; i++) {
        int32_t shape[2];
        name.len = 0;
        st = nt_h5_text_get(&l->names, i, &name);
        if (st == NT_OK) st = nt_h5_get(l->shape, i, shape);
        if (st != NT_OK) break;
        const int64_t n = (int64_t)shape[0] * shape[1], left = nt_h5_rows(l->numbers[0]) - out->n_numbers;
        if (shape[0] < 1 || shape[1] < 1 || n > left)
            st = NT_FAIL(NT_E_DATA, "%s: tensor %" PRId64 " is [%d, %d], but %" PRId64 " numbers are left", path, i,
                         shape[0], shape[1], left);
        else
            out->n_numbers += n;
        if (strstr(nt_strbuf_cstr(&name), ".lora_A.")) out->rank = shape[0];
    }
    nt_strbuf_release(&name);
    return st;
}

static nt_status hash_numbers(struct loaded *l, const char *path) {
    enum { BLOCK = 1 << 16 };
    struct nt_sha256 *sha = NULL;
    float *buf = malloc(BLOCK * sizeof *buf);
    nt_status st = buf ? nt_sha256_new(&sha) : NT_FAIL(NT_E_NOMEM, "%s: no memory for its numbers", path);
    for (int a = 0; a < N_ARRAYS; a++) {
        const int64_t rows = nt_h5_rows(l->numbers[a]);
        for (int64_t at = 0; at < rows && st == NT_OK; at += BLOCK) {
            const int64_t n = rows - at < BLOCK ? rows - at : BLOCK;
            st = nt_h5_read(l->numbers[a], at, n, buf);
            if (st == NT_OK) nt_sha256_add(sha, buf, (size_t)n * sizeof *buf);
        }
    }
    free(buf);
    return check_digest(l, path, sha, st);
}

static nt_status describe(struct loaded *l, const char *path, struct nt_checkpoint_facts *out) {
    NT_TRY(nt_h5_open(&l->file, path));
    NT_TRY(check_kind(l->file, path));
    NT_TRY(open_arrays(l, -1, -1));
    NT_TRY(sum_table(l, path, out));
    for (int a = 0; a < N_ARRAYS; a++)
        if (nt_h5_rows(l->numbers[a]) != out->n_numbers)
            return NT_FAIL(NT_E_DATA, "%s: %s has %" PRId64 " numbers, expected %" PRId64 " of its tensors", path,
                           array_names[a], nt_h5_rows(l->numbers[a]), out->n_numbers);
    NT_TRY(read_state(l, path, &out->state));
    NT_TRY(nt_h5_read_attr(l->file, "/", "job", out->job, sizeof out->job));
    NT_TRY(nt_h5_read_attr(l->file, "/", "numbers_sha256", out->numbers, sizeof out->numbers));
    return hash_numbers(l, path);
}

nt_status nt_checkpoint_describe(const char *path, struct nt_checkpoint_facts *out) {
    struct loaded l = {0};
    *out = (struct nt_checkpoint_facts){0};
    const nt_status st = describe(&l, path, out);
    nt_h5_close(l.file);
    return st;
}
