/* RMSNorm over rows, forward with the residual sum fused in, and backward. Source: arXiv
 * 1910.07467.
 *
 * Backward: with y = x * r * w and g = d_out * w,  d_x = r * (g - x * r^2 * mean(g * x)),  d_w =
 * sum d_out * x * r.
 *
 * Bytes a number, bf16: forward 4, with the residual 8 (x and residual in, x and out out), backward
 * 8 (d_out, x, d_x in, d_x out). For N = 16,384, C = 2,048 on an H200 (4.3 TB/s): 31, 62 and 62
 * microseconds, and 2 more for the second step of d_weight. About 5 and 10 operations a number: far
 * below what the SMs can do meanwhile.
 *
 * A row is held in registers by a group of threads, each with a few accesses of 16 bytes, all under
 * way at once; so each number is read once. Longer rows than that are read again in a second round
 * of accesses, which the caches serve. */
#include <assert.h>

#include "kernels/cuda/access.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/operations.h"
#include "kernels/cuda/partial_sums.h"

constexpr int THREADS_MAX = 512;

/* Threads for a row of `accesses`, of which one thread holds `packs`. */
static unsigned row_threads(int64_t accesses, int packs)
{
    const int64_t warps = (accesses + packs * WARP - 1) / (packs * WARP);
    return (unsigned)(warps < THREADS_MAX / WARP ? warps : THREADS_MAX / WARP) * WARP;
}

/* Loads the accesses of one thread from a row: those at column, column + step, ...; zeros past its
 * end. */
template <typename T, int PACKS>
static __device__ inline void part_load(const struct tensor &from, int64_t row, int64_t column,
                                        int64_t step, float (&to)[PACKS][access<T>::WIDTH])
{
    constexpr int WIDTH = access<T>::WIDTH;
#pragma unroll
    for (int p = 0; p < PACKS;
         p++) { /* a load in any case: no branch keeps the next from starting */
        tensor_load<T>(from, row, min(column + p * step, from.cols - WIDTH), to[p]);
    }
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
#pragma unroll
        for (int i = 0; i < WIDTH; i++) {
            to[p][i] = column + p * step < from.cols ? to[p][i] : 0.0F;
        }
    }
}

template <typename T, int PACKS>
static __device__ inline void part_store(const struct tensor &to, int64_t row, int64_t column,
                                         int64_t step, const float (&from)[PACKS][access<T>::WIDTH])
{
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        if (column + p * step < to.cols) {
            tensor_store<T>(to, row, column + p * step, from[p]);
        }
    }
}

/* -- forward: one block a row -- */

constexpr int FORWARD_PACKS = 4;

/* x += residual, as it will be stored. */
template <typename T>
static __device__ inline void add_residual(const struct tensor &x, const struct tensor &residual,
                                           int64_t row, int64_t column, int64_t step,
                                           float (&v)[FORWARD_PACKS][access<T>::WIDTH])
{
    float added[FORWARD_PACKS][access<T>::WIDTH];
    part_load<T>(residual, row, column, step, added);
#pragma unroll
    for (int p = 0; p < FORWARD_PACKS; p++) {
#pragma unroll
        for (int i = 0; i < access<T>::WIDTH; i++) {
            v[p][i] = tensor_round<T>(x, v[p][i] + added[p][i]);
        }
    }
    part_store<T>(x, row, column, step, v);
}

/* residual.data may be NULL. */
template <typename T>
static __global__ void __launch_bounds__(THREADS_MAX)
    forward_kernel(struct tensor out, float *rstd, struct tensor x, struct tensor residual,
                   struct tensor weight, float epsilon)
{
    constexpr int WIDTH = access<T>::WIDTH;
    __shared__ float shared[WARP];
    const int64_t row = blockIdx.x;
    const int64_t step = blockDim.x * WIDTH;
    const int64_t start = threadIdx.x * WIDTH;
    float v[FORWARD_PACKS][WIDTH];
    float squares = 0.0F;
    for (int64_t round = 0; round < x.cols; round += FORWARD_PACKS * step) {
        part_load<T>(x, row, round + start, step, v);
        if (residual.data != NULL) {
            add_residual<T>(x, residual, row, round + start, step, v);
        }
#pragma unroll
        for (int p = 0; p < FORWARD_PACKS; p++) {
#pragma unroll
            for (int i = 0; i < WIDTH; i++) {
                squares += v[p][i] * v[p][i];
            }
        }
    }
    const float scale = 1.0F / sqrtf(block_total(squares, shared) / (float)x.cols + epsilon);
    for (int64_t round = 0; round < x.cols; round += FORWARD_PACKS * step) {
        if (FORWARD_PACKS * step < x.cols) { /* v holds the last round alone */
            part_load<T>(x, row, round + start, step, v);
        }
        float w[FORWARD_PACKS][WIDTH];
        part_load<T>(weight, 0, round + start, step, w);
#pragma unroll
        for (int p = 0; p < FORWARD_PACKS; p++) {
#pragma unroll
            for (int i = 0; i < WIDTH; i++) {
                w[p][i] *= v[p][i] * scale;
            }
        }
        part_store<T>(out, row, round + start, step, w);
    }
    if (rstd != NULL && threadIdx.x == 0) {
        rstd[row] = scale;
    }
}

void cuda_rmsnorm_forward(struct device *device, struct tensor out, float *rstd, struct tensor x,
                          const struct tensor *residual, struct tensor weight, float epsilon)
{
    assert(out.rows == x.rows && out.cols == x.cols && weight.cols == x.cols);
    assert(residual == NULL || (residual->rows == x.rows && residual->cols == x.cols));
    struct tensor none = x;
    none.data = NULL;
    const struct tensor all[] = {x, out, weight, residual != NULL ? *residual : x};
    const enum way way = way_of(all, 4, x.cols);
    const unsigned threads = row_threads(x.cols / way_width(way), FORWARD_PACKS);
    cuda_launch(device, "rmsnorm_forward", WAY_KERNEL(way, forward_kernel), cuda_blocks(x.rows, 1),
                threads, 0, out, rstd, x, residual != NULL ? *residual : none, weight, epsilon);
}

/* -- backward: groups of threads, each with its own rows and its own part of d_weight -- */

constexpr int BACKWARD_PACKS = 2;
constexpr int BACKWARD_THREADS = 256; /* a block of short rows */

struct norm_backward {
    struct tensor d_x;
    struct tensor d_out;
    struct tensor x;
    struct tensor weight;
    const float *rstd;
    float *parts; /* (groups of all blocks, C) f32, or NULL */
    int group;    /* threads */
};

/* What one thread holds of a row. */
template <int WIDTH> struct norm_part {
    float x[BACKWARD_PACKS][WIDTH];
    float g[BACKWARD_PACKS][WIDTH]; /* d_out, then d_out * weight */
};

/* Loads the part, adds its share of d_weight, and returns that of the sum of g * x. */
template <typename T>
static __device__ inline float part_begin(const struct norm_backward &b, int64_t row,
                                          int64_t column, int64_t step, float rstd,
                                          struct norm_part<access<T>::WIDTH> &part,
                                          float (&d_weight)[BACKWARD_PACKS][access<T>::WIDTH])
{
    float w[BACKWARD_PACKS][access<T>::WIDTH];
    float dots = 0.0F;
    part_load<T>(b.d_out, row, column, step, part.g);
    part_load<T>(b.x, row, column, step, part.x);
    part_load<T>(b.weight, 0, column, step, w);
#pragma unroll
    for (int p = 0; p < BACKWARD_PACKS; p++) {
#pragma unroll
        for (int i = 0; i < access<T>::WIDTH; i++) {
            const float g_x = part.g[p][i] * part.x[p][i];
            d_weight[p][i] += g_x * rstd;
            dots += g_x * w[p][i];
            part.g[p][i] *= w[p][i];
        }
    }
    return dots;
}

template <typename T>
static __device__ inline void part_end(const struct norm_backward &b, int64_t row, int64_t column,
                                       int64_t step, float rstd, float pull,
                                       const struct norm_part<access<T>::WIDTH> &part,
                                       float (&d_x)[BACKWARD_PACKS][access<T>::WIDTH])
{
#pragma unroll
    for (int p = 0; p < BACKWARD_PACKS; p++) {
#pragma unroll
        for (int i = 0; i < access<T>::WIDTH; i++) {
            d_x[p][i] += part.g[p][i] * rstd - part.x[p][i] * pull;
        }
    }
    part_store<T>(b.d_x, row, column, step, d_x);
}

/* The sum over the warps of this thread's group; `shared` is not used again before the next
 * __syncthreads. */
static __device__ inline float group_total(float value, int group, float *shared)
{
    const int warp = (int)threadIdx.x / WARP;
    const int first = (int)threadIdx.x / group * (group / WARP);
    value = warp_sum(value);
    if (threadIdx.x % WARP == 0) {
        shared[warp] = value;
    }
    __syncthreads();
    float sum = 0.0F;
    for (int i = 0; i < group / WARP; i++) {
        sum += shared[first + i];
    }
    return sum;
}

/* The group's part of d_weight becomes the thread's sums, or has them added; they begin anew. */
template <int WIDTH>
static __device__ inline void part_flush(const struct norm_backward &b, int64_t column,
                                         int64_t step, bool add,
                                         float (&d_weight)[BACKWARD_PACKS][WIDTH])
{
    const int64_t groups = blockDim.x / b.group;
    const int64_t group = blockIdx.x * groups + threadIdx.x / b.group;
#pragma unroll
    for (int p = 0; p < BACKWARD_PACKS; p++) {
        if (b.parts != NULL && column + p * step < b.x.cols) {
            float *to = b.parts + group * b.x.cols + column + p * step;
            float before[WIDTH] = {};
            if (add) {
                span_load(to, before);
            }
#pragma unroll
            for (int i = 0; i < WIDTH; i++) {
                d_weight[p][i] += before[i];
            }
            span_store(to, d_weight[p]);
        }
#pragma unroll
        for (int i = 0; i < WIDTH; i++) {
            d_weight[p][i] = 0.0F;
        }
    }
}

/* Each block takes a row a group at a time; a group without one does the last row again and leaves
 * out the result. LONG: rows of more than one round of accesses, by one group a block. */
template <typename T, bool LONG>
static __global__ void __launch_bounds__(THREADS_MAX) backward_kernel(struct norm_backward b)
{
    constexpr int WIDTH = access<T>::WIDTH;
    __shared__ float shared[2][WARP];
    const int64_t groups = blockDim.x / b.group;
    const int64_t start = threadIdx.x % b.group * WIDTH;
    const int64_t step = b.group * WIDTH;
    struct norm_part<WIDTH> part;
    float d_x[BACKWARD_PACKS][WIDTH];
    float d_weight[BACKWARD_PACKS][WIDTH] = {};
    int turn = 0; /* of the two shared arrays: one barrier a row is enough */
    for (int64_t first = blockIdx.x * groups; first < b.x.rows; first += gridDim.x * groups) {
        const bool mine = first + threadIdx.x / b.group < b.x.rows;
        const int64_t row = mine ? first + threadIdx.x / b.group : b.x.rows - 1;
        const float rstd = b.rstd[row];
        float dots = 0.0F;
        if (!LONG) {
            part_load<T>(b.d_x, row, start, step, d_x);
        }
        for (int64_t column = start; column - start < b.x.cols; column += BACKWARD_PACKS * step) {
            dots += part_begin<T>(b, row, column, step, mine ? rstd : 0.0F, part, d_weight);
            if (LONG) {
                part_flush(b, column, step, first >= gridDim.x, d_weight);
            }
        }
        const float pull =
            group_total(dots, b.group, shared[turn]) / (float)b.x.cols * rstd * rstd * rstd;
        turn ^= 1;
        for (int64_t column = start; column - start < b.x.cols && mine;
             column += BACKWARD_PACKS * step) {
            if (LONG) {
                (void)part_begin<T>(b, row, column, step, 0.0F, part, d_weight);
                part_load<T>(b.d_x, row, column, step, d_x);
            }
            part_end<T>(b, row, column, step, rstd, pull, part, d_x);
        }
    }
    if (!LONG) {
        part_flush(b, start, step, false, d_weight);
    }
}

void cuda_rmsnorm_backward(struct device *device, struct tensor d_x, float *d_weight,
                           struct tensor d_out, struct tensor x, struct tensor weight,
                           const float *rstd)
{
    assert(d_x.rows == x.rows && d_x.cols == x.cols && d_out.rows == x.rows);
    assert(d_out.cols == x.cols && weight.cols == x.cols);
    if (cuda_failed(device) || x.rows == 0 || x.cols == 0) {
        return;
    }
    const struct tensor all[] = {x, d_x, d_out, weight};
    const enum way way = way_of(all, 4, x.cols);
    const int64_t accesses = x.cols / way_width(way);
    const int64_t group = row_threads(accesses, BACKWARD_PACKS);
    const bool is_long = accesses > group * BACKWARD_PACKS;
    const int64_t groups = group < BACKWARD_THREADS ? BACKWARD_THREADS / group : 1;
    const int64_t resident = cuda_of(device)->multiprocessors * (THREADS_MAX / (groups * group));
    const int64_t all_blocks = cuda_blocks(x.rows, groups);
    const int64_t blocks = all_blocks < resident ? all_blocks : resident;
    struct norm_backward b = {d_x, d_out, x, weight, rstd, NULL, (int)group};
    if (d_weight != NULL) {
        b.parts = (float *)cuda_scratch(device, blocks * groups * x.cols, sizeof(*b.parts),
                                        "rmsnorm_backward");
        if (b.parts == NULL) {
            return;
        }
    }
    cuda_launch(device, "rmsnorm_backward",
                is_long ? WAY_KERNEL(way, backward_kernel, true)
                        : WAY_KERNEL(way, backward_kernel, false),
                dim3((unsigned)blocks), (unsigned)(groups * group), 0, b);
    if (d_weight != NULL) {
        cuda_add_parts(device, "rmsnorm_backward (d_weight)", d_weight, b.parts, blocks * groups,
                       x.cols);
    }
}
