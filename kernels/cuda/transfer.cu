/* Copies between host and device memory, through a ring of pinned buffers.
 *
 * From memory that can be swapped out the driver copies in small steps and makes the host wait for
 * the stream. So uploads are copied into the ring first, by the host, and leave from there in the
 * stream's order: an upload waits only while the whole ring (16 MiB) is on its way. Downloads wait
 * anyway; large ones fill one buffer of the ring while the host empties those before it.
 *
 * Floor: the link (PCIe 5 x16: 55 GB/s) and one copy by the host (some 10 GB/s a core). What must
 * be faster goes by the side copies, which need no second copy. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "kernels/cuda/operations.h"
#include "kernels/cuda/parts.h"

enum {
    SLOTS = 4,
    SLOT_BYTES = 4 << 20,
    ALIGN_BYTES = 64,       /* of each upload in its slot */
    PART_BYTES = 64 * 1024, /* less room than this in a slot is not worth a copy of its own */
};

struct slot {
    char *memory;
    size_t used_bytes;
    cudaEvent_t done; /* recorded when the slot is full: the stream no longer uses it */
};

struct cuda_staging {
    struct slot slots[SLOTS];
    int current;
};

enum status cuda_staging_create(struct cuda_staging **out, struct error *err)
{
    enum status status = STATUS_OK;
    struct cuda_staging *staging =
        static_cast<struct cuda_staging *>(mem_calloc(1, sizeof(*staging)));
    if (staging == NULL) {
        return mem_fail(err, sizeof(*staging), "the buffers of copies");
    }
    for (int i = 0; i < SLOTS; i++) {
        void *memory = NULL;
        TRY_CUDA_CLEANUP(cudaHostAlloc(&memory, SLOT_BYTES, cudaHostAllocDefault),
                         "host memory for copies", err);
        staging->slots[i].memory = static_cast<char *>(memory);
        TRY_CUDA_CLEANUP(cudaEventCreateWithFlags(&staging->slots[i].done, cudaEventDisableTiming),
                         "making an event", err);
    }
    *out = staging;
    staging = NULL;

cleanup:
    cuda_staging_destroy(staging);
    return status;
}

void cuda_staging_destroy(struct cuda_staging *staging)
{
    if (staging == NULL) {
        return;
    }
    for (int i = 0; i < SLOTS; i++) {
        if (staging->slots[i].done != NULL) {
            (void)cudaEventDestroy(staging->slots[i].done);
        }
        if (staging->slots[i].memory != NULL) {
            (void)cudaFreeHost(staging->slots[i].memory);
        }
    }
    free(staging);
}

/* The next slot of the ring, empty, once the stream no longer uses it; NULL after a failure. An
 * event that was never recorded counts as done. */
static struct slot *slot_next(struct device *device)
{
    struct cuda_device *cuda = cuda_of(device);
    struct cuda_staging *staging = cuda->staging;
    struct slot *left = &staging->slots[staging->current];
    struct slot *next = &staging->slots[(staging->current + 1) % SLOTS];
    if (!cuda_went_well(device, cudaEventRecord(left->done, cuda->stream), "copying") ||
        !cuda_went_well(device, cudaEventSynchronize(next->done), "copying")) {
        return NULL;
    }
    staging->current = (staging->current + 1) % SLOTS;
    next->used_bytes = 0;
    return next;
}

/* Where the rest of an upload goes: the current slot if it holds all of it or a good part. */
static struct slot *slot_with_room(struct device *device, size_t bytes)
{
    struct cuda_staging *staging = cuda_of(device)->staging;
    struct slot *slot = &staging->slots[staging->current];
    const size_t room = SLOT_BYTES - slot->used_bytes;
    return room >= bytes || room >= PART_BYTES ? slot : slot_next(device);
}

void cuda_upload(struct device *device, void *to, const void *from_host, size_t bytes)
{
    if (cuda_failed(device) || !cuda_not_recording(device, "an upload")) {
        return;
    }
    for (size_t first = 0; first < bytes;) {
        struct slot *slot = slot_with_room(device, bytes - first);
        if (slot == NULL) {
            return;
        }
        const size_t room = SLOT_BYTES - slot->used_bytes;
        const size_t part = bytes - first < room ? bytes - first : room;
        char *staged = slot->memory + slot->used_bytes;
        memcpy(staged, (const char *)from_host + first, part);
        if (!cuda_went_well(device,
                            cudaMemcpyAsync((char *)to + first, staged, part,
                                            cudaMemcpyHostToDevice, cuda_of(device)->stream),
                            "copying to the GPU")) {
            return;
        }
        slot->used_bytes += (part + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
        first += part;
    }
}

static size_t chunk_bytes(size_t bytes, size_t chunk)
{
    const size_t left = bytes - chunk * SLOT_BYTES;
    return left < SLOT_BYTES ? left : (size_t)SLOT_BYTES;
}

/* Starts a chunk of a download into the next slot; NULL after a failure. */
static struct slot *chunk_start(struct device *device, const char *from, size_t bytes)
{
    struct slot *slot = slot_next(device);
    if (slot == NULL) {
        return NULL;
    }
    slot->used_bytes = SLOT_BYTES; /* no upload may go behind it */
    const bool started =
        cuda_went_well(device,
                       cudaMemcpyAsync(slot->memory, from, bytes, cudaMemcpyDeviceToHost,
                                       cuda_of(device)->stream),
                       "copying from the GPU") &&
        cuda_went_well(device, cudaEventRecord(slot->done, cuda_of(device)->stream),
                       "copying from the GPU");
    return started ? slot : NULL;
}

/* Chunk i lies in slot i modulo SLOTS after the first; up to SLOTS - 1 are on their way while the
 * host takes one. */
void cuda_download(struct device *device, void *to_host, const void *from, size_t bytes)
{
    const size_t chunks = bytes / SLOT_BYTES + (bytes % SLOT_BYTES != 0);
    struct slot *started[SLOTS] = {};
    if (cuda_failed(device) || !cuda_not_recording(device, "a download")) {
        return;
    }
    for (size_t i = 0; i < chunks + SLOTS - 1; i++) {
        if (i < chunks) {
            started[i % SLOTS] =
                chunk_start(device, (const char *)from + i * SLOT_BYTES, chunk_bytes(bytes, i));
            if (started[i % SLOTS] == NULL) {
                return;
            }
        }
        if (i >= SLOTS - 1) {
            const size_t taken = i - (SLOTS - 1);
            const struct slot *slot = started[taken % SLOTS];
            if (!cuda_went_well(device, cudaEventSynchronize(slot->done),
                                "operations on the GPU")) {
                return;
            }
            memcpy((char *)to_host + taken * SLOT_BYTES, slot->memory, chunk_bytes(bytes, taken));
        }
    }
}
