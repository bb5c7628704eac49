#include "rank_sum.h"
#include "ops_bwd.h"

enum {
    UNIT = 16,         /* floats: slices begin on cache lines */
    MOST = 1 << 24,    /* of room; a piece of it fills any link */
    FEW = 1 << 18,     /* received in all: up to so many one collective is faster than two */
    FEWEST_SLICED = 3, /* ranks; between two both ways move the same */
};

int64_t nt_rank_sum_room(int32_t size, int64_t n) {
    const int64_t units = (n + UNIT - 1) / UNIT, most = MOST / ((int64_t)size * UNIT);
    return (units < most ? units : most) * size * UNIT;
}

static nt_status add(const struct nt_rank_sum *s, float *to, int64_t n) {
    const struct nt_sum_parts_args args = {.x = s->parts, .y = to, .n = n, .n_part = s->size};
    return s->be->ops.sum_parts(s->be, &args);
}

/* Every rank gathers and adds all. */
static nt_status sum_gathered(const struct nt_rank_sum *s, float *x, int64_t n) {
    const int64_t piece = s->room / s->size;
    for (int64_t at = 0; at < n; at += piece) {
        const int64_t len = n - at < piece ? n - at : piece;
        NT_TRY(nt_device_allgather_f32(s->comm, x + at, s->parts, len));
        NT_TRY(add(s, x + at, len));
    }
    return NT_OK;
}

/* Rank i adds slice i, then the sums are gathered; n is a multiple of a slice of all. */
static nt_status sum_sliced(const struct nt_rank_sum *s, float *x, int64_t n) {
    for (int64_t at = 0; at < n; at += s->room) {
        const int64_t slice = (n - at < s->room ? n - at : s->room) / s->size;
        float *own = x + at + s->rank * slice;
        NT_TRY(nt_device_alltoall_f32(s->comm, x + at, s->parts, slice));
        NT_TRY(add(s, own, slice));
        NT_TRY(nt_device_allgather_f32(s->comm, own, x + at, slice));
    }
    return NT_OK;
}

nt_status nt_rank_sum(const struct nt_rank_sum *s, float *x, int64_t n) {
    const int64_t unit = (int64_t)s->size * UNIT;
    const bool many = s->size >= FEWEST_SLICED && n * (s->size - 1) > FEW;
    const int64_t sliced = many ? n / unit * unit : 0;
    NT_TRY(sum_sliced(s, x, sliced));
    return sum_gathered(s, x + sliced, n - sliced);
}
