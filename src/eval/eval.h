/* A model on a split: outputs, score with its standard error, failed cases. */
#ifndef EVAL_EVAL_H
#define EVAL_EVAL_H

#include "base/buffer.h"
#include "base/progress.h"
#include "data/task.h"
#include "eval/scorer.h"
#include "model/model.h"
#include "model/transformer.h"

struct eval_options {
    int64_t max_cases;    /* failed cases kept */
    int64_t batch_tokens; /* most tokens of a pass; 0: 4096 */
    int64_t max_length;   /* longest prompt with answer; 0: the model's */
    uint64_t seed;        /* sampling, bootstrap and choice of cases */
    int rank, size;       /* eval_predict: rows with row % size == rank; size 0 or 1: all */
};

/* ---- all in one process ---- */

/* A row that scored below the best: what a diagnosis reads. Strings owned; cut at 2 KiB, on a
 * character. */
struct eval_case {
    int64_t row; /* index in the split */
    double score;
    char *prompt;
    char *answer;
    char *output;
};

/* How answers went wrong in form, and which labels are taken for which: what the researcher reads.
 */
struct eval_confusion {
    char expected[48];
    char found[48];
    int64_t count;
};
/* In place of a label: nothing that is one was found; or, where an answer is a set of labels, this
 * one was missing (as found) or too much (as expected). */
#define EVAL_NO_LABEL "(none)"
enum { EVAL_CONFUSIONS_MAX = 16 };

struct eval_result {
    double score;
    double standard_error; /* analytic for means, bootstrap (1000 samples, fixed seed) else */
    double loss;           /* mean nats per answer token; NaN if not measured */
    int64_t rows;
    int64_t truncated;       /* prompts cut to fit */
    int64_t unfinished;      /* generations that ran into max_new_tokens */
    int64_t format_failures; /* outputs that are no allowed label or empty */
    struct eval_case *cases; /* a deterministic sample over the failed rows, not only the first */
    int64_t case_count;
    struct eval_confusion confusions[EVAL_CONFUSIONS_MAX]; /* most frequent first */
    int confusion_count;
    double seconds;
};

/* Runs the network over all rows (phase "evaluate" to progress) and scores them. The adapter, if
 * any, is in `network`. How a row is answered: with "choice", by the choice whose tokens have the
 * largest log-probability in all (not per token), the first of equal ones; with "generate", by what
 * the model writes, less its thinking. Errors: STATUS_INVALID for no rows or a row without choices;
 * STATUS_NOT_FOUND for a metric that is not registered; STATUS_UNSUPPORTED for options->size > 1:
 * see eval_predict below; STATUS_INTERRUPTED leaves no result. */
enum status eval_run(const struct model *model, const struct network *network,
                     const struct task *task, enum chat_format chat, const struct dataset *rows,
                     const struct eval_options *options, const struct progress *progress,
                     struct eval_result *out, struct error *err);
void eval_result_fini(struct eval_result *result);

/* ---- shared out among the ranks of a group ----
 *
 *   every rank   eval_predict -> its rows -> eval_predictions_pack -> bytes, to one rank
 *   one rank     eval_predictions_unpack of each, into one struct -> eval_score */

struct eval_prediction {
    char *output;          /* owned, what the scorer sees; NULL: a row of another rank */
    double answer_nats;    /* loss of the right answer, summed over its tokens */
    int64_t answer_tokens; /* 0: not measured */
    bool truncated;        /* the prompt was cut to fit */
    bool unfinished;       /* the output ran into max_new_tokens */
};

struct eval_predictions {
    struct eval_prediction *rows; /* (count), as the rows of the split */
    int64_t count;
};

enum status eval_predictions_init(struct eval_predictions *predictions, int64_t count,
                                  struct error *err);
void eval_predictions_fini(struct eval_predictions *predictions);

/* Fills this rank's rows of `out`, which has as many as `rows`. */
enum status eval_predict(const struct model *model, const struct network *network,
                         const struct task *task, enum chat_format chat, const struct dataset *rows,
                         const struct eval_options *options, const struct progress *progress,
                         struct eval_predictions *out, struct error *err);

/* Appends the filled rows as bytes; takes them in again. STATUS_CORRUPT for bytes that are not
 * such, or rows that are filled already. For processes of one job: numbers are in this machine's
 * order of bytes. */
enum status eval_predictions_pack(const struct eval_predictions *predictions, struct buffer *out,
                                  struct error *err);
enum status eval_predictions_unpack(struct eval_predictions *predictions, const void *data,
                                    size_t len_bytes, struct error *err);

/* Scores all rows. STATUS_INVALID if one has no prediction. */
enum status eval_score(const struct task *task, const struct dataset *rows,
                       const struct eval_predictions *predictions,
                       const struct eval_options *options, struct eval_result *out,
                       struct error *err);

#endif
