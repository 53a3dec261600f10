/* Reading array files: the seal vouches for all but the arrays' values, their own checksums for
 * those. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "store/arrays.h"
#include "store/seal.h"

struct attribute {
    char *name;
    char *value;
};

struct store_file {
    char path[FILE_PATH_BYTES];
    hid_t file;
    int64_t file_bytes;
    struct store_array *arrays;
    int64_t count;
    struct attribute *attributes;
    int64_t attribute_count;
};

/* ---- opening ---- */

static enum status open_file(struct store_file *file, const char *kind, struct error *err)
{
    enum status status = STATUS_OK;
    hid_t access = -1;
    struct seal seal;
    TRY(seal_check_file(file->path, kind, &seal, err));
    file->file_bytes = seal.file_bytes;
    seal_fini(&seal);
    TRY_H5(access = h5_access_properties(), STATUS_NO_MEMORY, file->path, "cannot open");
    TRY_H5(file->file = H5Fopen(file->path, H5F_ACC_RDONLY, access), STATUS_CORRUPT, file->path,
           "cannot open");
cleanup:
    h5_close(access);
    return status;
}

static enum status take_rows(struct store_file *file, const struct array_row *rows, int64_t count,
                             struct error *err)
{
    file->arrays = mem_calloc((size_t)count, sizeof(*file->arrays));
    if (file->arrays == NULL) {
        return mem_fail(err, (size_t)count * sizeof(*file->arrays), "the list of arrays");
    }
    for (int64_t i = 0; i < count; i++) {
        struct store_array *array = &file->arrays[i];
        int64_t bytes = 0;
        if (strlen(rows[i].name) >= sizeof(array->name) ||
            strlen(rows[i].meaning) >= sizeof(array->meaning)) {
            return FAIL(err, STATUS_CORRUPT, "%s: the name or meaning of array %lld is too long",
                        file->path, (long long)i);
        }
        strcpy(array->name, rows[i].name); /* lengths checked above */
        strcpy(array->meaning, rows[i].meaning);
        array->type = (enum store_type)rows[i].type;
        array->rows = rows[i].rows;
        array->cols = rows[i].cols;
        array->vector = rows[i].vector;
        TRY(arrays_check(array, file->path, STATUS_CORRUPT, &bytes, err));
        if (bytes > file->file_bytes) {
            return FAIL(err, STATUS_CORRUPT,
                        "%s: array %s claims %lld bytes, more than the file has", file->path,
                        array->name, (long long)bytes);
        }
    }
    file->count = count;
    return STATUS_OK;
}

static enum status read_index(struct store_file *file, struct error *err)
{
    struct arena texts;
    void *rows = NULL;
    int64_t count = 0;
    arena_init(&texts, 2 * (size_t)file->file_bytes);
    enum status status = table_read(file->file, &arrays_table, STORE_SCHEMA_VERSION,
                                    file->file_bytes, &texts, &rows, &count, file->path, err);
    if (status == STATUS_OK) {
        status = take_rows(file, rows, count, err);
    }
    free(rows);
    arena_fini(&texts);
    return status;
}

/* Reads one attribute of the root; passes over numbers. */
static enum status read_attribute(struct store_file *file, hsize_t index, struct error *err)
{
    enum status status = STATUS_OK;
    struct attribute *to = &file->attributes[file->attribute_count];
    char name[256];
    hid_t attribute = -1;
    hid_t type = -1;
    TRY_H5(attribute = H5Aopen_by_idx(file->file, ".", H5_INDEX_NAME, H5_ITER_INC, index,
                                      H5P_DEFAULT, H5P_DEFAULT),
           STATUS_CORRUPT, file->path, "an attribute");
    TRY_H5(type = H5Aget_type(attribute), STATUS_CORRUPT, file->path, "an attribute");
    TRY_H5(H5Aget_name(attribute, sizeof(name), name), STATUS_CORRUPT, file->path, "an attribute");
    if (H5Tget_class(type) != H5T_STRING) {
        goto cleanup;
    }
    TRY_CLEANUP(
        h5_read_text(file->file, name, ARRAYS_ATTRIBUTE_MAX_BYTES, file->path, &to->value, err));
    to->name = mem_strdup(name);
    file->attribute_count++;
    if (to->name == NULL) {
        status = mem_fail(err, strlen(name), "the name of an attribute");
    }
cleanup:
    h5_close(type);
    h5_close(attribute);
    return status;
}

static enum status read_attributes(struct store_file *file, struct error *err)
{
    enum status status = STATUS_OK;
    H5O_info_t info;
#if H5_VERSION_GE(1, 12, 0)
    TRY_H5(H5Oget_info3(file->file, &info, H5O_INFO_NUM_ATTRS), STATUS_CORRUPT, file->path,
           "attributes");
#else
    TRY_H5(H5Oget_info2(file->file, &info, H5O_INFO_NUM_ATTRS), STATUS_CORRUPT, file->path,
           "attributes");
#endif
    if (info.num_attrs > ARRAYS_ATTRIBUTES_MAX + 2) {
        return FAIL(err, STATUS_CORRUPT, "%s: more than %d attributes", file->path,
                    ARRAYS_ATTRIBUTES_MAX);
    }
    file->attributes = mem_calloc((size_t)info.num_attrs, sizeof(*file->attributes));
    if (file->attributes == NULL) {
        return mem_fail(err, (size_t)info.num_attrs * sizeof(*file->attributes), "attributes");
    }
    for (hsize_t i = 0; i < info.num_attrs; i++) {
        TRY_CLEANUP(read_attribute(file, i, err));
    }
cleanup:
    return status;
}

static void close_file(struct store_file *file)
{
    if (file->file >= 0) {
        H5Fclose(file->file);
    }
    for (int64_t i = 0; i < file->attribute_count; i++) {
        free(file->attributes[i].name);
        free(file->attributes[i].value);
    }
    free(file->attributes);
    free(file->arrays);
    free(file);
}

enum status store_arrays_open(const char *path, const char *kind, struct store_file **out,
                              struct error *err)
{
    struct store_file *file = mem_calloc(1, sizeof(*file));
    if (file == NULL) {
        return mem_fail(err, sizeof(*file), "an open file");
    }
    enum status status = STATUS_OK;
    file->file = -1;
    h5_lock();
    TRY_CLEANUP(file_join("", path, file->path, err));
    TRY_CLEANUP(open_file(file, kind, err));
    TRY_CLEANUP(read_index(file, err));
    TRY_CLEANUP(read_attributes(file, err));
    *out = file;
cleanup:
    if (status != STATUS_OK) {
        close_file(file);
    }
    h5_unlock();
    return status;
}

void store_arrays_close(struct store_file *file)
{
    if (file != NULL) {
        h5_lock();
        close_file(file);
        h5_unlock();
    }
}

/* ---- what is in it ---- */

int64_t store_arrays_count(const struct store_file *file)
{
    return file->count;
}

const struct store_array *store_arrays_at(const struct store_file *file, int64_t index)
{
    return &file->arrays[index];
}

int64_t store_arrays_find(const struct store_file *file, const char *name)
{
    for (int64_t i = 0; i < file->count; i++) {
        if (strcmp(file->arrays[i].name, name) == 0) {
            return i;
        }
    }
    return -1;
}

const char *store_arrays_attribute(const struct store_file *file, const char *name)
{
    for (int64_t i = 0; i < file->attribute_count; i++) {
        if (strcmp(file->attributes[i].name, name) == 0) {
            return file->attributes[i].value;
        }
    }
    return NULL;
}

/* ---- values ---- */

/* The dataset has the type and the shape that the index says. */
static enum status check_dataset(const struct store_file *file, const struct store_array *array,
                                 hid_t dataset, hid_t type, struct error *err)
{
    hsize_t lengths[2] = {0, 0};
    hid_t space = H5Dget_space(dataset);
    hid_t stored = H5Dget_type(dataset);
    int dimensions = space >= 0 ? H5Sget_simple_extent_ndims(space) : -1;
    bool right = stored >= 0 && H5Tequal(stored, type) > 0 &&
                 dimensions == (array->vector ? 1 : 2) &&
                 H5Sget_simple_extent_dims(space, lengths, NULL) == dimensions;
    if (right && array->vector) {
        right = lengths[0] == (hsize_t)array->cols;
    } else if (right) {
        right = lengths[0] == (hsize_t)array->rows && lengths[1] == (hsize_t)array->cols;
    }
    h5_close(stored);
    h5_close(space);
    H5Eclear2(H5E_DEFAULT);
    if (!right) {
        return FAIL(err, STATUS_CORRUPT,
                    "%s: array %s has another type or shape than the file's list says", file->path,
                    array->name);
    }
    return STATUS_OK;
}

/* Reads row after row into `to`; or, if `keep` is not set, each block over the one before. */
static enum status read_values(const struct store_file *file, const struct store_array *array,
                               hid_t dataset, hid_t type, unsigned char *to, bool keep,
                               char hash[HASH_TEXT_BYTES], struct error *err)
{
    enum status status = STATUS_OK;
    int64_t rows = arrays_row_count(array);
    size_t row_bytes = arrays_row_bytes(array);
    int64_t step = arrays_rows_at_a_time(array);
    struct hash_state *state = hash_create();
    if (state == NULL) {
        return mem_fail(err, 1, "a checksum");
    }
    for (int64_t row = 0; row < rows && row_bytes > 0; row += step) {
        int64_t count = rows - row < step ? rows - row : step;
        unsigned char *at = keep ? to + (size_t)row * row_bytes : to;
        TRY_H5(arrays_read_rows(dataset, type, array, row, count, at), STATUS_CORRUPT, file->path,
               array->name);
        hash_update(state, at, (size_t)count * row_bytes);
    }
    hash_digest(state, hash);
cleanup:
    hash_destroy(state);
    return status;
}

static enum status read_array(const struct store_file *file, const struct store_array *array,
                              void *to, bool keep, struct error *err)
{
    enum status status = STATUS_OK;
    char found[HASH_TEXT_BYTES];
    char *stored = NULL;
    hid_t dataset = -1;
    hid_t type = -1;
    h5_lock();
    TRY_H5(dataset = H5Dopen2(file->file, array->name, H5P_DEFAULT), STATUS_CORRUPT, file->path,
           array->name);
    TRY_H5(type = arrays_element_type(array->type), STATUS_INTERNAL, file->path, array->name);
    TRY_CLEANUP(check_dataset(file, array, dataset, type, err));
    TRY_CLEANUP(h5_read_text(dataset, "xxh3_128", HASH_TEXT_BYTES, file->path, &stored, err));
    TRY_CLEANUP(read_values(file, array, dataset, type, to, keep, found, err));
    if (strcmp(stored, found) != 0) {
        status = FAIL(err, STATUS_CORRUPT, "%s: array %s is damaged: checksum %s, expected %s",
                      file->path, array->name, found, stored);
    }
cleanup:
    free(stored);
    h5_close(type);
    h5_close(dataset);
    h5_unlock();
    return status;
}

enum status store_arrays_read(struct store_file *file, int64_t index, void *to, struct error *err)
{
    return read_array(file, &file->arrays[index], to, true, err);
}

enum status arrays_verify(struct store_file *file, int64_t index, struct error *err)
{
    const struct store_array *array = &file->arrays[index];
    size_t row_bytes = arrays_row_bytes(array);
    size_t bytes = row_bytes > ARRAYS_BLOCK_BYTES ? row_bytes : ARRAYS_BLOCK_BYTES;
    void *block = mem_aligned(bytes, 1);
    if (block == NULL) {
        return mem_fail(err, bytes, "a part of an array");
    }
    enum status status = read_array(file, array, block, false, err);
    free(block);
    return status;
}
