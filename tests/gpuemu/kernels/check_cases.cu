// Kernels for test_check.c: each checker's bug, and the same kernel without it. Device code only.
// The volatile accesses keep nvcc from merging or moving what the bug is about.
#include <stdint.h>

extern "C" __global__ void fill(float *out, float value, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = value;
}

extern "C" __global__ void add_one(float *p, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) p[i] += 1.0f;
}

extern "C" __global__ void copy_from(float *out, const float *in, int n, int offset) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = in[i + offset];
}

extern "C" __global__ void copy_strided(float *out, const float *in, int stride) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    out[i] = in[i * stride];
}

extern "C" __global__ void load_vector(float4 *out, const char *in, int offset) {
    out[threadIdx.x] = *(const float4 *) (in + offset + 16 * threadIdx.x);
}

// ---- shared memory ----

template <bool fixed> __device__ void reverse(float *out, const float *in) {
    __shared__ volatile float tile[256];
    tile[threadIdx.x] = in[threadIdx.x];
    if (fixed) __syncthreads();
    out[threadIdx.x] = tile[255 - threadIdx.x];
}
extern "C" __global__ void reverse_bad(float *out, const float *in) { reverse<false>(out, in); }
extern "C" __global__ void reverse_good(float *out, const float *in) { reverse<true>(out, in); }

// The tile is used a second time: the write of round 2 races with the reads of round 1.
template <bool fixed> __device__ void reuse(float *out, const float *in) {
    __shared__ volatile float tile[256];
    float sum = 0;
    for (int round = 0; round < 2; round++) {
        tile[threadIdx.x] = in[threadIdx.x] + round;
        __syncthreads();
        sum += tile[255 - threadIdx.x];
        if (fixed) __syncthreads();
    }
    out[threadIdx.x] = sum;
}
extern "C" __global__ void reuse_bad(float *out, const float *in) { reuse<false>(out, in); }
extern "C" __global__ void reuse_good(float *out, const float *in) { reuse<true>(out, in); }

// Lanes of one warp exchange through shared memory.
template <bool fixed> __device__ void lanes(float *out, const float *in) {
    __shared__ volatile float tile[32];
    tile[threadIdx.x] = in[threadIdx.x];
    if (fixed) __syncwarp();
    out[threadIdx.x] = tile[threadIdx.x ^ 1];
}
extern "C" __global__ void lanes_bad(float *out, const float *in) { lanes<false>(out, in); }
extern "C" __global__ void lanes_good(float *out, const float *in) { lanes<true>(out, in); }

// Some lanes of a warp meet, then some others; lanes of `reads` then want what lane ^ partner wrote at the start.
template <class Tile>
__device__ void meet(Tile tile, float *out, const float *in, unsigned first, unsigned second, unsigned reads,
                     int partner) {
    const int i = threadIdx.x;
    tile[i] = in[i];
    if (first >> i & 1) __syncwarp(first);
    if (second >> i & 1) __syncwarp(second);
    if (reads >> i & 1) out[i] = tile[i ^ partner];
}
// Lanes of `reads` look at a word; some lanes meet; lane 0 writes it again.
template <class Tile> __device__ void look(Tile tile, float *out, const float *in, unsigned reads, unsigned meets) {
    const int i = threadIdx.x;
    if (i == 0) tile[0] = in[0];
    __syncwarp();
    if (reads >> i & 1) out[i] = tile[0];
    if (meets >> i & 1) __syncwarp(meets);
    if (i == 0) tile[0] = in[1];
}
extern "C" __global__ void meet_shared(float *out, const float *in, unsigned first, unsigned second, unsigned reads,
                                       int partner) {
    __shared__ volatile float tile[32];
    meet(tile, out, in, first, second, reads, partner);
}
extern "C" __global__ void meet_global(float *out, const float *in, unsigned first, unsigned second, unsigned reads,
                                       int partner) {
    meet((volatile float *) out + 32, out, in, first, second, reads, partner);
}
extern "C" __global__ void look_shared(float *out, const float *in, unsigned reads, unsigned meets) {
    __shared__ volatile float tile[1];
    look(tile, out, in, reads, meets);
}
extern "C" __global__ void look_global(float *out, const float *in, unsigned reads, unsigned meets) {
    look((volatile float *) out + 32, out, in, reads, meets);
}

// Each lane has a byte of its own, so no order is needed; `shift` makes lanes read their neighbour's.
extern "C" __global__ void own_bytes(uint8_t *out, int shift) {
    __shared__ volatile uint8_t tile[64];
    tile[threadIdx.x] = (uint8_t) threadIdx.x;
    tile[threadIdx.x] = (uint8_t) (threadIdx.x + 1);
    out[threadIdx.x] = tile[(threadIdx.x + shift) % 64];
}

// Only the first half of the tile is written.
extern "C" __global__ void half_written(float *out, const float *in, int n_read) {
    __shared__ volatile float tile[256];
    if (threadIdx.x < 128) tile[threadIdx.x] = in[threadIdx.x];
    __syncthreads();
    if (threadIdx.x < n_read) out[threadIdx.x] = tile[threadIdx.x];
}

extern "C" __global__ void count_up(int *out) {
    __shared__ int n;
    if (threadIdx.x == 0) n = 0;
    __syncthreads();
    atomicAdd(&n, 1);
    __syncthreads();
    if (threadIdx.x == 0) *out = n;
}

// Nothing orders the atomics behind the plain store: not that its thread comes to them first.
extern "C" __global__ void count_up_at_once(int *out) {
    __shared__ int n;
    if (threadIdx.x == 0) *(volatile int *) &n = 0;
    atomicAdd(&n, 1);
    __syncthreads();
    if (threadIdx.x == 0) *out = n;
}

// Warp 0 hands a tile to warp 1 by a barrier at which it does not wait itself; it writes the tile again when warp 1 has
// told it to. ORDERS: 1: warp 1 waits for the tile; 2: warp 0 waits for warp 1.
template <int orders, int rounds> __device__ void hand_on(float *out, const float *in) {
    __shared__ volatile float tile[32];
    const int lane = threadIdx.x % 32;
    for (int round = 0; round < rounds; round++) {
        if (threadIdx.x < 32) {
            if (round == 1) {
                if (orders & 2) asm volatile("bar.sync 2, 64;" ::: "memory");
                else asm volatile("bar.arrive 2, 64;" ::: "memory");
            }
            tile[lane] = in[32 * round + lane];
            asm volatile("bar.arrive 1, 64;" ::: "memory");
        } else {
            if (orders & 1) asm volatile("bar.sync 1, 64;" ::: "memory");
            else asm volatile("bar.arrive 1, 64;" ::: "memory");
            out[32 * round + lane] = tile[31 - lane];
            if (round + 1 < rounds) asm volatile("bar.arrive 2, 64;" ::: "memory");
        }
    }
}
extern "C" __global__ void hand_on_good(float *out, const float *in) { hand_on<3, 2>(out, in); }
extern "C" __global__ void hand_on_unread(float *out, const float *in) { hand_on<2, 1>(out, in); }
extern "C" __global__ void hand_on_unasked(float *out, const float *in) { hand_on<1, 2>(out, in); }

// The last lane goes without a part in the product.
extern "C" __global__ void product_of_some(float *out, const uint32_t *in, int n) {
    float d[4] = {0, 0, 0, 0};
    if (threadIdx.x >= n) return;
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%4,%4,%4}, {%4,%4}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(in[threadIdx.x]));
    out[threadIdx.x] = d[0];
}

// Two stages by cp.async; `allowed` groups may still be under way when the first stage is read.
template <int allowed> __device__ void stages(float4 *out, const float4 *in) {
    __shared__ float4 tile[2][64];
    for (int s = 0; s < 2; s++) {
        const uint32_t to = (uint32_t) __cvta_generic_to_shared(&tile[s][threadIdx.x]);
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(in + 64 * s + threadIdx.x) : "memory");
        asm volatile("cp.async.commit_group;" ::: "memory");
    }
    asm volatile("cp.async.wait_group %0;" ::"n"(allowed) : "memory");
    __syncthreads();
    out[threadIdx.x] = tile[0][63 - threadIdx.x];
    asm volatile("cp.async.wait_group 0;" ::: "memory");
    __syncthreads();
    out[64 + threadIdx.x] = tile[1][63 - threadIdx.x];
}
extern "C" __global__ void stages_bad(float4 *out, const float4 *in) { stages<2>(out, in); }
extern "C" __global__ void stages_good(float4 *out, const float4 *in) { stages<1>(out, in); }

extern __shared__ float dynamic[];
extern "C" __global__ void use_dynamic(float *out, int n) {
    for (int i = threadIdx.x; i < n; i += blockDim.x) dynamic[i] = (float) i;
    __syncthreads();
    if (threadIdx.x == 0) *out = dynamic[n - 1];
}

// ---- conflicts between blocks ----

extern "C" __global__ void all_write_first(float *out, int spread) {
    if (threadIdx.x == 0) out[blockIdx.x * spread] = (float) blockIdx.x;
}

extern "C" __global__ void shift_in_place(float *p) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    const float next = p[i + 1];
    __syncthreads();
    p[i] = next;
}

// A block's threads meet in global memory: who reads comes after who writes, and who writes after who reads.
template <bool fixed> __device__ void exchange(volatile float *out, const float *in) {
    out[threadIdx.x] = in[threadIdx.x];
    if (fixed) __syncthreads();
    const float other = out[threadIdx.x ^ 32];
    if (fixed) __syncthreads();
    out[threadIdx.x] = other;
}
extern "C" __global__ void exchange_bad(float *out, const float *in) { exchange<false>(out, in); }
extern "C" __global__ void exchange_good(float *out, const float *in) { exchange<true>(out, in); }
extern "C" __global__ void overtake(volatile float *out, const float *in) { // no barrier between reading and writing
    const float next = in[(threadIdx.x + 1) % 64];
    out[0] = next;
}

// Half of a warp at one barrier, half at another instruction of the same name.
extern "C" __global__ void two_barriers(volatile float *out, const float *in) {
    if (threadIdx.x % 2 == 0) {
        out[threadIdx.x] = 1;
        asm volatile("bar.sync 0;" ::: "memory");
    } else {
        out[threadIdx.x] = in[threadIdx.x];
        asm volatile("bar.sync 0;" ::: "memory");
    }
}

// Places of an array on the thread's stack, of which `n` are written.
extern "C" __global__ void own_array(float *out, const float *in, int n) {
    float own[16];
    for (int i = 0; i < n; i++) own[(i * 7 + threadIdx.x) % 16] = in[i];
    float sum = 0;
    for (int i = 0; i < 16; i++) sum += own[(i * 5 + threadIdx.x) % 16];
    out[threadIdx.x] = sum;
}

extern "C" __global__ void halves(uint16_t *out) { // neighbours in one word: no conflict
    if (threadIdx.x == 0) out[blockIdx.x] = (uint16_t) blockIdx.x;
}

// Partial sums, added by the block that comes last: ordered by fence and atomic.
extern "C" __global__ void last_block(float *out, volatile float *part, unsigned *ticket) {
    __shared__ bool last;
    if (threadIdx.x == 0) {
        part[blockIdx.x] = (float) blockIdx.x;
        __threadfence();
        last = atomicAdd(ticket, 1u) == gridDim.x - 1;
    }
    __syncthreads();
    if (!last || threadIdx.x != 0) return;
    __threadfence();
    float sum = 0;
    for (unsigned b = 0; b < gridDim.x; b++) sum += part[b];
    *out = sum;
}

// The same by all threads, with `how` for what orders it; the ticket's last block adds all parts. APART: each block has
// a ticket of its own, so the atomics of two blocks never meet.
enum how {
    FENCED, // by one thread, which a barrier puts behind the others
    EACH_FENCES,
    ACQ_REL,
    UNFENCED,
    FENCED_EARLY,
    BLOCK_FENCE,
    NO_BARRIER,
    NO_ACQUIRE,
    APART
};
extern "C" __global__ void hand_over(float *out, volatile float *part, unsigned *ticket, int how) {
    __shared__ bool last;
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (how == FENCED_EARLY) __threadfence();
    part[i] = (float) i;
    if (how == EACH_FENCES) __threadfence();
    if (how != NO_BARRIER) __syncthreads();
    if (threadIdx.x == 0) {
        unsigned *at = ticket + (how == APART ? blockIdx.x : 0), n;
        if (how == BLOCK_FENCE) __threadfence_block();
        if (how == FENCED || how == NO_BARRIER || how == NO_ACQUIRE || how == APART) __threadfence();
        if (how == ACQ_REL)
            asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;" : "=r"(n) : "l"(at) : "memory");
        else
            n = atomicAdd(at, 1u);
        last = how == APART || n == gridDim.x - 1;
        if (how != NO_ACQUIRE && how != ACQ_REL) __threadfence();
    }
    __syncthreads();
    if (!last || threadIdx.x != 0) return;
    float sum = 0;
    for (unsigned k = 0; k < gridDim.x * blockDim.x; k++) sum += part[k];
    *out = sum;
    for (unsigned k = 0; k < gridDim.x * blockDim.x; k++) part[k] = 0; // what all have written, and one has read
}

// Block b passes on to the next: the last one reads what the first one wrote and never gave it directly. `gap` does not
// acquire. Blocks must run in order.
extern "C" __global__ void relay(float *out, volatile float *part, unsigned *flag, unsigned gap) {
    const unsigned b = blockIdx.x;
    unsigned seen = 0;
    if (b == 0) *part = 5;
    if (b > 0 && b == gap) asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(flag + b - 1) : "memory");
    if (b > 0 && b != gap) asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(flag + b - 1) : "memory");
    if (b == gridDim.x - 1) *out = *part;
    asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(flag + b), "r"(seen + 1) : "memory");
}

// Each block adds to what the blocks before it left; it gives up its turn by the word of the ticket, or by another.
extern "C" __global__ void in_turn(volatile float *sum, unsigned *ticket, int other) {
    const unsigned n = atomicAdd(ticket, 1u);
    __threadfence();
    *sum = *sum + (float) n;
    __threadfence();
    atomicAdd(ticket + other, 1u);
}

// ---- flags ----

#define RAISE(name, code)                                                                                              \
    extern "C" __global__ void name(unsigned *flag) { asm volatile(code ::"l"(flag), "r"(1u) : "memory"); }
RAISE(raise_weak, "st.global.u32 [%0], %1;")
RAISE(raise_relaxed, "st.relaxed.sys.global.u32 [%0], %1;")
RAISE(raise_fenced, "fence.acq_rel.sys; st.relaxed.sys.global.u32 [%0], %1;")
RAISE(raise_old, "membar.sys; st.volatile.global.u32 [%0], %1;")
RAISE(raise_gpu, "st.release.gpu.global.u32 [%0], %1;")
RAISE(raise_sys, "st.release.sys.global.u32 [%0], %1;")
RAISE(raise_atomic, "red.relaxed.sys.global.add.u32 [%0], %1;")
extern "C" __global__ void take_flag(unsigned *out, const unsigned *flag) {
    asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(*out) : "l"(flag) : "memory");
}
extern "C" __global__ void wait_flag(unsigned *out, const unsigned *flag) {
    do asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(*out) : "l"(flag) : "memory");
    while (*out == 0);
}

// ---- counters ----

template <int pad> __device__ void transpose(float *out, const float *in) {
    __shared__ float tile[32][32 + pad];
    tile[threadIdx.y][threadIdx.x] = in[threadIdx.y * 32 + threadIdx.x];
    __syncthreads();
    out[threadIdx.y * 32 + threadIdx.x] = tile[threadIdx.x][threadIdx.y];
}
extern "C" __global__ void transpose_conflicts(float *out, const float *in) { transpose<0>(out, in); }
extern "C" __global__ void transpose_padded(float *out, const float *in) { transpose<1>(out, in); }

extern "C" __global__ void __launch_bounds__(128) bounded(float *out) { out[threadIdx.x] = 1.0f; }
