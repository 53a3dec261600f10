/* Cross-entropy of rows of logits, and its gradient in their place.
 *
 * One pass finds log(sum(exp(x))): every thread keeps the largest number it has seen and the sum
 * relative to that (arXiv 1805.02867). The gradient is a second pass: factor * (exp(x - lse) - [i
 * is the target]).
 *
 * Bytes, bf16, n * V logits: 2 without and 4 with gradient. The second pass finds its row in shared
 * memory as far as it fits (two thirds of a row of 151,936 in bf16, of one block an SM) and the
 * rest, 10 MB over all SMs, in the L2 cache. For n = 256, V = 151,936 on an H200 (4.3 TB/s): 18 and
 * 36 microseconds. Each pass takes an exponential and 10 instructions a number in all: 11
 * microseconds of the special function units and 13 of the SMs, beside the memory. */
#include <assert.h>

#include "kernels/cuda/access.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/mma.h"
#include "kernels/cuda/operations.h"
#include "kernels/cuda/partial_sums.h"

constexpr int THREADS_MAX = 1024;
constexpr int AHEAD = 4; /* accesses of a thread that are under way at once */

/* bf16 logits have three digits: the quick exponential keeps six, in half the instructions of
 * __expf, which saves numbers below 2^-126. */
template <typename T> static __device__ inline float exponential(float x)
{
    return exp2_flushed(x * 1.44269504F); /* log2(e) */
}

template <> __device__ inline float exponential<float>(float x)
{
    return expf(x);
}

/* What a thread knows of the numbers it has seen. */
struct running {
    float top; /* the largest; finite at first, so that -inf - top is never inf - inf */
    float sum; /* of exp(x - top) */
};

/* Adds up to COUNT numbers: on their own first, for a long sum of small numbers loses digits. NaN
 * is lost in `top`, but not in `sum`. */
template <typename T, int COUNT>
static __device__ inline void running_add(struct running *running, const float (&x)[COUNT])
{
    float top = x[0];
#pragma unroll
    for (int i = 1; i < COUNT; i++) {
        top = fmaxf(top, x[i]);
    }
    if (top > running->top) {
        running->sum *= exponential<T>(running->top - top);
        running->top = top;
    }
    float sum = 0.0F;
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
        sum += exponential<T>(x[i] - running->top);
    }
    running->sum += sum;
}

/* How a row is reached: by packs, raw until they are used, or number by number. */
template <typename T, bool PACKED> struct reach {
    typedef uint4 raw;
    static constexpr int WIDTH = pack<T>::SIZE;
};
template <typename T> struct reach<T, false> {
    typedef T raw;
    static constexpr int WIDTH = 1;
};

static __device__ inline void raw_numbers(const float *raw, float (&x)[1])
{
    x[0] = number_load(raw);
}

static __device__ inline void raw_numbers(const bf16 *raw, float (&x)[1])
{
    x[0] = number_load(raw);
}

static __device__ inline void raw_numbers(const uint4 *raw, float (&x)[4])
{
    pack_load((const float *)raw, x);
}

static __device__ inline void raw_numbers(const uint4 *raw, float (&x)[8])
{
    pack_load((const bf16 *)raw, x);
}

/* The first pass of a thread; the first `kept` raws of the row go into shared memory. */
template <typename T, bool PACKED>
static __device__ inline struct running
first_pass(const typename reach<T, PACKED>::raw *row, int64_t count,
           typename reach<T, PACKED>::raw *shared, int64_t kept)
{
    struct running running = {-CUDART_MAX_NORMAL_F, 0.0F};
    const int64_t step = blockDim.x;
    for (int64_t first = threadIdx.x; first < count; first += AHEAD * step) {
        typename reach<T, PACKED>::raw raw[AHEAD];
#pragma unroll
        for (int k = 0; k < AHEAD; k++) { /* past the end: the last one, not looked at below */
            raw[k] = row[min(first + k * step, count - 1)];
        }
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            const int64_t at = first + k * step;
            if (at < kept) {
                shared[at] = raw[k];
            }
            if (at < count) {
                float x[reach<T, PACKED>::WIDTH];
                raw_numbers(&raw[k], x);
                running_add<T>(&running, x);
            }
        }
    }
    return running;
}

/* log(sum(exp)) of the row from what its threads know. */
template <typename T>
static __device__ inline float log_sum_exp(struct running running, float *shared)
{
    float top = warp_max(running.top); /* never NaN */
    if (threadIdx.x % WARP == 0) {
        shared[threadIdx.x / WARP] = top;
    }
    __syncthreads();
    for (int warp = 0; warp < (int)blockDim.x / WARP; warp++) {
        top = fmaxf(top, shared[warp]);
    }
    __syncthreads();
    const float sum = running.sum * exponential<T>(running.top - top);
    return top + logf(block_total(sum, shared));
}

struct gradient {
    float lse;
    float factor;
    int64_t target;
    float at_target; /* the gradient there */
};

/* The second pass over raws first..end-1 of the row, which lie at `from` (from[0] is the first). */
template <typename T, bool PACKED>
static __device__ inline void second_pass(T *row, const typename reach<T, PACKED>::raw *from,
                                          int64_t first, int64_t end,
                                          const struct gradient &gradient)
{
    constexpr int WIDTH = reach<T, PACKED>::WIDTH;
    const int64_t step = blockDim.x;
    for (int64_t start = first + threadIdx.x; start < end; start += AHEAD * step) {
        typename reach<T, PACKED>::raw raw[AHEAD];
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            raw[k] = from[min(start + k * step, end - 1) - first];
        }
#pragma unroll
        for (int k = 0; k < AHEAD; k++) {
            const int64_t at = (start + k * step) * WIDTH;
            float x[WIDTH];
            raw_numbers(&raw[k], x);
#pragma unroll
            for (int i = 0; i < WIDTH; i++) {
                x[i] = exponential<T>(x[i] - gradient.lse) * gradient.factor;
            }
            if (at <= gradient.target && gradient.target < at + WIDTH) {
#pragma unroll
                for (int i = 0; i < WIDTH; i++) { /* no index: x stays in registers */
                    x[i] = at + i == gradient.target ? gradient.at_target : x[i];
                }
            }
            if (start + k * step < end) {
                span_store(row + at, x);
            }
        }
    }
}

/* One block a row. `shared_raws` of the row fit in the block's dynamic shared memory. */
template <typename T, bool PACKED>
static __global__ void __launch_bounds__(THREADS_MAX)
    cross_entropy_kernel(float *loss, struct tensor logits, const int32_t *target, float factor,
                         bool with_gradient, int64_t shared_raws, struct cuda_fault *fault)
{
    typedef typename reach<T, PACKED>::raw raw;
    __shared__ float sums[WARP];
    SHARED_BYTES(shared);
    const int64_t r = blockIdx.x;
    const int64_t count = logits.cols / reach<T, PACKED>::WIDTH;
    T *const row = (T *)logits.data + r * logits.stride;
    const int32_t own = target[r];
    if (own < -1 || own >= logits.cols) {
        if (threadIdx.x == 0) {
            fault_report(fault, CUDA_FAULT_TARGET, r, own, logits.cols);
        }
        return;
    }
    if (own < 0) {
        const float zeros[reach<T, PACKED>::WIDTH] = {};
        for (int64_t i = threadIdx.x; i < count && with_gradient; i += blockDim.x) {
            span_store(row + i * reach<T, PACKED>::WIDTH, zeros);
        }
        if (threadIdx.x == 0) {
            loss[r] = 0.0F;
        }
        return;
    }
    const float x = number_load(row + own); /* before the second pass changes it */
    const struct running running =
        first_pass<T, PACKED>((const raw *)row, count, (raw *)shared, shared_raws);
    const float lse = log_sum_exp<T>(running, sums);
    if (threadIdx.x == 0) {
        loss[r] = lse - x;
    }
    if (with_gradient) { /* expm1 keeps the digits of p - 1 when the target is nearly certain */
        const float spoiled = factor + (lse - x) * 0.0F; /* NaN where the loss is not finite */
        const struct gradient gradient = {lse, spoiled, own, expm1f(x - lse) * spoiled};
        second_pass<T, PACKED>(row, (const raw *)row + shared_raws, shared_raws, count, gradient);
        second_pass<T, PACKED>(row, (const raw *)shared, 0, shared_raws, gradient);
    }
}

void cuda_cross_entropy(struct device *device, float *loss, struct tensor logits,
                        const int32_t *target, float factor, bool gradient)
{
    assert(logits.dtype != DTYPE_I32);
    const bool is_bf16 = logits.dtype == DTYPE_BF16;
    const enum way way = way_of(&logits, 1, logits.cols);
    const int64_t count = logits.cols / way_width(way);
    const int64_t warps = (count + AHEAD * WARP - 1) / (AHEAD * WARP);
    const unsigned threads = (unsigned)(warps < THREADS_MAX / WARP ? warps * WARP : THREADS_MAX);
    int64_t shared_raws = 0;
    if (gradient && way != WAY_MIXED) {
        const int64_t room = ((int64_t)cuda_of(device)->shared_max_bytes - 1024) / 16;
        shared_raws = count < room ? count : room;
    }
    cuda_launch(device, "cross_entropy",
                way == WAY_BF16  ? cross_entropy_kernel<bf16, true>
                : way == WAY_F32 ? cross_entropy_kernel<float, true>
                : is_bf16        ? cross_entropy_kernel<bf16, false>
                                 : cross_entropy_kernel<float, false>,
                cuda_blocks(logits.rows, 1), threads, (size_t)shared_raws * 16, loss, logits,
                target, factor, gradient, shared_raws, cuda_of(device)->fault);
}
