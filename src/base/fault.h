/* Named points at which a test makes this process die or hang, an operation fail, or the machine
 * look different from what it is.
 *
 * TREX_FAULT="<point>[:<n>]=<what>" arms one point, at its n-th passing (default 1). Unset, a point
 * costs one comparison. what:
 *
 *   kill      SIGKILL, as a power failure would       enospc, eio   the operation fails
 *   stop      SIGTERM to itself                       device        likewise: a GPU is lost
 *   hang      the calling thread sleeps for ever      slow          it takes 5 s longer
 *
 * and, for points that are asked from the n-th passing on (fault_from):
 *
 *   clock     ahead, back: the wall clock is a day ahead or behind
 *   flock     absent: the file system has no flock
 *
 * The n-th passing is told on stderr: "TREX_FAULT strikes: <point>[:<n>]=<what>". */
#ifndef BASE_FAULT_H
#define BASE_FAULT_H

#include <stdbool.h>

#include "base/status.h"

/* STATUS_OK, or the failure that was armed for this point. Names: "<room>.<file>.<moment>". */
enum status fault_point(const char *point, struct error *err);

/* Whether `what` was armed for this point and its n-th passing has come. */
bool fault_from(const char *point, const char *what);

#endif
