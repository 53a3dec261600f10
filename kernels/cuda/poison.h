/* AddressSanitizer's view of cached memory. Blocks of one segment lie side by side in what the heap
 * gave as one piece; so in a build for the CPU (tests/cuda_on_cpu) what no caller holds is
 * poisoned, in the order of the stream: operations that were called before a block was freed may
 * still use it. Elsewhere there is nothing to do. */
#ifndef KERNELS_CUDA_POISON_H
#define KERNELS_CUDA_POISON_H

#include <cuda_runtime.h>

#ifndef TREX_CUDA_ON_CPU

enum { POISON_FENCE_BYTES = 0 };

static inline void poison_now(void *, size_t, bool)
{
}

static inline void poison_in_order(cudaStream_t, void *, size_t, bool)
{
}

#else

#include <sanitizer/asan_interface.h>
#include <stdlib.h>

#include "base/mem.h"

enum { POISON_FENCE_BYTES = 512 }; /* behind each block, so that writing past its end is seen */

struct poison {
    void *memory;
    size_t bytes;
    bool on;
};

/* Makes memory forbidden, or allowed again. */
static inline void poison_now(void *memory, size_t bytes, bool on)
{
    if (on) {
        ASAN_POISON_MEMORY_REGION(memory, bytes);
    } else {
        ASAN_UNPOISON_MEMORY_REGION(memory, bytes);
    }
}

static inline void poison_run(void *context)
{
    const struct poison *poison = static_cast<struct poison *>(context);
    poison_now(poison->memory, poison->bytes, poison->on);
    free(context);
}

/* The same, after all operations so far. */
static inline void poison_in_order(cudaStream_t stream, void *memory, size_t bytes, bool on)
{
    struct poison *poison = static_cast<struct poison *>(mem_calloc(1, sizeof(*poison)));
    if (poison != NULL) {
        *poison = {memory, bytes, on};
    }
    if (poison == NULL || cudaLaunchHostFunc(stream, poison_run, poison) != cudaSuccess) {
        free(poison);
        (void)cudaStreamSynchronize(stream);
        (void)cudaGetLastError();
        poison_now(memory, bytes, on);
    }
}

#endif
#endif
