/* From an operation's text to a row of the code: modifiers, operands, and the function that runs it. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ptx_symbols.h"

static const struct {
    const char *name;
    int8_t bytes;
} types[] = {
    [PTX_NONE] = {"",       0 },
      [PTX_B8] = {"b8",     1 },
      [PTX_U8] = {"u8",     1 },
      [PTX_S8] = {"s8",     1 },
    [PTX_B16] = {"b16",    2 },
      [PTX_U16] = {"u16",    2 },
      [PTX_S16] = {"s16",    2 },
      [PTX_F16] = {"f16",    2 },
    [PTX_BF16] = {"bf16",   2 },
      [PTX_B32] = {"b32",    4 },
      [PTX_U32] = {"u32",    4 },
      [PTX_S32] = {"s32",    4 },
    [PTX_F32] = {"f32",    4 },
      [PTX_F16X2] = {"f16x2",  4 },
      [PTX_BF16X2] = {"bf16x2", 4 },
      [PTX_B64] = {"b64",    8 },
    [PTX_U64] = {"u64",    8 },
      [PTX_S64] = {"s64",    8 },
      [PTX_F64] = {"f64",    8 },
      [PTX_B128] = {"b128",   16},
    [PTX_PRED] = {"pred",   1 },
};
enum { N_TYPES = sizeof types / sizeof types[0] };

enum ptx_type type_named(const char *mod) {
    for (int i = 1; i < N_TYPES; i++)
        if (strcmp(mod, types[i].name) == 0) return (enum ptx_type)i;
    return PTX_NONE;
}

int32_t type_bytes(enum ptx_type type) {
    return types[type].bytes;
}

bool build_fail(struct build *b, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(b->error, b->n_error, format, arguments);
    va_end(arguments);
    return false;
}

bool has_mod(const struct build *b, const char *name) {
    for (int32_t i = 0; i < b->n_mod; i++)
        if (strcmp(b->mod[i], name) == 0) {
            *b->known |= 1u << i;
            return true;
        }
    return false;
}

static bool is_word_of(const char *mod, const char *words) {
    const size_t n = strlen(mod);
    for (const char *at = strstr(words, mod); at != NULL; at = strstr(at + 1, mod))
        if ((at == words || at[-1] == ' ') && (at[n] == ' ' || at[n] == '\0')) return true;
    return false;
}

/* Modifiers that change nothing here: one order of memory, hints, and what an operation does without being told. */
static bool is_neutral(const char *root, const char *mod) {
    static const struct {
        const char *root, *words; /* an empty root: of any operation */
    } rows[] = {
        {"",                     "sync aligned uni rn approx full weak nc volatile ca cg cs lu cv wb wt cta cluster gpu sys gl relaxed "
             "acquire release acq_rel sc"                                                               },
        {"shf",                  "r clamp"                                                                          },
        {"match",                "any"                                                                              },
        {"bmsk",                 "clamp"                                                                            },
        {"bar",                  "or"                                                                               },
        {"barrier",              "or"                                                                               },
        {"mul",                  "lo"                                                                               },
        {"mad",                  "lo"                                                                               },
        {"ldmatrix",             "shared shared::cta"                                                               },
        {"stmatrix",             "shared shared::cta"                                                               },
        {"mbarrier",             "shared shared::cta shared::cluster"                                               },
        {"fence",                "mbarrier_init proxy alias async async.global async.shared::cta global shared::cta"},
        {"prefetch",             "global local tensormap param const L1 L2"                                         },
        {"discard",              "global L2"                                                                        },
        {"applypriority",        "global L2"                                                                        },
        {"createpolicy",         "fractional range L2"                                                              },
        {"cp.async",             "shared shared::cta global"                                                        },
        {"cp.async.bulk",        "shared::cta shared::cluster global read"                                          },
        {"cp.async.bulk.tensor", "1d 2d 3d 4d 5d shared::cta shared::cluster global tile"                           },
        {"griddepcontrol",       "wait launch_dependents"                                                           },
        {"setmaxnreg",           "inc dec"                                                                          },
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if ((rows[i].root[0] == '\0' || strcmp(rows[i].root, root) == 0) && is_word_of(mod, rows[i].words)) return true;
    return strncmp(mod, "L1::", 4) == 0 || strncmp(mod, "L2::", 4) == 0;
}

/* An instruction with a modifier that nothing asked for would do something else than the program means. */
static bool all_known(struct build *b, const char *root) {
    for (int32_t i = 0; i < b->n_mod; i++) {
        const char *mod = b->mod[i];
        const bool shape = strcmp(root, "wgmma") == 0 && strncmp(mod, "m64n", 4) == 0; /* read as numbers */
        if (!(*b->known >> i & 1) && type_named(mod) == PTX_NONE && !shape && !is_neutral(root, mod))
            return build_fail(b, "unknown modifier .%s", mod);
    }
    return true;
}

/* ---- operands ---- */

static struct constant_slot *recent_slot(struct ptx_code *code, uint64_t value, bool wide) {
    const uint64_t mixed = (value ^ value >> 32) * 0x9e3779b97f4a7c15u;
    return &((struct ptx_kernel *)code)->recent[(mixed >> 40) % PTX_RECENT ^ (wide ? 1 : 0)];
}

struct ptx_ref constant_ref(struct ptx_code *code, uint64_t value, bool wide) {
    const int32_t need = wide ? 2 : 1;
    struct constant_slot *slot = recent_slot(code, value, wide);
    if (slot->after > 0 && slot->value == value && slot->wide == wide)
        return (struct ptx_ref){.at = slot->after - 1, .constant = true, .wide = wide};
    if (code->n_constant + 2 > code->cap_constant) {
        code->cap_constant = code->cap_constant * 2 + 64;
        code->constant = realloc(code->constant, (size_t)code->cap_constant * 32 * sizeof *code->constant);
        if (code->constant == NULL) abort();
    }
    if (wide && code->n_constant % 2 != 0) code->n_constant++;
    const struct ptx_ref r = {.at = code->n_constant, .constant = true, .wide = wide};
    uint32_t *to = code->constant + r.at * 32;
    for (int lane = 0; lane < 32; lane++) {
        if (wide)
            memcpy(to + 2 * lane, &value, sizeof value);
        else
            to[lane] = (uint32_t)value;
    }
    code->n_constant += need;
    *slot = (struct constant_slot){.value = value, .after = r.at + 1, .wide = wide};
    return r;
}

static bool resolve(struct build *b, const struct arg *a, bool wide, struct ptx_ref *out) {
    if (a->kind != ARG_REF) return build_fail(b, "an operand is not a register or a constant");
    if (a->is_constant) {
        *out = constant_ref(b->code, a->value, wide);
        return true;
    }
    *out = a->ref;
    if (!a->ref.none && a->ref.wide != wide) return build_fail(b, "an operand has the wrong width");
    return true;
}

bool take_src(struct build *b, int32_t i, bool wide) {
    if (i >= b->n_taken) b->n_taken = i + 1;
    if (i >= b->n_arg || b->o->n_src >= PTX_MAX_SRC) return build_fail(b, "operand %d is missing", i);
    return resolve(b, &b->arg[i], wide, &b->o->src[b->o->n_src++]);
}

bool take_any_src(struct build *b, int32_t i) {
    return take_src(b, i, i < b->n_arg && !b->arg[i].is_constant && b->arg[i].ref.wide);
}

bool take_dst(struct build *b, int32_t i, bool wide) {
    if (i >= b->n_taken) b->n_taken = i + 1;
    if (i >= b->n_arg || b->o->n_dst >= PTX_MAX_DST) return build_fail(b, "operand %d is missing", i);
    if (b->arg[i].is_constant) return build_fail(b, "the destination is a constant");
    return resolve(b, &b->arg[i], wide, &b->o->dst[b->o->n_dst++]);
}

bool take_address(struct build *b, int32_t i) {
    if (i >= b->n_arg || b->arg[i].kind != ARG_ADDRESS) return build_fail(b, "operand %d is not an address", i);
    const struct arg *a = &b->arg[i];
    b->o->offset = a->offset;
    struct ptx_ref *base = &b->o->src[b->o->n_src++];
    if (!a->is_constant) {
        *base = a->ref;
        return true;
    }
    b->o->offset += (int64_t)a->value;
    base->none = true;
    return true;
}

/* ---- the table ---- */

static const struct opcode *find_in(const struct opcode *rows, const char *name) {
    for (; rows != NULL && rows->name != NULL; rows++)
        if (rows->name[0] == name[0] && strcmp(rows->name, name) == 0) return rows;
    return NULL;
}

static const struct opcode *find_opcode(const char *name) {
    const struct opcode *const tables[] = {alu_opcodes,      float_opcodes, cvt_opcodes,   mem_opcodes,
                                           flow_opcodes,     warp_opcodes,  async_opcodes, tensor_opcodes,
                                           mbarrier_opcodes, bulk_opcodes,  wgmma_opcodes};
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        const struct opcode *row = find_in(tables[i], name);
        if (row != NULL) return row;
    }
    return NULL;
}

/* Opcodes whose names have dots of their own. */
static const char *const dotted[] = {"bar.warp.sync", "cp.async.bulk.tensor", "cp.async.bulk", "cp.async",
                                     "cvta.to",       "cp.reduce.async.bulk"};

static void split_modifiers(struct build *b, char *opcode, char *root, size_t n_root) {
    size_t len = strcspn(opcode, ".");
    for (size_t i = 0; i < sizeof dotted / sizeof dotted[0]; i++) {
        const size_t n = strlen(dotted[i]);
        if (strncmp(opcode, dotted[i], n) != 0 || (opcode[n] != '.' && opcode[n] != '\0')) continue;
        len = n;
        break;
    }
    snprintf(root, n_root, "%.*s", (int)len, opcode);
    char *rest = opcode + len;
    for (char *save = NULL, *mod = strtok_r(rest, ".", &save); mod != NULL; mod = strtok_r(NULL, ".", &save)) {
        if (b->n_mod == PTX_MAX_MODS) break;
        b->mod[b->n_mod++] = mod;
        struct ptx_op *o = b->o;
        const enum ptx_type t = type_named(mod);
        if (t != PTX_NONE && o->type == PTX_NONE)
            o->type = t;
        else if (t != PTX_NONE && o->from == PTX_NONE)
            o->from = t;
    }
    b->o->ftz = has_mod(b, "ftz");
    b->o->sat = has_mod(b, "sat");
}

bool build_op(struct build *b, char *opcode) {
    char root[64];
    uint32_t known = 0;
    b->known = &known;
    split_modifiers(b, opcode, root, sizeof root);
    const struct opcode *row = find_opcode(root);
    if (row == NULL) return build_fail(b, "unknown opcode %s", root);
    b->o->info.opcode_class = (int32_t)row->class;
    if (!row->build(b)) return b->error[0] == '\0' ? build_fail(b, "unknown form of %s", root) : false;
    if (b->o->run == NULL) return build_fail(b, "unknown form of %s", root);
    if (row->class <= EMU_CLASS_SPECIAL && b->n_arg > b->n_taken && b->arg[b->n_arg - 1].kind == ARG_REF)
        return build_fail(b, "%d operands, but it takes %d", b->n_arg, b->n_taken);
    return all_known(b, root);
}
