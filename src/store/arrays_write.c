/* Writing array files. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/hash.h"
#include "base/mem.h"
#include "store/arrays.h"
#include "store/seal.h"

enum {
    ALIGNMENT_BYTES = 4096,
    METADATA_LEAST_BYTES = 4096,
    METADATA_ARRAY_BYTES = 1024, /* about what an array takes */
    NAMES_COMPARED_MAX = 1 << 16
};

/* A file that is being written. */
struct array_writer {
    const char *path;  /* that it will have, for messages */
    const char *aside; /* that it has */
    const struct store_array *arrays;
    int64_t count;
    hid_t file;
    struct seal seal;
    int fd;              /* of HDF5's, to start the disk early; -1: unknown */
    unsigned char *host; /* the array that is on the host */
    int64_t host_bytes;  /* room in it */
};

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Names, shapes; the room that the largest array needs. */
static enum status check_arrays(struct array_writer *writer, struct error *err)
{
    if (writer->count < 0 || writer->count > NAMES_COMPARED_MAX) {
        return FAIL(err, STATUS_LIMIT, "%s: %lld arrays, at most %d are allowed", writer->path,
                    (long long)writer->count, NAMES_COMPARED_MAX);
    }
    const char **names = mem_calloc((size_t)writer->count, sizeof(*names));
    if (names == NULL) {
        return mem_fail(err, (size_t)writer->count * sizeof(*names), "names of arrays");
    }
    enum status status = STATUS_OK;
    for (int64_t i = 0; i < writer->count; i++) {
        int64_t bytes = 0;
        TRY_CLEANUP(arrays_check(&writer->arrays[i], writer->path, STATUS_INVALID, &bytes, err));
        writer->host_bytes = bytes > writer->host_bytes ? bytes : writer->host_bytes;
        names[i] = writer->arrays[i].name;
    }
    qsort(names, (size_t)writer->count, sizeof(*names), compare_names);
    for (int64_t i = 1; i < writer->count; i++) {
        if (strcmp(names[i - 1], names[i]) == 0) {
            status = FAIL(err, STATUS_INVALID, "%s: two arrays have the name %s", writer->path,
                          names[i]);
            goto cleanup;
        }
    }
cleanup:
    free(names);
    return status;
}

static enum status create_file(struct array_writer *writer, struct error *err)
{
    enum status status = STATUS_OK;
    hid_t access = -1;
    hid_t creation = -1;
    int *handle = NULL;
    const char *what = "cannot create";
    /* All metadata in one piece, in front of the arrays. */
    hsize_t metadata_bytes = METADATA_LEAST_BYTES + METADATA_ARRAY_BYTES * (hsize_t)writer->count;
    TRY_H5(access = h5_access_properties(), STATUS_NO_MEMORY, writer->path, what);
    TRY_H5(H5Pset_alignment(access, ALIGNMENT_BYTES, ALIGNMENT_BYTES), STATUS_INTERNAL,
           writer->path, what);
    TRY_H5(H5Pset_meta_block_size(access, metadata_bytes), STATUS_INTERNAL, writer->path, what);
    TRY_H5(creation = H5Pcreate(H5P_FILE_CREATE), STATUS_NO_MEMORY, writer->path, what);
    TRY_H5(H5Pset_userblock(creation, (hsize_t)writer->seal.block_bytes), STATUS_INTERNAL,
           writer->path, what);
    TRY_H5(writer->file = H5Fcreate(writer->aside, H5F_ACC_TRUNC, creation, access), STATUS_IO,
           writer->aside, what);
    if (H5Fget_vfd_handle(writer->file, access, (void **)&handle) >= 0 && handle != NULL) {
        writer->fd = *handle;
    }
cleanup:
    h5_close(creation);
    h5_close(access);
    return status;
}

static enum status write_attributes(struct array_writer *writer, const char *kind,
                                    const struct store_attribute *attributes, int64_t count,
                                    struct error *err)
{
    enum status status = STATUS_OK;
    int version = STORE_SCHEMA_VERSION;
    hid_t space = -1;
    hid_t attribute = -1;
    TRY_H5(h5_write_text(writer->file, "kind", kind), STATUS_IO, writer->path, "attribute kind");
    TRY_H5(space = H5Screate(H5S_SCALAR), STATUS_IO, writer->path, "attribute schema_version");
    TRY_H5(attribute = H5Acreate2(writer->file, "schema_version", H5T_STD_I32LE, space, H5P_DEFAULT,
                                  H5P_DEFAULT),
           STATUS_IO, writer->path, "attribute schema_version");
    TRY_H5(H5Awrite(attribute, H5T_NATIVE_INT, &version), STATUS_IO, writer->path,
           "attribute schema_version");
    if (count > ARRAYS_ATTRIBUTES_MAX) {
        status = FAIL(err, STATUS_LIMIT, "%s: %lld attributes, at most %d are allowed",
                      writer->path, (long long)count, ARRAYS_ATTRIBUTES_MAX);
        goto cleanup;
    }
    for (int64_t i = 0; i < count; i++) {
        if (strlen(attributes[i].value) > ARRAYS_ATTRIBUTE_MAX_BYTES) {
            status = FAIL(err, STATUS_LIMIT, "%s: attribute %s is longer than %d bytes",
                          writer->path, attributes[i].name, ARRAYS_ATTRIBUTE_MAX_BYTES);
            goto cleanup;
        }
        TRY_H5(h5_write_text(writer->file, attributes[i].name, attributes[i].value), STATUS_IO,
               writer->path, attributes[i].name);
    }
cleanup:
    h5_close(attribute);
    h5_close(space);
    return status;
}

static enum status write_index(struct array_writer *writer, struct error *err)
{
    struct array_row *rows = mem_calloc((size_t)writer->count, sizeof(*rows));
    if (rows == NULL) {
        return mem_fail(err, (size_t)writer->count * sizeof(*rows), "the list of arrays");
    }
    for (int64_t i = 0; i < writer->count; i++) {
        const struct store_array *array = &writer->arrays[i];
        rows[i] = (struct array_row){.name = array->name,
                                     .meaning = array->meaning,
                                     .rows = array->rows,
                                     .cols = array->cols,
                                     .type = (signed char)array->type,
                                     .vector = array->vector};
    }
    enum status status =
        table_write(writer->file, &arrays_table, rows, writer->count, writer->path, err);
    free(rows);
    return status;
}

/* Space in the file at once (early allocation), no filling with zeros. */
static hid_t creation_properties(void)
{
    hid_t properties = H5Pcreate(H5P_DATASET_CREATE);
    if (properties >= 0) {
        H5Pset_layout(properties, H5D_CONTIGUOUS);
        H5Pset_alloc_time(properties, H5D_ALLOC_TIME_EARLY);
        H5Pset_fill_time(properties, H5D_FILL_TIME_NEVER);
    }
    return properties;
}

/* Starts the disk on what was just written, so that the sync at the end finds little left to do. */
static void start_disk(const struct array_writer *writer, int64_t offset, int64_t bytes)
{
    if (writer->fd >= 0) {
        /* Advice alone: a failure shows in the sync. */
        (void)sync_file_range(writer->fd, offset, bytes, SYNC_FILE_RANGE_WRITE);
    }
}

/* Writes what is on the host, hashing as it goes; then puts the checksum in the place kept for it.
 */
static enum status write_values(struct array_writer *writer, const struct store_array *array,
                                hid_t dataset, hid_t type, int64_t offset, struct error *err)
{
    enum status status = STATUS_OK;
    char hash[HASH_TEXT_BYTES];
    int64_t rows = arrays_row_count(array);
    size_t row_bytes = arrays_row_bytes(array);
    int64_t step = arrays_rows_at_a_time(array);
    struct hash_state *state = hash_create();
    if (state == NULL) {
        return mem_fail(err, 1, "a checksum");
    }
    for (int64_t row = 0; row < rows && row_bytes > 0; row += step) {
        int64_t count = rows - row < step ? rows - row : step;
        size_t at = (size_t)row * row_bytes;
        size_t bytes = (size_t)count * row_bytes;
        hash_update(state, writer->host + at, bytes);
        TRY_H5(arrays_write_rows(dataset, type, array, row, count, writer->host + at), STATUS_IO,
               writer->path, array->name);
        start_disk(writer, offset + (int64_t)at, (int64_t)bytes);
    }
    hash_digest(state, hash);
    TRY_H5(h5_replace_text(dataset, "xxh3_128", hash), STATUS_IO, writer->path, array->name);
cleanup:
    hash_destroy(state);
    return status;
}

static enum status write_array(struct array_writer *writer, int64_t index, hid_t creation,
                               hid_t links, struct error *err)
{
    static const char placeholder[HASH_TEXT_BYTES] = "00000000000000000000000000000000";
    const struct store_array *array = &writer->arrays[index];
    enum status status = STATUS_OK;
    int64_t bytes = 0;
    hid_t type = -1;
    hid_t space = -1;
    hid_t dataset = -1;
    TRY_CLEANUP(arrays_check(array, writer->path, STATUS_INVALID, &bytes, err));
    TRY_H5(type = arrays_element_type(array->type), STATUS_INTERNAL, writer->path, array->name);
    TRY_H5(space = arrays_space(array), STATUS_INTERNAL, writer->path, array->name);
    TRY_H5(dataset =
               H5Dcreate2(writer->file, array->name, type, space, links, creation, H5P_DEFAULT),
           STATUS_IO, writer->path, array->name);
    TRY_H5(h5_write_text(dataset, "meaning", array->meaning), STATUS_IO, writer->path, array->name);
    TRY_H5(h5_write_fixed_text(dataset, "xxh3_128", placeholder), STATUS_IO, writer->path,
           array->name);
    if (bytes > 0) {
        haddr_t offset = H5Dget_offset(dataset);
        if (offset == HADDR_UNDEF) {
            status = H5_FAIL(err, STATUS_IO, writer->path, array->name);
            goto cleanup;
        }
        writer->seal.extents[writer->seal.extent_count++] =
            (struct seal_extent){(int64_t)offset, bytes};
        TRY_CLEANUP(write_values(writer, array, dataset, type, (int64_t)offset, err));
    } else {
        TRY_CLEANUP(write_values(writer, array, dataset, type, 0, err));
    }
cleanup:
    h5_close(dataset);
    h5_close(space);
    h5_close(type);
    return status;
}

/* Each array in turn: onto the host without HDF5's lock (it may be long in coming from a device),
 * then to the file. */
static enum status write_arrays(struct array_writer *writer, store_read_fn read, void *context,
                                struct error *err)
{
    enum status status = STATUS_OK;
    hid_t creation = -1;
    hid_t links = -1;
    TRY_H5(creation = creation_properties(), STATUS_NO_MEMORY, writer->path, "cannot create");
    TRY_H5(links = H5Pcreate(H5P_LINK_CREATE), STATUS_NO_MEMORY, writer->path, "cannot create");
    TRY_H5(H5Pset_create_intermediate_group(links, 1), STATUS_INTERNAL, writer->path,
           "cannot create");
    for (int64_t i = 0; i < writer->count; i++) {
        h5_unlock();
        status = read(context, i, writer->host, err);
        h5_lock();
        TRY_CLEANUP(status);
        TRY_CLEANUP(fault_point("store.arrays.mid_write", err));
        TRY_CLEANUP(write_array(writer, i, creation, links, err));
    }
cleanup:
    h5_close(links);
    h5_close(creation);
    return status;
}

/* The HDF5 part; what it writes has no seal yet. */
static enum status write_file(struct array_writer *writer, const char *kind,
                              const struct store_attribute *attributes, int64_t attribute_count,
                              store_read_fn read, void *context, struct error *err)
{
    enum status status = STATUS_OK;
    h5_lock();
    TRY_CLEANUP(create_file(writer, err));
    TRY_CLEANUP(write_attributes(writer, kind, attributes, attribute_count, err));
    TRY_CLEANUP(write_index(writer, err));
    TRY_CLEANUP(write_arrays(writer, read, context, err));
cleanup:
    if (writer->file >= 0 && H5Fclose(writer->file) < 0 && status == STATUS_OK) {
        status = H5_FAIL(err, STATUS_IO, writer->path, "cannot finish");
    }
    h5_unlock();
    return status;
}

enum status store_arrays_write(const char *path, const char *kind, const struct store_array *arrays,
                               int64_t count, const struct store_attribute *attributes,
                               int64_t attribute_count, store_read_fn read, void *context,
                               struct error *err)
{
    enum status status = STATUS_OK;
    char aside[FILE_PATH_BYTES];
    struct array_writer writer = {
        .path = path, .aside = aside, .arrays = arrays, .count = count, .file = -1, .fd = -1};
    TRY(file_aside(path, aside, err));
    TRY(check_arrays(&writer, err));
    snprintf(writer.seal.kind, sizeof(writer.seal.kind), "%s", kind);
    writer.seal.schema = STORE_SCHEMA_VERSION;
    writer.seal.block_bytes = seal_block_bytes(count, ALIGNMENT_BYTES);
    writer.seal.extents = mem_calloc((size_t)count, sizeof(*writer.seal.extents));
    writer.host = mem_aligned((size_t)writer.host_bytes, 1);
    if (writer.seal.extents == NULL || writer.host == NULL) {
        status = mem_fail(err, (size_t)writer.host_bytes, "an array on its way to a file");
        goto cleanup;
    }
    TRY_CLEANUP(fault_point("store.arrays.before_write", err));
    TRY_CLEANUP(write_file(&writer, kind, attributes, attribute_count, read, context, err));
    TRY_CLEANUP(seal_file(&writer.seal, aside, err));
    TRY_CLEANUP(fault_point("store.arrays.after_write", err));
    TRY_CLEANUP(file_commit(aside, path, NULL, err));
cleanup:
    if (status != STATUS_OK) {
        unlink(aside);
    }
    free(writer.host);
    seal_fini(&writer.seal);
    return status;
}
