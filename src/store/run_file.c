/* run.h5: a search written aside and committed, and read back.
 *
 * HDF5 builds the file in memory and reads it from memory: no failure of the disk ever meets the
 * library, and the file is sealed before its first byte is written. */
#include "store/run_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/mem.h"
#include "store/h5.h"
#include "store/lock.h"
#include "store/run_image.h"
#include "store/seal.h"
#include "store/store.h"

enum { GROWTH_BYTES = 4 << 20 };
#define RUN_FILE_MAX_BYTES ((int64_t)16 << 30)

static const char run_kind[] = "run";

enum status run_file_path(const char *folder, char out[FILE_PATH_BYTES], struct error *err)
{
    return file_join(folder, "run.h5", out, err);
}

enum status run_file_previous_path(const char *folder, char out[FILE_PATH_BYTES], struct error *err)
{
    return file_join(folder, "run.prev.h5", out, err);
}

/* A file in memory. */
struct bytes {
    unsigned char *data; /* free() */
    size_t count;
};

/* ---- writing ---- */

/* Opens a file that lives in memory alone; `path` is but its name. */
static enum status create_in_memory(const char *path, hid_t *file, struct error *err)
{
    enum status status = STATUS_OK;
    hid_t access = -1;
    hid_t creation = -1;
    TRY_H5(access = h5_access_properties(), STATUS_NO_MEMORY, path, "cannot create");
    TRY_H5(H5Pset_fapl_core(access, GROWTH_BYTES, 0), STATUS_INTERNAL, path, "cannot create");
    TRY_H5(creation = H5Pcreate(H5P_FILE_CREATE), STATUS_NO_MEMORY, path, "cannot create");
    TRY_H5(H5Pset_userblock(creation, (hsize_t)seal_block_bytes(0, SEAL_BLOCK_LEAST_BYTES)),
           STATUS_INTERNAL, path, "cannot create");
    TRY_H5(*file = H5Fcreate(path, H5F_ACC_TRUNC, creation, access), STATUS_NO_MEMORY, path,
           "cannot create");
cleanup:
    h5_close(creation);
    h5_close(access);
    return status;
}

static enum status write_root(hid_t file, const char *path, struct error *err)
{
    enum status status = STATUS_OK;
    int version = STORE_SCHEMA_VERSION;
    hid_t space = -1;
    hid_t attribute = -1;
    TRY_H5(h5_write_text(file, "kind", run_kind), STATUS_IO, path, "kind");
    TRY_H5(h5_write_text(file, "meaning",
                         "a search by trex; each table says what its columns mean in attributes"),
           STATUS_IO, path, "meaning");
    TRY_H5(space = H5Screate(H5S_SCALAR), STATUS_IO, path, "schema_version");
    TRY_H5(attribute =
               H5Acreate2(file, "schema_version", H5T_STD_I32LE, space, H5P_DEFAULT, H5P_DEFAULT),
           STATUS_IO, path, "schema_version");
    TRY_H5(H5Awrite(attribute, H5T_NATIVE_INT, &version), STATUS_IO, path, "schema_version");
cleanup:
    h5_close(attribute);
    h5_close(space);
    return status;
}

static enum status take_bytes(hid_t file, const char *path, struct bytes *out, struct error *err)
{
    if (H5Fflush(file, H5F_SCOPE_LOCAL) < 0) {
        return H5_FAIL(err, STATUS_NO_MEMORY, path, "cannot finish");
    }
    /* The library gives all but its user block, which is ours to fill. */
    size_t block = (size_t)seal_block_bytes(0, SEAL_BLOCK_LEAST_BYTES);
    ssize_t size = H5Fget_file_image(file, NULL, 0);
    if (size <= 0) {
        return H5_FAIL(err, STATUS_INTERNAL, path, "cannot finish");
    }
    unsigned char *data = mem_calloc(block + (size_t)size, 1);
    if (data == NULL) {
        return mem_fail(err, (size_t)size, "a run file");
    }
    if (H5Fget_file_image(file, data + block, (size_t)size) != size) {
        free(data);
        return H5_FAIL(err, STATUS_INTERNAL, path, "cannot finish");
    }
    *out = (struct bytes){data, block + (size_t)size};
    return STATUS_OK;
}

static enum status build(const struct run_image *image, const char *path, struct bytes *out,
                         struct error *err)
{
    enum status status = STATUS_OK;
    hid_t file = -1;
    h5_lock();
    TRY_CLEANUP(create_in_memory(path, &file, err));
    TRY_CLEANUP(write_root(file, path, err));
    for (int i = 0; i < RUN_TABLE_COUNT; i++) {
        TRY_CLEANUP(table_write(file, &run_tables[i], image->rows[i], image->counts[i], path, err));
    }
    TRY_CLEANUP(take_bytes(file, path, out, err));
cleanup:
    if (file >= 0) {
        H5Fclose(file);
    }
    h5_unlock();
    return status;
}

static enum status seal_bytes(struct bytes *file, const char *path, struct error *err)
{
    struct seal seal = {{0},
                        STORE_SCHEMA_VERSION,
                        seal_block_bytes(0, SEAL_BLOCK_LEAST_BYTES),
                        (int64_t)file->count,
                        0,
                        NULL};
    snprintf(seal.kind, sizeof(seal.kind), "%s", run_kind);
    return seal_memory(&seal, file->data, path, err);
}

static enum status write_all(int fd, const char *path, const unsigned char *data, size_t bytes,
                             struct error *err)
{
    while (bytes > 0) {
        ssize_t put = write(fd, data, bytes);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put < 0) {
            return FAIL_ERRNO(err, "cannot write %s", path);
        }
        data += put;
        bytes -= (size_t)put;
    }
    return STATUS_OK;
}

static enum status write_aside(const char *aside, const struct bytes *file, struct error *err)
{
    int fd = open(aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        return FAIL_ERRNO(err, "cannot create %s", aside);
    }
    size_t half = file->count / 2;
    enum status status = write_all(fd, aside, file->data, half, err);
    if (status == STATUS_OK) {
        status = fault_point("store.run.mid_write", err);
    }
    if (status == STATUS_OK) {
        status = write_all(fd, aside, file->data + half, file->count - half, err);
    }
    if (close(fd) != 0 && status == STATUS_OK) {
        status = FAIL_ERRNO(err, "cannot close %s", aside);
    }
    return status;
}

/* A damaged run.h5 must not push a good run.prev.h5 out: it is replaced without becoming a
 * generation. */
static bool is_whole(const char *path)
{
    struct seal seal;
    if (seal_check_file(path, run_kind, &seal, NULL) != STATUS_OK) {
        return false;
    }
    seal_fini(&seal);
    return true;
}

static enum status commit(const char *folder, const struct store_lock *lock,
                          const struct bytes *file, struct error *err)
{
    char path[FILE_PATH_BYTES];
    char previous[FILE_PATH_BYTES];
    char aside[FILE_PATH_BYTES];
    TRY(run_file_path(folder, path, err));
    TRY(run_file_previous_path(folder, previous, err));
    TRY(file_aside(path, aside, err));
    TRY(fault_point("store.run.before_write", err));
    enum status status = write_aside(aside, file, err);
    if (status != STATUS_OK) {
        unlink(aside);
        return status;
    }
    return lock_commit(lock, aside, path, is_whole(path) ? previous : NULL, err);
}

enum status run_file_save(const char *folder, const struct store_lock *lock,
                          const struct search *search, struct error *err)
{
    enum status status = STATUS_OK;
    char path[FILE_PATH_BYTES];
    struct run_image image;
    struct bytes file = {NULL, 0};
    memset(&image, 0, sizeof(image));
    TRY(run_file_path(folder, path, err));
    TRY_CLEANUP(run_image_take(search, &image, err));
    TRY_CLEANUP(build(&image, path, &file, err));
    TRY_CLEANUP(seal_bytes(&file, path, err));
    TRY_CLEANUP(commit(folder, lock, &file, err));
cleanup:
    free(file.data);
    run_image_fini(&image);
    return status;
}

enum status store_run_save(const char *folder, const struct search *search, struct error *err)
{
    return run_file_save(folder, NULL, search, err);
}

/* ---- reading ---- */

/* Checks the seal, then opens the file as a copy in memory. */
static enum status open_sealed(const char *path, hid_t *file, int64_t *file_bytes, int64_t *schema,
                               struct error *err)
{
    enum status status = STATUS_OK;
    struct seal seal;
    hid_t access = -1;
    TRY(seal_check_file(path, run_kind, &seal, err));
    *file_bytes = seal.file_bytes;
    *schema = seal.schema;
    seal_fini(&seal);
    if (*file_bytes > RUN_FILE_MAX_BYTES) {
        return FAIL(err, STATUS_LIMIT, "%s: larger than %lld bytes", path,
                    (long long)RUN_FILE_MAX_BYTES);
    }
    TRY_H5(access = h5_access_properties(), STATUS_NO_MEMORY, path, "cannot open");
    TRY_H5(H5Pset_fapl_core(access, GROWTH_BYTES, 0), STATUS_INTERNAL, path, "cannot open");
    TRY_H5(*file = H5Fopen(path, H5F_ACC_RDONLY, access), STATUS_CORRUPT, path, "cannot open");
cleanup:
    h5_close(access);
    return status;
}

/* Reads the tables from `first` to `last`. */
static enum status read_tables(const char *path, enum run_table first, enum run_table last,
                               struct run_image *out, struct error *err)
{
    enum status status = STATUS_OK;
    hid_t file = -1;
    int64_t file_bytes = 0;
    struct run_image image;
    memset(&image, 0, sizeof(image));
    h5_lock();
    TRY_CLEANUP(open_sealed(path, &file, &file_bytes, &image.schema, err));
    /* A text takes at least as much in the file as it does here, but for rounding up to 16 bytes.
     */
    arena_init(&image.texts, 2 * (size_t)file_bytes);
    for (int i = (int)first; i <= (int)last; i++) {
        TRY_CLEANUP(table_read(file, &run_tables[i], image.schema, file_bytes, &image.texts,
                               &image.rows[i], &image.counts[i], path, err));
    }
    *out = image;
    memset(&image, 0, sizeof(image));
cleanup:
    if (file >= 0) {
        H5Fclose(file);
    }
    h5_unlock();
    run_image_fini(&image);
    return status;
}

enum status store_run_read(const char *path, struct search *out, struct error *err)
{
    struct run_image image;
    TRY(read_tables(path, RUN_IDENTITY, (enum run_table)(RUN_TABLE_COUNT - 1), &image, err));
    enum status status = run_image_restore(&image, path, out, err);
    run_image_fini(&image);
    return status;
}

enum status run_file_sequence(const char *path, int64_t *sequence, struct error *err)
{
    struct run_image image;
    TRY(read_tables(path, RUN_SEARCH, RUN_SEARCH, &image, err));
    enum status status = STATUS_OK;
    if (image.counts[RUN_SEARCH] == 1) {
        *sequence = ((const struct search_row *)image.rows[RUN_SEARCH])->last_sequence;
    } else {
        status = FAIL(err, STATUS_CORRUPT, "%s: /search must have one row", path);
    }
    run_image_fini(&image);
    return status;
}
