/* The thread that beats for an owner: whatever else its process does, it writes a new count into
 * the owner's file each interval. */
#ifndef STORE_HEART_H
#define STORE_HEART_H

#include <stdbool.h>

#include "base/status.h"

struct heart; /* opaque */
enum status heart_start(const char *path, double beat_s, struct heart **out, struct error *err);

/* Why the last beat could not be written; STATUS_OK if it was. From any thread. */
enum status heart_check(struct heart *heart, struct error *err);

/* Ends it; false if it did not within patience_s, because the file system hangs: it is then left to
 * itself, and may write once more. */
bool heart_stop(struct heart *heart, double patience_s);

#endif
