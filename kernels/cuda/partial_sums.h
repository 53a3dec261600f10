/* Sums over more than one block: each leaves a part, and a second kernel adds the parts in their
 * order, so that the sum has the same bits on every run. */
#ifndef KERNELS_CUDA_PARTIAL_SUMS_H
#define KERNELS_CUDA_PARTIAL_SUMS_H

#include "kernels/cuda/launch.h"
#include "kernels/cuda/numbers.h"

/* to (columns) += the sum of the rows of parts (count, columns). `name` is the operation's. */
void cuda_add_parts(struct device *device, const char *name, float *to, const float *parts,
                    int64_t count, int64_t columns);

/* All threads of the block, of any multiple of 32 up to 1024, get the sum of what each brings;
 * `shared` has room for 32 numbers and may be used again at once. */
template <typename T> __device__ inline T block_total(T value, T *shared)
{
#pragma unroll
    for (int distance = WARP / 2; distance > 0; distance /= 2) {
        value += __shfl_xor_sync(0xFFFFFFFFU, value, distance);
    }
    if (threadIdx.x % WARP == 0) {
        shared[threadIdx.x / WARP] = value;
    }
    __syncthreads();
    T sum = 0;
    for (int warp = 0; warp < (int)blockDim.x / WARP; warp++) {
        sum += shared[warp];
    }
    __syncthreads();
    return sum;
}

#endif
