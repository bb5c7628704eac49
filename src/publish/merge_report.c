#include "merge.h"
#include <math.h>
#include <string.h>

double nt_merge_kept(const struct nt_merge_stats *s) {
    return s->delta2 > 0 ? s->dot / s->delta2 : NAN;
}

double nt_merge_noise(const struct nt_merge_stats *s) {
    return s->delta2 > 0 ? sqrt(s->noise2 / s->delta2) : NAN;
}

double nt_merge_changed(const struct nt_merge_stats *s) {
    return s->n > 0 ? (double)s->n_changed / (double)s->n : NAN;
}

/* Size of the delta beside the weights. */
static double relative(const struct nt_merge_stats *s) {
    return s->weight2 > 0 ? sqrt(s->delta2 / s->weight2) : NAN;
}

/* --- JSON --------------------------------------------------------------------------------------------------------- */

static void add_num(struct nt_strbuf *s, const char *key, double v) {
    nt_strbuf_addf(s, ",\"%s\":", key);
    nt_strbuf_add_json_num(s, v);
}

static void add_text(struct nt_strbuf *s, const char *key, const char *v) {
    nt_strbuf_addf(s, ",\"%s\":", key);
    nt_strbuf_add_json(s, v, strlen(v));
}

static void add_stats(struct nt_strbuf *s, const struct nt_merge_stats *m) {
    nt_strbuf_addf(s, "{\"weights\":%lld,\"weights_changed\":%lld", (long long)m->n, (long long)m->n_changed);
    add_num(s, "changed", nt_merge_changed(m));
    add_num(s, "kept", nt_merge_kept(m));
    add_num(s, "noise", nt_merge_noise(m));
    add_num(s, "delta_norm", sqrt(m->delta2));
    add_num(s, "delta_relative", relative(m));
    add_num(s, "delta_max", m->worst);
    nt_strbuf_addc(s, '}');
}

void nt_merge_report_json(const struct nt_merge_report *r, struct nt_strbuf *s) {
    nt_strbuf_adds(s, "{\"kind\":\"merge\"");
    add_text(s, "base", r->base);
    add_text(s, "base_sha256", r->base_sha256);
    add_text(s, "adapter", r->adapter);
    add_text(s, "adapter_sha256", r->adapter_sha256);
    nt_strbuf_addf(s, ",\"rank\":%d", r->r);
    add_num(s, "scale", r->scale);
    nt_strbuf_addf(s,
                   ",\"dtype\":\"bfloat16\",\"tensors\":%lld,\"parameters\":%lld,\"bytes\":%lld,\"files\":%d,"
                   "\"quantized_base\":%s,\"other_base\":%s,\"tokenizer\":%s",
                   (long long)r->n_tensors, (long long)r->n_params, (long long)r->n_bytes, r->n_files,
                   r->quantized_base ? "true" : "false", r->other_base ? "true" : "false",
                   r->no_tokenizer ? "false" : "true");
    add_num(s, "seconds", r->seconds);
    nt_strbuf_adds(s, ",\"total\":");
    add_stats(s, &r->total);
    nt_strbuf_adds(s, ",\"linears\":{");
    const char *comma = "";
    for (int i = 0; i < NT_LINEAR_COUNT; i++) {
        if (r->linear[i].n == 0) continue;
        nt_strbuf_addf(s, "%s\"%s\":", comma, nt_linear_name((enum nt_linear)i));
        add_stats(s, &r->linear[i]);
        comma = ",";
    }
    nt_strbuf_adds(s, "}}\n");
}

/* --- Markdown ----------------------------------------------------------------------------------------------------- */

static void add_row(struct nt_strbuf *s, const char *name, const struct nt_merge_stats *m) {
    nt_strbuf_addf(s, "| %s | %lld | %.3g | %.3g |", name, (long long)m->n, sqrt(m->delta2), relative(m));
    if (m->delta2 > 0)
        nt_strbuf_addf(s, " %.1f %% | %.1f %% | %.3f |\n", 100 * nt_merge_kept(m), 100 * nt_merge_changed(m),
                       nt_merge_noise(m));
    else
        nt_strbuf_adds(s, " - | - | - |\n"); // nothing to keep
}

void nt_merge_report_md(const struct nt_merge_report *r, struct nt_strbuf *s) {
    nt_strbuf_adds(s, "| linear | weights | norm of delta | of weights | kept | changed | noise |\n"
                      "| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n");
    for (int i = 0; i < NT_LINEAR_COUNT; i++)
        if (r->linear[i].n > 0) add_row(s, nt_linear_name((enum nt_linear)i), &r->linear[i]);
    add_row(s, "all", &r->total);
    nt_strbuf_adds(s, "\nkept: projection of what bf16 made of the delta on the delta. changed: share of the weights "
                      "whose value differs from\nthe base's. noise: size of the rounding error beside the delta.\n");
}
