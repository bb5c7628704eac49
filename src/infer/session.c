#include "session.h"

#include "adapter_io.h"
#include "clock.h"
#include "cuda_backend.h"
#include "gemm_cublaslt.h"
#include "log.h"

#include <stdlib.h>
#include <string.h>

/* "no CUDA driver: using the CPU (libcuda.so.1: cannot open ...)": what it means before the details. */
static void say_why_cpu(const char *why) {
    const char *details = strstr(why, ": ");
    if (details)
        nt_info("device", "%.*s: using the CPU (%s)", (int)(details - why), why, details + 2);
    else
        nt_info("device", "%s: using the CPU", why);
}

nt_status nt_device_choose(const struct nt_config *c, const struct nt_world *w, enum nt_device *out) {
    *out = strcmp(c->run_device, "cuda") == 0 ? NT_DEVICE_CUDA : NT_DEVICE_CPU;
    if (strcmp(c->run_device, "auto") != 0) return NT_OK;
    int32_t device = 0;
    char why[NT_ERROR_TEXT] = "";
    int64_t without = nt_cuda_pick_device(w->node_rank, &device) != NT_OK;
    if (without) {
        memcpy(why, nt_error_last()->text, sizeof why);
        nt_error_clear();
    }
    const bool mine = without != 0;
    NT_TRY(nt_comm_allreduce_max_i64(w->world, &without, 1));
    *out = without ? NT_DEVICE_CPU : NT_DEVICE_CUDA;
    if (!without) return NT_OK;
    if (mine)
        say_why_cpu(why);
    else
        nt_warn("device",
                "a rank on another node has no GPU: using the CPU everywhere (run.device = cuda forbids that)");
    return NT_OK;
}

static bool wants_library(const struct nt_config *c) {
    return strcmp(c->run_gemm_library, "cublaslt") == 0;
}

static nt_status open_library(const struct nt_config *c, struct nt_backend *be) {
    struct nt_error why;
    nt_status st = nt_cublaslt_enable(be, (int32_t)c->run_gemm_library_rows);
    if (st == NT_OK) {
        nt_info("device", "products of at least %lld rows go to cuBLASLt %zu of %s%s",
                (long long)c->run_gemm_library_rows, nt_cublaslt_version(be), nt_cublaslt_library(be),
                c->run_gemm_library_rows > 1 ? ": bits depend on the batch" : "");
        return NT_OK;
    }
    nt_error_take(&why); /* closing must not replace it */
    nt_backend_close(be);
    return NT_FAIL(st, "run.gemm_library = cublaslt cannot be had: %s; without it: run.gemm_library = own", why.text);
}

static nt_status open_cuda(const struct nt_config *c, const struct nt_world *w, struct nt_pool *pool,
                           struct nt_backend *be) {
    int32_t device = 0;
    NT_TRY(nt_cuda_pick_device(w->node_rank, &device));
    NT_TRY(nt_backend_open_cuda(be, device, pool));
    if (strcmp(c->generate_kv_cache_dtype, "int8") == 0) be->kv_format = NT_KV_ROWS_INT8;
    return wants_library(c) ? open_library(c, be) : NT_OK;
}

/* The blocks' matrices quantized, if they are to be. */
static void set_block_format(const struct nt_config *c, struct nt_backend *be) {
    for (int f = 0; f < NT_WEIGHT_FORMAT_COUNT; f++) {
        const enum nt_weight_format format = (enum nt_weight_format)f;
        const bool named = strcmp(c->model_weight_dtype, nt_weight_format_name(format)) == 0;
        if (named && nt_weight_is_quantized(format)) be->block_format = format;
    }
}

nt_status nt_backend_from_config(const struct nt_config *c, const struct nt_world *w, enum nt_device device,
                                 struct nt_pool **pool, struct nt_backend *be) {
    enum nt_isa isa;
    NT_TRY(nt_isa_choose(c->run_isa, &isa));
    if (device == NT_DEVICE_CPU && strcmp(c->generate_kv_cache_dtype, "int8") == 0)
        return NT_FAIL(NT_E_UNSUPPORTED,
                       "generate.kv_cache_dtype = int8 needs a GPU (run.device = cuda); the CPU's cache is bf16");
    if (device == NT_DEVICE_CPU && wants_library(c))
        return NT_FAIL(
            NT_E_UNSUPPORTED,
            "run.gemm_library = cublaslt needs a GPU (run.device = cuda); the CPU has its own products only");
    NT_TRY(nt_pool_new(pool, (int)c->run_threads, c->run_pin, w->node_rank, w->node_size));
    const nt_status st = device == NT_DEVICE_CUDA ? open_cuda(c, w, *pool, be) : nt_backend_open_cpu(be, isa, *pool);
    if (st == NT_OK) set_block_format(c, be);
    if (st != NT_OK) {
        nt_pool_free(*pool);
        *pool = NULL;
    }
    return st;
}

/* A model without a usable template still completes plain prompts; chat rows then carry this sentence. */
static nt_status open_chat(struct nt_session *s) {
    const nt_status st = nt_chat_open(&s->chat, s->config->model_chat, s->text.chat_template, s->text.chat_template_len,
                                      s->text.tok, s->config->model_path);
    s->has_chat = st == NT_OK;
    if (s->has_chat) return NT_OK;
    if (strcmp(s->config->model_chat, "auto") != 0) return st;
    memcpy(s->chat_error, nt_error_last()->text, sizeof s->chat_error);
    nt_error_clear();
    nt_warn("chat", "%s", s->chat_error);
    return NT_OK;
}

static nt_status open_parts(struct nt_session *s, enum nt_device device) {
    const struct nt_config *c = s->config;
    if (!c->model_path[0])
        return NT_FAIL(NT_E_USAGE, "no model given; add --model PATH (a GGUF file or a Hugging Face directory)");
    NT_TRY(nt_backend_from_config(c, s->world, device, &s->pool, &s->backend));
    NT_TRY(nt_tokenizer_load(c->model_path, &s->text));
    NT_TRY(open_chat(s));
    nt_tokenizer_digest(s->text.tok, s->tokenizer_digest);
    return NT_OK;
}

/* The model is its base with the adapter from here on, for its digest too. */
static nt_status apply_adapter(struct nt_session *s) {
    const char *dir = s->config->model_adapter;
    struct nt_adapter *a = NULL;
    nt_status st = nt_adapter_read(dir, nt_model_spec(s->model), &a);
    if (st == NT_OK) st = nt_adapter_check_base(a, dir, s->model_digest, s->tokenizer_digest);
    if (st == NT_OK) st = nt_model_adapt(s->model, a);
    if (st == NT_OK) {
        nt_info("model", "%s: adapter of rank %d, applied unmerged", dir, a->r);
        nt_adapter_digest(a, s->model_digest, s->model_digest);
    }
    nt_adapter_free(a);
    return st;
}

/* ---- what the ranks run on ---- */

struct seat {
    char host[sizeof((struct nt_world *)0)->host];
    char level[sizeof((struct nt_backend *)0)->level];
    unsigned char uuid[16];
    char bus[sizeof((struct nt_cuda_facts *)0)->bus];
};

typedef bool same_fn(const struct seat *a, const struct seat *b);

static bool same_device(const struct seat *a, const struct seat *b) {
    return strcmp(a->host, b->host) == 0 && memcmp(a->uuid, b->uuid, sizeof a->uuid) == 0;
}

/* Also parts of one GPU (MIG), which are devices of their own; NCCL, which goes by the bus, does not connect them. */
static bool same_gpu(const struct seat *a, const struct seat *b) {
    return same_device(a, b) || (strcmp(a->host, b->host) == 0 && a->bus[0] && strcmp(a->bus, b->bus) == 0);
}

/* n ranks from first on, every step-th. */
struct ranks {
    int32_t first, n, step;
};

/* Those of them that have what rank r has. */
static int32_t sharers(const struct seat *all, struct ranks of, int32_t r, same_fn *same) {
    int32_t count = 0;
    for (int32_t i = 0; i < of.n; i++) count += same(&all[of.first + i * of.step], &all[r]);
    return count;
}

static bool crowd(const struct seat *all, struct ranks of) {
    bool any = false;
    for (int32_t i = 0; i < of.n; i++) any |= sharers(all, of, of.first + i * of.step, same_gpu) > 1;
    return any;
}

static void share(struct nt_session *s, const struct seat *all) {
    const struct nt_world *w = s->world;
    const struct ranks tp = {w->rank - w->tp_rank, w->tp_size, 1}, dp = {w->tp_rank, w->dp_size, w->tp_size};
    const int32_t n = sharers(all, (struct ranks){0, w->size, 1}, w->rank, same_device);
    const bool first = sharers(all, (struct ranks){0, w->rank, 1}, w->rank, same_device) == 0;
    const bool crowded = crowd(all, tp);
    nt_cuda_share(&s->backend, n, crowded, crowd(all, dp));
    if (n > 1 && first)
        nt_warn("device",
                "%d ranks of node %s share the CUDA device %s: each has a part of its memory and of its time; start "
                "fewer ranks a node, or ask for more devices (--gpus-per-node)",
                n, w->host, s->backend.cuda->facts.bus);
    if (crowded && w->tp_rank == 0)
        nt_warn("device",
                "tensor-parallel ranks of node %s are on one GPU (%s) and sum through host memory, which is slow: NCCL "
                "wants a GPU for each rank",
                w->host, s->backend.cuda->facts.bus);
}

/* The first of so many ranks from first on that has other kernels than it, -1: none. */
static int32_t first_unlike(const struct seat *all, int32_t first, int32_t n) {
    for (int32_t r = first; r < first + n; r++)
        if (strcmp(all[r].level, all[first].level) != 0) return r;
    return -1;
}

/* Kernels of another level have other last bits. Ranks of one model must draw the same tokens from the same numbers. */
static nt_status compare_levels(const struct nt_world *w, const struct seat *all) {
    const int32_t mine = w->rank - w->tp_rank, apart = first_unlike(all, mine, w->tp_size);
    if (apart >= 0)
        return NT_FAIL(NT_E_UNSUPPORTED,
                       "tensor-parallel ranks need the same kernels, or they come to draw different tokens: rank %d on "
                       "%s has %s, rank %d on %s has %s; ask for one kind of node (--constraint), or on CPUs set "
                       "run.isa to the lower one",
                       mine, all[mine].host, all[mine].level, apart, all[apart].host, all[apart].level);
    const int32_t other = first_unlike(all, 0, w->size);
    if (other >= 0 && w->rank == 0)
        nt_warn("device",
                "ranks run on unlike hardware, %s on %s and %s on %s: the last bits of a row depend on who computes it",
                all[0].level, all[0].host, all[other].level, all[other].host);
    return NT_OK;
}

/* Ranks share a device by their number on the node, or because the launcher shows two of them the same one: uuid and
 * bus tell. */
static nt_status compare_ranks(struct nt_session *s) {
    struct seat mine = {0}, *all = calloc((size_t)s->world->size, sizeof *all);
    nt_status st = all ? NT_OK : NT_FAIL(NT_E_NOMEM, "no memory for the devices of %d ranks", s->world->size);
    memcpy(mine.host, s->world->host, sizeof mine.host);
    memcpy(mine.level, s->backend.level, sizeof mine.level);
    if (s->backend.cuda) memcpy(mine.uuid, s->backend.cuda->facts.uuid, sizeof mine.uuid);
    if (s->backend.cuda) memcpy(mine.bus, s->backend.cuda->facts.bus, sizeof mine.bus);
    st = nt_comm_agree(s->world->world, st);
    if (st == NT_OK) st = nt_comm_allgather(s->world->world, &mine, all, sizeof mine);
    if (st == NT_OK) st = compare_levels(s->world, all);
    if (st == NT_OK && s->backend.cuda) share(s, all);
    free(all);
    return st;
}

nt_status nt_session_open(struct nt_session *s, struct nt_world *w, const struct nt_config *c) {
    const double start = nt_now();
    *s = (struct nt_session){.world = w, .config = c};
    enum nt_device device;
    NT_TRY(nt_device_choose(c, w, &device));
    nt_status st = nt_comm_agree(w->world, open_parts(s, device));
    if (st == NT_OK) st = nt_comm_agree(w->world, compare_ranks(s));
    if (st == NT_OK) st = nt_comm_agree(w->world, nt_model_open(&s->model, c->model_path, w, &s->backend));
    if (st == NT_OK) nt_model_digest(s->model, s->model_digest);
    if (st == NT_OK && c->model_adapter[0]) st = nt_comm_agree(w->world, apply_adapter(s));
    if (st != NT_OK) {
        nt_session_close(s);
        return st;
    }
    const int32_t model_len = nt_model_spec(s->model)->max_len;
    s->max_len = c->model_max_len > 0 && c->model_max_len < model_len ? (int32_t)c->model_max_len : model_len;
    nt_model_limit_len(s->model, s->max_len);
    if (c->model_max_len > model_len)
        nt_warn("model", "model.max_len %lld exceeds the model's own %d: using %d", (long long)c->model_max_len,
                model_len, model_len);
    s->load_s = nt_now() - start;
    nt_info("model", "%s loaded in %.1f s, %d ranks (tp %d, dp %d), %d threads each, %s %s",
            nt_model_spec(s->model)->family, s->load_s, w->size, w->tp_size, w->dp_size, nt_pool_size(s->pool),
            s->backend.name, s->backend.level);
    return NT_OK;
}

void nt_session_close(struct nt_session *s) {
    nt_model_close(s->model);
    nt_tok_bundle_release(&s->text);
    if (s->backend.name) nt_backend_close(&s->backend);
    nt_pool_free(s->pool);
    *s = (struct nt_session){0};
}

/* A CPU is at its matrix rate with few rows; a GPU wants more, of which the cache takes what fits. */
static int32_t chosen(const struct nt_session *s, int64_t setting, int32_t cpu, int32_t gpu) {
    return setting > 0 ? (int32_t)setting : nt_backend_is_host(&s->backend) ? cpu : gpu;
}

struct nt_engine_config nt_session_engine_config(const struct nt_session *s) {
    const struct nt_config *c = s->config;
    return (struct nt_engine_config){.world = s->world,
                                     .backend = (struct nt_backend *)&s->backend,
                                     .model = s->model,
                                     .tok = s->text.tok,
                                     .chat = s->has_chat ? &s->chat : NULL,
                                     .chat_error = s->chat_error,
                                     .max_seqs = chosen(s, c->generate_max_num_seqs, 64, 256),
                                     .max_tokens_per_step = chosen(s, c->generate_max_num_batched_tokens, 512, 2048),
                                     .max_len = s->max_len,
                                     .kv_bytes = (size_t)(c->generate_kv_memory_gib * 1073741824.0)};
}
