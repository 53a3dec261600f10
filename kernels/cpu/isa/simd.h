/* A vector of floats as wide as the instruction set has, and the few operations that the kernels
 * need on it. Written with the vector types of gcc and clang; intrinsics only where those have no
 * word for it.
 *
 * Loads and stores take how many lanes count (any number >= 1; LANES or more means all), so that a
 * loop over a row needs no second version for its end. Lanes that do not count are read as 0 and
 * never written. */
#ifndef KERNELS_CPU_ISA_SIMD_H
#define KERNELS_CPU_ISA_SIMD_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#if defined(__SSE4_2__)
#include <immintrin.h>
#else
#include <math.h>
#endif

#include "kernels/tensor.h"

#if defined(__AVX512F__)
enum { LANES = 16 };
#elif defined(__AVX2__)
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif

typedef float vfloat __attribute__((vector_size(LANES * 4)));
typedef int32_t vint __attribute__((vector_size(LANES * 4)));
typedef uint32_t vuint __attribute__((vector_size(LANES * 4)));
typedef uint16_t vhalf __attribute__((vector_size(LANES * 2)));

#define SIMD_INLINE static inline __attribute__((always_inline))

SIMD_INLINE vfloat simd_set(float value)
{
    return value - (vfloat){0}; /* x - 0 is x for every x, -0 included */
}

SIMD_INLINE vfloat simd_zero(void)
{
    return (vfloat){0};
}

/* 0, 1, 2, ... in the lanes */
SIMD_INLINE vint simd_lane_index(void)
{
    vint index;
    for (int i = 0; i < LANES; i++) {
        index[i] = i;
    }
    return index;
}

/* Lane by lane, a where mask is all ones, b where it is 0. */
SIMD_INLINE vfloat simd_select(vint mask, vfloat a, vfloat b)
{
    return (vfloat)(((vint)a & mask) | ((vint)b & ~mask));
}

/* max and min give b where either is NaN. */
SIMD_INLINE vfloat simd_max(vfloat a, vfloat b)
{
#if defined(__AVX512F__)
    return _mm512_max_ps(a, b);
#elif defined(__AVX2__)
    return _mm256_max_ps(a, b);
#elif defined(__SSE4_2__)
    return _mm_max_ps(a, b);
#else
    return simd_select(a > b, a, b);
#endif
}

SIMD_INLINE vfloat simd_min(vfloat a, vfloat b)
{
#if defined(__AVX512F__)
    return _mm512_min_ps(a, b);
#elif defined(__AVX2__)
    return _mm256_min_ps(a, b);
#elif defined(__SSE4_2__)
    return _mm_min_ps(a, b);
#else
    return simd_select(a < b, a, b);
#endif
}

SIMD_INLINE vfloat simd_sqrt(vfloat x)
{
#if defined(__AVX512F__)
    return _mm512_sqrt_ps(x);
#elif defined(__AVX2__)
    return _mm256_sqrt_ps(x);
#elif defined(__SSE4_2__)
    return _mm_sqrt_ps(x);
#else
    for (int i = 0; i < LANES; i++) {
        x[i] = sqrtf(x[i]);
    }
    return x;
#endif
}

/* Sum and maximum over the lanes, always in the same order: halves onto each other. */
SIMD_INLINE float simd_sum(vfloat x)
{
    float lane[LANES];
    memcpy(lane, &x, sizeof(lane));
    for (int width = LANES / 2; width > 0; width /= 2) {
        for (int i = 0; i < width; i++) {
            lane[i] += lane[i + width];
        }
    }
    return lane[0];
}

SIMD_INLINE float simd_max_lane(vfloat x)
{
    float lane[LANES];
    memcpy(lane, &x, sizeof(lane));
    for (int width = LANES / 2; width > 0; width /= 2) {
        for (int i = 0; i < width; i++) {
            lane[i] = lane[i] > lane[i + width] ? lane[i] : lane[i + width];
        }
    }
    return lane[0];
}

/* Lane i becomes lane index[i] of x, 0 <= index[i] < LANES. */
SIMD_INLINE vfloat simd_permute(vfloat x, vint index)
{
#if defined(__AVX512F__)
    return _mm512_permutexvar_ps((__m512i)index, x);
#elif defined(__AVX2__)
    return _mm256_permutevar8x32_ps(x, (__m256i)index);
#else
    vfloat permuted;
    for (int i = 0; i < LANES; i++) {
        permuted[i] = x[index[i]];
    }
    return permuted;
#endif
}

/* Whether any lane of a comparison holds. */
SIMD_INLINE bool simd_any(vint mask)
{
#if defined(__AVX512F__)
    return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#elif defined(__AVX2__)
    return _mm256_movemask_epi8((__m256i)mask) != 0;
#elif defined(__SSE4_2__)
    return _mm_movemask_epi8((__m128i)mask) != 0;
#else
    int32_t any = 0;
    for (int i = 0; i < LANES; i++) {
        any |= mask[i];
    }
    return any != 0;
#endif
}

/* The lower and the upper halves of two vectors, number by number in turn. */
#if defined(__AVX512F__)
#define SIMD_LOW_TURNS 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define SIMD_HIGH_TURNS 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif defined(__AVX2__)
#define SIMD_LOW_TURNS 0, 8, 1, 9, 2, 10, 3, 11
#define SIMD_HIGH_TURNS 4, 12, 5, 13, 6, 14, 7, 15
#else
#define SIMD_LOW_TURNS 0, 4, 1, 5
#define SIMD_HIGH_TURNS 2, 6, 3, 7
#endif

#if defined(__clang__)
#define SIMD_UNROLL _Pragma("clang loop unroll(full)")
#else
#define SIMD_UNROLL _Pragma("GCC unroll 32")
#endif

/* The square matrix of LANES rows turned over: after log2(LANES) rounds of interleaving row i with
 * row i + LANES/2 every number has changed places with its mirror image. */
SIMD_INLINE void simd_transpose(vfloat row[LANES])
{
    SIMD_UNROLL
    for (int round = 1; round < LANES; round *= 2) {
        vfloat turned[LANES];
        SIMD_UNROLL
        for (int i = 0; i < LANES / 2; i++) {
            turned[2 * i] = __builtin_shufflevector(row[i], row[i + LANES / 2], SIMD_LOW_TURNS);
            turned[2 * i + 1] =
                __builtin_shufflevector(row[i], row[i + LANES / 2], SIMD_HIGH_TURNS);
        }
        SIMD_UNROLL
        for (int i = 0; i < LANES; i++) {
            row[i] = turned[i];
        }
    }
}

/* -- memory -- */

SIMD_INLINE vfloat simd_load(const float *from)
{
    vfloat x;
    memcpy(&x, from, sizeof(x));
    return x;
}

SIMD_INLINE void simd_store(float *to, vfloat x)
{
    memcpy(to, &x, sizeof(x));
}

SIMD_INLINE vfloat simd_load_part(const float *from, int64_t count)
{
    if (count >= LANES) {
        return simd_load(from);
    }
#if defined(__AVX512F__)
    return _mm512_maskz_loadu_ps((__mmask16)((1U << count) - 1U), from);
#else
    vfloat x = {0};
    memcpy(&x, from, (size_t)count * sizeof(float));
    return x;
#endif
}

SIMD_INLINE void simd_store_part(float *to, vfloat x, int64_t count)
{
    if (count >= LANES) {
        simd_store(to, x);
        return;
    }
#if defined(__AVX512F__)
    _mm512_mask_storeu_ps(to, (__mmask16)((1U << count) - 1U), x);
#else
    memcpy(to, &x, (size_t)count * sizeof(float));
#endif
}

SIMD_INLINE vfloat simd_from_bf16(vhalf half)
{
#if defined(__AVX512F__)
    return (vfloat)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)half), 16);
#elif defined(__AVX2__)
    return (vfloat)_mm256_slli_epi32(_mm256_cvtepu16_epi32((__m128i)half), 16);
#else
    return (vfloat)(__builtin_convertvector(half, vuint) << 16);
#endif
}

/* To nearest, ties to even; a NaN stays one. */
SIMD_INLINE vhalf simd_to_bf16(vfloat x)
{
    vuint bits = (vuint)x;
    vuint rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
#if defined(__AVX512F__)
    __mmask16 is_nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    __m512i chosen = _mm512_mask_mov_epi32((__m512i)rounded, is_nan, _mm512_set1_epi32(0x7FC0));
    return (vhalf)_mm512_cvtepi32_epi16(chosen);
#else
    vuint is_nan = (vuint)(x != x);
    vuint chosen = (0x7FC0 & is_nan) | (rounded & ~is_nan);
#if defined(__AVX2__)
    __m256i packed = _mm256_packus_epi32((__m256i)chosen, (__m256i)chosen);
    return (vhalf)_mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, 0x08));
#else
    return __builtin_convertvector(chosen, vhalf);
#endif
#endif
}

SIMD_INLINE vfloat simd_load_bf16_part(const uint16_t *from, int64_t count)
{
    vhalf half = {0};
    if (count >= LANES) {
        memcpy(&half, from, sizeof(half));
        return simd_from_bf16(half);
    }
#if defined(__AVX512F__)
    return simd_from_bf16((vhalf)_mm256_maskz_loadu_epi16((__mmask16)((1U << count) - 1U), from));
#else
    for (int64_t i = 0; i < count; i++) {
        half[i] = from[i];
    }
    return simd_from_bf16(half);
#endif
}

SIMD_INLINE void simd_store_bf16_part(uint16_t *to, vfloat x, int64_t count)
{
    vhalf half = simd_to_bf16(x);
    if (count >= LANES) {
        memcpy(to, &half, sizeof(half));
        return;
    }
#if defined(__AVX512F__)
    _mm256_mask_storeu_epi16(to, (__mmask16)((1U << count) - 1U), (__m256i)half);
#else
    for (int64_t i = 0; i < count; i++) {
        to[i] = half[i];
    }
#endif
}

/* -- rows of either dtype; the branch is resolved where the dtype is a constant of the caller -- */

SIMD_INLINE const void *row_at(const struct tensor *tensor, int64_t row)
{
    return (const char *)tensor->data + (size_t)(row * tensor->stride) * dtype_bytes(tensor->dtype);
}

SIMD_INLINE void *row_of(const struct tensor *tensor, int64_t row)
{
    return (char *)tensor->data + (size_t)(row * tensor->stride) * dtype_bytes(tensor->dtype);
}

/* `count` lanes from element `first` of a row on */
SIMD_INLINE vfloat row_load(const void *row, enum dtype dtype, int64_t first, int64_t count)
{
    return dtype == DTYPE_BF16 ? simd_load_bf16_part((const uint16_t *)row + first, count)
                               : simd_load_part((const float *)row + first, count);
}

SIMD_INLINE void row_store(void *row, enum dtype dtype, int64_t first, vfloat x, int64_t count)
{
    if (dtype == DTYPE_BF16) {
        simd_store_bf16_part((uint16_t *)row + first, x, count);
    } else {
        simd_store_part((float *)row + first, x, count);
    }
}

SIMD_INLINE float row_get(const void *row, enum dtype dtype, int64_t i)
{
    if (dtype != DTYPE_BF16) {
        return ((const float *)row)[i];
    }
    uint32_t bits = (uint32_t)((const uint16_t *)row)[i] << 16;
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

/* -- functions -- */

/* 2 to the power of an integer: `shifted` is that integer + SIMD_SHIFT as a float, at least -127
 * (which gives 0). */
#define SIMD_SHIFT                                                                                 \
    12582912.0F /* 1.5 * 2^23: adding it leaves the rounded integer in the low bits */

SIMD_INLINE vfloat simd_power_of_two(vfloat shifted)
{
    vuint exponent = (vuint)shifted - (vuint)simd_set(SIMD_SHIFT);
    return (vfloat)((exponent + 127) << 23);
}

/* 2^x for x <= 0, to 1e-7 relative; 2^-126 for all x below, NaN stays NaN. The polynomial is a
 * least-maximum fit of 2^r on [-1/2, 1/2]; the rounded x lies in the low bits of `shifted`, from
 * where it becomes an exponent. */
SIMD_INLINE vfloat simd_exp2_score(vfloat x)
{
    x = simd_max(simd_set(-126.0F), x);
    vfloat shifted = x + SIMD_SHIFT;
    vfloat r = x - (shifted - SIMD_SHIFT);
    vfloat p = r * 1.5345812e-4F + 1.3399931e-3F;
    p = p * r + 9.618489e-3F;
    p = p * r + 5.5503286e-2F;
    p = p * r + 0.24022646F;
    p = p * r + 0.6931472F;
    p = p * r + 1.0F;
    return p * (vfloat)(((vuint)shifted << 23) + (vuint)simd_set(1.0F));
}

/* e^x to 1e-7 relative; 0 from -88 down, infinity from 88.4 up, NaN stays NaN. x is reduced in two
 * steps so that large x loses nothing. */
SIMD_INLINE vfloat simd_exp(vfloat x)
{
    x = simd_min(simd_set(89.0F), simd_max(simd_set(-87.8F), x));
    vfloat shifted = x * 1.44269504F + SIMD_SHIFT;
    vfloat n = shifted - SIMD_SHIFT;
    vfloat r = x - n * 0.693359375F; /* exact: few bits */
    r = r - n * -2.12194440e-4F;
    vfloat p = r * 1.3836838e-3F + 8.374822e-3F;
    p = p * r + 4.1668225e-2F;
    p = p * r + 0.1666642F;
    p = p * r + 0.4999999F;
    p = p * r + 1.0F;
    p = p * r + 1.0F;
    return p * simd_power_of_two(shifted);
}

#endif
