#include "eval/eval.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "eval/diagnosis.h"
#include "eval/statistics.h"

/* Rows as a scorer takes them, with the rendered texts that they borrow. */
struct scoring {
    const struct task *task;
    const struct scorer *scorer;
    int64_t count;
    struct task_example *examples; /* (count) */
    struct scorer_row *rows;       /* (count) */
    double *row_score;             /* (count) */
    int64_t rendered;
};

static void scoring_fini(struct scoring *scoring)
{
    for (int64_t i = 0; i < scoring->rendered; i++) {
        task_example_fini(&scoring->examples[i]);
    }
    free(scoring->examples);
    free(scoring->rows);
    free(scoring->row_score);
}

static enum status scoring_init(struct scoring *scoring, const struct task *task,
                                const struct dataset *rows,
                                const struct eval_predictions *predictions, struct error *err)
{
    memset(scoring, 0, sizeof(*scoring));
    if (rows->count < 1 || predictions->count != rows->count) {
        return FAIL(err, STATUS_INVALID, "nothing to score: %lld rows, %lld predictions",
                    (long long)rows->count, (long long)predictions->count);
    }
    scoring->task = task;
    scoring->scorer = scorer_find(task->metric);
    if (scoring->scorer == NULL) {
        return FAIL(err, STATUS_NOT_FOUND, "there is no metric \"%.80s\"", task->metric);
    }
    size_t count = (size_t)rows->count;
    scoring->count = rows->count;
    scoring->examples = mem_calloc(count, sizeof(*scoring->examples));
    scoring->rows = mem_calloc(count, sizeof(*scoring->rows));
    scoring->row_score = mem_calloc(count, sizeof(*scoring->row_score));
    if (scoring->examples == NULL || scoring->rows == NULL || scoring->row_score == NULL) {
        return mem_fail(err, count * sizeof(*scoring->examples), "rows to score");
    }
    for (int64_t i = 0; i < rows->count; i++) {
        if (predictions->rows[i].output == NULL) {
            return FAIL(err, STATUS_INVALID, "row %lld has no prediction", (long long)i);
        }
        TRY(task_render(task, &rows->rows[i], &scoring->examples[i], err));
        scoring->rendered++;
        scoring->rows[i] = (struct scorer_row){.row = &rows->rows[i],
                                               .prompt = scoring->examples[i].prompt,
                                               .answer = scoring->examples[i].raw_answer,
                                               .output = predictions->rows[i].output};
    }
    return STATUS_OK;
}

/* ---- standard error ---- */

/* A resample that is scored anew, for scorers without a faster way. */
struct resample {
    const struct scoring *scoring;
    struct scorer_row *rows; /* (count) */
    double *row_score;       /* (count) */
};

static enum status score_resample(void *context, const int64_t *picked, int64_t count,
                                  double *figure, struct error *err)
{
    struct resample *resample = context;
    const struct scoring *scoring = resample->scoring;
    for (int64_t i = 0; i < count; i++) {
        resample->rows[i] = scoring->rows[picked[i]];
    }
    return scoring->scorer->score(scoring->task, resample->rows, count, resample->row_score, figure,
                                  err);
}

static enum status resample_rows(const struct scoring *scoring, uint64_t seed, double *out,
                                 struct error *err)
{
    enum status status = STATUS_OK;
    size_t count = (size_t)scoring->count;
    struct resample resample = {scoring, mem_calloc(count, sizeof(*resample.rows)),
                                mem_calloc(count, sizeof(*resample.row_score))};
    if (resample.rows == NULL || resample.row_score == NULL) {
        status = mem_fail(err, count * sizeof(*resample.rows), "resampled rows");
    } else {
        status = statistics_bootstrap(scoring->count, seed, score_resample, &resample, out, err);
    }
    free(resample.rows);
    free(resample.row_score);
    return status;
}

static enum status find_standard_error(const struct scoring *scoring, uint64_t seed, double *out,
                                       struct error *err)
{
    const struct scorer *scorer = scoring->scorer;
    if (scoring->count < 2) {
        *out = (scorer->best - scorer->worst) /
               2.0; /* one row tells nothing: as much as two can differ */
        return STATUS_OK;
    }
    if (scorer->mean_of_rows) {
        double mean = 0.0;
        statistics_mean(scoring->row_score, scoring->count, &mean, out);
        return STATUS_OK;
    }
    if (scorer->standard_error != NULL) {
        return scorer->standard_error(scoring->task, scoring->rows, scoring->count, seed, out, err);
    }
    return resample_rows(scoring, seed, out, err);
}

/* ---- score ---- */

static void sum_predictions(const struct eval_predictions *predictions, struct eval_result *result)
{
    double nats = 0.0;
    int64_t tokens = 0;
    for (int64_t i = 0; i < predictions->count; i++) {
        const struct eval_prediction *prediction = &predictions->rows[i];
        nats += prediction->answer_tokens > 0 ? prediction->answer_nats : 0.0;
        tokens += prediction->answer_tokens;
        result->truncated += prediction->truncated;
        result->unfinished += prediction->unfinished;
    }
    result->loss = tokens > 0 ? nats / (double)tokens : NAN;
}

enum status eval_score(const struct task *task, const struct dataset *rows,
                       const struct eval_predictions *predictions,
                       const struct eval_options *options, struct eval_result *out,
                       struct error *err)
{
    enum status status = STATUS_OK;
    struct eval_result result = {.rows = rows->count};
    struct scoring scoring;
    double started_s = clock_monotonic_s();
    TRY_CLEANUP(scoring_init(&scoring, task, rows, predictions, err));
    TRY_CLEANUP(scoring.scorer->score(task, scoring.rows, scoring.count, scoring.row_score,
                                      &result.score, err));
    TRY_CLEANUP(find_standard_error(&scoring, options->seed, &result.standard_error, err));
    TRY_CLEANUP(diagnosis_sample_cases(scoring.scorer, scoring.rows, scoring.row_score,
                                       scoring.count, options->max_cases, options->seed, &result,
                                       err));
    TRY_CLEANUP(diagnosis_count_labels(task, scoring.rows, scoring.count, &result, err));
    sum_predictions(predictions, &result);
    result.seconds = clock_monotonic_s() - started_s;
    *out = result;
cleanup:
    scoring_fini(&scoring);
    if (status != STATUS_OK) {
        eval_result_fini(&result);
    }
    return status;
}

enum status eval_run(const struct model *model, const struct network *network,
                     const struct task *task, enum chat_format chat, const struct dataset *rows,
                     const struct eval_options *options, const struct progress *progress,
                     struct eval_result *out, struct error *err)
{
    enum status status = STATUS_OK;
    struct eval_predictions predictions = {0};
    double started_s = clock_monotonic_s();
    if (options->size > 1) {
        return FAIL(err, STATUS_UNSUPPORTED,
                    "eval_run works alone; a group of %d ranks calls eval_predict on each",
                    options->size);
    }
    if (rows->count < 1) {
        return FAIL(err, STATUS_INVALID, "the split has no rows to evaluate");
    }
    if (scorer_find(task->metric) == NULL) { /* known before the work, not after it */
        return FAIL(err, STATUS_NOT_FOUND, "there is no metric \"%.80s\"", task->metric);
    }
    TRY_CLEANUP(eval_predictions_init(&predictions, rows->count, err));
    TRY_CLEANUP(
        eval_predict(model, network, task, chat, rows, options, progress, &predictions, err));
    TRY_CLEANUP(eval_score(task, rows, &predictions, options, out, err));
    out->seconds = clock_monotonic_s() - started_s;
cleanup:
    eval_predictions_fini(&predictions);
    return status;
}

void eval_result_fini(struct eval_result *result)
{
    for (int64_t i = 0; i < result->case_count; i++) {
        free(result->cases[i].prompt);
        free(result->cases[i].answer);
        free(result->cases[i].output);
    }
    free(result->cases);
    memset(result, 0, sizeof(*result));
}
