#include "run/facts.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "data/encode.h"
#include "data/recipe.h"
#include "eval/scorer.h"
#include "train/trainer.h"

enum { SAMPLED_ROWS_MAX = 4000, FEW_LABELS = 64, DEFAULT_BATCH_TOKENS = 4096 };

static int compare_i64(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a;
    int64_t y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Mean and 95th percentile; sorts `values`. */
static void summarise(int64_t *values, int64_t count, double *mean, double *p95)
{
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) {
        sum += (double)values[i];
    }
    qsort(values, (size_t)count, sizeof(*values), compare_i64);
    *mean = count > 0 ? sum / (double)count : 0.0;
    *p95 = count > 0 ? (double)values[(count - 1) * 95 / 100] : 0.0;
}

/* Token lengths of an even sample of the training rows. */
static enum status measure_lengths(struct workspace *workspace, const struct model *model,
                                   const struct dataset *rows, struct researcher_facts *out,
                                   struct error *err)
{
    const struct task *task = &workspace->job->task;
    int64_t stride = (rows->count + SAMPLED_ROWS_MAX - 1) / SAMPLED_ROWS_MAX;
    int64_t *prompts = mem_calloc(SAMPLED_ROWS_MAX, sizeof(*prompts));
    int64_t *answers = mem_calloc(SAMPLED_ROWS_MAX, sizeof(*answers));
    struct token_list ids;
    token_list_init(&ids, INT64_C(1) << 24);
    int64_t count = 0;
    double characters = 0.0;
    double tokens = 0.0;
    enum status status = STATUS_OK;
    if (prompts == NULL || answers == NULL) {
        status = mem_fail(err, SAMPLED_ROWS_MAX * 16, "row lengths");
        goto cleanup;
    }
    for (int64_t row = 0; row < rows->count && count < SAMPLED_ROWS_MAX; row += stride) {
        struct task_example example;
        int64_t answer_start = 0;
        bool truncated = false;
        TRY_CLEANUP(task_render(task, &rows->rows[row], &example, err));
        ids.count = 0;
        status =
            encode_prompt(task, model->tokenizer, workspace_chat(workspace, model), &example,
                          example.answer, INT64_C(1) << 24, &ids, &answer_start, &truncated, err);
        characters += (double)(strlen(example.prompt) + strlen(example.answer));
        task_example_fini(&example);
        TRY_CLEANUP(status);
        tokens += (double)ids.count;
        prompts[count] = answer_start;
        answers[count] = ids.count - answer_start;
        if (ids.count > out->sequence_tokens_max) {
            out->sequence_tokens_max = ids.count;
        }
        count++;
    }
    out->characters_per_token = tokens > 0.0 ? characters / tokens : 0.0;
    summarise(prompts, count, &out->prompt_tokens_mean, &out->prompt_tokens_p95);
    summarise(answers, count, &out->answer_tokens_mean, &out->answer_tokens_p95);
cleanup:
    token_list_fini(&ids);
    free(prompts);
    free(answers);
    return status;
}

/* Distinct answers if they are few, and the share of the most frequent one. */
static void count_labels(const struct dataset *rows, struct researcher_facts *out)
{
    const char *labels[FEW_LABELS];
    int64_t counts[FEW_LABELS] = {0};
    int found = 0;
    int64_t most = 0;
    for (int64_t i = 0; i < rows->count; i++) {
        const char *answer = data_row_text(&rows->rows[i], "answer");
        if (answer == NULL) {
            return;
        }
        int k = 0;
        while (k < found && strcmp(labels[k], answer) != 0) {
            k++;
        }
        if (k == FEW_LABELS) {
            return; /* free text, not labels */
        }
        if (k == found) {
            labels[found++] = answer;
        }
        counts[k]++;
        most = counts[k] > most ? counts[k] : most;
    }
    out->label_count = found;
    out->majority_share = rows->count > 0 ? (double)most / (double)rows->count : 0.0;
}

/* Duplicates, by what the recipe's own operator finds. */
static enum status count_duplicates(struct workspace *workspace, const struct dataset *rows,
                                    struct researcher_facts *out, struct error *err)
{
    cJSON *recipe = cJSON_Parse("[{\"op\":\"dedup\"}]");
    struct recipe_context context = {
        .task = &workspace->job->task,
        .train = rows,
        .folder = ".",
        .seed = workspace->job->seed,
    };
    struct dataset unique;
    struct recipe_report report;
    memset(&report, 0, sizeof(report));
    dataset_init(&unique);
    enum status status = recipe_run(recipe, &context, &unique, &report, err);
    if (status == STATUS_OK && report.step_count > 0) {
        out->train_duplicates = report.steps[0].rows_in - report.steps[0].rows_out;
    }
    dataset_fini(&unique);
    cJSON_Delete(recipe);
    return status;
}

static void describe_model(const struct job *job, const struct model *model,
                           struct researcher_facts *out)
{
    out->model_parameters = model_config_parameters(&model->config);
    out->model_layers = model->config.layers;
    out->model_hidden = model->config.hidden_size;
    out->model_max_positions = model->config.max_positions;
    out->chat_model = model->chat != CHAT_PLAIN;
    out->sequence_length = workspace_sequence_length(job, &model->config, NULL);
    out->batch_tokens = job->batch_tokens > 0 ? job->batch_tokens : DEFAULT_BATCH_TOKENS;
    if (out->batch_tokens < out->sequence_length && job->batch_tokens == 0) {
        out->batch_tokens = out->sequence_length;
    }
}

/* Whether even the smallest full fine-tuning, one sequence at a time, is too large for a worker. */
static bool full_is_too_large(const struct model *model, const struct researcher_facts *facts,
                              int64_t memory_bytes)
{
    struct train_config config = train_config_default();
    config.method = TRAIN_FULL;
    config.precision = facts->precision;
    config.batch_tokens = facts->sequence_tokens_max < facts->sequence_length
                              ? facts->sequence_tokens_max
                              : facts->sequence_length;
    config.sequence_length = config.batch_tokens;
    return memory_bytes > 0 && trainer_bytes(&model->config, &config) > memory_bytes;
}

enum status facts_gather(struct workspace *workspace, const struct model *model,
                         enum train_precision precision, int64_t memory_bytes,
                         struct researcher_facts *out, struct error *err)
{
    const struct job *job = workspace->job;
    const struct scorer *scorer = scorer_find(job->task.metric);
    const struct dataset *train = NULL;
    const struct dataset *validation = NULL;
    memset(out, 0, sizeof(*out));
    TRY(workspace_split(workspace, TASK_TRAIN, &train, err));
    TRY(workspace_split(workspace, TASK_VALIDATION, &validation, err));
    out->task = &job->task;
    out->goal = job->goal;
    out->metric_worst = scorer->worst;
    out->metric_best = scorer->best;
    out->train_rows = train->count;
    out->validation_rows = validation->count;
    out->precision = precision;
    out->max_samples = job->max_samples;
    out->max_steps = job->max_steps;
    out->candidate_seconds = job->candidate_seconds;
    out->configurations = job->configurations;
    out->rounds = job->rounds;
    out->seed = job->seed;
    describe_model(job, model, out);
    count_labels(train, out);
    TRY(count_duplicates(workspace, train, out, err));
    TRY(measure_lengths(workspace, model, train, out, err));
    out->lora_only = full_is_too_large(model, out, memory_bytes);
    return STATUS_OK;
}
