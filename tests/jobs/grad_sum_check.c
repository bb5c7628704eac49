/* grad_sum_check TP: gradients of the ranks of an mpirun job, summed on their devices, are bit by bit what the host's
 * communicator makes of the same numbers: of adapters and of whole models whose heads do not divide evenly, over tp and
 * dp, in one piece and in many. Exit status 0 and "ok" from rank 0, or a sentence and 1. */
#include "comm_device.h"
#include "cuda_backend.h"
#include "grad_sum.h"
#include "hash.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPECT(cond)                                                                                                   \
    do {                                                                                                               \
        if (!(cond)) {                                                                                                 \
            (void)fprintf(stderr, "grad_sum_check.c:%d: not true: %s (%s)\n", __LINE__, #cond, nt_error_last()->text); \
            nt_world_abort(1);                                                                                         \
        }                                                                                                              \
    } while (0)
#define OK(call) EXPECT((call) == NT_OK)

static struct nt_world world;
static struct nt_backend be;
static struct nt_device_comm *tp, *dp;

static struct CUstream_st *take_stream(void *arg) {
    (void)arg;
    return nt_cuda_stream(be.cuda);
}

static nt_status stream_done(void *arg, bool *done) {
    (void)arg;
    return be.memory->query(&be, done);
}

static nt_status watch(void *arg, nt_status (*passed)(void *point, bool *done), void *point) {
    struct nt_device_comm *comm = arg;
    return passed ? nt_device_comm_wait_for(comm, passed, point) : nt_device_comm_wait(comm);
}

static void open_ranks(struct nt_pool *pool) {
    const struct nt_device_stream *stream;
    OK(nt_backend_open_cuda(&be, world.rank, pool));
    stream = &(struct nt_device_stream){.take = take_stream, .query = stream_done};
    if (world.tp_size > 1) OK(nt_device_comm_open(world.tp, stream, &tp));
    if (world.dp_size > 1) OK(nt_device_comm_open(world.dp, stream, &dp));
    EXPECT((tp || world.tp_size == 1) && (dp || world.dp_size == 1));
    if (tp && dp) nt_device_comm_pair(tp, dp);
    be.watch = watch;
    be.watch_arg = tp ? tp : dp;
}

/* Of many exponents, so that another order of additions has other bits; now and then a zero of either sign. */
static float value(int64_t i, int32_t rank) {
    const int64_t key[2] = {i, rank};
    const uint64_t h = nt_xxh64(key, sizeof key, 1);
    const float m = h % 64 == 0 ? 0.0f : (float)(h >> 8 & 0xFFFFFF) / 16777216.0f - 0.5f;
    return copysignf(ldexpf(m, (int)(h >> 32 & 15)), h >> 40 & 1 ? -1.0f : 1.0f);
}

/* Everywhere but in the gaps between rows and in what is padding, where gradients are 0. */
static void fill(const struct nt_params *p) {
    struct nt_params_view v;
    OK(nt_params_view_open(p, p->grad, 0, p->n_floats, &v));
    for (int32_t r = 0; r < p->n; r++) {
        const struct nt_param *row = &p->rows[r];
        for (int32_t i = 0; i < row->n_rows; i++)
            for (int32_t j = 0; j < row->n_cols; j++) {
                const int64_t at = row->at + (int64_t)i * row->cols + j;
                v.host[at] = value(at, world.rank);
            }
    }
    OK(nt_params_view_close(p, &v, true));
}

/* Parameters, and the sums of their gradients. */
struct trained {
    struct nt_params params;
    struct nt_grad_sum sum;
};

static float *summed(const struct trained *t) {
    const struct nt_params *p = &t->params;
    float *sum = malloc((size_t)p->n_floats * sizeof *sum);
    EXPECT(sum);
    fill(p);
    OK(nt_grad_sum(&t->sum));
    OK(be.memory->download(&be, sum, p->grad, (size_t)p->n_floats * sizeof *sum));
    return sum;
}

static int64_t collectives(void) {
    return (tp ? nt_device_comm_queued(tp).n : 0) + (dp ? nt_device_comm_queued(dp).n : 0);
}

static void open_sums(struct trained *t, const struct nt_spec *spec, const struct nt_lora_shape *shape, bool host) {
    struct nt_linear_place linears[NT_LINEAR_COUNT];
    struct nt_shard s;
    OK(nt_shard_plan(spec, world.tp_rank, world.tp_size, &s));
    nt_linear_places(spec, &s, shape->targets, linears);
    OK(nt_params_init(&t->params, &world, &be, spec, &s, linears, shape));
    OK(nt_params_train(&t->params));
    OK(nt_grad_sum_open(&t->sum, &t->params, spec->d_head, host ? NULL : tp, host ? NULL : dp));
}

static void close_sums(struct trained *t) {
    nt_grad_sum_close(&t->sum);
    nt_params_release(&t->params);
}

/* unit: of the room that sums are given; 0: as it is. */
static void check(const struct nt_spec *spec, const struct nt_lora_shape *shape, int64_t unit) {
    struct trained host, device;
    const size_t before = be.cuda->taken;
    open_sums(&host, spec, shape, true);
    EXPECT(be.cuda->taken - before == nt_params_bytes(&host.params));
    const size_t between = be.cuda->taken;
    open_sums(&device, spec, shape, false);
    EXPECT(be.cuda->taken - between == nt_params_bytes(&device.params) + nt_grad_sum_bytes(&device.sum));
    struct nt_rank_sum *sums[] = {&device.sum.tp, &device.sum.dp};
    const int64_t room[] = {device.sum.tp.room, device.sum.dp.room};
    for (int i = 0; i < 2 && unit > 0; i++)
        if (sums[i]->room > unit * 16 * sums[i]->size) sums[i]->room = unit * 16 * sums[i]->size;
    float *want = summed(&host);
    const int64_t n = collectives();
    float *got = summed(&device);
    EXPECT(collectives() > n);
    for (int64_t i = 0; i < host.params.n_floats; i++) EXPECT(memcmp(&want[i], &got[i], sizeof *got) == 0);
    for (int i = 0; i < 2; i++) sums[i]->room = room[i];
    close_sums(&device);
    close_sums(&host);
    free(want);
    free(got);
}

int main(int argc, char **argv) {
    const struct nt_lora_shape lora = {.r = 3, .scale = 1, .targets = 127}, all = {.scale = 1};
    struct nt_spec small = {.n_layer = 2, .d_model = 96, .d_ff = 160, .n_head = 6, .n_kv = 2, .d_head = 16};
    small.n_vocab = 256;
    small.tied = small.qkv_bias = small.qk_norm = true;
    struct nt_spec wide = small; /* more numbers than are gathered at once */
    wide.n_layer = 1;
    wide.d_model = wide.d_ff = 256;
    struct nt_pool *pool = NULL;
    OK(nt_world_open(&world));
    OK(nt_world_split(&world, argc > 1 ? (int32_t)strtol(argv[1], NULL, 10) : 1));
    OK(nt_pool_new(&pool, 1, false, 0, 1));
    open_ranks(pool);
    check(&small, &lora, 0);
    check(&small, &lora, 7);
    check(&small, &all, 40);
    check(&wide, &all, 0);
    check(&wide, &all, 2000);
    nt_device_comm_close(dp);
    nt_device_comm_close(tp);
    be.watch = NULL;
    nt_backend_close(&be);
    nt_pool_free(pool);
    if (world.rank == 0) (void)puts("ok");
    nt_world_close(&world);
    return 0;
}
