/* One PTX instruction at a time against values from the tables of the PTX ISA (integer, float, conversions, memory),
 * run by one thread. Each row is a kernel of its own: its body sees its inputs as %rd1..3, their low halves as %r1..3
 * and %h1..3, and whether they are not 0 as %p1..3; it leaves a result in register 4 of the kind that the row names. */
#include "test_emu.h"

enum kind { R, D, H, Q, B }; /* %r4; %rd4; %h4; %p4 + 2 %p5; %r4 and %r5 above */

struct line {
    const char *body;
    enum kind kind;
    uint64_t in[3], want;
};

#define ONE    0x3f800000u /* 1.0f */
#define TWO    0x40000000u
#define THREE  0x40400000u
#define HALF   0x3f000000u
#define MINUS1 0xbf800000u
#define NAN32  0x7fc00000u
#define INF    0x7f800000u

static const struct line integers[] = {
    {"add.u32 %r4, %r1, %r2;",                                     R, {0xffffffff, 2},                      1                 },
    {"add.s64 %rd4, %rd1, %rd2;",                                  D, {UINT64_MAX, 2},                      1                 },
    {"sub.u16 %h4, %h1, %h2;",                                     H, {0, 1},                               0xffff            },
    {"add.cc.u32 %r4, %r1, %r2; addc.u32 %r5, %r3, 0;",            B, {0xffffffff, 1, 5},                   0x600000000       },
    {"sub.cc.u32 %r4, %r1, %r2; subc.u32 %r5, %r3, 0;",            B, {0, 1, 5},                            0x4ffffffff       },
    {"add.sat.s32 %r4, %r1, %r2;",                                 R, {0x7fffffff, 1},                      0x7fffffff        },
    {"sub.sat.s32 %r4, %r1, %r2;",                                 R, {0x80000000, 1},                      0x80000000        },
    {"sub.s32 %r4, %r1, %r2;",                                     R, {0x80000000, 1},                      0x7fffffff        },
    {"mul.lo.s64 %rd4, %rd1, %rd2;",                               D, {(uint64_t)-3, 7},                    (uint64_t)-21     },
    {"div.s64 %rd4, %rd1, %rd2;",                                  D, {(uint64_t)-7, 2},                    (uint64_t)-3      },
    {"min.s64 %rd4, %rd1, %rd2;",                                  D, {(uint64_t)-5, 3},                    (uint64_t)-5      },
    {"min.u64 %rd4, %rd1, %rd2;",                                  D, {(uint64_t)-5, 3},                    3                 },
    {"and.b16 %h4, %h1, %h2;",                                     H, {0xff00, 0x0ff0},                     0x0f00            },
    {"and.b64 %rd4, %rd1, %rd2;",                                  D, {0x10000000001, 0x1000000000e},       (uint64_t)1 << 40 },
    {"not.b64 %rd4, %rd1;",                                        D, {1},                                  (uint64_t)-2      },
    {"mul.lo.u32 %r4, %r1, %r2;",                                  R, {0x10001, 0x10001},                   0x20001           },
    {"mul.hi.u32 %r4, %r1, %r2;",                                  R, {0xffffffff, 0xffffffff},             0xfffffffe        },
    {"mul.hi.s32 %r4, %r1, %r2;",                                  R, {0xffffffff, 0xffffffff},             0                 },
    {"mul.hi.s32 %r4, %r1, %r2;",                                  R, {0x80000000, 2},                      0xffffffff        },
    {"mul.hi.u64 %rd4, %rd1, %rd2;",                               D, {UINT64_MAX, UINT64_MAX},             UINT64_MAX - 1    },
    {"mul.hi.s64 %rd4, %rd1, %rd2;",                               D, {UINT64_MAX, UINT64_MAX},             0                 },
    {"mul.wide.s32 %rd4, %r1, %r2;",                               D, {0xfffffffe, 3},                      0xfffffffffffffffa},
    {"mul.wide.u32 %rd4, %r1, %r2;",                               D, {0xfffffffe, 3},                      0x2fffffffa       },
    {"mul.wide.u16 %r4, %h1, %h2;",                                R, {0xffff, 0xffff},                     0xfffe0001        },
    {"mul.wide.s16 %r4, %h1, %h2;",                                R, {0xffff, 2},                          0xfffffffe        },
    {"mad.lo.s32 %r4, %r1, %r2, %r3;",                             R, {0xfffffffe, 3, 10},                  4                 },
    {"mad.hi.u32 %r4, %r1, %r2, %r3;",                             R, {0x80000000, 4, 7},                   9                 },
    {"mad.hi.s32 %r4, %r1, %r2, %r3;",                             R, {0x80000000, 2, 7},                   6                 },
    {"mad.wide.s32 %rd4, %r1, %r2, %rd3;",                         D, {0xfffffffe, 3, 10},                  4                 },
    {"mad.wide.u16 %r4, %h1, %h2, %r3;",                           R, {3, 4, 5},                            17                },
    {"div.s32 %r4, %r1, %r2;",                                     R, {0xfffffff9, 2},                      0xfffffffd        },
    {"rem.s32 %r4, %r1, %r2;",                                     R, {0xfffffff9, 2},                      0xffffffff        },
    {"div.u32 %r4, %r1, %r2;",                                     R, {0xfffffff9, 2},                      0x7ffffffc        },
    {"rem.u64 %rd4, %rd1, %rd2;",                                  D, {0x100000001, 10},                    7                 },
    {"min.s32 %r4, %r1, %r2;",                                     R, {0xffffffff, 1},                      0xffffffff        },
    {"min.u32 %r4, %r1, %r2;",                                     R, {0xffffffff, 1},                      1                 },
    {"max.s16 %h4, %h1, %h2;",                                     H, {0xffff, 1},                          1                 },
    {"max.u64 %rd4, %rd1, %rd2;",                                  D, {UINT64_MAX, 1},                      UINT64_MAX        },
    {"abs.s32 %r4, %r1;",                                          R, {0xfffffffb},                         5                 },
    {"neg.s64 %rd4, %rd1;",                                        D, {5},                                  (uint64_t)-5      },
    {"popc.b32 %r4, %r1;",                                         R, {0xf0f0},                             8                 },
    {"popc.b64 %r4, %rd1;",                                        R, {UINT64_MAX},                         64                },
    {"clz.b32 %r4, %r1;",                                          R, {1},                                  31                },
    {"clz.b32 %r4, %r1;",                                          R, {0},                                  32                },
    {"clz.b64 %r4, %rd1;",                                         R, {1},                                  63                },
    {"bfind.u32 %r4, %r1;",                                        R, {0x00ff0000},                         23                },
    {"bfind.s32 %r4, %r1;",                                        R, {0xffffff00},                         7                 },
    {"bfind.u32 %r4, %r1;",                                        R, {0},                                  0xffffffff        },
    {"bfind.shiftamt.u32 %r4, %r1;",                               R, {1},                                  31                },
    {"bfind.u64 %r4, %rd1;",                                       R, {(uint64_t)1 << 40},                  40                },
    {"brev.b32 %r4, %r1;",                                         R, {1},                                  0x80000000        },
    {"brev.b64 %rd4, %rd1;",                                       D, {2},                                  (uint64_t)1 << 62 },
    {"bfe.u32 %r4, %r1, 8, 8;",                                    R, {0x12345678},                         0x56              },
    {"bfe.s32 %r4, %r1, 12, 4;",                                   R, {0xf000},                             0xffffffff        },
    {"bfe.s32 %r4, %r1, 28, 8;",                                   R, {0x80000000},                         0xfffffff8        },
    {"bfe.u32 %r4, %r1, 3, 0;",                                    R, {0xffffffff},                         0                 },
    {"bfe.s64 %rd4, %rd1, 40, 4;",                                 D, {(uint64_t)0xc << 40},                (uint64_t)-4      },
    {"bfi.b32 %r4, %r1, %r2, 8, 8;",                               R, {0xff, 0x12345678},                   0x1234ff78        },
    {"bfi.b64 %rd4, %rd1, %rd2, 60, 8;",                           D, {0xa5, 1},                            0x5000000000000001},
    {"shl.b32 %r4, %r1, %r2;",                                     R, {1, 31},                              0x80000000        },
    {"shl.b32 %r4, %r1, %r2;",                                     R, {1, 32},                              0                 },
    {"shl.b16 %h4, %h1, 1;",                                       H, {0x8001},                             2                 },
    {"shl.b64 %rd4, %rd1, %r2;",                                   D, {3, 63},                              (uint64_t)1 << 63 },
    {"shr.u32 %r4, %r1, %r2;",                                     R, {0x80000000, 31},                     1                 },
    {"shr.s32 %r4, %r1, %r2;",                                     R, {0x80000000, 40},                     0xffffffff        },
    {"shr.u64 %rd4, %rd1, %r2;",                                   D, {(uint64_t)1 << 63, 64},              0                 },
    {"shr.s64 %rd4, %rd1, %r2;",                                   D, {(uint64_t)1 << 63, 62},              (uint64_t)-2      },
    {"shf.l.wrap.b32 %r4, %r1, %r2, %r3;",                         R, {0x12345678, 0x9abcdef0, 40},         0xbcdef012        },
    {"shf.r.wrap.b32 %r4, %r1, %r2, %r3;",                         R, {0x12345678, 0x9abcdef0, 8},          0xf0123456        },
    {"shf.l.clamp.b32 %r4, %r1, %r2, %r3;",                        R, {0x12345678, 0x9abcdef0, 40},         0x12345678        },
    {"shf.r.clamp.b32 %r4, %r1, %r2, %r3;",                        R, {0x12345678, 0x9abcdef0, 40},         0x9abcdef0        },
    {"lop3.b32 %r4, %r1, %r2, %r3, 0x96;",                         R, {0xff00ff00, 0xf0f0f0f0, 0xcccccccc}, 0xc33cc33c        },
    {"lop3.b32 %r4, %r1, %r2, %r3, 0xe8;",                         R, {0xff00ff00, 0xf0f0f0f0, 0xcccccccc}, 0xfcc0fcc0        },
    {"lop3.b32 %r4, %r1, %r2, %r3, 0xca;",                         R, {0xff00ff00, 0xf0f0f0f0, 0xcccccccc}, 0xf0ccf0cc        },
    {"prmt.b32 %r4, %r1, %r2, 0x7531;",                            R, {0x33221100, 0x77665544},             0x77553311        },
    {"prmt.b32 %r4, %r1, %r2, 0x0008;",                            R, {0x80, 0},                            0x808080ff        },
    {"prmt.b32.f4e %r4, %r1, %r2, %r3;",                           R, {0x33221100, 0x77665544, 1},          0x44332211        },
    {"prmt.b32.b4e %r4, %r1, %r2, %r3;",                           R, {0x33221100, 0x77665544, 1},          0x66770011        },
    {"prmt.b32.rc8 %r4, %r1, %r2, %r3;",                           R, {0x33221100, 0x77665544, 2},          0x22222222        },
    {"prmt.b32.ecl %r4, %r1, %r2, %r3;",                           R, {0x33221100, 0x77665544, 1},          0x33221111        },
    {"prmt.b32.ecr %r4, %r1, %r2, %r3;",                           R, {0x33221100, 0x77665544, 1},          0x11111100        },
    {"prmt.b32.rc16 %r4, %r1, %r2, %r3;",                          R, {0x33221100, 0x77665544, 1},          0x33223322        },
    {"dp4a.s32.s32 %r4, %r1, %r2, %r3;",                           R, {0xff010203, 0x01010101, 10},         15                },
    {"dp4a.u32.u32 %r4, %r1, %r2, %r3;",                           R, {0xff010203, 0x01010101, 10},         271               },
    {"and.b32 %r4, %r1, %r2;",                                     R, {0xff00, 0x0ff0},                     0x0f00            },
    {"or.b64 %rd4, %rd1, %rd2;",                                   D, {(uint64_t)1 << 40, 1},               0x10000000001     },
    {"xor.b16 %h4, %h1, %h2;",                                     H, {0xff00, 0x0ff0},                     0xf0f0            },
    {"not.b32 %r4, %r1;",                                          R, {1},                                  0xfffffffe        },
    {"cnot.b32 %r4, %r1;",                                         R, {0},                                  1                 },
    {"mov.b32 %r4, {%h1, %h2};",                                   R, {0x1111, 0x2222},                     0x22221111        },
    {"mov.b64 {%r4, %r5}, %rd1;",                                  B, {0x1234567800000009},                 0x1234567800000009},
    {"mov.b64 {_, %r4}, %rd1;",                                    R, {0x1234567800000009},                 0x12345678        },
    {"mov.b64 %rd4, {%h1, %h2, %h3, %h1};",                        D, {1, 2, 3},                            0x0001000300020001},
    {"{ .reg .b32 x; mov.b32 x, 7; add.s32 %r4, x, %r1; }",        R, {1},                                  8                 },
    {"@!%p1 bra away; mov.u32 %r4, 5; away: add.u32 %r4, %r4, 1;", R, {1},                                  6                 },
    {"@!%p1 bra away; mov.u32 %r4, 5; away: add.u32 %r4, %r4, 1;", R, {0},                                  1                 },
    {"{ .reg .b32 x, y; mov.u32 x, y; mov.u32 %r4, 3; }",          R, {0},                                  3                 }, /* a copy is no use */
};

static const struct line comparisons[] = {
    {"setp.lt.s32 %p4, %r1, %r2;",              Q, {0xffffffff, 1},    1         },
    {"setp.lt.u32 %p4, %r1, %r2;",              Q, {0xffffffff, 1},    0         },
    {"setp.eq.b32 %p4, %r1, %r2;",              Q, {0x100000001, 1},   1         },
    {"setp.ne.b32 %p4, %r1, %r2;",              Q, {0x100000001, 1},   0         },
    {"setp.eq.s16 %p4, %h1, %h2;",              Q, {0x10001, 0x20001}, 1         },
    {"setp.lt.s16 %p4, %h1, %h2;",              Q, {0xffff, 0},        1         },
    {"setp.gt.s16 %p4, %h1, %h2;",              Q, {0xffff, 0},        0         },
    {"setp.eq.s64 %p4, %rd1, %rd2;",            Q, {0x100000001, 1},   0         },
    {"setp.ne.s64 %p4, %rd1, %rd2;",            Q, {0x100000001, 1},   1         },
    {"setp.ne.s32 %p4, %r1, %r2;",              Q, {3, 2},             1         },
    {"setp.ge.s32 %p4, %r1, %r2;",              Q, {0xffffffff, 0},    0         },
    {"setp.le.s32 %p4, %r1, %r2;",              Q, {0xffffffff, 0},    1         },
    {"setp.le.u32 %p4, %r1, %r2;",              Q, {0xffffffff, 0},    0         },
    {"setp.gt.u32 %p4, %r1, %r2;",              Q, {0xffffffff, 0},    1         },
    {"setp.gt.s64 %p4, %rd1, %rd2;",            Q, {UINT64_MAX, 0},    0         },
    {"setp.gt.u64 %p4, %rd1, %rd2;",            Q, {UINT64_MAX, 0},    1         },
    {"setp.le.s64 %p4, %rd1, %rd2;",            Q, {UINT64_MAX, 0},    1         },
    {"setp.le.u64 %p4, %rd1, %rd2;",            Q, {UINT64_MAX, 0},    0         },
    {"setp.hi.u32 %p4, %r1, %r2;",              Q, {0xffffffff, 1},    1         },
    {"setp.ge.s64 %p4, %rd1, %rd2;",            Q, {UINT64_MAX, 0},    0         },
    {"setp.ne.s16 %p4, %h1, %h2;",              Q, {0x10001, 0x20001}, 0         },
    {"setp.eq.f32 %p4, %r1, %r2;",              Q, {NAN32, NAN32},     0         },
    {"setp.ne.f32 %p4, %r1, %r2;",              Q, {NAN32, ONE},       0         },
    {"setp.neu.f32 %p4, %r1, %r2;",             Q, {NAN32, ONE},       1         },
    {"setp.ltu.f32 %p4, %r1, %r2;",             Q, {NAN32, ONE},       1         },
    {"setp.lt.f32 %p4, %r1, %r2;",              Q, {NAN32, ONE},       0         },
    {"setp.geu.f32 %p4, %r1, %r2;",             Q, {ONE, TWO},         0         },
    {"setp.num.f32 %p4, %r1, %r2;",             Q, {ONE, NAN32},       0         },
    {"setp.nan.f32 %p4, %r1, %r2;",             Q, {ONE, NAN32},       1         },
    {"setp.eq.f32 %p4, %r1, %r2;",              Q, {0x80000000, 0},    1         },
    {"setp.gt.ftz.f32 %p4, %r1, %r2;",          Q, {1, 0},             0         },
    {"setp.gt.f32 %p4, %r1, %r2;",              Q, {1, 0},             1         },
    {"setp.lt.f16 %p4, %h1, %h2;",              Q, {0xbc00, 0x3c00},   1         },
    {"setp.lt.bf16 %p4, %h1, %h2;",             Q, {0x3f80, 0xbf80},   0         },
    {"setp.lt.and.s32 %p4|%p5, %r1, %r2, %p3;", Q, {1, 2, 0},          0         },
    {"setp.lt.and.s32 %p4|%p5, %r1, %r2, %p3;", Q, {1, 2, 1},          1         },
    {"setp.lt.and.s32 %p4|%p5, %r1, %r2, %p3;", Q, {2, 1, 1},          2         },
    {"setp.gt.or.s32 %p4, %r1, %r2, !%p3;",     Q, {1, 2, 0},          1         },
    {"setp.gt.xor.s32 %p4, %r1, %r2, %p3;",     Q, {3, 2, 1},          0         },
    {"and.pred %p4, %p1, %p2;",                 Q, {1, 0},             0         },
    {"or.pred %p4, %p1, %p2;",                  Q, {0, 1},             1         },
    {"or.pred %p4, %p1, %p2;",                  Q, {0, 0},             0         },
    {"mov.pred %p4, %p1; mov.pred %p5, %p2;",   Q, {0, 1},             2         },
    {"selp.b16 %h4, %h1, %h2, %p3;",            H, {5, 6, 0},          6         },
    {"selp.u16 %h4, %h1, %h2, %p3;",            H, {5, 6, 1},          5         },
    {"selp.f32 %r4, %r1, %r2, %p3;",            R, {ONE, TWO, 1},      ONE       },
    {"xor.pred %p4, %p1, %p2;",                 Q, {7, 0},             1         },
    {"not.pred %p4, %p1;",                      Q, {0},                1         },
    {"selp.b32 %r4, %r1, %r2, %p3;",            R, {5, 6, 0},          6         },
    {"selp.b64 %rd4, %rd1, %rd2, %p3;",         D, {5, 6, 1},          5         },
    {"set.lt.f32.s32 %r4, %r1, %r2;",           R, {1, 2},             ONE       },
    {"set.ge.u32.f32 %r4, %r1, %r2;",           R, {ONE, TWO},         0         },
    {"set.le.s32.f32 %r4, %r1, %r2;",           R, {ONE, TWO},         0xffffffff},
    {"testp.subnormal.f32 %p4, %r1;",           Q, {1},                1         },
    {"testp.finite.f32 %p4, %r1;",              Q, {INF},              0         },
};

static const struct line conversions[] = {
    {"cvt.rni.s32.f32 %r4, %r1;",             R, {0x40200000},         2                 }, /* 2.5 */
    {"cvt.rni.s32.f32 %r4, %r1;",             R, {0x40600000},         4                 }, /* 3.5 */
    {"cvt.rzi.s32.f32 %r4, %r1;",             R, {0xc02ccccd},         0xfffffffe        }, /* -2.7 */
    {"cvt.rmi.s32.f32 %r4, %r1;",             R, {0xc0066666},         0xfffffffd        }, /* -2.1 */
    {"cvt.rpi.s32.f32 %r4, %r1;",             R, {0x40066666},         3                 }, /* 2.1 */
    {"cvt.rzi.s32.f32 %r4, %r1;",             R, {NAN32},              0                 },
    {"cvt.rzi.u32.f32 %r4, %r1;",             R, {MINUS1},             0                 },
    {"cvt.rzi.s32.f32 %r4, %r1;",             R, {0x4f32d05e},         0x7fffffff        }, /* 3e9 */
    {"cvt.rzi.u64.f64 %rd4, %rd1;",           D, {0x4200000000000000}, (uint64_t)1 << 33 },
    {"cvt.sat.u8.s32 %r4, %r1;",              R, {0xfffffffb},         0                 },
    {"cvt.sat.u8.s32 %r4, %r1;",              R, {300},                255               },
    {"cvt.sat.s8.s32 %r4, %r1;",              R, {300},                127               },
    {"cvt.s32.s8 %r4, %r1;",                  R, {0x180},              0xffffff80        },
    {"cvt.u32.u16 %r4, %h1;",                 R, {0xffff8000},         0x8000            },
    {"cvt.u32.u8 %r4, %r1;",                  R, {0x180},              0x80              },
    {"cvt.s64.s32 %rd4, %r1;",                D, {0x80000000},         0xffffffff80000000},
    {"cvt.u64.u32 %rd4, %r1;",                D, {0x80000000},         0x80000000        },
    {"cvt.u16.u32 %h4, %r1;",                 H, {0x12345},            0x2345            },
    {"cvt.rn.f32.s32 %r4, %r1;",              R, {16777217},           0x4b800000        },
    {"cvt.rn.f32.s32 %r4, %r1;",              R, {16777219},           0x4b800002        },
    {"cvt.rz.f32.s32 %r4, %r1;",              R, {16777219},           0x4b800001        },
    {"cvt.rp.f32.u32 %r4, %r1;",              R, {16777217},           0x4b800001        },
    {"cvt.rm.f32.s32 %r4, %r1;",              R, {0xfeffffff},         0xcb800001        }, /* -16777217 */
    {"cvt.rn.f64.s32 %rd4, %r1;",             D, {0xffffffff},         0xbff0000000000000},
    {"cvt.f64.f32 %rd4, %r1;",                D, {HALF},               0x3fe0000000000000},
    {"cvt.rn.f32.f64 %r4, %rd1;",             R, {0x3ff0000010000000}, ONE               },
    {"cvt.rp.f32.f64 %r4, %rd1;",             R, {0x3ff0000000000001}, 0x3f800001        },
    {"cvt.rn.f16.f32 %h4, %r1;",              H, {ONE},                0x3c00            },
    {"cvt.rn.f16.f32 %h4, %r1;",              H, {0x477ff000},         0x7c00            }, /* 65520 */
    {"cvt.rn.f16.f32 %h4, %r1;",              H, {0x477fefff},         0x7bff            },
    {"cvt.rn.f16.f32 %h4, %r1;",              H, {0x33000000},         0                 }, /* 2^-25: a tie */
    {"cvt.rn.f16.f32 %h4, %r1;",              H, {0x33000001},         1                 },
    {"cvt.rz.f16.f32 %h4, %r1;",              H, {0x3f801fff},         0x3c00            },
    {"cvt.rn.bf16.f32 %h4, %r1;",             H, {0x3f808000},         0x3f80            },
    {"cvt.rn.bf16.f32 %h4, %r1;",             H, {0x3f818000},         0x3f82            },
    {"cvt.rz.bf16.f32 %h4, %r1;",             H, {0x3f81ffff},         0x3f81            },
    {"cvt.rn.bf16.f32 %h4, %r1;",             H, {NAN32},              0x7fff            },
    {"cvt.rn.bf16x2.f32 %r4, %r1, %r2;",      R, {ONE, TWO},           0x3f804000        },
    {"cvt.rn.f16x2.f32 %r4, %r1, %r2;",       R, {ONE, TWO},           0x3c004000        },
    {"cvt.rn.relu.bf16x2.f32 %r4, %r1, %r2;", R, {MINUS1, TWO},        0x00004000        },
    {"cvt.f32.f16 %r4, %h1;",                 R, {0x3c01},             0x3f802000        },
    {"cvt.f32.f16 %r4, %h1;",                 R, {0x0001},             0x33800000        },
    {"cvt.f32.bf16 %r4, %h1;",                R, {0x4049},             0x40490000        },
    {"cvt.sat.f32.f32 %r4, %r1;",             R, {0x3fc00000},         ONE               },
    {"cvt.sat.f32.f32 %r4, %r1;",             R, {NAN32},              0                 },
    {"cvt.rni.f32.f32 %r4, %r1;",             R, {0x40200000},         TWO               },
    {"cvt.rn.f16.s32 %h4, %r1;",              H, {2049},               0x6800            },
};

static const struct line floats[] = {
    {"add.rn.f32 %r4, %r1, %r2;",          R, {ONE, 0x33800000},                                            ONE               }, /* 2^-24: a tie */
    {"add.rn.f32 %r4, %r1, %r2;",          R, {0x3f800001, 0x33800000},                                     0x3f800002        },
    {"add.rp.f32 %r4, %r1, %r2;",          R, {ONE, 0x30800000},                                            0x3f800001        },
    {"add.rm.f32 %r4, %r1, %r2;",          R, {ONE, 0x30800000},                                            ONE               },
    {"sub.rn.f32 %r4, %r1, %r2;",          R, {ONE, 0x30800000},                                            ONE               },
    {"sub.rn.f32 %r4, %r1, %r2;",          R, {ONE, 0x33800000},                                            0x3f7fffff        },
    {"sub.rz.f32 %r4, %r1, %r2;",          R, {ONE, 0x30800000},                                            0x3f7fffff        },
    {"fma.rn.f32 %r4, %r1, %r1, %r2;",     R, {0x3f800001, 0xbf800002},                                     0x28800000        }, /* 2^-46 */
    {"mul.f32 %r4, %r1, %r2;",             R, {THREE, HALF},                                                0x3fc00000        },
    {"min.f32 %r4, %r1, %r2;",             R, {NAN32, ONE},                                                 ONE               },
    {"min.NaN.f32 %r4, %r1, %r2;",         R, {NAN32, ONE},                                                 0x7fffffff        },
    {"min.f32 %r4, %r1, %r2;",             R, {0, 0x80000000},                                              0x80000000        },
    {"max.f32 %r4, %r1, %r2;",             R, {0, 0x80000000},                                              0                 },
    {"max.f32 %r4, %r1, %r2;",             R, {MINUS1, TWO},                                                TWO               },
    {"add.f32 %r4, %r1, %r2;",             R, {1, 0},                                                       1                 },
    {"add.ftz.f32 %r4, %r1, %r2;",         R, {1, 0},                                                       0                 },
    {"mul.ftz.f32 %r4, %r1, %r2;",         R, {0x00800000, HALF},                                           0                 },
    {"add.sat.f32 %r4, %r1, %r2;",         R, {ONE, ONE},                                                   ONE               },
    {"div.rn.f32 %r4, %r1, %r2;",          R, {ONE, THREE},                                                 0x3eaaaaab        },
    {"div.approx.f32 %r4, %r1, %r2;",      R, {THREE, TWO},                                                 0x3fc00000        },
    {"div.approx.f32 %r4, %r1, %r2;",      R, {ONE, 0},                                                     INF               },
    {"div.approx.f32 %r4, %r1, %r2;",      R, {ONE, 0x7e800001},                                            0                 }, /* above 2^126 */
    {"div.approx.f32 %r4, %r1, %r2;",      R, {INF, 0x7e800001},                                            0x7fffffff        },
    {"div.rn.f32 %r4, %r1, %r2;",          R, {ONE, 0},                                                     INF               },
    {"sqrt.rn.f32 %r4, %r1;",              R, {TWO},                                                        0x3fb504f3        },
    {"rcp.rn.f32 %r4, %r1;",               R, {THREE},                                                      0x3eaaaaab        },
    {"ex2.approx.f32 %r4, %r1;",           R, {THREE},                                                      0x41000000        },
    {"ex2.approx.ftz.f32 %r4, %r1;",       R, {0xc2fe0000},                                                 0                 }, /* -127 */
    {"lg2.approx.f32 %r4, %r1;",           R, {0x41000000},                                                 THREE             },
    {"rsqrt.approx.f32 %r4, %r1;",         R, {0x40800000},                                                 HALF              },
    {"rcp.approx.ftz.f32 %r4, %r1;",       R, {TWO},                                                        HALF              },
    {"tanh.approx.f32 %r4, %r1;",          R, {0},                                                          0                 },
    {"sin.approx.f32 %r4, %r1;",           R, {0},                                                          0                 },
    {"cos.approx.f32 %r4, %r1;",           R, {0},                                                          ONE               },
    {"neg.f32 %r4, %r1;",                  R, {ONE},                                                        MINUS1            },
    {"abs.f32 %r4, %r1;",                  R, {MINUS1},                                                     ONE               },
    {"copysign.f32 %r4, %r1, %r2;",        R, {MINUS1, TWO},                                                0xc0000000        },
    {"mov.f64 %rd4, %rd1;",                D, {0x3ff0000000000000},                                         0x3ff0000000000000},
    {"add.rn.f64 %rd4, %rd1, %rd2;",       D, {0x3ff0000000000000, 0x3ca0000000000000},                     0x3ff0000000000000},
    {"fma.rn.f64 %rd4, %rd1, %rd2, %rd3;",
     D,                                       {0x4000000000000000, 0x4008000000000000, 0x3ff0000000000000},
     0x401c000000000000                                                                                                       },
    {"div.rn.f64 %rd4, %rd1, %rd2;",       D, {0x3ff0000000000000, 0x4008000000000000},                     0x3fd5555555555555},
    {"fma.rn.bf16x2 %r4, %r1, %r2, %r3;",  R, {0x40003f80, 0x40004000, 0x3f803f80},                         0x40a04040        },
    {"fma.rn.f16x2 %r4, %r1, %r2, %r3;",   R, {0x40003c00, 0x40004000, 0x3c003c00},                         0x45004200        },
    {"add.rn.bf16x2 %r4, %r1, %r2;",       R, {0x3f803f80, 0x3b803c00},                                     0x3f803f81        }, /* 1 + 2^-8: tie */
    {"mul.rn.bf16x2 %r4, %r1, %r2;",       R, {0x40003f80, 0x40404040},                                     0x40c04040        },
    {"max.bf16x2 %r4, %r1, %r2;",          R, {0x7fc03f80, 0x3f804000},                                     0x3f804000        },
    {"min.NaN.f16x2 %r4, %r1, %r2;",       R, {0x7e003c00, 0x3c004000},                                     0x7fff3c00        },
    {"neg.bf16x2 %r4, %r1;",               R, {0x3f80bf80},                                                 0xbf803f80        },
    {"abs.f16x2 %r4, %r1;",                R, {0x3c00bc00},                                                 0x3c003c00        },
    {"fma.rn.bf16 %h4, %h1, %h2, %h3;",    H, {0x3f80, 0x4000, 0x3f80},                                     0x4040            },
    {"add.f16 %h4, %h1, %h2;",             H, {0x3c00, 0x1000},                                             0x3c00            }, /* 1 + 2^-11: a tie */
    {"ex2.approx.ftz.bf16x2 %r4, %r1;",    R, {0x3f804000},                                                 0x40004080        },
    {"tanh.approx.bf16x2 %r4, %r1;",       R, {0x00008000},                                                 0x00008000        },
};

#define S ".shared .align 16 .b8 s[64]; st.shared.u32 [s+4], %r1; "
static const struct line memory[] = {
    {S "ld.shared.u8 %r4, [s+5];",                                                                            R, {0x12345678},           0x56              },
    {S "ld.shared.s8 %r4, [s+4];",                                                                            R, {0x123456f8},           0xfffffff8        },
    {S "st.shared.u32 [s], %r3; st.shared.v2.f32 [s+8], {%r2, %r1}; ld.shared.v4.f32 {_, _, %r4, %r5}, [s];",
     B,                                                                                                          {1, 2},
     0x100000002                                                                                                                                           },
    {S "st.shared.v4.f32 [s], {%r1, %r1, %r2, %r1}; ld.shared.u64 %rd1, [s+8]; mov.b64 {%r4, %r5}, %rd1;",
     B,                                                                                                          {1, 2},
     0x100000002                                                                                                                                           },
    {"st.global.v2.u8 [%rd11+2], {%h1, %h2}; st.global.u16 [%rd11], %h3; ld.global.f32 %r4, [%rd11];",
     R,                                                                                                          {0x156, 0x278, 0x1234},
     0x78561234                                                                                                                                            },
    {"st.global.u8 [%rd11+3], %h1; st.global.u8 [%rd11+2], %h2; st.global.u16 [%rd11], %h3; ld.global.u16 %h4, "
     "[%rd11+2];",                                                                                       H,
     {0x156, 0x278, 0},
     0x5678                                                                                                                                                },
    {"st.global.v2.f32 [%rd11], {%r1, %r2}; ld.global.v2.f32 {%r5, %r4}, [%rd11];",                           B, {1, 2},                 0x100000002       },
    {".local .align 16 .b8 l[16]; st.local.v4.u32 [l], {%r1, %r2, %r3, %r1}; ld.local.u64 %rd4, [l+8];",
     D,                                                                                                          {1, 2, 3},
     0x100000003                                                                                                                                           },
    {S "ld.shared.u16 %h4, [s+6];",                                                                           H, {0x12345678},           0x1234            },
    {S "st.shared.u32 [s], %r2; ld.shared.v2.u32 {%r4, %r5}, [s];",                                           B, {1, 2},                 0x100000002       },
    {S "st.shared.u32 [s], %r2; ld.shared.v4.u16 {_, %h4, _, _}, [s];",                                       H, {1, 0x70006},           7                 },
    {S "{ .reg .b64 g; cvta.shared.u64 g, 4; ld.u32 %r4, [g]; }",                                             R, {77},                   77                },
    {S "{ .reg .b64 g; cvta.shared.u64 g, 4; cvta.to.shared.u64 g, g; cvt.u32.u64 %r4, g; }",                 R, {77},                   4                 },
    {S "{ .reg .b64 g; cvta.shared.u64 g, 4; isspacep.shared %p4, g; isspacep.global %p5, g; }",              Q, {77},                   1                 },
    {".local .align 8 .b8 l[16]; st.local.u64 [l+8], %rd1; ld.local.u16 %h4, [l+10];",                        H, {0x12345678},           0x1234            },
    {".local .align 8 .b8 l[16]; st.local.v2.u32 [l], {%r1, %r2}; { .reg .b64 g; cvta.local.u64 g, 4; ld.u32 %r4, [g]; "
     "}",                                                                                                R,
     {1, 9},
     9                                                                                                                                                     },
    {S "atom.shared.add.u32 %r4, [s+4], %r2; ld.shared.u32 %r5, [s+4];",                                      B, {5, 7},                 0xc00000005       },
    {S "atom.shared.exch.b32 %r4, [s+4], %r2; ld.shared.u32 %r5, [s+4];",                                     B, {5, 7},                 0x700000005       },
    {S "atom.shared.cas.b32 %r4, [s+4], %r2, %r3; ld.shared.u32 %r5, [s+4];",                                 B, {5, 5, 9},              0x900000005       },
    {S "atom.shared.cas.b32 %r4, [s+4], %r2, %r3; ld.shared.u32 %r5, [s+4];",                                 B, {5, 6, 9},              0x500000005       },
    {S "atom.shared.inc.u32 %r4, [s+4], %r2; ld.shared.u32 %r5, [s+4];",                                      B, {5, 5},                 0x000000005       },
    {S "atom.shared.inc.u32 %r4, [s+4], %r2; ld.shared.u32 %r5, [s+4];",                                      B, {5, 6},                 0x600000005       },
    {S "atom.shared.dec.u32 %r4, [s+4], %r2; ld.shared.u32 %r5, [s+4];",                                      B, {0, 6},                 0x600000000       },
    {S "atom.shared.dec.u32 %r4, [s+4], %r2; ld.shared.u32 %r5, [s+4];",                                      B, {9, 6},                 0x600000009       },
    {S "atom.shared.min.s32 %r4, [s+4], %r2; ld.shared.u32 %r5, [s+4];",                                      B, {5, 0xffffffff},        0xffffffff00000005},
    {S "atom.shared.max.u32 %r4, [s+4], %r2; ld.shared.u32 %r5, [s+4];",                                      B, {5, 0xffffffff},        0xffffffff00000005},
    {S "atom.shared.and.b32 %r4, [s+4], %r2; ld.shared.u32 %r5, [s+4];",                                      B, {7, 0xc},               0x400000007       },
    {S "atom.shared.or.b32 %r4, [s+4], %r2; ld.shared.u32 %r5, [s+4];",                                       B, {3, 0xc},               0xf00000003       },
    {S "red.shared.xor.b32 [s+4], %r2; ld.shared.u32 %r4, [s+4];",                                            R, {3, 5},                 6                 },
    {S "red.shared.add.f32 [s+4], %r2; ld.shared.u32 %r4, [s+4];",                                            R, {ONE, TWO},             THREE             },
    {"st.global.u64 [%rd11], %rd1; atom.global.add.u64 %rd4, [%rd11], %rd2; ld.global.u64 %rd4, [%rd11];",
     D,                                                                                                          {0xffffffff, 1},
     (uint64_t)1 << 32                                                                                                                                     },
};
#undef S

/* ---- the kernels around the rows ---- */

static const char head[] = ".version 8.4\n.target sm_90a\n.address_size 64\n";
static const char before[] =
    ".reg .pred %p<8>; .reg .b16 %h<8>; .reg .b32 %r<16>; .reg .b64 %rd<16>;\n"
    "ld.param.u64 %rd10, [in]; ld.param.u64 %rd11, [out];\n"
    "ld.global.u64 %rd1, [%rd10]; ld.global.u64 %rd2, [%rd10+8]; ld.global.u64 %rd3, [%rd10+16];\n"
    "cvt.u32.u64 %r1, %rd1; cvt.u32.u64 %r2, %rd2; cvt.u32.u64 %r3, %rd3;\n"
    "cvt.u16.u32 %h1, %r1; cvt.u16.u32 %h2, %r2; cvt.u16.u32 %h3, %r3;\n"
    "setp.ne.u64 %p1, %rd1, 0; setp.ne.u64 %p2, %rd2, 0; setp.ne.u64 %p3, %rd3, 0;\n"
    "mov.u32 %r4, 0; mov.u32 %r5, 0; mov.u16 %h4, 0; setp.ne.u32 %p4, 0, 0; setp.ne.u32 %p5, 0, 0;\n";
static const char *const after[] = {
    [R] = "cvt.u64.u32 %rd4, %r4;",
    [D] = "",
    [H] = "cvt.u64.u16 %rd4, %h4;",
    [Q] = "selp.u64 %rd4, 1, 0, %p4; selp.u64 %rd5, 2, 0, %p5; or.b64 %rd4, %rd4, %rd5;",
    [B] = "mov.b64 %rd4, {%r4, %r5};",
};

static char *text_of(const struct line *rows, size_t n) {
    const size_t room = 4096 * (n + 1);
    char *text = malloc(room);
    CHECK(text != NULL);
    size_t len = (size_t)snprintf(text, room, "%s", head);
    for (size_t i = 0; i < n; i++)
        len += (size_t)snprintf(text + len, room - len,
                                ".visible .entry k%zu(.param .u64 in, .param .u64 out)\n{\n%s%s\n%s\n"
                                "st.global.u64 [%%rd11], %%rd4;\nret;\n}\n",
                                i, before, rows[i].body, after[rows[i].kind]);
    return text;
}

static int run_lines(const struct line *rows, size_t n) {
    CUmodule module = NULL;
    int wrong = 0;
    start();
    CUstream stream = new_stream();
    const CUdeviceptr in = device_bytes(24), out = device_bytes(8);
    char *text = text_of(rows, n);
    OK(cuModuleLoadData(&module, text));
    free(text);
    for (size_t i = 0; i < n; i++) {
        char name[32];
        uint64_t got = 0;
        CUfunction function = NULL;
        CUdeviceptr a = in, b = out;
        void *params[] = {&a, &b};
        snprintf(name, sizeof name, "k%zu", i);
        OK(cuModuleGetFunction(&function, module, name));
        OK(cuMemcpyHtoD(in, rows[i].in, 24));
        OK(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, stream, params, NULL));
        OK(cuStreamSynchronize(stream));
        OK(cuMemcpyDtoH(&got, out, 8));
        if (got == rows[i].want) continue;
        wrong++;
        fprintf(stderr, "%s: 0x%llx, must be 0x%llx\n", rows[i].body, (unsigned long long)got,
                (unsigned long long)rows[i].want);
    }
    return wrong;
}
#define LINES(table) run_lines(table, sizeof table / sizeof table[0])

static void integer_lines(void) {
    CHECK(LINES(integers) == 0);
}
static void comparison_lines(void) {
    CHECK(LINES(comparisons) == 0);
}
static void conversion_lines(void) {
    CHECK(LINES(conversions) == 0);
}
static void float_lines(void) {
    CHECK(LINES(floats) == 0);
}
static void memory_lines(void) {
    CHECK(LINES(memory) == 0);
}
/* The rows can fail: one with a wrong value does. */
static void wrong_line(void) {
    const struct line wrong = {
        "add.u32 %r4, %r1, %r2;", R, {1, 2},
          4
    };
    CHECK(run_lines(&wrong, 1) == 1);
}

/* Two units in the last place at most, and not always none. */
static void approximate(void) {
    const struct line row = {
        "{ .reg .b32 n, s, d; mov.u32 n, 0; mov.u32 s, 0;\nagain: ex2.approx.f32 d, %r1; "
        "sub.u32 d, d, %r2; abs.s32 d, d; max.u32 %r4, %r4, d; add.u32 s, s, d; add.u32 n, n, 1; "
        "setp.lt.u32 %p6, n, 100; @%p6 bra again; min.u32 %r5, s, 1; }",
        B,
        {THREE, 0x41000000},
        0x100000002
    };
    CHECK(run_lines(&row, 1) == 0);
}

/* ---- what is not known is refused, with the line ---- */

/* Whether it loads and runs: kernels are read when they are first launched. */
static bool known(const char *body) {
    CUmodule module = NULL;
    CUfunction function = NULL;
    char text[2048];
    start();
    CUstream stream = new_stream();
    snprintf(text, sizeof text,
             "%s.visible .entry k()\n{\n.reg .b32 %%r<8>; .reg .b64 %%rd<8>; .reg .pred %%p<4>;\n"
             "bra over;\n%s\nover: ret;\n}\n",
             head, body);
    return cuModuleLoadData(&module, text) == CUDA_SUCCESS &&
           cuModuleGetFunction(&function, module, "k") == CUDA_SUCCESS &&
           cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, stream, NULL, NULL) == CUDA_SUCCESS &&
           cuStreamSynchronize(stream) == CUDA_SUCCESS;
}

static void is_known(void) {
    CHECK(known("add.u32 %r1, %r2, %r3;"));
}

/* A report is for good: each line in a process of its own. */
static const char *line_under_test;
static void is_refused(void) {
    CHECK(!known(line_under_test));
    emu_report_clear();
}

static void refused(void **state) {
    static const char *const wrong[] = {
        "frobnicate.b32 %r1, %r2;",
        "add.u32 %r1, %r2;",
        "add.u32 %rd1, %r2, %r3;",
        "add.u32 %r1, %r2, %r9;",
        "shfl.sync.round.b32 %r1, %r2, 1, 31, -1;",
        "mma.sync.aligned.m16n8k8.row.row.f32.bf16.bf16.f32 {%r1,%r1,%r1,%r1}, {%r1,%r1}, {%r1}, {%r1,%r1,%r1,%r1};",
        "cvt.rna.tf32.f32 %r1, %r2;",
        "cp.async.ca.shared.global [%r1], [%rd1], 12;",
        "bra nowhere;",
        "ld.global.v4.u32 {%r1, %r2}, [%rd1];",
        "wgmma.mma_async.sync.aligned.m64n12k16.f32.bf16.bf16 {%r1}, %rd1, %rd2, %p1, 1, 1, 0, 0;",
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%rd1, {%r2}], [%r3];",
    };
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        line_under_test = wrong[i];
        if (run_case("cc=90", is_refused) != 0) fail_msg("not refused: %s", wrong[i]);
    }
}

/* The report names kernel, source line and PTX line, wherever in the building it fails; a kernel beside it runs. */
static const char *refused_text(const char *body) {
    CUmodule module = NULL;
    CUfunction good = NULL, bad = NULL;
    char text[2048];
    start();
    CUstream stream = new_stream();
    snprintf(text, sizeof text,
             "%s.visible .entry good()\n{\nret;\n}\n.visible .entry bad()\n{\n.reg .b32 %%r<8>; .reg .pred %%p<4>;\n"
             ".loc 2 11 1\nadd.u32 %%r1, 1, 2;\n.loc 1 12 5\n%s\n.loc 1 13 5\nret;\n}\n"
             ".file 1 \"/somewhere/else/case.cu\"\n.file 2 \"other.cuh\"\n",
             head, body);
    OK(cuModuleLoadData(&module, text));
    OK(cuModuleGetFunction(&good, module, "good"));
    OK(cuModuleGetFunction(&bad, module, "bad"));
    OK(cuLaunchKernel(good, 1, 1, 1, 1, 1, 1, 0, stream, NULL, NULL));
    OK(cuStreamSynchronize(stream));
    (void)cuLaunchKernel(bad, 1, 1, 1, 1, 1, 1, 0, stream, NULL, NULL);
    CHECK(cuStreamSynchronize(stream) == CUDA_ERROR_LAUNCH_FAILED && emu_report_count() == 1);
    return emu_report_text(0);
}

#define BAD_AT ": kernel bad, case.cu:12, PTX line 14: "
static const char *expected_text;
static void is_placed(void) {
    const char *text = refused_text(line_under_test);
    if (strstr(text, BAD_AT) == NULL || strstr(text, expected_text) == NULL) {
        fprintf(stderr, "%s: instead of %s%s\n", text, BAD_AT, expected_text);
        CHECK(false);
    }
    emu_report_clear();
}

static void refusals_name_their_place(void **state) {
    static const char *const wrong[][2] = {
        {"frobnicate.b32 %r1, %r2;",           "unknown opcode frobnicate"},
        {"add.frob.u32 %r1, %r2, %r3;",        "unknown modifier .frob"   },
        {"add.u32 %r1, %r2;",                  "operand 2 is missing"     },
        {"add.u32 %r1, %r2, %r9;",             "%r9"                      },
        {"@%p9 add.u32 %r1, %r2, %r3;",        "%p9 is not a predicate"   },
        {"shfl.sync.b32 %r1, %r2, 1, 31, -1;", "unknown form of shfl"     },
        {"bra nowhere;",                       "no label nowhere"         },
        {".reg .b99 %q<2>;",                   ".b99"                     },
    };
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        line_under_test = wrong[i][0];
        expected_text = wrong[i][1];
        if (run_case("cc=90", is_placed) != 0) fail_msg("without its place: %s", wrong[i][0]);
    }
}

static const struct row rows[] = {
    ROW("cc=90", integer_lines), ROW("cc=90", comparison_lines),  ROW("cc=90", conversion_lines),
    ROW("cc=90", float_lines),   ROW("cc=90", memory_lines),      ROW("cc=90", wrong_line),
    ROW("cc=90", is_known),      ROW("cc=90,ulp=2", approximate),
};

int main(void) {
    const struct CMUnitTest others[] = {cmocka_unit_test(refused), cmocka_unit_test(refusals_name_their_place)};
    return run_rows(rows, sizeof rows / sizeof rows[0]) + cmocka_run_group_tests(others, NULL, NULL);
}
