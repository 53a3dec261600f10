#include "base/fault.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"

#define SLOW_S 5.0
#define NAP_S 0.1

/* How often the armed point was passed; a process has one TREX_FAULT, so one counter. */
static _Atomic long passings;

/* What is armed for this point, and at which passing; NULL if nothing is. */
static const char *find_armed(const char *point, long *n)
{
    const char *armed = getenv("TREX_FAULT");
    if (armed == NULL) {
        return NULL;
    }
    size_t length = strlen(point);
    if (strncmp(armed, point, length) != 0 || (armed[length] != ':' && armed[length] != '=')) {
        return NULL;
    }
    *n = armed[length] == ':' ? strtol(armed + length + 1, NULL, 10) : 1;
    const char *what = strchr(armed + length, '=');
    return what != NULL ? what + 1 : NULL;
}

/* Counts a passing; at the n-th it says so on stderr, without a lock or a buffer: what follows may
 * be the end. */
static long pass(long n)
{
    long passed = atomic_fetch_add(&passings, 1) + 1;
    if (passed == n) {
        dprintf(STDERR_FILENO, "TREX_FAULT strikes: %s\n", getenv("TREX_FAULT"));
    }
    return passed;
}

/* Sleeps through signals, whose handlers but set flags. */
static void sleep_full(double seconds)
{
    struct deadline end = deadline_after(seconds);
    while (!deadline_passed(end)) {
        clock_sleep_s(NAP_S);
    }
}

enum status fault_point(const char *point, struct error *err)
{
    long n = 0;
    const char *what = find_armed(point, &n);
    if (what == NULL || pass(n) != n) {
        return STATUS_OK;
    }
    if (strcmp(what, "kill") == 0) {
        kill(getpid(), SIGKILL);
    } else if (strcmp(what, "stop") == 0) {
        kill(getpid(), SIGTERM);
        return STATUS_OK;
    } else if (strcmp(what, "slow") == 0) {
        sleep_full(SLOW_S);
        return STATUS_OK;
    }
    while (strcmp(what, "hang") == 0) {
        clock_sleep_s(NAP_S);
    }
    if (strcmp(what, "device") == 0) {
        return FAIL(err, STATUS_DEVICE, "%s (lost by TREX_FAULT)", point);
    }
    if (strcmp(what, "enospc") != 0 && strcmp(what, "eio") != 0) {
        return FAIL(err, STATUS_INVALID,
                    "TREX_FAULT: \"%.40s\" cannot be armed for %s; allowed are kill, stop, slow, "
                    "hang, enospc, eio, device",
                    what, point);
    }
    errno = strcmp(what, "enospc") == 0 ? ENOSPC : EIO;
    return FAIL_ERRNO(err, "%s (made to fail by TREX_FAULT)", point);
}

bool fault_from(const char *point, const char *what)
{
    long n = 0;
    const char *armed = find_armed(point, &n);
    return armed != NULL && strcmp(armed, what) == 0 && pass(n) >= n;
}
