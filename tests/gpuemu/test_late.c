/* What a wait leaves under way: copies and products of the groups that it does not name must still be late, or a stage
 * that is reused one wait too early would pass; and what it names must be over. Programs as in test_isa.h. */
#include "test_isa.h"

static struct words inputs[128], results[128];

/* ---- two stores of 16 bytes from shared memory, a group each; then one source is overwritten ---- */

#define TWO_STORES(wait, at)                                                                                           \
    "setp.ne.u32 %p0, %tid, 0; @%p0 bra done;\n"                                                                       \
    "st.shared.v4.u32 [tile], {%x0, %x1, %x2, %x3}; st.shared.v4.u32 [tile + 16], {%x0, %x1, %x2, %x3};\n"             \
    "fence.proxy.async;\n"                                                                                             \
    "cp.async.bulk.global.shared::cta.bulk_group [%out], [tile], 16; cp.async.bulk.commit_group;\n"                    \
    "cp.async.bulk.global.shared::cta.bulk_group [%out + 16], [tile + 16], 16; cp.async.bulk.commit_group;\n" wait     \
    " st.shared.u32 [tile + " at "], 5; cp.async.bulk.wait_group 0;\n"                                                 \
    "done:"

static void sources_that_were_read(void) {
    start();
    program(TWO_STORES("cp.async.bulk.wait_group.read 1;", "0"), 128, inputs, results);
    program(TWO_STORES("cp.async.bulk.wait_group.read 0;", "0"), 128, inputs, results);
    program(TWO_STORES("cp.async.bulk.wait_group.read 0;", "16"), 128, inputs, results);
    program(TWO_STORES("cp.async.bulk.wait_group 0;", "16"), 128, inputs, results);
}

static void sources_under_way(void) {
    start();
    refused(TWO_STORES("", "0"), 128, "RACE");
    refused(TWO_STORES("cp.async.bulk.wait_group.read 1;", "16"), 128, "RACE");
}

/* ---- two products, a group each; then thread 0 overwrites an operand of both ---- */

#define MATRICES /* A, 64 rows of 32 bytes, and B behind it, 8 rows, without swizzle; both of zeros */                 \
    "mov.u32 %x7, tile; shl.b32 %x6, %tid, 4; add.u32 %x6, %x6, %x7;\n"                                                \
    "st.shared.v4.u32 [%x6], {0, 0, 0, 0}; setp.lt.u32 %p0, %tid, 16;\n"                                               \
    "@%p0 st.shared.v4.u32 [%x6 + 2048], {0, 0, 0, 0}; fence.proxy.async; bar.sync 0;\n"                               \
    "shr.u32 %x7, %x7, 4; cvt.u64.u32 %y2, %x7; or.b64 %y2, %y2, 0x0000001000080000; add.u64 %y3, %y2, 128;\n"         \
    "mov.u32 %x8, %tid; mov.u32 %x9, 0; mov.u32 %x10, 0; mov.u32 %x11, 0;\n"                                           \
    "mov.u32 %x12, 0; mov.u32 %x13, 0; mov.u32 %x14, 0; mov.u32 %x15, 0; setp.ne.u32 %p1, %tid, 1000;\n"               \
    "wgmma.fence.sync.aligned;\n"
#define PRODUCT(d)                                                                                                     \
    "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {" d "}, %y2, %y3, %p1, 1, 1, 0, 0;\n"                        \
    "wgmma.commit_group.sync.aligned;\n"
#define TWO_PRODUCTS(wait)                                                                                             \
    MATRICES PRODUCT("%x8, %x9, %x10, %x11") PRODUCT("%x12, %x13, %x14, %x15") wait                                    \
        " bar.sync 0; setp.eq.u32 %p2, %tid, 0; @%p2 st.shared.u32 [tile + 2048], 0;\n"                                \
        "wgmma.wait_group.sync.aligned 0; mov.u32 %x4, %x8;"

static void operands_that_were_read(void) {
    start();
    program(TWO_PRODUCTS("wgmma.wait_group.sync.aligned 0;"), 128, inputs, results);
}

static void operands_under_way(void) {
    start();
    refused(TWO_PRODUCTS("wgmma.wait_group.sync.aligned 1;"), 128, "RACE");
    refused(TWO_PRODUCTS(""), 128, "RACE");
}

static void sums_of_integers_go_on(void) {
    start();
    program(MATRICES "wgmma.mma_async.sync.aligned.m64n8k32.s32.s8.s8 {%x8, %x9, %x10, %x11}, %y2, %y3, %p1;\n"
                     "wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0; mov.u32 %x4, %x8;",
            128, inputs, results);
    for (uint32_t i = 0; i < 128; i++) CHECK(results[i].w[0] == i);
}

/* ---- copies that an mbarrier or a fill tells of ---- */

static void pending_counts(void) {
    start();
    program("mbarrier.init.shared.b64 [tile], 3; mbarrier.arrive.shared.b64 %y2, [tile];\n"
            "mbarrier.arrive.shared.b64 %y3, [tile]; mbarrier.pending_count.b64 %x4, %y2;\n"
            "mbarrier.pending_count.b64 %x5, %y3;",
            1, inputs, results);
    CHECK(results[0].w[0] == 3 && results[0].w[1] == 2);
}

/* Rows 4 to 11 of a matrix of 8 rows of 8 bf16. */
static void filled_tile(CUtensorMapFloatOOBfill fill) {
    static CUtensorMap map;
    const cuuint64_t dim[2] = {8, 8}, stride[1] = {16};
    const cuuint32_t box[2] = {8, 8}, steps[2] = {1, 1};
    start();
    const CUdeviceptr matrix = device_bytes(128);
    OK(cuMemsetD8(matrix, 0x3f, 128));
    OK(cuTensorMapEncodeTiled(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, (void *)(uintptr_t)matrix, dim, stride, box,
                              steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_NONE,
                              CU_TENSOR_MAP_L2_PROMOTION_NONE, fill));
    program_map = &map;
    program("mov.u64 %y2, p_map; cvta.param.u64 %y2, %y2; setp.ne.u32 %p0, %tid, 0; @%p0 bra waits;\n"
            "mbarrier.init.shared.b64 [tile], 1; fence.mbarrier_init.release.cluster;\n"
            "mbarrier.arrive.expect_tx.shared.b64 _, [tile], 128;\n"
            "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [tile + 1024], [%y2, {0, "
            "4}], [tile];\n"
            "waits: bar.sync 0;\n"
            "again: mbarrier.try_wait.parity.shared.b64 %p1, [tile], 0; @!%p1 bra again;\n"
            "mov.u32 %x6, tile; mad.lo.u32 %x6, %tid, 4, %x6; ld.shared.u32 %x4, [%x6 + 1024];",
            32, inputs, results);
    for (int i = 0; i < 32; i++) {
        const uint32_t low = results[i].w[0] & 0xffff;
        const bool nan = (low & 0x7fff) > 0x7f80;
        CHECK(i < 16 ? low == 0x3f3f : fill == CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE ? low == 0 : nan);
    }
}
static void filled_with_zeros(void) {
    filled_tile(CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
}
static void filled_with_nan(void) {
    filled_tile(CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA);
}

static const struct row rows[] = {
    ROW("cc=90", sources_that_were_read),
    ROW("cc=90,copies=early", sources_that_were_read),
    ROW("cc=90,copies=random", sources_that_were_read),
    ROW("cc=90", sources_under_way),
    ROW("cc=90", operands_that_were_read),
    ROW("cc=90,copies=early", operands_that_were_read),
    ROW("cc=90,order=random,copies=random", operands_that_were_read),
    ROW("cc=90", operands_under_way),
    ROW("cc=90,order=backward", operands_under_way),
    ROW("cc=90", sums_of_integers_go_on),
    ROW("cc=90", pending_counts),
    ROW("cc=90", filled_with_zeros),
    ROW("cc=90", filled_with_nan),
};

int main(void) {
    return run_rows(rows, sizeof rows / sizeof rows[0]);
}
