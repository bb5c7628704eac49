// Products of CUTLASS's, for test_thirdparty.c: what the emulator believes of ldmatrix, mma.sync, cp.async, and on sm_90
// of wgmma and its descriptors, has to agree with what code takes them to do that is known to be right on hardware.
// y[m][n] = sum of x[m][k] w[n][k], in bf16, float sums. Only the wrappers are ours.
#include <cutlass/arch/barrier.h>
#include <cutlass/gemm/kernel/default_gemm.h>
#include <cutlass/epilogue/thread/linear_combination.h>
#include <cute/tensor.hpp>
#include <cute/arch/mma_sm90_gmma.hpp>
#include <cute/atom/mma_traits_sm90_gmma.hpp>

using bf16 = cutlass::bfloat16_t;

// CUTLASS 2's: blocks of 64 x 64, cp.async in three stages, ldmatrix, mma.sync m16n8k16; a grid of (m / 64, n / 64).
using Product = cutlass::gemm::kernel::DefaultGemm<
    bf16, cutlass::layout::RowMajor, 8, bf16, cutlass::layout::ColumnMajor, 8, float, cutlass::layout::RowMajor, float,
    cutlass::arch::OpClassTensorOp, cutlass::arch::Sm80, cutlass::gemm::GemmShape<64, 64, 32>,
    cutlass::gemm::GemmShape<32, 32, 32>, cutlass::gemm::GemmShape<16, 8, 16>,
    cutlass::epilogue::thread::LinearCombination<float, 4, float, float>,
    cutlass::gemm::threadblock::GemmIdentityThreadblockSwizzle<>, 3, false, cutlass::arch::OpMultiplyAdd,
    cutlass::gemm::SharedMemoryClearOption::kZfill>::GemmKernel; // zeros past the edges: nothing uninitialised is read

extern "C" __global__ void __launch_bounds__(Product::kThreadCount)
    gemm_sm80(const bf16 *x, const bf16 *w, float *y, int m, int n, int k) {
    extern __shared__ __align__(16) char shared[];
    const cutlass::gemm::GemmCoord tiles((m + 63) / 64, (n + 63) / 64, 1);
    const typename Product::Params params({m, n, k}, tiles, {const_cast<bf16 *>(x), k}, {const_cast<bf16 *>(w), k},
                                          {y, n}, {y, n}, {1.0f, 0.0f});
    Product()(params, *(typename Product::SharedStorage *)shared);
}
extern "C" __global__ void gemm_sm80_size(int *size) {
    size[0] = (int)sizeof(typename Product::SharedStorage);
    size[1] = Product::kThreadCount;
}

// CuTe's: one tile of 64 x 64 by 128 threads, both operands in swizzled shared memory, wgmma.
extern "C" __global__ void __launch_bounds__(128) gemm_sm90(const bf16 *x, const bf16 *w, float *y, int m, int n, int k) {
    using namespace cute;
    using Swizzled = decltype(tile_to_shape(GMMA::Layout_K_SW128_Atom<bf16>{}, Shape<_64, _64>{}));
    __shared__ __align__(1024) bf16 shared_x[64 * 64], shared_w[64 * 64];
    auto sx = make_tensor(make_smem_ptr(shared_x), Swizzled{});
    auto sw = make_tensor(make_smem_ptr(shared_w), Swizzled{});
    auto gx = make_tensor(make_gmem_ptr(x), make_layout(make_shape(m, k), make_stride(k, _1{})));
    auto gw = make_tensor(make_gmem_ptr(w), make_layout(make_shape(n, k), make_stride(k, _1{})));
    auto gy = make_tensor(make_gmem_ptr(y), make_layout(make_shape(m, n), make_stride(n, _1{})));
    auto tile_y = local_tile(gy, Shape<_64, _64>{}, make_coord(blockIdx.x, blockIdx.y));
    auto mma = make_tiled_mma(SM90_64x64x16_F32BF16BF16_SS<GMMA::Major::K, GMMA::Major::K>{});
    auto mine = mma.get_thread_slice(threadIdx.x);
    auto fx = mine.partition_fragment_A(sx);
    auto fw = mine.partition_fragment_B(sw);
    auto part_y = mine.partition_C(tile_y);
    auto sum = mine.make_fragment_C(part_y);
    clear(sum);
    for (int at = 0; at < k / 64; at++) {
        auto tx = local_tile(gx, Shape<_64, _64>{}, make_coord(blockIdx.x, at));
        auto tw = local_tile(gw, Shape<_64, _64>{}, make_coord(blockIdx.y, at));
        for (int i = threadIdx.x; i < 64 * 64; i += 128) {
            sx(i / 64, i % 64) = tx(i / 64, i % 64);
            sw(i / 64, i % 64) = tw(i / 64, i % 64);
        }
        cutlass::arch::fence_view_async_shared();
        __syncthreads();
        warpgroup_fence_operand(sum);
        warpgroup_arrive();
        gemm(mma, fx, fw, sum);
        warpgroup_commit_batch();
        warpgroup_wait<0>();
        warpgroup_fence_operand(sum);
        __syncthreads();
    }
    copy(sum, part_y);
}
