/* What the kernels share: numbers of either dtype as f32, 16 bytes at a time, and sums over a warp
 * or a block in an order that never changes. */
#ifndef KERNELS_CUDA_NUMBERS_H
#define KERNELS_CUDA_NUMBERS_H

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <math_constants.h>
#include <stdint.h>

#include "kernels/tensor.h"

typedef __nv_bfloat16 bf16;

enum { WARP = 32 };

__device__ inline float number_load(const float *from)
{
    return *from;
}

__device__ inline float number_load(const bf16 *from)
{
    return __bfloat162float(*from);
}

__device__ inline void number_store(float *to, float value)
{
    *to = value;
}

__device__ inline void number_store(bf16 *to, float value)
{
    *to = __float2bfloat16_rn(value);
}

/* How many numbers of a type 16 bytes hold. */
template <typename T> struct pack {
    static constexpr int SIZE = 16 / (int)sizeof(T);
};

/* 16 aligned bytes, as f32. */
__device__ inline void pack_load(const float *from, float (&to)[4])
{
    const float4 four = *reinterpret_cast<const float4 *>(from);
    to[0] = four.x;
    to[1] = four.y;
    to[2] = four.z;
    to[3] = four.w;
}

__device__ inline void pack_load(const bf16 *from, float (&to)[8])
{
    const uint4 four = *reinterpret_cast<const uint4 *>(from);
    const uint32_t pairs[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
    for (int i = 0; i < 4; i++) { /* a bf16 is the upper half of an f32 */
        to[2 * i] = __uint_as_float(pairs[i] << 16);
        to[2 * i + 1] = __uint_as_float(pairs[i] & 0xFFFF0000U);
    }
}

__device__ inline void pack_store(float *to, const float (&from)[4])
{
    *reinterpret_cast<float4 *>(to) = make_float4(from[0], from[1], from[2], from[3]);
}

/* Two f32 as bf16 in one word, the first in the lower half, as memory has them. */
__device__ inline uint32_t bf16_pair(float first, float second)
{
    const uint32_t low = __bfloat16_as_ushort(__float2bfloat16_rn(first));
    const uint32_t high = __bfloat16_as_ushort(__float2bfloat16_rn(second));
    return low | high << 16;
}

__device__ inline void pack_store(bf16 *to, const float (&from)[8])
{
    *reinterpret_cast<uint4 *>(to) =
        make_uint4(bf16_pair(from[0], from[1]), bf16_pair(from[2], from[3]),
                   bf16_pair(from[4], from[5]), bf16_pair(from[6], from[7]));
}

/* Whether all rows of a tensor begin at a multiple of 16 bytes (then its packs can be loaded at
 * once). */
static inline bool rows_aligned(struct tensor tensor)
{
    return (uintptr_t)tensor.data % 16 == 0 &&
           (size_t)tensor.stride * dtype_bytes(tensor.dtype) % 16 == 0;
}

/* All lanes get the result; all 32 must take part. */
__device__ inline float warp_sum(float value)
{
#pragma unroll
    for (int distance = WARP / 2; distance > 0; distance /= 2) {
        value += __shfl_xor_sync(0xFFFFFFFFU, value, distance);
    }
    return value;
}

__device__ inline float warp_max(float value)
{
#pragma unroll
    for (int distance = WARP / 2; distance > 0; distance /= 2) {
        value = fmaxf(value,
                      __shfl_xor_sync(0xFFFFFFFFU, value, distance)); /* NaN is lost: see callers */
    }
    return value;
}

/* All threads of the block get the sum; `shared` has room for 32 numbers. THREADS is a multiple
 * of 32. */
template <int THREADS> __device__ inline float block_sum(float value, float *shared)
{
    value = warp_sum(value);
    if (threadIdx.x % WARP == 0) {
        shared[threadIdx.x / WARP] = value;
    }
    __syncthreads();
    float sum = 0.0F;
#pragma unroll
    for (int warp = 0; warp < THREADS / WARP; warp++) {
        sum += shared[warp];
    }
    __syncthreads(); /* shared may be used again */
    return sum;
}

#endif
