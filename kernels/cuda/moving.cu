/* Copy, fill, add, scale and sums of losses: limited by memory alone.
 *
 * Bytes a number, for the floor: copy from + to, add 2 to + from, scale 2 to, fill to, where each
 * dtype counts 2 or 4; one operation a number. On an H200 (4.3 TB/s) a copy of a 64 MiB bf16
 * activation takes at least 31 microseconds.
 *
 * A tensor without gaps is one long row. A thread does ITEMS accesses of up to 8 numbers, all loads
 * before the first store, so that 16 KiB a block are under way. */
#include <assert.h>

#include "kernels/cuda/access.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/operations.h"
#include "kernels/cuda/partial_sums.h"

constexpr int THREADS = 256;
constexpr int ITEMS = 4;

enum change { CHANGE_COPY, CHANGE_ADD, CHANGE_SCALE, CHANGE_FILL };

/* The numbers before the change; `from` is read by copy and add alone. */
template <enum change CHANGE, typename To, typename From, int WIDTH>
static __device__ inline void change_load(const To *to, const From *from, float (&x)[WIDTH])
{
    if constexpr (CHANGE == CHANGE_COPY) {
        span_load(from, x);
    } else if constexpr (CHANGE == CHANGE_SCALE) {
        span_load(to, x);
    } else if constexpr (CHANGE == CHANGE_ADD) {
        float y[WIDTH];
        span_load(to, x);
        span_load(from, y);
#pragma unroll
        for (int i = 0; i < WIDTH; i++) {
            x[i] += y[i];
        }
    }
}

template <enum change CHANGE, typename To, int WIDTH>
static __device__ inline void change_store(To *to, float (&x)[WIDTH], float factor)
{
#pragma unroll
    for (int i = 0; i < WIDTH; i++) {
        if constexpr (CHANGE == CHANGE_SCALE) {
            x[i] *= factor;
        } else if constexpr (CHANGE == CHANGE_FILL) {
            x[i] = factor;
        }
    }
    span_store(to, x);
}

/* Item number i is WIDTH numbers of a row; the last numbers of a single row that fill no item are
 * done by the first block, one a thread. */
template <enum change CHANGE, typename To, typename From, int WIDTH>
static __global__ void __launch_bounds__(THREADS)
    change_kernel(struct tensor to, struct tensor from, float factor)
{
    To *const t = (To *)to.data;
    const From *const f = (const From *)from.data;
    const int64_t per_row = to.cols / WIDTH;
    const int64_t items = to.rows * per_row;
    const int64_t first = (int64_t)blockIdx.x * (THREADS * ITEMS) + threadIdx.x;
    int64_t to_at[ITEMS];
    float x[ITEMS][WIDTH];
#pragma unroll
    for (int k = 0; k < ITEMS; k++) { /* past the end: the last item, loaded and not stored */
        const int64_t item = min(first + k * THREADS, items - 1);
        struct place at = {0, item};
        if (to.rows > 1) {
            at = place_of(item, per_row);
        }
        to_at[k] = at.row * to.stride + at.part * WIDTH;
        change_load<CHANGE>(t + to_at[k], f + at.row * from.stride + at.part * WIDTH, x[k]);
    }
#pragma unroll
    for (int k = 0; k < ITEMS; k++) {
        if (first + k * THREADS < items) {
            change_store<CHANGE>(t + to_at[k], x[k], factor);
        }
    }
    const int64_t rest = items * WIDTH + threadIdx.x;
    if (to.rows == 1 && blockIdx.x == 0 && rest < to.cols) {
        float one[1];
        change_load<CHANGE>(t + rest, f + rest, one);
        change_store<CHANGE>(t + rest, one, factor);
    }
}

/* from is `to` itself for the changes that read no other. */
template <enum change CHANGE, typename To, typename From>
static void change_typed(struct device *device, const char *name, struct tensor to,
                         struct tensor from, float factor)
{
    /* packs of both; 8 numbers of f32 are two of them */
    constexpr int WIDTH = pack<To>::SIZE > pack<From>::SIZE ? pack<To>::SIZE : pack<From>::SIZE;
    if (to.stride == to.cols && from.stride == from.cols) {
        to = tensor_matrix(to.data, to.dtype, 1, to.rows * to.cols);
        from = tensor_matrix(from.data, from.dtype, 1, to.cols);
    }
    const bool one = to.rows == 1; /* then its stride does not matter */
    const bool aligned = one ? (uintptr_t)to.data % 16 == 0 && (uintptr_t)from.data % 16 == 0
                             : rows_aligned(to) && rows_aligned(from);
    const bool packed = aligned && (one ? to.cols >= WIDTH : to.cols % WIDTH == 0);
    const int64_t items = to.rows * (packed ? to.cols / WIDTH : to.cols);
    cuda_launch(device, name,
                packed ? change_kernel<CHANGE, To, From, WIDTH>
                       : change_kernel<CHANGE, To, From, 1>,
                cuda_blocks(items, THREADS * ITEMS), THREADS, 0, to, from, factor);
}

template <enum change CHANGE>
static void change_pair(struct device *device, const char *name, struct tensor to,
                        struct tensor from)
{
    if (to.dtype == DTYPE_BF16 && from.dtype == DTYPE_BF16) {
        change_typed<CHANGE, bf16, bf16>(device, name, to, from, 0.0F);
    } else if (to.dtype == DTYPE_BF16) {
        change_typed<CHANGE, bf16, float>(device, name, to, from, 0.0F);
    } else if (from.dtype == DTYPE_BF16) {
        change_typed<CHANGE, float, bf16>(device, name, to, from, 0.0F);
    } else {
        change_typed<CHANGE, float, float>(device, name, to, from, 0.0F);
    }
}

template <enum change CHANGE>
static void change_one(struct device *device, const char *name, struct tensor to, float factor)
{
    if (to.dtype == DTYPE_BF16) {
        change_typed<CHANGE, bf16, bf16>(device, name, to, to, factor);
    } else {
        change_typed<CHANGE, float, float>(device, name, to, to, factor);
    }
}

void cuda_copy(struct device *device, struct tensor to, struct tensor from)
{
    assert(to.rows == from.rows && to.cols == from.cols);
    assert((to.dtype == DTYPE_I32) == (from.dtype == DTYPE_I32));
    if (to.dtype == DTYPE_I32) { /* the same bytes; no operation looks at them as numbers */
        to.dtype = DTYPE_F32;
        from.dtype = DTYPE_F32;
    }
    change_pair<CHANGE_COPY>(device, "copy", to, from);
}

void cuda_fill(struct device *device, struct tensor to, float value)
{
    assert(to.dtype != DTYPE_I32);
    change_one<CHANGE_FILL>(device, "fill", to, value);
}

void cuda_add(struct device *device, struct tensor to, struct tensor from)
{
    assert(to.rows == from.rows && to.cols == from.cols);
    assert(to.dtype != DTYPE_I32 && from.dtype != DTYPE_I32);
    change_pair<CHANGE_ADD>(device, "add", to, from);
}

void cuda_scale(struct device *device, struct tensor to, float factor)
{
    assert(to.dtype != DTYPE_I32);
    change_one<CHANGE_SCALE>(device, "scale", to, factor);
}

/* -- accumulate -- */

constexpr int ACCUMULATE_THREADS = 1024;
constexpr int64_t ACCUMULATE_EACH = 32 * ACCUMULATE_THREADS;

/* Each block sums its share of the values: into its part, or, where there is one block alone,
 * into the total. */
template <typename T>
static __global__ void __launch_bounds__(ACCUMULATE_THREADS)
    accumulate_kernel(double *parts, double *total, const T *values, int64_t count, int64_t each)
{
    __shared__ double shared[WARP];
    const int64_t first = (int64_t)blockIdx.x * each;
    const int64_t end = min(first + each, count);
    double sum = 0.0;
#pragma unroll 4
    for (int64_t i = first + threadIdx.x; i < end; i += ACCUMULATE_THREADS) {
        sum += (double)values[i];
    }
    sum = block_total(sum, shared);
    if (threadIdx.x == 0) {
        if (total != NULL) {
            *total += sum;
        } else {
            parts[blockIdx.x] = sum;
        }
    }
}

void cuda_accumulate(struct device *device, double *total, const float *values, int64_t count)
{
    if (cuda_failed(device) || count == 0) {
        return;
    }
    double *const none = NULL;
    const int64_t blocks = (count + ACCUMULATE_EACH - 1) / ACCUMULATE_EACH;
    if (blocks == 1) {
        cuda_launch(device, "accumulate", accumulate_kernel<float>, dim3(1), ACCUMULATE_THREADS, 0,
                    none, total, values, count, count);
        return;
    }
    double *parts = (double *)cuda_scratch(device, blocks, sizeof(*parts), "accumulate");
    if (parts == NULL) {
        return;
    }
    cuda_launch(device, "accumulate", accumulate_kernel<float>, dim3((unsigned)blocks),
                ACCUMULATE_THREADS, 0, parts, none, values, count, ACCUMULATE_EACH);
    cuda_launch(device, "accumulate", accumulate_kernel<double>, dim3(1), ACCUMULATE_THREADS, 0,
                none, total, (const double *)parts, blocks, blocks);
}
