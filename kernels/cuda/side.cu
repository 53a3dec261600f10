/* Copies beside the operations, and the tickets by which others wait for them.
 *
 * All side work runs on the side stream in the order of the calls. Before each piece of it the side
 * stream waits for the operations so far (an event on the main stream); after it an event is
 * recorded for the piece's ticket. As the stream keeps the order, an event that is done says that
 * all tickets up to its own are. Events that are done are used again. */
#include <assert.h>
#include <stdlib.h>

#include "base/mem.h"
#include "kernels/cuda/operations.h"
#include "kernels/cuda/parts.h"

enum { PENDING_MAX = 4096 }; /* more than this many tickets under way: the host waits for one */

struct pending {
    int64_t ticket;
    cudaEvent_t done;
    struct pending *next;
};

struct cuda_side {
    struct pending *first; /* under way, by ticket */
    struct pending *latest;
    struct pending *spare; /* with events to be used again */
    int64_t pending_count;
    int64_t last;           /* ticket given */
    int64_t fenced;         /* the main stream waits for the tickets up to this one */
    cudaEvent_t operations; /* the main stream's place when side work was called */
    cudaEvent_t fence;      /* the side stream's place when the main stream was to wait for it */
};

static enum status event_create(cudaEvent_t *out, struct error *err)
{
    return cuda_status(cudaEventCreateWithFlags(out, cudaEventDisableTiming), "making an event",
                       err);
}

enum status cuda_side_create(struct cuda_side **out, struct error *err)
{
    enum status status = STATUS_OK;
    struct cuda_side *side = static_cast<struct cuda_side *>(mem_calloc(1, sizeof(*side)));
    if (side == NULL) {
        return mem_fail(err, sizeof(*side), "the side stream's tickets");
    }
    TRY_CLEANUP(event_create(&side->operations, err));
    TRY_CLEANUP(event_create(&side->fence, err));
    *out = side;
    side = NULL;

cleanup:
    cuda_side_destroy(side);
    return status;
}

static void list_destroy(struct pending *list)
{
    while (list != NULL) {
        struct pending *next = list->next;
        (void)cudaEventDestroy(list->done);
        free(list);
        list = next;
    }
}

void cuda_side_destroy(struct cuda_side *side)
{
    if (side == NULL) {
        return;
    }
    list_destroy(side->first);
    list_destroy(side->spare);
    if (side->operations != NULL) {
        (void)cudaEventDestroy(side->operations);
    }
    if (side->fence != NULL) {
        (void)cudaEventDestroy(side->fence);
    }
    free(side);
}

/* -- tickets ----------------------------------------------------------------------------------- */

/* The first ticket under way is done. */
static void retire_first(struct cuda_side *side)
{
    struct pending *pending = side->first;
    side->first = pending->next;
    if (side->first == NULL) {
        side->latest = NULL;
    }
    pending->next = side->spare;
    side->spare = pending;
    side->pending_count--;
}

/* Retires what is done, without waiting unless there is too much under way. */
static void retire_done(struct device *device)
{
    struct cuda_side *side = cuda_of(device)->side;
    if (side->pending_count >= PENDING_MAX) {
        (void)cuda_went_well(device, cudaEventSynchronize(side->first->done), "side work");
        retire_first(side);
    }
    while (side->first != NULL && cudaEventQuery(side->first->done) == cudaSuccess) {
        retire_first(side);
    }
    (void)cudaGetLastError(); /* "not ready" is no error */
}

/* A record with an event of its own, in no list; NULL after recording a failure. */
static struct pending *pending_take(struct device *device)
{
    struct cuda_side *side = cuda_of(device)->side;
    struct error err = {};
    struct pending *pending = side->spare;
    if (pending != NULL) {
        side->spare = pending->next;
        return pending;
    }
    pending = static_cast<struct pending *>(mem_calloc(1, sizeof(*pending)));
    if (pending == NULL) {
        (void)mem_fail(&err, sizeof(*pending), "a ticket of side work");
    } else if (event_create(&pending->done, &err) != STATUS_OK) {
        free(pending);
        pending = NULL;
    }
    if (pending == NULL) {
        CUDA_FAIL(device, err.code, "%s", err.message);
    }
    return pending;
}

bool cuda_side_begin(struct device *device, const char *what)
{
    struct cuda_device *cuda = cuda_of(device);
    struct cuda_side *side = cuda->side;
    return !cuda_failed(device) && cuda_not_recording(device, what) &&
           cuda_went_well(device, cudaEventRecord(side->operations, cuda->stream), what) &&
           cuda_went_well(device, cudaStreamWaitEvent(cuda->side_stream, side->operations, 0),
                          what);
}

/* Whatever fails here leaves work on the side stream without a ticket: the device has failed then,
 * and check waits for the whole stream. */
int64_t cuda_side_end(struct device *device)
{
    struct cuda_device *cuda = cuda_of(device);
    struct cuda_side *side = cuda->side;
    retire_done(device);
    struct pending *pending = pending_take(device);
    if (pending == NULL) {
        return side->last;
    }
    (void)cuda_went_well(device, cudaEventRecord(pending->done, cuda->side_stream),
                         "a ticket of side work");
    pending->ticket = ++side->last;
    pending->next = NULL;
    if (side->latest != NULL) {
        side->latest->next = pending;
    } else {
        side->first = pending;
    }
    side->latest = pending;
    side->pending_count++;
    return side->last;
}

int64_t cuda_side_last(const struct cuda_side *side)
{
    return side->last;
}

/* -- the table's entries ----------------------------------------------------------------------- */

static int64_t side_copy(struct device *device, void *to, const void *from, size_t bytes,
                         enum cudaMemcpyKind kind, const char *what)
{
    if (!cuda_side_begin(device, what)) {
        return cuda_side_last(cuda_of(device)->side);
    }
    if (bytes > 0) {
        (void)cuda_went_well(
            device, cudaMemcpyAsync(to, from, bytes, kind, cuda_of(device)->side_stream), what);
    }
    return cuda_side_end(device);
}

int64_t cuda_side_download(struct device *device, void *to_host, const void *from, size_t bytes)
{
    return side_copy(device, to_host, from, bytes, cudaMemcpyDeviceToHost, "side_download");
}

int64_t cuda_side_upload(struct device *device, void *to, const void *from_host, size_t bytes)
{
    return side_copy(device, to, from_host, bytes, cudaMemcpyHostToDevice, "side_upload");
}

int64_t cuda_side_mark(struct device *device)
{
    return cuda_side_begin(device, "side_mark") ? cuda_side_end(device)
                                                : cuda_side_last(cuda_of(device)->side);
}

/* Also on a device that has failed: a copy that began earlier may still write to the host. */
void cuda_side_wait(struct device *device, int64_t ticket)
{
    struct cuda_side *side = cuda_of(device)->side;
    assert(ticket <= side->last);
    struct pending *pending = side->first;
    while (pending != NULL && pending->ticket < ticket) {
        pending = pending->next;
    }
    if (pending == NULL || side->first->ticket > ticket ||
        !cuda_not_recording(device, "side_wait")) {
        return;
    }
    (void)cuda_went_well(device, cudaEventSynchronize(pending->done), "side work");
    while (side->first != NULL && side->first->ticket <= ticket) {
        retire_first(side);
    }
}

/* Nothing to wait for if no side work was called since the last fence. */
void cuda_side_fence(struct device *device)
{
    struct cuda_device *cuda = cuda_of(device);
    struct cuda_side *side = cuda->side;
    if (cuda_failed(device) || side->fenced == side->last ||
        !cuda_not_recording(device, "side_fence")) {
        return;
    }
    if (cuda_went_well(device, cudaEventRecord(side->fence, cuda->side_stream), "side_fence") &&
        cuda_went_well(device, cudaStreamWaitEvent(cuda->stream, side->fence, 0), "side_fence")) {
        side->fenced = side->last;
    }
}
