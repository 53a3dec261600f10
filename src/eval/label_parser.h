/* Answers that name several labels, as sets of bits.
 *
 *   "Inducing angiogenesis; Cellular energetics"  ->  labels 4 and 8
 *   "none", ""                                    ->  no label */
#ifndef EVAL_LABEL_PARSER_H
#define EVAL_LABEL_PARSER_H

#include "data/task.h"
#include "eval/scorer.h"

struct label_bits {
    uint64_t words[TASK_LABELS_MAX / 64];
};

static inline bool label_bits_has(const struct label_bits *bits, int label)
{
    return (bits->words[label / 64] >> (label % 64) & 1) != 0;
}

struct label_parser {
    int count;
    char *
        names[TASK_LABELS_MAX]; /* normalised: case folded, single spaces, no closing punctuation */
    char *separator;            /* "": a text is one label */
};

/* Labels of the task; if it has none, all that the rows' answers name, in the order of their first
 * appearance. STATUS_LIMIT for more than TASK_LABELS_MAX of them. */
enum status label_parser_init(struct label_parser *parser, const struct task *task,
                              const struct scorer_row *rows, int64_t count, struct error *err);
void label_parser_fini(struct label_parser *parser);

/* The labels that text names; *unknown: it also names something that is no label. */
enum status label_parser_read(const struct label_parser *parser, const char *text,
                              struct label_bits *out, bool *unknown, struct error *err);

#endif
