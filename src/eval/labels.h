/* Which labels a row may be answered with, and which of them a text means. */
#ifndef EVAL_LABELS_H
#define EVAL_LABELS_H

#include "data/task.h"

/* Labels in the words that answers use; borrowed from the row, the task or static text. */
struct label_set {
    int count;
    const char *names[TASK_LABELS_MAX];
};

/* The labels of one row whose answer is one of them: the first of these that holds the answer (case
 * and white space aside) -- the row's "choices", the task's labels, the letters A, B, C ... when
 * there are as many choices as it takes (multiple choice with answer "B"). Empty if none does. */
enum status label_set_of_row(const struct task *task, const struct data_row *row,
                             const char *answer, struct label_set *out, struct error *err);

/* The label that `text` is, case and white space aside: its index, -1 if there is none. The lowest
 * of equal ones. */
enum status label_find(const struct label_set *set, const char *text, int *out, struct error *err);

/* The label that an output means: the one it is; else the one that it mentions first, as whole
 * words (the longest of those that begin there); -1 if it mentions none. Labels of one letter must
 * be mentioned in their own case, since "a" is also a word. */
enum status label_find_mention(const struct label_set *set, const char *output, int *out,
                               struct error *err);

#endif
