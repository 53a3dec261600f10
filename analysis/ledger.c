/* What the agents have asked and what it has cost: part of status, show and set. */
#include <inttypes.h>
#include <math.h>

#include "analysis/analysis.h"
#include "base/mem.h"

void ledger_add_call(struct ledger *ledger, const struct search_call *call)
{
    bool spent = call->ended && !call->lost;
    ledger->calls++;
    ledger->open += !call->ended;
    ledger->lost += call->lost;
    ledger->failed += spent && call->reply == NULL;
    ledger->seconds += call->seconds;
    if (spent) {
        ledger->tokens += search_call_tokens(call);
        ledger->usd += search_call_usd(call);
        ledger->unpriced += isnan(call->cost_usd) && search_call_tokens(call) > 0;
    } else {
        ledger->reserved_tokens += search_call_tokens(call);
        ledger->reserved_usd += search_call_usd(call);
    }
}

void ledger_sum(const struct search *search, int32_t node, struct ledger *out)
{
    *out = (struct ledger){0};
    for (int32_t i = 0; i < search->call_count; i++) {
        if (node == LEDGER_ALL || search->calls[i].node == node) {
            ledger_add_call(out, &search->calls[i]);
        }
    }
}

struct ledger *ledger_of_nodes(const struct search *search)
{
    struct ledger *ledgers = mem_calloc((size_t)search->tree.count, sizeof(*ledgers));
    for (int32_t i = 0; ledgers != NULL && i < search->call_count; i++) {
        if (search->calls[i].node >= 0) {
            ledger_add_call(&ledgers[search->calls[i].node], &search->calls[i]);
        }
    }
    return ledgers;
}

/* ---- in words ---- */

/* "3 calls (1 under way, 1 failed)". */
static void print_calls(const struct ledger *ledger)
{
    const int64_t counts[] = {ledger->open, ledger->failed, ledger->lost};
    static const char *const names[] = {"under way", "failed", "lost"};
    const char *before = " (";
    printf("%" PRId64 " call%s", ledger->calls, ledger->calls == 1 ? "" : "s");
    for (int i = 0; i < 3; i++) {
        if (counts[i] > 0) {
            printf("%s%" PRId64 " %s", before, counts[i], names[i]);
            before = ", ";
        }
    }
    printf("%s", before[0] == ',' ? ")" : "");
}

void ledger_print(const struct ledger *ledger)
{
    print_calls(ledger);
    printf(", %" PRId64 " tokens, %.4f USD", ledger->tokens + ledger->reserved_tokens,
           ledger->usd + ledger->reserved_usd);
}

void ledger_print_status(const struct view *view)
{
    const struct search *search = &view->search;
    struct ledger all;
    double tokens_limit = view_limit(view, SEARCH_LIMIT_AGENT_TOKENS);
    double usd_limit = view_limit(view, SEARCH_LIMIT_AGENT_MONEY);
    if (search->call_count == 0 && tokens_limit == 0.0 && usd_limit == 0.0) {
        return; /* the rules ask nobody */
    }
    ledger_sum(search, LEDGER_ALL, &all);
    paint_label("agents");
    print_calls(&all);
    printf(", %" PRId64 " of %.0f tokens, %.4f of %.2f USD", search->agent_tokens, tokens_limit,
           search->agent_usd, usd_limit);
    if (all.unpriced > 0) {
        printf("; no price is known for %" PRId64 " call%s", all.unpriced,
               all.unpriced == 1 ? "" : "s");
    }
    putchar('\n');
    if (all.reserved_tokens > 0) {
        paint_label("");
        printf("%" PRId64 " tokens and %.4f USD of it are reserved by calls that are under way, or "
               "were lost\n",
               all.reserved_tokens, all.reserved_usd);
    }
}

/* ---- JSON ---- */

cJSON *ledger_json(const struct ledger *ledger)
{
    cJSON *object = cJSON_CreateObject();
    cJSON_AddNumberToObject(object, "calls", (double)ledger->calls);
    cJSON_AddNumberToObject(object, "open", (double)ledger->open);
    cJSON_AddNumberToObject(object, "failed", (double)ledger->failed);
    cJSON_AddNumberToObject(object, "lost", (double)ledger->lost);
    cJSON_AddNumberToObject(object, "tokens", (double)ledger->tokens);
    cJSON_AddNumberToObject(object, "reserved_tokens", (double)ledger->reserved_tokens);
    cJSON_AddNumberToObject(object, "usd", ledger->usd);
    cJSON_AddNumberToObject(object, "reserved_usd", ledger->reserved_usd);
    cJSON_AddNumberToObject(object, "unpriced", (double)ledger->unpriced);
    cJSON_AddNumberToObject(object, "seconds", ledger->seconds);
    return object;
}

cJSON *ledger_status_json(const struct view *view)
{
    struct ledger all;
    ledger_sum(&view->search, LEDGER_ALL, &all);
    cJSON *object = ledger_json(&all);
    cJSON_AddNumberToObject(object, "tokens_limit", view_limit(view, SEARCH_LIMIT_AGENT_TOKENS));
    cJSON_AddNumberToObject(object, "usd_limit", view_limit(view, SEARCH_LIMIT_AGENT_MONEY));
    cJSON_AddNumberToObject(object, "ahead", (double)view->search.ahead);
    return object;
}
