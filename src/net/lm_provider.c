/* The table of providers, and what they have in common. */
#include "net/lm_provider.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/json.h"
#include "base/text.h"

/* X(name): a file lm_<name>.c that defines struct lm_provider lm_provider_<name>. */
#define PROVIDER_LIST(X) X(openai) X(anthropic) X(gemini) X(azure)

static const char *const names[] = {
#define PROVIDER_NAME(name) #name,
    PROVIDER_LIST(PROVIDER_NAME)
#undef PROVIDER_NAME
        NULL,
};

static const struct lm_provider *const providers[] = {
#define PROVIDER_ROW(name) &lm_provider_##name,
    PROVIDER_LIST(PROVIDER_ROW)
#undef PROVIDER_ROW
};

enum { SCHEMA_NAME_MAX = 64, PROBLEM_RAW_BYTES = 512 };

/* As if more tokens than this were ever paid for at once. */
static const double count_max = 1e12;

const char *const *lm_providers(void)
{
    return names;
}

bool lm_needs_url(const char *provider)
{
    const struct lm_provider *found = lm_provider_find(provider);
    return found != NULL && found->url[0] == '\0';
}

const char *lm_key_variable(const struct lm_endpoint *endpoint)
{
    const struct lm_provider *provider = lm_provider_find(endpoint->provider);
    if (endpoint->key_env[0] != '\0' || provider == NULL) {
        return endpoint->key_env;
    }
    bool own = endpoint->url[0] == '\0' || provider->url[0] == '\0' ||
               strcmp(endpoint->url, provider->url) == 0;
    return own ? provider->key_env : "";
}

const struct lm_provider *lm_provider_find(const char *name)
{
    for (size_t i = 0; i < sizeof(providers) / sizeof(providers[0]); i++) {
        if (strcmp(providers[i]->name, name) == 0) {
            return providers[i];
        }
    }
    return NULL;
}

/* ---- writing ---- */

void lm_put_url(struct buffer *url, const char *base, const char *path)
{
    size_t length = strcspn(base, "?#");
    const char *query = base + length;
    while (length > 0 && base[length - 1] == '/') {
        length--;
    }
    buffer_append(url, base, length);
    size_t path_length = strcspn(path, "?");
    bool is_there =
        length >= path_length && strncmp(base + length - path_length, path, path_length) == 0;
    if (!is_there) {
        buffer_append(url, path, path_length);
    }
    const char *own_query = path + path_length;
    buffer_append_text(url, own_query);
    if (query[0] == '?' && query[1] != '\0') {
        buffer_append_char(url, own_query[0] != '\0' ? '&' : '?');
        buffer_append_text(url, query + 1);
    }
}

void lm_put_string(struct buffer *out, const char *text)
{
    cJSON *value = cJSON_CreateStringReference(text);
    lm_put_json(out, value);
    cJSON_Delete(value);
}

void lm_put_json(struct buffer *out, const cJSON *value)
{
    char *text = json_print_line(value);
    if (text == NULL) {
        out->failed = out->out_of_memory = true;
        return;
    }
    buffer_append_text(out, text);
    free(text);
}

void lm_put_schema_name(struct buffer *out, const char *name)
{
    char clean[SCHEMA_NAME_MAX + 1] = "";
    size_t length = 0;
    for (const char *c = name; c != NULL && *c != '\0' && length < SCHEMA_NAME_MAX; c++) {
        bool allowed = (unsigned char)*c < 0x80 && (isalnum((unsigned char)*c) || *c == '-');
        clean[length++] = allowed ? *c : '_';
    }
    lm_put_string(out, length > 0 ? clean : "reply");
}

static bool is_system(const cJSON *message)
{
    return strcmp(lm_get_text(message, "role"), "system") == 0;
}

bool lm_has_system(const struct lm_question *question)
{
    const cJSON *message = NULL;
    cJSON_ArrayForEach (message, question->messages) {
        if (is_system(message)) {
            return true;
        }
    }
    return false;
}

void lm_put_system(struct buffer *out, const struct lm_question *question)
{
    struct buffer text;
    buffer_init(&text, out->max_bytes);
    const cJSON *message = NULL;
    cJSON_ArrayForEach (message, question->messages) {
        if (is_system(message)) {
            buffer_append_text(&text, text.len_bytes > 0 ? "\n\n" : "");
            buffer_append_text(&text, lm_get_text(message, "content"));
        }
    }
    out->failed = out->failed || text.failed;
    out->out_of_memory = out->out_of_memory || text.out_of_memory;
    lm_put_string(out, buffer_text(&text));
    buffer_fini(&text);
}

void lm_put_turns(struct buffer *out, const struct lm_question *question,
                  void (*put)(struct buffer *out, const char *role, const char *content))
{
    const char *between = "";
    const cJSON *message = NULL;
    buffer_append_char(out, '[');
    cJSON_ArrayForEach (message, question->messages) {
        if (!is_system(message)) {
            buffer_append_text(out, between);
            put(out, lm_get_text(message, "role"), lm_get_text(message, "content"));
            between = ",";
        }
    }
    buffer_append_char(out, ']');
}

/* ---- reading ---- */

const cJSON *lm_get(const cJSON *object, const char *name)
{
    return cJSON_IsObject(object) ? cJSON_GetObjectItemCaseSensitive(object, name) : NULL;
}

const char *lm_get_text(const cJSON *object, const char *name)
{
    return cJSON_GetStringValue(lm_get(object, name));
}

int64_t lm_get_count(const cJSON *object, const char *name)
{
    const cJSON *item = lm_get(object, name);
    bool is_count = cJSON_IsNumber(item) && item->valuedouble >= 0 && item->valuedouble < count_max;
    return is_count ? (int64_t)item->valuedouble : 0;
}

/* At most so many bytes of UTF-8, no character of it cut. */
static void cut_text(char *text, size_t max_bytes)
{
    size_t length = strlen(text);
    if (length > max_bytes) {
        length = max_bytes;
        while (length > 0 && ((unsigned char)text[length] & 0xC0) == 0x80) {
            length--;
        }
        text[length] = '\0';
    }
}

void lm_read_model(const char *name, struct lm_reading *reading)
{
    char text[2 * sizeof(reading->model)];
    snprintf(text, sizeof(text), "%s", name);
    for (char *c = text; *c != '\0'; c++) {
        *c = iscntrl((unsigned char)*c) ? ' ' : *c;
    }
    cut_text(text, sizeof(reading->model) - 1);
    memcpy(reading->model, text, strlen(text) + 1);
}

bool lm_holds_one_of(const char *text, const char *const *words)
{
    for (; *words != NULL; words++) {
        if (strcasestr(text, *words) != NULL) {
            return true;
        }
    }
    return false;
}

/* What is not plainly the request's, the key's or the account's fault may pass. */
static bool may_pass(const char *kind, int64_t code)
{
    static const char *const lasting[] = {
        "invalid", "authentication", "permission",  "not_found", "quota",
        "billing", "too_large",      "unsupported", "payment",   NULL,
    };
    bool is_client_fault = code >= 400 && code < 500 && code != 408 && code != 425 && code != 429;
    return !is_client_fault && !lm_holds_one_of(kind, lasting);
}

void lm_put_problem(const char *kind, const char *message, struct lm_reading *reading)
{
    char raw[PROBLEM_RAW_BYTES];
    char repaired[3 * PROBLEM_RAW_BYTES];
    snprintf(raw, sizeof(raw), "%s%s%s", kind, kind[0] != '\0' && message[0] != '\0' ? ": " : "",
             message);
    text_repair(raw, strlen(raw), repaired);
    for (char *c = repaired; *c != '\0'; c++) {
        *c = iscntrl((unsigned char)*c) ? ' ' : *c;
    }
    cut_text(repaired, sizeof(reading->problem) - 1);
    memcpy(reading->problem, repaired, strlen(repaired) + 1);
}

bool lm_read_problem(const cJSON *event, struct lm_reading *reading)
{
    const cJSON *problem = lm_get(event, "error");
    if (problem == NULL || cJSON_IsNull(problem)) {
        const char *object = lm_get_text(event, "object");
        const char *type = lm_get_text(event, "type");
        bool is_one = (object != NULL && strcmp(object, "error") == 0) ||
                      (type != NULL && strcmp(type, "error") == 0);
        if (!is_one) {
            return false;
        }
        problem = event;
    }
    if (cJSON_IsString(problem)) {
        lm_put_problem("", problem->valuestring, reading);
        reading->passing = true;
        return true;
    }
    /* The code as a text ("insufficient_quota") says most, then the kind. */
    const char *kind = lm_get_text(problem, "code");
    int64_t code = lm_get_count(problem, "code");
    if (kind != NULL && kind[0] != '\0' && kind[strspn(kind, "0123456789")] == '\0') {
        code = atoi(kind); /* some write the number as a text */
        kind = NULL;
    }
    kind = kind != NULL ? kind : lm_get_text(problem, "status");
    kind = kind != NULL ? kind : lm_get_text(problem, "type");
    const char *message = lm_get_text(problem, "message");
    lm_put_problem(kind != NULL ? kind : "", message != NULL ? message : "an error without a text",
                   reading);
    reading->passing = may_pass(kind != NULL ? kind : "", code);
    return true;
}
