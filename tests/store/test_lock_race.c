/* Many that want one run folder at once: one gets it. */
#include "store/lock_fixture.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_race),
        IN_FOLDER(test_race_for_a_silent_one),
        IN_FOLDER(test_race_with_slow_ones),
        IN_FOLDER(test_a_late_claim_is_withdrawn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
