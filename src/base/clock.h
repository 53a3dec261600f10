/* Time that never runs backwards, and the moment before which everything must be safe on disk. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdbool.h>
#include <stddef.h>

double clock_monotonic_s(void); /* seconds since an arbitrary start; for durations and deadlines */
double clock_thread_s(void);    /* that this thread has had a processor */
double clock_wall_s(void);      /* seconds since 1970; for records only, it may jump */

/* Formats a wall time as "2026-01-31T12:34:56Z". */
void clock_format_utc(double wall_s, char *out, size_t out_bytes);

void clock_sleep_s(double seconds); /* may return early when a signal arrives */

struct deadline {
    double end_s; /* on the monotonic clock; infinity: none */
};

struct deadline deadline_never(void);
struct deadline deadline_after(double seconds);
double deadline_left_s(struct deadline deadline); /* negative once passed */
bool deadline_passed(struct deadline deadline);

#endif
