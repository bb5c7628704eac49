// Writes cute_golden.h: where NVIDIA's own CuTe traits place the elements of fragments and swizzled tiles.
//
// By hand, when the table is to grow:
//   pip download --no-deps nvidia-cutlass==4.2.0.0 && unzip nvidia_cutlass-*.whl && C=cutlass_library/source/include
//   g++ -std=c++17 -I$C -I/usr/local/cuda/include -I/usr/local/cuda/include/cccl cute_check.cpp -o cute_check
//   ./cute_check | grep -v ^ERROR > cute_golden.h   (CuTe complains that null is no shared memory: offsets are wanted)
// The tests of the interpreter compare with the table, so that what it believes of layouts is not only our own reading.
#include <cstdint>
#include <cstdio>
#include <cute/tensor.hpp>
#include <cute/atom/mma_traits_sm80.hpp>
#include <cute/atom/mma_traits_sm90_gmma.hpp>
#include <cute/atom/copy_traits_sm75.hpp>

using namespace cute;

template <class Layout> static void fragment(const char *name, Layout layout, int n_thread, int n_value, int step, int unit) {
    printf("static const uint16_t cute_%s[%d][%d] = {\n", name, n_thread, n_value);
    for (int t = 0; t < n_thread; t++) {
        printf("    {");
        for (int v = 0; v < n_value; v++) printf("%s%d", v ? ", " : "", int(layout(t, v * step)) / unit);
        printf("},\n");
    }
    printf("};\n");
}

// The i-th number of a list, in lines of 16.
static void number(int i, int value) { printf("%s%d", i == 0 ? "" : i % 16 == 0 ? ",\n     " : ", ", value); }

// Byte of each 16-byte piece of a 64 x 16 tile inside a 64 x 64 tile, and the descriptor of the tile at byte 0.
template <GMMA::Major major, class Atom> static void tile(const char *name, Atom atom) {
    auto layout = tile_to_shape(atom, Shape<_64, _64>{});
    auto part = composition(layout, make_tile(Layout<_64>{}, Layout<_16>{}));
    auto tensor = make_tensor(make_smem_ptr((bfloat16_t *)nullptr), part);
    fprintf(stderr, "%s:", name);
    const uint64_t descriptor = SM90::GMMA::make_gmma_desc<major>(tensor).desc_;
    fprintf(stderr, " %llx\n", (unsigned long long)descriptor);
    auto bytes = as_position_independent_swizzle_layout(part); // the swizzle is one of bytes, not of elements
    printf("    {\"%s\", 0x%llxu, %d,\n     {", name, (unsigned long long)descriptor, major == GMMA::Major::MN);
    for (int i = 0; i < 128; i++) {
        const int m = major == GMMA::Major::K ? i / 2 : i % 8 * 8, k = major == GMMA::Major::K ? i % 2 * 8 : i / 8;
        number(i, int(bytes(m, k)) * 2);
    }
    printf("}},\n");
}

// The same of a 128 x 16 tile, MN-major, inside one of 128 x 64 whose boxes as wide as the swizzle lie one behind the
// other.
template <class Atom> static void wide_tile(const char *name, Atom atom) {
    auto layout = tile_to_shape(atom, Shape<_128, _64>{}, Step<_2, _1>{});
    auto part = composition(layout, make_tile(Layout<_128>{}, Layout<_16>{}));
    auto tensor = make_tensor(make_smem_ptr((bfloat16_t *)nullptr), part);
    const uint64_t descriptor = SM90::GMMA::make_gmma_desc<GMMA::Major::MN>(tensor).desc_;
    auto bytes = as_position_independent_swizzle_layout(part);
    printf("    {\"%s\", 0x%llxu,\n     {", name, (unsigned long long)descriptor);
    for (int i = 0; i < 256; i++) number(i, int(bytes(i % 16 * 8, i / 16)) * 2);
    printf("}},\n");
}

template <class Pattern> static void pattern(Pattern p) {
    printf("    {");
    for (int i = 0; i < 128; i++) number(i, int(p(i * 16)));
    printf("},\n");
}

int main() {
    printf("/* Where NVIDIA's CuTe traits place elements; written by cute_check.cpp with nvidia-cutlass 4.2.0.0.\n"
           " * Fragments: [thread][value], number of the element in its matrix, rows fastest (A: m + M k, B: n + N k,\n"
           " * C: m + M n). ldmatrix: 8 * (lane that gave the row's address) + column. Tiles: byte of each 16-byte piece of a\n"
           " * 64 x 16 operand inside a 64 x 64 tile of 16-bit elements, with the wgmma descriptor that CuTe makes for it;\n"
           " * K-major: piece i is row i / 2, columns 8 (i %% 2) on; MN-major: rows 8 (i %% 8) on, column i / 8. cute_wide: of a\n"
           " * 128 x 16 operand, MN-major, inside a 128 x 64 tile of 16 x 64 or 64 x 64, as wide as the swizzle, one behind the\n"
           " * other: rows 8 (i %% 16) on, column i / 16. Swizzles: of byte 16 i. No state. */\n"
           "#pragma once\n#include <stdint.h>\n\n// clang-format off\n");
    using Bf16 = MMA_Traits<SM80_16x8x16_F32BF16BF16F32_TN>;
    using Bf8 = MMA_Traits<SM80_16x8x8_F32BF16BF16F32_TN>;
    using S8 = MMA_Traits<SM80_16x8x32_S32S8S8S32_TN>;
    fragment("m16n8k16_a", Bf16::ALayout{}, 32, 8, 1, 1);
    fragment("m16n8k16_b", Bf16::BLayout{}, 32, 4, 1, 1);
    fragment("m16n8k16_c", Bf16::CLayout{}, 32, 4, 1, 1);
    fragment("m16n8k8_a", Bf8::ALayout{}, 32, 4, 1, 1);
    fragment("m16n8k8_b", Bf8::BLayout{}, 32, 2, 1, 1);
    fragment("m16n8k32_a", S8::ALayout{}, 32, 16, 1, 1);
    fragment("m16n8k32_b", S8::BLayout{}, 32, 8, 1, 1);
    fragment("ldmatrix_x4", Copy_Traits<SM75_U32x4_LDSM_N>::DstLayout{}, 32, 8, 16, 16);
    fragment("ldmatrix_x4_trans", Copy_Traits<SM75_U16x8_LDSM_T>::DstLayout{}, 32, 8, 16, 16);
    fragment("wgmma_a", GMMA::ALayout_64x16{}, 128, 8, 1, 1);
    fragment("wgmma_c_n32", GMMA::CLayout_64xN<32>{}, 128, 16, 1, 1);
    printf("static const struct {\n    const char *name;\n    uint64_t descriptor;\n    int mn_major;\n"
           "    uint16_t piece[128];\n} cute_tiles[] = {\n");
    tile<GMMA::Major::K>("k none", GMMA::Layout_K_INTER_Atom<bfloat16_t>{});
    tile<GMMA::Major::K>("k 32", GMMA::Layout_K_SW32_Atom<bfloat16_t>{});
    tile<GMMA::Major::K>("k 64", GMMA::Layout_K_SW64_Atom<bfloat16_t>{});
    tile<GMMA::Major::K>("k 128", GMMA::Layout_K_SW128_Atom<bfloat16_t>{});
    tile<GMMA::Major::MN>("mn none", GMMA::Layout_MN_INTER_Atom<bfloat16_t>{});
    tile<GMMA::Major::MN>("mn 32", GMMA::Layout_MN_SW32_Atom<bfloat16_t>{});
    tile<GMMA::Major::MN>("mn 64", GMMA::Layout_MN_SW64_Atom<bfloat16_t>{});
    tile<GMMA::Major::MN>("mn 128", GMMA::Layout_MN_SW128_Atom<bfloat16_t>{});
    printf("};\n");
    printf("static const struct {\n    const char *name;\n    uint64_t descriptor;\n    uint16_t piece[256];\n} cute_wide[] = {\n");
    wide_tile("32", GMMA::Layout_MN_SW32_Atom<bfloat16_t>{});
    wide_tile("128", GMMA::Layout_MN_SW128_Atom<bfloat16_t>{});
    printf("};\n");
    printf("static const uint16_t cute_swizzle[3][128] = { // 32, 64, 128 bytes\n");
    pattern(Swizzle<1, 4, 3>{});
    pattern(Swizzle<2, 4, 3>{});
    pattern(Swizzle<3, 4, 3>{});
    printf("};\n// clang-format on\n");
    return 0;
}
