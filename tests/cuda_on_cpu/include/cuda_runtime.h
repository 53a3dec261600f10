/* CUDA's runtime and the language of its kernels, for a host compiler: the files of kernels/cuda,
 * compiled as C++, run on the CPU (README.md). What is here has the names and the meaning that CUDA
 * gives it; what is not here, the shim does not know. */
#ifndef ON_CPU_CUDA_RUNTIME_H
#define ON_CPU_CUDA_RUNTIME_H

#include "on_cpu/types.h"

#include "on_cpu/runtime.h"

#include "on_cpu/launch.h"
#include "on_cpu/numbers.h"
#include "on_cpu/warp.h"

#endif
