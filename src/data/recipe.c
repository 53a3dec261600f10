#include "data/recipe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "data/operators.h"
#include "data/text.h"

enum {
    FINAL_STEPS = 2, /* overlap and max_samples, which every recipe ends with */
    ARENA_MAX_BYTES = 16 * 1024 * 1024,
    RECIPE_VERSION = 1,
};

#define MAX_SAMPLES_STREAM UINT64_C(0x100000000) /* apart from the streams of steps */

/* ---- checking ---- */

static void check_step(const cJSON *step, const char *pointer, struct json_problems *problems)
{
    struct json_reader args;
    json_reader_init(&args, step, pointer, problems);
    if (args.object == NULL || !json_require(&args, "op", "the name of an operator")) {
        return;
    }
    const char *name = json_read_string(&args, "op", NULL);
    const struct recipe_operator *operator= name != NULL ? operator_find(name) : NULL;
    if (operator!= NULL) {
        operator->check(&args);
        json_reader_finish(&args);
        return;
    }
    if (name != NULL) {
        char names[256] = "";
        size_t used = 0;
        for (const struct recipe_operator_info *info = recipe_operators(); info->name != NULL;
             info++) {
            int more = snprintf(names + used, sizeof(names) - used, " %s", info->name);
            used += more > 0 && used + (size_t)more < sizeof(names) ? (size_t)more : 0;
        }
        char place[JSON_POINTER_BYTES];
        json_reader_pointer(&args, "op", place);
        json_problems_add(problems, place, "found \"%.60s\", allowed is one of%s", name, names);
    }
}

void recipe_check(const cJSON *recipe, const char *pointer, struct json_problems *problems)
{
    if (recipe == NULL || cJSON_IsNull(recipe)) {
        return; /* no steps: the training split as it is */
    }
    if (!cJSON_IsArray(recipe)) {
        json_problems_add(problems, pointer, "allowed is a list of steps [{\"op\": ...}]");
        return;
    }
    int index = 0;
    const cJSON *step = NULL;
    cJSON_ArrayForEach (step, recipe) {
        if (index == RECIPE_STEPS_MAX - FINAL_STEPS) {
            json_problems_add(problems, pointer, "found %d steps, allowed are %d",
                              cJSON_GetArraySize(recipe), RECIPE_STEPS_MAX - FINAL_STEPS);
            return;
        }
        char place[JSON_POINTER_BYTES];
        snprintf(place, sizeof(place), "%.200s/%d", pointer, index);
        check_step(step, place, problems);
        index++;
    }
}

/* ---- running ---- */

struct recipe_run {
    const struct recipe_context *context;
    struct recipe_report *report;
    struct arena arena;
    struct row_list train; /* the training split as it was: borrowed objects */
    struct row_list rows;
    int64_t text_bytes; /* made so far */
};

/* Shares of the training split's rows, in a list that steps may change. */
static enum status take_train(struct recipe_run *run, struct error *err)
{
    const struct dataset *train = run->context->train;
    for (int64_t i = 0; i < train->count; i++) {
        const struct data_row *row = &train->rows[i];
        TRY(row_list_add(&run->train, row->object, true, train->sources[row->source], row->line,
                         err));
        TRY(row_list_share(&run->rows, run->train.rows[i], err));
    }
    return STATUS_OK;
}

/* One step and its entry in the report. `stream`: of the random numbers, so that no step depends on
 * another's. */
static enum status run_step(struct recipe_run *run, const cJSON *step, const char *label,
                            uint64_t stream, struct error *err)
{
    const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(step, "op"));
    int index = run->report->step_count++;
    char *note = run->report->steps[index].note;
    snprintf(run->report->steps[index].op, sizeof(run->report->steps[index].op), "%s", name);
    run->report->steps[index].rows_in = run->rows.count;
    struct operator_run operator_run = {
        .context = run->context,
        .arena = &run->arena,
        .train = &run->train,
        .text_bytes = &run->text_bytes,
        .note = note,
        .note_bytes = sizeof(run->report->steps[index].note),
    };
    rng_init(&operator_run.rng, run->context->seed, stream);
    struct json_problems problems; /* stays empty: the arguments were checked */
    json_problems_init(&problems);
    struct json_reader args;
    json_reader_init(&args, step, "", &problems);
    int64_t before = run->rows.count;
    enum status status = operator_find(name)->run(&operator_run, &args, &run->rows, err);
    json_problems_fini(&problems);
    run->report->steps[index].rows_out = run->rows.count;
    if (status == STATUS_OK && run->rows.count == 0) {
        status = FAIL(err, STATUS_INVALID, "it left none of %lld rows%s%s", (long long)before,
                      note[0] != '\0' ? ": " : "", note);
    }
    if (status != STATUS_OK) {
        error_context(err, "recipe %s (%s)", label, name);
        return status;
    }
    log_write(run->context->log, LOG_DEBUG, "data", "recipe %s (%s): %lld -> %lld rows; %s", label,
              name, (long long)before, (long long)run->rows.count, note);
    return STATUS_OK;
}

static enum status run_steps(struct recipe_run *run, const cJSON *recipe, struct error *err)
{
    int index = 0;
    const cJSON *step = NULL;
    cJSON_ArrayForEach (step, recipe) {
        char label[32];
        snprintf(label, sizeof(label), "step %d", index + 1);
        TRY(progress_tick(run->context->progress, "data", index, cJSON_GetArraySize(recipe), err));
        TRY(run_step(run, step, label, (uint64_t)index, err));
        index++;
    }
    return STATUS_OK;
}

/* What no recipe can leave out: rows that the task can use, none that validation or test hold, not
 * too many. */
static enum status finish(struct recipe_run *run, struct error *err)
{
    for (int64_t i = 0; i < run->rows.count; i++) {
        const struct shared_row *row = run->rows.rows[i];
        enum status status = task_check_row(run->context->task, TASK_TRAIN, &row->row, err);
        if (status != STATUS_OK) {
            operator_row_context(err, row);
            error_context(err, "result of the recipe");
            return status;
        }
    }
    cJSON *step = cJSON_Parse("{\"op\": \"overlap\"}");
    if (step == NULL) {
        return mem_fail(err, 0, "the last step of a recipe");
    }
    enum status status = run_step(run, step, "end", 0, err);
    cJSON_Delete(step);
    TRY(status);
    int64_t max_samples = run->context->max_samples;
    if (max_samples == 0 || run->rows.count <= max_samples) {
        return STATUS_OK;
    }
    int index = run->report->step_count++;
    snprintf(run->report->steps[index].op, sizeof(run->report->steps[index].op), "sample");
    snprintf(run->report->steps[index].note, sizeof(run->report->steps[index].note),
             "sampled down to the limit");
    run->report->steps[index].rows_in = run->rows.count;
    run->report->steps[index].rows_out = max_samples;
    struct rng rng;
    rng_init(&rng, run->context->seed, MAX_SAMPLES_STREAM);
    return row_list_sample(&run->rows, max_samples, &rng, err);
}

/* The result as rows of its own. An object that only one entry holds moves; others are copied, here
 * for the first time. */
static enum status hand_over(struct recipe_run *run, struct dataset *out, struct error *err)
{
    for (int64_t i = 0; i < run->rows.count; i++) {
        struct shared_row *row = run->rows.rows[i];
        cJSON *object = row->row.object;
        if (row->holders == 1 && !row->borrowed) {
            row->row.object = NULL;
        } else {
            object = cJSON_Duplicate(object, true);
        }
        if (object == NULL) {
            return mem_fail(err, 0, "rows of a recipe's result");
        }
        TRY(dataset_append(out, object, row->source, row->row.line, err));
    }
    return STATUS_OK;
}

enum status recipe_run(const cJSON *recipe, const struct recipe_context *context,
                       struct dataset *out, struct recipe_report *report, struct error *err)
{
    struct recipe_report own_report;
    struct recipe_run run = {.context = context, .report = report != NULL ? report : &own_report};
    memset(run.report, 0, sizeof(*run.report));
    struct dataset result;
    dataset_init(&result);
    arena_init(&run.arena, ARENA_MAX_BYTES);
    row_list_init(&run.train);
    row_list_init(&run.rows);
    struct json_problems problems;
    json_problems_init(&problems);
    recipe_check(recipe, "", &problems);
    enum status status = STATUS_OK;
    TRY_CLEANUP(json_problems_check(&problems, "recipe", err));
    TRY_CLEANUP(take_train(&run, err));
    TRY_CLEANUP(run_steps(&run, recipe, err));
    TRY_CLEANUP(finish(&run, err));
    TRY_CLEANUP(hand_over(&run, &result, err));
    *out = result;
    dataset_init(&result);
cleanup:
    json_problems_fini(&problems);
    dataset_fini(&result);
    row_list_fini(&run.rows);
    row_list_fini(&run.train);
    arena_fini(&run.arena);
    return status;
}

/* ---- identity ---- */

/* Pieces of an identity, each with its length before it so that no two lists of pieces agree. A
 * piece without a value counts as such. */
static void add_piece(struct buffer *identity, const char *text)
{
    buffer_printf(identity, "%zu:%s;", text != NULL ? strlen(text) : 0, text != NULL ? text : "-");
}

static void add_file(struct buffer *identity, const char *folder, const char *path)
{
    char full[FILE_PATH_BYTES];
    char hash[HASH_TEXT_BYTES] = "unreadable";
    if (path != NULL && file_join(folder != NULL ? folder : "", path, full, NULL) == STATUS_OK) {
        hash_file(full, hash, NULL);
    }
    add_piece(identity, hash);
}

/* Contents of every file that a step reads: any "path", at any depth, that is not one of mix's own
 * names. */
static void add_files(struct buffer *identity, const char *folder, const cJSON *value)
{
    const cJSON *child = NULL;
    cJSON_ArrayForEach (child, value) {
        const char *text = cJSON_GetStringValue(child);
        if (text != NULL && child->string != NULL && strcmp(child->string, "path") == 0) {
            add_file(identity, folder, text);
        }
        add_files(identity, folder, child);
    }
}

static void add_dataset(struct buffer *identity, const struct dataset *dataset)
{
    char hash[HASH_TEXT_BYTES] = "";
    if (dataset != NULL) {
        dataset_hash(dataset, hash);
    }
    add_piece(identity, hash);
}

/* What of the task decides which rows are equal or overlap. */
static void add_task(struct buffer *identity, const struct task *task)
{
    add_piece(identity, task->template_text);
    add_piece(identity, task->answer_template);
    add_piece(identity, task->separator);
    for (int i = 0; i < task->extract_count; i++) {
        add_piece(identity, task->extract[i].name);
        add_piece(identity, task->extract[i].field);
        add_piece(identity, task->extract[i].pattern);
    }
}

void recipe_hash(const cJSON *recipe, const struct recipe_context *context, char out[33])
{
    struct buffer identity;
    buffer_init(&identity, (size_t)TEXT_MAX_BYTES);
    buffer_printf(&identity, "recipe %d;", RECIPE_VERSION);
    char *text = recipe != NULL ? json_print_line(recipe) : NULL;
    add_piece(&identity, text != NULL ? text : "[]");
    cJSON_free(text);
    const cJSON *step = NULL;
    cJSON_ArrayForEach (step, recipe) {
        const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(step, "op"));
        const struct recipe_operator *operator= name != NULL ? operator_find(name) : NULL;
        buffer_printf(&identity, "version %d;", operator != NULL ? operator->version : 0);
    }
    add_files(&identity, context->folder, recipe);
    add_dataset(&identity, context->train);
    add_dataset(&identity, context->validation);
    add_dataset(&identity, context->test);
    add_task(&identity, context->task);
    buffer_printf(&identity, "seed %llu;max_samples %lld;", (unsigned long long)context->seed,
                  (long long)context->max_samples);
    hash_bytes(buffer_text(&identity), identity.len_bytes, out);
    buffer_fini(&identity);
}
