/* Gradients: against finite differences, over subsets of adapters, told when final, added up, and
 * what has to be the same to the bit: repeated runs, recompute, chunks of the head. */
#include "training.h"

/* Any subset of targets: the backward pass stops at the lowest adapter and still finds all
 * gradients. They equal those of the adapter on everything with the other B at zero. */
static void test_lora_subsets(void **state)
{
    (void)state;
    struct scene scene;
    scene_open("qwen3", DTYPE_F32, &scene);
    const int subsets[] = {LORA_DOWN,   LORA_GATE, LORA_UP | LORA_DOWN,
                           LORA_OUTPUT, LORA_KEY,  LORA_VALUE | LORA_UP};
    for (size_t i = 0; i < sizeof(subsets) / sizeof(subsets[0]); i++) {
        struct trained trained[2];
        struct param_table tables[2];
        for (int all = 0; all < 2; all++) {
            struct lora_config lora = {
                .rank = 2, .alpha = 3.0, .targets = all == 1 ? LORA_ALL : subsets[i]};
            struct weights weights;
            ASSERT_OK(lora_table_build(&scene.golden.config, &lora, &tables[all], err));
            ASSERT_OK(weights_create(scene.device, &tables[all], DTYPE_F32, &weights, err));
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
            struct network network = {&scene.golden.config, &scene.golden.weights, &weights, &lora};
            struct transformer_options options = options_for(&network, scene.golden.batch.tokens);
            trained[all] = train_once(scene.device, &network, &options, &scene.golden.batch, 1.0f);
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
    scene_close(&scene);
}

/* The same bits: again, after other work in the same room, with recompute. Chunks of the head
 * change the order of sums, so there only nearly. */
static void test_same_bits(void **state)
{
    (void)state;
    for (int dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++) {
        struct scene scene;
        scene_open("qwen3", (enum dtype)dtype, &scene);
        struct transformer_options options = options_for(&scene.network, scene.golden.batch.tokens);
        struct trained first =
            train_once(scene.device, &scene.network, &options, &scene.golden.batch, 1.0f);
        size_t bytes = (size_t)scene.golden.table.elements * sizeof(float);

        struct transformer *transformer = NULL;
        ASSERT_OK(transformer_create(scene.device, &scene.network, &options, &transformer, err));
        float *gradients = gradients_create(scene.device, &scene.golden.table);
        struct batch other = scene.golden.batch;
        other.sequences = 1;
        const int32_t starts[] = {0, scene.golden.batch.starts[1]};
        other.tokens = starts[1];
        other.starts = starts;
        train_batch(scene.device, transformer, &scene.network, &other, 1.0f, gradients, NULL);
        struct tensor all = tensor_matrix(gradients, DTYPE_F32, 1, scene.golden.table.elements);
        scene.device->ops->fill(scene.device, all, 0.0f);
        double loss = train_batch(scene.device, transformer, &scene.network, &scene.golden.batch,
                                  1.0f, gradients, NULL);
        float *again = gradients_fetch(scene.device, &scene.golden.table, gradients);
        assert_true(loss == first.loss);
        assert_memory_equal(again, first.gradients, bytes);
        free(again);
        scene.device->ops->free(scene.device, gradients);
        transformer_destroy(transformer);

        options.recompute = true;
        struct trained recomputed =
            train_once(scene.device, &scene.network, &options, &scene.golden.batch, 1.0f);
        assert_true(recomputed.loss == first.loss);
        assert_memory_equal(recomputed.gradients, first.gradients, bytes);
        free(recomputed.gradients);

        options.head_rows = 2;
        struct trained chunked =
            train_once(scene.device, &scene.network, &options, &scene.golden.batch, 1.0f);
        ASSERT_CLOSE(chunked.loss, first.loss, dtype == DTYPE_F32 ? 1e-4 : 1e-2);
        assert_true(difference(chunked.gradients, first.gradients, scene.golden.table.elements) <
                    (dtype == DTYPE_F32 ? 1e-5 : 1e-2));
        free(chunked.gradients);
        free(first.gradients);
        scene_close(&scene);
    }
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
    for (int i = 0; i < GOLDEN_NAMES; i++) {
        struct scene scene;
        scene_open(golden_names[i], DTYPE_F32, &scene);
        int layers = (int)scene.golden.config.layers;
        watch_backward(scene.device, &scene.network, &scene.golden.table, &scene.golden.batch,
                       layers + 1);

        const struct lora_config lora = {.rank = 2, .alpha = 4.0, .targets = LORA_ALL};
        struct param_table table = {0};
        struct weights adapter;
        ASSERT_OK(lora_table_build(&scene.golden.config, &lora, &table, err));
        ASSERT_OK(weights_create(scene.device, &table, DTYPE_F32, &adapter, err));
        lora_init(&adapter, 1);
        struct network adapted = {&scene.golden.config, &scene.golden.weights, &adapter, &lora};
        watch_backward(scene.device, &adapted, &table, &scene.golden.batch, layers);
        weights_fini(&adapter);
        param_table_fini(&table);
        scene_close(&scene);
    }
}

/* Gradients add up: two calls give twice one. */
static void test_accumulation(void **state)
{
    (void)state;
    struct scene scene;
    scene_open("llama", DTYPE_F32, &scene);
    struct transformer_options options = options_for(&scene.network, scene.golden.batch.tokens);
    struct transformer *transformer = NULL;
    ASSERT_OK(transformer_create(scene.device, &scene.network, &options, &transformer, err));
    float *gradients = gradients_create(scene.device, &scene.golden.table);
    for (int i = 0; i < 2; i++) {
        train_batch(scene.device, transformer, &scene.network, &scene.golden.batch, 1.0f, gradients,
                    NULL);
    }
    float *host = gradients_fetch(scene.device, &scene.golden.table, gradients);
    compare_gradients(scene.golden.expected, &scene.golden.table, host, 2.0, 1e-4);
    free(host);
    scene.device->ops->free(scene.device, gradients);
    transformer_destroy(transformer);
    scene_close(&scene);
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
    for (int i = 0; i < GOLDEN_NAMES; i++) {
        struct scene scene;
        scene_open(golden_names[i], DTYPE_F32, &scene);
        struct transformer_options options = options_for(&scene.network, scene.golden.batch.tokens);
        struct trained trained =
            train_once(scene.device, &scene.network, &options, &scene.golden.batch, 1.0f);
        for (int64_t index = 0; index < scene.golden.table.count; index++) {
            check_slope(scene.device, &scene.golden, index,
                        trained.gradients + scene.golden.table.items[index].offset);
        }
        free(trained.gradients);
        scene_close(&scene);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lora_subsets),
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_final_gradients_are_told),
        cmocka_unit_test(test_accumulation),
        cmocka_unit_test(test_finite_differences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
