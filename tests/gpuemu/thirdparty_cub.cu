// Code of NVIDIA's that is known to be right on hardware: CUB's, cooperative groups' and libcu++'s primitives as kernels
// of one block, for test_thirdparty.c. Only the wrappers are ours: what the emulator believes of shuffles, votes,
// matches, reductions, barriers and asynchronous copies has to agree with what NVIDIA's code takes them to do.
#include <cub/block/block_exchange.cuh>
#include <cub/block/block_histogram.cuh>
#include <cub/block/block_merge_sort.cuh>
#include <cub/block/block_radix_sort.cuh>
#include <cub/block/block_reduce.cuh>
#include <cub/block/block_scan.cuh>
#include <cub/warp/warp_reduce.cuh>
#include <cub/warp/warp_scan.cuh>
#include <cooperative_groups.h>
#include <cooperative_groups/memcpy_async.h>
#include <cooperative_groups/reduce.h>
#include <cooperative_groups/scan.h>
#include <cuda/barrier>

namespace cg = cooperative_groups;

static constexpr int THREADS = 128, ITEMS = 4; // test_thirdparty.c knows both

template <class T> static __device__ void load(const T *in, T (&v)[ITEMS]) {
    for (int i = 0; i < ITEMS; i++) v[i] = in[threadIdx.x * ITEMS + i];
}
template <class T> static __device__ void store(T *out, const T (&v)[ITEMS]) {
    for (int i = 0; i < ITEMS; i++) out[threadIdx.x * ITEMS + i] = v[i];
}

// out: the sum of all, the sum of the first 100 threads' first items, the largest
template <cub::BlockReduceAlgorithm A> static __device__ void reduce(const int *in, int *out) {
    using Reduce = cub::BlockReduce<int, THREADS, A>;
    __shared__ typename Reduce::TempStorage temp;
    int v[ITEMS];
    load(in, v);
    const int all = Reduce(temp).Sum(v);
    __syncthreads();
    const int part = Reduce(temp).Sum(v[0], 100);
    __syncthreads();
    const int largest = Reduce(temp).Reduce(v, cuda::maximum<>{});
    if (threadIdx.x == 0) out[0] = all, out[1] = part, out[2] = largest;
}
extern "C" __global__ void reduce_raking(const int *in, int *out) { reduce<cub::BLOCK_REDUCE_RAKING>(in, out); }
extern "C" __global__ void reduce_warps(const int *in, int *out) { reduce<cub::BLOCK_REDUCE_WARP_REDUCTIONS>(in, out); }

// out: the exclusive sums, then the inclusive largest
template <cub::BlockScanAlgorithm A> static __device__ void scan(const int *in, int *out) {
    using Scan = cub::BlockScan<int, THREADS, A>;
    __shared__ typename Scan::TempStorage temp;
    int v[ITEMS], sums[ITEMS], largest[ITEMS];
    load(in, v);
    Scan(temp).ExclusiveSum(v, sums);
    __syncthreads();
    Scan(temp).InclusiveScan(v, largest, cuda::maximum<>{});
    store(out, sums);
    store(out + THREADS * ITEMS, largest);
}
extern "C" __global__ void scan_raking(const int *in, int *out) { scan<cub::BLOCK_SCAN_RAKING>(in, out); }
extern "C" __global__ void scan_warps(const int *in, int *out) { scan<cub::BLOCK_SCAN_WARP_SCANS>(in, out); }

// out: the keys in order, then where each stood (stable)
extern "C" __global__ void sort_radix(const float *in, int *out) {
    using Sort = cub::BlockRadixSort<float, THREADS, ITEMS, int>;
    __shared__ typename Sort::TempStorage temp;
    float v[ITEMS];
    int from[ITEMS];
    load(in, v);
    for (int i = 0; i < ITEMS; i++) from[i] = threadIdx.x * ITEMS + i;
    Sort(temp).Sort(v, from);
    store((float *)out, v);
    store(out + THREADS * ITEMS, from);
}
extern "C" __global__ void sort_merge(const float *in, int *out) {
    using Sort = cub::BlockMergeSort<float, THREADS, ITEMS, int>;
    __shared__ typename Sort::TempStorage temp;
    float v[ITEMS];
    int from[ITEMS];
    // It looks at one key past the last and makes nothing of it; the emulator would report that it was never written.
    for (int i = threadIdx.x; i < (int)(sizeof temp / 4); i += THREADS) ((volatile int *)&temp)[i] = 0;
    __syncthreads();
    load(in, v);
    for (int i = 0; i < ITEMS; i++) from[i] = threadIdx.x * ITEMS + i;
    Sort(temp).StableSort(v, from, [](float a, float b) { return a < b; });
    store((float *)out, v);
    store(out + THREADS * ITEMS, from);
}

// out: the items striped over the threads; how many there are of each low byte / 16
extern "C" __global__ void exchange_histogram(const int *in, int *out) {
    using Exchange = cub::BlockExchange<int, THREADS, ITEMS, true>;
    using Histogram = cub::BlockHistogram<unsigned char, THREADS, ITEMS, 16, cub::BLOCK_HISTO_ATOMIC>;
    __shared__ typename Exchange::TempStorage exchange;
    __shared__ typename Histogram::TempStorage histogram;
    __shared__ int bins[16];
    int v[ITEMS];
    unsigned char bin[ITEMS];
    load(in, v);
    for (int i = 0; i < ITEMS; i++) bin[i] = (unsigned char)((v[i] & 255) / 16);
    Exchange(exchange).BlockedToStriped(v);
    Histogram(histogram).Histogram(bin, bins);
    __syncthreads();
    store(out, v);
    if (threadIdx.x < 16) out[THREADS * ITEMS + threadIdx.x] = bins[threadIdx.x];
}

// Per thread: the sum over its 32 lanes and over its 8 (as their first lane has them), the sums before it of its warp,
// and the sum of the run that begins at it (runs begin where an item is a multiple of 4)
extern "C" __global__ void warps(const int *in, int *out) {
    using Warp = cub::WarpReduce<int>;
    using Eight = cub::WarpReduce<int, 8>;
    using Scan = cub::WarpScan<int>;
    __shared__ typename Warp::TempStorage temp[THREADS / 32];
    __shared__ typename Eight::TempStorage eights[THREADS / 8];
    __shared__ typename Scan::TempStorage scans[THREADS / 32];
    const int t = threadIdx.x, v = in[t];
    const int all = Warp(temp[t / 32]).Sum(v);
    __syncwarp();
    const int run = Warp(temp[t / 32]).HeadSegmentedSum(v, v % 4 == 0);
    const int eight = Eight(eights[t / 8]).Sum(v);
    int before;
    Scan(scans[t / 32]).ExclusiveSum(v, before);
    out[4 * t] = all, out[4 * t + 1] = eight, out[4 * t + 2] = before, out[4 * t + 3] = run;
}

// Per thread: the largest of its tile of 16, the float sum of its warp, the sum before it in its tile, and the sum and
// number of those lanes of its warp whose item is odd or even as its own is, and the smallest with the same item % 5
extern "C" __global__ void groups(const int *in, int *out) {
    const auto block = cg::this_thread_block();
    const auto warp = cg::tiled_partition<32>(block);
    const auto tile = cg::tiled_partition<16>(block);
    const int v = in[block.thread_rank()];
    int *at = out + 8 * block.thread_rank();
    at[0] = cg::reduce(tile, v, cg::greater<int>());
    ((float *)at)[1] = cg::reduce(warp, (float)v, cg::plus<float>());
    at[2] = cg::exclusive_scan(tile, v, cg::plus<int>());
    const auto alike = cg::binary_partition(warp, v & 1);
    at[3] = cg::reduce(alike, v, cg::plus<int>());
    at[4] = (int)alike.size();
    const auto same = cg::labeled_partition(warp, v % 5);
    at[5] = cg::reduce(same, v, cg::less<int>());
    at[6] = cg::reduce(warp, v, cg::bit_xor<int>());
    at[7] = warp.any(v == 7) + 2 * warp.all(v >= 0);
}

// Tiles are copied ahead of their use: by cooperative groups, and into two stages by a barrier of libcu++. out: each
// item's mirror in its tile of 128, plus the sum over the barrier's tile.
extern "C" __global__ void copies(const int *in, int *out) {
    using Barrier = cuda::barrier<cuda::thread_scope_block>;
    __shared__ alignas(16) int whole[THREADS * ITEMS], stage[2][THREADS];
#pragma nv_diag_suppress static_var_with_dynamic_init
    __shared__ Barrier ready[2];
    const auto block = cg::this_thread_block();
    if (threadIdx.x == 0) init(&ready[0], THREADS), init(&ready[1], THREADS);
    cg::memcpy_async(block, whole, in, cuda::aligned_size_t<16>(sizeof whole));
    cg::wait(block);
    cuda::memcpy_async(block, stage[0], in, cuda::aligned_size_t<16>(sizeof stage[0]), ready[0]);
    for (int i = 0; i < ITEMS; i++) {
        if (i + 1 < ITEMS)
            cuda::memcpy_async(block, stage[(i + 1) & 1], in + (i + 1) * THREADS,
                               cuda::aligned_size_t<16>(sizeof stage[0]), ready[(i + 1) & 1]);
        ready[i & 1].arrive_and_wait();
        int sum = 0;
        for (int j = 0; j < THREADS; j++) sum += stage[i & 1][j];
        out[i * THREADS + threadIdx.x] = whole[i * THREADS + THREADS - 1 - threadIdx.x] + sum;
        block.sync(); // the stage is read before the next copy into it begins
    }
}
