/* Generation: the cache of keys and values, and attention of single queries to it.
 *
 * A job is one sequence and one key/value head with all of its query heads, so that each key and
 * value is read from memory once: that reading is what decoding costs. */
#include <assert.h>
#include <float.h>
#include <omp.h>

#include "kernels/cpu/isa/isa.h"
#include "kernels/cpu/isa/simd.h"

static bool check_places(struct device *device, const char *what, const struct kv_cache *cache,
                         int64_t count, const int32_t *sequence, const int32_t *position)
{
    for (int64_t r = 0; r < count; r++) {
        if (sequence[r] < 0 || position[r] < 0 || position[r] >= cache->capacity ||
            (sequence[r] + 1) * cache->capacity > cache->key.rows) {
            CPU_FAIL(device, STATUS_RANGE,
                     "%s: sequence %d, position %d of row %lld is outside the cache of %lld x %lld",
                     what, (int)sequence[r], (int)position[r], (long long)r,
                     (long long)(cache->key.rows / cache->capacity), (long long)cache->capacity);
            return false;
        }
    }
    return true;
}

static void check_shapes(const struct kv_cache *cache, const struct tensor *qkv,
                         const struct attention_shape *shape)
{
    assert(shape->kv_heads > 0 && shape->heads % shape->kv_heads == 0 && cache->capacity > 0);
    assert(qkv->cols == (shape->heads + 2 * shape->kv_heads) * shape->head_dim);
    assert(cache->key.cols == shape->kv_heads * shape->head_dim);
    assert(cache->value.cols == cache->key.cols && cache->value.rows == cache->key.rows);
    (void)cache;
    (void)qkv;
    (void)shape;
}

static void convert_row(void *to, enum dtype to_dtype, const void *from, enum dtype from_dtype,
                        int64_t first, int64_t count)
{
    for (int64_t i = 0; i < count; i += LANES) {
        row_store(to, to_dtype, i, row_load(from, from_dtype, first + i, count - i), count - i);
    }
}

void ISA(kv_append)(struct device *device, const struct kv_cache *cache, struct tensor qkv,
                    const struct attention_shape *shape, const int32_t *sequence,
                    const int32_t *position)
{
    check_shapes(cache, &qkv, shape);
    if (cpu_failed(device) ||
        !check_places(device, "kv_append", cache, qkv.rows, sequence, position)) {
        return;
    }
    const int64_t key_column = shape->heads * shape->head_dim;
    const int64_t width = shape->kv_heads * shape->head_dim;
    const int team = cpu_team(device, 2 * qkv.rows * width);
#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t r = 0; r < qkv.rows; r++) {
        int64_t place = sequence[r] * cache->capacity + position[r];
        convert_row(row_of(&cache->key, place), cache->key.dtype, row_at(&qkv, r), qkv.dtype,
                    key_column, width);
        convert_row(row_of(&cache->value, place), cache->value.dtype, row_at(&qkv, r), qkv.dtype,
                    key_column + width, width);
    }
}

/* -- decoding -- */

struct decode {
    struct tensor out;
    struct tensor qkv;
    const struct kv_cache *cache;
    const struct attention_shape *shape;
    int64_t padded_dim; /* D rounded up to whole vectors */
};

/* One thread's memory: [queries (G, padded D) | sums (G, padded D) | scores (G, T) | inverse (G)],
 * G query heads a key head. */
struct decode_memory {
    float *query;
    float *sum;
    float *score;
    float *inverse; /* of the sums of exp(score) */
};

/* Scores of LANES keys from `first` on, of which `count` exist: one vector a key, turned over and
 * summed. */
SIMD_INLINE vfloat score_some_keys(const struct decode *d, const float *query, int64_t first,
                                   int64_t column, int64_t count, enum dtype dtype)
{
    const int64_t dim = d->shape->head_dim;
    vfloat sum[LANES];
    SIMD_UNROLL
    for (int l = 0; l < LANES; l++) {
        const void *key = row_at(&d->cache->key, first + (l < count ? l : count - 1));
        sum[l] = simd_zero();
        for (int64_t i = 0; i < dim; i += LANES) {
            sum[l] += row_load(key, dtype, column + i, dim - i) * simd_load(query + i);
        }
    }
    simd_transpose(sum);
    for (int width = LANES / 2; width > 0; width /= 2) {
        SIMD_UNROLL
        for (int l = 0; l < width; l++) {
            sum[l] += sum[l + width];
        }
    }
    return sum[0];
}

/* scores (G, T) of keys 0..count-1 */
SIMD_INLINE void score_keys(const struct decode *d, const struct decode_memory *m, int64_t place,
                            int64_t column, int64_t group, int64_t count, enum dtype dtype)
{
    for (int64_t t = 0; t < count; t += LANES) {
        for (int64_t g = 0; g < group; g++) {
            vfloat score = score_some_keys(d, m->query + g * d->padded_dim, place + t, column,
                                           count - t, dtype);
            simd_store_part(m->score + g * d->cache->capacity + t, score, count - t);
        }
    }
}

/* Scores become exp(score - max); returns 1 / their sum. */
static float soften_scores(float *score, int64_t count)
{
    vfloat tops = simd_set(-FLT_MAX);
    for (int64_t t = 0; t < count; t += LANES) {
        vfloat s = simd_load_part(score + t, count - t);
        if (count - t < LANES) {
            s = simd_select(simd_lane_index() < (int32_t)(count - t), s, simd_set(-FLT_MAX));
        }
        tops = simd_max(tops, s);
    }
    const float top = simd_max_lane(tops);
    vfloat total = simd_zero();
    for (int64_t t = 0; t < count; t += LANES) {
        vfloat s = simd_exp(simd_load_part(score + t, count - t) - top);
        if (count - t < LANES) {
            s = simd_select(simd_lane_index() < (int32_t)(count - t), s, simd_zero());
        }
        simd_store_part(score + t, s, count - t);
        total += s;
    }
    return 1.0F / simd_sum(total);
}

/* sums (G, padded D) of the values of keys 0..count-1, weighted by the scores. Each vector of a
 * head is summed in four chains, so that no addition waits for the one before. */
SIMD_INLINE void sum_values(const struct decode *d, const struct decode_memory *m, int64_t place,
                            int64_t column, int64_t group, int64_t count, enum dtype dtype)
{
    enum { CHAINS = 4 };
    const int64_t dim = d->shape->head_dim;
    for (int64_t g = 0; g < group; g++) {
        const float *weight = m->score + g * d->cache->capacity;
        for (int64_t i = 0; i < dim; i += LANES) {
            vfloat sum[CHAINS] = {{0}, {0}, {0}, {0}};
            int64_t t = 0;
            for (; t + CHAINS <= count; t += CHAINS) {
                SIMD_UNROLL
                for (int c = 0; c < CHAINS; c++) {
                    const void *value = row_at(&d->cache->value, place + t + c);
                    sum[c] += weight[t + c] * row_load(value, dtype, column + i, dim - i);
                }
            }
            for (; t < count; t++) {
                const void *value = row_at(&d->cache->value, place + t);
                sum[0] += weight[t] * row_load(value, dtype, column + i, dim - i);
            }
            simd_store(m->sum + g * d->padded_dim + i, (sum[0] + sum[1]) + (sum[2] + sum[3]));
        }
    }
}

static void decode_job(const struct decode *d, const struct decode_memory *m, int64_t row,
                       int64_t kv_head, int64_t sequence, int64_t count)
{
    const int64_t dim = d->shape->head_dim;
    const int64_t group = d->shape->heads / d->shape->kv_heads;
    const int64_t place = sequence * d->cache->capacity;
    const int64_t column = kv_head * dim;
    for (int64_t g = 0; g < group; g++) {
        const int64_t from = (kv_head * group + g) * dim;
        for (int64_t i = 0; i < dim; i += LANES) {
            vfloat q = row_load(row_at(&d->qkv, row), d->qkv.dtype, from + i, dim - i);
            simd_store(m->query + g * d->padded_dim + i, q * d->shape->scale);
        }
    }
    if (d->cache->key.dtype == DTYPE_F32) {
        score_keys(d, m, place, column, group, count, DTYPE_F32);
    } else {
        score_keys(d, m, place, column, group, count, DTYPE_BF16);
    }
    for (int64_t g = 0; g < group; g++) {
        m->inverse[g] = soften_scores(m->score + g * d->cache->capacity, count);
    }
    if (d->cache->value.dtype == DTYPE_F32) {
        sum_values(d, m, place, column, group, count, DTYPE_F32);
    } else {
        sum_values(d, m, place, column, group, count, DTYPE_BF16);
    }
    for (int64_t g = 0; g < group; g++) {
        const int64_t to = (kv_head * group + g) * dim;
        for (int64_t i = 0; i < dim; i += LANES) {
            vfloat o = simd_load(m->sum + g * d->padded_dim + i) * m->inverse[g];
            row_store(row_of(&d->out, row), d->out.dtype, to + i, o, dim - i);
        }
    }
}

void ISA(attention_decode)(struct device *device, struct tensor out, struct tensor qkv,
                           const struct kv_cache *cache, const struct attention_shape *shape,
                           const int32_t *sequence, const int32_t *position)
{
    check_shapes(cache, &qkv, shape);
    assert(out.rows == qkv.rows && out.cols == shape->heads * shape->head_dim);
    if (cpu_failed(device) ||
        !check_places(device, "attention_decode", cache, qkv.rows, sequence, position)) {
        return;
    }
    const int64_t padded_dim = (shape->head_dim + LANES - 1) / LANES * LANES;
    const struct decode d = {out, qkv, cache, shape, padded_dim};
    const int64_t group = shape->heads / shape->kv_heads;
    const int64_t memory_floats =
        (group * (2 * padded_dim + cache->capacity + 1) + LANES - 1) / LANES * LANES;
    const int64_t jobs = qkv.rows * shape->kv_heads;
    int64_t work = 0;
    for (int64_t r = 0; r < qkv.rows; r++) {
        work += 2 * (position[r] + 1) * shape->kv_heads * shape->head_dim;
    }
    const int team = cpu_team(device, work);
    float *memory = cpu_scratch(device, team * memory_floats, sizeof(*memory), "attention_decode");
    if (memory == NULL) {
        return;
    }
#pragma omp parallel num_threads(team)
    {
        float *mine = memory + omp_get_thread_num() * memory_floats;
        const struct decode_memory m = {mine, mine + group * padded_dim,
                                        mine + 2 * group * padded_dim,
                                        mine + group * (2 * padded_dim + cache->capacity)};
#pragma omp for schedule(dynamic, 1)
        for (int64_t job = 0; job < jobs; job++) {
            int64_t row = job / shape->kv_heads;
            decode_job(&d, &m, row, job % shape->kv_heads, sequence[row], position[row] + 1);
        }
    }
}
