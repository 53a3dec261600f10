/* Places in the cache of keys and values, read and checked by kernels. */
#ifndef KERNELS_CUDA_KV_H
#define KERNELS_CUDA_KV_H

#include "kernels/cuda/device.h"

/* Where each row of a pass belongs. */
struct kv_places {
    const int32_t *sequence; /* (n) */
    const int32_t *position; /* (n) */
    int64_t sequences;       /* that the cache holds */
    int64_t capacity;        /* positions of each */
    struct cuda_fault *fault;
};

static inline struct kv_places kv_places_make(struct device *device, const struct kv_cache *cache,
                                              const int32_t *sequence, const int32_t *position)
{
    const struct kv_places places = {sequence, position, cache->key.rows / cache->capacity,
                                     cache->capacity, cuda_of(device)->fault};
    return places;
}

/* Whether the row has a place in the cache; if not, the thread that is told to says so. */
__device__ inline bool kv_place_check(const struct kv_places *places, int64_t row, bool report)
{
    const int32_t sequence = places->sequence[row];
    const int32_t position = places->position[row];
    const bool sequence_ok = sequence >= 0 && sequence < places->sequences;
    const bool position_ok = position >= 0 && position < places->capacity;
    if (report && !sequence_ok) {
        fault_report(places->fault, CUDA_FAULT_SEQUENCE, row, sequence, places->sequences);
    } else if (report && !position_ok) {
        fault_report(places->fault, CUDA_FAULT_POSITION, row, position, places->capacity);
    }
    return sequence_ok && position_ok;
}

#endif
