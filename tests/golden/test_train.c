/* Training steps of a tiny model against transformers and PEFT in float32 (train/make_train_golden.py: formulas there).
 *
 *   test_train FOLDER [--isa auto|portable|avx2|avx512|cuda] [--steps N]
 * Started by mpirun, the world is one tensor-parallel group. Exit 77: this CPU lacks the instruction set. With cuda the
 * backend is the GPU of the node-local rank, and there is no run on one thread. Checked:
 *   - loss and every gradient of the first batch, against limits that follow from bf16: WORST times the distance that
 *     torch's own bf16 autocast has from float32 on the same case (recorded there), for each tensor alone;
 *   - the same gradients bit by bit for every recompute policy and for one thread; within rounding row by row;
 *   - AdamW and clipping alone: golden gradients give golden weights, near enough to tell a hundredth of each setting;
 *   - 20 steps (or N): every loss, and of all 20 the way the weights went (step20 - start), where the case has them. */
#include "adapter_io.h"
#include "fileio.h"
#include "json.h"
#include "log.h"
#include "loss.h"
#include "tensor_source.h"
#include "training.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WORST       2.0  /* single tensors, times the case's worst under autocast */
#define FLOOR       5e-4 /* NMSE below which nothing is asked */
#define ALONE_LIMIT 1e-6
enum { MAX_TOK = 1024, MAX_SEQ = 16, MAX_PAGES = 64, N_ALONE = 64 };

struct run {
    struct nt_world *world;
    struct nt_backend *backend;
    const char *folder;
    struct nt_json *doc;
    struct nt_tensor_source *golden;
    char model_path[4096];
    struct nt_model *model;
    struct nt_training *training;
    struct nt_job_memory job;
    struct nt_kv_pool kv;
    struct nt_adapter *adapter;
    size_t max_steps;
    int bad;
};

/* A micro-batch of whole sequences. */
struct micro {
    int32_t ids[MAX_TOK], out_rows[MAX_TOK], targets[MAX_TOK], pages[MAX_PAGES];
    float coef[MAX_TOK], logp[MAX_TOK];
    struct nt_attn_seq seqs[MAX_SEQ];
    int32_t n_tok, n_seq, n_out, n_page;
};

static const struct nt_json *field(const struct nt_json *o, const char *key) {
    const struct nt_json *v = nt_json_get(o, key);
    NT_CHECK(v);
    return v;
}

static void verdict(struct run *r, bool ok, const char *what, double found, double limit) {
    if (!ok) printf("%s: %.3e, limit %.3e  FAILED\n", what, found, limit);
    r->bad += !ok;
}

/* ---- model and memory ------------------------------------------------------------------------------------------ */

static nt_status layout(struct run *r) {
    const struct nt_step_limits max = {.tok = MAX_TOK, .out = MAX_TOK, .seq = MAX_SEQ, .pages = MAX_PAGES};
    NT_TRY(nt_training_layout(r->training, &r->job, &max));
    return nt_kv_pool_take(&r->job, r->model, MAX_PAGES, &r->kv);
}

static nt_status open_run(struct run *r, enum nt_recompute recompute) {
    const char *adapter = nt_json_str(nt_json_get(r->doc, "adapter"), NULL);
    struct nt_training_config c = {.recompute = recompute, .chunk = 50};
    NT_TRY(nt_model_open(&r->model, r->model_path, r->world, r->backend));
    if (adapter) {
        char dir[4096];
        NT_TRY(nt_path_join(dir, sizeof dir, r->folder, adapter));
        NT_TRY(nt_adapter_read(dir, nt_model_spec(r->model), &r->adapter));
        c.lora = (struct nt_lora_shape){
            .r = r->adapter->r, .scale = (float)nt_adapter_scale(r->adapter), .targets = r->adapter->targets};
    }
    NT_TRY(nt_training_new(&r->training, r->model, &c));
    if (r->adapter) NT_TRY(nt_training_from_adapter(r->training, r->adapter));
    nt_job_memory_init(&r->job, r->backend);
    NT_TRY(layout(r));
    NT_TRY(nt_job_memory_bind(&r->job));
    return layout(r);
}

static void close_run(struct run *r) {
    nt_job_memory_release(&r->job);
    nt_training_free(r->training);
    nt_adapter_free(r->adapter);
    nt_model_close(r->model);
    r->training = NULL;
    r->adapter = NULL;
    r->model = NULL;
}

/* ---- batches --------------------------------------------------------------------------------------------------- */

/* Tokens of a JSON array; targets from the second token on with weight > 0: a weight each, or 1 from `first` on. */
static void add_sequence(struct micro *m, const struct nt_json *ids, const struct nt_json *weights, int64_t first) {
    const int32_t n = (int32_t)nt_json_len(ids);
    NT_CHECK(m->n_tok + n <= MAX_TOK && m->n_seq < MAX_SEQ);
    m->seqs[m->n_seq++] = (struct nt_attn_seq){.q_row = m->n_tok, .n_q = n, .pages = m->pages + m->n_page};
    for (int32_t i = 0; i < (n + NT_KV_PAGE - 1) / NT_KV_PAGE; i++, m->n_page++) m->pages[m->n_page] = m->n_page;
    for (int32_t i = 0; i < n; i++) {
        m->ids[m->n_tok + i] = (int32_t)nt_json_int(nt_json_at(ids, (size_t)i), -1);
        const double w = weights ? nt_json_num(nt_json_at(weights, (size_t)i), 0) : i >= first;
        if (i == 0 || w <= 0) continue;
        m->out_rows[m->n_out] = m->n_tok + i - 1;
        m->targets[m->n_out] = m->ids[m->n_tok + i];
        m->coef[m->n_out++] = (float)w;
    }
    m->n_tok += n;
}

static nt_status forward(struct run *r, struct micro *m, enum nt_forward kind) {
    for (int32_t i = 0; i < m->n_page; i++) nt_kv_page_zero(r->model, &r->kv, i);
    const struct nt_batch b = {.ids = m->ids,
                               .seqs = m->seqs,
                               .out_rows = m->out_rows,
                               .n_tok = m->n_tok,
                               .n_seq = m->n_seq,
                               .n_out = m->n_out};
    return nt_training_forward(r->training, &b, &r->kv, NULL, 0, kind);
}

static const struct nt_json *batch_rows(const struct run *r, int64_t step) {
    const struct nt_json *batches = field(r->doc, "batches");
    return nt_json_at(batches, (size_t)step % nt_json_len(batches));
}

static const struct nt_json *row_at(const struct run *r, const struct nt_json *batch, size_t i) {
    return nt_json_at(field(r->doc, "rows"), (size_t)nt_json_int(nt_json_at(batch, i), 0));
}

/* Gradients of a batch, in micro-batches of at most `rows` sequences; *loss: the batch's. */
static nt_status sft_batch(struct run *r, int64_t step, size_t rows, double *loss) {
    const struct nt_json *batch = batch_rows(r, step);
    struct micro *m = calloc(1, sizeof *m);
    double total = 0;
    NT_CHECK(m);
    for (size_t i = 0; i < nt_json_len(batch); i++) {
        const struct nt_json *w = field(row_at(r, batch, i), "weights");
        for (size_t k = 0; k < nt_json_len(w); k++) total += nt_json_num(nt_json_at(w, k), 0);
    }
    *loss = 0;
    for (size_t i = 0; i < nt_json_len(batch); i += rows) {
        memset(m, 0, sizeof *m);
        for (size_t k = i; k < i + rows && k < nt_json_len(batch); k++)
            add_sequence(m, field(row_at(r, batch, k), "ids"), field(row_at(r, batch, k), "weights"), 0);
        for (int32_t k = 0; k < m->n_out; k++) m->coef[k] = (float)(-m->coef[k] / total);
        NT_TRY(forward(r, m, NT_FORWARD_TRAIN));
        NT_TRY(nt_training_backward(r->training, m->targets, m->coef, m->logp));
        for (int32_t k = 0; k < m->n_out; k++) *loss += (double)m->coef[k] * m->logp[k];
    }
    free(m);
    return NT_OK;
}

static double logp_sum(const struct micro *m, int32_t seq) {
    const struct nt_attn_seq *s = &m->seqs[seq];
    double sum = 0;
    for (int32_t k = 0; k < m->n_out; k++)
        if (m->out_rows[k] >= s->q_row && m->out_rows[k] < s->q_row + s->n_q) sum += m->logp[k];
    return sum;
}

static double target_count(const struct micro *m, int32_t seq) {
    const struct nt_attn_seq *s = &m->seqs[seq];
    double n = 0;
    for (int32_t k = 0; k < m->n_out; k++) n += m->out_rows[k] >= s->q_row && m->out_rows[k] < s->q_row + s->n_q;
    return n;
}

/* kto: mean over rows of what the model says of mismatched completions, less the reference. */
static nt_status estimate_kl(struct run *r, const struct nt_json *batch, struct micro *m, double *kl) {
    *kl = 0;
    memset(m, 0, sizeof *m);
    for (size_t i = 0; i < nt_json_len(batch); i++) {
        const struct nt_json *row = row_at(r, batch, i);
        add_sequence(m, field(row, "kl_ids"), NULL, nt_json_int(field(row, "n_prompt"), 0));
    }
    NT_TRY(forward(r, m, NT_FORWARD_EVAL));
    NT_TRY(nt_training_logprobs(r->training, m->targets, m->logp));
    for (int32_t i = 0; i < m->n_seq; i++)
        *kl += (logp_sum(m, i) - nt_json_num(field(row_at(r, batch, (size_t)i), "ref_kl"), 0)) / m->n_seq;
    if (*kl < 0) *kl = 0;
    return NT_OK;
}

/* The reference as our forward has it must be the golden one: the adapter off. */
static nt_status check_reference(struct run *r, const struct nt_json *batch, struct micro *m, bool pair) {
    NT_TRY(forward(r, m, NT_FORWARD_REFERENCE));
    NT_TRY(nt_training_logprobs(r->training, m->targets, m->logp));
    for (int32_t i = 0; i < m->n_seq; i++) {
        const struct nt_json *row = row_at(r, batch, (size_t)(pair ? i / 2 : i));
        const double want = nt_json_num(field(row, !pair ? "ref" : i % 2 ? "ref_rejected" : "ref_chosen"), 0);
        verdict(r, fabs(logp_sum(m, i) - want) < 3e-3 * fabs(want), "reference", logp_sum(m, i), want);
    }
    return NT_OK;
}

static nt_status preference_batch(struct run *r, int64_t step, const char *variant, double *loss) {
    const bool pair = strcmp(nt_json_str(field(r->doc, "kind"), NULL), "dpo") == 0;
    const struct nt_json *batch = batch_rows(r, step), *s = field(field(r->doc, "loss"), variant);
    const bool with_sft = strcmp(variant, "sigmoid_sft") == 0;
    const struct nt_loss *row = nt_loss_find(pair ? "dpo" : "kto", with_sft ? "sigmoid" : variant);
    const struct nt_loss_settings settings = {.beta = nt_json_num(field(s, "beta"), 0),
                                              .sft_weight = nt_json_num(nt_json_get(s, "sft_weight"), 0)};
    const double n = (double)nt_json_len(batch);
    struct micro *m = calloc(1, sizeof *m);
    double kl = 0, chosen_tokens = 0;
    NT_CHECK(m && row);
    if (row->kl) NT_TRY(estimate_kl(r, batch, m, &kl));
    memset(m, 0, sizeof *m);
    for (size_t i = 0; i < nt_json_len(batch); i++) {
        const struct nt_json *at = row_at(r, batch, i);
        const int64_t first = nt_json_int(field(at, "n_prompt"), 0);
        add_sequence(m, field(at, pair ? "chosen" : "ids"), NULL, first);
        if (pair) add_sequence(m, field(at, "rejected"), NULL, first);
        if (pair) chosen_tokens += target_count(m, m->n_seq - 2);
    }
    if (step == 0) NT_TRY(check_reference(r, batch, m, pair));
    NT_TRY(forward(r, m, NT_FORWARD_TRAIN));
    NT_TRY(nt_training_logprobs(r->training, m->targets, m->logp));
    *loss = 0;
    for (int32_t i = 0; i < m->n_seq; i += row->n_members) {
        const struct nt_json *at = row_at(r, batch, (size_t)(i / row->n_members));
        struct nt_loss_in in = {
            .kl = kl, .mean_target = chosen_tokens / n, .desirable = pair || nt_json_bool(field(at, "label"), false)};
        struct nt_loss_out out;
        for (int32_t k = 0; k < row->n_members; k++) {
            in.logp[k] = logp_sum(m, i + k);
            in.n_target[k] = target_count(m, i + k);
            in.reference[k] = nt_json_num(field(at, !pair ? "ref" : k ? "ref_rejected" : "ref_chosen"), 0);
        }
        row->run(&settings, &in, &out);
        const double weight =
            pair ? 1 : nt_json_num(field(s, in.desirable ? "desirable_weight" : "undesirable_weight"), 0);
        *loss += weight * out.loss / n;
        for (int32_t k = 0; k < row->n_members; k++) {
            const double d = weight * out.d[k] / n;
            const struct nt_attn_seq *q = &m->seqs[i + k];
            for (int32_t o = 0; o < m->n_out; o++)
                if (m->out_rows[o] >= q->q_row && m->out_rows[o] < q->q_row + q->n_q) m->coef[o] = (float)d;
        }
    }
    const nt_status st = nt_training_backward(r->training, m->targets, m->coef, NULL);
    free(m);
    return st;
}

static nt_status any_batch(struct run *r, int64_t step, const char *variant, double *loss, double *norm) {
    NT_TRY(nt_training_zero_grads(r->training));
    NT_TRY(variant[0] ? preference_batch(r, step, variant, loss) : sft_batch(r, step, MAX_SEQ, loss));
    return nt_training_reduce(r->training, norm);
}

/* ---- tensors --------------------------------------------------------------------------------------------------- */

struct tensor {
    struct nt_training_tensor info;
    int64_t n;
    float *ours, *want;
};

/* Tensor i of array, and "<what>.<name>" of the golden file; want NULL: it is not there. */
static nt_status get(struct run *r, int32_t i, enum nt_training_array array, const char *what, struct tensor *t) {
    char name[320];
    nt_training_tensor(r->training, i, &t->info);
    t->n = (int64_t)t->info.n_row * t->info.n_col;
    t->ours = malloc((size_t)t->n * sizeof *t->ours);
    t->want = malloc((size_t)t->n * sizeof *t->want);
    NT_CHECK(t->ours && t->want);
    NT_TRY(nt_training_get(r->training, i, array, t->ours));
    snprintf(name, sizeof name, "%s.%s%s", what, t->info.part == 'W' ? "" : "base_model.model.", t->info.name);
    const struct nt_tensor_info *found = nt_tensor_source_find(r->golden, name);
    if (found) return nt_tensor_source_read(r->golden, found, 0, nt_tensor_n_rows(found), NT_READ_F32, t->want);
    free(t->want);
    t->want = NULL;
    return NT_OK;
}

static void drop(struct tensor *t) {
    free(t->ours);
    free(t->want);
    *t = (struct tensor){0};
}

static double nmse(const float *a, const float *b, const float *origin, int64_t n) {
    double err = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        const double want = (double)b[i] - (origin ? origin[i] : 0), d = (double)a[i] - (double)b[i];
        err += d * d;
        norm += want * want;
    }
    return err / norm;
}

static double worst_of_torch(const struct nt_json *result) {
    return nt_json_num(field(field(field(result, "bf16_nmse"), "autocast"), "worst"), 0);
}

/* How far a loss of step s may be off: what bf16 costs torch on this case at most, and a share of the loss itself. */
static double loss_limit(const struct nt_json *result, double want) {
    const struct nt_json *bf16 = field(field(result, "bf16"), "losses"), *steps = field(result, "steps");
    double torch = 0;
    for (size_t s = 0; s < nt_json_len(steps); s++) {
        const double off =
            fabs(nt_json_num(nt_json_at(bf16, s), NAN) - nt_json_num(field(nt_json_at(steps, s), "loss"), NAN));
        if (off > torch) torch = off;
    }
    return WORST * torch + 2e-3 * fabs(want);
}

static nt_status check_grads(struct run *r, const char *what, const struct nt_json *result) {
    const double torch = worst_of_torch(result), limit = WORST * torch > FLOOR ? WORST * torch : FLOOR;
    double worst = 0;
    int n = 0;
    for (int32_t i = 0; i < nt_training_tensors(r->training); i++) {
        struct tensor t;
        NT_TRY(get(r, i, NT_TRAINING_GRAD, what, &t));
        NT_CHECK(t.want);
        const double found = nmse(t.ours, t.want, NULL, t.n);
        verdict(r, found <= limit, t.info.name, found, limit);
        if (found > worst) worst = found;
        n++;
        drop(&t);
    }
    printf("%d gradients, worst nmse %.2e (torch in bf16: %.2e, limit %.2e)\n", n, worst, torch, limit);
    return NT_OK;
}

/* All gradients behind each other. */
static nt_status all_grads(struct run *r, float **out, int64_t *n) {
    *n = nt_training_count(r->training);
    *out = malloc((size_t)*n * sizeof **out);
    NT_CHECK(*out);
    int64_t at = 0;
    for (int32_t i = 0; i < nt_training_tensors(r->training); i++) {
        struct nt_training_tensor info;
        nt_training_tensor(r->training, i, &info);
        NT_TRY(nt_training_get(r->training, i, NT_TRAINING_GRAD, *out + at));
        at += (int64_t)info.n_row * info.n_col;
    }
    return NT_OK;
}

/* ---- what is checked ------------------------------------------------------------------------------------------- */

static nt_status check_first(struct run *r, const char *variant, const struct nt_json *result) {
    double loss, norm;
    char what[64];
    snprintf(what, sizeof what, "grad%s%s", variant[0] ? "." : "", variant);
    NT_TRY(any_batch(r, 0, variant, &loss, &norm));
    const double want = nt_json_num(field(result, "value"), NAN),
                 want_norm = nt_json_num(field(result, "grad_norm"), NAN);
    printf("%s loss %.6f, golden %.6f; gradient norm %.5f, golden %.5f\n", variant, loss, want, norm, want_norm);
    verdict(r, fabs(loss - want) <= loss_limit(result, want), "loss", loss, want);
    verdict(r, fabs(norm - want_norm) <= 2e-2 * want_norm, "gradient norm", norm, want_norm);
    return check_grads(r, what, result);
}

/* Other ways to the same gradients. */
static nt_status check_same(struct run *r, const float *base, int64_t n, size_t rows, double limit, const char *what) {
    double loss, norm;
    float *again;
    int64_t count;
    NT_TRY(nt_training_zero_grads(r->training));
    NT_TRY(sft_batch(r, 0, rows, &loss));
    NT_TRY(nt_training_reduce(r->training, &norm));
    NT_TRY(all_grads(r, &again, &count));
    NT_CHECK(count == n);
    const bool equal = memcmp(again, base, (size_t)n * sizeof *base) == 0;
    const double found = equal ? 0 : nmse(again, base, NULL, n);
    printf("%s: %s\n", what, equal ? "bitwise equal" : "differs");
    verdict(r, found <= limit, what, found, limit);
    free(again);
    return NT_OK;
}

static struct nt_adamw read_adamw(const struct nt_json *o) {
    return (struct nt_adamw){.beta1 = nt_json_num(field(o, "beta1"), 0),
                             .beta2 = nt_json_num(field(o, "beta2"), 0),
                             .eps = nt_json_num(field(o, "eps"), 0),
                             .weight_decay = nt_json_num(field(o, "weight_decay"), 0),
                             .max_grad_norm = nt_json_num(field(o, "max_grad_norm"), 0)};
}

/* Every gradient is the golden one times scale. */
static nt_status set_grads(struct run *r, const char *what, float scale) {
    for (int32_t i = 0; i < nt_training_tensors(r->training); i++) {
        struct tensor t;
        NT_TRY(get(r, i, NT_TRAINING_GRAD, what, &t));
        NT_CHECK(t.want);
        for (int64_t k = 0; k < t.n; k++) t.want[k] *= scale;
        NT_TRY(nt_training_set(r->training, i, NT_TRAINING_GRAD, t.want));
        drop(&t);
    }
    return NT_OK;
}

/* The golden file has some weights of each tensor, evenly apart. */
static nt_status worst_alone(struct run *r, const char *what, double *worst, int64_t *n) {
    char name[320];
    for (int32_t i = 0; i < nt_training_tensors(r->training); i++) {
        struct tensor t;
        float some[N_ALONE];
        NT_TRY(get(r, i, NT_TRAINING_W, "", &t));
        const int64_t m = t.n < N_ALONE ? t.n : N_ALONE;
        snprintf(name, sizeof name, "%s.%s%s", what, t.info.part == 'W' ? "" : "base_model.model.", t.info.name);
        const struct nt_tensor_info *found = nt_tensor_source_find(r->golden, name);
        NT_CHECK(found && found->shape[0] == m);
        NT_TRY(nt_tensor_source_read(r->golden, found, 0, nt_tensor_n_rows(found), NT_READ_F32, some));
        for (int64_t k = 0; k < m; k++) {
            const double off = fabs((double)t.ours[k * t.n / m] - some[k]);
            if (!(off <= *worst)) *worst = off;
        }
        *n += m;
        drop(&t);
    }
    return NT_OK;
}

/* The optimizer alone: golden gradients in, golden weights out. */
static nt_status check_optimizer(struct run *r, const char *variant, const struct nt_json *result) {
    const struct nt_json *alone = nt_json_get(result, "alone"), *steps = nt_json_get(alone, "steps");
    char grad[64], what[64];
    double worst = 0;
    int64_t n = 0;
    if (!alone) return NT_OK;
    snprintf(grad, sizeof grad, "grad%s%s", variant[0] ? "." : "", variant);
    snprintf(what, sizeof what, "alone%s%s", variant[0] ? "." : "", variant);
    struct nt_adamw adamw = read_adamw(alone);
    for (size_t s = 0; s < nt_json_len(steps); s++) {
        const struct nt_json *step = nt_json_at(steps, s);
        NT_TRY(set_grads(r, grad, (float)nt_json_num(field(step, "scale"), NAN)));
        adamw.lr = nt_json_num(field(step, "lr"), 0);
        NT_TRY(nt_training_update(r->training, &adamw, (int64_t)s + 1, nt_json_num(field(step, "grad_norm"), 0)));
    }
    NT_TRY(worst_alone(r, what, &worst, &n));
    printf("optimizer alone: %lld weights, largest difference %.2e\n", (long long)n, worst);
    verdict(r, n > 0 && worst <= ALONE_LIMIT, "optimizer", worst, ALONE_LIMIT);
    return NT_OK;
}

static nt_status check_steps(struct run *r, const char *variant, const struct nt_json *result) {
    const struct nt_json *o = field(r->doc, "optimizer"), *steps = field(result, "steps");
    struct nt_adamw adamw = read_adamw(o);
    const int32_t n_tensor = nt_training_tensors(r->training);
    struct tensor *start = calloc((size_t)n_tensor, sizeof *start);
    double worst = 0, err = 0, way = 0;
    char what[64];
    NT_CHECK(start);
    for (int32_t i = 0; i < n_tensor; i++) NT_TRY(get(r, i, NT_TRAINING_W, "", &start[i]));
    const size_t n_step = nt_json_len(steps), n_run = r->max_steps < n_step ? r->max_steps : n_step;
    for (size_t s = 0; s < n_run; s++) {
        const struct nt_json *step = nt_json_at(steps, s);
        const double want = nt_json_num(field(step, "loss"), NAN);
        double loss, norm;
        NT_TRY(any_batch(r, (int64_t)s, variant, &loss, &norm));
        const double off = fabs(loss - want), limit = loss_limit(result, want);
        if (off > worst) worst = off;
        verdict(r, off <= limit, "loss of a step", loss, want);
        adamw.lr = nt_json_num(field(step, "lr"), 0);
        NT_TRY(nt_training_update(r->training, &adamw, (int64_t)s + 1, norm));
    }
    snprintf(what, sizeof what, "step20%s%s", variant[0] ? "." : "", variant);
    for (int32_t i = 0; i < n_tensor; i++) {
        struct tensor t;
        NT_TRY(get(r, i, NT_TRAINING_W, what, &t));
        for (int64_t k = 0; t.want && k < t.n && n_run == n_step; k++) {
            const double d = (double)t.ours[k] - t.want[k], w = (double)t.want[k] - start[i].ours[k];
            err += d * d;
            way += w * w;
        }
        drop(&t);
        drop(&start[i]);
    }
    free(start);
    const double torch = nt_json_num(nt_json_get(nt_json_get(result, "bf16"), "step20_nmse"), 1e-3);
    printf("%s %zu steps: losses off by at most %.2e; way of the weights nmse %.2e (torch in bf16: %.2e)\n", variant,
           n_run, worst, way > 0 ? err / way : 0, torch);
    /* torch's weights stay in f32, ours are rounded to bf16 for every forward once all of them are trained */
    const double limit = r->adapter ? WORST * torch : 2e-2;
    if (way > 0) verdict(r, err / way <= limit, "way of the weights", err / way, limit);
    return NT_OK;
}

static nt_status one_thread(struct run *r, const float *base, int64_t n) {
    struct nt_backend one, *two = r->backend;
    struct nt_pool *pool = NULL;
    NT_TRY(nt_pool_new(&pool, 1, false, r->world->node_rank, r->world->node_size));
    NT_TRY(nt_backend_open_cpu(&one, two->isa, pool));
    r->backend = &one;
    NT_TRY(open_run(r, NT_RECOMPUTE_NONE));
    NT_TRY(check_same(r, base, n, MAX_SEQ, 0, "one thread"));
    close_run(r);
    r->backend = two;
    nt_backend_close(&one);
    nt_pool_free(pool);
    return NT_OK;
}

static nt_status check_variant(struct run *r, const char *variant, const struct nt_json *result) {
    NT_TRY(open_run(r, NT_RECOMPUTE_NONE));
    NT_TRY(check_first(r, variant, result));
    float *base;
    int64_t n;
    NT_TRY(all_grads(r, &base, &n));
    if (!variant[0]) NT_TRY(check_same(r, base, n, 1, 1e-4, "row by row"));
    NT_TRY(check_optimizer(r, variant, result));
    close_run(r);
    for (int policy = NT_RECOMPUTE_SELECTIVE; policy <= NT_RECOMPUTE_FULL && !variant[0]; policy++) {
        NT_TRY(open_run(r, (enum nt_recompute)policy));
        NT_TRY(
            check_same(r, base, n, MAX_SEQ, 0, policy == NT_RECOMPUTE_FULL ? "full recompute" : "selective recompute"));
        close_run(r);
    }
    if (!variant[0] && nt_backend_is_host(r->backend)) NT_TRY(one_thread(r, base, n));
    free(base);
    NT_TRY(open_run(r, NT_RECOMPUTE_SELECTIVE));
    NT_TRY(check_steps(r, variant, result));
    close_run(r);
    return NT_OK;
}

static nt_status check_case(struct run *r) {
    char path[4096];
    NT_TRY(nt_path_join(path, sizeof path, r->folder, "case.json"));
    NT_TRY(nt_json_parse_file(path, 16 << 20, &r->doc));
    NT_TRY(nt_tensor_source_open_file(r->folder, "golden.safetensors", &r->golden));
    NT_TRY(nt_path_join(r->model_path, sizeof r->model_path, r->folder, nt_json_str(field(r->doc, "model"), NULL)));
    const struct nt_json *results = nt_json_get(r->doc, "results");
    if (!results) NT_TRY(check_variant(r, "", field(r->doc, "result")));
    for (void *it = nt_json_first(results); it; it = nt_json_next(results, it))
        NT_TRY(check_variant(r, nt_json_key(it), nt_json_value(it)));
    nt_tensor_source_close(r->golden);
    nt_json_free(r->doc);
    return NT_OK;
}

/* *missing: this machine cannot run it. */
static nt_status open_backend(struct nt_backend *be, const struct nt_world *w, const char *name, struct nt_pool *pool,
                              bool *missing) {
    enum nt_isa isa = NT_ISA_PORTABLE;
    if (strcmp(name, "cuda") == 0) return nt_backend_open_cuda(be, w->node_rank, pool);
    *missing = nt_isa_choose(name, &isa) != NT_OK;
    return *missing ? NT_OK : nt_backend_open_cpu(be, isa, pool);
}

static nt_status test_main(struct run *r, const char *backend_name, bool *missing) {
    struct nt_world world;
    NT_TRY(nt_world_open(&world));
    nt_log_init(world.rank, world.size, true);
    NT_TRY(nt_world_split(&world, world.size));
    struct nt_pool *pool = NULL;
    struct nt_backend backend;
    NT_TRY(nt_pool_new(&pool, 2, false, world.node_rank, world.node_size));
    NT_TRY(open_backend(&backend, &world, backend_name, pool, missing));
    if (!*missing) {
        r->world = &world;
        r->backend = &backend;
        NT_TRY(check_case(r));
        nt_backend_close(&backend);
    }
    nt_pool_free(pool);
    nt_world_close(&world);
    return NT_OK;
}

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    struct run r = {.folder = argv[1], .max_steps = SIZE_MAX};
    const char *backend = "auto";
    for (int i = 2; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--isa") == 0) backend = argv[i + 1];
        if (strcmp(argv[i], "--steps") == 0) r.max_steps = strtoul(argv[i + 1], NULL, 10);
    }
    bool missing = false;
    if (test_main(&r, backend, &missing) != NT_OK) {
        const struct nt_error *e = nt_error_last();
        printf("failed: %s\n", e->text);
        for (int i = 0; i < e->n_trail; i++) printf("  at %s:%d\n", e->trail[i].file, e->trail[i].line);
        return 1;
    }
    if (missing) {
        printf("skipped: %s\n", nt_error_last()->text);
        return 77;
    }
    printf("%s\n", r.bad ? "FAILED" : "ok");
    return r.bad ? 1 : 0;
}
