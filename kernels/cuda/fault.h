/* What a kernel finds wrong with its input, e.g. an index out of range, told to the host: the first
 * one of a sequence of operations is kept, and the next check returns it. A kernel that reports a
 * fault leaves out the access and goes on. */
#ifndef KERNELS_CUDA_FAULT_H
#define KERNELS_CUDA_FAULT_H

#include <cuda_runtime.h>
#include <stdint.h>

enum cuda_fault_kind {
    CUDA_FAULT_NONE,
    CUDA_FAULT_ROW_INDEX, /* gather_rows, scatter_add_rows: found is the index, limit the table's
                             rows */
    CUDA_FAULT_TARGET,    /* cross_entropy: limit is the vocabulary */
    CUDA_FAULT_POSITION,  /* rope, kv_append, attention_decode: limit is the number of positions */
    CUDA_FAULT_SEQUENCE,  /* kv_append, attention_decode: limit is the number of sequences */
    CUDA_FAULT_STARTS,    /* attention: starts that do not rise from 0 to N */
    CUDA_FAULT_COUNT
};

struct cuda_fault {
    int kind; /* enum cuda_fault_kind; set once, by compare-and-swap */
    int64_t row;
    int64_t found;
    int64_t limit;
};

/* The record lies in host memory. The GPU's threads alone compete for it, and the host looks after
 * they have ended: so an atomic of the device's own is enough, which works over any bus; those of
 * the whole system need one whose host takes part (cudaDevAttrHostNativeAtomicSupported). */
__device__ inline void fault_report(struct cuda_fault *fault, int kind, int64_t row, int64_t found,
                                    int64_t limit)
{
    if (atomicCAS(&fault->kind, CUDA_FAULT_NONE, kind) == CUDA_FAULT_NONE) {
        fault->row = row;
        fault->found = found;
        fault->limit = limit;
    }
}

#endif
