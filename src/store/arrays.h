/* What writer and reader of array files share.
 *
 *   file.h5
 *     kind, schema_version, and the writer's own text attributes
 *     /arrays                 table: one row an array, in order
 *     /model/.../weight       contiguous dataset, aligned to 4 KiB; attributes meaning, xxh3_128
 * (of its bytes)
 */
#ifndef STORE_ARRAYS_H
#define STORE_ARRAYS_H

#include "store/store.h"
#include "store/table.h"

/* Bytes hashed and moved at a time: small enough to stay in cache between the two. */
enum {
    ARRAYS_BLOCK_BYTES = 1 << 20,
    ARRAYS_ATTRIBUTES_MAX = 64,
    ARRAYS_ATTRIBUTE_MAX_BYTES = 4 << 20
};

struct array_row {
    const char *name, *meaning;
    int64_t rows, cols;
    signed char type; /* enum store_type */
    signed char vector;
};

extern const struct table arrays_table;

/* A new datatype of array elements in files; closed with H5Tclose. */
hid_t arrays_element_type(enum store_type type);

/* Checks name, type and size; *bytes is the size of the array. */
enum status arrays_check(const struct store_array *array, const char *path, enum status code,
                         int64_t *bytes, struct error *err);

/* A dataspace of one or two dimensions. */
hid_t arrays_space(const struct store_array *array);

/* Arrays move in whole rows, as many at a time as fit in a block; the "rows" of a vector are its
 * elements. */
int64_t arrays_rows_at_a_time(const struct store_array *array);
int64_t arrays_row_count(const struct store_array *array);
size_t arrays_row_bytes(const struct store_array *array);

/* Moves rows between file and memory in one direction; HDF5's lock is held. */
herr_t arrays_write_rows(hid_t dataset, hid_t type, const struct store_array *array, int64_t first,
                         int64_t count, const void *from);
herr_t arrays_read_rows(hid_t dataset, hid_t type, const struct store_array *array, int64_t first,
                        int64_t count, void *to);

/* Reads an open file's array in pieces and checks its checksum, keeping nothing: for store_verify.
 */
enum status arrays_verify(struct store_file *file, int64_t index, struct error *err);

#endif
