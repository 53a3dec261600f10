/* Rows by a regular expression or by the value of a field. */
#include <stdlib.h>
#include <string.h>

#include "data/operators.h"
#include "data/pattern.h"
#include "data/text.h"

struct filter_args {
    const char *field;
    const char *include; /* regular expressions, or NULL */
    const char *exclude;
    bool ignore_case;
    const cJSON *equals; /* a value or a list of them, or NULL */
    const cJSON *not_equals;
};

static struct filter_args read_args(struct json_reader *args)
{
    struct filter_args out;
    json_require(args, "field", "the name of a field");
    out.field = json_read_string(args, "field", "");
    out.include = json_read_string(args, "include", NULL);
    out.exclude = json_read_string(args, "exclude", NULL);
    out.ignore_case = json_read_bool(args, "ignore_case", false);
    out.equals = json_read_any(args, "equals");
    out.not_equals = json_read_any(args, "not_equals");
    return out;
}

static void check_pattern(struct json_reader *args, const char *key, const char *pattern,
                          bool ignore_case)
{
    if (pattern != NULL) {
        char pointer[JSON_POINTER_BYTES];
        json_reader_pointer(args, key, pointer);
        pattern_check(pattern, ignore_case, 0, pointer, args->problems);
    }
}

static void check_values(struct json_reader *args, const char *key, const cJSON *values)
{
    const cJSON *first = cJSON_IsArray(values) ? values->child : values;
    char pointer[JSON_POINTER_BYTES];
    json_reader_pointer(args, key, pointer);
    if (values != NULL && first == NULL) {
        json_problems_add(args->problems, pointer,
                          "found an empty list, allowed is a value or a list of values");
    }
    for (const cJSON *value = first; value != NULL;
         value = cJSON_IsArray(values) ? value->next : NULL) {
        if (!cJSON_IsString(value) && !cJSON_IsNumber(value) && !cJSON_IsBool(value)) {
            json_problems_add(args->problems, pointer,
                              "allowed are strings, numbers, true and false");
            break;
        }
    }
}

void operator_filter_check(struct json_reader *args)
{
    struct filter_args filter = read_args(args);
    check_pattern(args, "include", filter.include, filter.ignore_case);
    check_pattern(args, "exclude", filter.exclude, filter.ignore_case);
    check_values(args, "equals", filter.equals);
    check_values(args, "not_equals", filter.not_equals);
    if (filter.include == NULL && filter.exclude == NULL && filter.equals == NULL &&
        filter.not_equals == NULL) {
        json_problems_add(args->problems, args->pointer,
                          "filter does nothing; needed is include, exclude, equals or not_equals");
    }
}

static bool is_any_of(const cJSON *value, const cJSON *values)
{
    if (!cJSON_IsArray(values)) {
        return cJSON_Compare(value, values, true);
    }
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, values) {
        if (cJSON_Compare(value, item, true)) {
            return true;
        }
    }
    return false;
}

/* The same arguments, ready to match. */
struct matcher {
    struct filter_args args;
    struct pattern *include;
    struct pattern *exclude;
    struct buffer text;
};

/* A row without the field matches no pattern and equals nothing. */
static enum status match_row(struct matcher *matcher, const struct operator_run *run,
                             const struct shared_row *row, bool *keep, struct error *err)
{
    const struct filter_args *args = &matcher->args;
    const cJSON *value = text_field_find(row->row.object, args->field);
    *keep = (args->equals == NULL || (value != NULL && is_any_of(value, args->equals))) &&
            (args->not_equals == NULL || value == NULL || !is_any_of(value, args->not_equals));
    if (!*keep || (matcher->include == NULL && matcher->exclude == NULL)) {
        return STATUS_OK;
    }
    bool found = false;
    buffer_clear(&matcher->text);
    TRY(operator_append_text(run, row, args->field, &matcher->text, &found, err));
    bool included = found;
    bool excluded = false;
    const char *text = buffer_text(&matcher->text);
    if (found && matcher->include != NULL) {
        TRY(pattern_search(matcher->include, text, matcher->text.len_bytes, 0, &included, NULL,
                           err));
    }
    if (found && matcher->exclude != NULL) {
        TRY(pattern_search(matcher->exclude, text, matcher->text.len_bytes, 0, &excluded, NULL,
                           err));
    }
    *keep = (matcher->include == NULL || included) && !excluded;
    return STATUS_OK;
}

static enum status filter_rows(struct matcher *matcher, struct operator_run *run,
                               struct row_list *rows, uint8_t *marks, struct error *err)
{
    for (int64_t i = 0; i < rows->count; i++) {
        bool keep = false;
        enum status status = match_row(matcher, run, rows->rows[i], &keep, err);
        if (status != STATUS_OK) {
            operator_row_context(err, rows->rows[i]);
            return status;
        }
        marks[i] = keep;
    }
    operator_note(run, "removed %lld rows", (long long)row_list_keep(rows, marks));
    return STATUS_OK;
}

enum status operator_filter_run(struct operator_run *run, struct json_reader *args,
                                struct row_list *rows, struct error *err)
{
    struct matcher matcher = {.args = read_args(args)};
    buffer_init(&matcher.text, TEXT_MAX_BYTES);
    uint8_t *marks = operator_marks(rows, err);
    enum status status = marks != NULL ? STATUS_OK : STATUS_NO_MEMORY;
    bool ignore_case = matcher.args.ignore_case;
    if (status == STATUS_OK && matcher.args.include != NULL) {
        status = pattern_compile(matcher.args.include, ignore_case, &matcher.include, err);
    }
    if (status == STATUS_OK && matcher.args.exclude != NULL) {
        status = pattern_compile(matcher.args.exclude, ignore_case, &matcher.exclude, err);
    }
    if (status == STATUS_OK) {
        status = filter_rows(&matcher, run, rows, marks, err);
    }
    pattern_destroy(matcher.include);
    pattern_destroy(matcher.exclude);
    buffer_fini(&matcher.text);
    free(marks);
    return status;
}
