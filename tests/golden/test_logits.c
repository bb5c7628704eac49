/* Forward of one tiny model against transformers' float32 logits (tools/make_logit_golden.py).
 *
 *   test_logits FOLDER [--isa auto|portable|avx2|avx512] [--device cpu|cuda|cuda-int8] [--gguf FILE] [--tp N]
 * Started by mpirun, the world is one tensor-parallel group, or with --tp several model copies that share their
 * weights. Exit 77: this CPU lacks the instruction set. Checked:
 *   - logits within NMSE_MAX of the reference, and the same best token wherever its margin exceeds the error bound;
 *   - prompts cut into chunks of 1, 7, 64 tokens, and all prompts in one batch, give bitwise the same logits;
 *   - the same model as GGUF, and one thread instead of two, give bitwise the same logits.
 * NMSE_MAX: every activation that becomes bf16 adds a relative variance of about 2^-18/3; some 10 of them per layer
 * and a gain of a few through the residual stream make about 3e-5 for 2 or 3 layers. An int8 cache (cuda-int8) adds
 * rounding to 1/254 of each row's largest element, about 1e-4 of its square mean, to keys and values. */
#include "cuda_backend.h"
#include "fileio.h"
#include "hash.h"
#include "log.h"
#include "model.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NMSE_MAX      1e-4
#define NMSE_MAX_INT8 3e-4
enum { MAX_PROMPTS = 8, MAX_OUT = 512 };

struct prompt {
    int32_t n_tok, n_pos;
    const int32_t *ids, *pos;
    const float *logits; // [n_pos, n_vocab]
};

struct golden {
    char *bytes;
    int32_t n_prompt, n_vocab;
    struct prompt prompts[MAX_PROMPTS];
};

struct run {
    struct nt_world *world;
    struct nt_backend *backend;
    struct nt_model *model;
    struct nt_job_memory job;
    struct nt_kv_pool kv;
    float *shard; // [MAX_OUT, ld] in the backend's memory
    float *host;  // a copy of it
    double nmse_max;
};

static nt_status golden_read(const char *folder, struct golden *g) {
    char path[4096];
    size_t len = 0, at = 12;
    NT_TRY(nt_path_join(path, sizeof path, folder, "golden.bin"));
    NT_TRY(nt_file_read(path, 16 << 20, &g->bytes, &len));
    const int32_t *head = (const int32_t *)(const void *)g->bytes;
    if (len < 12 || memcmp(g->bytes, "NTLG", 4) != 0 || head[1] < 1 || head[1] > MAX_PROMPTS)
        return NT_FAIL(NT_E_DATA, "%s: not a golden file", path);
    g->n_prompt = head[1];
    g->n_vocab = head[2];
    for (int32_t i = 0; i < g->n_prompt; i++) {
        struct prompt *p = &g->prompts[i];
        const int32_t *x = (const int32_t *)(const void *)(g->bytes + at);
        p->n_tok = x[0];
        p->n_pos = x[1];
        p->ids = x + 2;
        p->pos = p->ids + p->n_tok;
        p->logits = (const float *)(const void *)(p->pos + p->n_pos);
        at +=
            sizeof(int32_t) * ((size_t)2 + (size_t)p->n_tok + (size_t)p->n_pos + (size_t)p->n_pos * (size_t)g->n_vocab);
    }
    return at == len ? NT_OK : NT_FAIL(NT_E_DATA, "%s: %zu bytes, expected %zu", path, len, at);
}

static nt_status run_layout(struct run *r) {
    NT_TRY(nt_kv_pool_take(&r->job, r->model, 32, &r->kv));
    r->host = NT_TAKE(&r->job.host, float, (size_t)MAX_OUT *(size_t)nt_model_logit_ld(r->model));
    r->shard = NT_TAKE(&r->job.device, float, (size_t)MAX_OUT *(size_t)nt_model_logit_ld(r->model));
    const struct nt_step_limits max = {.tok = 1024, .out = MAX_OUT, .seq = MAX_PROMPTS, .pages = 32};
    return nt_model_layout(r->model, &r->job, &max);
}

static nt_status run_open(struct run *r, const char *path) {
    NT_TRY(nt_model_open(&r->model, path, r->world, r->backend));
    nt_job_memory_init(&r->job, r->backend);
    NT_TRY(run_layout(r));
    NT_TRY(nt_job_memory_bind(&r->job));
    return run_layout(r);
}

static void run_close(struct run *r) {
    nt_job_memory_release(&r->job);
    nt_model_close(r->model);
    r->model = NULL;
}

/* One forward; out [n_out, n_vocab] is gathered from the vocabulary shards. */
static nt_status forward(struct run *r, const struct nt_batch *b, float *out) {
    const int32_t n_vocab = nt_model_spec(r->model)->n_vocab, first = nt_model_vocab_first(r->model);
    const int64_t ld = nt_model_logit_ld(r->model);
    NT_TRY(nt_model_forward(r->model, b, &r->kv, r->shard));
    const size_t bytes = (size_t)b->n_out * (size_t)ld * sizeof *out;
    NT_TRY(r->backend->memory->download(r->backend, r->host, r->shard, bytes));
    memset(out, 0, (size_t)b->n_out * (size_t)n_vocab * sizeof *out);
    for (int64_t i = 0; i < b->n_out; i++)
        memcpy(out + i * n_vocab + first, r->host + i * ld, (size_t)nt_model_vocab_count(r->model) * sizeof *out);
    return nt_comm_allreduce_f32(r->world->tp, out, (int64_t)b->n_out * n_vocab); /* others are 0: exact */
}

/* A prompt alone, cut into chunks; the pages are handed out in descending order, so that page order is not memory
 * order. */
static nt_status run_prompt(struct run *r, const struct prompt *p, int32_t chunk, float *out) {
    int32_t pages[32], rows[MAX_OUT];
    for (int32_t i = 0; i < 32; i++) {
        pages[i] = 31 - i;
        nt_kv_page_zero(r->model, &r->kv, i);
    }
    int32_t done = 0;
    for (int32_t at = 0; at < p->n_tok; at += chunk) {
        const int32_t n = p->n_tok - at < chunk ? p->n_tok - at : chunk;
        const struct nt_attn_seq seq = {.q_row = 0, .n_q = n, .pos0 = at, .pages = pages};
        int32_t n_out = 0;
        for (int32_t i = 0; i < p->n_pos; i++)
            if (p->pos[i] >= at && p->pos[i] < at + n) rows[n_out++] = p->pos[i] - at;
        const struct nt_batch b = {
            .ids = p->ids + at, .seqs = &seq, .out_rows = rows, .n_tok = n, .n_seq = 1, .n_out = n_out};
        NT_TRY(forward(r, &b, out + (int64_t)done * nt_model_spec(r->model)->n_vocab));
        done += n_out;
    }
    return NT_OK;
}

/* All prompts in one batch. */
static nt_status run_together(struct run *r, const struct golden *g, float *out) {
    struct nt_attn_seq seqs[MAX_PROMPTS];
    int32_t pages[MAX_PROMPTS][8], ids[1024], rows[MAX_OUT], n_tok = 0, n_out = 0, page = 0;
    for (int32_t i = 0; i < 32; i++) nt_kv_page_zero(r->model, &r->kv, i);
    for (int32_t i = 0; i < g->n_prompt; i++) {
        const struct prompt *p = &g->prompts[i];
        for (int32_t k = 0; k <= (p->n_tok - 1) / NT_KV_PAGE; k++) pages[i][k] = page++;
        seqs[i] = (struct nt_attn_seq){.q_row = n_tok, .n_q = p->n_tok, .pages = pages[i]};
        for (int32_t k = 0; k < p->n_pos; k++) rows[n_out++] = n_tok + p->pos[k];
        memcpy(ids + n_tok, p->ids, (size_t)p->n_tok * sizeof *ids);
        n_tok += p->n_tok;
    }
    const struct nt_batch b = {
        .ids = ids, .seqs = seqs, .out_rows = rows, .n_tok = n_tok, .n_seq = g->n_prompt, .n_out = n_out};
    return forward(r, &b, out);
}

static int32_t argmax(const float *x, int32_t n) {
    int32_t best = 0;
    for (int32_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

/* Returns the number of violations; prints what was found. */
static int compare(const struct golden *g, const float *got, double nmse_max) {
    double err = 0, norm = 0;
    int n_row = 0, n_clear = 0, n_wrong = 0;
    const float *x = got;
    for (int32_t i = 0; i < g->n_prompt; i++) {
        for (int32_t r = 0; r < g->prompts[i].n_pos; r++, x += g->n_vocab) {
            const float *want = g->prompts[i].logits + (int64_t)r * g->n_vocab;
            double row_norm = 0;
            for (int32_t v = 0; v < g->n_vocab; v++) {
                const double d = (double)x[v] - (double)want[v];
                err += d * d;
                row_norm += (double)want[v] * (double)want[v];
            }
            norm += row_norm;
            /* margin beyond what two errors of four standard deviations could close */
            const int32_t best = argmax(want, g->n_vocab);
            const double bound = 8 * sqrt(nmse_max * row_norm / g->n_vocab);
            bool clear = true;
            for (int32_t v = 0; v < g->n_vocab; v++)
                if (v != best && (double)(want[best] - want[v]) <= bound) clear = false;
            n_row++;
            n_clear += clear;
            n_wrong += clear && argmax(x, g->n_vocab) != best;
        }
    }
    const double nmse = err / norm;
    printf("%d rows, nmse %.2e (limit %.0e), best token equal in all but %d of %d clear rows\n", n_row, nmse, nmse_max,
           n_wrong, n_clear);
    return !(nmse <= nmse_max) + (n_wrong > 0) + (n_clear < n_row / 2);
}

static int same(const char *what, const float *a, const float *b, size_t n) {
    const bool equal = !memcmp(a, b, n * sizeof *a);
    printf("%s: %s\n", what, equal ? "bitwise equal" : "DIFFERS");
    return !equal;
}

static nt_status test_model(struct run *r, const struct golden *g, const char *path, float *base, float *other,
                            int *bad) {
    NT_TRY(run_open(r, path));
    const int32_t n_vocab = nt_model_spec(r->model)->n_vocab;
    if (n_vocab != g->n_vocab) return NT_FAIL(NT_E_DATA, "%s: %d tokens, expected %d", path, n_vocab, g->n_vocab);
    static const int32_t chunks[] = {1024, 1, 7, 64};
    size_t n = 0;
    for (size_t c = 0; c < sizeof chunks / sizeof *chunks; c++) {
        n = 0;
        for (int32_t i = 0; i < g->n_prompt; i++) {
            NT_TRY(run_prompt(r, &g->prompts[i], chunks[c], (c ? other : base) + n));
            n += (size_t)g->prompts[i].n_pos * (size_t)n_vocab;
        }
        char what[64];
        snprintf(what, sizeof what, "chunks of %d", chunks[c]);
        *bad += c ? same(what, base, other, n) : compare(g, base, r->nmse_max);
    }
    NT_TRY(run_together(r, g, other));
    *bad += same("all prompts in one batch", base, other, n);
    run_close(r);
    return NT_OK;
}

static void print_digest(const struct nt_model *m) {
    uint8_t digest[32];
    char hex[65];
    nt_model_digest(m, digest);
    nt_hex(digest, sizeof digest, hex);
    printf("model digest %s\n", hex);
}

/* `base` was computed with the run's own pool. */
static nt_status test_one_thread(struct run *r, const struct golden *g, const char *path, const float *base,
                                 float *other, int *bad) {
    struct nt_pool *pool = NULL;
    struct nt_backend one, *two = r->backend;
    NT_TRY(nt_pool_new(&pool, 1, false, r->world->node_rank, r->world->node_size));
    NT_TRY(nt_backend_open_cpu(&one, two->isa, pool));
    r->backend = &one;
    NT_TRY(run_open(r, path));
    NT_TRY(run_together(r, g, other));
    size_t n = 0;
    for (int32_t i = 0; i < g->n_prompt; i++) n += (size_t)g->prompts[i].n_pos * (size_t)g->n_vocab;
    *bad += same("one thread", base, other, n);
    print_digest(r->model);
    run_close(r);
    r->backend = two;
    nt_backend_close(&one);
    nt_pool_free(pool);
    return NT_OK;
}

static nt_status test_all(struct run *r, const char *folder, const char *gguf, int *bad) {
    struct golden g = {0};
    NT_TRY(golden_read(folder, &g));
    const size_t n = (size_t)MAX_OUT * (size_t)g.n_vocab;
    float *base = calloc(3 * n, sizeof *base), *again = base + n, *other = again + n;
    NT_CHECK(base);
    NT_TRY(test_model(r, &g, folder, base, other, bad));
    if (nt_backend_is_host(r->backend)) NT_TRY(test_one_thread(r, &g, folder, base, other, bad));
    if (gguf) {
        NT_TRY(test_model(r, &g, gguf, again, other, bad));
        *bad += same("as GGUF", base, again, n);
    }
    free(base);
    free(g.bytes);
    return NT_OK;
}

/* device: cpu, cuda, cuda-int8. A device's int8 cache has an error of its own: about 1/127 of each key and value. */
static nt_status open_backend(struct run *r, const char *device, enum nt_isa isa, struct nt_pool *pool) {
    r->nmse_max = NMSE_MAX;
    if (strncmp(device, "cuda", 4) != 0) return nt_backend_open_cpu(r->backend, isa, pool);
    int32_t index = 0;
    NT_TRY(nt_cuda_pick_device(r->world->node_rank, &index));
    NT_TRY(nt_backend_open_cuda(r->backend, index, pool));
    if (strcmp(device, "cuda-int8") != 0) return NT_OK;
    r->backend->kv_format = NT_KV_ROWS_INT8;
    r->nmse_max = NMSE_MAX_INT8;
    return NT_OK;
}

static nt_status test_main(const char *folder, const char *isa_name, const char *device, const char *gguf, int32_t tp,
                           int *bad) {
    struct nt_world world;
    NT_TRY(nt_world_open(&world));
    nt_log_init(world.rank, world.size, false);
    NT_TRY(nt_world_split(&world, tp ? tp : world.size));
    printf("rank %d of %d, tp %d\n", world.rank, world.size, world.tp_size);
    enum nt_isa isa = NT_ISA_PORTABLE;
    const nt_status st = nt_isa_choose(isa_name, &isa);
    if (st == NT_E_UNSUPPORTED) {
        printf("skipped: %s\n", nt_error_last()->text);
        nt_world_close(&world);
        exit(77);
    }
    NT_TRY(st);
    struct nt_pool *pool = NULL;
    NT_TRY(nt_pool_new(&pool, 2, false, world.node_rank, world.node_size));
    struct nt_backend backend;
    struct run r = {.world = &world, .backend = &backend};
    NT_TRY(open_backend(&r, device, isa, pool));
    NT_TRY(test_all(&r, folder, gguf, bad));
    nt_backend_close(&backend);
    nt_pool_free(pool);
    nt_world_close(&world);
    return NT_OK;
}

int main(int argc, char **argv) {
    const char *isa = "auto", *device = "cpu", *gguf = NULL;
    int32_t tp = 0;
    for (int i = 2; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--isa")) isa = argv[i + 1];
        if (!strcmp(argv[i], "--device")) device = argv[i + 1];
        if (!strcmp(argv[i], "--gguf")) gguf = argv[i + 1];
        if (!strcmp(argv[i], "--tp")) tp = (int32_t)strtol(argv[i + 1], NULL, 10);
    }
    if (argc < 2) return 2;
    int bad = 0;
    if (test_main(argv[1], isa, device, gguf, tp, &bad) != NT_OK) {
        const struct nt_error *e = nt_error_last();
        printf("failed: %s\n", e->text);
        for (int i = 0; i < e->n_trail; i++) printf("  at %s:%d\n", e->trail[i].file, e->trail[i].line);
        return 1;
    }
    printf("%s\n", bad ? "FAILED" : "ok");
    return bad ? 1 : 0;
}
