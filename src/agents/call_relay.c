/* Asking through files: the job's side. A thread of its own does all that touches the disk, for a
 * shared file system may hang where the controller must not.
 *
 *   RELAY_WRITE -> RELAY_WAIT -> RELAY_ANSWERED -> RELAY_REMOVE
 *
 * What was left in the folders by an earlier allocation is RELAY_LEFT until its call is asked again
 * (the request, or even the reply, is there) or known to be over. The request is removed before the
 * reply: a relay never sees a request whose reply is gone. */
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "agents/call_parts.h"
#include "agents/call_relay_file.h"
#include "base/clock.h"
#include "base/mem.h"

static const double look_min_s = 0.05, look_max_s = 1.0;
/* File systems' times are coarse, and those of NFS are late: a folder that has changed is looked at
 * for so long, and any folder every so often. */
static const double changed_s = 2.0, anyway_s = 5.0;

enum relay_phase { RELAY_LEFT, RELAY_WRITE, RELAY_WAIT, RELAY_ANSWERED, RELAY_REMOVE };

struct relay_call {
    int32_t id;
    char name[RELAY_NAME_BYTES];
    enum relay_phase phase;
    char *request; /* until it is written */
    double since_s;
    int64_t tokens; /* what it may cost, if a relay has begun */
    double usd;
};

struct relay {
    struct call_direct_options options;
    struct relay_folders folders;
    double timeout_s;
    pthread_t thread;
    bool running;

    pthread_mutex_t mutex; /* of all below */
    pthread_cond_t wake;
    bool stop;
    struct relay_call *calls;
    int count, capacity;
    struct call_queue answers;
    enum status status; /* the thread's own failure, for want of memory */
    struct error failure;

    /* the thread's own */
    struct timespec changed_at;
    double changed_seen_s, looked_s, pause_s;
};

/* ---- the list, under the mutex ---- */

static enum status add_call(struct relay *relay, const struct relay_call *call, struct error *err)
{
    if (relay->count == relay->capacity) {
        int capacity = relay->capacity > 0 ? 2 * relay->capacity : 16;
        struct relay_call *calls =
            mem_realloc(relay->calls, (size_t)capacity, sizeof(*relay->calls));
        if (calls == NULL) {
            return mem_fail(err, (size_t)capacity * sizeof(*calls), "requests to the relay");
        }
        relay->calls = calls;
        relay->capacity = capacity;
    }
    relay->calls[relay->count++] = *call;
    return STATUS_OK;
}

static struct relay_call *find_name(const struct relay *relay, const char *name)
{
    for (int i = 0; i < relay->count; i++) {
        if (strcmp(relay->calls[i].name, name) == 0) {
            return &relay->calls[i];
        }
    }
    return NULL;
}

/* All of this id but the one of that name (NULL: none) are not wanted any more. */
static void drop_id(struct relay *relay, int32_t id, const char *name)
{
    for (int i = 0; i < relay->count; i++) {
        struct relay_call *call = &relay->calls[i];
        if (call->id == id && (name == NULL || strcmp(call->name, name) != 0)) {
            call->phase = RELAY_REMOVE;
            free(call->request);
            call->request = NULL;
        }
    }
}

static void forget_call(struct relay *relay, const char *name)
{
    struct relay_call *call = find_name(relay, name);
    if (call == NULL || call->phase != RELAY_REMOVE) {
        return; /* it was asked again meanwhile */
    }
    int index = (int)(call - relay->calls);
    relay->count--;
    memmove(call, call + 1, (size_t)(relay->count - index) * sizeof(*call));
}

static void push_answer(struct relay *relay, struct relay_call *call, struct call_answer *answer)
{
    answer->id = call->id;
    answer->seconds = clock_monotonic_s() - call->since_s;
    call->phase = RELAY_ANSWERED;
    struct error failure;
    enum status status = call_queue_push(&relay->answers, answer, &failure);
    if (status != STATUS_OK && relay->status == STATUS_OK) {
        relay->status = status;
        relay->failure = failure;
    }
}

static void push_failure(struct relay *relay, struct relay_call *call, const struct error *failure,
                         bool charged)
{
    struct call_answer answer = call_answer_failed(call->id, failure);
    answer.tokens_in = charged ? call->tokens : 0;
    answer.cost_usd = charged ? call->usd : 0.0;
    push_answer(relay, call, &answer);
}

/* ---- the thread ---- */

static enum status write_request(const struct relay *relay, const char *name, const char *text,
                                 struct error *err)
{
    char request[FILE_PATH_BYTES];
    char reply[FILE_PATH_BYTES];
    TRY(relay_path(relay->folders.requests, name, ".json", request, err));
    TRY(relay_path(relay->folders.replies, name, ".json", reply, err));
    if (file_exists(request) || file_exists(reply)) {
        return STATUS_OK; /* asked by an earlier allocation */
    }
    return file_write(request, text, strlen(text), err);
}

static void remove_files(const struct relay *relay, const char *name)
{
    const struct {
        const char *folder, *ending;
    } files[] = {{relay->folders.requests, ".json"},
                 {relay->folders.replies, ".asked"},
                 {relay->folders.replies, ".json"}};
    for (int i = 0; i < 3; i++) {
        char path[FILE_PATH_BYTES];
        if (relay_path(files[i].folder, name, files[i].ending, path, NULL) == STATUS_OK) {
            (void)file_remove(path, NULL); /* what stays is removed by the next allocation */
        }
    }
}

/* Whether a relay has begun to ask. */
static bool was_asked(const struct relay *relay, const char *name)
{
    char path[FILE_PATH_BYTES];
    return relay_path(relay->folders.replies, name, ".asked", path, NULL) == STATUS_OK &&
           file_exists(path);
}

/* Writes or removes one file, with the mutex held before and after, but not meanwhile. */
static bool do_one(struct relay *relay)
{
    struct relay_call *call = NULL;
    for (int i = 0; i < relay->count && call == NULL; i++) {
        enum relay_phase phase = relay->calls[i].phase;
        bool work = phase == RELAY_REMOVE || (phase == RELAY_WRITE && !relay->stop);
        call = work ? &relay->calls[i] : NULL;
    }
    if (call == NULL) {
        return false;
    }
    char name[RELAY_NAME_BYTES];
    struct error failure;
    enum status status = STATUS_OK;
    memcpy(name, call->name, sizeof(name));
    char *request = call->request;
    bool write = call->phase == RELAY_WRITE;
    call->request = NULL;
    pthread_mutex_unlock(&relay->mutex);
    if (write) {
        status = write_request(relay, name, request, &failure);
    } else {
        remove_files(relay, name);
    }
    free(request);
    pthread_mutex_lock(&relay->mutex);
    call = find_name(relay, name);
    if (!write) {
        forget_call(relay, name);
    } else if (call != NULL && call->phase == RELAY_WRITE) {
        call->phase = RELAY_WAIT;
        if (status != STATUS_OK) {
            push_failure(relay, call, &failure, false);
        }
    }
    return true;
}

/* Whether the folder of replies is worth a look. */
static bool is_due(struct relay *relay)
{
    struct stat info;
    double now_s = clock_monotonic_s();
    if (stat(relay->folders.replies, &info) == 0 &&
        memcmp(&info.st_mtim, &relay->changed_at, sizeof(info.st_mtim)) != 0) {
        relay->changed_at = info.st_mtim;
        relay->changed_seen_s = now_s;
    }
    bool due = now_s - relay->changed_seen_s <= changed_s || now_s - relay->looked_s >= anyway_s;
    relay->looked_s = due ? now_s : relay->looked_s;
    return due;
}

static void take_reply(struct relay *relay, const char *name)
{
    struct call_answer answer = {0};
    struct error failure;
    enum status status = relay_reply_read(relay->folders.replies, name, &answer, &failure);
    if (status == STATUS_NOT_FOUND || status == STATUS_NO_MEMORY) {
        return; /* another time */
    }
    pthread_mutex_lock(&relay->mutex);
    struct relay_call *call = find_name(relay, name);
    if (call == NULL || call->phase != RELAY_WAIT) {
        call_answer_fini(&answer);
    } else if (status == STATUS_OK) {
        push_answer(relay, call, &answer);
        relay->pause_s = look_min_s;
    } else {
        push_failure(relay, call, &failure, true);
    }
    pthread_mutex_unlock(&relay->mutex);
}

/* Without the mutex. */
static void look(struct relay *relay)
{
    char(*names)[RELAY_NAME_BYTES] = NULL;
    int count = 0;
    if (!is_due(relay) ||
        relay_list(relay->folders.replies, ".json", &names, &count, NULL) != STATUS_OK) {
        return;
    }
    for (int i = 0; i < count; i++) {
        pthread_mutex_lock(&relay->mutex);
        const struct relay_call *call = find_name(relay, names[i]);
        bool waits = call != NULL && call->phase == RELAY_WAIT;
        pthread_mutex_unlock(&relay->mutex);
        if (waits) {
            take_reply(relay, names[i]);
        }
    }
    free(names);
}

static struct relay_call *find_late(const struct relay *relay)
{
    double now_s = clock_monotonic_s();
    for (int i = 0; i < relay->count; i++) {
        struct relay_call *call = &relay->calls[i];
        if (call->phase == RELAY_WAIT && now_s - call->since_s > relay->timeout_s) {
            return call;
        }
    }
    return NULL;
}

/* With the mutex held before and after, but not meanwhile. */
static void give_up_late(struct relay *relay)
{
    for (struct relay_call *late = find_late(relay); late != NULL; late = find_late(relay)) {
        char name[RELAY_NAME_BYTES];
        struct error failure;
        memcpy(name, late->name, sizeof(name));
        pthread_mutex_unlock(&relay->mutex);
        bool charged = was_asked(relay, name);
        pthread_mutex_lock(&relay->mutex);
        struct relay_call *call = find_name(relay, name);
        if (call == NULL || call->phase != RELAY_WAIT) {
            continue;
        }
        FAIL(&failure, STATUS_TIMEOUT,
             charged ? "the relay had no answer within %.0f s"
                     : "no relay took the request within %.0f s: is trex relay running on a node "
                       "with a network?",
             relay->timeout_s);
        push_failure(relay, call, &failure, charged);
        call->phase = RELAY_REMOVE;
    }
}

static bool has_phase(const struct relay *relay, enum relay_phase a, enum relay_phase b)
{
    for (int i = 0; i < relay->count; i++) {
        if (relay->calls[i].phase == a || relay->calls[i].phase == b) {
            return true;
        }
    }
    return false;
}

static void wait_for_work(struct relay *relay, double seconds)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    long nanoseconds = until.tv_nsec + (long)(fmod(seconds, 1.0) * 1e9);
    until.tv_sec += (time_t)seconds + nanoseconds / 1000000000L;
    until.tv_nsec = nanoseconds % 1000000000L;
    pthread_cond_timedwait(&relay->wake, &relay->mutex, &until);
}

static void *run(void *argument)
{
    struct relay *relay = argument;
    pthread_mutex_lock(&relay->mutex);
    while (do_one(relay) || !relay->stop) {
        give_up_late(relay);
        if (!relay->stop && has_phase(relay, RELAY_WAIT, RELAY_WAIT)) {
            pthread_mutex_unlock(&relay->mutex);
            look(relay);
            pthread_mutex_lock(&relay->mutex);
        }
        if (!relay->stop && !has_phase(relay, RELAY_WRITE, RELAY_REMOVE)) {
            wait_for_work(relay, relay->pause_s);
            relay->pause_s = fmin(2.0 * relay->pause_s, look_max_s);
        }
    }
    pthread_mutex_unlock(&relay->mutex);
    return NULL;
}

/* ---- the transport ---- */

static void relay_close(void *state)
{
    struct relay *relay = state;
    if (relay->running) {
        pthread_mutex_lock(&relay->mutex);
        relay->stop = true;
        pthread_cond_signal(&relay->wake);
        pthread_mutex_unlock(&relay->mutex);
        pthread_join(relay->thread, NULL);
    }
    pthread_cond_destroy(&relay->wake);
    pthread_mutex_destroy(&relay->mutex);
    for (int i = 0; i < relay->count; i++) {
        free(relay->calls[i].request);
    }
    free(relay->calls);
    call_queue_fini(&relay->answers);
    free(relay);
}

static enum status relay_start(void *state, const struct call *call, struct error *err)
{
    struct relay *relay = state;
    struct relay_call added = {
        .id = call->id, .phase = RELAY_WRITE, .since_s = clock_monotonic_s()};
    enum status status = STATUS_OK;
    TRY(relay_name(call, added.name, err));
    call_direct_bound(&relay->options, call, &added.tokens, &added.usd);
    added.request = relay_request_text(call, added.name);
    if (added.request == NULL) {
        return mem_fail(err, SEARCH_CALL_TEXT_MAX_BYTES, "a request to the relay");
    }
    pthread_mutex_lock(&relay->mutex);
    drop_id(relay, call->id, added.name);
    struct relay_call *left = find_name(relay, added.name);
    if (left != NULL) {
        free(left->request);
        *left = added;
    } else {
        status = add_call(relay, &added, err);
    }
    relay->pause_s = look_min_s;
    pthread_cond_signal(&relay->wake);
    pthread_mutex_unlock(&relay->mutex);
    if (status != STATUS_OK) {
        free(added.request);
    }
    return status;
}

static enum status relay_turn(void *state, int64_t outcomes, bool idle, struct error *err)
{
    struct relay *relay = state;
    (void)outcomes;
    (void)idle;
    pthread_mutex_lock(&relay->mutex);
    enum status status = relay->status;
    if (status != STATUS_OK && err != NULL) {
        *err = relay->failure;
    }
    pthread_mutex_unlock(&relay->mutex);
    return status;
}

static bool relay_take(void *state, struct call_answer *out)
{
    struct relay *relay = state;
    pthread_mutex_lock(&relay->mutex);
    bool taken = call_queue_take(&relay->answers, out);
    pthread_mutex_unlock(&relay->mutex);
    return taken;
}

static void relay_done(void *state, int32_t id)
{
    struct relay *relay = state;
    pthread_mutex_lock(&relay->mutex);
    drop_id(relay, id, NULL);
    pthread_cond_signal(&relay->wake);
    pthread_mutex_unlock(&relay->mutex);
}

static void relay_cancel(void *state, int32_t id)
{
    struct relay *relay = state;
    pthread_mutex_lock(&relay->mutex);
    call_queue_drop(&relay->answers, id);
    pthread_mutex_unlock(&relay->mutex);
    relay_done(state, id);
}

static enum status relay_bound(const void *state, const struct call *call, int64_t *tokens,
                               double *usd, struct error *err)
{
    const struct relay *relay = state;
    (void)err;
    call_direct_bound(&relay->options, call, tokens, usd);
    return STATUS_OK;
}

/* What an earlier allocation left. */
static enum status find_left(struct relay *relay, const char *folder, struct error *err)
{
    char(*names)[RELAY_NAME_BYTES] = NULL;
    int count = 0;
    TRY(relay_list(folder, ".json", &names, &count, err));
    enum status status = STATUS_OK;
    for (int i = 0; i < count && status == STATUS_OK; i++) {
        struct relay_call left = {.id = relay_name_id(names[i]), .phase = RELAY_LEFT};
        memcpy(left.name, names[i], sizeof(left.name));
        if (find_name(relay, left.name) == NULL) {
            status = add_call(relay, &left, err);
        }
    }
    free(names);
    return status;
}

static enum status start_thread(struct relay *relay, struct error *err)
{
    sigset_t all;
    sigset_t before;
    sigfillset(&all); /* signals are the main thread's business */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&relay->thread, NULL, run, relay);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    relay->running = failed == 0;
    if (failed != 0) {
        errno = failed;
        return FAIL_ERRNO(err, "cannot start a thread for the relay's files");
    }
    return STATUS_OK;
}

enum status call_relay_open(const char *run_folder, const struct call_direct_options *options,
                            double timeout_s, struct call_transport *out, struct error *err)
{
    enum status status = STATUS_OK;
    pthread_condattr_t monotonic;
    struct relay *relay = mem_calloc(1, sizeof(*relay));
    if (relay == NULL) {
        return mem_fail(err, sizeof(*relay), "a transport");
    }
    relay->options = *options;
    relay->timeout_s = timeout_s;
    relay->pause_s = look_min_s;
    pthread_mutex_init(&relay->mutex, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&relay->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    TRY_CLEANUP(relay_folders_make(run_folder, &relay->folders, err));
    TRY_CLEANUP(find_left(relay, relay->folders.requests, err));
    TRY_CLEANUP(find_left(relay, relay->folders.replies, err));
    TRY_CLEANUP(start_thread(relay, err));
    *out = (struct call_transport){
        .name = "relay",
        .state = relay,
        .resumes = true,
        .start = relay_start,
        .turn = relay_turn,
        .take = relay_take,
        .cancel = relay_cancel,
        .done = relay_done,
        .bound = relay_bound,
        .close = relay_close,
    };
cleanup:
    if (status != STATUS_OK) {
        relay_close(relay);
    }
    return status;
}
