#include "reference.h"
#include "fileio.h"
#include "hash.h"
#include "hdf5file.h"
#include "log.h"
#include "outdir.h"
#include "stop.h"
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    CHUNK = 256, /* examples that are packed together */
    SAVES = 8 /* what is kept in between is written anew whenever it has grown by this part, and by a chunk at least */
};
#define KIND      "nocturne-reference"
#define BY_CORPUS ".reference-"

/* IN_PART: rows from the first on, of a run that was stopped or killed. */
enum place { IN_CORPUS, IN_RUN, IN_PART };

/* ---- the file -------------------------------------------------------------------------------------------------- */

static int64_t n_rows(const struct nt_reference_job *j) {
    return j->order ? j->n_samples : j->set->n;
}

/* "bf16", "int4", "int4 tp2": integers have a scale per group, and each shard's groups begin anew. */
static void name_weights(const struct nt_reference_job *j, char *name, size_t cap) {
    const char *type = strcmp(j->weights, "auto") == 0 ? "bf16" : j->weights;
    const bool whole = j->world->tp_size == 1 || strcmp(type, "bf16") == 0;
    if (whole)
        (void)snprintf(name, cap, "%s", type);
    else
        (void)snprintf(name, cap, "%s tp%d", type, j->world->tp_size);
}

static void key_of(const struct nt_reference_job *j, char hex[NT_SHA256_HEX]) {
    struct {
        uint8_t model[NT_SHA256_BYTES], set[NT_SHA256_BYTES];
        char weights[16];
        uint64_t pairs[3];
    } all = {0};
    uint8_t digest[NT_SHA256_BYTES];
    memcpy(all.model, j->model, sizeof all.model);
    memcpy(all.set, j->set->digest, sizeof all.set);
    name_weights(j, all.weights, sizeof all.weights);
    if (j->order) {
        all.pairs[0] = j->order->seed;
        all.pairs[1] = (uint64_t)j->batch;
        all.pairs[2] = (uint64_t)j->n_samples;
    }
    nt_sha256(&all, sizeof all, digest);
    nt_hex(digest, sizeof digest, hex);
}

/* What runs left that were killed while they saved: of any set, since its own may never be asked for again. */
static void remove_dead(const struct nt_reference_job *j) {
    char prefix[PATH_MAX];
    const int n = snprintf(prefix, sizeof prefix, "%s" BY_CORPUS, j->corpus);
    if (n > 0 && (size_t)n < sizeof prefix) nt_outdir_remove_dead(prefix);
}

/* Without the ending of a corpus, so that no pattern for those takes it as one. */
static nt_status path_of(const struct nt_reference_job *j, enum place place, char *buf, size_t cap) {
    enum { KEY_DIGITS = 16 };
    char name[64], key[NT_SHA256_HEX];
    if (place == IN_CORPUS) {
        key_of(j, key);
        const int n = snprintf(buf, cap, "%s" BY_CORPUS "%.*s", j->corpus, KEY_DIGITS, key);
        return n >= 0 && (size_t)n < cap ? NT_OK : NT_FAIL(NT_E_USAGE, "%s: the path is too long", j->corpus);
    }
    snprintf(name, sizeof name, "reference-%s%s.h5", j->name, place == IN_PART ? ".part" : "");
    return nt_path_join(buf, cap, j->dir, name);
}

static void digest_of(const float *logp, int64_t n, char hex[NT_SHA256_HEX]) {
    uint8_t digest[NT_SHA256_BYTES];
    nt_sha256(logp, (size_t)(n * NT_MAX_MEMBERS) * sizeof *logp, digest);
    nt_hex(digest, sizeof digest, hex);
}

/* NT_E_CONFIG: whole, but of something else. *n: rows wanted, and found: all but of a part. */
static nt_status read_file(struct nt_h5_file *f, const char *path, const char *key, bool part, int64_t *n,
                           float *logp) {
    char text[NT_SHA256_HEX], made[NT_SHA256_HEX];
    struct nt_h5_array *array;
    NT_TRY(nt_h5_read_attr(f, "/", "encoding-type", text, sizeof text));
    if (strcmp(text, KIND) != 0) return NT_FAIL(NT_E_DATA, "%s: encoding-type %s, expected " KIND, path, text);
    NT_TRY(nt_h5_read_attr(f, "/", "key", text, sizeof text));
    if (strcmp(text, key) != 0) return NT_FAIL(NT_E_CONFIG, "%s: of another reference, model or set", path);
    NT_TRY(nt_h5_array(f, "/logp", NT_H5_F32, NT_MAX_MEMBERS, part ? -1 : *n, &array));
    if (nt_h5_rows(array) > *n)
        return NT_FAIL(NT_E_DATA, "%s: %lld rows, expected at most %lld", path, (long long)nt_h5_rows(array),
                       (long long)*n);
    *n = nt_h5_rows(array);
    NT_TRY(nt_h5_read(array, 0, *n, logp));
    NT_TRY(nt_h5_read_attr(f, "/", "numbers_sha256", text, sizeof text));
    digest_of(logp, *n, made);
    return strcmp(text, made) == 0 ? NT_OK : NT_FAIL(NT_E_DATA, "%s: /logp is not what was written there", path);
}

/* Rank 0: rows whose sums were there. */
static int64_t load(const struct nt_reference_job *j, enum place place, float *logp) {
    char path[PATH_MAX], key[NT_SHA256_HEX];
    struct nt_h5_file *f = NULL;
    int64_t n = n_rows(j);
    if (path_of(j, place, path, sizeof path) != NT_OK || !nt_file_exists(path)) return 0;
    key_of(j, key);
    nt_status st = nt_h5_open(&f, path);
    if (st == NT_OK) st = read_file(f, path, key, place == IN_PART, &n, logp);
    nt_h5_close(f);
    if (st == NT_OK)
        nt_info("train", "the reference's log-probabilities of %lld rows are those of %s", (long long)n, path);
    if (st == NT_OK) return n;
    if (st != NT_E_CONFIG) nt_warn("train", "computed again: %s", nt_error_last()->text);
    nt_error_clear();
    return 0;
}

static void remove_part(const struct nt_reference_job *j) {
    char part[PATH_MAX];
    if (path_of(j, IN_PART, part, sizeof part) == NT_OK) (void)unlink(part);
}

static nt_status save_to(const struct nt_reference_job *j, enum place place, const float *logp, int64_t n) {
    char path[PATH_MAX], key[NT_SHA256_HEX], digest[NT_SHA256_HEX];
    struct nt_h5_writer *w = NULL;
    struct nt_h5_column *column;
    key_of(j, key);
    digest_of(logp, n, digest);
    NT_TRY(path_of(j, place, path, sizeof path));
    NT_TRY(nt_h5_create(&w, path));
    nt_status st = nt_h5_attr_str(w, "/", "encoding-type", KIND);
    if (st == NT_OK) st = nt_h5_attr_str(w, "/", "encoding-version", "1.0.0");
    if (st == NT_OK) st = nt_h5_attr_str(w, "/", "key", key);
    if (st == NT_OK) st = nt_h5_attr_str(w, "/", "numbers_sha256", digest);
    if (st == NT_OK) st = nt_h5_column(w, "/logp", NT_H5_F32, NT_MAX_MEMBERS, &column);
    if (st == NT_OK) st = nt_h5_append(column, logp, n);
    if (st == NT_OK) return nt_h5_publish(w);
    nt_h5_abandon(w);
    return st;
}

/* Beside the corpus, or where that cannot be written, in the run's directory. */
static nt_status save(const struct nt_reference_job *j, const float *logp) {
    if (j->corpus) {
        if (save_to(j, IN_CORPUS, logp, n_rows(j)) == NT_OK) return NT_OK;
        nt_warn("train", "the reference's log-probabilities are kept in %s alone: %s", j->dir, nt_error_last()->text);
        nt_error_clear();
    }
    return save_to(j, IN_RUN, logp, n_rows(j));
}

/* ---- the sums -------------------------------------------------------------------------------------------------- */

/* This rank's share of rows [first, first + n); rows [2 * n] is scratch. */
static nt_status compute_chunk(const struct nt_reference_job *j, struct nt_pack *pack, int64_t first, int32_t n,
                               int32_t *rows, struct nt_reference *out) {
    int32_t *other = j->order ? rows + n : NULL;
    for (int32_t i = 0; i < n && !j->order; i++) rows[i] = (int32_t)first + i;
    if (j->order) nt_order_take(j->order, first, n, rows);
    if (j->order) nt_order_mismatch(j->order, first, rows, n, other);
    const struct nt_pack_job share = {.set = j->set,
                                      .examples = rows,
                                      .other = other,
                                      .n_samples = n,
                                      .rank = j->world->dp_rank,
                                      .size = j->world->dp_size,
                                      .budget = j->budget,
                                      .packing = true,
                                      .part = j->order ? NT_PACK_MISMATCH : NT_PACK_TRAIN};
    NT_TRY(nt_pack_build(pack, &share));
    for (int32_t i = 0; i < pack->n_micros; i++) {
        if (j->beat) j->beat(j->beat_arg);
        NT_TRY(nt_run_reference(j->runner, &pack->micros[i], first, out));
    }
    return NT_OK;
}

/* Any rank may be told to stop; all do. */
static nt_status look_for_stop(const struct nt_reference_job *j, bool *stop) {
    int64_t level = nt_stop_level(j->deadline);
    NT_TRY(nt_comm_allreduce_max_i64(j->world->world, &level, 1));
    *stop = level > 0;
    return NT_OK;
}

/* Only a stop needs the part: else the sums are in memory, and a full disk may have room by the end. */
static nt_status keep_part(const struct nt_reference_job *j, int64_t done, bool stop, const float *logp) {
    const nt_status st = save_to(j, IN_PART, logp, done);
    if (st == NT_OK || stop) return st;
    nt_warn("train", "the reference's log-probabilities of %lld rows are in memory alone: %s", (long long)done,
            nt_error_last()->text);
    nt_error_clear();
    return NT_OK;
}

/* Rank 0: all of it, and the part that an earlier run left is not needed any more; or what there is. */
static nt_status keep(const struct nt_reference_job *j, int64_t done, bool stop, const float *logp) {
    for (int64_t i = 0; i < done * NT_MAX_MEMBERS; i++)
        if (!isfinite(logp[i]))
            return NT_FAIL(NT_E_DATA,
                           "the reference's log-probability of row %lld is %g: are there NaN or Inf among its weights?",
                           (long long)(i / NT_MAX_MEMBERS), (double)logp[i]);
    if (done < n_rows(j)) return keep_part(j, done, stop, logp);
    NT_TRY(save(j, logp));
    remove_part(j);
    return NT_OK;
}

/* All ranks get the sums of rows [first, done), each of which is one rank's so far and 0 elsewhere; rank 0 writes what
 * there is. */
static nt_status share(const struct nt_reference_job *j, int64_t first, int64_t done, bool stop,
                       struct nt_reference *out) {
    if (j->world->dp_size > 1)
        NT_TRY(
            nt_comm_allreduce_f32(j->world->dp, out->logp + first * NT_MAX_MEMBERS, (done - first) * NT_MAX_MEMBERS));
    return nt_comm_agree(j->world->world, j->world->rank == 0 ? keep(j, done, stop, out->logp) : NT_OK);
}

/* Rows [first, *done) until the end or a stop, written in between. */
static nt_status compute_rows(const struct nt_reference_job *j, int64_t first, int64_t *done, int32_t *rows,
                              struct nt_pack *pack, struct nt_reference *out) {
    const int64_t n = n_rows(j);
    const int32_t chunk = j->order ? j->batch : CHUNK;
    struct nt_progress progress;
    bool stop = false;
    nt_progress_begin(&progress, "reference rows", "row/s", first, n, j->log_interval_s);
    for (int64_t kept = first; *done < n && !stop;) {
        const int32_t part = n - *done < chunk ? (int32_t)(n - *done) : chunk;
        NT_TRY(compute_chunk(j, pack, *done, part, rows, out));
        *done += part;
        nt_progress_update(&progress, *done, (double)(*done - first), NULL);
        NT_TRY(look_for_stop(j, &stop));
        const int64_t grown = *done - kept;
        if (*done < n && !stop && (grown < CHUNK || grown < kept / SAVES)) continue;
        NT_TRY(share(j, kept, *done, stop, out));
        kept = *done;
    }
    nt_progress_end(&progress, *done, (double)(*done - first));
    return NT_OK;
}

static nt_status compute(const struct nt_reference_job *j, int64_t found, struct nt_reference *out) {
    const int32_t chunk = j->order ? j->batch : CHUNK;
    int32_t *rows = malloc(2 * (size_t)chunk * sizeof *rows);
    struct nt_pack pack = {0};
    int64_t done = found;
    nt_status st = rows ? NT_OK : NT_FAIL(NT_E_NOMEM, "no memory for a batch of %d samples", chunk);
    if (st == NT_OK) st = compute_rows(j, found, &done, rows, &pack, out);
    nt_pack_release(&pack);
    free(rows);
    if (st != NT_OK || done == n_rows(j)) return st;
    return NT_FAIL(NT_E_STOPPED, "stopped after the reference of %lld of %lld rows; the same command resumes",
                   (long long)done, (long long)n_rows(j));
}

nt_status nt_reference_get(const struct nt_reference_job *j, struct nt_reference *out) {
    struct nt_comm *world = j->world->world;
    const size_t n = (size_t)n_rows(j) * NT_MAX_MEMBERS;
    int64_t found = 0;
    out->logp = calloc(n ? n : 1, sizeof *out->logp);
    NT_TRY(nt_comm_agree(
        world,
        out->logp ? NT_OK : NT_FAIL(NT_E_NOMEM, "no memory for the reference of %lld rows", (long long)n_rows(j))));
    out->of_samples = j->order != NULL;
    if (n == 0) return NT_OK;
    if (j->world->rank == 0 && j->corpus) remove_dead(j);
    for (enum place p = j->corpus ? IN_CORPUS : IN_RUN; p <= IN_PART && j->world->rank == 0 && found == 0; p++)
        found = load(j, p, out->logp);
    NT_TRY(nt_comm_broadcast(world, &found, sizeof found, 0));
    const size_t known = (size_t)found * NT_MAX_MEMBERS;
    memset(out->logp + known, 0, (n - known) * sizeof *out->logp);
    if (found > 0) NT_TRY(nt_comm_broadcast(world, out->logp, known * sizeof *out->logp, 0));
    if (found == n_rows(j)) { // killed before it removed it
        if (j->world->rank == 0) remove_part(j);
        return NT_OK;
    }
    nt_info("train", "the reference's log-probabilities of %lld rows (%s) are computed once",
            (long long)(n_rows(j) - found), j->name);
    return compute(j, found, out);
}

void nt_reference_release(struct nt_reference *r) {
    free(r->logp);
    *r = (struct nt_reference){0};
}
