#include "manifest.h"

#include "clock.h"
#include "env.h"
#include "fileio.h"
#include "hash.h"
#include "json.h"
#include "log.h"

#include <stdlib.h>
#include <string.h>

/* Settings that can change an answer. */
static bool is_identity_key(const char *key) {
    static const char *const exact[] = {"generate.ignore_eos", "generate.created", "model.chat", "model.weight_dtype",
                                        "generate.kv_cache_dtype"};
    if (strncmp(key, "sampling.", 9) == 0) return true;
    for (size_t i = 0; i < sizeof exact / sizeof *exact; i++)
        if (strcmp(key, exact[i]) == 0) return true;
    return false;
}

static void add_hex(struct nt_strbuf *s, const char *key, const uint8_t digest[32]) {
    char hex[NT_SHA256_HEX];
    nt_hex(digest, NT_SHA256_BYTES, hex);
    nt_strbuf_addf(s, "\"%s\":\"%s\"", key, hex);
}

static void add_text(struct nt_strbuf *s, const char *key, const char *text) {
    nt_strbuf_addf(s, "\"%s\":", key);
    nt_strbuf_add_json(s, text, strlen(text));
}

static void add_num(struct nt_strbuf *s, const char *key, double v) {
    nt_strbuf_addf(s, "\"%s\":", key);
    nt_strbuf_add_json_num(s, v);
}

nt_status nt_job_digest(const struct nt_session *s, const uint8_t input_digest[32], uint8_t out[32]) {
    struct nt_strbuf all = NT_STRBUF_INIT, text = NT_STRBUF_INIT;
    struct nt_json *settings = NULL;
    nt_config_dump_json(s->config, &all);
    const nt_status st = nt_json_parse(nt_strbuf_cstr(&all), all.len, "settings", &settings);
    if (st == NT_OK) {
        add_hex(&text, "input", input_digest);
        add_hex(&text, "model", s->model_digest);
        add_hex(&text, "tokenizer", s->tokenizer_digest);
        add_text(&text, "chat", s->has_chat ? s->chat.name : "");
        nt_strbuf_addf(&text, "\"max_len\":%d", s->max_len);
        for (void *it = nt_json_first(settings); it; it = nt_json_next(settings, it)) {
            if (!is_identity_key(nt_json_key(it))) continue;
            nt_strbuf_addf(&text, ",\"%s\":", nt_json_key(it));
            nt_json_dump(nt_json_value(it), &text);
        }
        nt_sha256(nt_strbuf_cstr(&text), text.len, out);
    }
    nt_json_free(settings);
    nt_strbuf_release(&all);
    nt_strbuf_release(&text);
    return st;
}

/* The members job.json and run.json share, without braces. */
static void add_identity(struct nt_strbuf *s, const struct nt_generate_job *job, const uint8_t input_digest[32]) {
    const struct nt_session *session = job->session;
    const struct nt_world *w = session->world;
    add_hex(s, "job", job->job_digest);
    nt_strbuf_adds(s, ",\"program\":{\"name\":\"nocturne\",");
    add_text(s, "version", NT_VERSION);
    nt_strbuf_addc(s, ',');
    add_text(s, "commit", NT_COMMIT);
    nt_strbuf_adds(s, "},\"input\":{");
    add_text(s, "path", job->input);
    nt_strbuf_addc(s, ',');
    add_hex(s, "sha256", input_digest);
    nt_strbuf_addf(s, ",\"rows\":%lld},\"model\":{", (long long)job->n_rows);
    add_text(s, "path", session->config->model_path);
    nt_strbuf_addc(s, ',');
    add_text(s, "family", nt_model_spec(session->model)->family);
    nt_strbuf_addc(s, ',');
    add_hex(s, "sha256", session->model_digest);
    nt_strbuf_adds(s, "},\"tokenizer\":{");
    add_hex(s, "sha256", session->tokenizer_digest);
    nt_strbuf_addc(s, ',');
    add_text(s, "chat", session->has_chat ? session->chat.name : "");
    nt_strbuf_addc(s, ',');
    add_text(s, "chat_template_sha256", session->has_chat ? session->chat.template_sha256 : "");
    nt_strbuf_addf(s, "},\"world\":{\"size\":%d,\"tp\":%d,\"dp\":%d,\"threads\":%d,", w->size, w->tp_size, w->dp_size,
                   nt_pool_size(session->pool));
    add_text(s, "device", session->backend.name);
    nt_strbuf_addc(s, ',');
    add_text(s, "isa", session->backend.level);
    nt_strbuf_addc(s, ',');
    add_text(s, "gemm_library", session->config->run_gemm_library);
    nt_strbuf_addc(s, ',');
    add_text(s, "host", w->host);
    nt_strbuf_addc(s, ',');
    add_text(s, "slurm_job", nt_env_slurm_job_id() ? nt_env_slurm_job_id() : "");
    nt_strbuf_addf(s, ",\"slurm_restarts\":%d}", nt_env_slurm_restart_count());
}

static nt_status publish(const struct nt_generate_job *job, const char *name, const struct nt_strbuf *text) {
    char path[4096];
    NT_TRY(nt_path_join(path, sizeof path, job->dir, name));
    return nt_publish_bytes(path, nt_strbuf_cstr(text), text->len, NT_PUBLISH_REPLACE);
}

/* Bits of a row may differ between instruction sets: worth a warning when a job goes on elsewhere. */
static void compare_world(const struct nt_generate_job *job, const char *path) {
    struct nt_json *old = NULL;
    if (nt_json_parse_file(path, 1 << 20, &old) != NT_OK) {
        nt_error_clear();
        return;
    }
    const struct nt_json *world = nt_json_get(old, "world");
    const char *isa = nt_json_str(nt_json_get(world, "isa"), NULL);
    const int64_t tp = nt_json_int(nt_json_get(world, "tp"), job->session->world->tp_size);
    const char *now = job->session->backend.level;
    if (isa && strcmp(isa, now) != 0)
        nt_warn(
            "generate",
            "this job began on %s and goes on with %s: later rows may differ in the last bits (run.device, run.isa)",
            isa, now);
    const char *library = nt_json_str(nt_json_get(world, "gemm_library"), NULL),
               *own = job->session->config->run_gemm_library;
    if (library && strcmp(library, own) != 0)
        nt_warn("generate",
                "this job began with run.gemm_library = %s and goes on with %s: later rows may differ in the last bits",
                library, own);
    if (tp != job->session->world->tp_size)
        nt_warn("generate", "this job began with tp %lld and goes on with %d: later rows may differ in the last bits",
                (long long)tp, job->session->world->tp_size);
    nt_json_free(old);
}

nt_status nt_manifest_write_job(const struct nt_generate_job *job, const uint8_t input_digest[32]) {
    char path[4096];
    NT_TRY(nt_path_join(path, sizeof path, job->dir, "job.json"));
    if (nt_file_exists(path)) {
        compare_world(job, path);
        return NT_OK;
    }
    struct nt_strbuf s = NT_STRBUF_INIT;
    nt_strbuf_addc(&s, '{');
    add_identity(&s, job, input_digest);
    nt_strbuf_adds(&s, "}\n");
    const nt_status st = publish(job, "job.json", &s);
    nt_strbuf_release(&s);
    return st;
}

nt_status nt_manifest_write_run(const struct nt_generate_job *job, const uint8_t input_digest[32], int64_t n_error,
                                double finish_s) {
    struct nt_strbuf s = NT_STRBUF_INIT;
    nt_strbuf_addc(&s, '{');
    add_identity(&s, job, input_digest);
    nt_strbuf_addf(&s, ",\"rows\":{\"total\":%lld,\"errors\":%lld,\"resumed\":%lld}", (long long)job->n_rows,
                   (long long)n_error, (long long)job->n_resumed);
    nt_strbuf_addf(&s, ",\"tokens\":{\"prompt\":%lld,\"answer\":%lld}", (long long)job->prompt_tokens,
                   (long long)job->answer_tokens);
    nt_strbuf_addf(&s, ",\"plan\":{\"weight_bytes\":%zu,\"kv_bytes\":%zu,\"activation_bytes\":%zu,\"max_seqs\":%d}",
                   job->stats.weight_bytes, job->stats.kv_bytes, job->stats.activation_bytes, job->stats.max_seqs);
    nt_strbuf_adds(&s, ",\"timings\":{");
    add_num(&s, "load_s", job->session->load_s);
    nt_strbuf_addc(&s, ',');
    add_num(&s, "generate_s", job->generate_s);
    nt_strbuf_addc(&s, ',');
    add_num(&s, "finish_s", finish_s);
    nt_strbuf_addc(&s, ',');
    add_num(&s, "tokens_per_s",
            job->generate_s > 0 ? (double)(job->prompt_tokens + job->answer_tokens) / job->generate_s : 0);
    nt_strbuf_addc(&s, ',');
    add_num(&s, "finished_unix", nt_unix_time());
    nt_strbuf_adds(&s, "},\"config\":");
    nt_config_dump_json(job->session->config, &s);
    nt_strbuf_adds(&s, "}\n");
    const nt_status st = publish(job, "run.json", &s);
    nt_strbuf_release(&s);
    return st;
}
