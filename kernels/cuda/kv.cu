/* New keys and values into the cache of generation.
 *
 * Reads and writes 2*K*D numbers a row and computes nothing: 8 KiB a row and layer for K = 8,
 * D = 128 in bf16, so a decoding step pays for the launch and a prefill for the bandwidth. */
#include <assert.h>

#include "kernels/cuda/kv.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/numbers.h"
#include "kernels/cuda/operations.h"

enum { THREADS = 256 };

struct append {
    struct tensor qkv;   /* (n,(H+2K)*D) */
    struct tensor key;   /* (B*T,K*D) */
    struct tensor value; /* (B*T,K*D) */
    struct kv_places places;
    int64_t key_column; /* of the first key in a row of qkv */
    int64_t units;      /* in a row's keys and values: packs of 16 bytes, or numbers */
};

/* One unit, a pack if To is From and all rows are aligned, a number else. */
template <typename To, typename From, bool PACKS>
static __device__ void append_unit(const struct append *a, int64_t row, int64_t unit)
{
    const int64_t width = a->key.cols;
    const int64_t column = unit * (PACKS ? pack<From>::SIZE : 1); /* of [key | value] */
    const int64_t place = a->places.sequence[row] * a->places.capacity + a->places.position[row];
    const struct tensor *cache = column < width ? &a->key : &a->value;
    const From *from =
        static_cast<const From *>(a->qkv.data) + row * a->qkv.stride + a->key_column + column;
    To *to = static_cast<To *>(cache->data) + place * cache->stride +
             (column < width ? column : column - width);
    if (PACKS) {
        *reinterpret_cast<uint4 *>(to) = *reinterpret_cast<const uint4 *>(from);
    } else {
        number_store(to, number_load(from));
    }
}

template <typename To, typename From, bool PACKS>
static __global__ void __launch_bounds__(THREADS) kv_append_kernel(const struct append a)
{
    const int64_t step = (int64_t)gridDim.x * THREADS;
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < a.qkv.rows * a.units;
         i += step) {
        const int64_t row = i / a.units;
        const int64_t unit = i % a.units;
        if (kv_place_check(&a.places, row, unit == 0)) {
            append_unit<To, From, PACKS>(&a, row, unit);
        }
    }
}

template <typename To, typename From, bool PACKS>
static void append_all(struct device *device, struct append *a)
{
    a->units = 2 * a->key.cols / (PACKS ? pack<From>::SIZE : 1);
    cuda_launch(device, "kv_append", kv_append_kernel<To, From, PACKS>,
                dim3(cuda_blocks(a->qkv.rows * a->units, THREADS)), THREADS, 0, *a);
}

/* Whether keys and values of qkv and cache can be copied 16 bytes at a time. */
static bool append_in_packs(const struct append *a)
{
    const int64_t size = 16 / (int64_t)dtype_bytes(a->qkv.dtype);
    return a->qkv.dtype == a->key.dtype && rows_aligned(a->qkv) && rows_aligned(a->key) &&
           rows_aligned(a->value) && a->key_column % size == 0 && a->key.cols % size == 0;
}

void cuda_kv_append(struct device *device, const struct kv_cache *cache, struct tensor qkv,
                    const struct attention_shape *shape, const int32_t *sequence,
                    const int32_t *position)
{
    assert(shape->kv_heads > 0 && shape->heads % shape->kv_heads == 0 && cache->capacity > 0);
    assert(qkv.cols == (shape->heads + 2 * shape->kv_heads) * shape->head_dim);
    assert(cache->key.cols == shape->kv_heads * shape->head_dim);
    assert(cache->value.cols == cache->key.cols && cache->value.rows == cache->key.rows);
    assert(cache->value.dtype == cache->key.dtype);
    if (cuda_failed(device) || qkv.rows == 0) {
        return;
    }
    struct append a = {qkv,
                       cache->key,
                       cache->value,
                       kv_places_make(device, cache, sequence, position),
                       shape->heads * shape->head_dim,
                       0};
    const bool from_f32 = qkv.dtype == DTYPE_F32;
    const bool to_f32 = cache->key.dtype == DTYPE_F32;
    if (append_in_packs(&a)) {
        (from_f32 ? append_all<float, float, true> : append_all<bf16, bf16, true>)(device, &a);
    } else if (to_f32) {
        (from_f32 ? append_all<float, float, false> : append_all<float, bf16, false>)(device, &a);
    } else {
        (from_f32 ? append_all<bf16, float, false> : append_all<bf16, bf16, false>)(device, &a);
    }
}
