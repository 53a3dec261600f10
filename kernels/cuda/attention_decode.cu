/* Attention of single queries to the cache: what generation does once a layer and token.
 *
 * The positions of a sequence are cut into chunks, one block a chunk, a row and a key/value head,
 * so that one sequence alone keeps the whole GPU busy; each block leaves a sum of values and what
 * it takes to weigh it, a second kernel adds those of a row in order. How many chunks there are
 * depends on the capacity of the cache and not on the positions, which only the device knows: so a
 * pass can be recorded, and blocks beyond a row's position leave at once.
 * Source: Dao et al., "Flash-Decoding for long-context inference", 2023; softmax as it goes:
 * arXiv 1805.02867.
 *
 * Floor: 2*K*D numbers a position and row are read, 4*H*D operations are done with them: 4 KiB a
 * position for K = 8, D = 128 in bf16, i.e. 1 microsecond a row of 1,024 positions at 4 TB/s, and
 * H/K operations a byte, which up to 8 query heads a key head hide behind the reading. The query
 * heads of a key head share what is read. The sums in between are 4*H*(D+2) bytes a chunk of at
 * least 64 positions, 3 % of what the chunk reads for H = K. */
#include <assert.h>
#include <float.h>

#include "kernels/cuda/kv.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/operations.h"

enum {
    THREADS = 128,
    WARPS = THREADS / WARP,
    DIM_MAX = 256,
    EIGHT = 8,        /* numbers of a head that a lane holds */
    CHUNK_MIN = 64,   /* positions */
    CHUNKS_MAX = 64,  /* of a row, no more than THREADS */
    CHUNK_UNIT = 32,  /* chunks are a multiple of this */
    BLOCKS_PER_SM = 8 /* at most, if it takes chunks to have so many */
};

struct decode {
    struct tensor out;   /* (n,H*D) */
    struct tensor qkv;   /* (n,(H+2K)*D) */
    struct tensor key;   /* (B*T,K*D) */
    struct tensor value; /* (B*T,K*D) */
    struct kv_places places;
    float scale; /* of the scores, as powers of two */
    int heads;
    int group;       /* query heads of a key head */
    int group_parts; /* blocks that share a group */
    int dim;
    int lanes; /* that hold a head together: a power of two */
    int chunks;
    int64_t chunk; /* positions of each */
    float *top;    /* (n,H,chunks) the largest score */
    float *total;  /* (n,H,chunks) sum of 2^(score - top) */
    float *sum;    /* (n,H,chunks,D) of values, weighted by the same */
};

/* What one block works on. */
struct job {
    int64_t row;
    int64_t first; /* row of the cache: its sequence's position 0 */
    int64_t begin; /* positions begin..end-1 */
    int64_t end;
    int64_t column; /* of its key head in the cache */
    int head;       /* its first query head */
    int count;      /* of query heads */
};

/* ---- numbers ---- */

static __device__ float number_at(struct tensor tensor, int64_t row, int64_t column)
{
    const int64_t at = row * tensor.stride + column;
    return tensor.dtype == DTYPE_F32 ? static_cast<const float *>(tensor.data)[at]
                                     : number_load(static_cast<const bf16 *>(tensor.data) + at);
}

static __device__ void number_put(struct tensor tensor, int64_t row, int64_t column, float value)
{
    const int64_t at = row * tensor.stride + column;
    if (tensor.dtype == DTYPE_F32) {
        static_cast<float *>(tensor.data)[at] = value;
    } else {
        number_store(static_cast<bf16 *>(tensor.data) + at, value);
    }
}

/* A lane's eight numbers as memory has them: bf16 then wait in half the registers. */
template <typename T> struct eight {
    static constexpr int PACKS = EIGHT / pack<T>::SIZE;
    uint4 packs[PACKS];
};

/* 16 bytes from anywhere; zeros instead of what lies beyond `count` numbers. */
static __device__ uint4 pack_gather(const float *from, int count)
{
    return make_uint4(
        count > 0 ? __float_as_uint(from[0]) : 0U, count > 1 ? __float_as_uint(from[1]) : 0U,
        count > 2 ? __float_as_uint(from[2]) : 0U, count > 3 ? __float_as_uint(from[3]) : 0U);
}

static __device__ uint4 pack_gather(const bf16 *from, int count)
{
    uint32_t word[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        word[i] = 2 * i < count ? __bfloat16_as_ushort(from[2 * i]) : 0U;
        word[i] |= 2 * i + 1 < count ? (uint32_t)__bfloat16_as_ushort(from[2 * i + 1]) << 16 : 0U;
    }
    return make_uint4(word[0], word[1], word[2], word[3]);
}

/* The part of a head that a lane holds: packs lane, lane + lanes. Zeros beyond the head. */
template <bool ALIGNED, typename T>
static __device__ struct eight<T> eight_load(const T *head, int lane, int lanes, int dim) {
    struct eight<T> eight;
#pragma unroll
    for (int p = 0; p < eight.PACKS; p++) {
        const int first = (lane + p * lanes) * pack<T>::SIZE;
        if (!ALIGNED) {
            eight.packs[p] = pack_gather(head + first, dim - first);
        } else if (first < dim) {
            eight.packs[p] = *reinterpret_cast<const uint4 *>(head + first);
        } else {
            eight.packs[p] = make_uint4(0U, 0U, 0U, 0U);
        }
    }
    return eight;
}

static __device__ void
eight_unpack(const struct eight<float> &eight, float (&to)[EIGHT])
{
#pragma unroll
    for (int p = 0; p < eight.PACKS; p++) {
        to[4 * p] = __uint_as_float(eight.packs[p].x);
        to[4 * p + 1] = __uint_as_float(eight.packs[p].y);
        to[4 * p + 2] = __uint_as_float(eight.packs[p].z);
        to[4 * p + 3] = __uint_as_float(eight.packs[p].w);
    }
}

static __device__ void eight_unpack(const struct eight<bf16> &eight, float (&to)[EIGHT])
{
    const uint32_t word[4] = {eight.packs[0].x, eight.packs[0].y, eight.packs[0].z,
                              eight.packs[0].w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        to[2 * i] = __uint_as_float(word[i] << 16);
        to[2 * i + 1] = __uint_as_float(word[i] & 0xFFFF0000U);
    }
}

/* Which number of the head a lane's number i is. */
template <typename T> static __device__ int eight_index(int lane, int lanes, int i)
{
    return (lane + i / pack<T>::SIZE * lanes) * pack<T>::SIZE + i % pack<T>::SIZE;
}

/* ---- a block ---- */

/* What HEADS queries have seen so far; the lanes of a team hold a head together. */
template <int HEADS> struct seen {
    float query[HEADS][EIGHT];
    float sum[HEADS][EIGHT];
    float top[HEADS];
    float total[HEADS];
};

template <typename T, int HEADS>
static __device__ void start(struct seen<HEADS> *seen, const struct decode *d,
                             const struct job *job, int lane)
{
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        seen->top[h] = -FLT_MAX;
        seen->total[h] = 0.0F;
#pragma unroll
        for (int i = 0; i < EIGHT; i++) {
            const int at = eight_index<T>(lane, d->lanes, i);
            const bool there = h < job->count && at < d->dim;
            const int64_t column = (int64_t)(job->head + h) * d->dim + at;
            seen->sum[h][i] = 0.0F;
            seen->query[h][i] = there ? d->scale * number_at(d->qkv, job->row, column) : 0.0F;
        }
    }
}

/* Scores of COUNT keys for all heads; every lane of the team gets them. */
template <typename T, int HEADS, int COUNT>
static __device__ void score(float (&scores)[HEADS][COUNT], const struct seen<HEADS> *seen,
                             const struct eight<T> (&keys)[COUNT], int lanes)
{
#pragma unroll
    for (int c = 0; c < COUNT; c++) {
        float key[EIGHT];
        eight_unpack(keys[c], key);
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
            scores[h][c] = 0.0F;
#pragma unroll
            for (int i = 0; i < EIGHT; i++) {
                scores[h][c] = fmaf(seen->query[h][i], key[i], scores[h][c]);
            }
        }
    }
    for (int distance = lanes / 2; distance > 0; distance /= 2) {
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
#pragma unroll
            for (int c = 0; c < COUNT; c++) {
                scores[h][c] += __shfl_xor_sync(0xFFFFFFFFU, scores[h][c], distance);
            }
        }
    }
}

/* Scores become weights, and what was seen is made to fit a new largest score. Only the first
 * `count` keys of a team exist. */
template <int HEADS, int COUNT>
static __device__ void soften(float (&scores)[HEADS][COUNT], struct seen<HEADS> *seen, int count)
{
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        float top = seen->top[h];
#pragma unroll
        for (int c = 0; c < COUNT; c++) {
            top = c < count ? fmaxf(top, scores[h][c]) : top;
        }
        const float factor = exp2f(seen->top[h] - top);
        seen->top[h] = top;
        seen->total[h] *= factor;
#pragma unroll
        for (int i = 0; i < EIGHT; i++) {
            seen->sum[h][i] *= factor;
        }
#pragma unroll
        for (int c = 0; c < COUNT; c++) {
            scores[h][c] = c < count ? exp2f(scores[h][c] - top) : 0.0F;
            seen->total[h] += scores[h][c];
        }
    }
}

template <typename T, int HEADS, int COUNT>
static __device__ void add_values(struct seen<HEADS> *seen, const float (&weights)[HEADS][COUNT],
                                  const struct eight<T> (&values)[COUNT])
{
#pragma unroll
    for (int c = 0; c < COUNT; c++) {
        float value[EIGHT];
        eight_unpack(values[c], value);
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
#pragma unroll
            for (int i = 0; i < EIGHT; i++) {
                seen->sum[h][i] = fmaf(weights[h][c], value[i], seen->sum[h][i]);
            }
        }
    }
}

/* The block's positions, one after the other over its teams; each team reads AHEAD keys and values
 * before it needs the first. */
template <typename T, int HEADS, bool ALIGNED>
static __device__ void look(struct seen<HEADS> *seen, const struct decode *d, const struct job *job,
                            int lane)
{
    constexpr int AHEAD = sizeof(T) == 2 ? 4 : 2;
    const T *keys = static_cast<const T *>(d->key.data) + job->first * d->key.stride + job->column;
    const T *values =
        static_cast<const T *>(d->value.data) + job->first * d->value.stride + job->column;
    const int teams = THREADS / d->lanes;
    const int team = (int)threadIdx.x / d->lanes;
    for (int64_t at = job->begin; at < job->end; at += teams * AHEAD) {
        struct eight<T> key[AHEAD];
        struct eight<T> value[AHEAD];
        float scores[HEADS][AHEAD];
        int count = 0;
#pragma unroll
        for (int c = 0; c < AHEAD; c++) {
            const int64_t wanted = at + c * teams + team;
            const int64_t position = wanted < job->end ? wanted : job->end - 1;
            count += wanted < job->end ? 1 : 0;
            key[c] = eight_load<ALIGNED>(keys + position * d->key.stride, lane, d->lanes, d->dim);
            value[c] =
                eight_load<ALIGNED>(values + position * d->value.stride, lane, d->lanes, d->dim);
        }
        score(scores, seen, key, d->lanes);
        soften(scores, seen, count);
        add_values(seen, scores, value);
    }
}

/* All teams of a warp put together what they have seen: afterwards each lane holds the sums over
 * the warp. */
template <int HEADS> static __device__ void join_teams(struct seen<HEADS> *seen, int lanes)
{
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        float top = seen->top[h];
        for (int distance = lanes; distance < WARP; distance *= 2) {
            top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFFU, top, distance));
        }
        const float factor = exp2f(seen->top[h] - top);
        seen->top[h] = top;
        seen->total[h] *= factor;
#pragma unroll
        for (int i = 0; i < EIGHT; i++) {
            seen->sum[h][i] *= factor;
        }
    }
    for (int distance = lanes; distance < WARP; distance *= 2) {
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
            seen->total[h] += __shfl_xor_sync(0xFFFFFFFFU, seen->total[h], distance);
#pragma unroll
            for (int i = 0; i < EIGHT; i++) {
                seen->sum[h][i] += __shfl_xor_sync(0xFFFFFFFFU, seen->sum[h][i], distance);
            }
        }
    }
}

/* What each warp of a block has seen. */
template <int HEADS> struct block_seen {
    float sum[WARPS][HEADS][DIM_MAX];
    float top[WARPS][HEADS];
    float total[WARPS][HEADS];
};

template <typename T, int HEADS>
static __device__ void leave(struct block_seen<HEADS> *block, const struct seen<HEADS> *seen,
                             int lane, int lanes)
{
    const int warp = (int)threadIdx.x / WARP;
    if ((int)threadIdx.x % WARP >= lanes) {
        return; /* the first team speaks for all */
    }
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        block->top[warp][h] = seen->top[h];
        block->total[warp][h] = seen->total[h];
#pragma unroll
        for (int i = 0; i < EIGHT; i++) {
            block->sum[warp][h][eight_index<T>(lane, lanes, i)] = seen->sum[h][i];
        }
    }
}

/* The warps' sums added up: into `out` if the row has no other chunk, else aside for
 * attention_decode_join_kernel. */
template <int HEADS>
static __device__ void finish(const struct decode *d, const struct job *job,
                              const struct block_seen<HEADS> *block)
{
    for (int i = (int)threadIdx.x; i < job->count * d->dim; i += THREADS) {
        const int h = i / d->dim;
        const int at = i % d->dim;
        float top = block->top[0][h];
        for (int warp = 1; warp < WARPS; warp++) {
            top = fmaxf(top, block->top[warp][h]);
        }
        float total = 0.0F;
        float sum = 0.0F;
        for (int warp = 0; warp < WARPS; warp++) {
            const float factor = exp2f(block->top[warp][h] - top);
            total = fmaf(factor, block->total[warp][h], total);
            sum = fmaf(factor, block->sum[warp][h][at], sum);
        }
        if (d->chunks == 1) {
            number_put(d->out, job->row, (int64_t)(job->head + h) * d->dim + at, sum / total);
            continue;
        }
        const int64_t place = (job->row * d->heads + job->head + h) * d->chunks + blockIdx.y;
        d->sum[place * d->dim + at] = sum;
        if (at == 0) {
            d->top[place] = top;
            d->total[place] = total;
        }
    }
}

/* Block (x, y) is chunk y of job x: row, key head, part of its query heads. Returns whether there
 * is anything to do. */
template <int HEADS> static __device__ bool job_find(struct job *job, const struct decode *d)
{
    const int kv_heads = d->heads / d->group;
    const int64_t of_row = (int64_t)kv_heads * d->group_parts;
    const int rest = (int)(blockIdx.x % of_row);
    const int kv_head = rest / d->group_parts;
    const int first = rest % d->group_parts * HEADS; /* of the group */
    job->row = blockIdx.x / of_row;
    job->head = kv_head * d->group + first;
    job->count = min(HEADS, d->group - first);
    job->column = (int64_t)kv_head * d->dim;
    const bool report = threadIdx.x == 0 && rest == 0 && blockIdx.y == 0;
    if (!kv_place_check(&d->places, job->row, report)) {
        return false;
    }
    const int64_t positions = d->places.position[job->row] + 1;
    job->first = d->places.sequence[job->row] * d->places.capacity;
    job->begin = blockIdx.y * d->chunk;
    job->end = min(job->begin + d->chunk, positions);
    return job->begin < job->end;
}

template <typename T, int HEADS, bool ALIGNED>
static __global__ void __launch_bounds__(THREADS) attention_decode_kernel(const struct decode d)
{
    __shared__ struct block_seen<HEADS> block;
    struct seen<HEADS> seen;
    struct job job;
    if (!job_find<HEADS>(&job, &d)) {
        return;
    }
    const int lane = (int)threadIdx.x % d.lanes;
    start<T>(&seen, &d, &job, lane);
    look<T, HEADS, ALIGNED>(&seen, &d, &job, lane);
    join_teams(&seen, d.lanes);
    leave<T>(&block, &seen, lane, d.lanes);
    __syncthreads();
    finish(&d, &job, &block);
}

/* One block a row and query head: its chunks, in order. */
static __global__ void __launch_bounds__(THREADS)
    attention_decode_join_kernel(const struct decode d)
{
    __shared__ float tops[CHUNKS_MAX];
    __shared__ float totals[CHUNKS_MAX];
    __shared__ float factor[CHUNKS_MAX];
    const int64_t row = blockIdx.x / d.heads;
    const int head = (int)(blockIdx.x % d.heads);
    if (!kv_place_check(&d.places, row, false)) {
        return;
    }
    const int chunks = (int)(d.places.position[row] / d.chunk) + 1; /* that were computed */
    const int64_t place = (int64_t)blockIdx.x * d.chunks;
    if ((int)threadIdx.x < chunks) { /* all of them in one access */
        tops[threadIdx.x] = d.top[place + threadIdx.x];
        totals[threadIdx.x] = d.total[place + threadIdx.x];
    }
    __syncthreads();
    float top = -FLT_MAX;
    for (int c = 0; c < chunks; c++) {
        top = fmaxf(top, tops[c]);
    }
    if ((int)threadIdx.x < chunks) {
        factor[threadIdx.x] = exp2f(tops[threadIdx.x] - top);
    }
    __syncthreads();
    float total = 0.0F;
    for (int c = 0; c < chunks; c++) {
        total = fmaf(factor[c], totals[c], total);
    }
    for (int at = (int)threadIdx.x; at < d.dim; at += THREADS) {
        float sum = 0.0F;
#pragma unroll 16
        for (int c = 0; c < chunks; c++) {
            sum = fmaf(factor[c], d.sum[(place + c) * d.dim + at], sum);
        }
        number_put(d.out, row, (int64_t)head * d.dim + at, sum / total);
    }
}

/* ---- launching ---- */

/* As many chunks as it takes to keep the multiprocessors busy, whatever the positions. */
static void choose_chunks(struct device *device, struct decode *d)
{
    const int64_t blocks = d->qkv.rows * (d->heads / d->group) * d->group_parts;
    const int64_t wanted = (int64_t)cuda_of(device)->multiprocessors * BLOCKS_PER_SM / blocks;
    const int64_t capacity = d->places.capacity;
    int64_t chunks = min((capacity + CHUNK_MIN - 1) / CHUNK_MIN, min(wanted, (int64_t)CHUNKS_MAX));
    chunks = max(chunks, (int64_t)1);
    d->chunk = ((capacity + chunks - 1) / chunks + CHUNK_UNIT - 1) / CHUNK_UNIT * CHUNK_UNIT;
    d->chunks = (int)((capacity + d->chunk - 1) / d->chunk);
}

/* Working memory for the chunks. Returns whether it is there. */
static bool make_room(struct device *device, struct decode *d)
{
    if (d->chunks == 1) {
        return true;
    }
    const int64_t places = d->qkv.rows * d->heads * d->chunks;
    float *room = static_cast<float *>(
        cuda_scratch(device, places, (size_t)(d->dim + 2) * sizeof(float), "attention_decode"));
    if (room == NULL) {
        return false;
    }
    d->sum = room;
    d->top = room + places * d->dim;
    d->total = d->top + places;
    return true;
}

template <typename T, int HEADS>
static void decode_all(struct device *device, struct decode *d, bool aligned)
{
    d->group_parts = (d->group + HEADS - 1) / HEADS;
    choose_chunks(device, d);
    if (!make_room(device, d)) {
        return;
    }
    const int64_t blocks = d->qkv.rows * (d->heads / d->group) * d->group_parts;
    assert(blocks <= 0x7FFFFFFF && d->qkv.rows * d->heads <= 0x7FFFFFFF);
    cuda_launch(device, "attention_decode",
                aligned ? attention_decode_kernel<T, HEADS, true>
                        : attention_decode_kernel<T, HEADS, false>,
                dim3((unsigned)blocks, (unsigned)d->chunks), THREADS, 0, *d);
    if (d->chunks > 1) {
        cuda_launch(device, "attention_decode_join", attention_decode_join_kernel,
                    dim3((unsigned)(d->qkv.rows * d->heads)), THREADS, 0, *d);
    }
}

template <typename T> static void decode_heads(struct device *device, struct decode *d)
{
    const bool aligned =
        rows_aligned(d->key) && rows_aligned(d->value) && d->dim % pack<T>::SIZE == 0;
    if (d->group == 1) {
        decode_all<T, 1>(device, d, aligned);
    } else if (d->group == 2) {
        decode_all<T, 2>(device, d, aligned);
    } else if (d->group <= 4) {
        decode_all<T, 4>(device, d, aligned);
    } else {
        decode_all<T, 8>(device, d, aligned);
    }
}

void cuda_attention_decode(struct device *device, struct tensor out, struct tensor qkv,
                           const struct kv_cache *cache, const struct attention_shape *shape,
                           const int32_t *sequence, const int32_t *position)
{
    assert(shape->kv_heads > 0 && shape->heads % shape->kv_heads == 0 && cache->capacity > 0);
    assert(qkv.cols == (shape->heads + 2 * shape->kv_heads) * shape->head_dim);
    assert(cache->key.cols == shape->kv_heads * shape->head_dim);
    assert(cache->value.cols == cache->key.cols && cache->value.rows == cache->key.rows);
    assert(cache->value.dtype == cache->key.dtype);
    assert(out.rows == qkv.rows && out.cols == shape->heads * shape->head_dim);
    if (cuda_failed(device) || qkv.rows == 0) {
        return;
    }
    if (shape->head_dim > DIM_MAX) {
        CUDA_FAIL(device, STATUS_UNSUPPORTED,
                  "attention_decode: heads of %lld numbers, the CUDA backend has room for %d; use "
                  "the CPU backend",
                  (long long)shape->head_dim, (int)DIM_MAX);
        return;
    }
    struct decode d = {};
    d.out = out;
    d.qkv = qkv;
    d.key = cache->key;
    d.value = cache->value;
    d.places = kv_places_make(device, cache, sequence, position);
    d.scale = shape->scale * 1.44269504F; /* log2(e): exp2f is one instruction */
    d.heads = (int)shape->heads;
    d.group = (int)(shape->heads / shape->kv_heads);
    d.dim = (int)shape->head_dim;
    d.lanes = 1;
    while (d.lanes * EIGHT < d.dim) {
        d.lanes *= 2;
    }
    if (cache->key.dtype == DTYPE_F32) {
        decode_heads<float>(device, &d);
    } else {
        decode_heads<bf16>(device, &d);
    }
}
