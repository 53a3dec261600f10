/* Rows of a table by their index: taken out (the embedding) and added up (its gradient).
 *
 * gather_rows reads and writes each number once: N * C * (2 + 2) bytes in bf16, 134 MB or 31
 * microseconds on an H200 (4.3 TB/s) for N = 16,384 and C = 2,048.
 *
 * scatter_add_rows adds rows with one index in their order, as a plain loop would, so its bits
 * never change and no atomics are needed. The first kernel sorts the rows by (index, row): each row
 * counts the rows that come before it, N^2 comparisons of numbers in shared memory, two
 * instructions each: 5.4e8 for N = 16,384, about 20 microseconds of all SMs, and no bytes to speak
 * of. In the second, blocks take each run of equal indices and read and write its row of the
 * table once: N * C * 2 bytes and up to 8 * N * C more where all indices differ, 336 MB or 78
 * microseconds. The longest run takes longest: 4,000 times the same token are 500 rounds of 8 rows,
 * about 0.4 ms. */
#include <assert.h>

#include "kernels/cuda/access.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/operations.h"

constexpr int THREADS = 256;
constexpr int ITEMS = 4;

/* -- gather -- */

/* An item is `access<T>::WIDTH` numbers of a row. */
template <typename T>
static __global__ void __launch_bounds__(THREADS)
    gather_kernel(struct tensor to, struct tensor table, const int32_t *index,
                  struct cuda_fault *fault)
{
    constexpr int WIDTH = access<T>::WIDTH;
    const int64_t per_row = to.cols / WIDTH;
    const int64_t items = to.rows * per_row;
    const int64_t first = (int64_t)blockIdx.x * (THREADS * ITEMS) + threadIdx.x;
    struct place at[ITEMS];
    int32_t from[ITEMS];
    float x[ITEMS][WIDTH];
#pragma unroll
    for (int k = 0; k < ITEMS; k++) { /* past the end: the last item, not stored below */
        at[k] = place_of(min(first + k * THREADS, items - 1), per_row);
        from[k] = index[at[k].row];
    }
#pragma unroll
    for (int k = 0; k < ITEMS; k++) {
        const bool inside = from[k] >= 0 && from[k] < table.rows;
        if (inside) {
            tensor_load<T>(table, from[k], at[k].part * WIDTH, x[k]);
        }
#pragma unroll
        for (int i = 0; i < WIDTH; i++) {
            x[k][i] = inside ? x[k][i] : 0.0F;
        }
    }
#pragma unroll
    for (int k = 0; k < ITEMS; k++) {
        if (first + k * THREADS < items && from[k] < table.rows) {
            tensor_store<T>(to, at[k].row, at[k].part * WIDTH, x[k]);
        } else if (first + k * THREADS < items && at[k].part == 0) {
            fault_report(fault, CUDA_FAULT_ROW_INDEX, at[k].row, from[k], table.rows);
        }
    }
}

void cuda_gather_rows(struct device *device, struct tensor to, struct tensor table,
                      const int32_t *index)
{
    assert(to.cols == table.cols && to.dtype != DTYPE_I32 && table.dtype != DTYPE_I32);
    const struct tensor both[] = {to, table};
    const enum way way = way_of(both, 2, to.cols);
    const int64_t items = to.rows * to.cols / way_width(way);
    cuda_launch(device, "gather_rows", WAY_KERNEL(way, gather_kernel),
                cuda_blocks(items, THREADS * ITEMS), THREADS, 0, to, table, index,
                cuda_of(device)->fault);
}

/* -- scatter -- */

/* Where the sort leaves a row. */
struct sorted_row {
    int32_t index;
    int32_t row;
};

/* A block finds the places of SORT_ROWS rows; SORT_SHARE threads share each, and all look at the
 * same TILE of indices. */
constexpr int SORT_ROWS = 64;
constexpr int SORT_SHARE = THREADS / SORT_ROWS;
constexpr int TILE = 1024;

/* How many indices of one thread's share of the tile come before `own`: those that are smaller, and
 * of the equal ones those in earlier rows. Tiles before and after the block's rows need but one
 * comparison. */
static __device__ inline int count_before(const int32_t *tile, int share, int32_t own, int64_t row,
                                          int64_t tile_first, int64_t block_first)
{
    const int first = share * (TILE / SORT_SHARE);
    int before = 0;
    if (tile_first + TILE <= block_first) {
#pragma unroll 8
        for (int i = first; i < first + TILE / SORT_SHARE; i++) {
            before += tile[i] <= own;
        }
    } else if (tile_first >= block_first + SORT_ROWS) {
#pragma unroll 8
        for (int i = first; i < first + TILE / SORT_SHARE; i++) {
            before += tile[i] < own;
        }
    } else {
#pragma unroll 8
        for (int i = first; i < first + TILE / SORT_SHARE; i++) {
            before += tile[i] < own || (tile[i] == own && tile_first + i < row);
        }
    }
    return before;
}

static __global__ void __launch_bounds__(THREADS)
    sort_kernel(struct sorted_row *sorted, const int32_t *index, int64_t count, int64_t table_rows,
                struct cuda_fault *fault)
{
    __shared__ __align__(16) int32_t tile[TILE];
    __shared__ int counts[SORT_SHARE][SORT_ROWS];
    const int share = (int)threadIdx.x / SORT_ROWS;
    const int mine = (int)threadIdx.x % SORT_ROWS;
    const int64_t block_first = (int64_t)blockIdx.x * SORT_ROWS;
    const int64_t row = block_first + mine;
    const int32_t own = row < count ? index[row] : 0;
    int before = 0;
    for (int64_t tile_first = 0; tile_first < count; tile_first += TILE) {
        for (int i = (int)threadIdx.x; i < TILE; i += THREADS) { /* the largest counts for none */
            tile[i] = tile_first + i < count ? index[tile_first + i] : INT32_MAX;
        }
        __syncthreads();
        before += count_before(tile, share, own, row, tile_first, block_first);
        __syncthreads();
    }
    counts[share][mine] = before;
    __syncthreads();
    if (share != 0 || row >= count) {
        return;
    }
    for (int other = 1; other < SORT_SHARE; other++) {
        before += counts[other][mine];
    }
    sorted[before].index = own;
    sorted[before].row = (int32_t)row;
    if (own >= table_rows) {
        fault_report(fault, CUDA_FAULT_ROW_INDEX, row, own, table_rows);
    }
}

constexpr int SCATTER_THREADS = 128;
constexpr int64_t PARTS_MAX = 64; /* of a row's columns */
constexpr int AHEAD = 8;

template <int WIDTH>
static __device__ inline void add_to(float (&sum)[WIDTH], const float (&x)[WIDTH])
{
#pragma unroll
    for (int i = 0; i < WIDTH; i++) {
        sum[i] += x[i];
    }
}

/* The blocks at the first place of a run of equal indices add all of its rows, each a part of the
 * columns; those at the run's other places have nothing to do. AHEAD rows are under way at a time.
 */
template <typename T>
static __global__ void __launch_bounds__(SCATTER_THREADS, 6)
    scatter_kernel(struct tensor table, struct tensor from, const struct sorted_row *sorted)
{
    constexpr int WIDTH = access<T>::WIDTH;
    const int64_t first = blockIdx.x;
    const int32_t own = sorted[first].index;
    if (own < 0 || own >= table.rows || (first > 0 && sorted[first - 1].index == own)) {
        return;
    }
    const int64_t count = from.rows;
    float *const to = (float *)table.data + own * table.stride;
    constexpr int64_t PART = SCATTER_THREADS * WIDTH;
    for (int64_t column = blockIdx.y * PART + threadIdx.x * WIDTH; column < from.cols;
         column += gridDim.y * PART) {
        float sum[WIDTH];
        span_load(to + column, sum);
        int64_t place = first;
        while (place + AHEAD <= count && sorted[place + AHEAD - 1].index == own) {
            int32_t row[AHEAD];
            float x[AHEAD][WIDTH];
#pragma unroll
            for (int k = 0; k < AHEAD; k++) {
                row[k] = sorted[place + k].row;
            }
#pragma unroll
            for (int k = 0; k < AHEAD; k++) {
                tensor_load<T>(from, row[k], column, x[k]);
            }
#pragma unroll
            for (int k = 0; k < AHEAD; k++) {
                add_to(sum, x[k]);
            }
            place += AHEAD;
        }
        for (; place < count && sorted[place].index == own; place++) {
            float x[WIDTH];
            tensor_load<T>(from, sorted[place].row, column, x);
            add_to(sum, x);
        }
        span_store(to + column, sum);
    }
}

void cuda_scatter_add_rows(struct device *device, struct tensor table, struct tensor from,
                           const int32_t *index)
{
    assert(from.cols == table.cols && table.dtype == DTYPE_F32 && from.dtype != DTYPE_I32);
    assert(from.rows <= INT32_MAX);
    if (cuda_failed(device) || from.rows == 0) {
        return;
    }
    struct sorted_row *sorted =
        (struct sorted_row *)cuda_scratch(device, from.rows, sizeof(*sorted), "scatter_add_rows");
    if (sorted == NULL) {
        return;
    }
    cuda_launch(device, "scatter_add_rows (sort)", sort_kernel, cuda_blocks(from.rows, SORT_ROWS),
                THREADS, 0, sorted, index, from.rows, table.rows, cuda_of(device)->fault);
    const enum way way = rows_aligned(table) ? way_of(&from, 1, from.cols) : WAY_MIXED;
    const int64_t part = (int64_t)SCATTER_THREADS * way_width(way);
    const int64_t parts = (from.cols + part - 1) / part;
    cuda_launch(device, "scatter_add_rows", WAY_KERNEL(way, scatter_kernel),
                dim3(cuda_blocks(from.rows, 1), (unsigned)(parts < PARTS_MAX ? parts : PARTS_MAX)),
                SCATTER_THREADS, 0, table, from, (const struct sorted_row *)sorted);
}
