/* accuracy: 1 if the output means the label that is the answer (eval/labels.h says when it does);
 * for rows without labels, if output and answer are equal but for case and white space. */
#include <string.h>

#include "eval/labels.h"
#include "eval/scorers.h"

static enum status score_row(const struct task *task, const struct scorer_row *row, double *out,
                             struct error *err)
{
    struct label_set set;
    const char *answer = scorer_text(row->answer);
    int expected = -1;
    int found = -1;
    TRY(label_set_of_row(task, row->row, answer, &set, err));
    if (set.count == 0) {
        set.count = 1;
        set.names[0] = answer;
        TRY(label_find(&set, scorer_text(row->output), &found, err));
        *out = found == 0 ? 1.0 : 0.0;
        return STATUS_OK;
    }
    TRY(label_find(&set, answer, &expected, err));
    TRY(label_find_mention(&set, scorer_text(row->output), &found, err));
    *out = found == expected ? 1.0 : 0.0; /* expected is a label: -1 never equals it */
    return STATUS_OK;
}

static enum status score(const struct task *task, const struct scorer_row *rows, int64_t count,
                         double *row_score, double *score_out, struct error *err)
{
    for (int64_t i = 0; i < count; i++) {
        TRY(score_row(task, &rows[i], &row_score[i], err));
    }
    *score_out = scorer_mean(row_score, count);
    return STATUS_OK;
}

const struct scorer scorer_accuracy = {
    .name = "accuracy",
    .summary = "share of outputs whose first label is the answer",
    .worst = 0.0,
    .best = 1.0,
    .mean_of_rows = true,
    .score = score,
};
