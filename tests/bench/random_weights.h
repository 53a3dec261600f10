/* Random weights for benchmarks: as tests make them, but for large models copies of one block. */
#ifndef BENCH_RANDOM_WEIGHTS_H
#define BENCH_RANDOM_WEIGHTS_H

#include "model/model.h"
#include "random.h"

enum { LARGE_MODEL = 500 * 1000 * 1000 };
static const float WEIGHT_SCALE = 0.0346F; /* of a uniform distribution with deviation 0.02 */

static inline enum status large_random_weights(const struct weights *weights, struct error *err)
{
    struct random_block random = {0};
    float ones[1024];
    TRY(random_block_make(&random, weights->device, RANDOM_BLOCK_MAX, WEIGHT_SCALE, err));
    for (int i = 0; i < 1024; i++) {
        ones[i] = 1.0F;
    }
    for (int64_t i = 0; i < weights->table->count; i++) {
        const struct param *param = &weights->table->items[i];
        if (!param->vector) {
            random_fill(&random, weights_tensor(weights, i));
        }
        for (int64_t done = 0; param->vector && done < param->cols; done += 1024) {
            weights_set_range(weights, param->offset + done, ones,
                              param->cols - done < 1024 ? param->cols - done : 1024);
        }
    }
    enum status status = weights->device->ops->check(weights->device, err);
    random_block_free(&random);
    return status;
}

static inline enum status random_weights(const struct weights *weights, struct error *err)
{
    if (weights->table->elements > LARGE_MODEL) {
        return large_random_weights(weights, err);
    }
    model_init_random(weights, 42);
    return weights->device->ops->check(weights->device, err);
}

#endif
