#include "run/facts.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/text.h"
#include "data/encode.h"
#include "data/overlap.h"
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

/* ---- samples, for a language model to see ---- */

struct showing {
    const struct task *task;
    const struct dataset *rows; /* of train */
    struct held_out *held_out;  /* what stands in validation or test is shown to nobody */
    bool by_label;
    struct researcher_facts *facts;
};

static const char *label_of(const struct data_row *row)
{
    const char *label = data_row_text(row, "answer");
    return label != NULL ? label : "";
}

/* How many of the samples so far have this row's label. */
static int count_same(const struct showing *showing, const char *answer)
{
    int same = 0;
    for (int i = 0; showing->by_label && i < showing->facts->sample_count; i++) {
        same += strcmp(showing->facts->samples[i].answer, answer) == 0;
    }
    return same;
}

static char *cut_copy(const char *text)
{
    char *copy = mem_strdup(text);
    if (copy != NULL && strlen(copy) >= RESEARCHER_SAMPLE_BYTES) {
        size_t end = RESEARCHER_SAMPLE_BYTES - 4;
        while (end > 0 && ((unsigned char)copy[end] & 0xC0) == 0x80) {
            end--; /* not inside a character */
        }
        memcpy(copy + end, "...", 4);
    }
    return copy;
}

static enum status add_sample(struct showing *showing, const struct data_row *row,
                              struct error *err)
{
    struct researcher_facts *facts = showing->facts;
    struct researcher_sample *sample = &facts->samples[facts->sample_count];
    struct task_example example;
    TRY(task_render(showing->task, row, &example, err));
    sample->prompt = cut_copy(example.prompt);
    sample->answer = cut_copy(example.answer);
    task_example_fini(&example);
    facts->sample_count++;
    return sample->prompt != NULL && sample->answer != NULL
               ? STATUS_OK
               : mem_fail(err, RESEARCHER_SAMPLE_BYTES, "samples of the training rows");
}

/* One row of [first, end): from a random one on, the first whose label the samples have least of.
 */
static enum status sample_part(struct showing *showing, int64_t first, int64_t end, struct rng *rng,
                               struct error *err)
{
    int64_t count = end - first;
    const struct data_row *best = NULL;
    int best_same = RESEARCHER_SAMPLES_MAX;
    int64_t start = count > 0 ? (int64_t)(rng_uniform(rng) * (double)count) : 0;
    int64_t tried = count < FEW_LABELS ? count : FEW_LABELS;
    for (int64_t i = 0; i < tried && best_same > 0; i++) {
        const struct data_row *row = &showing->rows->rows[first + (start + i) % count];
        enum held_out_match match = HELD_OUT_NEW;
        int same = count_same(showing, label_of(row));
        if (same >= best_same) {
            continue;
        }
        TRY(held_out_compare(showing->held_out, row, &match, err));
        best = match == HELD_OUT_NEW ? row : best;
        best_same = match == HELD_OUT_NEW ? same : best_same;
    }
    return best != NULL ? add_sample(showing, best, err) : STATUS_OK;
}

static enum status take_samples(struct workspace *workspace, const struct dataset *rows,
                                struct researcher_facts *out, struct error *err)
{
    const struct dataset *validation = NULL;
    const struct dataset *test = NULL;
    struct showing showing = {
        .task = &workspace->job->task,
        .rows = rows,
        .by_label = out->label_count > 0,
        .facts = out,
    };
    TRY(workspace_split(workspace, TASK_VALIDATION, &validation, err));
    TRY(workspace_split(workspace, TASK_TEST, &test, err));
    TRY(held_out_create(showing.task, validation, test, 0, NULL, &showing.held_out, err));
    struct rng rng;
    rng_init(&rng, workspace->job->seed, UINT64_MAX - 1);
    enum status status = STATUS_OK;
    for (int64_t i = 0; i < RESEARCHER_SAMPLES_MAX && status == STATUS_OK; i++) {
        int64_t first = i * rows->count / RESEARCHER_SAMPLES_MAX;
        int64_t end = (i + 1) * rows->count / RESEARCHER_SAMPLES_MAX;
        status = sample_part(&showing, first, end, &rng, err);
    }
    held_out_destroy(showing.held_out);
    return status;
}

/* Which rows of validation stand in test as well. */
static enum status find_test_twins(struct workspace *workspace, const struct dataset *validation,
                                   struct researcher_facts *out, struct error *err)
{
    const struct dataset *test = NULL;
    struct held_out *held_out = NULL;
    TRY(workspace_split(workspace, TASK_TEST, &test, err));
    out->test_twins = mem_calloc((size_t)validation->count + 1, sizeof(*out->test_twins));
    if (out->test_twins == NULL) {
        return mem_fail(err, (size_t)validation->count * sizeof(*out->test_twins), "row numbers");
    }
    TRY(held_out_create(&workspace->job->task, NULL, test, 0, NULL, &held_out, err));
    enum status status = STATUS_OK;
    for (int64_t row = 0; row < validation->count && status == STATUS_OK; row++) {
        enum held_out_match match = HELD_OUT_NEW;
        status = held_out_compare(held_out, &validation->rows[row], &match, err);
        if (match != HELD_OUT_NEW) {
            out->test_twins[out->test_twin_count++] = row;
        }
    }
    held_out_destroy(held_out);
    return status;
}

void facts_hide_twins(const struct researcher_facts *facts, cJSON *cases)
{
    cJSON *item = cases != NULL && facts->test_twin_count > 0 ? cases->child : NULL;
    while (item != NULL) {
        cJSON *next = item->next;
        const cJSON *number = cJSON_GetObjectItemCaseSensitive(item, "row");
        int64_t row = cJSON_IsNumber(number) ? (int64_t)number->valuedouble : -1;
        if (bsearch(&row, facts->test_twins, (size_t)facts->test_twin_count, sizeof(row),
                    compare_i64) != NULL) {
            cJSON_Delete(cJSON_DetachItemViaPointer(cases, item));
        }
        item = next;
    }
}

void facts_fini(struct researcher_facts *facts)
{
    free(facts->test_twins);
    facts->test_twins = NULL;
    facts->test_twin_count = 0;
    for (int i = 0; i < facts->sample_count; i++) {
        free(facts->samples[i].prompt);
        free(facts->samples[i].answer);
    }
    facts->sample_count = 0;
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
    if (job->researcher.endpoint_count > 0) {
        TRY(take_samples(workspace, train, out, err));
        TRY(find_test_twins(workspace, validation, out, err));
    }
    out->lora_only = full_is_too_large(model, out, memory_bytes);
    return STATUS_OK;
}
