/* What the handlers of events share. Each reads and checks its event whole, gets the memory it
 * needs, and only then changes the search: nothing after the first change can fail.
 *
 *   search_event.c        the table of kinds; the search as a whole, nodes
 *   search_candidate.c    candidates
 *   search_allocation.c   allocations and incidents
 *   search_steering.c     what somebody wanted: limits, halts
 *   search_call.c         calls of the agents, and what they cost
 *   search_agents.c       what the agents found: prompts, brief, documents, causes
 *   search_request.c      plans that were asked for, and how far ahead
 *   search_insight.c      insights, which two kinds of events bring */
#ifndef TREE_SEARCH_EVENT_H
#define TREE_SEARCH_EVENT_H

#include "tree/search_parts.h"

enum { EVENT_NAME_BYTES = 64 };

struct event {
    const cJSON *object;
    struct json_reader reader;
    struct json_problems problems;
    double time_s;
    char name[EVENT_NAME_BYTES]; /* "event 12 (node_planned)", for errors */
};

/* STATUS_INVALID with all mistakes that were found in the event. */
enum status event_check(const struct event *event, struct error *err);

/* A member that must be there: json_read_int alone would take its default. */
int64_t event_require_int(struct event *event, const char *key, int64_t min, int64_t max);
double event_require_seconds(struct event *event, const char *key);

/* A text of one line or a few, cut between two characters where it is too long; "" if it is absent
 * and not `required`. A mistake goes to the problems and gives NULL. The second cuts any text. */
enum status event_read_line(struct event *event, const char *key, bool required,
                            struct arena *arena, char **out, struct error *err);
enum status event_copy_line(const char *text, struct arena *arena, char **out, struct error *err);

/* Adds an incident, or counts it where there is no room for more. */
enum status search_add_incident(struct search *search, const struct search_incident *incident,
                                struct error *err);

/* Makes room for `more` items in a list that the search owns; their number is not changed. */
enum status event_reserve(void **list, int32_t count, int32_t more, int32_t *capacity,
                          size_t item_bytes, const char *what, struct error *err);

/* The insights of an event: read, then room made for them, then taken into the search. */
struct event_insights {
    struct search_insight items[SEARCH_INSIGHTS_MAX];
    int32_t count;
};
enum status event_read_insights(struct search *search, struct event *event,
                                struct event_insights *out, struct error *err);
enum status event_reserve_insights(struct search *search, const struct event_insights *insights,
                                   struct error *err);
void event_take_insights(struct search *search, const struct event_insights *insights);

/* The open request that a node_planned below `parent` names; NULL if it names none, or with a
 * problem if it names another one. */
struct search_request *search_read_answered(struct search *search, struct event *event,
                                            int32_t parent);

/* Candidate of the event, in one of the states (a bit each, see EVENT_STATE); NULL with a problem
 * otherwise. */
#define EVENT_STATE(state) (1u << (state))
struct candidate *event_candidate(struct search *search, struct event *event, unsigned states,
                                  int32_t *node_id);

/* The handlers, one a kind: the event as search.h lists it. */
enum status search_apply_candidate_started(struct search *search, struct event *event,
                                           struct error *err);
enum status search_apply_candidate_suspended(struct search *search, struct event *event,
                                             struct error *err);
enum status search_apply_candidate_finished(struct search *search, struct event *event,
                                            struct error *err);
enum status search_apply_candidate_failed(struct search *search, struct event *event,
                                          struct error *err);
enum status search_apply_weights_dropped(struct search *search, struct event *event,
                                         struct error *err);
enum status search_apply_test_scored(struct search *search, struct event *event, struct error *err);
enum status search_apply_allocation_started(struct search *search, struct event *event,
                                            struct error *err);
enum status search_apply_allocation_progress(struct search *search, struct event *event,
                                             struct error *err);
enum status search_apply_allocation_ended(struct search *search, struct event *event,
                                          struct error *err);
enum status search_apply_incident(struct search *search, struct event *event, struct error *err);
enum status search_apply_limits_set(struct search *search, struct event *event, struct error *err);
enum status search_apply_halted(struct search *search, struct event *event, struct error *err);
enum status search_apply_call_started(struct search *search, struct event *event,
                                      struct error *err);
enum status search_apply_call_ended(struct search *search, struct event *event, struct error *err);
enum status search_apply_prompts(struct search *search, struct event *event, struct error *err);
enum status search_apply_brief(struct search *search, struct event *event, struct error *err);
enum status search_apply_documents(struct search *search, struct event *event, struct error *err);
enum status search_apply_node_diagnosed(struct search *search, struct event *event,
                                        struct error *err);
enum status search_apply_plan_requested(struct search *search, struct event *event,
                                        struct error *err);
enum status search_apply_plan_dropped(struct search *search, struct event *event,
                                      struct error *err);
enum status search_apply_ahead_set(struct search *search, struct event *event, struct error *err);

#endif
