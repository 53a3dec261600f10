/* Files that are either whole or absent. */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/status.h"

enum { FILE_PATH_BYTES = 4096 };

/* "<folder>/<name>", or `name` itself if it is absolute. STATUS_LIMIT if it does not fit in
 * FILE_PATH_BYTES. */
enum status file_join(const char *folder, const char *name, char out[FILE_PATH_BYTES],
                      struct error *err);

/* Folder part of a path; "." if it has none. */
enum status file_folder_of(const char *path, char out[FILE_PATH_BYTES], struct error *err);

bool file_exists(const char *path);
bool file_is_folder(const char *path);
int64_t file_size_bytes(const char *path); /* -1 if it cannot be read */

/* Makes a folder and those above it; no error if it is there. */
enum status file_make_folders(const char *path, struct error *err);

/* Reads a whole file into an empty `out`. STATUS_LIMIT beyond out->max_bytes. Folders and devices
 * are refused. */
enum status file_read(const char *path, struct buffer *out, struct error *err);

/* Writes aside, syncs, renames over `path`, syncs the folder. At any kill the old or the new
 * contents are there. */
enum status file_write(const char *path, const void *data, size_t len_bytes, struct error *err);

/* For files written by a library: name of the file to write aside ("<path>.<host>.<pid>.tmp", so
 * that two ranks never share one), and the step that makes it count (sync, rename over path, sync
 * the folder). `previous`, if not NULL, is where the old `path` is kept. */
enum status file_aside(const char *path, char out[FILE_PATH_BYTES], struct error *err);
enum status file_commit(const char *aside, const char *path, const char *previous,
                        struct error *err);

/* The first half of file_write: writes `data` to the file aside, whose name it gives. */
enum status file_write_aside(const char *path, const void *data, size_t len_bytes,
                             char aside[FILE_PATH_BYTES], struct error *err);

/* Makes names in a folder, new and removed ones, as durable as the files. */
enum status file_sync_folder(const char *folder, struct error *err);

/* Removes a file; no error if it is not there. */
enum status file_remove(const char *path, struct error *err);

/* Removes a folder with all that is in it, as far as that goes; follows no links. */
void file_remove_folder(const char *path);

/* Gives a regular file to `take` in pieces, from its front to its end; an error of it ends that.
 * One that somebody cuts meanwhile ends early. */
typedef enum status (*file_take_fn)(void *context, const char *data, size_t len_bytes,
                                    struct error *err);
enum status file_scan(const char *path, file_take_fn take, void *context, struct error *err);

/* A read-only mapping of a whole file; the kernel shares its pages among processes. Whoever reads
 * what somebody has cut off meanwhile is ended by SIGBUS: for files that are ours. */
struct file_map {
    const unsigned char *data; /* NULL for an empty file */
    size_t len_bytes;
};
enum status file_map_open(const char *path, struct file_map *out, struct error *err);
void file_map_close(struct file_map *map);

#endif
