/* The run folder: its paths, snapshots, and the check of everything in it. */
#include "store/sample.h"

static void test_file_in_place_of_the_folder(void **state)
{
    struct store_lock *lock = NULL;
    struct error err = {0};
    char path[FILE_PATH_BYTES];
    sample_path(*state, "file", path);
    sample_write(path, "x", 1);
    assert_int_not_equal(store_folder_lock(path, &lock, &err), STATUS_OK);
    assert_non_null(strstr(err.message, path));
}

static void test_paths(void **state)
{
    char path[FILE_PATH_BYTES];
    struct error err = {0};
    (void)state;
    assert_int_equal(store_weights_path("r", 7, 2, path, &err), STATUS_OK);
    assert_string_equal(path, "r/weights/n0007-c2.h5");
    assert_int_equal(store_inflight_path("r", 12345, 0, path, &err), STATUS_OK);
    assert_string_equal(path, "r/inflight/n12345-c0.h5");
    assert_int_equal(store_data_path("r", "0123abcd", path, &err), STATUS_OK);
    assert_string_equal(path, "r/data/0123abcd.h5");
    assert_int_equal(store_data_path("r", "../../etc", path, &err), STATUS_INVALID);
    assert_int_equal(store_data_path("r", "", path, &err), STATUS_INVALID);
    char long_hash[200];
    memset(long_hash, 'a', sizeof(long_hash));
    long_hash[199] = '\0';
    assert_int_equal(store_data_path("r", long_hash, path, &err), STATUS_LIMIT);
}

static bool first_is_over(const void *context, int32_t node, int32_t candidate)
{
    return node == *(const int32_t *)context && candidate == 1;
}

/* The states of candidates that have an end go; everything else stays, whatever its name. */
static void test_states_of_the_dead(void **state)
{
    static const char *const stay[] = {"n0003-c0.h5",      "n0004-c1.h5", "n0003-c1.h5.old",
                                       "n3-c1.h5",         ".h5",         "notes.h5",
                                       "n0003-c1-copy.h5", "n0003-c9.h5"};
    const int32_t node = 3;
    char path[FILE_PATH_BYTES];
    char name[64];
    struct error err = {0};
    sample_path(*state, "inflight", path);
    assert_int_equal(file_make_folders(path, &err), STATUS_OK);
    for (size_t i = 0; i < sizeof(stay) / sizeof(stay[0]); i++) {
        snprintf(name, sizeof(name), "inflight/%s", stay[i]);
        sample_path(*state, name, path);
        sample_write(path, "x", 1);
    }
    sample_path(*state, "inflight/n0003-c1.h5", path);
    sample_write(path, "x", 1);
    store_inflight_sweep(*state, first_is_over, &node);
    assert_false(file_exists(path));
    for (size_t i = 0; i < sizeof(stay) / sizeof(stay[0]); i++) {
        snprintf(name, sizeof(name), "inflight/%s", stay[i]);
        sample_path(*state, name, path);
        assert_true(file_exists(path));
    }
    store_inflight_sweep("/no/such/folder", first_is_over, &node);
}

/* ---- verify ---- */

struct findings {
    int count, failures;
    char text[16384];
};

static void note_finding(void *context, const char *path, enum status status, const char *message)
{
    struct findings *findings = context;
    size_t used = strlen(findings->text);
    findings->count++;
    findings->failures += status != STATUS_OK;
    snprintf(findings->text + used, sizeof(findings->text) - used, "%s %s: %s\n",
             status_name(status), path, message);
}

static enum status verify(const char *folder, struct findings *findings, struct error *err)
{
    memset(findings, 0, sizeof(*findings));
    return store_verify(folder, note_finding, findings, err);
}

static enum status give(void *context, int64_t index, void *to, struct error *err)
{
    (void)context;
    (void)index;
    (void)err;
    memset(to, 7, 4000);
    return STATUS_OK;
}

static void write_weights(const char *folder, const char *name)
{
    const struct store_array array = {"w", "test", STORE_F32, 1, 1000, true};
    char path[FILE_PATH_BYTES];
    struct error err = {0};
    sample_path(folder, name, path);
    if (store_arrays_write(path, "weights", &array, 1, NULL, 0, give, NULL, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
}

/* Node 2's first candidate keeps its weights: see sample.h. */
enum { LAST = 2 + 3 * SAMPLE_EVENTS_A_NODE };

static void make_run(const char *folder)
{
    struct store_lock *lock = NULL;
    struct journal *journal = NULL;
    struct snapshot *snapshot = NULL;
    assert_int_equal(store_folder_lock(folder, &lock, NULL), STATUS_OK);
    assert_int_equal(journal_open(folder, lock, 0, &journal, NULL), STATUS_OK);
    assert_int_equal(snapshot_create(folder, journal, &snapshot, NULL), STATUS_OK);
    sample_append(journal, 1, LAST);
    for (int64_t last = 8; last <= LAST; last += 6) {
        assert_true(snapshot_start(snapshot, last));
        assert_int_equal(snapshot_wait(snapshot, NULL), STATUS_OK);
    }
    snapshot_destroy(snapshot);
    journal_close(journal);
    store_folder_unlock(lock);
    write_weights(folder, "weights/n0002-c0.h5");
}

static void test_verify(void **state)
{
    struct findings findings;
    struct error err = {0};
    char path[FILE_PATH_BYTES];
    assert_int_equal(verify("/no/such/folder", &findings, &err), STATUS_NOT_FOUND);
    make_run(*state);
    if (verify(*state, &findings, &err) != STATUS_OK) {
        fail_msg("%s", findings.text);
    }
    assert_int_equal(findings.failures, 0);
    assert_true(findings.count >= 5); /* two generations, journal, search, weights */

    write_weights(*state, "weights/n0001-c0.h5");
    write_weights(*state, "weights/n9999-c0.h5");
    sample_path(*state, "inflight/n0000-c0.h5.x.tmp", path);
    sample_write(path, "x", 1);
    assert_int_equal(verify(*state, &findings, &err), STATUS_OK);
    assert_non_null(strstr(findings.text, "the tree does not need it"));
    assert_non_null(strstr(findings.text, "of no candidate of the tree"));
    assert_non_null(strstr(findings.text, "was interrupted"));
    write_weights(*state, "inflight/n0001-c0.h5");
    assert_int_equal(verify(*state, &findings, &err),
                     STATUS_FORMAT); /* weights where a training state belongs */
}

/* The search that is being looked at runs: when its tree was read, it drops weights and removes the
 * file. */
static void drop_weights(void *context, const char *path, enum status status, const char *message)
{
    const char *folder = context;
    char weights[FILE_PATH_BYTES];
    struct store_lock *lock = NULL;
    struct journal *journal = NULL;
    if (status != STATUS_OK) {
        fail_msg("%s: %s", path, message);
    }
    sample_path(folder, "weights/n0002-c0.h5", weights);
    if (strcmp(path, folder) != 0 || !file_exists(weights)) {
        return;
    }
    cJSON *event = cJSON_Parse("{\"event\": \"weights_dropped\", \"node\": 2, \"candidate\": 0, "
                               "\"time_s\": 1}");
    cJSON_AddNumberToObject(event, "sequence", LAST + 1);
    assert_int_equal(store_folder_lock(folder, &lock, NULL), STATUS_OK);
    assert_int_equal(journal_open(folder, lock, LAST, &journal, NULL), STATUS_OK);
    assert_int_equal(journal_append(journal, event, NULL), STATUS_OK);
    journal_close(journal);
    store_folder_unlock(lock);
    assert_int_equal(unlink(weights), 0);
}

static void test_verify_live(void **state)
{
    struct error err = {0};
    char path[FILE_PATH_BYTES];
    make_run(*state);
    assert_int_equal(store_verify(*state, drop_weights, *state, &err), STATUS_OK);
    sample_path(*state, "weights/n0002-c0.h5", path);
    assert_false(file_exists(path));
}

/* It goes on after each finding, and gives the first failure. */
static void test_verify_finds(void **state)
{
    struct findings findings;
    struct error err = {0};
    char path[FILE_PATH_BYTES];
    make_run(*state);
    sample_path(*state, "weights/n0002-c0.h5", path);
    sample_write(path, "damaged", 7);
    assert_int_equal(verify(*state, &findings, &err), STATUS_FORMAT);
    assert_int_equal(findings.failures, 1);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(verify(*state, &findings, &err), STATUS_NOT_FOUND);
    assert_non_null(strstr(err.message, "n0002-c0.h5"));

    sample_path(*state, "run.h5", path);
    sample_write(path, "damaged", 7);
    assert_int_equal(verify(*state, &findings, &err), STATUS_FORMAT);
    assert_non_null(strstr(err.message, "run.h5"));
    assert_int_equal(findings.failures, 2);
    assert_non_null(strstr(findings.text, "run.prev.h5 is used"));

    sample_path(*state, "journal.jsonl", path);
    sample_write(path, "damaged\n", 8);
    sample_path(*state, "run.prev.h5", path);
    sample_write(path, "damaged", 7);
    assert_int_equal(verify(*state, &findings, &err), STATUS_FORMAT);
    assert_true(findings.failures >= 4);
}

/* While one is being written, no second one starts; a failure is told once. */
static void test_snapshot(void **state)
{
    struct journal *journal = NULL;
    struct snapshot *snapshot = NULL;
    struct error err = {0};
    char path[FILE_PATH_BYTES];
    assert_int_equal(journal_open(*state, NULL, 0, &journal, &err), STATUS_OK);
    sample_append(journal, 1, 200);
    assert_int_equal(snapshot_create(*state, journal, &snapshot, &err), STATUS_OK);
    assert_true(snapshot_seconds(snapshot) == 0.0);
    int starts = 0;
    for (int i = 0; i < 50; i++) {
        starts += snapshot_start(snapshot, 200);
    }
    assert_true(starts >= 1 && starts < 50);
    assert_int_equal(snapshot_wait(snapshot, &err), STATUS_OK);
    assert_true(snapshot_seconds(snapshot) > 0.0);
    assert_folder_holds(*state, 200, 200);

    sample_remove(*state);
    assert_true(snapshot_start(snapshot, 200));
    assert_int_equal(snapshot_wait(snapshot, &err), STATUS_NOT_FOUND);
    assert_int_equal(snapshot_check(snapshot, &err), STATUS_OK);
    assert_int_equal(file_make_folders(*state, NULL), STATUS_OK);
    assert_true(snapshot_start(snapshot, 200));
    snapshot_destroy(snapshot); /* waits for it */
    sample_path(*state, "run.h5", path);
    assert_true(file_exists(path));
    snapshot_destroy(NULL);
    journal_close(journal);
}

int main(void)
{
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, sample_setup, sample_teardown)
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_file_in_place_of_the_folder),
        IN_FOLDER(test_paths),
        IN_FOLDER(test_states_of_the_dead),
        IN_FOLDER(test_verify),
        IN_FOLDER(test_verify_live),
        IN_FOLDER(test_verify_finds),
        IN_FOLDER(test_snapshot),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
