/* Norm of each query and key head and rotary positions, in one sweep over the fused rows. Sources:
 * arXiv 2104.09864; the layout of Hugging Face's Llama, in which element i of a head turns with
 * element i + D/2.
 *
 * Forward:  n = x * rstd * w (or x),  y[i] = n[i] cos - n[i+D/2] sin,  y[i+D/2] = n[i+D/2] cos +
 * n[i] sin. Backward: the turn by the opposite angle, then the gradient of the norm as in norms.c.
 */
#include <assert.h>
#include <math.h>

#include "kernels/cpu/isa/isa.h"
#include "kernels/cpu/isa/simd.h"

/* One head of one row; the dtypes are the caller's constants. */
struct head {
    const void *from;
    void *to;
    const void *weight;  /* (D), NULL: no norm */
    const float *cosine; /* (D/2), the sines follow */
    int64_t half;        /* D/2 */
    enum dtype from_dtype;
    enum dtype to_dtype;
    enum dtype weight_dtype;
};

SIMD_INLINE float head_rstd(const struct head *h, float epsilon)
{
    vfloat squares = simd_zero();
    for (int64_t i = 0; i < 2 * h->half; i += LANES) {
        vfloat x = row_load(h->from, h->from_dtype, i, 2 * h->half - i);
        squares += x * x;
    }
    return 1.0F / sqrtf(simd_sum(squares) / (float)(2 * h->half) + epsilon);
}

SIMD_INLINE void turn_normed_head(const struct head *h, float rstd)
{
    const int64_t half = h->half;
    for (int64_t i = 0; i < half; i += LANES) {
        int64_t lanes = half - i;
        vfloat a = row_load(h->from, h->from_dtype, i, lanes) * rstd;
        vfloat b = row_load(h->from, h->from_dtype, half + i, lanes) * rstd;
        a *= row_load(h->weight, h->weight_dtype, i, lanes);
        b *= row_load(h->weight, h->weight_dtype, half + i, lanes);
        vfloat c = simd_load_part(h->cosine + i, lanes);
        vfloat s = simd_load_part(h->cosine + half + i, lanes);
        row_store(h->to, h->to_dtype, i, a * c - b * s, lanes);
        row_store(h->to, h->to_dtype, half + i, b * c + a * s, lanes);
    }
}

/* All heads of a row without norms, forward (sign 1) or back (sign -1). */
SIMD_INLINE void turn_heads(void *to, enum dtype to_dtype, const void *from, enum dtype from_dtype,
                            int64_t heads, int64_t half, const float *cosine, float sign)
{
    for (int64_t i = 0; i < half; i += LANES) {
        const int64_t lanes = half - i;
        const vfloat c = simd_load_part(cosine + i, lanes);
        const vfloat s = simd_load_part(cosine + half + i, lanes) * sign;
        for (int64_t first = i; first < 2 * heads * half; first += 2 * half) {
            vfloat a = row_load(from, from_dtype, first, lanes);
            vfloat b = row_load(from, from_dtype, first + half, lanes);
            row_store(to, to_dtype, first, a * c - b * s, lanes);
            row_store(to, to_dtype, first + half, b * c + a * s, lanes);
        }
    }
}

/* The same where whole heads fit in a vector: each lane and the one that it turns with change
 * places at once. */
SIMD_INLINE void turn_small_heads(void *to, enum dtype to_dtype, const void *from,
                                  enum dtype from_dtype, int64_t heads, int64_t half,
                                  const float *cosine, float sign)
{
    const int32_t dim = (int32_t)(2 * half);
    const vint lane = simd_lane_index() & (dim - 1); /* in its head; dim is a power of two */
    const vint is_second = lane >= (int32_t)half;
    const vint element = lane & (int32_t)(half - 1);
    const vint partner = simd_lane_index() ^ (int32_t)half;
    const vfloat turn = simd_load_part(cosine, dim);
    const vfloat c = simd_permute(turn, element);
    const vfloat sine = simd_permute(turn, element + (int32_t)half) * sign;
    const vfloat s = simd_select(is_second, sine, -sine);
    for (int64_t i = 0; i < heads * dim; i += LANES) {
        const vfloat x = row_load(from, from_dtype, i, heads * dim - i);
        row_store(to, to_dtype, i, x * c + simd_permute(x, partner) * s, heads * dim - i);
    }
}

/* What both passes are called with. */
struct rope {
    struct tensor to;   /* forward: y; backward: d_qkv */
    struct tensor from; /* x */
    const struct attention_shape *shape;
    const struct tensor *query_weight;
    const struct tensor *key_weight;
    struct tensor cos_sin;
    const int32_t *position;
};

static struct head head_of(const struct rope *rope, int64_t row, int64_t number)
{
    const struct tensor *weight =
        number < rope->shape->heads ? rope->query_weight : rope->key_weight;
    const size_t column = (size_t)(number * rope->shape->head_dim);
    return (struct head){
        .from = (const char *)row_at(&rope->from, row) + column * dtype_bytes(rope->from.dtype),
        .to = (char *)row_of(&rope->to, row) + column * dtype_bytes(rope->to.dtype),
        .weight = weight != NULL ? weight->data : NULL,
        .cosine = row_at(&rope->cos_sin, rope->position[row]),
        .half = rope->shape->head_dim / 2,
        .from_dtype = rope->from.dtype,
        .to_dtype = rope->to.dtype,
        .weight_dtype = weight != NULL ? weight->dtype : DTYPE_F32,
    };
}

static bool check_rope(struct device *device, const struct rope *rope)
{
    assert(rope->shape->head_dim % 2 == 0 && rope->shape->heads % rope->shape->kv_heads == 0);
    assert(rope->to.cols ==
           (rope->shape->heads + 2 * rope->shape->kv_heads) * rope->shape->head_dim);
    assert(rope->cos_sin.dtype == DTYPE_F32 && rope->cos_sin.cols == rope->shape->head_dim);
    assert((rope->query_weight == NULL) == (rope->key_weight == NULL));
    for (int64_t r = 0; r < rope->to.rows; r++) {
        if (rope->position[r] < 0 || rope->position[r] >= rope->cos_sin.rows) {
            CPU_FAIL(device, STATUS_RANGE, "rope: position %d of row %lld is not in 0..%lld",
                     (int)rope->position[r], (long long)r, (long long)rope->cos_sin.rows - 1);
            return false;
        }
    }
    return true;
}

/* -- forward -- */

static void turn_row(const struct rope *rope, int64_t row, float sign)
{
    const int64_t turned = rope->shape->heads + rope->shape->kv_heads;
    const int64_t half = rope->shape->head_dim / 2;
    const float *cosine = row_at(&rope->cos_sin, rope->position[row]);
    void *to = row_of(&rope->to, row);
    const void *from = row_at(&rope->from, row);
    const bool small = 2 * half <= LANES && LANES % (2 * half) == 0;
    if (small) {
        turn_small_heads(to, rope->to.dtype, from, rope->from.dtype, turned, half, cosine, sign);
    } else if (rope->to.dtype == DTYPE_F32 && rope->from.dtype == DTYPE_F32) {
        turn_heads(to, DTYPE_F32, from, DTYPE_F32, turned, half, cosine, sign);
    } else {
        turn_heads(to, rope->to.dtype, from, rope->from.dtype, turned, half, cosine, sign);
    }
}

static void forward_row(const struct rope *rope, int64_t row, float *rstd, float epsilon)
{
    const struct attention_shape *shape = rope->shape;
    const int64_t turned = shape->heads + shape->kv_heads;
    for (int64_t number = 0; number < turned && rope->query_weight != NULL; number++) {
        const struct head head = head_of(rope, row, number);
        const float head_scale = head_rstd(&head, epsilon);
        turn_normed_head(&head, head_scale);
        if (rstd != NULL) {
            rstd[row * turned + number] = head_scale;
        }
    }
    if (rope->query_weight == NULL) {
        turn_row(rope, row, 1.0F);
    }
    const struct head values = head_of(rope, row, turned);
    const int64_t count = shape->kv_heads * shape->head_dim;
    for (int64_t i = 0; i < count && values.to != values.from; i += LANES) {
        row_store(values.to, values.to_dtype, i,
                  row_load(values.from, values.from_dtype, i, count - i), count - i);
    }
}

void ISA(qk_norm_rope_forward)(struct device *device, struct tensor to, float *rstd,
                               struct tensor from, const struct attention_shape *shape,
                               const struct tensor *query_weight, const struct tensor *key_weight,
                               float epsilon, struct tensor cos_sin, const int32_t *position)
{
    const struct rope rope = {to, from, shape, query_weight, key_weight, cos_sin, position};
    assert(to.rows == from.rows && to.cols == from.cols);
    if (cpu_failed(device) || !check_rope(device, &rope)) {
        return;
    }
    const int team = cpu_team(device, to.rows * to.cols);
#pragma omp parallel for num_threads(team) schedule(static)
    for (int64_t row = 0; row < to.rows; row++) {
        forward_row(&rope, row, rstd, epsilon);
    }
}

/* -- backward -- */

/* The same, then through the norm. d_n is kept in f32 in `unturned` (D); d_weight (D) f32 or NULL.
 */
SIMD_INLINE void turn_back_through_norm(const struct head *h, float rstd, float *d_weight,
                                        float *unturned)
{
    const int64_t half = h->half;
    const int64_t dim = 2 * half;
    for (int64_t i = 0; i < half; i += LANES) {
        int64_t lanes = half - i;
        vfloat a = row_load(h->to, h->to_dtype, i, lanes);
        vfloat b = row_load(h->to, h->to_dtype, half + i, lanes);
        vfloat c = simd_load_part(h->cosine + i, lanes);
        vfloat s = simd_load_part(h->cosine + half + i, lanes);
        simd_store_part(unturned + i, a * c + b * s, lanes);
        simd_store_part(unturned + half + i, b * c - a * s, lanes);
    }
    vfloat dots = simd_zero();
    for (int64_t i = 0; i < dim; i += LANES) {
        int64_t lanes = dim - i;
        vfloat g_x =
            simd_load_part(unturned + i, lanes) * row_load(h->from, h->from_dtype, i, lanes);
        dots += g_x * row_load(h->weight, h->weight_dtype, i, lanes);
        if (d_weight != NULL) {
            simd_store_part(d_weight + i, simd_load_part(d_weight + i, lanes) + g_x * rstd, lanes);
        }
    }
    float pull = simd_sum(dots) / (float)dim * rstd * rstd * rstd;
    for (int64_t i = 0; i < dim; i += LANES) {
        int64_t lanes = dim - i;
        vfloat g =
            simd_load_part(unturned + i, lanes) * row_load(h->weight, h->weight_dtype, i, lanes);
        vfloat x = row_load(h->from, h->from_dtype, i, lanes);
        row_store(h->to, h->to_dtype, i, g * rstd - x * pull, lanes);
    }
}

/* One thread's memory: [d_query_weight (D) | d_key_weight (D) | unturned (D)]. */
static void backward_rows(const struct rope *rope, int64_t first, int64_t end, const float *rstd,
                          float *memory)
{
    const int64_t heads = rope->shape->heads;
    const int64_t turned = heads + rope->shape->kv_heads;
    const int64_t dim = rope->shape->head_dim;
    for (int64_t row = first; row < end; row++) {
        if (rope->query_weight == NULL) {
            turn_row(rope, row, -1.0F);
            continue;
        }
        for (int64_t number = 0; number < turned; number++) {
            const struct head head = head_of(rope, row, number);
            turn_back_through_norm(&head, rstd[row * turned + number],
                                   memory + (number < heads ? 0 : dim), memory + 2 * dim);
        }
    }
}

static void add_parts(float *to, const float *memory, int64_t step, int parts, int64_t count)
{
    for (int part = 0; part < parts && to != NULL; part++) {
        for (int64_t i = 0; i < count; i++) {
            to[i] += memory[part * step + i];
        }
    }
}

void ISA(qk_norm_rope_backward)(struct device *device, struct tensor d_qkv, float *d_query_weight,
                                float *d_key_weight, struct tensor from, const float *rstd,
                                const struct attention_shape *shape,
                                const struct tensor *query_weight, const struct tensor *key_weight,
                                struct tensor cos_sin, const int32_t *position)
{
    /* without norms `from` is unused and may be empty: d_qkv stands in for it */
    const struct tensor x = query_weight != NULL ? from : d_qkv;
    const struct rope rope = {d_qkv, x, shape, query_weight, key_weight, cos_sin, position};
    assert(x.rows == d_qkv.rows && x.cols == d_qkv.cols);
    if (cpu_failed(device) || !check_rope(device, &rope)) {
        return;
    }
    const int64_t dim = shape->head_dim;
    const int64_t step = (3 * dim + LANES - 1) / LANES * LANES;
    const int team = cpu_team(device, d_qkv.rows * d_qkv.cols);
    float *memory = cpu_scratch(device, team * step, sizeof(*memory), "qk_norm_rope_backward");
    if (memory == NULL) {
        return;
    }
    memset(memory, 0, (size_t)(team * step) * sizeof(*memory));
#pragma omp parallel for num_threads(team) schedule(static)
    for (int part = 0; part < team; part++) {
        backward_rows(&rope, d_qkv.rows * part / team, d_qkv.rows * (part + 1) / team, rstd,
                      memory + part * step);
    }
    add_parts(d_query_weight, memory, step, team, dim);
    add_parts(d_key_weight, memory + dim, step, team, dim);
}
