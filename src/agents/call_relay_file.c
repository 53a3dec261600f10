#include "agents/call_relay_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agents/call_parts.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"

enum { ID_DIGITS = 6, HASH_DIGITS = 16 };
/* A body, and the rest of a request; a reply whose every byte is written as \u0000, and the rest.
 */
enum {
    REQUEST_MAX_BYTES = SEARCH_CALL_TEXT_MAX_BYTES + 4096,
    REPLY_MAX_BYTES = 6 * SEARCH_CALL_TEXT_MAX_BYTES + 65536
};

/* ---- folders and names ---- */

static enum status make_folder(const char *path, struct error *err)
{
    struct stat info;
    TRY(file_make_folders(path, err));
    if (lstat(path, &info) != 0 || !S_ISDIR(info.st_mode)) {
        return FAIL(err, STATUS_INVALID, "%s is a link, allowed is a folder", path);
    }
    return STATUS_OK;
}

enum status relay_folders_make(const char *run_folder, struct relay_folders *out, struct error *err)
{
    TRY(file_join(run_folder, "relay", out->relay, err));
    TRY(file_join(out->relay, "requests", out->requests, err));
    TRY(file_join(out->relay, "replies", out->replies, err));
    TRY(make_folder(out->relay, err));
    TRY(make_folder(out->requests, err));
    return make_folder(out->replies, err);
}

enum status relay_name(const struct call *call, char out[RELAY_NAME_BYTES], struct error *err)
{
    char hash[HASH_TEXT_BYTES];
    char *body = json_print_line(call->body);
    struct hash_state *state = hash_create();
    if (body != NULL && state != NULL) {
        hash_update(state, call->key, strlen(call->key) + 1);
        hash_update(state, body, strlen(body));
        hash_digest(state, hash);
        snprintf(out, RELAY_NAME_BYTES, "%0*d-%.*s", ID_DIGITS, (int)call->id, HASH_DIGITS, hash);
    }
    bool named = body != NULL && state != NULL;
    hash_destroy(state);
    free(body);
    return named ? STATUS_OK : mem_fail(err, RELAY_NAME_BYTES, "a request's name");
}

int32_t relay_name_id(const char *name)
{
    size_t digits = strspn(name, "0123456789");
    bool fits = digits >= ID_DIGITS && digits <= ID_DIGITS + 1 && name[digits] == '-' &&
                strspn(name + digits + 1, "0123456789abcdef") == HASH_DIGITS &&
                name[digits + 1 + HASH_DIGITS] == '\0';
    long id = fits ? strtol(name, NULL, 10) : -1;
    return id < SEARCH_CALLS_MAX ? (int32_t)id : -1;
}

enum status relay_path(const char *folder, const char *name, const char *ending,
                       char out[FILE_PATH_BYTES], struct error *err)
{
    char file[RELAY_NAME_BYTES + 16];
    snprintf(file, sizeof(file), "%s%s", name, ending);
    return file_join(folder, file, out, err);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* Reads the names of an open folder; false without memory. */
static bool read_names(DIR *folder, const char *ending, char (**names)[RELAY_NAME_BYTES],
                       int *count)
{
    int capacity = 0;
    const struct dirent *entry = NULL;
    while (*count < RELAY_LIST_MAX && (entry = readdir(folder)) != NULL) {
        char name[RELAY_NAME_BYTES];
        size_t length = strlen(entry->d_name);
        size_t tail = strlen(ending);
        if (length <= tail || length - tail >= sizeof(name) ||
            strcmp(entry->d_name + length - tail, ending) != 0) {
            continue;
        }
        memcpy(name, entry->d_name, length - tail);
        name[length - tail] = '\0';
        if (relay_name_id(name) < 0) {
            continue;
        }
        if (*count == capacity) {
            capacity = capacity > 0 ? 2 * capacity : 16;
            void *grown = mem_realloc(*names, (size_t)capacity, RELAY_NAME_BYTES);
            if (grown == NULL) {
                return false;
            }
            *names = grown;
        }
        memcpy((*names)[(*count)++], name, sizeof(name));
    }
    return true;
}

enum status relay_list(const char *folder, const char *ending, char (**names)[RELAY_NAME_BYTES],
                       int *count, struct error *err)
{
    char(*found)[RELAY_NAME_BYTES] = NULL;
    int found_count = 0;
    DIR *opened = opendir(folder);
    if (opened == NULL) {
        return FAIL_ERRNO(err, "cannot list %s", folder);
    }
    bool read = read_names(opened, ending, &found, &found_count);
    closedir(opened);
    if (!read) {
        free(found);
        return mem_fail(err, RELAY_LIST_MAX, "a list of files");
    }
    if (found_count > 1) {
        qsort(found, (size_t)found_count, RELAY_NAME_BYTES, compare_names);
    }
    *names = found;
    *count = found_count;
    return STATUS_OK;
}

/* ---- reading what the other side wrote ---- */

/* A regular file, no link, as JSON. Its contents are nobody's to see in an error. */
static enum status read_json(const char *path, size_t max_bytes, cJSON **out, struct error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT) {
        return FAIL(err, STATUS_NOT_FOUND, "%s is not there", path);
    }
    if (fd < 0 && errno == ELOOP) {
        return FAIL(err, STATUS_INVALID, "%s is a link", path);
    }
    if (fd < 0) {
        return FAIL_ERRNO(err, "cannot open %s", path);
    }
    struct stat info;
    bool regular = fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
    bool fits = regular && info.st_size > 0 && (uint64_t)info.st_size <= max_bytes;
    char *text = fits ? mem_calloc((size_t)info.st_size + 1, 1) : NULL;
    size_t length = 0;
    while (text != NULL && length < (size_t)info.st_size) {
        ssize_t got = read(fd, text + length, (size_t)info.st_size - length);
        if (got > 0) {
            length += (size_t)got;
        } else if (got == 0 || errno != EINTR) {
            break;
        }
    }
    close(fd);
    enum status status = STATUS_OK;
    if (!fits) {
        status =
            FAIL(err, STATUS_INVALID, "%s is no regular file of 1 to %zu bytes", path, max_bytes);
    } else if (text == NULL) {
        status = mem_fail(err, (size_t)info.st_size, "a file of the relay");
    } else if (length < (size_t)info.st_size ||
               json_parse(text, length, path, out, NULL) != STATUS_OK) {
        status = FAIL(err, STATUS_INVALID, "%s is not JSON", path);
    }
    free(text);
    return status;
}

static enum status check_name(struct json_reader *reader, const char *name, struct error *err)
{
    const char *id = json_read_string(reader, "id", "");
    if (strcmp(id, name) != 0) {
        return FAIL(err, STATUS_INVALID, "%s: its \"id\" is not its name", name);
    }
    return STATUS_OK;
}

/* ---- requests ---- */

char *relay_request_text(const struct call *call, const char *name)
{
    cJSON *request = cJSON_CreateObject();
    cJSON *body = cJSON_Duplicate(call->body, true);
    bool made = cJSON_AddStringToObject(request, "id", name) != NULL &&
                cJSON_AddStringToObject(request, "key", call->key) != NULL &&
                cJSON_AddStringToObject(request, "kind", call_kind_names[call->kind]) != NULL &&
                body != NULL;
    if (made) {
        cJSON_AddItemToObject(request, "body", body);
    } else {
        cJSON_Delete(body);
    }
    char *text = made ? json_print_line(request) : NULL;
    cJSON_Delete(request);
    return text;
}

static enum status read_request(const cJSON *json, const char *name, struct relay_request *out,
                                struct error *err)
{
    static const char *const kinds[] = {"chat", "source", NULL};
    struct json_problems problems;
    struct json_reader reader;
    json_problems_init(&problems);
    json_reader_init(&reader, json, "", &problems);
    enum status status = check_name(&reader, name, err);
    const char *key = json_read_string(&reader, "key", "");
    json_require(&reader, "kind", "\"chat\" or \"source\"");
    out->kind = (enum call_kind)json_read_choice(&reader, "kind", kinds, 0);
    const cJSON *body = json_read_object(&reader, "body");
    if (status == STATUS_OK && (problems.count > 0 || body == NULL || !search_call_key_fits(key))) {
        status = FAIL(err, STATUS_INVALID, "%s: allowed are a key, a kind and a body", name);
    }
    if (status == STATUS_OK) {
        snprintf(out->key, sizeof(out->key), "%s", key);
        status = call_body_read(out->kind, body, &out->body, err);
    }
    json_problems_fini(&problems);
    return status;
}

enum status relay_request_read(const char *requests, const char *name, struct relay_request *out,
                               struct error *err)
{
    char path[FILE_PATH_BYTES];
    cJSON *json = NULL;
    TRY(relay_path(requests, name, ".json", path, err));
    TRY(read_json(path, REQUEST_MAX_BYTES, &json, err));
    enum status status = read_request(json, name, out, err);
    cJSON_Delete(json);
    return status;
}

/* ---- replies ---- */

char *relay_reply_text(const struct call_answer *answer, const char *name)
{
    bool replied = answer->status == STATUS_OK && answer->text != NULL;
    cJSON *reply = cJSON_CreateObject();
    cJSON *usd =
        isnan(answer->cost_usd) ? cJSON_CreateNull() : cJSON_CreateNumber(answer->cost_usd);
    bool made = usd != NULL && cJSON_AddStringToObject(reply, "id", name) != NULL &&
                cJSON_AddStringToObject(reply, "status", status_name(answer->status)) != NULL &&
                cJSON_AddStringToObject(reply, "provider", answer->provider) != NULL &&
                cJSON_AddStringToObject(reply, "model", answer->model) != NULL &&
                cJSON_AddStringToObject(reply, "host", answer->host) != NULL &&
                cJSON_AddNumberToObject(reply, "tokens_in", (double)answer->tokens_in) != NULL &&
                cJSON_AddNumberToObject(reply, "tokens_out", (double)answer->tokens_out) != NULL &&
                cJSON_AddNumberToObject(reply, "seconds", answer->seconds) != NULL &&
                cJSON_AddNumberToObject(reply, "attempts", answer->attempts) != NULL &&
                cJSON_AddBoolToObject(reply, "cut", answer->cut) != NULL &&
                cJSON_AddStringToObject(reply, replied ? "text" : "error",
                                        replied ? answer->text : answer->error.message) != NULL;
    if (made) {
        cJSON_AddItemToObject(reply, "cost_usd", usd);
    } else {
        cJSON_Delete(usd);
    }
    char *text = made ? json_print_line(reply) : NULL;
    cJSON_Delete(reply);
    return text;
}

/* The status of this name; STATUS_COUNT: there is none. */
static enum status find_status(const char *name)
{
    int code = 0;
    while (code < STATUS_COUNT && strcmp(status_name((enum status)code), name) != 0) {
        code++;
    }
    return (enum status)code;
}

/* What a reply tells, but for text and error. */
static void read_figures(struct json_reader *reader, struct call_answer *out)
{
    call_answer_set(out->provider, sizeof(out->provider), json_read_string(reader, "provider", ""));
    call_answer_set(out->model, sizeof(out->model), json_read_string(reader, "model", ""));
    call_answer_set(out->host, sizeof(out->host), json_read_string(reader, "host", ""));
    out->tokens_in = json_read_int(reader, "tokens_in", 0, 0, SEARCH_CALL_TOKENS_MAX);
    out->tokens_out = json_read_int(reader, "tokens_out", 0, 0, SEARCH_CALL_TOKENS_MAX);
    out->cost_usd = json_read_number(reader, "cost_usd", NAN, 0.0, SEARCH_CALL_USD_MAX);
    out->seconds = json_read_number(reader, "seconds", 0.0, 0.0, CALL_SECONDS_MAX);
    out->attempts = (int)json_read_int(reader, "attempts", 0, 0, SEARCH_CALL_ATTEMPTS_MAX);
    out->cut = json_read_bool(reader, "cut", false);
}

static enum status read_reply(const cJSON *json, const char *name, struct call_answer *out,
                              struct error *err)
{
    struct json_problems problems;
    struct json_reader reader;
    json_problems_init(&problems);
    json_reader_init(&reader, json, "", &problems);
    enum status status = check_name(&reader, name, err);
    out->status = find_status(json_read_string(&reader, "status", ""));
    read_figures(&reader, out);
    const char *text = json_read_string(&reader, "text", NULL);
    const char *error = json_read_string(&reader, "error", NULL);
    bool told = out->status == STATUS_OK ? text != NULL : error != NULL;
    if (status == STATUS_OK && (problems.count > 0 || out->status == STATUS_COUNT || !told)) {
        status = FAIL(err, STATUS_INVALID, "%s: it is no reply of a relay", name);
    } else if (status == STATUS_OK && out->status != STATUS_OK) {
        error_set(&out->error, out->status, __FILE__, __LINE__, "%s", error);
    } else if (status == STATUS_OK) {
        out->text = mem_strdup(text);
        status = out->text != NULL ? STATUS_OK : mem_fail(err, strlen(text), "a reply");
    }
    json_problems_fini(&problems);
    return status;
}

enum status relay_reply_read_file(const char *path, const char *name, struct call_answer *out,
                                  struct error *err)
{
    cJSON *json = NULL;
    struct call_answer answer = {.id = relay_name_id(name)};
    TRY(read_json(path, REPLY_MAX_BYTES, &json, err));
    enum status status = read_reply(json, name, &answer, err);
    cJSON_Delete(json);
    if (status == STATUS_OK) {
        *out = answer;
    }
    return status;
}

enum status relay_reply_read(const char *replies, const char *name, struct call_answer *out,
                             struct error *err)
{
    char path[FILE_PATH_BYTES];
    TRY(relay_path(replies, name, ".json", path, err));
    return relay_reply_read_file(path, name, out, err);
}
