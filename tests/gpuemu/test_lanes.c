/* Warp collectives and fragments: shuffles, votes, barriers with reductions against the CUDA guide's definitions; mma,
 * ldmatrix and stmatrix against NVIDIA's CuTe traits (cute_golden.h). */
#include "cute_golden.h"
#include "test_ptx.h"

/* ---- collectives: %r1 = lane, %r2 = 3 lane + 100; the result is %r4 + 1000 for a true %p4 ---- */

struct lanes_row {
    const char *body;
    uint32_t (*want)(uint32_t lane);
};

static uint32_t value(uint32_t lane) {
    return 3 * lane + 100;
}
static uint32_t found(bool inside, uint32_t lane, uint32_t from) {
    return inside ? value(from) + 1000 : value(lane);
}
static uint32_t up_5(uint32_t l) {
    return found(l >= 5, l, l - 5);
}
static uint32_t up_3_of_8(uint32_t l) {
    return found(l % 8 >= 3, l, l - 3);
}
static uint32_t down_4(uint32_t l) {
    return found(l + 4 < 32, l, l + 4);
}
static uint32_t down_9_of_16(uint32_t l) {
    return found(l % 16 + 9 < 16, l, l + 9);
}
static uint32_t bfly_16(uint32_t l) {
    return found(true, l, l ^ 16);
}
static uint32_t bfly_4_of_4(uint32_t l) { /* segments below may be read, those above not */
    return found((l ^ 4) <= (l | 3), l, l ^ 4);
}
static uint32_t idx_7(uint32_t l) {
    return found(true, l, 7);
}
static uint32_t idx_13_of_8(uint32_t l) {
    return found(true, l, l / 8 * 8 + 5);
}
static uint32_t down_in_branch(uint32_t l) {
    return l >= 8 ? 7 : found(l < 7, l, l + 1);
}
static uint32_t ballot_odd(uint32_t l) {
    (void)l;
    return 0xaaaaaaaa;
}
static uint32_t none(uint32_t l) {
    (void)l;
    return 0;
}
static uint32_t yes(uint32_t l) {
    (void)l;
    return 1000;
}
/* Each eight lanes are a group of their own: its member mask is %r6. */
#define EIGHTS "and.b32 %r5, %r1, 24; mov.u32 %r6, 255; shl.b32 %r6, %r6, %r5; "
static uint32_t sum_of_eight(uint32_t l) {
    return 3 * (64 * (l / 8) + 28) + 800;
}
static uint32_t same_quarter(uint32_t l) {
    return 0x11111111u << l % 4;
}
static uint32_t sum_of_all(uint32_t l) {
    (void)l;
    return 3 * 496 + 3200;
}
static uint32_t least(uint32_t l) {
    (void)l;
    return (uint32_t)-31;
}
static uint32_t most(uint32_t l) {
    (void)l;
    return 193;
}
static uint32_t or_of_lanes(uint32_t l) {
    (void)l;
    return 31;
}
static uint32_t half_mask(uint32_t l) {
    return l < 16 ? 0xffff : 0xffff0000;
}
static uint32_t elected(uint32_t l) {
    return l < 4 ? 0 : 4 + (l == 4 ? 1000u : 0);
}

static const struct lanes_row lanes_rows[] = {
    {"shfl.sync.up.b32 %r4|%p4, %r2, 5, 0, -1;",                                                                 up_5          },
    {"shfl.sync.up.b32 %r4|%p4, %r2, 3, 0x1800, -1;",                                                            up_3_of_8     },
    {"shfl.sync.down.b32 %r4|%p4, %r2, 4, 31, -1;",                                                              down_4        },
    {"shfl.sync.down.b32 %r4|%p4, %r2, 9, 0x101f, -1;",                                                          down_9_of_16  },
    {"shfl.sync.bfly.b32 %r4|%p4, %r2, 16, 31, -1;",                                                             bfly_16       },
    {"shfl.sync.bfly.b32 %r4|%p4, %r2, 4, 0x1c1f, -1;",                                                          bfly_4_of_4   },
    {"shfl.sync.idx.b32 %r4|%p4, %r2, 7, 31, -1;",                                                               idx_7         },
    {"shfl.sync.idx.b32 %r4|%p4, %r2, 13, 0x181f, -1;",                                                          idx_13_of_8   },
    {"setp.lt.u32 %p1, %r1, 8; @!%p1 bra other; shfl.sync.down.b32 %r4|%p4, %r2, 1, 0x181f, 0xff; bra.uni done;\n"
     "other: mov.u32 %r4, 7; done:",                                                                        down_in_branch},
    {"and.b32 %r5, %r1, 1; setp.ne.u32 %p1, %r5, 0; vote.sync.ballot.b32 %r4, %p1, -1;",                         ballot_odd    },
    {"and.b32 %r5, %r1, 1; setp.ne.u32 %p1, %r5, 0; vote.sync.all.pred %p4, %p1, -1;",                           none          },
    {"and.b32 %r5, %r1, 1; setp.ne.u32 %p1, %r5, 0; vote.sync.any.pred %p4, !%p1, -1;",                          yes           },
    {"setp.lt.u32 %p1, %r1, 32; vote.sync.uni.pred %p4, %p1, -1;",                                               yes           },
    {"setp.ge.u32 %p1, %r1, 32; vote.sync.uni.pred %p4, %p1, -1;",                                               yes           },
    {"setp.ge.u32 %p1, %r1, 7; vote.sync.uni.pred %p4, %p1, -1;",                                                none          },
    {"and.b32 %r5, %r1, 3; match.any.sync.b32 %r4, %r5, -1;",                                                    same_quarter  },
    {"match.all.sync.b32 %r4|%p4, %r1, -1;",                                                                     none          },
    {"redux.sync.add.s32 %r4, %r2, -1;",                                                                         sum_of_all    },
    {"neg.s32 %r5, %r1; redux.sync.min.s32 %r4, %r5, -1;",                                                       least         },
    {EIGHTS "redux.sync.add.s32 %r4, %r2, %r6;",                                                                 sum_of_eight  },
    {EIGHTS "and.b32 %r5, %r1, 28; setp.eq.u32 %p1, %r5, 4; @%p1 bra late; sum: redux.sync.add.s32 %r4, %r2, %r6; "
            "bra past; late: mov.u32 %r7, 0; bra sum; past:",                                               sum_of_eight  },
    {"neg.s32 %r5, %r1; redux.sync.min.u32 %r4, %r5, -1;",                                                       none          },
    {"redux.sync.max.u32 %r4, %r2, -1;",                                                                         most          },
    {"redux.sync.or.b32 %r4, %r1, -1;",                                                                          or_of_lanes   },
    {"setp.lt.u32 %p1, %r1, 16; @%p1 bra low; activemask.b32 %r4; bra.uni done; low: activemask.b32 %r4; done:",
     half_mask                                                                                                                 },
    {"setp.lt.u32 %p1, %r1, 4; mov.u32 %r4, 0; @!%p1 elect.sync %r4|%p4, 0xfffffff0;",                           elected       },
};

static int run_lanes(const struct lanes_row *rows, size_t n) {
    int wrong = 0;
    for (size_t i = 0; i < n; i++) {
        char body[1024];
        uint32_t out[32];
        snprintf(body, sizeof body,
                 "mov.u32 %%r1, %%laneid; mad.lo.u32 %%r2, %%r1, 3, 100; mov.u32 %%r4, 0; setp.ne.u32 %%p4, 0, 0;\n%s\n"
                 "@%%p4 add.u32 %%r4, %%r4, 1000; mul.wide.u32 %%rd1, %%r1, 4; add.u64 %%rd1, %%rd1, %%rd11;\n"
                 "st.global.u32 [%%rd1], %%r4;",
                 rows[i].body);
        const struct ptx_run r = {.body = body, .n_thread = 32, .out = out, .n_out = sizeof out};
        CHECK(run_text(&r));
        for (uint32_t l = 0; l < 32; l++) {
            if (out[l] == rows[i].want(l)) continue;
            fprintf(stderr, "%s lane %u: %u, must be %u\n", rows[i].body, l, out[l], rows[i].want(l));
            wrong++;
            break;
        }
    }
    return wrong;
}

static void collectives(void) {
    start();
    CHECK(run_lanes(lanes_rows, sizeof lanes_rows / sizeof lanes_rows[0]) == 0);
}
static void wrong_collective(void) {
    const struct lanes_row wrong = {"shfl.sync.up.b32 %r4|%p4, %r2, 5, 0, -1;", down_4};
    start();
    CHECK(run_lanes(&wrong, 1) == 1);
}

/* 96 threads: how many, whether all, whether any of them are below 40. */
static void barrier_reductions(void) {
    uint32_t out[96];
    const struct ptx_run r = {
        .body = "setp.lt.u32 %p1, %r10, 40; bar.red.popc.u32 %r1, 0, %p1; bar.red.and.pred %p2, 1, 96, %p1;\n"
                "bar.red.or.pred %p3, 2, %p1; selp.u32 %r2, 1000, 0, %p2; selp.u32 %r3, 2000, 0, %p3;\n"
                "add.u32 %r1, %r1, %r2; add.u32 %r1, %r1, %r3; mul.wide.u32 %rd1, %r10, 4; add.u64 %rd1, %rd1, %rd11;\n"
                "st.global.u32 [%rd1], %r1;",
        .n_thread = 96,
        .out = out,
        .n_out = sizeof out};
    start();
    CHECK(run_text(&r));
    for (int i = 0; i < 96; i++) CHECK(out[i] == 2040);
}

/* Warps 1 and 2 meet at a barrier of their own while warp 0 waits for warp 1 at another. */
static void barriers_of_some(void) {
    uint32_t out[96] = {0};
    const struct ptx_run r = {
        .body =
            ".shared .align 4 .b8 s[8]; mov.u32 %r1, 0; setp.lt.u32 %p1, %r10, 32; setp.lt.u32 %p2, %r10, 64;\n"
            "@%p1 bra first; @!%p2 bra third;\n"
            "setp.eq.u32 %p3, %r10, 32; @%p3 st.shared.u32 [s], 5; bar.sync 3, 64; ld.shared.u32 %r1, [s+4];\n"
            "bar.arrive 4, 64; bra.uni done;\n"
            "third: setp.eq.u32 %p3, %r10, 64; @%p3 st.shared.u32 [s+4], 6; bar.sync 3, 64; ld.shared.u32 %r1, [s];\n"
            "bra.uni done;\n"
            "first: bar.sync 4, 64; ld.shared.u32 %r1, [s];\n"
            "done: mul.wide.u32 %rd1, %r10, 4; add.u64 %rd1, %rd1, %rd11; st.global.u32 [%rd1], %r1;",
        .n_thread = 96,
        .out = out,
        .n_out = sizeof out};
    start();
    CHECK(run_text(&r));
    CHECK(out[0] == 5 && out[32] == 6 && out[64] == 5);
}

/* ---- fragments ---- */

static int32_t element_a(uint32_t m, uint32_t k) {
    return (int32_t)((m * 7 + k * 5) % 13) - 6;
}
static int32_t element_b(uint32_t n, uint32_t k) {
    return (int32_t)((n * 3 + k * 11) % 15) - 7;
}
static int32_t element_c(uint32_t m, uint32_t n) {
    return (int32_t)(m * 8 + n) - 60;
}

static uint32_t encoded(int32_t v, bool bf16) { /* small integers are exact in both */
    const float f = (float)v;
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if (bf16) return bits >> 16;
    const int32_t exponent = (int32_t)(bits >> 23 & 255) - 127 + 15;
    return v == 0 ? 0 : (bits >> 16 & 0x8000) | (uint32_t)exponent << 10 | (bits >> 13 & 1023);
}

struct shape {
    const char *name, *opcode;
    uint32_t k, n_a, n_b; /* elements of a lane */
    int32_t kind;         /* 0 bf16, 1 f16, 2 s8 */
    const uint16_t *a, *b;
};
static const struct shape shapes[] = {
    {"bf16", "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", 16, 8,  4, 0, cute_m16n8k16_a[0],
     cute_m16n8k16_b[0]                                                                                                 },
    {"f16",  "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32",   16, 8,  4, 1, cute_m16n8k16_a[0], cute_m16n8k16_b[0]},
    {"k8",   "mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32",  8,  4,  2, 0, cute_m16n8k8_a[0],  cute_m16n8k8_b[0] },
    {"s8",   "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32",     32, 16, 8, 2, cute_m16n8k32_a[0], cute_m16n8k32_b[0]},
};

static void put(uint32_t *regs, uint32_t i, int32_t v, int32_t kind) {
    if (kind == 2)
        regs[i / 4] |= (uint32_t)(uint8_t)v << (8 * (i % 4));
    else
        regs[i / 2] |= encoded(v, kind == 0) << (16 * (i % 2));
}

static void fragments_of(const struct shape *s, uint32_t in[32][16]) {
    memset(in, 0, 32 * sizeof in[0]);
    for (uint32_t l = 0; l < 32; l++) {
        for (uint32_t i = 0; i < s->n_a; i++) {
            const uint32_t at = s->a[l * s->n_a + i];
            put(in[l], i, element_a(at % 16, at / 16), s->kind);
        }
        for (uint32_t i = 0; i < s->n_b; i++) {
            const uint32_t at = s->b[l * s->n_b + i];
            put(in[l] + 4, i, element_b(at % 8, at / 8), s->kind);
        }
        for (uint32_t i = 0; i < 4; i++) {
            const uint32_t at = cute_m16n8k16_c[l][i];
            const int32_t c = element_c(at % 16, at / 16);
            const float f = (float)c;
            memcpy(&in[l][8 + i], s->kind == 2 ? (const void *)&c : (const void *)&f, 4);
        }
    }
}

static int32_t product_at(uint32_t m, uint32_t n, uint32_t k) {
    int32_t sum = element_c(m, n);
    for (uint32_t i = 0; i < k; i++) sum += element_a(m, i) * element_b(n, i);
    return sum;
}

static int run_shape(const struct shape *s) {
    static const char *const a_regs[] = {[4] = "%r0,%r1", [8] = "%r0,%r1,%r2,%r3", [16] = "%r0,%r1,%r2,%r3"};
    char body[2048];
    uint32_t in[32][16], out[32][4];
    fragments_of(s, in);
    snprintf(body, sizeof body,
             "mul.wide.u32 %%rd1, %%r10, 64; add.u64 %%rd1, %%rd1, %%rd10; mul.wide.u32 %%rd2, %%r10, 16;\n"
             "add.u64 %%rd2, %%rd2, %%rd11; ld.global.v4.u32 {%%r0, %%r1, %%r2, %%r3}, [%%rd1];\n"
             "ld.global.v2.u32 {%%r4, %%r5}, [%%rd1+16]; ld.global.v4.u32 {%%r20, %%r21, %%r22, %%r23}, [%%rd1+32];\n"
             "%s {%%r20,%%r21,%%r22,%%r23}, {%s}, {%s}, {%%r20,%%r21,%%r22,%%r23};\n"
             "st.global.v4.u32 [%%rd2], {%%r20, %%r21, %%r22, %%r23};",
             s->opcode, a_regs[s->n_a], s->n_b > 2 ? "%r4,%r5" : "%r4");
    const struct ptx_run r = {
        .body = body, .n_thread = 32, .in = in, .n_in = sizeof in, .out = out, .n_out = sizeof out};
    CHECK(run_text(&r));
    int wrong = 0;
    for (uint32_t l = 0; l < 32; l++)
        for (uint32_t i = 0; i < 4; i++) {
            const uint32_t at = cute_m16n8k16_c[l][i];
            const int32_t want = product_at(at % 16, at / 16, s->k);
            float f;
            memcpy(&f, &out[l][i], sizeof f);
            wrong += s->kind == 2 ? (int32_t)out[l][i] != want : f != (float)want;
        }
    if (wrong) fprintf(stderr, "mma %s: %d elements are wrong\n", s->name, wrong);
    return wrong;
}

static void products(void) {
    start();
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) CHECK(run_shape(&shapes[i]) == 0);
}
/* With two registers of A exchanged the test must fail. */
static void exchanged_fragment(void) {
    uint16_t a[32][8];
    memcpy(a, cute_m16n8k16_a, sizeof a);
    for (int l = 0; l < 32; l++)
        memcpy(a[l] + 2, cute_m16n8k16_a[l] + 4, 4), memcpy(a[l] + 4, cute_m16n8k16_a[l] + 2, 4);
    struct shape s = shapes[0];
    s.a = a[0];
    start();
    CHECK(run_shape(&s) > 0);
}

/* Lane l gives the address of a row of 8 elements, 8 l + column, at a place that is not in order. */
static const char rows_in_shared[] =
    ".shared .align 16 .b8 s[512]; mul.lo.u32 %r1, %r10, 5; and.b32 %r1, %r1, 31; mul.lo.u32 %r1, %r1, 16;\n"
    "mov.u32 %r2, s; add.u32 %r1, %r1, %r2;\n";

static void matrices(bool trans) {
    uint32_t out[32][4];
    char body[2048];
    snprintf(body, sizeof body,
             "%smul.lo.u32 %%r3, %%r10, 0x00080008; add.u32 %%r4, %%r3, 0x00010000; add.u32 %%r5, %%r3, 0x00030002;\n"
             "add.u32 %%r6, %%r3, 0x00050004; add.u32 %%r7, %%r3, 0x00070006;\n"
             "st.shared.v4.u32 [%%r1], {%%r4, %%r5, %%r6, %%r7}; bar.sync 0;\n"
             "ldmatrix.sync.aligned.m8n8.x4%s.shared.b16 {%%r20, %%r21, %%r22, %%r23}, [%%r1];\n"
             "mul.wide.u32 %%rd2, %%r10, 16; add.u64 %%rd2, %%rd2, %%rd11;\n"
             "st.global.v4.u32 [%%rd2], {%%r20, %%r21, %%r22, %%r23};",
             rows_in_shared, trans ? ".trans" : "");
    const struct ptx_run r = {.body = body, .n_thread = 32, .out = out, .n_out = sizeof out};
    CHECK(run_text(&r));
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < 8; i++) {
            const uint32_t got = out[l][i / 2] >> (16 * (i % 2)) & 0xffff;
            CHECK(got == (trans ? cute_ldmatrix_x4_trans : cute_ldmatrix_x4)[l][i]);
        }
}

/* What stmatrix stores, the owner of each row reads back: the inverse of ldmatrix. */
static void stored_matrices(bool trans) {
    uint32_t in[32][4] = {{0}}, out[32][4];
    char body[2048];
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < 8; i++)
            in[l][i / 2] |= (uint32_t)(trans ? cute_ldmatrix_x4_trans : cute_ldmatrix_x4)[l][i] << (16 * (i % 2));
    snprintf(body, sizeof body,
             "%smul.wide.u32 %%rd2, %%r10, 16; add.u64 %%rd1, %%rd2, %%rd10; add.u64 %%rd2, %%rd2, %%rd11;\n"
             "ld.global.v4.u32 {%%r20, %%r21, %%r22, %%r23}, [%%rd1];\n"
             "stmatrix.sync.aligned.m8n8.x4%s.shared.b16 [%%r1], {%%r20, %%r21, %%r22, %%r23}; bar.sync 0;\n"
             "ld.shared.v4.u32 {%%r20, %%r21, %%r22, %%r23}, [%%r1]; st.global.v4.u32 [%%rd2], {%%r20, %%r21, %%r22, "
             "%%r23};",
             rows_in_shared, trans ? ".trans" : "");
    const struct ptx_run r = {
        .body = body, .n_thread = 32, .in = in, .n_in = sizeof in, .out = out, .n_out = sizeof out};
    CHECK(run_text(&r));
    for (uint32_t l = 0; l < 32; l++)
        for (uint32_t i = 0; i < 8; i++) CHECK((out[l][i / 2] >> (16 * (i % 2)) & 0xffff) == 8 * l + i);
}

static void all_matrices(void) {
    start();
    matrices(false);
    matrices(true);
    stored_matrices(false);
    stored_matrices(true);
}

static const struct row rows[] = {
    ROW("cc=90", collectives),        ROW("cc=90,order=random,seed=3", collectives),
    ROW("cc=90", wrong_collective),   ROW("cc=90", barrier_reductions),
    ROW("cc=90", barriers_of_some),   ROW("cc=90,order=backward", barriers_of_some),
    ROW("cc=90", products),           ROW("cc=90,shuffle=1", products),
    ROW("cc=90", exchanged_fragment), ROW("cc=90", all_matrices),
};

int main(void) {
    return run_rows(rows, sizeof rows / sizeof rows[0]);
}
