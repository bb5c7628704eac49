/* Small products with vdpbf16ps, shared by the attention bodies; included by *_avx512.c alone.
 *
 * C[row][col] = start + sum over pairs of A[row][pair] . B[pair][col]: up to 6 rows by 4 registers of accumulators, A
 * broadcast pair by pair, B streamed. An element of C is one chain over ascending pairs, whatever the tile.
 * a[row] + pair * a_step is a pair of A; B has b_step elements per pair. start: 0, or c, or alpha[row] * c.
 * No state, any thread, no errors. */
#ifndef NT_CPU_DPBF16_H
#define NT_CPU_DPBF16_H

#include "cpu_vec.h"

enum { NT_DP_ROWS = 6, NT_DP_VECS = 4 };
enum nt_dp_start { NT_DP_ZERO, NT_DP_ADD, NT_DP_SCALE };

struct nt_dp {
    const uint32_t *a[NT_DP_ROWS];
    int64_t a_step;
    const nt_bf16 *b;
    int64_t b_step;
    int32_t pair0, pair1;
    const float *alpha;
    float *c;
    int64_t ldc;
};

#define NT_DP_INLINE static inline __attribute__((always_inline))

/* n, nv and start are constants after inlining. */
NT_DP_INLINE void nt_dp_tile(int n, int nv, enum nt_dp_start start, int64_t a_step, const struct nt_dp *p) {
    __m512 acc[NT_DP_ROWS][NT_DP_VECS];
    const nt_bf16 *b = p->b + p->pair0 * p->b_step;
    const uint32_t *a[NT_DP_ROWS];
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) {
        a[i] = p->a[i];
#pragma GCC unroll 8
        for (int j = 0; j < nv; j++) {
            acc[i][j] = start == NT_DP_ZERO ? _mm512_setzero_ps() : _mm512_loadu_ps(p->c + i * p->ldc + 16 * j);
            if (start == NT_DP_SCALE) acc[i][j] = _mm512_mul_ps(acc[i][j], _mm512_set1_ps(p->alpha[i]));
        }
    }
    for (int64_t pair = p->pair0; pair < p->pair1; pair++, b += p->b_step) {
        __m512i bv[NT_DP_VECS];
#pragma GCC unroll 8
        for (int j = 0; j < nv; j++) bv[j] = _mm512_loadu_si512(b + 32 * j);
#pragma GCC unroll 8
        for (int i = 0; i < n; i++) {
            const __m512i av = _mm512_set1_epi32((int32_t)a[i][pair * a_step]);
#pragma GCC unroll 8
            for (int j = 0; j < nv; j++) acc[i][j] = _mm512_dpbf16_ps(acc[i][j], (__m512bh)bv[j], (__m512bh)av);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) {
#pragma GCC unroll 8
        for (int j = 0; j < nv; j++) _mm512_storeu_ps(p->c + i * p->ldc + 16 * j, acc[i][j]);
    }
}

NT_DP_INLINE void nt_dp_rows(int n, int nv, enum nt_dp_start start, int64_t a_step, const struct nt_dp *p) {
    switch (nv) {
    case 1:
        nt_dp_tile(n, 1, start, a_step, p);
        break;
    case 2:
        nt_dp_tile(n, 2, start, a_step, p);
        break;
    case 3:
        nt_dp_tile(n, 3, start, a_step, p);
        break;
    default:
        nt_dp_tile(n, 4, start, a_step, p);
    }
}

/* Any n from 1 to 6 and nv from 1 to 4; start and a_step are constants after inlining. */
NT_DP_INLINE void nt_dp_product(int n, int nv, enum nt_dp_start start, int64_t a_step, const struct nt_dp *p) {
    switch (n) {
    case 1:
        nt_dp_rows(1, nv, start, a_step, p);
        break;
    case 2:
        nt_dp_rows(2, nv, start, a_step, p);
        break;
    case 3:
        nt_dp_rows(3, nv, start, a_step, p);
        break;
    case 4:
        nt_dp_rows(4, nv, start, a_step, p);
        break;
    case 5:
        nt_dp_rows(5, nv, start, a_step, p);
        break;
    default:
        nt_dp_rows(6, nv, start, a_step, p);
    }
}

#endif
