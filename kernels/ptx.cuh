/* All inline PTX of the project: what CUDA C++ has no function for, one wrapper an instruction.
 *
 * Shared memory is addressed by 32-bit addresses of its own space (nt_shared_address). Pieces of mma fragments, lane l,
 * g = l / 4, t = l % 4 (PTX ISA, "Matrix Fragments for mma.m16n8k16"): A element i of 8: row g + (i & 2 ? 8 : 0), column
 * 2t + (i & 1) + (i >= 4 ? 8 : 0), two to a register, lower first; B element i of 4: k = 2t + (i & 1) + (i >= 2 ? 8 : 0),
 * n = g; C element i of 4: row g + (i >= 2 ? 8 : 0), column 2t + (i & 1). ldmatrix: matrix q of a x4 has its row addresses
 * in lanes 8q .. 8q + 7; lane l receives row l / 4, columns 2 (l % 4), + 1 (.trans: row and column exchanged).
 * cp.async: 16 bytes, both addresses divisible by 16; bytes after the first n are written as zeros.
 * Memory clobbers keep the compiler from moving accesses across copies and waits. Source: PTX ISA 8.x. */
#ifndef NT_PTX_CUH
#define NT_PTX_CUH

#include "cuda_common.cuh"

NT_DEVICE uint32_t nt_shared_address(const void *p) {
    return (uint32_t)__cvta_generic_to_shared(p);
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

/* ---- fragments ---- */

NT_DEVICE void nt_ldmatrix_x2(uint32_t r[2], uint32_t at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(at) : "memory");
}
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
/* a * b + c on two bf16 each. */
NT_DEVICE uint32_t nt_fma_bf16x2(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t d;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}

#endif
