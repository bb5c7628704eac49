#include "finetune_model.h"
#include "hf_files.h"
#include "outdir.h"
#include "safetensors_write.h"
#include "spec_bind.h"
#include "spec_read.h"
#include "tensor_source.h"
#include <math.h>
#include <stdlib.h>

struct writing { /* world rank 0 */
    struct nt_outdir out;
    struct nt_tensor_writer *writer;
    struct nt_training_tensor *infos; // [n] they own the names
    struct nt_tensor_entry *entries;  // [n]
};

static nt_status write_beside(const char *base, const char *dir) {
    struct nt_tensor_source *src = NULL;
    struct nt_binding binding = {0};
    struct nt_spec spec;
    bool no_tokenizer; /* warned of where it is found */
    nt_status st = nt_tensor_source_open(base, &src);
    if (st == NT_OK) st = nt_spec_read(src, &spec);
    if (st == NT_OK) st = nt_spec_bind(src, &spec, &binding);
    if (st == NT_OK) st = nt_hf_files_write(src, &spec, &binding, dir, &no_tokenizer);
    nt_binding_release(&binding);
    nt_tensor_source_close(src);
    return st;
}

nt_status nt_finetune_model_try(struct nt_world *world, const char *base, const char *dir) {
    struct nt_outdir out = {0};
    nt_status st = NT_OK;
    if (world->rank == 0) st = nt_outdir_open(&out, dir, NT_PUBLISH_REPLACE);
    if (world->rank == 0 && st == NT_OK) st = write_beside(base, out.temp);
    if (world->rank == 0) nt_outdir_abandon(&out);
    return nt_comm_agree(world->world, st);
}

static nt_status begin(struct writing *w, const struct nt_training *t, const char *base, const char *dir) {
    const int32_t n = nt_training_tensors(t);
    char path[PATH_MAX];
    w->infos = calloc((size_t)n, sizeof *w->infos);
    w->entries = calloc((size_t)n, sizeof *w->entries);
    if (!w->infos || !w->entries) return NT_FAIL(NT_E_NOMEM, "%s: no memory for its tensor table", dir);
    for (int32_t i = 0; i < n; i++) {
        struct nt_training_tensor *info = &w->infos[i];
        nt_training_tensor(t, i, info);
        w->entries[i] = (struct nt_tensor_entry){.name = info->name, .dtype = NT_WDTYPE_BF16, .n_dims = 2};
        w->entries[i].shape[0] = info->n_row;
        w->entries[i].shape[1] = info->n_col;
        if (!info->vector) continue;
        w->entries[i].n_dims = 1;
        w->entries[i].shape[0] = (int64_t)info->n_row * info->n_col;
    }
    NT_TRY(nt_outdir_open(&w->out, dir, NT_PUBLISH_REPLACE));
    NT_TRY(write_beside(base, w->out.temp));
    NT_TRY(nt_path_join(path, sizeof path, w->out.temp, "model.safetensors"));
    return nt_safetensors_create(path, w->entries, n, NULL, 0, &w->writer);
}

static nt_status check_finite(const struct nt_training_tensor *info, const float *data, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(data[i]))
            return NT_FAIL(NT_E_DATA, "tensor %s: trained weight %lld is not finite", info->name, (long long)i);
    return NT_OK;
}

/* One tensor: from all ranks into the file; an error of the file is kept until all have given their parts. */
static nt_status pass(struct writing *w, const struct nt_training *t, int32_t i, float *data, nt_status mine) {
    struct nt_training_tensor info;
    nt_training_tensor(t, i, &info);
    const int64_t n = (int64_t)info.n_row * info.n_col;
    NT_TRY(nt_training_get(t, i, NT_TRAINING_W, data));
    if (!w->writer || mine != NT_OK) return mine;
    NT_TRY(check_finite(&info, data, n));
    return nt_tensor_writer_append_f32(w->writer, data, n);
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

nt_status nt_finetune_model_write(const struct nt_training *t, struct nt_world *world, const char *base,
                                  const char *dir) {
    struct writing w = {0};
    float *data = malloc((size_t)largest(t) * sizeof *data);
    nt_status st = data ? NT_OK : NT_FAIL(NT_E_NOMEM, "%s: no memory for a tensor", dir);
    if (st == NT_OK && world->rank == 0) st = begin(&w, t, base, dir);
    st = nt_comm_agree(world->world, st);
    if (st == NT_OK && world->dp_rank == 0)
        for (int32_t i = 0; i < nt_training_tensors(t); i++) st = pass(&w, t, i, data, st);
    if (w.writer && st == NT_OK)
        st = nt_tensor_writer_finish(w.writer);
    else
        nt_tensor_writer_abandon(w.writer);
    if (world->rank == 0 && st == NT_OK) st = nt_outdir_publish(&w.out);
    if (world->rank == 0) nt_outdir_abandon(&w.out);
    free(w.entries);
    free(w.infos);
    free(data);
    return nt_comm_agree(world->world, st);
}
