/* The lock with other intervals, for tests. */
#ifndef STORE_LOCK_H
#define STORE_LOCK_H

#include "store/store.h"

struct lock_options {
    double beat_s;    /* between two beats */
    double silence_s; /* after which an owner counts as dead */
};

/* store_folder_lock with these. */
enum status lock_take(const char *folder, const struct lock_options *options,
                      struct store_lock **out, struct error *err);

#endif
