/* Signals of the ranks of an MPI job: what each rank does on SIGTERM, and how long rank 0 waits. */
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "run/stop.h"

/* Each case in a process of its own: handlers and the flag stay. */
static int end_of(void (*body)(void))
{
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        body();
        _exit(0);
    }
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void expect(bool holds, int code)
{
    if (!holds) {
        _exit(code);
    }
}

static void rank_0_body(void)
{
    stop_install_rank(0);
    raise(SIGTERM);
    expect(stop_requested() && stop_signal() == SIGTERM, 1);
    expect(alarm(0) == 0, 2);
    stop_heard(); /* of its own STOP, where it also trains */
    raise(SIGTERM);
    _exit(3); /* the second one ends it */
}

static void worker_body(void)
{
    stop_install_rank(1);
    raise(SIGUSR1);
    raise(SIGINT);
    expect(alarm(0) == 0, 1);
    raise(SIGTERM);
    expect(alarm(0) == STOP_GRACE_S, 2);
    raise(SIGTERM);
    stop_heard();
    expect(alarm(0) == 0, 3);
    raise(SIGTERM);
    expect(alarm(0) == 0, 4);
}

static void orphan_body(void)
{
    stop_install_rank(1);
    raise(SIGTERM);
    alarm(1); /* sooner, for the test */
    clock_sleep_s(60.0);
}

static void watched_body(void)
{
    stop_install_rank(0);
    stop_watch(0.5);
    stop_watch(3600.0);
    expect(alarm(0) > 3500, 1);
    stop_watch(1.0);
    stop_watch(0.0);
    expect(alarm(0) == 0, 2);
    stop_watch(0.1);
    clock_sleep_s(60.0); /* it hangs */
}

/* Reads a byte while a signal comes. */
static void read_through_signal(void)
{
    int ends[2];
    char byte = 0;
    expect(pipe(ends) == 0, 1);
    pid_t parent = getpid();
    if (fork() == 0) {
        clock_sleep_s(0.1);
        kill(parent, SIGUSR1);
        clock_sleep_s(0.1);
        ssize_t put = write(ends[1], "x", 1);
        _exit(put == 1 ? 0 : 1);
    }
    expect(read(ends[0], &byte, 1) == 1, 2);
    expect(byte == 'x' && stop_requested(), 3);
}

static void rank_reads(void)
{
    stop_install_rank(0);
    read_through_signal();
}

static void command_reads(void)
{
    stop_install();
    read_through_signal();
}

static void test_rank_0(void **state)
{
    (void)state;
    int status = end_of(rank_0_body);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
}

static void test_worker(void **state)
{
    (void)state;
    assert_int_equal(end_of(worker_body), 0);
    int status = end_of(orphan_body);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM);
}

static void test_watch(void **state)
{
    (void)state;
    int status = end_of(watched_body);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM);
}

static void test_calls_that_wait(void **state)
{
    (void)state;
    assert_int_equal(end_of(rank_reads), 0);
    assert_int_equal(WEXITSTATUS(end_of(command_reads)), 2); /* trex generate leaves its prompt */
}

static void test_patience(void **state)
{
    (void)state;
    assert_true(stop_patience_s(INFINITY, 7.0) == 600.0);  /* no limit is known */
    assert_true(stop_patience_s(7200.0, 7.0) == 600.0);    /* it is far away */
    assert_true(stop_patience_s(7200.0, 500.0) == 2000.0); /* a large state on a slow disk */
    assert_true(stop_patience_s(300.0, 7.0) == 285.0);
    assert_true(stop_patience_s(300.0, 500.0) == 285.0);
    assert_true(stop_patience_s(20.0, 7.0) == 25.0);
    assert_true(stop_patience_s(-1e6, 7.0) == 25.0); /* it was raised since */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rank_0),   cmocka_unit_test(test_worker),
        cmocka_unit_test(test_watch),    cmocka_unit_test(test_calls_that_wait),
        cmocka_unit_test(test_patience),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
