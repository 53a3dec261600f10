#include "data/operators.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/mem.h"
#include "data/text.h"

static const struct recipe_operator registry[] = {
#define OPERATOR_ROW(name, version, arguments, summary)                                            \
    {#name, version, operator_##name##_check, operator_##name##_run},
    OPERATOR_LIST(OPERATOR_ROW)
#undef OPERATOR_ROW
};

static const struct recipe_operator_info infos[] = {
#define OPERATOR_INFO(name, version, arguments, summary) {#name, arguments, summary},
    OPERATOR_LIST(OPERATOR_INFO)
#undef OPERATOR_INFO
        {NULL, NULL, NULL},
};

const struct recipe_operator_info *recipe_operators(void)
{
    return infos;
}

const struct recipe_operator *operator_find(const char *name)
{
    for (size_t i = 0; i < sizeof(registry) / sizeof(registry[0]); i++) {
        if (strcmp(registry[i].name, name) == 0) {
            return &registry[i];
        }
    }
    return NULL;
}

void operator_note(struct operator_run *run, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(run->note, run->note_bytes, format, arguments);
    va_end(arguments);
}

enum status operator_count_text(struct operator_run *run, size_t bytes, struct error *err)
{
    int64_t most =
        run->context->text_max_bytes > 0 ? run->context->text_max_bytes : RECIPE_TEXT_MAX_BYTES;
    *run->text_bytes += (int64_t)bytes;
    if (*run->text_bytes > most) {
        return FAIL(err, STATUS_LIMIT,
                    "its steps make more than %lld bytes of text; sample or limit the rows first, "
                    "or make shorter texts",
                    (long long)most);
    }
    return STATUS_OK;
}

void operator_check_fields(struct json_reader *args, const char *key, const cJSON *fields)
{
    char pointer[JSON_POINTER_BYTES];
    int count = cJSON_GetArraySize(fields);
    if (count > RECIPE_FIELDS_MAX) {
        json_reader_pointer(args, key, pointer);
        json_problems_add(args->problems, pointer, "found %d fields, allowed are %d", count,
                          RECIPE_FIELDS_MAX);
    }
}

void operator_row_context(struct error *err, const struct shared_row *row)
{
    error_context(err, "%s:%lld", row->source, (long long)row->row.line);
}

uint8_t *operator_marks(const struct row_list *rows, struct error *err)
{
    uint8_t *marks = mem_calloc((size_t)rows->count, 1);
    if (marks == NULL) {
        mem_fail(err, (size_t)rows->count, "marks of rows");
    }
    return marks;
}

enum status operator_append_text(const struct operator_run *run, const struct shared_row *row,
                                 const char *field, struct buffer *out, bool *found,
                                 struct error *err)
{
    const struct task *task = run->context->task;
    bool present = true;
    enum status status;
    if (field != NULL) {
        status = text_append_field(row->row.object, field, task->separator, out, &present, err);
    } else {
        status = task_render_prompt(task, &row->row, out, err);
        buffer_append_char(out, '\n');
        if (status == STATUS_OK) {
            status = task_render_answer(task, &row->row, out, err);
        }
    }
    if (status == STATUS_OK) {
        status = buffer_check(out, "the text of a row", err);
    }
    if (status != STATUS_OK) {
        operator_row_context(err, row);
    }
    if (found != NULL) {
        *found = present;
    }
    return status;
}

/* ---- files ---- */

/* True if both names lead to one file, through whatever links. */
static bool is_same_file(const char *a, const char *b)
{
    struct stat first;
    struct stat second;
    return stat(a, &first) == 0 && stat(b, &second) == 0 && first.st_dev == second.st_dev &&
           first.st_ino == second.st_ino;
}

static enum status refuse_held_out(const struct task *task, const char *path, struct error *err)
{
    for (int split = TASK_VALIDATION; split < TASK_SPLIT_COUNT; split++) {
        if (task->path[split] != NULL && is_same_file(path, task->path[split])) {
            return FAIL(err, STATUS_INVALID, "%s is the task's %s split, which must not train",
                        path, task_split_names[split]);
        }
    }
    return STATUS_OK;
}

enum status operator_read_file(struct operator_run *run, const char *path, struct row_list *out,
                               struct error *err)
{
    char full[FILE_PATH_BYTES];
    TRY(file_join(run->context->folder != NULL ? run->context->folder : "", path, full, err));
    TRY(refuse_held_out(run->context->task, full, err));
    struct dataset_limits limits = {.max_rows = ROW_LIST_MAX};
    struct dataset rows;
    TRY(dataset_read(full, &limits, &rows, err));
    char *source = arena_strdup(run->arena, full);
    enum status status =
        source != NULL ? STATUS_OK : mem_fail(err, strlen(full), "the path of a source");
    for (int64_t i = 0; i < rows.count && status == STATUS_OK; i++) {
        cJSON *object = rows.rows[i].object;
        rows.rows[i].object = NULL; /* the list takes it */
        status = row_list_add(out, object, false, source, rows.rows[i].line, err);
    }
    dataset_fini(&rows);
    return status;
}
