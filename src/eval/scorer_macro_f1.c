/* macro_f1: answers are sets of labels. F1 of each label over all rows, 2 tp / (2 tp + fp + fn), 0
 * for a label that is neither asked for nor given (as scikit-learn's zero_division=0), and the mean
 * over the labels. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "eval/label_parser.h"
#include "eval/scorers.h"
#include "eval/statistics.h"

/* What rows come down to. */
struct parsed {
    struct label_parser parser;
    struct label_bits *expected; /* (count) */
    struct label_bits *found;    /* (count) */
};

static void parsed_fini(struct parsed *parsed)
{
    label_parser_fini(&parsed->parser);
    free(parsed->expected);
    free(parsed->found);
}

static enum status parse(struct parsed *parsed, const struct task *task,
                         const struct scorer_row *rows, int64_t count, struct error *err)
{
    enum status status = STATUS_OK;
    bool unknown = false;
    memset(parsed, 0, sizeof(*parsed));
    TRY_CLEANUP(label_parser_init(&parsed->parser, task, rows, count, err));
    if (parsed->parser.count == 0) {
        status = FAIL(err, STATUS_INVALID, "macro_f1 found no label in the task or in its answers");
        goto cleanup;
    }
    parsed->expected = mem_calloc((size_t)count, sizeof(*parsed->expected));
    parsed->found = mem_calloc((size_t)count, sizeof(*parsed->found));
    if (parsed->expected == NULL || parsed->found == NULL) {
        status = mem_fail(err, (size_t)count * 2 * sizeof(*parsed->found), "label sets");
        goto cleanup;
    }
    for (int64_t i = 0; i < count; i++) {
        TRY_CLEANUP(label_parser_read(&parsed->parser, scorer_text(rows[i].answer),
                                      &parsed->expected[i], &unknown, err));
        TRY_CLEANUP(label_parser_read(&parsed->parser, scorer_text(rows[i].output),
                                      &parsed->found[i], &unknown, err));
    }
cleanup:
    if (status != STATUS_OK) {
        parsed_fini(parsed);
    }
    return status;
}

/* Figure of some rows, as statistics_figure. */
static enum status figure(void *context, const int64_t *picked, int64_t count, double *out,
                          struct error *err)
{
    (void)err;
    const struct parsed *parsed = context;
    int64_t both[TASK_LABELS_MAX] = {0}; /* rows that ask for the label and give it */
    int64_t either[TASK_LABELS_MAX] = {
        0}; /* rows that ask for it, and rows that give it: 2 tp + fp + fn */
    for (int64_t i = 0; i < count; i++) {
        const struct label_bits *expected = &parsed->expected[picked[i]];
        const struct label_bits *found = &parsed->found[picked[i]];
        for (int label = 0; label < parsed->parser.count; label++) {
            int asked = label_bits_has(expected, label);
            int given = label_bits_has(found, label);
            both[label] += asked & given;
            either[label] += asked + given;
        }
    }
    double sum = 0.0;
    for (int label = 0; label < parsed->parser.count; label++) {
        sum += either[label] > 0 ? 2.0 * (double)both[label] / (double)either[label] : 0.0;
    }
    *out = sum / parsed->parser.count;
    return STATUS_OK;
}

/* How right one row is: F1 of its own two sets, 1 if both are empty. */
static double score_row(const struct label_bits *expected, const struct label_bits *found,
                        int labels)
{
    int both = 0;
    int either = 0;
    for (int label = 0; label < labels; label++) {
        both += label_bits_has(expected, label) && label_bits_has(found, label);
        either += label_bits_has(expected, label) + label_bits_has(found, label);
    }
    return either > 0 ? 2.0 * both / either : 1.0;
}

static enum status score(const struct task *task, const struct scorer_row *rows, int64_t count,
                         double *row_score, double *score_out, struct error *err)
{
    struct parsed parsed;
    TRY(parse(&parsed, task, rows, count, err));
    enum status status = STATUS_OK;
    int64_t *all = mem_calloc((size_t)count, sizeof(*all));
    if (all == NULL) {
        status = mem_fail(err, (size_t)count * sizeof(*all), "rows");
        goto cleanup;
    }
    for (int64_t i = 0; i < count; i++) {
        all[i] = i;
        row_score[i] = score_row(&parsed.expected[i], &parsed.found[i], parsed.parser.count);
    }
    TRY_CLEANUP(figure(&parsed, all, count, score_out, err));
cleanup:
    free(all);
    parsed_fini(&parsed);
    return status;
}

static enum status standard_error(const struct task *task, const struct scorer_row *rows,
                                  int64_t count, uint64_t seed, double *out, struct error *err)
{
    struct parsed parsed;
    TRY(parse(&parsed, task, rows, count, err));
    enum status status = statistics_bootstrap(count, seed, figure, &parsed, out, err);
    parsed_fini(&parsed);
    return status;
}

const struct scorer scorer_macro_f1 = {
    .name = "macro_f1",
    .summary =
        "F1 of each label over all rows, averaged over the labels; answers may name several labels",
    .worst = 0.0,
    .best = 1.0,
    .mean_of_rows = false,
    .score = score,
    .standard_error = standard_error,
};
