/* Two ranks of a group, here threads, against one: the same losses, and the same parameters on both
 * ranks. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tiny.h"

enum { RANKS = 2, STEPS = 8, ROWS = 13, SUM_MAX = 1 << 16 };

/* Sums between threads: everybody puts its values down, waits, adds all up in the same order, waits
 * again. */
struct meeting {
    pthread_barrier_t barrier;
    double values[RANKS][SUM_MAX];
};

struct seat {
    struct meeting *meeting;
    int rank;
};

static enum status sum_f64(void *context, double *values, int64_t count, struct error *err)
{
    (void)err;
    struct seat *seat = context;
    struct meeting *meeting = seat->meeting;
    if (count > SUM_MAX) {
        return FAIL(err, STATUS_LIMIT, "the meeting has room for %d numbers", SUM_MAX);
    }
    memcpy(meeting->values[seat->rank], values, (size_t)count * sizeof(*values));
    pthread_barrier_wait(&meeting->barrier);
    for (int64_t i = 0; i < count; i++) {
        values[i] = meeting->values[0][i] + meeting->values[1][i];
    }
    pthread_barrier_wait(&meeting->barrier);
    return STATUS_OK;
}

static enum status sum_f32(void *context, float *values, int64_t count, struct error *err)
{
    double *wide = mem_calloc((size_t)count, sizeof(*wide));
    for (int64_t i = 0; i < count; i++) {
        wide[i] = (double)values[i];
    }
    enum status status = sum_f64(context, wide, count, err);
    for (int64_t i = 0; i < count; i++) {
        values[i] = (float)wide[i];
    }
    free(wide);
    return status;
}

/* How gradients are added up. */
enum way { OVER_THE_HOST, OVER_MANY_SLOTS, ON_DEVICE_MEMORY, BY_THE_DEVICES, WAYS };

/* One rank: its own device, model and data, as another process would have them. */
struct rank {
    struct seat seat;
    struct ops ops; /* the device's, as if it could do more than a CPU */
    struct train_group group;
    struct tiny tiny;
    struct trainer *trainer;
    int64_t stop_after; /* steps after which this rank is told to stop; 0: never */
    enum status status;
    struct error err;
};

static enum status tick(void *context, const char *phase, int64_t done, int64_t total,
                        struct error *err)
{
    (void)total;
    const struct rank *rank = context;
    if (rank->stop_after > 0 && strcmp(phase, "train") == 0 && done >= rank->stop_after) {
        return FAIL(err, STATUS_INTERRUPTED, "stopped by the test");
    }
    return STATUS_OK;
}

static void *run_rank(void *argument)
{
    struct rank *rank = argument;
    struct progress progress = {.tick = tick, .context = rank};
    rank->status = trainer_run(rank->trainer, &progress, &rank->err);
    return NULL;
}

/* A device of the group finds its seat through its own table of operations. */
static int64_t side_sum(struct device *device, float *values, int64_t count)
{
    const struct rank *rank =
        (const struct rank *)((const char *)device->ops - offsetof(struct rank, ops));
    struct error err;
    struct seat seat = rank->seat;
    device->ops->side_wait(device, device->ops->side_mark(device));
    assert_int_equal(sum_f32(&seat, values, count, &err), STATUS_OK);
    return device->ops->side_mark(device);
}

static void choose_way(struct rank *rank, enum way way, int64_t bucket_elements)
{
    rank->group.bucket_elements = bucket_elements;
    rank->ops = *rank->tiny.device->ops;
    rank->ops.asynchronous = way == OVER_MANY_SLOTS;
    rank->tiny.device->ops = &rank->ops;
    if (way == ON_DEVICE_MEMORY) {
        rank->group.sum_device_f32 = sum_f32;
    } else if (way == BY_THE_DEVICES) {
        rank->ops.side_sum = side_sum;
        rank->group.joined = true;
    }
}

static void init_tiny(struct tiny *tiny, enum train_method method)
{
    tiny_init(tiny, &model_family_llama, TRAIN_F32, ROWS);
    tiny->config.method = method;
    tiny->config.accumulation = 3;
    tiny->config.epochs = 100.0;
    tiny->config.max_steps = STEPS;
    tiny->config.validations = 3;
    tiny->config.patience = 3;
}

static void run_group_by(struct meeting *meeting, struct rank ranks[RANKS], enum way way,
                         int64_t bucket_elements)
{
    pthread_t threads[RANKS];
    assert_int_equal(pthread_barrier_init(&meeting->barrier, NULL, RANKS), 0);
    for (int r = 0; r < RANKS; r++) {
        struct rank *rank = &ranks[r];
        rank->seat = (struct seat){meeting, r};
        rank->group = (struct train_group){
            .rank = r,
            .size = RANKS,
            .sum_f32 = sum_f32,
            .sum_f64 = sum_f64,
            .context = &rank->seat,
        };
        choose_way(rank, way, bucket_elements);
        struct trainer_inputs inputs = tiny_inputs(&rank->tiny);
        inputs.group = &rank->group;
        assert_int_equal(trainer_create(rank->tiny.device, &inputs, &rank->trainer, &rank->err),
                         STATUS_OK);
    }
    for (int r = 0; r < RANKS; r++) {
        assert_int_equal(pthread_create(&threads[r], NULL, run_rank, &ranks[r]), 0);
    }
    for (int r = 0; r < RANKS; r++) {
        pthread_join(threads[r], NULL);
    }
    pthread_barrier_destroy(&meeting->barrier);
}

static void run_group(struct meeting *meeting, struct rank ranks[RANKS])
{
    run_group_by(meeting, ranks, OVER_THE_HOST, 0);
}

static void assert_near(const char *what, double found, double expected)
{
    if (!(fabs(found - expected) <= 1e-4 * (fabs(expected) + 1e-3))) {
        fail_msg("%s: %.9g, alone %.9g", what, found, expected);
    }
}

static void assert_like_alone(const struct trainer *rank, const struct trainer *alone)
{
    int64_t count = 0;
    const struct train_point *expected = trainer_curve(alone, &count);
    const struct train_point *found = trainer_curve(rank, &count);
    assert_int_equal(count, STEPS);
    for (int i = 0; i < STEPS; i++) {
        assert_int_equal(found[i].tokens, expected[i].tokens);
        assert_near("loss", found[i].train_loss, expected[i].train_loss);
        assert_near("gradient norm", found[i].gradient_norm, expected[i].gradient_norm);
        assert_int_equal(isnan(found[i].validation_loss), isnan(expected[i].validation_loss));
        if (!isnan(expected[i].validation_loss)) {
            assert_near("validation loss", found[i].validation_loss, expected[i].validation_loss);
        }
    }
}

static void assert_same_bits(const struct trainer *a, const struct trainer *b)
{
    struct tiny_state left;
    struct tiny_state right;
    tiny_state_save(a, &left);
    tiny_state_save(b, &right);
    assert_int_equal(left.count, right.count);
    for (int i = 0; i < left.count; i++) {
        if (strcmp(left.arrays[i].name, "curve") != 0 && /* it holds seconds */
            memcmp(left.values[i], right.values[i], tiny_array_bytes(&left.arrays[i])) != 0) {
            fail_msg("array %s differs between the ranks", left.arrays[i].name);
        }
    }
    tiny_state_fini(&left);
    tiny_state_fini(&right);
}

static void compare(enum train_method method)
{
    struct meeting *meeting = mem_calloc(1, sizeof(*meeting));
    struct rank *ranks = mem_calloc(RANKS, sizeof(*ranks));
    struct tiny tiny;
    init_tiny(&tiny, method);
    struct trainer *alone = tiny_trainer(&tiny);
    tiny_run(alone, STEPS);
    for (int r = 0; r < RANKS; r++) {
        init_tiny(&ranks[r].tiny, method);
    }
    run_group(meeting, ranks);
    for (int r = 0; r < RANKS; r++) {
        assert_int_equal(ranks[r].status, STATUS_OK);
        assert_like_alone(ranks[r].trainer, alone);
    }
    assert_same_bits(ranks[0].trainer, ranks[1].trainer);
    for (int r = 0; r < RANKS; r++) {
        trainer_destroy(ranks[r].trainer);
        tiny_fini(&ranks[r].tiny);
    }
    trainer_destroy(alone);
    tiny_fini(&tiny);
    free(ranks);
    free(meeting);
}

static void test_two_ranks_are_like_one(void **state)
{
    (void)state;
    compare(TRAIN_FULL);
    compare(TRAIN_LORA);
}

static void assert_same_parameters(const struct trainer *a, const struct trainer *b)
{
    struct tiny_state left;
    struct tiny_state right;
    tiny_state_save(a, &left);
    tiny_state_save(b, &right);
    int index = tiny_state_find(&left, "parameters");
    assert_memory_equal(left.values[index], right.values[index],
                        tiny_array_bytes(&left.arrays[index]));
    tiny_state_fini(&left);
    tiny_state_fini(&right);
}

static void fini_ranks(struct rank *ranks)
{
    for (int r = 0; r < RANKS; r++) {
        trainer_destroy(ranks[r].trainer);
        tiny_fini(&ranks[r].tiny);
    }
    free(ranks);
}

/* Whatever the way and the buckets, the bits are those of one sum over the host. */
static void test_every_way_has_the_same_bits(void **state)
{
    (void)state;
    const enum train_method methods[] = {TRAIN_FULL, TRAIN_LORA};
    for (int m = 0; m < 2; m++) {
        struct meeting *meeting = mem_calloc(1, sizeof(*meeting));
        struct rank *first = mem_calloc(RANKS, sizeof(*first));
        for (int r = 0; r < RANKS; r++) {
            init_tiny(&first[r].tiny, methods[m]);
        }
        run_group(meeting, first);
        for (int way = 0; way < WAYS; way++) {
            const int64_t buckets[] = {1000, 1 << 20};
            for (int b = 0; b < 2; b++) {
                struct rank *ranks = mem_calloc(RANKS, sizeof(*ranks));
                for (int r = 0; r < RANKS; r++) {
                    init_tiny(&ranks[r].tiny, methods[m]);
                }
                run_group_by(meeting, ranks, (enum way)way, buckets[b]);
                for (int r = 0; r < RANKS; r++) {
                    assert_int_equal(ranks[r].status, STATUS_OK);
                    assert_same_bits(ranks[r].trainer, first[0].trainer);
                }
                fini_ranks(ranks);
            }
        }
        fini_ranks(first);
        free(meeting);
    }
}

static void run_unlucky(int64_t stop_after, int32_t bad_id, enum way way, struct rank *ranks)
{
    struct meeting *meeting = mem_calloc(1, sizeof(*meeting));
    for (int r = 0; r < RANKS; r++) {
        init_tiny(&ranks[r].tiny, TRAIN_FULL);
    }
    ranks[1].stop_after = stop_after;
    for (int64_t i = 0; bad_id != 0 && i < ranks[1].tiny.train.start[ROWS]; i++) {
        ranks[1].tiny.train.ids[i] = bad_id;
    }
    run_group_by(meeting, ranks, way, 1000);
    free(meeting);
}

static void test_all_stop_after_the_same_step(void **state)
{
    (void)state;
    struct rank *ranks = mem_calloc(RANKS, sizeof(*ranks));
    run_unlucky(4, 0, OVER_THE_HOST, ranks);
    for (int r = 0; r < RANKS; r++) {
        assert_int_equal(ranks[r].status, STATUS_INTERRUPTED);
        assert_int_equal(trainer_steps_done(ranks[r].trainer), 4);
    }
    fini_ranks(ranks);
}

/* And nobody has learned from the step that it spoiled. */
static void test_a_failure_of_one_is_known_to_all(void **state)
{
    (void)state;
    struct tiny tiny;
    init_tiny(&tiny, TRAIN_FULL);
    struct trainer *fresh = tiny_trainer(&tiny);
    for (int way = 0; way < WAYS; way++) {
        struct rank *ranks = mem_calloc(RANKS, sizeof(*ranks));
        run_unlucky(0, 1000, (enum way)way,
                    ranks); /* ids outside the vocabulary, on rank 1 alone */
        assert_int_equal(ranks[0].status, STATUS_RANGE);
        assert_int_equal(ranks[1].status, STATUS_RANGE);
        assert_non_null(strstr(ranks[0].err.message, "another rank"));
        assert_null(strstr(ranks[1].err.message, "another rank"));
        for (int r = 0; r < RANKS; r++) {
            assert_int_equal(trainer_steps_done(ranks[r].trainer), 0);
            assert_same_parameters(ranks[r].trainer, fresh);
        }
        fini_ranks(ranks);
    }
    trainer_destroy(fresh);
    tiny_fini(&tiny);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_ranks_are_like_one),
        cmocka_unit_test(test_every_way_has_the_same_bits),
        cmocka_unit_test(test_all_stop_after_the_same_step),
        cmocka_unit_test(test_a_failure_of_one_is_known_to_all),
    };
    return cmocka_run_group_tests_name("train.group", tests, NULL, NULL);
}
