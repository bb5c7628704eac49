#include "merge.h"
#include "adapter_io.h"
#include "arch_table.h"
#include "clock.h"
#include "comm.h"
#include "fileio.h"
#include "hash.h"
#include "hf_files.h"
#include "log.h"
#include "model_digest.h"
#include "outdir.h"
#include "pool.h"
#include "spec_bind.h"
#include "spec_read.h"
#include "tensor_source.h"
#include "tokload.h"
#include <limits.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WAVE = 1 << 23, STRIP = 1 << 17, MAX_NAME = 128 }; /* elements merged before they are written; by one thread */

/* One tensor of the output. */
struct item {
    const struct nt_tensor_info *from;
    const struct nt_lora *lora; /* NULL: only rounded */
    int linear;                 /* of the lora */
    int32_t perm_heads;         /* rows lie in pair order in the source; 0: plain */
    int64_t rows, cols, bytes;
    int32_t file;
    char name[MAX_NAME];
};

struct merge {
    const struct nt_merge_job *job;
    struct nt_tensor_source *src;
    struct nt_spec spec;
    struct nt_binding binding;
    struct nt_adapter *adapter;
    struct item *items; // [n_items]
    int64_t n_items;
    int32_t n_files;
    struct nt_merge_report *report;
};

/* A run of rows of one tensor, merged by one thread. */
struct strip {
    int64_t row0, row1;
    struct nt_merge_stats stats;
};

struct wave {
    const struct merge *m;
    const struct item *item;
    struct strip *strips; // [n_strips]
    int64_t n_strips, row0;
    uint16_t *out; // [rows of the wave, cols]
    atomic_bool failed;
    atomic_flag error_set;
    struct nt_error error;
};

/* --- arithmetic -------------------------------------------------------------------------------------------------- */

/* delta = sum_k b[k] A[k], k ascending */
static void delta_row(const struct nt_lora *l, int32_t r, int64_t row, float *restrict delta) {
    const float *b = l->b + row * r;
    memset(delta, 0, (size_t)l->in * sizeof *delta);
    for (int32_t k = 0; k < r; k++) {
        const float *restrict a = l->a + (int64_t)k * l->in;
        for (int32_t j = 0; j < l->in; j++) delta[j] += b[k] * a[j];
    }
}

static void merge_row(const float *restrict w, const float *restrict delta, float scale, int64_t n,
                      uint16_t *restrict out, struct nt_merge_stats *s) {
    double delta2 = 0, dot = 0, noise2 = 0, weight2 = 0, worst = 0;
    int64_t n_changed = 0;
    for (int64_t j = 0; j < n; j++) {
        const float d = scale * delta[j];
        const uint16_t was = nt_bf16_from_f32(w[j]), is = nt_bf16_from_f32(w[j] + d);
        const double made = (double)nt_f32_from_bf16(is) - (double)nt_f32_from_bf16(was), wanted = (double)d;
        out[j] = is;
        n_changed += was != is;
        delta2 += wanted * wanted;
        dot += made * wanted;
        noise2 += (made - wanted) * (made - wanted);
        weight2 += (double)w[j] * (double)w[j];
        worst = fmax(worst, fabs(wanted));
    }
    s->n += n;
    s->n_changed += n_changed;
    s->delta2 += delta2;
    s->dot += dot;
    s->noise2 += noise2;
    s->weight2 += weight2;
    s->worst = fmax(s->worst, worst);
}

static void add_stats(struct nt_merge_stats *to, const struct nt_merge_stats *s) {
    to->n += s->n;
    to->n_changed += s->n_changed;
    to->delta2 += s->delta2;
    to->dot += s->dot;
    to->noise2 += s->noise2;
    to->weight2 += s->weight2;
    to->worst = fmax(to->worst, s->worst);
}

static nt_status check_finite(const struct item *it, int64_t row, const uint16_t *out) {
    for (int64_t j = 0; j < it->cols; j++) {
        if ((out[j] & 0x7f80) == 0x7f80)
            return NT_FAIL(NT_E_DATA,
                           "tensor %s: the merged weight at [%lld, %lld] is not finite in bfloat16; the "
                           "adapter is damaged or its training diverged",
                           it->name, (long long)row, (long long)j);
    }
    return NT_OK;
}

static nt_status merge_strip(const struct wave *v, struct strip *s) {
    const struct item *it = v->item;
    const struct nt_adapter *a = v->m->adapter;
    const size_t n = (size_t)((s->row1 - s->row0 + 1) * it->cols);
    float *w = malloc(n * sizeof *w);
    if (!w) return NT_FAIL(NT_E_NOMEM, "tensor %s: no memory for %zu weights", it->name, n);
    float *delta = w + (s->row1 - s->row0) * it->cols;
    nt_status st = nt_tensor_source_read(v->m->src, it->from, s->row0, s->row1, NT_READ_F32, w);
    for (int64_t row = s->row0; row < s->row1 && st == NT_OK; row++) {
        const int64_t at = it->perm_heads ? nt_unpermute_qk_row(row, it->perm_heads, v->m->spec.d_head) : row;
        const float *from = w + (at - s->row0) * it->cols;
        uint16_t *out = v->out + (row - v->row0) * it->cols;
        if (it->lora) {
            delta_row(it->lora, a->r, row, delta);
            merge_row(from, delta, (float)nt_adapter_scale(a), it->cols, out, &s->stats);
        } else {
            nt_bf16_from_f32_n(from, it->cols, out);
        }
        st = check_finite(it, row, out);
    }
    free(w);
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}

/* --- one tensor -------------------------------------------------------------------------------------------------- */

static void merge_thread(void *arg, int thread, int n_threads) {
    (void)thread;
    (void)n_threads;
    struct wave *v = arg;
    struct nt_pool *pool = v->m->job->pool;
    for (int64_t i = nt_pool_next(pool, v->n_strips); i >= 0; i = nt_pool_next(pool, v->n_strips)) {
        if (atomic_load(&v->failed)) continue;
        nt_comm_beat(v->m->job->world);
        if (merge_strip(v, &v->strips[i]) == NT_OK) continue;
        if (!atomic_flag_test_and_set(&v->error_set)) nt_error_take(&v->error);
        atomic_store(&v->failed, true);
    }
}

/* Rows that a strip holds: whole heads where rows change places. */
static int64_t strip_rows(const struct merge *m, const struct item *it) {
    const int64_t unit = it->perm_heads ? m->spec.d_head : 1;
    const int64_t n = STRIP / (it->cols * unit);
    return (n < 1 ? 1 : n) * unit;
}

/* Rows [row0, row1) of one tensor: all threads, then into the file in order. */
static nt_status merge_wave(const struct merge *m, const struct item *it, int64_t row0, int64_t row1,
                            struct nt_tensor_writer *out) {
    const int64_t step = strip_rows(m, it);
    struct wave v = {.m = m, .item = it, .row0 = row0, .error_set = ATOMIC_FLAG_INIT};
    v.n_strips = (row1 - row0 + step - 1) / step;
    v.strips = calloc((size_t)v.n_strips, sizeof *v.strips);
    v.out = malloc((size_t)((row1 - row0) * it->cols) * sizeof *v.out);
    nt_status st = v.strips && v.out ? NT_OK : NT_FAIL(NT_E_NOMEM, "tensor %s: no memory to merge it", it->name);
    for (int64_t i = 0; i < v.n_strips && st == NT_OK; i++) {
        v.strips[i].row0 = row0 + i * step;
        v.strips[i].row1 = row0 + (i + 1) * step < row1 ? row0 + (i + 1) * step : row1;
    }
    if (st == NT_OK) {
        nt_pool_run(m->job->pool, merge_thread, &v);
        if (atomic_load(&v.failed)) {
            nt_error_give(&v.error);
            st = nt_trail_at(v.error.code, __FILE__, __LINE__);
        }
    }
    for (int64_t i = 0; i < v.n_strips && st == NT_OK && it->lora; i++)
        add_stats(&m->report->linear[it->linear], &v.strips[i].stats);
    if (st == NT_OK) st = nt_tensor_writer_append(out, v.out, (size_t)((row1 - row0) * it->cols) * sizeof *v.out);
    free(v.strips);
    free(v.out);
    return st;
}

static nt_status merge_item(const struct merge *m, const struct item *it, struct nt_tensor_writer *out) {
    const int64_t unit = strip_rows(m, it);
    int64_t step = WAVE / it->cols / unit * unit;
    if (step < unit) step = unit;
    for (int64_t row = 0; row < it->rows; row += step)
        NT_TRY(merge_wave(m, it, row, row + step < it->rows ? row + step : it->rows, out));
    return NT_OK;
}

/* --- what goes where --------------------------------------------------------------------------------------------- */

static int linear_of(enum nt_slot slot) {
    for (int i = 0; i < NT_LINEAR_COUNT; i++)
        if (nt_linear_slot((enum nt_linear)i) == slot) return i;
    return -1;
}

static void add_item(struct merge *m, int32_t layer, enum nt_slot slot) {
    const struct nt_tensor_info *from = nt_binding_get(&m->binding, layer, slot);
    const struct nt_slot_row *row = &nt_arch_find(m->spec.family)->slots[slot];
    if (!from || !row->hf) return;
    struct item *it = &m->items[m->n_items++];
    *it = (struct item){.from = from, .linear = linear_of(slot)};
    it->rows = nt_tensor_n_rows(from);
    it->cols = nt_tensor_n_cols(from);
    it->bytes = it->rows * it->cols * 2;
    nt_slot_name(row->hf, layer, it->name, sizeof it->name);
    if (it->linear >= 0 && nt_adapter_at(m->adapter, layer, (enum nt_linear)it->linear)->a)
        it->lora = nt_adapter_at(m->adapter, layer, (enum nt_linear)it->linear);
    if (!m->spec.qk_interleaved) return;
    if (slot == NT_SLOT_Q || slot == NT_SLOT_Q_BIAS) it->perm_heads = m->spec.n_head;
    if (slot == NT_SLOT_K || slot == NT_SLOT_K_BIAS) it->perm_heads = m->spec.n_kv;
}

static nt_status plan(struct merge *m) {
    m->items = calloc((size_t)m->spec.n_layer * NT_SLOT_COUNT, sizeof *m->items);
    if (!m->items) return NT_FAIL(NT_E_NOMEM, "%s: no memory for the plan of the merge", m->job->model);
    add_item(m, 0, NT_SLOT_EMBED);
    for (int32_t layer = 0; layer < m->spec.n_layer; layer++)
        for (int slot = NT_SLOT_ATTN_NORM; slot < NT_SLOT_COUNT; slot++) add_item(m, layer, (enum nt_slot)slot);
    add_item(m, 0, NT_SLOT_FINAL_NORM);
    add_item(m, 0, NT_SLOT_HEAD);
    int64_t in_file = 0;
    for (int64_t i = 0; i < m->n_items; i++) {
        struct item *it = &m->items[i];
        const bool next = m->job->shard_bytes > 0 && in_file > 0 && in_file + it->bytes > m->job->shard_bytes;
        if (i == 0 || next) {
            m->n_files++;
            in_file = 0;
        }
        it->file = m->n_files - 1;
        in_file += it->bytes;
        m->report->n_bytes += it->bytes;
        m->report->n_params += it->rows * it->cols;
    }
    m->report->n_tensors = m->n_items;
    m->report->n_files = m->n_files;
    return NT_OK;
}

/* --- the directory ----------------------------------------------------------------------------------------------- */

static void file_name(const struct merge *m, int32_t file, char *buf, size_t cap) {
    if (m->n_files == 1)
        (void)snprintf(buf, cap, "model.safetensors");
    else
        (void)snprintf(buf, cap, "model-%05d-of-%05d.safetensors", file + 1, m->n_files);
}

static nt_status write_weights(const struct merge *m, const char *dir, int32_t file) {
    char path[PATH_MAX], name[64];
    const struct nt_text_pair meta[] = {
        {"nocturne.base_sha256",    m->report->base_sha256   },
        {"nocturne.adapter_sha256", m->report->adapter_sha256}
    };
    int64_t first = 0, n = 0;
    while (m->items[first].file != file) first++;
    while (first + n < m->n_items && m->items[first + n].file == file) n++;
    file_name(m, file, name, sizeof name);
    NT_TRY(nt_path_join(path, sizeof path, dir, name));
    struct nt_tensor_entry *entries = calloc((size_t)n, sizeof *entries);
    if (!entries) return NT_FAIL(NT_E_NOMEM, "%s: no memory for its tensor table", path);
    for (int64_t i = 0; i < n; i++) {
        const struct item *it = &m->items[first + i];
        entries[i] = (struct nt_tensor_entry){
            .name = it->name, .dtype = NT_WDTYPE_BF16, .n_dims = it->from->n_dims, .shape = {it->rows, it->cols}
        };
    }
    struct nt_tensor_writer *out = NULL;
    nt_status st = nt_safetensors_create(path, entries, n, meta, 2, &out);
    for (int64_t i = 0; i < n && st == NT_OK; i++) st = merge_item(m, &m->items[first + i], out);
    if (st == NT_OK)
        st = nt_tensor_writer_finish(out);
    else
        nt_tensor_writer_abandon(out);
    free(entries);
    return st == NT_OK ? NT_OK : nt_trail_at(st, __FILE__, __LINE__);
}

static nt_status write_text(const char *dir, const char *name, const struct nt_strbuf *text) {
    char path[PATH_MAX];
    NT_TRY(nt_path_join(path, sizeof path, dir, name));
    return nt_publish_bytes(path, nt_strbuf_cstr(text), text->len, NT_PUBLISH_NEW);
}

static nt_status write_index(const struct merge *m, const char *dir) {
    struct nt_strbuf s = NT_STRBUF_INIT;
    char name[64];
    nt_strbuf_addf(&s, "{\n  \"metadata\": {\"total_size\": %lld},\n  \"weight_map\": {",
                   (long long)m->report->n_bytes);
    for (int64_t i = 0; i < m->n_items; i++) {
        file_name(m, m->items[i].file, name, sizeof name);
        nt_strbuf_addf(&s, "%s\n    \"%s\": \"%s\"", i ? "," : "", m->items[i].name, name);
    }
    nt_strbuf_adds(&s, "\n  }\n}\n");
    const nt_status st = write_text(dir, "model.safetensors.index.json", &s);
    nt_strbuf_release(&s);
    return st;
}

static nt_status write_card(const struct merge *m, const char *dir) {
    const struct nt_merge_report *r = m->report;
    struct nt_strbuf s = NT_STRBUF_INIT, json = NT_STRBUF_INIT;
    const char *base = m->adapter->base[0] ? m->adapter->base : r->base;
    nt_strbuf_adds(&s, "---\nlibrary_name: transformers\npipeline_tag: text-generation\nbase_model: ");
    nt_strbuf_add_json(&s, base, strlen(base));
    nt_strbuf_adds(&s, "\nbase_model_relation: finetune\ntags:\n- nocturne\n---\n\n# A merged LoRA adapter\n\n");
    nt_strbuf_addf(&s,
                   "W' = bf16(W + s B A), summed in float32 and rounded once; rank %d, s = %.9g.\n\n| | |\n| --- | --- "
                   "|\n| base | %s |\n| base sha256 | %s |\n| adapter | %s |\n| adapter sha256 | %s |\n\n",
                   r->r, r->scale, r->base, r->base_sha256, r->adapter, r->adapter_sha256);
    if (r->quantized_base)
        nt_strbuf_adds(&s, "The base's weights were quantized: what that cost is in these weights too.\n\n");
    if (r->other_base) nt_strbuf_adds(&s, "This base is not the model that the adapter was trained on.\n\n");
    nt_merge_report_md(r, &s);
    nt_merge_report_json(r, &json);
    nt_status st = write_text(dir, "README.md", &s);
    if (st == NT_OK) st = write_text(dir, "merge.json", &json);
    nt_strbuf_release(&s);
    nt_strbuf_release(&json);
    return st;
}

static nt_status fill(struct merge *m, const char *dir, double start) {
    NT_TRY(nt_hf_files_write(m->src, &m->spec, &m->binding, dir, &m->report->no_tokenizer));
    for (int32_t file = 0; file < m->n_files; file++) NT_TRY(write_weights(m, dir, file));
    if (m->n_files > 1) NT_TRY(write_index(m, dir));
    for (int i = 0; i < NT_LINEAR_COUNT; i++) add_stats(&m->report->total, &m->report->linear[i]);
    m->report->seconds = nt_now() - start;
    return write_card(m, dir);
}

/* --- the run ----------------------------------------------------------------------------------------------------- */

/* The tokenizer's digest; models without a tokenizer have none. */
static nt_status tokenizer_digest(const struct merge *m, uint8_t *out, bool *has) {
    struct nt_tok_bundle text = {0};
    *has = false;
    if (!m->adapter->has_tokenizer) return NT_OK;
    NT_TRY(nt_tokenizer_load(m->src->path, &text));
    nt_tokenizer_digest(text.tok, out);
    nt_tok_bundle_release(&text);
    *has = true;
    return NT_OK;
}

static nt_status other_base(nt_status st) {
    return st == NT_E_CONFIG ? NT_FAIL(st, "%s, or merge all the same with --any-base", nt_error_last()->text) : st;
}

static nt_status check_base(struct merge *m) {
    uint8_t base[NT_SHA256_BYTES], tokenizer[NT_SHA256_BYTES], file[NT_SHA256_BYTES];
    char path[PATH_MAX];
    bool has_tokenizer = false;
    NT_TRY(nt_model_digest_compute(m->src, m->job->world, m->job->pool, base));
    NT_TRY(tokenizer_digest(m, tokenizer, &has_tokenizer));
    NT_TRY(nt_path_join(path, sizeof path, m->job->adapter, "adapter_model.safetensors"));
    NT_TRY(nt_sha256_file(path, file));
    nt_hex(base, sizeof base, m->report->base_sha256);
    nt_hex(file, sizeof file, m->report->adapter_sha256);
    m->report->other_base = m->adapter->has_base && memcmp(base, m->adapter->base_digest, sizeof base) != 0;
    if (!m->job->any_base)
        return other_base(nt_adapter_check_base(m->adapter, m->job->adapter, base, has_tokenizer ? tokenizer : NULL));
    if (m->report->other_base)
        nt_warn("merge", "%s is not the model that %s was trained on (merge.any_base)", m->job->model, m->job->adapter);
    return NT_OK;
}

static void note_quantized(struct merge *m) {
    for (int64_t i = 0; i < m->src->n_tensors; i++)
        m->report->quantized_base = m->report->quantized_base || nt_wdtype_info(m->src->tensors[i].dtype)->block_n > 1;
    if (m->report->quantized_base)
        nt_warn("merge",
                "%s is quantized: the merged weights keep what quantizing cost; merge with the full-precision "
                "model where there is one (--any-base)",
                m->job->model);
}

static nt_status open_all(struct merge *m) {
    NT_TRY(nt_tensor_source_open(m->job->model, &m->src));
    NT_TRY(nt_spec_read(m->src, &m->spec));
    NT_TRY(nt_spec_bind(m->src, &m->spec, &m->binding));
    NT_TRY(nt_adapter_read(m->job->adapter, &m->spec, &m->adapter));
    m->report->r = m->adapter->r;
    m->report->scale = nt_adapter_scale(m->adapter);
    (void)snprintf(m->report->base, sizeof m->report->base, "%s", m->job->model);
    (void)snprintf(m->report->adapter, sizeof m->report->adapter, "%s", m->job->adapter);
    note_quantized(m);
    NT_TRY(check_base(m));
    return plan(m);
}

nt_status nt_merge_run(const struct nt_merge_job *job, struct nt_merge_report *report) {
    const double start = nt_now();
    struct merge m = {.job = job, .report = report};
    struct nt_outdir out = {0};
    *report = (struct nt_merge_report){0};
    nt_status st = NT_OK;
    NT_TRY_GOTO(st, release, nt_outdir_open(&out, job->output, NT_PUBLISH_NEW));
    NT_TRY_GOTO(st, release, open_all(&m));
    NT_TRY_GOTO(st, release, fill(&m, out.temp, start));
    NT_TRY_GOTO(st, release, nt_outdir_publish(&out));
release:
    nt_outdir_abandon(&out);
    free(m.items);
    nt_adapter_free(m.adapter);
    nt_binding_release(&m.binding);
    nt_tensor_source_close(m.src);
    return st;
}
