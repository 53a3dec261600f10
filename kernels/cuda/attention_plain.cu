/* Attention without tensor cores: for f32, for heads of any size up to 256, and for rows that do
 * not lie on 16-byte boundaries. The ways are those of attention_forward.cu and
 * attention_backward.cu.
 *
 * A block of 128 threads has 32 rows, of queries or of keys, and walks over tiles of 32 others, all
 * as f32 in shared memory. Thread (y, x) = (t / 16, t % 16) has rows y + 8i, i < 4, of the scores
 * and of the sums, and their columns x + 16j. Rows in shared memory are one number longer than
 * heads, so that a column of them lies in different banks.
 *
 * Operations: forward 4 D per pair of a query and a key that it sees, backward 14 D; each thread
 * loads 6 numbers from shared memory for 8 products. Bound by shared memory to about a quarter of
 * the f32 peak: some 15 TFLOP/s on an H200. */
#include "kernels/cuda/attention.h"

enum {
    PLAIN_THREADS = 128,
    TILE = ATTENTION_PLAIN_TILE,
    ROWS = 4,     /* of a thread */
    ROW_STEP = 8, /* from one of them to the next */
    COLUMN_STEP = 16,
    COLUMNS = TILE / COLUMN_STEP, /* of a thread, in a tile of scores */
};

/* TILE rows of DIM numbers, and a tile of weights. */
template <int DIM> using plain_rows = float[TILE][DIM + 1];
typedef float plain_weights[TILE][TILE + 1];

static __device__ int thread_row(int i)
{
    return (int)threadIdx.x / COLUMN_STEP + ROW_STEP * i;
}

static __device__ int thread_column(int j)
{
    return (int)threadIdx.x % COLUMN_STEP + COLUMN_STEP * j;
}

/* `count` rows of `dim` numbers; the rest of the tile becomes zeros. */
template <typename T, int DIM>
static __device__ void plain_load(plain_rows<DIM> &to, const T *from, int64_t stride, int count,
                                  int dim)
{
    for (int i = (int)threadIdx.x; i < TILE * DIM; i += PLAIN_THREADS) {
        const int row = i / DIM;
        const int column = i % DIM;
        to[row][column] =
            row < count && column < dim ? number_load(from + row * stride + column) : 0.0F;
    }
}

/* s = a b', the first `dim` columns of them. Sums of 32 products are added up, which keeps the
 * error of long heads small. */
template <int DIM>
static __device__ void plain_multiply(float (&s)[ROWS][COLUMNS], const plain_rows<DIM> &a,
                                      const plain_rows<DIM> &b, int dim)
{
#pragma unroll
    for (int i = 0; i < ROWS * COLUMNS; i++) {
        s[i / COLUMNS][i % COLUMNS] = 0.0F;
    }
    for (int first = 0; first < dim; first += 32) {
        float part[ROWS][COLUMNS] = {};
        for (int k = first; k < min(first + 32, dim); k++) {
            float right[COLUMNS];
#pragma unroll
            for (int j = 0; j < COLUMNS; j++) {
                right[j] = b[thread_column(j)][k];
            }
#pragma unroll
            for (int i = 0; i < ROWS; i++) {
                const float left = a[thread_row(i)][k];
#pragma unroll
                for (int j = 0; j < COLUMNS; j++) {
                    part[i][j] += left * right[j];
                }
            }
        }
#pragma unroll
        for (int i = 0; i < ROWS * COLUMNS; i++) {
            s[i / COLUMNS][i % COLUMNS] += part[i / COLUMNS][i % COLUMNS];
        }
    }
}

/* sum += weights rows */
template <int DIM>
static __device__ void plain_accumulate(float (&sum)[ROWS][DIM / COLUMN_STEP],
                                        const plain_weights &weights, const plain_rows<DIM> &rows)
{
    for (int k = 0; k < TILE; k++) {
        float left[ROWS];
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            left[i] = weights[thread_row(i)][k];
        }
#pragma unroll
        for (int j = 0; j < DIM / COLUMN_STEP; j++) {
            const float right = rows[k][thread_column(j)];
#pragma unroll
            for (int i = 0; i < ROWS; i++) {
                sum[i][j] += left[i] * right;
            }
        }
    }
}

static __device__ void plain_put(plain_weights &to, const float (&s)[ROWS][COLUMNS])
{
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) {
            to[thread_row(i)][thread_column(j)] = s[i][j];
        }
    }
}

/* The first `count` rows of sum times its row's factor. */
template <typename T, int DIM>
static __device__ void plain_store(T *to, int64_t stride, int count, int dim,
                                   const float (&sum)[ROWS][DIM / COLUMN_STEP],
                                   const float (&factor)[ROWS])
{
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
#pragma unroll
        for (int j = 0; j < DIM / COLUMN_STEP; j++) {
            if (thread_row(i) < count && thread_column(j) < dim) {
                number_store(to + thread_row(i) * stride + thread_column(j), sum[i][j] * factor[i]);
            }
        }
    }
}

/* -- forward -- */

template <int DIM> struct plain_forward_memory {
    plain_rows<DIM> queries;
    plain_rows<DIM> others; /* keys, then values */
    plain_weights weights;
};

/* Of a thread's rows; `total` is this thread's part. */
struct plain_softmax {
    float top[ROWS]; /* largest score so far, in units of log 2 */
    float total[ROWS];
    float shrink[ROWS]; /* what the last tile made of earlier sums */
};

/* Scores become weights; the key of column 0 lies `ahead` of the query of row 0. */
static __device__ void plain_weigh(struct plain_softmax &softmax, float (&s)[ROWS][COLUMNS],
                                   float scale, int ahead)
{
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        float top = softmax.top[i];
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) {
            const bool seen = ahead + thread_column(j) <= thread_row(i);
            s[i][j] = seen ? s[i][j] * scale : -CUDART_INF_F;
            top = fmaxf(top, s[i][j]); /* NaN finds its own way into the weights */
        }
        for (int distance = COLUMN_STEP / 2; distance > 0; distance /= 2) {
            top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFFU, top, distance));
        }
        softmax.shrink[i] = exp2f(softmax.top[i] - top);
        softmax.top[i] = top;
        softmax.total[i] *= softmax.shrink[i];
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) {
            s[i][j] = exp2f(s[i][j] - top);
            softmax.total[i] += s[i][j];
        }
    }
}

/* Totals of the rows, and the logarithms of `count` of them. */
static __device__ void plain_finish(struct plain_softmax &softmax, float *log_sum_exp, int count)
{
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        for (int distance = COLUMN_STEP / 2; distance > 0; distance /= 2) {
            softmax.total[i] += __shfl_xor_sync(0xFFFFFFFFU, softmax.total[i], distance);
        }
        if (log_sum_exp != NULL && thread_column(0) == 0 && thread_row(i) < count) {
            log_sum_exp[thread_row(i)] = softmax.top[i] * LN_2 + logf(softmax.total[i]);
        }
    }
}

template <typename T, int DIM>
static __global__ void __launch_bounds__(PLAIN_THREADS)
    attention_plain_forward_kernel(const struct attention_input<T> in, T *out, int64_t out_stride,
                                   float *log_sum_exp)
{
    SHARED_BYTES(shared);
    auto *const memory = reinterpret_cast<struct plain_forward_memory<DIM> *>(shared);
    const struct attention_job job = attention_job_of(in.pieces, in.heads, TILE, false);
    if (job.length == 0) {
        return;
    }
    const int kv_head = job.head / (in.heads / in.kv_heads);
    const int64_t first_row = job.start + job.first;
    const int end = min(job.first + TILE, job.length);
    plain_load<T, DIM>(memory->queries, attention_query(in, first_row, job.head), in.stride,
                       end - job.first, in.dim);
    float sum[ROWS][DIM / COLUMN_STEP] = {};
    struct plain_softmax softmax = {};
    for (int i = 0; i < ROWS; i++) {
        softmax.top[i] = -CUDART_INF_F;
    }
    for (int at = 0; at < end; at += TILE) {
        float s[ROWS][COLUMNS];
        __syncthreads();
        plain_load<T, DIM>(memory->others, attention_key(in, job.start + at, kv_head), in.stride,
                           end - at, in.dim);
        __syncthreads();
        plain_multiply<DIM>(s, memory->queries, memory->others, in.dim);
        plain_weigh(softmax, s, in.scale * LOG2_E, at - job.first);
        plain_put(memory->weights, s);
        __syncthreads();
        plain_load<T, DIM>(memory->others, attention_value(in, job.start + at, kv_head), in.stride,
                           end - at, in.dim);
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
#pragma unroll
            for (int j = 0; j < DIM / COLUMN_STEP; j++) {
                sum[i][j] *= softmax.shrink[i];
            }
        }
        __syncthreads();
        plain_accumulate<DIM>(sum, memory->weights, memory->others);
    }
    plain_finish(softmax, log_sum_exp == NULL ? NULL : log_sum_exp + job.head * in.rows + first_row,
                 end - job.first);
    float inverse[ROWS];
    for (int i = 0; i < ROWS; i++) {
        inverse[i] = 1.0F / softmax.total[i];
    }
    plain_store<T, DIM>(out + first_row * out_stride + (int64_t)job.head * in.dim, out_stride,
                        end - job.first, in.dim, sum, inverse);
}

/* -- backward: one kernel for both passes --
 *
 *   of keys     rows are keys, columns the queries that see them: S' = K Q', dP' = V dO',
 *               dK = scale dS' Q, dV = P' dO
 *   of queries  rows are queries, columns the keys that they see: S = Q K', dP = dO V',
 *               dQ = scale dS K
 */

template <int DIM> struct plain_backward_memory {
    plain_rows<DIM> row_a; /* K, or Q */
    plain_rows<DIM> row_b; /* V, or dO */
    plain_rows<DIM> column_a;
    plain_rows<DIM> column_b;
    plain_weights weights;
    plain_weights d_scores;
};

/* Loads 32 queries and their d_out, or keys and their values, from position `at` on. */
template <typename T, int DIM>
static __device__ void plain_load_pair(plain_rows<DIM> &a, plain_rows<DIM> &b,
                                       const struct attention_input<T> &in,
                                       const struct attention_gradients<T> &g,
                                       const struct attention_job &job, int at, int head, bool keys)
{
    const int64_t row = job.start + at;
    const int count = job.length - at;
    if (keys) {
        plain_load<T, DIM>(a, attention_key(in, row, head), in.stride, count, in.dim);
        plain_load<T, DIM>(b, attention_value(in, row, head), in.stride, count, in.dim);
    } else {
        plain_load<T, DIM>(a, attention_query(in, row, head), in.stride, count, in.dim);
        plain_load<T, DIM>(b, g.d_out + row * g.d_out_stride + (int64_t)head * in.dim,
                           g.d_out_stride, count, in.dim);
    }
}

/* Scores become weights, and d_scores what their gradient is. Rows begin at position `row`, columns
 * at `column`. */
template <typename T, bool OF_KEYS>
static __device__ void
plain_weigh_again(float (&s)[ROWS][COLUMNS], float (&d_scores)[ROWS][COLUMNS],
                  const struct attention_input<T> &in, const struct attention_gradients<T> &g,
                  const struct attention_job &job, int row, int column, int head)
{
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
#pragma unroll
        for (int j = 0; j < COLUMNS; j++) {
            const int query = OF_KEYS ? column + thread_column(j) : row + thread_row(i);
            const int key = OF_KEYS ? row + thread_row(i) : column + thread_column(j);
            if (query < job.length && key <= query) {
                const int64_t at = head * in.rows + job.start + query;
                s[i][j] = exp2f(s[i][j] * (in.scale * LOG2_E) - g.log_sum_exp[at] * LOG2_E);
                d_scores[i][j] = s[i][j] * (d_scores[i][j] - g.delta[at]);
            } else {
                s[i][j] = 0.0F;
                d_scores[i][j] = 0.0F;
            }
        }
    }
}

template <typename T, int DIM, bool OF_KEYS>
static __global__ void __launch_bounds__(PLAIN_THREADS)
    attention_plain_backward_kernel(const struct attention_input<T> in,
                                    const struct attention_gradients<T> g)
{
    SHARED_BYTES(shared);
    auto *const memory = reinterpret_cast<struct plain_backward_memory<DIM> *>(shared);
    const struct attention_job job =
        attention_job_of(in.pieces, OF_KEYS ? in.kv_heads : in.heads, TILE, OF_KEYS);
    if (job.length == 0) {
        return;
    }
    const int group = in.heads / in.kv_heads;
    const int first_column = OF_KEYS ? job.first : 0;
    const int end_column = OF_KEYS ? job.length : min(job.first + TILE, job.length);
    plain_load_pair<T, DIM>(memory->row_a, memory->row_b, in, g, job, job.first, job.head, OF_KEYS);
    float sum_a[ROWS][DIM / COLUMN_STEP] = {};
    float sum_b[ROWS][DIM / COLUMN_STEP] = {};
    for (int h = 0; h < (OF_KEYS ? group : 1); h++) {
        const int query_head = OF_KEYS ? job.head * group + h : job.head;
        for (int at = first_column; at < end_column; at += TILE) {
            float s[ROWS][COLUMNS];
            float d_scores[ROWS][COLUMNS];
            __syncthreads();
            plain_load_pair<T, DIM>(memory->column_a, memory->column_b, in, g, job, at,
                                    OF_KEYS ? query_head : job.head / group, !OF_KEYS);
            __syncthreads();
            plain_multiply<DIM>(s, memory->row_a, memory->column_a, in.dim);
            plain_multiply<DIM>(d_scores, memory->row_b, memory->column_b, in.dim);
            plain_weigh_again<T, OF_KEYS>(s, d_scores, in, g, job, job.first, at, query_head);
            plain_put(memory->weights, s);
            plain_put(memory->d_scores, d_scores);
            __syncthreads();
            plain_accumulate<DIM>(sum_a, memory->d_scores, memory->column_a);
            if (OF_KEYS) {
                plain_accumulate<DIM>(sum_b, memory->weights, memory->column_b);
            }
        }
    }
    const float scale[ROWS] = {in.scale, in.scale, in.scale, in.scale};
    const float one[ROWS] = {1.0F, 1.0F, 1.0F, 1.0F};
    const int head = OF_KEYS ? in.heads + job.head : job.head;
    T *to = g.d_qkv + (job.start + job.first) * g.stride + (int64_t)head * in.dim;
    plain_store<T, DIM>(to, g.stride, job.length - job.first, in.dim, sum_a, scale);
    if (OF_KEYS) {
        plain_store<T, DIM>(to + (int64_t)in.kv_heads * in.dim, g.stride, job.length - job.first,
                            in.dim, sum_b, one);
    }
}

/* -- launches: by dtype, then by the smallest DIM that holds a head -- */

/* False after recording that heads are too large. */
static bool plain_dim_allowed(struct device *device, int64_t dim)
{
    if (dim > ATTENTION_PLAIN_DIM) {
        CUDA_FAIL(device, STATUS_UNSUPPORTED,
                  "attention on a GPU takes heads of up to %d numbers, these have %lld; set the "
                  "backend to cpu",
                  ATTENTION_PLAIN_DIM, (long long)dim);
        return false;
    }
    return true;
}

template <typename T, int DIM>
static void plain_forward_launch(struct device *device, struct tensor out, float *log_sum_exp,
                                 const struct attention_input<T> &in, int64_t pieces)
{
    cuda_launch(device, "attention_plain_forward", attention_plain_forward_kernel<T, DIM>,
                attention_grid(pieces, in.heads), PLAIN_THREADS,
                sizeof(struct plain_forward_memory<DIM>), in, (T *)out.data, out.stride,
                log_sum_exp);
}

template <typename T>
static void plain_forward(struct device *device, struct tensor out, float *log_sum_exp,
                          const struct attention_input<T> &in, int64_t pieces)
{
    if (in.dim <= 64) {
        plain_forward_launch<T, 64>(device, out, log_sum_exp, in, pieces);
    } else if (in.dim <= 128) {
        plain_forward_launch<T, 128>(device, out, log_sum_exp, in, pieces);
    } else {
        plain_forward_launch<T, 256>(device, out, log_sum_exp, in, pieces);
    }
}

void attention_plain_forward(struct device *device, struct tensor out, float *log_sum_exp,
                             struct tensor qkv, const struct attention_shape *shape,
                             const int32_t *starts, int64_t sequences)
{
    if (!plain_dim_allowed(device, shape->head_dim)) {
        return;
    }
    const int64_t count = attention_pieces(qkv.rows, sequences, TILE);
    struct attention_piece *pieces =
        (struct attention_piece *)cuda_scratch(device, count, sizeof(*pieces), "attention_forward");
    if (pieces == NULL) {
        return;
    }
    attention_plan(device, pieces, starts, sequences, qkv.rows, TILE);
    if (qkv.dtype == DTYPE_F32) {
        plain_forward(device, out, log_sum_exp, attention_input_of<float>(qkv, shape, pieces),
                      count);
    } else {
        plain_forward(device, out, log_sum_exp, attention_input_of<bf16>(qkv, shape, pieces),
                      count);
    }
}

template <typename T, int DIM>
static void plain_backward_launch(struct device *device, const struct attention_input<T> &in,
                                  const struct attention_gradients<T> &g, int64_t pieces)
{
    cuda_launch(device, "attention_plain_backward_keys",
                attention_plain_backward_kernel<T, DIM, true>, attention_grid(pieces, in.kv_heads),
                PLAIN_THREADS, sizeof(struct plain_backward_memory<DIM>), in, g);
    cuda_launch(device, "attention_plain_backward_queries",
                attention_plain_backward_kernel<T, DIM, false>, attention_grid(pieces, in.heads),
                PLAIN_THREADS, sizeof(struct plain_backward_memory<DIM>), in, g);
}

template <typename T>
static void plain_backward(struct device *device, const struct attention_input<T> &in,
                           const struct attention_gradients<T> &g, int64_t pieces)
{
    if (in.dim <= 64) {
        plain_backward_launch<T, 64>(device, in, g, pieces);
    } else if (in.dim <= 128) {
        plain_backward_launch<T, 128>(device, in, g, pieces);
    } else {
        plain_backward_launch<T, 256>(device, in, g, pieces);
    }
}

void attention_plain_backward(struct device *device, struct tensor d_qkv, struct tensor d_out,
                              struct tensor qkv, const float *log_sum_exp, const float *delta,
                              const struct attention_shape *shape,
                              const struct attention_piece *pieces, int64_t piece_count)
{
    if (!plain_dim_allowed(device, shape->head_dim)) {
        return;
    }
    if (qkv.dtype == DTYPE_F32) {
        plain_backward(device, attention_input_of<float>(qkv, shape, pieces),
                       attention_gradients_of<float>(d_qkv, d_out, log_sum_exp, delta),
                       piece_count);
    } else {
        plain_backward(device, attention_input_of<bf16>(qkv, shape, pieces),
                       attention_gradients_of<bf16>(d_qkv, d_out, log_sum_exp, delta), piece_count);
    }
}
