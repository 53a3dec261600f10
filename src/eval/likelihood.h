/* How likely a model finds given answers to given prompts. */
#ifndef EVAL_LIKELIHOOD_H
#define EVAL_LIKELIHOOD_H

#include "base/progress.h"
#include "data/encode.h"
#include "model/transformer.h"

/* Prompts with answers, one after the other.
 *   ids      p p p a a | p p a | p p p p a a a
 *   start    0           5       8             15
 *   answer   3           2       4               index in the sequence of the first answer token */
struct likelihood_list {
    struct token_list ids;
    int64_t *start;  /* (count + 1) */
    int64_t *answer; /* (count) */
    int64_t count;
    int64_t capacity;
};

void likelihood_list_init(struct likelihood_list *list);
void likelihood_list_fini(struct likelihood_list *list);

/* Appends one sequence; *truncated: its prompt was cut to fit max_length. */
enum status likelihood_add(struct likelihood_list *list, const struct task *task,
                           const struct tokenizer *tokenizer, enum chat_format chat,
                           const struct task_example *example, const char *answer,
                           int64_t max_length, bool *truncated, struct error *err);

/* Tokens of the answer of sequence i that are predicted: all, but for one that begins its sequence.
 */
int64_t likelihood_answer_tokens(const struct likelihood_list *list, int64_t i);

/* Negative log-probability of each answer, in nats, summed over its tokens, into nats (count).
 * Sequences are packed into passes of at most batch_tokens, or of one sequence if that is longer.
 */
enum status likelihood_run(const struct network *network, const struct likelihood_list *list,
                           int64_t batch_tokens, const struct progress *progress, double *nats,
                           struct error *err);

#endif
