/* A view of numbers on a compute device. It owns nothing; who allocated the memory frees it. */
#ifndef KERNELS_TENSOR_H
#define KERNELS_TENSOR_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum dtype { DTYPE_F32, DTYPE_BF16, DTYPE_I32, DTYPE_COUNT };

static inline size_t dtype_bytes(enum dtype dtype)
{
    return dtype == DTYPE_BF16 ? 2 : 4;
}

/* Row-major matrix; element (r, c) is at data[r * stride + c]. A vector is one row. */
struct tensor {
    void *data; /* on the device */
    enum dtype dtype;
    int64_t rows;
    int64_t cols;
    int64_t stride; /* elements from one row to the next, >= cols */
};

static inline struct tensor tensor_matrix(void *data, enum dtype dtype, int64_t rows, int64_t cols)
{
    struct tensor view = {data, dtype, rows, cols, cols};
    return view;
}

static inline struct tensor tensor_rows(struct tensor whole, int64_t first, int64_t count)
{
    struct tensor view = whole;
    view.data = (char *)whole.data + (size_t)(first * whole.stride) * dtype_bytes(whole.dtype);
    view.rows = count;
    return view;
}

static inline struct tensor tensor_cols(struct tensor whole, int64_t first, int64_t count)
{
    struct tensor view = whole;
    view.data = (char *)whole.data + (size_t)first * dtype_bytes(whole.dtype);
    view.cols = count;
    return view;
}

static inline size_t tensor_bytes(struct tensor view) /* of a contiguous view */
{
    return (size_t)view.rows * (size_t)view.cols * dtype_bytes(view.dtype);
}

#ifdef __cplusplus
}
#endif
#endif
