/* Ten optimizer steps against transformers, peft and torch: tests/golden/train.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tiny.h"

enum { STEPS = 10, SEQUENCES = 6 };

static cJSON *load_golden(void)
{
    cJSON *golden = NULL;
    struct error err;
    if (json_parse_file(TEST_SOURCE_DIR "/golden/train/trajectories.json", 1 << 20, &golden,
                        &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    return golden;
}

/* One step sees all sequences: micro-batches hold one each, and as many are accumulated as there
 * are. */
static struct train_config golden_config(const cJSON *golden)
{
    struct train_config config = train_config_default();
    config.learning_rate = cJSON_GetObjectItem(golden, "learning_rate")->valuedouble;
    config.schedule = TRAIN_COSINE;
    config.warmup_ratio = 0.2;
    config.final_ratio = 0.1;
    config.epochs = STEPS;
    config.batch_tokens = 12;
    config.accumulation = SEQUENCES;
    config.beta1 = 0.9;
    config.beta2 = 0.99;
    config.weight_decay = 0.1;
    config.clip_norm = 1.0;
    config.validations = STEPS;
    config.lora = (struct lora_config){.rank = 4, .alpha = 8.0, .targets = LORA_ALL};
    return config;
}

static void assert_close(const char *what, int64_t step, double found, double expected)
{
    if (!(fabs(found - expected) <= 1e-4 * fabs(expected))) {
        fail_msg("%s of step %lld is %.9g, torch has %.9g", what, (long long)step, found, expected);
    }
}

static void compare_curve(const struct trainer *trainer, const cJSON *golden)
{
    int64_t count = 0;
    const struct train_point *curve = trainer_curve(trainer, &count);
    const cJSON *losses = cJSON_GetObjectItem(golden, "losses");
    const cJSON *norms = cJSON_GetObjectItem(golden, "gradient_norms");
    assert_int_equal(count, STEPS);
    for (int i = 0; i < STEPS; i++) {
        double loss = cJSON_GetArrayItem(losses, i)->valuedouble;
        assert_close("loss", i + 1, curve[i].train_loss, loss);
        assert_close("gradient norm", i + 1, curve[i].gradient_norm,
                     cJSON_GetArrayItem(norms, i)->valuedouble);
        /* The validation rows are the training rows, so the loss after a step is that of the next.
         */
        double after = i + 1 < STEPS ? cJSON_GetArrayItem(losses, i + 1)->valuedouble
                                     : cJSON_GetObjectItem(golden, "final_loss")->valuedouble;
        assert_close("validation loss", i + 1, curve[i].validation_loss, after);
    }
    assert_int_equal(trainer_end(trainer), TRAIN_FINISHED);
}

/* Puts the golden start of the adapter into a fresh trainer, through its state. */
static void set_adapter(struct trainer *trainer)
{
    struct network network;
    struct tiny_state state;
    struct error err;
    trainer_network(trainer, &network);
    tiny_state_save(trainer, &state);
    float *values = state.values[tiny_state_find(&state, "parameters")];
    const struct param_table *table = network.adapter->table;
    for (int64_t i = 0; i < table->count; i++) {
        const struct param *param = &table->items[i];
        tiny_fill_param(param->name, param->rows * param->cols, values + param->offset);
    }
    assert_int_equal(tiny_state_load(trainer, &state, &err), STATUS_OK);
    tiny_state_fini(&state);
}

static void run_golden(const char *name, const struct model_family *family,
                       enum train_method method)
{
    cJSON *golden = load_golden();
    const cJSON *expected = cJSON_GetObjectItem(golden, name);
    struct tiny tiny;
    tiny_init(&tiny, family, TRAIN_F32, SEQUENCES);
    tiny_dataset_fini(&tiny.validation);
    tiny_dataset_init(&tiny.validation, "sequence", SEQUENCES);
    tiny.config = golden_config(expected);
    tiny.config.method = method;
    struct trainer *trainer = tiny_trainer(&tiny);
    if (method == TRAIN_LORA) {
        set_adapter(trainer);
    }
    assert_int_equal(trainer_steps_total(trainer), STEPS);
    tiny_run(trainer, STEPS);
    compare_curve(trainer, expected);
    trainer_destroy(trainer);
    tiny_fini(&tiny);
    cJSON_Delete(golden);
}

static void test_llama_full(void **state)
{
    (void)state;
    run_golden("llama_full", &model_family_llama, TRAIN_FULL);
}

static void test_qwen3_lora(void **state)
{
    (void)state;
    run_golden("qwen3_lora", &model_family_qwen3, TRAIN_LORA);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_llama_full),
        cmocka_unit_test(test_qwen3_lora),
    };
    return cmocka_run_group_tests_name("train.golden", tests, NULL, NULL);
}
