/* Starting a kernel. The one place that knows how: nvcc's launch, or that of the host build, which
 * runs kernels on the CPU (tests/cuda_on_cpu). */
#ifndef KERNELS_CUDA_LAUNCH_H
#define KERNELS_CUDA_LAUNCH_H

#include "kernels/cuda/device.h"

/* Dynamic shared memory of the block, aligned to 16 bytes, as a pointer to bytes. */
#ifdef TREX_CUDA_ON_CPU
#define SHARED_BYTES(name) unsigned char *const name = cuda_on_cpu_shared()
#else
extern __shared__ __align__(16) unsigned char cuda_shared_bytes[];
#define SHARED_BYTES(name) unsigned char *const name = cuda_shared_bytes
#endif

/* A block has 48 KiB of shared memory unless it asks for more. The kernel's static arrays are part
 * of them, and how large those are is not known here: so whatever leaves less than 16 KiB for them
 * is asked for. */
enum { CUDA_SHARED_UNASKED_BYTES = 32 * 1024 };

/* For the record of a failed launch. */
void cuda_launch_failed(struct device *device, cudaError_t result, const char *kernel, dim3 grid,
                        unsigned threads, size_t shared_bytes);

/* kernel<<<grid, threads, shared_bytes>>>(arguments...) on the device's stream, unless an earlier
 * operation failed. `name` is for errors. An empty grid is nothing to do. Much shared memory is
 * asked for here. Static: files may give the structs of their kernels one name. */
template <typename... Parameters, typename... Arguments>
static inline void cuda_launch(struct device *device, const char *name,
                               void (*kernel)(Parameters...), dim3 grid, unsigned threads,
                               size_t shared_bytes, Arguments... arguments)
{
    if (cuda_failed(device) || grid.x == 0 || grid.y == 0 || grid.z == 0) {
        return;
    }
    cudaError_t result = cudaSuccess;
    if (shared_bytes > CUDA_SHARED_UNASKED_BYTES) {
        result = cudaFuncSetAttribute(
            (const void *)kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_bytes);
    }
    if (result == cudaSuccess) {
#ifdef TREX_CUDA_ON_CPU
        result = cuda_on_cpu_launch(cuda_of(device)->stream, name, grid, dim3(threads),
                                    shared_bytes, kernel, static_cast<Parameters>(arguments)...);
#else
        kernel<<<grid, threads, shared_bytes, cuda_of(device)->stream>>>(
            static_cast<Parameters>(arguments)...);
        result = cudaGetLastError();
#endif
    }
    if (result != cudaSuccess) {
        cuda_launch_failed(device, result, name, grid, threads, shared_bytes);
    }
}

/* Blocks for `count` pieces of work of `each`, bounded so that the index of a block fits. */
static inline unsigned cuda_blocks(int64_t count, int64_t each)
{
    int64_t blocks = (count + each - 1) / each;
    return (unsigned)(blocks < 0x7FFFFFFF ? blocks : 0x7FFFFFFF);
}

#endif
