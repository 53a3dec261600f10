#include "data/task.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "data/pattern.h"
#include "data/text.h"

const char *const task_split_names[TASK_SPLIT_COUNT + 1] = {"train", "validation", "test", NULL};

static const char *const predict_names[] = {"choice", "generate", NULL};
static const char *const chat_names[] = {"auto", "plain", "chatml", "qwen3", NULL};
static const enum chat_format chat_formats[] = {CHAT_PLAIN, CHAT_PLAIN, CHAT_CHATML, CHAT_QWEN3};

enum {
    TASK_MAX_NEW_TOKENS = 1 << 20,
    TASK_LIMIT_MAX = 10 * 1000 * 1000,
    TASK_TIMEOUT_MAX_S = 7 * 24 * 3600,
};

void task_fini(struct task *task)
{
    free(task->name);
    for (int i = 0; i < TASK_SPLIT_COUNT; i++) {
        free(task->path[i]);
    }
    for (int i = 0; i < task->extract_count; i++) {
        free(task->extract[i].name);
        free(task->extract[i].field);
        free(task->extract[i].pattern);
        pattern_destroy(task->extract[i].compiled);
    }
    free(task->template_text);
    free(task->answer_template);
    free(task->system);
    free(task->metric);
    for (int i = 0; i < task->label_count; i++) {
        free(task->labels[i]);
    }
    free(task->separator);
    for (int i = 0; i < task->stop_count; i++) {
        free(task->stop[i]);
    }
    for (int i = 0; i < task->command_count; i++) {
        free(task->command[i]);
    }
    memset(task, 0, sizeof(*task));
}

static enum status copy_text(const char *text, char **out, struct error *err)
{
    char *copy = mem_strdup(text);
    if (copy == NULL) {
        return mem_fail(err, strlen(text) + 1, "the task");
    }
    *out = copy;
    return STATUS_OK;
}

/* A key whose text must not be empty. `fallback` NULL: absent stays NULL. */
static enum status read_text(struct json_reader *reader, const char *key, const char *fallback,
                             char **out, struct error *err)
{
    const char *text = json_read_string(reader, key, fallback);
    if (text != NULL && text[0] == '\0') {
        char pointer[JSON_POINTER_BYTES];
        json_reader_pointer(reader, key, pointer);
        json_problems_add(reader->problems, pointer, "found an empty string, allowed is text");
        text = fallback;
    }
    return text != NULL ? copy_text(text, out, err) : STATUS_OK;
}

static enum status read_path(struct json_reader *reader, enum task_split split, const char *folder,
                             struct task *task, struct error *err)
{
    const char *key = task_split_names[split];
    if (split != TASK_TEST) {
        json_require(reader, key, "the path of a .jsonl file");
    }
    const char *name = json_read_string(reader, key, NULL);
    if (name == NULL) {
        return STATUS_OK;
    }
    char path[FILE_PATH_BYTES];
    char pointer[JSON_POINTER_BYTES];
    json_reader_pointer(reader, key, pointer);
    struct error inner = {0};
    if (file_join(folder, name, path, &inner) != STATUS_OK) {
        json_problems_add(reader->problems, pointer, "%s", inner.message);
        return STATUS_OK;
    }
    if (name[0] == '\0' || !file_exists(path) || file_is_folder(path)) {
        json_problems_add(reader->problems, pointer,
                          "found \"%.200s\", %s; allowed is the path of a .jsonl file", path,
                          file_is_folder(path) ? "a folder" : "no such file");
    }
    return copy_text(path, &task->path[split], err);
}

static enum status read_paths(struct json_reader *reader, const char *folder, struct task *task,
                              struct error *err)
{
    for (int split = 0; split < TASK_SPLIT_COUNT; split++) {
        TRY(read_path(reader, (enum task_split)split, folder, task, err));
    }
    char pointer[JSON_POINTER_BYTES];
    json_reader_pointer(reader, "limit", pointer);
    struct json_reader limits;
    json_reader_init(&limits, json_read_object(reader, "limit"), pointer, reader->problems);
    for (int split = 0; split < TASK_SPLIT_COUNT; split++) {
        task->limit[split] = json_read_int(&limits, task_split_names[split], 0, 0, TASK_LIMIT_MAX);
    }
    json_reader_finish(&limits);
    return STATUS_OK;
}

static enum status read_extract(const cJSON *item, const char *pointer,
                                struct json_problems *problems, struct task_extract *out,
                                struct error *err)
{
    TRY(copy_text(item->string, &out->name, err));
    struct json_reader reader;
    json_reader_init(&reader, item, pointer, problems);
    TRY(read_text(&reader, "field", "prompt", &out->field, err));
    json_require(&reader, "pattern", "a regular expression with one group");
    TRY(copy_text(json_read_string(&reader, "pattern", "()"), &out->pattern, err));
    char pattern_pointer[JSON_POINTER_BYTES];
    json_reader_pointer(&reader, "pattern", pattern_pointer);
    int before = problems->count;
    pattern_check(out->pattern, false, 1, pattern_pointer, problems);
    json_reader_finish(&reader);
    return problems->count == before ? pattern_compile(out->pattern, false, &out->compiled, err)
                                     : STATUS_OK;
}

static enum status read_extracts(struct json_reader *reader, struct task *task, struct error *err)
{
    char pointer[JSON_POINTER_BYTES];
    json_reader_pointer(reader, "extract", pointer);
    const cJSON *list = json_read_object(reader, "extract");
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, list) {
        if (task->extract_count == TASK_FIELDS_MAX) {
            json_problems_add(reader->problems, pointer, "found more than %d fields",
                              TASK_FIELDS_MAX);
            break;
        }
        char inner[JSON_POINTER_BYTES];
        struct json_reader place = {.problems = reader->problems};
        memcpy(place.pointer, pointer, sizeof(pointer));
        json_reader_pointer(&place, item->string, inner);
        TRY(read_extract(item, inner, reader->problems, &task->extract[task->extract_count++],
                         err));
    }
    return STATUS_OK;
}

static enum status read_template(struct json_reader *reader, const char *key, const char *fallback,
                                 char **out, struct error *err)
{
    TRY(read_text(reader, key, fallback, out, err));
    char pointer[JSON_POINTER_BYTES];
    json_reader_pointer(reader, key, pointer);
    text_template_check(*out, pointer, reader->problems);
    return STATUS_OK;
}

/* A list of non-empty strings into out[0..max). */
static enum status read_texts(struct json_reader *reader, const char *key, int max, char **out,
                              int *count, struct error *err)
{
    char pointer[JSON_POINTER_BYTES];
    json_reader_pointer(reader, key, pointer);
    const cJSON *list = json_read_array(reader, key);
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, list) {
        if (!cJSON_IsString(item) || item->valuestring[0] == '\0') {
            json_problems_add(reader->problems, pointer,
                              "found an entry that is no text, allowed are non-empty strings");
            continue;
        }
        if (*count == max) {
            json_problems_add(reader->problems, pointer, "found more than %d entries", max);
            break;
        }
        TRY(copy_text(item->valuestring, &out[*count], err));
        (*count)++;
    }
    return STATUS_OK;
}

static void check_labels(const struct json_reader *reader, const struct task *task)
{
    char pointer[JSON_POINTER_BYTES];
    json_reader_pointer(reader, "labels", pointer);
    for (int i = 0; i < task->label_count; i++) {
        for (int k = 0; k < i; k++) {
            if (strcmp(task->labels[i], task->labels[k]) == 0) {
                json_problems_add(reader->problems, pointer,
                                  "found \"%.60s\" twice, allowed are different labels",
                                  task->labels[i]);
                break;
            }
        }
    }
}

static void check_combination(const struct json_reader *reader, const struct task *task)
{
    char pointer[JSON_POINTER_BYTES];
    bool wants_command = strcmp(task->metric, "command") == 0;
    if (wants_command && task->command_count == 0) {
        json_reader_pointer(reader, "command", pointer);
        json_problems_add(reader->problems, pointer,
                          "missing, needed is the program that scores, as a list of arguments, for "
                          "metric \"command\"");
    }
    if (!wants_command && task->command_count > 0) {
        json_reader_pointer(reader, "command", pointer);
        json_problems_add(reader->problems, pointer,
                          "found a command, allowed only with metric \"command\"");
    }
    if (task->predict == TASK_PREDICT_CHOICE &&
        !text_template_uses(task->answer_template, "answer")) {
        json_reader_pointer(reader, "answer", pointer);
        json_problems_add(
            reader->problems, pointer,
            "found \"%.60s\", allowed with predict \"choice\" is a template that uses {answer}",
            task->answer_template);
    }
}

static enum status read_model_side(struct json_reader *reader, struct task *task, struct error *err)
{
    TRY(read_extracts(reader, task, err));
    TRY(read_template(reader, "template", "{prompt}", &task->template_text, err));
    TRY(read_template(reader, "answer", "{answer}", &task->answer_template, err));
    TRY(read_text(reader, "system", NULL, &task->system, err));
    int chat = json_read_choice(reader, "chat", chat_names, 0);
    task->chat_auto = chat == 0;
    task->chat = chat_formats[chat];
    task->thinking = json_read_bool(reader, "thinking", false);
    return STATUS_OK;
}

static enum status read_scoring_side(struct json_reader *reader, struct task *task,
                                     struct error *err)
{
    TRY(read_text(reader, "metric", "accuracy", &task->metric, err));
    int predict =
        strcmp(task->metric, "accuracy") == 0 ? TASK_PREDICT_CHOICE : TASK_PREDICT_GENERATE;
    task->predict = (enum task_predict)json_read_choice(reader, "predict", predict_names, predict);
    TRY(read_texts(reader, "labels", TASK_LABELS_MAX, task->labels, &task->label_count, err));
    check_labels(reader, task);
    TRY(read_text(reader, "separator", "; ", &task->separator, err));
    task->max_new_tokens = json_read_int(reader, "max_new_tokens", 64, 1, TASK_MAX_NEW_TOKENS);
    task->temperature = json_read_number(reader, "temperature", 0, 0, 100);
    TRY(read_texts(reader, "stop", TASK_STOPS_MAX, task->stop, &task->stop_count, err));
    TRY(read_texts(reader, "command", TASK_COMMAND_MAX, task->command, &task->command_count, err));
    task->command_timeout_s =
        json_read_number(reader, "command_timeout_s", 60, 0.1, TASK_TIMEOUT_MAX_S);
    return STATUS_OK;
}

enum status task_read(const cJSON *object, const char *pointer, const char *folder,
                      struct json_problems *problems, struct task *out, struct error *err)
{
    memset(out, 0, sizeof(*out));
    if (object == NULL) {
        json_problems_add(problems, pointer,
                          "missing, needed is an object with train, validation, metric ...");
    }
    struct json_reader reader;
    json_reader_init(&reader, object, pointer, problems);
    TRY(read_text(&reader, "name", "task", &out->name, err));
    TRY(read_paths(&reader, folder, out, err));
    TRY(read_model_side(&reader, out, err));
    TRY(read_scoring_side(&reader, out, err));
    check_combination(&reader, out);
    json_reader_finish(&reader);
    return STATUS_OK;
}
