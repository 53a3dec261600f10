/* One try: a question goes to one endpoint, and what comes of it is judged. */
#ifndef NET_LM_TRY_H
#define NET_LM_TRY_H

#include "net/lm_site.h"
#include "net/lm_stream.h"

enum lm_verdict {
    LM_ANSWERED,
    LM_PASSING,  /* asking again may help */
    LM_LASTING,  /* not there; somewhere else it may */
    LM_SIMPLER,  /* in a simpler form it may */
    LM_THINKING, /* as a model that thinks it may */
    LM_REFUSED   /* more than is allowed: nowhere */
};

struct lm_try {
    int64_t http_id;
    unsigned form;
    bool thinks;
    size_t sent_bytes;
    struct lm_reading reading;
    struct lm_stream stream;
};

/* `attempt` must stay where it is until lm_try_fini. */
enum status lm_try_start(struct lm_try *attempt, struct http *http, const struct lm_site *site,
                         const struct lm_question *question, const struct lm_options *options,
                         struct error *err);
void lm_try_fini(struct lm_try *attempt);

/* What came of it; the reason in *problem unless it was answered, with nothing of a key. */
enum lm_verdict lm_try_judge(struct lm_try *attempt, const struct lm_site *site,
                             const struct http_response *response, struct error *problem);

/* The form in which it may help to ask next, and what that leaves out, in words. There must be one:
 * LM_SIMPLER was said. */
unsigned lm_try_simpler(const struct lm_try *attempt, const char **left_out);

/* Tokens that are put down for it, and whether it has to be paid for at all. */
bool lm_try_tokens(const struct lm_try *attempt, const struct lm_question *question,
                   const struct http_response *response, int64_t *tokens_in, int64_t *tokens_out);

/* USD of a million tokens in and out: the endpoint's own, or the table's; NaN and false: unknown.
 */
bool lm_endpoint_price(const struct lm_endpoint *endpoint, double *input_usd, double *output_usd);

/* Takes a key, and each part of it of that length, out of a text, in place. */
enum { LM_KEY_PART_BYTES = 8 /* of errors, which may hold a key that was cut */ };
void lm_hide_key(const char *key, size_t part_bytes, char *text);

#endif
