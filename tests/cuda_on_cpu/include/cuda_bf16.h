/* CUDA's bf16: the upper half of an f32. Conversions round to nearest even; every NaN becomes
 * 0x7FFF, as on hardware. */
#ifndef ON_CPU_CUDA_BF16_H
#define ON_CPU_CUDA_BF16_H

#include "cuda_runtime.h"

struct alignas(2) __nv_bfloat16 {
    unsigned short x; /* its bits; CUDA's name is hidden, so use __bfloat16_as_ushort */
};

struct alignas(4) __nv_bfloat162 {
    __nv_bfloat16 x; /* the lower half of the word */
    __nv_bfloat16 y;
};

static inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 value)
{
    return value.x;
}

static inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits)
{
    return {bits};
}

static inline float __bfloat162float(__nv_bfloat16 value)
{
    return __uint_as_float((unsigned)value.x << 16);
}

static inline __nv_bfloat16 __float2bfloat16_rn(float value)
{
    if (isnan(value)) {
        return {0x7FFF};
    }
    const unsigned bits = __float_as_uint(value);
    return {(unsigned short)((bits + 0x7FFFU + (bits >> 16 & 1U)) >> 16)};
}

static inline __nv_bfloat16 __float2bfloat16(float value)
{
    return __float2bfloat16_rn(value);
}

static inline __nv_bfloat16 __float2bfloat16_rz(float value)
{
    return {isnan(value) ? (unsigned short)0x7FFF : (unsigned short)(__float_as_uint(value) >> 16)};
}

static inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 low, __nv_bfloat16 high)
{
    return {low, high};
}

static inline __nv_bfloat162 __floats2bfloat162_rn(float low, float high)
{
    return {__float2bfloat16_rn(low), __float2bfloat16_rn(high)};
}

static inline __nv_bfloat162 __float22bfloat162_rn(float2 pair)
{
    return __floats2bfloat162_rn(pair.x, pair.y);
}

static inline __nv_bfloat162 __float2bfloat162_rn(float both)
{
    return __floats2bfloat162_rn(both, both);
}

static inline float2 __bfloat1622float2(__nv_bfloat162 pair)
{
    return {__bfloat162float(pair.x), __bfloat162float(pair.y)};
}

static inline float __low2float(__nv_bfloat162 pair)
{
    return __bfloat162float(pair.x);
}

static inline float __high2float(__nv_bfloat162 pair)
{
    return __bfloat162float(pair.y);
}

static inline __nv_bfloat16 __low2bfloat16(__nv_bfloat162 pair)
{
    return pair.x;
}

static inline __nv_bfloat16 __high2bfloat16(__nv_bfloat162 pair)
{
    return pair.y;
}

#endif
