#include "run/prepare.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "data/recipe.h"
#include "store/store.h"

static enum status make_context(struct workspace *workspace, const struct progress *progress,
                                struct recipe_context *out, struct error *err)
{
    const struct job *job = workspace->job;
    const struct dataset **splits[TASK_SPLIT_COUNT] = {
        [TASK_TRAIN] = &out->train,
        [TASK_VALIDATION] = &out->validation,
        [TASK_TEST] = &out->test,
    };
    memset(out, 0, sizeof(*out));
    for (int i = 0; i < TASK_SPLIT_COUNT; i++) {
        TRY(progress_tick(progress, "load", i, TASK_SPLIT_COUNT, err));
        TRY(workspace_split(workspace, (enum task_split)i, splits[i], err));
    }
    out->progress = progress;
    out->task = &job->task;
    out->folder = workspace->recipe_folder != NULL ? workspace->recipe_folder : ".";
    out->confine = job->researcher.code ? "/proc/self/exe" : NULL;
    out->seed = job->seed;
    out->max_samples = job->max_samples;
    out->log = workspace->log;
    return STATUS_OK;
}

enum status prepare_rows(struct workspace *workspace, const cJSON *recipe, struct dataset *out,
                         struct recipe_report *report, struct error *err)
{
    struct recipe_context context;
    TRY(make_context(workspace, NULL, &context, err));
    return recipe_run(recipe, &context, out, report, err);
}

static cJSON *report_to_json(const struct recipe_report *report)
{
    cJSON *list = cJSON_CreateArray();
    for (int i = 0; i < report->step_count; i++) {
        cJSON *step = cJSON_CreateObject();
        cJSON_AddStringToObject(step, "op", report->steps[i].op);
        cJSON_AddNumberToObject(step, "rows_in", (double)report->steps[i].rows_in);
        cJSON_AddNumberToObject(step, "rows_out", (double)report->steps[i].rows_out);
        cJSON_AddStringToObject(step, "note", report->steps[i].note);
        cJSON_AddItemToArray(list, step);
    }
    return list;
}

/* ---- cache ---- */

enum {
    CACHE_IDS,
    CACHE_TARGET,
    CACHE_START,
    CACHE_ROW,
    CACHE_SOURCE,
    CACHE_LINE,
    CACHE_COUNTS,
    CACHE_ARRAYS
};

/* Where each encoded sequence came from, beside the sequences. */
struct cache_content {
    const struct encoded_dataset *encoded;
    const int32_t *source; /* (count) index into the attribute "sources" */
    const int64_t *line;   /* (count) 1-based line of it */
    int64_t counts[3];     /* answer_tokens, truncated, dropped */
};

static const void *cache_array(const struct cache_content *content, int64_t index)
{
    switch (index) {
    case CACHE_IDS:
        return content->encoded->ids;
    case CACHE_TARGET:
        return content->encoded->target;
    case CACHE_START:
        return content->encoded->start;
    case CACHE_ROW:
        return content->encoded->row;
    case CACHE_SOURCE:
        return content->source;
    case CACHE_LINE:
        return content->line;
    default:
        return content->counts;
    }
}

static void describe_arrays(int64_t sequences, int64_t tokens, struct store_array out[CACHE_ARRAYS])
{
    static const struct {
        const char *name;
        const char *meaning;
        enum store_type type;
    } columns[CACHE_ARRAYS] = {
        {"ids", "token ids of all sequences, one after the other", STORE_I32},
        {"target", "1 where a token is part of an answer and is learned", STORE_U8},
        {"start", "first token of each sequence, and the end of the last", STORE_I64},
        {"row", "row of the recipe's result that a sequence is", STORE_I64},
        {"source", "file that a sequence came from: index into the attribute sources", STORE_I32},
        {"line", "1-based line in that file", STORE_I64},
        {"counts", "answer tokens, rows cut to fit, rows left out", STORE_I64},
    };
    memset(out, 0, sizeof(*out) * CACHE_ARRAYS);
    for (int i = 0; i < CACHE_ARRAYS; i++) {
        snprintf(out[i].name, sizeof(out[i].name), "%s", columns[i].name);
        snprintf(out[i].meaning, sizeof(out[i].meaning), "%s", columns[i].meaning);
        out[i].type = columns[i].type;
        out[i].rows = 1;
        out[i].vector = true;
        out[i].cols = i == CACHE_IDS || i == CACHE_TARGET ? tokens
                      : i == CACHE_START                  ? sequences + 1
                      : i == CACHE_COUNTS                 ? 3
                                                          : sequences;
    }
}

static enum status read_column(void *context, int64_t index, void *to, struct error *err)
{
    (void)err;
    const struct cache_content *content = context;
    struct store_array arrays[CACHE_ARRAYS];
    const struct encoded_dataset *encoded = content->encoded;
    describe_arrays(encoded->count, encoded->start[encoded->count], arrays);
    memcpy(to, cache_array(content, index),
           (size_t)arrays[index].cols * store_type_bytes(arrays[index].type));
    return STATUS_OK;
}

static enum status cache_write(const char *path, const struct encoded_dataset *encoded,
                               const struct dataset *rows, const cJSON *recipe, const cJSON *report,
                               struct error *err)
{
    enum status status = STATUS_OK;
    size_t count = (size_t)encoded->count;
    int32_t *source = mem_calloc(count, sizeof(*source));
    int64_t *line = mem_calloc(count, sizeof(*line));
    char *recipe_text = json_print_line(recipe);
    char *report_text = json_print_line(report);
    cJSON *sources =
        cJSON_CreateStringArray((const char *const *)rows->sources, rows->source_count);
    char *sources_text = json_print_line(sources);
    if (source == NULL || line == NULL || recipe_text == NULL || report_text == NULL ||
        sources_text == NULL) {
        status = mem_fail(err, count * 12, "prepared data");
        goto cleanup;
    }
    for (size_t i = 0; i < count; i++) {
        source[i] = rows->rows[encoded->row[i]].source;
        line[i] = rows->rows[encoded->row[i]].line;
    }
    struct cache_content content = {
        .encoded = encoded,
        .source = source,
        .line = line,
        .counts = {encoded->answer_tokens, encoded->truncated, encoded->dropped},
    };
    struct store_array arrays[CACHE_ARRAYS];
    describe_arrays(encoded->count, encoded->start[count], arrays);
    const struct store_attribute attributes[] = {
        {"recipe", recipe_text}, {"report", report_text}, {"sources", sources_text}};
    status = store_arrays_write(path, "data", arrays, CACHE_ARRAYS, attributes, 3, read_column,
                                &content, err);
cleanup:
    free(source);
    free(line);
    cJSON_free(recipe_text);
    cJSON_free(report_text);
    cJSON_free(sources_text);
    cJSON_Delete(sources);
    return status;
}

/* One array of a known type and length into heap memory. */
static enum status read_cached(struct store_file *file, const char *path,
                               const struct store_array *expected, void **out, struct error *err)
{
    int64_t index = store_arrays_find(file, expected->name);
    const struct store_array *found = index >= 0 ? store_arrays_at(file, index) : NULL;
    if (found == NULL || found->type != expected->type ||
        found->rows * found->cols != expected->cols) {
        return FAIL(err, STATUS_CORRUPT, "%s: array %s is missing or of another size", path,
                    expected->name);
    }
    void *values = mem_aligned((size_t)expected->cols, store_type_bytes(expected->type));
    if (values == NULL) {
        return mem_fail(err, (size_t)expected->cols * store_type_bytes(expected->type), path);
    }
    enum status status = store_arrays_read(file, index, values, err);
    if (status != STATUS_OK) {
        free(values);
        return status;
    }
    *out = values;
    return STATUS_OK;
}

/* Checks what the packer and the model will trust. */
static enum status check_cached(const struct encoded_dataset *encoded, int64_t tokens,
                                const char *path, struct error *err)
{
    for (int64_t i = 0; i < encoded->count; i++) {
        if (encoded->start[i + 1] <= encoded->start[i]) {
            return FAIL(err, STATUS_CORRUPT, "%s: sequence %lld is empty", path, (long long)i);
        }
    }
    if (encoded->start[0] != 0 || encoded->start[encoded->count] != tokens) {
        return FAIL(err, STATUS_CORRUPT, "%s: sequences do not cover the tokens", path);
    }
    return STATUS_OK;
}

static enum status cache_read(const char *path, struct prepared_data *out, struct error *err)
{
    struct store_file *file = NULL;
    int64_t *counts = NULL;
    struct encoded_dataset *encoded = &out->encoded;
    TRY(store_arrays_open(path, "data", &file, err));
    enum status status = STATUS_OK;
    int64_t ids = store_arrays_find(file, "ids");
    int64_t row = store_arrays_find(file, "row");
    if (ids < 0 || row < 0) {
        status = FAIL(err, STATUS_CORRUPT, "%s: no prepared data in it", path);
        goto cleanup;
    }
    int64_t tokens = store_arrays_at(file, ids)->cols;
    encoded->count = store_arrays_at(file, row)->cols;
    struct store_array expected[CACHE_ARRAYS];
    describe_arrays(encoded->count, tokens, expected);
    TRY_CLEANUP(read_cached(file, path, &expected[CACHE_IDS], (void **)&encoded->ids, err));
    TRY_CLEANUP(read_cached(file, path, &expected[CACHE_TARGET], (void **)&encoded->target, err));
    TRY_CLEANUP(read_cached(file, path, &expected[CACHE_START], (void **)&encoded->start, err));
    TRY_CLEANUP(read_cached(file, path, &expected[CACHE_ROW], (void **)&encoded->row, err));
    TRY_CLEANUP(read_cached(file, path, &expected[CACHE_COUNTS], (void **)&counts, err));
    encoded->answer_tokens = counts[0];
    encoded->truncated = counts[1];
    encoded->dropped = counts[2];
    TRY_CLEANUP(check_cached(encoded, tokens, path, err));
    const char *report = store_arrays_attribute(file, "report");
    TRY_CLEANUP(json_parse(report != NULL ? report : "[]", report != NULL ? strlen(report) : 2,
                           path, &out->report, err));
cleanup:
    free(counts);
    store_arrays_close(file);
    if (status != STATUS_OK) {
        prepared_data_fini(out);
    }
    return status;
}

/* Path of the cache file: everything that the encoded rows depend on is in its name. */
static enum status cache_path(struct workspace *workspace, const struct model *model,
                              const cJSON *recipe, const struct recipe_context *context,
                              int64_t max_length, const char *data_folder,
                              char out[FILE_PATH_BYTES], struct error *err)
{
    char recipe_id[HASH_TEXT_BYTES];
    char id[HASH_TEXT_BYTES];
    const struct task *task = &workspace->job->task;
    recipe_hash(recipe, context, recipe_id);
    struct buffer text;
    buffer_init(&text, 1 << 20);
    buffer_printf(&text, "1 %s %s %d %lld\n%s\n%s\n%s", recipe_id, model->hash,
                  (int)workspace_chat(workspace, model), (long long)max_length, task->template_text,
                  task->answer_template, task->system != NULL ? task->system : "");
    for (int i = 0; i < task->extract_count; i++) {
        buffer_printf(&text, "\n%s %s %s", task->extract[i].name, task->extract[i].field,
                      task->extract[i].pattern);
    }
    enum status status = buffer_check(&text, "the data's description", err);
    hash_bytes(buffer_text(&text), text.len_bytes, id);
    buffer_fini(&text);
    TRY(status);
    char name[HASH_TEXT_BYTES + 4];
    snprintf(name, sizeof(name), "%s.h5", id);
    return file_join(data_folder, name, out, err);
}

static enum status prepare_anew(struct workspace *workspace, const struct model *model,
                                const cJSON *recipe, const struct recipe_context *context,
                                int64_t max_length, const char *path, struct prepared_data *out,
                                struct error *err)
{
    struct dataset rows;
    struct recipe_report report;
    memset(&report, 0, sizeof(report));
    dataset_init(&rows);
    enum status status = STATUS_OK;
    const struct encode_options options = {.chat = workspace_chat(workspace, model),
                                           .max_length = max_length,
                                           .progress = context->progress};
    TRY_CLEANUP(recipe_run(recipe, context, &rows, &report, err));
    TRY_CLEANUP(encode_dataset(&workspace->job->task, model->tokenizer, &rows, &options,
                               &out->encoded, err));
    out->report = report_to_json(&report);
    if (out->report == NULL) {
        status = mem_fail(err, sizeof(report), "a recipe's report");
        goto cleanup;
    }
    if (out->encoded.count == 0) {
        status = FAIL(err, STATUS_INVALID,
                      "no row is left to train on: %lld rows have no answer or one longer than the "
                      "%lld tokens of a sequence",
                      (long long)out->encoded.dropped, (long long)max_length);
        goto cleanup;
    }
    if (path != NULL) {
        TRY_CLEANUP(cache_write(path, &out->encoded, &rows, recipe, out->report, err));
    }
cleanup:
    dataset_fini(&rows);
    if (status != STATUS_OK) {
        prepared_data_fini(out);
    }
    return status;
}

enum status prepare_data(struct workspace *workspace, const struct model *model,
                         const cJSON *recipe, int64_t max_length, const char *data_folder,
                         const struct progress *progress, struct prepared_data *out,
                         struct error *err)
{
    memset(out, 0, sizeof(*out));
    struct recipe_context context;
    char path[FILE_PATH_BYTES];
    TRY(make_context(workspace, progress, &context, err));
    TRY(progress_tick(progress, "data", 0, 1, err));
    if (data_folder != NULL) {
        TRY(cache_path(workspace, model, recipe, &context, max_length, data_folder, path, err));
        if (file_exists(path)) {
            struct error cause = {0};
            if (cache_read(path, out, &cause) == STATUS_OK) {
                return progress_tick(progress, "data", 1, 1, err);
            }
            log_write(workspace->log, LOG_WARNING, "run", "%s; preparing the data again",
                      cause.message);
        }
    }
    TRY(prepare_anew(workspace, model, recipe, &context, max_length,
                     data_folder != NULL ? path : NULL, out, err));
    return progress_tick(progress, "data", 1, 1, err);
}

enum status prepare_sample(struct workspace *workspace, const struct model *model,
                           const cJSON *recipe, int64_t rows, int64_t max_length,
                           const struct progress *progress, struct prepared_data *out,
                           struct error *err)
{
    memset(out, 0, sizeof(*out));
    struct recipe_context context;
    TRY(make_context(workspace, progress, &context, err));
    const struct dataset *all = context.train;
    struct dataset few = *all; /* a view: the rows are the split's own */
    few.count = rows < all->count ? rows : all->count;
    few.rows = mem_calloc((size_t)few.count, sizeof(*few.rows));
    if (few.rows == NULL) {
        return mem_fail(err, (size_t)few.count * sizeof(*few.rows), "some rows");
    }
    for (int64_t i = 0; i < few.count; i++) {
        few.rows[i] = all->rows[i * all->count / few.count];
    }
    context.train = &few;
    context.max_samples = rows;
    struct error none = {0};
    enum status status =
        prepare_anew(workspace, model, recipe, &context, max_length, NULL, out, &none);
    free(few.rows);
    if (status != STATUS_INVALID || few.count == all->count) {
        *err = status != STATUS_OK ? none : *err;
        return status;
    }
    context.train = all;
    return prepare_anew(workspace, model, recipe, &context, max_length, NULL, out, err);
}

void prepared_data_fini(struct prepared_data *data)
{
    encoded_dataset_fini(&data->encoded);
    cJSON_Delete(data->report);
    memset(data, 0, sizeof(*data));
}
