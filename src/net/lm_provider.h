/* What the wire form of one provider is: lm_<name>.c, and a row in lm_provider.c. */
#ifndef NET_LM_PROVIDER_H
#define NET_LM_PROVIDER_H

#include "base/buffer.h"
#include "net/lm.h"

/* An answer while it is read. */
struct lm_reading {
    struct buffer text; /* capped at LM_REPLY_MAX_BYTES */
    bool began, ended, cut;
    bool refused; /* the model, or a filter, declined */
    char model[128];
    int64_t tokens_in, tokens_out; /* 0: not said */
    char problem[512];             /* the endpoint's own error, "" if none */
    bool passing;                  /* and it may pass */
};

struct lm_provider {
    const char *name;
    const char *url;     /* base URL; "": the job must give one */
    const char *key_env; /* usual name of the variable; "" if none is needed */
    /* URL, body and headers (at most HTTP_HEADERS_MAX, "Name: value", in `headers`, each on a line)
     * of a streamed request, and the secret header from the key ("" for none). */
    enum status (*write)(const struct lm_endpoint *endpoint, const struct lm_question *question,
                         const char *key, struct buffer *url, struct buffer *headers,
                         struct buffer *secret, struct buffer *body, struct error *err);
    /* One event of the stream (lm_stream.c cuts them), or a whole body that is not a stream. */
    enum status (*read)(const cJSON *event, struct lm_reading *reading, struct error *err);
};

extern const struct lm_provider lm_provider_openai, lm_provider_anthropic, lm_provider_gemini;
const struct lm_provider *lm_provider_find(const char *name);

#endif
