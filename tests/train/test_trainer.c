/* The loop: counting steps, validations, early stop, divergence, interruption, memory, refusals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tiny.h"

enum { ROWS = 13 };

static int64_t micro_batches(const struct tiny *tiny)
{
    struct packer *packer = NULL;
    struct error err;
    assert_int_equal(packer_create(&tiny->train, tiny->config.batch_tokens, tiny->config.seed, true,
                                   &packer, &err),
                     STATUS_OK);
    int64_t count = packer_batches(packer, 0);
    packer_destroy(packer);
    return count;
}

static int64_t steps_of(struct tiny *tiny, double epochs, int64_t max_steps, int64_t accumulation)
{
    tiny->config.epochs = epochs;
    tiny->config.max_steps = max_steps;
    tiny->config.accumulation = accumulation;
    struct trainer *trainer = tiny_trainer(tiny);
    int64_t steps = trainer_steps_total(trainer);
    trainer_destroy(trainer);
    return steps;
}

static void test_number_of_steps(void **state)
{
    (void)state;
    struct tiny tiny;
    tiny_init(&tiny, &model_family_llama, TRAIN_F32, ROWS);
    int64_t batches = micro_batches(&tiny);
    assert_true(batches > 4);
    assert_int_equal(steps_of(&tiny, 1.0, 0, 1), batches);
    assert_int_equal(steps_of(&tiny, 0.5, 0, 1), (batches + 1) / 2);
    assert_int_equal(steps_of(&tiny, 1.0, 0, 2), (batches + 1) / 2);
    assert_int_equal(steps_of(&tiny, 1.0, 3, 2), 3);
    assert_int_equal(steps_of(&tiny, 0.001, 50, 1), 1);
    assert_int_equal(steps_of(&tiny, 10000.0, 5, 7), 5);
    tiny_fini(&tiny);
}

/* One epoch trains on every row exactly once, also when the last step is not full. */
static void test_epoch_sees_every_token_once(void **state)
{
    (void)state;
    struct tiny tiny;
    tiny_init(&tiny, &model_family_llama, TRAIN_F32, ROWS);
    tiny.config.epochs = 1.0;
    tiny.config.accumulation = 4;
    struct trainer *trainer = tiny_trainer(&tiny);
    struct error err;
    assert_int_equal(trainer_run(trainer, NULL, &err), STATUS_OK);
    int64_t count = 0;
    const struct train_point *curve = trainer_curve(trainer, &count);
    assert_int_equal(count, trainer_steps_total(trainer));
    assert_int_equal(curve[count - 1].tokens, tiny.train.start[ROWS]);
    assert_int_equal(trainer_end(trainer), TRAIN_FINISHED);
    assert_true(trainer_step_seconds(trainer) > 0.0);
    assert_true(curve[count - 1].seconds >= curve[0].seconds);
    tiny_run(trainer, 5); /* nothing is left to do */
    assert_int_equal(trainer_steps_done(trainer), count);
    trainer_destroy(trainer);
    tiny_fini(&tiny);
}

static void test_loss_falls(void **state)
{
    (void)state;
    const enum train_precision precisions[] = {TRAIN_F32, TRAIN_BF16};
    const enum train_method methods[] = {TRAIN_FULL, TRAIN_LORA};
    for (size_t i = 0; i < 4; i++) {
        struct tiny tiny;
        tiny_init(&tiny, i < 2 ? &model_family_llama : &model_family_qwen3, precisions[i % 2],
                  ROWS);
        tiny.config.method = methods[i / 2];
        tiny.config.learning_rate = 1e-2;
        tiny.config.epochs = 30.0;
        struct trainer *trainer = tiny_trainer(&tiny);
        tiny_run(trainer, 60);
        int64_t count = 0;
        const struct train_point *curve = trainer_curve(trainer, &count);
        assert_true(curve[count - 1].train_loss < 0.7 * curve[0].train_loss);
        trainer_destroy(trainer);
        tiny_fini(&tiny);
    }
}

static void test_validations_are_evenly_spread(void **state)
{
    (void)state;
    struct tiny tiny;
    tiny_init(&tiny, &model_family_llama, TRAIN_F32, ROWS);
    tiny.config.epochs = 100.0;
    const int64_t totals[] = {10, 10, 3, 7};
    const int64_t times[] = {5, 3, 100, 0};
    const char *const expected[] = {".v.v.v.v.v", "...v..v..v", "vvv", "......."};
    for (size_t c = 0; c < 4; c++) {
        tiny.config.max_steps = totals[c];
        tiny.config.validations = times[c];
        struct trainer *trainer = tiny_trainer(&tiny);
        tiny_run(trainer, totals[c]);
        int64_t count = 0;
        const struct train_point *curve = trainer_curve(trainer, &count);
        char found[16] = "";
        for (int64_t i = 0; i < count; i++) {
            found[i] = isnan(curve[i].validation_loss) ? '.' : 'v';
        }
        assert_string_equal(found, expected[c]);
        trainer_destroy(trainer);
    }
    tiny_dataset_fini(&tiny.validation);
    tiny_dataset_init(&tiny.validation, "", 0); /* nothing to validate on */
    tiny.config.validations = 3;
    struct trainer *trainer = tiny_trainer(&tiny);
    tiny_run(trainer, 7);
    assert_int_equal(trainer_end(trainer), TRAIN_FINISHED);
    trainer_destroy(trainer);
    tiny_fini(&tiny);
}

/* Random rows are learned by heart, so the loss on held-out ones soon rises: the stop is early, and
 * what is handed out is the best, whose loss is scored here by another trainer that starts from it.
 */
static void test_early_stop_keeps_the_best(void **state)
{
    (void)state;
    struct tiny tiny;
    tiny_init(&tiny, &model_family_llama, TRAIN_F32, ROWS);
    tiny.config.learning_rate = 1e-2;
    tiny.config.schedule = TRAIN_CONSTANT;
    tiny.config.epochs = 100.0;
    tiny.config.validations = 1000;
    tiny.config.patience = 3;
    struct trainer *trainer = tiny_trainer(&tiny);
    struct error err;
    assert_int_equal(trainer_run(trainer, NULL, &err), STATUS_OK);
    assert_int_equal(trainer_end(trainer), TRAIN_STOPPED_EARLY);
    int64_t count = 0;
    const struct train_point *curve = trainer_curve(trainer, &count);
    double best = INFINITY;
    int64_t best_step = 0;
    for (int64_t i = 0; i < count; i++) {
        if (curve[i].validation_loss < best) {
            best = curve[i].validation_loss;
            best_step = curve[i].step;
        }
    }
    int64_t stale = 0;
    for (int64_t i = best_step; i < count; i++) {
        stale += !isnan(curve[i].validation_loss);
    }
    assert_int_equal(stale, tiny.config.patience);

    struct network network;
    trainer_network(trainer, &network);
    struct trainer_inputs inputs = tiny_inputs(&tiny);
    inputs.start = network.weights;
    tiny.config.learning_rate = 1e-12;
    tiny.config.patience = 0;
    struct trainer *check = NULL;
    assert_int_equal(trainer_create(tiny.device, &inputs, &check, &err), STATUS_OK);
    tiny_run(check, trainer_steps_total(check) / 1000 + 1);
    const struct train_point *again = trainer_curve(check, &count);
    assert_true(fabs(again[count - 1].validation_loss - best) < 1e-5);
    trainer_destroy(check);
    trainer_destroy(trainer);
    tiny_fini(&tiny);
}

static void test_divergence_is_an_error_and_changes_nothing(void **state)
{
    (void)state;
    struct tiny tiny;
    struct error err;
    tiny_init(&tiny, &model_family_llama, TRAIN_F32, ROWS);
    tiny.config.epochs = 1000.0;
    tiny.config.learning_rate = 50.0;
    tiny.config.warmup_ratio = 0.0;
    tiny.config.schedule = TRAIN_CONSTANT;
    tiny.config.weight_decay = 0.0;
    struct trainer *trainer = tiny_trainer(&tiny);
    assert_int_equal(trainer_run(trainer, NULL, &err), STATUS_DIVERGED);
    assert_non_null(strstr(err.message, "step"));
    int64_t done = trainer_steps_done(trainer);
    assert_true(done > 0 && done < trainer_steps_total(trainer));
    struct tiny_state saved;
    tiny_state_save(trainer, &saved);
    const float *values = saved.values[tiny_state_find(&saved, "parameters")];
    for (int64_t i = 0; i < saved.arrays[0].rows; i++) {
        assert_true(isfinite(values[i]));
    }
    tiny_state_fini(&saved);
    assert_int_equal(trainer_run(trainer, NULL, &err), STATUS_DIVERGED); /* and stays so */
    trainer_destroy(trainer);
    tiny_fini(&tiny);
}

static void test_loss_that_is_not_finite(void **state)
{
    (void)state;
    struct tiny tiny;
    struct error err;
    tiny_init(&tiny, &model_family_llama, TRAIN_F32, ROWS);
    float *broken = mem_calloc(32, sizeof(*broken));
    broken[5] = NAN;
    weights_set(&tiny.model.weights, param_table_find(&tiny.model.table, "model.norm.weight"),
                broken);
    struct trainer *trainer = tiny_trainer(&tiny);
    assert_int_equal(trainer_run_steps(trainer, 1, NULL, &err), STATUS_DIVERGED);
    assert_non_null(strstr(err.message, "the loss of step 1"));
    assert_int_equal(trainer_steps_done(trainer), 0);
    trainer_destroy(trainer);
    free(broken);
    tiny_fini(&tiny);
}

/* ---- interruption
 * --------------------------------------------------------------------------------------------- */

struct stop {
    const char *phase;
    int64_t at;
    int64_t train_ticks;
};

static enum status tick(void *context, const char *phase, int64_t done, int64_t total,
                        struct error *err)
{
    struct stop *stop = context;
    assert_true(done >= 1 && done <= total);
    stop->train_ticks += strcmp(phase, "train") == 0;
    if (strcmp(phase, stop->phase) == 0 && stop->at > 0 && done >= stop->at) {
        stop->at = 0;
        return FAIL(err, STATUS_INTERRUPTED, "stopped by the test");
    }
    return STATUS_OK;
}

/* Stopped in the middle of a validation and gone on with, a training is the same as one left alone.
 */
static void stop_and_go_on(const char *phase, int64_t at, int64_t steps_then)
{
    struct tiny tiny;
    struct error err;
    tiny_init(&tiny, &model_family_llama, TRAIN_F32, ROWS);
    tiny.config.epochs = 100.0;
    tiny.config.max_steps = 8;
    tiny.config.validations = 4;
    struct trainer *whole = tiny_trainer(&tiny);
    struct trainer *stopped = tiny_trainer(&tiny);
    struct stop stop = {phase, at, 0};
    struct progress progress = {tick, &stop};
    assert_int_equal(trainer_run(whole, NULL, &err), STATUS_OK);
    assert_int_equal(trainer_run(stopped, &progress, &err), STATUS_INTERRUPTED);
    assert_int_equal(trainer_steps_done(stopped), steps_then);
    assert_int_equal(trainer_end(stopped), TRAIN_RUNNING);
    assert_int_equal(trainer_run(stopped, &progress, &err), STATUS_OK);
    assert_int_equal(trainer_end(stopped), TRAIN_FINISHED);
    assert_int_equal(stop.train_ticks, 8);
    int64_t count = 0;
    const struct train_point *a = trainer_curve(whole, &count);
    const struct train_point *b = trainer_curve(stopped, &count);
    for (int64_t i = 0; i < count; i++) {
        assert_memory_equal(&a[i], &b[i], offsetof(struct train_point, seconds));
    }
    trainer_destroy(whole);
    trainer_destroy(stopped);
    tiny_fini(&tiny);
}

static void test_interruption(void **state)
{
    (void)state;
    stop_and_go_on("train", 3, 3);
    stop_and_go_on("train", 8, 8); /* after the last step, before its validation */
    stop_and_go_on("validate", 2, 2);
}

/* ---- memory
 * ---------------------------------------------------------------------------------------------------
 */

static void test_trainer_bytes_is_what_is_allocated(void **state)
{
    (void)state;
    for (int i = 0; i < 8; i++) {
        struct tiny tiny;
        tiny_init(&tiny, &model_family_qwen3, i % 2 == 0 ? TRAIN_F32 : TRAIN_BF16, ROWS);
        tiny.config.method = i / 2 % 2 == 0 ? TRAIN_FULL : TRAIN_LORA;
        tiny.config.patience = i / 4;
        tiny.config.validations = 1;
        tiny.config.batch_tokens = 1024; /* so that rounding of blocks does not count */
        struct device_memory before;
        struct device_memory after;
        tiny.device->ops->memory(tiny.device, &before);
        struct trainer *trainer = tiny_trainer(&tiny);
        tiny.device->ops->memory(tiny.device, &after);
        double expected = (double)trainer_bytes(&tiny.model.config, &tiny.config);
        double found = (double)(after.used_bytes - before.used_bytes);
        if (!(fabs(found - expected) <= 0.01 * expected)) {
            fail_msg("case %d: %.0f bytes are allocated, trainer_bytes says %.0f", i, found,
                     expected);
        }
        trainer_destroy(trainer);
        tiny.device->ops->memory(tiny.device, &after);
        assert_int_equal(after.used_bytes, before.used_bytes);
        tiny_fini(&tiny);
    }
}

static void test_every_allocation_may_fail(void **state)
{
    (void)state;
    struct tiny tiny;
    struct error err;
    tiny_init(&tiny, &model_family_llama, TRAIN_BF16, ROWS);
    tiny.config.method = TRAIN_LORA;
    tiny.config.patience = 1;
    tiny.config.validations = 1;
    struct trainer_inputs inputs = tiny_inputs(&tiny);
    struct trainer *trainer = NULL;
    int64_t allocations = 0;
    for (int i = 0; i < 2; i++) { /* the first fills what a device caches */
        int64_t begin = mem_allocation_count();
        assert_int_equal(trainer_create(tiny.device, &inputs, &trainer, &err), STATUS_OK);
        allocations = mem_allocation_count() - begin;
        trainer_destroy(trainer);
    }
    assert_true(allocations > 10);
    for (int64_t n = 1; n <= allocations; n++) {
        mem_fail_nth(n);
        enum status status = trainer_create(tiny.device, &inputs, &trainer, &err);
        mem_fail_nth(0);
        if (status == STATUS_OK && tiny.device->ops->asynchronous) {
            trainer_destroy(
                trainer); /* a device that caches memory gives some back and tries again */
        } else {
            assert_int_equal(status, STATUS_NO_MEMORY);
        }
    }
    tiny_fini(&tiny);
}

static void test_no_device_memory(void **state)
{
    (void)state;
    struct tiny tiny;
    struct error err;
    tiny_init(&tiny, &model_family_llama, TRAIN_F32, ROWS);
    int64_t needed = trainer_bytes(&tiny.model.config, &tiny.config);
    /* A GPU's blocks are rounded up, so that it takes a little more. */
    int64_t rounding = strcmp(TEST_BACKEND, "cpu") == 0 ? 0 : needed / 50;
    for (int64_t missing = 0; missing <= 1; missing++) {
        int64_t limit = missing == 0 ? needed + rounding : needed - 1;
        struct device *small = tiny_open(TEST_BACKEND, limit);
        struct trainer_inputs inputs = tiny_inputs(&tiny);
        struct trainer *trainer = NULL;
        enum status status = trainer_create(small, &inputs, &trainer, &err);
        assert_int_equal(status, missing == 0 ? STATUS_OK : STATUS_NO_MEMORY);
        trainer_destroy(trainer);
        device_close(small);
    }
    tiny_fini(&tiny);
}

static void release(void *context)
{
    struct model *model = context;
    weights_fini(&model->weights);
}

/* Where base and training have no room together, the base may go once it has been read. */
static void test_the_base_may_be_released(void **state)
{
    (void)state;
    struct tiny tiny;
    struct error err;
    tiny_init(&tiny, &model_family_llama, TRAIN_F32, ROWS);
    int64_t base = tiny.model.table.elements * (int64_t)sizeof(float);
    int64_t needed = trainer_bytes(&tiny.model.config, &tiny.config);
    struct device *small = tiny_open(TEST_BACKEND, base / 2 + needed);
    struct model model;
    tiny_model_init(&model, &model_family_llama, small, DTYPE_F32);
    struct trainer_inputs inputs = tiny_inputs(&tiny);
    struct trainer *trainer = NULL;
    struct trainer *expected = tiny_trainer(&tiny);
    inputs.model = &model;
    assert_int_equal(trainer_create(small, &inputs, &trainer, &err), STATUS_NO_MEMORY);
    inputs.release_base = release;
    inputs.release_context = &model;
    assert_int_equal(trainer_create(small, &inputs, &trainer, &err), STATUS_OK);
    assert_null(model.weights.data);
    struct tiny_state released;
    struct tiny_state whole;
    tiny_state_save(trainer, &released);
    tiny_state_save(expected, &whole);
    int index = tiny_state_find(&whole, "parameters");
    assert_memory_equal(released.values[index], whole.values[index], (size_t)base);
    tiny_state_fini(&released);
    tiny_state_fini(&whole);
    trainer_destroy(expected);
    trainer_destroy(trainer);
    tiny_model_fini(&model);
    device_close(small);
    tiny_fini(&tiny);
}

/* ---- refusals
 * -------------------------------------------------------------------------------------------------
 */

static void assert_refused(const struct tiny *tiny, const struct trainer_inputs *inputs,
                           enum status status, const char *message)
{
    struct error err;
    struct trainer *trainer = NULL;
    assert_int_equal(trainer_create(tiny->device, inputs, &trainer, &err), status);
    if (strstr(err.message, message) == NULL) {
        fail_msg("\"%s\" is not in: %s", message, err.message);
    }
    assert_null(trainer);
}

static void test_refusals(void **state)
{
    (void)state;
    struct tiny tiny;
    tiny_init(&tiny, &model_family_llama, TRAIN_F32, ROWS);
    const struct train_config good = tiny.config;
    struct trainer_inputs inputs = tiny_inputs(&tiny);
    inputs.start = &tiny.model.weights;
    tiny.config.method = TRAIN_LORA;
    assert_refused(&tiny, &inputs, STATUS_INVALID, "cannot start from");
    tiny.config = good;

    struct param other_item = tiny.model.table.items[0];
    struct param_table other_table = {&other_item, 1, 64};
    struct weights other = {.table = &other_table};
    inputs.start = &other;
    assert_refused(&tiny, &inputs, STATUS_INVALID, "64 elements");
    inputs.start = NULL;

    tiny.config.precision = TRAIN_BF16;
    assert_refused(&tiny, &inputs, STATUS_INVALID, "loaded in it");
    tiny.config = good;
    tiny.config.accumulation = 0;
    assert_refused(&tiny, &inputs, STATUS_INVALID, "/accumulation");
    tiny.config = good;
    tiny.config.learning_rate = (double)NAN;
    assert_refused(&tiny, &inputs, STATUS_INVALID, "/learning_rate");
    tiny.config = good;
    tiny.config.batch_tokens = 8;
    assert_refused(&tiny, &inputs, STATUS_RANGE, "");
    tiny.config = good;

    tiny.model.config.max_positions = 10;
    assert_refused(&tiny, &inputs, STATUS_RANGE, "10 positions");
    tiny.model.config.max_positions = 64;

    struct encoded_dataset empty = {0};
    inputs.train = &empty;
    assert_refused(&tiny, &inputs, STATUS_INVALID, "no training row");
    inputs.train = &tiny.train;
    struct train_group group = {.rank = 2, .size = 2};
    inputs.group = &group;
    assert_refused(&tiny, &inputs, STATUS_INVALID, "rank 2 of a group of 2");
    tiny_fini(&tiny);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_number_of_steps),
        cmocka_unit_test(test_epoch_sees_every_token_once),
        cmocka_unit_test(test_loss_falls),
        cmocka_unit_test(test_validations_are_evenly_spread),
        cmocka_unit_test(test_early_stop_keeps_the_best),
        cmocka_unit_test(test_divergence_is_an_error_and_changes_nothing),
        cmocka_unit_test(test_loss_that_is_not_finite),
        cmocka_unit_test(test_interruption),
        cmocka_unit_test(test_trainer_bytes_is_what_is_allocated),
        cmocka_unit_test(test_every_allocation_may_fail),
        cmocka_unit_test(test_no_device_memory),
        cmocka_unit_test(test_the_base_may_be_released),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests_name("train.trainer", tests, NULL, NULL);
}
