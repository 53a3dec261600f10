#include "base/clock.h"

#include <math.h>
#include <stdio.h>
#include <time.h>

#include "base/fault.h"

#define FAULT_JUMP_S 86400.0

static double seconds_of(clockid_t id)
{
    struct timespec now;
    clock_gettime(id, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

double clock_monotonic_s(void)
{
    return seconds_of(CLOCK_MONOTONIC);
}

double clock_thread_s(void)
{
    return seconds_of(CLOCK_THREAD_CPUTIME_ID);
}

double clock_wall_s(void)
{
    double now_s = seconds_of(CLOCK_REALTIME);
    if (fault_from("clock", "ahead")) {
        return now_s + FAULT_JUMP_S;
    }
    return fault_from("clock", "back") ? now_s - FAULT_JUMP_S : now_s;
}

void clock_format_utc(double wall_s, char *out, size_t out_bytes)
{
    bool four_digits = wall_s >= 0.0 && wall_s < 253402300800.0; /* up to the year 9999 */
    time_t seconds = four_digits ? (time_t)wall_s : 0;
    struct tm parts;
    if (!four_digits || gmtime_r(&seconds, &parts) == NULL ||
        strftime(out, out_bytes, "%Y-%m-%dT%H:%M:%SZ", &parts) == 0) {
        snprintf(out, out_bytes, "?");
    }
}

void clock_sleep_s(double seconds)
{
    if (seconds > 0.0) {
        struct timespec span = {.tv_sec = (time_t)seconds};
        span.tv_nsec = (long)((seconds - (double)span.tv_sec) * 1e9);
        nanosleep(&span, NULL);
    }
}

struct deadline deadline_never(void)
{
    return (struct deadline){.end_s = INFINITY};
}

struct deadline deadline_after(double seconds)
{
    return (struct deadline){.end_s = clock_monotonic_s() + seconds};
}

double deadline_left_s(struct deadline deadline)
{
    return deadline.end_s - clock_monotonic_s();
}

bool deadline_passed(struct deadline deadline)
{
    return deadline_left_s(deadline) <= 0.0;
}
