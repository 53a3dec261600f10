/* What this room needs of the lock, and tests: files that count only if the folder is still this
 * process's, and other intervals. */
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

/* file_commit, if the folder is still this process's when `aside` is written; whatever fails,
 * `aside` goes. lock NULL: none. STATUS_BUSY: somebody else has the folder, and nothing was
 * changed. */
enum status lock_commit(const struct store_lock *lock, const char *aside, const char *path,
                        const char *previous, struct error *err);

#endif
