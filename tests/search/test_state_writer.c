/* States that are written while a training goes on: the file holds the moment at which it was
 * started, to the bit, and failures come out at a step boundary. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "run/state_writer.h"
#include "train/tiny.h"

enum { ROWS = 13 };

struct writing {
    struct tiny tiny;
    struct trainer *trainer;
    struct training_label label;
    struct state_writer *writer;
    char folder[64];
    char path[128];
};

static void init_writing(struct writing *w, enum train_precision precision, const char *name)
{
    struct error err;
    memset(w, 0, sizeof(*w));
    tiny_init(&w->tiny, &model_family_llama, precision, ROWS);
    w->tiny.config.epochs = 100.0;
    w->tiny.config.max_steps = 20;
    w->tiny.config.validations = 20;
    w->tiny.config.patience = 100;
    w->trainer = tiny_trainer(&w->tiny);
    snprintf(w->label.fingerprint, sizeof(w->label.fingerprint), "tiny");
    w->label.precision = precision;
    snprintf(w->folder, sizeof(w->folder), "/tmp/trex-state-XXXXXX");
    assert_non_null(mkdtemp(w->folder));
    snprintf(w->path, sizeof(w->path), "%s/%s", w->folder, name);
    assert_int_equal(
        state_writer_create(w->tiny.device, w->trainer, w->path, &w->label, &w->writer, &err),
        STATUS_OK);
}

static void fini_writing(struct writing *w)
{
    state_writer_destroy(w->writer);
    remove(w->path);
    remove(w->folder);
    trainer_destroy(w->trainer);
    tiny_fini(&w->tiny);
}

static void settle(struct writing *w)
{
    struct error err;
    if (state_writer_settle(w->writer, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    assert_false(state_writer_busy(w->writer));
}

/* The file's state, restored into a new trainer, is that of `expected`. */
static void assert_file_is(const struct writing *w, const struct tiny_state *expected,
                           int64_t steps)
{
    struct error err;
    struct tiny_state found;
    struct trainer *restored = tiny_trainer(&w->tiny);
    enum train_precision precision = TRAIN_F32;
    if (training_file_read(w->path, restored, &w->label, NULL, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    assert_int_equal(training_file_steps(w->path), steps);
    assert_true(training_file_precision(w->path, &precision));
    assert_int_equal(precision, w->label.precision);
    tiny_state_save(restored, &found);
    assert_int_equal(found.count, expected->count);
    for (int i = 0; i < found.count; i++) {
        assert_memory_equal(found.values[i], expected->values[i],
                            tiny_array_bytes(&expected->arrays[i]));
    }
    tiny_state_fini(&found);
    trainer_destroy(restored);
}

static void write_while_training(enum train_precision precision)
{
    struct writing w;
    struct error err;
    init_writing(&w, precision, "state.h5");
    for (int round = 0; round < 3; round++) { /* the curve outgrows its first room */
        struct tiny_state expected;
        tiny_run(w.trainer, 3);
        tiny_state_save(w.trainer, &expected);
        assert_int_equal(state_writer_start(w.writer, &err), STATUS_OK);
        assert_true(state_writer_busy(w.writer));
        tiny_run(w.trainer, 1);
        assert_int_equal(state_writer_start(w.writer, &err), STATUS_OK); /* changes nothing */
        assert_int_equal(state_writer_poll(w.writer, &err), STATUS_OK);
        tiny_run(w.trainer, 1);
        settle(&w);
        assert_true(state_writer_seconds(w.writer) > 0.0);
        assert_file_is(&w, &expected, 5 * round + 3);
        tiny_state_fini(&expected);
    }
    fini_writing(&w);
}

static void test_the_file_is_of_the_moment_of_the_start(void **state)
{
    (void)state;
    write_while_training(TRAIN_F32);
    write_while_training(TRAIN_BF16); /* the best parameters are copied in bf16 */
}

static void test_copies_without_a_file_are_dropped(void **state)
{
    (void)state;
    struct writing w;
    struct error err;
    init_writing(&w, TRAIN_F32, "state.h5");
    tiny_run(w.trainer, 2);
    assert_int_equal(state_writer_start(w.writer, &err), STATUS_OK);
    settle(&w);
    assert_int_equal(training_file_steps(w.path), 0);
    settle(&w); /* nothing to do */
    fini_writing(&w);
}

/* A disk that refuses is told of once, at a later step boundary, and the next state may succeed. */
static void test_a_failed_write_is_told_once(void **state)
{
    (void)state;
    struct writing w;
    struct error err;
    init_writing(&w, TRAIN_F32, "absent/state.h5");
    tiny_run(w.trainer, 2);
    assert_int_equal(state_writer_start(w.writer, &err), STATUS_OK);
    assert_int_equal(state_writer_poll(w.writer, &err), STATUS_OK);
    enum status status = STATUS_OK;
    for (int i = 0; i < 5000 && state_writer_busy(w.writer); i++) {
        status = state_writer_poll(w.writer, &err);
        clock_sleep_s(1e-3);
    }
    assert_int_not_equal(status, STATUS_OK);
    assert_non_null(strstr(err.message, "absent"));
    assert_int_equal(state_writer_poll(w.writer, &err), STATUS_OK);
    assert_int_equal(state_writer_start(w.writer, &err), STATUS_OK);
    assert_int_equal(state_writer_poll(w.writer, &err), STATUS_OK);
    assert_int_not_equal(state_writer_settle(w.writer, &err), STATUS_OK);
    fini_writing(&w);
}

static void test_no_memory_for_a_copy(void **state)
{
    (void)state;
    struct writing w;
    struct error err;
    init_writing(&w, TRAIN_F32, "state.h5");
    tiny_run(w.trainer, 1);
    for (int64_t n = 1; n <= 3; n++) {
        mem_fail_nth(n);
        assert_int_equal(state_writer_start(w.writer, &err), STATUS_NO_MEMORY);
        mem_fail_nth(0);
        assert_false(state_writer_busy(w.writer));
    }
    assert_int_equal(state_writer_start(w.writer, &err), STATUS_OK);
    fini_writing(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_file_is_of_the_moment_of_the_start),
        cmocka_unit_test(test_copies_without_a_file_are_dropped),
        cmocka_unit_test(test_a_failed_write_is_told_once),
        cmocka_unit_test(test_no_memory_for_a_copy),
    };
    return cmocka_run_group_tests_name("search.state_writer", tests, NULL, NULL);
}
