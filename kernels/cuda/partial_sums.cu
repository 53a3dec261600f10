/* The second step of sums over blocks.
 *
 * A block adds 32 columns: warp w takes parts w, w + 32, ..., and the first warp adds what the
 * warps found. 4 bytes a part and column are read, mostly from the L2 cache where the blocks have
 * just left them; for 528 parts of 2048 columns (rmsnorm_backward) 4.3 MB, about 2 microseconds. */
#include <assert.h>

#include "kernels/cuda/partial_sums.h"

constexpr int COLUMNS = WARP;
constexpr int WARPS = 32;
constexpr int AHEAD = 16; /* parts that a thread reads before it adds the first: few blocks run */

static __global__ void __launch_bounds__(COLUMNS *WARPS)
    add_parts_kernel(float *to, const float *parts, int64_t count, int64_t columns)
{
    __shared__ float sums[WARPS][COLUMNS];
    const int warp = (int)threadIdx.x / WARP;
    const int lane = (int)threadIdx.x % WARP;
    const int64_t column = (int64_t)blockIdx.x * COLUMNS + lane;
    float sum = 0.0F;
    if (column < columns) {
        for (int64_t first = warp; first < count; first += AHEAD * WARPS) {
            float x[AHEAD];
#pragma unroll
            for (int k = 0; k < AHEAD; k++) { /* past the end: the last one, not added below */
                x[k] = parts[min(first + k * WARPS, count - 1) * columns + column];
            }
#pragma unroll
            for (int k = 0; k < AHEAD; k++) {
                sum = first + k * WARPS < count ? sum + x[k] : sum;
            }
        }
    }
    sums[warp][lane] = sum;
    __syncthreads();
    if (warp == 0 && column < columns) {
        float total = 0.0F;
        for (int i = 0; i < WARPS; i++) {
            total += sums[i][lane];
        }
        to[column] += total;
    }
}

void cuda_add_parts(struct device *device, const char *name, float *to, const float *parts,
                    int64_t count, int64_t columns)
{
    cuda_launch(device, name, add_parts_kernel, cuda_blocks(columns, COLUMNS), COLUMNS * WARPS, 0,
                to, parts, count, columns);
}
