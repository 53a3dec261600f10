/* The same training on the CPU and on CUDA: losses within 1e-4 in f32 and 1 % in bf16 over 50
 * steps, and a state that was saved on one goes on on the other. Skipped where there is no CUDA
 * device. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tiny.h"

enum { ROWS = 13, STEPS_FULL = 50, STEPS_LORA = 12 };

struct pair {
    struct tiny cpu;
    struct tiny cuda;
};

static void configure(struct tiny *tiny, enum train_method method)
{
    tiny->config.method = method;
    tiny->config.epochs = 100.0;
    tiny->config.max_steps = method == TRAIN_FULL ? STEPS_FULL : STEPS_LORA;
    tiny->config.learning_rate = 1e-3;
    tiny->config.validations = 3;
    tiny->config.patience = 100;
}

static void init_pair(struct pair *pair, enum train_method method, enum train_precision precision)
{
    struct device *cuda = tiny_open("cuda", 0);
    if (cuda == NULL) {
        print_message("no CUDA device here\n");
        skip();
    }
    const struct model_family *family =
        method == TRAIN_FULL ? &model_family_qwen3 : &model_family_llama;
    tiny_init_on(&pair->cpu, tiny_open("cpu", 0), family, precision, ROWS);
    tiny_init_on(&pair->cuda, cuda, family, precision, ROWS);
    configure(&pair->cpu, method);
    configure(&pair->cuda, method);
}

static void fini_pair(struct pair *pair)
{
    tiny_fini(&pair->cpu);
    tiny_fini(&pair->cuda);
}

static void assert_like(const char *what, int64_t step, double found, double expected,
                        double tolerance)
{
    if (isnan(found) && isnan(expected)) {
        return;
    }
    if (!(fabs(found - expected) <= tolerance * fabs(expected))) {
        fail_msg("%s of step %lld: %.9g against %.9g, allowed is a part of %g", what,
                 (long long)step, found, expected, tolerance);
    }
}

static void compare_curves(const struct trainer *a, const struct trainer *b, double tolerance)
{
    int64_t count = 0;
    int64_t others = 0;
    const struct train_point *found = trainer_curve(a, &count);
    const struct train_point *expected = trainer_curve(b, &others);
    assert_int_equal(count, others);
    for (int64_t i = 0; i < count; i++) {
        assert_like("loss", i + 1, found[i].train_loss, expected[i].train_loss, tolerance);
        assert_like("validation loss", i + 1, found[i].validation_loss, expected[i].validation_loss,
                    tolerance);
        assert_int_equal(found[i].tokens, expected[i].tokens);
    }
}

/* Some steps on one backend, the rest on the other. */
static struct trainer *move_on(const struct tiny *from, const struct tiny *to)
{
    struct tiny_state state;
    struct error err;
    struct trainer *first = tiny_trainer(from);
    struct trainer *second = tiny_trainer(to);
    int64_t steps = trainer_steps_total(first);
    tiny_run(first, steps / 2);
    tiny_state_save(first, &state);
    trainer_destroy(first);
    if (tiny_state_load(second, &state, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    assert_int_equal(trainer_steps_done(second), steps / 2);
    tiny_run(second, steps);
    tiny_state_fini(&state);
    return second;
}

static void compare(enum train_method method, enum train_precision precision, double tolerance)
{
    struct pair pair;
    init_pair(&pair, method, precision);
    struct trainer *cpu = tiny_trainer(&pair.cpu);
    struct trainer *cuda = tiny_trainer(&pair.cuda);
    tiny_run(cpu, pair.cpu.config.max_steps);
    tiny_run(cuda, pair.cuda.config.max_steps);
    compare_curves(cuda, cpu, tolerance);
    struct trainer *to_cuda = move_on(&pair.cpu, &pair.cuda);
    compare_curves(to_cuda, cpu, tolerance);
    struct trainer *to_cpu = move_on(&pair.cuda, &pair.cpu);
    compare_curves(to_cpu, cpu, tolerance);
    trainer_destroy(cpu);
    trainer_destroy(cuda);
    trainer_destroy(to_cuda);
    trainer_destroy(to_cpu);
    fini_pair(&pair);
}

static void test_full_f32(void **state)
{
    (void)state;
    compare(TRAIN_FULL, TRAIN_F32, 1e-4);
}

static void test_full_bf16(void **state)
{
    (void)state;
    compare(TRAIN_FULL, TRAIN_BF16, 1e-2);
}

static void test_lora_f32(void **state)
{
    (void)state;
    compare(TRAIN_LORA, TRAIN_F32, 1e-4);
}

static void test_lora_bf16(void **state)
{
    (void)state;
    compare(TRAIN_LORA, TRAIN_BF16, 1e-2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full_f32),
        cmocka_unit_test(test_full_bf16),
        cmocka_unit_test(test_lora_f32),
        cmocka_unit_test(test_lora_bf16),
    };
    return cmocka_run_group_tests_name("train.backends", tests, NULL, NULL);
}
