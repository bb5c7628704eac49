#include "cpu_bodies.h"
#include "cuda_backend.h"
#include "sysmem.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One row per level; opening takes for each op the last body at or below the wanted level. */
static const struct nt_ops bodies[] = {
    [NT_ISA_PORTABLE] =
        {
                           .embed = nt_embed_portable,
                           .rmsnorm = nt_rmsnorm_portable,
                           .gemm = nt_gemm_portable,
                           .rope_kv = nt_rope_kv_portable,
                           .attention = nt_attention_portable,
                           .logit_stats = nt_logit_stats_portable,
                           .logit_topk = nt_logit_topk_portable,
                           .logit_gumbel = nt_logit_gumbel_portable,
                           .logit_edit = nt_logit_edit_portable,
                           .logit_penalty = nt_logit_penalty_portable,
                           .logit_pick = nt_logit_pick_portable,
                           .gather = nt_gather_portable,
                           .logit_sample = nt_logit_sample_portable,
                           .head_argmax = nt_head_argmax_portable,
                           .gemm_dgrad = nt_gemm_dgrad_portable,
                           .gemm_wgrad = nt_gemm_wgrad_portable,
                           .rmsnorm_bwd = nt_rmsnorm_bwd_portable,
                           .glu_bwd = nt_glu_bwd_portable,
                           .attention_bwd = nt_attention_bwd_portable,
                           .rope_bwd = nt_rope_bwd_portable,
                           .logit_bwd = nt_logit_bwd_portable,
                           .embed_bwd = nt_embed_bwd_portable,
                           .scatter = nt_scatter_portable,
                           .dropout = nt_dropout_portable,
                           .adamw = nt_adamw_portable,
                           .sum_squares = nt_sum_squares_portable,
                           .sum_parts = nt_sum_parts_portable,
                           .pack = nt_pack_portable,
                           },
    [NT_ISA_AVX2] =
        {
                           .rmsnorm = nt_rmsnorm_avx2,
                           .gemm = nt_gemm_avx2,
                           .rope_kv = nt_rope_kv_avx2,
                           .attention = nt_attention_avx2,
                           .logit_stats = nt_logit_stats_avx2,
                           .logit_topk = nt_logit_topk_avx2,
                           .logit_gumbel = nt_logit_gumbel_avx2,
                           .rmsnorm_bwd = nt_rmsnorm_bwd_avx2,
                           .rope_bwd = nt_rope_bwd_avx2,
                           .glu_bwd = nt_glu_bwd_avx2,
                           .attention_bwd = nt_attention_bwd_avx2,
                           .logit_bwd = nt_logit_bwd_avx2,
                           .dropout = nt_dropout_avx2,
                           .adamw = nt_adamw_avx2,
                           .gemm_dgrad = nt_gemm_dgrad_avx2,
                           .gemm_wgrad = nt_gemm_wgrad_avx2,
                           },
    [NT_ISA_AVX512] =
        {
                           .rmsnorm = nt_rmsnorm_avx512,
                           .gemm = nt_gemm_avx512,
                           .rope_kv = nt_rope_kv_avx512,
                           .attention = nt_attention_avx512,
                           .logit_stats = nt_logit_stats_avx512,
                           .logit_topk = nt_logit_topk_avx512,
                           .logit_gumbel = nt_logit_gumbel_avx512,
                           .rmsnorm_bwd = nt_rmsnorm_bwd_avx512,
                           .rope_bwd = nt_rope_bwd_avx512,
                           .glu_bwd = nt_glu_bwd_avx512,
                           .attention_bwd = nt_attention_bwd_avx512,
                           .logit_bwd = nt_logit_bwd_avx512,
                           .dropout = nt_dropout_avx512,
                           .adamw = nt_adamw_avx512,
                           .gemm_dgrad = nt_gemm_dgrad_avx512,
                           .gemm_wgrad = nt_gemm_wgrad_avx512,
                           },
};
_Static_assert(sizeof bodies / sizeof bodies[0] == NT_ISA_COUNT, "one row per level");

const struct nt_ops *nt_cpu_bodies(enum nt_isa isa) {
    return &bodies[isa];
}

static void take_bodies(struct nt_backend *be, enum nt_isa isa) {
#define NT_OP(name, doc)                                                                                               \
    if (bodies[isa].name) {                                                                                            \
        be->ops.name = bodies[isa].name;                                                                               \
        be->body_isa[NT_OP_##name] = isa;                                                                              \
    }
#include "ops.def"
#undef NT_OP
}

/* ---- host memory ---- */

static nt_status host_take(struct nt_backend *be, size_t bytes, const char *what, void **out) {
    (void)be;
    const size_t size = (bytes + 255) / 256 * 256;
    *out = aligned_alloc(256, size > 0 ? size : 256);
    if (!*out) return NT_FAIL(NT_E_NOMEM, "no memory for %zu bytes of %s", bytes, what);
    memset(*out, 0, size);
    return NT_OK;
}

static void host_give(struct nt_backend *be, void *memory, size_t bytes) {
    (void)be;
    (void)bytes;
    free(memory);
}

static size_t host_available(const struct nt_backend *be) {
    (void)be;
    return nt_memory_available();
}

static nt_status host_copy(struct nt_backend *be, void *to, const void *from, size_t bytes) {
    (void)be;
    if (to != from && bytes > 0) memcpy(to, from, bytes);
    return NT_OK;
}

enum { ALONE = 1 << 20 }; /* up to here one thread zeroes */

struct zeroes {
    char *to;
    size_t bytes;
};
static void zero_thread(void *arg, int thread, int n_threads) {
    const struct zeroes *z = arg;
    int64_t begin, end;
    nt_split((int64_t)z->bytes, 4096, thread, n_threads, &begin, &end);
    memset(z->to + begin, 0, (size_t)(end - begin));
}
static nt_status host_zero(struct nt_backend *be, void *to, size_t bytes) {
    struct zeroes z = {to, bytes};
    if (bytes <= ALONE)
        memset(to, 0, bytes);
    else
        nt_pool_run(be->pool, zero_thread, &z);
    return NT_OK;
}

static nt_status host_wait(struct nt_backend *be) {
    (void)be;
    return NT_OK;
}

static nt_status host_query(struct nt_backend *be, bool *done) {
    (void)be;
    *done = true;
    return NT_OK;
}

static const struct nt_memory host_memory = {.take = host_take,
                                             .give = host_give,
                                             .available = host_available,
                                             .upload = host_copy,
                                             .download = host_copy,
                                             .zero = host_zero,
                                             .wait = host_wait,
                                             .query = host_query};

nt_status nt_backend_open_cpu(struct nt_backend *be, enum nt_isa isa, struct nt_pool *pool) {
    *be = (struct nt_backend){.name = "cpu",
                              .memory = &host_memory,
                              .weight_format = NT_WEIGHT_BF16,
                              .block_format = NT_WEIGHT_BF16,
                              .kv_format = NT_KV_PAIRED,
                              .isa = isa,
                              .pool = pool,
                              .scratch_per_thread = NT_CPU_SCRATCH_BYTES};
    snprintf(be->level, sizeof be->level, "%s", nt_isa_name(isa));
    const size_t bytes = (size_t)nt_pool_size(pool) * be->scratch_per_thread;
    be->scratch = aligned_alloc(NT_CPU_SCRATCH_BYTES, bytes);
    if (!be->scratch) return NT_FAIL(NT_E_NOMEM, "no memory for %zu bytes of kernel scratch; use fewer threads", bytes);
    memset(be->scratch, 0, bytes);
    for (int i = 0; i <= (int)isa; i++) take_bodies(be, (enum nt_isa)i);
    return NT_OK;
}

void nt_backend_close(struct nt_backend *be) {
    if (be->cuda) nt_cuda_close(be);
    free(be->scratch);
    *be = (struct nt_backend){0};
}
