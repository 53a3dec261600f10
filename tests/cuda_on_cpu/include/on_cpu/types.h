/* The qualifiers of kernels, and CUDA's small vectors. */
#ifndef ON_CPU_TYPES_H
#define ON_CPU_TYPES_H

#include <stddef.h>
#include <stdint.h>

#define __host__
#define __device__
#define __global__
#define __constant__
/* One block runs at a time, so what its threads share can be static; AddressSanitizer guards it,
 * and every block finds it full of NaNs (shared.cpp). */
#define __shared__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)
#define __grid_constant__

/* name: the type of two, three and four numbers of `type`; aligned as CUDA does it. */
#define ON_CPU_VECTORS(type, name)                                                                 \
    struct alignas(2 * sizeof(type)) name##2                                                       \
    {                                                                                              \
        type x, y;                                                                                 \
    };                                                                                             \
    struct name##3                                                                                 \
    {                                                                                              \
        type x, y, z;                                                                              \
    };                                                                                             \
    struct alignas(sizeof(type) == 8 ? 16 : 4 * sizeof(type)) name##4                              \
    {                                                                                              \
        type x, y, z, w;                                                                           \
    };                                                                                             \
    static inline name##2 make_##name##2(type x, type y)                                           \
    {                                                                                              \
        return {x, y};                                                                             \
    }                                                                                              \
    static inline name##3 make_##name##3(type x, type y, type z)                                   \
    {                                                                                              \
        return {x, y, z};                                                                          \
    }                                                                                              \
    static inline name##4 make_##name##4(type x, type y, type z, type w)                           \
    {                                                                                              \
        return {x, y, z, w};                                                                       \
    }

ON_CPU_VECTORS(signed char, char)
ON_CPU_VECTORS(unsigned char, uchar)
ON_CPU_VECTORS(short, short)
ON_CPU_VECTORS(unsigned short, ushort)
ON_CPU_VECTORS(int, int)
ON_CPU_VECTORS(unsigned, uint)
ON_CPU_VECTORS(long long, longlong)
ON_CPU_VECTORS(unsigned long long, ulonglong)
ON_CPU_VECTORS(float, float)
ON_CPU_VECTORS(double, double)
#undef ON_CPU_VECTORS

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
    constexpr dim3(uint3 from) : x(from.x), y(from.y), z(from.z)
    {
    }
};

#endif
