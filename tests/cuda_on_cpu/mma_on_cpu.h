/* What kernels/cuda/mma.h does with tensor cores and asynchronous copies, by plain loops; layouts
 * as stated there. */
#ifndef MMA_ON_CPU_H
#define MMA_ON_CPU_H

#include <cuda_runtime.h>

#include "on_cpu/warp.h"

/* d += a b, summed in f32. */
void on_cpu_mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, on_cpu_site site);
void on_cpu_ldmatrix(uint32_t (&r)[4], const void *row, bool transposed, on_cpu_site site);
/* A copy is done when it is waited for; until then its target is full of NaNs. */
void on_cpu_copy_16_bytes(void *to_shared, const void *from, bool valid, on_cpu_site site);
void on_cpu_copy_commit();
void on_cpu_copy_wait(int groups);

static inline void mma_16x8x16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                               ON_CPU_HERE)
{
    on_cpu_mma(d, a, b0, b1, {"mma_16x8x16", file, line});
}

static inline void ldmatrix_x4(uint32_t (&r)[4], const void *row, ON_CPU_HERE)
{
    on_cpu_ldmatrix(r, row, false, {"ldmatrix_x4", file, line});
}

static inline void ldmatrix_x4_transposed(uint32_t (&r)[4], const void *row, ON_CPU_HERE)
{
    on_cpu_ldmatrix(r, row, true, {"ldmatrix_x4_transposed", file, line});
}

static inline void copy_16_bytes(void *to_shared, const void *from, bool valid, ON_CPU_HERE)
{
    on_cpu_copy_16_bytes(to_shared, from, valid, {"copy_16_bytes", file, line});
}

static inline void copy_commit()
{
    on_cpu_copy_commit();
}

template <int GROUPS> static inline void copy_wait()
{
    on_cpu_copy_wait(GROUPS);
}

#endif
