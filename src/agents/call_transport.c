#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agents/call_parts.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/text.h"
#include "tree/search.h"

const char *const call_kind_names[] = {"chat", "source", "dry", NULL};

enum { MESSAGES_MAX = 64, SCHEMA_NAME_BYTES = 64, SOURCE_MEMBERS_MAX = 16, SOURCE_TEXT_MAX = 4096 };
enum { REPLY_TOKENS_MAX = 1 << 20 };
static const int64_t seed_max = INT64_C(1) << 53;

/* ---- answers ---- */

void call_answer_fini(struct call_answer *answer)
{
    free(answer->text);
    answer->text = NULL;
}

void call_answer_set(char *out, size_t out_bytes, const char *text)
{
    size_t length = strnlen(text, out_bytes - 1);
    /* Not in the middle of a character. */
    while (length > 0 && ((unsigned char)text[length] & 0xC0) == 0x80) {
        length--;
    }
    memcpy(out, text, length);
    out[length] = '\0';
}

struct call_answer call_answer_failed(int32_t id, const struct error *failure)
{
    struct call_answer answer = {.id = id, .status = failure->code, .error = *failure};
    if (answer.status == STATUS_OK) {
        answer.status = STATUS_INTERNAL;
    }
    return answer;
}

/* Makes a text that an event can carry of whatever came. */
static enum status repair_text(struct call_answer *answer, struct error *err)
{
    size_t length = strlen(answer->text);
    if (!json_utf8_valid(answer->text, length)) {
        char *repaired = mem_calloc(3 * length + 1, 1);
        if (repaired == NULL) {
            return mem_fail(err, 3 * length + 1, "a reply");
        }
        length = text_repair(answer->text, length, repaired);
        free(answer->text);
        answer->text = repaired;
    }
    if (length > SEARCH_CALL_TEXT_MAX_BYTES) {
        answer->status =
            FAIL(&answer->error, STATUS_LIMIT, "the reply has %zu bytes, allowed are %d", length,
                 SEARCH_CALL_TEXT_MAX_BYTES);
    }
    return STATUS_OK;
}

static void repair_line(char *text, size_t bytes)
{
    char repaired[3 * sizeof(((struct error *)NULL)->message) + 1];
    if (!json_utf8_valid(text, strlen(text))) {
        text_repair(text, strlen(text), repaired);
        call_answer_set(text, bytes, repaired);
    }
}

enum status call_answer_repair(struct call_answer *answer, struct error *err)
{
    if (answer->status == STATUS_OK && answer->text == NULL) {
        answer->status = FAIL(&answer->error, STATUS_FORMAT, "there is no text in the answer");
    }
    if (answer->status == STATUS_OK) {
        TRY(repair_text(answer, err));
    }
    if (answer->status != STATUS_OK && answer->error.message[0] == '\0') {
        snprintf(answer->error.message, sizeof(answer->error.message), "%s",
                 status_text(answer->status));
    }
    repair_line(answer->provider, sizeof(answer->provider));
    repair_line(answer->model, sizeof(answer->model));
    repair_line(answer->host, sizeof(answer->host));
    repair_line(answer->error.message, sizeof(answer->error.message));
    return STATUS_OK;
}

enum status call_queue_push(struct call_queue *queue, struct call_answer *answer, struct error *err)
{
    if (queue->count == queue->capacity) {
        int capacity = queue->capacity > 0 ? 2 * queue->capacity : 8;
        struct call_answer *items =
            mem_realloc(queue->items, (size_t)capacity, sizeof(*queue->items));
        if (items == NULL) {
            call_answer_fini(answer);
            return mem_fail(err, (size_t)capacity * sizeof(*items), "answers of calls");
        }
        queue->items = items;
        queue->capacity = capacity;
    }
    queue->items[queue->count++] = *answer;
    memset(answer, 0, sizeof(*answer));
    return STATUS_OK;
}

static void remove_item(struct call_queue *queue, int index)
{
    queue->count--;
    memmove(&queue->items[index], &queue->items[index + 1],
            (size_t)(queue->count - index) * sizeof(queue->items[0]));
}

bool call_queue_take(struct call_queue *queue, struct call_answer *out)
{
    if (queue->count == 0) {
        return false;
    }
    *out = queue->items[0];
    remove_item(queue, 0);
    return true;
}

void call_queue_drop(struct call_queue *queue, int32_t id)
{
    for (int i = queue->count - 1; i >= 0; i--) {
        if (queue->items[i].id == id) {
            call_answer_fini(&queue->items[i]);
            remove_item(queue, i);
        }
    }
}

void call_queue_fini(struct call_queue *queue)
{
    for (int i = 0; i < queue->count; i++) {
        call_answer_fini(&queue->items[i]);
    }
    free(queue->items);
    memset(queue, 0, sizeof(*queue));
}

/* ---- events ---- */

bool call_add_usd(cJSON *event, const char *key, double usd)
{
    return isnan(usd) ? cJSON_AddNullToObject(event, key) != NULL
                      : cJSON_AddNumberToObject(event, key, usd) != NULL;
}

/* The search refuses events with more. */
static double within(double value, double max)
{
    return value >= 0.0 ? fmin(value, max) : 0.0;
}

cJSON *call_ended_event(const struct call_answer *answer, bool lost)
{
    bool replied = answer->status == STATUS_OK && answer->text != NULL;
    double usd = isnan(answer->cost_usd) ? NAN : within(answer->cost_usd, SEARCH_CALL_USD_MAX);
    cJSON *event = cJSON_CreateObject();
    bool added =
        cJSON_AddStringToObject(event, "event", "call_ended") != NULL &&
        cJSON_AddNumberToObject(event, "call", answer->id) != NULL &&
        cJSON_AddStringToObject(event, "provider", answer->provider) != NULL &&
        cJSON_AddStringToObject(event, "model", answer->model) != NULL &&
        cJSON_AddStringToObject(event, "host", answer->host) != NULL &&
        cJSON_AddNumberToObject(
            event, "tokens_in",
            within((double)answer->tokens_in, (double)SEARCH_CALL_TOKENS_MAX)) != NULL &&
        cJSON_AddNumberToObject(
            event, "tokens_out",
            within((double)answer->tokens_out, (double)SEARCH_CALL_TOKENS_MAX)) != NULL &&
        call_add_usd(event, "cost_usd", usd) &&
        cJSON_AddNumberToObject(event, "seconds", within(answer->seconds, CALL_SECONDS_MAX)) !=
            NULL &&
        (answer->rank_seconds == 0.0 ||
         cJSON_AddNumberToObject(event, "rank_seconds",
                                 within(answer->rank_seconds, CALL_SECONDS_MAX)) != NULL) &&
        cJSON_AddNumberToObject(event, "attempts",
                                within(answer->attempts, SEARCH_CALL_ATTEMPTS_MAX)) != NULL &&
        cJSON_AddStringToObject(event, replied ? "reply" : "error",
                                replied ? answer->text : answer->error.message) != NULL &&
        (!lost || cJSON_AddTrueToObject(event, "lost") != NULL);
    if (!added) {
        cJSON_Delete(event);
        return NULL;
    }
    return event;
}

/* ---- bodies ---- */

static void read_message(const cJSON *message, int index, cJSON *out,
                         struct json_problems *problems)
{
    static const char *const roles[] = {"system", "user", "assistant", NULL};
    char pointer[JSON_POINTER_BYTES];
    snprintf(pointer, sizeof(pointer), "/messages/%d", index);
    struct json_reader reader;
    json_reader_init(&reader, message, pointer, problems);
    json_require(&reader, "role", "\"system\", \"user\" or \"assistant\"");
    json_require(&reader, "content", "a text");
    const char *role = roles[json_read_choice(&reader, "role", roles, 0)];
    const char *content = json_read_string(&reader, "content", "");
    cJSON *copy = cJSON_CreateObject();
    cJSON_AddStringToObject(copy, "role", role);
    cJSON_AddStringToObject(copy, "content", content);
    cJSON_AddItemToArray(out, copy);
}

static void read_schema(struct json_reader *reader, cJSON *out)
{
    static const char allowed[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
    const cJSON *schema = json_read_any(reader, "schema");
    const char *name = json_read_string(reader, "schema_name", "reply");
    size_t length = strlen(name);
    if (length == 0 || length > SCHEMA_NAME_BYTES || name[strspn(name, allowed)] != '\0') {
        json_problems_add(reader->problems, "/schema_name",
                          "allowed are 1 to %d letters, digits, _ and -", SCHEMA_NAME_BYTES);
    }
    if (schema == NULL || cJSON_IsNull(schema)) {
        return;
    }
    if (!cJSON_IsObject(schema)) {
        json_problems_add(reader->problems, "/schema", "allowed is an object");
        return;
    }
    cJSON_AddItemToObject(out, "schema", cJSON_Duplicate(schema, true));
    cJSON_AddStringToObject(out, "schema_name", name);
}

static void read_chat(const cJSON *body, cJSON *out, struct json_problems *problems)
{
    struct json_reader reader;
    json_reader_init(&reader, body, "", problems);
    const cJSON *messages = json_read_array(&reader, "messages");
    int count = cJSON_GetArraySize(messages);
    if (count < 1 || count > MESSAGES_MAX) {
        json_problems_add(problems, "/messages", "found %d, allowed are 1 to %d", count,
                          MESSAGES_MAX);
        return;
    }
    cJSON *copies = cJSON_AddArrayToObject(out, "messages");
    int index = 0;
    const cJSON *message = NULL;
    cJSON_ArrayForEach (message, messages) {
        read_message(message, index++, copies, problems);
    }
    read_schema(&reader, out);
    json_require(&reader, "max_tokens", "the most tokens of a reply");
    int64_t max_tokens = json_read_int(&reader, "max_tokens", 1, 1, REPLY_TOKENS_MAX);
    cJSON_AddNumberToObject(out, "max_tokens", (double)max_tokens);
    double temperature = json_read_number(&reader, "temperature", 0.0, 0.0, 2.0);
    cJSON_AddNumberToObject(out, "temperature", temperature);
    int64_t seed = json_read_int(&reader, "seed", -1, -1, seed_max);
    if (seed >= 0) {
        cJSON_AddNumberToObject(out, "seed", (double)seed);
    }
}

static bool fits_source(const cJSON *member)
{
    if (cJSON_IsString(member)) {
        return strlen(member->valuestring) <= SOURCE_TEXT_MAX;
    }
    return cJSON_IsBool(member) || (cJSON_IsNumber(member) && isfinite(member->valuedouble));
}

/* Flat: what the members mean is the source's business (net/source.h). */
static void read_source(const cJSON *body, cJSON *out, struct json_problems *problems)
{
    const cJSON *member = NULL;
    if (!cJSON_IsObject(body) || !cJSON_IsString(cJSON_GetObjectItemCaseSensitive(body, "do"))) {
        json_problems_add(problems, "/do", "allowed is a question to a source");
        return;
    }
    cJSON_ArrayForEach (member, body) {
        bool again = cJSON_GetObjectItemCaseSensitive(out, member->string) != NULL;
        if (again || !fits_source(member) || cJSON_GetArraySize(out) == SOURCE_MEMBERS_MAX) {
            json_problems_add(problems, "",
                              "allowed are at most %d members, each once, texts of at most %d "
                              "bytes, numbers and booleans",
                              SOURCE_MEMBERS_MAX, SOURCE_TEXT_MAX);
            return;
        }
        cJSON_AddItemToObject(out, member->string, cJSON_Duplicate(member, false));
    }
}

/* A plan's parts, which the executor has checked. */
static void read_dry(const cJSON *body, cJSON *out, struct json_problems *problems)
{
    struct json_reader reader;
    json_reader_init(&reader, body, "", problems);
    const char *const parts[] = {"recipe", "configs"};
    for (int i = 0; i < 2; i++) {
        json_require(&reader, parts[i], "a list");
        const cJSON *list = json_read_array(&reader, parts[i]);
        cJSON_AddItemToObject(out, parts[i], cJSON_Duplicate(list, true));
    }
}

/* Its text must find room in the search, and with it, that memory was enough for the copy. */
static enum status check_size(const cJSON *body, struct error *err)
{
    char *text = json_print_line(body);
    if (text == NULL) {
        return mem_fail(err, SEARCH_CALL_TEXT_MAX_BYTES, "the body of a call");
    }
    size_t length = strlen(text);
    free(text);
    if (length > SEARCH_CALL_TEXT_MAX_BYTES) {
        return FAIL(err, STATUS_INVALID, "the body of a call has %zu bytes, allowed are %d", length,
                    SEARCH_CALL_TEXT_MAX_BYTES);
    }
    return STATUS_OK;
}

enum status call_body_read(enum call_kind kind, const cJSON *body, cJSON **out, struct error *err)
{
    struct json_problems problems;
    json_problems_init(&problems);
    cJSON *copy = cJSON_CreateObject();
    static void (*const readers[CALL_KIND_COUNT])(const cJSON *, cJSON *,
                                                  struct json_problems *) = {
        [CALL_CHAT] = read_chat, [CALL_SOURCE] = read_source, [CALL_DRY] = read_dry};
    readers[kind](body, copy, &problems);
    enum status status = json_problems_check(&problems, "the body of a call", err);
    if (status == STATUS_OK) {
        status = check_size(copy, err);
    }
    json_problems_fini(&problems);
    if (status != STATUS_OK) {
        cJSON_Delete(copy);
        return status;
    }
    *out = copy;
    return STATUS_OK;
}

static double number_of(const cJSON *body, const char *key, double fallback)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(body, key);
    return cJSON_IsNumber(item) ? item->valuedouble : fallback;
}

void call_body_question(const cJSON *body, struct lm_question *out)
{
    const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(body, "schema_name"));
    *out = (struct lm_question){
        .messages = cJSON_GetObjectItemCaseSensitive(body, "messages"),
        .schema = cJSON_GetObjectItemCaseSensitive(body, "schema"),
        .schema_name = name != NULL ? name : "reply",
        .max_tokens = (int64_t)number_of(body, "max_tokens", 1.0),
        .temperature = number_of(body, "temperature", 0.0),
        .seed = (int64_t)number_of(body, "seed", -1.0),
    };
}
