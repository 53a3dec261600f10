/* The CUDA device: two streams, memory that is cached and counted, and the error that sticks.
 *
 * Operations are kernels on `stream`, in the order of the calls; side copies and sums run on
 * `side_stream`, ordered with the operations by events. The host waits in download, check and
 * side_wait alone (and in upload while its ring is full). One thread at a time uses a device; a
 * process uses one GPU. */
#ifndef KERNELS_CUDA_DEVICE_H
#define KERNELS_CUDA_DEVICE_H

#include <cuda_runtime.h>

#include "kernels/cuda/fault.h"
#include "kernels/ops.h"

struct cuda_pool;    /* memory.cu: blocks of device memory, reused */
struct cuda_staging; /* transfer.cu: pinned host memory that uploads and downloads pass through */
struct cuda_matmul;  /* matmul.cu: the library, its plans by shape */
struct cuda_side;    /* side.cu: tickets and events of the side stream */
struct cuda_group;   /* group.cu: NCCL's communicator */

struct cuda_device {
    struct device base; /* first: a struct device * is one of these */
    int index;          /* of the GPU */
    char name[128];
    int capability;          /* 80, 90, ... */
    int multiprocessors;     /* SMs */
    size_t shared_max_bytes; /* shared memory that one block may ask for */
    size_t l2_bytes;
    size_t memory_bytes; /* of the whole GPU */
    bool tf32;           /* f32 products may be computed in TF32 (TREX_TF32=1) */

    cudaStream_t stream;
    cudaStream_t side_stream;
    struct error failure; /* the first one; code STATUS_OK while there is none */
    bool lost; /* `failure` destroyed the GPU's state: it stays, and nothing runs any more */
    struct cuda_fault
        *fault; /* what a kernel found wrong with its input: pinned, seen by both sides */
    struct cuda_pool *pool;
    struct cuda_staging *staging;
    struct cuda_matmul *matmul;
    struct cuda_side *side;
    struct cuda_group *group; /* NULL until joined */

    void *scratch; /* one operation's working memory, grown on demand and kept */
    size_t scratch_bytes;
    void *table;             /* what cuda_table fills; NULL until its first use */
    bool recording;          /* operations go into a recording: nothing may allocate or wait */
    int64_t recordings_lost; /* that could not be kept and run directly: describe tells */
};

static inline struct cuda_device *cuda_of(struct device *device)
{
    return (struct cuda_device *)device;
}

/* Whether an earlier operation failed: then the caller does nothing. */
static inline bool cuda_failed(struct device *device)
{
    return cuda_of(device)->failure.code != STATUS_OK;
}

/* Records a failure unless there is one. */
#define CUDA_FAIL(device, code, ...)                                                               \
    do {                                                                                           \
        if (!cuda_failed(device)) {                                                                \
            (void)FAIL(&cuda_of(device)->failure, (code), __VA_ARGS__);                            \
        }                                                                                          \
    } while (0)

/* Records the failure of a runtime call; `what` says what was being done. Returns whether it went
 * well. */
bool cuda_went_well(struct device *device, cudaError_t result, const char *what);

/* Whether no recording is being made; otherwise records a failure: `what` allocates or waits, or
 * takes part in another order, and so cannot be repeated. */
bool cuda_not_recording(struct device *device, const char *what);

/* Working memory for the operation that runs, aligned to 256 bytes, with undefined contents; valid
 * until the next call. NULL after recording a failure. count * size is checked for overflow. While
 * a recording is made it must already be large enough: run_recorded runs the operations once
 * unrecorded. */
void *cuda_scratch(struct device *device, int64_t count, size_t size, const char *what);

/* A small table from the host (at most 64 KiB) into scratch memory of its own kind, in the order of
 * the stream, e.g. the optimizer's slots. NULL after recording a failure. Not while recording. */
const void *cuda_table(struct device *device, const void *host, size_t bytes, const char *what);

#endif
