/* A matrix product without the library. */
#ifndef KERNELS_CUDA_MATMUL_PLAIN_H
#define KERNELS_CUDA_MATMUL_PLAIN_H

#include "kernels/ops.h"

/* c = alpha * op(a) op(b) + beta * c as in ops.matmul; no size is zero. */
void cuda_matmul_plain(struct device *device, struct tensor c, struct tensor a, bool transpose_a,
                       struct tensor b, bool transpose_b, float alpha, float beta);

#endif
