/* What a reader of a run folder does: the newest readable generation, then the journal.
 *
 *   run.h5 readable                          run.h5, then the journal's events after it
 *   run.h5 lost, run.prev.h5 readable        run.prev.h5, then the journal, which reaches back to
 * it neither, and the journal begins at 1     the journal alone otherwise the first error */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "store/journal_file.h"
#include "store/run_file.h"
#include "store/store.h"

/* A live search may replace the file and shorten the journal between the two reads. */
enum { LOAD_TRIES = 5 };

struct replay {
    struct search *search;
    const char *path;
    bool gap; /* the journal begins after what the search holds */
};

static enum status replay_event(void *context, const cJSON *event, int64_t sequence, size_t offset,
                                struct error *err)
{
    struct replay *replay = context;
    (void)offset;
    if (sequence <= replay->search->last_sequence) {
        return STATUS_OK;
    }
    if (sequence != replay->search->last_sequence + 1) {
        replay->gap = true;
        return FAIL(err, STATUS_CORRUPT,
                    "%s: begins with event %" PRId64 ", but the run file ends with %" PRId64
                    "; events between them are lost",
                    replay->path, sequence, replay->search->last_sequence);
    }
    enum status status = search_apply(replay->search, event, err);
    if (status != STATUS_OK) {
        error_context(err, "%s: event %" PRId64, replay->path, sequence);
        if (err != NULL && status == STATUS_INVALID) {
            err->code = STATUS_CORRUPT;
        }
    }
    return status == STATUS_INVALID ? STATUS_CORRUPT : status;
}

/* Failures that another generation can help with. */
static bool is_lost(enum status status)
{
    return status == STATUS_NOT_FOUND || status == STATUS_CORRUPT || status == STATUS_FORMAT ||
           status == STATUS_IO;
}

struct note {
    char *text;
    size_t bytes;
};

static void note_add(struct note *note, const char *format, const char *a, const char *b)
{
    size_t used = note->bytes > 0 ? strlen(note->text) : 0;
    if (used + 1 < note->bytes) {
        if (used > 0) {
            used += (size_t)snprintf(note->text + used, note->bytes - used, "; ");
        }
        if (used + 1 < note->bytes) {
            snprintf(note->text + used, note->bytes - used, format, a, b);
        }
    }
}

/* The newest readable generation into *search, which stays empty if neither is there. *worst: what
 * was wrong with run.h5, or with run.prev.h5 if that one is gone; STATUS_NOT_FOUND if both are. */
static enum status read_generation(const char *folder, struct search *search, struct note *note,
                                   struct error *worst, struct error *err)
{
    char path[FILE_PATH_BYTES];
    char previous[FILE_PATH_BYTES];
    TRY(run_file_path(folder, path, err));
    TRY(run_file_previous_path(folder, previous, err));
    enum status status = store_run_read(path, search, worst);
    if (status == STATUS_OK) {
        return STATUS_OK;
    }
    bool absent = status == STATUS_NOT_FOUND;
    if (!is_lost(status)) {
        *err = *worst;
        return status;
    }
    struct error second = {0};
    status = store_run_read(previous, search, &second);
    if (status == STATUS_OK) {
        if (absent) {
            note_add(note, "%s is missing, %s is used", path, previous);
        } else {
            note_add(note, "%s; %s is used", worst->message, previous);
        }
        worst->code = STATUS_OK;
        return STATUS_OK;
    }
    if (!is_lost(status)) {
        *err = second;
        return status;
    }
    if (absent) {
        *worst = second;
    } else {
        note_add(note, "%s; %s", worst->message, second.message);
    }
    return STATUS_OK;
}

/* One attempt. *again is set when a live writer got in between. */
static enum status load_once(const char *folder, struct search *search, struct note *note,
                             bool *again, struct error *err)
{
    char path[FILE_PATH_BYTES];
    struct error worst = {0};
    struct journal_scan scan;
    *again = false;
    TRY(journal_path(folder, path, err));
    TRY(read_generation(folder, search, note, &worst, err));
    struct replay replay = {search, path, false};
    enum status status =
        journal_scan_file(path, search->last_sequence, replay_event, &replay, &scan, err);
    if (replay.gap) {
        *again = true;
        if (worst.code != STATUS_OK && worst.code != STATUS_NOT_FOUND) {
            *err = worst; /* the cause of the gap is the lost run file */
            error_context(
                err,
                "the journal does not reach back to the beginning, and no run file can be read");
        }
    }
    if (status != STATUS_OK) {
        if (!replay.gap && worst.code != STATUS_OK && worst.code != STATUS_NOT_FOUND) {
            error_context(err, "%s; and", worst.message);
        }
        return status;
    }
    if (search->last_sequence == 0) {
        if (worst.code == STATUS_NOT_FOUND) {
            return FAIL(err, STATUS_NOT_FOUND, "%s holds no search", folder);
        }
        *err = worst;
        return worst.code;
    }
    if (worst.code != STATUS_OK && worst.code != STATUS_NOT_FOUND) {
        note_add(note, "the search is rebuilt from %s%s", path, "");
    }
    return STATUS_OK;
}

enum status store_run_load(const char *folder, struct search *out, char *note_text,
                           size_t note_bytes, struct error *err)
{
    struct error own;
    err = err != NULL ? err : &own;
    if (!file_is_folder(folder)) {
        return FAIL(err, STATUS_NOT_FOUND, "there is no run folder %s", folder);
    }
    for (int attempt = 1;; attempt++) {
        struct note note = {note_text, note_bytes};
        struct search search;
        bool again = false;
        if (note_bytes > 0) {
            note_text[0] = '\0';
        }
        search_init(&search);
        enum status status = load_once(folder, &search, &note, &again, err);
        if (status == STATUS_OK) {
            *out = search;
            return STATUS_OK;
        }
        search_fini(&search);
        if (!again || attempt == LOAD_TRIES) {
            return status;
        }
        clock_sleep_s(0.05);
    }
}
