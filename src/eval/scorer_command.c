/* command: an external program scores. Each row goes to its standard input as one line of JSON: all
 * fields of the row, with "prompt" as the model read it, "answer", and "output" as the model wrote
 * it. For each it prints a line
 * {"score": x}, 0 <= x <= 1, in the same order. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/process.h"
#include "eval/scorers.h"
#include "eval/utf8.h"

struct exchange {
    const char *command;
    const struct scorer_row *rows;
    int64_t count;
    int64_t sent;
    int64_t received;
    struct buffer line; /* the row that is being sent */
    double *row_score;
};

/* Sets a field to text, made well-formed so that the line is JSON whatever the model wrote. */
static enum status set_text(cJSON *object, const char *key, const char *text, struct error *err)
{
    enum status status = STATUS_OK;
    struct buffer valid;
    buffer_init(&valid, SCORER_TEXT_MAX_BYTES);
    utf8_append_valid(&valid, scorer_text(text), strlen(scorer_text(text)));
    TRY_CLEANUP(buffer_check(&valid, "text for the command", err));
    cJSON_DeleteItemFromObjectCaseSensitive(object, key);
    if (cJSON_AddStringToObject(object, key, buffer_text(&valid)) == NULL) {
        status = FAIL(err, STATUS_NO_MEMORY, "no memory for a row of the command");
    }
cleanup:
    buffer_fini(&valid);
    return status;
}

static enum status write_row(const struct scorer_row *row, struct buffer *line, struct error *err)
{
    enum status status = STATUS_OK;
    char *text = NULL;
    cJSON *object =
        row->row != NULL ? cJSON_Duplicate(row->row->object, true) : cJSON_CreateObject();
    if (object == NULL) {
        return FAIL(err, STATUS_NO_MEMORY, "no memory for a row of the command");
    }
    TRY_CLEANUP(set_text(object, "prompt", row->prompt, err));
    TRY_CLEANUP(set_text(object, "answer", row->answer, err));
    TRY_CLEANUP(set_text(object, "output", row->output, err));
    text = json_print_line(object);
    if (text == NULL) {
        status = FAIL(err, STATUS_NO_MEMORY, "no memory for a row of the command");
        goto cleanup;
    }
    buffer_clear(line);
    buffer_append_text(line, text);
    buffer_append_char(line, '\n');
    TRY_CLEANUP(buffer_check(line, "a row for the command", err));
cleanup:
    free(text);
    cJSON_Delete(object);
    return status;
}

static enum status next_row(void *context, const char **data, size_t *len_bytes, struct error *err)
{
    struct exchange *exchange = context;
    if (exchange->sent == exchange->count) {
        *len_bytes = 0;
        return STATUS_OK;
    }
    TRY(write_row(&exchange->rows[exchange->sent], &exchange->line, err));
    exchange->sent++;
    *data = buffer_text(&exchange->line);
    *len_bytes = exchange->line.len_bytes;
    return STATUS_OK;
}

/* Reads line number `received` of the answers. */
static enum status take_score(void *context, const char *text, size_t len_bytes, struct error *err)
{
    struct exchange *exchange = context;
    if (exchange->received == exchange->count) {
        return FAIL(err, STATUS_EXTERNAL,
                    "the command \"%s\" printed more than %lld lines; it must print one "
                    "{\"score\": x} a row",
                    exchange->command, (long long)exchange->count);
    }
    long long number = (long long)exchange->received + 1;
    char source[160];
    snprintf(source, sizeof(source), "output line %lld of the command \"%.80s\"", number,
             exchange->command);
    cJSON *answer = NULL;
    TRY(json_parse(text, len_bytes, source, &answer, err));
    const cJSON *score = cJSON_GetObjectItemCaseSensitive(answer, "score");
    bool is_number = cJSON_IsNumber(score);
    double value = is_number ? score->valuedouble : 0.0;
    cJSON_Delete(answer);
    if (!is_number) {
        return FAIL(err, STATUS_FORMAT,
                    "%s: found \"%.*s\", allowed is {\"score\": <number from 0 to 1>}", source,
                    (int)utf8_cut(text, len_bytes, 80), text);
    }
    if (!isfinite(value) || value < 0.0 || value > 1.0) {
        return FAIL(err, STATUS_RANGE, "%s: found score %g, allowed is a number from 0 to 1",
                    source, value);
    }
    exchange->row_score[exchange->received++] = value;
    return STATUS_OK;
}

static enum status score(const struct task *task, const struct scorer_row *rows, int64_t count,
                         double *row_score, double *score_out, struct error *err)
{
    if (task->command[0] == NULL) {
        return FAIL(err, STATUS_INVALID, "metric \"command\" needs the program in task.command");
    }
    struct exchange exchange = {
        .command = task->command[0], .rows = rows, .count = count, .row_score = row_score};
    struct process_io io = {next_row, take_score, &exchange};
    buffer_init(&exchange.line, SCORER_TEXT_MAX_BYTES);
    enum status status = process_run(task->command, task->command_timeout_s, &io, err);
    buffer_fini(&exchange.line);
    if (status == STATUS_TIMEOUT) {
        error_context(err, "command_timeout_s");
    }
    TRY(status);
    if (exchange.received < count) {
        return FAIL(err, STATUS_EXTERNAL, "the command \"%s\" printed %lld lines for %lld rows",
                    task->command[0], (long long)exchange.received, (long long)count);
    }
    *score_out = scorer_mean(row_score, count);
    return STATUS_OK;
}

const struct scorer scorer_command = {
    .name = "command",
    .summary = "mean of the scores that the program in task.command prints",
    .worst = 0.0,
    .best = 1.0,
    .mean_of_rows = true,
    .score = score,
};
