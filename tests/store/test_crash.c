/* A process dies, or the disk fails, at every moment that matters of every write: afterwards there
 * is the old state or the new one, and nothing that was on disk is lost. */
#include "store/sample.h"

#include <sys/mount.h>

#include "store/lock.h"

enum { BEFORE = 21, AFTER = 40, SNAPSHOT_EVERY = 6, MARK_BYTES = 32 };

/* What the work knew to be on disk when it died. */
static void write_mark(const char *folder, int64_t durable)
{
    char path[FILE_PATH_BYTES];
    char text[MARK_BYTES] = "";
    if (file_join(folder, "mark", path, NULL) == STATUS_OK) {
        snprintf(text, sizeof(text), "%lld", (long long)durable);
        FILE *file = fopen(path, "w");
        if (file != NULL) {
            fputs(text, file);
            fclose(file);
        }
    }
}

static int64_t read_mark(const char *folder)
{
    char path[FILE_PATH_BYTES];
    struct buffer text;
    sample_path(folder, "mark", path);
    sample_read(path, &text);
    int64_t mark = strtoll(buffer_text(&text), NULL, 10);
    buffer_fini(&text);
    return mark;
}

/* A search as the controller runs it: lock, journal, snapshots, one after the other. */
static enum status run_search(const char *folder, struct error *err)
{
    enum status status = STATUS_OK;
    struct journal *journal = NULL;
    struct snapshot *snapshot = NULL;
    struct store_lock *lock = NULL;
    struct search search;
    char note[256];
    int64_t durable = 0;
    TRY(lock_take(folder, &(struct lock_options){0.2, 2.0}, &lock, err));
    search_init(&search);
    TRY_CLEANUP(store_run_load(folder, &search, note, sizeof(note), err));
    TRY_CLEANUP(journal_open(folder, lock, search.last_sequence, &journal, err));
    TRY_CLEANUP(snapshot_create(folder, journal, &snapshot, err));
    while (search.last_sequence < AFTER) {
        int64_t next = search.last_sequence + 1;
        TRY_CLEANUP(journal_append(journal, sample_event(next), err));
        TRY_CLEANUP(journal_flush(journal, err));
        TRY_CLEANUP(journal_durable(journal, &durable, err));
        sample_advance(&search, next);
        write_mark(folder, durable);
        if (next % SNAPSHOT_EVERY == 0) {
            snapshot_start(snapshot, search.last_sequence);
            TRY_CLEANUP(snapshot_wait(snapshot, err));
        }
    }
cleanup:
    snapshot_destroy(snapshot);
    journal_close(journal);
    search_fini(&search);
    store_folder_unlock(lock);
    return status;
}

static void begin(const char *folder)
{
    struct journal *journal = NULL;
    assert_int_equal(journal_open(folder, NULL, 0, &journal, NULL), STATUS_OK);
    sample_append(journal, 1, BEFORE);
    journal_close(journal);
    write_mark(folder, BEFORE);
}

/* Moments, and how often a search passes them at least. */
static const struct {
    const char *point;
    int passings;
} moments[] = {
    {"store.lock.before_claim", 1},
    {"store.lock.created", 1},
    {"store.lock.filled", 1},
    {"store.lock.claimed", 1},
    {"store.lock.swept", 1},
    {"store.journal.before_write", 4},
    {"store.journal.mid_write", 4},
    {"store.journal.after_sync", 4},
    {"store.run.before_write", 3},
    {"store.run.mid_write", 3},
    {"base.file.before_rename", 4},
    {"base.file.after_rename", 4},
    {"base.file.between_generations", 2},
};
enum { MOMENT_COUNT = sizeof(moments) / sizeof(moments[0]) };

/* Each moment at its first passings: when the journal is opened, in snapshots with and without a
 * generation before, in rotations too. */
static void each_moment(const char *folder, const char *what, int wanted)
{
    for (int i = 0; i < MOMENT_COUNT; i++) {
        for (int passing = 1; passing <= moments[i].passings; passing++) {
            char fault[96];
            char own[FILE_PATH_BYTES];
            char name[16];
            snprintf(name, sizeof(name), "%d-%d", i, passing);
            sample_path(folder, name, own);
            assert_int_equal(file_make_folders(own, NULL), STATUS_OK);
            begin(own);
            snprintf(fault, sizeof(fault), "%s:%d=%s", moments[i].point, passing, what);
            int ended = sample_run(fault, run_search, own);
            if (ended != wanted) {
                fail_msg("%s: ended with %d, expected %d", fault, ended, wanted);
            }
            assert_folder_holds(own, read_mark(own), AFTER);
            /* The same command resumes. */
            assert_int_equal(sample_run(NULL, run_search, own), STATUS_OK);
            assert_folder_holds(own, AFTER, AFTER);
        }
    }
}

static void test_kill(void **state)
{
    each_moment(*state, "kill", 128 + SIGKILL);
}

static void test_no_space(void **state)
{
    each_moment(*state, "enospc", STATUS_NO_SPACE);
}

static void test_disk_error(void **state)
{
    each_moment(*state, "eio", STATUS_IO);
}

/* At random instants, again and again on one folder. */
static void test_kill_at_random(void **state)
{
    begin(*state);
    for (int i = 0; i < 20; i++) {
        pid_t child = fork();
        if (child == 0) {
            struct error err = {0};
            _exit((int)run_search(*state, &err));
        }
        usleep((useconds_t)(500 + i * 911 % 15000));
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        assert_folder_holds(*state, read_mark(*state), AFTER);
    }
    assert_int_equal(sample_run(NULL, run_search, *state), STATUS_OK);
    assert_folder_holds(*state, AFTER, AFTER);
}

/* Either generation may be lost at any time: the journal reaches back to the older one. */
static void test_losing_the_newest_generation_loses_nothing(void **state)
{
    char path[FILE_PATH_BYTES];
    begin(*state);
    assert_int_equal(sample_run(NULL, run_search, *state), STATUS_OK);
    sample_path(*state, "run.h5", path);
    assert_true(file_exists(path));
    sample_write(path, "damaged", 7);
    assert_folder_holds(*state, AFTER, AFTER);
    assert_int_equal(unlink(path), 0);
    assert_folder_holds(*state, AFTER, AFTER);
}

/* ---- arrays ---- */

enum { ELEMENTS = 5000 };

static enum status give(void *context, int64_t index, void *to, struct error *err)
{
    (void)err;
    float *values = to;
    for (int i = 0; i < ELEMENTS; i++) {
        values[i] = *(const float *)context + (float)index + (float)i;
    }
    return STATUS_OK;
}

static enum status write_arrays(const char *path, float base, struct error *err)
{
    const struct store_array arrays[] = {
        {"first", "test", STORE_F32, 50, 100, false},
        {"deep/er/second", "test", STORE_F32, 1, ELEMENTS, true},
        {"third", "test", STORE_F32, 1, ELEMENTS, false},
    };
    return store_arrays_write(path, "weights", arrays, 3, NULL, 0, give, &base, err);
}

static enum status write_new_arrays(const char *path, struct error *err)
{
    return write_arrays(path, 100.0F, err);
}

/* All arrays are those of one write; gives its base. */
static float read_arrays(const char *path)
{
    struct store_file *file = NULL;
    struct error err = {0};
    static float values[ELEMENTS];
    float base = 0.0F;
    if (store_arrays_open(path, "weights", &file, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    assert_int_equal(store_arrays_count(file), 3);
    for (int64_t i = 0; i < 3; i++) {
        assert_int_equal(store_arrays_read(file, i, values, &err), STATUS_OK);
        float found = values[ELEMENTS - 1] - (float)i - (float)(ELEMENTS - 1);
        assert_true(i == 0 || found == base);
        base = found;
    }
    store_arrays_close(file);
    return base;
}

static void test_arrays(void **state)
{
    static const char *const points[] = {"store.arrays.before_write", "store.arrays.mid_write",
                                         "store.arrays.mid_write:3",  "store.arrays.after_write",
                                         "base.file.before_rename",   "base.file.after_rename"};
    static const char *const whats[] = {"kill", "enospc", "eio"};
    const int wanted[] = {128 + SIGKILL, STATUS_NO_SPACE, STATUS_IO};
    char path[FILE_PATH_BYTES];
    sample_path(*state, "a.h5", path);
    for (size_t i = 0; i < sizeof(points) / sizeof(points[0]); i++) {
        for (size_t k = 0; k < 3; k++) {
            char fault[96];
            assert_int_equal(write_arrays(path, 1.0F, NULL), STATUS_OK);
            snprintf(fault, sizeof(fault), "%s=%s", points[i], whats[k]);
            assert_int_equal(sample_run(fault, write_new_arrays, path), wanted[k]);
            bool renamed = strstr(points[i], "after_rename") != NULL;
            assert_true(read_arrays(path) == (renamed ? 100.0F : 1.0F));
        }
    }
}

/* ---- a disk that is really full ---- */

static enum status fill_disk(const char *folder, struct error *err)
{
    char path[FILE_PATH_BYTES];
    TRY(file_join(folder, "a.h5", path, err));
    for (int i = 0; i < 1000; i++) {
        struct error failure = {0};
        char one[FILE_PATH_BYTES + 16];
        snprintf(one, sizeof(one), "%s.%d", path, i);
        enum status status = write_new_arrays(one, &failure);
        if (status != STATUS_OK) {
            *err = failure;
            return status;
        }
        read_arrays(one);
    }
    return STATUS_INTERNAL;
}

static enum status save_on_full_disk(const char *folder, struct error *err)
{
    struct search search;
    sample_search(&search, AFTER);
    enum status status = store_run_save(folder, &search, err);
    search_fini(&search);
    return status;
}

static void test_full_disk(void **state)
{
    struct search search;
    char command[FILE_PATH_BYTES + 64];
    if (mount("none", *state, "tmpfs", 0, "size=400k") != 0) {
        print_message("no right to mount a small file system: skipped\n");
        skip();
    }
    sample_search(&search, BEFORE);
    assert_int_equal(store_run_save(*state, &search, NULL), STATUS_OK);
    search_fini(&search);
    assert_int_equal(sample_run(NULL, fill_disk, *state), STATUS_NO_SPACE);
    /* What is left may be enough for a small run file: use it up. */
    snprintf(command, sizeof(command), "cat /dev/zero > '%s/rest' 2>/dev/null", (char *)*state);
    assert_int_not_equal(system(command), 0);
    assert_int_equal(sample_run(NULL, save_on_full_disk, *state), STATUS_NO_SPACE);
    assert_folder_holds(*state, BEFORE, BEFORE);
    assert_int_equal(umount2(*state, MNT_DETACH), 0);
}

static void test_read_only_disk(void **state)
{
    struct search search;
    struct error err = {0};
    struct journal *journal = NULL;
    struct store_lock *lock = NULL;
    if (mount("none", *state, "tmpfs", MS_RDONLY, "size=64k") != 0) {
        print_message("no right to mount a read-only file system: skipped\n");
        skip();
    }
    sample_search(&search, BEFORE);
    assert_int_not_equal(store_run_save(*state, &search, &err), STATUS_OK);
    assert_non_null(strstr(err.message, *state));
    assert_int_not_equal(write_new_arrays("/proc/none/a.h5", &err), STATUS_OK);
    assert_int_not_equal(journal_open(*state, NULL, 0, &journal, &err), STATUS_OK);
    assert_int_not_equal(store_folder_lock(*state, &lock, &err), STATUS_OK);
    assert_non_null(strstr(err.message, *state));
    search_fini(&search);
    assert_int_equal(umount2(*state, MNT_DETACH), 0);
}

int main(void)
{
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, sample_setup, sample_teardown)
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_kill),
        IN_FOLDER(test_no_space),
        IN_FOLDER(test_disk_error),
        IN_FOLDER(test_kill_at_random),
        IN_FOLDER(test_losing_the_newest_generation_loses_nothing),
        IN_FOLDER(test_arrays),
        IN_FOLDER(test_full_disk),
        IN_FOLDER(test_read_only_disk),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
