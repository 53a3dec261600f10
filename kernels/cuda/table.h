/* The backend's table, for the one who opens a device. */
#ifndef KERNELS_CUDA_TABLE_H
#define KERNELS_CUDA_TABLE_H

#include "kernels/ops.h"

extern const struct ops cuda_ops;

#endif
