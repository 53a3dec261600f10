/* Rows of JSON Lines, each with where it came from. */
#ifndef DATA_DATASET_H
#define DATA_DATASET_H

#include <stdbool.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "base/status.h"

/* One row: any JSON object. Rows that train or are scored hold either
 *   {"prompt": text, "answer": text}, and perhaps "choices": [text...], "system": text, "id": text
 * or
 *   {"messages": [{"role", "content"}...]}, whose last message is the assistant's answer. */
struct data_row {
    cJSON *object;  /* owned by the dataset */
    int32_t source; /* index into sources */
    int64_t line;   /* 1-based line in that source */
};

struct dataset {
    struct data_row *rows;
    int64_t count;
    char **sources; /* paths, as given */
    int32_t source_count;
};

struct dataset_limits {
    int64_t max_rows;       /* 0: 10 million */
    int64_t max_file_bytes; /* 0: 16 GiB */
    int64_t max_row_bytes;  /* 0: 16 MiB */
    int64_t take;           /* stop reading after so many rows; 0: read all */
};

/* Reads a .jsonl file. A line that is not a JSON object is an error naming file, line and column;
 * blank lines, a byte order mark and CR before LF are skipped; an empty file is STATUS_INVALID ("no
 * rows"). U+0000 is refused, because text is NUL-terminated everywhere else. */
enum status dataset_read(const char *path, const struct dataset_limits *limits, struct dataset *out,
                         struct error *err);

/* Writes rows as JSON Lines, atomically. With provenance, each row gets "_source" and "_line",
 * unless it has them from an earlier time. */
enum status dataset_write(const struct dataset *dataset, const char *path, bool provenance,
                          struct error *err);

void dataset_init(struct dataset *dataset); /* empty */
void dataset_fini(struct dataset *dataset);

/* Appends a row (taking `object`, also when it fails), keeping its provenance: source is a path. */
enum status dataset_append(struct dataset *dataset, cJSON *object, const char *source, int64_t line,
                           struct error *err);

/* Text of a field, or NULL if it is absent or no string. */
const char *data_row_text(const struct data_row *row, const char *field);

/* 128-bit hash of all rows in order: the identity of prepared data. Provenance does not enter. */
void dataset_hash(const struct dataset *dataset, char out[33]);

#endif
