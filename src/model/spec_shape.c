#include "spec_shape.h"
#include "config.h"
#include "fileio.h"
#include "spec_hf.h"
#include "spec_read.h"
#include "tensor_source.h"
#include <limits.h>
#include <stdio.h>
#include <string.h>

/* ---- well-known sizes ---- */

static const struct shape {
    const char *name, *family;
    int32_t n_layer, d_model, d_ff, n_head, n_kv, d_head, n_vocab, max_len;
    double theta;
    bool tied;
} shapes[] = {
    {"smollm2-135m", "llama", 30, 576,  1536,  9,  3, 64,  49152,  8192,   1e5, true },
    {"llama3-8b",    "llama", 32, 4096, 14336, 32, 8, 128, 128256, 131072, 5e5, false}, /* as 3.1 */
    {"llama3-70b",   "llama", 80, 8192, 28672, 64, 8, 128, 128256, 131072, 5e5, false},
};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

const char *nt_spec_shape_list(char *buf, size_t cap) {
    size_t at = 0;
    buf[0] = 0;
    for (int i = 0; i < N_SHAPES && at < cap; i++)
        at += (size_t)snprintf(buf + at, cap - at, "%s%s", i ? ", " : "", shapes[i].name);
    return buf;
}

static void fill(const struct shape *s, struct nt_spec *spec) {
    *spec = (struct nt_spec){.n_layer = s->n_layer,
                             .d_model = s->d_model,
                             .d_ff = s->d_ff,
                             .n_head = s->n_head,
                             .n_kv = s->n_kv,
                             .d_head = s->d_head,
                             .n_vocab = s->n_vocab,
                             .max_len = s->max_len,
                             .norm_eps = 1e-5f,
                             .tied = s->tied,
                             .rope = {.theta = s->theta},
                             .bos_id = -1};
    snprintf(spec->family, sizeof spec->family, "%s", s->family);
}

static nt_status by_name(const char *name, struct nt_spec *spec) {
    const char *names[N_SHAPES];
    for (int i = 0; i < N_SHAPES; i++) {
        names[i] = shapes[i].name;
        if (strcmp(name, names[i]) != 0) continue;
        fill(&shapes[i], spec);
        return nt_spec_check(name, spec);
    }
    char list[256];
    const char *near = nt_nearest(name, names, N_SHAPES);
    return NT_FAIL(NT_E_NOINPUT, "%s: no such file or directory, and no known model size%s%s%s; expected one of %s",
                   name, near ? " (maybe: " : "", near ? near : "", near ? "?)" : "",
                   nt_spec_shape_list(list, sizeof list));
}

/* ---- files ---- */

/* config.json of a directory without tensors. */
static nt_status by_config(char *dir, struct nt_spec *spec) {
    const struct nt_tensor_source bare = {.path = dir};
    return nt_spec_read(&bare, spec);
}

static nt_status by_source(const char *path, struct nt_spec *spec) {
    struct nt_tensor_source *src = NULL;
    NT_TRY(nt_tensor_source_open(path, &src));
    const nt_status st = nt_spec_read(src, spec);
    nt_tensor_source_close(src);
    return st;
}

/* *bare: there is a config.json, and no tensors beside it. */
static nt_status is_bare(const char *dir, bool *bare) {
    static const char *const names[] = {"config.json", "model.safetensors", "model.safetensors.index.json"};
    char path[PATH_MAX];
    bool has[3];
    for (int i = 0; i < 3; i++) {
        NT_TRY(nt_path_join(path, sizeof path, dir, names[i]));
        has[i] = nt_file_exists(path);
    }
    *bare = has[0] && !has[1] && !has[2];
    return NT_OK;
}

nt_status nt_spec_of(const char *model, struct nt_spec *spec) {
    char dir[PATH_MAX];
    if ((size_t)snprintf(dir, sizeof dir, "%s", model) >= sizeof dir)
        return NT_FAIL(NT_E_NOINPUT, "%.80s...: the path is too long", model);
    if (!nt_is_dir(model)) {
        if (!nt_file_exists(model)) return by_name(model, spec);
        char *base = strrchr(dir, '/');
        if (strcmp(base ? base + 1 : dir, "config.json") != 0) return by_source(model, spec);
        if (base)
            *base = 0;
        else
            snprintf(dir, sizeof dir, ".");
    }
    bool bare;
    NT_TRY(is_bare(dir, &bare));
    return bare ? by_config(dir, spec) : by_source(dir, spec);
}
