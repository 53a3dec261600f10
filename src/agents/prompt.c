#include "agents/prompt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/text.h"
#include "net/lm.h"
#include "tree/search.h"

enum { NAME_MAX_BYTES = 48, VALUES_MAX = 32, MESSAGE_MAX_BYTES = SEARCH_CALL_TEXT_MAX_BYTES / 2 };

#define USER_PART "\n## User\n"

/* ---- the files ---- */

const struct prompt *prompt_list(void)
{
    return prompt_texts;
}

const struct prompt *prompt_find(const char *name)
{
    for (const struct prompt *prompt = prompt_texts; prompt->name != NULL; prompt++) {
        if (strcmp(prompt->name, name) == 0) {
            return prompt;
        }
    }
    return NULL;
}

/* The text after the head. */
static const char *body_of(const struct prompt *prompt)
{
    const char *end =
        strncmp(prompt->text, "---\n", 4) == 0 ? strstr(prompt->text + 3, "\n---\n") : NULL;
    return end != NULL ? end + 5 : prompt->text;
}

const char *prompt_head(const struct prompt *prompt, const char *key, size_t *length)
{
    const char *end = body_of(prompt);
    size_t key_bytes = strlen(key);
    for (const char *line = prompt->text; line < end; line += strcspn(line, "\n") + 1) {
        if (strncmp(line, key, key_bytes) == 0 && strncmp(line + key_bytes, ": ", 2) == 0) {
            const char *value = line + key_bytes + 2;
            *length = strcspn(value, "\n");
            return value;
        }
    }
    return NULL;
}

/* ---- the record ---- */

static bool is_recorded(const struct search *search, const char *name, const char *hash)
{
    for (int32_t i = 0; i < search->prompt_count; i++) {
        if (strcmp(search_text(search->prompts[i].name), name) == 0) {
            return strcmp(search_text(search->prompts[i].hash), hash) == 0;
        }
    }
    return false;
}

/* False without memory. */
static bool record_file(const struct search *search, const struct prompt *prompt,
                        const char *ending, const char *text, cJSON *list, bool *recorded)
{
    char name[NAME_MAX_BYTES];
    char hash[HASH_TEXT_BYTES];
    snprintf(name, sizeof(name), "%s.%s", prompt->name, ending);
    hash_bytes(text, strlen(text), hash);
    *recorded = *recorded && is_recorded(search, name, hash);
    cJSON *item = cJSON_CreateObject();
    bool whole = cJSON_AddStringToObject(item, "name", name) != NULL &&
                 cJSON_AddStringToObject(item, "hash", hash) != NULL &&
                 cJSON_AddStringToObject(item, "text", text) != NULL;
    if (!whole || !cJSON_AddItemToArray(list, item)) {
        cJSON_Delete(item);
        return false;
    }
    return true;
}

enum status prompt_record(const struct search *search, cJSON **event, struct error *err)
{
    bool recorded = true;
    cJSON *object = cJSON_CreateObject();
    cJSON *list = cJSON_AddArrayToObject(object, "prompts");
    bool whole = list != NULL && cJSON_AddStringToObject(object, "event", "prompts") != NULL;
    for (const struct prompt *prompt = prompt_texts; prompt->name != NULL && whole; prompt++) {
        whole = record_file(search, prompt, "md", prompt->text, list, &recorded) &&
                (prompt->schema == NULL ||
                 record_file(search, prompt, "json", prompt->schema, list, &recorded));
    }
    *event = NULL;
    if (!whole || recorded) {
        cJSON_Delete(object);
        return whole ? STATUS_OK : mem_fail(err, MESSAGE_MAX_BYTES, "the record of prompts");
    }
    *event = object;
    return STATUS_OK;
}

/* ---- values ---- */

/* A value as it goes into the text: quoted if it is foreign, and how much of it. */
struct part {
    const struct prompt_value *value;
    char *text;
    size_t length, kept;
};

struct filling {
    const struct prompt *prompt;
    char *schema; /* on one line; NULL: none */
    struct part parts[VALUES_MAX];
    int count;
};

/* Bytes of a line end at `at` that some reader might take for one; 0: there is none. */
static size_t line_end_bytes(const unsigned char *at)
{
    if (at[0] == '\r' && at[1] == '\n') {
        return 2;
    }
    if (at[0] == '\n' || at[0] == '\r' || at[0] == '\v' || at[0] == '\f') {
        return 1;
    }
    if (at[0] == 0xC2 && at[1] == 0x85) {
        return 2;
    }
    return at[0] == 0xE2 && at[1] == 0x80 && (at[2] == 0xA8 || at[2] == 0xA9) ? 3 : 0;
}

/* Each line begins with a mark, so that none can look like the end of the quotation, or like ours.
 */
static void append_quoted(const char *text, struct buffer *out)
{
    bool fresh = true;
    const unsigned char *at = (const unsigned char *)text;
    while (*at != '\0') {
        if (fresh) {
            buffer_append_text(out, "| ");
            fresh = false;
        }
        size_t end = line_end_bytes(at);
        if (end > 0) {
            buffer_append_char(out, '\n');
            fresh = true;
            at += end;
            continue;
        }
        buffer_append_char(out, *at < 0x20 && *at != '\t' ? ' ' : (char)*at);
        at++;
    }
    if (!fresh) {
        buffer_append_char(out, '\n');
    }
}

static enum status prepare_part(const struct prompt_value *value, struct part *out,
                                struct error *err)
{
    const char *text = value->text != NULL ? value->text : "";
    size_t length = strlen(text);
    length = length < MESSAGE_MAX_BYTES ? length : MESSAGE_MAX_BYTES;
    char *valid = mem_calloc(3 * length + 1, 1);
    if (valid == NULL) {
        return mem_fail(err, 3 * length, "a value of a prompt");
    }
    text_repair(text, length, valid);
    struct buffer quoted;
    buffer_init(&quoted, 8 * (size_t)MESSAGE_MAX_BYTES);
    if (value->foreign) {
        append_quoted(valid, &quoted);
    } else {
        size_t bytes = strlen(valid);
        buffer_append(&quoted, valid, bytes - (bytes > 0 && valid[bytes - 1] == '\n'));
    }
    free(valid);
    buffer_append_text(&quoted, ""); /* so that there is a text, also an empty one */
    out->value = value;
    out->length = out->kept = quoted.len_bytes;
    out->text = buffer_take(&quoted);
    return out->text != NULL ? STATUS_OK : mem_fail(err, length, "a value of a prompt");
}

static int count_lines(const char *text, size_t length)
{
    int lines = 0;
    for (size_t i = 0; i < length; i++) {
        lines += text[i] == '\n' || i + 1 == length;
    }
    return lines;
}

static void append_part(const struct part *part, struct buffer *out)
{
    bool foreign = part->value->foreign;
    if (part->length == 0) {
        buffer_append_text(out, "(none)");
        return;
    }
    if (foreign) {
        buffer_printf(out, "<<< quoted data: %s\n", part->value->name);
    }
    buffer_append(out, part->text, part->kept);
    if (part->kept < part->length) {
        buffer_printf(out, "[cut to fit: %d of %d lines are not shown]%s",
                      count_lines(part->text + part->kept, part->length - part->kept),
                      count_lines(part->text, part->length), foreign ? "\n" : "");
    }
    if (foreign) {
        buffer_append_text(out, ">>>");
    }
}

/* ---- the text ---- */

static const struct part *find_part(const struct filling *filling, const char *name, size_t length)
{
    for (int i = 0; i < filling->count; i++) {
        const char *own = filling->parts[i].value->name;
        if (strlen(own) == length && memcmp(own, name, length) == 0) {
            return &filling->parts[i];
        }
    }
    return NULL;
}

/* Copies `length` bytes with their places filled, once: what a value holds is never looked at. */
static enum status append_filled(const struct filling *filling, const char *text, size_t length,
                                 struct buffer *out, struct error *err)
{
    const char *end = text + length;
    while (text < end) {
        const char *open = strstr(text, "{{");
        const char *close = open != NULL && open < end ? strstr(open, "}}") : NULL;
        if (close == NULL || close >= end) {
            buffer_append(out, text, (size_t)(end - text));
            break;
        }
        const struct part *part = find_part(filling, open + 2, (size_t)(close - open - 2));
        if (part == NULL) {
            return FAIL(err, STATUS_INTERNAL, "prompt %s: no value for {{%.*s}}",
                        filling->prompt->name, (int)(close - open - 2), open + 2);
        }
        buffer_append(out, text, (size_t)(open - text));
        append_part(part, out);
        text = close + 2;
    }
    return buffer_check(out, "a prompt", err);
}

/* The two messages, with as much of each value as is kept now. */
static enum status write_messages(const struct filling *filling, struct buffer *system,
                                  struct buffer *user, struct error *err)
{
    const char *body = body_of(filling->prompt);
    const char *user_part = strstr(body, USER_PART);
    size_t system_bytes = user_part != NULL ? (size_t)(user_part - body) : 0;
    const char *rest = user_part != NULL ? user_part + strlen(USER_PART) : body;
    buffer_clear(system);
    buffer_clear(user);
    TRY(append_filled(filling, body, system_bytes, system, err));
    if (filling->schema != NULL) {
        while (system->len_bytes > 0 && system->data[system->len_bytes - 1] == '\n') {
            system->data[--system->len_bytes] = '\0';
        }
        buffer_append_text(system, PROMPT_ASKS ", and with nothing else:\n");
        buffer_append_text(system, filling->schema);
    }
    TRY(buffer_check(system, "a prompt", err));
    return append_filled(filling, rest, strlen(rest), user, err);
}

/* The longest beginning of a part with at most `bytes` bytes that ends with a line. */
static size_t line_start(const struct part *part, size_t bytes)
{
    while (bytes > 0 && bytes < part->length && part->text[bytes - 1] != '\n') {
        bytes--;
    }
    return bytes;
}

static enum status measure(const struct filling *filling, struct buffer *system,
                           struct buffer *user, int64_t *tokens, struct error *err)
{
    TRY(write_messages(filling, system, user, err));
    *tokens = lm_estimate_tokens(buffer_text(system)) + lm_estimate_tokens(buffer_text(user));
    return STATUS_OK;
}

/* Keeps as much of a part as fits. */
static enum status cut_part(const struct filling *filling, struct part *part, int64_t max_tokens,
                            struct buffer *system, struct buffer *user, struct error *err)
{
    size_t fits = 0;
    size_t too_many = part->length;
    while (too_many - fits > 1) {
        size_t middle = fits + (too_many - fits) / 2;
        int64_t tokens = 0;
        part->kept = line_start(part, middle);
        TRY(measure(filling, system, user, &tokens, err));
        if (tokens <= max_tokens) {
            fits = middle;
        } else {
            too_many = middle;
        }
    }
    part->kept = line_start(part, fits);
    return STATUS_OK;
}

static struct part *next_to_cut(struct filling *filling)
{
    struct part *next = NULL;
    for (int i = 0; i < filling->count; i++) {
        struct part *part = &filling->parts[i];
        bool whole = part->value->trim > 0 && part->length > 0 && part->kept == part->length;
        if (whole && (next == NULL || part->value->trim > next->value->trim)) {
            next = part;
        }
    }
    return next;
}

static enum status fit(struct filling *filling, int64_t max_tokens, struct buffer *system,
                       struct buffer *user, struct error *err)
{
    int64_t tokens = 0;
    TRY(measure(filling, system, user, &tokens, err));
    while (tokens > max_tokens) {
        struct part *part = next_to_cut(filling);
        if (part == NULL) {
            return FAIL(err, STATUS_LIMIT,
                        "prompt %s: about %lld tokens are left when all is cut that may be, "
                        "allowed are %lld (researcher.prompt_tokens)",
                        filling->prompt->name, (long long)tokens, (long long)max_tokens);
        }
        TRY(cut_part(filling, part, max_tokens, system, user, err));
        TRY(measure(filling, system, user, &tokens, err));
    }
    return STATUS_OK;
}

/* ---- the body ---- */

static bool add_message(cJSON *messages, const char *role, const struct buffer *text)
{
    if (text->len_bytes == 0) {
        return true;
    }
    cJSON *message = cJSON_CreateObject();
    if (cJSON_AddStringToObject(message, "role", role) == NULL ||
        cJSON_AddStringToObject(message, "content", buffer_text(text)) == NULL ||
        !cJSON_AddItemToArray(messages, message)) {
        cJSON_Delete(message);
        return false;
    }
    return true;
}

static cJSON *make_body(const struct prompt *prompt, const struct buffer *system,
                        const struct buffer *user, cJSON *schema)
{
    cJSON *body = cJSON_CreateObject();
    cJSON *messages = cJSON_AddArrayToObject(body, "messages");
    bool whole = messages != NULL && add_message(messages, "system", system) &&
                 add_message(messages, "user", user);
    if (schema != NULL) {
        cJSON *copy = cJSON_Duplicate(schema, true);
        whole = whole && cJSON_AddStringToObject(body, "schema_name", prompt->name) != NULL &&
                cJSON_AddItemToObject(body, "schema", copy);
    }
    if (!whole) {
        cJSON_Delete(body);
        return NULL;
    }
    return body;
}

static enum status read_schema(const struct prompt *prompt, cJSON **schema, char **line,
                               struct error *err)
{
    if (prompt->schema == NULL) {
        return STATUS_OK;
    }
    struct error bad;
    if (json_parse(prompt->schema, strlen(prompt->schema), prompt->name, schema, &bad) !=
        STATUS_OK) {
        return FAIL(err, STATUS_INTERNAL, "the schema of a prompt: %.300s", bad.message);
    }
    *line = json_print_line(*schema);
    return *line != NULL ? STATUS_OK : mem_fail(err, strlen(prompt->schema), "a schema");
}

enum status prompt_fill(const struct prompt *prompt, const struct prompt_value *values, int count,
                        int64_t max_tokens, cJSON **body, struct error *err)
{
    enum status status = STATUS_OK;
    struct filling filling = {.prompt = prompt};
    cJSON *schema = NULL;
    struct buffer system;
    struct buffer user;
    buffer_init(&system, MESSAGE_MAX_BYTES);
    buffer_init(&user, 8 * (size_t)MESSAGE_MAX_BYTES); /* before it is cut */
    TRY_CLEANUP(read_schema(prompt, &schema, &filling.schema, err));
    if (count > VALUES_MAX) {
        status = FAIL(err, STATUS_INTERNAL, "prompt %s: %d values", prompt->name, count);
        goto cleanup;
    }
    for (int i = 0; i < count; i++) {
        TRY_CLEANUP(prepare_part(&values[i], &filling.parts[filling.count++], err));
    }
    TRY_CLEANUP(fit(&filling, max_tokens, &system, &user, err));
    *body = make_body(prompt, &system, &user, schema);
    status = *body != NULL ? STATUS_OK : mem_fail(err, user.len_bytes, "a prompt");
cleanup:
    for (int i = 0; i < filling.count; i++) {
        free(filling.parts[i].text);
    }
    free(filling.schema);
    cJSON_Delete(schema);
    buffer_fini(&system);
    buffer_fini(&user);
    return status;
}

int64_t prompt_tokens(const cJSON *body)
{
    int64_t tokens = 0;
    const cJSON *message = NULL;
    cJSON_ArrayForEach (message, cJSON_GetObjectItemCaseSensitive(body, "messages")) {
        const char *text =
            cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(message, "content"));
        tokens += text != NULL ? lm_estimate_tokens(text) : 0;
    }
    return tokens;
}
