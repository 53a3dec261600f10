/* Rows that are held out from training (validation and test), and whether a training row repeats
 * one of them. */
#ifndef DATA_OVERLAP_H
#define DATA_OVERLAP_H

#include <stdbool.h>
#include <stdint.h>

#include "data/task.h"

struct held_out; /* opaque */

enum { HELD_OUT_NGRAM_MAX = 64 };

/* Of up to two sets of rows (either may be NULL). Prompts count as equal with case and white space
 * ignored. ngram > 0: also finds rows that share that many words in a row (of `field`, or, if NULL,
 * of the prompt). Words that lie in such a run common to more than 1 % of the held-out rows (at
 * least 3) are taken for the task's instruction and do not count. */
enum status held_out_create(const struct task *task, const struct dataset *validation,
                            const struct dataset *test, int64_t ngram, const char *field,
                            struct held_out **out, struct error *err);
void held_out_destroy(struct held_out *held_out);

int64_t held_out_count(const struct held_out *held_out); /* rows */

enum held_out_match { HELD_OUT_NEW, HELD_OUT_SAME_PROMPT, HELD_OUT_SHARED_WORDS };

/* Not for several threads at once: it works in buffers of its own. */
enum status held_out_compare(struct held_out *held_out, const struct data_row *row,
                             enum held_out_match *match, struct error *err);

#endif
