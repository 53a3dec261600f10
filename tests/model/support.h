/* What the tests of the numbers half of the model room share: a device, the golden folders,
 * comparisons. */
#ifndef TESTS_MODEL_SUPPORT_H
#define TESTS_MODEL_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "kernels/ops.h"
#include "model/config.h"
#include "model/family.h"
#include "model/lora.h"
#include "model/model_tensors.h"
#include "model/number.h"
#include "model/params.h"
#include "model/safetensors.h"
#include "model/transformer.h"

#define GOLDEN TEST_SOURCE_DIR "/golden/model/"

#define ASSERT_OK(call)                                                                            \
    do {                                                                                           \
        struct error error_ = {.code = STATUS_OK};                                                 \
        struct error *err = &error_;                                                               \
        if ((call) != STATUS_OK) {                                                                 \
            fail_msg("%s: %s", status_name(error_.code), error_.message);                          \
        }                                                                                          \
    } while (0)

/* The call (which names its error `err`) fails with this code, and its message holds this text. */
#define ASSERT_FAILS(call, expected_code, text)                                                    \
    do {                                                                                           \
        struct error error_ = {.code = STATUS_OK};                                                 \
        struct error *err = &error_;                                                               \
        enum status got_ = (call);                                                                 \
        if (got_ != (expected_code) || error_.code != got_ ||                                      \
            strstr(error_.message, (text)) == NULL) {                                              \
            fail_msg("expected %s with \"%s\", got %s: %s", status_name(expected_code), (text),    \
                     status_name(got_), error_.message);                                           \
        }                                                                                          \
    } while (0)

#define ASSERT_CLOSE(got, expected, tolerance)                                                     \
    do {                                                                                           \
        double got_ = (got);                                                                       \
        double expected_ = (expected);                                                             \
        if (!(fabs(got_ - expected_) <= (tolerance))) {                                            \
            fail_msg("expected %.9g within %g, got %.9g", expected_, (double)(tolerance), got_);   \
        }                                                                                          \
    } while (0)

/* What the tests compute on: another one where these sources are built for it. */
#ifndef TEST_BACKEND
#define TEST_BACKEND "cpu"
#endif

static inline struct device *open_device(void)
{
    struct device_options options = {.threads = 2};
    struct device *device = NULL;
    ASSERT_OK(device_open(TEST_BACKEND, &options, &device, err));
    return device;
}

/* A golden model: config, table and weights, without its tokenizer. */
struct golden {
    char folder[FILE_PATH_BYTES];
    struct model_config config;
    struct param_table table;
    struct weights weights;
    struct safetensors *expected;
    struct batch batch;
};

static inline const struct safetensors_entry *golden_entry(const struct safetensors *file,
                                                           const char *name)
{
    const struct safetensors_entry *entry = safetensors_find(file, name);
    if (entry == NULL) {
        fail_msg("no %s in the golden file", name);
    }
    return entry;
}

static inline int64_t *count_of(int64_t *value, const struct safetensors_entry *entry)
{
    *value = (int64_t)(entry->len_bytes / 4);
    return value;
}

/* Heap copy, aligned. */
static inline void *golden_copy(const struct safetensors *file, const char *name, int64_t *count)
{
    const struct safetensors_entry *entry = golden_entry(file, name);
    void *copy = mem_aligned(entry->len_bytes, 1);
    assert_non_null(copy);
    memcpy(copy, entry->data, entry->len_bytes);
    if (count != NULL) {
        count_of(count, entry);
    }
    return copy;
}

static inline void golden_batch_open(const struct safetensors *expected, struct batch *batch)
{
    int64_t starts = 0;
    memset(batch, 0, sizeof(*batch));
    batch->ids = golden_copy(expected, "ids", &batch->tokens);
    batch->targets = golden_copy(expected, "targets", NULL);
    batch->starts = golden_copy(expected, "starts", &starts);
    batch->sequences = starts - 1;
    int32_t *positions = mem_calloc((size_t)batch->tokens, sizeof(*positions));
    assert_non_null(positions);
    for (int64_t s = 0; s < batch->sequences; s++) {
        for (int32_t i = batch->starts[s]; i < batch->starts[s + 1]; i++) {
            positions[i] = i - batch->starts[s];
            batch->target_count += batch->targets[i] >= 0;
        }
    }
    batch->positions = positions;
}

static inline void golden_batch_close(struct batch *batch)
{
    free((void *)(uintptr_t)batch->ids);
    free((void *)(uintptr_t)batch->targets);
    free((void *)(uintptr_t)batch->starts);
    free((void *)(uintptr_t)batch->positions);
}

static inline void golden_open(struct device *device, const char *name, enum dtype dtype,
                               struct golden *golden)
{
    struct safetensors *file = NULL;
    char path[FILE_PATH_BYTES];
    memset(golden, 0, sizeof(*golden));
    snprintf(golden->folder, sizeof(golden->folder), "%s%s", GOLDEN, name);
    ASSERT_OK(model_config_load(golden->folder, &golden->config, err));
    ASSERT_OK(param_table_build(&golden->config, &golden->table, err));
    ASSERT_OK(safetensors_open_folder(golden->folder, &file, err));
    ASSERT_OK(model_tensors_check(file, &golden->config, &golden->table, golden->folder, err));
    ASSERT_OK(weights_create(device, &golden->table, dtype, &golden->weights, err));
    ASSERT_OK(model_tensors_load(file, &golden->weights, NULL, err));
    safetensors_close(file);
    ASSERT_OK(file_join(golden->folder, "expected.safetensors", path, err));
    ASSERT_OK(safetensors_open_file(path, &golden->expected, err));
    golden_batch_open(golden->expected, &golden->batch);
}

static inline void golden_close(struct golden *golden)
{
    golden_batch_close(&golden->batch);
    safetensors_close(golden->expected);
    weights_fini(&golden->weights);
    param_table_fini(&golden->table);
}

/* Largest difference relative to the largest expected value. */
static inline double difference(const float *got, const float *expected, int64_t count)
{
    double worst = 0.0;
    double largest = 1e-30;
    for (int64_t i = 0; i < count; i++) {
        double delta = fabs((double)got[i] - (double)expected[i]);
        worst = delta > worst || isnan(delta) ? delta : worst;
        largest = fabs((double)expected[i]) > largest ? fabs((double)expected[i]) : largest;
    }
    return worst / largest;
}

/* A buffer of gradients of a table on the device, zeroed. */
static inline float *gradients_create(struct device *device, const struct param_table *table)
{
    void *data = NULL;
    ASSERT_OK(device->ops->alloc(device, (size_t)table->elements * sizeof(float), "gradients",
                                 &data, err));
    device->ops->fill(device, tensor_matrix(data, DTYPE_F32, 1, table->elements), 0.0f);
    return data;
}

static inline float *gradients_fetch(struct device *device, const struct param_table *table,
                                     const float *gradients)
{
    float *host = mem_aligned((size_t)table->elements, sizeof(*host));
    assert_non_null(host);
    device->ops->download(device, host, gradients, (size_t)table->elements * sizeof(float));
    ASSERT_OK(device->ops->check(device, err));
    return host;
}

#endif
