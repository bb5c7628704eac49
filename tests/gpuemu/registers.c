/* Which lanes of a register have been written since the block began: reading another one is an error of the program,
 * which on hardware sees what the kernel before left there. A copy (mov) of a register is no use of it: compilers copy
 * what is defined on some paths only; the copy is then as undefined as its source. */
#include <string.h>

#include "interp.h"

static bool is_tracked(const struct ptx_ref *r) {
    return !r->constant && !r->none;
}

void registers_begin(struct warp *w) {
    memset(w->written, 0, (size_t)w->run->code->n_word * sizeof *w->written);
    for (int32_t i = 0; i < PTX_N_SPECIAL; i++) w->written[i] = UINT32_MAX;
}

static bool report(struct warp *w, const struct ptx_op *o, uint32_t lanes, const char *what, int32_t number) {
    (void)FATAL(w, o, (uint32_t)__builtin_ctz(lanes), "reads a register that was never written: %s %d (lanes %08x)",
                what, number, lanes);
    return false;
}

bool registers_guard(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    const uint32_t lanes = mask & ~w->written[o->pred];
    return lanes == 0 || report(w, o, lanes, "guard", 0);
}

bool registers_read(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    uint32_t all = mask;
    for (int32_t i = 0; i < o->n_src; i++)
        if (is_tracked(&o->src[i])) all &= w->written[o->src[i].at];
    if (all == mask || o->copies) return true;
    for (int32_t i = 0; i < o->n_src; i++) {
        if (!is_tracked(&o->src[i])) continue;
        const uint32_t lanes = mask & ~w->written[o->src[i].at];
        if (lanes != 0) return report(w, o, lanes, "source operand", i);
    }
    return true;
}

void registers_wrote(struct warp *w, const struct ptx_op *o, uint32_t mask) {
    uint32_t from = mask;
    if (o->copies && is_tracked(&o->src[0])) from &= w->written[o->src[0].at];
    for (int32_t i = 0; i < o->n_dst; i++)
        if (!o->dst[i].none) w->written[o->dst[i].at] = (w->written[o->dst[i].at] & ~mask) | from;
    for (int32_t i = 0; i < o->n_many; i++)
        if (!o->many[i].none) w->written[o->many[i].at] |= mask;
}
