/* Gradient of causal attention over packed sequences; the weights are made again tile by tile.
 * Source: arXiv 2307.08691.
 *
 *   P = exp(scale Q K' - log_sum_exp)    delta = sum over D of dO * O    dS = P (dO V' - delta)
 *   dV = P' dO                           dK = scale dS' Q                dQ = scale dS K
 *
 * No block adds to what another block writes, so the bits are always the same:
 *   delta    eight lanes a row and head
 *   keys     a block has keys and values of one key/value head in shared memory, and goes over all
 *            queries that see them, of all query heads of the group; a warp makes dK and dV of 16
 *            keys in registers. It computes S' = K Q', so that P' and dS' are left factors as they
 *            stand.
 *   queries  a block has 64 queries of one head and goes over the keys that they see; a warp makes
 *            dQ of 16 queries in registers
 *
 * Operations: 7 products of 2 D per pair of a query and a key that it sees, where 5 would do if
 * blocks added to each other's dQ; the forward pass has 2. H = 16, K = 8, D = 128, 8 sequences of
 * 2,048: 481 GFLOP a layer. Bytes: qkv, out and d_out once, d_qkv once: 403 MB, 0.1 ms on an H200.
 * The nearest bound is shared memory: a warp of the keys' pass reads 40 KiB for 524 kFLOP, of the
 * queries' pass 24 KiB for 393 kFLOP; at 128 bytes a cycle that is 380 and 470 TFLOP/s, of which
 * 300 may be reached: 1.6 ms.
 */
#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_tiles.h"
#include "kernels/cuda/operations.h"

enum {
    DELTA_THREADS = 256,
    DELTA_LANES = 8, /* of one row and head */
    TILE_ROWS = 32,  /* of what a block walks over */
    WARP_ROWS = 16,  /* of what a warp makes the gradient of */
    QUERY_WARPS = 4,
    QUERY_THREADS = QUERY_WARPS * WARP,
    QUERY_ROWS = QUERY_WARPS * WARP_ROWS,
};

/* With more keys a block reads the queries less often; with heads of 64 there is room for more
 * blocks instead. */
template <int DIM> constexpr int KEY_ROWS = DIM;
template <int DIM> constexpr int KEY_THREADS = 2 * DIM; /* a warp for 16 keys */

/* -- delta -- */

template <typename T, bool PACKED>
static __global__ void __launch_bounds__(DELTA_THREADS)
    attention_delta_kernel(float *delta, const T *out, int64_t out_stride, const T *d_out,
                           int64_t d_out_stride, int64_t rows, int heads, int dim)
{
    constexpr int SIZE = PACKED ? pack<T>::SIZE : 1;
    const int64_t number = ((int64_t)blockIdx.x * DELTA_THREADS + threadIdx.x) / DELTA_LANES;
    const int64_t row = number / heads;
    const int head = (int)(number % heads);
    float sum = 0.0F;
    for (int i = (int)threadIdx.x % DELTA_LANES * SIZE; row < rows && i < dim;
         i += DELTA_LANES * SIZE) {
        const T *o = out + row * out_stride + head * dim + i;
        const T *d = d_out + row * d_out_stride + head * dim + i;
        if constexpr (PACKED) {
            float a[SIZE];
            float b[SIZE];
            pack_load(o, a);
            pack_load(d, b);
#pragma unroll
            for (int j = 0; j < SIZE; j++) {
                sum += a[j] * b[j];
            }
        } else {
            sum += number_load(o) * number_load(d);
        }
    }
#pragma unroll
    for (int distance = DELTA_LANES / 2; distance > 0; distance /= 2) {
        sum += __shfl_xor_sync(0xFFFFFFFFU, sum, distance);
    }
    if (row < rows && threadIdx.x % DELTA_LANES == 0) {
        delta[head * rows + row] = sum;
    }
}

template <typename T>
static void delta_launch(struct device *device, float *delta, struct tensor out,
                         struct tensor d_out, const struct attention_shape *shape)
{
    const bool packed =
        rows_aligned(out) && rows_aligned(d_out) && shape->head_dim % pack<T>::SIZE == 0;
    cuda_launch(device, "attention_delta",
                packed ? attention_delta_kernel<T, true> : attention_delta_kernel<T, false>,
                dim3(cuda_blocks(out.rows * shape->heads, DELTA_THREADS / DELTA_LANES)),
                DELTA_THREADS, 0, delta, (const T *)out.data, out.stride, (const T *)d_out.data,
                d_out.stride, out.rows, (int)shape->heads, (int)shape->head_dim);
}

/* -- what both passes do with a tile of scores -- */

/* Of a query: what makes its score the exponent of a weight, and its delta. */
struct query_numbers {
    float log_sum_exp; /* in units of log 2; infinite where there is no query: its weights are 0 */
    float delta;
};

static __device__ struct query_numbers query_numbers_of(const struct attention_gradients<bf16> &g,
                                                        int64_t at, bool exists)
{
    struct query_numbers numbers = {CUDART_INF_F, 0.0F};
    if (exists) {
        numbers.log_sum_exp = g.log_sum_exp[at] * LOG2_E;
        numbers.delta = g.delta[at];
    }
    return numbers;
}

/* -- keys -- */

template <int DIM> struct keys_memory {
    bf16 keys[KEY_ROWS<DIM> * DIM];
    bf16 values[KEY_ROWS<DIM> * DIM];
    bf16 queries[2][TILE_ROWS * DIM]; /* two stages: one is used while the other is filled */
    bf16 d_out[2][TILE_ROWS * DIM];
    struct query_numbers numbers[2][TILE_ROWS];
};

/* The tile of queries that a block goes to next: head by head of the group. */
struct query_walk {
    int head;
    int end_head;
    int first; /* position of the tile in the sequence */
};

static __device__ void query_walk_next(struct query_walk &walk, const struct attention_job &job)
{
    walk.first += TILE_ROWS;
    if (walk.first >= job.length) {
        walk.first = job.first;
        walk.head++;
    }
}

/* Starts copying a tile of queries. Their numbers are on the way in registers meanwhile, one query
 * a thread of the first ones, and keys_store_numbers puts them down. */
template <int DIM>
static __device__ struct query_numbers
keys_copy(struct keys_memory<DIM> *memory, int stage, const struct attention_input<bf16> &in,
          const struct attention_gradients<bf16> &g, const struct attention_job &job,
          const struct query_walk &walk)
{
    struct query_numbers numbers = {CUDART_INF_F, 0.0F};
    if (walk.head < walk.end_head) {
        const int64_t row = job.start + walk.first;
        const int left = job.length - walk.first;
        tile_copy<DIM, TILE_ROWS, KEY_THREADS<DIM>>(
            memory->queries[stage], attention_query(in, row, walk.head), in.stride, left, in.dim);
        tile_copy<DIM, TILE_ROWS, KEY_THREADS<DIM>>(
            memory->d_out[stage], g.d_out + row * g.d_out_stride + walk.head * in.dim,
            g.d_out_stride, left, in.dim);
        const int query = (int)threadIdx.x;
        numbers = query_numbers_of(g, walk.head * in.rows + row + query,
                                   query < TILE_ROWS && query < left);
    }
    copy_commit();
    return numbers;
}

template <int DIM>
static __device__ void keys_store_numbers(struct keys_memory<DIM> *memory, int stage,
                                          struct query_numbers numbers)
{
    if (threadIdx.x < TILE_ROWS) {
        memory->numbers[stage][threadIdx.x] = numbers;
    }
}

/* One tile of queries for one warp: rows `row`.. of the block's keys, the first of which lies
 * `ahead` of the first query. */
template <int DIM>
static __device__ void keys_tile(struct keys_memory<DIM> *memory, int stage, int row, int ahead,
                                 float scale, float (&d_keys)[1][DIM / 8][4],
                                 float (&d_values)[1][DIM / 8][4])
{
    const int lane = (int)threadIdx.x % WARP;
    const struct query_numbers *numbers = memory->numbers[stage] + lane % 4 * 2;
    float weights[1][TILE_ROWS / 8][4] = {};
    tile_multiply<DIM>(weights, memory->keys, row, memory->queries[stage]);
    if (ahead + WARP_ROWS > 1) {
        tile_mask(weights, ahead, true);
    }
#pragma unroll
    for (int n = 0; n < TILE_ROWS / 8; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float log_sum_exp = numbers[8 * n + i % 2].log_sum_exp;
            weights[0][n][i] = exp2_flushed(fmaf(weights[0][n][i], scale, -log_sum_exp));
        }
    }
    tile_accumulate<DIM>(d_values, weights, memory->d_out[stage]);
    float d_scores[1][TILE_ROWS / 8][4] = {};
    tile_multiply<DIM>(d_scores, memory->values, row, memory->d_out[stage]);
#pragma unroll
    for (int n = 0; n < TILE_ROWS / 8; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float delta = numbers[8 * n + i % 2].delta;
            d_scores[0][n][i] = weights[0][n][i] * (d_scores[0][n][i] - delta);
        }
    }
    tile_accumulate<DIM>(d_keys, d_scores, memory->queries[stage]);
}

template <int DIM>
static __device__ void
keys_finish(struct keys_memory<DIM> *memory, const struct attention_input<bf16> &in,
            const struct attention_gradients<bf16> &g, const struct attention_job &job, int row,
            float (&d_keys)[1][DIM / 8][4], const float (&d_values)[1][DIM / 8][4])
{
    const int64_t first_row = job.start + job.first + row;
    const int rows = job.length - job.first - row;
    bf16 *d_key = g.d_qkv + first_row * g.stride + (int64_t)(in.heads + job.head) * in.dim;
#pragma unroll
    for (int n = 0; n < DIM / 8; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            d_keys[0][n][i] *= in.scale;
        }
    }
    tile_store<DIM>(d_key, g.stride, rows, in.dim, memory->keys, row, d_keys);
    tile_store<DIM>(d_key + (int64_t)in.kv_heads * in.dim, g.stride, rows, in.dim, memory->values,
                    row, d_values);
}

template <int DIM>
static __global__ void __launch_bounds__(KEY_THREADS<DIM>, DIM == 64 ? 3 : 1)
    attention_backward_keys_kernel(const struct attention_input<bf16> in,
                                   const struct attention_gradients<bf16> g)
{
    SHARED_BYTES(shared);
    struct keys_memory<DIM> *const memory = reinterpret_cast<struct keys_memory<DIM> *>(shared);
    const struct attention_job job = attention_job_of(in.pieces, in.kv_heads, KEY_ROWS<DIM>, true);
    if (job.length == 0) {
        return;
    }
    tile_copy<DIM, KEY_ROWS<DIM>, KEY_THREADS<DIM>>(
        memory->keys, attention_key(in, job.start + job.first, job.head), in.stride,
        job.length - job.first, in.dim);
    tile_copy<DIM, KEY_ROWS<DIM>, KEY_THREADS<DIM>>(
        memory->values, attention_value(in, job.start + job.first, job.head), in.stride,
        job.length - job.first, in.dim);
    const int group = in.heads / in.kv_heads;
    struct query_walk walk = {job.head * group, (job.head + 1) * group, job.first};
    keys_store_numbers(memory, 0, keys_copy(memory, 0, in, g, job, walk));

    const int row = (int)threadIdx.x / WARP * WARP_ROWS; /* the warp's first key */
    float d_keys[1][DIM / 8][4] = {};
    float d_values[1][DIM / 8][4] = {};
    for (int stage = 0; walk.head < walk.end_head; stage ^= 1) {
        const int ahead = job.first + row - walk.first;
        query_walk_next(walk, job);
        copy_wait<0>();
        __syncthreads(); /* this tile is there, and the one before it is used */
        const struct query_numbers next = keys_copy(memory, stage ^ 1, in, g, job, walk);
        if (ahead < TILE_ROWS) { /* some query of the tile sees a key of the warp */
            keys_tile(memory, stage, row, ahead, in.scale * LOG2_E, d_keys, d_values);
        }
        keys_store_numbers(memory, stage ^ 1, next);
    }
    keys_finish(memory, in, g, job, row, d_keys, d_values);
}

/* -- queries -- */

template <int DIM> struct queries_memory {
    bf16 queries[QUERY_ROWS * DIM];
    bf16 d_out[QUERY_ROWS * DIM];
    bf16 keys[2][TILE_ROWS * DIM]; /* two stages */
    bf16 values[2][TILE_ROWS * DIM];
};

/* What a warp keeps in registers. A lane has rows lane / 4 and lane / 4 + 8 of its 16 queries. */
template <int DIM> struct queries_kept {
    uint32_t query[DIM / 16][1][4];
    uint32_t d_out[DIM / 16][1][4];
    struct query_numbers numbers[2];
    float d_query[1][DIM / 8][4];
};

template <int DIM>
static __device__ void queries_copy(struct queries_memory<DIM> *memory, int stage,
                                    const struct attention_input<bf16> &in, const bf16 *key,
                                    int left)
{
    if (left > 0) {
        tile_copy<DIM, TILE_ROWS, QUERY_THREADS>(memory->keys[stage], key, in.stride, left, in.dim);
        tile_copy<DIM, TILE_ROWS, QUERY_THREADS>(memory->values[stage], key + in.kv_heads * in.dim,
                                                 in.stride, left, in.dim);
    }
    copy_commit();
}

/* Queries and d_out come through shared memory into registers. */
template <int DIM>
static __device__ void
queries_begin(struct queries_memory<DIM> *memory, const struct attention_input<bf16> &in,
              const struct attention_gradients<bf16> &g, const struct attention_job &job, int row,
              struct queries_kept<DIM> &kept)
{
    const int64_t first_row = job.start + job.first;
    const int rows = job.length - job.first;
    tile_copy<DIM, QUERY_ROWS, QUERY_THREADS>(
        memory->queries, attention_query(in, first_row, job.head), in.stride, rows, in.dim);
    tile_copy<DIM, QUERY_ROWS, QUERY_THREADS>(
        memory->d_out, g.d_out + first_row * g.d_out_stride + (int64_t)job.head * in.dim,
        g.d_out_stride, rows, in.dim);
    copy_commit();
    for (int half = 0; half < 2; half++) {
        const int query = row + (int)threadIdx.x % WARP / 4 + 8 * half;
        kept.numbers[half] =
            query_numbers_of(g, job.head * in.rows + first_row + query, query < rows);
    }
    copy_wait<0>();
    __syncthreads();
#pragma unroll
    for (int k = 0; k < DIM / 16; k++) {
        tile_left<DIM>(kept.query[k], memory->queries, row, k);
        tile_left<DIM>(kept.d_out[k], memory->d_out, row, k);
    }
}

/* One tile of keys, the first of which lies `ahead` of the warp's first query. */
template <int DIM>
static __device__ void queries_tile(const struct queries_memory<DIM> *memory, int stage, int ahead,
                                    float scale, struct queries_kept<DIM> &kept)
{
    float weights[1][TILE_ROWS / 8][4] = {};
    tile_multiply<DIM>(weights, kept.query, memory->keys[stage]);
    if (ahead + TILE_ROWS > 1) {
        tile_mask(weights, ahead, false);
    }
    float d_scores[1][TILE_ROWS / 8][4] = {};
    tile_multiply<DIM>(d_scores, kept.d_out, memory->values[stage]);
#pragma unroll
    for (int n = 0; n < TILE_ROWS / 8; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const struct query_numbers numbers = kept.numbers[i / 2];
            const float weight = exp2_flushed(fmaf(weights[0][n][i], scale, -numbers.log_sum_exp));
            d_scores[0][n][i] = weight * (d_scores[0][n][i] - numbers.delta);
        }
    }
    tile_accumulate<DIM>(kept.d_query, d_scores, memory->keys[stage]);
}

template <int DIM>
static __global__ void __launch_bounds__(QUERY_THREADS, DIM == 64 ? 3 : 2)
    attention_backward_queries_kernel(const struct attention_input<bf16> in,
                                      const struct attention_gradients<bf16> g)
{
    SHARED_BYTES(shared);
    struct queries_memory<DIM> *const memory =
        reinterpret_cast<struct queries_memory<DIM> *>(shared);
    const struct attention_job job = attention_job_of(in.pieces, in.heads, QUERY_ROWS, false);
    if (job.length == 0) {
        return;
    }
    const int row = (int)threadIdx.x / WARP * WARP_ROWS; /* the warp's first query */
    const int end = min(job.first + QUERY_ROWS, job.length);
    const bf16 *key = attention_key(in, job.start, job.head / (in.heads / in.kv_heads));
    queries_copy(memory, 0, in, key, end);
    struct queries_kept<DIM> kept = {
    };
    queries_begin(memory, in, g, job, row, kept);

    int stage = 0;
    for (int at = 0; at < end; at += TILE_ROWS, stage ^= 1) {
        copy_wait<0>();
        __syncthreads(); /* this tile is there, and what was in the other stage is used */
        key += TILE_ROWS * in.stride;
        queries_copy(memory, stage ^ 1, in, key, end - at - TILE_ROWS);
        queries_tile(memory, stage, at - (job.first + row), in.scale * LOG2_E, kept);
    }
#pragma unroll
    for (int n = 0; n < DIM / 8; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            kept.d_query[0][n][i] *= in.scale;
        }
    }
    tile_store<DIM>(g.d_qkv + (job.start + job.first + row) * g.stride + (int64_t)job.head * in.dim,
                    g.stride, end - job.first - row, in.dim, memory->queries, row, kept.d_query);
}

/* -- the operation -- */

/* Working memory: delta, and the tables of both passes. */
struct backward_scratch {
    float *delta; /* (H,N) */
    struct attention_piece *key_pieces;
    int64_t key_count;
    struct attention_piece *query_pieces;
    int64_t query_count;
};

static bool backward_scratch_get(struct device *device, struct backward_scratch *scratch,
                                 int64_t numbers, int64_t rows, int64_t sequences, int key_rows,
                                 int query_rows)
{
    scratch->key_count = attention_pieces(rows, sequences, key_rows);
    scratch->query_count = attention_pieces(rows, sequences, query_rows);
    const int64_t pieces = scratch->key_count + scratch->query_count;
    const int64_t words = (int64_t)(sizeof(struct attention_piece) / sizeof(float));
    scratch->delta = (float *)cuda_scratch(device, numbers + pieces * words, sizeof(float),
                                           "attention_backward");
    scratch->key_pieces = (struct attention_piece *)(void *)(scratch->delta + numbers);
    scratch->query_pieces = scratch->key_pieces + scratch->key_count;
    return scratch->delta != NULL;
}

template <int DIM>
static void backward_launch(struct device *device, const struct backward_scratch *scratch,
                            struct attention_input<bf16> in, struct attention_gradients<bf16> g)
{
    in.pieces = scratch->key_pieces;
    cuda_launch(device, "attention_backward_keys", attention_backward_keys_kernel<DIM>,
                attention_grid(scratch->key_count, in.kv_heads), KEY_THREADS<DIM>,
                sizeof(struct keys_memory<DIM>), in, g);
    in.pieces = scratch->query_pieces;
    cuda_launch(device, "attention_backward_queries", attention_backward_queries_kernel<DIM>,
                attention_grid(scratch->query_count, in.heads), QUERY_THREADS,
                sizeof(struct queries_memory<DIM>), in, g);
}

static void backward_by_tiles(struct device *device, struct tensor d_qkv, struct tensor d_out,
                              struct tensor qkv, struct tensor out, const float *log_sum_exp,
                              const struct attention_shape *shape, const int32_t *starts,
                              int64_t sequences)
{
    const int key_rows = shape->head_dim <= 64 ? KEY_ROWS<64> : KEY_ROWS<128>;
    struct backward_scratch scratch;
    if (!backward_scratch_get(device, &scratch, qkv.rows * shape->heads, qkv.rows, sequences,
                              key_rows, QUERY_ROWS)) {
        return;
    }
    attention_plan(device, scratch.key_pieces, starts, sequences, qkv.rows, key_rows);
    attention_plan(device, scratch.query_pieces, starts, sequences, qkv.rows, QUERY_ROWS);
    delta_launch<bf16>(device, scratch.delta, out, d_out, shape);
    const struct attention_input<bf16> in = attention_input_of<bf16>(qkv, shape, NULL);
    const struct attention_gradients<bf16> g =
        attention_gradients_of<bf16>(d_qkv, d_out, log_sum_exp, scratch.delta);
    if (shape->head_dim <= 64) {
        backward_launch<64>(device, &scratch, in, g);
    } else {
        backward_launch<128>(device, &scratch, in, g);
    }
}

static void backward_plain(struct device *device, struct tensor d_qkv, struct tensor d_out,
                           struct tensor qkv, struct tensor out, const float *log_sum_exp,
                           const struct attention_shape *shape, const int32_t *starts,
                           int64_t sequences)
{
    struct backward_scratch scratch;
    if (!backward_scratch_get(device, &scratch, qkv.rows * shape->heads, qkv.rows, sequences,
                              ATTENTION_PLAIN_TILE, ATTENTION_PLAIN_TILE)) {
        return;
    }
    attention_plan(device, scratch.key_pieces, starts, sequences, qkv.rows, ATTENTION_PLAIN_TILE);
    if (qkv.dtype == DTYPE_F32) {
        delta_launch<float>(device, scratch.delta, out, d_out, shape);
    } else {
        delta_launch<bf16>(device, scratch.delta, out, d_out, shape);
    }
    attention_plain_backward(device, d_qkv, d_out, qkv, log_sum_exp, scratch.delta, shape,
                             scratch.key_pieces, scratch.key_count);
}

void cuda_attention_backward(struct device *device, struct tensor d_qkv, struct tensor d_out,
                             struct tensor qkv, struct tensor out, const float *log_sum_exp,
                             const struct attention_shape *shape, const int32_t *starts,
                             int64_t sequences)
{
    attention_check(out, qkv, shape, sequences);
    attention_check(d_out, d_qkv, shape, sequences);
    assert(out.dtype == d_out.dtype && out.rows == d_out.rows);
    if (cuda_failed(device) || qkv.rows == 0) {
        return;
    }
    if (attention_fits_tiles(qkv, shape) && rows_aligned(d_out) && rows_aligned(d_qkv)) {
        backward_by_tiles(device, d_qkv, d_out, qkv, out, log_sum_exp, shape, starts, sequences);
    } else {
        backward_plain(device, d_qkv, d_out, qkv, out, log_sum_exp, shape, starts, sequences);
    }
}
