// Kernels for test_check.c on cc 9.0: tiles that TMA brings, with and without the waits they need. Device code only.
#include <cuda.h>
#include <stdint.h>

__device__ static uint32_t shared_address(const void *p) { return (uint32_t) __cvta_generic_to_shared(p); }

__device__ static void barrier_init(uint64_t *bar, int count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(bar)), "r"(count) : "memory");
}

__device__ static void barrier_arrive(uint64_t *bar) {
    asm volatile("{\n .reg .b64 state;\n mbarrier.arrive.shared::cta.b64 state, [%0];\n}" ::"r"(shared_address(bar))
                 : "memory");
}

__device__ static void barrier_wait(uint64_t *bar, int parity) {
    uint32_t done = 0;
    while (!done)
        asm volatile("{\n .reg .pred p;\n mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n selp.u32 %0, 1, 0, p;\n}"
                     : "=r"(done)
                     : "r"(shared_address(bar)), "r"(parity)
                     : "memory");
}

// 64 rows of 64 bf16, not swizzled, from row `row` of the matrix.
__device__ static void load_tile(uint16_t *tile, const CUtensorMap *map, int row, uint64_t *bar) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], 8192;" ::"r"(shared_address(bar)) : "memory");
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(
                     shared_address(tile)),
                 "l"(map), "r"(0), "r"(row), "r"(shared_address(bar))
                 : "memory");
}

// 128 threads; two tiles through one stage: thread 0 loads, all add up.
template <bool waits_full, bool waits_empty> __device__ void two_tiles(uint32_t *out, const CUtensorMap *map) {
    __shared__ alignas(128) uint16_t tile[64 * 64];
    __shared__ uint64_t full, empty;
    uint32_t sum = 0;
    if (threadIdx.x == 0) {
        barrier_init(&full, 1);
        barrier_init(&empty, 128);
        asm volatile("fence.proxy.async;" ::: "memory");
    }
    __syncthreads();
    for (int i = 0; i < 2; i++) {
        if (threadIdx.x == 0) {
            if (waits_empty && i > 0) barrier_wait(&empty, (i - 1) & 1);
            load_tile(tile, map, 64 * i, &full);
        }
        if (waits_full) barrier_wait(&full, i & 1);
        for (int k = threadIdx.x; k < 64 * 64; k += 128) sum += *(volatile uint16_t *) &tile[k];
        barrier_arrive(&empty);
    }
    out[threadIdx.x] = sum;
}

extern "C" __global__ void tiles_good(uint32_t *out, const __grid_constant__ CUtensorMap map) {
    two_tiles<true, true>(out, &map);
}
extern "C" __global__ void tiles_unwaited(uint32_t *out, const __grid_constant__ CUtensorMap map) {
    two_tiles<false, true>(out, &map);
}
extern "C" __global__ void tiles_overwritten(uint32_t *out, const __grid_constant__ CUtensorMap map) {
    two_tiles<true, false>(out, &map);
}

// Launches that begin early, by one thread: to = from + constant, where the launch before wrote `from`.
__device__ static void wait_for_before() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
__device__ static void release_next() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }
__device__ static float read(const float *at) { return *(const volatile float *)at; }

extern "C" __global__ void early_good(float *to, const float *from, const float *constant) {
    const float c = read(constant);
    wait_for_before();
    release_next();
    *to = read(from) + c;
}
extern "C" __global__ void early_reads(float *to, const float *from, const float *constant) {
    const float v = read(from);
    wait_for_before();
    *to = v + read(constant);
}
extern "C" __global__ void early_copies(float *to, const float *from, const float *constant) {
    __shared__ float tile[4];
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;\ncp.async.commit_group;" ::"r"(shared_address(tile)), "l"(from) : "memory");
    wait_for_before();
    asm volatile("cp.async.wait_group 0;" ::: "memory");
    *to = tile[0] + read(constant);
}
extern "C" __global__ void early_writes(float *to, const float *from, const float *constant) {
    *(volatile float *)to = read(constant);
    wait_for_before();
    *to = read(from) + read(constant);
}
extern "C" __global__ void early_releases(float *to, const float *from, const float *constant) {
    release_next();
    wait_for_before();
    *to = read(from) + read(constant);
}
extern "C" __global__ void early_never(float *to, const float *from, const float *constant) {
    if (read(constant) < 0) asm volatile("trap;");
}
