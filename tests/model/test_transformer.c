/* Logits, losses and gradients against transformers and PEFT (tests/golden/model.py). */
#include "training.h"

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
    for (int i = 0; i < GOLDEN_NAMES; i++) {
        struct scene scene;
        scene_open(golden_names[i], DTYPE_F32, &scene);
        check_logits(scene.device, &scene.network, &scene.golden, scene.golden.expected, 1e-4);
        struct transformer_options options =
            options_for(&scene.network, scene.golden.batch.tokens + 3);
        struct trained trained =
            train_once(scene.device, &scene.network, &options, &scene.golden.batch, 0.5f);
        ASSERT_CLOSE(trained.loss, sum_losses(scene.golden.expected), 1e-3);
        compare_gradients(scene.golden.expected, &scene.golden.table, trained.gradients, 0.5, 1e-4);
        free(trained.gradients);
        scene_close(&scene);
    }
}

/* bf16: 8 bits of mantissa in weights, activations and residual stream. In these tiny random
 * models, where errors do not average out as they do in wide ones, logits stay within 3 % of the
 * largest, each gradient within 10 % (transformers in bf16: 3.3 % and 12 %). */
static void test_golden_bf16(void **state)
{
    (void)state;
    for (int i = 0; i < GOLDEN_NAMES; i++) {
        struct scene scene;
        scene_open(golden_names[i], DTYPE_BF16, &scene);
        check_logits(scene.device, &scene.network, &scene.golden, scene.golden.expected, 0.03);
        struct transformer_options options = options_for(&scene.network, scene.golden.batch.tokens);
        struct trained trained =
            train_once(scene.device, &scene.network, &options, &scene.golden.batch, 1.0f);
        double expected = sum_losses(scene.golden.expected);
        ASSERT_CLOSE(trained.loss, expected, 0.02 * expected);
        compare_gradients(scene.golden.expected, &scene.golden.table, trained.gradients, 1.0, 0.1);
        free(trained.gradients);
        scene_close(&scene);
    }
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
    ASSERT_OK(model_tensors_load(file, &adapter->weights, NULL, err));
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

/* The sum that stays on the device is that of the losses one by one. */
static void test_sum_of_scores(void **state)
{
    (void)state;
    struct scene scene;
    scene_open("llama", DTYPE_F32, &scene);
    struct transformer_options options = options_for(&scene.network, scene.golden.batch.tokens);
    struct transformer *transformer = NULL;
    ASSERT_OK(transformer_create(scene.device, &scene.network, &options, &transformer, err));
    float *losses = mem_calloc((size_t)scene.golden.batch.tokens, sizeof(*losses));
    ASSERT_OK(transformer_score(transformer, &scene.network, &scene.golden.batch, losses, err));
    double expected = 0.0;
    for (int64_t i = 0; i < scene.golden.batch.tokens; i++) {
        expected += (double)losses[i];
    }
    void *total = NULL;
    double sum = 1.0;
    ASSERT_OK(scene.device->ops->alloc(scene.device, sizeof(sum), "a loss", &total, err));
    scene.device->ops->upload(scene.device, total, &sum, sizeof(sum));
    ASSERT_OK(transformer_score_sum(transformer, &scene.network, &scene.golden.batch, total, err));
    scene.device->ops->download(scene.device, &sum, total, sizeof(sum));
    ASSERT_OK(scene.device->ops->check(scene.device, err));
    ASSERT_CLOSE(sum, 1.0 + expected, 1e-9);
    scene.device->ops->free(scene.device, total);
    free(losses);
    transformer_destroy(transformer);
    scene_close(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_f32),
        cmocka_unit_test(test_golden_bf16),
        cmocka_unit_test(test_golden_lora),
        cmocka_unit_test(test_sum_of_scores),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
