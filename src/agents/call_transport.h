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
    int attempts;
    struct error error;
};
void call_answer_fini(struct call_answer *answer);

struct call_transport {
    const char *name;
    void *state;
    enum status (*start)(void *state, const struct call *call, struct error *err);
    /* `outcomes`: search->outcomes, for a replay, which answers when the recorded search had come
     * as far; `idle`: nothing else can happen before an answer comes. */
    enum status (*turn)(void *state, int64_t outcomes, bool idle, struct error *err);
    bool (*take)(void *state, struct call_answer *out);
    void (*cancel)(void *state, int32_t id);
    /* Upper bounds before a call is made (0 and 0: it is free). usd NaN: unknown. */
    void (*bound)(const void *state, enum call_kind kind, const cJSON *body, int64_t *tokens,
                  double *usd);
    void (*close)(void *state);
};

struct call_direct_options {
    struct lm_options lm; /* endpoint_count 0: no language model */
    struct source_options sources;
};
enum status call_direct_open(const struct call_direct_options *options, struct call_transport *out,
                             struct error *err);

/* FOLDER/relay/requests/<id>.json, FOLDER/relay/replies/<id>.json; options for bounds. Written
 * aside, renamed. A reply that does not come within timeout_s fails. */
enum status call_relay_open(const char *run_folder, const struct call_direct_options *options,
                            double timeout_s, struct call_transport *out, struct error *err);

/* Answers as `recorded` was answered, a search that was loaded from another run folder (borrowed
 * until close). A key that it does not hold fails with STATUS_NOT_FOUND. */
enum status call_replay_open(const struct search *recorded, struct call_transport *out,
                             struct error *err);
/* What the recorded search had set ahead (search->ahead) when it had come so far; -1: nothing. */
int64_t call_replay_ahead(const struct call_transport *transport, int64_t outcomes);

struct call_local_options {
    enum status (*ask)(void *context, int32_t id, const cJSON *body, struct error *err);
    bool (*take)(void *context, struct call_answer *out);
    void (*cancel)(void *context, int32_t id);
    void *context;
    const char *model;                 /* folder, for the record */
    struct call_direct_options direct; /* for sources */
};
enum status call_local_open(const struct call_local_options *options, struct call_transport *out,
                            struct error *err);

enum status call_off_open(struct call_transport *out, struct error *err);

/* ---- the relay's side (trex relay) ---- */

struct call_relay_server; /* opaque */
/* Serves the requests below run_folder with what `options` (of the job file, never of a request)
 * name. Requests are hostile: bounded, checked, answered once; a reply that is there is never asked
 * for again. */
enum status call_relay_serve_open(const char *run_folder, const struct call_direct_options *options,
                                  struct log *log, struct call_relay_server **out,
                                  struct error *err);
/* One turn, waiting at most wait_s. *served counts answers so far. */
enum status call_relay_serve(struct call_relay_server *server, double wait_s, int64_t *served,
                             struct error *err);
void call_relay_serve_close(struct call_relay_server *server);

#endif
