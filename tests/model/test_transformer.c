/* Logits, losses and gradients against transformers and PEFT (tests/golden/model.py), and what has
 * to be the same to the bit: repeated runs, recompute, chunks of the head. */
#include "support.h"

static const char *const names[] = {"llama", "llama_tied", "qwen3", "qwen3_tied"};
enum { NAME_COUNT = sizeof(names) / sizeof(names[0]) };

struct trained {
    float *gradients; /* host, of the whole table */
    double loss;
};

static struct transformer_options options_for(const struct network *network, int64_t tokens)
{
    struct transformer_options options = {
        .max_tokens = tokens, .compute = network->weights->dtype, .training = true};
    return options;
}

/* Trains one micro-batch and returns its loss; what the watch is told has to be true. */
static double train_batch(struct device *device, struct transformer *transformer,
                          const struct network *network, const struct batch *batch, float factor,
                          float *gradients, const struct gradient_watch *watch)
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
static struct trained train_once(struct device *device, const struct network *network,
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

static double sum_losses(const struct safetensors *expected)
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
static void compare_gradients(const struct safetensors *expected, const struct param_table *table,
                              const float *gradients, double factor, double tolerance)
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

static void check_logits(struct device *device, const struct network *network,
                         const struct golden *golden, const struct safetensors *expected,
                         double tolerance)
{
    struct transformer_options options = options_for(network, golden->batch.tokens);
    options.training = false;
    struct transformer *transformer = NULL;
    ASSERT_OK(transformer_create(device, network, &options, &transformer, err));
    int64_t count = 0;
    float *wanted = golden_copy(expected, "logits", &count);
    float *got = mem_calloc((size_t)count, sizeof(*got));
    int32_t *rows = mem_calloc((size_t)golden->batch.tokens, sizeof(*rows));
    assert_non_null(got);
    assert_non_null(rows);
    for (int32_t i = 0; i < golden->batch.tokens; i++) {
        rows[i] = i;
    }
    ASSERT_OK(transformer_logits(transformer, network, &golden->batch, rows, golden->batch.tokens,
                                 got, err));
    double worst = difference(got, wanted, count);
    if (!(worst <= tolerance)) {
        fail_msg("%s: logits differ by %g, allowed %g", golden->folder, worst, tolerance);
    }
    free(wanted);
    wanted = golden_copy(expected, "losses", &count);
    ASSERT_OK(transformer_score(transformer, network, &golden->batch, got, err));
    worst = difference(got, wanted, count);
    if (!(worst <= tolerance)) {
        fail_msg("%s: losses differ by %g, allowed %g", golden->folder, worst, tolerance);
    }
    free(wanted);
    free(got);
    free(rows);
    transformer_destroy(transformer);
}

/* f32 logits, losses and every gradient within 1e-4; tied and untied, GQA and not, three ropes,
 * packed sequences that were run one by one for the golden values. */
static void test_golden_f32(void **state)
{
    (void)state;
    struct device *device = open_device();
    for (int i = 0; i < NAME_COUNT; i++) {
        struct golden golden;
        golden_open(device, names[i], DTYPE_F32, &golden);
        struct network network = {&golden.config, &golden.weights, NULL, NULL};
        check_logits(device, &network, &golden, golden.expected, 1e-4);
        struct transformer_options options = options_for(&network, golden.batch.tokens + 3);
        struct trained trained = train_once(device, &network, &options, &golden.batch, 0.5f);
        ASSERT_CLOSE(trained.loss, sum_losses(golden.expected), 1e-3);
        compare_gradients(golden.expected, &golden.table, trained.gradients, 0.5, 1e-4);
        free(trained.gradients);
        golden_close(&golden);
    }
    device_close(device);
}

/* bf16: 8 bits of mantissa in weights, activations and residual stream. In these tiny random
 * models, where errors do not average out as they do in wide ones, logits stay within 3 % of the
 * largest, each gradient within 10 % (transformers in bf16: 3.3 % and 12 %). */
static void test_golden_bf16(void **state)
{
    (void)state;
    struct device *device = open_device();
    for (int i = 0; i < NAME_COUNT; i++) {
        struct golden golden;
        golden_open(device, names[i], DTYPE_BF16, &golden);
        struct network network = {&golden.config, &golden.weights, NULL, NULL};
        check_logits(device, &network, &golden, golden.expected, 0.03);
        struct transformer_options options = options_for(&network, golden.batch.tokens);
        struct trained trained = train_once(device, &network, &options, &golden.batch, 1.0f);
        double expected = sum_losses(golden.expected);
        ASSERT_CLOSE(trained.loss, expected, 0.02 * expected);
        compare_gradients(golden.expected, &golden.table, trained.gradients, 1.0, 0.1);
        free(trained.gradients);
        golden_close(&golden);
    }
    device_close(device);
}

/* An adapter of a golden folder. */
struct golden_adapter {
    struct lora_config lora;
    struct param_table table;
    struct weights weights;
    struct safetensors *expected;
};

static void adapter_open(struct device *device, const struct golden *golden, int targets,
                         enum dtype dtype, struct golden_adapter *adapter)
{
    char path[FILE_PATH_BYTES];
    struct safetensors *file = NULL;
    memset(adapter, 0, sizeof(*adapter));
    adapter->lora = (struct lora_config){.rank = 3, .alpha = 6.0, .targets = targets};
    ASSERT_OK(lora_table_build(&golden->config, &adapter->lora, &adapter->table, err));
    ASSERT_OK(weights_create(device, &adapter->table, dtype, &adapter->weights, err));
    snprintf(path, sizeof(path), "%.3000s/lora/adapter_model.safetensors", golden->folder);
    ASSERT_OK(safetensors_open_file(path, &file, err));
    ASSERT_OK(model_tensors_check(file, &golden->config, &adapter->table, path, err));
    ASSERT_OK(model_tensors_load(file, &adapter->weights, err));
    safetensors_close(file);
    snprintf(path, sizeof(path), "%.3000s/lora/expected.safetensors", golden->folder);
    ASSERT_OK(safetensors_open_file(path, &adapter->expected, err));
}

static void adapter_close(struct golden_adapter *adapter)
{
    safetensors_close(adapter->expected);
    weights_fini(&adapter->weights);
    param_table_fini(&adapter->table);
}

static const struct {
    const char *name;
    int targets;
} adapters[] = {{"llama", LORA_QUERY | LORA_VALUE | LORA_DOWN}, {"qwen3", LORA_ALL}};

static void test_golden_lora(void **state)
{
    (void)state;
    struct device *device = open_device();
    for (int i = 0; i < 2; i++) {
        struct golden golden;
        struct golden_adapter adapter;
        golden_open(device, adapters[i].name, DTYPE_F32, &golden);
        adapter_open(device, &golden, adapters[i].targets, DTYPE_F32, &adapter);
        struct network network = {&golden.config, &golden.weights, &adapter.weights, &adapter.lora};
        check_logits(device, &network, &golden, adapter.expected, 1e-4);
        for (int recompute = 0; recompute < 2; recompute++) {
            struct transformer_options options = options_for(&network, golden.batch.tokens);
            options.recompute = recompute == 1;
            struct trained trained = train_once(device, &network, &options, &golden.batch, 1.0f);
            ASSERT_CLOSE(trained.loss, sum_losses(adapter.expected), 1e-3);
            compare_gradients(adapter.expected, &adapter.table, trained.gradients, 1.0, 1e-4);
            free(trained.gradients);
        }
        /* Merged into the base, the same logits without the adapter. */
        ASSERT_OK(
            lora_merge(&golden.config, &adapter.lora, &adapter.weights, &golden.weights, err));
        network.adapter = NULL;
        network.lora = NULL;
        check_logits(device, &network, &golden, adapter.expected, 1e-4);
        adapter_close(&adapter);
        golden_close(&golden);
    }
    device_close(device);
}

/* Any subset of targets: the backward pass stops at the lowest adapter and still finds all
 * gradients. They equal those of the adapter on everything with the other B at zero. */
static void test_lora_subsets(void **state)
{
    (void)state;
    struct device *device = open_device();
    struct golden golden;
    golden_open(device, "qwen3", DTYPE_F32, &golden);
    const int subsets[] = {LORA_DOWN,   LORA_GATE, LORA_UP | LORA_DOWN,
                           LORA_OUTPUT, LORA_KEY,  LORA_VALUE | LORA_UP};
    for (size_t i = 0; i < sizeof(subsets) / sizeof(subsets[0]); i++) {
        struct trained trained[2];
        struct param_table tables[2];
        for (int all = 0; all < 2; all++) {
            struct lora_config lora = {
                .rank = 2, .alpha = 3.0, .targets = all == 1 ? LORA_ALL : subsets[i]};
            struct weights weights;
            ASSERT_OK(lora_table_build(&golden.config, &lora, &tables[all], err));
            ASSERT_OK(weights_create(device, &tables[all], DTYPE_F32, &weights, err));
            for (int64_t p = 0; p < tables[all].count; p++) {
                const struct param *param = &tables[all].items[p];
                int64_t in_subset = 0;
                for (int t = 0; t < LORA_TARGET_COUNT; t++) {
                    in_subset |= (subsets[i] >> t & 1) != 0 &&
                                 strstr(param->name, lora_target_name(t)) != NULL;
                }
                float value[64 * 64];
                struct rng rng;
                rng_init(&rng, 7, strlen(param->name) + (uint64_t)param->name[30]);
                for (int64_t k = 0; k < param->rows * param->cols; k++) {
                    value[k] = in_subset ? (float)rng_normal(&rng) * 0.2f : 0.0f;
                }
                weights_set(&weights, p, value);
            }
            struct network network = {&golden.config, &golden.weights, &weights, &lora};
            struct transformer_options options = options_for(&network, golden.batch.tokens);
            trained[all] = train_once(device, &network, &options, &golden.batch, 1.0f);
            weights_fini(&weights);
        }
        ASSERT_CLOSE(trained[0].loss, trained[1].loss, 1e-4);
        for (int64_t p = 0; p < tables[0].count; p++) {
            const struct param *param = &tables[0].items[p];
            int64_t other = param_table_find(&tables[1], param->name);
            assert_true(other >= 0);
            double worst = difference(trained[0].gradients + param->offset,
                                      trained[1].gradients + tables[1].items[other].offset,
                                      param->rows * param->cols);
            if (!(worst < 1e-5)) {
                fail_msg("targets 0x%x, %s: differs by %g", (unsigned)subsets[i], param->name,
                         worst);
            }
        }
        for (int all = 0; all < 2; all++) {
            free(trained[all].gradients);
            param_table_fini(&tables[all]);
        }
    }
    golden_close(&golden);
    device_close(device);
}

/* The same bits: again, after other work in the same room, with recompute. Chunks of the head
 * change the order of sums, so there only nearly. */
static void test_same_bits(void **state)
{
    (void)state;
    struct device *device = open_device();
    for (int dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++) {
        struct golden golden;
        golden_open(device, "qwen3", (enum dtype)dtype, &golden);
        struct network network = {&golden.config, &golden.weights, NULL, NULL};
        struct transformer_options options = options_for(&network, golden.batch.tokens);
        struct trained first = train_once(device, &network, &options, &golden.batch, 1.0f);
        size_t bytes = (size_t)golden.table.elements * sizeof(float);

        struct transformer *transformer = NULL;
        ASSERT_OK(transformer_create(device, &network, &options, &transformer, err));
        float *gradients = gradients_create(device, &golden.table);
        struct batch other = golden.batch;
        other.sequences = 1;
        const int32_t starts[] = {0, golden.batch.starts[1]};
        other.tokens = starts[1];
        other.starts = starts;
        train_batch(device, transformer, &network, &other, 1.0f, gradients, NULL);
        struct tensor all = tensor_matrix(gradients, DTYPE_F32, 1, golden.table.elements);
        device->ops->fill(device, all, 0.0f);
        double loss =
            train_batch(device, transformer, &network, &golden.batch, 1.0f, gradients, NULL);
        float *again = gradients_fetch(device, &golden.table, gradients);
        assert_true(loss == first.loss);
        assert_memory_equal(again, first.gradients, bytes);
        free(again);
        device->ops->free(device, gradients);
        transformer_destroy(transformer);

        options.recompute = true;
        struct trained recomputed = train_once(device, &network, &options, &golden.batch, 1.0f);
        assert_true(recomputed.loss == first.loss);
        assert_memory_equal(recomputed.gradients, first.gradients, bytes);
        free(recomputed.gradients);

        options.head_rows = 2;
        struct trained chunked = train_once(device, &network, &options, &golden.batch, 1.0f);
        ASSERT_CLOSE(chunked.loss, first.loss, dtype == DTYPE_F32 ? 1e-4 : 1e-2);
        assert_true(difference(chunked.gradients, first.gradients, golden.table.elements) <
                    (dtype == DTYPE_F32 ? 1e-5 : 1e-2));
        free(chunked.gradients);
        free(first.gradients);
        golden_close(&golden);
    }
    device_close(device);
}

/* What the watch is told, and the gradients as they were at that moment: from there on they are
 * already those of the end. */
struct watched {
    struct device *device;
    const struct param_table *table;
    const float *gradients; /* device */
    int calls;
    int64_t first[8];
    float *seen[8]; /* host */
};

static void on_final(void *context, int64_t first)
{
    struct watched *watched = context;
    assert_true(watched->calls < 8);
    assert_true(watched->calls == 0 || first < watched->first[watched->calls - 1]);
    watched->first[watched->calls] = first;
    watched->seen[watched->calls++] =
        gradients_fetch(watched->device, watched->table, watched->gradients);
}

static void watch_backward(struct device *device, const struct network *network,
                           const struct param_table *table, const struct batch *batch,
                           int expected_calls)
{
    struct transformer_options options = options_for(network, batch->tokens);
    struct transformer *transformer = NULL;
    float *gradients = gradients_create(device, table);
    struct watched watched = {.device = device, .table = table, .gradients = gradients};
    struct gradient_watch watch = {on_final, &watched};
    ASSERT_OK(transformer_create(device, network, &options, &transformer, err));
    train_batch(device, transformer, network, batch, 1.0f, gradients, &watch);
    float *end = gradients_fetch(device, table, gradients);
    assert_int_equal(watched.calls, expected_calls);
    assert_int_equal(watched.first[watched.calls - 1], 0);
    for (int i = 0; i < watched.calls; i++) {
        int64_t first = watched.first[i];
        assert_memory_equal(watched.seen[i] + first, end + first,
                            (size_t)(table->elements - first) * sizeof(float));
        free(watched.seen[i]);
    }
    free(end);
    device->ops->free(device, gradients);
    transformer_destroy(transformer);
}

static void test_final_gradients_are_told(void **state)
{
    (void)state;
    struct device *device = open_device();
    for (int i = 0; i < NAME_COUNT; i++) {
        struct golden golden;
        golden_open(device, names[i], DTYPE_F32, &golden);
        struct network network = {&golden.config, &golden.weights, NULL, NULL};
        int layers = (int)golden.config.layers;
        watch_backward(device, &network, &golden.table, &golden.batch, layers + 1);

        const struct lora_config lora = {.rank = 2, .alpha = 4.0, .targets = LORA_ALL};
        struct param_table table = {0};
        struct weights adapter;
        ASSERT_OK(lora_table_build(&golden.config, &lora, &table, err));
        ASSERT_OK(weights_create(device, &table, DTYPE_F32, &adapter, err));
        lora_init(&adapter, 1);
        struct network adapted = {&golden.config, &golden.weights, &adapter, &lora};
        watch_backward(device, &adapted, &table, &golden.batch, layers);
        weights_fini(&adapter);
        param_table_fini(&table);
        golden_close(&golden);
    }
    device_close(device);
}

/* The sum that stays on the device is that of the losses one by one. */
static void test_sum_of_scores(void **state)
{
    (void)state;
    struct device *device = open_device();
    struct golden golden;
    golden_open(device, "llama", DTYPE_F32, &golden);
    struct network network = {&golden.config, &golden.weights, NULL, NULL};
    struct transformer_options options = options_for(&network, golden.batch.tokens);
    struct transformer *transformer = NULL;
    ASSERT_OK(transformer_create(device, &network, &options, &transformer, err));
    float *losses = mem_calloc((size_t)golden.batch.tokens, sizeof(*losses));
    ASSERT_OK(transformer_score(transformer, &network, &golden.batch, losses, err));
    double expected = 0.0;
    for (int64_t i = 0; i < golden.batch.tokens; i++) {
        expected += (double)losses[i];
    }
    void *total = NULL;
    double sum = 1.0;
    ASSERT_OK(device->ops->alloc(device, sizeof(sum), "a loss", &total, err));
    device->ops->upload(device, total, &sum, sizeof(sum));
    ASSERT_OK(transformer_score_sum(transformer, &network, &golden.batch, total, err));
    device->ops->download(device, &sum, total, sizeof(sum));
    ASSERT_OK(device->ops->check(device, err));
    ASSERT_CLOSE(sum, 1.0 + expected, 1e-9);
    device->ops->free(device, total);
    free(losses);
    transformer_destroy(transformer);
    golden_close(&golden);
    device_close(device);
}

/* Gradients add up: two calls give twice one. */
static void test_accumulation(void **state)
{
    (void)state;
    struct device *device = open_device();
    struct golden golden;
    golden_open(device, "llama", DTYPE_F32, &golden);
    struct network network = {&golden.config, &golden.weights, NULL, NULL};
    struct transformer_options options = options_for(&network, golden.batch.tokens);
    struct transformer *transformer = NULL;
    ASSERT_OK(transformer_create(device, &network, &options, &transformer, err));
    float *gradients = gradients_create(device, &golden.table);
    for (int i = 0; i < 2; i++) {
        train_batch(device, transformer, &network, &golden.batch, 1.0f, gradients, NULL);
    }
    float *host = gradients_fetch(device, &golden.table, gradients);
    compare_gradients(golden.expected, &golden.table, host, 2.0, 1e-4);
    free(host);
    device->ops->free(device, gradients);
    transformer_destroy(transformer);
    golden_close(&golden);
    device_close(device);
}

/* The slope of the loss along a direction, by central differences, against the gradient. */
static void check_slope(struct device *device, struct golden *golden, int64_t index,
                        const float *gradient)
{
    const struct param *param = &golden->table.items[index];
    int64_t count = param->rows * param->cols;
    float *at = mem_calloc((size_t)count, sizeof(*at));
    float *moved = mem_calloc((size_t)count, sizeof(*moved));
    float *direction = mem_calloc((size_t)count, sizeof(*direction));
    assert_non_null(direction);
    weights_get(&golden->weights, index, at);
    struct rng rng;
    rng_init(&rng, 11, (uint64_t)index);
    double slope = 0.0;
    double norm = 0.0;
    double length = 0.0;
    for (int64_t i = 0; i < count; i++) {
        direction[i] = (float)rng_normal(&rng);
        slope += (double)direction[i] * (double)gradient[i];
        norm += (double)gradient[i] * (double)gradient[i];
        length += (double)direction[i] * (double)direction[i];
    }
    struct network network = {&golden->config, &golden->weights, NULL, NULL};
    struct transformer_options options = options_for(&network, golden->batch.tokens);
    struct transformer *transformer = NULL;
    float losses[64];
    double sums[2] = {0.0, 0.0};
    const double step = 0.005 / sqrt(length) * sqrt((double)count < 64.0 ? (double)count : 64.0);
    ASSERT_OK(transformer_create(device, &network, &options, &transformer, err));
    for (int side = 0; side < 2; side++) {
        for (int64_t i = 0; i < count; i++) {
            moved[i] = at[i] + (float)(side == 0 ? -step : step) * direction[i];
        }
        weights_set(&golden->weights, index, moved);
        ASSERT_OK(transformer_score(transformer, &network, &golden->batch, losses, err));
        for (int64_t i = 0; i < golden->batch.tokens; i++) {
            sums[side] += (double)losses[i];
        }
    }
    weights_set(&golden->weights, index, at);
    double measured = (sums[1] - sums[0]) / (2.0 * step);
    double allowed = 0.02 * sqrt(norm) + 0.02 * fabs(slope) + 1e-3;
    if (!(fabs(measured - slope) <= allowed)) {
        fail_msg("%s: slope %g, gradient says %g, allowed difference %g", param->name, measured,
                 slope, allowed);
    }
    transformer_destroy(transformer);
    free(at);
    free(moved);
    free(direction);
}

static void test_finite_differences(void **state)
{
    (void)state;
    struct device *device = open_device();
    for (int i = 0; i < NAME_COUNT; i++) {
        struct golden golden;
        golden_open(device, names[i], DTYPE_F32, &golden);
        struct network network = {&golden.config, &golden.weights, NULL, NULL};
        struct transformer_options options = options_for(&network, golden.batch.tokens);
        struct trained trained = train_once(device, &network, &options, &golden.batch, 1.0f);
        for (int64_t index = 0; index < golden.table.count; index++) {
            check_slope(device, &golden, index,
                        trained.gradients + golden.table.items[index].offset);
        }
        free(trained.gradients);
        golden_close(&golden);
    }
    device_close(device);
}

/* What *_bytes says is what *_create takes, in every mode. */
static void test_bytes(void **state)
{
    (void)state;
    struct device *device = open_device();
    struct golden golden;
    golden_open(device, "qwen3", DTYPE_F32, &golden);
    struct lora_config lora = {.rank = 4, .alpha = 8.0, .targets = LORA_ALL};
    struct param_table table;
    struct weights adapter;
    ASSERT_OK(lora_table_build(&golden.config, &lora, &table, err));
    ASSERT_OK(weights_create(device, &table, DTYPE_F32, &adapter, err));
    int64_t seen[8];
    for (int mode = 0; mode < 8; mode++) {
        bool adapted = (mode & 4) != 0;
        struct network network = {&golden.config, &golden.weights, adapted ? &adapter : NULL,
                                  adapted ? &lora : NULL};
        struct transformer_options options = {.max_tokens = 1000,
                                              .compute = DTYPE_F32,
                                              .training = (mode & 1) != 0,
                                              .recompute = (mode & 2) != 0};
        struct device_memory before;
        struct device_memory after;
        struct transformer *transformer = NULL;
        device->ops->memory(device, &before);
        ASSERT_OK(transformer_create(device, &network, &options, &transformer, err));
        device->ops->memory(device, &after);
        seen[mode] = transformer_bytes(&network, &options);
        assert_int_equal(after.used_bytes - before.used_bytes, seen[mode]);
        /* An estimate before anything is loaded gives the same. */
        struct network unloaded = {&golden.config, NULL, NULL, network.lora};
        assert_int_equal(transformer_bytes(&unloaded, &options), seen[mode]);
        transformer_destroy(transformer);
        device->ops->memory(device, &after);
        assert_int_equal(after.used_bytes, before.used_bytes);
    }
    assert_true(seen[0] < seen[3] && seen[3] < seen[1] && seen[1] < seen[5]);
    weights_fini(&adapter);
    param_table_fini(&table);
    golden_close(&golden);
    device_close(device);
}

static void test_errors(void **state)
{
    (void)state;
    struct device *device = open_device();
    struct golden golden;
    golden_open(device, "llama", DTYPE_F32, &golden);
    struct network network = {&golden.config, &golden.weights, NULL, NULL};
    struct transformer_options options = options_for(&network, 16);
    struct transformer *transformer = NULL;
    options.max_tokens = 0;
    ASSERT_FAILS(transformer_create(device, &network, &options, &transformer, err), STATUS_RANGE,
                 "0 tokens");
    options.max_tokens = 16;
    options.compute = DTYPE_BF16;
    ASSERT_FAILS(transformer_create(device, &network, &options, &transformer, err), STATUS_INVALID,
                 "dtype");
    options.compute = DTYPE_F32;
    ASSERT_OK(transformer_create(device, &network, &options, &transformer, err));

    int32_t ids[17] = {0};
    int32_t positions[17] = {0, 1, 2, 3};
    int32_t targets[17] = {1, -1, 2, 3};
    int32_t starts[3] = {0, 2, 4};
    float losses[17];
    struct batch batch = {.tokens = 4,
                          .sequences = 2,
                          .ids = ids,
                          .positions = positions,
                          .targets = targets,
                          .starts = starts};
    ASSERT_OK(transformer_score(transformer, &network, &batch, losses, err));
    assert_true(losses[0] > 0.0f && losses[1] == 0.0f);
#define SCORE_FAILS(text)                                                                          \
    ASSERT_FAILS(transformer_score(transformer, &network, &batch, losses, err), STATUS_RANGE, text)
    ids[3] = 40;
    SCORE_FAILS("token 3 has id 40, allowed are 0 to 39");
    ids[3] = -1;
    SCORE_FAILS("id -1");
    ids[3] = 0;
    targets[2] = 40;
    SCORE_FAILS("target 40");
    targets[2] = -2;
    SCORE_FAILS("target -2");
    targets[2] = -1;
    positions[1] = 16;
    SCORE_FAILS("position 16, allowed are 0 to 15");
    positions[1] = -1;
    SCORE_FAILS("position -1");
    positions[1] = 1;
    starts[1] = 4;
    SCORE_FAILS("starts");
    starts[1] = 2;
    starts[2] = 3;
    SCORE_FAILS("starts");
    starts[2] = 4;
    starts[0] = 1;
    SCORE_FAILS("starts");
    starts[0] = 0;
    batch.sequences = 0;
    SCORE_FAILS("0 sequences");
    batch.sequences = 2;
    batch.tokens = 17;
    SCORE_FAILS("17 tokens, allowed are 1 to 16");
    batch.tokens = 4;
    int32_t row = 4;
    ASSERT_FAILS(transformer_logits(transformer, &network, &batch, &row, 1, losses, err),
                 STATUS_RANGE, "row 4");
    ASSERT_FAILS(transformer_logits(transformer, &network, &batch, &row, 5, losses, err),
                 STATUS_RANGE, "5 rows");
    transformer_destroy(transformer);

    options.training = false;
    ASSERT_OK(transformer_create(device, &network, &options, &transformer, err));
    double loss = 0.0;
    ASSERT_FAILS(transformer_train(transformer, &network, &batch, 1.0f, NULL, &loss, NULL, err),
                 STATUS_INTERNAL, "training");
    transformer_destroy(transformer);
    options.training = true;
    ASSERT_OK(transformer_create(device, &network, &options, &transformer, err));
    /* Nothing to learn: no loss, and gradients are not even touched. */
    for (int i = 0; i < 4; i++) {
        targets[i] = -1;
    }
    ASSERT_OK(transformer_train(transformer, &network, &batch, 1.0f, NULL, &loss, NULL, err));
    assert_true(loss == 0.0);
    transformer_destroy(transformer);
    transformer_destroy(NULL);
    golden_close(&golden);
    device_close(device);
}

/* Not enough memory: on the device, then on the host, each allocation in turn. Nothing stays
 * behind. */
static void test_no_memory(void **state)
{
    (void)state;
    struct device *device = open_device();
    struct golden golden;
    golden_open(device, "llama", DTYPE_F32, &golden);
    struct network network = {&golden.config, &golden.weights, NULL, NULL};
    struct transformer_options options = options_for(&network, 64);
    struct device_memory before;
    struct device_memory after;
    device->ops->memory(device, &before);
    int64_t failures = 0;
    for (int64_t nth = 1;; nth++) {
        struct transformer *transformer = NULL;
        struct error error;
        mem_fail_nth(nth);
        enum status status = transformer_create(device, &network, &options, &transformer, &error);
        mem_fail_nth(0);
        if (status == STATUS_OK) {
            transformer_destroy(transformer);
            break;
        }
        assert_int_equal(status, STATUS_NO_MEMORY);
        assert_null(transformer);
        failures++;
    }
    assert_true(failures >= 4);
    device->ops->memory(device, &after);
    assert_int_equal(after.used_bytes, before.used_bytes);
    golden_close(&golden);
    device_close(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_f32),
        cmocka_unit_test(test_golden_bf16),
        cmocka_unit_test(test_golden_lora),
        cmocka_unit_test(test_lora_subsets),
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_accumulation),
        cmocka_unit_test(test_final_gradients_are_told),
        cmocka_unit_test(test_sum_of_scores),
        cmocka_unit_test(test_finite_differences),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
