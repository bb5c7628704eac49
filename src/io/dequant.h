/* Storage types of weights, and their way to float32 and bfloat16.
 *
 * NT_WDTYPE_LIST is the one table of block layouts: readers use it to size tensors, nt_dequant_* to read them. A type
 * without a dequantizer is known (so that a file holding it can be checked) but its tensors cannot be read.
 * Layouts: the GGUF specification (ggml docs/gguf.md) and ggml's type traits; all fields little-endian. y is the
 * weight, q an integer code, d a float16 scale: Q8_0 y = d*q; Q4_0 y = d*(q-8); Q4_1 y = d*q+m; Q5_0 y = d*(q-16);
 * Q5_1 y = d*q+m; Q4_K and Q5_K y = d*sc*q - dmin*mn; Q6_K y = d*sc*(q-32). The order of float operations is that of
 * the gguf Python package: results are bit-equal with it (tests/golden/dequant.bin).
 * Rounding to bfloat16 is to nearest even; a NaN keeps its sign and stays a NaN.
 * No state, no allocation, no errors: the callers check sizes. Thread safe. */
#ifndef NT_DEQUANT_H
#define NT_DEQUANT_H

#include <stdbool.h>
#include <stdint.h>

/* X(name, ggml type id or -1, safetensors dtype or "", elements per block, bytes per block,
 *   static function of dequant.c or NULL) */
#define NT_WDTYPE_LIST(X)                                                                                              \
    X(F32, 0, "F32", 1, 4, dequantize_f32)                                                                             \
    X(F16, 1, "F16", 1, 2, dequantize_f16)                                                                             \
    X(BF16, 30, "BF16", 1, 2, dequantize_bf16)                                                                         \
    X(Q8_0, 8, "", 32, 34, dequantize_q8_0)                                                                            \
    X(Q4_0, 2, "", 32, 18, dequantize_q4_0)                                                                            \
    X(Q4_1, 3, "", 32, 20, dequantize_q4_1)                                                                            \
    X(Q5_0, 6, "", 32, 22, dequantize_q5_0)                                                                            \
    X(Q5_1, 7, "", 32, 24, dequantize_q5_1)                                                                            \
    X(Q4_K, 12, "", 256, 144, dequantize_q4_k)                                                                         \
    X(Q5_K, 13, "", 256, 176, dequantize_q5_k)                                                                         \
    X(Q6_K, 14, "", 256, 210, dequantize_q6_k)                                                                         \
    X(F64, 28, "F64", 1, 8, NULL)                                                                                      \
    X(I8, 24, "I8", 1, 1, NULL)                                                                                        \
    X(I16, 25, "I16", 1, 2, NULL)                                                                                      \
    X(I32, 26, "I32", 1, 4, NULL)                                                                                      \
    X(I64, 27, "I64", 1, 8, NULL)                                                                                      \
    X(U8, -1, "U8", 1, 1, NULL)                                                                                        \
    X(U16, -1, "U16", 1, 2, NULL)                                                                                      \
    X(U32, -1, "U32", 1, 4, NULL)                                                                                      \
    X(U64, -1, "U64", 1, 8, NULL)                                                                                      \
    X(BOOL, -1, "BOOL", 1, 1, NULL)                                                                                    \
    X(C64, -1, "C64", 1, 8, NULL)                                                                                      \
    X(F8_E4M3, -1, "F8_E4M3", 1, 1, NULL)                                                                              \
    X(F8_E5M2, -1, "F8_E5M2", 1, 1, NULL)                                                                              \
    X(F8_E8M0, -1, "F8_E8M0", 1, 1, NULL)                                                                              \
    X(F8_E4M3FNUZ, -1, "F8_E4M3FNUZ", 1, 1, NULL)                                                                      \
    X(F8_E5M2FNUZ, -1, "F8_E5M2FNUZ", 1, 1, NULL)                                                                      \
    X(F4, -1, "F4", 2, 1, NULL)                                                                                        \
    X(F6_E2M3, -1, "F6_E2M3", 4, 3, NULL)                                                                              \
    X(F6_E3M2, -1, "F6_E3M2", 4, 3, NULL)                                                                              \
    X(Q8_1, 9, "", 32, 40, NULL)                                                                                       \
    X(Q2_K, 10, "", 256, 84, NULL)                                                                                     \
    X(Q3_K, 11, "", 256, 110, NULL)                                                                                    \
    X(Q8_K, 15, "", 256, 292, NULL)                                                                                    \
    X(IQ2_XXS, 16, "", 256, 66, NULL)                                                                                  \
    X(IQ2_XS, 17, "", 256, 74, NULL)                                                                                   \
    X(IQ3_XXS, 18, "", 256, 98, NULL)                                                                                  \
    X(IQ1_S, 19, "", 256, 50, NULL)                                                                                    \
    X(IQ4_NL, 20, "", 32, 18, NULL)                                                                                    \
    X(IQ3_S, 21, "", 256, 110, NULL)                                                                                   \
    X(IQ2_S, 22, "", 256, 82, NULL)                                                                                    \
    X(IQ4_XS, 23, "", 256, 136, NULL)                                                                                  \
    X(IQ1_M, 29, "", 256, 56, NULL)                                                                                    \
    X(TQ1_0, 34, "", 256, 54, NULL)                                                                                    \
    X(TQ2_0, 35, "", 256, 66, NULL)                                                                                    \
    X(MXFP4, 39, "", 32, 17, NULL)

enum nt_wdtype {
#define X(name, ggml, st, n, bytes, fn) NT_WDTYPE_##name,
    NT_WDTYPE_LIST(X)
#undef X
        NT_WDTYPE_COUNT
};

struct nt_wdtype_info {
    const char *name;
    int32_t ggml_id;              /* -1: not a GGUF type */
    const char *safetensors;      /* "": not a safetensors dtype */
    int32_t block_n, block_bytes; /* elements and bytes of one block; 1-element blocks are plain arrays */
    /* n_block blocks at src (any alignment) to block_n * n_block floats; NULL: not readable as a weight. */
    void (*dequantize)(const uint8_t *src, int64_t n_block, float *dst);
};

const struct nt_wdtype_info *nt_wdtype_info(enum nt_wdtype t);
enum nt_wdtype nt_wdtype_from_ggml(uint32_t id);                          /* NT_WDTYPE_COUNT: unknown */
enum nt_wdtype nt_wdtype_from_safetensors(const char *name, int64_t len); /* NT_WDTYPE_COUNT: unknown */
bool nt_wdtype_readable(enum nt_wdtype t);

uint16_t nt_bf16_from_f32(float x);
float nt_f32_from_bf16(uint16_t b);
float nt_f32_from_f16(uint16_t h);
void nt_bf16_from_f32_n(const float *src, int64_t n, uint16_t *dst);
uint16_t nt_f16_from_f32(float x); /* nearest even; beyond 65504 infinite */
/* n floats to F32, F16 or BF16 bytes at dst (any alignment): the way back of dequantize for the plain types. */
void nt_wdtype_round(enum nt_wdtype t, const float *src, int64_t n, uint8_t *dst);

/* GGUF stores rows of attn_q and attn_k of the interleaved-RoPE architectures (general.architecture "llama": Llama,
 * Mistral, SmolLM2; not qwen2, qwen3) so that per head of d_head rows, row 2j is the HF row j and row 2j+1 the HF row
 * j + d_head/2. This maps a row index in HF order (rotate-half) to the row in the GGUF tensor that holds it; weights
 * and biases alike, n_head is the number of heads of that tensor (KV heads for k). */
int64_t nt_unpermute_qk_row(int64_t row, int32_t n_head, int32_t d_head);

#endif
