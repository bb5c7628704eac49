#include "cuda_check_gemm.h"

#include "gemm_cublaslt.h"
#include "rng.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* n_tok and n so that every tile is some shape's choice on a device of 40 to 200 multiprocessors; small: without the
 * largest ones. n: whole panels, as gated products want them. k: no multiple of any tile's depth. */
static const int32_t tok_counts[] = {1, 5, 17, 70, 130, 33, 64, 200, 256, 520, 1030, 2050, 12}; /* small: the first 5 */
static const int32_t widths[] = {96, 320, 2080, 576, 1056, 4128, 14432, 38624};                 /* small: the first 3 */
enum { N_COUNTS = sizeof tok_counts / sizeof tok_counts[0], N_WIDTHS = sizeof widths / sizeof widths[0] };
enum { SMALL_COUNTS = 5, SMALL_WIDTHS = 3, SMALL_TOK = 130, SMALL_N = 2080, SMALL_K = 72 };
enum { MAX_TOK = 2050, MAX_N = 38624, K = 264, LDX = K + 2, MAX_SAMPLE = 24, COLS = 96 };

/* Weights that are checked: host and device. */
struct checked_weights {
    enum nt_weight_format format;
    float *worth; // host: [max_n, k], what the format makes of w
    void *packed;
    char *device;
};
enum { N_FORMATS = 3 };
static const enum nt_weight_format formats[N_FORMATS] = {NT_WEIGHT_BF16_ROWS, NT_WEIGHT_INT4, NT_WEIGHT_INT8};

struct sweep {
    struct nt_backend *be;
    int32_t k, max_tok, max_n;
    nt_bf16 *x, *w;                                       // host: [max_tok, LDX], [max_n, k]
    float *bias, *y;                                      // host: [max_n], [max_tok, max_n]
    struct checked_weights weights[N_FORMATS];            /* w in each format */
    char *dx, *db;                                        /* device */
    char *dy, *done;                                      /* the product, and one row of it alone */
    struct nt_cuda_check_row worst[NT_CUDA_KERNEL_COUNT]; /* by kernel; name "": none yet */
    struct nt_cuda_check_row invariance, blaslt, blaslt_alone;
    uint64_t seed;
};

static float uniform(struct sweep *s) { /* (-1, 1) */
    uint32_t word[4];
    nt_philox(11, 0, s->seed++, word);
    return 2 * nt_unit_float(word[0]) - 1;
}

static bool is_f32(enum nt_gemm_out out) {
    return out == NT_GEMM_STORE_F32 || out == NT_GEMM_ADD_F32;
}
static bool is_gated(enum nt_gemm_out out) {
    return out == NT_GEMM_SWIGLU_BF16 || out == NT_GEMM_GEGLU_BF16;
}

/* ---- memory ---- */

static nt_status take(struct sweep *s, size_t bytes, const void *host, char **out) {
    void *p = NULL;
    NT_TRY(s->be->memory->take(s->be, bytes, "a checked product", &p));
    *out = p;
    return host ? s->be->memory->upload(s->be, p, host, bytes) : NT_OK;
}

static size_t x_bytes(const struct sweep *s) {
    return (size_t)s->max_tok * LDX * sizeof(nt_bf16);
}
static size_t w_bytes(const struct sweep *s) { /* k is a multiple of 8: no padding */
    return (size_t)s->max_n * (size_t)s->k * sizeof(nt_bf16);
}
static size_t packed_bytes(const struct sweep *s, enum nt_weight_format format) {
    return nt_packed_bytes(format, s->max_n, s->k);
}
static size_t y_bytes(const struct sweep *s) {
    return (size_t)s->max_tok * (size_t)s->max_n * sizeof(float);
}

/* The weights in a format, and what they are worth then. */
static void pack(const struct sweep *s, struct checked_weights *to) {
    const struct nt_packed w = {.format = to->format, .n = s->max_n, .k = s->k, .data = to->packed};
    for (int32_t n = 0; n < s->max_n; n++) nt_pack_row(&w, to->packed, n, s->w + (int64_t)n * s->k);
    if (!nt_weight_is_quantized(to->format)) {
        for (int64_t i = 0; i < (int64_t)s->max_n * s->k; i++) to->worth[i] = nt_bf16_to_f32(s->w[i]);
        return;
    }
    for (int32_t panel = 0; panel < s->max_n / NT_PANEL; panel++) {
        for (int32_t first = 0; first < s->k; first += NT_INT4_GROUP) {
            int8_t q[NT_INT4_GROUP][NT_PANEL];
            float scale[NT_PANEL];
            nt_unpack_block(&w, panel, first / NT_INT4_GROUP, q, scale);
            for (int32_t row = 0; row < NT_PANEL; row++)
                for (int32_t i = 0; i < NT_INT4_GROUP && first + i < s->k; i++)
                    to->worth[((int64_t)panel * NT_PANEL + row) * s->k + first + i] = scale[row] * (float)q[i][row];
        }
    }
}

static void fill_host(struct sweep *s) {
    const float scale = 1.5f / sqrtf((float)s->k);
    for (int64_t i = 0; i < (int64_t)s->max_tok * LDX; i++) s->x[i] = nt_f32_to_bf16(uniform(s));
    for (int64_t i = 0; i < (int64_t)s->max_n * s->k; i++) s->w[i] = nt_f32_to_bf16(uniform(s) * scale);
    for (int32_t i = 0; i < s->max_n; i++) s->bias[i] = uniform(s) / 2;
    for (int f = 0; f < N_FORMATS; f++) pack(s, &s->weights[f]);
}

static nt_status open_sweep(struct sweep *s) {
    s->x = malloc(x_bytes(s));
    s->w = malloc(w_bytes(s));
    s->bias = malloc((size_t)s->max_n * sizeof *s->bias);
    s->y = malloc(y_bytes(s));
    bool has_all = s->x && s->w && s->bias && s->y;
    for (int f = 0; f < N_FORMATS; f++) {
        struct checked_weights *w = &s->weights[f];
        w->format = formats[f];
        w->worth = malloc(2 * w_bytes(s)); /* floats */
        w->packed = calloc(1, packed_bytes(s, w->format));
        has_all = has_all && w->worth && w->packed;
    }
    if (!has_all) return NT_FAIL(NT_E_NOMEM, "no memory to check products");
    fill_host(s);
    NT_TRY(take(s, x_bytes(s), s->x, &s->dx));
    for (int f = 0; f < N_FORMATS; f++)
        NT_TRY(take(s, packed_bytes(s, formats[f]), s->weights[f].packed, &s->weights[f].device));
    NT_TRY(take(s, (size_t)s->max_n * sizeof *s->bias, s->bias, &s->db));
    NT_TRY(take(s, y_bytes(s), NULL, &s->dy));
    return take(s, (size_t)s->max_n * sizeof(float), NULL, &s->done);
}

static void close_sweep(struct sweep *s) {
    const struct nt_memory *m = s->be->memory;
    m->give(s->be, s->dx, x_bytes(s));
    for (int f = 0; f < N_FORMATS; f++) {
        m->give(s->be, s->weights[f].device, packed_bytes(s, formats[f]));
        free(s->weights[f].worth);
        free(s->weights[f].packed);
    }
    m->give(s->be, s->db, (size_t)s->max_n * sizeof *s->bias);
    m->give(s->be, s->dy, y_bytes(s));
    m->give(s->be, s->done, (size_t)s->max_n * sizeof(float));
    free(s->x);
    free(s->w);
    free(s->bias);
    free(s->y);
}

/* ---- one product ---- */

/* An adapter's product: its x2 are the first columns of x, its w2 the first values of w. */
enum { RANK = 24 };

static double dot(const struct sweep *s, const struct nt_gemm_args *a, int64_t t, int64_t row) {
    const float *worth = NULL;
    for (int f = 0; f < N_FORMATS; f++)
        if (formats[f] == a->w->format) worth = s->weights[f].worth + row * s->k;
    double sum = a->bias ? (double)s->bias[row] : 0;
    for (int32_t i = 0; i < s->k; i++) sum += (double)nt_bf16_to_f32(s->x[t * a->ldx + i]) * (double)worth[i];
    for (int32_t i = 0; i < (a->w2 ? RANK : 0); i++)
        sum += (double)nt_bf16_to_f32(s->x[t * a->ldx2 + i]) * (double)nt_bf16_to_f32(s->w[row * RANK + i]);
    return sum;
}

static double wanted(const struct sweep *s, const struct nt_gemm_args *a, int32_t t, int32_t j) {
    if (!is_gated(a->out)) return dot(s, a, t, j); /* y was zero before an addition */
    const double gate = dot(s, a, t, nt_packed_gate_row(j)), up = dot(s, a, t, nt_packed_up_row(j));
    if (a->out == NT_GEMM_SWIGLU_BF16) return gate / (1 + exp(-gate)) * up;
    return 0.5 * gate * (1 + tanh(0.7978845608028654 * (gate + 0.044715 * gate * gate * gate))) * up;
}

static double value_of(const void *y, enum nt_gemm_out out, int64_t at) {
    return is_f32(out) ? (double)((const float *)y)[at] : (double)nt_bf16_to_f32(((const nt_bf16 *)y)[at]);
}
static double got(const struct sweep *s, const struct nt_gemm_args *a, int64_t t, int64_t j) {
    return value_of(s->y, a->out, t * a->ldy + j);
}

/* The i-th of n_sample indices below n: the first two, the last two, the others spread between them. */
static int32_t sampled(int32_t i, int32_t n_sample, int32_t n) {
    if (n <= n_sample || i < 2) return i;
    if (i >= n_sample - 2) return n - n_sample + i;
    return (int32_t)((int64_t)i * (n - 1) / n_sample) | 1;
}

static double difference_of(const struct sweep *s, const struct nt_gemm_args *a) {
    const int32_t n = is_gated(a->out) ? a->w->n / 2 : a->w->n;
    const int32_t rows = a->n_tok < MAX_SAMPLE ? a->n_tok : MAX_SAMPLE, cols = n < COLS ? n : COLS;
    double error = 0, square = 0;
    for (int32_t r = 0; r < rows; r++) {
        for (int32_t c = 0; c < cols; c++) {
            const int32_t t = sampled(r, rows, a->n_tok), j = sampled(c, cols, n);
            const double want = wanted(s, a, t, j), d = got(s, a, t, j) - want;
            if (!isfinite(d)) return INFINITY;
            error += d * d;
            square += want * want;
        }
    }
    return error == 0 ? 0 : error / square;
}

static void keep_worst(struct nt_cuda_check_row *worst, double difference, double limit) {
    if (worst->name[0] && difference / limit <= worst->difference / worst->limit) return;
    worst->difference = difference;
    worst->limit = limit;
    worst->op = NT_OP_gemm;
}

/* 0: the same bits. */
static double row_difference(const struct nt_gemm_args *a, const void *row, const void *in_batch, size_t bytes) {
    double error = 0, square = 0;
    if (memcmp(row, in_batch, bytes) == 0) return 0;
    for (int64_t j = 0; j < a->ldy; j++) {
        const double want = value_of(in_batch, a->out, j), d = value_of(row, a->out, j) - want;
        error += d * d;
        square += want * want;
    }
    return isfinite(error) && error > 0 ? error / square : INFINITY;
}

/* Row t of the product alone beside what it was in the batch. */
static nt_status compare_alone(struct sweep *s, const struct nt_gemm_args *a, int32_t t, double *difference) {
    const size_t element = is_f32(a->out) ? sizeof(float) : sizeof(nt_bf16), bytes = (size_t)a->ldy * element;
    struct nt_gemm_args one = *a;
    one.x += t * a->ldx;
    if (one.x2) one.x2 += t * a->ldx2;
    one.y = s->done;
    one.n_tok = 1;
    char *row = malloc(bytes);
    if (!row) return NT_FAIL(NT_E_NOMEM, "no memory for a row");
    nt_status st = s->be->memory->zero(s->be, s->done, bytes);
    if (st == NT_OK) st = s->be->ops.gemm(s->be, &one);
    if (st == NT_OK) st = s->be->memory->download(s->be, row, s->done, bytes);
    *difference = st == NT_OK ? row_difference(a, row, (char *)s->y + (size_t)t * bytes, bytes) : INFINITY;
    free(row);
    return st;
}

/* Our own kernels: no other bits. */
static nt_status check_alone(struct sweep *s, const struct nt_gemm_args *a) {
    const int32_t rows[] = {0, a->n_tok - 1};
    for (int i = 0; i < 2; i++) {
        double difference = INFINITY;
        const nt_status st = compare_alone(s, a, rows[i], &difference);
        if (difference > 0) s->invariance.difference = INFINITY;
        NT_TRY(st);
    }
    return NT_OK;
}

static nt_status run_product(struct sweep *s, const struct nt_gemm_args *a, double *difference) {
    const size_t bytes = (size_t)a->n_tok * (size_t)a->ldy * (is_f32(a->out) ? sizeof(float) : sizeof(nt_bf16));
    NT_TRY(s->be->memory->zero(s->be, s->dy, bytes));
    NT_TRY(s->be->ops.gemm(s->be, a));
    NT_TRY(s->be->memory->download(s->be, s->y, s->dy, bytes));
    *difference = difference_of(s, a);
    return NT_OK;
}

static double limit_of(enum nt_gemm_out out) {
    return is_f32(out) ? 1e-6 : 1e-5; /* ops.h */
}

/* The kernel that the last product launched. */
static int launched_since(const struct nt_backend *be, const int64_t before[NT_CUDA_KERNEL_COUNT]) {
    for (int k = 0; k < NT_CUDA_KERNEL_COUNT; k++)
        if (be->cuda->functions[k].launches > before[k]) return k;
    return -1;
}

/* The library does not promise that rows have the same bits alone: the difference tells whether they have. */
static nt_status run_blaslt(struct sweep *s, const struct nt_gemm_args *a) {
    double difference = INFINITY, alone = INFINITY;
    const nt_status st = run_product(s, a, &difference);
    keep_worst(&s->blaslt, difference, limit_of(a->out));
    (void)snprintf(s->blaslt.name, sizeof s->blaslt.name, "gemm by cuBLASLt");
    NT_TRY(st);
    const nt_status compared = compare_alone(s, a, a->n_tok - 1, &alone);
    keep_worst(&s->blaslt_alone, alone, limit_of(a->out));
    (void)snprintf(s->blaslt_alone.name, sizeof s->blaslt_alone.name, "gemm by cuBLASLt, rows alone and in a batch");
    return compared;
}

/* cuBLASLt too, where it is and takes the product; min_rows says whether the op goes its way. */
static nt_status check_blaslt(struct sweep *s, const struct nt_gemm_args *a) {
    if (s->be->cuda->blas == NULL) return NT_OK;
    NT_TRY(nt_cublaslt_enable(s->be, 1));
    const nt_status st = nt_cublaslt_takes(s->be, a) ? run_blaslt(s, a) : NT_OK;
    NT_TRY(nt_cublaslt_enable(s->be, INT32_MAX));
    return st;
}

static nt_status check_shape(struct sweep *s, int32_t n_tok, int32_t n, int64_t ldx, enum nt_gemm_out out, int format,
                             bool adapter) {
    int64_t before[NT_CUDA_KERNEL_COUNT];
    const struct nt_packed w = {.format = formats[format], .n = n, .k = s->k, .data = s->weights[format].device};
    const struct nt_packed w2 = {.format = NT_WEIGHT_BF16_ROWS, .n = n, .k = RANK, .data = s->weights[0].device};
    const struct nt_gemm_args a = {.x = (const nt_bf16 *)(void *)s->dx,
                                   .ldx = ldx,
                                   .w = &w,
                                   .bias = out == NT_GEMM_STORE_BF16 ? NULL : (const float *)(void *)s->db,
                                   .y = s->dy,
                                   .ldy = is_gated(out) ? n / 2 : n,
                                   .n_tok = n_tok,
                                   .out = out,
                                   .x2 = adapter ? (const nt_bf16 *)(void *)s->dx : NULL,
                                   .ldx2 = ldx,
                                   .w2 = adapter ? &w2 : NULL};
    double difference = INFINITY;
    (void)snprintf(s->invariance.name, sizeof s->invariance.name, "gemm n_tok %d, n %d, ldx %lld, %s%s", n_tok, n,
                   (long long)ldx, nt_weight_format_name(w.format),
                   adapter ? ", adapter" : ""); /* until the end, for an error */
    nt_cuda_check_begin(s->be, before);
    NT_TRY(run_product(s, &a, &difference));
    const int k = launched_since(s->be, before);
    if (k >= 0) {
        struct nt_cuda_check_row *row = &s->worst[k];
        keep_worst(row, difference, limit_of(out));
        (void)snprintf(row->name, sizeof row->name, "gemm, kernel %s", nt_cuda_kernel_name((enum nt_cuda_kernel)k));
        row->launched[k] = true;
    }
    NT_TRY(check_alone(s, &a));
    return check_blaslt(s, &a);
}

static nt_status sweep_all(struct sweep *s, int n_counts, int n_widths) {
    int i = 0;
    for (int w = 0; w < n_widths; w++) {
        for (int t = 0; t < n_counts; t++, i++) {
            /* Rows of whole 16 bytes, and rows that only the kernels of compute capability 8.0 take. */
            const enum nt_gemm_out out = (enum nt_gemm_out)(i % NT_GEMM_OUT_COUNT);
            for (int adapter = 0; adapter < 2 - i % 2; adapter++) {
                for (int f = 0; f < N_FORMATS; f++) {
                    NT_TRY(check_shape(s, tok_counts[t], widths[w], s->k, out, f, adapter));
                    NT_TRY(check_shape(s, tok_counts[t], widths[w], s->k + 2, out, f, adapter));
                }
            }
        }
    }
    return NT_OK;
}

nt_status nt_cuda_check_gemm(struct nt_backend *be, bool small, struct nt_cuda_check *out) {
    struct sweep *s = calloc(1, sizeof *s);
    int64_t before[NT_CUDA_KERNEL_COUNT];
    if (!s) return NT_FAIL(NT_E_NOMEM, "no memory to check products");
    *s = (struct sweep){.be = be, .k = small ? SMALL_K : K, .max_tok = small ? SMALL_TOK : MAX_TOK};
    s->max_n = small ? SMALL_N : MAX_N;
    s->invariance = (struct nt_cuda_check_row){.name = "gemm, its buffers", .op = NT_OP_gemm};
    const bool had_blas = be->cuda->blas != NULL;
    if (!had_blas && nt_cublaslt_enable(be, INT32_MAX) != NT_OK) nt_error_clear();
    nt_status st = open_sweep(s);
    const bool opened = st == NT_OK;
    if (opened) st = sweep_all(s, small ? SMALL_COUNTS : N_COUNTS, small ? SMALL_WIDTHS : N_WIDTHS);
    if (st == NT_OK) (void)snprintf(s->invariance.name, sizeof s->invariance.name, "gemm, rows alone and in a batch");
    nt_cuda_check_begin(be, before);
    for (int k = 0; k < NT_CUDA_KERNEL_COUNT && opened; k++)
        if (s->worst[k].name[0]) nt_cuda_check_add(out, be, s->worst[k], NT_OK, before);
    if (s->blaslt.name[0]) nt_cuda_check_add(out, be, s->blaslt, NT_OK, before);
    if (s->blaslt_alone.name[0]) nt_cuda_check_add(out, be, s->blaslt_alone, NT_OK, before);
    nt_cuda_check_add(out, be, s->invariance, st, before);
    close_sweep(s);
    free(s);
    return NT_OK;
}
