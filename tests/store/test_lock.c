/* The lock of the run folder: who gets it, who keeps out, what is found there, and what its owner
 * hears. test_lock_race.c has many at once, test_lock_takeover.c late owners. */
#include "store/lock_fixture.h"

#include <errno.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/time.h>

/* A handler, so that naps end. */
static void note_signal(int number)
{
    (void)number;
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
    /* Again and again: on a busy machine a signal may come between two naps, and end none. */
    struct itimerval soon = {.it_value = {.tv_usec = 400000}, .it_interval = {.tv_usec = 50000}};
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
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_lock),
        IN_FOLDER(test_lock_of_users),
        IN_FOLDER(test_lock_ends_with_the_process),
        IN_FOLDER(test_silent_owner),
        IN_FOLDER(test_same_allocation),
        IN_FOLDER(test_far_owner_that_beats),
        IN_FOLDER(test_other_host_name_on_one_kernel),
        IN_FOLDER(test_other_pid_namespace),
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
