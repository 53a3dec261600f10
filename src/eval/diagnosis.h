/* What went wrong, for the researcher and for people: failed cases, wrong forms, labels taken for
 * others. */
#ifndef EVAL_DIAGNOSIS_H
#define EVAL_DIAGNOSIS_H

#include "eval/eval.h"
#include "eval/scorer.h"

/* Keeps up to max_cases of the rows that scored below the best: drawn from all of them by
 * Philox(seed), in the order of the rows. Fills result->cases and case_count. */
enum status diagnosis_sample_cases(const struct scorer *scorer, const struct scorer_row *rows,
                                   const double *row_score, int64_t count, int64_t max_cases,
                                   uint64_t seed, struct eval_result *result, struct error *err);

/* Counts outputs of a wrong form and labels that were taken for others. Fills
 * result->format_failures, confusions and confusion_count. */
enum status diagnosis_count_labels(const struct task *task, const struct scorer_row *rows,
                                   int64_t count, struct eval_result *result, struct error *err);

#endif
