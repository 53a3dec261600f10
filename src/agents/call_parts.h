/* What the transports share: answers that wait to be taken, and what a chat may take at most. */
#ifndef AGENTS_CALL_PARTS_H
#define AGENTS_CALL_PARTS_H

#include "agents/call_transport.h"

/* Answers in the order in which they came; all zero: empty. */
struct call_queue {
    struct call_answer *items;
    int count, capacity;
};
/* Takes the answer, whatever the outcome. */
enum status call_queue_push(struct call_queue *queue, struct call_answer *answer,
                            struct error *err);
bool call_queue_take(struct call_queue *queue, struct call_answer *out);
void call_queue_drop(struct call_queue *queue, int32_t id);
void call_queue_fini(struct call_queue *queue);

/* A failed answer that cost nothing, for *failure. */
struct call_answer call_answer_failed(int32_t id, const struct error *failure);

/* Cuts what the record has no room for. */
void call_answer_set(char *out, size_t out_bytes, const char *text);

/* Tokens of the messages and of the longest reply of one try, on the safe side; 0 for a source. */
int64_t call_body_tokens(enum call_kind kind, const cJSON *body);

/* What a call of call_direct.c may take, at most. */
void call_direct_bound(const struct call_direct_options *options, const struct call *call,
                       int64_t *tokens, double *usd);

#endif
