/* How a call gets its answer. All functions return at once.
 *
 *   call_direct.c   language models and sources over HTTP (net/)
 *   call_relay.c    files that `trex relay` answers from a login node
 *   call_replay.c   the recorded calls of another run folder
 *   call_local.c    a rank of this job runs the model (run/ carries the question)
 *                   (run/controller_calls.c: a dry run of a plan, on a rank of this job)
 *   call_off.c      no network: everything fails at once, and the rules go on */
#ifndef AGENTS_CALL_TRANSPORT_H
#define AGENTS_CALL_TRANSPORT_H

#include <stdbool.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "base/log.h"
#include "base/status.h"
#include "net/lm.h"
#include "net/source.h"

/* A dry run ("n0003.2/dry/1/<hash>", purpose "dry run", free of charge) is asked by the controller
 * and answered by one of its workers, in front of any transport but a replay. */
enum call_kind { CALL_CHAT, CALL_SOURCE, CALL_DRY, CALL_KIND_COUNT };
struct search;

extern const char *const call_kind_names[]; /* "chat", "source", "dry"; NULL at the end */

struct call {
    int32_t id; /* index in search->calls */
    const char *key;
    enum call_kind kind;
    const cJSON *body; /* borrowed for the call of start */
};

struct call_answer {
    int32_t id;
    enum status status; /* STATUS_OK: text came */
    char *text;         /* owned */
    bool cut;
    char provider[32], model[128], host[HTTP_HOST_BYTES];
    int64_t tokens_in, tokens_out;
    double cost_usd; /* NaN: unknown */
    double seconds;
    double rank_seconds; /* that ranks of this job worked on it */
    int attempts;
    struct error error;
};
void call_answer_fini(struct call_answer *answer);

struct call_transport {
    const char *name;
    void *state;
    /* A call that was started before its job ended is asked again, with the same id, key and body,
     * and goes on where it was: nothing of it is lost (relay, local). */
    bool resumes;
    enum status (*start)(void *state, const struct call *call, struct error *err);
    /* `outcomes`: of the search, for a replay, which answers when the recorded search had come as
     * far; `idle`: nothing else can happen before an answer comes. */
    enum status (*turn)(void *state, int64_t outcomes, bool idle, struct error *err);
    bool (*take)(void *state, struct call_answer *out);
    void (*cancel)(void *state, int32_t id); /* no answer is wanted, or it was taken */
    /* The answer is on disk: what was kept of the call may go. NULL: nothing is kept. */
    void (*done)(void *state, int32_t id);
    /* Upper bounds before a call is made (0 and 0: it is free). usd NaN: unknown. An error: the
     * call is refused, as one that a cap does not allow. */
    enum status (*bound)(const void *state, const struct call *call, int64_t *tokens, double *usd,
                         struct error *err);
    void (*close)(void *state);
};

/* Members that a body may have, checked as if it came from outside, in a copy of its own; others
 * are left out. STATUS_INVALID names what does not fit. */
enum status call_body_read(enum call_kind kind, const cJSON *body, cJSON **out, struct error *err);
/* A chat's body as lm.h wants it; borrowed from the body. */
void call_body_question(const cJSON *body, struct lm_question *out);

struct call_direct_options {
    struct lm_options lm; /* endpoint_count 0: no language model */
    struct source_options sources;
};
enum status call_direct_open(const struct call_direct_options *options, struct call_transport *out,
                             struct error *err);
/* Waits until something can move on, for who does nothing else (trex relay). */
void call_direct_wait(const struct call_transport *transport, double timeout_s);

/* FOLDER/relay/requests/<name>.json, FOLDER/relay/replies/<name>.json, where the name is made of
 * the call's id, key and body; options for bounds. Written aside, renamed, by a thread of its own.
 * A reply that does not come within timeout_s fails. */
enum status call_relay_open(const char *run_folder, const struct call_direct_options *options,
                            double timeout_s, struct call_transport *out, struct error *err);

/* Answers as `recorded` was answered, a search that was loaded from another run folder (borrowed
 * until close): in the same order, and when this search has come as far. Rows that it downloaded
 * are copied from recorded_folder to run_folder now (either NULL: none). It spends nothing: tokens
 * and cost of its calls are those of the recording, and count against no cap. What the recorded
 * search did not ask is refused, as its caps had refused it. */
enum status call_replay_open(const struct search *recorded, const char *recorded_folder,
                             const char *run_folder, struct call_transport *out, struct error *err);
/* What the recorded search had set ahead (search->ahead) when it had come so far; -1: nothing. */
int64_t call_replay_ahead(const struct call_transport *transport, int64_t outcomes);

struct call_local_options {
    /* Tokens that a chat takes at most, in the model's own. An error: it is refused. */
    enum status (*bound)(void *context, const cJSON *body, int64_t *tokens, struct error *err);
    enum status (*ask)(void *context, int32_t id, const cJSON *body, struct error *err);
    bool (*take)(void *context, struct call_answer *out);
    void (*cancel)(void *context, int32_t id);
    void *context;
    const char *model;             /* folder, for the record */
    struct call_transport sources; /* for all that is no chat; taken, whatever the outcome */
};
enum status call_local_open(const struct call_local_options *options, struct call_transport *out,
                            struct error *err);

enum status call_off_open(struct call_transport *out, struct error *err);

/* ---- the relay's side (trex relay) ---- */

/* What all requests together may take; counted in FOLDER/relay/spent.json. */
struct call_relay_caps {
    double tokens, usd;
    int64_t reply_tokens; /* of one */
};
struct call_relay_state {
    int64_t served;     /* requests that got a reply, in this process */
    int open;           /* that wait for one */
    double tokens, usd; /* spent and reserved, by all relays of this run folder */
};

struct call_relay_server; /* opaque */
/* Serves the requests below run_folder with what `options` (of the job file, never of a request)
 * name, within caps (of the job file or of who steers the search, never of a request). Requests are
 * hostile: bounded, checked, answered once; a reply that is there is never asked for again.
 * STATUS_BUSY if another relay serves this folder. */
enum status call_relay_serve_open(const char *run_folder, const struct call_direct_options *options,
                                  const struct call_relay_caps *caps, struct log *log,
                                  struct call_relay_server **out, struct error *err);
/* From the next request on. */
void call_relay_serve_caps(struct call_relay_server *server, const struct call_relay_caps *caps);
/* One turn, waiting at most wait_s. */
enum status call_relay_serve(struct call_relay_server *server, double wait_s,
                             struct call_relay_state *state, struct error *err);
void call_relay_serve_close(struct call_relay_server *server);

#endif
