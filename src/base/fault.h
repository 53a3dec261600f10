/* Named points at which a test makes this process die or an operation fail.
 *
 * TREX_FAULT="<point>[:<n>]=<what>" arms one point, at its n-th passing (default 1). what: kill
 * (SIGKILL, as a power failure would), enospc, eio, stop (SIGTERM to itself). Unset, a point costs
 * one comparison. */
#ifndef BASE_FAULT_H
#define BASE_FAULT_H

#include "base/status.h"

/* STATUS_OK, or the failure that was armed for this point. Names: "<room>.<file>.<moment>". */
enum status fault_point(const char *point, struct error *err);

#endif
