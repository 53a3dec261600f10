/* The files in `lock`, one an owner, and whether an owner lives.
 *
 *   lock/7   {"host":"n1","boot":"9370b518-...","pid_namespace":"pid:[4026531836]","pid":12,
 *             "started":8812345,"cluster":"","job":"7","restart":"1",
 *             "since":"2026-01-31T12:34:56Z","flock":true,  padded with blanks to LOCK_HEAD_BYTES
 *             "beat":           31,"left":false}            LOCK_TAIL_BYTES, written in place
 *
 * The name is the fence. What is found there is checked as if it came from outside. */
#ifndef STORE_LOCK_FILE_H
#define STORE_LOCK_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/file.h"
#include "store/store.h"

enum {
    LOCK_HEAD_BYTES = 1024,
    LOCK_TAIL_BYTES = 36,
    LOCK_FILE_BYTES = LOCK_HEAD_BYTES + LOCK_TAIL_BYTES,
    LOCK_WORD_BYTES = 65 /* a name, with its end */
};

/* Who an owner is. Texts are of printable ASCII, without quotes and backslashes. */
struct lock_owner {
    char host[LOCK_WORD_BYTES];
    char boot[LOCK_WORD_BYTES];          /* of the kernel: one that has this runs there */
    char pid_namespace[LOCK_WORD_BYTES]; /* in which the pid means something; "" if unknown */
    char cluster[LOCK_WORD_BYTES];       /* Slurm's; "" outside it, as job and restart are */
    char job[LOCK_WORD_BYTES];
    char restart[LOCK_WORD_BYTES];
    char since[32];
    int64_t pid;     /* 0: the file names no process */
    int64_t started; /* clock ticks after the boot: a pid may come again; -1 if unknown */
    bool flock;      /* it holds flock on its file */
};

/* This process. flock: not yet. */
void lock_owner_self(struct lock_owner *out);

/* "process 12 on n1, Slurm job 7, since ..." */
enum { LOCK_OWNER_TEXT_BYTES = 256 };
void lock_owner_describe(const struct lock_owner *owner, char out[LOCK_OWNER_TEXT_BYTES]);

/* What was found at one look. */
struct lock_look {
    int64_t fence; /* 0: nobody ever had the folder */
    struct lock_owner owner;
    bool left; /* in good order */
    enum store_alive alive;
    double beat_age_s;               /* by the clocks of two machines */
    char bytes[LOCK_FILE_BYTES + 2]; /* the file's first: they change with each beat */
    size_t byte_count;
};

/* The greatest fence in `folder`, the one with the files; 0 if there is none. Opens the folder
 * anew, for which NFS asks the server whether it has changed. */
enum status lock_find_newest(const char *folder, int64_t *fence, struct error *err);

/* Looks at the newest owner. */
enum status lock_look(const char *folder, const struct lock_owner *self, struct lock_look *out,
                      struct error *err);

/* Path of an owner's file. */
enum status lock_file_path(const char *folder, int64_t fence, char out[FILE_PATH_BYTES],
                           struct error *err);

/* Writes a file that was made for this owner: all of it, synced. */
enum status lock_file_fill(int fd, const char *path, const struct lock_owner *owner,
                           struct error *err);

/* Writes the tail in place: neither a full disk nor another owner has to do with it. The file is
 * opened and closed, because NFS brings to the server what was written when a file is closed. */
enum status lock_file_beat(const char *path, int64_t beat, bool left, struct error *err);

/* Takes flock for the life of the descriptor; false if the file system has none. */
bool lock_file_flock(int fd);

#endif
