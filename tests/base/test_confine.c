/* A confined process: what it may, what it may not. Each case runs in a child, which ends with 0 if
 * all was as it must. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/confine.h"
#include "base/file.h"

enum { CHILD_FAILED = 1, CHILD_UNSUPPORTED = 77 };

/* Runs `body` confined to a new folder; its exit status, or minus the signal that ended it. */
static int run_confined(int (*body)(void))
{
    char folder[] = "/tmp/trex-test-confine-XXXXXX";
    assert_non_null(mkdtemp(folder));
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct error err = {0};
        const struct confine_options options = {.folder = folder,
                                                .seconds = 1.0,
                                                .memory_bytes = INT64_C(512) << 20,
                                                .file_bytes = 1 << 20};
        enum status status = confine_self(&options, &err);
        _exit(status == STATUS_OK            ? body()
              : status == STATUS_UNSUPPORTED ? CHILD_UNSUPPORTED
                                             : CHILD_FAILED);
    }
    int wait_status = 0;
    assert_int_equal(waitpid(pid, &wait_status, 0), pid);
    file_remove_folder(folder);
    if (WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == CHILD_UNSUPPORTED) {
        print_message("skipped: this kernel has no Landlock\n");
        skip();
    }
    return WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : -WTERMSIG(wait_status);
}

static int write_own_file(void)
{
    int file = open("own", O_RDWR | O_CREAT, 0600);
    return file >= 0 && write(file, "x", 1) == 1 && unlink("own") == 0 ? 0 : 2;
}

static int look_around(void)
{
    static const char *const paths[] = {"/etc/passwd", "/proc/self/environ", "/tmp", "..",
                                        TEST_SOURCE_DIR "/README.md"};
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        if (open(paths[i], O_RDONLY) >= 0 || errno != EACCES) {
            return 2 + (int)i;
        }
    }
    return open("/tmp/trex-test-outside", O_WRONLY | O_CREAT, 0600) >= 0 ? 20 : 0;
}

static int reach_out(void)
{
    if (socket(AF_INET, SOCK_STREAM, 0) >= 0 || errno != EPERM) {
        return 2;
    }
    if (socket(AF_UNIX, SOCK_STREAM, 0) >= 0 || kill(getppid(), 0) == 0) {
        return 3;
    }
    struct rlimit limits;
    return prlimit(getppid(), RLIMIT_CPU, NULL, &limits) == 0 ? 4 : 0;
}

static int read_secrets(void)
{
    return getenv("TREX_TEST_API_KEY") == NULL && getenv("PATH") != NULL ? 0 : 2;
}

#if !defined(__SANITIZE_ADDRESS__)
static int take_memory(void)
{
    return malloc((size_t)2 << 30) == NULL ? 0 : 2;
}
#endif

static int write_much(void)
{
    static char block[1 << 16];
    int file = open("much", O_WRONLY | O_CREAT, 0600);
    for (int i = 0; i < 64; i++) {
        if (write(file, block, sizeof(block)) < 0) {
            return 2; /* after SIGXFSZ it would not come so far */
        }
    }
    return 3;
}

static int compute(void)
{
    volatile uint64_t count = 1;
    while (count != 0) {
        count++;
    }
    return 2;
}

static int start_program(void)
{
    execl("/bin/sh", "sh", "-c",
          "echo x > made && ! cat /etc/passwd 2> /dev/null && ! kill -0 $PPID 2> /dev/null",
          (char *)NULL);
    return 2;
}

static void test_allowed(void **state)
{
    (void)state;
    assert_int_equal(run_confined(write_own_file), 0);
    assert_int_equal(run_confined(start_program), 0);
}

static void test_refused(void **state)
{
    (void)state;
    setenv("TREX_TEST_API_KEY", "secret", 1);
    assert_int_equal(run_confined(look_around), 0);
    assert_int_equal(run_confined(reach_out), 0);
    assert_int_equal(run_confined(read_secrets), 0);
}

static void test_limits(void **state)
{
    (void)state;
#if !defined(__SANITIZE_ADDRESS__) /* its own memory does not fit in the limit */
    assert_int_equal(run_confined(take_memory), 0);
#endif
    assert_int_equal(run_confined(write_much), -SIGXFSZ);
    int end = run_confined(compute);
    assert_true(end == -SIGXCPU || end == -SIGKILL);
}

static void test_no_folder(void **state)
{
    (void)state;
    struct error err;
    const struct confine_options options = {.folder = "/tmp/trex-no-such-folder"};
    assert_int_equal(confine_self(&options, &err), STATUS_NOT_FOUND);
    assert_non_null(strstr(err.message, "/tmp/trex-no-such-folder"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_allowed),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_no_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
