/* The second products of low-rank adapters (arXiv 2106.09685), all those of a projection in one
 * launch: y[:, range i] += scale * u_i B_i^T with few inner columns.
 *
 * A block has 128 x 128 numbers of y, copied to shared memory while the tensor cores multiply the
 * block's rows of u by its rows of B, 64 inner columns at a time, the next 64 on their way. The
 * sums are added to y in shared memory, rounded once, and y is written back by 16 bytes. Ranges are
 * cut into tiles of their own, so no block has two; columns of y outside all ranges are not
 * touched.
 *
 * Bytes: y is read and written once, 2 N W dtype; u and B are read once by HBM's count and again
 * from the L2 cache for each tile, 512 r bytes for the 65,536 of y. Operations: 2 N W r. Query, key
 * and value of H = 16, K = 8, D = 128 with r = 16 and 16,384 tokens: 270 MB and 2.1 GFLOP, 0.06 ms
 * on an H200; up to r of about 128 the bytes bound it. A library's products move as many bytes, but
 * one after the other, each with a start and an end in which the GPU is not full.
 *
 * For other dtypes, rows that do not lie on 16 bytes and ranks that are not multiples of 8, and for
 * ranks above 256, where the operations bound it, the library has each product. */
#include <assert.h>

#include "kernels/cuda/attention_tiles.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/operations.h"

enum {
    LOW_RANK_THREADS = 256,
    TILE_SIDE = 128, /* rows and columns of y */
    INNER_COLS = 64, /* of u and B at a time */
    INNER_MAX = 256, /* ranks above are the library's */
    WARP_ROWS = 32,  /* a warp's part of the tile */
    WARP_COLS = 64,
    WARPS_DOWN = TILE_SIDE / WARP_ROWS,
};
static_assert(WARPS_DOWN * (TILE_SIDE / WARP_COLS) * WARP == LOW_RANK_THREADS, "a tile, whole");

/* One range of columns. */
struct low_rank_range {
    bf16 *y;
    const bf16 *u;
    const bf16 *b;
    int64_t b_stride;
    int64_t width;
    int inner;
    int tiles; /* side by side */
};

struct low_rank_work {
    struct low_rank_range ranges[LOW_RANK_PARTS_MAX];
    int64_t rows;
    int64_t y_stride;
    int64_t u_stride;
    int tiles; /* side by side, of all ranges */
    float scale;
};

struct low_rank_stage {
    bf16 u[TILE_SIDE * INNER_COLS];
    bf16 b[TILE_SIDE * INNER_COLS];
};

/* Shared memory of a block; without the second stage where the first has all inner columns. */
struct low_rank_memory {
    bf16 y[TILE_SIDE * TILE_SIDE];
    struct low_rank_stage stages[2];
};

/* A block's part of the work. */
struct low_rank_tile {
    bf16 *y;
    const bf16 *u;
    const bf16 *b;
    int64_t b_stride;
    int rows; /* that exist, of TILE_SIDE */
    int cols;
    int inner;
};

static __device__ struct low_rank_tile tile_of_block(const struct low_rank_work &work)
{
    int number = (int)(blockIdx.x % (unsigned)work.tiles);
    int which = 0;
    while (number >= work.ranges[which].tiles) {
        number -= work.ranges[which].tiles;
        which++;
    }
    const struct low_rank_range &range = work.ranges[which];
    const int64_t row = (int64_t)(blockIdx.x / (unsigned)work.tiles) * TILE_SIDE;
    const int64_t col = (int64_t)number * TILE_SIDE;
    return {range.y + row * work.y_stride + col,
            range.u + row * work.u_stride,
            range.b + col * range.b_stride,
            range.b_stride,
            (int)min(work.rows - row, (int64_t)TILE_SIDE),
            (int)min(range.width - col, (int64_t)TILE_SIDE),
            range.inner};
}

/* Starts copying the inner columns from `first` on; what does not exist becomes zeros. */
static __device__ void stage_copy(struct low_rank_stage *stage, const struct low_rank_tile &tile,
                                  int64_t u_stride, int first)
{
    tile_copy<INNER_COLS, TILE_SIDE, LOW_RANK_THREADS>(stage->u, tile.u + first, u_stride,
                                                       tile.rows, tile.inner - first);
    tile_copy<INNER_COLS, TILE_SIDE, LOW_RANK_THREADS>(stage->b, tile.b + first, tile.b_stride,
                                                       tile.cols, tile.inner - first);
}

/* The warp's sums += its rows of u times its rows of B. */
static __device__ void stage_multiply(float (&sums)[2][WARP_COLS / 8][4],
                                      const struct low_rank_stage *stage, int row, int col,
                                      int inner)
{
    const int steps = (min(inner, (int)INNER_COLS) + 15) / 16;
    for (int k = 0; k < steps; k++) {
        uint32_t a[2][4];
        tile_left<INNER_COLS>(a, stage->u, row, k);
        tile_multiply_part<INNER_COLS>(sums, a, stage->b + col * INNER_COLS, k);
    }
}

/* Two numbers of y plus theirs. */
static __device__ void pair_add(bf16 *pair, float scale, float first, float second)
{
    uint32_t *const word = reinterpret_cast<uint32_t *>(pair);
    const float low = __uint_as_float(*word << 16);
    const float high = __uint_as_float(*word & 0xFFFF0000U);
    *word = bf16_pair(fmaf(scale, first, low), fmaf(scale, second, high));
}

/* Adds the warp's sums to its part of y in shared memory, and writes what exists of that. */
static __device__ void tile_finish(const struct low_rank_tile &tile, int64_t y_stride, bf16 *y,
                                   int row, int col, float scale,
                                   const float (&sums)[2][WARP_COLS / 8][4])
{
    const int lane = (int)threadIdx.x % WARP;
#pragma unroll
    for (int m = 0; m < 2; m++) {
#pragma unroll
        for (int n = 0; n < WARP_COLS / 8; n++) {
            const int upper = row + 16 * m + lane / 4;
            bf16 *const pair = y + tile_place<TILE_SIDE>(upper, col / 8 + n) + 2 * (lane % 4);
            pair_add(pair, scale, sums[m][n][0], sums[m][n][1]);
            pair_add(pair + 8 * TILE_SIDE, scale, sums[m][n][2], sums[m][n][3]);
        }
    }
    __syncwarp();
    for (int i = lane; i < WARP_ROWS * (WARP_COLS / 8); i += WARP) {
        const int r = row + i / (WARP_COLS / 8);
        const int chunk = col / 8 + i % (WARP_COLS / 8);
        if (r < tile.rows && chunk * 8 < tile.cols) {
            *reinterpret_cast<uint4 *>(tile.y + r * y_stride + chunk * 8) =
                *reinterpret_cast<const uint4 *>(y + tile_place<TILE_SIDE>(r, chunk));
        }
    }
}

static __global__ void __launch_bounds__(LOW_RANK_THREADS, 2)
    low_rank_add_kernel(const struct low_rank_work work)
{
    SHARED_BYTES(shared);
    struct low_rank_memory *const memory = reinterpret_cast<struct low_rank_memory *>(shared);
    const struct low_rank_tile tile = tile_of_block(work);
    const int warp = (int)threadIdx.x / WARP;
    const int row = warp % WARPS_DOWN * WARP_ROWS;
    const int col = warp / WARPS_DOWN * WARP_COLS;
    const bool busy = row < tile.rows && col < tile.cols;
    float sums[2][WARP_COLS / 8][4] = {};
    stage_copy(&memory->stages[0], tile, work.u_stride, 0);
    tile_copy<TILE_SIDE, TILE_SIDE, LOW_RANK_THREADS>(memory->y, tile.y, work.y_stride, tile.rows,
                                                      tile.cols);
    copy_commit();
    for (int at = 0; at < tile.inner; at += INNER_COLS) {
        const int stage = at / INNER_COLS % 2;
        copy_wait<0>();
        __syncthreads(); /* these columns are there, and those before them are used */
        if (at + INNER_COLS < tile.inner) {
            stage_copy(&memory->stages[1 - stage], tile, work.u_stride, at + INNER_COLS);
            copy_commit();
        }
        if (busy) {
            stage_multiply(sums, &memory->stages[stage], row, col, tile.inner - at);
        }
    }
    if (busy) {
        tile_finish(tile, work.y_stride, memory->y, row, col, work.scale, sums);
    }
}

static struct tensor part_of_y(struct tensor y, const struct low_rank_part *part)
{
    return tensor_cols(y, part->first, part->b.rows);
}

static struct tensor part_of_u(struct tensor u, const struct low_rank_part *part)
{
    return tensor_cols(u, part->first_inner, part->b.cols);
}

/* Whether the kernel can read and write the part. */
static bool fits_tiles(struct tensor y, struct tensor u, const struct low_rank_part *part)
{
    const int64_t inner = part->b.cols;
    return y.dtype == DTYPE_BF16 && u.dtype == DTYPE_BF16 && inner > 0 && inner <= INNER_MAX &&
           inner % 8 == 0 && part->b.rows % 8 == 0 && rows_aligned(part->b) &&
           rows_aligned(part_of_y(y, part)) && rows_aligned(part_of_u(u, part));
}

static void low_rank_launch(struct device *device, struct tensor y, struct tensor u,
                            const struct low_rank_part *parts, int count, float scale)
{
    struct low_rank_work work = {};
    bool one_stage = true;
    work.rows = y.rows;
    work.y_stride = y.stride;
    work.u_stride = u.stride;
    work.scale = scale;
    for (int i = 0; i < count; i++) {
        const struct low_rank_part *part = &parts[i];
        const int64_t tiles = (part->b.rows + TILE_SIDE - 1) / TILE_SIDE;
        work.ranges[i] = {(bf16 *)part_of_y(y, part).data,
                          (const bf16 *)part_of_u(u, part).data,
                          (const bf16 *)part->b.data,
                          part->b.stride,
                          part->b.rows,
                          (int)part->b.cols,
                          (int)tiles};
        work.tiles += (int)tiles;
        one_stage = one_stage && part->b.cols <= INNER_COLS;
    }
    const int64_t blocks = (y.rows + TILE_SIDE - 1) / TILE_SIDE * work.tiles;
    assert(blocks <= 0x7FFFFFFF); /* of 32 KiB each */
    cuda_launch(
        device, "low_rank_add", low_rank_add_kernel, dim3((unsigned)blocks), LOW_RANK_THREADS,
        sizeof(struct low_rank_memory) - (one_stage ? sizeof(struct low_rank_stage) : 0), work);
}

void cuda_low_rank_add(struct device *device, struct tensor y, struct tensor u,
                       const struct low_rank_part *parts, int count, float scale)
{
    bool fits = true;
    assert(count >= 1 && count <= LOW_RANK_PARTS_MAX && y.rows == u.rows);
    for (int i = 0; i < count; i++) {
        const struct low_rank_part *part = &parts[i];
        assert(part->first >= 0 && part->first + part->b.rows <= y.cols);
        assert(part->first_inner >= 0 && part->first_inner + part->b.cols <= u.cols);
        assert(part->b.dtype == u.dtype && (y.dtype == DTYPE_F32 || y.dtype == u.dtype));
        fits = fits && fits_tiles(y, u, part);
    }
    if (cuda_failed(device) || y.rows == 0) {
        return;
    }
    if (fits) {
        low_rank_launch(device, y, u, parts, count, scale);
        return;
    }
    for (int i = 0; i < count; i++) {
        cuda_matmul(device, part_of_y(y, &parts[i]), part_of_u(u, &parts[i]), false, parts[i].b,
                    true, scale, 1.0F);
    }
}
