/* The journal's writer. Callers put events into a queue; one thread prints them, writes all that
 * wait with one call and syncs once (group commit). What is on disk goes back to the caller: memory
 * that one thread gets and another frees ends up scattered over both their heaps. A failure stops
 * the writing for good: what is on disk stays readable. So does the loss of the folder's lock:
 * nothing is written then, and what was being written does not count. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/mem.h"
#include "store/journal_file.h"
#include "store/lock.h"
#include "store/store.h"

/* Events that may wait: far more than a disk that works lets pile up. */
enum { JOURNAL_QUEUE_MAX = 1 << 20 };

struct entry {
    cJSON *event; /* owned */
    int64_t sequence;
    struct entry *next;
};

struct journal {
    char path[FILE_PATH_BYTES];
    const struct store_lock *lock; /* borrowed; NULL: none */
    pthread_t thread;
    pthread_mutex_t mutex;      /* guards everything down to the blank line */
    pthread_cond_t wake;        /* for the thread: there is work */
    pthread_cond_t settled;     /* for callers: something was done */
    struct entry *first, *last; /* all that nobody has taken back */
    struct entry *waiting;    /* of them, the first that was not begun to be written; NULL: none */
    int64_t queue_length;     /* from there on */
    int64_t queued_sequence;  /* last event that was appended */
    int64_t durable_sequence; /* last event on disk */
    bool closing;
    bool rotate_wanted;
    int64_t rotate_sequence;
    struct error rotate_failure;
    struct error failure; /* that stopped the writing; code STATUS_OK: none */

    /* Of the thread alone. */
    int fd;
    off_t good_bytes; /* whole lines in the file */
    struct buffer text;
};

/* ---- the thread ---- */

static enum status write_all(int fd, const char *path, const char *data, size_t bytes,
                             struct error *err)
{
    while (bytes > 0) {
        ssize_t put = write(fd, data, bytes);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put < 0) {
            return FAIL_ERRNO(err, "cannot write %s", path);
        }
        data += put;
        bytes -= (size_t)put;
    }
    return STATUS_OK;
}

/* Whether this process still has the folder. */
static enum status check_lock(const struct journal *journal, struct error *err)
{
    return journal->lock != NULL ? store_lock_check(journal->lock, err) : STATUS_OK;
}

static enum status write_text(struct journal *journal, struct error *err)
{
    const char *data = journal->text.data;
    size_t bytes = journal->text.len_bytes;
    size_t half = bytes / 2;
    TRY(fault_point("store.journal.before_write", err));
    TRY(write_all(journal->fd, journal->path, data, half, err));
    TRY(fault_point("store.journal.mid_write", err));
    TRY(write_all(journal->fd, journal->path, data + half, bytes - half, err));
    if (fdatasync(journal->fd) != 0) {
        return FAIL_ERRNO(err, "cannot sync %s", journal->path);
    }
    journal->good_bytes += (off_t)bytes;
    return fault_point("store.journal.after_sync", err);
}

static void free_entries(struct entry *first)
{
    while (first != NULL) {
        struct entry *next = first->next;
        cJSON_Delete(first->event);
        free(first);
        first = next;
    }
}

/* Writes the entries up to the last one, which is the caller's from there on. */
static enum status write_entries(struct journal *journal, const struct entry *first,
                                 const struct entry *last, struct error *err)
{
    buffer_clear(&journal->text);
    TRY(journal_line_append(first->event, &journal->text, err));
    for (const struct entry *entry = first; entry != last;) {
        entry = entry->next;
        TRY(journal_line_append(entry->event, &journal->text, err));
    }
    /* The file that is open is this owner's: a new one would have had to come between the opening
     * and this check. */
    TRY(check_lock(journal, err));
    enum status status = write_text(journal, err);
    if (status != STATUS_OK && ftruncate(journal->fd, journal->good_bytes) != 0) {
        /* The half line stays; readers drop it. */
        return status;
    }
    /* A new owner that came meanwhile may have read the file before it held these lines. */
    return status == STATUS_OK ? check_lock(journal, err) : status;
}

/* Where the events after a sequence number begin. */
struct cut {
    int64_t sequence;
    size_t offset;
    bool found;
};

static enum status find_cut(void *context, const cJSON *event, int64_t sequence, size_t offset,
                            struct error *err)
{
    struct cut *cut = context;
    (void)event;
    (void)err;
    if (!cut->found && sequence > cut->sequence) {
        cut->found = true;
        cut->offset = offset;
    }
    return STATUS_OK;
}

static enum status open_end(struct journal *journal, struct error *err)
{
    journal->fd = open(journal->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    return journal->fd >= 0 ? STATUS_OK : FAIL_ERRNO(err, "cannot open %s", journal->path);
}

/* Appends go to the file that has the name now, whichever that is after a failed rename too. */
static enum status open_again(struct journal *journal, struct error *err)
{
    close(journal->fd);
    TRY(open_end(journal, err));
    int64_t bytes = file_size_bytes(journal->path);
    if (bytes < 0) {
        return FAIL_ERRNO(err, "cannot open %s", journal->path);
    }
    journal->good_bytes = (off_t)bytes;
    return STATUS_OK;
}

/* Puts a file with these bytes in the place of the journal. */
static enum status replace(const struct journal *journal, const char *data, size_t bytes,
                           struct error *err)
{
    char aside[FILE_PATH_BYTES];
    TRY(file_write_aside(journal->path, data, bytes, aside, err));
    return lock_commit(journal->lock, aside, journal->path, NULL, err);
}

/* Writes what is to stay aside and renames it: at any kill there is the long journal or the short
 * one. *lost is set if appending cannot go on. */
static enum status rotate(struct journal *journal, int64_t sequence, bool *lost, struct error *err)
{
    enum status status = STATUS_OK;
    struct buffer text;
    struct journal_scan scan;
    struct cut cut = {sequence, 0, false};
    buffer_init(&text, JOURNAL_MAX_BYTES);
    TRY_CLEANUP(file_read(journal->path, &text, err));
    TRY_CLEANUP(journal_scan_text(buffer_text(&text), text.len_bytes, journal->path, sequence,
                                  find_cut, &cut, &scan, err));
    if (!cut.found) {
        cut.offset = scan.good_bytes;
    }
    if (cut.offset > 0) {
        status = replace(journal, text.data + cut.offset, scan.good_bytes - cut.offset, err);
        enum status opened = open_again(journal, status == STATUS_OK ? err : NULL);
        *lost = opened != STATUS_OK;
        status = status != STATUS_OK ? status : opened;
    }
cleanup:
    buffer_fini(&text);
    return status;
}

/* Takes the queue (mutex held on entry and exit, not in between). */
static void serve_queue(struct journal *journal)
{
    const struct entry *first = journal->waiting;
    const struct entry *last = journal->last;
    int64_t sequence = journal->queued_sequence;
    struct error failure = {0};
    journal->waiting = NULL;
    journal->queue_length = 0;
    pthread_mutex_unlock(&journal->mutex);
    enum status status = write_entries(journal, first, last, &failure);
    pthread_mutex_lock(&journal->mutex);
    if (status == STATUS_OK) {
        journal->durable_sequence = sequence;
    } else {
        journal->failure = failure;
    }
}

static void serve_rotation(struct journal *journal)
{
    int64_t sequence = journal->rotate_sequence;
    struct error failure = {0};
    pthread_mutex_unlock(&journal->mutex);
    bool lost = false;
    rotate(journal, sequence, &lost, &failure);
    pthread_mutex_lock(&journal->mutex);
    journal->rotate_failure = failure;
    journal->rotate_wanted = false;
    if (lost) {
        journal->failure = failure;
    }
}

/* Waits for work (mutex held). An owner that is idle asks now and then whether it still is one: its
 * ranks may train for hours before the next event. */
static void wait_for_work(struct journal *journal)
{
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += STORE_BEAT_S;
    if (journal->lock == NULL) {
        pthread_cond_wait(&journal->wake, &journal->mutex);
    } else if (pthread_cond_timedwait(&journal->wake, &journal->mutex, &end) == ETIMEDOUT) {
        struct error failure = {0};
        pthread_mutex_unlock(&journal->mutex);
        enum status status = check_lock(journal, &failure);
        pthread_mutex_lock(&journal->mutex);
        if (status == STATUS_BUSY) {
            journal->failure = failure;
        }
    }
}

static void *serve(void *context)
{
    struct journal *journal = context;
    pthread_mutex_lock(&journal->mutex);
    for (;;) {
        bool failed = journal->failure.code != STATUS_OK;
        if (journal->waiting != NULL && !failed) {
            serve_queue(journal);
        } else if (journal->rotate_wanted && !failed) {
            serve_rotation(journal);
        } else if (journal->closing || failed) {
            break;
        } else {
            wait_for_work(journal);
            continue;
        }
        pthread_cond_broadcast(&journal->settled);
    }
    pthread_cond_broadcast(&journal->settled);
    pthread_mutex_unlock(&journal->mutex);
    return NULL;
}

/* ---- opening and closing ---- */

/* How much of the journal counts: not a cut line, and nothing if the run file is ahead of it (its
 * events are all in there, and the next one would leave a gap). */
static enum status find_good(const struct journal *journal, const struct journal_scan *scan,
                             int64_t last_sequence, size_t *keep, struct error *err)
{
    if (scan->last_sequence > last_sequence) {
        /* A late write of the owner before, or a mistake of the caller's. */
        return FAIL(err, journal->lock != NULL ? STATUS_BUSY : STATUS_INVALID,
                    "%s: holds events up to %" PRId64
                    ", the search that was read ends with %" PRId64 "; run it again",
                    journal->path, scan->last_sequence, last_sequence);
    }
    *keep = scan->last_sequence < last_sequence ? 0 : scan->good_bytes;
    return STATUS_OK;
}

/* Writes the journal anew, as it was but for what does not count, and opens its end. */
static enum status take_over(struct journal *journal, int64_t last_sequence, struct error *err)
{
    enum status status = STATUS_OK;
    struct error failure = {0};
    struct buffer text;
    struct journal_scan scan;
    size_t keep = 0;
    buffer_init(&text, JOURNAL_MAX_BYTES);
    status = file_read(journal->path, &text, &failure);
    if (status != STATUS_OK && status != STATUS_NOT_FOUND) {
        if (err != NULL) {
            *err = failure;
        }
        goto cleanup;
    }
    TRY_CLEANUP(journal_scan_text(buffer_text(&text), text.len_bytes, journal->path, last_sequence,
                                  NULL, NULL, &scan, err));
    TRY_CLEANUP(find_good(journal, &scan, last_sequence, &keep, err));
    TRY_CLEANUP(replace(journal, buffer_text(&text), keep, err));
    TRY_CLEANUP(open_end(journal, err));
    journal->good_bytes = (off_t)keep;
cleanup:
    buffer_fini(&text);
    return status;
}

/* Signals are the main thread's business. */
static enum status start_thread(struct journal *journal, struct error *err)
{
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&journal->thread, NULL, serve, journal);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed != 0) {
        errno = failed;
        return FAIL_ERRNO(err, "cannot start the journal's thread");
    }
    return STATUS_OK;
}

enum status journal_open(const char *folder, const struct store_lock *lock, int64_t last_sequence,
                         struct journal **out, struct error *err)
{
    enum status status = STATUS_OK;
    pthread_condattr_t monotonic;
    struct journal *journal = mem_calloc(1, sizeof(*journal));
    if (journal == NULL) {
        return mem_fail(err, sizeof(*journal), "the journal");
    }
    journal->fd = -1;
    journal->lock = lock;
    buffer_init(&journal->text, JOURNAL_MAX_BYTES);
    pthread_mutex_init(&journal->mutex, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&journal->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_cond_init(&journal->settled, NULL);
    journal->queued_sequence = last_sequence;
    journal->durable_sequence = last_sequence;
    TRY_CLEANUP(journal_path(folder, journal->path, err));
    TRY_CLEANUP(take_over(journal, last_sequence, err));
    TRY_CLEANUP(start_thread(journal, err));
    *out = journal;
cleanup:
    if (status != STATUS_OK) {
        if (journal->fd >= 0) {
            close(journal->fd);
        }
        free(journal);
    }
    return status;
}

void journal_close(struct journal *journal)
{
    if (journal == NULL) {
        return;
    }
    pthread_mutex_lock(&journal->mutex);
    journal->closing = true;
    pthread_cond_signal(&journal->wake);
    pthread_mutex_unlock(&journal->mutex);
    pthread_join(journal->thread, NULL);
    free_entries(journal->first);
    if (journal->fd >= 0) {
        close(journal->fd);
    }
    buffer_fini(&journal->text);
    pthread_cond_destroy(&journal->settled);
    pthread_cond_destroy(&journal->wake);
    pthread_mutex_destroy(&journal->mutex);
    free(journal);
}

/* ---- for callers ---- */

/* The failure that stopped the writing, if any (mutex held). */
static enum status check_failure(const struct journal *journal, struct error *err)
{
    if (journal->failure.code != STATUS_OK && err != NULL) {
        *err = journal->failure;
    }
    return journal->failure.code;
}

static enum status enqueue(struct journal *journal, struct entry *entry, struct error *err)
{
    double number =
        cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(entry->event, "sequence"));
    TRY(check_failure(journal, err));
    if (!(number == (double)(journal->queued_sequence + 1))) {
        return FAIL(err, STATUS_INVALID, "%s: event %.0f after event %" PRId64, journal->path,
                    number, journal->queued_sequence);
    }
    if (journal->queue_length >= JOURNAL_QUEUE_MAX) {
        return FAIL(err, STATUS_LIMIT, "%s: more than %d events wait for the disk", journal->path,
                    JOURNAL_QUEUE_MAX);
    }
    if (journal->last != NULL) {
        journal->last->next = entry;
    } else {
        journal->first = entry;
    }
    journal->last = entry;
    journal->waiting = journal->waiting != NULL ? journal->waiting : entry;
    journal->queue_length++;
    entry->sequence = ++journal->queued_sequence;
    pthread_cond_signal(&journal->wake);
    return STATUS_OK;
}

const struct store_lock *journal_lock(const struct journal *journal)
{
    return journal->lock;
}

enum status journal_append(struct journal *journal, cJSON *event, struct error *err)
{
    struct entry *entry = mem_calloc(1, sizeof(*entry));
    if (entry == NULL) {
        cJSON_Delete(event);
        return mem_fail(err, sizeof(*entry), "an event");
    }
    entry->event = event;
    pthread_mutex_lock(&journal->mutex);
    enum status status = enqueue(journal, entry, err);
    pthread_mutex_unlock(&journal->mutex);
    if (status != STATUS_OK) {
        free_entries(entry);
    }
    return status;
}

cJSON *journal_take(struct journal *journal)
{
    pthread_mutex_lock(&journal->mutex);
    struct entry *entry = journal->first;
    if (entry != NULL && entry->sequence > journal->durable_sequence) {
        entry = NULL;
    }
    if (entry != NULL) {
        journal->first = entry->next;
        journal->last = entry->next != NULL ? journal->last : NULL;
    }
    pthread_mutex_unlock(&journal->mutex);
    cJSON *event = entry != NULL ? entry->event : NULL;
    free(entry);
    return event;
}

enum status journal_durable(struct journal *journal, int64_t *sequence, struct error *err)
{
    pthread_mutex_lock(&journal->mutex);
    *sequence = journal->durable_sequence;
    enum status status = check_failure(journal, err);
    pthread_mutex_unlock(&journal->mutex);
    return status;
}

enum status journal_flush(struct journal *journal, struct error *err)
{
    pthread_mutex_lock(&journal->mutex);
    int64_t wanted = journal->queued_sequence;
    while (journal->durable_sequence < wanted && journal->failure.code == STATUS_OK) {
        pthread_cond_wait(&journal->settled, &journal->mutex);
    }
    enum status status =
        journal->durable_sequence >= wanted ? STATUS_OK : check_failure(journal, err);
    pthread_mutex_unlock(&journal->mutex);
    return status;
}

enum status journal_rotate(struct journal *journal, int64_t sequence, struct error *err)
{
    pthread_mutex_lock(&journal->mutex);
    while (journal->rotate_wanted && journal->failure.code == STATUS_OK) {
        pthread_cond_wait(&journal->settled, &journal->mutex); /* another caller's */
    }
    journal->rotate_wanted = true;
    journal->rotate_sequence = sequence;
    memset(&journal->rotate_failure, 0, sizeof(journal->rotate_failure));
    pthread_cond_signal(&journal->wake);
    while (journal->rotate_wanted && journal->failure.code == STATUS_OK) {
        pthread_cond_wait(&journal->settled, &journal->mutex);
    }
    enum status status = check_failure(journal, err);
    if (status == STATUS_OK && journal->rotate_failure.code != STATUS_OK) {
        status = journal->rotate_failure.code;
        if (err != NULL) {
            *err = journal->rotate_failure;
        }
    }
    pthread_mutex_unlock(&journal->mutex);
    return status;
}
