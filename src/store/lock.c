/* The lock of a run folder: how it is taken, kept, lost and left.
 *
 * Each owner has a file of its own in the folder `lock`, named by its fence: lock/1, lock/2 and so
 * on (lock_file.h shows what is in it). The one with the greatest number has the run folder.
 *
 * Taking it: look at the newest owner N until it has left, is surely dead (lock_file.c) or has been
 * silent for STORE_SILENCE_S; a beat that is seen ends the attempt with STATUS_BUSY. Then create
 * N+1 with O_EXCL: of many who try, one succeeds, and the others find the next owner to look at.
 * Then see whether there is a greater one: who slept since it looked may have created a number that
 * others used and removed, and withdraws. The owner removes the smaller ones, and then what others
 * have written aside (*.tmp) in the run folder.
 *
 * Keeping it: a thread writes a new count into the owner's file every STORE_BEAT_S. An owner writes
 * into its own file alone, so one that sleeps, is taken over and wakes up again, between whatever
 * two instructions, spoils nothing here.
 *
 * Checking it: a greater number is STATUS_BUSY, and what was about to count does not. A file is
 * written aside, then the owner checks, then it renames. If the check came in time, the new owner,
 * which claims first and sweeps then, has swept what lay aside, and a late rename fails; of the old
 * owner's steps only one can still come then, by which run.prev.h5 is the new owner's run.h5 until
 * its next snapshot. The journal is another file after each takeover (journal_open), so that what a
 * late owner appends reaches no reader; and an event counts as on disk only if a check after its
 * sync finds no new owner, who may have read the file before. Weights and training states, which
 * other ranks write, are not guarded: they are whole files that depend on the candidate alone, and
 * an idle owner checks too, so that its ranks stop soon.
 *
 * Leaving it: the word goes into the own file, which stays, so that numbers grow.
 *
 * Silence is measured on the clock of the one who waits, from look to look: no two clocks are
 * compared. A look that comes late (the file system hung, this machine slept) counts as two naps at
 * most, so that the owner, whom the same may have hit, has time to beat again.
 *
 * What is assumed of the file system: O_EXCL is atomic (NFS from version 3 on, Lustre, GPFS, BeeGFS
 * and all local ones), a folder or file that is opened anew is as others left it when they closed
 * it (NFS: not with the mount option nocto), and a beat reaches others within STORE_SILENCE_S.
 * flock is not needed; where there is one it tells at once of owners that died in other containers
 * of this machine. */
#include "store/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/mem.h"
#include "store/folder.h"
#include "store/heart.h"
#include "store/lock_file.h"

/* Looks in the time of a beat, and how many silences are waited for at most, should looks be late.
 */
enum { LOOKS_A_BEAT = 4, PATIENCE = 3 };

struct store_lock {
    char run_folder[FILE_PATH_BYTES];
    char folder[FILE_PATH_BYTES]; /* of the owners' files */
    char path[FILE_PATH_BYTES];   /* of the own one */
    char taken_from[LOCK_OWNER_TEXT_BYTES];
    struct lock_options options;
    struct lock_owner self;
    int64_t fence;
    int fd; /* of the own file, for flock; -1: none */
    struct heart *heart;
};

/* ---- taking ---- */

static enum status fail_busy(const struct store_lock *lock, const struct lock_look *look,
                             struct error *err)
{
    char owner[LOCK_OWNER_TEXT_BYTES];
    lock_owner_describe(&look->owner, owner);
    return FAIL(err, STATUS_BUSY, "%s is in use by %s; stop it, or wait for it", lock->run_folder,
                owner);
}

/* Removes the files of the owners before: best effort. */
static void remove_smaller(const struct store_lock *lock)
{
    char path[FILE_PATH_BYTES];
    for (int64_t fence = lock->fence - 1; fence > 0; fence--) {
        if (lock_file_path(lock->folder, fence, path, NULL) != STATUS_OK || unlink(path) != 0) {
            return;
        }
    }
}

/* Fills the file that was just created, and finds out whether it is the newest. */
static enum status fill(struct store_lock *lock, bool *won, struct error *err)
{
    int64_t newest = 0;
    TRY(fault_point("store.lock.created", err));
    lock->self.flock = lock_file_flock(lock->fd);
    TRY(lock_file_fill(lock->fd, lock->path, &lock->self, err));
    TRY(fault_point("store.lock.filled", err));
    TRY(lock_find_newest(lock->folder, &newest, err));
    *won = newest == lock->fence;
    return *won ? file_sync_folder(lock->folder, err) : STATUS_OK;
}

/* Tries to become the owner after `fence`; *won is false if another did. */
static enum status claim(struct store_lock *lock, int64_t fence, bool *won, struct error *err)
{
    *won = false;
    if (fence == INT64_MAX) {
        return FAIL(err, STATUS_LIMIT, "%s/%" PRId64 ": no owner can come after it; remove it",
                    lock->folder, fence);
    }
    lock->fence = fence + 1;
    TRY(lock_file_path(lock->folder, lock->fence, lock->path, err));
    TRY(fault_point("store.lock.before_claim", err));
    lock->fd = open(lock->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (lock->fd < 0) {
        return errno == EEXIST ? STATUS_OK : FAIL_ERRNO(err, "cannot create %s", lock->path);
    }
    enum status status = fill(lock, won, err);
    if (!*won || status != STATUS_OK) {
        unlink(lock->path);
        close(lock->fd);
        lock->fd = -1;
    }
    return status;
}

/* How long an owner has been silent, by the looks at it. */
struct watch {
    struct lock_look last; /* byte_count 0 and fence 0: none yet */
    double look_s;         /* when, on this machine's monotonic clock */
    double silent_s;
};

/* Takes a look into account; true if the owner is seen to beat. */
static bool watch_take(struct watch *watch, const struct lock_look *look, double nap_s)
{
    double now_s = clock_monotonic_s();
    double gap_s = now_s - watch->look_s;
    bool same = watch->last.fence == look->fence;
    bool beats = same && (watch->last.byte_count != look->byte_count ||
                          memcmp(watch->last.bytes, look->bytes, look->byte_count) != 0);
    if (same && !beats) {
        watch->silent_s += gap_s < 2.0 * nap_s ? gap_s : 2.0 * nap_s;
    } else {
        watch->silent_s = 0.0;
    }
    watch->last = *look;
    watch->look_s = now_s;
    return beats;
}

/* Sleeps; STATUS_INTERRUPTED if a signal was handled meanwhile. */
static enum status nap(const struct store_lock *lock, double seconds, struct error *err)
{
    struct timespec span = {.tv_sec = (time_t)seconds};
    span.tv_nsec = (long)((seconds - (double)span.tv_sec) * 1e9);
    return nanosleep(&span, NULL) == 0
               ? STATUS_OK
               : FAIL(err, STATUS_INTERRUPTED,
                      "stopped while it waited to see whether the last owner of %s lives",
                      lock->run_folder);
}

/* Whether the folder may be claimed after this look. */
static bool is_free(const struct store_lock *lock, const struct watch *watch)
{
    const struct lock_look *look = &watch->last;
    return look->fence == 0 || look->left || look->alive == STORE_ALIVE_NO ||
           watch->silent_s >= lock->options.silence_s;
}

/* Waits until the folder is free and takes it. *before: the look at the owner before. */
static enum status contend(struct store_lock *lock, struct lock_look *before, struct error *err)
{
    double nap_s = lock->options.beat_s / LOOKS_A_BEAT;
    struct deadline end = deadline_after(PATIENCE * lock->options.silence_s);
    struct watch watch = {.look_s = clock_monotonic_s()};
    struct lock_look look;
    watch.last.fence = -1;
    for (bool won = false; !won;) {
        TRY(lock_look(lock->folder, &lock->self, &look, err));
        bool beats = watch_take(&watch, &look, nap_s);
        if (is_free(lock, &watch)) {
            *before = look;
            TRY(claim(lock, look.fence, &won, err));
            if (!won && deadline_passed(end)) {
                return fail_busy(lock, &look, err);
            }
        } else if (beats || deadline_passed(end)) {
            return fail_busy(lock, &look, err);
        } else {
            TRY(nap(lock, nap_s, err));
        }
    }
    return STATUS_OK;
}

/* Versions before had one file `lock`, empty when it was left. */
static enum status retire_old_file(const struct store_lock *lock, struct error *err)
{
    struct stat info;
    if (lstat(lock->folder, &info) != 0 || !S_ISREG(info.st_mode)) {
        return STATUS_OK;
    }
    if (info.st_size > 0) {
        return FAIL(err, STATUS_BUSY,
                    "%s is of an older version of trex, whose search runs or was killed; if it "
                    "does not run, remove that file",
                    lock->folder);
    }
    return file_remove(lock->folder, err);
}

/* Takes note of who had the folder before, and tidies up after them. */
static void succeed(struct store_lock *lock, const struct lock_look *before)
{
    if (before->fence > 0 && !before->left) {
        lock_owner_describe(&before->owner, lock->taken_from);
    }
    remove_smaller(lock);
    folder_sweep(lock->run_folder);
}

enum status lock_take(const char *folder, const struct lock_options *options,
                      struct store_lock **out, struct error *err)
{
    enum status status = STATUS_OK;
    struct lock_look before = {.fence = 0};
    struct store_lock *lock = mem_calloc(1, sizeof(*lock));
    if (lock == NULL) {
        return mem_fail(err, sizeof(*lock), "a lock");
    }
    lock->fd = -1;
    lock->options = *options;
    lock_owner_self(&lock->self);
    TRY_CLEANUP(file_join("", folder, lock->run_folder, err));
    TRY_CLEANUP(file_join(folder, FOLDER_LOCK, lock->folder, err));
    TRY_CLEANUP(retire_old_file(lock, err));
    TRY_CLEANUP(folder_make(folder, err));
    TRY_CLEANUP(contend(lock, &before, err));
    TRY_CLEANUP(fault_point("store.lock.claimed", err));
    TRY_CLEANUP(heart_start(lock->path, options->beat_s, &lock->heart, err));
    succeed(lock, &before);
    TRY_CLEANUP(fault_point("store.lock.swept", err));
    *out = lock;
cleanup:
    if (status != STATUS_OK) {
        store_folder_unlock(lock);
    }
    return status;
}

enum status store_folder_lock(const char *folder, struct store_lock **out, struct error *err)
{
    return lock_take(folder, &(struct lock_options){STORE_BEAT_S, STORE_SILENCE_S}, out, err);
}

void store_folder_unlock(struct store_lock *lock)
{
    if (lock == NULL) {
        return;
    }
    /* A beat that hangs may still come, and would take the word back. */
    bool quiet = lock->heart == NULL || heart_stop(lock->heart, lock->options.silence_s);
    if (quiet && lock->fd >= 0) {
        lock_file_beat(lock->path, 0, true, NULL); /* else the next one waits for silence */
    }
    if (lock->fd >= 0) {
        close(lock->fd);
    }
    free(lock);
}

/* ---- asking ---- */

enum status store_lock_check(const struct store_lock *lock, struct error *err)
{
    int64_t newest = 0;
    struct lock_look look;
    struct error failure = {0};
    char owner[LOCK_OWNER_TEXT_BYTES] = "another process";
    TRY(lock_find_newest(lock->folder, &newest, err));
    if (newest == lock->fence) {
        return STATUS_OK;
    }
    if (newest < lock->fence) {
        return FAIL(err, STATUS_BUSY,
                    "%s is gone: somebody removed it, and may use %s; this process writes nothing "
                    "more into it",
                    lock->path, lock->run_folder);
    }
    if (lock_look(lock->folder, &lock->self, &look, NULL) == STATUS_OK) {
        lock_owner_describe(&look.owner, owner);
    }
    bool failed = heart_check(lock->heart, &failure) != STATUS_OK;
    return FAIL(err, STATUS_BUSY,
                "%s was taken over by %s, because this process gave no sign of life for %g s%s%s; "
                "it writes nothing more into it",
                lock->run_folder, owner, lock->options.silence_s, failed ? ": " : "",
                failed ? failure.message : "");
}

enum status lock_commit(const struct store_lock *lock, const char *aside, const char *path,
                        const char *previous, struct error *err)
{
    enum status status = lock != NULL ? store_lock_check(lock, err) : STATUS_OK;
    if (status == STATUS_OK) {
        status = file_commit(aside, path, previous, err);
        /* A new owner may have swept it: then that is what went wrong. */
        if (status != STATUS_OK && lock != NULL && store_lock_check(lock, NULL) == STATUS_BUSY) {
            status = store_lock_check(lock, err);
        }
    }
    if (status != STATUS_OK) {
        unlink(aside);
    }
    return status;
}

const char *store_lock_taken_from(const struct store_lock *lock)
{
    return lock->taken_from;
}

int64_t store_lock_fence(const struct store_lock *lock)
{
    return lock->fence;
}

enum status store_folder_holder(const char *folder, struct store_holder *out, struct error *err)
{
    char path[FILE_PATH_BYTES];
    struct lock_owner self;
    struct lock_look look = {.fence = 0};
    memset(out, 0, sizeof(*out));
    TRY(file_join(folder, FOLDER_LOCK, path, err));
    lock_owner_self(&self);
    if (file_is_folder(path)) {
        TRY(lock_look(path, &self, &look, err));
    }
    if (look.fence == 0 || look.left) {
        return FAIL(err, STATUS_NOT_FOUND, "%s names no process", path);
    }
    if (look.owner.pid == 0) {
        return FAIL(err, STATUS_FORMAT, "%s/%" PRId64 " names no process", path, look.fence);
    }
    snprintf(out->host, sizeof(out->host), "%s", look.owner.host);
    snprintf(out->job, sizeof(out->job), "%.63s", look.owner.job);
    snprintf(out->since, sizeof(out->since), "%s", look.owner.since);
    out->pid = look.owner.pid;
    out->alive = look.alive;
    out->beat_age_s = look.beat_age_s;
    return STATUS_OK;
}
