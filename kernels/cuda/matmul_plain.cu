/* Matrix products of shapes and alignments that cuBLASLt has no way for (matmul.cu): right for all,
 * fast for none. A block makes a square of c from strips of a and b in shared memory.
 *
 * Floor, m x n x k: 2 m n k operations without tensor cores; a and b are read n / TILE and m / TILE
 * times. Sums are f32, in the order of k, each strip by itself. */
#include "kernels/cuda/launch.h"
#include "kernels/cuda/matmul_plain.h"
#include "kernels/cuda/numbers.h"

enum { TILE = 16 };

/* Element (i, l) of op(a) is a[i * a_row + l * a_depth]; (l, j) of op(b) is
 * b[l * b_depth + j * b_col]. */
struct plain_product {
    int64_t rows;
    int64_t cols;
    int64_t depth;
    int64_t a_row;
    int64_t a_depth;
    int64_t b_depth;
    int64_t b_col;
    int64_t c_row;
    float alpha;
    float beta;
};

template <typename IN, typename OUT>
static __global__ void __launch_bounds__(TILE *TILE)
    matmul_plain_kernel(OUT *c, const IN *a, const IN *b, struct plain_product p)
{
    __shared__ float a_strip[TILE][TILE + 1];
    __shared__ float b_strip[TILE][TILE + 1];
    const int x = (int)threadIdx.x % TILE;
    const int y = (int)threadIdx.x / TILE;
    const int64_t col = (int64_t)blockIdx.x * TILE + x;
    for (int64_t first = (int64_t)blockIdx.y * TILE; first < p.rows;
         first += (int64_t)gridDim.y * TILE) {
        const int64_t row = first + y;
        float total = 0.0F;
        for (int64_t l = 0; l < p.depth; l += TILE) {
            a_strip[y][x] = row < p.rows && l + x < p.depth
                                ? number_load(a + row * p.a_row + (l + x) * p.a_depth)
                                : 0.0F;
            b_strip[y][x] = l + y < p.depth && col < p.cols
                                ? number_load(b + (l + y) * p.b_depth + col * p.b_col)
                                : 0.0F;
            __syncthreads();
            float sum = 0.0F;
#pragma unroll
            for (int i = 0; i < TILE; i++) {
                sum = fmaf(a_strip[y][i], b_strip[i][x], sum);
            }
            total += sum;
            __syncthreads(); /* the strips are filled again */
        }
        if (row < p.rows && col < p.cols) {
            OUT *place = c + row * p.c_row + col;
            const float before = p.beta != 0.0F ? p.beta * number_load(place) : 0.0F;
            number_store(place, fmaf(p.alpha, total, before));
        }
    }
}

template <typename IN, typename OUT>
static void launch_plain(struct device *device, const struct plain_product *p, void *c,
                         const void *a, const void *b)
{
    const unsigned grid_y_max = 65535; /* the hardware's; a block goes on by the whole grid */
    const unsigned rows = cuda_blocks(p->rows, TILE);
    const dim3 grid(cuda_blocks(p->cols, TILE), rows < grid_y_max ? rows : grid_y_max, 1);
    cuda_launch(device, "matmul_plain", matmul_plain_kernel<IN, OUT>, grid, TILE * TILE, 0,
                static_cast<OUT *>(c), static_cast<const IN *>(a), static_cast<const IN *>(b), *p);
}

void cuda_matmul_plain(struct device *device, struct tensor c, struct tensor a, bool transpose_a,
                       struct tensor b, bool transpose_b, float alpha, float beta)
{
    const struct plain_product p = {
        .rows = c.rows,
        .cols = c.cols,
        .depth = transpose_a ? a.rows : a.cols,
        .a_row = transpose_a ? 1 : a.stride,
        .a_depth = transpose_a ? a.stride : 1,
        .b_depth = transpose_b ? 1 : b.stride,
        .b_col = transpose_b ? b.stride : 1,
        .c_row = c.stride,
        .alpha = alpha,
        .beta = beta,
    };
    if (a.dtype == DTYPE_F32) {
        launch_plain<float, float>(device, &p, c.data, a.data, b.data);
    } else if (c.dtype == DTYPE_F32) {
        launch_plain<bf16, float>(device, &p, c.data, a.data, b.data);
    } else {
        launch_plain<bf16, bf16>(device, &p, c.data, a.data, b.data);
    }
}
