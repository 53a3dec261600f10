/* The lock of the run folder: who gets it, who keeps out, and what a late owner can no longer do.
 */
#include "store/sample.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/time.h>

#include "base/clock.h"
#include "store/lock.h"

/* Short, but long enough for a machine on which much else runs; and such that a test does not end
 * if it waits for silence. */
static const struct lock_options quick = {0.1, 2.0};
static const struct lock_options endless = {0.1, 1000.0};

#define ABSENT "flock=absent"
#define FOREIGN                                                                                    \
    "{\"host\":\"far\",\"boot\":\"another\",\"pid\":12,\"job\":\"7\",\"restart\":\"1\","           \
    "\"cluster\":\"c\",\"since\":\"then\",\"flock\":true,\"beat\":1,\"left\":false}"

enum { RESULT_WON = 'w', RESULT_BUSY = 'b', RESULT_OTHER = 'o' };

/* A handler, so that naps end. */
static void note_signal(int number)
{
    (void)number;
}

/* The file of an owner, written by hand. */
static void write_owner(const char *folder, const char *name, const char *text)
{
    char locks[FILE_PATH_BYTES];
    char path[FILE_PATH_BYTES];
    sample_path(folder, "lock", locks);
    assert_int_equal(file_make_folders(locks, NULL), STATUS_OK);
    sample_path(locks, name, path);
    sample_write(path, text, strlen(text));
}

static struct store_lock *take(const char *folder, const struct lock_options *options)
{
    struct store_lock *lock = NULL;
    struct error err = {0};
    if (lock_take(folder, options, &lock, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    return lock;
}

static enum status try_lock(const char *folder, struct error *err)
{
    struct store_lock *lock = NULL;
    TRY(lock_take(folder, &quick, &lock, err));
    store_folder_unlock(lock);
    return STATUS_OK;
}

/* ---- one after the other ---- */

static void test_lock(void **state)
{
    struct store_holder holder;
    struct error err = {0};
    char path[FILE_PATH_BYTES];
    char folder[FILE_PATH_BYTES];
    char own[32];
    sample_path(*state, "deep/er", folder);
    assert_int_equal(store_folder_holder(folder, &holder, &err), STATUS_NOT_FOUND);
    struct store_lock *lock = take(folder, &quick);
    sample_path(folder, "weights", path);
    assert_true(file_is_folder(path));
    assert_int_equal(store_lock_fence(lock), 1);
    assert_string_equal(store_lock_taken_from(lock), "");
    assert_int_equal(store_lock_check(lock, &err), STATUS_OK);
    assert_int_equal(store_folder_holder(folder, &holder, &err), STATUS_OK);
    assert_int_equal(holder.pid, getpid());
    assert_int_equal(holder.alive, STORE_ALIVE_YES);
    assert_true(holder.beat_age_s < 3600.0);

    /* Another process, and another attempt of this one. */
    assert_int_equal(sample_run(NULL, try_lock, folder), STATUS_BUSY);
    assert_int_equal(sample_run(ABSENT, try_lock, folder), STATUS_BUSY);
    struct store_lock *second = NULL;
    assert_int_equal(lock_take(folder, &quick, &second, &err), STATUS_BUSY);
    snprintf(own, sizeof(own), "process %d on ", (int)getpid());
    assert_non_null(strstr(err.message, own));
    assert_non_null(strstr(err.message, holder.host));

    store_folder_unlock(lock);
    assert_int_equal(store_folder_holder(folder, &holder, &err), STATUS_NOT_FOUND);
    lock = take(folder, &endless);
    assert_int_equal(store_lock_fence(lock), 2);
    assert_string_equal(store_lock_taken_from(lock), "");
    store_folder_unlock(lock);
    assert_int_equal(sample_run(NULL, try_lock, folder), STATUS_OK);
    store_folder_unlock(NULL);
}

/* With the intervals that users have. */
static void test_lock_of_users(void **state)
{
    struct store_lock *lock = NULL;
    struct store_lock *second = NULL;
    struct error err = {0};
    assert_int_equal(store_folder_lock(*state, &lock, &err), STATUS_OK);
    double begun_s = clock_monotonic_s();
    assert_int_equal(store_folder_lock(*state, &second, &err), STATUS_BUSY);
    assert_true(clock_monotonic_s() - begun_s < STORE_SILENCE_S);
    store_folder_unlock(lock);
}

static enum status lock_and_die(const char *folder, struct error *err)
{
    struct store_lock *lock = NULL;
    TRY(lock_take(folder, &quick, &lock, err));
    raise(SIGKILL);
    return STATUS_OK;
}

/* However the holder dies, the folder is free again at once, and what it left half written is
 * swept. */
static void test_lock_ends_with_the_process(void **state)
{
    struct store_holder holder;
    char path[FILE_PATH_BYTES];
    for (int absent = 0; absent < 2; absent++) {
        const char *fault = absent ? ABSENT : NULL;
        assert_int_equal(sample_run(fault, lock_and_die, *state), 128 + SIGKILL);
        assert_int_equal(store_folder_holder(*state, &holder, NULL), STATUS_OK);
        assert_int_equal(holder.alive, STORE_ALIVE_NO);
        sample_path(*state, "weights/n0001-c0.h5.host.77.tmp", path);
        sample_write(path, "x", 1);
        struct store_lock *lock = take(*state, &endless);
        assert_false(file_exists(path));
        assert_int_equal(store_lock_fence(lock), 2 + 2 * absent);
        char wanted[64];
        snprintf(wanted, sizeof(wanted), "process %lld on ", (long long)holder.pid);
        assert_ptr_equal(strstr(store_lock_taken_from(lock), wanted), store_lock_taken_from(lock));
        store_folder_unlock(lock);
    }
    sample_path(*state, "lock/1", path);
    assert_false(file_exists(path));
}

/* ---- owners on other machines ---- */

/* It waits for silence, measured here, and no longer. */
static void test_silent_owner(void **state)
{
    write_owner(*state, "41", FOREIGN);
    double begun_s = clock_monotonic_s();
    struct store_lock *lock = take(*state, &quick);
    assert_true(clock_monotonic_s() - begun_s >= quick.silence_s);
    assert_int_equal(store_lock_fence(lock), 42);
    assert_string_equal(store_lock_taken_from(lock), "process 12 on far, Slurm job 7 since then");
    store_folder_unlock(lock);
}

/* Ranks that are started again in an allocation do not wait for those before. */
static void test_same_allocation(void **state)
{
    static const struct {
        const char *job, *restart, *cluster;
        enum status wanted;
    } cases[] = {{"7", "1", "c", STATUS_OK},
                 {"8", "1", "c", STATUS_INTERRUPTED},
                 {"7", "2", "c", STATUS_INTERRUPTED},
                 {"7", "1", "d", STATUS_INTERRUPTED}};
    struct itimerval soon = {.it_value = {.tv_usec = 400000}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct store_lock *lock = NULL;
        struct error err = {0};
        char own[FILE_PATH_BYTES];
        char name[8];
        snprintf(name, sizeof(name), "%zu", i);
        sample_path(*state, name, own);
        write_owner(own, "1", FOREIGN);
        setenv("SLURM_JOB_ID", cases[i].job, 1);
        setenv("SLURM_RESTART_COUNT", cases[i].restart, 1);
        setenv("SLURM_CLUSTER_NAME", cases[i].cluster, 1);
        signal(SIGALRM, note_signal);
        setitimer(ITIMER_REAL, &soon, NULL);
        enum status status = lock_take(own, &endless, &lock, &err);
        setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL);
        signal(SIGALRM, SIG_DFL);
        unsetenv("SLURM_JOB_ID");
        assert_int_equal(status, cases[i].wanted);
        if (cases[i].wanted == STATUS_INTERRUPTED) {
            assert_non_null(strstr(err.message, own));
        }
        store_folder_unlock(lock);
    }
    unsetenv("SLURM_RESTART_COUNT");
    unsetenv("SLURM_CLUSTER_NAME");
}

/* Somebody far away beats, by replacing the file: at no moment is it empty. */
static void test_far_owner_that_beats(void **state)
{
    struct error err = {0};
    struct store_lock *lock = NULL;
    char path[FILE_PATH_BYTES];
    write_owner(*state, "3", FOREIGN);
    sample_path(*state, "lock/3", path);
    pid_t child = fork();
    if (child == 0) {
        for (int i = 0; i < 600; i++) {
            char text[512];
            snprintf(text, sizeof(text), "%.*s%4d,\"left\":false}",
                     (int)(strstr(FOREIGN, "1,\"left") - FOREIGN), FOREIGN, i);
            (void)file_write(path, text, strlen(text), NULL);
            clock_sleep_s(0.1);
        }
        _exit(0);
    }
    assert_int_equal(lock_take(*state, &endless, &lock, &err), STATUS_BUSY);
    assert_non_null(strstr(err.message, "far"));
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
}

/* ---- containers ---- */

/* Holds the folder in a namespace of its own until it is killed; tells through `ready`. */
static void hold_in(const char *folder, int flags, const char *fault, int ready)
{
    struct store_lock *lock = NULL;
    struct error err = {0};
    char result = RESULT_WON;
    if (unshare(flags) != 0) {
        result = RESULT_OTHER;
    } else if ((flags & CLONE_NEWPID) != 0) {
        pid_t inner = fork(); /* the first process of the new namespace */
        if (inner != 0) {
            waitpid(inner, NULL, 0);
            _exit(0);
        }
    } else {
        sethostname("elsewhere", strlen("elsewhere"));
    }
    if (fault != NULL) {
        setenv("TREX_FAULT", fault, 1);
    }
    if (result == RESULT_WON && lock_take(folder, &quick, &lock, &err) != STATUS_OK) {
        result = RESULT_BUSY;
    }
    if (write(ready, &result, 1) != 1) {
        _exit(1);
    }
    for (;;) {
        pause();
    }
}

/* Whether a living holder in another namespace is respected, and a killed one followed, at once
 * unless `waits`. */
static void follow_from(const char *folder, int flags, const char *fault, bool waits)
{
    int ready[2];
    char result = 0;
    struct store_lock *lock = NULL;
    struct error err = {0};
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        setpgid(0, 0);
        hold_in(folder, flags, fault, ready[1]);
    }
    assert_int_equal(read(ready[0], &result, 1), 1);
    close(ready[0]);
    close(ready[1]);
    if (result == RESULT_OTHER) {
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        print_message("no right to make namespaces: skipped\n");
        skip();
    }
    enum status status = lock_take(folder, &endless, &lock, &err);
    kill(-child, SIGKILL);
    waitpid(child, NULL, 0);
    assert_int_equal(result, RESULT_WON);
    assert_int_equal(status, STATUS_BUSY);
    for (int i = 0; i < 50 && kill(-child, 0) == 0; i++) {
        clock_sleep_s(0.1); /* an inner process is not our child: until it is gone */
    }
    double begun_s = clock_monotonic_s();
    lock = take(folder, waits ? &quick : &endless);
    assert_true(!waits || clock_monotonic_s() - begun_s >= quick.silence_s);
    assert_int_not_equal(strlen(store_lock_taken_from(lock)), 0);
    store_folder_unlock(lock);
}

static void test_other_host_name_on_one_kernel(void **state)
{
    follow_from(*state, CLONE_NEWUTS, NULL, false);
    follow_from(*state, CLONE_NEWUTS, ABSENT, false);
}

/* A pid says nothing there: flock does, and where it is absent, silence. */
static void test_other_pid_namespace(void **state)
{
    follow_from(*state, CLONE_NEWPID, NULL, false);
    follow_from(*state, CLONE_NEWPID, ABSENT, true);
}

/* ---- a holder that was stopped, taken over, and goes on ---- */

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

/* ---- many at once ---- */

/* A child that waits for `start`, tries, tells, and keeps what it got until it is killed. */
static pid_t contend(const char *folder, const char *fault, int start, int results)
{
    pid_t child = fork();
    if (child == 0) {
        struct store_lock *lock = NULL;
        struct error err = {0};
        char result = 0;
        alarm(120);
        setenv("TREX_FAULT", fault, 1);
        if (read(start, &result, 1) < 0) { /* until the other end is closed */
            _exit(1);
        }
        enum status status = lock_take(folder, &quick, &lock, &err);
        result = RESULT_OTHER;
        if (status == STATUS_OK) {
            result = RESULT_WON;
        } else if (status == STATUS_BUSY) {
            result = RESULT_BUSY;
        }
        if (write(results, &result, 1) != 1) {
            _exit(1);
        }
        for (;;) {
            pause();
        }
    }
    return child;
}

/* Exactly one of `count` gets the folder, and every other learns that it is in use. `faults` are
 * those of the first ones, the rest have but no flock. */
static void race(const char *folder, int count, const char *const *faults, int fault_count)
{
    enum { MOST = 8 };
    pid_t children[MOST];
    int start[2];
    int results[2];
    int won = 0;
    int busy = 0;
    assert_int_equal(pipe(start), 0);
    assert_int_equal(pipe(results), 0);
    fcntl(start[1], F_SETFD, FD_CLOEXEC);
    for (int i = 0; i < count; i++) {
        children[i] = contend(folder, i < fault_count ? faults[i] : ABSENT, start[0], results[1]);
    }
    /* Each child holds the writing end too, so a byte for each. */
    for (int i = 0; i < count; i++) {
        assert_int_equal(write(start[1], "x", 1), 1);
    }
    for (int i = 0; i < count; i++) {
        char result = 0;
        assert_int_equal(read(results[0], &result, 1), 1);
        won += result == RESULT_WON;
        busy += result == RESULT_BUSY;
    }
    for (int i = 0; i < count; i++) {
        kill(children[i], SIGKILL);
        waitpid(children[i], NULL, 0);
    }
    close(start[0]);
    close(start[1]);
    close(results[0]);
    close(results[1]);
    assert_int_equal(won, 1);
    assert_int_equal(busy, count - 1);
}

/* Of a new folder, and then again and again of the one whose owner was killed. */
static void test_race(void **state)
{
    for (int i = 0; i < 10; i++) {
        race(*state, i % 2 == 0 ? 2 : 8, NULL, 0);
    }
}

static void test_race_for_a_silent_one(void **state)
{
    write_owner(*state, "5", FOREIGN);
    race(*state, 2, NULL, 0);
    write_owner(*state, "99", FOREIGN);
    race(*state, 8, NULL, 0);
}

/* Some are slow at the worst of moments, longer than the silence after which others go on: they
 * find out. */
static void test_race_with_slow_ones(void **state)
{
    static const char *const faults[] = {"store.lock.before_claim=slow", "store.lock.created=slow",
                                         "store.lock.filled=slow", "store.lock.before_claim=slow"};
    for (int i = 0; i < 2; i++) {
        race(*state, 8, faults, 4);
    }
}

/* One that took its decision long ago creates a number that others had and removed. */
static void test_a_late_claim_is_withdrawn(void **state)
{
    int start[2];
    int results[2];
    char result = 0;
    char path[FILE_PATH_BYTES];
    store_folder_unlock(take(*state, &endless)); /* 1 */
    assert_int_equal(pipe(start), 0);
    assert_int_equal(pipe(results), 0);
    pid_t child = contend(*state, "store.lock.before_claim=slow", start[0], results[1]);
    assert_int_equal(write(start[1], "x", 1), 1);
    clock_sleep_s(1.5);
    store_folder_unlock(take(*state, &endless));      /* 2, which the child is about to make */
    struct store_lock *lock = take(*state, &endless); /* 3 */
    assert_int_equal(store_lock_fence(lock), 3);
    sample_path(*state, "lock/2", path);
    assert_false(file_exists(path));
    assert_int_equal(read(results[0], &result, 1), 1);
    assert_int_equal(result, RESULT_BUSY);
    assert_false(file_exists(path));
    assert_int_equal(store_lock_check(lock, NULL), STATUS_OK);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    store_folder_unlock(lock);
    close(start[0]);
    close(start[1]);
    close(results[0]);
    close(results[1]);
}

/* ---- what is found in the folder ---- */

static void test_files_that_name_nobody(void **state)
{
    static const char *const texts[] = {
        "",
        "not json",
        "{\"pid\":-3,\"host\":\"n1\"}",
        "{\"pid\":3}",
        "{\"pid\":\"3\",\"host\":[\"n1\"],\"left\":\"true\"}",
        "{\"pid\":1e300,\"host\":\"n1\"}",
        "{\"host\":\"n1\",\"boot\":\"9370b518",
        "[[[[[[",
        "null",
    };
    static const struct lock_options short_silence = {0.1, 0.3};
    struct store_holder holder;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        char own[FILE_PATH_BYTES];
        char name[8];
        snprintf(name, sizeof(name), "%zu", i);
        sample_path(*state, name, own);
        write_owner(own, "5", texts[i]);
        assert_int_equal(store_folder_holder(own, &holder, NULL), STATUS_FORMAT);
        double begun_s = clock_monotonic_s();
        struct store_lock *lock = take(own, &short_silence);
        assert_true(clock_monotonic_s() - begun_s >= short_silence.silence_s);
        assert_int_equal(store_lock_fence(lock), 6);
        assert_non_null(strstr(store_lock_taken_from(lock), "does not name"));
        store_folder_unlock(lock);
    }
    /* Longer than any, and yet JSON. */
    struct buffer huge;
    char path[FILE_PATH_BYTES];
    buffer_init(&huge, (size_t)1 << 24);
    buffer_append_text(&huge, FOREIGN);
    for (int i = 0; i < 1 << 20; i++) {
        buffer_append_char(&huge, ' ');
    }
    write_owner(*state, "5", "");
    sample_path(*state, "lock/5", path);
    sample_write(path, huge.data, huge.len_bytes);
    buffer_fini(&huge);
    assert_int_equal(store_folder_holder(*state, &holder, NULL), STATUS_FORMAT);
    store_folder_unlock(take(*state, &short_silence));
}

static void test_names_that_are_no_fences(void **state)
{
    static const char *const names[] = {"0",    "07", "-3", "x", "5x", "99999999999999999999",
                                        "1.tmp"};
    struct store_lock *lock = NULL;
    struct error err = {0};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        write_owner(*state, names[i], FOREIGN);
    }
    lock = take(*state, &endless);
    assert_int_equal(store_lock_fence(lock), 1);
    store_folder_unlock(lock);
    write_owner(*state, "9223372036854775807", "{\"left\":true}");
    assert_int_equal(lock_take(*state, &endless, &lock, &err), STATUS_LIMIT);
    assert_non_null(strstr(err.message, "9223372036854775807"));
}

static void test_things_that_are_no_files(void **state)
{
    struct store_lock *lock = NULL;
    struct store_holder holder;
    struct error err = {0};
    char path[FILE_PATH_BYTES];
    sample_path(*state, "lock/4", path);
    assert_int_equal(file_make_folders(path, NULL), STATUS_OK);
    assert_int_equal(lock_take(*state, &quick, &lock, &err), STATUS_FORMAT);
    assert_non_null(strstr(err.message, path));
    sample_path(*state, "lock/5", path);
    assert_int_equal(mkfifo(path, 0666), 0);
    assert_int_equal(lock_take(*state, &quick, &lock, &err), STATUS_FORMAT);
    sample_path(*state, "lock/6", path);
    assert_int_equal(symlink("/dev/zero", path), 0);
    assert_int_equal(lock_take(*state, &quick, &lock, &err), STATUS_FORMAT);
    assert_int_equal(store_folder_holder(*state, &holder, &err), STATUS_FORMAT);
}

static void test_lock_file_of_an_older_version(void **state)
{
    struct store_lock *lock = NULL;
    struct store_holder holder;
    struct error err = {0};
    char path[FILE_PATH_BYTES];
    sample_path(*state, "lock", path);
    sample_write(path, "{\"pid\":3}", 9);
    assert_int_equal(lock_take(*state, &quick, &lock, &err), STATUS_BUSY);
    assert_non_null(strstr(err.message, "older version"));
    assert_int_equal(store_folder_holder(*state, &holder, &err), STATUS_NOT_FOUND);
    sample_write(path, "", 0);
    store_folder_unlock(take(*state, &quick));
    assert_true(file_is_folder(path));
}

/* ---- the owner ---- */

static void test_check_finds_what_happened(void **state)
{
    struct error err = {0};
    char path[FILE_PATH_BYTES];
    struct store_lock *lock = take(*state, &quick);
    write_owner(*state, "2", FOREIGN);
    assert_int_equal(store_lock_check(lock, &err), STATUS_BUSY);
    assert_non_null(strstr(err.message, "process 12 on far, Slurm job 7"));
    sample_path(*state, "lock/2", path);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(store_lock_check(lock, &err), STATUS_OK);
    sample_path(*state, "lock/1", path);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(store_lock_check(lock, &err), STATUS_BUSY);
    assert_non_null(strstr(err.message, "is gone"));
    /* Its beats fail meanwhile, and who takes over is told why. */
    clock_sleep_s(10.0 * quick.beat_s);
    write_owner(*state, "2", FOREIGN);
    assert_int_equal(store_lock_check(lock, &err), STATUS_BUSY);
    assert_non_null(strstr(err.message, "lock/1"));
    sample_remove(*state);
    assert_int_equal(store_lock_check(lock, &err), STATUS_NOT_FOUND);
    store_folder_unlock(lock);
    assert_int_equal(file_make_folders(*state, NULL), STATUS_OK);
}

/* The journal is another file after a takeover, and an event that came after the search was read is
 * not passed over. */
static void test_journal_is_taken_over(void **state)
{
    struct journal *journal = NULL;
    struct error err = {0};
    struct stat before;
    struct stat after;
    char path[FILE_PATH_BYTES];
    sample_path(*state, "journal.jsonl", path);
    struct store_lock *lock = take(*state, &quick);
    assert_int_equal(journal_open(*state, lock, 0, &journal, &err), STATUS_OK);
    assert_int_equal(stat(path, &before), 0);
    sample_append(journal, 1, 8);
    journal_close(journal);
    assert_int_equal(journal_open(*state, lock, 7, &journal, &err), STATUS_BUSY);
    assert_int_equal(journal_open(*state, lock, 8, &journal, &err), STATUS_OK);
    assert_int_equal(stat(path, &after), 0);
    assert_int_not_equal(before.st_ino, after.st_ino);
    journal_close(journal);
    assert_folder_holds(*state, 8, 8);

    write_owner(*state, "2", FOREIGN);
    assert_int_equal(journal_open(*state, lock, 8, &journal, &err), STATUS_BUSY);
    assert_int_equal(stat(path, &before), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    store_folder_unlock(lock);
}

/* A search that has nothing to write hears of it all the same. */
static void test_idle_owner_hears_of_its_loss(void **state)
{
    struct journal *journal = NULL;
    struct error err = {0};
    int64_t sequence = 0;
    enum status status = STATUS_OK;
    struct store_lock *lock = take(*state, &quick);
    assert_int_equal(journal_open(*state, lock, 0, &journal, &err), STATUS_OK);
    sample_append(journal, 1, 3);
    assert_int_equal(journal_flush(journal, &err), STATUS_OK);
    write_owner(*state, "2", FOREIGN);
    for (int i = 0; i < 300 && status == STATUS_OK; i++) {
        status = journal_durable(journal, &sequence, &err);
        clock_sleep_s(0.1);
    }
    assert_int_equal(status, STATUS_BUSY);
    assert_int_equal(sequence, 3);
    journal_close(journal);
    store_folder_unlock(lock);
}

/* The beat needs no room on the disk. */
static void test_full_disk(void **state)
{
    struct store_lock *lock = NULL;
    struct store_lock *second = NULL;
    struct error err = {0};
    char command[FILE_PATH_BYTES + 64];
    if (mount("none", *state, "tmpfs", 0, "size=400k") != 0) {
        print_message("no right to mount a small file system: skipped\n");
        skip();
    }
    lock = take(*state, &quick);
    snprintf(command, sizeof(command), "cat /dev/zero > '%s/rest' 2>/dev/null", (char *)*state);
    assert_int_not_equal(system(command), 0);
    assert_int_equal(lock_take(*state, &endless, &second, &err), STATUS_BUSY);
    assert_int_equal(store_lock_check(lock, &err), STATUS_OK);
    store_folder_unlock(lock);
    assert_int_equal(lock_take(*state, &endless, &second, &err), STATUS_NO_SPACE);
    sample_path(*state, "rest", command);
    assert_int_equal(unlink(command), 0);
    lock = take(*state, &endless); /* it had left in order */
    store_folder_unlock(lock);
    assert_int_equal(umount2(*state, MNT_DETACH), 0);
}

static enum status lock_for_a_second(const char *folder, struct error *err)
{
    struct store_lock *lock = NULL;
    TRY(lock_take(folder, &quick, &lock, err));
    clock_sleep_s(1.0);
    TRY(store_lock_check(lock, err));
    store_folder_unlock(lock);
    return STATUS_OK;
}

/* A beat that fails once, is slow or hangs ends nobody; killed at any beat, or as it leaves, the
 * holder leaves a folder that the next one takes at once. */
static void test_faults_of_the_beat(void **state)
{
    static const struct {
        const char *fault;
        int wanted;
    } cases[] = {
        {"store.lock.beat=eio", STATUS_OK},       {"store.lock.beat:2=enospc", STATUS_OK},
        {"store.lock.beat=hang", STATUS_OK},      {"store.lock.beat:3=kill", 128 + SIGKILL},
        {"store.lock.leave=kill", 128 + SIGKILL}, {"store.lock.leave=eio", STATUS_OK}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(sample_run(cases[i].fault, lock_for_a_second, *state), cases[i].wanted);
        store_folder_unlock(take(*state, &endless));
    }
}

int main(void)
{
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, sample_setup, sample_teardown)
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_lock),
        IN_FOLDER(test_lock_of_users),
        IN_FOLDER(test_lock_ends_with_the_process),
        IN_FOLDER(test_silent_owner),
        IN_FOLDER(test_same_allocation),
        IN_FOLDER(test_far_owner_that_beats),
        IN_FOLDER(test_other_host_name_on_one_kernel),
        IN_FOLDER(test_other_pid_namespace),
        IN_FOLDER(test_stopped_holder),
        IN_FOLDER(test_stopped_holder_without_flock),
        IN_FOLDER(test_stopped_holder_and_a_search_that_goes_on),
        IN_FOLDER(test_holder_stopped_between_check_and_rename),
        IN_FOLDER(test_holder_stopped_before_rename_and_a_search_that_goes_on),
        IN_FOLDER(test_race),
        IN_FOLDER(test_race_for_a_silent_one),
        IN_FOLDER(test_race_with_slow_ones),
        IN_FOLDER(test_a_late_claim_is_withdrawn),
        IN_FOLDER(test_files_that_name_nobody),
        IN_FOLDER(test_names_that_are_no_fences),
        IN_FOLDER(test_things_that_are_no_files),
        IN_FOLDER(test_lock_file_of_an_older_version),
        IN_FOLDER(test_check_finds_what_happened),
        IN_FOLDER(test_journal_is_taken_over),
        IN_FOLDER(test_idle_owner_hears_of_its_loss),
        IN_FOLDER(test_full_disk),
        IN_FOLDER(test_faults_of_the_beat),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
