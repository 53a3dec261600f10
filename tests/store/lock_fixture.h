/* Taking the lock of a run folder: what each test of store/lock.h begins with. */
#ifndef TESTS_STORE_LOCK_FIXTURE_H
#define TESTS_STORE_LOCK_FIXTURE_H

#include "store/sample.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "store/lock.h"

/* Short, but long enough for a machine on which much else runs; and such that a test does not end
 * if it waits for silence. */
static const struct lock_options quick = {0.1, 2.0};
static const struct lock_options endless = {0.1, 1000.0};

#define ABSENT "flock=absent"
#define FOREIGN                                                                                    \
    "{\"host\":\"far\",\"boot\":\"another\",\"pid\":12,\"job\":\"7\",\"restart\":\"1\","           \
    "\"cluster\":\"c\",\"since\":\"then\",\"flock\":true,\"beat\":1,\"left\":false}"

enum { RESULT_WON = 'w', RESULT_BUSY = 'b', RESULT_OTHER = 'o' };

/* The file of an owner, written by hand. */
static inline void write_owner(const char *folder, const char *name, const char *text)
{
    char locks[FILE_PATH_BYTES];
    char path[FILE_PATH_BYTES];
    sample_path(folder, "lock", locks);
    assert_int_equal(file_make_folders(locks, NULL), STATUS_OK);
    sample_path(locks, name, path);
    sample_write(path, text, strlen(text));
}

static inline struct store_lock *take(const char *folder, const struct lock_options *options)
{
    struct store_lock *lock = NULL;
    struct error err = {0};
    if (lock_take(folder, options, &lock, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    return lock;
}

static inline enum status try_lock(const char *folder, struct error *err)
{
    struct store_lock *lock = NULL;
    TRY(lock_take(folder, &quick, &lock, err));
    store_folder_unlock(lock);
    return STATUS_OK;
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, sample_setup, sample_teardown)

#endif
