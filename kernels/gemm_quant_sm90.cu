/* y = x w^T with weights of integers in groups, for many rows on compute capability 9.0: wgmma with the weights as the A
 * operand, unpacked in registers. Spec: ops.h; the same bits as gemm_quant.cu.
 *
 * A block computes the transpose of a tile of y: 128 rows of w by 64 or 128 rows of x. One thread copies by TMA, a stage
 * is a group of 128 k: two boxes of x with the swizzle of wgmma's B operand, and the blocks of four panels with their
 * scales. Two warpgroups multiply 64 rows of w each by all rows of x: a warp's 16 rows become A fragments as
 * gemm_quant.cuh says, those of a step while the product of the step before runs; two sets of registers take turns. The
 * first step of the next group is unpacked before a group's sum is waited for; while one warpgroup adds up a group the
 * other has the tensor cores.
 * Order of sums: that of gemm_quant.cu (gemm_quant_cuda.h), its parts one after the other, an adapter's product the last;
 * so a thread has three sets of sums, of a group, a part and all parts.
 * On their way out sums are turned: lines of shared memory, a row of y each, are put together by all warps.
 * Registers (ptxas, no spills): 168 at launch; multiplying warpgroups take 240, the copying one keeps 24.
 * Layout: as gemm_quant.cu; x by a tensor map, so its rows are 16-byte aligned; panels beyond the last arrive as zeros.
 * Roofline: 2 n_tok n k FLOP. A group takes a block 1024 cycles of the tensor cores at 128 rows and reads 40 (INT4) or 48
 * bytes a cycle from L2, some 70 of the 128 of shared memory; a warp issues 274 (INT4) or 262 instructions, two warps a
 * scheduler half of its slots. Expected, not yet measured: 45-55 % of the dense rate (450 to 550 TFLOP/s on an H200) from
 * some 256 rows on, where mma.sync reaches 146-177 TFLOP/s. */
#include "gemm_epilogue.cuh"
#include "gemm_quant.cuh"
#include "gemm_quant_sm90_cuda.h"
#include "gemm_sm90_tile.cuh"

extern __shared__ __align__(1024) char nt_gemm_quant_sm90_stages[];

template <class W_, int ROWS_, int STAGES_> struct nt_quant_sm90_tile {
    using W = W_;
    enum {
        ROWS = ROWS_,
        COLS = NT_GEMM_QUANT_SM90_COLS,
        STAGES = STAGES_,
        STEPS = NT_INT4_GROUP / 16,
        PANELS = COLS / NT_PANEL,
        BOX = ROWS * 128, /* bytes: 64 columns of x */
        W_AT = 2 * BOX,
        BYTES = W_AT + PANELS * W::BLOCK, /* that are copied */
        STAGE_BYTES = NT_GEMM_QUANT_SM90_STAGE(W::HALF, ROWS),
        MULTIPLIERS = COLS / 16, /* warps */
        SUMS = ROWS / 2,         /* of a thread */
        WARP_ROWS = ROWS / MULTIPLIERS,
    };
    static_assert(NT_WARP * MULTIPLIERS + 4 * NT_WARP == NT_GEMM_QUANT_SM90_THREADS, "and a warpgroup that copies");
    static_assert(nt_registers_suffice(MULTIPLIERS / 4, 240, 1, 24), "registers that others give back");
    static_assert(BYTES <= STAGE_BYTES && STAGE_BYTES % 1024 == 0 && W_AT % 512 == 0, "swizzles begin in each stage");
    static_assert(STEPS % 2 == 0, "two sets of fragments take turns");
    static_assert(W::BLOCK % NT_GEMM_QUANT_SM90_LINE == 0 && W::BLOCK == NT_GEMM_QUANT_BLOCK(W::HALF), "blocks of lines");
    static_assert(ROWS * NT_LINE(COLS) * 4 <= STAGES * STAGE_BYTES, "the lines find room where the stages were");
    static_assert(2 * STAGES * 8 <= NT_GEMM_SM90_BARRIERS, "two mbarriers a stage");
};

/* One thread. */
template <class T>
NT_DEVICE void copy_stages(const struct nt_gemm_quant_sm90 *a, uint32_t base, int32_t m0, int32_t panel0) {
    struct nt_sm90_place p = {0, 0};
    for (int32_t group = 0; group < a->n_group; group++, nt_sm90_next<T>(&p)) {
        const uint32_t to = base + (uint32_t)(p.stage * T::STAGE_BYTES), full = nt_sm90_full_at<T>(base, p.stage);
        nt_mbarrier_wait(nt_sm90_empty_at<T>(base, p.stage), p.phase ^ 1);
        nt_mbarrier_arrive_expect(full, T::BYTES);
        nt_tensor_copy_2d(to, &a->x, group * NT_INT4_GROUP, m0, full);
        nt_tensor_copy_2d(to + T::BOX, &a->x, group * NT_INT4_GROUP + NT_INT4_GROUP / 2, m0, full);
        nt_tensor_copy_3d(to + T::W_AT, &a->w, 0, group * (T::W::BLOCK / NT_GEMM_QUANT_SM90_LINE), panel0, full);
    }
}

/* Of a multiplying warp. */
template <class T> struct nt_quant_reader {
    uint32_t base;              /* of the stages */
    uint32_t rows_at, scale_at; /* the lane's, in the weights of a stage */
    struct nt_sm90_place here; /* the stage that is multiplied */
    int32_t left;               /* stages from that one on */
    typename T::W w;
    uint32_t a[2][4]; /* fragments of even and of odd steps */
};

template <class T> NT_DEVICE const char *weights_of(int32_t stage) {
    return nt_gemm_quant_sm90_stages + stage * T::STAGE_BYTES + T::W_AT;
}

/* Loads for the first step of a stage, when it is there. */
template <class T> NT_DEVICE void begin_stage(struct nt_quant_reader<T> *r, struct nt_sm90_place p) {
    nt_mbarrier_wait(nt_sm90_full_at<T>(r->base, p.stage), p.phase);
    nt_quant_load_rows16(&r->w, weights_of<T>(p.stage) + r->rows_at, 0);
}

/* sum = the product of this stage; it is under way, and the fragment of the next stage's first step is there. */
template <class T> NT_DEVICE void multiply_stage(struct nt_quant_reader<T> *r, float *sum) {
    const uint64_t x = nt_wgmma_tile(r->base + (uint32_t)(r->here.stage * T::STAGE_BYTES));
    const char *from = weights_of<T>(r->here.stage) + r->rows_at;
    struct nt_sm90_place next = r->here;
    nt_sm90_next<T>(&next);
#pragma unroll
    for (int s = 0; s < T::STEPS; s++) {
        nt_wgmma_fence();
        nt_wgmma_bf16_rs<T::ROWS>(sum, r->a[s % 2], x + s / 4 * (T::BOX >> 4) + 2 * (s % 4), s > 0);
        nt_wgmma_commit();
        if (s + 1 < T::STEPS)
            nt_quant_load_rows16(&r->w, from, s + 1);
        else if (r->left > 1)
            begin_stage<T>(r, next);
        nt_wgmma_wait<1>(); /* the step before this one has read its fragment */
        nt_quant_fragment(&r->w, (s + 1) % T::STEPS, r->a[(s + 1) % 2]);
    }
}

/* part += scale * sum, when it is there; the stage has been read. */
template <class T> NT_DEVICE void end_stage(struct nt_quant_reader<T> *r, float *part, float *sum) {
    const char *weights = weights_of<T>(r->here.stage);
    float scale[2];
#pragma unroll
    for (int i = 0; i < 2; i++)
        scale[i] = nt_quant_scale(weights + (r->scale_at ^ 16 * i), 0);
    nt_wgmma_wait<0>();
    nt_wgmma_settle<T::SUMS>(sum);
    __syncwarp();
    if (nt_lane() == 0) nt_mbarrier_arrive(nt_sm90_empty_at<T>(r->base, r->here.stage));
#pragma unroll
    for (int i = 0; i < T::SUMS; i++) part[i] = __fmaf_rn(scale[i / 2 % 2], sum[i], part[i]);
    nt_sm90_next<T>(&r->here);
    r->left--;
}

/* part = the sum of so many groups. */
template <class T> NT_DEVICE void sum_part(struct nt_quant_reader<T> *r, int32_t n_group, float *part) {
    float sum[T::SUMS];
#pragma unroll
    for (int i = 0; i < T::SUMS; i++) part[i] = 0;
#pragma unroll 1
    for (int32_t i = 0; i < n_group; i++) {
        multiply_stage<T>(r, sum);
        end_stage<T>(r, part, sum);
    }
}

template <class T> NT_DEVICE void add_part(float *total, const float *part) {
#pragma unroll
    for (int i = 0; i < T::SUMS; i++) total[i] += part[i];
}

/* total = the sums of all parts in their order; -0 is what changes no bit of the first. */
template <class T>
NT_DEVICE void sum_parts(const struct nt_gemm_quant_sm90 *a, const struct nt_gemm_adapter *second, int32_t m0,
                         int32_t n0, float *total) {
    struct nt_quant_reader<T> r = {.base = nt_shared_address(nt_gemm_quant_sm90_stages),
                                   .rows_at = nt_quant_rows16_at<typename T::W>(nt_warp() / 2, nt_warp() % 2),
                                   .scale_at = nt_quant_scale_at<typename T::W>(nt_warp() / 2, nt_warp() % 2),
                                   .here = {0, 0},
                                   .left = a->n_group};
    const int32_t per_part = nt_quant_part_groups(a->n_group);
    float part[T::SUMS];
    begin_stage<T>(&r, r.here);
    nt_quant_fragment(&r.w, 0, r.a[0]);
#pragma unroll
    for (int i = 0; i < T::SUMS; i++) total[i] = -0.0f;
#pragma unroll 1
    while (r.left > 0) {
        sum_part<T>(&r, min(per_part, r.left), part);
        add_part<T>(total, part);
    }
    if (!second) return;
    nt_quant_sum_adapter<1, T::ROWS / 8>(second, a->g.n_tok, NT_PANEL * a->n_panel, m0, n0 + 16 * nt_warp(), part);
    add_part<T>(total, part);
}

template <class T>
NT_DEVICE void gemm_quant_sm90(const struct nt_gemm_quant_sm90 *a, const struct nt_gemm_adapter *second) {
    int32_t m0, col_tile;
    nt_gemm_place(&a->g, &m0, &col_tile);
    m0 *= T::ROWS;
    const uint32_t base = nt_shared_address(nt_gemm_quant_sm90_stages);
    const int32_t n0 = col_tile * T::COLS;
    const int32_t warp = __shfl_sync(NT_ALL_LANES, nt_warp(), 0); /* the compiler sees that a warp takes one way */
    if (threadIdx.x == 0) nt_sm90_init_barriers<T>(&a->x, &a->w, base);
    __syncthreads();
    if (warp >= T::MULTIPLIERS) {
        nt_registers_lower<24>();
        if (warp == T::MULTIPLIERS && nt_elect()) copy_stages<T>(a, base, m0, col_tile * T::PANELS);
        return;
    }
    nt_registers_raise<240>();
    float total[T::SUMS];
    sum_parts<T>(a, second, m0, n0, total);
    float *lines = (float *)nt_gemm_quant_sm90_stages;
    nt_barrier(1, NT_WARP * T::MULTIPLIERS); /* nobody reads stages any more */
    nt_lines_put_turned<T::SUMS / 4, T::COLS>(lines + 16 * warp, total);
    nt_barrier(1, NT_WARP * T::MULTIPLIERS);
    nt_gemm_store_lines<T::WARP_ROWS, T::COLS>(&a->g, second, lines + warp * T::WARP_ROWS * NT_LINE(T::COLS),
                                               m0 + warp * T::WARP_ROWS, n0);
}

#define NT_GEMM_QUANT_SM90_KERNEL(type, rows, stages)                                                                  \
    extern "C" __global__ void __launch_bounds__(NT_GEMM_QUANT_SM90_THREADS, 1)                                        \
        nt_gemm_##type##_sm90_##rows##x128(const __grid_constant__ struct nt_gemm_quant_sm90 a) {                      \
        nt_launch_begin();                                                                                             \
        gemm_quant_sm90<nt_quant_sm90_tile<nt_quant_##type, rows, stages>>(&a, NULL);                                  \
    }
NT_GEMM_QUANT_SM90_TILES(NT_GEMM_QUANT_SM90_KERNEL)

#define NT_GEMM_QUANT_SM90_ADAPTER_KERNEL(type, rows, stages)                                                          \
    extern "C" __global__ void __launch_bounds__(NT_GEMM_QUANT_SM90_THREADS, 1)                                        \
        nt_gemm_##type##_adapter_sm90_##rows##x128(const __grid_constant__ struct nt_gemm_quant_sm90_adapted a) {      \
        nt_launch_begin();                                                                                             \
        gemm_quant_sm90<nt_quant_sm90_tile<nt_quant_##type, rows, stages>>(&a.own, &a.second);                         \
    }
NT_GEMM_QUANT_SM90_TILES(NT_GEMM_QUANT_SM90_ADAPTER_KERNEL)
