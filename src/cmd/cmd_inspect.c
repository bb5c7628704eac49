/* nocturne inspect PATH: what a model, an adapter, a checkpoint, an HDF5 file or a JSONL file holds, without loading
 * weights. */
#include "chat.h"
#include "checkpoint.h"
#include "cmd.h"
#include "dataset_file.h"
#include "fileio.h"
#include "inspect_dataset.h"
#include "inspect_training.h"
#include "reader.h"
#include "spec_bind.h"
#include "spec_read.h"
#include "tensor_source.h"
#include "tokload.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print_spec(const struct nt_spec *s) {
    static const char *const scaling[] = {[NT_ROPE_NONE] = "none",
                                          [NT_ROPE_LINEAR] = "linear",
                                          [NT_ROPE_LLAMA3] = "llama3",
                                          [NT_ROPE_YARN] = "yarn",
                                          [NT_ROPE_FREQ_FACTORS] = "frequency factors"};
    nt_print("family         %s", s->family);
    nt_print("layers         %d", s->n_layer);
    nt_print("d_model        %d", s->d_model);
    nt_print("d_ff           %d", s->d_ff);
    nt_print("heads          %d of %d, %d kv", s->n_head, s->d_head, s->n_kv);
    nt_print("vocabulary     %d%s", s->n_vocab, s->tied ? ", head tied to the embedding" : "");
    nt_print("longest        %d tokens", s->max_len);
    nt_print("rope           theta %g, scaling %s", s->rope.theta, scaling[s->rope.scaling]);
    nt_print("norm eps       %g", (double)s->norm_eps);
    if (s->window) nt_print("window         %d", s->window);
    nt_print("flags         %s%s%s%s%s", s->qkv_bias ? " qkv_bias" : "", s->o_bias ? " o_bias" : "",
             s->mlp_bias ? " mlp_bias" : "", s->qk_norm ? " qk_norm" : "",
             s->qkv_bias || s->o_bias || s->mlp_bias || s->qk_norm ? "" : " none");
}

static nt_status print_text(const char *path) {
    struct nt_tok_bundle b = {0};
    struct nt_strbuf line = NT_STRBUF_INIT;
    NT_TRY(nt_tokenizer_load(path, &b));
    int64_t n;
    const int32_t *stops = nt_tokenizer_stops(b.tok, &n);
    nt_strbuf_addf(&line, "tokenizer      %s, %d tokens, stops", nt_tokenizer_describe(b.tok),
                   nt_tokenizer_n_vocab(b.tok));
    for (int64_t i = 0; i < n; i++) nt_strbuf_addf(&line, " %d", stops[i]);
    nt_print("%s", nt_strbuf_cstr(&line));
    nt_strbuf_release(&line);
    struct nt_chat chat;
    const nt_status st = nt_chat_open(&chat, "auto", b.chat_template, b.chat_template_len, b.tok, path);
    nt_print("chat           %s", st == NT_OK ? chat.name : nt_error_last()->text);
    nt_error_clear();
    nt_tok_bundle_release(&b);
    return NT_OK;
}

static nt_status inspect_model(const char *path) {
    struct nt_tensor_source *src;
    struct nt_spec spec;
    struct nt_binding binding = {0};
    char hex[NT_SHA256_HEX];
    NT_TRY(nt_tensor_source_open(path, &src));
    if (src->gguf && nt_gguf_is_adapter(src->gguf)) {
        const nt_status said = nt_inspect_adapter_gguf(src);
        nt_tensor_source_close(src);
        return said;
    }
    nt_status st = nt_spec_read(src, &spec);
    if (st == NT_OK) st = nt_spec_bind(src, &spec, &binding);
    if (st == NT_OK) {
        nt_hex(src->digest, NT_SHA256_BYTES, hex);
        nt_print("model          %s (%s, %d files)", path, src->gguf ? "GGUF" : "safetensors", src->n_files);
        print_spec(&spec);
        nt_inspect_dtypes(src);
        nt_print("header sha256  %s", hex);
        st = print_text(path);
    }
    nt_binding_release(&binding);
    nt_tensor_source_close(src);
    return st;
}

static nt_status inspect_rows(const char *path) {
    int64_t n_rows;
    bool training = false, checkpoint = false;
    uint8_t digest[32];
    char hex[NT_SHA256_HEX];
    if (nt_h5_is_file(path)) NT_TRY(nt_checkpoint_detect(path, &checkpoint));
    if (checkpoint) return nt_inspect_checkpoint(path);
    if (nt_h5_is_file(path)) NT_TRY(nt_dsfile_detect(path, &training));
    if (training) return nt_inspect_dataset(path);
    NT_TRY(nt_reader_scan(path, &n_rows, digest));
    nt_hex(digest, NT_SHA256_BYTES, hex);
    nt_print("rows           %lld", (long long)n_rows);
    nt_print("sha256         %s", hex);
    return NT_OK;
}

static nt_status is_model(const char *path, bool *model) {
    *model = nt_is_dir(path);
    if (*model) return NT_OK;
    if (!nt_file_exists(path)) return NT_FAIL(NT_E_NOINPUT, "%s: no such file or directory", path);
    FILE *f = fopen(path, "re");
    char magic[4] = {0};
    if (f) {
        *model = fread(magic, 1, 4, f) == 4 && memcmp(magic, "GGUF", 4) == 0;
        fclose(f);
    }
    return NT_OK;
}

static nt_status has(const char *dir, const char *name, bool *yes) {
    char path[PATH_MAX];
    NT_TRY(nt_path_join(path, sizeof path, dir, name));
    *yes = nt_file_exists(path);
    return NT_OK;
}

/* Is path the folder "checkpoints" of a run? dir: the run's directory then, as the path has it if it can be told. */
static bool is_checkpoints(const char *path, char dir[PATH_MAX]) {
    static const char name[] = "/checkpoints";
    char real[PATH_MAX];
    if (!realpath(path, real)) return false;
    size_t len = strlen(real);
    const size_t tail = sizeof name - 1;
    if (len <= tail || strcmp(real + len - tail, name) != 0) return false;
    real[len - tail] = '\0';
    len = strlen(path);
    while (len > 1 && path[len - 1] == '/') len--;
    const bool plain = len > tail && memcmp(path + len - tail, name, tail) == 0;
    const int n =
        plain ? snprintf(dir, PATH_MAX, "%.*s", (int)(len - tail), path) : snprintf(dir, PATH_MAX, "%s", real);
    return n >= 0 && n < PATH_MAX;
}

/* A model, an adapter, or the directory of a run, which has several things to look at. */
static nt_status inspect_dir(const char *path) {
    bool adapter, checkpoints, answers, config;
    char dir[PATH_MAX];
    int64_t n = 0;
    NT_TRY(has(path, "adapter_config.json", &adapter));
    NT_TRY(has(path, "checkpoints", &checkpoints));
    NT_TRY(has(path, "run.json", &answers));
    NT_TRY(has(path, "config.json", &config));
    if (adapter) return nt_inspect_adapter(path);
    if (!config && is_checkpoints(path, dir)) {
        NT_TRY(nt_inspect_checkpoints(dir, &n));
        if (n > 0) return NT_OK;
        return NT_FAIL(NT_E_NOINPUT, "%s: no checkpoint of a training run (step-*.h5) in this folder", path);
    }
    if (answers)
        return NT_FAIL(NT_E_USAGE,
                       "%s is the output directory of a generate job: %s/run.json tells of it, and `nocturne export` "
                       "turns %s/results.h5 to JSONL",
                       path, path, path);
    if (!checkpoints) return inspect_model(path);
    return NT_FAIL(NT_E_USAGE,
                   "%s is the output directory of a training run; inspect one of the things in it: %s/adapter or "
                   "%s/model when it is complete, or a file of %s/checkpoints",
                   path, path, path, path);
}

nt_status nt_cmd_inspect(struct nt_cmd_context *ctx) {
    bool model;
    NT_TRY(is_model(ctx->args[0], &model));
    if (nt_is_dir(ctx->args[0])) return inspect_dir(ctx->args[0]);
    return model ? inspect_model(ctx->args[0]) : inspect_rows(ctx->args[0]);
}
