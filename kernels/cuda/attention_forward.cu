/* Causal attention over packed sequences without a T x T matrix. Source: arXiv 2307.08691.
 *
 * A block has one head of 128 queries of one sequence and walks over the keys that they see by
 * tiles of 4,096 / D, with the two next tiles on their way. A warp keeps of its 32 queries the
 * largest score so far, the sum of the weights and the weighted values in registers; scores become
 * weights there and are the left factor of the second product. Only tiles on the diagonal are
 * masked.
 *
 * Operations: 4 D per pair of a query and a key that it sees, so 4 D T^2/2 H a sequence; bytes:
 * (2H + 2K) D dtype N at least. H = 16, K = 8, D = 128, 8 sequences of 2,048: 137 GFLOP and 201 MB
 * a layer. An H200 may reach some 400 TFLOP/s with mma.sync in such a loop: 0.35 ms, when the bytes
 * take 0.05 ms. Shared memory is read 96 KiB for 2.1 MFLOP, 768 of some 810 cycles of mma.sync. */
#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_tiles.h"
#include "kernels/cuda/operations.h"

enum {
    FORWARD_THREADS = 128,
    FORWARD_QUERIES = 128,
    FORWARD_STAGES = 3,
    WARP_QUERIES = 32,
    TILE_NUMBERS = 4096, /* of keys or values */
};

template <int DIM> constexpr int FORWARD_KEYS = TILE_NUMBERS / DIM;

/* One warp's queries. A lane has 2 x 2 of them: 16m + 8i + lane / 4. */
template <int DIM> struct forward_sums {
    float out[2][DIM / 8][4]; /* weighted values */
    float top[2][2];          /* largest score so far, in units of log 2 */
    float total[2][2];        /* of the weights, this lane's part */
};

/* Largest of a row's scores: four lanes have parts of it. Without NaN, which finds its own way into
 * the weights. */
template <int N> static __device__ float row_max(const float (&s)[N][4], int half)
{
    float top = fmaxf(s[0][2 * half], s[0][2 * half + 1]);
#pragma unroll
    for (int n = 1; n < N; n++) {
        top = fmaxf(top, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
    }
    top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFFU, top, 1));
    return fmaxf(top, __shfl_xor_sync(0xFFFFFFFFU, top, 2));
}

/* Scores become weights relative to the new top, and the sums so far are brought down to it. The
 * top soon stops rising: then there is nothing to bring down. */
template <int DIM, int N>
static __device__ void forward_weigh(struct forward_sums<DIM> &sums, float (&s)[2][N][4],
                                     float scale)
{
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int m = i / 2;
        const int half = i % 2;
        const float before = sums.top[m][half];
        const float top = fmaxf(before, row_max(s[m], half) * scale);
        float total = 0.0F;
#pragma unroll
        for (int n = 0; n < N; n++) {
#pragma unroll
            for (int column = 2 * half; column < 2 * half + 2; column++) {
                s[m][n][column] = exp2_flushed(fmaf(s[m][n][column], scale, -top));
                total += s[m][n][column];
            }
        }
        sums.top[m][half] = top;
        if (__any_sync(0xFFFFFFFFU, top != before)) {
            const float shrink = exp2_flushed(before - top); /* 0 the first time */
            sums.total[m][half] *= shrink;
#pragma unroll
            for (int n = 0; n < DIM / 8; n++) {
                sums.out[m][n][2 * half] *= shrink;
                sums.out[m][n][2 * half + 1] *= shrink;
            }
        }
        sums.total[m][half] += total;
    }
}

/* Divides by the weights' totals, which the four lanes of a row add up, and writes the logarithms.
 * `rows` of the warp's queries exist. */
template <int DIM>
static __device__ void forward_finish(struct forward_sums<DIM> &sums, float *log_sum_exp, int rows)
{
    const int lane = (int)threadIdx.x % WARP;
#pragma unroll
    for (int m = 0; m < 2; m++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float total = sums.total[m][half];
            total += __shfl_xor_sync(0xFFFFFFFFU, total, 1);
            total += __shfl_xor_sync(0xFFFFFFFFU, total, 2);
            const float inverse = 1.0F / total;
#pragma unroll
            for (int n = 0; n < DIM / 8; n++) {
                sums.out[m][n][2 * half] *= inverse;
                sums.out[m][n][2 * half + 1] *= inverse;
            }
            const int row = 16 * m + 8 * half + lane / 4;
            if (log_sum_exp != NULL && lane % 4 == 0 && row < rows) {
                log_sum_exp[row] = sums.top[m][half] * LN_2 + logf(total);
            }
        }
    }
}

/* Shared memory of a block. */
template <int DIM> struct forward_memory {
    bf16 queries[FORWARD_QUERIES * DIM];
    bf16 keys[FORWARD_STAGES][TILE_NUMBERS];
    bf16 values[FORWARD_STAGES][TILE_NUMBERS];
};

/* The next keys to copy: pointers move on from tile to tile. */
struct forward_source {
    const bf16 *key;
    int64_t stride;
    int value_offset; /* from a key to its value */
    int dim;
    int left; /* rows of the sequence from here on */
};

template <int DIM>
static __device__ void forward_copy(struct forward_memory<DIM> *memory, int stage,
                                    struct forward_source &from)
{
    constexpr int KEYS = FORWARD_KEYS<DIM>;
    if (from.left > 0) {
        tile_copy<DIM, KEYS, FORWARD_THREADS>(memory->keys[stage], from.key, from.stride, from.left,
                                              from.dim);
        tile_copy<DIM, KEYS, FORWARD_THREADS>(memory->values[stage], from.key + from.value_offset,
                                              from.stride, from.left, from.dim);
        from.key += KEYS * from.stride;
        from.left -= KEYS;
    }
    copy_commit();
}

/* Goes over all keys that the warp's queries see, the first of which is number `first`, with the
 * block, whose queries end before `end`. */
template <int DIM>
static __device__ void forward_attend(struct forward_memory<DIM> *memory,
                                      struct forward_source &from, int first, int row, int end,
                                      float scale, struct forward_sums<DIM> &sums)
{
    constexpr int KEYS = FORWARD_KEYS<DIM>;
    int stage = 0;
    for (int at = 0; at < end; at += KEYS) {
        copy_wait<FORWARD_STAGES - 2>();
        __syncthreads(); /* this tile is there, and the one before it is used */
        forward_copy<DIM>(memory, stage == 0 ? FORWARD_STAGES - 1 : stage - 1, from);
        const int ahead = at - first;
        if (ahead < WARP_QUERIES) {
            float s[2][KEYS / 8][4] = {};
            tile_multiply<DIM>(s, memory->queries, row, memory->keys[stage]);
            if (ahead + KEYS > 1) {
                tile_mask(s, ahead, false);
            }
            forward_weigh(sums, s, scale);
            tile_accumulate<DIM>(sums.out, s, memory->values[stage]);
        }
        stage = stage + 1 < FORWARD_STAGES ? stage + 1 : 0;
    }
}

template <int DIM>
static __global__ void __launch_bounds__(FORWARD_THREADS, 2)
    attention_forward_kernel(const struct attention_input<bf16> in, bf16 *out, int64_t out_stride,
                             float *log_sum_exp)
{
    SHARED_BYTES(shared);
    struct forward_memory<DIM> *const memory =
        reinterpret_cast<struct forward_memory<DIM> *>(shared);
    const struct attention_job job = attention_job_of(in.pieces, in.heads, FORWARD_QUERIES, false);
    if (job.length == 0) {
        return;
    }
    const int kv_head = job.head / (in.heads / in.kv_heads);
    const int end = min(job.first + FORWARD_QUERIES, job.length);
    struct forward_source from = {attention_key(in, job.start, kv_head), in.stride,
                                  in.kv_heads * in.dim, in.dim, end};
    tile_copy<DIM, FORWARD_QUERIES, FORWARD_THREADS>(
        memory->queries, attention_query(in, job.start + job.first, job.head), in.stride,
        end - job.first, in.dim);
    for (int stage = 0; stage < FORWARD_STAGES - 1; stage++) {
        forward_copy<DIM>(memory, stage, from);
    }

    const int row = (int)threadIdx.x / WARP * WARP_QUERIES; /* the warp's first query */
    const int64_t first_row = job.start + job.first + row;
    struct forward_sums<DIM> sums = {
    };
    for (int i = 0; i < 4; i++) {
        sums.top[i / 2][i % 2] = -CUDART_INF_F;
    }
    forward_attend(memory, from, job.first + row, row, end, in.scale * LOG2_E, sums);
    forward_finish(sums, log_sum_exp == NULL ? NULL : log_sum_exp + job.head * in.rows + first_row,
                   end - job.first - row);
    tile_store<DIM>(out + first_row * out_stride + (int64_t)job.head * in.dim, out_stride,
                    end - job.first - row, in.dim, memory->queries, row, sums.out);
}

template <int DIM>
static void forward_launch(struct device *device, struct tensor out, float *log_sum_exp,
                           const struct attention_input<bf16> &in, int64_t pieces)
{
    cuda_launch(device, "attention_forward", attention_forward_kernel<DIM>,
                attention_grid(pieces, in.heads), FORWARD_THREADS,
                sizeof(struct forward_memory<DIM>), in, (bf16 *)out.data, out.stride, log_sum_exp);
}

void cuda_attention_forward(struct device *device, struct tensor out, float *log_sum_exp,
                            struct tensor qkv, const struct attention_shape *shape,
                            const int32_t *starts, int64_t sequences)
{
    attention_check(out, qkv, shape, sequences);
    if (cuda_failed(device) || qkv.rows == 0) {
        return;
    }
    if (!attention_fits_tiles(qkv, shape) || !rows_aligned(out)) {
        attention_plain_forward(device, out, log_sum_exp, qkv, shape, starts, sequences);
        return;
    }
    const int64_t count = attention_pieces(qkv.rows, sequences, FORWARD_QUERIES);
    struct attention_piece *pieces =
        (struct attention_piece *)cuda_scratch(device, count, sizeof(*pieces), "attention_forward");
    if (pieces == NULL) {
        return;
    }
    attention_plan(device, pieces, starts, sequences, qkv.rows, FORWARD_QUERIES);
    const struct attention_input<bf16> in = attention_input_of<bf16>(qkv, shape, pieces);
    if (shape->head_dim <= 64) {
        forward_launch<64>(device, out, log_sum_exp, in, count);
    } else {
        forward_launch<128>(device, out, log_sum_exp, in, count);
    }
}
