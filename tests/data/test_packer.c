/* Packing: every sequence once an epoch, the same batches from every cursor, targets shifted. */
#include "base/rng.h"
#include "data/packer.h"
#include "fixture.h"

/* `count` sequences of random lengths; ids tell sequence and place, the last third of each is the
 * answer. */
static void make_data(struct encoded_dataset *data, int64_t count, int64_t min_length,
                      int64_t max_length)
{
    memset(data, 0, sizeof(*data));
    struct rng rng;
    rng_init(&rng, 99, 1);
    data->count = count;
    data->start = mem_calloc((size_t)count + 1, sizeof(*data->start));
    data->ids = mem_calloc((size_t)(count * max_length), sizeof(*data->ids));
    data->target = mem_calloc((size_t)(count * max_length), 1);
    data->row = mem_calloc((size_t)count, sizeof(*data->row));
    assert_true(data->start != NULL && data->ids != NULL && data->target != NULL &&
                data->row != NULL);
    for (int64_t i = 0; i < count; i++) {
        int64_t length =
            min_length + (int64_t)rng_below(&rng, (uint64_t)(max_length - min_length) + 1);
        data->start[i + 1] = data->start[i] + length;
        for (int64_t k = 0; k < length; k++) {
            data->ids[data->start[i] + k] = (int32_t)(i * 1000 + k);
            data->target[data->start[i] + k] = k > 0 && k >= length - length / 3 - 1;
        }
    }
}

static struct packer *make_packer(const struct encoded_dataset *data, int64_t batch_tokens,
                                  uint64_t seed, bool shuffle)
{
    struct packer *packer = NULL;
    struct error err = {0};
    if (packer_create(data, batch_tokens, seed, shuffle, &packer, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    return packer;
}

/* The whole of a batch as one hash, to compare batches. */
static uint64_t batch_hash(const struct batch *batch)
{
    uint64_t hash = 1469598103934665603u;
    for (int64_t i = 0; i < batch->tokens; i++) {
        int64_t word = (int64_t)batch->ids[i] * 31 + batch->targets[i] * 7 + batch->positions[i];
        hash = (hash ^ (uint64_t)word) * 1099511628211u;
    }
    return hash ^ (uint64_t)batch->sequences;
}

/* Marks the sequences of a batch as seen, checking everything about it. */
static void check_batch(const struct encoded_dataset *data, const struct batch *batch,
                        int64_t batch_tokens, uint8_t *seen)
{
    assert_in_range(batch->tokens, 1, batch_tokens);
    assert_int_equal(batch->starts[0], 0);
    assert_int_equal(batch->starts[batch->sequences], batch->tokens);
    int64_t targets = 0;
    for (int64_t s = 0; s < batch->sequences; s++) {
        int64_t at = batch->starts[s];
        int64_t sequence = batch->ids[at] / 1000;
        int64_t from = data->start[sequence];
        int64_t length = data->start[sequence + 1] - from;
        assert_int_equal(seen[sequence], 0);
        seen[sequence] = 1;
        assert_int_equal(batch->starts[s + 1] - at, length);
        for (int64_t i = 0; i < length; i++) {
            bool learned = i + 1 < length && data->target[from + i + 1] != 0;
            assert_int_equal(batch->ids[at + i], data->ids[from + i]);
            assert_int_equal(batch->positions[at + i], i);
            assert_int_equal(batch->targets[at + i], learned ? data->ids[from + i + 1] : -1);
            targets += learned;
        }
    }
    assert_int_equal(batch->target_count, targets);
}

static void check_epochs(int64_t count, int64_t min_length, int64_t max_length,
                         int64_t batch_tokens, bool shuffle)
{
    struct encoded_dataset data;
    make_data(&data, count, min_length, max_length);
    struct packer *packer = make_packer(&data, batch_tokens, 5, shuffle);
    struct packer_cursor cursor = {0, 0};
    uint8_t *seen = mem_calloc((size_t)count, 1);
    assert_non_null(seen);
    for (int64_t epoch = 0; epoch < 3; epoch++) {
        memset(seen, 0, (size_t)count);
        int64_t batches = packer_batches(packer, epoch);
        for (int64_t i = 0; i < batches; i++) {
            struct batch batch;
            struct error err = {0};
            assert_int_equal(cursor.epoch, epoch);
            assert_int_equal(cursor.batch, i);
            assert_int_equal(packer_next(packer, &cursor, &batch, &err), STATUS_OK);
            check_batch(&data, &batch, batch_tokens, seen);
        }
        for (int64_t i = 0; i < count; i++) {
            assert_int_equal(seen[i], 1);
        }
    }
    assert_int_equal(cursor.epoch, 3);
    assert_int_equal(cursor.batch, 0);
    free(seen);
    packer_destroy(packer);
    encoded_dataset_fini(&data);
}

static void test_every_sequence_once(void **state)
{
    (void)state;
    check_epochs(1, 1, 5, 5, true);
    check_epochs(100, 1, 1, 1, true);
    check_epochs(100, 1, 1, 1000, true);
    check_epochs(997, 2, 64, 64, true);
    check_epochs(997, 2, 64, 512, true);
    check_epochs(997, 2, 64, 512, false);
}

static void test_fill(void **state)
{
    (void)state;
    struct encoded_dataset data;
    make_data(&data, 5000, 10, 200);
    struct packer *packer = make_packer(&data, 512, 1, true);
    double tokens = (double)data.start[data.count];
    double expected = tokens / ((double)packer_batches(packer, 0) * 512);
    assert_true(packer_fill(packer) == expected);
    if (packer_fill(packer) < 0.97) {
        fail_msg("fill %.4f", packer_fill(packer));
    }
    packer_destroy(packer);
    encoded_dataset_fini(&data);
}

/* From every cursor of two epochs, a fresh packer gives what the first one gave. */
static void test_resume_anywhere(void **state)
{
    (void)state;
    struct encoded_dataset data;
    make_data(&data, 120, 2, 40);
    struct packer *packer = make_packer(&data, 64, 8, true);
    int64_t total = packer_batches(packer, 0) + packer_batches(packer, 1);
    uint64_t *hashes = mem_calloc((size_t)total, sizeof(*hashes));
    struct packer_cursor *cursors = mem_calloc((size_t)total, sizeof(*cursors));
    assert_true(hashes != NULL && cursors != NULL);
    struct packer_cursor cursor = {0, 0};
    struct batch batch;
    struct error err = {0};
    for (int64_t i = 0; i < total; i++) {
        cursors[i] = cursor;
        assert_int_equal(packer_next(packer, &cursor, &batch, &err), STATUS_OK);
        hashes[i] = batch_hash(&batch);
    }
    for (int64_t i = 0; i < total; i++) {
        struct packer *fresh = make_packer(&data, 64, 8, true);
        struct packer_cursor from = cursors[i];
        for (int64_t k = i; k < total && k < i + 3; k++) {
            assert_int_equal(packer_next(fresh, &from, &batch, &err), STATUS_OK);
            assert_true(batch_hash(&batch) == hashes[k]);
        }
        packer_destroy(fresh);
        /* Any place of the stream can also be named from epoch 0 on, as ranks of a group do. */
        struct packer_cursor far = {0, i};
        assert_int_equal(packer_next(packer, &far, &batch, &err), STATUS_OK);
        assert_true(batch_hash(&batch) == hashes[i]);
        (void)packer_batches(packer, i); /* planning another epoch disturbs nothing */
    }
    free(hashes);
    free(cursors);
    packer_destroy(packer);
    encoded_dataset_fini(&data);
}

static uint64_t first_hash(const struct encoded_dataset *data, uint64_t seed, bool shuffle,
                           int64_t epoch)
{
    struct packer *packer = make_packer(data, 64, seed, shuffle);
    struct packer_cursor cursor = {epoch, 0};
    struct batch batch;
    struct error err = {0};
    assert_int_equal(packer_next(packer, &cursor, &batch, &err), STATUS_OK);
    uint64_t hash = batch_hash(&batch);
    packer_destroy(packer);
    return hash;
}

static void test_order_depends_on_seed_and_epoch(void **state)
{
    (void)state;
    struct encoded_dataset data;
    make_data(&data, 120, 2, 40);
    assert_true(first_hash(&data, 1, true, 0) == first_hash(&data, 1, true, 0));
    assert_true(first_hash(&data, 1, true, 0) != first_hash(&data, 2, true, 0));
    assert_true(first_hash(&data, 1, true, 0) != first_hash(&data, 1, true, 1));
    assert_true(first_hash(&data, 1, false, 0) == first_hash(&data, 2, false, 0));
    assert_true(first_hash(&data, 1, false, 0) == first_hash(&data, 1, false, 7));
    encoded_dataset_fini(&data);
}

static void test_mistakes(void **state)
{
    (void)state;
    struct encoded_dataset data;
    make_data(&data, 20, 5, 5);
    struct packer *packer = NULL;
    struct error err = {0};
    assert_int_equal(packer_create(&data, 4, 0, true, &packer, &err), STATUS_RANGE);
    assert_non_null(strstr(err.message, "batch_tokens is 4, allowed are 5 (the longest sequence)"));
    assert_int_equal(packer_create(&data, (int64_t)INT32_MAX + 1, 0, true, &packer, &err),
                     STATUS_RANGE);
    struct encoded_dataset none = {0};
    assert_int_equal(packer_create(&none, 4, 0, true, &packer, &err), STATUS_INVALID);
    assert_null(packer);
    packer_destroy(NULL);

    packer = make_packer(&data, 5, 0, true);
    struct batch batch;
    static const struct packer_cursor wrong[] = {
        {-1, 0}, {0, -1}, {INT64_MAX, 0}, {0, INT64_MAX}, {INT64_MAX, INT64_MAX}};
    for (int i = 0; i < 5; i++) {
        struct packer_cursor cursor = wrong[i];
        assert_int_equal(packer_next(packer, &cursor, &batch, &err), STATUS_RANGE);
        assert_memory_equal(&cursor, &wrong[i], sizeof(cursor)); /* unchanged */
    }
    packer_destroy(packer);
    data.start[3] = data.start[2]; /* an empty sequence */
    assert_int_equal(packer_create(&data, 10, 0, true, &packer, &err), STATUS_INVALID);
    encoded_dataset_fini(&data);
}

static void test_no_memory(void **state)
{
    (void)state;
    struct encoded_dataset data;
    make_data(&data, 20, 5, 5);
    for (int n = 1;; n++) {
        struct packer *packer = NULL;
        struct error err = {0};
        mem_fail_nth(n);
        enum status status = packer_create(&data, 16, 0, true, &packer, &err);
        mem_fail_nth(0);
        if (status == STATUS_OK) {
            assert_true(n > 10);
            packer_destroy(packer);
            break;
        }
        assert_int_equal(status, STATUS_NO_MEMORY);
        assert_null(packer);
    }
    encoded_dataset_fini(&data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_sequence_once),
        cmocka_unit_test(test_fill),
        cmocka_unit_test(test_resume_anywhere),
        cmocka_unit_test(test_order_depends_on_seed_and_epoch),
        cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
