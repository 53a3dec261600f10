/* run.h5: what goes in comes out; whatever else is in its place is an error that names it. */
#include "store/sample.h"

#include <hdf5.h>
#include <math.h>
#include <time.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"
#include "store/run_tables.h"
#include "store/seal.h"
#include "tree/life.h"

enum { EVENTS = 3 + 20 * SAMPLE_EVENTS_A_NODE };

static void test_round_trip(void **state)
{
    const int64_t lengths[] = {1, 2, 3, 5, 8, EVENTS};
    char path[FILE_PATH_BYTES];
    sample_path(*state, "run.h5", path);
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        struct search wanted;
        struct search found;
        struct error err = {0};
        sample_search(&wanted, lengths[i]);
        assert_int_equal(store_run_save(*state, &wanted, &err), STATUS_OK);
        if (store_run_read(path, &found, &err) != STATUS_OK) {
            fail_msg("%s", err.message);
        }
        assert_same_search(&wanted, &found);
        assert_int_equal(tree_check(&found.tree, &err), STATUS_OK);
        /* And it goes on as the one that was saved. */
        sample_advance(&wanted, EVENTS);
        sample_advance(&found, EVENTS);
        assert_same_search(&wanted, &found);
        search_fini(&wanted);
        search_fini(&found);
    }
}

/* /search has a column for each limit, under its name. */
static void test_columns_of_limits(void **state)
{
    (void)state;
    const struct table *table = &run_tables[RUN_SEARCH];
    for (int id = 0; id < SEARCH_LIMIT_COUNT; id++) {
        char name[64];
        int found = 0;
        snprintf(name, sizeof(name), "limit_%s", search_limits[id].name);
        for (int i = 0; i < table->column_count; i++) {
            found += strcmp(table->columns[i].name, name) == 0 &&
                     table->columns[i].offset ==
                         offsetof(struct search_row, limits) + (size_t)id * sizeof(double);
        }
        assert_int_equal(found, 1);
    }
}

/* A model may say anything, and a message may be cut in the middle of a character. */
static void test_text_that_is_not_utf8(void **state)
{
    struct search search;
    struct search found;
    struct error err = {0};
    char path[FILE_PATH_BYTES];
    sample_search(&search, EVENTS);
    strcpy(search.nodes[0].candidates[0].cases[0].output, "\xC3");
    memset(search.nodes[0].candidates[1].error->message, 0xE2, sizeof(err.message) - 1);
    assert_int_equal(store_run_save(*state, &search, &err), STATUS_OK);
    sample_path(*state, "run.h5", path);
    if (store_run_read(path, &found, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    assert_string_equal(found.nodes[0].candidates[0].cases[0].output, "\xEF\xBF\xBD");
    assert_memory_equal(found.nodes[0].candidates[1].error->message, "\xEF\xBF\xBD\xEF\xBF\xBD", 6);
    search_fini(&found);
    search_fini(&search);
}

static void test_two_generations(void **state)
{
    char path[FILE_PATH_BYTES];
    char previous[FILE_PATH_BYTES];
    struct search found;
    sample_path(*state, "run.h5", path);
    sample_path(*state, "run.prev.h5", previous);
    sample_save(*state, 9);
    assert_false(file_exists(previous));
    sample_save(*state, 20);
    assert_int_equal(store_run_read(previous, &found, NULL), STATUS_OK);
    assert_int_equal(found.last_sequence, 9);
    search_fini(&found);

    /* A damaged run.h5 does not push the good generation out. */
    sample_write(path, "damaged", 7);
    assert_folder_holds(*state, 9, 9);
    sample_save(*state, 26);
    assert_int_equal(store_run_read(previous, &found, NULL), STATUS_OK);
    assert_int_equal(found.last_sequence, 9);
    search_fini(&found);
    assert_folder_holds(*state, 26, 26);
}

static void test_load_says_what_was_used(void **state)
{
    struct search found;
    struct error err = {0};
    char note[512];
    char path[FILE_PATH_BYTES];
    sample_path(*state, "run.h5", path);
    assert_int_equal(store_run_load(*state, &found, note, sizeof(note), &err), STATUS_NOT_FOUND);
    assert_int_equal(store_run_load("/no/such/folder", &found, note, sizeof(note), &err),
                     STATUS_NOT_FOUND);
    assert_non_null(strstr(err.message, "/no/such/folder"));

    sample_save(*state, 9);
    sample_save(*state, 20);
    assert_int_equal(store_run_load(*state, &found, note, sizeof(note), &err), STATUS_OK);
    assert_string_equal(note, "");
    search_fini(&found);

    assert_int_equal(unlink(path), 0);
    assert_int_equal(store_run_load(*state, &found, note, sizeof(note), &err), STATUS_OK);
    assert_non_null(strstr(note, "run.h5 is missing"));
    assert_non_null(strstr(note, "run.prev.h5 is used"));
    assert_int_equal(found.last_sequence, 9);
    search_fini(&found);

    /* Both gone: the error is about the newer one. */
    sample_path(*state, "run.prev.h5", path);
    sample_write(path, "x", 1);
    sample_path(*state, "run.h5", path);
    sample_write(path, "y", 1);
    assert_int_equal(store_run_load(*state, &found, note, sizeof(note), &err), STATUS_FORMAT);
    assert_non_null(strstr(err.message, "run.h5"));
    /* No room for the note is no crash. */
    assert_int_equal(store_run_load(*state, &found, note, 0, &err), STATUS_FORMAT);
    assert_int_equal(store_run_load(*state, &found, note, 3, NULL), STATUS_FORMAT);
}

static void test_foreign_files(void **state)
{
    char path[FILE_PATH_BYTES];
    sample_path(*state, "x.h5", path);
    sample_expect_refused(path, STATUS_NOT_FOUND);
    sample_write(path, "", 0);
    sample_expect_refused(path, STATUS_CORRUPT);
    sample_write(path, "hello, this is no HDF5 file", 27);
    sample_expect_refused(path, STATUS_FORMAT);
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(file >= 0);
    H5Fclose(file);
    sample_expect_refused(path, STATUS_FORMAT);
    /* Ours, but of another kind. */
    struct error err = {0};
    if (store_arrays_write(path, "data", NULL, 0, NULL, 0, NULL, NULL, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    sample_expect_refused(path, STATUS_FORMAT);
    sample_expect_refused(*state, STATUS_FORMAT); /* a folder */
}

/* Damage that the seal catches before HDF5 sees a byte. */
static void test_cut_at_any_length(void **state)
{
    char path[FILE_PATH_BYTES];
    struct buffer whole;
    struct rng rng;
    sample_path(*state, "run.h5", path);
    sample_save(*state, EVENTS);
    sample_read(path, &whole);
    rng_init(&rng, 1, 0);
    for (int i = 0; i < 50; i++) {
        size_t length = (size_t)rng_below(&rng, whole.len_bytes);
        alarm(200);
        sample_write(path, whole.data, length);
        sample_expect_refused(path, length < 10 && length > 0 ? STATUS_FORMAT : STATUS_CORRUPT);
    }
    /* And longer. */
    buffer_append_char(&whole, 'x');
    sample_write(path, whole.data, whole.len_bytes);
    sample_expect_refused(path, STATUS_CORRUPT);
    alarm(0);
    buffer_fini(&whole);
}

static void test_any_flipped_byte(void **state)
{
    char path[FILE_PATH_BYTES];
    struct buffer whole;
    struct rng rng;
    sample_path(*state, "run.h5", path);
    sample_save(*state, EVENTS);
    sample_read(path, &whole);
    rng_init(&rng, 2, 0);
    for (int i = 0; i < 300; i++) {
        struct search found;
        struct error err = {0};
        /* Every byte of the seal, then any. */
        size_t at = i < 100 ? (size_t)i : (size_t)rng_below(&rng, whole.len_bytes);
        char before = whole.data[at];
        alarm(200);
        whole.data[at] = (char)(before ^ (1 << rng_below(&rng, 8)));
        sample_write(path, whole.data, whole.len_bytes);
        enum status status = store_run_read(path, &found, &err);
        if (status != STATUS_CORRUPT && status != STATUS_FORMAT && status != STATUS_VERSION) {
            fail_msg("byte %zu flipped: %s %s", at, status_name(status), err.message);
        }
        assert_non_null(strstr(err.message, path));
        whole.data[at] = before;
    }
    alarm(0);
    buffer_fini(&whole);
}

/* A save whose text is changed at one place, behind a seal that fits. */
static void expect_damage(const char *folder, const char *text, const char *other,
                          const char *expected)
{
    char path[FILE_PATH_BYTES];
    struct buffer whole;
    struct error err = {0};
    struct search found;
    sample_path(folder, "run.h5", path);
    sample_save(folder, 30);
    sample_read(path, &whole);
    char *place = memmem(whole.data, whole.len_bytes, text, strlen(text));
    assert_non_null(place);
    memcpy(place, other, strlen(other));
    sample_seal_again((unsigned char *)whole.data, whole.len_bytes, STORE_SCHEMA_VERSION);
    sample_write(path, whole.data, whole.len_bytes);
    assert_int_equal(store_run_read(path, &found, &err), STATUS_CORRUPT);
    if (strstr(err.message, expected) == NULL) {
        fail_msg("%s: expected %s", err.message, expected);
    }
    buffer_fini(&whole);
}

/* The tables' own checksums: they hold where the file was copied by other tools, without our seal.
 */
static void test_changed_text_behind_a_good_seal(void **state)
{
    expect_damage(*state, "last words", "L", "/candidates is damaged");
    expect_damage(*state, "stopped: time limit", "S", "/allocations is damaged");
    expect_damage(*state, "rank 2 died", "R", "/incidents is damaged");
    /* Text that is not UTF-8 is refused before it is summed. */
    expect_damage(*state, "last words", "\xFF", "\"log_tail\"");
    expect_damage(*state, "rank 2 died", "\xFF", "\"message\"");
    /* Names of tables and columns. */
    expect_damage(*state, "predicted_s", "P", "/allocations has no column \"predicted_s\"");
}

/* ---- rows that make no sense, from a program that seals and sums them rightly ---- */

enum forgery {
    FORGE_PARENT,
    FORGE_BEST,
    FORGE_WINNER,
    FORGE_CANDIDATES,
    FORGE_CURVE,
    FORGE_INSIGHT,
    FORGE_SEQUENCE,
    FORGE_SCORE,
    FORGE_STATE,
    FORGE_KILLS,
    FORGE_COST,
    FORGE_COST_OF_ALL,
    FORGE_RANKS,
    FORGE_THREADS,
    FORGE_LASTED,
    FORGE_SAFETY,
    FORGE_ALLOCATION,
    FORGE_INCIDENT_NODE,
    FORGE_INCIDENT_CANDIDATE,
    FORGE_INCIDENT_LOSS,
    FORGE_INCIDENTS,
    FORGE_LIMIT,
    FORGE_WHOLE_LIMIT,
    FORGE_ENDLESS_LIMIT,
    FORGE_HALT,
    FORGE_COUNT
};

static void forge_history(struct search *search, enum forgery forgery)
{
    struct search_allocation *allocation = &search->allocations[0];
    struct search_incident *incident = &search->incidents[0];
    switch (forgery) {
    case FORGE_COST_OF_ALL:
        search->gpu_seconds = INFINITY;
        break;
    case FORGE_RANKS:
        allocation->ranks = 0;
        break;
    case FORGE_THREADS:
        allocation->threads = -1;
        break;
    case FORGE_LASTED:
        allocation->seconds = NAN;
        break;
    case FORGE_SAFETY:
        allocation->safe_s = -1.0;
        break;
    case FORGE_ALLOCATION:
        incident->allocation = 1;
        break;
    case FORGE_INCIDENT_NODE:
        incident->node = 1000;
        break;
    case FORGE_INCIDENT_CANDIDATE:
        incident->candidate = 2;
        break;
    case FORGE_INCIDENT_LOSS:
        incident->lost_s = INFINITY;
        break;
    case FORGE_LIMIT:
        search->limits[SEARCH_LIMIT_CORE_HOURS] = -1.0;
        break;
    case FORGE_WHOLE_LIMIT:
        search->limits[SEARCH_LIMIT_ROUNDS] = 2.5;
        break;
    case FORGE_ENDLESS_LIMIT:
        search->limits[SEARCH_LIMIT_GOAL_SCORE] = INFINITY;
        break;
    case FORGE_HALT:
        strcpy(search->halt_id, "0123456789'; rm");
        break;
    default:
        search->incidents_seen += 5;
        break;
    }
}

static void forge(struct search *search, enum forgery forgery)
{
    struct candidate *first = &search->nodes[0].candidates[0];
    switch (forgery) {
    case FORGE_PARENT:
        search->tree.nodes[1].parent = 7;
        break;
    case FORGE_BEST:
        search->nodes[0].best = 1; /* that one failed */
        break;
    case FORGE_WINNER:
        search->winner_node = 1000;
        search->winner_candidate = 0;
        break;
    case FORGE_CANDIDATES:
        search->nodes[0].best = 3;
        break;
    case FORGE_CURVE:
        first->curve_count = SEARCH_CURVE_MAX + 1;
        first->curve = arena_alloc(&search->arena, SEARCH_CURVE_MAX + 1, sizeof(*first->curve));
        break;
    case FORGE_INSIGHT:
        search->insights[0].nodes[0] = 5000;
        break;
    case FORGE_SEQUENCE:
        search->last_sequence = -3;
        break;
    case FORGE_SCORE:
        first->validation.standard_error = -1.0;
        break;
    case FORGE_STATE:
        search->tree.nodes[0].visits = 77;
        break;
    case FORGE_KILLS:
        first->kills = -1;
        break;
    case FORGE_COST:
        first->core_seconds = NAN;
        break;
    default:
        forge_history(search, forgery);
        break;
    }
}

static void test_rows_that_make_no_sense(void **state)
{
    char path[FILE_PATH_BYTES];
    sample_path(*state, "run.h5", path);
    for (int i = 0; i < FORGE_COUNT; i++) {
        struct search search;
        struct search found;
        struct error err = {0};
        sample_search(&search, 30);
        forge(&search, (enum forgery)i);
        assert_int_equal(store_run_save(*state, &search, NULL), STATUS_OK);
        enum status status = store_run_read(path, &found, &err);
        if (status != STATUS_CORRUPT) {
            fail_msg("forgery %d: %s", i, status_name(status));
        }
        assert_non_null(strstr(err.message, path));
        search_fini(&search);
    }
}

/* Each allocation fails in turn: an error, no leak (the sanitizers look), and the next try
 * succeeds. */
static void test_no_memory(void **state)
{
    char path[FILE_PATH_BYTES];
    struct search search;
    struct search found;
    live(&search, LIFE_EVENTS);
    sample_path(*state, "run.h5", path);
    int failures = 0;
    for (int64_t n = 1;; n++) {
        struct error err = {0};
        mem_fail_nth(n);
        enum status status = store_run_save(*state, &search, &err);
        if (status == STATUS_OK) {
            break;
        }
        assert_true(status == STATUS_NO_MEMORY ||
                    status == STATUS_LIMIT); /* a buffer that cannot grow */
        failures++;
    }
    mem_fail_nth(0);
    assert_true(failures > 5);
    for (int64_t n = 1;; n++) {
        struct error err = {0};
        mem_fail_nth(n);
        enum status status = store_run_read(path, &found, &err);
        if (status == STATUS_OK) {
            break;
        }
        failures++;
    }
    mem_fail_nth(0);
    assert_true(failures > 50);
    assert_same_search(&search, &found);
    search_fini(&found);
    search_fini(&search);
}

/* Standard tools read it. */
static void test_tools(void **state)
{
    char command[FILE_PATH_BYTES + 128];
    if (system("command -v h5dump >/dev/null && command -v h5ls >/dev/null") != 0) {
        print_message("h5dump is not installed: skipped\n");
        skip();
    }
    sample_save(*state, EVENTS);
    snprintf(command, sizeof(command), "h5ls -r '%s/run.h5' > '%s/ls.txt'", (char *)*state,
             (char *)*state);
    assert_int_equal(system(command), 0);
    snprintf(command, sizeof(command), "h5dump -d /nodes '%s/run.h5' | grep -q 'refine data'",
             (char *)*state);
    assert_int_equal(system(command), 0);
    snprintf(command, sizeof(command),
             "h5dump -a /nodes/reward '%s/run.h5' | grep -q 'best validation score'",
             (char *)*state);
    assert_int_equal(system(command), 0);
    snprintf(command, sizeof(command), "h5dump -d /incidents '%s/run.h5' | grep -q 'rank 2 died'",
             (char *)*state);
    assert_int_equal(system(command), 0);
    snprintf(command, sizeof(command),
             "h5dump -a /allocations/safe_s -d /allocations '%s/run.h5' | grep -q 'time limit'",
             (char *)*state);
    assert_int_equal(system(command), 0);
    snprintf(command, sizeof(command), "h5dump -d /candidates '%s/run.h5' | grep -q 'FINISHED'",
             (char *)*state);
    assert_int_equal(system(command), 0);
    struct search search;
    live(&search, LIFE_EVENTS);
    assert_int_equal(store_run_save(*state, &search, NULL), STATUS_OK);
    search_fini(&search);
    static const char *const shown[] = {"/calls",      "n0000/diagnose/1", "/documents",
                                        "hf_datasets", "/prompts",         "brief"};
    for (int i = 0; i < 6; i += 2) {
        snprintf(command, sizeof(command), "h5dump -d %s '%s/run.h5' | grep -q '%s'", shown[i],
                 (char *)*state, shown[i + 1]);
        assert_int_equal(system(command), 0);
    }
}

static void test_unwritable_folder(void **state)
{
    struct search search;
    struct error err = {0};
    char path[FILE_PATH_BYTES];
    sample_search(&search, 5);
    sample_path(*state, "a-file", path);
    sample_write(path, "x", 1);
    assert_int_not_equal(store_run_save(path, &search, &err), STATUS_OK);
    assert_non_null(strstr(err.message, path));
    assert_int_equal(store_run_save("/no/such/folder", &search, &err), STATUS_NOT_FOUND);
    search_fini(&search);
}

int main(void)
{
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, sample_setup, sample_teardown)
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_round_trip),
        IN_FOLDER(test_text_that_is_not_utf8),
        IN_FOLDER(test_two_generations),
        IN_FOLDER(test_load_says_what_was_used),
        IN_FOLDER(test_foreign_files),
        IN_FOLDER(test_cut_at_any_length),
        IN_FOLDER(test_any_flipped_byte),
        IN_FOLDER(test_changed_text_behind_a_good_seal),
        IN_FOLDER(test_rows_that_make_no_sense),
        IN_FOLDER(test_no_memory),
        IN_FOLDER(test_tools),
        IN_FOLDER(test_unwritable_folder),
        cmocka_unit_test(test_columns_of_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
