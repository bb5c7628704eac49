/* Plans against the closed formulae of a roofline: the ledger's sums of a real forward must be what the dimensions of a
 * model say, and the rates must be those of the formulae.
 *
 * With d, h, hd, kv, ffn, L, V: N = L (2 d h hd + 2 d kv hd + 3 d ffn); FLOP per token 2 N + 2 V d + 4 L h hd ctx;
 * cache bytes per token 2 L kv hd b. Decode step of B rows, context S, n GPUs: max(2 (N + V d) B / n / F,
 * (N + V d) w / n / BW) + max(attention FLOP, cache bytes) + (2 L) max(6 us, 2 (n-1)/n B d 2 / link). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "plan.h"
#include "spec_shape.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- the formulae ---- */

struct dims {
    const char *name;
    double n_layer, d, h, kv, hd, ffn, vocab;
    bool tied;
};
static const struct dims models[] = {
    {"smollm2-135m", 30, 576,  9,  3, 64,  1536,  49152,  true },
    {"llama3-8b",    32, 4096, 32, 8, 128, 14336, 128256, false},
    {"llama3-70b",   80, 8192, 64, 8, 128, 28672, 128256, false},
};
enum { SMOL, L8B, L70B, N_MODELS };
enum { BF16, BF16_KV8, INT8_KV8, INT4_KV8 };

static double linear(const struct dims *m) {
    return m->n_layer * (2 * m->d * m->h * m->hd + 2 * m->d * m->kv * m->hd + 3 * m->d * m->ffn);
}
static double head(const struct dims *m) {
    return m->vocab * m->d;
}
static double attention_flops(const struct dims *m, double ctx) {
    return 4 * m->n_layer * m->h * m->hd * ctx;
}
static double weight_width(int precision) {
    return precision == INT4_KV8 ? 0.5 + 2.0 / 128 : precision == INT8_KV8 ? 1 + 2.0 / 128 : 2;
}
/* int8 has a scale of 4 bytes per head and position. */
static double kv_bytes(const struct dims *m, int precision) {
    return 2 * m->n_layer * m->kv * (precision == BF16 ? 2 * m->hd : m->hd + 4);
}

static double decode_seconds(const struct dims *m, double B, double ctx, double n, const struct nt_gpu *g) {
    const double w = linear(m) + head(m);
    const double gemm = fmax(2 * w * B / n / g->flops, w * 2 / n / g->bandwidth);
    const double attention =
        fmax(attention_flops(m, ctx) * B / n / g->flops, kv_bytes(m, BF16) * B * ctx / n / g->bandwidth);
    const double comm = n == 1 ? 0 : 2 * m->n_layer * fmax(6e-6, 2 * (n - 1) / n * B * m->d * 2 / g->link);
    return gemm + attention + comm;
}

/* Answer tokens per second and GPU of an endless offline job; *seqs: B. */
static double offline(const struct dims *m, double in, double out, double n, int precision, const struct nt_gpu *g,
                      double *seqs) {
    const double l = linear(m), v = head(m), kv = kv_bytes(m, precision);
    const double read = l * weight_width(precision) + v * 2; /* the head stays bf16 */
    const double resident = read + v * 2;                    /* a tied embedding is kept twice */
    *seqs = (n * g->memory * 0.92 - resident - 2e9 * n) / ((in + out / 2) * kv);
    const double gemm = fmax((2 * l * (in + out) + 2 * v * out) / n / g->flops, read * out / *seqs / n / g->bandwidth);
    const double prefill = attention_flops(m, in / 2) * in / n / g->flops;
    const double decode = out * (in + out / 2) * kv / n / g->bandwidth;
    const double comm = n == 1 ? 0 : 2 * m->n_layer * (in + out) * m->d * 2 * 2 * (n - 1) / n / g->link;
    return out / (gemm + prefill + decode + comm) / n;
}

/* ---- plans ---- */

static void close_to(double value, double expected, double tolerance, const char *what) {
    if (fabs(value - expected) <= tolerance * fabs(expected)) return;
    print_error("%s: %.6g, expected %.6g within %.1f %%\n", what, value, expected, 100 * tolerance);
    fail();
}

static struct nt_plan plan_on(const struct nt_gpu *gpu, int model, int precision, int32_t tp, int32_t in, int32_t out,
                              int32_t seqs) {
    static struct nt_spec spec;
    static struct nt_plan p;
    int32_t n;
    assert_int_equal(nt_spec_of(models[model].name, &spec), NT_OK);
    const struct nt_plan_job job = {.spec = &spec,
                                    .gpu = gpu,
                                    .precision = &nt_plan_precisions(&n)[precision],
                                    .tp = tp,
                                    .in = in,
                                    .out = out,
                                    .seqs = seqs,
                                    .wire_bytes = 2};
    assert_int_equal(nt_plan_make(&job, &p), NT_OK);
    return p;
}

static struct nt_plan plan(int model, const char *gpu, int precision, int32_t tp, int32_t in, int32_t out,
                           int32_t seqs) {
    assert_non_null(nt_gpu_find(gpu));
    return plan_on(nt_gpu_find(gpu), model, precision, tp, in, out, seqs);
}

/* One token at context 1024 on one GPU: FLOP, weights and cache from the ledger are those of the formulae, exactly but
 * for norms and the embedding row. */
static void test_work_per_token(void **state) {
    (void)state;
    static const double gflop[] = {0.340, 15.55, 141.7}, weights_gb[] = {0.269, 15.0, 139}, kv_kib[] = {22.5, 128, 320};
    for (int i = 0; i < N_MODELS; i++) {
        const struct dims *m = &models[i];
        const struct nt_plan p = plan(i, "h200", BF16, 1, 1023, 2, 1);
        const struct nt_plan_row *row = p.decode.row;
        assert_true(row[NT_OP_gemm].cost.flops == 2 * linear(m));
        assert_true(row[NT_OP_gemm].cost.stored_bytes == 2 * linear(m));
        /* 15 for the draw of a token beside 2 d_model */
        close_to(row[NT_OP_head_argmax].cost.flops, 2 * head(m), 0.014, "work of the head");
        assert_true(row[NT_OP_head_argmax].cost.stored_bytes == 2 * head(m));
        assert_true(row[NT_PLAN_DECODE_ATTENTION].cost.flops == attention_flops(m, 1024));
        assert_true(row[NT_PLAN_DECODE_ATTENTION].cost.stored_bytes == kv_bytes(m, BF16) * 1024);
        assert_true(p.position_bytes == kv_bytes(m, BF16) && p.position_bytes == kv_kib[i] * 1024);
        const double products = row[NT_OP_gemm].cost.flops + 2 * head(m);
        const double flops = products + row[NT_PLAN_DECODE_ATTENTION].cost.flops;
        close_to(flops / 1e9, gflop[i], 0.002, "GFLOP per token");
        close_to((row[NT_OP_gemm].cost.stored_bytes + row[NT_OP_head_argmax].cost.stored_bytes) / 1e9, weights_gb[i],
                 0.005, "GB of weights per step");
        close_to(p.weight_bytes, 2 * (linear(m) + 2 * head(m)), 0.001, "bytes of weights");
    }
}

/* Per layer: two norms, four products, rope, attention in two kernels; two all-reduces with tp. Tokens are drawn by the
 * head in two kernels, and with tp a last one takes the best pair of all ranks, behind NCCL where there are more than
 * two. */
static void test_launches(void **state) {
    (void)state;
    for (int32_t tp = 1; tp <= 2; tp++) {
        const struct nt_plan p = plan(L8B, "h100", BF16, tp, 1000, 1000, 32);
        /* ends: the tokens of the step before, embedding, rows that are drawn, norm */
        const int64_t layers = 32 * (2 + 4 + 1 + 2), ends = 1 + 1 + 2 + 1, head = 2;
        assert_int_equal(p.decode.total.launches, layers + ends + head + (tp > 1 ? 2 * 32 + 2 : 0));
        assert_int_equal(p.decode.row[NT_PLAN_ALLREDUCE].cost.launches, tp > 1 ? 66 : 0);
        /* every sum of 32 rows of d_model, two bytes each as the plan was asked for, and the rows' pairs */
        assert_true(p.decode.row[NT_PLAN_ALLREDUCE].cost.read_bytes == (tp > 1 ? (65 * 4096 + 1) * 32 * 2.0 : 0));
        assert_int_equal(p.decode.row[NT_OP_gemm].cost.launches, 4 * 32);
        assert_int_equal(p.decode.row[NT_OP_head_argmax].cost.launches, head);
        assert_int_equal(p.decode.row[NT_OP_logit_sample].cost.launches, 0);
        assert_int_equal(p.decode.row[NT_PLAN_PREFILL_ATTENTION].cost.launches, 0);
        /* no launch for short sequences where there is none; rows beside the prompts, of several splits, need two; the
         * states of 8000 prompt tokens fit the workspace in three goes, those of half the heads in two */
        assert_int_equal(p.prefill.row[NT_PLAN_PREFILL_ATTENTION].cost.launches, 32 * (tp == 1 ? 3 : 2));
        assert_int_equal(p.prefill.row[NT_PLAN_DECODE_ATTENTION].cost.launches, 0);
        assert_int_equal(p.mixed.row[NT_PLAN_DECODE_ATTENTION].cost.launches, 2 * 32);
    }
    /* Two GPUs sum up to 256 KiB from each other's memory, and the norm behind a branch does it in its own launch. */
    for (int32_t rows = 16; rows <= 17; rows++) {
        const struct nt_plan p = plan(L8B, "h100", BF16, 2, 1000, 1000, rows);
        assert_int_equal(p.decode.row[NT_PLAN_ALLREDUCE].cost.launches, rows == 16 ? 2 : 66);
        assert_int_equal(p.decode.row[NT_OP_rmsnorm].cost.launches, 2 * 32 + 1);
        assert_true(p.decode.row[NT_PLAN_ALLREDUCE].cost.read_bytes == (65 * 4096 + 1) * rows * 2.0);
    }
    const struct nt_plan four = plan(L8B, "h100", BF16, 4, 1000, 1000, 16);
    assert_int_equal(four.decode.row[NT_PLAN_ALLREDUCE].cost.launches, 67);
}

/* Decode rates per GPU, bf16, context 1024, H100 (published roofline table). */
static void test_decode_table(void **state) {
    (void)state;
    static const struct {
        int model;
        int32_t tp, seqs;
        double rate;
    } rows[] = {
        {SMOL, 1, 1,    11451 },
        {SMOL, 1, 32,   104694},
        {SMOL, 1, 1024, 136718},
        {L8B,  1, 1,    221   },
        {L8B,  1, 32,   5553  },
        {L8B,  1, 256,  17371 },
        {L8B,  2, 256,  16511 },
        {L8B,  4, 1,    165   },
        {L8B,  4, 32,   4384  },
        {L8B,  4, 1024, 16073 },
        {L8B,  8, 32,   3622  },
        {L8B,  8, 1024, 13979 },
        {L70B, 4, 32,   659   },
        {L70B, 4, 256,  3365  },
        {L70B, 8, 1,    20    },
        {L70B, 8, 256,  2909  },
        {L70B, 8, 1024, 3104  },
    };
    const struct nt_gpu *g = nt_gpu_find("h100");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct nt_plan p = plan(rows[i].model, "h100", BF16, rows[i].tp, 1023, 2, rows[i].seqs);
        const double formula = decode_seconds(&models[rows[i].model], rows[i].seqs, 1024, rows[i].tp, g);
        close_to(p.decode.ideal_s, formula, 0.012, "seconds of a decode step");
        close_to(rows[i].seqs / p.decode.ideal_s / rows[i].tp, rows[i].rate, 0.03, "decode rate");
    }
}

/* Offline rates per GPU against formula and published table; 0: not in the table. */
static void test_offline_table(void **state) {
    (void)state;
    static const struct {
        int model;
        const char *gpu;
        int precision;
        int32_t tp, in, out;
        double rate;
    } rows[] = {
        {L8B,  "h100",    BF16,     1, 128,   2048, 16362 },
        {L8B,  "h100",    BF16,     1, 1000,  1000, 11336 },
        {L8B,  "h100",    BF16,     1, 2048,  128,  3011  },
        {L8B,  "h100",    BF16_KV8, 1, 128,   2048, 25920 },
        {L8B,  "h100",    BF16_KV8, 1, 1000,  1000, 16987 },
        {L8B,  "h100",    BF16_KV8, 1, 2048,  128,  3439  },
        {L8B,  "h100",    INT4_KV8, 1, 1000,  1000, 16987 },
        {SMOL, "h100",    BF16,     1, 128,   2048, 121827},
        {SMOL, "h100",    BF16,     1, 1000,  1000, 92272 },
        {L70B, "h100",    BF16,     4, 1000,  1000, 2014  },
        {L70B, "h100",    BF16,     8, 1000,  1000, 1695  },
        {L70B, "h100",    BF16_KV8, 4, 1000,  1000, 2362  },
        {L70B, "h100",    BF16_KV8, 8, 1000,  1000, 1936  },
        {L70B, "h100",    INT4_KV8, 1, 1000,  1000, 2830  },
        {L8B,  "a100-80", BF16,     1, 128,   2048, 8005  },
        {L8B,  "a100-80", BF16,     1, 1000,  1000, 5261  },
        {L70B, "h200",    BF16_KV8, 2, 1000,  1000, 0     },
        {L8B,  "l40s",    INT4_KV8, 1, 300,   700,  0     },
        {L8B,  "l40s",    INT8_KV8, 1, 300,   700,  0     },
        {L8B,  "h100",    BF16,     1, 20000, 2000, 0     },
        {SMOL, "b200",    BF16_KV8, 1, 300,   300,  0     },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct nt_plan p =
            plan(rows[i].model, rows[i].gpu, rows[i].precision, rows[i].tp, rows[i].in, rows[i].out, 0);
        double seqs;
        const double rate = offline(&models[rows[i].model], rows[i].in, rows[i].out, rows[i].tp, rows[i].precision,
                                    nt_gpu_find(rows[i].gpu), &seqs);
        char what[128];
        snprintf(what, sizeof what, "%s %s precision %d tp %d %d/%d", models[rows[i].model].name, rows[i].gpu,
                 rows[i].precision, rows[i].tp, rows[i].in, rows[i].out);
        assert_true(p.fits);
        close_to(p.seqs, seqs, 0.005, what);
        close_to(p.ideal, rate, 0.03, what);
        if (rows[i].rate > 0) close_to(p.ideal, rows[i].rate, 0.03, what);
        assert_true(p.practical < p.ideal && p.ideal <= p.overlapped * 1.0001);
        assert_true(p.practical > 0.5 * p.ideal);
    }
}

/* The published split of an ideal step, in per cent: products, prefill attention, decode attention, communication. */
static void test_split(void **state) {
    (void)state;
    struct nt_gpu gpu = *nt_gpu_find("a100-80");
    gpu.link = 450e9; /* the table has the link of an H100 everywhere */
    const struct nt_plan a100 = plan_on(&gpu, L70B, BF16, 8, 1000, 1000, 0);
    static const double expected[] = {68, 0, 19, 13};
    const int rows[] = {NT_OP_gemm, NT_PLAN_PREFILL_ATTENTION, NT_PLAN_DECODE_ATTENTION, NT_PLAN_ALLREDUCE};
    double sum = 0;
    for (int i = 0; i < 4; i++) {
        double share = 100 * a100.mixed.row[rows[i]].ideal_s / a100.mixed.ideal_s;
        if (i == 0) share += 100 * a100.mixed.row[NT_OP_head_argmax].ideal_s / a100.mixed.ideal_s;
        assert_true(fabs(share - expected[i]) < 1);
        sum += share;
    }
    assert_true(sum > 99.8 && sum < 100.0001);
    close_to(a100.ideal, 774, 0.03, "70B on 8 A100");
    close_to(a100.seqs, 878, 0.01, "sequences on 8 A100");
}

/* What the table of precisions is for: 70B in int4 on one H100 beats bf16 on eight, per GPU, by 1.67. */
static void test_precision_pays(void **state) {
    (void)state;
    const struct nt_plan one = plan(L70B, "h100", INT4_KV8, 1, 1000, 1000, 0);
    const struct nt_plan eight = plan(L70B, "h100", BF16, 8, 1000, 1000, 0);
    close_to(one.ideal / eight.ideal, 1.67, 0.02, "int4 on one against bf16 on eight");
    assert_false(plan(L70B, "h100", BF16, 1, 1000, 1000, 0).fits);
    assert_false(plan(L8B, "a100-40", BF16, 1, 1000, 1000, 512).fits);
    /* as generate admits them: whole pages of prompt and answer */
    assert_true(one.admitted < one.seqs && one.admitted > 0.7 * one.seqs);
    assert_true(one.kv_occupied == 1500.0 / (32 * 64));
    const struct nt_plan again = plan(L70B, "h100", INT4_KV8, 1, 1000, 1000, 0);
    assert_memory_equal(&one, &again, sizeof one);
}

/* Short rows by the thousand: not the cache but the activations of a step are what does not fit. */
static void test_activations(void **state) {
    (void)state;
    const struct nt_plan p = plan(L8B, "h100", BF16, 1, 10, 10, 0);
    const double left = nt_gpu_find("h100")->memory - p.weight_bytes - p.kv_bytes;
    assert_true(p.fits && p.seqs >= 6000 && p.seqs < 0.5 * p.cached_seqs);
    assert_true(p.activation_bytes <= left && p.activation_bytes > 0.8 * left);
    assert_true(plan(L8B, "h100", BF16, 1, 10, 10, 6000).fits);
    assert_false(plan(L8B, "h100", BF16, 1, 10, 10, 8000).fits);
    const struct nt_plan few = plan(L8B, "h100", BF16, 1, 1000, 1000, 4);
    close_to(few.kv_occupied, 4 * 1500.0 / (few.admitted * 2048.0), 1e-9, "what four rows occupy");
}

/* A row's share, counted out: logits and what they were before edits; its inputs; and with what its token is drawn. */
static void test_activations_of_a_row(void **state) {
    (void)state;
    const double logits = 2 * 128256 * 4.0, last_layer = 4096 * (4 + 2.0), pair = 8;
    const double inputs = 24 + 4 + 4 + 4 * 32; /* sequence, row, row of the step before, 32 pages */
    const double lists = 256 * 8, noise = 20, stats = 12, drawn = 8, picks = 8, row = 4, scale = 4, penalties = 20;
    const double rules = 2 * 8 + 6 * 4, answer = 4 * (1 + 3 + 2 * 20);
    const double said = lists + noise + stats + drawn + picks + row + scale + penalties + rules + answer;
    const double few = plan(L8B, "h100", BF16, 1, 1000, 1000, 600).activation_bytes;
    const double more = plan(L8B, "h100", BF16, 1, 1000, 1000, 700).activation_bytes;
    close_to((more - few) / 100, logits + last_layer + pair + inputs + said, 1e-5, "device memory of a row");
    /* over two ranks: half the logits, but lists of pairs of this rank and of both, and what this rank says of them */
    const double few2 = plan(L8B, "h100", BF16, 2, 1000, 1000, 600).activation_bytes;
    const double more2 = plan(L8B, "h100", BF16, 2, 1000, 1000, 700).activation_bytes;
    const double gathered = 3 * 4.0 * (2 * 256 + 4) + 2 * 4 * (3 + 2 * 20);
    close_to((more2 - few2) / 100, (logits + last_layer) / 2 + 2048 * 4 + 3 * pair + inputs + said + gathered, 1e-5,
             "device memory of a row over two ranks");
}

/* 8371 rows of this vocabulary leave their best pairs in the workspace at once. */
static void test_split_launches(void **state) {
    (void)state;
    struct nt_plan p = plan(L8B, "h200", BF16, 1, 10, 10, 8371);
    assert_int_equal(p.decode.n_decode, 8371);
    assert_int_equal(p.decode.row[NT_OP_head_argmax].cost.launches, 2);
    p = plan(L8B, "h200", BF16, 1, 10, 10, 8372);
    assert_int_equal(p.decode.row[NT_OP_head_argmax].cost.launches, 4);
}

/* A model too wide for its heads, too long a sequence, and specs by name, directory and file. */
static void test_errors_and_names(void **state) {
    (void)state;
    struct nt_spec spec, from_file;
    int32_t n;
    assert_int_equal(nt_spec_of("smollm2-135m", &spec), NT_OK);
    struct nt_plan_job job = {.spec = &spec, .gpu = nt_gpu_find("h100"), .tp = 16, .in = 10, .out = 10};
    job.precision = nt_plan_precisions(&n);
    struct nt_plan p;
    assert_int_equal(nt_plan_make(&job, &p), NT_E_CONFIG);
    job.tp = 1;
    job.in = spec.max_len;
    assert_int_equal(nt_plan_make(&job, &p), NT_E_CONFIG);
    assert_int_equal(nt_spec_of("llama3-80b", &from_file), NT_E_NOINPUT);
    assert_non_null(strstr(nt_error_last()->text, "maybe: llama3-"));

    char dir[] = "/tmp/nt_plan_XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/config.json", dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "{\"architectures\": [\"LlamaForCausalLM\"], \"hidden_size\": 576, \"intermediate_size\": 1536, "
               "\"num_hidden_layers\": 30, \"num_attention_heads\": 9, \"num_key_value_heads\": 3, \"vocab_size\": "
               "49152, \"max_position_embeddings\": 8192, \"rope_theta\": 100000, \"rms_norm_eps\": 1e-5, "
               "\"tie_word_embeddings\": true}");
    fclose(f);
    assert_int_equal(nt_spec_of(path, &from_file), NT_OK);
    assert_memory_equal(&from_file, &spec, sizeof spec);
    assert_int_equal(nt_spec_of(dir, &from_file), NT_OK);
    assert_memory_equal(&from_file, &spec, sizeof spec);
    unlink(path);
    assert_int_not_equal(nt_spec_of(dir, &from_file), NT_OK);
    rmdir(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_work_per_token),
        cmocka_unit_test(test_launches),
        cmocka_unit_test(test_decode_table),
        cmocka_unit_test(test_offline_table),
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_precision_pays),
        cmocka_unit_test(test_activations),
        cmocka_unit_test(test_errors_and_names),
        cmocka_unit_test(test_activations_of_a_row),
        cmocka_unit_test(test_split_launches),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
