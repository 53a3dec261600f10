/* The log: one JSON object a line in log.jsonl, and the same in words for a person. An object that
 * is handed down, not a global; every function takes NULL for "no log". Nothing secret is ever
 * passed here. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdio.h>

#include "base/status.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERROR };

/* The last lines that were written, for the record of a failure: whole lines, the oldest dropped
 * first. */
enum { LOG_TAIL_BYTES = 2048 };
struct log_tail {
    char text[LOG_TAIL_BYTES]; /* lines end with \n */
    size_t len_bytes;
};

struct log {
    FILE *human;           /* words for a person, e.g. stderr; may be NULL */
    int fd;                /* log.jsonl, append-only; -1: none */
    int rank;              /* -1 outside MPI */
    enum log_level level;  /* least level that is written */
    struct log_tail *tail; /* the caller's; NULL: none is kept. Holds all levels */
};

/* Only to `human`. */
void log_init(struct log *log, FILE *human, int rank, enum log_level level);

/* Also to a file, appended. */
enum status log_open(struct log *log, const char *path, struct error *err);
void log_close(struct log *log);

/* One line, cut at 2 KiB; room is the folder that speaks ("train"). A stranger's text may be in it:
 * control characters but line ends become spaces, what is not UTF-8 U+FFFD. A failing write is
 * ignored: the log must not stop the work. */
void log_write(struct log *log, enum log_level level, const char *room, const char *format, ...)
    BASE_PRINTF(4, 5);

#endif
