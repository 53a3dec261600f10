/* Asking a language model over HTTP: which of several endpoints, how often, how many at once.
 *
 *   lm_ask -> queue -> endpoint (lm_provider.h makes the body) -> http.h -> stream parsed as it
 * comes -> lm_take
 *
 * An answer that fails with something that may pass (no connection, stall, 408, 425, 429, 5xx, an
 * overloaded stream) is asked again after a growing pause (Retry-After is obeyed up to a ceiling),
 * first at the same, then at the next endpoint; one that fails for good there (401, 403, 404, a
 * certificate) goes to the next endpoint at once. What an endpoint calls the request's own fault
 * (400, 422, an error that names the schema) is asked there again with less: without bounds of
 * texts, in another form of JSON, as text, without seed and temperature; then, or if the prompt is
 * longer than its context, it goes to the next endpoint, which may be another kind of server. */
#ifndef NET_LM_H
#define NET_LM_H

#include <stdbool.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "base/log.h"
#include "base/status.h"
#include "net/http.h"

enum {
    LM_ENDPOINTS_MAX = 8,
    LM_REPLY_MAX_BYTES = 1 << 20 /* of text; a longer one is STATUS_LIMIT */
};

struct lm_endpoint {
    const char *provider; /* a name of lm_providers() */
    const char *model;
    const char *url;     /* base URL; "" for the provider's own */
    const char *key_env; /* NAME of the environment variable with the key; "": lm_key_variable */
    bool structured; /* ask for the schema in the provider's own way; false: the prompt alone says
                        it */
    double input_usd, output_usd; /* of a million tokens; NaN: the price table's */
    bool thinks; /* first, before it answers, whatever its name is: lm finds out by itself */
};

struct lm_options {
    struct lm_endpoint
        endpoints[LM_ENDPOINTS_MAX]; /* in order of preference; strings borrowed until lm_destroy */
    int endpoint_count;
    int concurrency;                    /* requests at once */
    int tries;                          /* of one request, over all endpoints */
    double connect_s, stall_s, total_s; /* of one try */
    double pause_s,
        pause_max_s; /* before the second try; it doubles; Retry-After at most pause_max_s */
    struct log *log;
};

struct lm; /* opaque */

/* Reads the keys from the environment. STATUS_INVALID names each endpoint that cannot be (unknown
 * provider, no URL, a variable that is not set); the value of none. */
enum status lm_create(const struct lm_options *options, struct http *http, struct lm **out,
                      struct error *err);
void lm_destroy(struct lm *lm);

struct lm_question {
    const cJSON *messages; /* [{role: system|user|assistant, content}], the first may be system's */
    const cJSON *schema;   /* JSON Schema that the reply must follow; NULL: free text */
    const char *schema_name;
    int64_t max_tokens;
    double temperature;
    int64_t seed; /* negative: none */
};

struct lm_answer {
    enum status status; /* STATUS_OK: a text came. It may still be anything: see agents/reply.h */
    char *text;         /* owned; UTF-8 (repaired); NULL unless STATUS_OK */
    bool cut;           /* it ran into max_tokens */
    char model[128];    /* that answered, as it says itself */
    char provider[32];
    char host[HTTP_HOST_BYTES];
    int64_t tokens_in,
        tokens_out;  /* of all tries; estimated from bytes where the endpoint does not say */
    double cost_usd; /* of all tries; NaN: no price is known */
    double seconds;  /* from the asking, pauses included */
    int attempts;
    struct error error;
};
void lm_answer_fini(struct lm_answer *answer);

enum status lm_ask(struct lm *lm, const struct lm_question *question, int64_t *id,
                   struct error *err);
enum status lm_turn(struct lm *lm, struct error *err); /* http_turn as well */
bool lm_take(struct lm *lm, int64_t id, struct lm_answer *out);
void lm_cancel(struct lm *lm, int64_t id);

/* Upper bounds of what an answer can take, before it is asked for: tokens of all tries that may be
 * paid for, and their price at the dearest endpoint (NaN: unknown). */
void lm_bound(const struct lm_options *options, const struct lm_question *question, int64_t *tokens,
              double *usd);

/* About so many tokens has a text, on the safe side (any language). */
int64_t lm_estimate_tokens(const char *text);
/* The same of a question's messages and schema. */
int64_t lm_question_tokens(const struct lm_question *question);

/* USD of a million tokens in and out, by provider and the longest prefix of a model's name. False:
 * not in the table. */
bool lm_price(const char *provider, const char *model, double *input_usd, double *output_usd);

/* STATUS_INVALID for a base URL that is none, or that holds what may be a secret: a user name, or a
 * parameter whose name tells of a key or whose value is as long as one. The error does not hold it.
 */
enum status lm_check_url(const char *url, bool *encrypted, struct error *err);

/* Takes each known key out of a text, in place: for whatever foreign text (a body of a 401) goes
 * into an error. */
void lm_hide_keys(const struct lm *lm, char *text);

const char *const *lm_providers(void); /* NULL at the end */

/* Whether the provider has no URL of its own, so that each endpoint must name one. */
bool lm_needs_url(const char *provider);
/* The variable that the endpoint's key is read from, "" for none. A provider's usual one is for the
 * provider's own URL alone: another host gets a key only by name. */
const char *lm_key_variable(const struct lm_endpoint *endpoint);

#endif
