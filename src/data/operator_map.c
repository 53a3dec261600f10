/* Renames, makes and drops fields. */
#include <stdlib.h>
#include <string.h>

#include "data/operators.h"
#include "data/text.h"

enum map_missing { MISSING_ERROR, MISSING_EMPTY, MISSING_DROP };
static const char *const missing_names[] = {"error", "empty", "drop", NULL};

struct map_args {
    const cJSON *rename; /* {"old": "new"} */
    const cJSON *set;    /* {"field": template, or any other JSON as it is} */
    const cJSON *drop;   /* ["field"] */
    enum map_missing missing;
};

static struct map_args read_args(struct json_reader *args)
{
    struct map_args out;
    out.rename = json_read_object(args, "rename");
    out.set = json_read_object(args, "set");
    out.drop = json_read_array(args, "drop");
    out.missing = (enum map_missing)json_read_choice(args, "missing", missing_names, MISSING_ERROR);
    return out;
}

void operator_map_check(struct json_reader *args)
{
    struct map_args map = read_args(args);
    char pointer[JSON_POINTER_BYTES];
    const cJSON *item = NULL;
    operator_check_fields(args, "rename", map.rename);
    operator_check_fields(args, "set", map.set);
    operator_check_fields(args, "drop", map.drop);
    json_reader_pointer(args, "rename", pointer);
    cJSON_ArrayForEach (item, map.rename) {
        if (!cJSON_IsString(item) || item->valuestring[0] == '\0') {
            json_problems_add(args->problems, pointer, "\"%.60s\" must become a name, as a string",
                              item->string);
        }
    }
    json_reader_pointer(args, "drop", pointer);
    cJSON_ArrayForEach (item, map.drop) {
        if (!cJSON_IsString(item)) {
            json_problems_add(args->problems, pointer, "allowed is a list of names of fields");
            break;
        }
    }
    cJSON_ArrayForEach (item, map.set) {
        struct json_reader place = {.problems = args->problems};
        json_reader_pointer(args, "set", place.pointer);
        json_reader_pointer(&place, item->string, pointer);
        if (cJSON_IsString(item)) {
            text_template_check(item->valuestring, pointer, args->problems);
        }
    }
    if (map.rename == NULL && map.set == NULL && map.drop == NULL) {
        json_problems_add(args->problems, args->pointer,
                          "map does nothing; needed is rename, set or drop");
    }
}

static enum status put(cJSON *object, const char *name, cJSON *value, struct error *err)
{
    if (value == NULL) {
        return FAIL(err, STATUS_NO_MEMORY, "no memory for field \"%s\"", name);
    }
    bool exists =
        cJSON_HasObjectItem(object, name) && cJSON_GetObjectItemCaseSensitive(object, name) != NULL;
    bool good = exists ? cJSON_ReplaceItemInObjectCaseSensitive(object, name, value)
                       : cJSON_AddItemToObject(object, name, value);
    if (!good) {
        cJSON_Delete(value);
        return FAIL(err, STATUS_NO_MEMORY, "no memory for field \"%s\"", name);
    }
    return STATUS_OK;
}

struct fill_scope {
    const cJSON *row;
    const char *separator;
    bool empty_if_missing;
};

static enum status look_up(void *context, const char *name, struct buffer *out, bool *found,
                           struct error *err)
{
    const struct fill_scope *scope = context;
    TRY(text_append_field(scope->row, name, scope->separator, out, found, err));
    *found = *found || scope->empty_if_missing;
    return STATUS_OK;
}

/* About so much memory a copy takes. */
static size_t value_bytes(const cJSON *value)
{
    size_t bytes = sizeof(*value);
    bytes += cJSON_IsString(value) ? strlen(value->valuestring) : 0;
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, value) {
        bytes += value_bytes(item);
    }
    return bytes;
}

/* One field of "set". All templates see the row as it was before, so `before` is not `object`. */
static enum status set_field(struct operator_run *run, const struct fill_scope *scope,
                             const cJSON *item, cJSON *object, struct error *err)
{
    if (!cJSON_IsString(item)) {
        TRY(operator_count_text(run, value_bytes(item), err));
        return put(object, item->string, cJSON_Duplicate(item, true), err);
    }
    struct fill_scope context = *scope;
    struct buffer text;
    buffer_init(&text, TEXT_MAX_BYTES);
    char missing[TEXT_NAME_BYTES] = "";
    enum status status =
        text_template_fill(item->valuestring, look_up, &context, &text, missing, err);
    if (status == STATUS_NOT_FOUND) {
        text_fail_missing(scope->row, missing, err);
    }
    if (status == STATUS_OK) {
        status = operator_count_text(run, text.len_bytes, err);
    }
    if (status == STATUS_OK) {
        status = put(object, item->string, cJSON_CreateString(buffer_text(&text)), err);
    }
    buffer_fini(&text);
    return status;
}

static enum status rename_fields(const cJSON *rename, cJSON *object, struct error *err)
{
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, rename) {
        cJSON *value = cJSON_DetachItemFromObjectCaseSensitive(object, item->string);
        if (value != NULL) {
            TRY(put(object, item->valuestring, value, err));
        }
    }
    return STATUS_OK;
}

/* STATUS_NOT_FOUND if a template's field is missing. */
static enum status map_row(struct operator_run *run, const struct map_args *map, cJSON *object,
                           struct error *err)
{
    TRY(rename_fields(map->rename, object, err));
    if (map->set != NULL) {
        cJSON *before = cJSON_Duplicate(object, true);
        if (before == NULL) {
            return FAIL(err, STATUS_NO_MEMORY, "no memory for a row");
        }
        struct fill_scope scope = {before, run->context->task->separator,
                                   map->missing == MISSING_EMPTY};
        enum status status = STATUS_OK;
        const cJSON *item = NULL;
        cJSON_ArrayForEach (item, map->set) {
            status = set_field(run, &scope, item, object, err);
            if (status != STATUS_OK) {
                break;
            }
        }
        cJSON_Delete(before);
        TRY(status);
    }
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, map->drop) {
        cJSON_DeleteItemFromObjectCaseSensitive(object, item->valuestring);
    }
    return STATUS_OK;
}

enum status operator_map_run(struct operator_run *run, struct json_reader *args,
                             struct row_list *rows, struct error *err)
{
    struct map_args map = read_args(args);
    uint8_t *marks = operator_marks(rows, err);
    enum status status = marks != NULL ? STATUS_OK : STATUS_NO_MEMORY;
    for (int64_t i = 0; i < rows->count && status == STATUS_OK; i++) {
        cJSON *object = row_list_own(rows, i, err);
        status = object != NULL ? map_row(run, &map, object, err) : STATUS_NO_MEMORY;
        marks[i] = status == STATUS_OK;
        if (status == STATUS_NOT_FOUND && map.missing == MISSING_DROP) {
            status = STATUS_OK;
        } else if (status != STATUS_OK) {
            operator_row_context(err, rows->rows[i]);
        }
    }
    if (status == STATUS_OK) {
        int64_t removed = row_list_keep(rows, marks);
        operator_note(run, removed > 0 ? "removed %lld rows that lack a field" : "changed all rows",
                      (long long)removed);
    }
    free(marks);
    return status == STATUS_NOT_FOUND ? STATUS_INVALID : status;
}
