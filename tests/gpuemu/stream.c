/* Streams: queues of work that runs as late (or early, or randomly) as the program's waits allow. See stream.h. */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "emu.h"
#include "stream.h"

static struct {
    struct CUstream_st *streams;
    int64_t n_made;
    uint64_t random;
    bool helper_started;
    double last_call_ms;
} all;

static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static uint64_t next_random(void) { // splitmix64
    if (all.random == 0) all.random = emu_options()->seed * 2654435761u + 1;
    uint64_t z = all.random += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t emu_stream_random(uint64_t n) {
    return next_random() % n;
}

bool emu_stream_alive(const struct CUstream_st *stream) {
    for (const struct CUstream_st *s = all.streams; s != NULL; s = s->next)
        if (s == stream) return true;
    return false;
}

void emu_streams_leave_capture(const struct emu_capture *capture) {
    for (struct CUstream_st *s = all.streams; s != NULL; s = s->next)
        if (s->capture == capture) s->capture = NULL;
}

static struct CUstream_st *new_stream(struct emu_device *device, unsigned flags, int priority) {
    struct CUstream_st *s = calloc(1, sizeof *s);
    if (s == NULL) return NULL;
    *s = (struct CUstream_st){.device = device, .flags = flags, .priority = priority, .number = all.n_made++};
    s->next = all.streams;
    all.streams = s;
    return s;
}

CUresult emu_check_stream(CUstream stream, struct CUstream_st **out) {
    struct emu_device *device = emu_current_device();
    if (stream == NULL || stream == CU_STREAM_LEGACY || stream == CU_STREAM_PER_THREAD) {
        if (emu_options()->stream0 == 0) {
            emu_report(NULL, "the default stream is used: this program is to name its streams");
            return CUDA_ERROR_INVALID_HANDLE;
        }
        if (device->null_stream == NULL) device->null_stream = new_stream(device, CU_STREAM_DEFAULT, 0);
        *out = device->null_stream;
        return *out == NULL ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
    }
    if (!emu_stream_alive(stream)) return CUDA_ERROR_INVALID_HANDLE;
    *out = stream;
    return CUDA_SUCCESS;
}

struct emu_device *emu_stream_device(CUstream stream) {
    return stream->device;
}

bool emu_stream_captures(CUstream stream) {
    return stream->capture != NULL;
}

void emu_free_op(struct emu_op *op) {
    switch (op->kind) {
    case EMU_OP_KERNEL:
        emu_free_job(op->job);
        break;
    case EMU_OP_COPY:
        free(op->copy.staged);
        break;
    case EMU_OP_WORK:
        if (op->work.drop != NULL) op->work.drop(op->work.arg);
        break;
    case EMU_OP_RECORD:
    case EMU_OP_WAIT:
        emu_event_unref(op->event.event);
        break;
    case EMU_OP_GRAPH:
        emu_free_graph_run(op->graph);
        break;
    case EMU_OP_SET:
    case EMU_OP_HOST:
    case EMU_OP_FREE:
        break;
    }
    free(op);
}

static CUresult run_wait(const struct emu_op *op, bool *done) {
    struct CUevent_st *event = op->event.event;
    *done = true;
    if (event->done >= op->event.generation || !emu_stream_alive(op->event.on)) return CUDA_SUCCESS;
    bool blocked = false;
    const CUresult result = emu_advance(op->event.on, op->event.seq, &blocked);
    *done = !blocked;
    return result;
}

static void run_host(const struct emu_op *op) {
    emu_state.in_host_function = true;
    op->host.fn(op->host.arg);
    emu_state.in_host_function = false;
}

CUresult emu_run_op(const struct emu_op *op, struct emu_device *device, bool first, bool *done) {
    CUresult result = CUDA_SUCCESS;
    *done = true;
    switch (op->kind) {
    case EMU_OP_HOST:
        run_host(op);
        return emu_sticky_error();
    case EMU_OP_WAIT:
        return run_wait(op, done);
    case EMU_OP_GRAPH:
        return emu_run_graph(op->graph, device, done);
    case EMU_OP_RECORD:
        op->event.event->done = op->event.generation;
        op->event.event->time_ms = now_ms();
        return CUDA_SUCCESS;
    default:
        break;
    }
    emu_memory_open();
    switch (op->kind) {
    case EMU_OP_KERNEL:
        result = emu_run_job(op->job, done);
        break;
    case EMU_OP_COPY:
        result = emu_run_copy(&op->copy, device->index);
        break;
    case EMU_OP_SET:
        result = emu_run_set(&op->set, device->index);
        break;
    case EMU_OP_WORK:
        emu_state.work_device = device->index;
        *done = op->work.fn(op->work.arg, first) != 0;
        break;
    case EMU_OP_FREE:
        emu_free_now(op->address);
        break;
    default:
        break;
    }
    emu_memory_close();
    return result == CUDA_SUCCESS ? emu_sticky_error() : result;
}

/* Runs ops in order until `upto` of them are done or one cannot go on yet. */
CUresult emu_advance(struct CUstream_st *stream, int64_t upto, bool *blocked) {
    *blocked = false;
    if (stream->n_done >= upto) return CUDA_SUCCESS;
    if (stream->running) { // only a host function that waits for its own stream comes here
        *blocked = true;
        return CUDA_SUCCESS;
    }
    CUresult result = CUDA_SUCCESS;
    stream->running = true;
    while (result == CUDA_SUCCESS && stream->n_done < upto && stream->head != NULL) {
        struct emu_op *op = stream->head;
        bool done = false;
        result = emu_run_op(op, stream->device, !op->begun, &done);
        op->begun = true;
        if (!done) {
            *blocked = true;
            break;
        }
        stream->head = op->next;
        if (stream->head == NULL) stream->tail = NULL;
        stream->n_done++;
        emu_free_op(op);
    }
    stream->running = false;
    return result;
}

CUresult emu_wait_for(struct CUstream_st *stream, int64_t upto) {
    for (;;) {
        bool blocked = false;
        const CUresult result = emu_advance(stream, upto, &blocked);
        if (result != CUDA_SUCCESS || !blocked) return result;
        emu_unlock(); // another process or thread has to do its part
        usleep(200);
        emu_lock();
        if (!emu_stream_alive(stream)) return CUDA_ERROR_INVALID_HANDLE;
    }
}

CUresult emu_sync_stream(CUstream stream) {
    return emu_wait_for(stream, stream->n_queued);
}

static CUresult drain(const struct emu_device *device, bool only_blocking) {
    for (struct CUstream_st *s = all.streams; s != NULL; s = s->next) {
        if (s->device != device || (only_blocking && (s->flags & CU_STREAM_NON_BLOCKING))) continue;
        const CUresult result = emu_wait_for(s, s->n_queued);
        if (result != CUDA_SUCCESS) return result;
    }
    return CUDA_SUCCESS;
}

CUresult emu_drain_device(struct emu_device *device) {
    return drain(device, false);
}

/* Random order: now and then one op of some stream runs although nobody waits for it. */
static CUresult run_some(void) {
    int32_t n = 0;
    for (const struct CUstream_st *s = all.streams; s != NULL; s = s->next) n += s->head != NULL;
    while (n > 0 && emu_stream_random(2) == 0) {
        int64_t pick = (int64_t)emu_stream_random((uint64_t)n);
        struct CUstream_st *s = all.streams;
        while (s != NULL && (s->head == NULL || pick-- > 0)) s = s->next;
        if (s == NULL) break;
        bool blocked = false;
        const CUresult result = emu_advance(s, s->n_done + 1, &blocked);
        if (result != CUDA_SUCCESS) return result;
        if (blocked || s->head == NULL) n--;
    }
    return CUDA_SUCCESS;
}

/* Work of other processes can depend on ours, so when several take part, idle time runs what is queued. */
static void *help(void *unused) {
    (void)unused;
    for (;;) {
        usleep(2000);
        emu_lock();
        if (now_ms() - all.last_call_ms > emu_options()->idle_ms) {
            for (struct CUstream_st *s = all.streams; s != NULL; s = s->next) {
                bool blocked = false;
                if (s->head != NULL && emu_advance(s, s->n_done + 1, &blocked) != CUDA_SUCCESS) break;
            }
        }
        emu_unlock();
    }
    return NULL;
}

void emu_start_helper(void) {
    pthread_t thread;
    if (all.helper_started) return;
    all.helper_started = pthread_create(&thread, NULL, help, NULL) == 0;
    if (all.helper_started) pthread_detach(thread);
}

void emu_note_call(void) {
    all.last_call_ms = now_ms();
}

static void append(struct CUstream_st *stream, struct emu_op *op) {
    op->next = NULL;
    op->seq = ++stream->n_queued;
    if (stream->tail == NULL)
        stream->head = op;
    else
        stream->tail->next = op;
    stream->tail = op;
}

CUresult emu_enqueue(CUstream stream, struct emu_op *op) {
    if (stream->capture != NULL) return emu_capture_op(stream, op);
    const bool legacy = stream == stream->device->null_stream;
    CUresult result = legacy ? drain(stream->device, true) : CUDA_SUCCESS;
    if (result != CUDA_SUCCESS) {
        emu_free_op(op);
        return result;
    }
    append(stream, op);
    if (legacy) return emu_wait_for(stream, stream->n_queued);
    bool blocked = false;
    if (emu_options()->streams == EMU_EARLY) return emu_advance(stream, stream->n_queued, &blocked);
    if (emu_options()->streams == EMU_RANDOM) return run_some();
    return CUDA_SUCCESS;
}

/* ---- exported driver calls ---- */

CUresult cuStreamCreateWithPriority(CUstream *stream, unsigned int flags, int priority) {
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    if (stream == NULL || (flags & ~(unsigned)CU_STREAM_NON_BLOCKING)) return emu_leave(CUDA_ERROR_INVALID_VALUE);
    *stream = new_stream(emu_current_device(), flags, priority);
    return emu_leave(*stream == NULL ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS);
}

CUresult cuStreamCreate(CUstream *stream, unsigned int flags) {
    return cuStreamCreateWithPriority(stream, flags, 0);
}

static void unlink_stream(struct CUstream_st *stream) {
    for (struct CUstream_st **p = &all.streams; *p != NULL; p = &(*p)->next)
        if (*p == stream) {
            *p = stream->next;
            break;
        }
    emu_graph_forget_stream(stream);
    free(stream->deps.node);
    free(stream);
}

CUresult cuStreamDestroy_v2(CUstream stream) {
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    if (!emu_stream_alive(stream) || stream == stream->device->null_stream) return emu_leave(CUDA_ERROR_INVALID_HANDLE);
    if (stream->capture != NULL) return emu_leave(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    result = emu_wait_for(stream, stream->n_queued);
    if (result == CUDA_SUCCESS) unlink_stream(stream);
    return emu_leave(result);
}

/* Common start of the calls that wait for or look at a stream: not allowed while it captures. */
static CUresult enter_sync(CUstream handle, struct CUstream_st **stream) {
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    result = emu_check_stream(handle, stream);
    if (result == CUDA_SUCCESS && (*stream)->capture != NULL) {
        emu_capture_break(*stream);
        result = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    return result == CUDA_SUCCESS ? CUDA_SUCCESS : emu_leave(result);
}

CUresult cuStreamSynchronize(CUstream handle) {
    struct CUstream_st *stream = NULL;
    const CUresult result = enter_sync(handle, &stream);
    if (result != CUDA_SUCCESS) return result;
    return emu_leave(emu_wait_for(stream, stream->n_queued));
}

/* A query never blocks; each one that finds work left lets one op run, so that polling ends, but late. */
CUresult emu_query(struct CUstream_st *stream, int64_t upto) {
    if (stream->n_done >= upto) return CUDA_SUCCESS;
    bool blocked = false;
    const CUresult result = emu_advance(stream, stream->n_done + 1, &blocked);
    return result == CUDA_SUCCESS ? CUDA_ERROR_NOT_READY : result;
}

CUresult cuStreamQuery(CUstream handle) {
    struct CUstream_st *stream = NULL;
    const CUresult result = enter_sync(handle, &stream);
    if (result != CUDA_SUCCESS) return result;
    return emu_leave(emu_query(stream, stream->n_queued));
}

CUresult cuStreamGetPriority(CUstream handle, int *priority) {
    struct CUstream_st *stream = NULL;
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    result = priority == NULL ? CUDA_ERROR_INVALID_VALUE : emu_check_stream(handle, &stream);
    if (result == CUDA_SUCCESS) *priority = stream->priority;
    return emu_leave(result);
}

CUresult cuLaunchHostFunc(CUstream handle, CUhostFn fn, void *arg) {
    struct CUstream_st *stream = NULL;
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    result = fn == NULL ? CUDA_ERROR_INVALID_VALUE : emu_check_stream(handle, &stream);
    struct emu_op *op = result == CUDA_SUCCESS ? calloc(1, sizeof *op) : NULL;
    if (op == NULL) return emu_leave(result == CUDA_SUCCESS ? CUDA_ERROR_OUT_OF_MEMORY : result);
    *op = (struct emu_op){
        .kind = EMU_OP_HOST, .host = {.fn = fn, .arg = arg}
    };
    return emu_leave(emu_enqueue(stream, op));
}
