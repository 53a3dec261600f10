/* Arithmetic of the device language: what CUDA has beyond <math.h>, bits, and atomic operations.
 * Functions that are approximate on hardware are exact here. */
#ifndef ON_CPU_NUMBERS_H
#define ON_CPU_NUMBERS_H

#include <limits.h>
#include <math.h>
#include <string.h>

#include <type_traits>

#include "on_cpu/types.h"

/* -- the same bits as another type -- */

template <typename To, typename From> static inline To on_cpu_bits(From from)
{
    static_assert(sizeof(To) == sizeof(From));
    To to;
    memcpy(&to, &from, sizeof(to));
    return to;
}

static inline unsigned __float_as_uint(float value)
{
    return on_cpu_bits<unsigned>(value);
}

static inline int __float_as_int(float value)
{
    return on_cpu_bits<int>(value);
}

static inline float __uint_as_float(unsigned bits)
{
    return on_cpu_bits<float>(bits);
}

static inline float __int_as_float(int bits)
{
    return on_cpu_bits<float>(bits);
}

static inline long long __double_as_longlong(double value)
{
    return on_cpu_bits<long long>(value);
}

static inline double __longlong_as_double(long long bits)
{
    return on_cpu_bits<double>(bits);
}

/* -- smaller and larger, of whole numbers too -- */

#define ON_CPU_MIN_MAX(type)                                                                       \
    static inline type min(type a, type b)                                                         \
    {                                                                                              \
        return a < b ? a : b;                                                                      \
    }                                                                                              \
    static inline type max(type a, type b)                                                         \
    {                                                                                              \
        return a > b ? a : b;                                                                      \
    }

ON_CPU_MIN_MAX(int)
ON_CPU_MIN_MAX(unsigned)
ON_CPU_MIN_MAX(long)
ON_CPU_MIN_MAX(unsigned long)
ON_CPU_MIN_MAX(long long)
ON_CPU_MIN_MAX(unsigned long long)
#undef ON_CPU_MIN_MAX

static inline float min(float a, float b)
{
    return fminf(a, b);
}

static inline float max(float a, float b)
{
    return fmaxf(a, b);
}

static inline double min(double a, double b)
{
    return fmin(a, b);
}

static inline double max(double a, double b)
{
    return fmax(a, b);
}

/* -- functions -- */

static inline float rsqrtf(float x)
{
    return (float)(1.0 / sqrt((double)x));
}

static inline double rsqrt(double x)
{
    return 1.0 / sqrt(x);
}

static inline float rcbrtf(float x)
{
    return (float)(1.0 / cbrt((double)x));
}

/* glibc declares functions of these names, so they cannot be defined. */
#define __expf expf
#define __exp10f exp10f
#define __logf logf
#define __log2f log2f
#define __log10f log10f
#define __powf powf
#define __sinf sinf
#define __cosf cosf

static inline float __fdividef(float x, float y)
{
    return x / y;
}

static inline float __frcp_rn(float x)
{
    return 1.0F / x;
}

static inline float __frsqrt_rn(float x)
{
    return rsqrtf(x);
}

static inline float __fsqrt_rn(float x)
{
    return sqrtf(x);
}

static inline float __fdiv_rn(float x, float y)
{
    return x / y;
}

static inline float __fadd_rn(float x, float y)
{
    return x + y;
}

static inline float __fsub_rn(float x, float y)
{
    return x - y;
}

static inline float __fmul_rn(float x, float y)
{
    return x * y;
}

static inline float __fmaf_rn(float x, float y, float z)
{
    return fmaf(x, y, z);
}

static inline double __dadd_rn(double x, double y)
{
    return x + y;
}

static inline double __dmul_rn(double x, double y)
{
    return x * y;
}

static inline float __saturatef(float x)
{
    return x > 0.0F ? (x < 1.0F ? x : 1.0F) : 0.0F; /* NaN gives 0 */
}

/* -- whole numbers from f32 and back; what does not fit becomes the nearest that does, NaN 0 -- */

template <typename T> static inline T on_cpu_whole(double value, T lowest, T highest)
{
    if (isnan(value)) {
        return 0;
    }
    if (value <= (double)lowest) {
        return lowest;
    }
    return value >= (double)highest ? highest : (T)value;
}

static inline int __float2int_rn(float x)
{
    return on_cpu_whole<int>(nearbyint((double)x), INT_MIN, INT_MAX);
}

static inline int __float2int_rz(float x)
{
    return on_cpu_whole<int>((double)x, INT_MIN, INT_MAX);
}

static inline int __float2int_rd(float x)
{
    return on_cpu_whole<int>(floor((double)x), INT_MIN, INT_MAX);
}

static inline int __float2int_ru(float x)
{
    return on_cpu_whole<int>(ceil((double)x), INT_MIN, INT_MAX);
}

static inline unsigned __float2uint_rn(float x)
{
    return on_cpu_whole<unsigned>(nearbyint((double)x), 0, UINT_MAX);
}

static inline unsigned __float2uint_rz(float x)
{
    return on_cpu_whole<unsigned>((double)x, 0, UINT_MAX);
}

static inline float __int2float_rn(int x)
{
    return (float)x;
}

static inline float __uint2float_rn(unsigned x)
{
    return (float)x;
}

static inline float __double2float_rn(double x)
{
    return (float)x;
}

/* -- bits -- */

static inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}

static inline int __popcll(unsigned long long x)
{
    return __builtin_popcountll(x);
}

static inline int __clz(int x)
{
    return x == 0 ? 32 : __builtin_clz((unsigned)x);
}

static inline int __clzll(long long x)
{
    return x == 0 ? 64 : __builtin_clzll((unsigned long long)x);
}

static inline int __ffs(int x)
{
    return __builtin_ffs(x);
}

static inline int __ffsll(long long x)
{
    return __builtin_ffsll(x);
}

static inline unsigned __brev(unsigned x)
{
    unsigned reversed = 0;
    for (int bit = 0; bit < 32; bit++) {
        reversed |= (x >> bit & 1U) << (31 - bit);
    }
    return reversed;
}

static inline unsigned __umulhi(unsigned x, unsigned y)
{
    return (unsigned)((unsigned long long)x * y >> 32);
}

static inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y)
{
    return (unsigned long long)((unsigned __int128)x * y >> 64);
}

/* Byte i of the result is the byte of y:x that nibble i of `selector` names (the fourth bit: its
 * sign, repeated). */
static inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector)
{
    const unsigned long long both = (unsigned long long)y << 32 | x;
    unsigned result = 0;
    for (int i = 0; i < 4; i++) {
        const unsigned choice = selector >> (4 * i) & 0xFU;
        unsigned byte = (unsigned)(both >> (8 * (choice & 7U))) & 0xFFU;
        if (choice & 8U) {
            byte = byte & 0x80U ? 0xFFU : 0U;
        }
        result |= byte << (8 * i);
    }
    return result;
}

/* -- loads and stores with a hint for the caches, which there is none of here -- */

#define ON_CPU_LOAD(name)                                                                          \
    template <typename T> static inline T name(const T *from)                                      \
    {                                                                                              \
        return *from;                                                                              \
    }
#define ON_CPU_STORE(name)                                                                         \
    template <typename T> static inline void name(T *to, std::type_identity_t<T> value)            \
    {                                                                                              \
        *to = value;                                                                               \
    }

ON_CPU_LOAD(__ldg)
ON_CPU_LOAD(__ldca)
ON_CPU_LOAD(__ldcg)
ON_CPU_LOAD(__ldcs)
ON_CPU_LOAD(__ldlu)
ON_CPU_LOAD(__ldcv)
ON_CPU_STORE(__stwb)
ON_CPU_STORE(__stcg)
ON_CPU_STORE(__stcs)
ON_CPU_STORE(__stwt)
#undef ON_CPU_LOAD
#undef ON_CPU_STORE

/* -- atomic operations: threads take turns, so each is one anyway -- */

static inline void __threadfence()
{
}

static inline void __threadfence_block()
{
}

static inline void __threadfence_system()
{
}

/* Replaces *at by `expression` of `old`, and returns what was there. */
#define ON_CPU_ATOMIC(name, type, expression)                                                      \
    static inline type name(type *at, type value)                                                  \
    {                                                                                              \
        const type old = *at;                                                                      \
        *at = (expression);                                                                        \
        return old;                                                                                \
    }                                                                                              \
    static inline type name##_block(type *at, type value)                                          \
    {                                                                                              \
        return name(at, value);                                                                    \
    }                                                                                              \
    static inline type name##_system(type *at, type value)                                         \
    {                                                                                              \
        return name(at, value);                                                                    \
    }
#define ON_CPU_ATOMICS(type)                                                                       \
    ON_CPU_ATOMIC(atomicMin, type, value < old ? value : old)                                      \
    ON_CPU_ATOMIC(atomicMax, type, value > old ? value : old)                                      \
    ON_CPU_ATOMIC(atomicAnd, type, old &value)                                                     \
    ON_CPU_ATOMIC(atomicOr, type, old | value)                                                     \
    ON_CPU_ATOMIC(atomicXor, type, old ^ value)                                                    \
    ON_CPU_ATOMIC(atomicExch, type, value)                                                         \
    static inline type atomicCAS(type *at, type compare, type value)                               \
    {                                                                                              \
        const type old = *at;                                                                      \
        *at = old == compare ? value : old;                                                        \
        return old;                                                                                \
    }                                                                                              \
    static inline type atomicCAS_block(type *at, type compare, type value)                         \
    {                                                                                              \
        return atomicCAS(at, compare, value);                                                      \
    }                                                                                              \
    static inline type atomicCAS_system(type *at, type compare, type value)                        \
    {                                                                                              \
        return atomicCAS(at, compare, value);                                                      \
    }

ON_CPU_ATOMICS(int)
ON_CPU_ATOMICS(unsigned)
ON_CPU_ATOMICS(unsigned long long)
ON_CPU_ATOMIC(atomicAdd, int, (int)((unsigned)old + (unsigned)value)) /* wraps */
ON_CPU_ATOMIC(atomicAdd, unsigned, old + value)
ON_CPU_ATOMIC(atomicAdd, unsigned long long, old + value)
ON_CPU_ATOMIC(atomicSub, int, (int)((unsigned)old - (unsigned)value))
ON_CPU_ATOMIC(atomicSub, unsigned, old - value)
ON_CPU_ATOMIC(atomicInc, unsigned, old >= value ? 0 : old + 1)
#undef ON_CPU_ATOMIC
#undef ON_CPU_ATOMICS

#endif
