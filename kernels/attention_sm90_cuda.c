/* Launches of attention_sm90: the tensor map, and which kernel takes which width. */
#include "attention_sm90_cuda.h"

#include "cuda_bodies.h"
#include "cuda_granted.h"
#include "gpu_api.h"

#define CHECK(d)                                                                                                       \
    _Static_assert(nt_granted_attention_sm90_d##d == NT_ATTN_SM90_SHARED(d), "cuda_kernels.def");                      \
    _Static_assert(NT_ATTN_SM90_SHARED(d) + 1024 <= 228 * 1024, "more than an H100 has");
NT_ATTN_SM90_WIDTHS(CHECK)
_Static_assert(2 * NT_ATTN_SM90_STAGES * 8 <= NT_GEMM_SM90_BARRIERS, "two mbarriers a stage");
_Static_assert(NT_ATTN_SM90_ROWS == NT_ATTN_PREFILL_WARPS * 32, "the tiles of attention.cu");

#define WIDTH(d) {(d), NT_CUDA_attention_sm90_d##d, NT_ATTN_SM90_SHARED(d)},
static const struct {
    int32_t d;
    enum nt_cuda_kernel kernel;
    size_t shared;
} widths[] = {NT_ATTN_SM90_WIDTHS(WIDTH)};
enum { N_WIDTHS = sizeof widths / sizeof widths[0] };

bool nt_attention_sm90_takes(const struct nt_backend *be, const struct nt_attention_args *args) {
    return nt_sm90_has(be, widths[0].kernel) && args->kv->format == NT_KV_ROWS &&
           nt_d_pad(args->kv->d_head) <= widths[N_WIDTHS - 1].d;
}

static nt_status encode_cache(const struct nt_backend *be, const struct nt_kv_layer *kv, struct nt_tensor_map *out) {
    const uint64_t d_pad = (uint64_t)nt_d_pad(kv->d_head);
    const struct nt_sm90_tensor t = {
        .data = kv->base,
        .type = CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        .rank = 3,
        .dim = {d_pad,                   (uint64_t)kv->n_kv * 2 * NT_KV_PAGE,         INT32_MAX},
        .stride = {d_pad * sizeof(nt_bf16), (uint64_t)kv->page_stride * sizeof(nt_bf16)},
        .box = {64,             NT_KV_PAGE,                                           1         },
        .swizzle = CU_TENSOR_MAP_SWIZZLE_128B,
    };
    return nt_sm90_encode_tensor(be, &t, out);
}

nt_status nt_attention_sm90(struct nt_backend *be, const struct nt_attention_args *args, const struct nt_attn_launch *l,
                            int64_t tiles) {
    struct nt_attention_sm90 a = {.l = *l};
    int w = 0;
    while (widths[w].d < l->d_pad) w++;
    NT_TRY(encode_cache(be, args->kv, &a.cache));
    return NT_CUDA_LAUNCH(be, widths[w].kernel, tiles, l->n_seq, 1, NT_ATTN_SM90_THREADS, widths[w].shared, &a);
}
