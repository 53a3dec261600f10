/* Hard caps, charged before a call: what it may take at most must still be there. */
#include <inttypes.h>
#include <math.h>

#include "agents/call_parts.h"

static const double usd_rounding = 1e-9;

enum status call_caps_check(double (*limit)(const void *context, enum search_limit_id id),
                            const void *context, const char *key, const struct call_cost *most,
                            const struct call_cost *taken, struct error *err)
{
    double cap = limit(context, SEARCH_LIMIT_AGENT_TOKENS);
    double used = (double)taken->tokens;
    if (most->tokens > 0 && !(used + (double)most->tokens <= cap)) {
        return FAIL(err, STATUS_LIMIT,
                    "%s may take %" PRId64 " tokens, %s has %.0f left of %.0f (%.0f are spent or "
                    "reserved)",
                    key, most->tokens, search_limits[SEARCH_LIMIT_AGENT_TOKENS].name,
                    fmax(cap - used, 0.0), cap, used);
    }
    cap = limit(context, SEARCH_LIMIT_AGENT_MONEY);
    used = taken->usd;
    if (most->usd > 0.0 && !(used + most->usd <= cap + usd_rounding)) {
        return FAIL(err, STATUS_LIMIT,
                    "%s may take %.6g USD, %s has %.6g left of %.6g (%.6g are spent or reserved)",
                    key, most->usd, search_limits[SEARCH_LIMIT_AGENT_MONEY].name,
                    fmax(cap - used, 0.0), cap, used);
    }
    return STATUS_OK;
}
