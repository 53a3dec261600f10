/* Streams, events and graphs. Work runs when it is called; that of late streams as late as the
 * order of streams and events allows, so that an order that was forgotten shows.
 * TREX_CUDA_ON_CPU_LATE=1 makes late what has a higher priority than the least, which is how side
 * streams are made, and 2 all streams. */
#include <chrono>
#include <set>
#include <stdio.h>
#include <stdlib.h>

#include "state.h"

typedef std::chrono::steady_clock::time_point moment;

struct CUevent_st {
    unsigned flags;
    std::shared_ptr<struct work> work; /* of the stream it was recorded on; NULL: never */
    uint64_t place;                    /* done when so many operations of it are */
    const CUgraph_st *capture;         /* or recorded while this was captured */
    std::shared_ptr<moment> when;
    int asked; /* queries that said "not ready" */
};

struct CUgraphExec_st {
    std::shared_ptr<const std::vector<operation>> operations;
};

enum {
    PATIENCE_S = 120,
    QUERIES_MAX =
        1000 /* that an event is not ready for: whoever asks in a loop must not do so forever */
};

/* Under the lock. */
static std::set<cudaStream_t> streams;

static bool is_late(int priority)
{
    const char *text = getenv("TREX_CUDA_ON_CPU_LATE");
    return text != nullptr && (text[0] == '2' || (text[0] == '1' && priority < 0));
}

/* -- work -- */

bool work_advance(struct work &work, uint64_t until)
{
    if (work.running) { /* further up the stack: what it waits for was called before */
        return work.done >= until;
    }
    work.running = true;
    while (work.done < until && work.queue.front()()) {
        work.queue.pop_front();
        work.done++;
        shim_progress.notify_all();
    }
    work.running = false;
    return work.done >= until;
}

void work_wait(std::unique_lock<std::mutex> &lock, std::shared_ptr<struct work> work,
               uint64_t until)
{
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(PATIENCE_S);
    while (!work_advance(*work, until)) {
        if (shim_progress.wait_until(lock, end) == std::cv_status::timeout) {
            fprintf(stderr, "cuda_on_cpu: a stream waits for ranks that did not come in %d s\n",
                    PATIENCE_S);
            abort();
        }
    }
}

void device_wait(std::unique_lock<std::mutex> &lock, int device)
{
    const std::set<cudaStream_t> now = streams; /* others may change it while this waits */
    std::vector<std::shared_ptr<struct work>> all;
    for (cudaStream_t stream : now) {
        if (stream->device == device) {
            all.push_back(stream->work);
        }
    }
    for (const auto &work : all) {
        work_wait(lock, work, work->called);
    }
}

/* The default stream: waits for all streams that do not say otherwise, and is waited for. */
static cudaError_t default_push(const operation &what)
{
    for (cudaStream_t stream : streams) {
        if ((stream->flags & cudaStreamNonBlocking) == 0) {
            if (stream->capture != nullptr) {
                stream->capture_failed = true;
                return cudaErrorStreamCaptureImplicit;
            }
            (void)work_advance(*stream->work, stream->work->called);
        }
    }
    (void)what();
    return cudaSuccess;
}

cudaError_t stream_push(cudaStream_t stream, operation what)
{
    if (stream == nullptr) {
        return default_push(what);
    }
    if (stream->capture != nullptr) {
        if (stream->capture_failed) {
            return cudaErrorStreamCaptureInvalidated;
        }
        stream->capture->operations.push_back(std::move(what));
        return cudaSuccess;
    }
    struct work &work = *stream->work;
    work.queue.push_back(std::move(what));
    work.called++;
    if (!is_late(stream->priority)) {
        (void)work_advance(work, work.called);
    }
    return cudaSuccess;
}

/* -- captures -- */

cudaError_t capture_forbids()
{
    cudaError_t error = cudaSuccess;
    for (cudaStream_t stream : streams) {
        if (stream->capture == nullptr || stream->capture_mode == cudaStreamCaptureModeRelaxed) {
            continue;
        }
        if (stream->capture_mode == cudaStreamCaptureModeGlobal ||
            stream->capture_thread == std::this_thread::get_id()) {
            stream->capture_failed = true;
            error = cudaErrorStreamCaptureUnsupported;
        }
    }
    return error;
}

/* The same of a call that waits for, or asks about, a stream. */
static cudaError_t capture_forbids_waiting(cudaStream_t stream)
{
    if (stream != nullptr && stream->capture != nullptr) {
        stream->capture_failed = true;
        return cudaErrorStreamCaptureUnsupported;
    }
    return capture_forbids();
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    std::lock_guard<std::mutex> guard(shim_lock);
    if (stream == nullptr) {
        return finish(cudaErrorStreamCaptureUnsupported);
    }
    if (stream->capture != nullptr) {
        return finish(cudaErrorInvalidValue);
    }
    stream->capture = std::make_unique<CUgraph_st>();
    stream->capture_failed = false;
    stream->capture_mode = mode;
    stream->capture_thread = std::this_thread::get_id();
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    std::lock_guard<std::mutex> guard(shim_lock);
    *graph = nullptr;
    if (stream == nullptr || stream->capture == nullptr) {
        return finish(cudaErrorStreamCaptureUnmatched);
    }
    std::unique_ptr<CUgraph_st> captured = std::move(stream->capture);
    if (stream->capture_failed) {
        return finish(cudaErrorStreamCaptureInvalidated);
    }
    *graph = captured.release();
    return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status)
{
    std::lock_guard<std::mutex> guard(shim_lock);
    *status = cudaStreamCaptureStatusNone;
    if (stream != nullptr && stream->capture != nullptr) {
        *status = stream->capture_failed ? cudaStreamCaptureStatusInvalidated
                                         : cudaStreamCaptureStatusActive;
    }
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags)
{
    std::lock_guard<std::mutex> guard(shim_lock);
    if (graph == nullptr || flags != 0) {
        return finish(cudaErrorInvalidValue);
    }
    *exec = new CUgraphExec_st{std::make_shared<const std::vector<operation>>(graph->operations)};
    return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t stream)
{
    (void)stream;
    return finish(exec != nullptr ? cudaSuccess : cudaErrorInvalidValue);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    std::lock_guard<std::mutex> guard(shim_lock);
    if (exec == nullptr) {
        return finish(cudaErrorInvalidValue);
    }
    for (const operation &what : *exec->operations) {
        const cudaError_t error = stream_push(stream, what);
        if (error != cudaSuccess) {
            return finish(error);
        }
    }
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    delete exec;
    return cudaSuccess;
}

/* -- streams -- */

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority)
{
    std::lock_guard<std::mutex> guard(shim_lock);
    if (!device_exists(device_current())) {
        return finish(cudaErrorNoDevice);
    }
    if ((flags & ~cudaStreamNonBlocking) != 0) {
        return finish(cudaErrorInvalidValue);
    }
    *stream = new CUstream_st{.device = device_current(),
                              .flags = flags,
                              .priority = priority,
                              .work = std::make_shared<struct work>(),
                              .capture = nullptr,
                              .capture_failed = false,
                              .capture_mode = cudaStreamCaptureModeGlobal,
                              .capture_thread = {}};
    streams.insert(*stream);
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags)
{
    return cudaStreamCreateWithPriority(stream, flags, 0);
}

cudaError_t cudaStreamCreate(cudaStream_t *stream)
{
    return cudaStreamCreateWithPriority(stream, cudaStreamDefault, 0);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    std::unique_lock<std::mutex> lock(shim_lock);
    if (streams.count(stream) == 0) {
        return finish(cudaErrorInvalidResourceHandle);
    }
    work_wait(lock, stream->work, stream->work->called);
    streams.erase(stream);
    delete stream;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    std::unique_lock<std::mutex> lock(shim_lock);
    const cudaError_t forbidden = capture_forbids_waiting(stream);
    if (forbidden == cudaSuccess && stream != nullptr) {
        work_wait(lock, stream->work, stream->work->called);
    }
    return finish(forbidden);
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    std::unique_lock<std::mutex> lock(shim_lock);
    const cudaError_t forbidden = capture_forbids_waiting(stream);
    if (forbidden != cudaSuccess || stream == nullptr) {
        return finish(forbidden);
    }
    struct work &work = *stream->work;
    return finish(work_advance(work, work.called) ? cudaSuccess : cudaErrorNotReady);
}

cudaError_t cudaDeviceSynchronize(void)
{
    std::unique_lock<std::mutex> lock(shim_lock);
    for (cudaStream_t stream : streams) {
        if (stream->capture != nullptr && stream->device == device_current()) {
            return finish(capture_forbids_waiting(stream));
        }
    }
    if (!device_exists(device_current())) {
        return finish(cudaErrorNoDevice);
    }
    device_wait(lock, device_current());
    return cudaSuccess;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, void (*function)(void *), void *context)
{
    std::lock_guard<std::mutex> guard(shim_lock);
    return finish(stream_push(stream, [=] {
        function(context);
        return true;
    }));
}

/* -- events -- */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags)
{
    std::lock_guard<std::mutex> guard(shim_lock);
    if ((flags & ~(cudaEventBlockingSync | cudaEventDisableTiming)) != 0) {
        return finish(cudaErrorInvalidValue);
    }
    *event = new CUevent_st{flags, nullptr, 0, nullptr, nullptr, 0};
    return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *event)
{
    return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    if (event == nullptr) {
        return finish(cudaErrorInvalidResourceHandle);
    }
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    std::lock_guard<std::mutex> guard(shim_lock);
    event->asked = 0;
    event->capture = stream != nullptr ? stream->capture.get() : nullptr;
    if (event->capture != nullptr) {
        return finish(stream->capture_failed ? cudaErrorStreamCaptureInvalidated : cudaSuccess);
    }
    auto when = std::make_shared<moment>();
    event->when = when;
    const cudaError_t error = stream_push(stream, [when] {
        *when = std::chrono::steady_clock::now();
        return true;
    });
    event->work = stream != nullptr ? stream->work : std::make_shared<struct work>();
    event->place = event->work->called;
    return finish(error);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
    std::lock_guard<std::mutex> guard(shim_lock);
    if (flags != 0) {
        return finish(cudaErrorInvalidValue);
    }
    CUgraph_st *capture = stream != nullptr ? stream->capture.get() : nullptr;
    if (event->capture != capture && (event->capture != nullptr || event->work != nullptr)) {
        if (capture == nullptr) {
            return finish(cudaErrorNotSupported); /* would take another stream into the capture */
        }
        stream->capture_failed = true;
        return finish(cudaErrorStreamCaptureIsolation);
    }
    if (event->capture != nullptr || event->work == nullptr) {
        return cudaSuccess;
    }
    return finish(stream_push(
        stream, [work = event->work, place = event->place] { return work_advance(*work, place); }));
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    std::lock_guard<std::mutex> guard(shim_lock);
    const cudaError_t forbidden = capture_forbids();
    if (forbidden != cudaSuccess || event->capture != nullptr) {
        return finish(forbidden != cudaSuccess ? forbidden : cudaErrorCapturedEvent);
    }
    if (event->work == nullptr || event->work->done >= event->place) {
        return cudaSuccess;
    }
    if (is_late(-1) && event->asked < QUERIES_MAX) {
        event->asked++;
        return finish(cudaErrorNotReady);
    }
    return finish(work_advance(*event->work, event->place) ? cudaSuccess : cudaErrorNotReady);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    std::unique_lock<std::mutex> lock(shim_lock);
    const cudaError_t forbidden = capture_forbids();
    if (forbidden != cudaSuccess || event->capture != nullptr) {
        return finish(forbidden != cudaSuccess ? forbidden : cudaErrorCapturedEvent);
    }
    if (event->work != nullptr) {
        work_wait(lock, event->work, event->place);
    }
    return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end)
{
    std::lock_guard<std::mutex> guard(shim_lock);
    if (start->work == nullptr || end->work == nullptr ||
        ((start->flags | end->flags) & cudaEventDisableTiming) != 0) {
        return finish(cudaErrorInvalidResourceHandle);
    }
    if (start->work->done < start->place || end->work->done < end->place) {
        return finish(cudaErrorNotReady);
    }
    *milliseconds = std::chrono::duration<float, std::milli>(*end->when - *start->when).count();
    return cudaSuccess;
}
