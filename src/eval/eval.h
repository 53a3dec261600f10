/* A model on a split: outputs, score with its standard error, failed cases. */
#ifndef EVAL_EVAL_H
#define EVAL_EVAL_H

#include "base/progress.h"
#include "data/task.h"
#include "eval/scorer.h"
#include "model/model.h"
#include "model/transformer.h"

struct eval_options {
    int64_t max_cases;    /* failed cases kept */
    int64_t batch_tokens; /* most tokens of a pass; 0: 4096 */
    int64_t max_length;   /* longest prompt with answer; 0: the model's */
    uint64_t seed;        /* sampling and bootstrap */
    int rank, size;       /* rows are shared out among a group: rank of size; size 0 or 1: all here */
};

/* A row that scored below the best: what a diagnosis reads. Strings owned; cut at 2 KiB, on a character. */
struct eval_case {
    int64_t row;   /* index in the split */
    double score;
    char *prompt;
    char *answer;
    char *output;
};

/* How answers went wrong in form, and which labels are taken for which: what the researcher reads. */
struct eval_confusion {
    char expected[48];
    char found[48];
    int64_t count;
};
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

/* Runs the network over all rows (phase "evaluate" to progress) and scores them. The adapter, if any, is in
 * `network`. STATUS_INTERRUPTED leaves no result. */
enum status eval_run(const struct model *model, const struct network *network, const struct task *task,
                     enum chat_format chat, const struct dataset *rows, const struct eval_options *options,
                     const struct progress *progress, struct eval_result *out, struct error *err);
void eval_result_fini(struct eval_result *result);

#endif
