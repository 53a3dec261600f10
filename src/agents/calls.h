/* Calls: all that the agents ask of the world outside, language models and sources, each paid for,
 * recorded, and answered once.
 *
 *   calls_ask -> "call_started" event -> on disk -> transport -> "call_ended" event -> on disk ->
 * search->calls[]
 *
 * A call is known by its key, a text that follows from the search alone ("n0003.2/plan/1"). Who
 * asks for a key that was answered before, also in an earlier allocation, gets that answer and pays
 * nothing. So whoever is interrupted asks the same again, and goes on where it was. A call that was
 * under way when its job ended is lost and counts as spent; the same key is then asked anew.
 *
 * Transports (call_transport.h): direct (net/), relay (files in the run folder), replay (another
 * run's calls), local (a rank of this job), off. */
#ifndef AGENTS_CALLS_H
#define AGENTS_CALLS_H

#include <stdbool.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "agents/call_transport.h"
#include "base/log.h"
#include "base/status.h"
#include "tree/search.h"

struct calls; /* opaque */

struct calls_options {
    struct call_transport transport; /* taken, whatever the outcome */
    int open_max;                    /* calls under way at once */
    bool patient;                    /* a job that only asks (trex prefetch): see calls_is_stuck */
    struct log *log;
    /* Limits in force: tokens and USD of the whole search; 0: none may be spent if `capped`, see
     * controller_limit. */
    double (*limit)(const void *context, enum search_limit_id id);
    const void *context;
};

enum status calls_create(const struct calls_options *options, struct calls **out,
                         struct error *err);
void calls_destroy(struct calls *calls);

struct call_question {
    const char *key;     /* SEARCH_CALL_KEY_BYTES at most */
    const char *purpose; /* "brief", "literature", "direction", "plan", "repair", "diagnose",
                            "insights", "source", "dry run" */
    int32_t node;        /* that it is about, to which its cost is put down; -1: the whole search */
    enum call_kind kind;
    cJSON *body; /* taken: chat {messages, schema, schema_name, max_tokens, temperature, seed},
                    source {net/source.h}, dry {recipe, configs} */
};

/* STATUS_OK: asked, or already answered: see calls_find. What a cap does not allow is answered so
 * (which cap, what is left, what the call could take), without having been sent, and stays so in
 * this search. STATUS_LIMIT: the transport has no answer for it (a replay), or a cap does not allow
 * a patient call; nothing was asked. STATUS_INVALID: a body that is none. */
enum status calls_ask(struct calls *calls, const struct search *search,
                      struct call_question *question, struct error *err);

/* The ended call of that key, not a lost one; NULL while there is none. Borrowed from the search.
 */
const struct search_call *calls_find(const struct search *search, const char *key);
bool calls_is_open(const struct calls *calls, const char *key);

/* Sends what is on disk, receives. Never blocks. After search_apply, each turn. Answers come into
 * the search one after the other, each on disk before the next, so that a replay can give them as
 * they came. outcomes: of the search, those that are on their way to the disk too. idle: nothing
 * else can happen before an answer comes (no candidate, no dry run, no event on its way to the
 * disk): a replay that went another way goes on. */
enum status calls_turn(struct calls *calls, const struct search *search, int64_t outcomes,
                       bool idle, struct error *err);

/* The search ends: what is still asked is taken back, and recorded as lost if it may be charged.
 * Before its "finished". */
enum status calls_take_back(struct calls *calls, struct error *err);

/* Once after a search was loaded: calls that were under way when the job before ended go on where
 * the transport can (relay), and are ended as lost elsewhere. unspent: what that job left open cost
 * nothing, as it was a patient one that came to its end; so it goes on anywhere. */
enum status calls_recover(struct calls *calls, const struct search *search, bool unspent,
                          struct error *err);

/* Patient calls end with no failure that may pass (no network, a wrong key, a service that is
 * down): whoever waits for such a call waits on, it stays open for the next job, and nothing comes
 * to rest on it. (What a failure may have cost is lost and counts; a source that fails where others
 * answer, and a question that is refused itself, end as ever.) True: nothing is under way but what
 * has failed so. */
bool calls_is_stuck(const struct calls *calls);
/* True, and why: the first of them, or the first question that was not asked. */
bool calls_failed(const struct calls *calls, struct error *why);

/* True and an event for the journal in *event (owned by the caller). */
bool calls_take_event(struct calls *calls, cJSON **event);
int calls_open(const struct calls *calls);

#endif
