#include "store/lock_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/json.h"

/* The file may vanish between being found and being opened: its owner's follower removes it. */
enum { LOOK_TRIES = 16, STAT_TEXT_BYTES = 1024, DECIMAL = 10, STAT_STARTED = 19 };

/* ---- who this process is ---- */

/* Cuts and makes plain: names come from the environment and go into JSON and messages. */
static void copy_word(const char *text, char out[LOCK_WORD_BYTES])
{
    size_t length = 0;
    for (; text != NULL && text[length] != '\0' && length < LOCK_WORD_BYTES - 1; length++) {
        char letter = text[length];
        bool plain = letter > ' ' && letter <= '~' && letter != '"' && letter != '\\';
        out[length] = letter;
        if (!plain) {
            out[length] = '?';
        }
    }
    out[length] = '\0';
}

/* Gives the text of a small file of /proc, which have no size; "" if there is none. */
static void read_small(const char *path, char *out, size_t out_bytes)
{
    size_t length = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t got = read(fd, out, out_bytes - 1);
        length = got > 0 ? (size_t)got : 0;
        close(fd);
    }
    out[length] = '\0';
}

/* When a process of this PID namespace began, and whether it is but a zombie; -1 if the system does
 * not say. */
static int64_t read_started(int64_t pid, bool *zombie)
{
    char path[64];
    char text[STAT_TEXT_BYTES];
    snprintf(path, sizeof(path), "/proc/%" PRId64 "/stat", pid);
    read_small(path, text, sizeof(text));
    /* "12 (name, which may hold anything) S 1 ..." */
    const char *at = strrchr(text, ')');
    if (at == NULL || at[1] != ' ') {
        return -1;
    }
    at += 2;
    *zombie = *at == 'Z' || *at == 'X';
    for (int i = 0; i < STAT_STARTED && at != NULL; i++) {
        at = strchr(at + 1, ' ');
    }
    return at != NULL ? strtoll(at + 1, NULL, DECIMAL) : -1;
}

/* Reads the PID namespace, unless /proc is that of another one. */
static void read_namespace(char out[LOCK_WORD_BYTES])
{
    char link[LOCK_WORD_BYTES] = "";
    out[0] = '\0';
    if (readlink("/proc/self", link, sizeof(link) - 1) <= 0 ||
        strtoll(link, NULL, DECIMAL) != (long long)getpid()) {
        return;
    }
    ssize_t got = readlink("/proc/self/ns/pid", link, sizeof(link) - 1);
    if (got > 0) {
        link[got] = '\0';
        copy_word(link, out);
    }
}

void lock_owner_self(struct lock_owner *out)
{
    char text[LOCK_WORD_BYTES] = "";
    bool zombie = false;
    memset(out, 0, sizeof(*out));
    gethostname(text, sizeof(text) - 1);
    copy_word(text, out->host);
    if (out->host[0] == '\0') {
        copy_word("unnamed", out->host);
    }
    read_small("/proc/sys/kernel/random/boot_id", text, sizeof(text));
    text[strcspn(text, "\n")] = '\0';
    copy_word(text, out->boot);
    read_namespace(out->pid_namespace);
    copy_word(getenv("SLURM_CLUSTER_NAME"), out->cluster);
    copy_word(getenv("SLURM_JOB_ID"), out->job);
    copy_word(getenv("SLURM_RESTART_COUNT"), out->restart);
    clock_format_utc(clock_wall_s(), out->since, sizeof(out->since));
    out->pid = (int64_t)getpid();
    out->started = read_started(out->pid, &zombie);
}

void lock_owner_describe(const struct lock_owner *owner, char out[LOCK_OWNER_TEXT_BYTES])
{
    if (owner->pid == 0) {
        snprintf(out, LOCK_OWNER_TEXT_BYTES, "a process that its lock does not name");
        return;
    }
    snprintf(out, LOCK_OWNER_TEXT_BYTES, "process %" PRId64 " on %s%s%s since %s", owner->pid,
             owner->host, owner->job[0] != '\0' ? ", Slurm job " : "", owner->job, owner->since);
}

/* ---- one file ---- */

enum status lock_file_path(const char *folder, int64_t fence, char out[FILE_PATH_BYTES],
                           struct error *err)
{
    char name[32];
    snprintf(name, sizeof(name), "%" PRId64, fence);
    return file_join(folder, name, out, err);
}

static void print_tail(int64_t beat, bool left, char out[LOCK_TAIL_BYTES + 1])
{
    char text[2 * LOCK_TAIL_BYTES];
    snprintf(text, sizeof(text), "\"beat\":%14" PRId64 ",\"left\":%5s}\n", beat,
             left ? "true" : "false");
    memcpy(out, text, LOCK_TAIL_BYTES);
    out[LOCK_TAIL_BYTES] = '\0';
}

/* Writes all of it, or fails with errno. */
static bool put(int fd, const char *text, size_t bytes, off_t at)
{
    errno = ENOSPC; /* of a write that is cut */
    return pwrite(fd, text, bytes, at) == (ssize_t)bytes;
}

enum status lock_file_fill(int fd, const char *path, const struct lock_owner *owner,
                           struct error *err)
{
    char text[LOCK_FILE_BYTES + 1];
    int used = snprintf(
        text, sizeof(text),
        "{\"host\":\"%s\",\"boot\":\"%s\",\"pid_namespace\":\"%s\",\"pid\":%" PRId64
        ",\"started\":%" PRId64 ",\"cluster\":\"%s\",\"job\":\"%s\",\"restart\":\"%s\","
        "\"since\":\"%s\",\"flock\":%s,",
        owner->host, owner->boot, owner->pid_namespace, owner->pid, owner->started, owner->cluster,
        owner->job, owner->restart, owner->since, owner->flock ? "true" : "false");
    if (used < 0 || used >= LOCK_HEAD_BYTES) {
        return FAIL(err, STATUS_INTERNAL, "%s: its owner needs %d bytes", path, used);
    }
    memset(text + used, ' ', (size_t)(LOCK_HEAD_BYTES - used));
    text[LOCK_HEAD_BYTES - 1] = '\n';
    print_tail(0, false, text + LOCK_HEAD_BYTES);
    return put(fd, text, LOCK_FILE_BYTES, 0) && fsync(fd) == 0
               ? STATUS_OK
               : FAIL_ERRNO(err, "cannot write %s", path);
}

enum status lock_file_beat(const char *path, int64_t beat, bool left, struct error *err)
{
    char text[LOCK_TAIL_BYTES + 1];
    print_tail(beat, left, text);
    TRY(fault_point(left ? "store.lock.leave" : "store.lock.beat", err));
    int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) {
        return FAIL_ERRNO(err, "cannot open %s", path);
    }
    bool written = put(fd, text, LOCK_TAIL_BYTES, LOCK_HEAD_BYTES);
    enum status status = written ? STATUS_OK : FAIL_ERRNO(err, "cannot write %s", path);
    if (close(fd) != 0 && written) {
        status = FAIL_ERRNO(err, "cannot write %s", path);
    }
    return status;
}

/* flock, or ENOLCK where a test wants a file system without it. */
static bool try_flock(int fd, int how)
{
    if (fault_from("flock", "absent")) {
        errno = ENOLCK;
        return false;
    }
    return flock(fd, how | LOCK_NB) == 0;
}

bool lock_file_flock(int fd)
{
    return try_flock(fd, LOCK_EX);
}

/* ---- whether an owner lives ---- */

static bool same_word(const char *a, const char *b)
{
    return a[0] != '\0' && strcmp(a, b) == 0;
}

/* Of this PID namespace. */
static enum store_alive check_process(const struct lock_owner *owner)
{
    bool zombie = false;
    int64_t started = read_started(owner->pid, &zombie);
    if (started < 0) {
        bool gone = kill((pid_t)owner->pid, 0) != 0 && errno == ESRCH;
        return gone ? STORE_ALIVE_NO : STORE_ALIVE_UNKNOWN;
    }
    return started == owner->started && !zombie ? STORE_ALIVE_YES : STORE_ALIVE_NO;
}

/* Only what is sure counts. On one kernel the table of processes tells, and from another PID
 * namespace flock, which a kernel takes from the dead whatever the file system is. Between kernels
 * neither does: flock may be each node's own. */
static enum store_alive check_alive(const struct lock_owner *owner, const struct lock_owner *self,
                                    int fd)
{
    if (owner->pid == 0) {
        return STORE_ALIVE_UNKNOWN;
    }
    bool same_kernel = same_word(owner->boot, self->boot);
    if (same_kernel && same_word(owner->pid_namespace, self->pid_namespace)) {
        return check_process(owner);
    }
    /* Shared, so that two who try disturb but an owner that took it before anybody knew its file.
     */
    bool is_free = owner->flock && try_flock(fd, LOCK_SH);
    bool held = owner->flock && !is_free && errno == EWOULDBLOCK;
    if (same_kernel && is_free) {
        return STORE_ALIVE_NO;
    }
    /* The batch script starts ranks again only when the former have ended. */
    bool same_allocation = same_word(owner->job, self->job) &&
                           strcmp(owner->restart, self->restart) == 0 &&
                           strcmp(owner->cluster, self->cluster) == 0;
    return same_allocation && !held ? STORE_ALIVE_NO : STORE_ALIVE_UNKNOWN;
}

/* ---- looking ---- */

static void read_word(const cJSON *object, const char *key, char out[LOCK_WORD_BYTES])
{
    copy_word(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key)), out);
}

static int64_t read_count(const cJSON *object, const char *key, int64_t most, int64_t otherwise)
{
    double value = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(object, key));
    return value >= 1.0 && value <= (double)most ? (int64_t)value : otherwise;
}

/* What is not as it must be leaves an owner without a name. */
static void parse(struct lock_look *look, const char *path)
{
    struct lock_owner *owner = &look->owner;
    cJSON *object = NULL;
    char since[LOCK_WORD_BYTES];
    if (look->byte_count > LOCK_FILE_BYTES ||
        json_parse(look->bytes, look->byte_count, path, &object, NULL) != STATUS_OK) {
        return;
    }
    read_word(object, "host", owner->host);
    read_word(object, "boot", owner->boot);
    read_word(object, "pid_namespace", owner->pid_namespace);
    read_word(object, "cluster", owner->cluster);
    read_word(object, "job", owner->job);
    read_word(object, "restart", owner->restart);
    read_word(object, "since", since);
    snprintf(owner->since, sizeof(owner->since), "%.31s", since);
    owner->pid = read_count(object, "pid", INT32_MAX, 0);
    owner->started = read_count(object, "started", INT64_C(1) << 53, -1);
    owner->flock = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(object, "flock"));
    look->left = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(object, "left"));
    cJSON_Delete(object);
    if (owner->host[0] == '\0') {
        owner->pid = 0;
    }
}

static enum status read_look(const char *path, int fd, const struct lock_owner *self,
                             struct lock_look *out, struct error *err)
{
    struct stat info;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        return FAIL(err, STATUS_FORMAT, "%s is not a regular file; remove it", path);
    }
    ssize_t got = pread(fd, out->bytes, sizeof(out->bytes) - 1, 0);
    if (got < 0) {
        return FAIL_ERRNO(err, "cannot read %s", path);
    }
    out->byte_count = (size_t)got;
    out->bytes[got] = '\0';
    out->beat_age_s =
        clock_wall_s() - ((double)info.st_mtim.tv_sec + 1e-9 * (double)info.st_mtim.tv_nsec);
    parse(out, path);
    out->alive = check_alive(&out->owner, self, fd);
    return STATUS_OK;
}

/* A fence: a number without a sign or leading zeros that fits. 0: the name is no fence. */
static int64_t parse_fence(const char *name)
{
    if (name[0] < '1' || name[0] > '9' || name[strspn(name, "0123456789")] != '\0') {
        return 0;
    }
    errno = 0;
    long long fence = strtoll(name, NULL, DECIMAL);
    return errno == 0 ? (int64_t)fence : 0;
}

enum status lock_find_newest(const char *folder, int64_t *fence, struct error *err)
{
    *fence = 0;
    DIR *entries = opendir(folder);
    if (entries == NULL) {
        return FAIL_ERRNO(err, "cannot read %s", folder);
    }
    errno = 0;
    for (struct dirent *entry = readdir(entries); entry != NULL; entry = readdir(entries)) {
        int64_t found = parse_fence(entry->d_name);
        *fence = found > *fence ? found : *fence;
        errno = 0;
    }
    enum status status = errno == 0 ? STATUS_OK : FAIL_ERRNO(err, "cannot read %s", folder);
    closedir(entries);
    return status;
}

enum status lock_look(const char *folder, const struct lock_owner *self, struct lock_look *out,
                      struct error *err)
{
    char path[FILE_PATH_BYTES];
    int fd = -1;
    for (int i = 0; i < LOOK_TRIES && fd < 0; i++) {
        memset(out, 0, sizeof(*out));
        TRY(lock_find_newest(folder, &out->fence, err));
        if (out->fence == 0) {
            return STATUS_OK;
        }
        TRY(lock_file_path(folder, out->fence, path, err));
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fd < 0 && errno == ELOOP) {
            return FAIL(err, STATUS_FORMAT, "%s is not a regular file; remove it", path);
        }
        if (fd < 0 && errno != ENOENT && errno != ESTALE) {
            return FAIL_ERRNO(err, "cannot open %s", path);
        }
    }
    if (fd < 0) {
        return FAIL(err, STATUS_BUSY, "%s: owners come and go; try again", folder);
    }
    enum status status = read_look(path, fd, self, out, err);
    close(fd);
    return status;
}
