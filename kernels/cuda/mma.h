/* The tensor cores' products of small bf16 matrices, and what feeds them: one function an
 * instruction, so that a build for the host can give each the same meaning
 * (tests/cuda_on_cpu/mma_on_cpu.h). Layouts: PTX ISA, "Matrix Fragments for mma.m16n8k16" and
 * "ldmatrix". All 32 lanes take part.
 *
 * With lane = 4 * g + t (g = 0..7, t = 0..3), pairs in one word with the lower column in the lower
 * half: a, 16x16 bf16  a[0] = (g, 2t..2t+1)  a[1] = (g+8, 2t..)  a[2] = (g, 2t+8..)  a[3] = (g+8,
 * 2t+8..) b, 16x8 bf16   b[0] = (2t..2t+1, g)  b[1] = (2t+8.., g)          (row k, column n) d,
 * 16x8 f32    d[0..1] = (g, 2t..2t+1)  d[2..3] = (g+8, 2t..2t+1) */
#ifndef KERNELS_CUDA_MMA_H
#define KERNELS_CUDA_MMA_H

#include <cuda_runtime.h>
#include <stdint.h>

#ifdef TREX_CUDA_ON_CPU
#include "mma_on_cpu.h"
#else

/* d += a b */
__device__ __forceinline__ void mma_16x8x16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                            uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ uint32_t shared_address(const void *shared)
{
    return (uint32_t)__cvta_generic_to_shared(shared);
}

/* Four 8x8 matrices of 16-bit numbers from shared memory. Lane 8*i + r gives the address of row r
 * (16 aligned bytes) of matrix i; r[i] gets of matrix i the pair (row lane/4, columns
 * 2*(lane%4)..). */
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/* The same of the transposed matrices: r[i] gets (rows 2*(lane%4).., column lane/4). */
__device__ __forceinline__ void ldmatrix_x4_transposed(uint32_t (&r)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

/* Starts copying 16 aligned bytes from device to shared memory; zeros instead if not `valid` (then
 * `from` is not read). copy_commit closes a group of copies; copy_wait<n> waits until at most the n
 * latest groups are under way. What other threads copied is seen after copy_wait and __syncthreads.
 */
__device__ __forceinline__ void copy_16_bytes(void *to_shared, const void *from, bool valid)
{
    const int bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to_shared)),
                 "l"(from), "r"(bytes)
                 : "memory");
}

__device__ __forceinline__ void copy_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int GROUPS> __device__ __forceinline__ void copy_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory");
}
#endif

/* 2^x in one instruction where exp2f takes four: what lies below 2^-126 becomes zero. */
__device__ __forceinline__ float exp2_flushed(float x)
{
#ifdef TREX_CUDA_ON_CPU
    return exp2f(x);
#else
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

#endif
