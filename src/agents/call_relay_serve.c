/* The relay: answers what a job asks through files.
 *
 *   request file -> checked -> charged (spent.json) -> asked -> reply file (aside, synced, renamed)
 *     -> what it cost instead of what was charged (spent.json)
 *
 * Killed anywhere in between, it asks again what has no reply, and has counted what it may have
 * cost. A reply that was written aside, whole, and not renamed is one. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "agents/call_parts.h"
#include "agents/call_relay_file.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/json.h"
#include "base/mem.h"

enum { OPEN_MAX = 256, SPENT_MAX_BYTES = 4096 };
static const double look_min_s = 0.05, look_max_s = 1.0; /* between looks at the requests */
static const double move_s = 0.1; /* pauses before another try end without a word of the network */
static const double spent_max = 1e15, usd_rounding = 1e-9;

struct served_call {
    char name[RELAY_NAME_BYTES];
    char key[SEARCH_CALL_KEY_BYTES];
    int32_t id;     /* here */
    int64_t tokens; /* charged */
    double usd;
    struct call_answer answer; /* `answered`: and its file could not be written yet */
    bool answered;
};

struct call_relay_server {
    struct relay_folders folders;
    char spent_path[FILE_PATH_BYTES];
    struct call_relay_caps caps;
    struct call_transport direct;
    struct log *log;
    int lock;
    double tokens, usd; /* spent and charged */
    struct served_call calls[OPEN_MAX];
    int count;
    int32_t next_id;
    int64_t served;
    double look_at_s, pause_s;
    bool complained; /* of a disk that refuses */
};

/* ---- what was spent ---- */

static enum status read_spent(struct call_relay_server *server, struct error *err)
{
    cJSON *json = NULL;
    struct json_problems problems;
    struct json_reader reader;
    if (!file_exists(server->spent_path)) {
        return STATUS_OK;
    }
    enum status status = json_parse_file(server->spent_path, SPENT_MAX_BYTES, &json, err);
    json_problems_init(&problems);
    json_reader_init(&reader, json, "", &problems);
    if (status == STATUS_OK) {
        json_require(&reader, "tokens", "a number");
        json_require(&reader, "usd", "a number");
        server->tokens = json_read_number(&reader, "tokens", 0.0, 0.0, spent_max);
        server->usd = json_read_number(&reader, "usd", 0.0, 0.0, spent_max);
        status = json_problems_check(&problems, server->spent_path, err);
    }
    json_problems_fini(&problems);
    cJSON_Delete(json);
    return status;
}

static enum status write_spent(const struct call_relay_server *server, double tokens, double usd,
                               struct error *err)
{
    char text[128];
    int length =
        snprintf(text, sizeof(text), "{\"tokens\":%.0f,\"usd\":%.9g}\n", tokens, fmax(usd, 0.0));
    return file_write(server->spent_path, text, (size_t)length, err);
}

/* Takes what a call may cost, on disk, before it is asked. STATUS_LIMIT: more than is left. */
static enum status charge(struct call_relay_server *server, const struct served_call *call,
                          struct error *err)
{
    double usd = isnan(call->usd) ? 0.0 : call->usd;
    double tokens = server->tokens + (double)call->tokens;
    if (call->tokens > 0 && !(tokens <= server->caps.tokens)) {
        return FAIL(err, STATUS_LIMIT,
                    "relay: %s may take %" PRId64 " tokens, agent_tokens has %.0f left of %.0f",
                    call->key, call->tokens, fmax(server->caps.tokens - server->tokens, 0.0),
                    server->caps.tokens);
    }
    if (usd > 0.0 && !(server->usd + usd <= server->caps.usd + usd_rounding)) {
        return FAIL(err, STATUS_LIMIT,
                    "relay: %s may take %.6g USD, agent_money_usd has %.6g left of %.6g", call->key,
                    usd, fmax(server->caps.usd - server->usd, 0.0), server->caps.usd);
    }
    if (call->tokens > 0 || usd > 0.0) {
        TRY(write_spent(server, tokens, server->usd + usd, err));
        server->tokens = tokens;
        server->usd += usd;
    }
    return STATUS_OK;
}

/* Puts what it cost in the place of what was charged. On disk when there is a next one, or now if
 * that works: until then the disk says too much, which is safe. */
static void settle(struct call_relay_server *server, const struct served_call *call, double tokens,
                   double usd)
{
    if (call->tokens == 0 && !(call->usd > 0.0)) {
        return;
    }
    server->tokens = fmax(server->tokens - (double)call->tokens + tokens, 0.0);
    server->usd -= isnan(call->usd) ? 0.0 : call->usd;
    server->usd = fmax(server->usd + (isnan(usd) ? 0.0 : usd), 0.0);
    (void)write_spent(server, server->tokens, server->usd, NULL);
}

/* ---- replies ---- */

static void remove_call(struct call_relay_server *server, int index)
{
    call_answer_fini(&server->calls[index].answer);
    server->count--;
    memmove(&server->calls[index], &server->calls[index + 1],
            (size_t)(server->count - index) * sizeof(server->calls[0]));
}

static enum status write_reply(const struct call_relay_server *server, const char *name,
                               const struct call_answer *answer, struct error *err)
{
    char path[FILE_PATH_BYTES];
    TRY(relay_path(server->folders.replies, name, ".json", path, err));
    TRY(fault_point("agents.relay.before_reply", err));
    char *text = relay_reply_text(answer, name);
    if (text == NULL) {
        return mem_fail(err, SEARCH_CALL_TEXT_MAX_BYTES, "a reply");
    }
    enum status status = file_write(path, text, strlen(text), err);
    free(text);
    return status;
}

static void complain(struct call_relay_server *server, const char *name,
                     const struct error *failure)
{
    if (!server->complained) {
        log_write(server->log, LOG_ERROR, "relay", "%s waits, and is tried again: %s", name,
                  failure->message);
    }
    server->complained = true;
}

static void log_answer(const struct call_relay_server *server, const struct served_call *call)
{
    const struct call_answer *answer = &call->answer;
    char cost[32] = "";
    if (answer->cost_usd > 0.0) {
        snprintf(cost, sizeof(cost), ", %.4f USD", answer->cost_usd);
    }
    if (answer->status == STATUS_OK) {
        log_write(server->log, LOG_INFO, "relay",
                  "%s: %" PRId64 " tokens in, %" PRId64 " out%s, %.1f s, from %s", call->key,
                  answer->tokens_in, answer->tokens_out, cost, answer->seconds,
                  answer->host[0] != '\0' ? answer->host : answer->provider);
    } else {
        log_write(server->log, LOG_WARNING, "relay", "%s failed: %s", call->key,
                  answer->error.message);
    }
}

/* Writes the replies of all that was answered; the others stay. */
static void write_replies(struct call_relay_server *server)
{
    for (int i = 0; i < server->count;) {
        struct served_call *call = &server->calls[i];
        struct error failure;
        if (!call->answered) {
            i++;
            continue;
        }
        if (write_reply(server, call->name, &call->answer, &failure) != STATUS_OK) {
            complain(server, call->name, &failure);
            return;
        }
        server->complained = false;
        server->served++;
        settle(server, call, (double)(call->answer.tokens_in + call->answer.tokens_out),
               call->answer.cost_usd);
        log_answer(server, call);
        remove_call(server, i);
    }
}

/* ---- requests ---- */

static bool is_known(const struct call_relay_server *server, const char *name)
{
    for (int i = 0; i < server->count; i++) {
        if (strcmp(server->calls[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

/* Tells whoever counts costs that this one may have some. */
static enum status mark_asked(const struct call_relay_server *server, const char *name,
                              struct error *err)
{
    char path[FILE_PATH_BYTES];
    TRY(relay_path(server->folders.replies, name, ".asked", path, err));
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (fd < 0) {
        return FAIL_ERRNO(err, "cannot create %s", path);
    }
    close(fd);
    return STATUS_OK;
}

static void end_call(struct served_call *call, struct call_answer *answer)
{
    call->answer = *answer;
    call->answered = true;
}

/* Charges and asks. An error is the disk's: nothing was asked, and it is tried again. What fails
 * for good is an answer. */
static enum status ask(struct call_relay_server *server, struct served_call *call,
                       const struct relay_request *request, struct error *err)
{
    struct error failure = {0};
    const struct call asked = {call->id, call->key, request->kind, request->body};
    TRY(mark_asked(server, call->name, err));
    enum status status =
        server->direct.bound(server->direct.state, &asked, &call->tokens, &call->usd, &failure);
    if (status == STATUS_OK) {
        status = charge(server, call, &failure);
    }
    if (status != STATUS_OK) {
        call->tokens = 0; /* nothing was charged */
        call->usd = 0.0;
    }
    if (status != STATUS_OK && status != STATUS_LIMIT) {
        *err = failure;
        return status;
    }
    if (status == STATUS_OK) {
        status = server->direct.start(server->direct.state, &asked, &failure);
    }
    if (status != STATUS_OK) {
        struct call_answer answer = call_answer_failed(call->id, &failure);
        end_call(call, &answer);
    }
    return STATUS_OK;
}

/* The job's bounds hold, whatever a request wants. */
static void bound_request(const struct call_relay_server *server, struct relay_request *request)
{
    cJSON *max_tokens = cJSON_GetObjectItemCaseSensitive(request->body, "max_tokens");
    if (max_tokens != NULL && max_tokens->valuedouble > (double)server->caps.reply_tokens) {
        cJSON_SetNumberValue(max_tokens, (double)server->caps.reply_tokens);
    }
}

static bool has_reply(const struct call_relay_server *server, const char *name)
{
    char path[FILE_PATH_BYTES];
    return relay_path(server->folders.replies, name, ".json", path, NULL) != STATUS_OK ||
           file_exists(path);
}

static bool has_request(const struct call_relay_server *server, const char *name)
{
    char path[FILE_PATH_BYTES];
    return relay_path(server->folders.requests, name, ".json", path, NULL) == STATUS_OK &&
           file_exists(path);
}

static enum status take_request(struct call_relay_server *server, const char *name,
                                struct error *err)
{
    struct relay_request request = {.key = "?"};
    struct error failure;
    enum status status = relay_request_read(server->folders.requests, name, &request, &failure);
    /* The job removes a request before its reply: this order of looking sees no reply that was
     * there as one that is missing. */
    if (status == STATUS_NOT_FOUND || has_reply(server, name) || !has_request(server, name)) {
        cJSON_Delete(request.body);
        return STATUS_OK;
    }
    struct served_call *call = &server->calls[server->count];
    memset(call, 0, sizeof(*call));
    call->id = server->next_id;
    memcpy(call->name, name, RELAY_NAME_BYTES);
    snprintf(call->key, sizeof(call->key), "%s", request.key);
    if (status == STATUS_OK) {
        bound_request(server, &request);
        status = ask(server, call, &request, err);
    } else if (status == STATUS_INVALID || status == STATUS_LIMIT || status == STATUS_FORMAT) {
        struct call_answer answer = call_answer_failed(call->id, &failure);
        end_call(call, &answer);
        status = STATUS_OK;
    } else {
        *err = failure;
    }
    cJSON_Delete(request.body);
    if (status == STATUS_OK) {
        server->count++;
        server->next_id = server->next_id < INT32_MAX ? server->next_id + 1 : 0;
        server->pause_s = look_min_s;
    }
    return status;
}

/* What the job does not want any more. What was asked may be charged: it stays counted. */
static void drop_withdrawn(struct call_relay_server *server)
{
    for (int i = server->count - 1; i >= 0; i--) {
        struct served_call *call = &server->calls[i];
        if (call->answered || has_request(server, call->name)) {
            continue;
        }
        log_write(server->log, LOG_INFO, "relay", "%s is not wanted any more", call->key);
        server->direct.cancel(server->direct.state, call->id);
        remove_call(server, i);
    }
}

static void look(struct call_relay_server *server)
{
    char(*names)[RELAY_NAME_BYTES] = NULL;
    int count = 0;
    struct error failure;
    drop_withdrawn(server);
    if (relay_list(server->folders.requests, ".json", &names, &count, &failure) != STATUS_OK) {
        complain(server, "everything", &failure);
        return;
    }
    for (int i = 0; i < count && server->count < OPEN_MAX; i++) {
        if (is_known(server, names[i]) || has_reply(server, names[i])) {
            continue;
        }
        if (take_request(server, names[i], &failure) != STATUS_OK) {
            complain(server, names[i], &failure);
        }
    }
    free(names);
}

/* ---- a turn ---- */

static enum status receive(struct call_relay_server *server, struct error *err)
{
    struct call_answer answer;
    TRY(server->direct.turn(server->direct.state, 0, false, err));
    while (server->direct.take(server->direct.state, &answer)) {
        struct served_call *call = NULL;
        for (int i = 0; i < server->count && call == NULL; i++) {
            bool is_it = server->calls[i].id == answer.id && !server->calls[i].answered;
            call = is_it ? &server->calls[i] : NULL;
        }
        if (call != NULL) {
            end_call(call, &answer);
        } else {
            call_answer_fini(&answer);
        }
    }
    return STATUS_OK;
}

void call_relay_serve_caps(struct call_relay_server *server, const struct call_relay_caps *caps)
{
    server->caps = *caps;
}

static void wait_for_work(struct call_relay_server *server, double wait_s)
{
    double until_look_s = fmax(server->look_at_s - clock_monotonic_s(), 0.0);
    wait_s = fmin(wait_s, until_look_s);
    if (server->count > 0) {
        call_direct_wait(&server->direct, fmin(wait_s, move_s));
    } else if (wait_s > 0.0) {
        clock_sleep_s(wait_s);
    }
}

enum status call_relay_serve(struct call_relay_server *server, double wait_s,
                             struct call_relay_state *state, struct error *err)
{
    double now_s = clock_monotonic_s();
    if (now_s >= server->look_at_s) {
        server->pause_s = fmin(2.0 * server->pause_s, look_max_s);
        look(server);
        server->look_at_s = now_s + server->pause_s;
    }
    TRY(receive(server, err));
    write_replies(server);
    wait_for_work(server, wait_s);
    *state = (struct call_relay_state){.served = server->served,
                                       .open = server->count,
                                       .tokens = server->tokens,
                                       .usd = server->usd};
    return STATUS_OK;
}

/* ---- lifetime ---- */

/* One relay for a folder, where the file system can tell. */
static enum status lock_folder(struct call_relay_server *server, struct error *err)
{
    char path[FILE_PATH_BYTES];
    TRY(file_join(server->folders.relay, "server.lock", path, err));
    server->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (server->lock < 0) {
        return FAIL_ERRNO(err, "cannot create %s", path);
    }
    if (flock(server->lock, LOCK_EX | LOCK_NB) == 0) {
        return STATUS_OK;
    }
    if (errno == EWOULDBLOCK) {
        return FAIL(err, STATUS_BUSY, "another relay serves %s", server->folders.relay);
    }
    log_write(server->log, LOG_WARNING, "relay",
              "%s cannot be locked here: see to it that no other relay serves this folder", path);
    return STATUS_OK;
}

/* The name before ".json.<host>.<pid>.tmp"; false: it is none. */
static bool aside_name(const char *file, char out[RELAY_NAME_BYTES])
{
    const char *tail = strstr(file, ".json.");
    size_t length = strlen(file);
    if (tail == NULL || (size_t)(tail - file) >= RELAY_NAME_BYTES || length < 4 ||
        strcmp(file + length - 4, ".tmp") != 0) {
        return false;
    }
    memcpy(out, file, (size_t)(tail - file));
    out[tail - file] = '\0';
    return relay_name_id(out) >= 0;
}

/* A relay was killed before it renamed this: whole, it is the reply (a part is not JSON). */
static void save_aside(struct call_relay_server *server, const char *file, const char *name)
{
    char path[FILE_PATH_BYTES];
    char aside[FILE_PATH_BYTES];
    struct call_answer answer = {0};
    if (relay_path(server->folders.replies, name, ".json", path, NULL) != STATUS_OK ||
        file_join(server->folders.replies, file, aside, NULL) != STATUS_OK) {
        return;
    }
    bool whole = relay_reply_read_file(aside, name, &answer, NULL) == STATUS_OK;
    call_answer_fini(&answer);
    if (!whole || file_exists(path) || file_commit(aside, path, NULL, NULL) != STATUS_OK) {
        (void)file_remove(aside, NULL);
    }
}

static void save_all_aside(struct call_relay_server *server)
{
    DIR *folder = opendir(server->folders.replies);
    const struct dirent *entry = NULL;
    while (folder != NULL && (entry = readdir(folder)) != NULL) {
        char name[RELAY_NAME_BYTES];
        if (aside_name(entry->d_name, name)) {
            save_aside(server, entry->d_name, name);
        }
    }
    if (folder != NULL) {
        closedir(folder);
    }
}

void call_relay_serve_close(struct call_relay_server *server)
{
    if (server == NULL) {
        return;
    }
    if (server->direct.close != NULL) {
        server->direct.close(server->direct.state);
    }
    for (int i = 0; i < server->count; i++) {
        call_answer_fini(&server->calls[i].answer);
    }
    if (server->lock >= 0) {
        close(server->lock);
    }
    free(server);
}

enum status call_relay_serve_open(const char *run_folder, const struct call_direct_options *options,
                                  const struct call_relay_caps *caps, struct log *log,
                                  struct call_relay_server **out, struct error *err)
{
    enum status status = STATUS_OK;
    struct call_relay_server *server = mem_calloc(1, sizeof(*server));
    if (server == NULL) {
        return mem_fail(err, sizeof(*server), "a relay");
    }
    server->lock = -1;
    server->caps = *caps;
    server->log = log;
    server->pause_s = look_min_s / 2.0;
    TRY_CLEANUP(relay_folders_make(run_folder, &server->folders, err));
    TRY_CLEANUP(file_join(server->folders.relay, "spent.json", server->spent_path, err));
    TRY_CLEANUP(lock_folder(server, err));
    TRY_CLEANUP(read_spent(server, err));
    TRY_CLEANUP(call_direct_open(options, &server->direct, err));
    save_all_aside(server);
    *out = server;
cleanup:
    if (status != STATUS_OK) {
        call_relay_serve_close(server);
    }
    return status;
}
