/* The lines of journal.jsonl: one event each, as JSON, with a checksum of itself as its last key.
 *
 *   {"sequence":12,"time_s":...,"event":"node_closed",...,"xxh3":"0123456789abcdef0123456789abcdef"}
 *
 * The sequence numbers of a journal follow one another. */
#ifndef STORE_JOURNAL_FILE_H
#define STORE_JOURNAL_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "base/buffer.h"
#include "base/file.h"

enum { JOURNAL_LINE_MAX_BYTES = 64 << 20 };
#define JOURNAL_MAX_BYTES ((size_t)4 << 30)

enum status journal_path(const char *folder, char out[FILE_PATH_BYTES], struct error *err);

/* Appends one line to `out`: numbers to the bit, text that is not UTF-8 repaired. */
enum status journal_line_append(const cJSON *event, struct buffer *out, struct error *err);

/* What a journal holds. */
struct journal_scan {
    int64_t first_sequence; /* 0 if it holds no event */
    int64_t last_sequence;
    size_t good_bytes;   /* up to the end of the last whole line */
    size_t cut_bytes;    /* after it: a line that a kill or a power failure cut */
    int64_t wrong_lines; /* damaged ones that nobody needs any more */
};

/* Called for each event in turn; the event is borrowed. offset: where its line begins. */
typedef enum status (*journal_event_fn)(void *context, const cJSON *event, int64_t sequence,
                                        size_t offset, struct error *err);

/* Goes through the text of a journal. A line without an end, or zeros, at the end are "cut". Any
 * other line that is wrong is STATUS_CORRUPT, naming path, line and the last good event, unless the
 * next good line shows that its event is not after `known`, the last event that the reader has from
 * elsewhere. So is a gap in the sequence. each may be NULL. */
enum status journal_scan_text(const char *text, size_t bytes, const char *path, int64_t known,
                              journal_event_fn each, void *context, struct journal_scan *out,
                              struct error *err);

/* Reads the file and goes through it; an absent file holds no event. */
enum status journal_scan_file(const char *path, int64_t known, journal_event_fn each, void *context,
                              struct journal_scan *out, struct error *err);

/* The lock that a journal was opened with, NULL if none: what else is written of the same search
 * asks it too. */
struct journal;
struct store_lock;
const struct store_lock *journal_lock(const struct journal *journal);

#endif
