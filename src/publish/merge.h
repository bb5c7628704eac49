/* Merging a LoRA adapter into its base: a bf16 Hugging Face directory that needs no adapter.
 *
 *   W' = bf16(W + s B A)   summed in float32, rounded once (nearest even)
 * The base may be a Hugging Face directory or a GGUF file (dequantized first; then config.json and the tokenizer's
 * files are written from its metadata); other tensors are rounded to bf16 as they are. One block of rows of one tensor
 * is in memory at a time. How much of the delta D = s B A came through the rounding is measured per linear:
 *   R = bf16(W + D) - bf16(W),   kept = <R, D> / <D, D>,   noise = |R - D| / |D|,   changed = share of R != 0
 * kept is near 1 even when most single steps are lost, because rounding is right on average; noise above 1 means that
 * the merged model is farther from base + adapter than the base itself.
 * The directory appears whole or not at all and never replaces another. Threading: called by one thread, uses the pool.
 * Errors: those of the readers, NT_E_CONFIG for an adapter of another base, NT_E_DATA for a sum that is not finite. */
#ifndef NT_MERGE_H
#define NT_MERGE_H

#include "adapter.h"
#include "strbuf.h"

struct nt_pool;
struct nt_world;

struct nt_merge_job {
    const char *model, *adapter, *output;
    int64_t shard_bytes; /* most tensor bytes of one safetensors file; 0: one file */
    bool any_base;       /* also a base that is not the one the adapter was trained on */
    struct nt_world *world;
    struct nt_pool *pool;
};

struct nt_merge_stats {
    int64_t n, n_changed;                       /* weights; those whose bf16 value changed */
    double delta2, dot, noise2, weight2, worst; /* |D|^2, <R, D>, |R - D|^2, |W|^2, largest |D| */
};

struct nt_merge_report {
    struct nt_merge_stats linear[NT_LINEAR_COUNT]; /* zero n: no adapter there */
    struct nt_merge_stats total;
    int64_t n_tensors, n_params, n_bytes;
    int32_t n_files, r;
    double scale, seconds;
    bool quantized_base, other_base, no_tokenizer;
    char base_sha256[65], adapter_sha256[65]; /* the model's digest; of adapter_model.safetensors */
    char base[256], adapter[256];
};

NT_MUST nt_status nt_merge_run(const struct nt_merge_job *job, struct nt_merge_report *report);

double nt_merge_kept(const struct nt_merge_stats *s); /* the three figures; NaN where nothing was merged */
double nt_merge_noise(const struct nt_merge_stats *s);
double nt_merge_changed(const struct nt_merge_stats *s);

void nt_merge_report_json(const struct nt_merge_report *r, struct nt_strbuf *out);
void nt_merge_report_md(const struct nt_merge_report *r, struct nt_strbuf *out);

#endif
