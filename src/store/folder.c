/* The run folder: its lock and the paths in it. */
#include "store/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/mem.h"
#include "store/store.h"

enum { LOCK_TEXT_BYTES = 4096, HASH_NAME_BYTES = 64 };

struct store_lock {
    int fd;
};

/* ---- who holds it ---- */

static void copy_member(const cJSON *object, const char *key, char *out, size_t out_bytes)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
    snprintf(out, out_bytes, "%s", text != NULL ? text : "");
}

/* Whether the process is alive: only this machine can tell. */
static enum store_alive check_alive(const struct store_holder *holder)
{
    char host[sizeof(holder->host)] = "";
    gethostname(host, sizeof(host) - 1);
    if (strcmp(host, holder->host) != 0) {
        return STORE_ALIVE_UNKNOWN;
    }
    return kill((pid_t)holder->pid, 0) == 0 || errno == EPERM ? STORE_ALIVE_YES : STORE_ALIVE_NO;
}

enum status store_folder_holder(const char *folder, struct store_holder *out, struct error *err)
{
    char path[FILE_PATH_BYTES];
    cJSON *object = NULL;
    memset(out, 0, sizeof(*out));
    TRY(file_join(folder, FOLDER_LOCK, path, err));
    if (file_size_bytes(path) <= 0) {
        return FAIL(err, STATUS_NOT_FOUND, "%s names no process", path);
    }
    TRY(json_parse_file(path, LOCK_TEXT_BYTES, &object, err));
    double pid = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(object, "pid"));
    out->pid = pid >= 1.0 && pid <= INT32_MAX ? (int64_t)pid : 0;
    copy_member(object, "host", out->host, sizeof(out->host));
    copy_member(object, "job", out->job, sizeof(out->job));
    copy_member(object, "since", out->since, sizeof(out->since));
    cJSON_Delete(object);
    if (out->pid == 0 || out->host[0] == '\0') {
        return FAIL(err, STATUS_FORMAT, "%s names no process", path);
    }
    out->alive = check_alive(out);
    return STATUS_OK;
}

static enum status fail_busy(const char *folder, struct error *err)
{
    struct store_holder holder;
    if (store_folder_holder(folder, &holder, NULL) != STATUS_OK) {
        return FAIL(err, STATUS_BUSY,
                    "%s is in use by another search (its lock does not say by whom)", folder);
    }
    return FAIL(err, STATUS_BUSY,
                "%s is in use by process %lld on %s%s%s since %s; stop it, or wait for it", folder,
                (long long)holder.pid, holder.host, holder.job[0] != '\0' ? ", Slurm job " : "",
                holder.job, holder.since);
}

/* ---- the lock ---- */

static cJSON *describe_self(void)
{
    char host[256] = "";
    char since[32];
    const char *job = getenv("SLURM_JOB_ID");
    gethostname(host, sizeof(host) - 1);
    clock_format_utc(clock_wall_s(), since, sizeof(since));
    cJSON *object = cJSON_CreateObject();
    if (cJSON_AddStringToObject(object, "host", host) == NULL ||
        cJSON_AddNumberToObject(object, "pid", (double)getpid()) == NULL ||
        cJSON_AddStringToObject(object, "job", job != NULL ? job : "") == NULL ||
        cJSON_AddStringToObject(object, "since", since) == NULL) {
        cJSON_Delete(object);
        return NULL;
    }
    return object;
}

static enum status write_holder(int fd, const char *path, struct error *err)
{
    cJSON *object = describe_self();
    char *text = object != NULL ? json_print_line(object) : NULL;
    cJSON_Delete(object);
    if (text == NULL) {
        return mem_fail(err, LOCK_TEXT_BYTES, "the lock's text");
    }
    size_t length = strlen(text);
    enum status status = STATUS_OK;
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, length, 0) != (ssize_t)length) {
        status = FAIL_ERRNO(err, "cannot write %s", path);
    }
    cJSON_free(text);
    return status;
}

static enum status take_lock(const char *folder, const char *path, int fd, struct error *err)
{
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
        return write_holder(fd, path, err);
    }
    if (errno == EWOULDBLOCK) {
        return fail_busy(folder, err);
    }
    if (errno == ENOSYS || errno == EOPNOTSUPP || errno == ENOLCK) {
        return FAIL(err, STATUS_UNSUPPORTED,
                    "%s: its file system has no file locks (on Lustre: mount option flock); use "
                    "another output folder",
                    folder);
    }
    return FAIL_ERRNO(err, "cannot lock %s", path);
}

static enum status make_folders(const char *folder, struct error *err)
{
    static const char *const names[] = {FOLDER_WEIGHTS, FOLDER_INFLIGHT, FOLDER_DATA};
    char path[FILE_PATH_BYTES];
    TRY(file_make_folders(folder, err));
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        TRY(file_join(folder, names[i], path, err));
        TRY(file_make_folders(path, err));
    }
    return STATUS_OK;
}

/* Removes what writes that were interrupted left behind: under the lock nobody else writes here.
 * Best effort. */
static void sweep(const char *folder, const char *subfolder)
{
    char path[FILE_PATH_BYTES];
    char file[FILE_PATH_BYTES];
    if (file_join(folder, subfolder, path, NULL) != STATUS_OK) {
        return;
    }
    DIR *entries = opendir(path);
    if (entries == NULL) {
        return;
    }
    for (struct dirent *entry = readdir(entries); entry != NULL; entry = readdir(entries)) {
        size_t length = strlen(entry->d_name);
        if (length > 4 && strcmp(entry->d_name + length - 4, ".tmp") == 0 &&
            file_join(path, entry->d_name, file, NULL) == STATUS_OK) {
            unlink(file);
        }
    }
    closedir(entries);
}

enum status store_folder_lock(const char *folder, struct store_lock **out, struct error *err)
{
    char path[FILE_PATH_BYTES];
    TRY(make_folders(folder, err));
    TRY(file_join(folder, FOLDER_LOCK, path, err));
    struct store_lock *lock = mem_calloc(1, sizeof(*lock));
    if (lock == NULL) {
        return mem_fail(err, sizeof(*lock), "a lock");
    }
    enum status status = STATUS_OK;
    lock->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (lock->fd < 0) {
        status = FAIL_ERRNO(err, "cannot open %s", path);
        goto cleanup;
    }
    TRY_CLEANUP(take_lock(folder, path, lock->fd, err));
    sweep(folder, ".");
    sweep(folder, FOLDER_WEIGHTS);
    sweep(folder, FOLDER_INFLIGHT);
    sweep(folder, FOLDER_DATA);
    *out = lock;
cleanup:
    if (status != STATUS_OK) {
        if (lock->fd >= 0) {
            close(lock->fd);
        }
        free(lock);
    }
    return status;
}

enum status store_lock_check(const struct store_lock *lock, struct error *err)
{
    (void)lock;
    (void)err;
    return STATUS_OK;
}

const char *store_lock_taken_from(const struct store_lock *lock)
{
    (void)lock;
    return "";
}

int64_t store_lock_fence(const struct store_lock *lock)
{
    (void)lock;
    return 1;
}

void store_folder_unlock(struct store_lock *lock)
{
    if (lock == NULL) {
        return;
    }
    /* An empty file says that the holder left in good order; the file stays, for removing it would
     * be a race. */
    int failed = ftruncate(lock->fd, 0);
    (void)failed;
    close(lock->fd);
    free(lock);
}

/* ---- paths ---- */

static enum status path_of(const char *folder, const char *subfolder, const char *name,
                           char out[FILE_PATH_BYTES], struct error *err)
{
    char relative[sizeof(FOLDER_INFLIGHT) + HASH_NAME_BYTES + sizeof("/.h5")];
    int used = snprintf(relative, sizeof(relative), "%s/%s.h5", subfolder, name);
    if (used < 0 || (size_t)used >= sizeof(relative)) {
        return FAIL(err, STATUS_LIMIT, "file name longer than %d bytes: %.80s", HASH_NAME_BYTES,
                    name);
    }
    return file_join(folder, relative, out, err);
}

enum status store_weights_path(const char *folder, int32_t node, int32_t candidate,
                               char out[FILE_PATH_BYTES], struct error *err)
{
    char name[SEARCH_NAME_BYTES];
    search_candidate_name(node, candidate, name);
    return path_of(folder, FOLDER_WEIGHTS, name, out, err);
}

enum status store_inflight_path(const char *folder, int32_t node, int32_t candidate,
                                char out[FILE_PATH_BYTES], struct error *err)
{
    char name[SEARCH_NAME_BYTES];
    search_candidate_name(node, candidate, name);
    return path_of(folder, FOLDER_INFLIGHT, name, out, err);
}

enum status store_data_path(const char *folder, const char *hash, char out[FILE_PATH_BYTES],
                            struct error *err)
{
    if (strspn(hash, "0123456789abcdef") != strlen(hash) || hash[0] == '\0') {
        return FAIL(err, STATUS_INVALID, "\"%.80s\" is not a hash", hash);
    }
    return path_of(folder, FOLDER_DATA, hash, out, err);
}
