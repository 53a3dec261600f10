/* A part of one field, found by a regular expression, becomes another field. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "data/operators.h"
#include "data/pattern.h"
#include "data/text.h"

enum extract_missing { MISSING_EMPTY, MISSING_DROP, MISSING_ERROR };
static const char *const missing_names[] = {"empty", "drop", "error", NULL};

enum { GROUP_MAX = 99 };

struct extract_args {
    const char *field;
    const char *pattern;
    const char *into;
    int group;
    bool ignore_case;
    enum extract_missing missing;
};

static struct extract_args read_args(struct json_reader *args)
{
    struct extract_args out;
    out.field = json_read_string(args, "field", "prompt");
    json_require(args, "pattern", "a regular expression");
    out.pattern = json_read_string(args, "pattern", "()");
    json_require(args, "into", "the name of the new field");
    out.into = json_read_string(args, "into", "");
    out.group = (int)json_read_int(args, "group", 1, 0, GROUP_MAX);
    out.ignore_case = json_read_bool(args, "ignore_case", false);
    out.missing =
        (enum extract_missing)json_read_choice(args, "missing", missing_names, MISSING_EMPTY);
    return out;
}

void operator_extract_check(struct json_reader *args)
{
    struct extract_args extract = read_args(args);
    char pointer[JSON_POINTER_BYTES];
    json_reader_pointer(args, "pattern", pointer);
    pattern_check(extract.pattern, extract.ignore_case, extract.group, pointer, args->problems);
}

/* The value on the heap; NULL with STATUS_OK if there is no match. */
static enum status find_value(const struct extract_args *extract, const struct pattern *pattern,
                              const char *separator, const cJSON *row, char **out,
                              struct error *err)
{
    struct buffer text;
    buffer_init(&text, TEXT_MAX_BYTES);
    bool found = false;
    struct pattern_span span = {0, 0};
    enum status status = text_append_field(row, extract->field, separator, &text, &found, err);
    if (status == STATUS_OK) {
        status = buffer_check(&text, extract->field, err);
    }
    if (status == STATUS_OK && found) {
        status = pattern_search(pattern, buffer_text(&text), text.len_bytes, extract->group, &found,
                                &span, err);
    }
    *out = NULL;
    if (status == STATUS_OK && found) {
        *out = mem_strndup(buffer_text(&text) + span.start, span.length);
        status = *out != NULL ? STATUS_OK : mem_fail(err, span.length, "an extracted field");
    }
    buffer_fini(&text);
    return status;
}

static enum status put_value(struct row_list *rows, int64_t i, const char *into, const char *value,
                             struct error *err)
{
    cJSON *object = row_list_own(rows, i, err);
    if (object == NULL) {
        return STATUS_NO_MEMORY;
    }
    cJSON_DeleteItemFromObjectCaseSensitive(object, into);
    if (cJSON_AddStringToObject(object, into, value) == NULL) {
        return FAIL(err, STATUS_NO_MEMORY, "no memory for field \"%s\"", into);
    }
    return STATUS_OK;
}

static enum status extract_row(struct operator_run *run, const struct extract_args *extract,
                               const struct pattern *pattern, struct row_list *rows, int64_t i,
                               bool *matched, struct error *err)
{
    char *value = NULL;
    TRY(find_value(extract, pattern, run->context->task->separator, rows->rows[i]->row.object,
                   &value, err));
    *matched = value != NULL;
    enum status status = operator_count_text(run, *matched ? strlen(value) : 0, err);
    if (status != STATUS_OK) {
        /* told already */
    } else if (*matched || extract->missing == MISSING_EMPTY) {
        status = put_value(rows, i, extract->into, *matched ? value : "", err);
    } else if (extract->missing == MISSING_ERROR) {
        status = FAIL(err, STATUS_INVALID, "field \"%s\" does not match \"%.80s\"", extract->field,
                      extract->pattern);
    }
    free(value);
    return status;
}

enum status operator_extract_run(struct operator_run *run, struct json_reader *args,
                                 struct row_list *rows, struct error *err)
{
    struct extract_args extract = read_args(args);
    struct pattern *pattern = NULL;
    int64_t matches = 0;
    enum status status = STATUS_OK;
    uint8_t *marks = NULL;
    TRY_CLEANUP(pattern_compile(extract.pattern, extract.ignore_case, &pattern, err));
    marks = operator_marks(rows, err);
    status = marks != NULL ? STATUS_OK : STATUS_NO_MEMORY;
    for (int64_t i = 0; i < rows->count && status == STATUS_OK; i++) {
        bool matched = false;
        status = extract_row(run, &extract, pattern, rows, i, &matched, err);
        if (status != STATUS_OK) {
            operator_row_context(err, rows->rows[i]);
        }
        matches += matched;
        marks[i] = matched || extract.missing == MISSING_EMPTY;
    }
    if (status == STATUS_OK) {
        operator_note(run, "%lld of %lld rows match", (long long)matches, (long long)rows->count);
        row_list_keep(rows, marks);
    }
cleanup:
    free(marks);
    pattern_destroy(pattern);
    return status;
}
