/* Events. A record is an op of its stream; a wait holds the generation it saw, so later records do not move it. */
#include <stdlib.h>

#include "stream.h"

static struct CUevent_st *all_events;

static bool alive(const struct CUevent_st *event) {
    for (const struct CUevent_st *e = all_events; e != NULL; e = e->next)
        if (e == event) return !e->destroyed;
    return false;
}

void emu_event_unref(struct CUevent_st *event) {
    if (--event->refs > 0) return;
    for (struct CUevent_st **p = &all_events; *p != NULL; p = &(*p)->next)
        if (*p == event) {
            *p = event->next;
            break;
        }
    free(event->deps.node);
    free(event);
}

CUresult cuEventCreate(CUevent *event, unsigned int flags) {
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    const unsigned known = CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING | CU_EVENT_INTERPROCESS;
    const bool shared = (flags & CU_EVENT_INTERPROCESS) != 0;
    if (event == NULL || (flags & ~known) || (shared && !(flags & CU_EVENT_DISABLE_TIMING)))
        return emu_leave(CUDA_ERROR_INVALID_VALUE);
    struct CUevent_st *e = calloc(1, sizeof *e);
    if (e == NULL) return emu_leave(CUDA_ERROR_OUT_OF_MEMORY);
    *e = (struct CUevent_st){.device = emu_current_device(), .flags = flags, .refs = 1, .next = all_events};
    all_events = e;
    *event = e;
    return emu_leave(CUDA_SUCCESS);
}

CUresult cuEventDestroy_v2(CUevent event) {
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    if (!alive(event)) return emu_leave(CUDA_ERROR_INVALID_HANDLE);
    event->destroyed = true;
    emu_event_unref(event);
    return emu_leave(CUDA_SUCCESS);
}

static struct emu_op *event_op(enum emu_op_kind kind, struct CUevent_st *event) {
    struct emu_op *op = calloc(1, sizeof *op);
    if (op == NULL) return NULL;
    op->kind = kind;
    op->event.event = event;
    op->event.generation = event->generation;
    op->event.on = event->stream;
    op->event.seq = event->seq;
    event->refs++;
    return op;
}

static CUresult record(struct CUstream_st *stream, struct CUevent_st *event) {
    if (stream->device != event->device) return CUDA_ERROR_INVALID_HANDLE;
    if (stream->capture != NULL) return emu_capture_record(stream, event);
    event->capture = NULL;
    event->generation++;
    event->stream = stream;
    event->seq = stream->n_queued + 1;
    struct emu_op *op = event_op(EMU_OP_RECORD, event);
    return op == NULL ? CUDA_ERROR_OUT_OF_MEMORY : emu_enqueue(stream, op);
}

CUresult cuEventRecord(CUevent event, CUstream handle) {
    struct CUstream_st *stream = NULL;
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    result = alive(event) ? emu_check_stream(handle, &stream) : CUDA_ERROR_INVALID_HANDLE;
    return emu_leave(result == CUDA_SUCCESS ? record(stream, event) : result);
}

static CUresult wait_event(struct CUstream_st *stream, struct CUevent_st *event) {
    if (event->capture != NULL) return emu_capture_wait(stream, event);
    if (stream->capture != NULL) { // a captured graph cannot depend on work outside it
        emu_capture_break(stream);
        return CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
    }
    if (event->generation == 0 || event->done >= event->generation) return CUDA_SUCCESS;
    struct emu_op *op = event_op(EMU_OP_WAIT, event);
    return op == NULL ? CUDA_ERROR_OUT_OF_MEMORY : emu_enqueue(stream, op);
}

CUresult cuStreamWaitEvent(CUstream handle, CUevent event, unsigned int flags) {
    struct CUstream_st *stream = NULL;
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    (void)flags;
    result = alive(event) ? emu_check_stream(handle, &stream) : CUDA_ERROR_INVALID_HANDLE;
    return emu_leave(result == CUDA_SUCCESS ? wait_event(stream, event) : result);
}

static CUresult enter_event(CUevent event) {
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    if (!alive(event))
        result = CUDA_ERROR_INVALID_HANDLE;
    else if (event->capture != NULL)
        result = CUDA_ERROR_CAPTURED_EVENT;
    return result == CUDA_SUCCESS ? CUDA_SUCCESS : emu_leave(result);
}

CUresult cuEventSynchronize(CUevent event) {
    const CUresult result = enter_event(event);
    if (result != CUDA_SUCCESS) return result;
    if (event->done >= event->generation) return emu_leave(CUDA_SUCCESS);
    return emu_leave(emu_wait_for(event->stream, event->seq));
}

CUresult cuEventQuery(CUevent event) {
    const CUresult result = enter_event(event);
    if (result != CUDA_SUCCESS) return result;
    if (event->done >= event->generation) return emu_leave(CUDA_SUCCESS);
    return emu_leave(emu_query(event->stream, event->seq));
}

CUresult cuEventElapsedTime_v2(float *ms, CUevent start, CUevent end) {
    CUresult result = emu_enter(true);
    if (result != CUDA_SUCCESS) return result;
    if (ms == NULL) return emu_leave(CUDA_ERROR_INVALID_VALUE);
    if (!alive(start) || !alive(end) || ((start->flags | end->flags) & CU_EVENT_DISABLE_TIMING))
        return emu_leave(CUDA_ERROR_INVALID_HANDLE);
    if (start->generation == 0 || end->generation == 0) return emu_leave(CUDA_ERROR_INVALID_HANDLE);
    if (start->done < start->generation || end->done < end->generation) return emu_leave(CUDA_ERROR_NOT_READY);
    *ms = (float)(end->time_ms - start->time_ms);
    return emu_leave(CUDA_SUCCESS);
}

#undef cuEventElapsedTime
CUresult cuEventElapsedTime(float *ms, CUevent start, CUevent end);
EMU_API CUresult cuEventElapsedTime(float *ms, CUevent start, CUevent end) {
    return cuEventElapsedTime_v2(ms, start, end);
}
