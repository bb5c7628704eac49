/* The specification of the gradient of rotary embedding and q/k norm, in portable C. */
#include "cpu_rope_bwd.h"
#include "cpu_rows.h"
#include <math.h>

struct run {
    const struct nt_rope_bwd_args *args;
    nt_rope_bwd_fn *head;
    float *parts; // [blocks of this run, q and k, d_head]
    int64_t first, n_block, n_tok;
};

static void token(const struct run *run, int64_t row, int64_t pos, float *part) {
    const struct nt_rope_bwd_args *a = run->args;
    const int32_t d = a->d_head, n_qk = a->n_head + a->n_kv;
    const int64_t at = row * (n_qk + a->n_kv) * d;
    for (int32_t h = 0; h < n_qk + a->n_kv; h++) {
        const bool q = h < a->n_head, v = h >= n_qk;
        const float *norm = v ? NULL : q ? a->q_norm : a->k_norm;
        float *dnorm = q ? a->dq_norm : a->dk_norm;
        const struct nt_rope_bwd_head head = {
            .dy = a->dqkv + at + h * d,
            .x = norm ? a->qkv + at + h * d : NULL,
            .norm = norm,
            .cos = v || !a->cos ? NULL : a->cos + pos * (d / 2),
            .sin = v || !a->cos ? NULL : a->sin + pos * (d / 2),
            .out = a->dqkv16 + at + h * d,
            .dnorm = norm && dnorm ? part + (q ? 0 : d) : NULL,
            .eps = a->eps,
            .d = d,
        };
        run->head(&head);
    }
}

static void blocks_thread(void *arg, int thread, int n_threads) {
    const struct run *run = arg;
    const struct nt_rope_bwd_args *a = run->args;
    int64_t begin, end;
    nt_split(run->n_block, 1, thread, n_threads, &begin, &end);
    for (int64_t b = begin; b < end; b++) {
        float *part = run->parts + b * 2 * a->d_head;
        int64_t i = (run->first + b) * NT_ROPE_BLOCK;
        int64_t left = run->n_tok - i < NT_ROPE_BLOCK ? run->n_tok - i : NT_ROPE_BLOCK;
        const struct nt_attn_seq *seq = a->seqs;
        memset(part, 0, 2 * (size_t)a->d_head * sizeof *part);
        while (i >= seq->n_q) i -= seq++->n_q;
        for (; left > 0; left--, i++) {
            while (i >= seq->n_q) {
                i = 0;
                seq++;
            }
            token(run, seq->q_row + i, seq->pos0 + i, part);
        }
    }
}

void nt_rope_bwd_run(struct nt_backend *be, const struct nt_rope_bwd_args *args, nt_rope_bwd_fn *head) {
    const int32_t d = args->d_head;
    NT_CHECK(d % 2 == 0 && d <= NT_ROPE_MAX_D && (args->qkv || (!args->q_norm && !args->k_norm)));
    const int64_t most = NT_CPU_SCRATCH_BYTES / (2 * d * (int64_t)sizeof(float));
    struct run run = {.args = args, .head = head, .parts = nt_cpu_scratch(be, 0)};
    for (int32_t s = 0; s < args->n_seq; s++) run.n_tok += args->seqs[s].n_q;
    const int64_t n_block = (run.n_tok + NT_ROPE_BLOCK - 1) / NT_ROPE_BLOCK;
    for (; run.first < n_block; run.first += run.n_block) {
        run.n_block = n_block - run.first < most ? n_block - run.first : most;
        nt_rows_run(be, blocks_thread, &run, run.n_block, (int64_t)NT_ROPE_BLOCK * (args->n_head + 2 * args->n_kv) * d);
        for (int64_t b = 0; b < run.n_block; b++) {
            for (int32_t i = 0; i < d && args->q_norm && args->dq_norm; i++)
                args->dq_norm[i] += run.parts[2 * b * d + i];
            for (int32_t i = 0; i < d && args->k_norm && args->dk_norm; i++)
                args->dk_norm[i] += run.parts[(2 * b + 1) * d + i];
        }
    }
}

/* g[d] = the gradient rotated back. */
static void rotate_back(const struct nt_rope_bwd_head *h, float *g) {
    const int32_t half = h->d / 2;
    memcpy(g, h->dy, (size_t)h->d * sizeof *g);
    for (int32_t j = 0; h->cos && j < half; j++) {
        const float a = g[j], b = g[j + half];
        g[j] = a * h->cos[j] + b * h->sin[j];
        g[j + half] = b * h->cos[j] - a * h->sin[j];
    }
}

static void head_bwd(const struct nt_rope_bwd_head *h) {
    const int32_t d = h->d;
    float g[NT_ROPE_MAX_D], sum = 0, dot = 0;
    rotate_back(h, g);
    if (h->norm) {
        for (int32_t i = 0; i < d; i++) {
            sum += h->x[i] * h->x[i];
            dot += g[i] * h->norm[i] * h->x[i];
        }
        const float s = 1.0f / sqrtf(sum / (float)d + h->eps), c = s * s * (dot / (float)d);
        for (int32_t i = 0; i < d; i++) {
            if (h->dnorm) h->dnorm[i] += g[i] * (h->x[i] * s);
            g[i] = s * (g[i] * h->norm[i] - h->x[i] * c);
        }
    }
    for (int32_t i = 0; i < d; i++) h->out[i] = nt_f32_to_bf16(g[i]);
}

nt_status nt_rope_bwd_portable(struct nt_backend *be, const struct nt_rope_bwd_args *args) {
    nt_rope_bwd_run(be, args, head_bwd);
    return NT_OK;
}
