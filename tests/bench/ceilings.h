/* What this machine's processor reaches at best: fused multiply-adds and copies, by its threads. */
#ifndef BENCH_CEILINGS_H
#define BENCH_CEILINGS_H

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/clock.h"
#include "base/mem.h"

enum { FMA_CHAINS = 12, FMA_ROUNDS = 1 << 19 };

#if defined(__x86_64__)
/* The chains are written out so that no compiler keeps them in memory. */
#define FMA_LOOP(type, set, fma)                                                                   \
    type a = set(1.0F), b = set(2.0F), c = set(3.0F), d = set(4.0F), e = set(5.0F), f = set(6.0F); \
    type g = set(7.0F), h = set(8.0F), i = set(9.0F), j = set(10.F), k = set(11.F), l = set(12.F); \
    const type x = set(factor);                                                                    \
    for (int round = 0; round < FMA_ROUNDS; round++) {                                             \
        a = fma(a, x, x), b = fma(b, x, x), c = fma(c, x, x), d = fma(d, x, x);                    \
        e = fma(e, x, x), f = fma(f, x, x), g = fma(g, x, x), h = fma(h, x, x);                    \
        i = fma(i, x, x), j = fma(j, x, x), k = fma(k, x, x), l = fma(l, x, x);                    \
    }                                                                                              \
    const type sum = (a + b + c + d) + (e + f + g + h) + (i + j + k + l);                          \
    return sum[0]

__attribute__((target("avx512f"))) static float chain_wide(float factor)
{
    FMA_LOOP(__m512, _mm512_set1_ps, _mm512_fmadd_ps);
}

__attribute__((target("avx2,fma"))) static float chain_narrow(float factor)
{
    FMA_LOOP(__m256, _mm256_set1_ps, _mm256_fmadd_ps);
}

static inline double chains_flop(float *sum)
{
    if (__builtin_cpu_supports("avx512f") != 0) {
        *sum += chain_wide(0.5F);
        return 2.0 * 16.0 * FMA_CHAINS * FMA_ROUNDS;
    }
    if (__builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0) {
        *sum += chain_narrow(0.5F);
        return 2.0 * 8.0 * FMA_CHAINS * FMA_ROUNDS;
    }
    return 0.0;
}
#else
static inline double chains_flop(float *sum)
{
    *sum += 1.0F;
    return 0.0; /* no loop for this processor: fractions are printed as 0 */
}
#endif

static inline double measure_peak_gflops(int threads)
{
    double best = 0.0;
    float sum = 0.0F;
    for (int run = 0; run < 5; run++) {
        double flop = 0.0;
        double start_s = clock_monotonic_s();
#pragma omp parallel num_threads(threads) reduction(+ : flop, sum)
        flop += chains_flop(&sum);
        best = fmax(best, flop / (clock_monotonic_s() - start_s) * 1e-9);
    }
    return sum == 0.0F ? 0.0 : best;
}

static inline double measure_copy_gbs(int threads)
{
    const size_t bytes = (size_t)256 << 20;
    char *from = mem_aligned(bytes, 1);
    char *to = mem_aligned(bytes, 1);
    double best = 0.0;
    if (from == NULL || to == NULL) {
        free(from);
        free(to);
        return 0.0;
    }
    memset(from, 1, bytes);
    memset(to, 2, bytes);
    for (int run = 0; run < 5; run++) {
        double start_s = clock_monotonic_s();
#pragma omp parallel for num_threads(threads) schedule(static)
        for (size_t piece = 0; piece < 256; piece++) {
            memcpy(to + piece * (bytes / 256), from + piece * (bytes / 256), bytes / 256);
        }
        best = fmax(best, 2.0 * (double)bytes / (clock_monotonic_s() - start_s) * 1e-9);
    }
    free(from);
    free(to);
    return best;
}

#endif
