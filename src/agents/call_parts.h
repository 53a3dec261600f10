/* What the transports share: answers that wait to be taken, and what a chat may take at most. */
#ifndef AGENTS_CALL_PARTS_H
#define AGENTS_CALL_PARTS_H

#include "agents/call_transport.h"
#include "tree/search_limit.h"

#define CALL_SECONDS_MAX 1e9 /* of one call, in a record */

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

struct call_cost {
    int64_t tokens;
    double usd; /* NaN: no price is known, and nothing is counted */
};
/* STATUS_LIMIT where a call that may take `most` does not fit in what `taken` leaves of the caps;
 * what costs nothing always fits. */
enum status call_caps_check(double (*limit)(const void *context, enum search_limit_id id),
                            const void *context, const char *key, const struct call_cost *most,
                            const struct call_cost *taken, struct error *err);

/* A failed answer that cost nothing, for *failure. */
struct call_answer call_answer_failed(int32_t id, const struct error *failure);

/* Makes of whatever came what an event can carry: texts of valid UTF-8 within their bounds, and an
 * error with words unless there is a text. STATUS_NO_MEMORY. */
enum status call_answer_repair(struct call_answer *answer, struct error *err);

/* A call_ended event of an answer that was repaired, its figures within what the search takes; NULL
 * without memory. */
cJSON *call_ended_event(const struct call_answer *answer, bool lost);
/* NaN is null. False without memory. */
bool call_add_usd(cJSON *event, const char *key, double usd);

/* Cuts what the record has no room for. */
void call_answer_set(char *out, size_t out_bytes, const char *text);

/* Questions to sources, answered on a thread of their own; `main` is woken (http_wake) when there
 * is an answer. The rest is for one thread. */
struct call_sources; /* opaque */
enum status call_sources_open(const struct source_options *options, struct http *main,
                              struct call_sources **out, struct error *err);
void call_sources_close(struct call_sources *sources); /* NULL allowed */
enum status call_sources_ask(struct call_sources *sources, const struct call *call,
                             struct error *err);
bool call_sources_take(struct call_sources *sources, struct call_answer *out);
void call_sources_cancel(struct call_sources *sources, int32_t id);
/* What ended the thread, if it has ended. */
enum status call_sources_check(struct call_sources *sources, struct error *err);

/* What a call of call_direct.c may take, at most. */
void call_direct_bound(const struct call_direct_options *options, const struct call *call,
                       int64_t *tokens, double *usd);

#endif
