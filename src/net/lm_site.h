/* An endpoint that questions can go to, with its key. */
#ifndef NET_LM_SITE_H
#define NET_LM_SITE_H

#include "base/json.h"
#include "base/log.h"
#include "net/http.h"
#include "net/lm_provider.h"

struct lm_site {
    struct lm_endpoint endpoint; /* its URL filled in */
    const struct lm_provider *provider;
    char *key; /* "" for none; owned, and wiped */
    char host[HTTP_HOST_BYTES];
    double input_usd, output_usd; /* NaN: unknown */
    unsigned form;                /* of enum lm_form: the fullest that it has not refused */
    double closed_until_s;        /* it said when to come back */
    double poor_until_s;          /* it failed: others come first */
};

/* Of endpoint number `index` (from 1): its URL, price and key, read from the environment. Mistakes
 * go to the problems; STATUS_NO_MEMORY. */
enum status lm_site_open(const struct lm_endpoint *endpoint, int index, struct lm_site *site,
                         struct json_problems *problems, struct log *log, struct error *err);
void lm_site_close(struct lm_site *site);

#endif
