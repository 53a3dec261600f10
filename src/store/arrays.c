/* What writer and reader of array files share. */
#include "store/arrays.h"

#include <inttypes.h>
#include <string.h>

#include "base/json.h"

static const char *const type_names[] = {"F32", "BF16", "F64", "I32", "I64", "U8", NULL};

static const struct table_column array_columns[] = {
    {"name", TABLE_TEXT, offsetof(struct array_row, name), "path of the dataset", NULL, 0},
    {"type", TABLE_ENUM, offsetof(struct array_row, type), "type of its elements", type_names, 0},
    {"rows", TABLE_I64, offsetof(struct array_row, rows), "rows; 1 for a vector", NULL, 0},
    {"cols", TABLE_I64, offsetof(struct array_row, cols), "columns", NULL, 0},
    {"vector", TABLE_BOOL, offsetof(struct array_row, vector),
     "whether the dataset has one dimension", NULL, 0},
    {"content", TABLE_TEXT, offsetof(struct array_row, meaning), "what it is, with units", NULL, 0},
};

const struct table arrays_table = {"arrays",
                                   "the arrays of this file in their order; one row an array",
                                   sizeof(struct array_row),
                                   array_columns,
                                   (int)(sizeof(array_columns) / sizeof(array_columns[0])),
                                   0};

size_t store_type_bytes(enum store_type type)
{
    static const size_t bytes[STORE_TYPE_COUNT] = {4, 2, 8, 4, 8, 1};
    return (int)type >= 0 && type < STORE_TYPE_COUNT ? bytes[type] : 0;
}

hid_t arrays_element_type(enum store_type type)
{
    switch (type) {
    case STORE_F32:
        return H5Tcopy(H5T_IEEE_F32LE);
    case STORE_BF16:
        return h5_bf16_type();
    case STORE_F64:
        return H5Tcopy(H5T_IEEE_F64LE);
    case STORE_I32:
        return H5Tcopy(H5T_STD_I32LE);
    case STORE_I64:
        return H5Tcopy(H5T_STD_I64LE);
    case STORE_U8:
        return H5Tcopy(H5T_STD_U8LE);
    case STORE_TYPE_COUNT:
        break;
    }
    return -1;
}

/* Parts between slashes that are neither empty nor "." or "..", and not under the table's own name.
 */
static bool name_is_right(const char *name, size_t room)
{
    size_t length = strnlen(name, room);
    if (length == 0 || length == room || !json_utf8_valid(name, length)) {
        return false;
    }
    size_t table_length = strlen(arrays_table.name);
    if (strncmp(name, arrays_table.name, table_length) == 0 &&
        (name[table_length] == '\0' || name[table_length] == '/')) {
        return false;
    }
    for (const char *part = name; part != NULL;) {
        const char *end = strchr(part, '/');
        size_t bytes = end != NULL ? (size_t)(end - part) : strlen(part);
        if (bytes == 0 || (part[0] == '.' && (bytes == 1 || (bytes == 2 && part[1] == '.')))) {
            return false;
        }
        part = end != NULL ? end + 1 : NULL;
    }
    return true;
}

enum status arrays_check(const struct store_array *array, const char *path, enum status code,
                         int64_t *bytes, struct error *err)
{
    int64_t elements = 0;
    int64_t size = (int64_t)store_type_bytes(array->type);
    if (!name_is_right(array->name, sizeof(array->name))) {
        return FAIL(err, code, "%s: \"%.*s\" cannot be the name of an array", path,
                    (int)sizeof(array->name) - 1, array->name);
    }
    if (size == 0 || array->rows < 0 || array->cols < 0 || (array->vector && array->rows != 1) ||
        __builtin_mul_overflow(array->rows, array->cols, &elements) || elements > INT64_MAX / 16) {
        return FAIL(err, code,
                    "%s: array %s cannot have %" PRId64 " rows of %" PRId64 " elements of type %d",
                    path, array->name, array->rows, array->cols, (int)array->type);
    }
    *bytes = elements * size;
    return STATUS_OK;
}

hid_t arrays_space(const struct store_array *array)
{
    hsize_t lengths[2] = {(hsize_t)array->rows, (hsize_t)array->cols};
    return array->vector ? H5Screate_simple(1, lengths + 1, NULL)
                         : H5Screate_simple(2, lengths, NULL);
}

int64_t arrays_row_count(const struct store_array *array)
{
    return array->vector ? array->cols : array->rows;
}

size_t arrays_row_bytes(const struct store_array *array)
{
    return store_type_bytes(array->type) * (array->vector ? 1 : (size_t)array->cols);
}

int64_t arrays_rows_at_a_time(const struct store_array *array)
{
    size_t row_bytes = arrays_row_bytes(array);
    if (row_bytes == 0) {
        return INT64_MAX;
    }
    return row_bytes < ARRAYS_BLOCK_BYTES ? (int64_t)(ARRAYS_BLOCK_BYTES / row_bytes) : 1;
}

/* Selects rows in the file and makes a memory space for them. */
static herr_t select_rows(hid_t dataset, const struct store_array *array, int64_t first,
                          int64_t count, hid_t *memory, hid_t *file)
{
    int dimensions = array->vector ? 1 : 2;
    hsize_t start[2] = {(hsize_t)first, 0};
    hsize_t lengths[2] = {(hsize_t)count, (hsize_t)array->cols};
    *memory = H5Screate_simple(dimensions, lengths, NULL);
    *file = H5Dget_space(dataset);
    return *memory < 0 || *file < 0
               ? -1
               : H5Sselect_hyperslab(*file, H5S_SELECT_SET, start, NULL, lengths, NULL);
}

herr_t arrays_write_rows(hid_t dataset, hid_t type, const struct store_array *array, int64_t first,
                         int64_t count, const void *from)
{
    hid_t memory = -1;
    hid_t file = -1;
    herr_t result = select_rows(dataset, array, first, count, &memory, &file);
    if (result >= 0) {
        result = H5Dwrite(dataset, type, memory, file, H5P_DEFAULT, from);
    }
    h5_close(file);
    h5_close(memory);
    return result;
}

herr_t arrays_read_rows(hid_t dataset, hid_t type, const struct store_array *array, int64_t first,
                        int64_t count, void *to)
{
    hid_t memory = -1;
    hid_t file = -1;
    herr_t result = select_rows(dataset, array, first, count, &memory, &file);
    if (result >= 0) {
        result = H5Dread(dataset, type, memory, file, H5P_DEFAULT, to);
    }
    h5_close(file);
    h5_close(memory);
    return result;
}
