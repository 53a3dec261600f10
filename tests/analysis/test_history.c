/* What status and show say of hours, allocations and incidents. */
#include "analysis/command.h"

/* The run of the fixture as one snapshot of so many events of the sample. */
static void make_run_of(struct fixture *f, int64_t last)
{
    char run[FILE_PATH_BYTES];
    char journal[FILE_PATH_BYTES];
    struct search search;
    sample_path(f->folder, "run", run);
    sample_path(run, "journal.jsonl", journal);
    unlink(journal);
    assert_false(file_exists(journal));
    sample_search(&search, last);
    assert_int_equal(store_run_save(run, &search, NULL), STATUS_OK);
    search_fini(&search);
}

/* Nodes 0 to 8: the allocation of node 5 goes on after that of node 2 was stopped, node 8 ends it.
 */
enum { TWO_ALLOCATIONS = 2 + 9 * SAMPLE_EVENTS_A_NODE };

static void test_hours(void **state)
{
    struct fixture *f = *state;
    make_run_of(f, TWO_ALLOCATIONS);
    /* sample.h: 4 s a node, with 2 threads and a GPU from the middle of node 5 on. */
    expect(f, "status run", 0, "0.0135 core-hours and 0.0035 GPU-hours of work");
    expect(f, "status run", 0, "60 s in 2 allocations");
    expect(f, "show run", 0, "1 failed, 1 finished; 0.0011 core-hours\n");
    expect(f, "show run", 0, "1 failed, 1 finished; 0.0022 core-hours, 0.0011 GPU-hours");
    expect(f, "show run n0006", 0, "planned 1970-01-01T00:16:46Z by rules; 0.0022 core-hours");
    expect(f, "show run n0006", 0, "4 s of work (0.0019 core-hours, 0.0010 GPU-hours)");
    cJSON *object = parsed(f, "status run --json");
    double cores = cJSON_GetObjectItem(object, "core_hours")->valuedouble;
    double gpus = cJSON_GetObjectItem(object, "gpu_hours")->valuedouble;
    assert_true(cores * 3600.0 > 48.49 && cores * 3600.0 < 48.51);
    assert_true(gpus * 3600.0 > 12.49 && gpus * 3600.0 < 12.51);
    cJSON_Delete(object);

    object = parsed(f, "show run --json");
    const cJSON *node = cJSON_GetArrayItem(cJSON_GetObjectItem(object, "nodes"), 6);
    const cJSON *candidate = cJSON_GetArrayItem(cJSON_GetObjectItem(node, "candidates"), 0);
    assert_true(cJSON_GetObjectItem(node, "gpu_hours")->valuedouble > 3.99 / 3600.0);
    assert_true(cJSON_GetObjectItem(candidate, "core_hours")->valuedouble > 6.99 / 3600.0);
    cJSON_Delete(object);
}

static void test_allocations(void **state)
{
    struct fixture *f = *state;
    make_run_of(f, TWO_ALLOCATIONS);
    expect(f, "status run", 0,
           "since 1970-01-01T00:16:46Z, Slurm job 71 on h5, 3 ranks of 2 threads and a GPU, 60 s");
    expect(f, "status run", 0, "its end     stopped: time limit");
    expect(f, "status run", 0, "1.2 s from the wish to stop, 4.5 s predicted\n");
    cJSON *object = parsed(f, "status run --json");
    assert_int_equal(cJSON_GetObjectItem(object, "allocations")->valueint, 2);
    const cJSON *list = cJSON_GetObjectItem(object, "allocation_list");
    assert_int_equal(cJSON_GetArraySize(list), 2);
    const cJSON *last = cJSON_GetArrayItem(list, 1);
    assert_string_equal(cJSON_GetObjectItem(last, "end")->valuestring, "stopped: time limit");
    assert_string_equal(cJSON_GetObjectItem(last, "job")->valuestring, "71");
    assert_true(cJSON_GetObjectItem(last, "safe_s")->valuedouble == 1.25);
    assert_true(cJSON_GetObjectItem(last, "predicted_s")->valuedouble == 4.5);
    assert_int_equal(cJSON_GetObjectItem(last, "restarts")->valueint, 1);
    cJSON_Delete(object);

    /* The second one has not ended, or died: what is known of safety is the first one's. */
    make_run_of(f, TWO_ALLOCATIONS - 9);
    expect(f, "status run", 0, "none was written");
    expect(f, "status run", 0, "4.5 s predicted (allocation 1)");
    object = parsed(f, "status run --json");
    last = cJSON_GetArrayItem(cJSON_GetObjectItem(object, "allocation_list"), 1);
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(last, "safe_s")));
    cJSON_Delete(object);
    struct store_lock *lock = NULL;
    char run[FILE_PATH_BYTES];
    sample_path(f->folder, "run", run);
    assert_int_equal(store_folder_lock(run, &lock, NULL), STATUS_OK);
    expect(f, "status run", 0, "none yet");
    store_folder_unlock(lock);

    make_run_of(f, 1); /* not one yet */
    expect(f, "status run", 0, "0 s in 0 allocations");
}

static void test_incidents(void **state)
{
    struct fixture *f = *state;
    make_run_of(f, TWO_ALLOCATIONS);
    expect(f, "status run", 0,
           "1970-01-01T00:16:42Z rank lost, n0001-c1, 2 s of work to be done again\n"
           "              rank 2 died\n");
    expect(f, "status run", 0, "1970-01-01T00:16:45Z rank lost, n0004-c1\n");
    assert_null(strstr(buffer_text(&f->out), "before these"));
    expect(f, "show run n0004", 0, "blamed   1 time for the end of its rank");
    expect(f, "show run n0004", 0, "rank lost, n0004-c1");
    assert_null(strstr(buffer_text(&f->out), "n0001-c1"));
    /* Text that is not ours stays harmless, and a long one is whole. */
    make_run_of(f, TWO_ALLOCATIONS + 2 * SAMPLE_EVENTS_A_NODE);
    append_event(
        f, "{\"event\":\"incident\",\"kind\":\"\\u001b[31mdisk\",\"message\":\"full \\u001b[2J"
           "one two three four five six seven eight nine ten eleven twelve thirteen "
           "fourteen fifteen sixteen seventeen end\",\"node\":10");
    tree(f, "status run");
    assert_null(strchr(buffer_text(&f->out), '\033'));
    assert_non_null(strstr(buffer_text(&f->out), "seventeen end\n"));
    assert_non_null(strstr(buffer_text(&f->out), ", n0010\n"));
    assert_non_null(strstr(buffer_text(&f->out), "and 2 before these, which --json has"));
    cJSON *object = parsed(f, "status run --json");
    const cJSON *list = cJSON_GetObjectItem(object, "incidents");
    assert_int_equal(cJSON_GetArraySize(list), 5);
    assert_int_equal(cJSON_GetObjectItem(object, "incidents_seen")->valueint, 5);
    const cJSON *first = cJSON_GetArrayItem(list, 0);
    assert_string_equal(cJSON_GetObjectItem(first, "kind")->valuestring, "rank lost");
    assert_true(cJSON_GetObjectItem(first, "lost_s")->valuedouble == 2.5);
    assert_int_equal(cJSON_GetObjectItem(first, "allocation")->valueint, 0);
    assert_int_equal(cJSON_GetObjectItem(first, "candidate")->valueint, 1);
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(cJSON_GetArrayItem(list, 1), "lost_s")));
    cJSON_Delete(object);
}

#define WITH_RUN(test) cmocka_unit_test_setup_teardown(test, make_fixture, remove_fixture)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_RUN(test_hours),
        WITH_RUN(test_allocations),
        WITH_RUN(test_incidents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
