/* How long work tells its caller where it is, and learns that it should stop. */
#ifndef BASE_PROGRESS_H
#define BASE_PROGRESS_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

struct progress {
    /* Called often (every step, every batch of rows). Anything but STATUS_OK stops the work at this
     * safe point, and the work returns that status: STATUS_INTERRUPTED for a stop on request.
     * `phase` is "load", "data", "train" ... (run/message.h has them all); done of total units. */
    enum status (*tick)(void *context, const char *phase, int64_t done, int64_t total,
                        struct error *err);
    void *context;
};

/* Calls tick if there is one; progress may be NULL. */
static inline enum status progress_tick(const struct progress *progress, const char *phase,
                                        int64_t done, int64_t total, struct error *err)
{
    if (progress == NULL || progress->tick == NULL) {
        return STATUS_OK;
    }
    return progress->tick(progress->context, phase, done, total, err);
}

/* The same where the work cannot stop (within a file that is being written): whoever listens learns
 * that it lives, and a wish to stop is heard at the next tick. */
static inline enum status progress_report(const struct progress *progress, const char *phase,
                                          int64_t done, int64_t total, struct error *err)
{
    enum status status = progress_tick(progress, phase, done, total, err);
    return status == STATUS_INTERRUPTED ? STATUS_OK : status;
}

#endif
