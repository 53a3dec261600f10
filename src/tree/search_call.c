/* Events of calls, what they count against the limits, and the way from a key to its call. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "tree/search_event.h"

enum { SLOTS_FIRST_COUNT = 64 };

/* ---- what a call costs ---- */

int64_t search_call_tokens(const struct search_call *call)
{
    return call->ended && !call->lost ? call->tokens_in + call->tokens_out : call->reserved_tokens;
}

double search_call_usd(const struct search_call *call)
{
    double usd = call->ended && !call->lost ? call->cost_usd : call->reserved_usd;
    return isnan(usd) ? 0.0 : usd;
}

/* ---- from a key to its call ---- */

/* FNV-1a. */
static uint64_t hash_key(const char *key)
{
    uint64_t hash = UINT64_C(14695981039346656037);
    for (const char *at = key; *at != '\0'; at++) {
        hash = (hash ^ (unsigned char)*at) * UINT64_C(1099511628211);
    }
    return hash;
}

/* The slot that holds the key, or the empty one where it belongs. Half of all slots are empty. */
static int32_t *find_slot(const struct search *search, const char *key)
{
    uint64_t mask = (uint64_t)search->call_slot_count - 1;
    uint64_t at = hash_key(key) & mask;
    while (search->call_slots[at] != 0 &&
           strcmp(search->calls[search->call_slots[at] - 1].key, key) != 0) {
        at = (at + 1) & mask;
    }
    return &search->call_slots[at];
}

/* Makes the slots twice as many as calls, one more included. */
static enum status reserve_slot(struct search *search, struct error *err)
{
    int64_t needed = 2 * ((int64_t)search->call_count + 1);
    if (needed <= search->call_slot_count) {
        return STATUS_OK;
    }
    int32_t count = search->call_slot_count > 0 ? search->call_slot_count : SLOTS_FIRST_COUNT;
    while (count < needed) {
        count *= 2;
    }
    int32_t *slots = mem_calloc((size_t)count, sizeof(*slots));
    if (slots == NULL) {
        return mem_fail(err, (size_t)count * sizeof(*slots), "the index of calls");
    }
    free(search->call_slots);
    search->call_slots = slots;
    search->call_slot_count = count;
    for (int32_t i = 0; i < search->call_count; i++) {
        *find_slot(search, search->calls[i].key) = i + 1; /* the last of a key stands */
    }
    return STATUS_OK;
}

enum status search_index_calls(struct search *search, struct error *err)
{
    TRY(reserve_slot(search, err));
    memset(search->call_slots, 0, (size_t)search->call_slot_count * sizeof(*search->call_slots));
    for (int32_t i = 0; i < search->call_count; i++) {
        int32_t *slot = find_slot(search, search->calls[i].key);
        if (*slot != 0 && !search->calls[*slot - 1].lost) {
            return FAIL(err, STATUS_INVALID, "call %d has the key of call %d, which was not lost",
                        (int)i, (int)*slot - 1);
        }
        *slot = i + 1;
    }
    return STATUS_OK;
}

const struct search_call *search_find_call(const struct search *search, const char *key)
{
    const struct search_call *found = NULL;
    if (search->call_slots != NULL) {
        int32_t slot = *find_slot(search, key);
        found = slot != 0 ? &search->calls[slot - 1] : NULL;
    }
    return found != NULL && !found->lost ? found : NULL;
}

/* ---- a call is asked ---- */

static enum status read_key(struct search *search, struct event *event, char **out,
                            struct error *err)
{
    TRY(search_read_text(&event->reader, "key", true, SEARCH_CALL_KEY_BYTES - 1, &search->arena,
                         out, err));
    if (*out == NULL) {
        return STATUS_OK;
    }
    if (!search_call_key_fits(*out)) {
        json_problems_add(&event->problems, "/key",
                          "allowed are 1 to %d printable characters of ASCII, without spaces",
                          SEARCH_CALL_KEY_BYTES - 1);
    } else if (search_find_call(search, *out) != NULL) {
        json_problems_add(&event->problems, "/key",
                          "found %s, which an earlier call has that was not lost", *out);
    }
    return STATUS_OK;
}

bool search_call_key_fits(const char *key)
{
    size_t length = strlen(key);
    for (size_t i = 0; i < length; i++) {
        if (key[i] <= ' ' || key[i] > '~') {
            return false;
        }
    }
    return length > 0 && length < SEARCH_CALL_KEY_BYTES;
}

static double read_usd(struct event *event, const char *key)
{
    return json_read_number(&event->reader, key, NAN, 0.0, SEARCH_CALL_USD_MAX);
}

static enum status read_started(struct search *search, struct event *event, struct search_call *out,
                                struct error *err)
{
    static const char *const kinds[] = {"chat", "source", "dry", NULL};
    struct arena *arena = &search->arena;
    int64_t id = event_require_int(event, "call", 0, SEARCH_CALLS_MAX);
    if (event->problems.count == 0 && id != search->call_count) {
        json_problems_add(&event->problems, "/call", "found %lld, allowed is the next, %d",
                          (long long)id, (int)search->call_count);
    }
    out->node = (int32_t)event_require_int(event, "node", -1, TREE_NODES_MAX);
    if (out->node >= search->tree.count) {
        json_problems_add(&event->problems, "/node", "node %d does not exist", (int)out->node);
    }
    out->reserved_tokens = event_require_int(event, "reserved_tokens", 0, SEARCH_CALL_TOKENS_MAX);
    out->reserved_usd = read_usd(event, "reserved_usd");
    out->cost_usd = NAN;
    out->started_s = event->time_s;
    TRY(read_key(search, event, &out->key, err));
    TRY(event_read_line(event, "purpose", true, arena, &out->purpose, err));
    json_require(&event->reader, "kind", "\"chat\", \"source\" or \"dry\"");
    out->kind = arena_strdup(arena, kinds[json_read_choice(&event->reader, "kind", kinds, 0)]);
    if (out->kind == NULL) {
        return mem_fail(err, 8, "the kind of a call");
    }
    TRY(search_read_json(&event->reader, "body", false, SEARCH_CALL_TEXT_MAX_BYTES, arena,
                         &out->body, err));
    return event_check(event, err);
}

enum status search_apply_call_started(struct search *search, struct event *event, struct error *err)
{
    struct search_call call = {0};
    void *list = search->calls;
    if (search->call_count >= SEARCH_CALLS_MAX) {
        return FAIL(err, STATUS_LIMIT, "%s: a search has at most %d calls", event->name,
                    SEARCH_CALLS_MAX);
    }
    TRY(read_started(search, event, &call, err));
    TRY(event_reserve(&list, search->call_count, 1, &search->call_capacity, sizeof(call), "calls",
                      err));
    search->calls = list;
    TRY(reserve_slot(search, err));

    int32_t *slot = find_slot(search, call.key);
    search->calls[search->call_count++] = call;
    *slot = search->call_count;
    search->agent_tokens += search_call_tokens(&call);
    search->agent_usd += search_call_usd(&call);
    return STATUS_OK;
}

/* ---- a call has ended ---- */

/* The open call of the event; NULL with a problem if there is none. */
static struct search_call *read_open_call(struct search *search, struct event *event)
{
    int64_t id = event_require_int(event, "call", 0, SEARCH_CALLS_MAX);
    if (event->problems.count > 0) {
        return NULL;
    }
    if (id >= search->call_count || search->calls[id].ended) {
        json_problems_add(&event->problems, "/call", "found %lld, allowed is a call that is open",
                          (long long)id);
        return NULL;
    }
    return &search->calls[id];
}

/* What is told of the end, into an empty call. */
static enum status read_end(struct event *event, struct arena *arena, struct search_call *out,
                            struct error *err)
{
    struct json_reader *reader = &event->reader;
    bool replied = cJSON_IsString(json_read_any(reader, "reply"));
    bool failed = cJSON_IsString(json_read_any(reader, "error"));
    out->lost = json_read_bool(reader, "lost", false);
    if (replied == failed || (replied && out->lost)) {
        json_problems_add(&event->problems, "/reply",
                          "allowed is either a reply or an error, and of a lost call an error");
    }
    out->tokens_in = json_read_int(reader, "tokens_in", 0, 0, SEARCH_CALL_TOKENS_MAX);
    out->tokens_out = json_read_int(reader, "tokens_out", 0, 0, SEARCH_CALL_TOKENS_MAX);
    out->cost_usd = read_usd(event, "cost_usd");
    out->seconds = event_require_seconds(event, "seconds");
    out->attempts = (int32_t)json_read_int(reader, "attempts", 0, 0, SEARCH_CALL_ATTEMPTS_MAX);
    out->rank_seconds = json_read_number(reader, "rank_seconds", 0.0, 0.0, SEARCH_SECONDS_MAX);
    TRY(event_read_line(event, "provider", false, arena, &out->provider, err));
    TRY(event_read_line(event, "model", false, arena, &out->model, err));
    TRY(event_read_line(event, "host", false, arena, &out->host, err));
    if (replied) {
        TRY(search_read_text(reader, "reply", true, SEARCH_CALL_TEXT_MAX_BYTES, arena, &out->reply,
                             err));
    } else {
        TRY(event_read_line(event, "error", true, arena, &out->error, err));
    }
    return event_check(event, err);
}

/* Moves what was told into the call, which keeps its question. */
static void end_call(struct search *search, struct search_call *call, const struct search_call *end)
{
    search->agent_tokens -= search_call_tokens(call);
    search->agent_usd -= search_call_usd(call);
    call->ended = true;
    call->lost = end->lost;
    call->reply = end->reply;
    call->provider = end->provider;
    call->model = end->model;
    call->host = end->host;
    call->error = end->error;
    call->tokens_in = end->tokens_in;
    call->tokens_out = end->tokens_out;
    call->cost_usd = end->cost_usd;
    call->seconds = end->seconds;
    call->attempts = end->attempts;
    call->rank_seconds = end->rank_seconds;
    call->outcomes = search->outcomes;
    search->agent_tokens += search_call_tokens(call);
    /* What rounding leaves of a difference may be below 0. */
    search->agent_usd = fmax(search->agent_usd, 0.0) + search_call_usd(call);
    double core_seconds = 0.0;
    double gpu_seconds = 0.0;
    search_add_cost(search, end->rank_seconds, &core_seconds, &gpu_seconds);
}

enum status search_apply_call_ended(struct search *search, struct event *event, struct error *err)
{
    struct search_call end = {0};
    struct search_call *call = read_open_call(search, event);
    TRY(read_end(event, &search->arena, &end, err));
    end_call(search, call, &end);
    return STATUS_OK;
}
