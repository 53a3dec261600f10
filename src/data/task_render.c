/* Rows to prompts, answers and choices. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "data/pattern.h"
#include "data/task.h"
#include "data/text.h"

/* Where a template's fields are looked up: the choice that stands in for "answer", extracted
 * fields, the row. */
struct scope {
    const struct task *task;
    const cJSON *row;
    const char *answer; /* or NULL */
    bool saw_empty;     /* a field was there and empty */
};

static enum status extract_field(const struct task *task, const struct task_extract *extract,
                                 const cJSON *row, struct buffer *out, bool *found,
                                 struct error *err)
{
    struct buffer text;
    buffer_init(&text, TEXT_MAX_BYTES);
    struct pattern *own = NULL;
    enum status status = text_append_field(row, extract->field, task->separator, &text, found, err);
    if (status == STATUS_OK && *found && extract->compiled == NULL) {
        status = pattern_compile(extract->pattern, false, &own, err);
    }
    if (status == STATUS_OK && *found) {
        const struct pattern *pattern = extract->compiled != NULL ? extract->compiled : own;
        struct pattern_span group = {0, 0};
        bool matched = false;
        status =
            pattern_search(pattern, buffer_text(&text), text.len_bytes, 1, &matched, &group, err);
        if (status == STATUS_OK && matched) {
            buffer_append(out, buffer_text(&text) + group.start, group.length);
        }
    }
    pattern_destroy(own);
    buffer_fini(&text);
    return status;
}

static enum status append_scoped(const struct scope *scope, const char *name, struct buffer *out,
                                 bool *found, struct error *err)
{
    const struct task *task = scope->task;
    if (scope->answer != NULL && strcmp(name, "answer") == 0) {
        buffer_append_text(out, scope->answer);
        *found = true;
        return STATUS_OK;
    }
    for (int i = 0; i < task->extract_count; i++) {
        if (strcmp(task->extract[i].name, name) == 0) {
            return extract_field(task, &task->extract[i], scope->row, out, found, err);
        }
    }
    return text_append_field(scope->row, name, task->separator, out, found, err);
}

static enum status look_up(void *context, const char *name, struct buffer *out, bool *found,
                           struct error *err)
{
    struct scope *scope = context;
    size_t before = out->len_bytes;
    TRY(append_scoped(scope, name, out, found, err));
    scope->saw_empty = scope->saw_empty || out->len_bytes == before;
    return STATUS_OK;
}

enum status task_render_prompt(const struct task *task, const struct data_row *row,
                               struct buffer *out, struct error *err)
{
    struct scope scope = {.task = task, .row = row->object};
    char missing[TEXT_NAME_BYTES] = "";
    struct error inner = {0};
    enum status status =
        text_template_fill(task->template_text, look_up, &scope, out, missing, &inner);
    if (status == STATUS_NOT_FOUND) {
        return text_fail_missing(row->object, missing, err);
    }
    if (status != STATUS_OK && err != NULL) {
        *err = inner;
    }
    return status;
}

/* The answer template with a choice, or (NULL) the row's own answer; nothing is appended if a field
 * is missing or empty, and its name is then in `missing` ("" if empty). */
static enum status append_answer(const struct task *task, const cJSON *row, const char *choice,
                                 struct buffer *out, char missing[TEXT_NAME_BYTES],
                                 struct error *err)
{
    struct scope scope = {.task = task, .row = row, .answer = choice};
    struct buffer text;
    buffer_init(&text, TEXT_MAX_BYTES);
    missing[0] = '\0';
    struct error inner = {0};
    enum status status =
        text_template_fill(task->answer_template, look_up, &scope, &text, missing, &inner);
    if (status == STATUS_OK && !scope.saw_empty) {
        buffer_append(out, buffer_text(&text), text.len_bytes);
        status = buffer_check(out, "an answer", &inner);
    } else if (status == STATUS_NOT_FOUND) {
        status = STATUS_OK;
    }
    if (status != STATUS_OK && err != NULL) {
        *err = inner;
    }
    buffer_fini(&text);
    return status;
}

enum status task_render_answer(const struct task *task, const struct data_row *row,
                               struct buffer *out, struct error *err)
{
    char missing[TEXT_NAME_BYTES];
    return append_answer(task, row->object, NULL, out, missing, err);
}

/* ---- choices ---- */

enum { LETTERS = 26 };

/* Texts to choose from, before the answer template: all borrowed. */
struct choice_set {
    int count;
    const char *text[TASK_LABELS_MAX];
    char letters[LETTERS][2];
};

static int find_choice(const struct choice_set *set, const char *answer)
{
    for (int i = 0; i < set->count; i++) {
        if (strcmp(set->text[i], answer) == 0) {
            return i;
        }
    }
    return -1;
}

static enum status collect_choices(const struct task *task, const cJSON *row, const char *answer,
                                   struct choice_set *set, struct error *err)
{
    set->count = 0;
    const cJSON *choices = text_field_find(row, "choices");
    if (choices != NULL && !cJSON_IsArray(choices)) {
        return FAIL(err, STATUS_INVALID, "field \"choices\" must be a list of strings");
    }
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, choices) {
        if (!cJSON_IsString(item) || set->count == TASK_LABELS_MAX) {
            return FAIL(err, STATUS_INVALID,
                        "field \"choices\" must be a list of at most %d strings", TASK_LABELS_MAX);
        }
        set->text[set->count++] = item->valuestring;
    }
    if (choices == NULL) {
        for (int i = 0; i < task->label_count; i++) {
            set->text[set->count++] = task->labels[i];
        }
        return STATUS_OK;
    }
    bool is_letter =
        answer[0] >= 'A' && answer[0] < 'A' + set->count && answer[0] <= 'Z' && answer[1] == '\0';
    if (is_letter && set->count <= LETTERS && find_choice(set, answer) < 0) {
        for (int i = 0; i < set->count; i++) {
            set->letters[i][0] = (char)('A' + i);
            set->letters[i][1] = '\0';
            set->text[i] = set->letters[i];
        }
    }
    return STATUS_OK;
}

static enum status take_text(struct buffer *buffer, char **out, struct error *err)
{
    TRY(buffer_check(buffer, "a text of a row", err));
    *out = buffer_take(buffer);
    return *out != NULL ? STATUS_OK : mem_fail(err, 1, "a text of a row");
}

static enum status render_choices(const struct task *task, const cJSON *row,
                                  struct task_example *out, struct error *err)
{
    struct choice_set set;
    TRY(collect_choices(task, row, out->raw_answer, &set, err));
    out->choice_answer = find_choice(&set, out->raw_answer);
    if (set.count == 0) {
        return STATUS_OK;
    }
    out->choices = mem_calloc((size_t)set.count, sizeof(*out->choices));
    if (out->choices == NULL) {
        return mem_fail(err, (size_t)set.count * sizeof(*out->choices), "choices");
    }
    for (int i = 0; i < set.count; i++) {
        struct buffer text;
        char missing[TEXT_NAME_BYTES];
        buffer_init(&text, TEXT_MAX_BYTES);
        enum status status = append_answer(task, row, set.text[i], &text, missing, err);
        if (status == STATUS_OK) {
            status = take_text(&text, &out->choices[i], err);
        }
        buffer_fini(&text);
        TRY(status);
        out->choice_count++;
    }
    return STATUS_OK;
}

/* ---- whole examples
 * --------------------------------------------------------------------------------------------- */

static bool is_chat_role(const char *role)
{
    return strcmp(role, "system") == 0 || strcmp(role, "user") == 0 ||
           strcmp(role, "assistant") == 0;
}

/* Checks the messages of a row and copies those before the answer. */
static enum status copy_turns(const cJSON *messages, struct task_example *out, struct error *err)
{
    int count = cJSON_GetArraySize(messages);
    if (count == 0 || count > TASK_TURNS_MAX) {
        return FAIL(err, STATUS_INVALID, "field \"messages\" has %d entries, allowed are 1 to %d",
                    count, TASK_TURNS_MAX);
    }
    out->turns = mem_calloc((size_t)count, sizeof(*out->turns));
    if (out->turns == NULL) {
        return mem_fail(err, (size_t)count * sizeof(*out->turns), "messages");
    }
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, messages) {
        const char *role = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "role"));
        const char *content =
            cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, "content"));
        if (role == NULL || content == NULL || !is_chat_role(role)) {
            return FAIL(err, STATUS_INVALID,
                        "entry %d of \"messages\" must have a role (system, user or assistant) and "
                        "a content, as text",
                        out->turn_count + 1);
        }
        if (item->next == NULL && strcmp(role, "assistant") == 0) {
            break;
        }
        struct chat_message *turn = &out->turns[out->turn_count++];
        turn->role = mem_strdup(role);
        turn->content = mem_strdup(content);
        if (turn->role == NULL || turn->content == NULL) {
            return mem_fail(err, strlen(content), "messages");
        }
    }
    return out->turn_count > 0 ? STATUS_OK
                               : FAIL(err, STATUS_INVALID,
                                      "field \"messages\" has an answer and nothing before it");
}

static enum status render_system(const struct task *task, const cJSON *row,
                                 struct task_example *out, struct error *err)
{
    const char *system = cJSON_GetStringValue(text_field_find(row, "system"));
    system = system != NULL && system[0] != '\0' ? system : task->system;
    if (system == NULL) {
        return STATUS_OK;
    }
    out->system = mem_strdup(system);
    return out->system != NULL ? STATUS_OK : mem_fail(err, strlen(system), "a system message");
}

static enum status render_raw_answer(const struct task *task, const cJSON *row,
                                     struct task_example *out, struct error *err)
{
    struct scope scope = {.task = task, .row = row};
    struct buffer text;
    buffer_init(&text, TEXT_MAX_BYTES);
    bool found = false;
    enum status status = append_scoped(&scope, "answer", &text, &found, err);
    if (status == STATUS_OK && !found) {
        size_t start = strspn(out->answer, " \t\r\n");
        size_t end = strlen(out->answer);
        while (end > start && strchr(" \t\r\n", out->answer[end - 1]) != NULL) {
            end--;
        }
        buffer_append(&text, out->answer + start, end - start);
    }
    if (status == STATUS_OK) {
        status = take_text(&text, &out->raw_answer, err);
    }
    buffer_fini(&text);
    return status;
}

static enum status render_texts(const struct task *task, const struct data_row *row,
                                struct task_example *out, struct error *err)
{
    struct buffer text;
    buffer_init(&text, TEXT_MAX_BYTES);
    enum status status = task_render_prompt(task, row, &text, err);
    if (status == STATUS_OK) {
        status = take_text(&text, &out->prompt, err);
    }
    if (status == STATUS_OK) {
        status = task_render_answer(task, row, &text, err);
    }
    if (status == STATUS_OK) {
        status = take_text(&text, &out->answer, err);
    }
    buffer_fini(&text);
    return status;
}

enum status task_render(const struct task *task, const struct data_row *row,
                        struct task_example *out, struct error *err)
{
    struct task_example example = {.choice_answer = -1};
    enum status status = STATUS_OK;
    TRY_CLEANUP(render_texts(task, row, &example, err));
    TRY_CLEANUP(render_raw_answer(task, row->object, &example, err));
    TRY_CLEANUP(render_choices(task, row->object, &example, err));
    TRY_CLEANUP(render_system(task, row->object, &example, err));
    const cJSON *messages = text_field_find(row->object, "messages");
    if (messages != NULL && text_field_find(row->object, "prompt") == NULL &&
        strcmp(task->template_text, "{prompt}") == 0) {
        TRY_CLEANUP(copy_turns(messages, &example, err));
    }
    *out = example;
    return STATUS_OK;
cleanup:
    task_example_fini(&example);
    return status;
}

void task_example_fini(struct task_example *example)
{
    free(example->prompt);
    free(example->answer);
    free(example->raw_answer);
    free(example->system);
    for (int i = 0; i < example->choice_count; i++) {
        free(example->choices[i]);
    }
    free(example->choices);
    for (int i = 0; i < example->turn_count; i++) {
        free((void *)(uintptr_t)example->turns[i].role);
        free((void *)(uintptr_t)example->turns[i].content);
    }
    free(example->turns);
    *example = (struct task_example){.choice_answer = -1};
}

/* ---- splits ---- */

/* The answer's fields must be there (they may be empty), except in the test split. */
static enum status check_answer(const struct task *task, enum task_split split, const cJSON *row,
                                struct error *err)
{
    if (split == TASK_TEST) {
        return STATUS_OK;
    }
    struct buffer text;
    char missing[TEXT_NAME_BYTES];
    buffer_init(&text, TEXT_MAX_BYTES);
    enum status status = append_answer(task, row, NULL, &text, missing, err);
    buffer_fini(&text);
    if (status == STATUS_OK && missing[0] != '\0') {
        status = text_fail_missing(row, missing, err);
    }
    return status;
}

enum status task_check_row(const struct task *task, enum task_split split,
                           const struct data_row *row, struct error *err)
{
    TRY(check_answer(task, split, row->object, err));
    struct task_example example;
    TRY(task_render(task, row, &example, err));
    enum status status = STATUS_OK;
    if (split != TASK_TRAIN && task->predict == TASK_PREDICT_CHOICE) {
        if (example.choice_count == 0) {
            status = FAIL(err, STATUS_INVALID,
                          "row has no \"choices\", and the task has no \"labels\" to choose from");
        } else if (example.choice_answer < 0 && example.raw_answer[0] != '\0') {
            status = FAIL(err, STATUS_INVALID,
                          "the answer \"%.60s\" is none of the row's %d choices (\"%.60s\", ...)",
                          example.raw_answer, example.choice_count, example.choices[0]);
        }
    }
    task_example_fini(&example);
    return status;
}

enum status task_load_split(const struct task *task, enum task_split split, struct dataset *out,
                            struct error *err)
{
    if (task->path[split] == NULL) {
        return FAIL(err, STATUS_NOT_FOUND, "task \"%s\" has no %s split; name its file in task.%s",
                    task->name, task_split_names[split], task_split_names[split]);
    }
    struct dataset_limits limits = {.take = task->limit[split]};
    struct dataset rows;
    enum status status = dataset_read(task->path[split], &limits, &rows, err);
    if (status != STATUS_OK) {
        return status;
    }
    for (int64_t i = 0; i < rows.count && status == STATUS_OK; i++) {
        status = task_check_row(task, split, &rows.rows[i], err);
        if (status != STATUS_OK) {
            error_context(err, "%s:%lld", task->path[split], (long long)rows.rows[i].line);
        }
    }
    if (status != STATUS_OK) {
        dataset_fini(&rows);
        return status;
    }
    *out = rows;
    return STATUS_OK;
}
