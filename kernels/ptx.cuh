/* All inline PTX of the project: what CUDA C++ has no function for, one wrapper an instruction.
 *
 * Shared memory is addressed by 32-bit addresses of its own space (nt_shared_address). Pieces of mma fragments, lane l,
 * g = l / 4, t = l % 4 (PTX ISA, "Matrix Fragments for mma.m16n8k16"): A element i of 8: row g + (i & 2 ? 8 : 0), column
 * 2t + (i & 1) + (i >= 4 ? 8 : 0), two to a register, lower first; B element i of 4: k = 2t + (i & 1) + (i >= 2 ? 8 : 0),
 * n = g; C element i of 4: row g + (i >= 2 ? 8 : 0), column 2t + (i & 1). ldmatrix: matrix q of a x4 has its row addresses
 * in lanes 8q .. 8q + 7; lane l receives row l / 4, columns 2 (l % 4), + 1 (.trans: row and column exchanged).
 * cp.async: 16 bytes, both addresses divisible by 16; bytes after the first n are written as zeros.
 * The part for sm_90a compiles to nothing unless used.
 * Memory clobbers keep the compiler from moving accesses across copies and waits. Source: PTX ISA 8.x. */
#ifndef NT_PTX_CUH
#define NT_PTX_CUH

#include "cuda_common.cuh"

NT_DEVICE uint32_t nt_shared_address(const void *p) {
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* blockIdx.x, read anew: what is computed from it again need not be kept in registers. */
NT_DEVICE int32_t nt_block_again(void) {
    int32_t block;
    asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(block));
    return block;
}

/* ---- launches that begin before the one before has ended (cuda_launch.h) ---- */

/* Until the launch before this one has ended and all that it wrote is there. */
NT_DEVICE void nt_launch_wait(void) {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
/* A kernel's first statement, in all threads: what came before has ended, and the next launch may begin, to wait here in
 * its turn. In this order no launch runs beside any but the one before it. */
NT_DEVICE void nt_launch_begin(void) {
    nt_launch_wait();
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/* ---- asynchronous copies ---- */

NT_DEVICE void nt_cp_async_16(uint32_t to, const void *from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}
NT_DEVICE void nt_cp_async_16_zfill(uint32_t to, const void *from, int n) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(n) : "memory");
}
NT_DEVICE void nt_cp_async_commit(void) {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
/* Until at most N of this thread's newest groups are under way. */
template <int N> NT_DEVICE void nt_cp_async_wait(void) {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/* Barrier `id` (1 to 15; 0 is that of __syncthreads) of so many threads, whole warps. */
NT_DEVICE void nt_barrier(int32_t id, int32_t threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/* The same, and whether `mine` is true in any of them. */
NT_DEVICE bool nt_barrier_any(int32_t id, int32_t threads, bool mine) {
    uint32_t any;
    asm volatile("{\n.reg .pred p, q;\nsetp.ne.u32 q, %3, 0;\n"
                 "bar.red.or.pred p, %1, %2, q;\nselp.u32 %0, 1, 0, p;\n}"
                 : "=r"(any)
                 : "r"(id), "r"(threads), "r"((uint32_t)mine)
                 : "memory");
    return any != 0;
}

/* What this thread wrote to shared memory is seen by wgmma and the copy engine of whoever it meets at a barrier next. */
NT_DEVICE void nt_async_proxy_fence(void) {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

/* ---- fragments ---- */

NT_DEVICE void nt_ldmatrix_x4(uint32_t r[4], uint32_t at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}
NT_DEVICE void nt_ldmatrix_x4_trans(uint32_t r[4], uint32_t at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}
/* d += a b: 16 x 16 times 16 x 8. */
NT_DEVICE void nt_mma_bf16(float d[4], const uint32_t a[4], uint32_t b0, uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* ---- sm_90a: barriers in shared memory, tensor copies, wgmma ---- */

/* An mbarrier is 8 bytes of shared memory. Its phase ends when `count` arrivals and all expected bytes have come. */
NT_DEVICE void nt_mbarrier_init(uint32_t at, int count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at), "r"(count) : "memory");
}
/* By who initialised, before the barrier of the block: copies may use the mbarriers after it. */
NT_DEVICE void nt_mbarrier_init_fence(void) {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
NT_DEVICE void nt_mbarrier_arrive(uint32_t at) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(at) : "memory");
}
/* Arrives, and `bytes` more must come before the phase ends. */
NT_DEVICE void nt_mbarrier_arrive_expect(uint32_t at, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(at), "r"(bytes) : "memory");
}
/* Until the phase of this parity has ended (a new mbarrier is in phase 0, so parity 1 passes at once). */
NT_DEVICE void nt_mbarrier_wait(uint32_t at, uint32_t parity) {
    uint32_t done = 0;
    while (!done) {
        asm volatile("{\n.reg .pred p;\n"
                     "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
                     : "=r"(done)
                     : "r"(at), "r"(parity)
                     : "memory");
    }
}
/* The box at column c0, row c1 of a tensor map, to shared memory; counts its bytes, zeros beyond the tensor too. */
NT_DEVICE void nt_tensor_copy_2d(uint32_t to, const void *map, int32_t c0, int32_t c1, uint32_t mbarrier) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], "
                 "[%1, {%2, %3}], [%4];" ::"r"(to),
                 "l"(map), "r"(c0), "r"(c1), "r"(mbarrier)
                 : "memory");
}
NT_DEVICE void nt_tensor_copy_3d(uint32_t to, const void *map, int32_t c0, int32_t c1, int32_t c2, uint32_t mbarrier) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], "
                 "[%1, {%2, %3, %4}], [%5];" ::"r"(to),
                 "l"(map), "r"(c0), "r"(c1), "r"(c2), "r"(mbarrier)
                 : "memory");
}
NT_DEVICE void nt_tensor_map_prefetch(const void *map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}
/* True in one lane of the warp. */
NT_DEVICE bool nt_elect(void) {
    uint32_t chosen;
    asm volatile("{\n.reg .pred p;\nelect.sync _|p, 0xffffffff;\nselp.u32 %0, 1, 0, p;\n}" : "=r"(chosen));
    return chosen != 0;
}
/* Whether `up` warpgroups can have so many registers a thread once `down` others have lowered theirs: a block that has
 * its multiprocessor to itself starts with `launch` of each (budgets.txt), and raising waits for ever for what is not
 * given back. */
constexpr bool nt_registers_suffice(int up, int raised, int down, int lowered) {
    const int launch = 65536 / (128 * (up + down)) / 8 * 8;
    return lowered <= launch && launch <= raised && up * raised + down * lowered <= (up + down) * launch;
}
/* All warps of a warpgroup: registers of each of its threads from now on. */
template <int N> NT_DEVICE void nt_registers_raise(void) {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N));
}
template <int N> NT_DEVICE void nt_registers_lower(void) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N));
}

/* Descriptors of tiles whose lines of 64 bf16 (128 bytes) follow each other with the 128-byte swizzle; 8 lines are 1024
 * bytes and begin at a multiple of that (PTX ISA, "Matrix Descriptor"). Turned (MN-major): a line is an element of the
 * sum, its columns are the operand's; the next 64 columns lie `box` bytes further. 16 elements of the sum further: + 128.
 */
NT_DEVICE uint64_t nt_wgmma_turned_tile(uint32_t at, uint32_t box) {
    return (uint64_t)(at >> 4 & 0x3fff) | (uint64_t)(box >> 4) << 16 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}
/* Turned, of lines of 16 bf16 (32 bytes) with the 32-byte swizzle: 8 lines are 256 bytes and begin at a multiple of that,
 * the next 16 columns lie `box` bytes further. 16 elements of the sum further: + 32. */
NT_DEVICE uint64_t nt_wgmma_turned_runs(uint32_t at, uint32_t box) {
    return (uint64_t)(at >> 4 & 0x3fff) | (uint64_t)(box >> 4) << 16 | (uint64_t)(256 >> 4) << 32 | (uint64_t)3 << 62;
}
/* K-major: the columns of a line are elements of the sum. 16 of them further: + 2. */
NT_DEVICE uint64_t nt_wgmma_tile(uint32_t at) {
    return nt_wgmma_turned_tile(at, 16);
}
/* The descriptor of a tile at address 0, moved. */
NT_DEVICE uint64_t nt_wgmma_at(uint64_t tile, uint32_t at) {
    return tile | (at >> 4 & 0x3fff);
}
/* Before the first wgmma and whenever other code touched the accumulators. */
NT_DEVICE void nt_wgmma_fence(void) {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
NT_DEVICE void nt_wgmma_commit(void) {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
/* Until at most N of this warpgroup's newest groups are under way. */
template <int N> NT_DEVICE void nt_wgmma_wait(void) {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
/* Before a wait: x, which is not negative, has been computed. ptxas moves a wait to the front of arithmetic that does not
 * need it, and so takes away what should run beside the products; an instruction that never does anything holds it. */
NT_DEVICE void nt_wgmma_hold(float x) {
    asm volatile("{\n.reg .pred p;\nsetp.lt.f32 p, %0, 0f00000000;\n@p nanosleep.u32 0;\n}" ::"f"(x) : "memory");
}
/* After a wait: reads of the accumulators stay behind it. */
template <int COUNT> NT_DEVICE void nt_wgmma_settle(float *d) {
#pragma unroll
    for (int i = 0; i < COUNT; i++) asm volatile("" : "+f"(d[i])::"memory");
}

/* Accumulators of wgmma, 16 at a time: in the text of the instruction, and as operands. */
#define NT_WGMMA_D0 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define NT_WGMMA_D1 "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define NT_WGMMA_D2 "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
#define NT_WGMMA_D3 "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define NT_WGMMA_D4 "%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79"
#define NT_WGMMA_D5 "%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
#define NT_WGMMA_D6 "%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111"
#define NT_WGMMA_D7 "%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
#define NT_WGMMA_F4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define NT_WGMMA_F8(i) NT_WGMMA_F4(i), NT_WGMMA_F4(i + 4)
#define NT_WGMMA_F32(i) NT_WGMMA_F8(i), NT_WGMMA_F8(i + 8), NT_WGMMA_F8(i + 16), NT_WGMMA_F8(i + 24)
/* d (+)= a b^T: 64 x 16 times 16 x n, n / 2 accumulators a thread. Of thread T of the warpgroup, w = T / 32, l = T % 32,
 * value v: row 16 w + l / 4 + 8 (v / 2 % 2), column 8 (v / 4) + 2 (l % 4) + v % 2. accumulate 0: d is not read.
 * TURNED_A, TURNED_B: that operand is a turned tile. */
template <int N, bool TURNED_A = false, bool TURNED_B = false>
NT_DEVICE void nt_wgmma_bf16(float *d, uint64_t a, uint64_t b, int accumulate);
#define NT_WGMMA_OF(n, turned_a, turned_b, names, ia, ib, ip, ...)                                                     \
    template <>                                                                                                        \
    __device__ __forceinline__ void nt_wgmma_bf16<n, turned_a, turned_b>(float *d, uint64_t a, uint64_t b,             \
                                                                         int accumulate) {                             \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #ip ", 0;\n"                                                 \
                     "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {" names "}, %" #ia ", %" #ib           \
                     ", p, 1, 1, " #turned_a ", " #turned_b ";\n}"                                                     \
                     : __VA_ARGS__                                                                                     \
                     : "l"(a), "l"(b), "r"(accumulate));                                                               \
    }
#define NT_WGMMA(n, ...)                                                                                               \
    NT_WGMMA_OF(n, 0, 0, __VA_ARGS__) NT_WGMMA_OF(n, 0, 1, __VA_ARGS__) NT_WGMMA_OF(n, 1, 1, __VA_ARGS__)
NT_WGMMA(32, NT_WGMMA_D0, 16, 17, 18, NT_WGMMA_F8(0), NT_WGMMA_F8(8))
NT_WGMMA(64, NT_WGMMA_D0 "," NT_WGMMA_D1, 32, 33, 34, NT_WGMMA_F32(0))
NT_WGMMA(128, NT_WGMMA_D0 "," NT_WGMMA_D1 "," NT_WGMMA_D2 "," NT_WGMMA_D3, 64, 65, 66, NT_WGMMA_F32(0),
         NT_WGMMA_F32(32))
NT_WGMMA(256,
         NT_WGMMA_D0 "," NT_WGMMA_D1 "," NT_WGMMA_D2 "," NT_WGMMA_D3 "," NT_WGMMA_D4 "," NT_WGMMA_D5 "," NT_WGMMA_D6
                     "," NT_WGMMA_D7,
         128, 129, 130, NT_WGMMA_F32(0), NT_WGMMA_F32(32), NT_WGMMA_F32(64), NT_WGMMA_F32(96))
#undef NT_WGMMA
#undef NT_WGMMA_OF

/* The same with a in registers, each warp its 16 rows as mma.m16n8k16 has them. They may not change before a wait has
 * seen the product end, and after a change comes a fence. */
template <int N, bool TURNED = false>
NT_DEVICE void nt_wgmma_bf16_rs(float *d, const uint32_t a[4], uint64_t b, int accumulate);
#define NT_WGMMA_RS_OF(n, turned, names, i0, i1, i2, i3, ib, ip, ...)                                                  \
    template <>                                                                                                        \
    __device__ __forceinline__ void nt_wgmma_bf16_rs<n, turned>(float *d, const uint32_t a[4], uint64_t b,             \
                                                                int accumulate) {                                      \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #ip ", 0;\n"                                                 \
                     "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {" names "}, {%" #i0 ",%" #i1 ",%" #i2  \
                     ",%" #i3 "}, %" #ib ", p, 1, 1, " #turned ";\n}"                                                  \
                     : __VA_ARGS__                                                                                     \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate));                           \
    }
#define NT_WGMMA_RS(n, ...) NT_WGMMA_RS_OF(n, 0, __VA_ARGS__) NT_WGMMA_RS_OF(n, 1, __VA_ARGS__)
NT_WGMMA_RS(64, NT_WGMMA_D0 "," NT_WGMMA_D1, 32, 33, 34, 35, 36, 37, NT_WGMMA_F32(0))
NT_WGMMA_RS(128, NT_WGMMA_D0 "," NT_WGMMA_D1 "," NT_WGMMA_D2 "," NT_WGMMA_D3, 64, 65, 66, 67, 68, 69, NT_WGMMA_F32(0),
            NT_WGMMA_F32(32))
#undef NT_WGMMA_RS
#undef NT_WGMMA_RS_OF

/* ---- flags between devices ---- */

/* What this thread saw or wrote before is visible to whoever loads the value with acquire, on any device. */
NT_DEVICE void nt_store_release_sys(uint32_t *to, uint32_t v) {
    asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(to), "r"(v) : "memory");
}
NT_DEVICE uint32_t nt_load_acquire_sys(const uint32_t *from) {
    uint32_t v;
    asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(v) : "l"(from) : "memory");
    return v;
}

/* ---- arithmetic ---- */

/* 2^x within 2 ulp; subnormal results are 0. */
NT_DEVICE float nt_exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
/* 1 / x within 1 ulp; 0 where that is subnormal. */
NT_DEVICE float nt_rcp(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
/* a * b + c on two bf16 each. */
NT_DEVICE uint32_t nt_fma_bf16x2(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t d;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}

#endif
