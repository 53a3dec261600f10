/* Outputs and references to scores, in a registry: a new metric is one file and one row. */
#ifndef EVAL_SCORER_H
#define EVAL_SCORER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "data/task.h"

/* One scored row; strings are borrowed. */
struct scorer_row {
    const struct data_row *row; /* all its fields, for scorers that need more */
    const char *prompt;
    const char *answer; /* the row's own "answer" */
    const char *output; /* what the model wrote, or the choice it took */
};

struct scorer {
    const char *name;    /* "accuracy" */
    const char *summary; /* one line for --help */
    double worst, best;  /* range of the score */
    bool mean_of_rows;   /* the score is the mean of the rows' scores; else it is one figure of all
                            rows (macro-F1) */
    /* Scores each row into row_score (rows), in the range above. For figures that are no mean,
     * row_score says how right each row is (for failed cases) and *score is the figure. */
    enum status (*score)(const struct task *task, const struct scorer_row *rows, int64_t count,
                         double *row_score, double *score, struct error *err);
    /* For a figure that is no mean: its standard error by bootstrap (eval/statistics.h) from what
     * the rows are parsed into once. NULL: eval resamples the rows and calls `score` on each
     * sample, which is right but slow. */
    enum status (*standard_error)(const struct task *task, const struct scorer_row *rows,
                                  int64_t count, uint64_t seed, double *out, struct error *err);
};

/* NULL if there is none of that name. */
const struct scorer *scorer_find(const char *name);
const struct scorer *const *scorer_list(void); /* NULL at the end */

/* ---- for scorers ---- */

enum { SCORER_TEXT_MAX_BYTES = 1 << 30 }; /* of any buffer for one row's text */

double scorer_mean(const double *row_score, int64_t count); /* 0 without rows */
const char *scorer_text(const char *text);                  /* "" for NULL */

#endif
