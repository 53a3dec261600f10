#include "kernels/cpu/features.h"

#if defined(__x86_64__)
#include <cpuid.h>

enum {
    LEAF_FEATURES = 1,
    LEAF_EXTENDED = 7,
    ECX_MOVBE = 1 << 22,
    ECX_F16C = 1 << 29,
    EXTENDED_ECX_LZCNT = 1 << 5,
    EDX_AMX_BF16 = 1 << 22,
    EAX_AVX512_BF16 = 1 << 5,
};

/* The features of x86-64-v3 for which the compiler's own test has no name. */
static bool has_v3_extras(void)
{
    unsigned eax = 0;
    unsigned ebx = 0;
    unsigned ecx = 0;
    unsigned edx = 0;
    if (__get_cpuid(LEAF_FEATURES, &eax, &ebx, &ecx, &edx) == 0) {
        return false;
    }
    bool extras = (ecx & ECX_MOVBE) != 0 && (ecx & ECX_F16C) != 0;
    if (__get_cpuid(0x80000001u, &eax, &ebx, &ecx, &edx) == 0) {
        return false;
    }
    return extras && (ecx & EXTENDED_ECX_LZCNT) != 0;
}

struct cpu_features cpu_features_read(void)
{
    struct cpu_features features = {0};
    unsigned eax = 0;
    unsigned ebx = 0;
    unsigned ecx = 0;
    unsigned edx = 0;
    __builtin_cpu_init();
    features.x86_64_v2 =
        __builtin_cpu_supports("sse4.2") != 0 && __builtin_cpu_supports("popcnt") != 0;
    features.x86_64_v3 = features.x86_64_v2 && __builtin_cpu_supports("avx2") != 0 &&
                         __builtin_cpu_supports("fma") != 0 && __builtin_cpu_supports("bmi") != 0 &&
                         __builtin_cpu_supports("bmi2") != 0 && has_v3_extras();
    features.x86_64_v4 =
        features.x86_64_v3 && __builtin_cpu_supports("avx512f") != 0 &&
        __builtin_cpu_supports("avx512bw") != 0 && __builtin_cpu_supports("avx512cd") != 0 &&
        __builtin_cpu_supports("avx512dq") != 0 && __builtin_cpu_supports("avx512vl") != 0;
    if (features.x86_64_v4 && __get_cpuid_count(LEAF_EXTENDED, 0, &eax, &ebx, &ecx, &edx) != 0) {
        features.amx_bf16 = (edx & EDX_AMX_BF16) != 0;
    }
    if (features.x86_64_v4 && __get_cpuid_count(LEAF_EXTENDED, 1, &eax, &ebx, &ecx, &edx) != 0) {
        features.avx512_bf16 = (eax & EAX_AVX512_BF16) != 0;
    }
    return features;
}

#else

struct cpu_features cpu_features_read(void)
{
    struct cpu_features features = {0};
    return features;
}

#endif
