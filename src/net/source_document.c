#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "net/source_service.h"

enum {
    TITLE_BYTES = 300,
    CELL_BYTES = 300,
    CELLS_MAX = 8, /* of a list in a cell, and of a level of an object */
    LEVELS_MAX = 4,
    SAMPLES_MAX = 5,
    SAMPLES_BYTES = 4096
};

/* ---- documents ---- */

static bool is_there(const cJSON *documents, const char *id)
{
    const cJSON *document = NULL;
    cJSON_ArrayForEach (document, documents) {
        if (strcmp(source_string(document, "id"), id) == 0) {
            return true;
        }
    }
    return false;
}

/* False without memory. */
static bool add_clean(cJSON *object, const char *key, const char *text, bool lines,
                      size_t max_bytes)
{
    struct buffer cleaned;
    buffer_init(&cleaned, max_bytes + 1);
    source_clean(text, lines, max_bytes, &cleaned);
    bool added =
        !cleaned.failed && cJSON_AddStringToObject(object, key, buffer_text(&cleaned)) != NULL;
    buffer_fini(&cleaned);
    return added;
}

enum status source_add(enum source_index source, const struct source_document *document, int count,
                       cJSON *documents, cJSON **added, struct error *err)
{
    if (cJSON_GetArraySize(documents) >= count) { /* a body may list a million more */
        if (added != NULL) {
            *added = NULL;
        }
        return STATUS_OK;
    }
    const struct source_info *info = &source_list()[source];
    const char *kind = info->kind == SOURCE_LITERATURE ? "literature" : "data";
    const char *text = document->text != NULL ? document->text : "";
    cJSON *object = cJSON_CreateObject();
    bool whole =
        cJSON_AddStringToObject(object, "kind", kind) != NULL &&
        cJSON_AddStringToObject(object, "source", info->name) != NULL &&
        add_clean(object, "id", document->id, false, SOURCE_ID_BYTES) &&
        add_clean(object, "title", document->title, false, TITLE_BYTES) &&
        cJSON_AddStringToObject(object, "url", document->url) != NULL &&
        (document->year == 0 || cJSON_AddNumberToObject(object, "year", document->year) != NULL) &&
        cJSON_AddStringToObject(object, "licence", document->licence) != NULL &&
        add_clean(object, "text", text, document->lines, document->text_bytes);
    const char *id = source_string(object, "id");
    bool wanted =
        id[0] != '\0' && source_string(object, "title")[0] != '\0' && !is_there(documents, id);
    bool kept = whole && wanted && cJSON_AddItemToArray(documents, object);
    if (!kept) {
        cJSON_Delete(object);
    }
    if (added != NULL) {
        *added = kept ? object : NULL;
    }
    return whole ? STATUS_OK : mem_fail(err, document->text_bytes, "a document");
}

void source_copy_integer(const cJSON *from, const char *key, cJSON *document, const char *name)
{
    int64_t value = source_integer(from, key, -1);
    if (document != NULL && value >= 0) {
        cJSON_AddNumberToObject(document, name, (double)value);
    }
}

enum status source_read_list(const char *name, const char *key, source_add_entry add,
                             const char *body, size_t len_bytes, int count, cJSON *documents,
                             struct error *err)
{
    cJSON *json = NULL;
    TRY(source_parse_json(name, body, len_bytes, &json, err));
    const cJSON *list = key == NULL ? json : cJSON_GetObjectItemCaseSensitive(json, key);
    bool none = key != NULL && source_integer(json, "total", -1) == 0;
    enum status status = STATUS_OK;
    if (!cJSON_IsArray(list) && !none) {
        status = FAIL(err, STATUS_FORMAT, "%s sent JSON %s%s", name,
                      key == NULL ? "that is no list" : "without a list ", key == NULL ? "" : key);
    }
    const cJSON *entry = NULL;
    cJSON_ArrayForEach (entry, list) {
        if (status == STATUS_OK) {
            status = add(entry, count, documents, err);
        }
    }
    cJSON_Delete(json);
    return status;
}

enum status source_print(const cJSON *documents, char **out, struct error *err)
{
    struct buffer text;
    buffer_init(&text, SOURCE_ANSWER_MAX_BYTES - 1);
    buffer_append_text(&text, "{\"documents\":[");
    const cJSON *document = NULL;
    bool first = true;
    cJSON_ArrayForEach (document, documents) {
        char *line = json_print_line(document);
        if (line == NULL) {
            buffer_fini(&text);
            return mem_fail(err, SOURCE_ANSWER_MAX_BYTES, "an answer");
        }
        bool fits = text.len_bytes + strlen(line) + 3 <= text.max_bytes;
        if (fits) {
            buffer_append_text(&text, first ? "" : ",");
            buffer_append_text(&text, line);
        }
        free(line);
        first = false;
        if (!fits) {
            break;
        }
    }
    buffer_append_text(&text, "]}");
    *out = buffer_take(&text);
    return *out != NULL ? STATUS_OK : mem_fail(err, SOURCE_ANSWER_MAX_BYTES, "an answer");
}

/* ---- samples ---- */

/* A copy with texts cut, long lists and deep values left out. NULL without memory. */
static cJSON *cut_value(const cJSON *value, int level, struct buffer *scratch)
{
    if (cJSON_IsString(value)) {
        buffer_clear(scratch);
        source_clean(value->valuestring, true, CELL_BYTES, scratch);
        return cJSON_CreateString(buffer_text(scratch));
    }
    if (!cJSON_IsArray(value) && !cJSON_IsObject(value)) {
        return cJSON_Duplicate(value, false);
    }
    cJSON *copy = cJSON_IsArray(value) ? cJSON_CreateArray() : cJSON_CreateObject();
    const cJSON *item = NULL;
    int count = 0;
    cJSON_ArrayForEach (item, value) {
        if (level >= LEVELS_MAX || (level > 0 && count >= CELLS_MAX) || count >= 4 * CELLS_MAX) {
            break;
        }
        cJSON *cut = cut_value(item, level + 1, scratch);
        if (cJSON_IsArray(value)) {
            cJSON_AddItemToArray(copy, cut);
        } else {
            buffer_clear(scratch);
            source_clean(item->string, false, CELL_BYTES / 3, scratch);
            cJSON_AddItemToObject(copy, buffer_text(scratch), cut);
        }
        count++;
    }
    return copy;
}

enum status source_add_samples(cJSON *document, const cJSON *rows, struct error *err)
{
    cJSON *samples = cJSON_AddArrayToObject(document, "samples");
    if (samples == NULL) {
        return mem_fail(err, sizeof(*samples), "samples");
    }
    struct buffer scratch;
    buffer_init(&scratch, CELL_BYTES + 64);
    size_t used = 0;
    const cJSON *row = NULL;
    cJSON_ArrayForEach (row, rows) {
        if (!cJSON_IsObject(row) || cJSON_GetArraySize(samples) >= SAMPLES_MAX) {
            continue;
        }
        cJSON *cut = cut_value(row, 0, &scratch);
        char *line = cut != NULL ? json_print_line(cut) : NULL;
        used += line != NULL ? strlen(line) : SAMPLES_BYTES;
        free(line);
        if (used > SAMPLES_BYTES) {
            cJSON_Delete(cut);
            break;
        }
        cJSON_AddItemToArray(samples, cut);
    }
    buffer_fini(&scratch);
    return STATUS_OK;
}

/* ---- cards ---- */

static bool starts_line(const char *text, const char *word, const char **rest)
{
    size_t length = strlen(word);
    if (strncmp(text, word, length) != 0) {
        return false;
    }
    *rest = text + length;
    return true;
}

/* The bytes of a line without white space and quotes around them; an empty line gives 0. */
static size_t trim_line(const char **text)
{
    size_t length = strcspn(*text, "\r\n");
    while (length > 0 && strchr(" \t\"'", **text) != NULL) {
        (*text)++;
        length--;
    }
    while (length > 0 && strchr(" \t\"'", (*text)[length - 1]) != NULL) {
        length--;
    }
    return length;
}

static const char *next_line(const char *text)
{
    const char *end = strchr(text, '\n');
    return end != NULL ? end + 1 : text + strlen(text);
}

static void add_text(cJSON *list, const char *text, size_t length)
{
    char item[256];
    if (length > 0) {
        snprintf(item, sizeof(item), "%.*s", (int)(length < 255 ? length : 255), text);
        cJSON_AddItemToArray(list, cJSON_CreateString(item));
    }
}

/* "license: mit", "license: [mit, cc-by-4.0]", or a list "- mit" on the lines below. */
static void read_licence(const char *value, char out[SOURCE_LICENCE_BYTES])
{
    cJSON *list = cJSON_CreateArray();
    const char *line = value;
    size_t length = trim_line(&line);
    if (length > 1 && line[0] == '[' && line[length - 1] == ']') {
        for (const char *at = line + 1; at < line + length - 1;) {
            size_t item = strcspn(at, ",]");
            const char *text = at;
            while (item > 0 && strchr(" \"'", *text) != NULL) {
                text++;
                item--;
            }
            at = text + item + 1;
            while (item > 0 && strchr(" \"'", text[item - 1]) != NULL) {
                item--;
            }
            add_text(list, text, item);
        }
    } else if (length > 0) {
        add_text(list, line, length);
    } else {
        for (line = next_line(value); cJSON_GetArraySize(list) < 16;) {
            const char *next = next_line(line);
            length = trim_line(&line);
            if (length < 2 || line[0] != '-' || line[1] != ' ') {
                break;
            }
            line += 2;
            length = trim_line(&line);
            add_text(list, line, length);
            line = next;
        }
    }
    source_licences(list, out);
    cJSON_Delete(list);
}

static void set_title(const char *text, struct source_card *out)
{
    struct buffer title;
    char line[sizeof(out->title)];
    size_t length = trim_line(&text);
    snprintf(line, sizeof(line), "%.*s", (int)(length < 255 ? length : 255), text);
    buffer_init(&title, sizeof(out->title));
    source_clean(line, false, sizeof(out->title) - 1, &title);
    snprintf(out->title, sizeof(out->title), "%s", buffer_text(&title));
    buffer_fini(&title);
}

/* Reads the head; returns where the text begins: after it, or at the front if it has no end. */
static const char *read_head(const char *text, struct source_card *out)
{
    const char *line = next_line(text);
    const char *rest = NULL;
    while (*line != '\0' && !(starts_line(line, "---", &rest) && strcspn(rest, "\r\n \t") == 0)) {
        if (starts_line(line, "license:", &rest) || starts_line(line, "licence:", &rest)) {
            read_licence(rest, out->licence);
        } else if (starts_line(line, "pretty_name:", &rest)) {
            set_title(rest, out);
        }
        line = next_line(line);
    }
    if (*line == '\0') {
        memset(out, 0, sizeof(*out));
        return text;
    }
    return next_line(line);
}

void source_read_card(const char *text, struct source_card *out)
{
    memset(out, 0, sizeof(*out));
    if (strncmp(text, "\xEF\xBB\xBF", 3) == 0) {
        text += 3;
    }
    const char *rest = NULL;
    bool head = starts_line(text, "---", &rest) && strcspn(rest, "\r\n \t") == 0;
    out->text = head ? read_head(text, out) : text;
    for (const char *line = out->text; *line != '\0' && out->title[0] == '\0';
         line = next_line(line)) {
        if (starts_line(line, "# ", &rest)) {
            set_title(rest, out);
        }
    }
}
