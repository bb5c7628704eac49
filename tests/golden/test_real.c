/* The real model against transformers: token log-probabilities of data/alice.txt (tools/make_logit_golden.py --real).
 *
 *   test_real [MODEL.gguf]    default: $NOCTURNE_CACHE (or ~/.cache/nocturne) / SmolLM2-135M-Instruct.Q4_1.gguf
 * Perplexity must be within 0.1 % of the float32 run on the same bf16 weights, the mean |difference| of
 * log-probabilities to it and to llama.cpp no larger than that of transformers' own bf16 run, and the best token that
 * of float32 and of llama.cpp wherever the float32 margin exceeds MARGIN (about 14 standard deviations of the
 * difference of two logits). Started by mpirun, the world is one tensor-parallel group. Exit 77 when the file is
 * absent; with CI=true that is a failure. */
#include "clock.h"
#include "fileio.h"
#include "hash.h"
#include "log.h"
#include "model.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MARGIN 0.25F
enum { CHUNK = 128, MAX_TOK = 8192, MAX_PAGES = MAX_TOK / NT_KV_PAGE };

struct reference {
    char *bytes;
    int32_t n_tok;
    const int32_t *ids;               // [n_tok]; the rest is [n_tok - 1], row i predicts ids[i + 1]
    const float *full, *half, *llama; /* log-probabilities: float32 and bf16 runs of transformers, llama.cpp */
    const int32_t *best, *llama_best; /* most probable tokens: float32, llama.cpp */
    const float *margin;              /* float32 logit of the best less the second */
    const uint8_t *model_digest;      // [32]
};

/* A row of vocabulary shard logits, as what the log-softmax over all shards needs. */
struct part {
    double max, sum, target; /* target -INFINITY: the token is in another shard */
    int32_t best;
};

struct score {
    double logprob;
    int32_t best;
};

static nt_status reference_read(struct reference *ref) {
    size_t len = 0;
    NT_TRY(nt_file_read(NT_TEST_DIR "/real.bin", 1 << 20, &ref->bytes, &len));
    const int32_t *head = (const int32_t *)(const void *)ref->bytes;
    const size_t n = len >= 8 ? (size_t)head[1] : 0;
    if (len < 8 || memcmp(ref->bytes, "NTLR", 4) != 0 || n < 2 || n > MAX_TOK || len != 8 + 4 * n + 24 * (n - 1) + 32)
        return NT_FAIL(NT_E_DATA, "real.bin: not a reference file");
    ref->n_tok = head[1];
    ref->ids = head + 2;
    ref->full = (const float *)(const void *)(ref->ids + n);
    ref->half = ref->full + (n - 1);
    ref->llama = ref->half + (n - 1);
    ref->best = (const int32_t *)(const void *)(ref->llama + (n - 1));
    ref->margin = (const float *)(const void *)(ref->best + (n - 1));
    ref->llama_best = (const int32_t *)(const void *)(ref->margin + (n - 1));
    ref->model_digest = (const uint8_t *)(ref->llama_best + (n - 1));
    return NT_OK;
}

static struct part row_part(const float *logits, int32_t first, int32_t n, int32_t target) {
    struct part p = {.max = -INFINITY, .target = -INFINITY};
    for (int32_t v = 0; v < n; v++) {
        if ((double)logits[v] > p.max) p.best = first + v;
        p.max = fmax(p.max, (double)logits[v]);
    }
    for (int32_t v = 0; v < n; v++) p.sum += exp((double)logits[v] - p.max);
    if (target >= first && target < first + n) p.target = (double)logits[target - first];
    return p;
}

static struct score combine(const struct part *parts, int32_t n, size_t stride) {
    const struct part *best = parts;
    for (int32_t r = 1; r < n; r++)
        if (parts[(size_t)r * stride].max > best->max) best = &parts[(size_t)r * stride];
    double sum = 0, target = -INFINITY;
    for (int32_t r = 0; r < n; r++) {
        const struct part *p = &parts[(size_t)r * stride];
        sum += p->sum * exp(p->max - best->max);
        target = fmax(target, p->target);
    }
    return (struct score){.logprob = target - best->max - log(sum), .best = best->best};
}

static nt_status layout(struct nt_job_memory *job, struct nt_model *m, struct nt_kv_pool *kv, float **logits) {
    NT_TRY(nt_kv_pool_take(job, m, MAX_PAGES, kv));
    *logits = NT_TAKE(&job->device, float, (size_t)CHUNK *(size_t)nt_model_logit_ld(m));
    const struct nt_step_limits max = {.tok = CHUNK, .out = CHUNK, .seq = 1, .pages = MAX_PAGES};
    return nt_model_layout(m, job, &max);
}

/* scores[t] of ids[t + 1] after ids[0 .. t], in chunks as the engine feeds them. */
static nt_status score(struct nt_world *w, struct nt_backend *be, struct nt_model *m, const struct reference *ref,
                       struct score *scores) {
    struct nt_job_memory job;
    struct nt_kv_pool kv;
    float *logits = NULL;
    nt_job_memory_init(&job, be);
    nt_model_limit_len(m, MAX_TOK);
    NT_TRY(layout(&job, m, &kv, &logits));
    NT_TRY(nt_job_memory_bind(&job));
    NT_TRY(layout(&job, m, &kv, &logits));
    int32_t pages[MAX_PAGES], rows[CHUNK];
    for (int32_t i = 0; i < MAX_PAGES; i++) {
        nt_kv_page_zero(m, &kv, i);
        pages[i] = i;
    }
    for (int32_t i = 0; i < CHUNK; i++) rows[i] = i;
    struct part mine[CHUNK], *all = calloc((size_t)w->tp_size * CHUNK, sizeof *all);
    NT_CHECK(all);
    for (int32_t at = 0; at < ref->n_tok - 1; at += CHUNK) {
        const int32_t n = ref->n_tok - 1 - at < CHUNK ? ref->n_tok - 1 - at : CHUNK;
        const struct nt_attn_seq seq = {.n_q = n, .pos0 = at, .pages = pages};
        const struct nt_batch b = {
            .ids = ref->ids + at, .seqs = &seq, .out_rows = rows, .n_tok = n, .n_seq = 1, .n_out = n};
        NT_TRY(nt_model_forward(m, &b, &kv, logits));
        for (int32_t i = 0; i < n; i++)
            mine[i] = row_part(logits + i * nt_model_logit_ld(m), nt_model_vocab_first(m), nt_model_vocab_count(m),
                               ref->ids[at + i + 1]);
        NT_TRY(nt_comm_allgather(w->tp, mine, all, sizeof mine));
        for (int32_t i = 0; i < n; i++) scores[at + i] = combine(all + i, w->tp_size, CHUNK);
    }
    free(all);
    nt_job_memory_release(&job);
    return NT_OK;
}

static int judge_likelihood(const struct reference *ref, const struct score *got) {
    double nll = 0, full = 0, half = 0, llama = 0, diff = 0, half_diff = 0, llama_diff = 0;
    const int32_t n = ref->n_tok - 1;
    for (int32_t i = 0; i < n; i++) {
        nll -= got[i].logprob / n;
        full -= (double)ref->full[i] / n;
        half -= (double)ref->half[i] / n;
        llama -= (double)ref->llama[i] / n;
        diff += fabs(got[i].logprob - (double)ref->full[i]) / n;
        half_diff += fabs((double)ref->half[i] - (double)ref->full[i]) / n;
        llama_diff += fabs(got[i].logprob - (double)ref->llama[i]) / n;
    }
    const double off = exp(nll) / exp(full) - 1;
    printf("perplexity %.5f, float32 %.5f (%+.4f %%), transformers bf16 %.5f, llama.cpp %.5f\n", exp(nll), exp(full),
           100 * off, exp(half), exp(llama));
    printf("mean |difference| of log-probs: to float32 %.5f, to llama.cpp %.5f; transformers bf16 to float32 %.5f\n",
           diff, llama_diff, half_diff);
    return !(fabs(off) <= 0.001) + !(diff <= half_diff) + !(llama_diff <= half_diff);
}

static int judge_best(const struct reference *ref, const struct score *got) {
    int n_clear = 0, n_wrong = 0, n_llama_wrong = 0, n_equal = 0;
    const int32_t n = ref->n_tok - 1;
    for (int32_t i = 0; i < n; i++) {
        n_equal += got[i].best == ref->best[i];
        if (ref->margin[i] <= MARGIN) continue;
        n_clear++;
        n_wrong += got[i].best != ref->best[i];
        n_llama_wrong += got[i].best != ref->llama_best[i];
    }
    printf(
        "best token: equal to float32 in %d of %d rows; of %d clear rows %d differ from float32, %d from llama.cpp\n",
        n_equal, n, n_clear, n_wrong, n_llama_wrong);
    return (n_wrong > 0) + (n_llama_wrong > 0) + (n_clear < n / 2);
}

static nt_status test_model(struct nt_world *w, struct nt_backend *be, const struct reference *ref, const char *path,
                            int *bad) {
    uint8_t digest[NT_SHA256_BYTES];
    NT_TRY(nt_sha256_file(path, digest));
    if (memcmp(digest, ref->model_digest, sizeof digest) != 0)
        return NT_FAIL(NT_E_DATA, "%s: not the file that real.bin was made from", path);
    struct nt_model *m = NULL;
    NT_TRY(nt_model_open(&m, path, w, be));
    struct score *scores = calloc((size_t)ref->n_tok, sizeof *scores);
    NT_CHECK(scores);
    const double start = nt_now();
    NT_TRY(score(w, be, m, ref, scores));
    printf("rank %d of %d: %d tokens in %.2f s\n", w->tp_rank, w->tp_size, ref->n_tok, nt_now() - start);
    *bad = judge_likelihood(ref, scores) + judge_best(ref, scores);
    free(scores);
    nt_model_close(m);
    return NT_OK;
}

static nt_status test_main(const char *path, int *bad) {
    struct nt_world w;
    struct nt_pool *pool = NULL;
    struct nt_backend be;
    struct reference ref = {0};
    enum nt_isa isa = NT_ISA_PORTABLE;
    NT_TRY(nt_world_open(&w));
    nt_log_init(w.rank, w.size, false);
    NT_TRY(nt_world_split(&w, w.size));
    NT_TRY(nt_isa_choose("auto", &isa));
    NT_TRY(nt_pool_new(&pool, 0, false, w.node_rank, w.node_size));
    NT_TRY(nt_backend_open_cpu(&be, isa, pool));
    NT_TRY(reference_read(&ref));
    NT_TRY(test_model(&w, &be, &ref, path, bad));
    free(ref.bytes);
    nt_backend_close(&be);
    nt_pool_free(pool);
    nt_world_close(&w);
    return NT_OK;
}

static void default_path(char *buf, size_t cap) {
    const char *name = "SmolLM2-135M-Instruct.Q4_1.gguf", *cache = getenv("NOCTURNE_CACHE"), *home = getenv("HOME");
    if (cache && *cache)
        snprintf(buf, cap, "%s/%s", cache, name);
    else
        snprintf(buf, cap, "%s/.cache/nocturne/%s", home ? home : "", name);
}

int main(int argc, char **argv) {
    char path[4096];
    if (argc > 1)
        snprintf(path, sizeof path, "%s", argv[1]);
    else
        default_path(path, sizeof path);
    const char *ci = getenv("CI");
    if (!nt_file_exists(path)) {
        printf("%s is absent: %s\n", path, ci && !strcmp(ci, "true") ? "expected in CI" : "skipped");
        return ci && !strcmp(ci, "true") ? 1 : 77;
    }
    int bad = 0;
    if (test_main(path, &bad) != NT_OK) {
        printf("failed: %s\n", nt_error_last()->text);
        return 1;
    }
    printf("%s\n", bad ? "FAILED" : "ok");
    return bad ? 1 : 0;
}
