/* Random numbers on a device for benchmarks: one block comes from the host, the rest are copies of
 * it made there, so that gigabytes take no time. Never zeros: hardware multiplies those faster. */
#ifndef BENCH_RANDOM_H
#define BENCH_RANDOM_H

#include <stdlib.h>

#include "base/mem.h"
#include "kernels/ops.h"

enum { RANDOM_BLOCK_MAX = 1 << 24 };

struct random_block {
    struct device *device;
    float *values; /* on the device, uniform in (-scale, scale) */
    int64_t count;
};

static inline enum status random_block_make(struct random_block *block, struct device *device,
                                            int64_t count, float scale, struct error *err)
{
    uint32_t state = 12345;
    *block = (struct random_block){.device = device, .count = count};
    float *host = mem_aligned((size_t)count, sizeof(*host));
    if (host == NULL) {
        return mem_fail(err, (size_t)count * sizeof(*host), "random numbers");
    }
    for (int64_t i = 0; i < count; i++) {
        state = state * 1664525U + 1013904223U;
        host[i] = scale * ((float)(state >> 8) / 8388608.0F - 1.0F);
    }
    void *memory = NULL;
    enum status status =
        device->ops->alloc(device, (size_t)count * sizeof(*host), "random numbers", &memory, err);
    if (status == STATUS_OK) {
        device->ops->upload(device, memory, host, (size_t)count * sizeof(*host));
        block->values = memory;
    }
    free(host);
    return status;
}

static inline void random_block_free(struct random_block *block)
{
    if (block->device != NULL) {
        block->device->ops->free(block->device, block->values);
    }
    *block = (struct random_block){0};
}

/* Fills a tensor without gaps between its rows. */
static inline void random_fill(const struct random_block *block, struct tensor to)
{
    const int64_t count = to.rows * to.cols;
    for (int64_t done = 0; done < count; done += block->count) {
        const int64_t piece = count - done < block->count ? count - done : block->count;
        struct tensor part = tensor_cols(tensor_matrix(to.data, to.dtype, 1, count), done, piece);
        block->device->ops->copy(block->device, part,
                                 tensor_matrix(block->values, DTYPE_F32, 1, piece));
    }
}

#endif
