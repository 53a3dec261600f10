/* What other files of this room need of run.h5. */
#ifndef STORE_RUN_FILE_H
#define STORE_RUN_FILE_H

#include "base/file.h"
#include "tree/search.h"

enum status run_file_path(const char *folder, char out[FILE_PATH_BYTES], struct error *err);
enum status run_file_previous_path(const char *folder, char out[FILE_PATH_BYTES],
                                   struct error *err);

/* store_run_save under a lock: the file counts only if the folder is still this process's when it
 * is written. lock NULL: none. */
struct store_lock;
enum status run_file_save(const char *folder, const struct store_lock *lock,
                          const struct search *search, struct error *err);

/* Number of the last event that a run file holds, without reading the rest. */
enum status run_file_sequence(const char *path, int64_t *sequence, struct error *err);

#endif
