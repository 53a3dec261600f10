/* Training one micro-batch of a golden folder: what the tests of outputs and of gradients share. */
#ifndef TESTS_MODEL_TRAINING_H
#define TESTS_MODEL_TRAINING_H

#include "support.h"

/* A golden folder on a device, and the network it describes. */
struct scene {
    struct device *device;
    struct golden golden;
    struct network network;
};

static inline void scene_open(const char *name, enum dtype dtype, struct scene *scene)
{
    scene->device = open_device();
    golden_open(scene->device, name, dtype, &scene->golden);
    scene->network = (struct network){&scene->golden.config, &scene->golden.weights, NULL, NULL};
}

static inline void scene_close(struct scene *scene)
{
    golden_close(&scene->golden);
    device_close(scene->device);
}

static const char *const golden_names[] = {"llama", "llama_tied", "qwen3", "qwen3_tied"};
enum { GOLDEN_NAMES = sizeof(golden_names) / sizeof(golden_names[0]) };

struct trained {
    float *gradients; /* host, of the whole table */
    double loss;
};

static inline struct transformer_options options_for(const struct network *network, int64_t tokens)
{
    struct transformer_options options = {
        .max_tokens = tokens, .compute = network->weights->dtype, .training = true};
    return options;
}

/* Trains one micro-batch and returns its loss; what the watch is told has to be true. */
static inline double train_batch(struct device *device, struct transformer *transformer,
                                 const struct network *network, const struct batch *batch,
                                 float factor, float *gradients, const struct gradient_watch *watch)
{
    void *total = NULL;
    double loss = 0.0;
    ASSERT_OK(device->ops->alloc(device, sizeof(loss), "a loss", &total, err));
    device->ops->fill(device, tensor_matrix(total, DTYPE_F32, 1, 2), 0.0f);
    ASSERT_OK(transformer_train(transformer, network, batch, factor, gradients, total, watch, err));
    device->ops->download(device, &loss, total, sizeof(loss));
    ASSERT_OK(device->ops->check(device, err));
    device->ops->free(device, total);
    return loss;
}

/* One micro-batch from zeroed gradients. */
static inline struct trained train_once(struct device *device, const struct network *network,
                                        const struct transformer_options *options,
                                        const struct batch *batch, float factor)
{
    const struct param_table *table =
        network->adapter != NULL ? network->adapter->table : network->weights->table;
    struct transformer *transformer = NULL;
    struct trained trained;
    float *gradients = gradients_create(device, table);
    ASSERT_OK(transformer_create(device, network, options, &transformer, err));
    trained.loss = train_batch(device, transformer, network, batch, factor, gradients, NULL);
    trained.gradients = gradients_fetch(device, table, gradients);
    transformer_destroy(transformer);
    device->ops->free(device, gradients);
    return trained;
}

static inline double sum_losses(const struct safetensors *expected)
{
    int64_t count = 0;
    double sum = 0.0;
    float *losses = golden_copy(expected, "losses", &count);
    for (int64_t i = 0; i < count; i++) {
        sum += (double)losses[i];
    }
    free(losses);
    return sum;
}

/* Compares each parameter's gradient with the golden one; padding has to be zero. */
static inline void compare_gradients(const struct safetensors *expected,
                                     const struct param_table *table, const float *gradients,
                                     double factor, double tolerance)
{
    int64_t end = 0;
    for (int64_t i = 0; i < table->count; i++) {
        const struct param *param = &table->items[i];
        char name[256];
        int64_t count = 0;
        snprintf(name, sizeof(name), "gradient.%s", param->name);
        float *golden = golden_copy(expected, name, &count);
        assert_int_equal(count, param->rows * param->cols);
        for (int64_t k = 0; k < count; k++) {
            golden[k] *= (float)factor;
        }
        double worst = difference(gradients + param->offset, golden, count);
        if (!(worst <= tolerance)) {
            fail_msg("%s: relative difference %g, allowed %g", name, worst, tolerance);
        }
        for (int64_t k = end; k < param->offset; k++) {
            assert_true(gradients[k] == 0.0f);
        }
        end = param->offset + count;
        free(golden);
    }
}

#endif
