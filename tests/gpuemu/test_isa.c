/* Scalar instructions against values worked out by hand from the PTX ISA: one row, one program of one thread. */
#include "test_isa.h"

enum result { X4, X4_X5, Y4 };
struct scalar {
    const char *body;
    uint32_t in[4];
    uint64_t want; /* x4; x4 and x5 above; y4 */
    enum result result;
};

#define ONE    0x3f800000u
#define NAN32  0x7fc00000u
#define CANON  0x7fffffffu
#define INF32  0x7f800000u
#define MINUS0 0x80000000u

static void run_scalars(const struct scalar *row, size_t n) {
    int n_wrong = 0;
    start();
    for (size_t i = 0; i < n; i++) {
        struct words in, out;
        memcpy(&in, row[i].in, sizeof in);
        program(row[i].body, 1, &in, &out);
        const uint64_t got = row[i].result == X4      ? out.w[0]
                             : row[i].result == X4_X5 ? (uint64_t)out.w[1] << 32 | out.w[0]
                                                      : (uint64_t)out.w[3] << 32 | out.w[2];
        if (got == row[i].want) continue;
        fprintf(stderr, "%s\n  of %#x %#x %#x %#x: %#llx, must be %#llx\n", row[i].body, in.w[0], in.w[1], in.w[2],
                in.w[3], (unsigned long long)got, (unsigned long long)row[i].want);
        n_wrong++;
    }
    CHECK(n_wrong == 0);
}
#define SCALARS(name, ...)                                                                                             \
    static void name(void) {                                                                                           \
        static const struct scalar rows[] = {__VA_ARGS__};                                                             \
        run_scalars(rows, sizeof rows / sizeof rows[0]);                                                               \
    }

/* clang-format off */
SCALARS(integer_arithmetic,
    {"add.s32 %x4, %x0, %x1;", {0x7fffffff, 1}, 0x80000000, X4},
    {"add.sat.s32 %x4, %x0, %x1;", {0x7fffffff, 1}, 0x7fffffff, X4},
    {"sub.s64 %y4, %y0, %y1;", {0, 1, 1, 0}, 0xffffffff, Y4},
    {"cvt.u16.u32 %h1, %x0; cvt.u16.u32 %h2, %x1; add.s16 %h0, %h1, %h2; cvt.s32.s16 %x4, %h0;", {0x7fff, 1}, 0xffff8000, X4},
    {"mul.lo.s32 %x4, %x0, %x1;", {0xfffffffd, 7}, 0xffffffeb, X4},
    {"mul.hi.s32 %x4, %x0, %x1;", {0xfffffffd, 7}, 0xffffffff, X4},
    {"mul.hi.u32 %x4, %x0, %x1;", {0xfffffffd, 7}, 6, X4},
    {"mul.hi.u64 %y4, %y0, %y1;", {0xffffffff, 0xffffffff, 3, 0}, 2, Y4},
    {"mul.hi.s64 %y4, %y0, %y1;", {0xffffffff, 0xffffffff, 3, 0}, 0xffffffffffffffff, Y4},
    {"mul.wide.s32 %y4, %x0, %x1;", {0xffffffff, 2}, 0xfffffffffffffffe, Y4},
    {"mul.wide.u32 %y4, %x0, %x1;", {0xffffffff, 2}, 0x1fffffffe, Y4},
    {"cvt.u16.u32 %h0, %x0; cvt.u16.u32 %h1, %x1; mul.wide.s16 %x4, %h0, %h1;", {0xffff, 2}, 0xfffffffe, X4},
    {"cvt.u16.u32 %h0, %x0; cvt.u16.u32 %h1, %x1; mul.wide.u16 %x4, %h0, %h1;", {0xffff, 2}, 0x1fffe, X4},
    {"mad.lo.s32 %x4, %x0, %x1, %x2;", {7, 0xfffffffd, 5}, 0xfffffff0, X4},
    {"mad.hi.s32 %x4, %x0, %x1, %x2;", {0x80000000, 2, 5}, 4, X4},
    {"mad.hi.u32 %x4, %x0, %x1, %x2;", {0x80000000, 2, 5}, 6, X4},
    {"mad.wide.s32 %y4, %x0, %x1, %y1;", {0xfffffffe, 3, 1, 0}, 0xfffffffffffffffb, Y4},
    {"mad.wide.u32 %y4, %x0, %x1, %y1;", {0xfffffffe, 3, 1, 0}, 0x2fffffffb, Y4},
    {"add.cc.u32 %x4, %x0, %x1; addc.u32 %x5, %x2, %x3;", {0xffffffff, 1, 1, 2}, 0x400000000, X4_X5},
    {"add.cc.u32 %x4, %x0, %x1; addc.u32 %x5, %x2, %x3;", {0xfffffffe, 1, 1, 2}, 0x3ffffffff, X4_X5},
    {"add.cc.u32 %x6, %x0, %x1; addc.cc.u32 %x4, %x2, %x3; addc.u32 %x5, 0, 0;", {0xffffffff, 1, 0xffffffff, 0}, 0x100000000, X4_X5},
    {"sub.cc.u32 %x4, %x0, %x1; subc.u32 %x5, %x2, %x3;", {0, 1, 5, 2}, 0x2ffffffff, X4_X5},
    {"sub.cc.u32 %x4, %x0, %x1; subc.u32 %x5, %x2, %x3;", {1, 1, 5, 2}, 0x300000000, X4_X5},
    {"div.s32 %x4, %x0, %x1; rem.s32 %x5, %x0, %x1;", {0xfffffff9, 2}, 0xfffffffffffffffd, X4_X5},
    {"div.s32 %x4, %x0, %x1; rem.s32 %x5, %x0, %x1;", {7, 0xfffffffe}, 0x1fffffffd, X4_X5},
    {"div.u32 %x4, %x0, %x1; rem.u32 %x5, %x0, %x1;", {0xfffffff9, 2}, 0x17ffffffc, X4_X5},
    {"div.s32 %x4, %x0, %x1; rem.s32 %x5, %x0, %x1;", {0x80000000, 0xffffffff}, 0x80000000, X4_X5},
    {"div.s32 %x6, %x0, %x1; rem.u32 %x6, %x0, %x1; div.u64 %y2, %y0, %y1; mov.u32 %x4, 1;", {1, 0, 0, 0}, 1, X4},
    {"div.u64 %y4, %y0, %y1;", {0, 1, 3, 0}, 0x55555555, Y4},
    {"rem.s64 %y4, %y0, %y1;", {0xfffffff9, 0xffffffff, 2, 0}, 0xffffffffffffffff, Y4},
    {"min.s32 %x4, %x0, %x1; min.u32 %x5, %x0, %x1;", {0xffffffff, 1}, 0x1ffffffff, X4_X5},
    {"max.s32 %x4, %x0, %x1; max.u32 %x5, %x0, %x1;", {0xffffffff, 1}, 0xffffffff00000001, X4_X5},
    {"max.s64 %y4, %y0, %y1;", {0, 0x80000000, 1, 0}, 1, Y4},
    {"abs.s32 %x4, %x0; neg.s32 %x5, %x0;", {0x80000000}, 0x8000000080000000, X4_X5},
    {"abs.s32 %x4, %x0; neg.s32 %x5, %x0;", {0xfffffffb}, 0x500000005, X4_X5},
    {"dp4a.s32.s32 %x4, %x0, %x1, %x2;", {0xff020304, 0x05060708, 10}, 70, X4},
    {"dp4a.u32.u32 %x4, %x0, %x1, %x2;", {0xff020304, 0x05060708, 10}, 1350, X4})

SCALARS(bits,
    {"and.b32 %x4, %x0, %x1; or.b32 %x5, %x0, %x1;", {0xc, 0xa}, 0xe00000008, X4_X5},
    {"xor.b32 %x4, %x0, %x1; not.b32 %x5, %x0;", {0xc, 0xa}, 0xfffffff300000006, X4_X5},
    {"cnot.b32 %x4, %x0; cnot.b32 %x5, %x1;", {0, 7}, 1, X4_X5},
    {"shl.b32 %x4, %x0, %x1; shl.b32 %x5, %x0, %x2;", {1, 31, 32}, 0x80000000, X4_X5},
    {"shr.u32 %x4, %x0, %x1; shr.s32 %x5, %x0, %x1;", {0x80000000, 40}, 0xffffffff00000000, X4_X5},
    {"shr.u32 %x4, %x0, %x1; shr.s32 %x5, %x0, %x1;", {0x80000000, 4}, 0xf800000008000000, X4_X5},
    {"shl.b64 %y4, %y0, %x2;", {3, 0, 33}, 0x600000000, Y4},
    {"shl.b64 %y4, %y0, %x2;", {3, 0, 64}, 0, Y4},
    {"shr.s64 %y4, %y0, %x2;", {0, 0x80000000, 63}, 0xffffffffffffffff, Y4},
    {"shf.l.wrap.b32 %x4, %x0, %x1, %x2; shf.r.wrap.b32 %x5, %x0, %x1, %x2;", {0x80000001, 0x12345678, 4}, 0x8800000023456788, X4_X5},
    {"shf.l.wrap.b32 %x4, %x0, %x1, %x2; shf.r.wrap.b32 %x5, %x0, %x1, %x2;", {0x80000001, 0x12345678, 36}, 0x8800000023456788, X4_X5},
    {"shf.l.clamp.b32 %x4, %x0, %x1, %x2; shf.r.clamp.b32 %x5, %x0, %x1, %x2;", {0x80000001, 0x12345678, 40}, 0x1234567880000001, X4_X5},
    {"shf.l.wrap.b32 %x4, %x0, %x1, %x2; shf.r.wrap.b32 %x5, %x0, %x1, %x2;", {0x80000001, 0x12345678, 0}, 0x8000000112345678, X4_X5},
    {"lop3.b32 %x4, %x0, %x1, %x2, 0x1b;", {0xf0f0f0f0, 0xcccccccc, 0xaaaaaaaa}, 0x1b1b1b1b, X4},
    {"lop3.b32 %x4, %x0, %x1, %x2, 0xe8;", {0x0000ffff, 0x00ff00ff, 0x0f0f0f0f}, 0x000f0fff, X4},
    {"bfe.u32 %x4, %x0, 8, 8; bfe.s32 %x5, %x0, 8, 8;", {0x0000a234}, 0xffffffa2000000a2, X4_X5},
    {"bfe.u32 %x4, %x0, 28, 8; bfe.s32 %x5, %x0, 28, 8;", {0x90000000}, 0xfffffff900000009, X4_X5},
    {"bfe.u32 %x4, %x0, 40, 8; bfe.s32 %x5, %x0, 40, 8;", {0x90000000}, 0xffffffff00000000, X4_X5},
    {"bfe.u32 %x4, %x0, 4, 0; bfe.s32 %x5, %x0, 4, 0;", {0xffffffff}, 0, X4_X5},
    {"bfe.u64 %y4, %y0, 28, 8;", {0x50000000, 0xa}, 0xa5, Y4},
    {"bfi.b32 %x4, %x0, %x1, 8, 4; bfi.b32 %x5, %x0, %x1, 28, 8;", {0xff, 0x12345678}, 0xf234567812345f78, X4_X5},
    {"bfi.b32 %x4, %x0, %x1, 8, 0; bfi.b32 %x5, %x0, %x1, 32, 4;", {0xff, 0x12345678}, 0x1234567812345678, X4_X5},
    {"bmsk.clamp.b32 %x4, %x0, %x1; bmsk.clamp.b32 %x5, %x2, %x1;", {4, 8, 28}, 0xf000000000000ff0, X4_X5},
    {"bmsk.clamp.b32 %x4, %x0, %x1; bmsk.clamp.b32 %x5, %x2, %x0;", {40, 4, 0}, 0xffffffff00000000, X4_X5},
    {"bmsk.wrap.b32 %x4, %x0, %x1; bmsk.wrap.b32 %x5, %x0, %x2;", {36, 40, 32}, 0xff0, X4_X5},
    {"mov.u64 %y2, %globaltimer; mov.u64 %y3, %globaltimer; setp.ge.u64 %p0, %y3, %y2; selp.u32 %x4, 1, 0, %p0;", {0}, 1, X4},
    {"popc.b32 %x4, %x0; popc.b64 %x5, %y0;", {0xf0f0, 7}, 0xb00000008, X4_X5},
    {"clz.b32 %x4, %x0; clz.b32 %x5, %x1;", {0, 0x00800000}, 0x800000020, X4_X5},
    {"clz.b64 %x4, %y0;", {1, 0}, 63, X4},
    {"brev.b32 %x4, %x0;", {0x00000013}, 0xc8000000, X4},
    {"bfind.u32 %x4, %x0; bfind.u32 %x5, %x1;", {0xf0, 0}, 0xffffffff00000007, X4_X5},
    {"bfind.s32 %x4, %x0; bfind.s32 %x5, %x1;", {0xfffffff0, 0xffffffff}, 0xffffffff00000003, X4_X5},
    {"bfind.shiftamt.u32 %x4, %x0;", {0xf0}, 24, X4})

SCALARS(byte_permutations,
    {"prmt.b32 %x4, %x0, %x1, 0x7531;", {0x33221100, 0x77665544}, 0x77553311, X4},
    {"prmt.b32 %x4, %x0, %x1, 0x0008;", {0x332211f0, 0x77665544}, 0xf0f0f0ff, X4},
    {"prmt.b32 %x4, %x0, %x1, 0xcba9;", {0x80221100, 0x776655c4}, 0xffff0000, X4},
    {"prmt.b32.f4e %x4, %x0, %x1, 1;", {0x33221100, 0x77665544}, 0x44332211, X4},
    {"prmt.b32.b4e %x4, %x0, %x1, 1;", {0x33221100, 0x77665544}, 0x66770011, X4},
    {"prmt.b32.rc8 %x4, %x0, %x1, 2;", {0x33221100, 0x77665544}, 0x22222222, X4},
    {"prmt.b32.ecl %x4, %x0, %x1, 1;", {0x33221100, 0x77665544}, 0x33221111, X4},
    {"prmt.b32.ecr %x4, %x0, %x1, 1;", {0x33221100, 0x77665544}, 0x11111100, X4},
    {"prmt.b32.rc16 %x4, %x0, %x1, 1;", {0x33221100, 0x77665544}, 0x33223322, X4})

#define PREDICATE(op) op " selp.u32 %x4, 1, 0, %p0; selp.u32 %x5, 1, 0, %p1;"
SCALARS(comparisons,
    {PREDICATE("setp.lt.s32 %p0|%p1, %x0, %x1;"), {0xffffffff, 1}, 1, X4_X5},
    {PREDICATE("setp.lt.u32 %p0|%p1, %x0, %x1;"), {0xffffffff, 1}, 0x100000000, X4_X5},
    {PREDICATE("setp.hi.u32 %p0, %x0, %x1; setp.ls.u32 %p1, %x0, %x1;"), {0xffffffff, 1}, 1, X4_X5},
    {PREDICATE("setp.lo.u32 %p0, %x0, %x1; setp.hs.u32 %p1, %x0, %x1;"), {1, 1}, 0x100000000, X4_X5},
    {PREDICATE("setp.lt.s64 %p0, %y0, %y1; setp.lt.u64 %p1, %y0, %y1;"), {0, 0x80000000, 1, 0}, 1, X4_X5},
    {PREDICATE("setp.eq.s32 %p2, %x2, %x3; setp.eq.and.s32 %p0|%p1, %x0, %x1, %p2;"), {1, 1, 0, 0}, 1, X4_X5},
    {PREDICATE("setp.eq.s32 %p2, %x2, %x3; setp.eq.and.s32 %p0|%p1, %x0, %x1, %p2;"), {1, 2, 0, 0}, 0x100000000, X4_X5},
    {PREDICATE("setp.eq.s32 %p2, %x2, %x3; setp.eq.and.s32 %p0|%p1, %x0, %x1, !%p2;"), {1, 1, 0, 0}, 0, X4_X5},
    {PREDICATE("setp.eq.s32 %p2, %x2, %x3; setp.eq.or.s32 %p0|%p1, %x0, %x1, %p2;"), {1, 2, 0, 0}, 0x100000001, X4_X5},
    {PREDICATE("setp.eq.s32 %p2, %x2, %x3; setp.eq.xor.s32 %p0|%p1, %x0, %x1, %p2;"), {1, 1, 0, 0}, 0x100000000, X4_X5},
    {PREDICATE("setp.lt.f32 %p0, %x0, %x1; setp.ltu.f32 %p1, %x0, %x1;"), {NAN32, ONE}, 0x100000000, X4_X5},
    {PREDICATE("setp.ne.f32 %p0, %x0, %x1; setp.neu.f32 %p1, %x0, %x1;"), {ONE, NAN32}, 0x100000000, X4_X5},
    {PREDICATE("setp.eq.f32 %p0, %x0, %x1; setp.equ.f32 %p1, %x0, %x1;"), {NAN32, NAN32}, 0x100000000, X4_X5},
    {PREDICATE("setp.ge.f32 %p0, %x0, %x1; setp.geu.f32 %p1, %x0, %x1;"), {NAN32, ONE}, 0x100000000, X4_X5},
    {PREDICATE("setp.gt.f32 %p0, %x0, %x1; setp.gtu.f32 %p1, %x0, %x1;"), {0, ONE}, 0, X4_X5},
    {PREDICATE("setp.le.f32 %p0, %x0, %x1; setp.leu.f32 %p1, %x0, %x1;"), {0, MINUS0}, 0x100000001, X4_X5},
    {PREDICATE("setp.num.f32 %p0, %x0, %x1; setp.nan.f32 %p1, %x0, %x1;"), {ONE, NAN32}, 0x100000000, X4_X5},
    {PREDICATE("setp.num.f32 %p0, %x0, %x1; setp.nan.f32 %p1, %x0, %x1;"), {ONE, INF32}, 1, X4_X5},
    {PREDICATE("setp.gt.ftz.f32 %p0, %x0, %x1; setp.gt.f32 %p1, %x0, %x1;"), {1, 0}, 0x100000000, X4_X5},
    {"set.gt.u32.s32 %x4, %x0, %x1; set.lt.f32.s32 %x5, %x1, %x0;", {5, 0xffffffff}, 0x3f800000ffffffff, X4_X5},
    {"setp.gt.s32 %p0, %x0, 0; selp.b64 %y4, %y0, %y1, %p0;", {1, 2, 3, 4}, 0x200000001, Y4},
    {"setp.gt.s32 %p0, %x0, 0; @!%p0 mov.u32 %x4, 7; @%p0 mov.u32 %x5, 9;", {1}, 0x900000000, X4_X5})

SCALARS(floats,
    {"add.f32 %x4, %x0, %x1; sub.f32 %x5, %x0, %x1;", {0x40400000, ONE}, 0x4000000040800000, X4_X5},
    {"add.rn.f32 %x4, %x0, %x1; add.rz.f32 %x5, %x0, %x1;", {ONE, 0x33800001}, 0x3f8000003f800001, X4_X5},
    {"add.rm.f32 %x4, %x0, %x1; add.rp.f32 %x5, %x0, %x1;", {ONE, 0x32800000}, 0x3f8000013f800000, X4_X5},
    {"add.ftz.f32 %x4, %x0, %x1; add.f32 %x5, %x0, %x1;", {1, 1}, 0x200000000, X4_X5},
    {"add.sat.f32 %x4, %x0, %x1; add.sat.f32 %x5, %x2, %x2;", {0x3f400000, 0x3f400000, NAN32}, 0x3f800000, X4_X5},
    {"mul.rn.f32 %x4, %x0, %x1; mul.rz.f32 %x5, %x0, %x1;", {0x3f800001, 0x3f800001}, 0x3f8000023f800002, X4_X5},
    {"mul.rp.f32 %x4, %x0, %x1; mul.rm.f32 %x5, %x0, %x1;", {0x3f800001, 0x3f800001}, 0x3f8000023f800003, X4_X5},
    {"fma.rn.f32 %x4, %x0, %x0, %x1;", {0x3f800001, 0xbf800002}, 0x28800000, X4}, /* 2^-46 is only there when exact */
    {"fma.rm.f32 %x4, %x0, %x1, %x2; fma.rp.f32 %x5, %x0, %x1, %x2;", {ONE, 0x32800000, ONE}, 0x3f8000013f800000, X4_X5},
    {"min.f32 %x4, %x0, %x1; max.f32 %x5, %x1, %x0;", {NAN32, ONE}, 0x3f8000003f800000, X4_X5},
    {"add.f32 %x4, %x0, %x1; fma.rn.f32 %x5, %x1, %x0, %x1;", {NAN32, ONE}, 0x7fffffff7fffffff, X4_X5},
    {"min.NaN.f32 %x4, %x0, %x1; max.NaN.f32 %x5, %x1, %x0;", {NAN32, ONE}, 0x7fffffff7fffffff, X4_X5},
    {"min.f32 %x4, %x0, %x0;", {NAN32}, CANON, X4},
    {"min.f32 %x4, %x0, %x1; max.f32 %x5, %x1, %x0;", {0, MINUS0}, MINUS0, X4_X5},
    {"neg.f32 %x4, %x0; abs.f32 %x5, %x1;", {ONE, 0xc0000000}, 0x40000000bf800000, X4_X5},
    {"copysign.f32 %x4, %x0, %x1;", {0xbf800000, 0x40000000}, 0xc0000000, X4},
    {"div.rn.f32 %x4, %x0, %x1; div.rz.f32 %x5, %x2, %x1;", {ONE, 0x40400000, 0x40000000}, 0x3f2aaaaa3eaaaaab, X4_X5},
    {"div.rn.f32 %x4, %x0, %x1; div.rn.f32 %x5, %x1, %x1;", {ONE, 0}, 0x7fffffff7f800000, X4_X5},
    {"rcp.rn.f32 %x4, %x0; sqrt.rn.f32 %x5, %x1;", {0x40400000, 0x40000000}, 0x3fb504f33eaaaaab, X4_X5},
    {"sqrt.rn.f32 %x4, %x0;", {0xbf800000}, CANON, X4},
    {"ex2.approx.f32 %x4, %x0; lg2.approx.f32 %x5, %x1;", {0x40400000, 0x41000000}, 0x4040000041000000, X4_X5},
    {"ex2.approx.ftz.f32 %x4, %x0; lg2.approx.f32 %x5, %x1;", {0xff800000, 0}, 0xff80000000000000, X4_X5},
    {"ex2.approx.ftz.f32 %x4, %x0; ex2.approx.f32 %x5, %x0;", {0xc3020000}, 0x0008000000000000, X4_X5}, /* 2^-130 */
    {"rsqrt.approx.f32 %x4, %x0; tanh.approx.f32 %x5, %x1;", {0x40800000, 0}, 0x3f000000, X4_X5},
    {"mul.rn.f64 %y4, %y0, %y1;", {0, 0x3ff80000, 0, 0xc0000000}, 0xc008000000000000, Y4},
    {"fma.rn.f64 %y4, %y0, %y0, %y1;", {1, 0x3ff00000, 2, 0xbff00000}, 0x3970000000000000, Y4},
    {"fma.rn.bf16x2 %x4, %x0, %x1, %x2;", {0x3fc04000, 0x40004040, 0x3f003f80}, 0x406040e0, X4},
    {"fma.rn.bf16x2 %x4, %x0, %x1, %x2;", {0x00ff0001, 0x7f007f00, 0xc000c000}, 0x3ffebffe, X4}, /* subnormal */
    {"fma.rn.f16x2 %x4, %x0, %x1, %x2;", {0x3e004000, 0x40004200, 0x38003c00}, 0x43004700, X4})

SCALARS(conversions,
    {"cvt.rn.f32.s32 %x4, %x0; cvt.rz.f32.s32 %x5, %x1;", {0xfeffffff, 0x01000003}, 0x4b800001cb800000, X4_X5},
    {"cvt.rn.f32.u32 %x4, %x0; cvt.rp.f32.u32 %x5, %x1;", {0xffffffff, 0x01000001}, 0x4b8000014f800000, X4_X5},
    {"cvt.rni.s32.f32 %x4, %x0; cvt.rni.s32.f32 %x5, %x1;", {0x40200000, 0x40600000}, 0x400000002, X4_X5},
    {"cvt.rzi.s32.f32 %x4, %x0; cvt.rmi.s32.f32 %x5, %x0;", {0xc0200000}, 0xfffffffdfffffffe, X4_X5},
    {"cvt.rpi.s32.f32 %x4, %x0; cvt.rpi.s32.f32 %x5, %x1;", {0x40066666, 0xc0200000}, 0xfffffffe00000003, X4_X5},
    {"cvt.rzi.s32.f32 %x4, %x0; cvt.rzi.s32.f32 %x5, %x1;", {0x4f32d05e, 0xcf32d05e}, 0x800000007fffffff, X4_X5},
    {"cvt.rzi.u32.f32 %x4, %x0; cvt.rzi.u32.f32 %x5, %x1;", {0xbf800000, 0x50000000}, 0xffffffff00000000, X4_X5},
    {"cvt.rzi.s32.f32 %x4, %x0; cvt.rzi.u32.f32 %x5, %x0;", {NAN32}, 0, X4_X5},
    {"cvt.rzi.s32.f32 %x4, %x0; cvt.rzi.s32.f32 %x5, %x1;", {0x4f000000, 0xcf000000}, 0x800000007fffffff, X4_X5},
    {"cvt.rzi.u64.f32 %y4, %x0;", {0x5f000000}, 0x8000000000000000, Y4},
    {"cvt.rni.f32.f32 %x4, %x0; cvt.rpi.f32.f32 %x5, %x1;", {0x3fc00000, 0xbf000000}, 0x8000000040000000, X4_X5},
    {"cvt.sat.f32.f32 %x4, %x0; cvt.sat.f32.f32 %x5, %x1;", {0x40000000, NAN32}, 0x3f800000, X4_X5},
    {"cvt.sat.u8.s32 %x4, %x0; cvt.sat.u8.s32 %x5, %x1;", {0xfffffffb, 300}, 0xff00000000, X4_X5},
    {"cvt.sat.s8.s32 %x4, %x0; cvt.sat.s8.s32 %x5, %x1;", {200, 0xffffff00}, 0xffffff800000007f, X4_X5},
    {"cvt.s32.s8 %x4, %x0; cvt.u32.u8 %x5, %x0;", {0x1280}, 0x80ffffff80, X4_X5},
    {"cvt.s64.s32 %y4, %x0;", {0xffffffff}, 0xffffffffffffffff, Y4},
    {"cvt.u64.u32 %y4, %x0;", {0xffffffff}, 0xffffffff, Y4},
    {"cvt.u32.u64 %x4, %y0;", {5, 6}, 5, X4},
    {"cvt.f64.f32 %y4, %x0;", {0x3fc00000}, 0x3ff8000000000000, Y4},
    {"cvt.rn.f32.f64 %x4, %y0; cvt.rz.f32.f64 %x5, %y0;", {0xffffffff, 0x3fefffff}, 0x3f7fffff3f800000, X4_X5},
    {"cvt.rn.f64.u64 %y4, %y0;", {1, 0x00200000}, 0x4340000000000000, Y4},
    {"cvt.rn.bf16x2.f32 %x4, %x0, %x1;", {ONE, 0x40000000}, 0x3f804000, X4},
    {"cvt.rn.bf16x2.f32 %x4, %x0, %x1;", {0x3f808000, 0x3f818000}, 0x3f803f82, X4},
    {"cvt.rn.bf16x2.f32 %x4, %x0, %x1;", {0x7f7fffff, 0x3f808001}, 0x7f803f81, X4},
    {"cvt.rz.bf16x2.f32 %x4, %x0, %x1;", {0x3f80ffff, 0xbf80ffff}, 0x3f80bf80, X4},
    {"cvt.rn.relu.bf16x2.f32 %x4, %x0, %x1;", {0xbf800000, ONE}, 0x00003f80, X4},
    {"cvt.rn.bf16.f32 %h0, %x0; mov.b32 %x4, {%h0, %h0};", {0x3f818000}, 0x3f823f82, X4},
    {"cvt.rn.f16x2.f32 %x4, %x0, %x1;", {0x477fefff, 0x477ff000}, 0x7bff7c00, X4},
    {"cvt.rn.f16x2.f32 %x4, %x0, %x1;", {0x33000000, 0x33400000}, 0x00000001, X4},
    {"cvt.u16.u32 %h0, %x0; cvt.f32.f16 %x4, %h0; cvt.f32.bf16 %x5, %h0;", {0x0001}, 0x0001000033800000, X4_X5})

SCALARS(moves,
    {"mov.b64 {%x4, %x5}, %y0;", {1, 2}, 0x200000001, X4_X5},
    {"mov.b32 {%h0, %h1}, %x0; mov.b32 %x4, {%h1, %h0};", {0x12345678}, 0x56781234, X4},
    {"mov.u32 %x4, %ntid.x; mov.u32 %x5, WARP_SZ;", {0}, 0x2000000001, X4_X5},
    {"{ .reg .b32 %x0; mov.u32 %x0, 5; mov.u32 %x4, %x0; } mov.u32 %x5, %x0;", {9}, 0x900000005, X4_X5},
    {"mov.f32 %x4, 0f3F800000; mov.u32 %x5, -2;", {0}, 0xfffffffe3f800000, X4_X5})

SCALARS(loads_and_stores,
    {"st.shared.u32 [tile], %x0; ld.shared.s8 %x4, [tile + 1]; ld.shared.u8 %x5, [tile + 1];", {0x12348056}, 0x80ffffff80, X4_X5},
    {"st.shared.u32 [tile], %x0; ld.shared.s16 %x4, [tile + 2]; ld.shared.u16 %x5, [tile + 2];", {0x92348056}, 0x9234ffff9234, X4_X5},
    {"st.shared.u32 [tile], %x0; ld.shared.s32 %y4, [tile];", {0x92348056}, 0xffffffff92348056, Y4},
    {"st.shared.u32 [tile], %x0; st.shared.u8 [tile + 1], %x1; ld.shared.u32 %x4, [tile];", {0x11223344, 0xffaa}, 0x1122aa44, X4},
    {"st.shared.v4.u32 [tile + 16], {%x0, %x1, %x2, %x3}; ld.shared.v2.u32 {%x4, %x5}, [tile + 24];", {1, 2, 3, 4}, 0x400000003, X4_X5},
    {"st.shared.v2.u64 [tile], {%y0, %y1}; ld.shared.v2.u64 {%y2, %y4}, [tile];", {1, 2, 3, 4}, 0x400000003, Y4},
    {"mov.u64 %y2, tile; cvta.shared.u64 %y2, %y2; st.u32 [%y2 + 4], %x1; ld.shared.u32 %x4, [tile + 4];", {1, 77}, 77, X4},
    {"cvta.to.global.u64 %y2, %in; ld.global.u32 %x4, [%y2 + 8]; ld.u32 %x5, [%in + 12];", {1, 2, 3, 4}, 0x400000003, X4_X5},
    {"ld.global.v4.u32 {%x4, _, _, %x5}, [%in];", {1, 2, 3, 4}, 0x400000001, X4_X5},
    {"{ .local .align 8 .b8 depot[16]; st.local.u64 [depot + 8], %y1; ld.local.u32 %x4, [depot + 12]; }", {1, 2, 3, 4}, 4, X4},
    {"ld.param.u32 %x4, [p_map + 4];", {0}, 0, X4})

SCALARS(words_of_parameters, /* bytes 16 to 31: 1 to 16 */
    {"ld.param.u32 %x4, [p_map + 12]; ld.param.f32 %x5, [p_map + 16];", {0}, 0x0403020100000000, X4_X5},
    {"ld.param.u64 %y4, [p_map + 24];", {0}, 0x100f0e0d0c0b0a09, Y4},
    {"ld.param.v2.u32 {%x4, %x5}, [p_map + 24];", {0}, 0x100f0e0d0c0b0a09, X4_X5},
    {"ld.param.v4.u32 {_, %x4, _, %x5}, [p_map + 16];", {0}, 0x100f0e0d08070605, X4_X5},
    {"ld.param.u8 %h0, [p_map + 18]; cvt.u32.u16 %x4, %h0;", {0}, 3, X4},
    {"ld.param.v4.u8 {%h0, %h1, %h2, %h3}, [p_map + 20]; cvt.u32.u16 %x4, %h1; cvt.u32.u16 %x5, %h3;", {0}, 0x800000006, X4_X5})

SCALARS(atomics,
    {"st.shared.u32 [tile], %x0; atom.shared.add.u32 %x4, [tile], %x1; ld.shared.u32 %x5, [tile];", {5, 3}, 0x800000005, X4_X5},
    {"st.shared.u32 [tile], %x0; atom.shared.min.s32 %x4, [tile], %x1; ld.shared.u32 %x5, [tile];", {5, 0xffffffff}, 0xffffffff00000005, X4_X5},
    {"st.shared.u32 [tile], %x0; atom.shared.max.u32 %x4, [tile], %x1; ld.shared.u32 %x5, [tile];", {5, 0xffffffff}, 0xffffffff00000005, X4_X5},
    {"st.shared.u32 [tile], %x0; atom.shared.min.u32 %x4, [tile], %x1; ld.shared.u32 %x5, [tile];", {5, 0xffffffff}, 0x500000005, X4_X5},
    {"st.shared.u32 [tile], %x0; atom.shared.exch.b32 %x4, [tile], %x1; ld.shared.u32 %x5, [tile];", {5, 3}, 0x300000005, X4_X5},
    {"st.shared.u32 [tile], %x0; atom.shared.cas.b32 %x4, [tile], %x1, %x2; ld.shared.u32 %x5, [tile];", {5, 5, 9}, 0x900000005, X4_X5},
    {"st.shared.u32 [tile], %x0; atom.shared.cas.b32 %x4, [tile], %x1, %x2; ld.shared.u32 %x5, [tile];", {5, 6, 9}, 0x500000005, X4_X5},
    {"st.shared.u32 [tile], %x0; atom.shared.inc.u32 %x4, [tile], %x1; ld.shared.u32 %x5, [tile];", {5, 5}, 5, X4_X5},
    {"st.shared.u32 [tile], %x0; atom.shared.inc.u32 %x4, [tile], %x1; ld.shared.u32 %x5, [tile];", {5, 6}, 0x600000005, X4_X5},
    {"st.shared.u32 [tile], %x0; atom.shared.dec.u32 %x4, [tile], %x1; ld.shared.u32 %x5, [tile];", {0, 6}, 0x600000000, X4_X5},
    {"st.shared.u32 [tile], %x0; atom.shared.dec.u32 %x4, [tile], %x1; ld.shared.u32 %x5, [tile];", {5, 6}, 0x400000005, X4_X5},
    {"st.shared.u32 [tile], %x0; atom.shared.dec.u32 %x4, [tile], %x1; ld.shared.u32 %x5, [tile];", {9, 6}, 0x600000009, X4_X5},
    {"st.shared.u32 [tile], %x0; red.shared.and.b32 [tile], %x1; ld.shared.u32 %x4, [tile];", {12, 10}, 8, X4},
    {"st.shared.u32 [tile], %x0; red.shared.xor.b32 [tile], %x1; ld.shared.u32 %x4, [tile];", {12, 10}, 6, X4},
    {"st.shared.u32 [tile], %x0; red.shared.or.b32 [tile], %x1; ld.shared.u32 %x4, [tile];", {12, 10}, 14, X4},
    {"st.shared.f32 [tile], %x0; atom.shared.add.f32 %x4, [tile], %x1; ld.shared.u32 %x5, [tile];", {ONE, 0x3f000000}, 0x3fc000003f800000, X4_X5},
    {"st.shared.u64 [tile], %y0; atom.shared.add.u64 %y4, [tile], %y1; ld.shared.u32 %x4, [tile + 4];", {0xffffffff, 0, 1, 0}, 1, X4})
/* clang-format on */
static void parameters(void) {
    static const unsigned char map[128]
        __attribute__((aligned(64))) = {[16] = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
    program_map = map;
    words_of_parameters();
}

/* ---- threads that wait for each other ---- */

static struct words inputs[128], results[128];

static void negated_barrier(void) {
    start();
    program("setp.lt.u32 %p0, %tid, 10; bar.red.popc.u32 %x4, 0, !%p0;", 64, inputs, results);
    for (int i = 0; i < 64; i++) CHECK(results[i].w[0] == 54);
}

/* Warp 0 polls memory; warp 1 writes it when a copy has come that lands only when nobody else can go on. */
static void polls_beside_a_copy(void) {
    start();
    inputs[0].w[0] = 41;
    program("setp.eq.u32 %p0, %tid, 0; @%p0 st.shared.u32 [tile], 0;\n"
            "@%p0 mbarrier.init.shared.b64 [tile + 8], 1; @%p0 fence.proxy.async; bar.sync 0;\n"
            "setp.ge.u32 %p1, %tid, 32; @%p1 bra second;\n"
            "again: ld.relaxed.cta.shared.u32 %x4, [tile]; setp.eq.u32 %p2, %x4, 0; @%p2 bra again; bra.uni done;\n"
            "second: setp.ne.u32 %p2, %tid, 32; @%p2 bra waits;\n"
            "mbarrier.arrive.expect_tx.shared.b64 _, [tile + 8], 16;\n"
            "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [tile + 32], [%in], 16, [tile + 8];\n"
            "waits: mbarrier.try_wait.parity.shared.b64 %p2, [tile + 8], 0; @!%p2 bra waits;\n"
            "ld.shared.u32 %x5, [tile + 32]; setp.eq.u32 %p2, %tid, 32;\n"
            "@%p2 st.relaxed.cta.shared.u32 [tile], 7;\n"
            "done:",
            64, inputs, results);
    for (int i = 0; i < 64; i++) CHECK(i < 32 ? results[i].w[0] == 7 : results[i].w[1] == 41);
}

/* The lane that polls stands before the one that writes. */
static void polls_beside_a_lane(void) {
    start();
    program("setp.eq.u32 %p0, %tid, 0; @%p0 st.shared.u32 [tile], 0; bar.warp.sync -1;\n"
            "@!%p0 bra other;\n"
            "again: ld.relaxed.cta.shared.u32 %x4, [tile]; setp.eq.u32 %p2, %x4, 0; @%p2 bra again; bra.uni done;\n"
            "other: setp.eq.u32 %p2, %tid, 1; @%p2 st.relaxed.cta.shared.u32 [tile], 9;\n"
            "done:",
            32, inputs, results);
    CHECK(results[0].w[0] == 9);
}

/* Many more constants than the parser remembers: each is itself. */
static void many_constants(void) {
    enum { N = 4000, ROOM = 40 };
    char *body = malloc(N * ROOM);
    uint32_t want = 0;
    size_t len = 0;
    CHECK(body != NULL);
    start();
    for (uint32_t i = 0; i < N; i++) {
        const uint32_t c = i * i + 3 * i;
        want = want * 5 + c;
        len += (size_t)snprintf(body + len, N * ROOM - len, "mad.lo.u32 %%x4, %%x4, 5, %u;\n", c);
    }
    program(body, 1, inputs, results);
    free(body);
    CHECK(results[0].w[0] == want);
}

/* ---- what must not pass in silence ---- */

static void wrong_programs(void) {
    start();
    refused("frobnicate.b32 %x4, %x0;", 1, "unknown opcode frobnicate");
    refused("add.u32 %y4, %x0, %x1;", 1, "an operand has the wrong width");
    refused("add.u32 %x4, %x0, %nothing;", 1, "%nothing is not declared");
    refused("bra nowhere;", 1, "no label nowhere");
    refused("add.u32 %x4, %x0;", 1, "operand 2 is missing");
    refused("mma.sync.aligned.m16n8k64.row.col.f32.bf16.bf16.f32 {%x0,%x1,%x2,%x3}, {%x0,%x1,%x2,%x3}, {%x4,%x5}, "
            "{%x0,%x1,%x2,%x3};",
            32, "unknown form of mma");
    refused("st.shared.v4.u32 [tile + 8], {%x0, %x1, %x2, %x3};", 1, "misaligned access of 16 bytes");
    refused("st.shared.u32 [tile + 16384], %x0;", 1, "the block has 16384 bytes of shared memory");
    refused("setp.lt.u32 %p0, %tid, 32; @%p0 bar.sync 1, 64; @!%p0 bar.sync 1, 96;", 64, "is awaited by");
    refused("setp.eq.u32 %p0, %tid, 0; setp.eq.u32 %p1, %tid, 1; setp.eq.u32 %p2, %tid, 2; setp.eq.u32 %p3, %tid, 3;\n"
            "@%p0 st.shared.u32 [tile], 0; bar.warp.sync -1; @%p1 ld.shared.u32 %x4, [tile];\n"
            "@%p2 ld.relaxed.cta.shared.u32 %x4, [tile]; @%p3 st.relaxed.cta.shared.u32 [tile], 1;",
            32, "RACE: overwrites what may still be read");
    refused("trap;", 1, "the kernel trapped");
}

/* A modifier that is not known changes what the instruction does: it is no operation of ours. */
static void unknown_modifiers(void) {
    start();
    refused("add.wobbly.u32 %x4, %x0, %x1;", 1, "wobbly");
    refused("ld.global.sideways.u32 %x4, [%in];", 1, "sideways");
    refused("ex2.exact.f32 %x4, %x0;", 1, "exact");
    refused("shfl.sync.idx.twice.b32 %x4, %x0, 0, 31, -1;", 32, "twice");
    refused("setp.lt.not.s32 %p0, %x0, %x1;", 1, "not");
    refused("add.u32 %x4, %x0, %x1, %x2;", 1, "operand");
}

static const struct row rows[] = {
    ROW("cc=90", integer_arithmetic),
    ROW("cc=90", bits),
    ROW("cc=90", byte_permutations),
    ROW("cc=90", comparisons),
    ROW("cc=90", floats),
    ROW("cc=90", conversions),
    ROW("cc=90", moves),
    ROW("cc=90", atomics),
    ROW("cc=90", loads_and_stores),
    ROW("cc=90", parameters),
    ROW("cc=90", negated_barrier),
    ROW("cc=90", polls_beside_a_copy),
    ROW("cc=90,order=backward", polls_beside_a_copy),
    ROW("cc=90,order=random,copies=random", polls_beside_a_copy),
    ROW("cc=90", polls_beside_a_lane),
    ROW("cc=90", many_constants),
    ROW("cc=90", wrong_programs),
    ROW("cc=90", unknown_modifiers),
};

int main(void) {
    return run_rows(rows, sizeof rows / sizeof rows[0]);
}
