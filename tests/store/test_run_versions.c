/* Files of other programs than this one: older schema versions are read, newer ones refused. */
#include <math.h>

#include "store/sample.h"
#include "tree/life.h"

enum { EVENTS = 3 + 20 * SAMPLE_EVENTS_A_NODE };

static void test_newer_schema(void **state)
{
    char path[FILE_PATH_BYTES];
    struct buffer whole;
    struct search found;
    struct error err = {0};
    char note[256];
    sample_path(*state, "run.h5", path);
    sample_save(*state, 9);
    sample_save(*state, 9);
    sample_read(path, &whole);
    sample_seal_again((unsigned char *)whole.data, whole.len_bytes, 7);
    sample_write(path, whole.data, whole.len_bytes);
    sample_expect_refused(path, STATUS_VERSION);
    /* No falling back to the older generation: that would throw away what the newer program did. */
    assert_int_equal(store_run_load(*state, &found, note, sizeof(note), &err), STATUS_VERSION);
    assert_non_null(strstr(err.message, "schema version 7"));
    assert_non_null(strstr(err.message, "reads schema version 4"));
    buffer_fini(&whole);
}

/* What the program of version 1 wrote: twelve events of the sample as it was then (a node with its
 * two candidates, a second one that has begun), 30 s of a first allocation and 4.5 s of a second.
 */
static void take_version_1(const char *folder, char path[FILE_PATH_BYTES])
{
    struct buffer whole;
    sample_read(TEST_SOURCE_DIR "/golden/store/run-schema-1.h5", &whole);
    sample_path(folder, "run.h5", path);
    sample_write(path, whole.data, whole.len_bytes);
    buffer_fini(&whole);
}

static void assert_version_1(const struct search *found)
{
    assert_int_equal(found->last_sequence, 15);
    assert_int_equal(found->tree.count, 2);
    /* What version 1 did not count: one core a rank, no GPU, nobody blamed, nothing happened. */
    assert_true(found->rank_seconds == 3.5 + 0.5 + 3.5 && found->gpu_seconds == 0.0);
    assert_true(found->core_seconds == found->rank_seconds);
    assert_true(found->nodes[0].candidates[1].core_seconds == 0.5);
    assert_int_equal(found->nodes[0].candidates[1].kills, 0);
    assert_string_equal(found->nodes[0].candidates[1].error->message, "loss is NaN at step 3");
    assert_null(found->nodes[0].candidates[0].error);
    assert_int_equal(found->incidents_seen, 0);
    assert_string_equal(found->halt_id, "");
    for (int id = 0; id < SEARCH_LIMIT_COUNT; id++) {
        assert_true(isnan(found->limits[id]));
    }
    /* Of allocations it knew their number, and how long the last one was. */
    assert_int_equal(found->allocation_count, 2);
    assert_true(found->allocation_seconds == 34.5);
    assert_true(found->allocations[0].seconds == 0.0 && found->allocations[1].seconds == 4.5);
    assert_string_equal(found->allocations[1].end, "not recorded");
    assert_string_equal(found->allocations[1].host, "");
}

static void test_file_of_version_1(void **state)
{
    char path[FILE_PATH_BYTES];
    struct search found;
    struct search again;
    struct error err = {0};
    take_version_1(*state, path);
    if (store_run_read(path, &found, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    assert_version_1(&found);
    /* It goes on, and its next generation is one of today. */
    cJSON *event = sample_parse("{\"sequence\":16,\"time_s\":9,\"event\":\"allocation_progress\","
                                "\"seconds\":6}");
    assert_int_equal(search_apply(&found, event, &err), STATUS_OK);
    cJSON_Delete(event);
    assert_true(found.allocations[1].seconds == 6.0 && found.allocation_seconds == 36.0);
    assert_int_equal(store_run_save(*state, &found, &err), STATUS_OK);
    assert_int_equal(store_run_read(path, &again, &err), STATUS_OK);
    assert_same_search(&found, &again);
    search_fini(&again);
    search_fini(&found);
    /* The generation before is still of version 1. */
    sample_path(*state, "run.prev.h5", path);
    assert_int_equal(store_run_read(path, &found, &err), STATUS_OK);
    assert_version_1(&found);
    search_fini(&found);
}

/* What the program of version 2 wrote: 74 events of the sample. Its calls, documents and prompts
 * are none; how many outcomes it had follows from the tree. */
static void test_file_of_version_2(void **state)
{
    struct search found;
    struct search wanted;
    struct error err = {0};
    (void)state;
    if (store_run_read(TEST_SOURCE_DIR "/golden/store/run-schema-2.h5", &found, &err) !=
        STATUS_OK) {
        fail_msg("%s", err.message);
    }
    sample_search(&wanted, 74);
    wanted.order_count = 0; /* which came first is not told */
    assert_true(wanted.outcomes > 40 && wanted.incident_count > 0 && wanted.halt_id[0] != '\0');
    assert_same_search(&wanted, &found);
    sample_advance(&found, EVENTS);
    sample_advance(&wanted, EVENTS);
    assert_same_search(&wanted, &found);
    search_fini(&wanted);
    search_fini(&found);
}

/* What the program of version 3 wrote: a life up to its second closed round. Plans that were asked
 * for are none. */
static void test_file_of_version_3(void **state)
{
    enum { EVENTS_OF_3 = 34 };
    struct search found;
    struct search wanted;
    struct error err = {0};
    (void)state;
    if (store_run_read(TEST_SOURCE_DIR "/golden/store/run-schema-3.h5", &found, &err) !=
        STATUS_OK) {
        fail_msg("%s", err.message);
    }
    live(&wanted, EVENTS_OF_3);
    wanted.order_count = 0;
    assert_true(wanted.call_count > 0 && wanted.document_count > 0 && wanted.ahead > 0);
    assert_same_search(&wanted, &found);
    for (int i = EVENTS_OF_3; i < LIFE_EVENTS; i++) {
        must_apply(&wanted, whole_life[i]);
        must_apply(&found, whole_life[i]);
    }
    assert_same_search(&wanted, &found);
    search_fini(&wanted);
    search_fini(&found);
}

/* Only a file that says that it is old may lack what is new. */
static void test_missing_column(void **state)
{
    char path[FILE_PATH_BYTES];
    struct buffer whole;
    struct search found;
    struct error err = {0};
    take_version_1(*state, path);
    sample_read(path, &whole);
    sample_seal_again((unsigned char *)whole.data, whole.len_bytes, STORE_SCHEMA_VERSION);
    sample_write(path, whole.data, whole.len_bytes);
    assert_int_equal(store_run_read(path, &found, &err), STATUS_CORRUPT);
    assert_non_null(strstr(err.message, "no column \"core_seconds\""));
    buffer_fini(&whole);
}

int main(void)
{
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, sample_setup, sample_teardown)
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_newer_schema),      IN_FOLDER(test_file_of_version_1),
        IN_FOLDER(test_file_of_version_2), IN_FOLDER(test_file_of_version_3),
        IN_FOLDER(test_missing_column),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
