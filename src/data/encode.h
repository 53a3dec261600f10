/* Rows to token ids with a mask of what is learned: answers only. */
#ifndef DATA_ENCODE_H
#define DATA_ENCODE_H

#include "base/progress.h"
#include "data/task.h"
#include "model/tokenizer.h"

/* All sequences of a split, one after the other.
 *   ids     t0 t1 t2 t3 | u0 u1 u2        target[i] is 1 where id i is part of an answer
 *   start   0             4        7 */
struct encoded_dataset {
    int32_t *ids;    /* (tokens) */
    uint8_t *target; /* (tokens); 0 for the first id of a sequence: nothing predicts it */
    int64_t *start;  /* (count + 1) */
    int64_t *row;    /* (count) row of the dataset it came from */
    int64_t count;
    int64_t answer_tokens; /* targets that are set */
    int64_t truncated;     /* rows that were cut: the prompt's front goes, the answer stays */
    int64_t dropped;       /* rows whose answer is longer than max_length, or that have none */
};

struct encode_options {
    enum chat_format chat;           /* resolved: never "auto" */
    int64_t max_length;              /* tokens of one sequence */
    const struct progress *progress; /* NULL, or told of blocks of rows (phase "data") */
};

/* Tokenizes on all threads; the result does not depend on how many. The cut of a long prompt keeps
 * its first token if that is bos. STATUS_INVALID if no row is left. */
enum status encode_dataset(const struct task *task, const struct tokenizer *tokenizer,
                           const struct dataset *rows, const struct encode_options *options,
                           struct encoded_dataset *out, struct error *err);
void encoded_dataset_fini(struct encoded_dataset *dataset);

/* Appends the ids of a prompt alone, ready for generation, or with one choice as the answer:
 * `answer_start` is then the index of the answer's first id in the list. The ids of the prompt are
 * a prefix of those with an answer. Over max_length the front of the prompt is cut, as in training;
 * STATUS_LIMIT if the answer alone is longer than that. */
enum status encode_prompt(const struct task *task, const struct tokenizer *tokenizer,
                          enum chat_format chat, const struct task_example *example,
                          const char *answer, int64_t max_length, struct token_list *ids,
                          int64_t *answer_start, bool *truncated, struct error *err);

#endif
