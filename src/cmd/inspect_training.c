#include "inspect_training.h"

#include "adapter_io.h"
#include "checkpoint.h"
#include "cmd.h"
#include "json.h"
#include "safetensors.h"
#include "strbuf.h"
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char ours[] = "nocturne."; // keys of the provenance

void nt_inspect_dtypes(const struct nt_tensor_source *src) {
    struct {
        const char *name;
        int64_t n, bytes;
    } kinds[64];
    int n_kinds = 0;
    for (int64_t i = 0; i < src->n_tensors; i++) {
        const char *name = nt_wdtype_info(src->tensors[i].dtype)->name;
        int k = 0;
        while (k < n_kinds && strcmp(kinds[k].name, name) != 0) k++;
        if (k == n_kinds && n_kinds < 64) kinds[n_kinds++].name = name, kinds[k].n = kinds[k].bytes = 0;
        kinds[k].n++;
        kinds[k].bytes += src->tensors[i].n_bytes;
    }
    for (int k = 0; k < n_kinds; k++)
        nt_print("tensors        %lld %s, %.1f MiB", (long long)kinds[k].n, kinds[k].name,
                 (double)kinds[k].bytes / 1048576.0);
}

/* ---- adapters ---------------------------------------------------------------------------------------------------- */

/* What the names and shapes of an adapter's tensors say. */
struct survey {
    struct nt_strbuf modules; // "q_proj, v_proj"
    int64_t n_params, n_strangers;
    int64_t rank; // of the matrices A; -1: they differ; 0: there are none
    bool layer[NT_MAX_LAYERS];
};

/* The module "q_proj" of "...layers.3.self_attn.q_proj.lora_A.weight", "attn_q" of "blk.3.attn_q.weight.lora_a". */
static const char *module_of(const char *name, size_t *len, char *part) {
    static const char mark[] = ".lora_", weight[] = ".weight";
    const char *end = strstr(name, mark);
    if (!end) return NULL;
    *part = end[sizeof mark - 1];
    if ((size_t)(end - name) > sizeof weight && memcmp(end - (sizeof weight - 1), weight, sizeof weight - 1) == 0)
        end -= sizeof weight - 1;
    const char *start = end;
    while (start > name && start[-1] != '.') start--;
    *len = (size_t)(end - start);
    return *len > 0 ? start : NULL;
}

static void note_layer(struct survey *s, const char *name) {
    static const char *const before[] = {".layers.", "blk."};
    for (size_t i = 0; i < sizeof before / sizeof *before; i++) {
        const char *at = strstr(name, before[i]);
        const long layer = at ? strtol(at + strlen(before[i]), NULL, 10) : -1;
        if (layer >= 0 && layer < NT_MAX_LAYERS) s->layer[layer] = true;
    }
}

static void note_module(struct survey *s, const char *module, size_t len) {
    const char *list = nt_strbuf_cstr(&s->modules);
    for (const char *at = list; *at;) { // entries are separated by ", "
        const size_t n = strcspn(at, ",");
        if (n == len && memcmp(at, module, len) == 0) return;
        at += n + strspn(at + n, ", ");
    }
    nt_strbuf_addf(&s->modules, "%s%.*s", s->modules.len ? ", " : "", (int)len, module);
}

static void survey(const struct nt_tensor_source *src, struct survey *s) {
    for (int64_t i = 0; i < src->n_tensors; i++) {
        const struct nt_tensor_info *t = &src->tensors[i];
        size_t len;
        char part = 0;
        const char *module = module_of(t->name, &len, &part);
        if (!module || t->n_dims != 2) {
            s->n_strangers++;
            continue;
        }
        s->n_params += t->shape[0] * t->shape[1];
        note_module(s, module, len);
        note_layer(s, t->name);
        if (part == 'A' || part == 'a') s->rank = s->rank == 0 || s->rank == t->shape[0] ? t->shape[0] : -1;
    }
}

static void print_survey(const struct nt_tensor_source *src, const struct survey *s) {
    int n_layer = 0;
    for (int i = 0; i < NT_MAX_LAYERS; i++) n_layer += s->layer[i];
    nt_inspect_dtypes(src);
    nt_print("layers         %d with adapters", n_layer);
    nt_print("modules        %s", s->modules.len ? nt_strbuf_cstr(&s->modules) : "none");
    nt_print("parameters     %" PRId64, s->n_params);
    if (s->n_strangers > 0) nt_print("others         %" PRId64 " tensors that are no LoRA matrices", s->n_strangers);
}

/* "nocturne.base_sha256" as "base sha256". */
static void print_provenance(const char *key, const char *value, size_t len) {
    char name[64];
    if (strncmp(key, ours, sizeof ours - 1) != 0) return;
    (void)snprintf(name, sizeof name, "%s", key + sizeof ours - 1);
    for (char *c = name; *c; c++)
        if (*c == '_') *c = ' ';
    nt_print("%-16s %.*s", name, (int)len, value);
}

static nt_status print_metadata(const char *path) {
    struct nt_json *header = NULL;
    NT_TRY(nt_safetensors_read_header(path, &header));
    const struct nt_json *meta = nt_json_get(header, "__metadata__");
    for (void *it = nt_json_first(meta); it; it = nt_json_next(meta, it)) {
        const char *key = nt_json_key(it);
        size_t len = 0;
        const char *value = nt_json_str(nt_json_get(meta, key), &len);
        if (value) print_provenance(key, value, len);
    }
    nt_json_free(header);
    return NT_OK;
}

nt_status nt_inspect_adapter(const char *dir) {
    struct nt_adapter_facts f;
    struct nt_tensor_source *src = NULL;
    struct survey s = {0};
    NT_TRY(nt_adapter_open(dir, &f, &src));
    survey(src, &s);
    nt_status st = NT_OK;
    if (s.rank != f.r)
        st =
            NT_FAIL(NT_E_DATA, "%s: adapter_config.json says rank %d, the tensors of adapter_model.safetensors have %s",
                    dir, f.r, s.rank == 0 ? "no lora_A" : "another");
    if (st == NT_OK) {
        nt_print("adapter        %s (PEFT)", dir);
        nt_print("base           %s", f.base[0] ? f.base : "unknown");
        nt_print("rank           %d, alpha %g, scale %.9g", f.r, f.alpha, f.scale);
        nt_print("dropout        %g", f.dropout);
        print_survey(src, &s);
        st = print_metadata(src->files[0].path);
    }
    nt_strbuf_release(&s.modules);
    nt_tensor_source_close(src);
    return st;
}

nt_status nt_inspect_adapter_gguf(const struct nt_tensor_source *src) {
    struct survey s = {0};
    size_t n_arch = 0, n_base = 0;
    const char *arch = nt_gguf_str(src->gguf, "general.architecture", &n_arch);
    const char *base = nt_gguf_str(src->gguf, "general.base_model.0.name", &n_base);
    const double alpha = nt_gguf_f64(src->gguf, "adapter.lora.alpha", NAN);
    survey(src, &s);
    nt_print("adapter        %s (GGUF, for llama.cpp; --adapter takes the PEFT directory)", src->path);
    nt_print("family         %.*s", arch ? (int)n_arch : 7, arch ? arch : "unknown");
    nt_print("base           %.*s", base ? (int)n_base : 7, base ? base : "unknown");
    if (s.rank > 0)
        nt_print("rank           %" PRId64 ", alpha %g, scale %.9g", s.rank, alpha, alpha / (double)s.rank);
    else
        nt_print("rank           %s, alpha %g", s.rank < 0 ? "of its matrices differs" : "unknown", alpha);
    print_survey(src, &s);
    for (int64_t i = 0; i < nt_gguf_n_kv(src->gguf); i++) {
        size_t len = 0;
        const char *key = nt_gguf_key_at(src->gguf, i), *value = nt_gguf_str(src->gguf, key, &len);
        if (value) print_provenance(key, value, len);
    }
    nt_strbuf_release(&s.modules);
    return NT_OK;
}

/* ---- checkpoints ------------------------------------------------------------------------------------------------- */

nt_status nt_inspect_checkpoint(const char *path) {
    struct nt_checkpoint_facts f;
    NT_TRY(nt_checkpoint_describe(path, &f));
    const struct nt_train_state *s = &f.state;
    nt_print("checkpoint     %s (whole)", path);
    nt_print("step           %" PRId64 ", %" PRId64 " left out", s->step, s->n_skipped);
    nt_print("cursor         %" PRId64 " samples, %" PRId64 " tokens", s->cursor, s->n_tokens);
    if (f.rank > 0)
        nt_print("trains         an adapter of rank %d", f.rank);
    else
        nt_print("trains         all weights");
    nt_print("tensors        %" PRId64 ", %" PRId64 " numbers and AdamW's two moments, for any dp x tp", f.n_tensors,
             f.n_numbers);
    if (s->n_loss > 0)
        nt_print("loss           %.4f, mean of the last %" PRId64 " steps", nt_train_state_loss(s), s->n_loss);
    if (!isnan(s->eval_first)) nt_print("held-out loss  %.4f before the first step", s->eval_first);
    nt_print("gradient norm  %.4g, running mean", s->norm_mean);
    nt_print("job sha256     %s", f.job);
    nt_print("numbers sha256 %s", f.numbers);
    return NT_OK;
}

/* A damaged one is no error here: the others are what a run goes on from. */
static void print_one(const char *path) {
    struct nt_checkpoint_facts f;
    if (nt_checkpoint_describe(path, &f) == NT_OK) {
        nt_print("checkpoint     %s: %" PRId64 " steps, %" PRId64 " samples, loss %.4f, whole", path, f.state.step,
                 f.state.cursor, nt_train_state_loss(&f.state));
        return;
    }
    nt_print("checkpoint     %s: damaged: %s", path, nt_error_last()->text);
    nt_error_clear();
}

nt_status nt_inspect_checkpoints(const char *dir, int64_t *n) {
    int64_t *steps;
    NT_TRY(nt_checkpoint_list(dir, &steps, n));
    nt_status st = NT_OK;
    for (int64_t i = 0; i < *n && st == NT_OK; i++) {
        char path[PATH_MAX];
        st = nt_checkpoint_path(path, sizeof path, dir, steps[i]);
        if (st == NT_OK) print_one(path);
    }
    free(steps);
    return st;
}
