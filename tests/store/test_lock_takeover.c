/* A holder of the run folder that was stopped, was taken over, and goes on: what it can no longer
 * do. */
#include "store/lock_fixture.h"

struct search_run {
    struct store_lock *lock;
    struct journal *journal;
    struct snapshot *snapshot;
    struct search search;
};

static void begin_run(struct search_run *run, const char *folder)
{
    char note[256];
    struct error err = {0};
    run->lock = take(folder, &quick);
    if (store_run_load(folder, &run->search, note, sizeof(note), &err) != STATUS_OK) {
        search_init(&run->search);
    }
    if (journal_open(folder, run->lock, run->search.last_sequence, &run->journal, &err) !=
            STATUS_OK ||
        snapshot_create(folder, run->journal, &run->snapshot, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
}

static enum status write_until(struct search_run *run, int64_t last, struct error *err)
{
    while (run->search.last_sequence < last) {
        int64_t next = run->search.last_sequence + 1;
        TRY(journal_append(run->journal, sample_event(next), err));
        TRY(journal_flush(run->journal, err));
        sample_advance(&run->search, next);
    }
    return STATUS_OK;
}

static enum status take_snapshot(struct search_run *run, struct error *err)
{
    snapshot_start(run->snapshot, run->search.last_sequence);
    return snapshot_wait(run->snapshot, err);
}

static void end_run(struct search_run *run)
{
    snapshot_destroy(run->snapshot);
    journal_close(run->journal);
    search_fini(&run->search);
    store_folder_unlock(run->lock);
}

enum { HELD = 20, LATE = 26, STOPPED_IN_SNAPSHOT = 1, NEW_OWNER_WRITES = 2 };

/* Writes, is stopped and goes on here: what it tries then must fail. */
static enum status hold_and_go_on(const char *folder, struct error *err)
{
    struct search_run run;
    struct error failure = {0};
    char other[32];
    char path[FILE_PATH_BYTES];
    const char *fault = getenv("TREX_FAULT");
    bool in_snapshot = fault != NULL && strstr(fault, "slow") != NULL;
    snprintf(other, sizeof(other), "process %d on ", (int)getppid());
    char *armed = fault != NULL ? strdup(fault) : NULL;
    if (in_snapshot) {
        unsetenv("TREX_FAULT");
    }
    begin_run(&run, folder);
    TRY(write_until(&run, HELD, err));
    if (in_snapshot) {
        setenv("TREX_FAULT", armed, 1);
    } else {
        TRY(take_snapshot(&run, err));
        TRY(file_join(folder, "ready", path, err));
        TRY(file_write(path, "x", 1, err));
        raise(SIGSTOP);
        if (write_until(&run, HELD + 1, &failure) != STATUS_BUSY ||
            strstr(failure.message, other) == NULL) {
            return STATUS_INTERNAL;
        }
        memset(&failure, 0, sizeof(failure));
    }
    free(armed);
    if (take_snapshot(&run, &failure) != STATUS_BUSY || strstr(failure.message, other) == NULL) {
        return STATUS_INTERNAL;
    }
    if (store_lock_check(run.lock, NULL) != STATUS_BUSY) {
        return STATUS_INTERNAL;
    }
    end_run(&run);
    return STATUS_OK;
}

static void read_state(const char *folder, struct buffer out[3])
{
    static const char *const names[] = {"journal.jsonl", "run.h5", "run.prev.h5"};
    char path[FILE_PATH_BYTES];
    for (int i = 0; i < 3; i++) {
        sample_path(folder, names[i], path);
        buffer_init(&out[i], (size_t)1 << 30);
        file_read(path, &out[i], NULL); /* absent: empty */
    }
}

static bool wait_for_file(const char *folder, const char *part)
{
    char command[FILE_PATH_BYTES + 64];
    snprintf(command, sizeof(command), "ls '%s' | grep -q '%s'", folder, part);
    for (int i = 0; i < 300; i++) {
        if (system(command) == 0) {
            return true;
        }
        clock_sleep_s(0.1);
    }
    return false;
}

static void take_from_stopped(const char *folder, const char *fault, int how)
{
    struct buffer before[3];
    struct buffer after[3];
    struct search_run run;
    int ended = 0;
    pid_t child = fork();
    if (child == 0) {
        if (fault != NULL) {
            setenv("TREX_FAULT", fault, 1);
        }
        struct error err = {0};
        _exit((int)hold_and_go_on(folder, &err));
    }
    if ((how & STOPPED_IN_SNAPSHOT) != 0) {
        assert_true(wait_for_file(folder, "run.h5.*tmp"));
        clock_sleep_s(0.5);
        kill(child, SIGSTOP);
    } else {
        assert_true(wait_for_file(folder, "^ready$"));
    }
    assert_int_equal(waitpid(child, &ended, WUNTRACED), child);
    assert_true(WIFSTOPPED(ended));
    if ((how & NEW_OWNER_WRITES) != 0) {
        begin_run(&run, folder);
        assert_int_equal(write_until(&run, LATE, NULL), STATUS_OK);
        assert_int_equal(take_snapshot(&run, NULL), STATUS_OK);
    } else {
        run.lock = take(folder, &quick);
    }
    char wanted[64];
    snprintf(wanted, sizeof(wanted), "process %d on ", (int)child);
    assert_non_null(strstr(store_lock_taken_from(run.lock), wanted));
    read_state(folder, before);
    kill(child, SIGCONT);
    assert_int_equal(waitpid(child, &ended, 0), child);
    assert_true(WIFEXITED(ended));
    assert_int_equal(WEXITSTATUS(ended), STATUS_OK);
    read_state(folder, after);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(before[i].len_bytes, after[i].len_bytes);
        assert_memory_equal(buffer_text(&before[i]), buffer_text(&after[i]), before[i].len_bytes);
        buffer_fini(&before[i]);
        buffer_fini(&after[i]);
    }
    assert_int_equal(store_lock_check(run.lock, NULL), STATUS_OK);
    struct store_holder holder; /* the late one's leaving is not ours */
    assert_int_equal(store_folder_holder(folder, &holder, NULL), STATUS_OK);
    assert_int_equal(holder.pid, getpid());
    if ((how & NEW_OWNER_WRITES) != 0) {
        assert_int_equal(write_until(&run, LATE + 4, NULL), STATUS_OK);
        end_run(&run);
        assert_folder_holds(folder, LATE + 4, LATE + 4);
    } else {
        store_folder_unlock(run.lock);
        assert_folder_holds(folder, HELD, HELD);
    }
}

static void test_stopped_holder(void **state)
{
    take_from_stopped(*state, NULL, 0);
}

static void test_stopped_holder_without_flock(void **state)
{
    take_from_stopped(*state, ABSENT, 0);
}

static void test_stopped_holder_and_a_search_that_goes_on(void **state)
{
    take_from_stopped(*state, NULL, NEW_OWNER_WRITES);
}

/* It had asked, and was told that the folder is its own: its rename must fail all the same. */
static void test_holder_stopped_between_check_and_rename(void **state)
{
    take_from_stopped(*state, "base.file.before_rename=slow", STOPPED_IN_SNAPSHOT);
}

static void test_holder_stopped_before_rename_and_a_search_that_goes_on(void **state)
{
    take_from_stopped(*state, "base.file.before_rename=slow",
                      STOPPED_IN_SNAPSHOT | NEW_OWNER_WRITES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_stopped_holder),
        IN_FOLDER(test_stopped_holder_without_flock),
        IN_FOLDER(test_stopped_holder_and_a_search_that_goes_on),
        IN_FOLDER(test_holder_stopped_between_check_and_rename),
        IN_FOLDER(test_holder_stopped_before_rename_and_a_search_that_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
