#include "base/fault.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* How often the armed point was passed; a process has one TREX_FAULT, so one counter. */
static _Atomic long passings;

enum status fault_point(const char *point, struct error *err)
{
    const char *armed = getenv("TREX_FAULT");
    size_t length = strlen(point);
    if (armed == NULL || strncmp(armed, point, length) != 0 ||
        (armed[length] != ':' && armed[length] != '=')) {
        return STATUS_OK;
    }
    long n = armed[length] == ':' ? strtol(armed + length + 1, NULL, 10) : 1;
    const char *what = strchr(armed + length, '=');
    if (what == NULL || atomic_fetch_add(&passings, 1) + 1 != n) {
        return STATUS_OK;
    }
    what++;
    if (strcmp(what, "kill") == 0) {
        kill(getpid(), SIGKILL);
    } else if (strcmp(what, "stop") == 0) {
        kill(getpid(), SIGTERM);
        return STATUS_OK;
    }
    errno = strcmp(what, "enospc") == 0 ? ENOSPC : EIO;
    return FAIL_ERRNO(err, "%s (made to fail by TREX_FAULT)", point);
}
