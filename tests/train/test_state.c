/* 10 steps are 5 steps, the state out, a new trainer, the state in, 5 steps: to the bit. And
 * states that are foreign, damaged or not whole are refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tiny.h"

enum { ROWS = 13, CURVE_SECONDS = 6, HALF = 5 };

/* The seconds of the curve are the clock's, all else is compared bit by bit. */
static void mask_seconds(struct tiny_state *state)
{
    int index = tiny_state_find(state, "curve");
    double *values = state->values[index];
    for (int64_t i = 0; i < state->arrays[index].rows; i++) {
        values[i * state->arrays[index].cols + CURVE_SECONDS] = 0.0;
    }
}

static void assert_same_state(struct tiny_state *a, struct tiny_state *b)
{
    assert_int_equal(a->count, b->count);
    mask_seconds(a);
    mask_seconds(b);
    for (int i = 0; i < a->count; i++) {
        assert_memory_equal(&a->arrays[i], &b->arrays[i], sizeof(a->arrays[i]));
        if (memcmp(a->values[i], b->values[i], tiny_array_bytes(&a->arrays[i])) != 0) {
            fail_msg("array %s differs", a->arrays[i].name);
        }
    }
}

/* What the trainer hands out for evaluation has to be the same as well. */
static void assert_same_network(const struct trainer *a, const struct trainer *b)
{
    struct network x;
    struct network y;
    trainer_network(a, &x);
    trainer_network(b, &y);
    const struct weights *p = x.adapter != NULL ? x.adapter : x.weights;
    const struct weights *q = y.adapter != NULL ? y.adapter : y.weights;
    assert_ptr_not_equal(p->data, q->data);
    size_t bytes = (size_t)p->table->elements * dtype_bytes(p->dtype);
    void *left = mem_calloc(bytes, 1);
    void *right = mem_calloc(bytes, 1);
    p->device->ops->download(p->device, left, p->data, bytes);
    q->device->ops->download(q->device, right, q->data, bytes);
    assert_memory_equal(left, right, bytes);
    free(left);
    free(right);
}

static void resume_to_the_bit(enum train_method method, enum train_precision precision,
                              int64_t patience)
{
    struct tiny tiny;
    tiny_init(&tiny, &model_family_llama, precision, ROWS);
    tiny.config.method = method;
    tiny.config.accumulation =
        2; /* an epoch is an odd number of micro-batches: steps cross its end */
    tiny.config.epochs = 100.0;
    tiny.config.max_steps = 2 * HALF;
    tiny.config.validations = 7;
    tiny.config.patience = patience;
    tiny.config.learning_rate = 1e-2;
    struct trainer *whole = tiny_trainer(&tiny);
    struct trainer *first = tiny_trainer(&tiny);
    struct trainer *second = tiny_trainer(&tiny);
    struct tiny_state middle;
    struct tiny_state expected;
    struct tiny_state found;
    struct error err;
    tiny_run(whole, 2 * HALF);
    tiny_state_save(whole, &expected);
    tiny_run(first, HALF);
    tiny_state_save(first, &middle);
    trainer_destroy(first);
    assert_int_equal(tiny_state_find(&middle, "best_parameters") >= 0, patience > 0);
    assert_int_equal(tiny_state_load(second, &middle, &err), STATUS_OK);
    assert_int_equal(trainer_steps_done(second), HALF);
    tiny_run(second, HALF);
    tiny_state_save(second, &found);
    assert_same_state(&found, &expected);
    assert_same_network(second, whole);
    assert_int_equal(trainer_end(second), trainer_end(whole));
    tiny_state_fini(&middle);
    tiny_state_fini(&expected);
    tiny_state_fini(&found);
    trainer_destroy(whole);
    trainer_destroy(second);
    tiny_fini(&tiny);
}

static void test_resume_full_f32(void **state)
{
    (void)state;
    resume_to_the_bit(TRAIN_FULL, TRAIN_F32, 0);
    resume_to_the_bit(TRAIN_FULL, TRAIN_F32, 100);
}

static void test_resume_full_bf16(void **state)
{
    (void)state;
    resume_to_the_bit(TRAIN_FULL, TRAIN_BF16, 0);
    resume_to_the_bit(TRAIN_FULL, TRAIN_BF16, 100);
}

static void test_resume_lora(void **state)
{
    (void)state;
    resume_to_the_bit(TRAIN_LORA, TRAIN_F32, 0);
    resume_to_the_bit(TRAIN_LORA, TRAIN_F32, 100);
    resume_to_the_bit(TRAIN_LORA, TRAIN_BF16, 100);
}

/* A state before the first step is a state as well. */
static void test_empty_state(void **state)
{
    (void)state;
    struct tiny tiny;
    struct tiny_state saved;
    struct error err;
    tiny_init(&tiny, &model_family_llama, TRAIN_F32, ROWS);
    struct trainer *a = tiny_trainer(&tiny);
    struct trainer *b = tiny_trainer(&tiny);
    tiny_state_save(a, &saved);
    assert_int_equal(saved.arrays[tiny_state_find(&saved, "curve")].rows, 0);
    assert_int_equal(tiny_state_load(b, &saved, &err), STATUS_OK);
    assert_int_equal(trainer_steps_done(b), 0);
    tiny_state_fini(&saved);
    trainer_destroy(a);
    trainer_destroy(b);
    tiny_fini(&tiny);
}

/* ---- what is refused
 * ------------------------------------------------------------------------------------------ */

struct refusal {
    struct tiny tiny;
    struct tiny_state state; /* after three steps with a best */
};

static int setup_refusal(void **state)
{
    struct refusal *refusal = mem_calloc(1, sizeof(*refusal));
    tiny_init(&refusal->tiny, &model_family_llama, TRAIN_F32, ROWS);
    refusal->tiny.config.validations = 1000;
    refusal->tiny.config.patience = 1000;
    struct trainer *trainer = tiny_trainer(&refusal->tiny);
    tiny_run(trainer, 3);
    tiny_state_save(trainer, &refusal->state);
    trainer_destroy(trainer);
    *state = refusal;
    return 0;
}

static int teardown_refusal(void **state)
{
    struct refusal *refusal = *state;
    tiny_state_fini(&refusal->state);
    tiny_fini(&refusal->tiny);
    free(refusal);
    return 0;
}

/* Loading the (changed) state into a fresh trainer has to fail with this. */
static void assert_refused(struct refusal *refusal, enum status status, const char *message)
{
    struct error err;
    struct trainer *trainer = tiny_trainer(&refusal->tiny);
    assert_int_equal(tiny_state_load(trainer, &refusal->state, &err), status);
    if (strstr(err.message, message) == NULL) {
        fail_msg("\"%s\" is not in: %s", message, err.message);
    }
    trainer_destroy(trainer);
}

static void test_refuses_another_configuration(void **state)
{
    struct refusal *refusal = *state;
    refusal->tiny.config.learning_rate *= 2.0;
    assert_refused(refusal, STATUS_INVALID, "configuration, data or base model");
}

static void test_refuses_other_data(void **state)
{
    struct refusal *refusal = *state;
    refusal->tiny.train.ids[3] ^= 1;
    assert_refused(refusal, STATUS_INVALID, "configuration, data or base model");
    refusal->tiny.train.ids[3] ^= 1;
    refusal->tiny.validation.ids[3] ^= 1;
    assert_refused(refusal, STATUS_INVALID, "configuration, data or base model");
}

static void test_refuses_another_model(void **state)
{
    struct refusal *refusal = *state;
    snprintf(refusal->tiny.model.hash, sizeof(refusal->tiny.model.hash), "other");
    assert_refused(refusal, STATUS_INVALID, "configuration, data or base model");
}

static void test_refuses_another_version(void **state)
{
    struct refusal *refusal = *state;
    int64_t *counters = refusal->state.values[tiny_state_find(&refusal->state, "counters")];
    counters[0]++;
    assert_refused(refusal, STATUS_INVALID, "another version");
}

static void test_refuses_damaged_counters(void **state)
{
    struct refusal *refusal = *state;
    int64_t *counters = refusal->state.values[tiny_state_find(&refusal->state, "counters")];
    const int64_t wrong[] = {-1, INT64_MIN, INT64_MAX};
    for (int i = 3; i <= 6; i++) { /* steps, epoch, batch, tokens */
        for (size_t w = 0; w < 3; w++) {
            int64_t right = counters[i];
            counters[i] = wrong[w];
            assert_refused(refusal, STATUS_INVALID, "counters do not agree");
            counters[i] = right;
        }
    }
}

static void test_refuses_damaged_curve(void **state)
{
    struct refusal *refusal = *state;
    double *curve = refusal->state.values[tiny_state_find(&refusal->state, "curve")];
    curve[7] = 5.0; /* the second row's step */
    assert_refused(refusal, STATUS_INVALID, "curve has a gap");
    curve[7] = 2.0;
    curve[9] = (double)NAN;
    assert_refused(refusal, STATUS_INVALID, "not finite");
}

static void test_refuses_numbers_that_are_not_finite(void **state)
{
    struct refusal *refusal = *state;
    const char *const names[] = {"parameters", "first_moment", "second_moment", "best_parameters"};
    for (size_t i = 0; i < 4; i++) {
        float *values = refusal->state.values[tiny_state_find(&refusal->state, names[i])];
        float right = values[100];
        values[100] = i % 2 == 0 ? NAN : -INFINITY;
        assert_refused(refusal, STATUS_INVALID, "not finite");
        values[100] = right;
    }
}

static void test_refuses_other_shapes_and_names(void **state)
{
    struct refusal *refusal = *state;
    struct trainer_array *array = &refusal->state.arrays[0];
    struct trainer_array right = *array;
    array->rows--;
    assert_refused(refusal, STATUS_INVALID, "not this training's");
    *array = right;
    array->type = TRAINER_F64;
    assert_refused(refusal, STATUS_INVALID, "not this training's");
    *array = right;
    array->cols = 2;
    assert_refused(refusal, STATUS_INVALID, "not this training's");
    *array = right;
    snprintf(array->name, sizeof(array->name), "gradients");
    assert_refused(refusal, STATUS_INVALID, "no array \"gradients\"");
    *array = right;
    struct trainer_array *curve = &refusal->state.arrays[tiny_state_find(&refusal->state, "curve")];
    curve->rows = INT64_MAX;
    assert_refused(refusal, STATUS_INVALID, "not this training's");
}

static void test_refuses_a_state_that_is_not_whole(void **state)
{
    struct refusal *refusal = *state;
    refusal->state.count--; /* the best parameters come last */
    assert_refused(refusal, STATUS_CORRUPT, "best parameters");
    free(refusal->state.values[refusal->state.count]);
    refusal->state.count--;
    assert_refused(refusal, STATUS_CORRUPT, "not whole");
    free(refusal->state.values[refusal->state.count]);
}

static void test_refuses_best_without_early_stop(void **state)
{
    struct refusal *refusal = *state;
    refusal->tiny.config.patience = 0;
    assert_refused(refusal, STATUS_INVALID, "no early stop");
    refusal->tiny.config.patience = 1000;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resume_full_f32),
        cmocka_unit_test(test_resume_full_bf16),
        cmocka_unit_test(test_resume_lora),
        cmocka_unit_test(test_empty_state),
#define REFUSAL(test) cmocka_unit_test_setup_teardown(test, setup_refusal, teardown_refusal)
        REFUSAL(test_refuses_another_configuration),
        REFUSAL(test_refuses_other_data),
        REFUSAL(test_refuses_another_model),
        REFUSAL(test_refuses_another_version),
        REFUSAL(test_refuses_damaged_counters),
        REFUSAL(test_refuses_damaged_curve),
        REFUSAL(test_refuses_numbers_that_are_not_finite),
        REFUSAL(test_refuses_other_shapes_and_names),
        REFUSAL(test_refuses_a_state_that_is_not_whole),
        REFUSAL(test_refuses_best_without_early_stop),
#undef REFUSAL
    };
    return cmocka_run_group_tests_name("train.state", tests, NULL, NULL);
}
