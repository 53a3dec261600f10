/* Tables: one compound dataset of rows, text as variable-length UTF-8, and beside it what each
 * column means.
 *
 *   /nodes          dataset, one row a node
 *     meaning       attribute: what a row is
 *     reward        attribute of each column: what it is, with its unit
 *     xxh3_128      checksum of the rows: of each value in turn, numbers as 8 bytes, text as its
 * length and its bytes
 *
 * A row is a plain C struct; a table description says where its columns lie. */
#ifndef STORE_TABLE_H
#define STORE_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "store/h5.h"

enum table_kind {
    TABLE_BOOL, /* signed char, 0 or 1 */
    TABLE_ENUM, /* signed char, index into names */
    TABLE_I32,
    TABLE_I64,
    TABLE_U64,
    TABLE_F64,
    TABLE_TEXT,    /* const char *, never NULL */
    TABLE_I32_LIST /* int32_t[TABLE_LIST_LENGTH], -1 where there is none */
};

enum { TABLE_LIST_LENGTH = 8 };

struct table_column {
    const char *name;
    enum table_kind kind;
    size_t offset; /* in the row's struct */
    const char *meaning;
    const char *const *names; /* of an enum, NULL at the end */
    int since;                /* schema version that brought it; 0: always there */
};

struct table {
    const char *name;
    const char *meaning;
    size_t row_bytes;
    const struct table_column *columns;
    int column_count;
    int since; /* schema version that brought the table; 0: always there */
};

/* Writes `count` rows as a new dataset. HDF5's lock is held. */
enum status table_write(hid_t file, const struct table *table, const void *rows, int64_t count,
                        const char *path, struct error *err);

/* Reads all rows into *rows (free()), text into `texts`, whose cap bounds it. What came after the
 * file's schema version is not looked for: such a column is 0 or "", such a table empty. Checked:
 * columns and their kinds, the number of rows against file_bytes, bools, enums, UTF-8, checksum.
 * STATUS_CORRUPT names table, row and column. */
enum status table_read(hid_t file, const struct table *table, int64_t schema, int64_t file_bytes,
                       struct arena *texts, void **rows, int64_t *count, const char *path,
                       struct error *err);

#endif
