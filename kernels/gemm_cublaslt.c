#include "gemm_cublaslt.h"

#include "gemm_cuda.h"
#include "gpu_api.h"
#include "log.h"
#include <stdlib.h>
#include <string.h>

enum { MAX_KINDS = 64, N_WANTED = 16, ALIGNMENT = 16 /* of operands, in bytes */ };

/* Products that share an algorithm. */
struct kind {
    int32_t n, k;
    enum nt_gemm_out out;
    bool bias;
    struct nt_blaslt_algo algo;
};

struct nt_cublaslt {
    struct nt_gpu_blaslt api;
    void *handle;
    int32_t min_rows;
    int64_t n_products; /* so far, captured ones counted once */
    int n_kinds;
    struct kind kinds[MAX_KINDS];
};

/* One product in the library's terms. It is column-major, so it sees y as [n][n_tok], x as [k][n_tok] and the rows of
 * the weights as [k][n], to be transposed. */
struct problem {
    void *desc, *a, *b, *d;
};

static nt_status failed(const struct nt_cublaslt *blas, int status, const char *call) {
    return NT_FAIL(NT_E_SYSTEM, "%.*s failed: %s (%d)", (int)strcspn(call, "("), call,
                   blas->api.cublasLtGetStatusString(status), status);
}

/* NT_TRY(BLAS(blas, cublasLtCreate(&handle))) */
#define BLAS(blas, call)                                                                                               \
    ({                                                                                                                 \
        const int blas_ = (blas)->api.call;                                                                            \
        blas_ == 0 ? NT_OK : failed((blas), blas_, #call);                                                             \
    })

static void drop(const struct nt_cublaslt *blas, struct problem *p) {
    if (p->desc) (void)blas->api.cublasLtMatmulDescDestroy(p->desc);
    if (p->a) (void)blas->api.cublasLtMatrixLayoutDestroy(p->a);
    if (p->b) (void)blas->api.cublasLtMatrixLayoutDestroy(p->b);
    if (p->d) (void)blas->api.cublasLtMatrixLayoutDestroy(p->d);
}

static int64_t weight_ld(const struct nt_packed *w) {
    return (w->k + 7) / 8 * 8;
}

static nt_status describe(const struct nt_cublaslt *blas, const struct nt_gemm_args *args, int32_t n_tok,
                          struct problem *p) {
    const int transposed = NT_BLASLT_OP_T, plain = NT_BLASLT_OP_N, with_bias = NT_BLASLT_EPILOGUE_BIAS;
    const int type = args->out == NT_GEMM_STORE_BF16 ? NT_BLASLT_R_16BF : NT_BLASLT_R_32F;
    const uint64_t n = (uint64_t)args->w->n, k = (uint64_t)args->w->k, rows = (uint64_t)n_tok;
    NT_TRY(BLAS(blas, cublasLtMatmulDescCreate(&p->desc, NT_BLASLT_COMPUTE_32F, NT_BLASLT_R_32F)));
    NT_TRY(BLAS(blas, cublasLtMatmulDescSetAttribute(p->desc, NT_BLASLT_DESC_TRANSA, &transposed, sizeof transposed)));
    NT_TRY(BLAS(blas, cublasLtMatmulDescSetAttribute(p->desc, NT_BLASLT_DESC_TRANSB, &plain, sizeof plain)));
    if (args->bias) {
        NT_TRY(
            BLAS(blas, cublasLtMatmulDescSetAttribute(p->desc, NT_BLASLT_DESC_EPILOGUE, &with_bias, sizeof with_bias)));
        NT_TRY(BLAS(blas, cublasLtMatmulDescSetAttribute(p->desc, NT_BLASLT_DESC_BIAS_POINTER, &args->bias,
                                                         sizeof args->bias)));
    }
    NT_TRY(BLAS(blas, cublasLtMatrixLayoutCreate(&p->a, NT_BLASLT_R_16BF, k, n, weight_ld(args->w))));
    NT_TRY(BLAS(blas, cublasLtMatrixLayoutCreate(&p->b, NT_BLASLT_R_16BF, k, rows, args->ldx)));
    NT_TRY(BLAS(blas, cublasLtMatrixLayoutCreate(&p->d, type, n, rows, args->ldy)));
    return NT_OK;
}

/* An algorithm that gives each output one chain of sums. */
static bool is_one_chain(const struct nt_cublaslt *blas, const struct nt_blaslt_result *r, size_t workspace) {
    int32_t split = 0;
    uint32_t scheme = 1;
    size_t written = 0;
    const struct nt_gpu_blaslt *api = &blas->api;
    if (r->state != 0 || r->workspace > workspace) return false;
    if (api->cublasLtMatmulAlgoConfigGetAttribute(&r->algo, NT_BLASLT_ALGO_SPLITK_NUM, &split, sizeof split,
                                                  &written) != 0 ||
        api->cublasLtMatmulAlgoConfigGetAttribute(&r->algo, NT_BLASLT_ALGO_REDUCTION_SCHEME, &scheme, sizeof scheme,
                                                  &written) != 0) {
        return false;
    }
    return (split == 0 || split == 1) && scheme == NT_BLASLT_REDUCTION_SCHEME_NONE;
}

/* What may be chosen from. Unless told otherwise the library takes operands to be aligned to 256 bytes. */
static nt_status prefer(const struct nt_cublaslt *blas, size_t workspace, void *preference) {
    const uint32_t scheme = NT_BLASLT_REDUCTION_SCHEME_NONE, alignment = ALIGNMENT;
    NT_TRY(BLAS(blas, cublasLtMatmulPreferenceSetAttribute(preference, NT_BLASLT_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                                           sizeof workspace)));
    NT_TRY(BLAS(blas, cublasLtMatmulPreferenceSetAttribute(preference, NT_BLASLT_PREF_REDUCTION_SCHEME_MASK, &scheme,
                                                           sizeof scheme)));
    for (int i = NT_BLASLT_PREF_MIN_ALIGNMENT_A_BYTES; i <= NT_BLASLT_PREF_MIN_ALIGNMENT_D_BYTES; i++)
        NT_TRY(BLAS(blas, cublasLtMatmulPreferenceSetAttribute(preference, i, &alignment, sizeof alignment)));
    return NT_OK;
}

static nt_status ask(const struct nt_cublaslt *blas, size_t workspace, const struct problem *p, void *preference,
                     struct kind *kind) {
    struct nt_blaslt_result results[N_WANTED];
    int found = 0;
    NT_TRY(BLAS(blas, cublasLtMatmulAlgoGetHeuristic(blas->handle, p->desc, p->a, p->b, p->d, p->d, preference,
                                                     N_WANTED, results, &found)));
    for (int i = 0; i < found; i++) {
        if (!is_one_chain(blas, &results[i], workspace)) continue;
        kind->algo = results[i].algo;
        return NT_OK;
    }
    return NT_FAIL(NT_E_UNSUPPORTED, "%s has no algorithm without split k for n %d, k %d", blas->api.library, kind->n,
                   kind->k);
}

static nt_status choose(const struct nt_cublaslt *blas, size_t workspace, const struct nt_gemm_args *args,
                        struct kind *kind) {
    struct problem p = {0};
    void *preference = NULL;
    nt_status st;
    NT_TRY_GOTO(st, done, describe(blas, args, NT_BLASLT_ROWS, &p));
    NT_TRY_GOTO(st, done, BLAS(blas, cublasLtMatmulPreferenceCreate(&preference)));
    NT_TRY_GOTO(st, done, prefer(blas, workspace, preference));
    NT_TRY_GOTO(st, done, ask(blas, workspace, &p, preference, kind));
done:
    if (preference) (void)blas->api.cublasLtMatmulPreferenceDestroy(preference);
    drop(blas, &p);
    return st;
}

static nt_status find_kind(struct nt_backend *be, const struct nt_gemm_args *args, const struct kind **out) {
    struct nt_cublaslt *blas = be->cuda->blas;
    const struct kind wanted = {.n = args->w->n, .k = args->w->k, .out = args->out, .bias = args->bias != NULL};
    for (int i = 0; i < blas->n_kinds; i++) {
        const struct kind *kind = &blas->kinds[i];
        if (kind->n != wanted.n || kind->k != wanted.k || kind->out != wanted.out || kind->bias != wanted.bias)
            continue;
        *out = kind;
        return NT_OK;
    }
    if (blas->n_kinds == MAX_KINDS) return NT_FAIL(NT_E_UNSUPPORTED, "more than %d kinds of products", MAX_KINDS);
    struct kind *kind = &blas->kinds[blas->n_kinds];
    *kind = wanted;
    NT_TRY(choose(blas, be->cuda->workspace_bytes, args, kind));
    blas->n_kinds++;
    *out = kind;
    return NT_OK;
}

static bool aligned(const void *p) {
    return (uintptr_t)p % ALIGNMENT == 0;
}

bool nt_cublaslt_takes(const struct nt_backend *be, const struct nt_gemm_args *args) {
    const struct nt_cublaslt *blas = be->cuda->blas;
    if (!blas || args->n_tok < blas->min_rows || args->w->format != NT_WEIGHT_BF16_ROWS) return false;
    if (nt_gemm_cuda_adapts(args)) return false;
    const bool bf16_out = args->out == NT_GEMM_STORE_BF16;
    if (!bf16_out && args->out != NT_GEMM_STORE_F32 && args->out != NT_GEMM_ADD_F32) return false;
    if (bf16_out && args->bias) return false; /* its bias would be bf16 */
    return args->w->k % 8 == 0 && args->ldx % 8 == 0 && args->ldy % (bf16_out ? 8 : 4) == 0 && aligned(args->x) &&
           aligned(args->y) && aligned(args->w->data);
}

static nt_status multiply(struct nt_backend *be, const struct nt_gemm_args *args, const struct problem *p,
                          const struct kind *kind) {
    struct nt_cublaslt *blas = be->cuda->blas;
    const float alpha = 1, beta = args->out == NT_GEMM_ADD_F32 ? 1 : 0;
    NT_TRY(BLAS(blas, cublasLtMatmul(blas->handle, p->desc, &alpha, args->w->data, p->a, args->x, p->b, &beta, args->y,
                                     p->d, args->y, p->d, &kind->algo, be->cuda->workspace, be->cuda->workspace_bytes,
                                     nt_cuda_stream(be->cuda))));
    blas->n_products++;
    return NT_OK;
}

nt_status nt_cublaslt_gemm(struct nt_backend *be, const struct nt_gemm_args *args) {
    const struct kind *kind = NULL;
    NT_TRY(find_kind(be, args, &kind));
    struct problem p = {0};
    nt_status st;
    NT_TRY_GOTO(st, done, describe(be->cuda->blas, args, args->n_tok, &p));
    NT_TRY_GOTO(st, done, multiply(be, args, &p, kind));
done:
    drop(be->cuda->blas, &p);
    return st;
}

nt_status nt_cublaslt_enable(struct nt_backend *be, int32_t min_rows) {
    struct nt_cuda *cuda = be->cuda;
    if (!cuda->blas) {
        struct nt_cublaslt *blas = calloc(1, sizeof *blas);
        if (!blas) return NT_FAIL(NT_E_NOMEM, "no memory for the state of cuBLASLt");
        nt_status st = nt_gpu_blaslt_open(cuda->facts.driver, &blas->api);
        if (st == NT_OK) st = BLAS(blas, cublasLtCreate(&blas->handle));
        if (st != NT_OK) {
            free(blas);
            return nt_trail_at(st, __FILE__, __LINE__);
        }
        cuda->blas = blas;
    }
    cuda->blas->min_rows = min_rows;
    return NT_OK;
}

void nt_cublaslt_close(struct nt_cublaslt *blas) {
    if (!blas) return;
    nt_info("cuda", "cuBLASLt computed %lld products (those of captured steps counted once)",
            (long long)blas->n_products);
    (void)blas->api.cublasLtDestroy(blas->handle);
    free(blas);
}

size_t nt_cublaslt_version(const struct nt_backend *be) {
    return be->cuda->blas ? be->cuda->blas->api.cublasLtGetVersion() : 0;
}

const char *nt_cublaslt_library(const struct nt_backend *be) {
    return be->cuda->blas->api.library;
}
