/* What a transformer refuses, what it takes of memory, and what it leaves when there is none. */
#include "training.h"

/* What *_bytes says is what *_create takes, in every mode. */
static void test_bytes(void **state)
{
    (void)state;
    struct scene scene;
    scene_open("qwen3", DTYPE_F32, &scene);
    struct lora_config lora = {.rank = 4, .alpha = 8.0, .targets = LORA_ALL};
    struct param_table table;
    struct weights adapter;
    ASSERT_OK(lora_table_build(&scene.golden.config, &lora, &table, err));
    ASSERT_OK(weights_create(scene.device, &table, DTYPE_F32, &adapter, err));
    int64_t seen[8];
    for (int mode = 0; mode < 8; mode++) {
        bool adapted = (mode & 4) != 0;
        struct network network = {&scene.golden.config, &scene.golden.weights,
                                  adapted ? &adapter : NULL, adapted ? &lora : NULL};
        struct transformer_options options = {.max_tokens = 1000,
                                              .compute = DTYPE_F32,
                                              .training = (mode & 1) != 0,
                                              .recompute = (mode & 2) != 0};
        struct device_memory before;
        struct device_memory after;
        struct transformer *transformer = NULL;
        scene.device->ops->memory(scene.device, &before);
        ASSERT_OK(transformer_create(scene.device, &network, &options, &transformer, err));
        scene.device->ops->memory(scene.device, &after);
        seen[mode] = transformer_bytes(&network, &options);
        assert_int_equal(after.used_bytes - before.used_bytes, seen[mode]);
        /* An estimate before anything is loaded gives the same. */
        struct network unloaded = {&scene.golden.config, NULL, NULL, network.lora};
        assert_int_equal(transformer_bytes(&unloaded, &options), seen[mode]);
        transformer_destroy(transformer);
        scene.device->ops->memory(scene.device, &after);
        assert_int_equal(after.used_bytes, before.used_bytes);
    }
    assert_true(seen[0] < seen[3] && seen[3] < seen[1] && seen[1] < seen[5]);
    weights_fini(&adapter);
    param_table_fini(&table);
    scene_close(&scene);
}

static void test_errors(void **state)
{
    (void)state;
    struct scene scene;
    scene_open("llama", DTYPE_F32, &scene);
    struct transformer_options options = options_for(&scene.network, 16);
    struct transformer *transformer = NULL;
    options.max_tokens = 0;
    ASSERT_FAILS(transformer_create(scene.device, &scene.network, &options, &transformer, err),
                 STATUS_RANGE, "0 tokens");
    options.max_tokens = 16;
    options.compute = DTYPE_BF16;
    ASSERT_FAILS(transformer_create(scene.device, &scene.network, &options, &transformer, err),
                 STATUS_INVALID, "dtype");
    options.compute = DTYPE_F32;
    ASSERT_OK(transformer_create(scene.device, &scene.network, &options, &transformer, err));

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
    ASSERT_OK(transformer_score(transformer, &scene.network, &batch, losses, err));
    assert_true(losses[0] > 0.0f && losses[1] == 0.0f);
#define SCORE_FAILS(text)                                                                          \
    ASSERT_FAILS(transformer_score(transformer, &scene.network, &batch, losses, err),              \
                 STATUS_RANGE, text)
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
    ASSERT_FAILS(transformer_logits(transformer, &scene.network, &batch, &row, 1, losses, err),
                 STATUS_RANGE, "row 4");
    ASSERT_FAILS(transformer_logits(transformer, &scene.network, &batch, &row, 5, losses, err),
                 STATUS_RANGE, "5 rows");
    transformer_destroy(transformer);

    options.training = false;
    ASSERT_OK(transformer_create(scene.device, &scene.network, &options, &transformer, err));
    double loss = 0.0;
    ASSERT_FAILS(
        transformer_train(transformer, &scene.network, &batch, 1.0f, NULL, &loss, NULL, err),
        STATUS_INTERNAL, "training");
    transformer_destroy(transformer);
    options.training = true;
    ASSERT_OK(transformer_create(scene.device, &scene.network, &options, &transformer, err));
    /* Nothing to learn: no loss, and gradients are not even touched. */
    for (int i = 0; i < 4; i++) {
        targets[i] = -1;
    }
    ASSERT_OK(transformer_train(transformer, &scene.network, &batch, 1.0f, NULL, &loss, NULL, err));
    assert_true(loss == 0.0);
    transformer_destroy(transformer);
    transformer_destroy(NULL);
    scene_close(&scene);
}

/* Not enough memory: on the scene.device, then on the host, each allocation in turn. Nothing stays
 * behind. */
static void test_no_memory(void **state)
{
    (void)state;
    struct scene scene;
    scene_open("llama", DTYPE_F32, &scene);
    struct transformer_options options = options_for(&scene.network, 64);
    struct device_memory before;
    struct device_memory after;
    scene.device->ops->memory(scene.device, &before);
    int64_t failures = 0;
    for (int64_t nth = 1;; nth++) {
        struct transformer *transformer = NULL;
        struct error error;
        mem_fail_nth(nth);
        enum status status =
            transformer_create(scene.device, &scene.network, &options, &transformer, &error);
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
    scene.device->ops->memory(scene.device, &after);
    assert_int_equal(after.used_bytes, before.used_bytes);
    scene_close(&scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
