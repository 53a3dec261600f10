/* The way back for what the agents asked, found and learned. */
#include <math.h>

#include "base/mem.h"
#include "store/run_restore.h"

/* Memory for the rows of a table; NULL in *items where it has none. */
static enum status make_items(struct restorer *from, enum run_table table, int64_t max,
                              size_t item_bytes, void **items, int32_t *count)
{
    int64_t found = from->image->counts[table];
    *items = NULL;
    *count = 0;
    if (found > max) {
        return CORRUPT(from->err, from->path, table, found, "more rows than a search may have");
    }
    if (found > 0) {
        *items = mem_calloc((size_t)found, item_bytes);
        if (*items == NULL) {
            return mem_fail(from->err, (size_t)found * item_bytes, run_tables[table].name);
        }
        *count = (int32_t)found;
    }
    return STATUS_OK;
}

static enum status restore_insights(struct restorer *from)
{
    const struct insight_row *rows = from->image->rows[RUN_INSIGHTS];
    struct search *to = from->search;
    void *items = NULL;
    TRY(make_items(from, RUN_INSIGHTS, INT32_MAX / 2, sizeof(*to->insights), &items,
                   &to->insight_count));
    to->insights = items;
    to->insight_capacity = to->insight_count;
    for (int32_t i = 0; i < to->insight_count; i++) {
        TRY(restorer_copy(from, rows[i].text, &to->insights[i].text));
        to->insights[i].retired = rows[i].retired;
        for (int k = 0; k < TABLE_LIST_LENGTH && rows[i].nodes[k] >= 0; k++) {
            if (rows[i].nodes[k] >= to->tree.count) {
                return CORRUPT(from->err, from->path, RUN_INSIGHTS, i,
                               "it names a node that is not there");
            }
            to->insights[i].nodes[to->insights[i].node_count++] = rows[i].nodes[k];
        }
    }
    return STATUS_OK;
}

/* ---- calls ---- */

static bool call_is_right(const struct search *search, const struct call_row *row)
{
    return search_call_key_fits(row->key) && row->node >= -1 && row->node < search->tree.count &&
           row->tokens_in >= 0 && row->tokens_out >= 0 && row->reserved_tokens >= 0 &&
           row->tokens_in <= SEARCH_CALL_TOKENS_MAX && row->tokens_out <= SEARCH_CALL_TOKENS_MAX &&
           row->reserved_tokens <= SEARCH_CALL_TOKENS_MAX && row->attempts >= 0 &&
           row->outcomes >= 0 && row->outcomes <= search->outcomes &&
           restorer_is_amount_or_unknown(row->cost_usd) &&
           restorer_is_amount_or_unknown(row->reserved_usd) && restorer_is_amount(row->started_s) &&
           restorer_is_amount(row->seconds) && restorer_is_amount(row->rank_seconds);
}

static enum status restore_call(struct restorer *from, const struct call_row *row,
                                struct search_call *to)
{
    enum call_row_state state = (enum call_row_state)row->state;
    to->node = row->node;
    to->ended = state != CALL_ROW_OPEN;
    to->lost = state == CALL_ROW_LOST;
    to->tokens_in = row->tokens_in;
    to->tokens_out = row->tokens_out;
    to->reserved_tokens = row->reserved_tokens;
    to->cost_usd = row->cost_usd;
    to->reserved_usd = row->reserved_usd;
    to->started_s = row->started_s;
    to->seconds = row->seconds;
    to->rank_seconds = row->rank_seconds;
    to->attempts = row->attempts;
    to->outcomes = row->outcomes;
    TRY(restorer_copy(from, row->key, &to->key));
    TRY(restorer_copy(from, row->purpose, &to->purpose));
    TRY(restorer_copy(from, row->kind, &to->kind));
    TRY(restorer_copy(from, row->body, &to->body));
    if (!to->ended) {
        return STATUS_OK;
    }
    TRY(restorer_copy(from, row->provider, &to->provider));
    TRY(restorer_copy(from, row->model, &to->model));
    TRY(restorer_copy(from, row->host, &to->host));
    return state == CALL_ROW_ANSWERED ? restorer_copy(from, row->reply, &to->reply)
                                      : restorer_copy(from, row->error, &to->error);
}

/* The ledger's totals are those of its calls: the caps rest on them. */
static enum status check_ledger(struct restorer *from)
{
    const struct search *search = from->search;
    int64_t tokens = 0;
    double usd = 0.0;
    double moved = 0.0; /* through the sum, which rounded each time */
    for (int32_t i = 0; i < search->call_count; i++) {
        const struct search_call *call = &search->calls[i];
        tokens += search_call_tokens(call);
        usd += search_call_usd(call);
        moved += isnan(call->reserved_usd) ? 0.0 : call->reserved_usd;
    }
    double rounding = 1e-9 * (1.0 + usd) + 1e-12 * moved;
    if (tokens != search->agent_tokens || !(fabs(usd - search->agent_usd) <= rounding)) {
        return CORRUPT(from->err, from->path, RUN_SEARCH, 0,
                       "tokens or dollars of the agents are not those of their calls");
    }
    return STATUS_OK;
}

static enum status restore_calls(struct restorer *from)
{
    const struct call_row *rows = from->image->rows[RUN_CALLS];
    struct search *to = from->search;
    void *items = NULL;
    TRY(make_items(from, RUN_CALLS, SEARCH_CALLS_MAX, sizeof(*to->calls), &items, &to->call_count));
    to->calls = items;
    to->call_capacity = to->call_count;
    for (int32_t i = 0; i < to->call_count; i++) {
        if (rows[i].call != i || !call_is_right(to, &rows[i])) {
            return CORRUPT(from->err, from->path, RUN_CALLS, i,
                           "its number, key, node, or a count, a time or a cost is out of range");
        }
        TRY(restore_call(from, &rows[i], &to->calls[i]));
    }
    enum status status = search_index_calls(to, from->err);
    if (status == STATUS_INVALID) {
        return CORRUPT(from->err, from->path, RUN_CALLS, to->call_count,
                       "two calls that were not lost have one key");
    }
    return status == STATUS_OK ? check_ledger(from) : status;
}

/* ---- documents and prompts ---- */

static enum status restore_document(struct restorer *from, const struct document_row *row,
                                    struct search_document *to)
{
    to->rows = row->rows;
    TRY(restorer_copy(from, row->kind, &to->kind));
    TRY(restorer_copy(from, row->source, &to->source));
    TRY(restorer_copy(from, row->id, &to->id));
    TRY(restorer_copy(from, row->title, &to->title));
    TRY(restorer_copy(from, row->url, &to->url));
    TRY(restorer_copy(from, row->licence, &to->licence));
    TRY(restorer_copy(from, row->text, &to->text));
    TRY(restorer_copy(from, row->note, &to->note));
    return restorer_copy_late(from, row->path, &to->path);
}

static enum status restore_documents(struct restorer *from)
{
    const struct document_row *rows = from->image->rows[RUN_DOCUMENTS];
    struct search *to = from->search;
    void *items = NULL;
    TRY(make_items(from, RUN_DOCUMENTS, SEARCH_DOCUMENTS_MAX, sizeof(*to->documents), &items,
                   &to->document_count));
    to->documents = items;
    to->document_capacity = to->document_count;
    for (int32_t i = 0; i < to->document_count; i++) {
        if (rows[i].rows < 0 ||
            (rows[i].path[0] != '\0' && !search_path_stays_inside(rows[i].path))) {
            return CORRUPT(from->err, from->path, RUN_DOCUMENTS, i,
                           "a count is out of range, or its path leads out of the run folder");
        }
        TRY(restore_document(from, &rows[i], &to->documents[i]));
    }
    return STATUS_OK;
}

static enum status restore_prompts(struct restorer *from)
{
    const struct prompt_row *rows = from->image->rows[RUN_PROMPTS];
    struct search *to = from->search;
    void *items = NULL;
    TRY(make_items(from, RUN_PROMPTS, SEARCH_PROMPTS_MAX, sizeof(*to->prompts), &items,
                   &to->prompt_count));
    to->prompts = items;
    to->prompt_capacity = to->prompt_count;
    for (int32_t i = 0; i < to->prompt_count; i++) {
        TRY(restorer_copy(from, rows[i].name, &to->prompts[i].name));
        TRY(restorer_copy(from, rows[i].hash, &to->prompts[i].hash));
        TRY(restorer_copy(from, rows[i].text, &to->prompts[i].text));
    }
    return STATUS_OK;
}

/* ---- planning ahead ---- */

static enum status restore_aheads(struct restorer *from)
{
    const struct ahead_row *rows = from->image->rows[RUN_AHEADS];
    struct search *to = from->search;
    void *items = NULL;
    int64_t least = 0;
    TRY(make_items(from, RUN_AHEADS, SEARCH_AHEADS_MAX, sizeof(*to->aheads), &items,
                   &to->ahead_count));
    to->aheads = items;
    to->ahead_capacity = to->ahead_count;
    for (int32_t i = 0; i < to->ahead_count; i++) {
        if (rows[i].outcomes < least || rows[i].outcomes >= to->outcomes ||
            rows[i].candidates < 0) {
            return CORRUPT(from->err, from->path, RUN_AHEADS, i, "a count is out of range");
        }
        to->aheads[i] = (struct search_ahead){rows[i].outcomes, rows[i].candidates};
        least = rows[i].outcomes + 1;
    }
    return STATUS_OK;
}

/* ---- plans that were asked for ---- */

static bool request_makes_sense(const struct search *search, const struct request_row *row,
                                int64_t least)
{
    bool planned = row->state == REQUEST_ROW_PLANNED;
    bool dropped = row->state == REQUEST_ROW_WITHDRAWN || row->state == REQUEST_ROW_REFUSED;
    bool below = row->parent >= 0 && row->parent < search->tree.count;
    bool node_fits = planned ? below && row->node >= 0 && row->node < search->tree.count &&
                                   search->tree.nodes[row->node].parent == row->parent
                             : row->node == -1;
    bool end_fits =
        dropped ? row->dropped_outcomes >= row->outcomes && row->dropped_outcomes < search->outcomes
                : row->dropped_outcomes == 0;
    return below && node_fits && end_fits && row->outcomes >= least &&
           row->outcomes <= search->outcomes;
}

static enum status restore_requests(struct restorer *from)
{
    const struct request_row *rows = from->image->rows[RUN_REQUESTS];
    struct search *to = from->search;
    void *items = NULL;
    int64_t least = 0;
    TRY(make_items(from, RUN_REQUESTS, SEARCH_REQUESTS_MAX, sizeof(*to->requests), &items,
                   &to->request_count));
    to->requests = items;
    to->request_capacity = to->request_count;
    for (int32_t i = 0; i < to->request_count; i++) {
        const struct request_row *row = &rows[i];
        if (!request_makes_sense(to, row, least)) {
            return CORRUPT(from->err, from->path, RUN_REQUESTS, i,
                           "its node, or when it was asked for or dropped, is out of range");
        }
        to->requests[i] = (struct search_request){
            .parent = row->parent,
            .node = row->node,
            .refused = row->state == REQUEST_ROW_REFUSED,
            .outcomes = row->outcomes,
            .dropped_outcomes = row->dropped_outcomes,
        };
        least = row->outcomes;
        if (row->state == REQUEST_ROW_WITHDRAWN || row->state == REQUEST_ROW_REFUSED) {
            TRY(restorer_copy(from, row->dropped, &to->requests[i].dropped));
        }
    }
    return STATUS_OK;
}

/* ---- the order of outcomes ---- */

static bool outcome_makes_sense(const struct search *search, const struct outcome_row *row)
{
    bool of_candidate = row->kind == SEARCH_OUTCOME_FINISHED || row->kind == SEARCH_OUTCOME_FAILED;
    bool candidate_fits = of_candidate
                              ? row->candidate >= 0 && row->candidate < SEARCH_CANDIDATES_MAX
                              : row->candidate == -1;
    switch ((enum search_outcome_kind)row->kind) {
    case SEARCH_OUTCOME_NONE:
    case SEARCH_OUTCOME_COUNT:
        return false;
    case SEARCH_OUTCOME_BRIEF:
    case SEARCH_OUTCOME_DOCUMENTS:
    case SEARCH_OUTCOME_AHEAD:
        return candidate_fits && row->id == -1;
    case SEARCH_OUTCOME_CALL:
        return candidate_fits && row->id >= 0 && row->id < search->call_count;
    case SEARCH_OUTCOME_DROPPED:
        return candidate_fits && row->id >= 1 && row->id <= search->request_count;
    default:
        return candidate_fits && row->id >= 0 && row->id < search->tree.count;
    }
}

static enum status restore_outcomes(struct restorer *from)
{
    const struct outcome_row *rows = from->image->rows[RUN_OUTCOMES];
    struct search *to = from->search;
    void *items = NULL;
    const int64_t most = INT32_MAX / 2;
    TRY(make_items(from, RUN_OUTCOMES, to->outcomes < most ? to->outcomes : most,
                   sizeof(*to->order), &items, &to->order_count));
    to->order = items;
    to->order_capacity = to->order_count;
    for (int32_t i = 0; i < to->order_count; i++) {
        if (!outcome_makes_sense(to, &rows[i])) {
            return CORRUPT(from->err, from->path, RUN_OUTCOMES, i,
                           "its node, candidate, plan or call is out of range");
        }
        to->order[i] =
            (struct search_outcome){rows[i].id, (int8_t)rows[i].candidate, (uint8_t)rows[i].kind};
    }
    return STATUS_OK;
}

/* ---- the whole ---- */

static enum status restore_agent_totals(struct restorer *from)
{
    const struct search_row *row = from->image->rows[RUN_SEARCH];
    struct search *to = from->search;
    if (row->agent_tokens < 0 || row->outcomes < 0 || row->ahead < 0 || row->refusals < 0 ||
        !restorer_is_amount(row->agent_usd)) {
        return CORRUPT(from->err, from->path, RUN_SEARCH, 0,
                       "tokens, dollars or a count of the agents is out of range");
    }
    to->agent_tokens = row->agent_tokens;
    to->agent_usd = row->agent_usd;
    /* Before version 3 nothing but plans and what has ended could be an outcome. */
    to->outcomes = from->image->schema < 3 ? to->tree.count + to->settled_count : row->outcomes;
    to->ahead = row->ahead;
    to->refusals = row->refusals;
    return restorer_copy_late(from, row->brief, &to->brief);
}

enum status restore_agents(struct restorer *from)
{
    TRY(restore_agent_totals(from));
    TRY(restore_insights(from));
    TRY(restore_calls(from));
    TRY(restore_documents(from));
    TRY(restore_prompts(from));
    TRY(restore_aheads(from));
    TRY(restore_requests(from));
    return restore_outcomes(from);
}
