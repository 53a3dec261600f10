#include "base/process.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/mem.h"
#include "base/text.h"

enum {
    STANDARD_FDS = 3,
    READ_BYTES = 64 * 1024,
    TAIL_BYTES = 512,
    POLL_MS = 20, /* between two looks whether it is still alive */
};

struct child {
    const char *name;
    const struct process_io *io;
    pid_t pid; /* also of its group; 0: none */
    int in;    /* our ends of the pipes; -1: closed */
    int out;
    int error;
    const char *pending; /* input that is not yet written */
    size_t pending_bytes;
    struct buffer line;
    char tail[TAIL_BYTES]; /* end of its standard error */
    size_t tail_bytes;
};

static void close_fd(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

/* ---- start ---- */

/* Whether a value is a URL with a user name in it, as those of proxies that want a password. */
static bool holds_user(const char *variable)
{
    const char *host = strstr(variable, "://");
    return host != NULL && host[3 + strcspn(host + 3, "@/?#")] == '@';
}

static bool is_secret(const char *variable)
{
    static const char *const marks[] = {"KEY", "TOKEN", "SECRET", "PASSWORD"};
    char name[256];
    size_t length = 0;
    while (variable[length] != '\0' && variable[length] != '=' && length + 1 < sizeof(name)) {
        name[length] = (char)toupper((unsigned char)variable[length]);
        length++;
    }
    name[length] = '\0';
    for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]); i++) {
        if (strstr(name, marks[i]) != NULL) {
            return true;
        }
    }
    return holds_user(variable);
}

/* The variables it may see; the array is the caller's, the strings are the environment's. NULL
 * without memory. */
static char **copy_environment(void)
{
    size_t count = 0;
    while (environ[count] != NULL) {
        count++;
    }
    char **copy = mem_calloc(count + 1, sizeof(*copy));
    size_t kept = 0;
    for (size_t i = 0; i < count && copy != NULL; i++) {
        if (!is_secret(environ[i])) {
            copy[kept++] = environ[i];
        }
    }
    return copy;
}

/* A pipe whose ends are none of the standard three, even if those are closed here, and close on
 * exec. */
static enum status open_pipe(int ends[2], struct error *err)
{
    int raw[2];
    if (pipe2(raw, O_CLOEXEC) != 0) {
        return FAIL_ERRNO(err, "cannot make a pipe");
    }
    ends[0] = fcntl(raw[0], F_DUPFD_CLOEXEC, STANDARD_FDS);
    ends[1] = fcntl(raw[1], F_DUPFD_CLOEXEC, STANDARD_FDS);
    int saved = errno;
    close(raw[0]);
    close(raw[1]);
    if (ends[0] < 0 || ends[1] < 0) {
        close_fd(&ends[0]);
        close_fd(&ends[1]);
        errno = saved;
        return FAIL_ERRNO(err, "cannot make a pipe");
    }
    return STATUS_OK;
}

/* Starts it with the given ends as its standard files. Returns an errno, 0 if it runs. */
static int spawn(char *const *argv, char *const *environment, const int standard[STANDARD_FDS],
                 pid_t *pid)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;
    sigset_t all;
    sigemptyset(&none);
    sigfillset(&all);
    int failure = posix_spawn_file_actions_init(&actions);
    if (failure != 0) {
        return failure;
    }
    failure = posix_spawnattr_init(&attributes);
    if (failure != 0) {
        posix_spawn_file_actions_destroy(&actions);
        return failure;
    }
    short flags = POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
    for (int i = 0; i < STANDARD_FDS && failure == 0; i++) {
        failure = posix_spawn_file_actions_adddup2(&actions, standard[i], i);
    }
    failure =
        failure != 0 ? failure : posix_spawn_file_actions_addclosefrom_np(&actions, STANDARD_FDS);
    failure = failure != 0 ? failure : posix_spawnattr_setflags(&attributes, flags);
    failure = failure != 0 ? failure : posix_spawnattr_setpgroup(&attributes, 0);
    failure = failure != 0 ? failure : posix_spawnattr_setsigmask(&attributes, &none);
    failure = failure != 0 ? failure : posix_spawnattr_setsigdefault(&attributes, &all);
    if (failure == 0) {
        failure = posix_spawnp(pid, argv[0], &actions, &attributes, argv, environment);
    }
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return failure;
}

static enum status start(struct child *child, char *const *argv, struct error *err)
{
    enum status status = STATUS_OK;
    int in[2] = {-1, -1};
    int out[2] = {-1, -1};
    int error[2] = {-1, -1};
    char **environment = copy_environment();
    if (environment == NULL) {
        return mem_fail(err, sizeof(*environment), "environment of a command");
    }
    TRY_CLEANUP(open_pipe(in, err));
    TRY_CLEANUP(open_pipe(out, err));
    TRY_CLEANUP(open_pipe(error, err));
    int standard[STANDARD_FDS] = {in[0], out[1], error[1]};
    pid_t pid = 0;
    errno = spawn(argv, environment, standard, &pid);
    if (errno != 0) {
        status = FAIL_ERRNO(err, "cannot run the command \"%s\"", argv[0]);
        goto cleanup;
    }
    child->pid = pid;
    child->in = in[1];
    child->out = out[0];
    child->error = error[0];
    in[1] = out[0] = error[0] = -1;
    fcntl(child->in, F_SETFL, O_NONBLOCK);
    fcntl(child->out, F_SETFL, O_NONBLOCK);
    fcntl(child->error, F_SETFL, O_NONBLOCK);
cleanup:
    for (int i = 0; i < 2; i++) {
        close_fd(&in[i]);
        close_fd(&out[i]);
        close_fd(&error[i]);
    }
    free(environment);
    return status;
}

/* ---- pipes ---- */

/* write() to a pipe without the SIGPIPE that a closed one sends, whatever this program does with
 * that signal. */
static ssize_t write_pipe(int fd, const char *data, size_t len_bytes)
{
    sigset_t pipe_signal;
    sigset_t before;
    sigset_t pending;
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    sigemptyset(&pending);
    sigpending(&pending);
    bool was_pending = sigismember(&pending, SIGPIPE) == 1;
    pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
    ssize_t written = write(fd, data, len_bytes);
    int saved = errno;
    if (written < 0 && saved == EPIPE && !was_pending) {
        const struct timespec now = {0, 0};
        while (sigtimedwait(&pipe_signal, NULL, &now) < 0 && errno == EINTR) {
        }
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = saved;
    return written;
}

/* Writes what the pipe takes. */
static enum status feed(struct child *child, struct error *err)
{
    for (;;) {
        if (child->pending_bytes == 0) {
            TRY(child->io->input(child->io->context, &child->pending, &child->pending_bytes, err));
            if (child->pending_bytes == 0) {
                close_fd(&child->in);
                return STATUS_OK;
            }
        }
        ssize_t written = write_pipe(child->in, child->pending, child->pending_bytes);
        if (written >= 0) {
            child->pending += written;
            child->pending_bytes -= (size_t)written;
        } else if (errno == EAGAIN) {
            return STATUS_OK;
        } else if (errno == EPIPE) {
            close_fd(&child->in);
            return STATUS_OK;
        } else if (errno != EINTR) {
            return FAIL_ERRNO(err, "cannot write to the command \"%s\"", child->name);
        }
    }
}

static enum status hand_over_line(struct child *child, struct error *err)
{
    enum status status =
        child->io->line(child->io->context, buffer_text(&child->line), child->line.len_bytes, err);
    buffer_clear(&child->line);
    return status;
}

/* Cuts output into lines. */
static enum status take_output(struct child *child, const char *data, size_t len_bytes,
                               struct error *err)
{
    while (len_bytes > 0) {
        const char *end = memchr(data, '\n', len_bytes);
        size_t part = end != NULL ? (size_t)(end - data) : len_bytes;
        buffer_append(&child->line, data, part);
        TRY(buffer_check(&child->line, "a line of the command's output", err));
        if (end == NULL) {
            return STATUS_OK;
        }
        TRY(hand_over_line(child, err));
        data = end + 1;
        len_bytes -= part + 1;
    }
    return STATUS_OK;
}

static void keep_tail(struct child *child, const char *data, size_t len_bytes)
{
    size_t kept = len_bytes < TAIL_BYTES ? len_bytes : TAIL_BYTES;
    size_t old = child->tail_bytes < TAIL_BYTES - kept ? child->tail_bytes : TAIL_BYTES - kept;
    memmove(child->tail, child->tail + child->tail_bytes - old, old);
    memcpy(child->tail + old, data + len_bytes - kept, kept);
    child->tail_bytes = old + kept;
}

/* One read of a pipe that is ready: into lines, or into the tail of standard error. */
static enum status drain(struct child *child, int *fd, struct error *err)
{
    char data[READ_BYTES];
    ssize_t got = read(*fd, data, sizeof(data));
    if (got > 0 && fd == &child->error) {
        keep_tail(child, data, (size_t)got);
    } else if (got > 0) {
        return take_output(child, data, (size_t)got, err);
    } else if (got == 0) {
        close_fd(fd);
    } else if (errno != EAGAIN && errno != EINTR) {
        return FAIL_ERRNO(err, "cannot read from the command \"%s\"", child->name);
    }
    return STATUS_OK;
}

/* Waits up to timeout_ms for pipes that are ready and moves what they hold; *moved: some output or
 * end was read. */
static enum status pump(struct child *child, int timeout_ms, bool *moved, struct error *err)
{
    struct pollfd fds[STANDARD_FDS] = {
        {child->in, POLLOUT, 0}, {child->out, POLLIN, 0}, {child->error, POLLIN, 0}};
    *moved = false;
    int ready =
        poll(fds, STANDARD_FDS, timeout_ms); /* a closed one is -1, which poll passes over */
    if (ready < 0 && errno != EINTR) {
        return FAIL_ERRNO(err, "cannot wait for the command \"%s\"", child->name);
    }
    if (ready <= 0) {
        return STATUS_OK;
    }
    if (fds[0].revents != 0) {
        TRY(feed(child, err));
    }
    if (fds[1].revents != 0) {
        *moved = true;
        TRY(drain(child, &child->out, err));
    }
    if (fds[2].revents != 0) {
        *moved = true;
        TRY(drain(child, &child->error, err));
    }
    return STATUS_OK;
}

/* ---- life and end ---- */

/* True once it is a zombie. It stays one, so that its number (and its group's) cannot be given to
 * others. */
static bool has_ended(pid_t pid)
{
    siginfo_t info = {0};
    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid;
}

static enum status converse(struct child *child, double timeout_s, struct error *err)
{
    struct deadline deadline = deadline_after(timeout_s);
    for (;;) {
        /* Asked before the pipes are emptied: what it wrote before its end is then in them. */
        bool ended = has_ended(child->pid);
        bool moved = false;
        TRY(pump(child, ended ? 0 : POLL_MS, &moved, err));
        if (ended && !moved) {
            break;
        }
        if (deadline_passed(deadline)) {
            return FAIL(err, STATUS_TIMEOUT,
                        "the command \"%s\" had not ended after %g s and was killed", child->name,
                        timeout_s);
        }
    }
    return child->line.len_bytes > 0 ? hand_over_line(child, err) : STATUS_OK;
}

/* Kills what is left of the group and collects the exit status. */
static int bury(struct child *child)
{
    int wait_status = 0;
    kill(-child->pid, SIGKILL);
    while (waitpid(child->pid, &wait_status, 0) < 0 && errno == EINTR) {
    }
    child->pid = 0;
    return wait_status;
}

/* The end of its standard error as one line of UTF-8; "" if it said nothing. */
static void tidy_tail(const struct child *child, char out[3 * TAIL_BYTES + 1])
{
    char line[TAIL_BYTES];
    size_t length = 0;
    for (size_t i = 0; i < child->tail_bytes; i++) {
        char c = child->tail[i];
        bool space = isspace((unsigned char)c) != 0 || c == '\0';
        if (!space) {
            line[length++] = c;
        } else if (length > 0 && line[length - 1] != ' ') {
            line[length++] = ' ';
        }
    }
    while (length > 0 && line[length - 1] == ' ') {
        length--;
    }
    text_repair(line, length, out);
}

static enum status judge(const struct child *child, int wait_status, struct error *err)
{
    if (WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0) {
        return STATUS_OK;
    }
    char said[3 * TAIL_BYTES + 1];
    tidy_tail(child, said);
    const char *what = said[0] != '\0' ? "; it last said: " : "; it said nothing on standard error";
    enum status status = STATUS_EXTERNAL;
    if (WIFSIGNALED(wait_status)) {
        status =
            FAIL(err, status, "the command \"%s\" was ended by signal %d (%s)%s%s", child->name,
                 WTERMSIG(wait_status), strsignal(WTERMSIG(wait_status)), what, said);
    } else {
        status = FAIL(err, status, "the command \"%s\" ended with exit status %d%s%s", child->name,
                      WEXITSTATUS(wait_status), what, said);
    }
    return status;
}

enum status process_run(char *const *argv, double timeout_s, const struct process_io *io,
                        struct error *err)
{
    struct child child = {.name = argv[0], .io = io, .in = -1, .out = -1, .error = -1};
    buffer_init(&child.line, PROCESS_LINE_MAX_BYTES);
    enum status status = start(&child, argv, err);
    if (status == STATUS_OK) {
        status = converse(&child, timeout_s, err);
        int wait_status = bury(&child);
        if (status == STATUS_OK) {
            status = judge(&child, wait_status, err);
        }
    }
    close_fd(&child.in);
    close_fd(&child.out);
    close_fd(&child.error);
    buffer_fini(&child.line);
    return status;
}
