/* What the processor that this runs on can do, as its own answer to CPUID and the operating system
 * allow. */
#ifndef KERNELS_CPU_FEATURES_H
#define KERNELS_CPU_FEATURES_H

#include <stdbool.h>

struct cpu_features {
    bool x86_64_v2;   /* SSE4.2, POPCNT */
    bool x86_64_v3;   /* AVX2, FMA, BMI, F16C, LZCNT, MOVBE */
    bool x86_64_v4;   /* AVX-512 F, BW, CD, DQ, VL */
    bool avx512_bf16; /* products of bf16 pairs */
    bool amx_bf16;    /* products of bf16 tiles */
};

/* All false on a processor that is not x86-64. */
struct cpu_features cpu_features_read(void);

#endif
