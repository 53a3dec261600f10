/* Snapshots: run.h5 written by a thread, so that the search never waits for the disk, nor for a
 * copy of itself to be made.
 *
 *   flush journal -> fold its new events -> write run.h5 (the old one becomes run.prev.h5) ->
 * shorten the journal
 *
 * A search is the fold of its events, so the thread keeps one of its own, which follows the
 * journal. The journal is flushed first, so it is never behind run.h5, and keeps the events since
 * run.prev.h5, so a lost run.h5 loses nothing. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "store/journal_file.h"
#include "store/run_file.h"
#include "store/store.h"

struct snapshot {
    char folder[FILE_PATH_BYTES];
    struct journal *journal; /* borrowed */
    pthread_t thread;
    pthread_mutex_t mutex; /* guards everything down to the blank line */
    pthread_cond_t changed;
    bool closing;
    bool busy;            /* a snapshot is being written; what follows belongs to the thread */
    int64_t target;       /* event that it is to hold */
    double took_s;        /* the last one that was finished */
    struct error failure; /* the first one that nobody was told of */

    struct search search;      /* the thread's own */
    bool loaded;               /* it holds what was on disk */
    int64_t previous_sequence; /* of the run.h5 before */
};

static enum status apply_new_event(void *context, const cJSON *event, int64_t sequence,
                                   size_t offset, struct error *err)
{
    struct snapshot *snapshot = context;
    (void)offset;
    if (sequence <= snapshot->search.last_sequence || sequence > snapshot->target) {
        return STATUS_OK;
    }
    return search_apply(&snapshot->search, event, err);
}

/* Brings the thread's search up to the target: the first time from disk, then from the journal. */
static enum status follow(struct snapshot *snapshot, struct error *err)
{
    char path[FILE_PATH_BYTES];
    char note[256];
    struct journal_scan scan;
    TRY(journal_flush(snapshot->journal, err));
    if (!snapshot->loaded) {
        TRY(store_run_load(snapshot->folder, &snapshot->search, note, sizeof(note), err));
        snapshot->loaded = true;
    }
    TRY(journal_path(snapshot->folder, path, err));
    TRY(journal_scan_file(path, snapshot->search.last_sequence, apply_new_event, snapshot, &scan,
                          err));
    if (snapshot->search.last_sequence < snapshot->target) {
        return FAIL(err, STATUS_CORRUPT, "%s: ends with event %lld, the search is at event %lld",
                    path, (long long)snapshot->search.last_sequence, (long long)snapshot->target);
    }
    return STATUS_OK;
}

/* Writes the run file and shortens the journal to what run.prev.h5 does not hold. */
static enum status write_snapshot(struct snapshot *snapshot, struct error *err)
{
    const struct store_lock *lock = journal_lock(snapshot->journal);
    if (lock != NULL) {
        TRY(store_lock_check(lock, err)); /* else the journal is not the one to follow */
    }
    TRY(follow(snapshot, err));
    TRY(run_file_save(snapshot->folder, lock, &snapshot->search, err));
    int64_t droppable = snapshot->previous_sequence;
    snapshot->previous_sequence = snapshot->search.last_sequence;
    return droppable > 0 ? journal_rotate(snapshot->journal, droppable, err) : STATUS_OK;
}

static void *serve(void *context)
{
    struct snapshot *snapshot = context;
    pthread_mutex_lock(&snapshot->mutex);
    while (!snapshot->closing || snapshot->busy) {
        if (!snapshot->busy) {
            pthread_cond_wait(&snapshot->changed, &snapshot->mutex);
            continue;
        }
        struct error failure = {0};
        double begun_s = clock_monotonic_s();
        pthread_mutex_unlock(&snapshot->mutex);
        enum status status = write_snapshot(snapshot, &failure);
        pthread_mutex_lock(&snapshot->mutex);
        if (status != STATUS_OK && snapshot->failure.code == STATUS_OK) {
            snapshot->failure = failure;
        }
        snapshot->took_s = clock_monotonic_s() - begun_s;
        snapshot->busy = false;
        pthread_cond_broadcast(&snapshot->changed);
    }
    pthread_mutex_unlock(&snapshot->mutex);
    return NULL;
}

/* What the run.h5 that is there holds; 0 if it cannot be read: then nothing is dropped from the
 * journal for it. */
static int64_t sequence_on_disk(const char *folder)
{
    char path[FILE_PATH_BYTES];
    int64_t sequence = 0;
    if (run_file_path(folder, path, NULL) != STATUS_OK ||
        run_file_sequence(path, &sequence, NULL) != STATUS_OK) {
        return 0;
    }
    return sequence;
}

enum status snapshot_create(const char *folder, struct journal *journal, struct snapshot **out,
                            struct error *err)
{
    struct snapshot *snapshot = mem_calloc(1, sizeof(*snapshot));
    if (snapshot == NULL) {
        return mem_fail(err, sizeof(*snapshot), "snapshots");
    }
    enum status status = file_join("", folder, snapshot->folder, err);
    if (status != STATUS_OK) {
        free(snapshot);
        return status;
    }
    snapshot->journal = journal;
    snapshot->previous_sequence = sequence_on_disk(folder);
    search_init(&snapshot->search);
    pthread_mutex_init(&snapshot->mutex, NULL);
    pthread_cond_init(&snapshot->changed, NULL);
    sigset_t all;
    sigset_t before;
    sigfillset(&all); /* signals are the main thread's business */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&snapshot->thread, NULL, serve, snapshot);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed != 0) {
        errno = failed;
        free(snapshot);
        return FAIL_ERRNO(err, "cannot start the snapshot thread");
    }
    *out = snapshot;
    return STATUS_OK;
}

bool snapshot_start(struct snapshot *snapshot, int64_t sequence)
{
    pthread_mutex_lock(&snapshot->mutex);
    bool starts = !snapshot->busy;
    if (starts) {
        snapshot->target = sequence;
        snapshot->busy = true;
        pthread_cond_broadcast(&snapshot->changed);
    }
    pthread_mutex_unlock(&snapshot->mutex);
    return starts;
}

/* Tells of the failure once (mutex held): the next snapshot may succeed. */
static enum status take_failure(struct snapshot *snapshot, struct error *err)
{
    enum status status = snapshot->failure.code;
    if (status != STATUS_OK) {
        if (err != NULL) {
            *err = snapshot->failure;
        }
        memset(&snapshot->failure, 0, sizeof(snapshot->failure));
    }
    return status;
}

enum status snapshot_check(struct snapshot *snapshot, struct error *err)
{
    pthread_mutex_lock(&snapshot->mutex);
    enum status status = take_failure(snapshot, err);
    pthread_mutex_unlock(&snapshot->mutex);
    return status;
}

double snapshot_seconds(struct snapshot *snapshot)
{
    pthread_mutex_lock(&snapshot->mutex);
    double took_s = snapshot->took_s;
    pthread_mutex_unlock(&snapshot->mutex);
    return took_s;
}

enum status snapshot_wait(struct snapshot *snapshot, struct error *err)
{
    pthread_mutex_lock(&snapshot->mutex);
    while (snapshot->busy) {
        pthread_cond_wait(&snapshot->changed, &snapshot->mutex);
    }
    enum status status = take_failure(snapshot, err);
    pthread_mutex_unlock(&snapshot->mutex);
    return status;
}

void snapshot_destroy(struct snapshot *snapshot)
{
    if (snapshot == NULL) {
        return;
    }
    pthread_mutex_lock(&snapshot->mutex);
    snapshot->closing = true;
    pthread_cond_broadcast(&snapshot->changed);
    pthread_mutex_unlock(&snapshot->mutex);
    pthread_join(snapshot->thread, NULL);
    pthread_cond_destroy(&snapshot->changed);
    pthread_mutex_destroy(&snapshot->mutex);
    search_fini(&snapshot->search);
    free(snapshot);
}
