/* Starting a grid, and where in it a thread is. Blocks run one after another on the host's thread,
 * the threads of a block as fibers (grid.cpp). */
#ifndef ON_CPU_LAUNCH_H
#define ON_CPU_LAUNCH_H

#include <functional>
#include <type_traits>

#include "on_cpu/runtime.h"

/* Of the thread that runs now. */
extern uint3 threadIdx;
extern uint3 blockIdx;
extern dim3 blockDim;
extern dim3 gridDim;
static const int warpSize = 32;

/* One kernel with its arguments, ready to be run by any number of threads. */
struct on_cpu_grid {
    const char *name;
    dim3 blocks;
    dim3 threads;
    size_t shared_bytes;
    const void *kernel;
    std::function<void()> thread; /* what each thread runs */
};

/* Starts a grid on a stream, or refuses it as the runtime would. */
cudaError_t on_cpu_enqueue(cudaStream_t stream, on_cpu_grid &&grid);

/* kernel<<<grid, block, shared_bytes, stream>>>(arguments...), and what cudaGetLastError says of
 * it. */
template <typename... Parameters>
cudaError_t cuda_on_cpu_launch(cudaStream_t stream, const char *name, dim3 grid, dim3 block,
                               size_t shared_bytes, void (*kernel)(Parameters...),
                               std::type_identity_t<Parameters>... arguments)
{
    return on_cpu_enqueue(stream, {name, grid, block, shared_bytes, (const void *)kernel,
                                   [=] { kernel(arguments...); }});
}

/* Dynamic shared memory of the block that runs: exactly as many bytes as the launch asked for. */
unsigned char *cuda_on_cpu_shared();

#endif
