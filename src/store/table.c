#include "store/table.h"

#include <endian.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"

static const char *const bool_names[] = {"FALSE", "TRUE", NULL};

static hid_t column_type(const struct table_column *column)
{
    switch (column->kind) {
    case TABLE_BOOL:
        return h5_enum_type(bool_names);
    case TABLE_ENUM:
        return h5_enum_type(column->names);
    case TABLE_I32:
        return H5Tcopy(H5T_NATIVE_INT32);
    case TABLE_I64:
        return H5Tcopy(H5T_NATIVE_INT64);
    case TABLE_U64:
        return H5Tcopy(H5T_NATIVE_UINT64);
    case TABLE_F64:
        return H5Tcopy(H5T_NATIVE_DOUBLE);
    case TABLE_TEXT:
        return h5_text_type();
    case TABLE_I32_LIST: {
        hsize_t length = TABLE_LIST_LENGTH;
        return H5Tarray_create2(H5T_NATIVE_INT32, 1, &length);
    }
    }
    return -1;
}

/* Bytes of a packed row. */
static size_t packed_bytes(const struct table *table)
{
    size_t bytes = 0;
    for (int i = 0; i < table->column_count; i++) {
        hid_t member = column_type(&table->columns[i]);
        bytes += member >= 0 ? H5Tget_size(member) : 0;
        h5_close(member);
    }
    return bytes;
}

/* The compound type of a row in memory; or, packed, that of a row in the file, with the columns in
 * our order. */
static hid_t row_type(const struct table *table, bool packed)
{
    size_t offset = 0;
    hid_t type = H5Tcreate(H5T_COMPOUND, packed ? packed_bytes(table) : table->row_bytes);
    for (int i = 0; type >= 0 && i < table->column_count; i++) {
        const struct table_column *column = &table->columns[i];
        hid_t member = column_type(column);
        if (member < 0 ||
            H5Tinsert(type, column->name, packed ? offset : column->offset, member) < 0) {
            h5_close(member);
            h5_close(type);
            return -1;
        }
        offset += H5Tget_size(member);
        h5_close(member);
    }
    return type;
}

/* ---- checksum ---- */

/* Collects small values, so that the hash sees few and large pieces. */
struct digester {
    struct hash_state *state;
    size_t used;
    unsigned char block[16 * 1024];
};

static void digest_bytes(struct digester *digester, const void *data, size_t bytes)
{
    if (bytes > sizeof(digester->block) - digester->used) {
        hash_update(digester->state, digester->block, digester->used);
        digester->used = 0;
    }
    if (bytes > sizeof(digester->block)) {
        hash_update(digester->state, data, bytes);
        return;
    }
    memcpy(digester->block + digester->used, data, bytes);
    digester->used += bytes;
}

static void digest_number(struct digester *digester, uint64_t value)
{
    uint64_t little = htole64(value);
    digest_bytes(digester, &little, sizeof(little));
}

static void digest_value(struct digester *digester, const struct table_column *column,
                         const unsigned char *row)
{
    const void *value = row + column->offset;
    switch (column->kind) {
    case TABLE_BOOL:
    case TABLE_ENUM:
        digest_number(digester, (uint64_t)(int64_t) * (const signed char *)value);
        break;
    case TABLE_I32:
        digest_number(digester, (uint64_t)(int64_t) * (const int32_t *)value);
        break;
    case TABLE_I64:
    case TABLE_U64:
    case TABLE_F64: {
        uint64_t bits = 0;
        memcpy(&bits, value, sizeof(bits));
        digest_number(digester, bits);
        break;
    }
    case TABLE_TEXT: {
        const char *text = *(const char *const *)value;
        size_t length = strlen(text);
        digest_number(digester, length);
        digest_bytes(digester, text, length);
        break;
    }
    case TABLE_I32_LIST:
        for (int i = 0; i < TABLE_LIST_LENGTH; i++) {
            digest_number(digester, (uint64_t)(int64_t)((const int32_t *)value)[i]);
        }
        break;
    }
}

static enum status checksum(const struct table *table, const void *rows, int64_t count,
                            char out[HASH_TEXT_BYTES], struct error *err)
{
    struct digester *digester = mem_calloc(1, sizeof(*digester));
    if (digester == NULL || (digester->state = hash_create()) == NULL) {
        free(digester);
        return mem_fail(err, sizeof(*digester), "a checksum");
    }
    for (int64_t i = 0; i < count; i++) {
        const unsigned char *row = (const unsigned char *)rows + (size_t)i * table->row_bytes;
        for (int k = 0; k < table->column_count; k++) {
            digest_value(digester, &table->columns[k], row);
        }
    }
    hash_update(digester->state, digester->block, digester->used);
    hash_digest(digester->state, out);
    hash_destroy(digester->state);
    free(digester);
    return STATUS_OK;
}

/* ---- writing ---- */

static enum status write_meanings(hid_t dataset, const struct table *table, const char *path,
                                  struct error *err)
{
    enum status status = STATUS_OK;
    TRY_H5(h5_write_text(dataset, "meaning", table->meaning), STATUS_IO, path, table->name);
    for (int i = 0; i < table->column_count; i++) {
        TRY_H5(h5_write_text(dataset, table->columns[i].name, table->columns[i].meaning), STATUS_IO,
               path, table->name);
    }
cleanup:
    return status;
}

enum status table_write(hid_t file, const struct table *table, const void *rows, int64_t count,
                        const char *path, struct error *err)
{
    enum status status = STATUS_OK;
    char hash[HASH_TEXT_BYTES];
    hsize_t length = (hsize_t)count;
    hid_t type = -1;
    hid_t packed = -1;
    hid_t space = -1;
    hid_t dataset = -1;
    TRY_CLEANUP(checksum(table, rows, count, hash, err));
    TRY_H5(type = row_type(table, false), STATUS_INTERNAL, path, table->name);
    TRY_H5(packed = row_type(table, true), STATUS_INTERNAL, path, table->name);
    TRY_H5(space = H5Screate_simple(1, &length, NULL), STATUS_INTERNAL, path, table->name);
    TRY_H5(dataset =
               H5Dcreate2(file, table->name, packed, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT),
           STATUS_IO, path, table->name);
    TRY_H5(h5_write_fixed_text(dataset, "xxh3_128", hash), STATUS_IO, path, table->name);
    TRY_CLEANUP(write_meanings(dataset, table, path, err));
    if (count > 0) {
        TRY_H5(H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, rows), STATUS_IO, path,
               table->name);
    }
cleanup:
    h5_close(dataset);
    h5_close(space);
    h5_close(packed);
    h5_close(type);
    return status;
}

/* ---- reading ---- */

/* HDF5 asks here for the memory of each text: out of an arena with a cap, given back all at once.
 */
static void *allocate_text(size_t bytes, void *context)
{
    return arena_alloc(context, bytes, 1);
}

static void keep_text(void *memory, void *context)
{
    (void)memory;
    (void)context;
}

static H5T_class_t kind_class(enum table_kind kind)
{
    switch (kind) {
    case TABLE_BOOL:
    case TABLE_ENUM:
        return H5T_ENUM;
    case TABLE_F64:
        return H5T_FLOAT;
    case TABLE_TEXT:
        return H5T_STRING;
    case TABLE_I32_LIST:
        return H5T_ARRAY;
    default:
        return H5T_INTEGER;
    }
}

/* All columns that we know are there, of the right kind. Others, of a later program, are passed
 * over. */
static enum status check_columns(hid_t type, const struct table *table, const char *path,
                                 struct error *err)
{
    if (H5Tget_class(type) != H5T_COMPOUND) {
        return FAIL(err, STATUS_CORRUPT, "%s: /%s is not a table", path, table->name);
    }
    for (int i = 0; i < table->column_count; i++) {
        const struct table_column *column = &table->columns[i];
        int index = H5Tget_member_index(type, column->name);
        if (index < 0) {
            H5Eclear2(H5E_DEFAULT);
            return FAIL(err, STATUS_CORRUPT, "%s: /%s has no column \"%s\"", path, table->name,
                        column->name);
        }
        hid_t member = H5Tget_member_type(type, (unsigned)index);
        bool right = member >= 0 && H5Tget_class(member) == kind_class(column->kind) &&
                     (column->kind != TABLE_TEXT || H5Tis_variable_str(member) > 0);
        h5_close(member);
        if (!right) {
            return FAIL(err, STATUS_CORRUPT, "%s: column \"%s\" of /%s has another type", path,
                        column->name, table->name);
        }
    }
    return STATUS_OK;
}

/* Rows of a dataset; STATUS_CORRUPT if they cannot all be in a file of this size. */
static enum status count_rows(hid_t dataset, hid_t type, const struct table *table,
                              int64_t file_bytes, const char *path, int64_t *count,
                              struct error *err)
{
    hsize_t length = 0;
    hid_t space = H5Dget_space(dataset);
    bool flat = space >= 0 && H5Sget_simple_extent_ndims(space) == 1 &&
                H5Sget_simple_extent_dims(space, &length, NULL) == 1;
    h5_close(space);
    size_t stored_bytes = H5Tget_size(type);
    if (!flat || stored_bytes == 0 || length > (hsize_t)file_bytes / stored_bytes) {
        return FAIL(err, STATUS_CORRUPT,
                    "%s: /%s claims %" PRIu64 " rows, more than the file can hold", path,
                    table->name, (uint64_t)length);
    }
    *count = (int64_t)length;
    return STATUS_OK;
}

static int names_count(const char *const *names)
{
    int count = 0;
    while (names[count] != NULL) {
        count++;
    }
    return count;
}

static bool value_is_right(const struct table_column *column, unsigned char *row)
{
    if (column->kind == TABLE_TEXT) {
        const char **text = (const char **)(void *)(row + column->offset);
        if (*text == NULL) {
            *text = ""; /* HDF5 gives NULL for an empty text */
        }
        return json_utf8_valid(*text, strlen(*text));
    }
    if (column->kind == TABLE_BOOL || column->kind == TABLE_ENUM) {
        int value = *(const signed char *)(row + column->offset);
        return value >= 0 &&
               value < names_count(column->kind == TABLE_BOOL ? bool_names : column->names);
    }
    return true;
}

static enum status check_values(const struct table *table, void *rows, int64_t count,
                                const char *path, struct error *err)
{
    for (int64_t i = 0; i < count; i++) {
        unsigned char *row = (unsigned char *)rows + (size_t)i * table->row_bytes;
        for (int k = 0; k < table->column_count; k++) {
            if (!value_is_right(&table->columns[k], row)) {
                return FAIL(err, STATUS_CORRUPT,
                            "%s: /%s row %" PRId64 ": column \"%s\" holds no valid value", path,
                            table->name, i, table->columns[k].name);
            }
        }
    }
    return STATUS_OK;
}

static enum status check_checksum(hid_t dataset, const struct table *table, const void *rows,
                                  int64_t count, const char *path, struct error *err)
{
    char *stored = NULL;
    char found[HASH_TEXT_BYTES];
    TRY(h5_read_text(dataset, "xxh3_128", HASH_TEXT_BYTES, path, &stored, err));
    enum status status = checksum(table, rows, count, found, err);
    if (status == STATUS_OK && strcmp(stored, found) != 0) {
        status = FAIL(err, STATUS_CORRUPT, "%s: /%s is damaged: checksum %s, expected %s", path,
                      table->name, found, stored);
    }
    free(stored);
    return status;
}

static enum status read_rows(hid_t dataset, hid_t type, const struct table *table,
                             struct arena *texts, void *rows, const char *path, struct error *err)
{
    enum status status = STATUS_OK;
    hid_t transfer = -1;
    TRY_H5(transfer = H5Pcreate(H5P_DATASET_XFER), STATUS_NO_MEMORY, path, table->name);
    TRY_H5(H5Pset_vlen_mem_manager(transfer, allocate_text, texts, keep_text, texts),
           STATUS_INTERNAL, path, table->name);
    TRY_H5(H5Dread(dataset, type, H5S_ALL, H5S_ALL, transfer, rows), STATUS_CORRUPT, path,
           table->name);
cleanup:
    h5_close(transfer);
    return status;
}

/* The table as a program of that schema version wrote it: later columns stand last. */
static struct table table_of_schema(const struct table *table, int64_t schema)
{
    struct table written = *table;
    while (written.column_count > 0 && table->columns[written.column_count - 1].since > schema) {
        written.column_count--;
    }
    return written;
}

static enum status read_dataset(hid_t file, const struct table *written, int64_t file_bytes,
                                struct arena *texts, void **rows, int64_t *count, const char *path,
                                struct error *err)
{
    enum status status = STATUS_OK;
    hid_t dataset = -1;
    hid_t stored_type = -1;
    hid_t type = -1;
    void *read = NULL;
    int64_t length = 0;
    TRY_H5(dataset = H5Dopen2(file, written->name, H5P_DEFAULT), STATUS_CORRUPT, path,
           written->name);
    TRY_H5(stored_type = H5Dget_type(dataset), STATUS_CORRUPT, path, written->name);
    TRY_CLEANUP(check_columns(stored_type, written, path, err));
    TRY_CLEANUP(count_rows(dataset, stored_type, written, file_bytes, path, &length, err));
    TRY_H5(type = row_type(written, false), STATUS_INTERNAL, path, written->name);
    read = mem_calloc((size_t)length, written->row_bytes);
    if (read == NULL) {
        status = mem_fail(err, (size_t)length * written->row_bytes, "a table");
        goto cleanup;
    }
    if (length > 0) {
        TRY_CLEANUP(read_rows(dataset, type, written, texts, read, path, err));
    }
    TRY_CLEANUP(check_values(written, read, length, path, err));
    TRY_CLEANUP(check_checksum(dataset, written, read, length, path, err));
    *rows = read;
    *count = length;
    read = NULL;
cleanup:
    free(read);
    h5_close(type);
    h5_close(stored_type);
    h5_close(dataset);
    return status;
}

enum status table_read(hid_t file, const struct table *table, int64_t schema, int64_t file_bytes,
                       struct arena *texts, void **rows, int64_t *count, const char *path,
                       struct error *err)
{
    void *read = NULL;
    int64_t length = 0;
    struct table written = table_of_schema(table, schema);
    if (table->since <= schema) {
        TRY(read_dataset(file, &written, file_bytes, texts, &read, &length, path, err));
    } else if ((read = mem_calloc(0, table->row_bytes)) == NULL) {
        return mem_fail(err, 0, "a table");
    }
    if (written.column_count < table->column_count) {
        /* A text that the file has not is "": this puts it there. */
        enum status status = check_values(table, read, length, path, err);
        if (status != STATUS_OK) {
            free(read);
            return status;
        }
    }
    *rows = read;
    *count = length;
    return STATUS_OK;
}
