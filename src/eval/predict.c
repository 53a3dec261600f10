/* What the model answers to each row of a split, and how likely it finds the right answer. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "eval/eval.h"
#include "eval/generate.h"
#include "eval/labels.h"
#include "eval/likelihood.h"
#include "eval/utf8.h"

enum { DEFAULT_BATCH_TOKENS = 4096, ANSWER_MAX_BYTES = 1 << 30 };

/* Inputs of one eval_predict; rows are those of this rank: first, first + step ... */
struct job {
    const struct model *model;
    const struct network *network;
    const struct task *task;
    enum chat_format chat;
    const struct dataset *rows;
    const struct eval_options *options;
    const struct progress *progress;
    struct eval_predictions *out;
    int64_t first;
    int64_t step;
    int64_t count;      /* rows of this rank */
    int64_t max_length; /* tokens of a prompt with its answer */
    int64_t batch_tokens;
};

static int64_t row_of(const struct job *job, int64_t i)
{
    return job->first + i * job->step;
}

/* Says which row an error is about. */
static void name_row(const struct job *job, int64_t row, struct error *err)
{
    const struct data_row *place = &job->rows->rows[row];
    bool known = place->source >= 0 && place->source < job->rows->source_count;
    error_context(err, "%s:%lld", known ? job->rows->sources[place->source] : "row",
                  (long long)place->line);
}

static enum status render(const struct job *job, int64_t row, struct task_example *example,
                          struct error *err)
{
    enum status status = task_render(job->task, &job->rows->rows[row], example, err);
    if (status != STATUS_OK) {
        name_row(job, row, err);
    }
    return status;
}

/* ---- by likelihood of choices ---- */

/* The sequences of a row's choices in the list are first[i] .. first[i + 1]; the right one is
 * answer[i], or -1. */
struct choices {
    struct likelihood_list list;
    int64_t *first;
    int64_t *answer;
    double *nats;
};

static void choices_fini(struct choices *choices)
{
    likelihood_list_fini(&choices->list);
    free(choices->first);
    free(choices->answer);
    free(choices->nats);
}

static enum status add_choices(const struct job *job, int64_t i, struct choices *choices,
                               struct error *err)
{
    struct task_example example;
    int64_t row = row_of(job, i);
    TRY(render(job, row, &example, err));
    enum status status = STATUS_OK;
    if (example.choice_count < 1) {
        status = FAIL(err, STATUS_INVALID,
                      "no choices: give the row \"choices\", or the task \"labels\" or "
                      "\"predict\": \"generate\"");
        goto cleanup;
    }
    choices->first[i] = choices->list.count;
    choices->answer[i] =
        example.choice_answer >= 0 ? choices->list.count + example.choice_answer : -1;
    for (int k = 0; k < example.choice_count; k++) {
        bool truncated = false;
        TRY_CLEANUP(likelihood_add(&choices->list, job->task, job->model->tokenizer, job->chat,
                                   &example, example.choices[k], job->max_length, &truncated, err));
        job->out->rows[row].truncated |= truncated;
    }
    choices->first[i + 1] = choices->list.count;
cleanup:
    task_example_fini(&example);
    if (status != STATUS_OK) {
        name_row(job, row, err);
    }
    return status;
}

/* Index of the smallest, the first of equal ones; NaN counts as the largest. */
static int64_t smallest(const double *values, int64_t count)
{
    int64_t best = 0;
    for (int64_t i = 1; i < count; i++) {
        if (values[i] < values[best] || (isnan(values[best]) && !isnan(values[i]))) {
            best = i;
        }
    }
    return best;
}

/* Choice number `taken` in the words of the row's answers: what the template puts around it is no
 * part of it. */
static enum status name_choice(const struct job *job, int64_t row, int64_t taken, char **out,
                               struct error *err)
{
    struct task_example example;
    struct label_set set;
    struct buffer text;
    buffer_init(&text, ANSWER_MAX_BYTES);
    TRY(render(job, row, &example, err));
    enum status status = STATUS_OK;
    const char *answer = scorer_text(example.raw_answer);
    TRY_CLEANUP(label_set_of_row(job->task, &job->rows->rows[row], answer, &set, err));
    if (taken == example.choice_answer) {
        buffer_append_text(&text, answer);
    } else if (set.count == example.choice_count) {
        buffer_append_text(&text, set.names[taken]);
    } else {
        utf8_normalise(&text, example.choices[taken], strlen(example.choices[taken]), 0);
    }
    *out = buffer_take(&text);
    if (*out == NULL) {
        status = FAIL(err, STATUS_NO_MEMORY, "no memory for an answer");
    }
cleanup:
    buffer_fini(&text);
    task_example_fini(&example);
    return status;
}

static enum status take_choices(const struct job *job, const struct choices *choices,
                                struct error *err)
{
    for (int64_t i = 0; i < job->count; i++) {
        int64_t row = row_of(job, i);
        struct eval_prediction *prediction = &job->out->rows[row];
        const double *nats = choices->nats + choices->first[i];
        int64_t taken = smallest(nats, choices->first[i + 1] - choices->first[i]);
        TRY(name_choice(job, row, taken, &prediction->output, err));
        if (choices->answer[i] >= 0) {
            prediction->answer_nats = choices->nats[choices->answer[i]];
            prediction->answer_tokens =
                likelihood_answer_tokens(&choices->list, choices->answer[i]);
        }
    }
    return STATUS_OK;
}

static enum status predict_choices(const struct job *job, struct error *err)
{
    enum status status = STATUS_OK;
    struct choices choices = {0};
    likelihood_list_init(&choices.list);
    choices.first = mem_calloc((size_t)job->count + 1, sizeof(*choices.first));
    choices.answer = mem_calloc((size_t)job->count, sizeof(*choices.answer));
    if (choices.first == NULL || choices.answer == NULL) {
        status = mem_fail(err, (size_t)job->count * 2 * sizeof(*choices.first), "choices");
        goto cleanup;
    }
    for (int64_t i = 0; i < job->count; i++) {
        TRY_CLEANUP(add_choices(job, i, &choices, err));
    }
    choices.nats = mem_calloc((size_t)choices.list.count, sizeof(*choices.nats));
    if (choices.nats == NULL) {
        status = mem_fail(err, (size_t)choices.list.count * sizeof(*choices.nats), "choices");
        goto cleanup;
    }
    TRY_CLEANUP(likelihood_run(job->network, &choices.list, job->batch_tokens, job->progress,
                               choices.nats, err));
    TRY_CLEANUP(take_choices(job, &choices, err));
cleanup:
    choices_fini(&choices);
    return status;
}

/* ---- by generation ---- */

/* Loss of the rows' own answers, for rows that have one. */
static enum status measure_answers(const struct job *job, struct error *err)
{
    enum status status = STATUS_OK;
    struct likelihood_list list;
    likelihood_list_init(&list);
    double *nats = mem_calloc((size_t)job->count, sizeof(*nats));
    int64_t *row = mem_calloc((size_t)job->count, sizeof(*row)); /* of each sequence */
    if (nats == NULL || row == NULL) {
        status = mem_fail(err, (size_t)job->count * 2 * sizeof(*nats), "losses of answers");
        goto cleanup;
    }
    for (int64_t i = 0; i < job->count; i++) {
        struct task_example example;
        bool truncated = false;
        row[list.count] = row_of(job, i);
        TRY_CLEANUP(render(job, row_of(job, i), &example, err));
        if (scorer_text(example.answer)[0] != '\0') {
            status = likelihood_add(&list, job->task, job->model->tokenizer, job->chat, &example,
                                    example.answer, job->max_length, &truncated, err);
        }
        task_example_fini(&example);
        if (status == STATUS_LIMIT || status == STATUS_RANGE) {
            status = STATUS_OK; /* an answer longer than the model has no loss; the row is scored
                                   all the same */
        }
        TRY_CLEANUP(status);
    }
    TRY_CLEANUP(likelihood_run(job->network, &list, job->batch_tokens, job->progress, nats, err));
    for (int64_t k = 0; k < list.count; k++) {
        job->out->rows[row[k]].answer_nats = nats[k];
        job->out->rows[row[k]].answer_tokens = likelihood_answer_tokens(&list, k);
    }
cleanup:
    likelihood_list_fini(&list);
    free(nats);
    free(row);
    return status;
}

/* Prompts of this rank's rows, as generate_run takes them. */
struct prompts {
    struct token_list ids;
    int64_t *start;                  /* (count + 1) */
    uint64_t *streams;               /* (count) */
    struct generate_output *outputs; /* (count) */
};

static void prompts_fini(struct prompts *prompts, int64_t count)
{
    for (int64_t i = 0; prompts->outputs != NULL && i < count; i++) {
        free(prompts->outputs[i].text);
    }
    token_list_fini(&prompts->ids);
    free(prompts->start);
    free(prompts->streams);
    free(prompts->outputs);
}

/* Encodes the prompts, each cut so that there is room for an answer after it. */
static enum status prompts_init(const struct job *job, struct prompts *prompts, struct error *err)
{
    memset(prompts, 0, sizeof(*prompts));
    token_list_init(&prompts->ids, INT32_MAX);
    prompts->start = mem_calloc((size_t)job->count + 1, sizeof(*prompts->start));
    prompts->streams = mem_calloc((size_t)job->count, sizeof(*prompts->streams));
    prompts->outputs = mem_calloc((size_t)job->count, sizeof(*prompts->outputs));
    if (prompts->start == NULL || prompts->streams == NULL || prompts->outputs == NULL) {
        return mem_fail(err, (size_t)job->count * sizeof(*prompts->outputs), "prompts");
    }
    /* A long answer must not crowd the prompt out: it keeps at least half of the positions. */
    int64_t half = (job->max_length + 1) / 2;
    int64_t room = job->max_length - job->task->max_new_tokens;
    int64_t max_prompt = room > half ? room : half;
    for (int64_t i = 0; i < job->count; i++) {
        struct task_example example;
        struct token_list ids;
        int64_t answer_start = 0;
        int64_t row = row_of(job, i);
        token_list_init(&ids, INT32_MAX);
        TRY(render(job, row, &example, err));
        enum status status =
            encode_prompt(job->task, job->model->tokenizer, job->chat, &example, NULL, max_prompt,
                          &ids, &answer_start, &job->out->rows[row].truncated, err);
        if (status == STATUS_OK) {
            status = token_list_append(&prompts->ids, ids.ids, ids.count, err);
        }
        task_example_fini(&example);
        token_list_fini(&ids);
        if (status != STATUS_OK) {
            name_row(job, row, err);
            return status;
        }
        prompts->start[i + 1] = prompts->ids.count;
        prompts->streams[i] = (uint64_t)row;
    }
    return STATUS_OK;
}

/* The part of an output behind its thinking: what is scored. */
static const char *without_thinking(const char *text)
{
    static const char close_mark[] = "</think>";
    const char *answer = text;
    for (const char *hit = strstr(text, close_mark); hit != NULL;
         hit = strstr(answer, close_mark)) {
        answer = hit + sizeof(close_mark) - 1;
    }
    return answer == text ? text : answer + strspn(answer, " \t\r\n");
}

static enum status tick_generation(void *context, const char *phase, int64_t done, int64_t total,
                                   struct error *err)
{
    (void)phase;
    return progress_tick(context, "evaluate", done, total, err);
}

static enum status predict_texts(const struct job *job, struct error *err)
{
    enum status status = STATUS_OK;
    const struct task *task = job->task;
    const char *stop[TASK_STOPS_MAX + 1] = {NULL};
    for (int i = 0; i < task->stop_count; i++) {
        stop[i] = task->stop[i];
    }
    struct prompts prompts;
    TRY_CLEANUP(prompts_init(job, &prompts, err));
    struct generate_options options = {.max_new_tokens = task->max_new_tokens,
                                       .sampling = {(float)task->temperature, 0, 1.0f},
                                       .stop = stop,
                                       .seed = job->options->seed,
                                       .streams = prompts.streams};
    struct progress inner = {tick_generation, (void *)(uintptr_t)job->progress};
    TRY_CLEANUP(generate_run(job->model, job->network, prompts.ids.ids, prompts.start, job->count,
                             &options, NULL, NULL, &inner, prompts.outputs, err));
    for (int64_t i = 0; i < job->count; i++) {
        struct eval_prediction *prediction = &job->out->rows[row_of(job, i)];
        prediction->output = mem_strdup(without_thinking(prompts.outputs[i].text));
        prediction->unfinished = prompts.outputs[i].end == GENERATE_LENGTH;
        if (prediction->output == NULL) {
            status = mem_fail(err, strlen(prompts.outputs[i].text), "an output");
            goto cleanup;
        }
    }
cleanup:
    prompts_fini(&prompts, job->count);
    return status == STATUS_OK ? measure_answers(job, err) : status;
}

/* ---- both ---- */

enum status eval_predictions_init(struct eval_predictions *predictions, int64_t count,
                                  struct error *err)
{
    predictions->count = 0;
    predictions->rows = mem_calloc((size_t)count, sizeof(*predictions->rows));
    if (predictions->rows == NULL) {
        return mem_fail(err, (size_t)count * sizeof(*predictions->rows), "predictions");
    }
    predictions->count = count;
    return STATUS_OK;
}

void eval_predictions_fini(struct eval_predictions *predictions)
{
    for (int64_t i = 0; i < predictions->count; i++) {
        free(predictions->rows[i].output);
    }
    free(predictions->rows);
    memset(predictions, 0, sizeof(*predictions));
}

/* Empties this rank's rows, so that a failure leaves nothing half done. */
static void clear_rows(const struct job *job)
{
    for (int64_t i = 0; i < job->count; i++) {
        struct eval_prediction *prediction = &job->out->rows[row_of(job, i)];
        free(prediction->output);
        memset(prediction, 0, sizeof(*prediction));
    }
}

enum status eval_predict(const struct model *model, const struct network *network,
                         const struct task *task, enum chat_format chat, const struct dataset *rows,
                         const struct eval_options *options, const struct progress *progress,
                         struct eval_predictions *out, struct error *err)
{
    int64_t step = options->size > 1 ? options->size : 1;
    int64_t positions = model->config.max_positions;
    bool shorter = options->max_length > 0 && options->max_length < positions;
    struct job job = {.model = model,
                      .network = network,
                      .task = task,
                      .chat = chat,
                      .rows = rows,
                      .options = options,
                      .progress = progress,
                      .out = out,
                      .first = step > 1 ? options->rank : 0,
                      .step = step,
                      .max_length = shorter ? options->max_length : positions,
                      .batch_tokens =
                          options->batch_tokens > 0 ? options->batch_tokens : DEFAULT_BATCH_TOKENS};
    if (job.first < 0 || job.first >= step || out->count != rows->count) {
        return FAIL(err, STATUS_INTERNAL, "rank %d of %d, %lld predictions for %lld rows",
                    options->rank, options->size, (long long)out->count, (long long)rows->count);
    }
    job.count = rows->count > job.first ? (rows->count - job.first + step - 1) / step : 0;
    if (job.count == 0) {
        return STATUS_OK;
    }
    enum status status = task->predict == TASK_PREDICT_CHOICE ? predict_choices(&job, err)
                                                              : predict_texts(&job, err);
    if (status != STATUS_OK) {
        clear_rows(&job);
    }
    return status;
}
