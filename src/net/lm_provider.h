/* What the wire form of one provider is: lm_<name>.c, and a row in lm_provider.c. */
#ifndef NET_LM_PROVIDER_H
#define NET_LM_PROVIDER_H

#include "base/buffer.h"
#include "net/lm.h"

/* What a request says beside messages and max_tokens: all of these added; less where an endpoint
 * refuses it. */
enum lm_form {
    LM_FORM_PLAIN = 0,
    LM_FORM_EXTRAS = 1, /* seed, temperature and whatever else not every endpoint knows */
    LM_FORM_JSON = 2, /* another way to ask for it: JSON mode of OpenAI, with the schema beside it,
                         which some follow; the form of the reply of Anthropic */
    LM_FORM_SCHEMA = 4,
    LM_FORM_BOUNDS = 8 /* in the schema: how long texts may be. Grammars of servers keep to them;
                          the "strict" schemas of OpenAI itself may not hold them */
};

/* An answer while it is read. */
struct lm_reading {
    struct buffer text; /* capped at LM_REPLY_MAX_BYTES */
    bool began, ended, cut;
    bool refused; /* the model, or a filter, declined */
    char model[128];
    int64_t tokens_in, tokens_out; /* 0: not said */
    char problem[401];             /* the endpoint's own error, "" if none */
    bool passing;                  /* and it may pass */
};

struct lm_provider {
    const char *name;
    const char *url;     /* base URL; "": the job must give one, which is its own then */
    const char *key_env; /* usual name of the variable; "" if none is needed */
    /* URL, body and headers (at most HTTP_HEADERS_MAX, "Name: value", in `headers`, each ended by
     * a newline) of a streamed request, and the secret header from the key ("" for none). The
     * caller checks the buffers. */
    void (*write)(const struct lm_endpoint *endpoint, const struct lm_question *question,
                  unsigned form, const char *key, struct buffer *url, struct buffer *headers,
                  struct buffer *secret, struct buffer *body);
    /* One event of the stream (lm_stream.c cuts them), or a whole body that is not a stream. What
     * it does not know it leaves alone: strangers wrote it, and types may be wrong. */
    void (*read)(const cJSON *event, struct lm_reading *reading);
};

extern const struct lm_provider lm_provider_openai, lm_provider_anthropic, lm_provider_gemini,
    lm_provider_azure;
const struct lm_provider *lm_provider_find(const char *name); /* NULL: none of that name */

/* ---- for lm_<name>.c ---- */

/* Base URL and path, which begins with a slash; a query of the base stays behind the path. */
void lm_put_url(struct buffer *url, const char *base, const char *path);

void lm_put_string(struct buffer *out, const char *text); /* as JSON */
void lm_put_json(struct buffer *out, const cJSON *value);
void lm_put_schema_name(struct buffer *out, const char *name); /* JSON, as providers want names */

/* The messages of a question that are the system's (in one text), and an array of the others made
 * by `put`. */
bool lm_has_system(const struct lm_question *question);
void lm_put_system(struct buffer *out, const struct lm_question *question);
void lm_put_turns(struct buffer *out, const struct lm_question *question,
                  void (*put)(struct buffer *out, const char *role, const char *content));

const cJSON *lm_get(const cJSON *object, const char *name);     /* exact name; NULL if not there */
const char *lm_get_text(const cJSON *object, const char *name); /* NULL if it is no string */
int64_t lm_get_count(const cJSON *object, const char *name);    /* 0 if it is none */

/* The body of a request and an event of an answer in OpenAI's form, which other providers share. */
void lm_openai_put_body(const struct lm_endpoint *endpoint, const struct lm_question *question,
                        unsigned form, struct buffer *body);
void lm_openai_read(const cJSON *event, struct lm_reading *reading);

void lm_read_model(const char *name, struct lm_reading *reading);

/* Whether a text has one of these words (NULL at the end), in any case. */
bool lm_holds_one_of(const char *text, const char *const *words);

/* One line for a person of what an error says. */
void lm_put_problem(const char *kind, const char *message, struct lm_reading *reading);

/* True, and the problem in *reading, if an event or a body tells of an error: {"error": {...}},
 * {"error": "..."} or {"object": "error", "message": ...}. */
bool lm_read_problem(const cJSON *event, struct lm_reading *reading);

#endif
