// Kernel for test_hopper.c: C = A B^T in bf16 with TMA, mbarriers and wgmma, one loading warp and one computing
// warpgroup, three stages; and the same kernel with one mistake each. Device code only.
#include <cuda.h>
#include <stdint.h>

enum mistake {
    NONE,
    RELEASED_EARLY,    // the stage is given back before its wgmma are done
    ONE_WARP_RELEASES, // warp 0 gives it back for all four
    NO_FULL_WAIT,
    NO_EMPTY_WAIT,
    HALF_THE_BYTES, // expected of TMA
    WRONG_STRIDE,
    WRONG_SWIZZLE,
    NO_LAST_WAIT, // of wgmma, before the sums are read
    NO_FENCE,
    SWAPPED_OPERANDS,
    STALE_PARITY, // of the full barrier from the second round on
    NO_INIT_FENCE, // the barriers are not shown to the copy engine
};

enum { TILE = 64, STAGES = 3, TILE_BYTES = TILE * TILE * 2 };

struct stages {
    alignas(1024) uint16_t a[STAGES][TILE * TILE];
    alignas(1024) uint16_t b[STAGES][TILE * TILE];
    uint64_t full[STAGES], empty[STAGES];
};

__device__ static uint32_t at(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

__device__ static void barrier_init(uint64_t *bar, int count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at(bar)), "r"(count) : "memory");
}
__device__ static void barrier_arrive(uint64_t *bar) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(at(bar)) : "memory");
}
__device__ static void barrier_expect(uint64_t *bar, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(at(bar)), "r"(bytes) : "memory");
}
__device__ static void barrier_wait(uint64_t *bar, int parity) {
    asm volatile("{\n .reg .pred p;\nAGAIN:\n mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n @p bra DONE;\n"
                 " bra AGAIN;\nDONE:\n}" ::"r"(at(bar)), "r"(parity) : "memory");
}
__device__ static void load_tile(uint16_t *to, const CUtensorMap *map, int row, int k, uint64_t *bar) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], "
                 "[%4];" ::"r"(at(to)), "l"(map), "r"(k), "r"(row), "r"(at(bar)) : "memory");
}

// 64 rows of 64 bf16, 128-byte swizzle: groups of 8 rows are 1024 bytes apart.
template <int mistake> __device__ static uint64_t descriptor(const uint16_t *tile) {
    const uint64_t stride = mistake == WRONG_STRIDE ? 512 : 1024, swizzle = mistake == WRONG_SWIZZLE ? 2 : 1;
    return (at(tile) & 0x3ffff) >> 4 | (uint64_t)1 << 16 | stride >> 4 << 32 | swizzle << 62;
}

#define D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
__device__ static void multiply(float d[32], uint64_t a, uint64_t b) {
    asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,"
                 "%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}, %32, %33, 1, 1, 1, 0, 0;"
                 : D4(0), D4(4), D4(8), D4(12), D4(16), D4(20), D4(24), D4(28)
                 : "l"(a), "l"(b));
}

template <int mistake>
__device__ static void produce(stages *s, const CUtensorMap *a, const CUtensorMap *b, int n_step) {
    for (int i = 0; i < n_step; i++) {
        const int stage = i % STAGES, round = i / STAGES;
        if (round > 0 && mistake != NO_EMPTY_WAIT) barrier_wait(&s->empty[stage], (round - 1) & 1);
        barrier_expect(&s->full[stage], mistake == HALF_THE_BYTES ? TILE_BYTES : 2 * TILE_BYTES);
        load_tile(s->a[stage], a, blockIdx.y * TILE, i * TILE, &s->full[stage]);
        load_tile(s->b[stage], b, blockIdx.x * TILE, i * TILE, &s->full[stage]);
    }
}

template <int mistake> __device__ static void release(stages *s, int stage) {
    if (mistake == ONE_WARP_RELEASES ? threadIdx.x == 0 : threadIdx.x % 32 == 0) barrier_arrive(&s->empty[stage]);
}

template <int mistake> __device__ static void consume(stages *s, float d[32], int n_step) {
    for (int i = 0; i < n_step; i++) {
        const int stage = i % STAGES, round = i / STAGES;
        if (mistake != NO_FULL_WAIT) barrier_wait(&s->full[stage], mistake == STALE_PARITY ? 0 : round & 1);
        const uint64_t a = descriptor<mistake>(s->a[stage]), b = descriptor<mistake>(s->b[stage]);
        if (mistake != NO_FENCE) asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
        for (int k = 0; k < TILE / 16; k++) // 16 columns are 32 bytes on
            multiply(d, (mistake == SWAPPED_OPERANDS ? b : a) + 2 * k, (mistake == SWAPPED_OPERANDS ? a : b) + 2 * k);
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
        if (mistake == RELEASED_EARLY) release<mistake>(s, stage);
        // the previous step's products are done, this step's may go on
        if (mistake != NO_LAST_WAIT) asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
        if (mistake != RELEASED_EARLY && i > 0) release<mistake>(s, (i - 1) % STAGES);
    }
    if (mistake != NO_LAST_WAIT) asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
}

// grid (n / 64, m / 64), 128 threads that compute and a warp that loads
template <int mistake>
__device__ static void product(float *c, const CUtensorMap *a, const CUtensorMap *b, int n, int n_step) {
    extern __shared__ __align__(1024) uint8_t memory[];
    stages *s = reinterpret_cast<stages *>(memory);
    if (threadIdx.x == 0) {
        for (int i = 0; i < STAGES; i++) {
            barrier_init(&s->full[i], 1);
            barrier_init(&s->empty[i], mistake == ONE_WARP_RELEASES ? 1 : 4);
        }
        if (mistake != NO_INIT_FENCE) asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    if (threadIdx.x >= 128) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (threadIdx.x == 128) produce<mistake>(s, a, b, n_step);
        return;
    }
    asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
    float d[32] = {0};
    consume<mistake>(s, d, n_step);
    const int row = blockIdx.y * TILE + threadIdx.x / 4 % 8 + threadIdx.x / 32 * 16;
    for (int i = 0; i < 32; i++)
        c[(row + (i / 2 & 1) * 8) * n + blockIdx.x * TILE + i / 4 * 8 + threadIdx.x % 4 * 2 + i % 2] = d[i];
}

#define KERNEL(mistake)                                                                                               \
    extern "C" __global__ void __launch_bounds__(160)                                                                 \
        product_##mistake(float *c, const __grid_constant__ CUtensorMap a, const __grid_constant__ CUtensorMap b,     \
                          int n, int n_step) {                                                                        \
        product<mistake>(c, &a, &b, n, n_step);                                                                       \
    }
KERNEL(NONE)
KERNEL(RELEASED_EARLY)
KERNEL(ONE_WARP_RELEASES)
KERNEL(NO_FULL_WAIT)
KERNEL(NO_EMPTY_WAIT)
KERNEL(HALF_THE_BYTES)
KERNEL(WRONG_STRIDE)
KERNEL(WRONG_SWIZZLE)
KERNEL(NO_LAST_WAIT)
KERNEL(NO_FENCE)
KERNEL(SWAPPED_OPERANDS)
KERNEL(STALE_PARITY)
KERNEL(NO_INIT_FENCE)
