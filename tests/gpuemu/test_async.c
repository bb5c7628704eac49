/* Asynchronous machinery: mbarriers, cp.async with zero fill, TMA tiles against CuTe's swizzles, wgmma against CuTe's
 * fragments and shared-memory layouts (cute_golden.h); and what the program must not do with them, each with its
 * report. */
#include "cute_golden.h"
#include "test_ptx.h"

/* ---- one thread: %r4, or %p4 + 2 %p5 ---- */

#define M      "mbarrier.init.shared::cta.b64 [m], 2;\n"
#define ARRIVE "mbarrier.arrive.shared::cta.b64 %rd4, [m];\n"
static const struct {
    const char *body;
    uint32_t want;
} steps[] = {
    {M ARRIVE "mbarrier.test_wait.shared::cta.b64 %p4, [m], %rd4; mbarrier.arrive.shared::cta.b64 _, [m];\n"
              "mbarrier.test_wait.shared::cta.b64 %p5, [m], %rd4;",                                                      2         },
    {M ARRIVE ARRIVE "mbarrier.try_wait.parity.shared::cta.b64 %p4, [m], 0;\n"
                     "mbarrier.try_wait.parity.shared::cta.b64 %p5, [m], 1;",                                            1         },
    {M "mbarrier.arrive.shared::cta.b64 _, [m], 2; mbarrier.test_wait.parity.shared::cta.b64 %p4, [m], 0;",                   1         },
    {M ARRIVE
     "mbarrier.arrive.expect_tx.shared::cta.b64 _, [m], 64;\n"
     "mbarrier.test_wait.parity.shared::cta.b64 %p4, [m], 0;\n"
     "mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [m], 64; mbarrier.test_wait.parity.shared::cta.b64 %p5, [m], 0;", 2         },
    {M
     "mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [m], 32; mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [m], "
     "16;\n" ARRIVE ARRIVE "mbarrier.test_wait.parity.shared::cta.b64 %p4, [m], 0;\n"
     "mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [m], 16; mbarrier.test_wait.parity.shared::cta.b64 %p5, [m], 0;", 2         },
    {M ARRIVE "mbarrier.pending_count.b64 %r4, %rd4;",                                                                        2         },
    {M "mbarrier.arrive_drop.shared::cta.b64 %rd4, [m];\n" ARRIVE ARRIVE
       "mbarrier.test_wait.parity.shared::cta.b64 %p4, [m], 0; mbarrier.test_wait.parity.shared::cta.b64 %p5, [m], 1;",  2         },
    {"cp.async.ca.shared.global [s], [%rd10], 16, 5; cp.async.wait_all; ld.shared.v2.u64 {%rd4, %rd5}, [s];\n"
     "add.u64 %rd4, %rd4, %rd5; shr.u64 %rd4, %rd4, 16; cvt.u32.u64 %r4, %rd4;",                                         0x00050403},
    {"cp.async.cg.shared.global [s], [%rd10], 16; cp.async.commit_group; cp.async.wait_group 0; ld.shared.u32 %r4, "
     "[s+12];",                                                                                                          0x100f0e0d},
    {"cp.async.ca.shared.global [s], [%rd10], 4, 0; cp.async.commit_group; cp.async.wait_group 0; ld.shared.u32 %r4, "
     "[s];",                                                                                                             0         },
    {"cp.async.ca.shared.global [s], [%rd10], 8; cp.async.commit_group; cp.async.ca.shared.global [s+8], [%rd10], 8;\n"
     "cp.async.commit_group; cp.async.wait_group 1; ld.shared.u32 %r4, [s+4]; cp.async.wait_group 0;",                   0x08070605},
    {M "fence.proxy.async; cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [s], [%rd10], 16, "
       "[m];\n" ARRIVE "mbarrier.arrive.expect_tx.shared::cta.b64 _, [m], 16;\n"
       "again: mbarrier.try_wait.parity.shared::cta.b64 %p3, [m], 0; @!%p3 bra again; ld.shared.u32 %r4, [s+4];",        0x08070605},
    {M "cp.async.ca.shared.global [s], [%rd10], 8; cp.async.mbarrier.arrive.noinc.shared::cta.b64 [m];\n" ARRIVE
       "again: mbarrier.try_wait.parity.shared::cta.b64 %p3, [m], 0; @!%p3 bra again; ld.shared.u32 %r4, [s];",          0x04030201},
    {M "cp.async.ca.shared.global [s], [%rd10], 8; cp.async.mbarrier.arrive.shared::cta.b64 [m];\n" ARRIVE
       "cp.async.wait_all; mbarrier.test_wait.parity.shared::cta.b64 %p4, [m], 0;\n" ARRIVE
       "mbarrier.test_wait.parity.shared::cta.b64 %p5, [m], 0;",                                                         2         },
    {"ld.global.u64 %rd4, [%rd10]; st.shared.u64 [s], %rd4; st.shared.u64 [s+8], %rd4; fence.proxy.async.shared::cta;\n"
     "cp.async.bulk.global.shared::cta.bulk_group [%rd11], [s], 16; cp.async.bulk.commit_group;\n"
     "cp.async.bulk.wait_group 0; ld.global.u32 %r4, [%rd11+8];",                                                        0x04030201},
};

static void run_steps(void) {
    start();
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        char body[2048];
        uint8_t in[16];
        uint32_t out[4] = {0};
        for (int b = 0; b < 16; b++) in[b] = (uint8_t)(b + 1);
        snprintf(body, sizeof body,
                 ".shared .align 8 .b64 m; .shared .align 16 .b8 s[64]; mov.u32 %%r4, 0; setp.ne.u32 %%p4, 0, 0;\n"
                 "setp.ne.u32 %%p5, 0, 0;\n%s\nselp.u32 %%r5, 1, 0, %%p4; selp.u32 %%r6, 2, 0, %%p5;\n"
                 "add.u32 %%r4, %%r4, %%r5; add.u32 %%r4, %%r4, %%r6; st.global.u32 [%%rd11], %%r4;",
                 steps[i].body);
        const struct ptx_run r = {.body = body, .n_thread = 1, .in = in, .n_in = 16, .out = out, .n_out = 16};
        CHECK(run_text(&r));
        if (out[0] != steps[i].want) {
            fprintf(stderr, "%s: 0x%x, must be 0x%x\n", steps[i].body, out[0], steps[i].want);
            _exit(99);
        }
    }
}

/* ---- TMA ---- */

enum { ROWS = 24, COLS = 80, BOX_ROWS = 16 }; /* of 16-bit elements */

static CUtensorMap *make_map(CUdeviceptr matrix, int span, uint32_t box_cols) {
    static CUtensorMap map;
    const cuuint64_t dim[] = {COLS, ROWS}, stride[] = {COLS * 2};
    const cuuint32_t box[] = {box_cols, BOX_ROWS}, step[] = {1, 1};
    const CUtensorMapSwizzle swizzle = span == 128  ? CU_TENSOR_MAP_SWIZZLE_128B
                                       : span == 64 ? CU_TENSOR_MAP_SWIZZLE_64B
                                       : span == 32 ? CU_TENSOR_MAP_SWIZZLE_32B
                                                    : CU_TENSOR_MAP_SWIZZLE_NONE;
    OK(cuTensorMapEncodeTiled(&map, CU_TENSOR_MAP_DATA_TYPE_UINT16, 2, (void *)(uintptr_t)matrix, dim, stride, box,
                              step, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle, CU_TENSOR_MAP_L2_PROMOTION_NONE,
                              CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE));
    return &map;
}

static const char load_tile[] =
    ".shared .align 1024 .b8 s[2048]; .shared .align 8 .b64 m; .reg .pred one; setp.eq.u32 one, %%r10, 0;\n"
    "{ .reg .b64 mp; mov.b64 mp, map; cvta.param.u64 %%rd9, mp; }\n"
    "@one mbarrier.init.shared::cta.b64 [m], 1; @one fence.proxy.async.shared::cta; bar.sync 0;\n"
    "@one mbarrier.arrive.expect_tx.shared::cta.b64 _, [m], %d;\n"
    "@one cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [s], [%%rd9, {%d, %d}], "
    "[m];\n"
    "again: mbarrier.try_wait.parity.shared::cta.b64 %%p3, [m], 0; @!%%p3 bra again;\n"
    "mul.lo.u32 %%r1, %%r10, 16; mov.u32 %%r2, s; add.u32 %%r2, %%r2, %%r1; ld.shared.v4.u32 {%%r4, %%r5, %%r6, %%r7}, "
    "[%%r2];\n"
    "mul.wide.u32 %%rd1, %%r10, 16; add.u64 %%rd1, %%rd1, %%rd11; st.global.v4.u32 [%%rd1], {%%r4, %%r5, %%r6, %%r7};";

static uint16_t matrix_at(int row, int col) {
    return row < 0 || row >= ROWS || col < 0 || col >= COLS ? 0 : (uint16_t)(row * 256 + col + 1);
}

static CUdeviceptr matrix_on_device(void) {
    uint16_t host[ROWS][COLS];
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < COLS; c++) host[r][c] = matrix_at(r, c);
    const CUdeviceptr p = device_bytes(sizeof host);
    OK(cuMemcpyHtoD(p, host, sizeof host));
    return p;
}

static void check_tile(int span, int row0, int col0) {
    const int cols = span > 0 ? span / 2 : 24, bytes = cols * 2 * BOX_ROWS; /* without swizzle a box of 48-byte rows */
    char body[4096];
    uint16_t out[1024];
    snprintf(body, sizeof body, load_tile, bytes, col0, row0);
    const struct ptx_run r = {.body = body,
                              .n_thread = (unsigned)bytes / 16,
                              .out = out,
                              .n_out = (size_t)bytes,
                              .map = make_map(matrix_on_device(), span, (uint32_t)cols)};
    CHECK(run_text(&r));
    for (int i = 0; i < bytes / 16; i++) {
        const int at = span == 0 ? 16 * i : cute_swizzle[span == 32 ? 0 : span == 64 ? 1 : 2][i];
        for (int e = 0; e < 8; e++) {
            const int row = i * 8 / cols, col = i * 8 % cols + e;
            const uint16_t got = out[at / 2 + e], want = matrix_at(row0 + row, col0 + col);
            if (got == want) continue;
            fprintf(stderr, "span %d, row %d column %d: %u, must be %u\n", span, row, col, got, want);
            _exit(99);
        }
    }
}

static void tiles(void) {
    start();
    for (int span = 0; span <= 128; span = span > 0 ? span * 2 : 32) {
        check_tile(span, 0, 0);
        check_tile(span, 5, 8);
        check_tile(span, 12, 67); /* over both edges */
        check_tile(span, -3, -5);
    }
}

/* A tile that was loaded goes back to another place; what is outside of the matrix is not written. */
static void store_tile(int row0, int col0) {
    char body[4096];
    uint16_t back[ROWS][COLS];
    const CUdeviceptr matrix = matrix_on_device();
    const int n = snprintf(body, sizeof body, load_tile, 2048, 0, 0);
    snprintf(body + n, sizeof body - (size_t)n,
             "bar.sync 0; @one cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%%rd9, {%d, %d}], [s];\n"
             "@one cp.async.bulk.commit_group; @one cp.async.bulk.wait_group.read 0;",
             col0, row0);
    const struct ptx_run r = {
        .body = body, .n_thread = 128, .out = back, .n_out = 2048, .map = make_map(matrix, 128, 64)};
    CHECK(run_text(&r));
    OK(cuMemcpyDtoH(back, matrix, sizeof back));
    for (int row = 0; row < ROWS; row++)
        for (int col = 0; col < COLS; col++) {
            const bool inside = row >= row0 && row < row0 + 16 && col >= col0 && col < col0 + 64;
            CHECK(back[row][col] == (inside ? matrix_at(row - row0, col - col0) : matrix_at(row, col)));
        }
}
static void stored_tile(void) {
    start();
    store_tile(12, 32);
    store_tile(3, 0);
    store_tile(-2, -8);
}

/* ---- wgmma: m64n32k16, A 64 x 16 and B 32 x 16 ---- */

static float a_at(int m, int k) {
    return (float)((m * 7 + k * 5) % 13 - 6);
}
static float b_at(int n, int k) {
    return (float)((n * 3 + k * 11) % 15 - 7);
}
static uint16_t bf16(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return (uint16_t)(bits >> 16);
}

struct images { /* what goes to shared memory: A's 64 x 64 tile, B's; then the descriptors, then A's registers */
    uint16_t a[4096], b[4096];
    uint64_t a_descriptor, b_descriptor;
    uint32_t a_reg[128][4];
};

static void tile_image(int which, int n_mn, float (*at)(int, int), uint16_t *image) {
    memset(image, 0, 8192);
    for (int i = 0; i < 128; i++)
        for (int e = 0; e < 8; e++) {
            const bool mn_major = cute_tiles[which].mn_major;
            const int mn = mn_major ? i % 8 * 8 + e : i / 2, k = mn_major ? i / 8 : i % 2 * 8 + e;
            if (mn < n_mn) image[cute_tiles[which].piece[i] / 2 + e] = bf16(at(mn, k));
        }
}

static void fill_images(struct images *x, int a_tile, int b_tile) {
    memset(x, 0, sizeof *x);
    tile_image(a_tile, 64, a_at, x->a);
    tile_image(b_tile, 32, b_at, x->b);
    x->a_descriptor = cute_tiles[a_tile].descriptor;
    x->b_descriptor = cute_tiles[b_tile].descriptor;
    for (int t = 0; t < 128; t++)
        for (int i = 0; i < 8; i++) {
            const int at = cute_wgmma_a[t][i];
            x->a_reg[t][i / 2] |= (uint32_t)bf16(a_at(at % 64, at / 64)) << (16 * (i % 2));
        }
}

#define D16 "{%f0,%f1,%f2,%f3,%f4,%f5,%f6,%f7,%f8,%f9,%f10,%f11,%f12,%f13,%f14,%f15}"
static const char wgmma_before[] =
    ".shared .align 1024 .b8 s[16384]; mul.lo.u32 %r1, %r10, 128; mov.u32 %r2, s; add.u32 %r1, %r1, %r2;\n"
    "mul.wide.u32 %rd1, %r10, 128; add.u64 %rd1, %rd1, %rd10; mov.u32 %r3, 0;\n"
    "fill: ld.global.v4.u32 {%r4, %r5, %r6, %r7}, [%rd1]; st.shared.v4.u32 [%r1], {%r4, %r5, %r6, %r7};\n"
    "add.u32 %r1, %r1, 16; add.u64 %rd1, %rd1, 16; add.u32 %r3, %r3, 1; setp.lt.u32 %p1, %r3, 8; @%p1 bra fill;\n"
    "ld.global.u64 %rd2, [%rd10+16384]; ld.global.u64 %rd3, [%rd10+16392]; shr.u32 %r2, %r2, 4; cvt.u64.u32 %rd4, "
    "%r2;\n"
    "add.u64 %rd2, %rd2, %rd4; add.u64 %rd3, %rd3, %rd4; add.u64 %rd3, %rd3, 512;\n"
    "mul.wide.u32 %rd1, %r10, 16; add.u64 %rd1, %rd1, %rd10; ld.global.v4.u32 {%r20, %r21, %r22, %r23}, [%rd1+16400];\n"
    "mov.f32 %f0, 0f41200000; mov.f32 %f1, %f0; mov.f32 %f2, %f0; mov.f32 %f3, %f0; mov.f32 %f4, %f0; mov.f32 %f5, "
    "%f0;\n"
    "mov.f32 %f6, %f0; mov.f32 %f7, %f0; mov.f32 %f8, %f0; mov.f32 %f9, %f0; mov.f32 %f10, %f0; mov.f32 %f11, %f0;\n"
    "mov.f32 %f12, %f0; mov.f32 %f13, %f0; mov.f32 %f14, %f0; mov.f32 %f15, %f0; setp.eq.u32 %p1, 0, 0;\n"
    "setp.ne.u32 %p2, 0, 0;\n";
static const char wgmma_after[] =
    "\nmul.wide.u32 %rd1, %r10, 64; add.u64 %rd1, %rd1, %rd11; st.global.v4.f32 [%rd1], {%f0, %f1, %f2, %f3};\n"
    "st.global.v4.f32 [%rd1+16], {%f4, %f5, %f6, %f7}; st.global.v4.f32 [%rd1+32], {%f8, %f9, %f10, %f11};\n"
    "st.global.v4.f32 [%rd1+48], {%f12, %f13, %f14, %f15};";

#define FENCES "fence.proxy.async.shared::cta; bar.sync 0; wgmma.fence.sync.aligned;\n"
#define ENDS   "wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0;"
#define WGMMA  "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 " D16 ", "

/* Runs; the result must be start + times * A B, where start is 10 unless scale-d is false. */
static bool run_wgmma(const char *middle, int a_tile, int b_tile, float from, float times) {
    static struct images x;
    static float out[128][16];
    const size_t room = sizeof wgmma_before + sizeof wgmma_after + strlen(middle) + 1;
    char *body = malloc(room);
    CHECK(body != NULL);
    snprintf(body, room, "%s%s%s", wgmma_before, middle, wgmma_after);
    fill_images(&x, a_tile, b_tile);
    const struct ptx_run r = {
        .body = body, .n_thread = 128, .in = &x, .n_in = sizeof x, .out = out, .n_out = sizeof out};
    const bool ran = run_text(&r);
    free(body);
    for (int t = 0; ran && t < 128; t++)
        for (int i = 0; i < 16; i++) {
            const int at = cute_wgmma_c_n32[t][i], m = at % 64, n = at / 64;
            float want = 0;
            for (int k = 0; k < 16; k++) want += a_at(m, k) * b_at(n, k);
            want = from + times * want;
            if (out[t][i] == want) continue;
            fprintf(stderr, "tiles %s and %s: row %d column %d: %g, must be %g\n", cute_tiles[a_tile].name,
                    cute_tiles[b_tile].name, m, n, (double)out[t][i], (double)want);
            return false;
        }
    return ran;
}

static void all_tiles(void) {
    start();
    for (int a = 0; a < 8; a++)
        for (int b = 0; b < 8; b++) {
            char middle[1024];
            snprintf(middle, sizeof middle, "%s%d, %d;\n%s", FENCES WGMMA "%rd2, %rd3, %p1, 1, 1, ",
                     cute_tiles[a].mn_major, cute_tiles[b].mn_major, ENDS);
            CHECK(run_wgmma(middle, a, b, 10, 1));
        }
}
static void wrong_tile(void) { /* a 64-byte swizzle read as one of 32 bytes must be seen */
    start();
    CHECK(!run_wgmma(FENCES "xor.b64 %rd2, %rd2, 0x4000000000000000;\n" WGMMA "%rd2, %rd3, %p1, 1, 1, 0, 0;\n" ENDS, 2,
                     3, 10, 1));
    emu_report_clear();
}
/* B 128 x 16, MN-major, over all boxes of a wide tile; A in registers. before: of the descriptor %rd2. */
static bool run_wide(int which, const char *before) {
    static struct images x;
    static float out[128][64];
    char body[8192], d[512];
    int at = 0, n = 0;
    uint16_t *image = (uint16_t *)(void *)&x; /* both tiles' place */
    fill_images(&x, 3, 3);
    for (int i = 0; i < 256; i++)
        for (int e = 0; e < 8; e++) image[cute_wide[which].piece[i] / 2 + e] = bf16(b_at(i % 16 * 8 + e, i / 16));
    x.a_descriptor = cute_wide[which].descriptor;
    for (int i = 0; i < 64; i++) at += snprintf(d + at, sizeof d - (size_t)at, "%s%%f%d", i > 0 ? "," : "", i);
    n = snprintf(body, sizeof body,
                 "%s%s" FENCES
                 "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {%s}, {%%r20, %%r21, %%r22, %%r23}, "
                 "%%rd2, %%p2, 1, 1, 1;\n" ENDS "\nmul.wide.u32 %%rd1, %%r10, 256; add.u64 %%rd1, %%rd1, %%rd11;\n",
                 wgmma_before, before, d);
    for (int i = 0; i < 64; i++)
        n += snprintf(body + n, sizeof body - (size_t)n, "st.global.f32 [%%rd1+%d], %%f%d;\n", 4 * i, i);
    const struct ptx_run r = {
        .body = body, .n_thread = 128, .in = &x, .n_in = sizeof x, .out = out, .n_out = sizeof out};
    if (!run_text(&r)) return false;
    for (int t = 0; t < 128; t++)
        for (int i = 0; i < 64; i++) {
            const int c = cute_wgmma_c_n32[t][i % 16];
            float want = 0;
            for (int k = 0; k < 16; k++) want += a_at(c % 64, k) * b_at(c / 64 + i / 16 * 32, k);
            if (out[t][i] != want) return false;
        }
    return true;
}
static void wide_tile(void) {
    start();
    static const char *const half_way[] = {"sub.u64 %rd2, %rd2, 0x400000;\n", "sub.u64 %rd2, %rd2, 0x1000000;\n"};
    for (int which = 0; which < 2; which++) {
        CHECK(run_wide(which, ""));
        CHECK(!run_wide(which, half_way[which])); /* from box to box */
        emu_report_clear();
    }
}
static void registers_and_scales(void) {
    start();
    CHECK(run_wgmma(FENCES WGMMA "{%r20, %r21, %r22, %r23}, %rd3, %p1, 1, 1, 0;\n" ENDS, 3, 3, 10, 1));
    CHECK(run_wgmma(FENCES WGMMA "%rd2, %rd3, %p2, 1, 1, 0, 0;\n" ENDS, 3, 3, 0, 1));
    CHECK(run_wgmma(FENCES WGMMA "%rd2, %rd3, %p1, -1, 1, 0, 0;\n" ENDS, 3, 3, 10, -1));
    CHECK(run_wgmma(FENCES WGMMA "%rd2, %rd3, %p1, -1, -1, 0, 0;\n" ENDS, 3, 3, 10, 1));
}
/* Three in a row on one accumulator, with a wait for all but one group, and moves of a register under way. */
static void chains(void) {
    start();
    CHECK(run_wgmma(FENCES WGMMA
                    "%rd2, %rd3, %p2, 1, 1, 0, 0;\nwgmma.commit_group.sync.aligned;\n" WGMMA
                    "%rd2, %rd3, %p1, 1, 1, 0, 0;\nwgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 1;\n"
                    "mov.f32 %f20, %f3; mov.f32 %f3, 0f00000000; mov.f32 %f3, %f20; wgmma.fence.sync.aligned;\n" WGMMA
                    "%rd2, %rd3, %p1, 1, 1, 0, 0;\n" ENDS,
                    3, 3, 0, 3));
}
/* Used before the wait: late products are not there yet. */
static void unwaited(void) {
    start();
    CHECK(!run_wgmma(FENCES WGMMA "%rd2, %rd3, %p1, 1, 1, 0, 0;\nwgmma.commit_group.sync.aligned; mov.f32 %f30, %f0;\n"
                                  "add.f32 %f0, %f0, 0f00000000; wgmma.wait_group.sync.aligned 0;",
                     3, 3, 10, 1));
}

/* Bytes: k 32 of them fill the pieces that 16 halves fill. A from shared memory, then from registers, on top of 10. */
static void byte_products(void) {
    static struct images x;
    static int32_t out[128][16];
    start();
    for (int in_registers = 0; in_registers < 2; in_registers++) {
        char body[8192];
        memset(&x, 0, sizeof x);
        for (int i = 0; i < 128; i++)
            for (int e = 0; e < 16; e++) {
                const size_t at = cute_tiles[3].piece[i] + (size_t)e;
                ((uint8_t *)x.a)[at] = (uint8_t)(int8_t)(20 * a_at(i / 2, i % 2 * 16 + e));
                ((uint8_t *)x.b)[at] = (uint8_t)(int8_t)(18 * b_at(i / 2, i % 2 * 16 + e));
            }
        x.a_descriptor = x.b_descriptor = cute_tiles[3].descriptor;
        for (int t = 0; t < 128; t++)
            for (int i = 0; i < 16; i++) {
                const int at = cute_m16n8k32_a[t % 32][i];
                const float v = 20 * a_at(at % 16 + t / 32 * 16, at / 16);
                x.a_reg[t][i / 4] |= (uint32_t)(uint8_t)(int8_t)v << (8 * (i % 4));
            }
        snprintf(body, sizeof body, "%s%s%s%s%s%s", wgmma_before, "cvt.rni.s32.f32 %f0, %f0; " FENCES,
                 "wgmma.mma_async.sync.aligned.m64n32k32.s32.s8.s8 " D16 ", ",
                 in_registers ? "{%r20, %r21, %r22, %r23}" : "%rd2", ", %rd3, %p1;\n" ENDS, wgmma_after);
        const struct ptx_run r = {
            .body = body, .n_thread = 128, .in = &x, .n_in = sizeof x, .out = out, .n_out = sizeof out};
        CHECK(run_text(&r));
        for (int t = 0; t < 128; t++)
            for (int i = 0; i < 16; i++) {
                const int at = cute_wgmma_c_n32[t][i];
                int32_t sum = i == 0 ? 10 : 0x41200000; /* only the first accumulator was made an integer */
                for (int k = 0; k < 32; k++) sum += (int32_t)(20 * a_at(at % 64, k) * 18 * b_at(at / 64, k));
                CHECK(out[t][i] == sum);
            }
    }
}

/* ---- what is reported ---- */

#define TILE_HEAD                                                                                                      \
    ".shared .align 1024 .b8 s[2048]; .shared .align 8 .b64 m; { .reg .b64 mp; mov.b64 mp, map; cvta.param.u64 %rd9, " \
    "mp; }\n"
#define TILE_LOAD "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
/* The second warp writes what the first copies out; it comes to barriers last, and what it does behind them first. */
#define WRITTEN                                                                                                        \
    "setp.eq.u32 %p1, %r10, 32; setp.eq.u32 %p2, %r10, 0; @%p1 st.shared.u64 [s], 1; @%p1 st.shared.u64 [s+8], 1;\n"
#define STORED                                                                                                         \
    "@%p2 cp.async.bulk.global.shared::cta.bulk_group [%rd11], [s], 16; @%p2 cp.async.bulk.commit_group;\n"            \
    "@%p2 cp.async.bulk.wait_group 0;"
#define PENDING ".shared .align 16 .b8 s[64]; st.shared.u64 [s], 0; cp.async.ca.shared.global [s], [%rd10], 8, 6;\n"
static const struct {
    const char *body;
    unsigned n_thread;
    bool wgmma; /* between the parts above */
    const char *report;
} faults[] = {
    {"{ .reg .b32 x; add.u32 %r1, 1, x; }",                                                                          32,  false, "never written: source operand 1 (lanes ffffffff)"               },
    {"{ .reg .b32 x; setp.eq.u32 %p1, %r10, 5; @%p1 mov.u32 x, 1; add.u32 %r1, x, 1; }",                             32,  false,
     "source operand 0 (lanes ffffffdf)"                                                                                                                                                          },
    {"{ .reg .b32 x, y; mov.u32 x, y; add.u32 %r1, x, 1; }",                                                         1,   false, "never written: source operand 0"                                },
    {"{ .reg .pred q; @q mov.u32 %r1, 1; }",                                                                         1,   false, "never written: guard"                                           },
    {"{ .reg .b64 x; ld.global.u32 %r1, [x]; }",                                                                     1,   false, "never written: source operand 0"                                },
    {"setp.lt.u32 %p1, %r10, 16; @!%p1 bra past; shfl.sync.idx.b32 %r4, %r10, 31, 31, 0xffff; past:",                32,  false,
     "reads lane 31, which does not take part"                                                                                                                                                    },
    {"shfl.sync.idx.b32 %r4, %r10, 0, 31, 1;",                                                                       32,  false, "is not in the collective's member mask"                         },
    {"setp.eq.u32 %p2, %r10, 5; selp.b32 %r1, 0xfffffffe, -1, %p2; vote.sync.ballot.b32 %r4, %p2, %r1;",             32,  false,
     "different member masks"                                                                                                                                                                     },
    {"setp.lt.u32 %p1, %r10, 32; @%p1 bar.sync 1; @!%p1 bar.sync 2;",                                                64,  false,
     "deadlock: no thread of the block can go on"                                                                                                                                                 },
    {"setp.lt.u32 %p1, %r10, 48; @%p1 bar.sync 0, 64; @!%p1 bar.sync 1;",                                            64,  false, "deadlock"                                                       },
    {"bar.sync 1, 40;",                                                                                              64,  false, "the count a multiple of 32"                                     },
    {"ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%rd10+4];",                                                            1,   false, "misaligned access of 16 bytes"                                  },
    {".local .align 4 .b8 l[16]; mov.u64 %rd1, l; st.local.u32 [%rd1+16], %r10;",                                    1,   false,
     "of the 16 bytes of local memory"                                                                                                                                                            },
    {".shared .align 4 .b8 s[16]; st.shared.u32 [s+16], %r10;",                                                      1,   false, "the block has 16 bytes of shared memory"                        },
    {".shared .align 4 .b8 s[16]; ld.shared.u32 %r1, [s];",                                                          1,   false, "reads uninitialised shared memory"                              },
    {"trap;",                                                                                                        1,   false, "the kernel trapped"                                             },
    {".shared .align 8 .b64 m; st.shared.u64 [m], 0; mbarrier.arrive.shared::cta.b64 _, [m];",                       1,   false,
     "there is no initialised mbarrier"                                                                                                                                                           },
    {".shared .align 8 .b64 m; mbarrier.init.shared::cta.b64 [m], 1; mbarrier.arrive.shared::cta.b64 _, [m], 2;",    1,
     false,                                                                                                                      "2 arrivals, but only 1 of 1 are pending"                        },
    {".shared .align 8 .b64 m; mbarrier.init.shared::cta.b64 [m], 0;",                                               1,   false, "mbarrier.init with count 0"                                     },
    {".shared .align 8 .b64 m; mbarrier.init.shared::cta.b64 [m], 1; again: mbarrier.try_wait.parity.shared::cta.b64 "
     "%p1, [m], 0;\n"
     "@!%p1 bra again;",                                                                                        1,   false, "deadlock"                                                       },
    {".shared .align 8 .b64 m; mbarrier.init.shared::cta.b64 [m], 1; mbarrier.try_wait.parity.shared::cta.b64 %p1, "
     "[m], 2;",                                                                                                 1,   false, "parity 2 of a phase"                                            },
    {TILE_HEAD "mbarrier.init.shared::cta.b64 [m], 1; " TILE_LOAD "[s], [%rd9, {0, 0}], [m];",                       1,   false,
     "without a fence.mbarrier_init or fence.proxy.async between"                                                                                                                                 },
    {TILE_HEAD "fence.mbarrier_init.release.cluster; mbarrier.init.shared::cta.b64 [m], 1; " TILE_LOAD
               "[s], [%rd9, {0, 0}], [m];",                                                                     1,   false, "without a fence.mbarrier_init or fence.proxy.async between"     },
    {TILE_HEAD "mbarrier.init.shared::cta.b64 [m], 1; fence.mbarrier_init.release.cluster; " TILE_LOAD
               "[s], [%rd9, {0, 0}], [m];",                                                                     1,   false, "the block ends while this copy writes into its shared memory"   },
    {TILE_HEAD "mbarrier.init.shared::cta.b64 [m], 1; fence.proxy.async; " TILE_LOAD "[s+64], [%rd9, {0, 0}], [m];", 1,
     false,                                                                                                                      "shared address 64 of a bulk copy must be a multiple of 128"     },
    {TILE_HEAD "mbarrier.init.shared::cta.b64 [m], 1; fence.proxy.async; " TILE_LOAD "[s], [%rd9, {0, 0}], [m];",    1,
     false,                                                                                                                      "the block ends while this copy writes into its shared memory"   },
    {TILE_HEAD "mbarrier.init.shared::cta.b64 [m], 1; fence.proxy.async; " TILE_LOAD "[s], [%rd10, {0, 0}], [m];",   1,
     false,                                                                                                                      "is not a tensor map"                                            },
    {TILE_HEAD "mbarrier.init.shared::cta.b64 [m], 1; fence.proxy.async; "
               "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::"
               "complete_tx::bytes [s], [%rd9, {0, 0, 0}], [m];",                                               1,   false, "another rank than the instruction"                              },
    {TILE_HEAD "st.shared.u64 [s], 1; st.shared.u64 [s+8], 1;\n"
               "cp.async.bulk.global.shared::cta.bulk_group [%rd11], [s], 16; cp.async.bulk.commit_group;\n"
               "cp.async.bulk.wait_group 0;",                                                                   1,   false, "without a fence.proxy.async"                                    },
    {TILE_HEAD "st.shared.u64 [s], 1; st.shared.u64 [s+8], 1; fence.proxy.async;\n"
               "cp.async.bulk.global.shared::cta.bulk_group [%rd11], [s], 8;",                                  1,   false, "size 8 of a bulk copy"                                          },
    {TILE_HEAD "st.shared.u64 [s], 1; st.shared.u64 [s+8], 1; fence.proxy.async;\n"
               "cp.async.bulk.global.shared::cta.bulk_group [%rd11], [s], 16; cp.async.bulk.commit_group;",     1,   false, "the block ends while this copy may still read its shared memory"},
    {TILE_HEAD "st.shared.u64 [s], 1; st.shared.u64 [s+8], 1; fence.proxy.async;\n"
               "cp.async.bulk.global.shared::cta.bulk_group [%rd11], [s], 16; cp.async.bulk.commit_group;\n"
               "st.shared.u64 [s], 2; cp.async.bulk.wait_group 0;",                                             1,   false, "RACE"                                                           },
    {TILE_HEAD WRITTEN "bar.sync 0; @%p1 fence.proxy.async;" STORED,                                                 64,  false, "without a fence.proxy.async"                                    },
    {TILE_HEAD WRITTEN
     "@%p1 fence.proxy.async; @%p1 st.shared.u32 [s+8], 1; bar.sync 0; @%p1 fence.proxy.async;" STORED,
     64,                                                                                                                  false, "without a fence.proxy.async"                                    },
    {TILE_HEAD WRITTEN "@%p1 mbarrier.init.shared::cta.b64 [m], 1; bar.sync 0; @%p1 "
                       "fence.mbarrier_init.release.cluster; @%p1 fence.proxy.async;\n"
                       "@%p2 " TILE_LOAD "[s], [%rd9, {0, 0}], [m];",
     64,                                                                                                                  false, "without a fence.mbarrier_init or fence.proxy.async between"     },
    {PENDING "st.shared.u32 [s+4], 1; cp.async.wait_all;",                                                           1,   false, "overwrites the destination of its own cp.async"                 },
    {PENDING "st.global.u32 [%rd10+4], 1; cp.async.wait_all;",                                                       1,   false, "overwrites the source of its own cp.async"                      },
    {PENDING "cp.async.ca.shared.global [s], [%rd10+8], 8; cp.async.wait_all;",                                      1,   false,
     "overwrites the destination of its own cp.async"                                                                                                                                             },
    {PENDING "cp.async.commit_group; cp.async.wait_group 1; st.shared.u32 [s], 1;",                                  1,   false,
     "overwrites the destination of its own cp.async"                                                                                                                                             },
    {"bar.sync 0; wgmma.fence.sync.aligned;" WGMMA "%rd2, %rd3, %p1, 1, 1, 0, 0;" ENDS,                              128, true,
     "without a fence.proxy.async"                                                                                                                                                                },
    {"fence.proxy.async; bar.sync 0;" WGMMA "%rd2, %rd3, %p1, 1, 1, 0, 0;" ENDS,                                     128, true,  "without a wgmma.fence"                                          },
    {FENCES WGMMA "%rd2, %rd3, %p1, 1, 1, 0, 0;" ENDS WGMMA "%rd2, %rd3, %p1, 1, 1, 0, 0;" ENDS,                     128, true,
     "without a wgmma.fence since"                                                                                                                                                                },
    {FENCES WGMMA "%rd2, %rd3, %p1, 1, 1, 0, 0; mov.f32 %f5, 0f00000000;" WGMMA "%rd2, %rd3, %p1, 1, 1, 0, 0;" ENDS,
     128,                                                                                                                 true,  "accumulator 5 was changed while a wgmma on it is under way"     },
    {FENCES WGMMA "{%r20, %r21, %r22, %r23}, %rd3, %p1, 1, 1, 0; add.u32 %r22, %r22, 1;" ENDS,                       128, true,
     "register 2 of A was changed while the wgmma is under way"                                                                                                                                   },
    {FENCES WGMMA "%rd2, %rd3, %p1, 1, 1, 0, 0; wgmma.commit_group.sync.aligned;",                                   128, true,  "nobody waited for it"                                           },
    {FENCES "setp.lt.u32 %p3, %r10, 32; @!%p3 bra over;" WGMMA "%rd2, %rd3, %p1, 1, 1, 0, 0;" ENDS "over:",          128, true,
     "the warps of warpgroup 0 did not execute the same wgmma"                                                                                                                                    },
    {FENCES "or.b64 %rd2, %rd2, 0x0002000000000000;" WGMMA "%rd2, %rd3, %p1, 1, 1, 0, 0;" ENDS,                      128, true,
     "base offset"                                                                                                                                                                                },
    {FENCES "cvt.u64.u32 %rd4, %r10; add.u64 %rd2, %rd2, %rd4;" WGMMA "%rd2, %rd3, %p1, 1, 1, 0, 0;" ENDS,           128, true,
     "differs between the lanes"                                                                                                                                                                  },
};

/* Near to the faults, and right. */
static void no_faults(void) {
    static const struct {
        const char *body;
        unsigned n_thread;
    } right[] = {
        {TILE_HEAD WRITTEN "@%p1 fence.proxy.async; bar.sync 0; @%p1 fence.proxy.async;" STORED,                64},
        {TILE_HEAD WRITTEN "bar.sync 0; @%p2 fence.proxy.async;" STORED,                                        64},
        {PENDING "st.shared.u64 [s+8], 1; cp.async.wait_all; st.shared.u64 [s], 1; st.global.u64 [%rd10], 1;",  1 },
        {PENDING "cp.async.ca.shared.global [s+8], [%rd10], 8; st.global.u32 [%rd10+8], 1; cp.async.wait_all;", 1 },
        {".shared .align 16 .b8 s[64]; cp.async.ca.shared.global [s], [%rd10], 8, 4; st.global.u32 [%rd10+4], 1;\n"
         "cp.async.wait_all;",                                                                         1 },
    };
    start();
    for (size_t i = 0; i < sizeof right / sizeof right[0]; i++) {
        uint8_t in[64] = {0}, out[16];
        const struct ptx_run r = {.body = right[i].body,
                                  .n_thread = right[i].n_thread,
                                  .in = in,
                                  .n_in = sizeof in,
                                  .out = out,
                                  .n_out = sizeof out};
        CHECK(run_text(&r));
    }
}

static size_t fault;
static void run_fault(void) {
    uint8_t in[128] = {0}, out[64];
    start();
    if (faults[fault].wgmma) {
        CHECK(!run_wgmma(faults[fault].body, 3, 3, 10, 1));
    } else {
        const struct ptx_run r = {.body = faults[fault].body,
                                  .n_thread = faults[fault].n_thread,
                                  .in = in,
                                  .n_in = sizeof in,
                                  .out = out,
                                  .n_out = 64,
                                  .map = make_map(matrix_on_device(), 128, 64)};
        CHECK(!run_text(&r));
    }
    CHECK(reported(faults[fault].report));
}

static void all_faults(void **state) {
    (void)state;
    for (fault = 0; fault < sizeof faults / sizeof faults[0]; fault++)
        if (run_case("cc=90", run_fault) != 0)
            fail_msg("not reported: %s: %s", faults[fault].report, faults[fault].body);
}

static const struct row rows[] = {
    ROW("cc=90", run_steps),
    ROW("cc=90,copies=early", run_steps),
    ROW("cc=90,copies=random,seed=5", run_steps),
    ROW("cc=90", tiles),
    ROW("cc=90,copies=early", tiles),
    ROW("cc=90", stored_tile),
    ROW("cc=90,copies=early,order=backward", stored_tile),
    ROW("cc=90", all_tiles),
    ROW("cc=90,shuffle=1,order=random", all_tiles),
    ROW("cc=90", wrong_tile),
    ROW("cc=90", wide_tile),
    ROW("cc=90", registers_and_scales),
    ROW("cc=90", chains),
    ROW("cc=90,copies=early", chains),
    ROW("cc=90,copies=random,seed=9", chains),
    ROW("cc=90", unwaited),
    ROW("cc=90", byte_products),
    ROW("cc=90", no_faults),
    ROW("cc=90,order=backward", no_faults),
    ROW("cc=90,copies=early", no_faults),
};

int main(void) {
    const struct CMUnitTest others[] = {cmocka_unit_test(all_faults)};
    return run_rows(rows, sizeof rows / sizeof rows[0]) + cmocka_run_group_tests(others, NULL, NULL);
}
