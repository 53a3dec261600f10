#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"

enum status file_join(const char *folder, const char *name, char out[FILE_PATH_BYTES],
                      struct error *err)
{
    bool plain = name[0] == '/' || folder[0] == '\0';
    int used =
        snprintf(out, FILE_PATH_BYTES, "%s%s%s", plain ? "" : folder, plain ? "" : "/", name);
    if (used < 0 || used >= FILE_PATH_BYTES) {
        return FAIL(err, STATUS_LIMIT, "path longer than %d bytes: %.80s...", FILE_PATH_BYTES - 1,
                    name);
    }
    return STATUS_OK;
}

enum status file_folder_of(const char *path, char out[FILE_PATH_BYTES], struct error *err)
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL) {
        return file_join("", ".", out, err);
    }
    size_t length = slash == path ? 1 : (size_t)(slash - path);
    if (length >= FILE_PATH_BYTES) {
        return FAIL(err, STATUS_LIMIT, "path longer than %d bytes: %.80s...", FILE_PATH_BYTES - 1,
                    path);
    }
    memcpy(out, path, length);
    out[length] = '\0';
    return STATUS_OK;
}

bool file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

bool file_is_folder(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

int64_t file_size_bytes(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 ? (int64_t)info.st_size : -1;
}

enum status file_make_folders(const char *path, struct error *err)
{
    char partial[FILE_PATH_BYTES];
    TRY(file_join("", path, partial, err));
    for (char *cursor = partial + 1;; cursor++) {
        if (*cursor != '/' && *cursor != '\0') {
            continue;
        }
        char separator = *cursor;
        *cursor = '\0';
        if (mkdir(partial, 0777) != 0 && !(errno == EEXIST && file_is_folder(partial))) {
            if (errno == EEXIST) {
                return FAIL(err, STATUS_INVALID, "%s is a file where a folder is needed", partial);
            }
            return FAIL_ERRNO(err, "cannot make folder %s", partial);
        }
        *cursor = separator;
        if (separator == '\0') {
            return STATUS_OK;
        }
    }
}

/* Opens a regular file for reading. */
static enum status open_regular(const char *path, int *fd, size_t *size_bytes, struct error *err)
{
    int opened =
        open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* O_NONBLOCK: a FIFO must not hang us */
    if (opened < 0) {
        return FAIL_ERRNO(err, "cannot open %s", path);
    }
    struct stat info;
    if (fstat(opened, &info) != 0 || !S_ISREG(info.st_mode)) {
        close(opened);
        return FAIL(err, STATUS_FORMAT, "%s is not a regular file", path);
    }
    *fd = opened;
    *size_bytes = (size_t)info.st_size;
    return STATUS_OK;
}

enum status file_scan(const char *path, file_take_fn take, void *context, struct error *err)
{
    char block[64 * 1024];
    int fd = -1;
    size_t size_bytes = 0;
    ssize_t got = 1;
    TRY(open_regular(path, &fd, &size_bytes, err));
    enum status status = STATUS_OK;
    while (status == STATUS_OK && got != 0) {
        got = read(fd, block, sizeof(block));
        if (got > 0) {
            status = take(context, block, (size_t)got, err);
        } else if (got < 0 && errno != EINTR) {
            status = FAIL_ERRNO(err, "cannot read %s", path);
        }
    }
    close(fd);
    return status;
}

struct reading {
    const char *path;
    struct buffer *out;
};

static enum status append_piece(void *context, const char *data, size_t len_bytes,
                                struct error *err)
{
    const struct reading *reading = context;
    buffer_append(reading->out, data, len_bytes);
    return buffer_check(reading->out, reading->path, err);
}

enum status file_read(const char *path, struct buffer *out, struct error *err)
{
    struct reading reading = {path, out};
    return file_scan(path, append_piece, &reading, err);
}

static enum status write_all(int fd, const char *path, const char *data, size_t len_bytes,
                             struct error *err)
{
    while (len_bytes > 0) {
        ssize_t put = write(fd, data, len_bytes);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put < 0) {
            return FAIL_ERRNO(err, "cannot write %s", path);
        }
        data += put;
        len_bytes -= (size_t)put;
    }
    return STATUS_OK;
}

static enum status sync_path(const char *path, int flags, struct error *err)
{
    int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0) {
        return FAIL_ERRNO(err, "cannot open %s", path);
    }
    enum status status = fsync(fd) == 0 ? STATUS_OK : FAIL_ERRNO(err, "cannot sync %s", path);
    close(fd);
    return status;
}

enum status file_aside(const char *path, char out[FILE_PATH_BYTES], struct error *err)
{
    char host[65] = "";
    gethostname(host, sizeof(host) - 1);
    int used = snprintf(out, FILE_PATH_BYTES, "%s.%s.%d.tmp", path, host, (int)getpid());
    if (used < 0 || used >= FILE_PATH_BYTES) {
        return FAIL(err, STATUS_LIMIT, "path longer than %d bytes: %.80s...", FILE_PATH_BYTES - 1,
                    path);
    }
    return STATUS_OK;
}

enum status file_commit(const char *aside, const char *path, const char *previous,
                        struct error *err)
{
    char folder[FILE_PATH_BYTES];
    TRY(file_folder_of(path, folder, err));
    TRY(fault_point("base.file.before_rename", err));
    TRY(sync_path(aside, O_RDONLY, err)); /* before `previous` is touched: it may be gone */
    /* A hard link keeps `path` in place until the rename replaces it: no instant without a
     * generation. */
    if (previous != NULL && file_exists(path)) {
        if (unlink(previous) != 0 && errno != ENOENT) {
            return FAIL_ERRNO(err, "cannot replace %s", previous);
        }
        if (link(path, previous) != 0) {
            return FAIL_ERRNO(err, "cannot keep %s as %s", path, previous);
        }
        TRY(fault_point("base.file.between_generations", err));
    }
    if (rename(aside, path) != 0) {
        return FAIL_ERRNO(err, "cannot rename %s to %s", aside, path);
    }
    TRY(fault_point("base.file.after_rename", err));
    return sync_path(folder, O_RDONLY | O_DIRECTORY, err);
}

enum status file_sync_folder(const char *folder, struct error *err)
{
    return sync_path(folder, O_RDONLY | O_DIRECTORY, err);
}

enum status file_write_aside(const char *path, const void *data, size_t len_bytes,
                             char aside[FILE_PATH_BYTES], struct error *err)
{
    TRY(file_aside(path, aside, err));
    int fd = open(aside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0) {
        return FAIL_ERRNO(err, "cannot create %s", aside);
    }
    enum status status = write_all(fd, aside, data, len_bytes, err);
    if (close(fd) != 0 && status == STATUS_OK) {
        status = FAIL_ERRNO(err, "cannot close %s", aside);
    }
    if (status != STATUS_OK) {
        unlink(aside);
    }
    return status;
}

enum status file_write(const char *path, const void *data, size_t len_bytes, struct error *err)
{
    char aside[FILE_PATH_BYTES];
    TRY(file_write_aside(path, data, len_bytes, aside, err));
    enum status status = file_commit(aside, path, NULL, err);
    if (status != STATUS_OK) {
        unlink(aside);
    }
    return status;
}

enum status file_remove(const char *path, struct error *err)
{
    if (unlink(path) != 0 && errno != ENOENT) {
        return FAIL_ERRNO(err, "cannot remove %s", path);
    }
    return STATUS_OK;
}

static int remove_entry(const char *path, const struct stat *about, int kind, struct FTW *where)
{
    (void)about;
    (void)kind;
    (void)where;
    remove(path);
    return 0;
}

void file_remove_folder(const char *path)
{
    nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

enum status file_map_open(const char *path, struct file_map *out, struct error *err)
{
    int fd = -1;
    size_t size_bytes = 0;
    TRY(open_regular(path, &fd, &size_bytes, err));
    void *data = NULL;
    if (size_bytes > 0) {
        data = mmap(NULL, size_bytes, PROT_READ, MAP_SHARED, fd, 0);
        if (data == MAP_FAILED) {
            enum status status = FAIL_ERRNO(err, "cannot map %s", path);
            close(fd);
            return status;
        }
    }
    close(fd);
    out->data = data;
    out->len_bytes = size_bytes;
    return STATUS_OK;
}

void file_map_close(struct file_map *map)
{
    if (map->data != NULL) {
        munmap((void *)(uintptr_t)map->data, map->len_bytes);
    }
    map->data = NULL;
    map->len_bytes = 0;
}
