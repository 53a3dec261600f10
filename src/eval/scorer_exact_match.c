/* exact_match: 1 if output and answer are the same text, but for case, white space and closing
 * punctuation. */
#include <string.h>

#include "eval/scorers.h"
#include "eval/utf8.h"

static enum status score(const struct task *task, const struct scorer_row *rows, int64_t count,
                         double *row_score, double *score_out, struct error *err)
{
    (void)task;
    enum { FLAGS = UTF8_FOLD_CASE | UTF8_STRIP_PUNCTUATION };
    enum status status = STATUS_OK;
    struct buffer answer;
    struct buffer output;
    buffer_init(&answer, SCORER_TEXT_MAX_BYTES);
    buffer_init(&output, SCORER_TEXT_MAX_BYTES);
    for (int64_t i = 0; i < count; i++) {
        buffer_clear(&answer);
        buffer_clear(&output);
        const char *answer_text = scorer_text(rows[i].answer);
        const char *output_text = scorer_text(rows[i].output);
        utf8_normalise(&answer, answer_text, strlen(answer_text), FLAGS);
        utf8_normalise(&output, output_text, strlen(output_text), FLAGS);
        TRY_CLEANUP(buffer_check(&answer, "answer", err));
        TRY_CLEANUP(buffer_check(&output, "output", err));
        row_score[i] = strcmp(buffer_text(&answer), buffer_text(&output)) == 0 ? 1.0 : 0.0;
    }
    *score_out = scorer_mean(row_score, count);
cleanup:
    buffer_fini(&answer);
    buffer_fini(&output);
    return status;
}

const struct scorer scorer_exact_match = {
    .name = "exact_match",
    .summary =
        "share of outputs equal to the answer, but for case, white space and closing punctuation",
    .worst = 0.0,
    .best = 1.0,
    .mean_of_rows = true,
    .score = score,
};
