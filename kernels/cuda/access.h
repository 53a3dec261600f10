/* How the memory-bound kernels reach their rows: 16 bytes at a time where all tensors have one
 * dtype and lie on 16-byte boundaries, else number by number.
 *
 * Such a kernel is written once, as a template over what stands for the dtype: `float`, `bf16`, or
 * `mixed`, which asks each tensor for its dtype when it is used. All three have one signature, so
 * the host picks one of them by way_of. */
#ifndef KERNELS_CUDA_ACCESS_H
#define KERNELS_CUDA_ACCESS_H

#include "kernels/cuda/numbers.h"

struct mixed { /* tensors of any dtypes and alignments */
};

/* How many numbers one access takes. */
template <typename T> struct access {
    static constexpr int WIDTH = pack<T>::SIZE;
};
template <> struct access<mixed> {
    static constexpr int WIDTH = 1;
};

/* pack_store to global memory. As one instruction by name: the compiler makes four stores of
 * 4 bytes of an assignment whose alignment it loses sight of. */
__device__ inline void global_store(float *to, const float (&from)[4])
{
    __stwb((float4 *)to, make_float4(from[0], from[1], from[2], from[3]));
}

__device__ inline void global_store(bf16 *to, const float (&from)[8])
{
    __stwb((uint4 *)to, make_uint4(bf16_pair(from[0], from[1]), bf16_pair(from[2], from[3]),
                                   bf16_pair(from[4], from[5]), bf16_pair(from[6], from[7])));
}

/* -- WIDTH numbers of one dtype: by packs if WIDTH is a multiple of theirs -- */

template <typename T, int WIDTH> __device__ inline void span_load(const T *from, float (&to)[WIDTH])
{
    if constexpr (WIDTH % pack<T>::SIZE == 0) {
#pragma unroll
        for (int first = 0; first < WIDTH; first += pack<T>::SIZE) {
            float part[pack<T>::SIZE];
            pack_load(from + first, part);
#pragma unroll
            for (int i = 0; i < pack<T>::SIZE; i++) {
                to[first + i] = part[i];
            }
        }
    } else {
#pragma unroll
        for (int i = 0; i < WIDTH; i++) {
            to[i] = number_load(from + i);
        }
    }
}

template <typename T, int WIDTH>
__device__ inline void span_store(T *to, const float (&from)[WIDTH])
{
    if constexpr (WIDTH % pack<T>::SIZE == 0) {
#pragma unroll
        for (int first = 0; first < WIDTH; first += pack<T>::SIZE) {
            float part[pack<T>::SIZE];
#pragma unroll
            for (int i = 0; i < pack<T>::SIZE; i++) {
                part[i] = from[first + i];
            }
            global_store(to + first, part);
        }
    } else {
#pragma unroll
        for (int i = 0; i < WIDTH; i++) {
            number_store(to + i, from[i]);
        }
    }
}

/* -- one access to a tensor -- */

template <typename T>
__device__ inline void tensor_load(const struct tensor &from, int64_t row, int64_t column,
                                   float (&to)[access<T>::WIDTH])
{
    span_load((const T *)from.data + row * from.stride + column, to);
}

template <>
__device__ inline void tensor_load<mixed>(const struct tensor &from, int64_t row, int64_t column,
                                          float (&to)[1])
{
    const int64_t at = row * from.stride + column;
    to[0] = from.dtype == DTYPE_BF16 ? number_load((const bf16 *)from.data + at)
                                     : number_load((const float *)from.data + at);
}

template <typename T>
__device__ inline void tensor_store(const struct tensor &to, int64_t row, int64_t column,
                                    const float (&from)[access<T>::WIDTH])
{
    span_store((T *)to.data + row * to.stride + column, from);
}

template <>
__device__ inline void tensor_store<mixed>(const struct tensor &to, int64_t row, int64_t column,
                                           const float (&from)[1])
{
    const int64_t at = row * to.stride + column;
    if (to.dtype == DTYPE_BF16) {
        number_store((bf16 *)to.data + at, from[0]);
    } else {
        number_store((float *)to.data + at, from[0]);
    }
}

/* A number as it will be once it was stored in the tensor. */
template <typename T> __device__ inline float tensor_round(const struct tensor &to, float value)
{
    return to.dtype == DTYPE_BF16 ? __bfloat162float(__float2bfloat16_rn(value)) : value;
}

template <> __device__ inline float tensor_round<float>(const struct tensor &, float value)
{
    return value;
}

/* -- which access -- */

enum way { WAY_MIXED, WAY_F32, WAY_BF16 };

/* How all tensors can be reached by accesses that begin at multiples of their width, in rows (or
 * parts of rows) of `cols` numbers. */
static inline enum way way_of(const struct tensor *tensors, int count, int64_t cols)
{
    const enum dtype dtype = tensors[0].dtype;
    if (cols % (16 / (int64_t)dtype_bytes(dtype)) != 0) {
        return WAY_MIXED;
    }
    for (int i = 0; i < count; i++) {
        if (tensors[i].dtype != dtype || !rows_aligned(tensors[i])) {
            return WAY_MIXED;
        }
    }
    return dtype == DTYPE_BF16 ? WAY_BF16 : WAY_F32;
}

static inline int way_width(enum way way)
{
    return way == WAY_BF16  ? access<bf16>::WIDTH
           : way == WAY_F32 ? access<float>::WIDTH
                            : access<mixed>::WIDTH;
}

/* The one of a kernel's three forms; what follows its name are its further template arguments. */
#define WAY_KERNEL(way, kernel, ...)                                                               \
    ((way) == WAY_BF16  ? kernel<bf16 __VA_OPT__(, ) __VA_ARGS__>                                  \
     : (way) == WAY_F32 ? kernel<float __VA_OPT__(, ) __VA_ARGS__>                                 \
                        : kernel<mixed __VA_OPT__(, ) __VA_ARGS__>)

/* -- work that is numbered through all rows -- */

struct place {
    int64_t row;
    int64_t part; /* of the row */
};

__device__ inline struct place place_of(int64_t item, int64_t items_per_row)
{
    struct place place; /* unsigned: the quicker division */
    place.row = (int64_t)((uint64_t)item / (uint64_t)items_per_row);
    place.part = item - place.row * items_per_row;
    return place;
}

#endif
