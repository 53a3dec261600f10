/* Tasks and rows that are made up: what each test of eval/eval.h begins with. */
#ifndef TESTS_EVAL_EVAL_FIXTURE_H
#define TESTS_EVAL_EVAL_FIXTURE_H

#include "models.h"

#include "base/json.h"
#include "base/mem.h"
#include "eval/eval.h"

enum { ROWS = 23, SMALL_BATCH = 40 };
static const char letters[] = "abcdefghijklmnopqrst";

static inline void read_task(const char *json, struct task *task)
{
    struct json_problems problems;
    struct error err;
    cJSON *object = cJSON_Parse(json);
    assert_non_null(object);
    json_problems_init(&problems);
    enum status status = task_read(object, "/task", TEST_BINARY_DIR, &problems, task, &err);
    if (status != STATUS_OK || problems.count > 0) {
        fail_msg("%s", buffer_text(&problems.text));
    }
    json_problems_fini(&problems);
    cJSON_Delete(object);
}

static inline void choice_task(struct task *task)
{
    read_task(
        "{\"name\": \"t\", \"train\": \"eval_train.jsonl\", \"validation\": "
        "\"eval_validation.jsonl\", \"template\": \"{prompt} \", "
        "\"metric\": \"accuracy\", \"predict\": \"choice\", \"labels\": [\"ab\", \"c\", \"dead\"]}",
        task);
}

static inline void generate_task(struct task *task, const char *metric)
{
    char json[512];
    snprintf(
        json, sizeof(json),
        "{\"name\": \"t\", \"train\": \"eval_train.jsonl\", \"validation\": "
        "\"eval_validation.jsonl\", \"metric\": \"%s\", "
        "\"predict\": \"generate\", \"labels\": [\"ab\", \"c\", \"dead\"], \"separator\": \";\", "
        "\"max_new_tokens\": 6, \"temperature\": 1}",
        metric);
    read_task(json, task);
}

/* Rows of letters, whose answers are the three labels in turn. */
static inline void make_rows(struct dataset *rows)
{
    static const char *const labels[] = {"ab", "c", "dead"};
    struct error err;
    dataset_init(rows);
    for (int i = 0; i < ROWS; i++) {
        char prompt[32] = {0};
        for (int k = 0; k <= i % 11; k++) {
            prompt[k] = letters[(i * 7 + k * k) % 20];
        }
        cJSON *object = cJSON_CreateObject();
        cJSON_AddStringToObject(object, "prompt", prompt);
        cJSON_AddStringToObject(object, "answer", labels[i % 3]);
        assert_int_equal(dataset_append(rows, object, "rows.jsonl", i + 1, &err), STATUS_OK);
    }
}

static inline void fill(struct eval_predictions *predictions, const char *const *outputs,
                        int64_t count)
{
    struct error err;
    assert_int_equal(eval_predictions_init(predictions, count, &err), STATUS_OK);
    for (int64_t i = 0; i < count; i++) {
        predictions->rows[i].output = mem_strdup(outputs[i]);
    }
}

static inline void keep_rows(struct dataset *rows, int64_t count)
{
    for (int64_t i = count; i < rows->count; i++) {
        cJSON_Delete(rows->rows[i].object);
    }
    rows->count = count;
}

/* The files that tasks must name; the rows of these tests are made in memory. */
static inline int write_splits(void **state)
{
    (void)state;
    struct error err;
    static const char row[] = "{\"prompt\": \"a\", \"answer\": \"ab\"}\n";
    bool written =
        file_write(TEST_BINARY_DIR "/eval_train.jsonl", row, sizeof(row) - 1, &err) == STATUS_OK &&
        file_write(TEST_BINARY_DIR "/eval_validation.jsonl", row, sizeof(row) - 1, &err) ==
            STATUS_OK;
    return written ? 0 : -1;
}

#endif
