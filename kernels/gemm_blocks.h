/* Products whose panels are not in memory as the panel functions read them: the backward of gemm, and gemm itself with
 * quantized weights.
 *
 * The sum is cut into blocks of NT_GEMM_DEPTH elements, a fixed number, so that a block of rows and a panel fit into
 * L2. For each block of the sum the rows are read in place, or written to the thread's scratch (copied where the panel
 * function or their distance asks for it, for gemm_wgrad transposed), then panel by panel the weights (unpacked,
 * transposed from the forward's panels, or paired from rows of b), then the panel function runs. An adapter's second
 * product is more of the same sum: it joins the last block when it is short, else it has blocks of its own. Each output
 * is a chain per block over ascending elements, the blocks added in order, whatever rows, panels and threads are around
 * it; a bf16 output, and any of gemm, is one chain whose state waits in scratch between blocks. gemm_dgrad of a matrix
 * with parts is a product for each of them, of its rows and columns.
 *
 * Memory: the scratch of the backend, nothing else. Errors: none; what is checked are bugs of the caller. */
#ifndef NT_GEMM_BLOCKS_H
#define NT_GEMM_BLOCKS_H

#include "gemm_plan.h"
#include "ops_bwd.h"

enum { NT_GEMM_DEPTH = 1024 };
_Static_assert((int)NT_GEMM_DEPTH == (int)NT_WGRAD_TOKENS, "blocks as the contract has them");

/* How one instruction set writes blocks. A panel of the sum is [pairs][NT_PANEL columns][2]. */
struct nt_gemm_block_traits {
    const struct nt_gemm_traits *product;
    /* The NT_PANEL / 2 pairs of the rows of one of w's panels: columns k0 .. k0 + NT_PANEL - 1, zero from w->k on. */
    void (*turn)(const struct nt_packed *w, int32_t panel, int32_t k0, nt_bf16 *to);
    /* Columns of a, `rows` of them, become rows of n_tok elements as the panel function reads them, ld_to bytes apart;
     * zeros may follow up to the next multiple of 32 elements, and the first is written where n_tok is odd. */
    void (*transpose)(const nt_bf16 *a, int64_t lda, int32_t n_tok, int32_t rows, char *to, int64_t ld_to);
    /* Pairs of rows of b: NT_PANEL / 2 columns at half[0], as many at half[1]; n_col of them exist. */
    void (*pair)(const nt_bf16 *const half[2], int64_t ldb, int32_t n_tok, int32_t n_col, nt_bf16 *to);
    /* The panel function for few rows of a gradient, which pairs b on the way; NULL: none. p without w, ADD_F32; its
     * rows are as pair_rows writes them, pairs of tokens ldx bytes apart, n_tok even. */
    void (*narrow)(const struct nt_gemm_panel *p, const nt_bf16 *const half[2], int64_t ldb);
    void (*pair_rows)(const nt_bf16 *a, int64_t lda, int32_t n_tok, int32_t rows, char *to, int64_t step);
};

/* gemm with quantized weights. */
nt_status nt_gemm_quantized_run(struct nt_backend *be, const struct nt_gemm_args *args,
                                const struct nt_gemm_traits *product);
nt_status nt_gemm_dgrad_run(struct nt_backend *be, const struct nt_gemm_dgrad_args *args,
                            const struct nt_gemm_block_traits *traits);
nt_status nt_gemm_wgrad_run(struct nt_backend *be, const struct nt_gemm_wgrad_args *args,
                            const struct nt_gemm_block_traits *traits);

#endif
