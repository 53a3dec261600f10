#include "net/script.h"

#include <ctype.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buffer.h"
#include "base/file.h"
#include "base/mem.h"

enum { REPLY_MAX_BYTES = 64 << 20, DEPTH_MAX = 16 };

/* ---- faults ---- */

static const char *const known_faults[] = {
    "http",  "close",   "cut",      "stall",   "delay",  "slow",     "endless",
    "huge",  "file",    "say",      "empty",   "length", "refuse",   "error",
    "html",  "garbage", "chunks",   "gzip",    "nul",    "no_usage", "usage",
    "whole", "echo",    "redirect", "unicode", "done",   "think",    NULL,
};

static bool is_known(const char *what)
{
    for (const char *const *known = known_faults; *known != NULL; known++) {
        if (strcmp(what, *known) == 0) {
            return true;
        }
    }
    return false;
}

/* "plan:2", "plan:2-4", "plan:*", "7" or "*". */
static bool read_when(const char *text, struct script_fault *fault)
{
    const char *colon = strrchr(text, ':');
    const char *number = colon != NULL ? colon + 1 : text;
    snprintf(fault->name, sizeof(fault->name), "%.*s", colon != NULL ? (int)(colon - text) : 1,
             colon != NULL ? text : "*");
    if (strcmp(number, "*") == 0) {
        fault->first = 1;
        fault->last = INT64_MAX;
        return true;
    }
    char *end = NULL;
    fault->first = fault->last = strtoll(number, &end, 10);
    if (*end == '-') {
        fault->last = end[1] != '\0' ? strtoll(end + 1, &end, 10) : INT64_MAX;
        end = fault->last == INT64_MAX ? strchr(end, '\0') : end;
    }
    return end != number && *end == '\0' && fault->first > 0;
}

static enum status read_fault(struct script *script, const char *path, char *line,
                              struct error *err)
{
    struct script_fault fault = {.name = "*"};
    char *rest = NULL;
    char *when = strtok_r(line, " \t\r", &rest);
    char *what = when != NULL ? strtok_r(NULL, "\r", &rest) : NULL;
    what = what != NULL ? what + strspn(what, " \t") : NULL;
    if (when == NULL || when[0] == '#') {
        return STATUS_OK;
    }
    char *argument = what != NULL ? strchr(what, '=') : NULL;
    if (argument != NULL) {
        *argument = '\0';
        snprintf(fault.argument, sizeof(fault.argument), "%s", argument + 1);
    }
    if (what == NULL || !is_known(what) || !read_when(when, &fault)) {
        return FAIL(err, STATUS_INVALID, "%s: no fault: %.60s %.60s", path, when,
                    what != NULL ? what : "");
    }
    if (script->fault_count == SCRIPT_FAULTS_MAX) {
        return FAIL(err, STATUS_LIMIT, "%s: more than %d faults", path, SCRIPT_FAULTS_MAX);
    }
    snprintf(fault.what, sizeof(fault.what), "%s", what);
    script->faults[script->fault_count++] = fault;
    return STATUS_OK;
}

enum status script_read_faults(struct script *script, const char *path, struct error *err)
{
    struct buffer text;
    buffer_init(&text, REPLY_MAX_BYTES);
    enum status status = STATUS_OK;
    TRY_CLEANUP(file_read(path, &text, err));
    char *rest = text.data;
    for (char *line = NULL; (line = strsep(&rest, "\n")) != NULL;) {
        TRY_CLEANUP(read_fault(script, path, line, err));
    }
cleanup:
    buffer_fini(&text);
    return status;
}

const struct script_fault *script_find_fault(const struct script *script, const char *name,
                                             int64_t nth, int64_t n)
{
    for (int i = 0; i < script->fault_count; i++) {
        const struct script_fault *fault = &script->faults[i];
        bool is_any = strcmp(fault->name, "*") == 0;
        int64_t number = is_any ? n : nth;
        if ((is_any || strcmp(fault->name, name) == 0) && number >= fault->first &&
            number <= fault->last) {
            return fault;
        }
    }
    return NULL;
}

/* ---- names ---- */

static const char *message_text(const cJSON *request, const char *role)
{
    const char *found = "";
    const cJSON *message = NULL;
    cJSON_ArrayForEach (message, cJSON_GetObjectItem(request, "messages")) {
        const char *its_role = cJSON_GetStringValue(cJSON_GetObjectItem(message, "role"));
        const char *content = cJSON_GetStringValue(cJSON_GetObjectItem(message, "content"));
        if (its_role != NULL && strcmp(its_role, role) == 0 && content != NULL) {
            found = content;
        }
    }
    return found;
}

static const cJSON *schema_of(const cJSON *request)
{
    return cJSON_GetObjectItem(cJSON_GetObjectItem(request, "response_format"), "json_schema");
}

void script_name(const cJSON *request, char name[64])
{
    static const char mark[] = "Task: ";
    const char *named = cJSON_GetStringValue(cJSON_GetObjectItem(schema_of(request), "name"));
    if (named == NULL) {
        const char *system = message_text(request, "system");
        const char *line = strstr(system, mark);
        while (line != NULL && line != system && line[-1] != '\n') {
            line = strstr(line + 1, mark);
        }
        named = line != NULL ? line + sizeof(mark) - 1 : "";
    }
    snprintf(name, 64, "%.*s", (int)strcspn(named, " \t\r\n/."), named);
}

int64_t script_count(struct script *script, const char *name)
{
    for (int i = 0; i < script->name_count; i++) {
        if (strcmp(script->names[i].name, name) == 0) {
            return ++script->names[i].asked;
        }
    }
    if (script->name_count < SCRIPT_NAMES_MAX) {
        snprintf(script->names[script->name_count].name, 64, "%s", name);
        script->names[script->name_count++].asked = 1;
    }
    return 1;
}

/* ---- a reply from a file ---- */

/* First match of a POSIX expression in the prompt, its first group if it has one. */
static void put_match(struct buffer *out, const char *expression, const char *prompt)
{
    regex_t compiled;
    regmatch_t match[2];
    if (regcomp(&compiled, expression, REG_EXTENDED | REG_NEWLINE) != 0) {
        return;
    }
    if (regexec(&compiled, prompt, 2, match, 0) == 0) {
        int group = match[1].rm_so >= 0 ? 1 : 0;
        buffer_append(out, prompt + match[group].rm_so,
                      (size_t)(match[group].rm_eo - match[group].rm_so));
    }
    regfree(&compiled);
}

static void put_place(struct buffer *out, const char *place, const cJSON *request, int64_t nth)
{
    if (strcmp(place, "n") == 0) {
        buffer_printf(out, "%lld", (long long)nth);
    } else if (strncmp(place, "pick ", 5) == 0) {
        /* One of several, in turn. */
        char *choices[64];
        int count = 0;
        char *copy = mem_strdup(place + 5);
        for (char *rest = copy, *one = NULL; count < 64 && (one = strsep(&rest, "|")) != NULL;) {
            choices[count++] = one;
        }
        buffer_append_text(out, choices[(nth - 1) % count]);
        free(copy);
    } else if (strncmp(place, "find ", 5) == 0) {
        put_match(out, place + 5, message_text(request, "user"));
    }
}

static char *fill_places(const char *text, const cJSON *request, int64_t nth)
{
    struct buffer out;
    buffer_init(&out, REPLY_MAX_BYTES);
    while (*text != '\0') {
        const char *begin = strstr(text, "{{");
        const char *end = begin != NULL ? strstr(begin, "}}") : NULL;
        if (end == NULL) {
            break;
        }
        buffer_append(&out, text, (size_t)(begin - text));
        char *place = mem_strndup(begin + 2, (size_t)(end - begin - 2));
        bool is_place = strcmp(place, "n") == 0 || strncmp(place, "pick ", 5) == 0 ||
                        strncmp(place, "find ", 5) == 0;
        if (is_place) {
            put_place(&out, place, request, nth);
            text = end + 2;
        } else {
            buffer_append_text(&out, "{{");
            text = begin + 2;
        }
        free(place);
    }
    buffer_append_text(&out, text);
    return buffer_take(&out);
}

static bool is_folder(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

char *script_file(const struct script *script, const cJSON *request, const char *file, int64_t nth)
{
    char path[4096];
    snprintf(path, sizeof(path), "%s/%s", script->replies != NULL ? script->replies : ".", file);
    struct buffer text;
    buffer_init(&text, REPLY_MAX_BYTES);
    char *reply = NULL;
    if (file_read(path, &text, NULL) == STATUS_OK) {
        reply = fill_places(buffer_text(&text), request, nth);
    }
    buffer_fini(&text);
    return reply;
}

/* A single file for all: {"plan": [reply, ...], ...}; the last of a list stays. */
static char *reply_from_file(const struct script *script, const cJSON *request, const char *name,
                             int64_t nth)
{
    struct buffer text;
    buffer_init(&text, REPLY_MAX_BYTES);
    char *reply = NULL;
    cJSON *all = NULL;
    if (file_read(script->replies, &text, NULL) == STATUS_OK) {
        all = cJSON_Parse(buffer_text(&text));
    }
    const cJSON *found = cJSON_GetObjectItem(all, name);
    if (cJSON_IsArray(found)) {
        int count = cJSON_GetArraySize(found);
        found = cJSON_GetArrayItem(found, (int)(nth < count ? nth : count) - 1);
    }
    if (found != NULL) {
        char *printed =
            cJSON_IsString(found) ? mem_strdup(found->valuestring) : cJSON_PrintUnformatted(found);
        reply = fill_places(printed, request, nth);
        free(printed);
    }
    cJSON_Delete(all);
    buffer_fini(&text);
    return reply;
}

/* ---- a reply from its schema ---- */

static cJSON *make_value(const cJSON *schema, int64_t nth, int depth);

static cJSON *make_object(const cJSON *schema, int64_t nth, int depth)
{
    cJSON *object = cJSON_CreateObject();
    const cJSON *property = NULL;
    cJSON_ArrayForEach (property, cJSON_GetObjectItem(schema, "properties")) {
        cJSON_AddItemToObject(object, property->string, make_value(property, nth, depth + 1));
    }
    return object;
}

static cJSON *make_array(const cJSON *schema, int64_t nth, int depth)
{
    cJSON *array = cJSON_CreateArray();
    const cJSON *least = cJSON_GetObjectItem(schema, "minItems");
    int count = least != NULL ? least->valueint : 1;
    for (int i = 0; i < count; i++) {
        cJSON_AddItemToArray(array,
                             make_value(cJSON_GetObjectItem(schema, "items"), nth + i, depth + 1));
    }
    return array;
}

/* The least that a schema asks for. */
static cJSON *make_value(const cJSON *schema, int64_t nth, int depth)
{
    const cJSON *choices = cJSON_GetObjectItem(schema, "enum");
    const cJSON *variants = cJSON_GetObjectItem(schema, "anyOf");
    const char *type = cJSON_GetStringValue(cJSON_GetObjectItem(schema, "type"));
    const cJSON *least = cJSON_GetObjectItem(schema, "minimum");
    if (depth > DEPTH_MAX) {
        return cJSON_CreateNull();
    }
    if (choices != NULL) {
        return cJSON_Duplicate(cJSON_GetArrayItem(choices, 0), true);
    }
    if (variants != NULL) {
        return make_value(cJSON_GetArrayItem(variants, 0), nth, depth + 1);
    }
    if (type == NULL || strcmp(type, "string") == 0) {
        char text[64];
        snprintf(text, sizeof(text), "text %lld", (long long)nth);
        return cJSON_CreateString(text);
    }
    if (strcmp(type, "object") == 0) {
        return make_object(schema, nth, depth);
    }
    if (strcmp(type, "array") == 0) {
        return make_array(schema, nth, depth);
    }
    if (strcmp(type, "boolean") == 0) {
        return cJSON_CreateFalse();
    }
    return cJSON_CreateNumber(least != NULL ? least->valuedouble : 1);
}

char *script_reply(const struct script *script, const cJSON *request, const char *name, int64_t nth)
{
    char *reply = NULL;
    if (script->replies != NULL && !is_folder(script->replies)) {
        reply = reply_from_file(script, request, name, nth);
    } else if (script->replies != NULL) {
        char file[128];
        snprintf(file, sizeof(file), "%s.%lld.json", name, (long long)nth);
        reply = script_file(script, request, file, nth);
        if (reply == NULL) {
            snprintf(file, sizeof(file), "%s.json", name);
            reply = script_file(script, request, file, nth);
        }
    }
    const cJSON *schema = cJSON_GetObjectItem(schema_of(request), "schema");
    if (reply == NULL && schema != NULL) {
        cJSON *value = make_value(schema, nth, 0);
        reply = cJSON_PrintUnformatted(value);
        cJSON_Delete(value);
    }
    return reply;
}
