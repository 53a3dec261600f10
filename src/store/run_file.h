/* What other files of this room need of run.h5. */
#ifndef STORE_RUN_FILE_H
#define STORE_RUN_FILE_H

#include "base/file.h"
#include "tree/search.h"

enum status run_file_path(const char *folder, char out[FILE_PATH_BYTES], struct error *err);
enum status run_file_previous_path(const char *folder, char out[FILE_PATH_BYTES],
                                   struct error *err);

/* Number of the last event that a run file holds, without reading the rest. */
enum status run_file_sequence(const char *path, int64_t *sequence, struct error *err);

#endif
