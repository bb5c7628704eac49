/* A block of gemm and of its gradient dgrad on compute capability 9.0: products of tiles, stored.
 *
 * The two differ in how w lies (SUM_LINES of the tile) and in what their launchers put into `g` and the operands. Shape
 * and order of sums: gemm_sm90_tile.cuh; epilogues: gemm_epilogue.cuh.
 * Tiles of up to 128 columns: one a block, blocks beside each other where they fit, lines where the stages were. Tiles of
 * 256 columns, alone on a multiprocessor: a block takes every gridDim.x-th. Its lines are its own, so the stages of the
 * next tile come while sums leave, and the warpgroup whose sums have left first multiplies while the other's leave.
 * No state. */
#ifndef NT_GEMM_SM90_BLOCK_CUH
#define NT_GEMM_SM90_BLOCK_CUH

#include "gemm_epilogue.cuh"
#include "gemm_sm90_tile.cuh"
#include "gemm_tile.cuh"

/* The tile of a number: its first row and column. */
template <class T>
NT_DEVICE void nt_sm90_tile_at(const struct nt_gemm_cuda *g, int32_t tile, int32_t *m0, int32_t *n0) {
    nt_gemm_place_of(tile, g->row_tiles, g->col_tiles, m0, n0);
    *m0 *= T::ROWS;
    *n0 *= T::COLS;
}

/* All threads, once in a kernel. As nt_sm90_block. */
template <class T>
NT_DEVICE void nt_sm90_block_of_tiles(const struct nt_gemm_cuda *g, const struct nt_sm90_operands *own,
                                      const struct nt_sm90_operands *behind, int32_t k2,
                                      const struct nt_gemm_adapter *second, char *stages) {
    enum { LINES = NT_PIECE_FLOATS(T::COLS) }; /* floats of a warp */
    static_assert(T::MULTIPLIERS * LINES * 4 == NT_GEMM_SM90_LINES(T::ROWS), "the launcher's");
    const uint32_t base = nt_shared_address(stages);
    const int32_t n_tile = g->row_tiles * g->col_tiles;
    const int32_t n_own = nt_sm90_stages_of(g->k), n_k = behind ? n_own + nt_sm90_stages_of(k2) : n_own;
    const int32_t warp = nt_sm90_begin<T>(&own->x, &own->w, base);
    struct nt_sm90_place p = {0, 0};
    int32_t m0, n0;
    if (warp >= T::MULTIPLIERS) {
        nt_registers_lower<24>();
        if (warp > T::MULTIPLIERS || !nt_elect()) return;
        nt_sm90_tile_at<T>(g, (int32_t)blockIdx.x, &m0, &n0);
        int32_t n_ahead = nt_sm90_copy_ahead<T>(own, base, n0, n_own);
        nt_launch_wait();
        for (int32_t tile = (int32_t)blockIdx.x; tile < n_tile; tile += (int32_t)gridDim.x, n_ahead = 0) {
            nt_sm90_tile_at<T>(g, tile, &m0, &n0);
            nt_sm90_copy_stages<T>(own, behind, base, m0, n0, n_own, n_k, n_ahead, &p);
        }
        return;
    }
    nt_registers_raise<240>();
    nt_launch_begin();
    float *lines = (float *)(stages + T::LINES_AT) + warp * LINES;
    float acc[T::COLS / 2];
    for (int32_t tile = (int32_t)blockIdx.x; tile < n_tile; tile += (int32_t)gridDim.x) {
        const int32_t last =
            nt_sm90_multiply_stages<T>(acc, base, warp / 4, n_k, &p, nt_sm90_lay_of<T>(T::SUM_LINES));
        if (nt_lane() == 0) nt_mbarrier_arrive(nt_sm90_empty_at<T>(base, last));
        nt_sm90_tile_at<T>(g, tile, &m0, &n0);
        nt_gemm_store_rows<T::COLS / 8>(g, second, lines, acc, m0 + 16 * warp, n0);
    }
}

/* behind: operands of k2 more terms, or NULL; second: where pre-activations go, or NULL; stages: all of the dynamic
 * shared memory, 1024-byte aligned. All threads. */
template <class T>
NT_DEVICE void nt_sm90_block(const struct nt_gemm_cuda *g, const struct nt_sm90_operands *own,
                             const struct nt_sm90_operands *behind, int32_t k2, const struct nt_gemm_adapter *second,
                             char *stages) {
    if constexpr (NT_GEMM_SM90_GOES_ON(T::COLS)) {
        nt_sm90_block_of_tiles<T>(g, own, behind, k2, second, stages);
    } else {
        enum { LINES = NT_PIECE_FLOATS(T::COLS) }; /* floats of a warp */
        static_assert(T::MULTIPLIERS * LINES * 4 <= T::STAGES * T::STAGE_BYTES, "the lines find room");
        int32_t m0, n0;
        nt_sm90_tile_at<T>(g, nt_block_again(), &m0, &n0);
        float acc[T::COLS / 2];
        if (!nt_sm90_product<T>(own, behind, stages, m0, n0, g->k, k2, acc)) return;
        nt_gemm_store_rows<T::COLS / 8>(g, second, (float *)stages + nt_warp() * LINES, acc, m0 + 16 * nt_warp(), n0);
    }
}

#endif
