/* Norm of each query and key head and rotary positions, in one sweep over the fused rows. Sources:
 * arXiv 2104.09864; the layout of Hugging Face's Llama, in which element i of a head turns with
 * element i + D/2.
 *
 * Forward:  n = x * rstd * w (or x),  y[i] = n[i] cos - n[i+D/2] sin,  y[i+D/2] = n[i+D/2] cos +
 * n[i] sin. Backward: the turn by the opposite angle, then the gradient of the norm as in norms.cu.
 *
 * Bytes, bf16, with W = (H+2K)*D numbers a row: forward 4 W (2 K D of them for the values less
 * where it works in place), backward 4 (H+K) D, and 2 (H+K) D more with norms. For N = 16,384, H =
 * 16, K = 8, D = 128 on an H200 (4.3 TB/s): 62 microseconds forward, 70 backward. 20
 * and 27 instructions a number, 35 and 46 microseconds of the SMs beside the memory: so what is the
 * same for all numbers of a head is kept short. The cosines are read once a head, from the nearest
 * cache.
 *
 * A head belongs to `lanes` neighbours of a warp, a power of two: 8 for D = 128 in bf16, so that a
 * warp has four heads. Each lane holds PACKS accesses of the first half of the head, and those of
 * the second half that turn with them. */
#include <assert.h>

#include "kernels/cuda/access.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/operations.h"
#include "kernels/cuda/partial_sums.h"

constexpr int THREADS = 256;
constexpr int RESIDENT = 3;         /* blocks of the backward pass that an SM has room for, */
constexpr int FORWARD_RESIDENT = 5; /* and of the forward pass */

struct rope {
    struct tensor to;   /* forward: y; backward: d_qkv */
    struct tensor from; /* x */
    struct tensor query_weight;
    struct tensor key_weight;
    struct tensor cos_sin;
    const int32_t *position;
    float *rstd; /* (N, turned) or NULL */
    int64_t heads;
    int64_t turned; /* H + K: the rest of a row are values */
    int64_t all;    /* heads of a row that are touched: `turned`, or H + 2 K to copy the values */
    int half;       /* D/2 */
    int lanes;      /* a head: a power of two, */
    int lane_bits;  /* this one of it */
    bool ragged;    /* some lanes have less than others, or nothing */
    float inverse;  /* 1 / D */
    bool norm;
    float sign; /* of the sines: -1 turns back */
    float epsilon;
    struct cuda_fault *fault;
};

/* What a lane holds of a head: numbers i of its first half, and numbers i + D/2. */
template <int PACKS, int WIDTH> struct halves {
    float a[PACKS][WIDTH];
    float b[PACKS][WIDTH];
};

/* The thread's place among those of its head. */
static __device__ inline int lane_of(const struct rope &rope)
{
    return (int)threadIdx.x & (rope.lanes - 1);
}

/* Where pack p of a lane begins in each half; some lanes may lie past its end. */
template <int WIDTH> static __device__ inline int pack_start(const struct rope &rope, int p)
{
    return (p * rope.lanes + lane_of(rope)) * WIDTH;
}

/* Any numbers of the head past the end of the half. */
template <typename T, int PACKS>
static __device__ inline void halves_load(const struct rope &rope, const struct tensor &from,
                                          int64_t row, int64_t column,
                                          struct halves<PACKS, access<T>::WIDTH> &to)
{
    constexpr int WIDTH = access<T>::WIDTH;
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        const int i = min(pack_start<WIDTH>(rope, p), rope.half - WIDTH);
        tensor_load<T>(from, row, column + i, to.a[p]);
        tensor_load<T>(from, row, column + rope.half + i, to.b[p]);
    }
}

/* Zeros past the end of the half: for a factor of each sum over the head. */
template <int PACKS, int WIDTH>
static __device__ inline void halves_end(const struct rope &rope, struct halves<PACKS, WIDTH> &x)
{
    if (!rope.ragged) {
        return;
    }
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        const bool inside = pack_start<WIDTH>(rope, p) < rope.half;
#pragma unroll
        for (int i = 0; i < WIDTH; i++) {
            x.a[p][i] = inside ? x.a[p][i] : 0.0F;
            x.b[p][i] = inside ? x.b[p][i] : 0.0F;
        }
    }
}

template <typename T, int PACKS>
static __device__ inline void halves_store(const struct rope &rope, int64_t row, int64_t column,
                                           const struct halves<PACKS, access<T>::WIDTH> &from)
{
    constexpr int WIDTH = access<T>::WIDTH;
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        const int i = pack_start<WIDTH>(rope, p);
        if (i < rope.half) {
            tensor_store<T>(rope.to, row, column + i, from.a[p]);
            tensor_store<T>(rope.to, row, column + rope.half + i, from.b[p]);
        }
    }
}

/* Turns a head by the angles of a position. */
template <int PACKS, int WIDTH>
static __device__ inline void halves_turn(const struct rope &rope, int32_t position,
                                          struct halves<PACKS, WIDTH> &x)
{
    const float *row = (const float *)rope.cos_sin.data + position * rope.cos_sin.stride;
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
        const int start = min(pack_start<WIDTH>(rope, p), rope.half - WIDTH);
        float c[WIDTH];
        float s[WIDTH];
        span_load(row + start, c);
        span_load(row + rope.half + start, s);
#pragma unroll
        for (int i = 0; i < WIDTH; i++) {
            const float a = x.a[p][i];
            const float b = x.b[p][i];
            x.a[p][i] = a * c[i] - b * (s[i] * rope.sign);
            x.b[p][i] = b * c[i] + a * (s[i] * rope.sign);
        }
    }
}

/* The sum of all x * y of a head. */
template <int PACKS, int WIDTH>
static __device__ inline float halves_dot(const struct rope &rope,
                                          const struct halves<PACKS, WIDTH> &x,
                                          const struct halves<PACKS, WIDTH> &y)
{
    float sum = 0.0F;
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
#pragma unroll
        for (int i = 0; i < WIDTH; i++) {
            sum += x.a[p][i] * y.a[p][i] + x.b[p][i] * y.b[p][i];
        }
    }
    for (int distance = rope.lanes / 2; distance > 0; distance /= 2) {
        sum += __shfl_xor_sync(0xFFFFFFFFU, sum, distance);
    }
    return sum;
}

/* The position of a row, or one that exists after reporting that it does not. */
static __device__ inline int32_t position_of(const struct rope &rope, int64_t row, bool *inside)
{
    const int32_t position = rope.position[row];
    *inside = position >= 0 && position < rope.cos_sin.rows;
    if (!*inside && lane_of(rope) == 0) {
        fault_report(rope.fault, CUDA_FAULT_POSITION, row, position, rope.cos_sin.rows);
    }
    return *inside ? position : 0;
}

/* Numbers a lane holds of each half: a pack; where halves are reached number by number up to
 * MIXED_PACKS, or LONG_PACKS for heads of 258 to 1024 numbers. */
constexpr int MIXED_PACKS = 4;
constexpr int LONG_PACKS = 16;

static void check_rope(const struct rope &rope, const struct attention_shape *shape)
{
    assert(shape->head_dim % 2 == 0 && shape->heads % shape->kv_heads == 0);
    assert(rope.to.cols == (shape->heads + 2 * shape->kv_heads) * shape->head_dim);
    assert(rope.to.rows == rope.from.rows && rope.to.cols == rope.from.cols);
    assert(rope.cos_sin.dtype == DTYPE_F32 && rope.cos_sin.cols == shape->head_dim);
    assert(shape->head_dim <= (int64_t)2 * WARP * LONG_PACKS);
    (void)rope;
    (void)shape;
}

/* How the halves of heads can be reached, by how many lanes, and whether these are all busy. */
static enum way rope_plan(struct rope *rope)
{
    const struct tensor all[] = {rope->to, rope->from, rope->norm ? rope->query_weight : rope->to,
                                 rope->norm ? rope->key_weight : rope->to};
    enum way way = rows_aligned(rope->cos_sin) ? way_of(all, 4, rope->half) : WAY_MIXED;
    if (way != WAY_MIXED && rope->half > WARP * way_width(way)) {
        way = WAY_MIXED;
    }
    rope->lane_bits = 5;
    rope->lanes = WARP;
    while (way != WAY_MIXED && rope->lanes / 2 * way_width(way) >= rope->half) {
        rope->lanes /= 2;
        rope->lane_bits--;
    }
    rope->ragged = way == WAY_MIXED || rope->lanes * way_width(way) != rope->half;
    rope->inverse = 1.0F / (float)(2 * rope->half);
    return way;
}

/* The form of a kernel for the plan. */
#define ROPE_KERNEL(way, rope, kernel)                                                             \
    ((way) == WAY_BF16                    ? kernel<bf16, 1>                                        \
     : (way) == WAY_F32                   ? kernel<float, 1>                                       \
     : (rope)->half <= WARP * MIXED_PACKS ? kernel<mixed, MIXED_PACKS>                             \
                                          : kernel<mixed, LONG_PACKS>)

/* -- forward; and backward without norms -- */

/* One head a group of lanes; values, if they are among them, are copied. */
template <typename T, int PACKS>
static __global__ void __launch_bounds__(THREADS, PACKS == 1 ? FORWARD_RESIDENT : 1)
    forward_kernel(struct rope rope)
{
    const int64_t item = ((int64_t)blockIdx.x * THREADS + threadIdx.x) >> rope.lane_bits;
    const bool mine = item < rope.to.rows * rope.all; /* all lanes of a warp go on for the sums */
    const struct place at = place_of(mine ? item : 0, rope.all); /* (row, head) */
    const int64_t column = at.part * 2 * rope.half;
    struct halves<PACKS, access<T>::WIDTH> x;
    halves_load<T>(rope, rope.from, at.row, column, x);
    bool inside = true;
    const int32_t position = at.part < rope.turned ? position_of(rope, at.row, &inside) : 0;
    if (rope.norm) {
        struct halves<PACKS, access<T>::WIDTH> w; /* loaded before the sum needs x */
        halves_load<T>(rope, at.part < rope.heads ? rope.query_weight : rope.key_weight, 0, 0, w);
        halves_end(rope, x);
        const float rstd = rsqrtf(halves_dot(rope, x, x) * rope.inverse + rope.epsilon);
        if (at.part < rope.turned) {
#pragma unroll
            for (int p = 0; p < PACKS; p++) {
#pragma unroll
                for (int i = 0; i < access<T>::WIDTH; i++) {
                    x.a[p][i] *= rstd * w.a[p][i];
                    x.b[p][i] *= rstd * w.b[p][i];
                }
            }
            if (mine && inside && rope.rstd != NULL && lane_of(rope) == 0) {
                rope.rstd[at.row * rope.turned + at.part] = rstd;
            }
        }
    }
    if (at.part < rope.turned) {
        halves_turn(rope, position, x);
    }
    if (mine && inside) {
        halves_store<T>(rope, at.row, column, x);
    }
}

static void turn_heads(struct device *device, const char *name, struct rope *rope)
{
    const enum way way = rope_plan(rope);
    cuda_launch(device, name, ROPE_KERNEL(way, rope, forward_kernel),
                cuda_blocks(rope->to.rows * rope->all, THREADS / rope->lanes), THREADS, 0, *rope);
}

void cuda_qk_norm_rope_forward(struct device *device, struct tensor to, float *rstd,
                               struct tensor from, const struct attention_shape *shape,
                               const struct tensor *query_weight, const struct tensor *key_weight,
                               float epsilon, struct tensor cos_sin, const int32_t *position)
{
    const int64_t turned = shape->heads + shape->kv_heads;
    const bool norm = query_weight != NULL;
    assert(norm == (key_weight != NULL));
    struct rope rope = {};
    rope.to = to;
    rope.from = from;
    rope.query_weight = norm ? *query_weight : from;
    rope.key_weight = norm ? *key_weight : from;
    rope.cos_sin = cos_sin;
    rope.position = position;
    rope.rstd = rstd;
    rope.heads = shape->heads;
    rope.turned = turned;
    rope.all = to.data == from.data ? turned : turned + shape->kv_heads;
    rope.half = (int)(shape->head_dim / 2);
    rope.norm = norm;
    rope.sign = 1.0F;
    rope.epsilon = epsilon;
    rope.fault = cuda_of(device)->fault;
    check_rope(rope, shape);
    turn_heads(device, "qk_norm_rope_forward", &rope);
}

/* -- backward through norms -- */

/* Warps of the query heads, then warps of the key heads: each kind has one weight, whose gradient a
 * warp sums over all of its heads. */
struct rope_backward {
    struct rope rope;
    int64_t query_blocks;
    float *parts; /* (warps, D) f32, or NULL */
};

/* d, turned back, through the norm of x: d becomes the gradient of x, d_weight += its share. */
template <int PACKS, int WIDTH>
static __device__ inline void
through_norm(const struct rope &rope, float rstd, const struct halves<PACKS, WIDTH> &x,
             const struct halves<PACKS, WIDTH> &w, struct halves<PACKS, WIDTH> &d,
             struct halves<PACKS, WIDTH> &d_weight, bool mine)
{
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
#pragma unroll
        for (int i = 0; i < WIDTH; i++) {
            d_weight.a[p][i] += mine ? d.a[p][i] * x.a[p][i] * rstd : 0.0F;
            d_weight.b[p][i] += mine ? d.b[p][i] * x.b[p][i] * rstd : 0.0F;
            d.a[p][i] *= w.a[p][i];
            d.b[p][i] *= w.b[p][i];
        }
    }
    const float dots = halves_dot(rope, d, x);
    const float pull = dots * rope.inverse * rstd * rstd * rstd;
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
#pragma unroll
        for (int i = 0; i < WIDTH; i++) {
            d.a[p][i] = d.a[p][i] * rstd - x.a[p][i] * pull;
            d.b[p][i] = d.b[p][i] * rstd - x.b[p][i] * pull;
        }
    }
}

/* Adds up what the heads of a warp gave to the weight, and leaves it in the warp's part. */
template <int PACKS, int WIDTH>
static __device__ inline void leave_part(const struct rope_backward &b, const struct rope &rope,
                                         struct halves<PACKS, WIDTH> &d_weight)
{
    const int64_t warp = ((int64_t)blockIdx.x * THREADS + threadIdx.x) / WARP;
    float *const to = b.parts + warp * 2 * rope.half;
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
#pragma unroll
        for (int i = 0; i < WIDTH; i++) {
            for (int distance = rope.lanes; distance < WARP; distance *= 2) {
                d_weight.a[p][i] += __shfl_xor_sync(0xFFFFFFFFU, d_weight.a[p][i], distance);
                d_weight.b[p][i] += __shfl_xor_sync(0xFFFFFFFFU, d_weight.b[p][i], distance);
            }
        }
        const int start = pack_start<WIDTH>(rope, p);
        if ((int)threadIdx.x % WARP < rope.lanes && start < rope.half) {
            span_store(to + start, d_weight.a[p]);
            span_store(to + rope.half + start, d_weight.b[p]);
        }
    }
}

template <typename T, int PACKS>
static __global__ void __launch_bounds__(THREADS, RESIDENT) backward_kernel(struct rope_backward b)
{
    constexpr int WIDTH = access<T>::WIDTH;
    const struct rope &rope = b.rope;
    const bool query = blockIdx.x < b.query_blocks;
    const int64_t block = query ? blockIdx.x : blockIdx.x - b.query_blocks;
    const int64_t blocks = query ? b.query_blocks : gridDim.x - b.query_blocks;
    const int64_t heads = query ? rope.heads : rope.turned - rope.heads;
    const int64_t items = rope.to.rows * heads;
    const int64_t groups = THREADS >> rope.lane_bits;
    struct halves<PACKS, WIDTH> d_weight = {
    };
    for (int64_t first = block * groups; first < items; first += blocks * groups) {
        const int64_t item = first + (threadIdx.x >> rope.lane_bits);
        struct place at = place_of(min(item, items - 1), heads);
        at.part += query ? 0 : rope.heads;
        const int64_t column = at.part * 2 * rope.half;
        struct halves<PACKS, WIDTH> d;
        struct halves<PACKS, WIDTH> x;
        struct halves<PACKS, WIDTH> w;
        halves_load<T>(rope, rope.to, at.row, column, d);
        halves_load<T>(rope, rope.from, at.row, column, x);
        halves_load<T>(rope, query ? rope.query_weight : rope.key_weight, 0, 0, w);
        halves_end(rope, x);
        bool inside;
        halves_turn(rope, position_of(rope, at.row, &inside), d);
        const bool mine = item < items && inside;
        through_norm(rope, rope.rstd[at.row * rope.turned + at.part], x, w, d, d_weight, mine);
        if (mine) {
            halves_store<T>(rope, at.row, column, d);
        }
    }
    if (b.parts != NULL) {
        leave_part(b, rope, d_weight);
    }
}

/* Through norms: as many blocks as are on the device at once, shared out by heads. */
static void turn_back_through_norms(struct device *device, struct rope_backward *b,
                                    float *d_query_weight, float *d_key_weight)
{
    const char *const name = "qk_norm_rope_backward";
    struct rope *rope = &b->rope;
    const enum way way = rope_plan(rope);
    const int64_t dim = 2 * (int64_t)rope->half;
    const int64_t kv_heads = rope->turned - rope->heads;
    const int64_t resident = RESIDENT * (int64_t)cuda_of(device)->multiprocessors;
    const int64_t most = cuda_blocks(rope->to.rows * rope->turned, THREADS / rope->lanes);
    const int64_t blocks = most < resident ? most : resident;
    const int64_t key_blocks = (blocks * kv_heads + rope->turned - 1) / rope->turned;
    b->query_blocks = blocks > key_blocks ? blocks - key_blocks : 1;
    const int64_t query_parts = b->query_blocks * (THREADS / WARP);
    const int64_t key_parts = key_blocks * (THREADS / WARP);
    if (d_query_weight != NULL || d_key_weight != NULL) {
        b->parts =
            (float *)cuda_scratch(device, (query_parts + key_parts) * dim, sizeof(float), name);
        if (b->parts == NULL) {
            return;
        }
    }
    cuda_launch(device, name, ROPE_KERNEL(way, rope, backward_kernel),
                dim3((unsigned)(b->query_blocks + key_blocks)), THREADS, 0, *b);
    if (d_query_weight != NULL) {
        cuda_add_parts(device, "qk_norm_rope_backward (d_query_weight)", d_query_weight, b->parts,
                       query_parts, dim);
    }
    if (d_key_weight != NULL) {
        cuda_add_parts(device, "qk_norm_rope_backward (d_key_weight)", d_key_weight,
                       b->parts + query_parts * dim, key_parts, dim);
    }
}

void cuda_qk_norm_rope_backward(struct device *device, struct tensor d_qkv, float *d_query_weight,
                                float *d_key_weight, struct tensor from, const float *rstd,
                                const struct attention_shape *shape,
                                const struct tensor *query_weight, const struct tensor *key_weight,
                                struct tensor cos_sin, const int32_t *position)
{
    const bool norm = query_weight != NULL;
    assert(norm == (key_weight != NULL));
    if (cuda_failed(device) || d_qkv.rows == 0) {
        return;
    }
    struct rope_backward b = {};
    b.rope.to = d_qkv;
    b.rope.from = norm ? from : d_qkv; /* without norms `from` is unused and may be empty */
    b.rope.query_weight = norm ? *query_weight : d_qkv;
    b.rope.key_weight = norm ? *key_weight : d_qkv;
    b.rope.cos_sin = cos_sin;
    b.rope.position = position;
    b.rope.rstd = (float *)rstd; /* read alone */
    b.rope.heads = shape->heads;
    b.rope.turned = shape->heads + shape->kv_heads;
    b.rope.all = b.rope.turned;
    b.rope.half = (int)(shape->head_dim / 2);
    b.rope.norm = norm;
    b.rope.sign = -1.0F;
    b.rope.fault = cuda_of(device)->fault;
    check_rope(b.rope, shape);
    if (norm) {
        turn_back_through_norms(device, &b, d_query_weight, d_key_weight);
    } else {
        turn_heads(device, "qk_norm_rope_backward", &b.rope);
    }
}
