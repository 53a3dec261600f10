/* What the kernels of attention share: where their work lies, and the table that cuts it.
 *
 *   piece  -- `tile` consecutive rows of one sequence: the queries, or the keys, of one block
 *   job    -- a piece and a head
 *
 * The host knows N and S alone, so grids have room for the most pieces there can be, and a small
 * kernel writes the table of those that there are. A table has the longest jobs first, and the
 * heads of a piece are neighbours in the grid, so that the query heads of one key/value head meet
 * its numbers in the L2 cache. Starts that do not rise from 0 to N give a table without pieces, so
 * nothing behind it is ever read or written out of range. */
#ifndef KERNELS_CUDA_ATTENTION_H
#define KERNELS_CUDA_ATTENTION_H

#include <assert.h>

#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/numbers.h"

#define LOG2_E 1.44269504F
#define LN_2 0.69314718F

struct attention_piece {
    int32_t start; /* rows of the sequence; start = end: no piece */
    int32_t end;
    int32_t tile; /* number of the piece in its sequence */
};

/* What every kernel reads. */
template <typename T> struct attention_input {
    const T *qkv;
    int64_t stride;
    const struct attention_piece *pieces;
    int64_t rows; /* N */
    int heads;
    int kv_heads;
    int dim;
    float scale;
};

/* What the backward kernels read besides, and write. */
template <typename T> struct attention_gradients {
    T *d_qkv;
    int64_t stride;
    const T *d_out;
    int64_t d_out_stride;
    const float *log_sum_exp; /* (H,N) */
    const float *delta;       /* (H,N), d_out * out summed over each head */
};

/* One block's work. */
struct attention_job {
    int64_t start; /* row of the sequence */
    int length;    /* of the sequence; 0: nothing to do */
    int first;     /* position of the piece's first row in the sequence */
    int head;      /* of `heads` that share the pieces */
};

/* The job of this block. The causal triangle has its longest rows at the end of a sequence and its
 * longest columns at the beginning: `mirrored` turns the order inside each sequence round. */
__device__ inline struct attention_job attention_job_of(const struct attention_piece *pieces,
                                                        int heads, int tile, bool mirrored)
{
    const struct attention_piece piece = pieces[blockIdx.x / (unsigned)heads];
    const int length = piece.end - piece.start;
    const int tiles = (length + tile - 1) / tile;
    struct attention_job job;
    job.start = piece.start;
    job.length = length;
    job.first = (mirrored ? tiles - 1 - piece.tile : piece.tile) * tile;
    job.head = (int)(blockIdx.x % (unsigned)heads);
    return job;
}

/* First rows of a sequence in the parts of the fused rows. */
template <typename T>
__device__ inline const T *attention_query(const struct attention_input<T> &in, int64_t start,
                                           int head)
{
    return in.qkv + start * in.stride + (int64_t)head * in.dim;
}

template <typename T>
__device__ inline const T *attention_key(const struct attention_input<T> &in, int64_t start,
                                         int kv_head)
{
    return attention_query(in, start, in.heads + kv_head);
}

template <typename T>
__device__ inline const T *attention_value(const struct attention_input<T> &in, int64_t start,
                                           int kv_head)
{
    return attention_query(in, start, in.heads + in.kv_heads + kv_head);
}

/* The most pieces of `tile` rows that S sequences of N rows can have. */
static inline int64_t attention_pieces(int64_t rows, int64_t sequences, int tile)
{
    return rows / tile + sequences;
}

/* A grid of one block for each piece and each of `heads`. */
static inline dim3 attention_grid(int64_t pieces, int64_t heads)
{
    assert(pieces <= 0x7FFFFFFF / heads);
    return dim3((unsigned)(pieces * heads));
}

/* The mistakes of a caller that the host can see. */
static inline void attention_check(struct tensor out, struct tensor qkv,
                                   const struct attention_shape *shape, int64_t sequences)
{
    assert(shape->kv_heads > 0 && shape->heads > 0 && shape->heads % shape->kv_heads == 0);
    assert(shape->head_dim > 0 && shape->scale > 0.0F);
    assert(qkv.cols == (shape->heads + 2 * shape->kv_heads) * shape->head_dim);
    assert(out.cols == shape->heads * shape->head_dim && out.rows == qkv.rows);
    assert(out.dtype == qkv.dtype && (out.dtype == DTYPE_F32 || out.dtype == DTYPE_BF16));
    assert(qkv.rows <= 0x7FFFFFFF && sequences >= 0 && (sequences > 0 || qkv.rows == 0));
    (void)out, (void)qkv, (void)shape, (void)sequences;
}

template <typename T>
static inline struct attention_input<T> attention_input_of(struct tensor qkv,
                                                           const struct attention_shape *shape,
                                                           const struct attention_piece *pieces) {
    struct attention_input<T> in;
    in.qkv = (const T *)qkv.data;
    in.stride = qkv.stride;
    in.pieces = pieces;
    in.rows = qkv.rows;
    in.heads = (int)shape->heads;
    in.kv_heads = (int)shape->kv_heads;
    in.dim = (int)shape->head_dim;
    in.scale = shape->scale;
    return in;
}

template <typename T>
static inline struct attention_gradients<T>
attention_gradients_of(struct tensor d_qkv, struct tensor d_out, const float *log_sum_exp,
                       const float *delta) {
    struct attention_gradients<T> g;
    g.d_qkv = (T *)d_qkv.data;
    g.stride = d_qkv.stride;
    g.d_out = (const T *)d_out.data;
    g.d_out_stride = d_out.stride;
    g.log_sum_exp = log_sum_exp;
    g.delta = delta;
    return g;
}

/* Whether the tensor cores' kernels take heads of this size from rows like these (and every other
 * tensor of the operation must be rows_aligned too). */
static inline bool
attention_fits_tiles(struct tensor qkv, const struct attention_shape *shape)
{
    return qkv.dtype == DTYPE_BF16 && shape->head_dim % 8 == 0 && shape->head_dim <= 128 &&
           rows_aligned(qkv);
}

/* -- attention_plan.cu -- */

/* Writes the table (attention_pieces entries) of pieces of `tile` rows, a power of two. Wrong
 * starts are a fault. */
void attention_plan(struct device *device, struct attention_piece *pieces, const int32_t *starts,
                    int64_t sequences, int64_t rows, int tile);

/* -- attention_plain.cu: f32, any head size up to 256, any alignment -- */

enum { ATTENTION_PLAIN_TILE = 32, ATTENTION_PLAIN_DIM = 256 };

void attention_plain_forward(struct device *device, struct tensor out, float *log_sum_exp,
                             struct tensor qkv, const struct attention_shape *shape,
                             const int32_t *starts, int64_t sequences);

/* d_qkv.. as in the operation; delta (H,N) is ready, pieces (piece_count) is the table of
 * pieces of ATTENTION_PLAIN_TILE rows.
 */
void attention_plain_backward(struct device *device, struct tensor d_qkv, struct tensor d_out,
                              struct tensor qkv, const float *log_sum_exp, const float *delta,
                              const struct attention_shape *shape,
                              const struct attention_piece *pieces, int64_t piece_count);

#endif
