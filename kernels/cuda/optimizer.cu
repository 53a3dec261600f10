/* Norm of all gradients, and AdamW (arXiv 1711.05101) in one sweep: gradient, moments and weights
 * are read once.
 *
 * Bytes a parameter: norm 4; adamw 16 in and 12 out, 2 more for the bf16 copy. For 1.7e9 parameters
 * on an H200 (4.3 TB/s): 1.6 and 11.9 milliseconds. The norm takes two instructions of the f64
 * units a parameter, 0.3 ms; adamw about 50 of f32, 3 ms, beside the memory.
 *
 * All slots are one launch: they are cut into chunks, a block takes a chunk and finds its slot by
 * binary search in a table. Tables of more slots than cuda_table takes go in several launches. */
#include <assert.h>
#include <math.h>

#include "kernels/cuda/access.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/operations.h"
#include "kernels/cuda/partial_sums.h"

constexpr int THREADS = 256;
constexpr int WIDTH = pack<float>::SIZE;
constexpr int64_t CHUNK = 16384;
constexpr int SLOTS_MAX = 1024; /* of one table: 64 KiB */

struct slot_entry {
    struct optimizer_slot slot;
    int64_t first_chunk; /* of this slot, among those of the table */
};
static_assert(SLOTS_MAX * sizeof(struct slot_entry) <= 64 * 1024, "cuda_table takes no more");

static int64_t chunks_of(int64_t count)
{
    return (count + CHUNK - 1) / CHUNK;
}

static int64_t count_chunks(const struct optimizer_slot *slots, int64_t count)
{
    int64_t chunks = 0;
    for (int64_t s = 0; s < count; s++) {
        chunks += chunks_of(slots[s].count);
    }
    return chunks;
}

/* Up to SLOTS_MAX slots as a table on the device, and how many chunks they have. NULL after a
 * failure. */
static const struct slot_entry *slot_table(struct device *device,
                                           const struct optimizer_slot *slots, int count,
                                           int64_t *chunks, const char *what)
{
    struct slot_entry entries[SLOTS_MAX];
    *chunks = 0;
    for (int s = 0; s < count; s++) {
        entries[s].slot = slots[s];
        entries[s].first_chunk = *chunks;
        *chunks += chunks_of(slots[s].count);
    }
    return (const struct slot_entry *)cuda_table(device, entries,
                                                 (size_t)count * sizeof(entries[0]), what);
}

/* The last slot that begins at or before a chunk; one without numbers has none. */
static __device__ inline const struct slot_entry *find_slot(const struct slot_entry *table,
                                                            int count, int64_t chunk)
{
    int low = 0;
    int high = count; /* it is in low..high-1 */
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (table[middle].first_chunk <= chunk) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return table + low;
}

/* -- norm -- */

static __global__ void __launch_bounds__(THREADS)
    squares_kernel(double *parts, const struct slot_entry *table, int count)
{
    __shared__ double shared[WARP];
    const struct slot_entry *entry = find_slot(table, count, blockIdx.x);
    const int64_t first = (blockIdx.x - entry->first_chunk) * CHUNK;
    const int64_t end = min(first + CHUNK, entry->slot.count);
    const float *const grad = entry->slot.grad;
    const int64_t packed_end = (uintptr_t)grad % 16 == 0 ? end - (end - first) % WIDTH : first;
    double sum = 0.0;
#pragma unroll 4
    for (int64_t i = first + threadIdx.x * WIDTH; i < packed_end; i += THREADS * WIDTH) {
        float g[WIDTH];
        span_load(grad + i, g);
#pragma unroll
        for (int k = 0; k < WIDTH; k++) {
            sum += (double)g[k] * (double)g[k];
        }
    }
    for (int64_t i = packed_end + threadIdx.x; i < end; i += THREADS) {
        sum += (double)grad[i] * (double)grad[i];
    }
    sum = block_total(sum, shared);
    if (threadIdx.x == 0) {
        parts[blockIdx.x] = sum;
    }
}

constexpr int NORM_THREADS = 1024;

static __global__ void __launch_bounds__(NORM_THREADS)
    norm_kernel(float *norm, const double *parts, int64_t count)
{
    __shared__ double shared[WARP];
    double sum = 0.0;
#pragma unroll 8
    for (int64_t i = threadIdx.x; i < count; i += NORM_THREADS) {
        sum += parts[i];
    }
    sum = block_total(sum, shared);
    if (threadIdx.x == 0) {
        *norm = (float)sqrt(sum);
    }
}

void cuda_gradient_norm(struct device *device, float *norm, const struct optimizer_slot *slots,
                        int64_t count)
{
    if (cuda_failed(device)) {
        return;
    }
    const int64_t all_chunks = count_chunks(slots, count);
    double *parts = NULL;
    if (all_chunks > 0) {
        parts = (double *)cuda_scratch(device, all_chunks, sizeof(*parts), "gradient_norm");
        if (parts == NULL) {
            return;
        }
    }
    int64_t done = 0;
    for (int64_t first = 0; first < count; first += SLOTS_MAX) {
        const int some = (int)(count - first < SLOTS_MAX ? count - first : SLOTS_MAX);
        int64_t chunks;
        const struct slot_entry *table =
            slot_table(device, slots + first, some, &chunks, "gradient_norm");
        if (table == NULL) {
            return;
        }
        cuda_launch(device, "gradient_norm", squares_kernel, cuda_blocks(chunks, 1), THREADS, 0,
                    parts + done, table, some);
        done += chunks;
    }
    cuda_launch(device, "gradient_norm (sum)", norm_kernel, dim3(1), NORM_THREADS, 0, norm,
                (const double *)parts, all_chunks);
}

/* -- AdamW -- */

/* What of a step is the same for every number. */
struct adamw_factors {
    float clip_norm;
    float beta1;
    float beta2;
    float step_size;       /* learning rate / (1 - beta1^t) */
    float root_correction; /* 1 / sqrt(1 - beta2^t) */
    float epsilon;
    float learning_rate;
};

static struct adamw_factors factors_of(const struct adamw_step *step)
{
    const double correction1 = 1.0 - pow((double)step->beta1, (double)step->step);
    const double correction2 = 1.0 - pow((double)step->beta2, (double)step->step);
    struct adamw_factors factors;
    factors.clip_norm = step->clip_norm;
    factors.beta1 = step->beta1;
    factors.beta2 = step->beta2;
    factors.step_size = (float)((double)step->learning_rate / correction1);
    factors.root_correction = (float)(1.0 / sqrt(correction2));
    factors.epsilon = step->epsilon;
    factors.learning_rate = step->learning_rate;
    return factors;
}

/* COUNT numbers of a slot from number i on. */
template <int COUNT>
static __device__ inline void adamw_span(const struct adamw_factors &f,
                                         const struct optimizer_slot &slot, int64_t i,
                                         float grad_scale, float keep)
{
    float g[COUNT];
    float m[COUNT];
    float v[COUNT];
    float w[COUNT];
    span_load(slot.grad + i, g);
    span_load((const float *)slot.first_moment + i, m);
    span_load((const float *)slot.second_moment + i, v);
    span_load((const float *)slot.master + i, w);
#pragma unroll
    for (int k = 0; k < COUNT; k++) {
        g[k] *= grad_scale;
        m[k] = f.beta1 * m[k] + (1.0F - f.beta1) * g[k];
        v[k] = f.beta2 * v[k] + (1.0F - f.beta2) * (g[k] * g[k]);
        w[k] = w[k] * keep - f.step_size * m[k] / (sqrtf(v[k]) * f.root_correction + f.epsilon);
    }
    span_store(slot.first_moment + i, m);
    span_store(slot.second_moment + i, v);
    span_store(slot.master + i, w);
    if (slot.weights_bf16 == NULL) {
        return;
    }
    bf16 *const rounded = (bf16 *)slot.weights_bf16 + i;
    if constexpr (COUNT == 4) {
        __stwb((uint2 *)rounded, make_uint2(bf16_pair(w[0], w[1]), bf16_pair(w[2], w[3])));
    } else {
        span_store(rounded, w);
    }
}

static __device__ inline bool slot_aligned(const struct optimizer_slot &slot)
{
    return ((uintptr_t)slot.master | (uintptr_t)slot.grad | (uintptr_t)slot.first_moment |
            (uintptr_t)slot.second_moment | (uintptr_t)slot.weights_bf16 * 2) %
               16 ==
           0;
}

static __global__ void __launch_bounds__(THREADS)
    adamw_kernel(const struct slot_entry *table, int count, const float *norm,
                 struct adamw_factors f)
{
    float grad_scale = 1.0F;
    if (norm != NULL) {
        if (!isfinite(*norm)) {
            return;
        }
        if (f.clip_norm > 0.0F && *norm > f.clip_norm) {
            grad_scale = f.clip_norm / *norm;
        }
    }
    const struct slot_entry *entry = find_slot(table, count, blockIdx.x);
    const struct optimizer_slot slot = entry->slot;
    const int64_t first = (blockIdx.x - entry->first_chunk) * CHUNK;
    const int64_t end = min(first + CHUNK, slot.count);
    const int64_t packed_end = slot_aligned(slot) ? end - (end - first) % WIDTH : first;
    const float keep = 1.0F - f.learning_rate * slot.weight_decay;
    for (int64_t i = first + threadIdx.x * WIDTH; i < packed_end; i += THREADS * WIDTH) {
        adamw_span<WIDTH>(f, slot, i, grad_scale, keep);
    }
    for (int64_t i = packed_end + threadIdx.x; i < end; i += THREADS) {
        adamw_span<1>(f, slot, i, grad_scale, keep);
    }
}

void cuda_adamw(struct device *device, const struct optimizer_slot *slots, int64_t count,
                const float *norm, const struct adamw_step *step)
{
    assert(step->step >= 1 && (norm != NULL || step->clip_norm <= 0.0F));
    const struct adamw_factors factors = factors_of(step);
    for (int64_t first = 0; first < count && !cuda_failed(device); first += SLOTS_MAX) {
        const int some = (int)(count - first < SLOTS_MAX ? count - first : SLOTS_MAX);
        int64_t chunks;
        const struct slot_entry *table = slot_table(device, slots + first, some, &chunks, "adamw");
        if (table != NULL) {
            cuda_launch(device, "adamw", adamw_kernel, cuda_blocks(chunks, 1), THREADS, 0, table,
                        some, norm, factors);
        }
    }
}
