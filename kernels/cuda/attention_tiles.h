/* Tiles of bf16 rows in shared memory, and the tensor cores' products with them.
 *
 * A tile has rows of DIM numbers, DIM / 8 chunks of 16 bytes; chunk c of row r lies where chunk
 * c ^ (r % 8) would. So the eight rows of one chunk, which ldmatrix reads at once, fall into all
 * banks, and so do those that a warp writes. Heads smaller than DIM are filled up with zeros.
 *
 * Sums are f32 in the layout of mma.h: of block (m, n) a lane holds rows 16m + g and 16m + g + 8,
 * columns 8n + 2t and 8n + 2t + 1. Read as bf16 pairs, the columns of such a sum are the left
 * factor of the next product: no number passes through memory between the two. */
#ifndef KERNELS_CUDA_ATTENTION_TILES_H
#define KERNELS_CUDA_ATTENTION_TILES_H

#include "kernels/cuda/mma.h"
#include "kernels/cuda/numbers.h"

/* Where chunk `chunk` of a row begins in the row; of the row only its number modulo 8 matters. */
template <int DIM> __device__ inline int tile_chunk(int row, int chunk)
{
    return (chunk & ~7) * 8 + ((chunk ^ row) & 7) * 8;
}

template <int DIM> __device__ inline int tile_place(int row, int chunk)
{
    return row * DIM + tile_chunk<DIM>(row, chunk);
}

/* Starts copying `rows` rows of `dim` numbers; the rest of the tile's ROWS x DIM becomes zeros. All
 * THREADS of the block take part. */
template <int DIM, int ROWS, int THREADS>
__device__ inline void tile_copy(bf16 *tile, const bf16 *from, int64_t stride, int rows, int dim)
{
    constexpr int CHUNKS = DIM / 8;
    static_assert(ROWS * CHUNKS % THREADS == 0 && THREADS % CHUNKS == 0, "whole rows a step");
    const int chunk = (int)threadIdx.x % CHUNKS;
    const int first = (int)threadIdx.x / CHUNKS;
    const bf16 *next = from + first * stride + chunk * 8;
#pragma unroll
    for (int row = first; row < ROWS + first; row += THREADS / CHUNKS) {
        const bool valid = row < rows && chunk * 8 < dim;
        copy_16_bytes(tile + tile_place<DIM>(row, chunk), valid ? next : from, valid);
        next += THREADS / CHUNKS * stride;
    }
}

/* Left factors: columns 16k..16k+15 of rows row..row+16M-1 of a tile. */
template <int DIM, int M>
__device__ inline void tile_left(uint32_t (&a)[M][4], const bf16 *tile, int row, int k)
{
    const int lane = (int)threadIdx.x % WARP;
    const bf16 *from = tile + (row + lane % 16) * DIM + tile_chunk<DIM>(lane, 2 * k + lane / 16);
#pragma unroll
    for (int m = 0; m < M; m++) {
        ldmatrix_x4(a[m], from + 16 * m * DIM);
    }
}

/* s += a b', where the rows of b are the first 8N of a tile, and a and b are columns 16k..16k+15 of
 * their matrices. */
template <int DIM, int M, int N>
__device__ inline void tile_multiply_part(float (&s)[M][N][4], const uint32_t (&a)[M][4],
                                          const bf16 *tile, int k)
{
    const int lane = (int)threadIdx.x % WARP;
    const bf16 *from =
        tile + (lane / 16 * 8 + lane % 8) * DIM + tile_chunk<DIM>(lane, 2 * k + lane / 8 % 2);
#pragma unroll
    for (int n = 0; n < N; n += 2) {
        uint32_t b[4];
        ldmatrix_x4(b, from + 8 * n * DIM);
#pragma unroll
        for (int m = 0; m < M; m++) {
            mma_16x8x16(s[m][n], a[m], b[0], b[1]);
            mma_16x8x16(s[m][n + 1], a[m], b[2], b[3]);
        }
    }
}

/* s (16M x 8N) += rows `row`.. of one tile times rows 0.. of another. */
template <int DIM, int M, int N>
__device__ inline void tile_multiply(float (&s)[M][N][4], const bf16 *left, int row,
                                     const bf16 *right)
{
#pragma unroll
    for (int k = 0; k < DIM / 16; k++) {
        uint32_t a[M][4];
        tile_left<DIM>(a, left, row, k);
        tile_multiply_part<DIM>(s, a, right, k);
    }
}

/* The same with the left factors in registers, as tile_left gives them. */
template <int DIM, int M, int N>
__device__ inline void tile_multiply(float (&s)[M][N][4], const uint32_t (&left)[DIM / 16][M][4],
                                     const bf16 *right)
{
#pragma unroll
    for (int k = 0; k < DIM / 16; k++) {
        tile_multiply_part<DIM>(s, left[k], right, k);
    }
}

/* sum (16M x DIM) += p (16M x 8N, rounded to bf16) times the first 8N rows of a tile. */
template <int DIM, int M, int N>
__device__ inline void tile_accumulate(float (&sum)[M][DIM / 8][4], const float (&p)[M][N][4],
                                       const bf16 *tile)
{
    const int lane = (int)threadIdx.x % WARP;
#pragma unroll
    for (int k = 0; k < N / 2; k++) {
        uint32_t a[M][4];
#pragma unroll
        for (int m = 0; m < M; m++) {
            a[m][0] = bf16_pair(p[m][2 * k][0], p[m][2 * k][1]);
            a[m][1] = bf16_pair(p[m][2 * k][2], p[m][2 * k][3]);
            a[m][2] = bf16_pair(p[m][2 * k + 1][0], p[m][2 * k + 1][1]);
            a[m][3] = bf16_pair(p[m][2 * k + 1][2], p[m][2 * k + 1][3]);
        }
#pragma unroll
        for (int n = 0; n < DIM / 8; n += 2) {
            uint32_t b[4];
            ldmatrix_x4_transposed(b, tile + tile_place<DIM>(16 * k + lane % 16, n + lane / 16));
#pragma unroll
            for (int m = 0; m < M; m++) {
                mma_16x8x16(sum[m][n], a[m], b[0], b[1]);
                mma_16x8x16(sum[m][n + 1], a[m], b[2], b[3]);
            }
        }
    }
}

/* Minus infinity where a key lies ahead of its query, so that its weight is 0. Keys are the columns
 * of the scores, or else their rows; `ahead` is how far the first key lies ahead of the first
 * query. */
template <int M, int N>
__device__ inline void tile_mask(float (&s)[M][N][4], int ahead, bool keys_are_rows)
{
    const int lane = (int)threadIdx.x % WARP;
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
        for (int n = 0; n < N; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int row = 16 * m + lane / 4 + i / 2 * 8;
                const int column = 8 * n + lane % 4 * 2 + i % 2;
                const bool unseen = keys_are_rows ? ahead + row > column : ahead + column > row;
                s[m][n][i] = unseen ? -CUDART_INF_F : s[m][n][i];
            }
        }
    }
}

/* Rounds a warp's sums (16M x DIM) and writes the first `rows` rows of them, `dim` numbers each, 16
 * bytes at a time. They pass through rows `row`.. of a tile, which are this warp's alone. */
template <int DIM, int M>
__device__ inline void tile_store(bf16 *to, int64_t stride, int rows, int dim, bf16 *tile, int row,
                                  const float (&sum)[M][DIM / 8][4])
{
    constexpr int CHUNKS = DIM / 8;
    const int lane = (int)threadIdx.x % WARP;
    const int column = 2 * (lane % 4);
    __syncwarp();
#pragma unroll
    for (int m = 0; m < M; m++) {
#pragma unroll
        for (int n = 0; n < CHUNKS; n++) {
            const int upper = row + 16 * m + lane / 4;
            *reinterpret_cast<uint32_t *>(tile + tile_place<DIM>(upper, n) + column) =
                bf16_pair(sum[m][n][0], sum[m][n][1]);
            *reinterpret_cast<uint32_t *>(tile + tile_place<DIM>(upper + 8, n) + column) =
                bf16_pair(sum[m][n][2], sum[m][n][3]);
        }
    }
    __syncwarp();
    for (int i = lane; i < 16 * M * CHUNKS; i += WARP) {
        const int r = i / CHUNKS;
        const int chunk = i % CHUNKS;
        if (r < rows && chunk * 8 < dim) {
            *reinterpret_cast<uint4 *>(to + r * stride + chunk * 8) =
                *reinterpret_cast<const uint4 *>(tile + tile_place<DIM>(row + r, chunk));
        }
    }
}

#endif
