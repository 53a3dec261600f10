/* Tiny models and data for the tests of training, made of formulas instead of files. */
#ifndef TEST_TRAIN_TINY_H
#define TEST_TRAIN_TINY_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "model/family.h"
#include "train/trainer.h"

/* 32-bit integer `index` of a name: the same formula as in tests/golden/train.py. */
static inline uint32_t tiny_number(const char *name, int64_t index)
{
    uint32_t hash = 2166136261U;
    for (const char *c = name; *c != '\0'; c++) {
        hash = (hash ^ (uint8_t)*c) * 16777619U;
    }
    uint32_t mixed = (uint32_t)((uint64_t)index * 2654435761U + hash);
    mixed = (mixed ^ (mixed >> 15)) * 2246822519U;
    return mixed ^ (mixed >> 13);
}

static inline void tiny_fill_param(const char *name, int64_t count, float *out)
{
    bool norm = strstr(name, "norm") != NULL;
    for (int64_t i = 0; i < count; i++) {
        double unit = (double)tiny_number(name, i) / 4294967296.0 - 0.5;
        out[i] = (float)((norm ? 1.0 : 0.0) + (norm ? 0.2 : 0.4) * unit);
    }
}

/* V 64, C 32, 2 layers, 4 heads of 8 over 2 key/value heads, F 48, untied. */
static inline void tiny_model_init(struct model *model, const struct model_family *family,
                                   struct device *device, enum dtype dtype)
{
    struct error err;
    memset(model, 0, sizeof(*model));
    model->config = (struct model_config){
        .family = family,
        .hidden_size = 32,
        .intermediate_size = 48,
        .layers = 2,
        .heads = 4,
        .kv_heads = 2,
        .head_dim = 8,
        .vocab_size = 64,
        .max_positions = 64,
        .norm_epsilon = 1e-5,
        .rope_theta = 10000.0,
        .rope_factor = 1.0,
        .qk_norm = family->qk_norm,
        .stored_dtype = DTYPE_F32,
    };
    snprintf(model->hash, sizeof(model->hash), "tiny %s", family->model_type);
    assert_int_equal(param_table_build(&model->config, &model->table, &err), STATUS_OK);
    assert_int_equal(weights_create(device, &model->table, dtype, &model->weights, &err),
                     STATUS_OK);
    for (int64_t i = 0; i < model->table.count; i++) {
        const struct param *param = &model->table.items[i];
        float *values = mem_calloc((size_t)(param->rows * param->cols), sizeof(float));
        tiny_fill_param(param->name, param->rows * param->cols, values);
        weights_set(&model->weights, i, values);
        free(values);
    }
}

static inline void tiny_model_fini(struct model *model)
{
    weights_fini(&model->weights);
    param_table_fini(&model->table);
}

/* `count` sequences of lengths[i % 6], the last five tokens of each learned; `name` picks the ids.
 */
static inline void tiny_dataset_init(struct encoded_dataset *dataset, const char *name,
                                     int64_t count)
{
    static const int64_t lengths[] = {9, 12, 10, 11, 9, 12};
    enum { ANSWER = 5, VOCABULARY = 64 };
    memset(dataset, 0, sizeof(*dataset));
    dataset->count = count;
    dataset->start = mem_calloc((size_t)count + 1, sizeof(*dataset->start));
    dataset->row = mem_calloc((size_t)count + 1, sizeof(*dataset->row));
    for (int64_t i = 0; i < count; i++) {
        dataset->start[i + 1] = dataset->start[i] + lengths[i % 6];
        dataset->row[i] = i;
    }
    size_t tokens = (size_t)dataset->start[count];
    dataset->ids = mem_calloc(tokens + 1, sizeof(*dataset->ids));
    dataset->target = mem_calloc(tokens + 1, sizeof(*dataset->target));
    for (int64_t i = 0; i < count; i++) {
        char sequence[64];
        int64_t length = lengths[i % 6];
        snprintf(sequence, sizeof(sequence), "%s %lld", name, (long long)i);
        for (int64_t t = 0; t < length; t++) {
            int64_t at = dataset->start[i] + t;
            dataset->ids[at] = (int32_t)(tiny_number(sequence, t) % VOCABULARY);
            dataset->target[at] = t >= length - ANSWER;
        }
    }
    dataset->answer_tokens = count * ANSWER;
}

static inline void tiny_dataset_fini(struct encoded_dataset *dataset)
{
    free(dataset->ids);
    free(dataset->target);
    free(dataset->start);
    free(dataset->row);
    memset(dataset, 0, sizeof(*dataset));
}

/* The tests of training also run on other backends than the CPU's (tests/cuda_on_cpu). */
#ifndef TEST_BACKEND
#define TEST_BACKEND "cpu"
#endif

/* NULL if this machine has none of the backend. */
static inline struct device *tiny_open(const char *backend, int64_t limit_bytes)
{
    struct device_options options = {.threads = 2, .limit_bytes = limit_bytes};
    struct device *device = NULL;
    struct error err;
    enum status status = device_open(backend, &options, &device, &err);
    if (status != STATUS_OK && status != STATUS_UNSUPPORTED) {
        fail_msg("%s: %s", backend, err.message);
    }
    return device;
}

/* Everything a trainer needs, of one family and precision. */
struct tiny {
    struct device *device;
    struct model model;
    struct encoded_dataset train;
    struct encoded_dataset validation;
    struct train_config config;
};

/* Takes the device. */
static inline void tiny_init_on(struct tiny *tiny, struct device *device,
                                const struct model_family *family, enum train_precision precision,
                                int64_t rows)
{
    tiny->device = device;
    assert_non_null(device);
    tiny_model_init(&tiny->model, family, tiny->device,
                    precision == TRAIN_BF16 ? DTYPE_BF16 : DTYPE_F32);
    tiny_dataset_init(&tiny->train, "sequence", rows);
    tiny_dataset_init(&tiny->validation, "held out", 7);
    tiny->config = train_config_default();
    tiny->config.method = TRAIN_FULL;
    tiny->config.precision = precision;
    tiny->config.learning_rate = 3e-3;
    tiny->config.batch_tokens = 24;
    tiny->config.validations = 0;
    tiny->config.lora = (struct lora_config){.rank = 4, .alpha = 8.0, .targets = LORA_ALL};
}

static inline void tiny_init(struct tiny *tiny, const struct model_family *family,
                             enum train_precision precision, int64_t rows)
{
    tiny_init_on(tiny, tiny_open(TEST_BACKEND, 0), family, precision, rows);
}

static inline void tiny_fini(struct tiny *tiny)
{
    tiny_dataset_fini(&tiny->train);
    tiny_dataset_fini(&tiny->validation);
    tiny_model_fini(&tiny->model);
    device_close(tiny->device);
}

static inline struct trainer_inputs tiny_inputs(const struct tiny *tiny)
{
    return (struct trainer_inputs){
        .model = &tiny->model,
        .config = &tiny->config,
        .train = &tiny->train,
        .validation = &tiny->validation,
    };
}

static inline struct trainer *tiny_trainer(const struct tiny *tiny)
{
    struct trainer_inputs inputs = tiny_inputs(tiny);
    struct trainer *trainer = NULL;
    struct error err;
    if (trainer_create(tiny->device, &inputs, &trainer, &err) != STATUS_OK) {
        fail_msg("trainer_create: %s", err.message);
    }
    return trainer;
}

static inline void tiny_run(struct trainer *trainer, int64_t steps)
{
    struct error err;
    if (trainer_run_steps(trainer, steps, NULL, &err) != STATUS_OK) {
        fail_msg("trainer_run_steps: %s", err.message);
    }
}

/* The whole state of a trainer on the host. */
struct tiny_state {
    int count;
    struct trainer_array arrays[TRAINER_ARRAYS_MAX];
    void *values[TRAINER_ARRAYS_MAX];
};

static inline size_t tiny_array_bytes(const struct trainer_array *array)
{
    return (size_t)array->rows * (size_t)array->cols * (array->type == TRAINER_F32 ? 4 : 8);
}

static inline void tiny_state_save(const struct trainer *trainer, struct tiny_state *state)
{
    memset(state, 0, sizeof(*state));
    state->count = trainer_state_arrays(trainer, state->arrays);
    for (int i = 0; i < state->count; i++) {
        state->values[i] = mem_calloc(tiny_array_bytes(&state->arrays[i]) + 1, 1);
        trainer_state_get(trainer, i, state->values[i]);
    }
}

static inline enum status tiny_state_load(struct trainer *trainer, const struct tiny_state *state,
                                          struct error *err)
{
    for (int i = 0; i < state->count; i++) {
        TRY(trainer_state_set(trainer, &state->arrays[i], state->values[i], err));
    }
    return trainer_state_check(trainer, err);
}

static inline int tiny_state_find(const struct tiny_state *state, const char *name)
{
    for (int i = 0; i < state->count; i++) {
        if (strcmp(state->arrays[i].name, name) == 0) {
            return i;
        }
    }
    return -1;
}

static inline void tiny_state_fini(struct tiny_state *state)
{
    for (int i = 0; i < state->count; i++) {
        free(state->values[i]);
    }
}

#endif
