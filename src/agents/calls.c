/* An entry for each call that was asked and is not yet in the search as ended:
 *
 *   ENTRY_ASKED    its call_started is on its way to the disk, or waits for a place
 *   ENTRY_SENT     the transport has it
 *   ENTRY_HELD     of patient calls: it has failed, and nobody is told (calls.h)
 *   ENTRY_ENDING   its call_ended is on its way to the disk */
#include "agents/calls.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agents/call_parts.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/text.h"

static const char refused_key[] = "refused";

enum entry_phase { ENTRY_ASKED, ENTRY_SENT, ENTRY_HELD, ENTRY_ENDING };

struct entry {
    int32_t id;
    char key[SEARCH_CALL_KEY_BYTES];
    enum call_kind kind;
    enum entry_phase phase;
    cJSON *body;    /* until it is sent */
    char *refused;  /* why a cap does not allow it: it is answered so, and not sent; NULL: it is */
    int64_t tokens; /* reserved */
    double usd;
    struct call_answer *failure; /* ENTRY_HELD: what it would have ended with; owned */
};

struct calls {
    struct call_transport transport;
    int open_max;
    bool patient;
    struct error refused; /* why the first was not asked; STATUS_OK: none was refused */
    struct log *log;
    double (*limit)(const void *context, enum search_limit_id id);
    const void *context;
    struct entry *entries; /* in the order of their ids */
    int entry_count, entry_capacity;
    int32_t next_id;
    cJSON **events; /* for the journal, in order */
    int event_count, event_capacity;
};

/* ---- lifetime ---- */

enum status calls_create(const struct calls_options *options, struct calls **out, struct error *err)
{
    struct calls *calls = mem_calloc(1, sizeof(*calls));
    if (calls == NULL) {
        options->transport.close(options->transport.state);
        return mem_fail(err, sizeof(*calls), "calls");
    }
    calls->transport = options->transport;
    calls->open_max = options->open_max > 0 ? options->open_max : 1;
    calls->patient = options->patient;
    calls->log = options->log;
    calls->limit = options->limit;
    calls->context = options->context;
    *out = calls;
    return STATUS_OK;
}

static void close_entry(struct entry *entry)
{
    cJSON_Delete(entry->body);
    free(entry->refused);
    free(entry->failure);
}

void calls_destroy(struct calls *calls)
{
    if (calls == NULL) {
        return;
    }
    calls->transport.close(calls->transport.state);
    for (int i = 0; i < calls->entry_count; i++) {
        close_entry(&calls->entries[i]);
    }
    free(calls->entries);
    for (int i = 0; i < calls->event_count; i++) {
        cJSON_Delete(calls->events[i]);
    }
    free(calls->events);
    free(calls);
}

/* ---- entries ---- */

static struct entry *find_entry(const struct calls *calls, int32_t id)
{
    for (int i = 0; i < calls->entry_count; i++) {
        if (calls->entries[i].id == id) {
            return &calls->entries[i];
        }
    }
    return NULL;
}

/* An empty one at the end, which the caller fills; entry_count is not yet raised. */
static enum status reserve_entry(struct calls *calls, struct entry **out, struct error *err)
{
    if (calls->entry_count == calls->entry_capacity) {
        int capacity = calls->entry_capacity > 0 ? 2 * calls->entry_capacity : 16;
        struct entry *entries = mem_realloc(calls->entries, (size_t)capacity, sizeof(*entries));
        if (entries == NULL) {
            return mem_fail(err, (size_t)capacity * sizeof(*entries), "open calls");
        }
        calls->entries = entries;
        calls->entry_capacity = capacity;
    }
    *out = &calls->entries[calls->entry_count];
    memset(*out, 0, sizeof(**out));
    return STATUS_OK;
}

static int count_phase(const struct calls *calls, enum entry_phase phase)
{
    int count = 0;
    for (int i = 0; i < calls->entry_count; i++) {
        count += calls->entries[i].phase == phase ? 1 : 0;
    }
    return count;
}

int calls_open(const struct calls *calls)
{
    return calls->entry_count;
}

bool calls_is_open(const struct calls *calls, const char *key)
{
    for (int i = 0; i < calls->entry_count; i++) {
        if (strcmp(calls->entries[i].key, key) == 0) {
            return true;
        }
    }
    return false;
}

const struct search_call *calls_find(const struct search *search, const char *key)
{
    const struct search_call *call = search_find_call(search, key);
    return call != NULL && call->ended ? call : NULL;
}

/* ---- events ---- */

/* Takes the event, whatever the outcome; NULL: there was no memory for it. */
static enum status push_event(struct calls *calls, cJSON *event, struct error *err)
{
    if (event != NULL && calls->event_count == calls->event_capacity) {
        int capacity = calls->event_capacity > 0 ? 2 * calls->event_capacity : 16;
        cJSON **events = mem_realloc(calls->events, (size_t)capacity, sizeof(cJSON *));
        if (events == NULL) {
            cJSON_Delete(event);
            event = NULL;
        } else {
            calls->events = events;
            calls->event_capacity = capacity;
        }
    }
    if (event == NULL) {
        return mem_fail(err, sizeof(cJSON), "an event of a call");
    }
    calls->events[calls->event_count++] = event;
    return STATUS_OK;
}

bool calls_take_event(struct calls *calls, cJSON **event)
{
    if (calls->event_count == 0) {
        return false;
    }
    *event = calls->events[0];
    calls->event_count--;
    memmove(calls->events, calls->events + 1, (size_t)calls->event_count * sizeof(cJSON *));
    return true;
}

static cJSON *started_event(const struct entry *entry, const struct call_question *question)
{
    cJSON *event = cJSON_CreateObject();
    bool added = cJSON_AddStringToObject(event, "event", "call_started") != NULL &&
                 cJSON_AddNumberToObject(event, "call", entry->id) != NULL &&
                 cJSON_AddStringToObject(event, "key", entry->key) != NULL &&
                 cJSON_AddStringToObject(event, "purpose", question->purpose) != NULL &&
                 cJSON_AddStringToObject(event, "kind", call_kind_names[entry->kind]) != NULL &&
                 cJSON_AddNumberToObject(event, "node", question->node) != NULL &&
                 cJSON_AddNumberToObject(event, "reserved_tokens", (double)entry->tokens) != NULL &&
                 call_add_usd(event, "reserved_usd", entry->usd);
    cJSON *body = added ? cJSON_Duplicate(entry->body, true) : NULL;
    if (body == NULL || !cJSON_AddItemToObject(event, "body", body)) {
        cJSON_Delete(body);
        cJSON_Delete(event);
        return NULL;
    }
    return event;
}

/* ---- asking ---- */

/* Spent, and reserved by what is open: the search counts those whose call_started it has. */
static struct call_cost cost_so_far(const struct calls *calls, const struct search *search)
{
    struct call_cost cost = {search->agent_tokens, search->agent_usd};
    for (int i = 0; i < calls->entry_count; i++) {
        if (calls->entries[i].id >= search->call_count) {
            cost.tokens += calls->entries[i].tokens;
            cost.usd += isnan(calls->entries[i].usd) ? 0.0 : calls->entries[i].usd;
        }
    }
    return cost;
}

/* What a cap does not allow is recorded too, as a call that cost nothing: what was left when it was
 * asked is among what a decision rested on. Its body is the reason. */
static enum status refuse_entry(struct entry *entry, const char *why, struct error *err)
{
    cJSON *body = cJSON_CreateObject();
    entry->refused = mem_strdup(why);
    if (entry->refused == NULL || cJSON_AddStringToObject(body, refused_key, why) == NULL) {
        cJSON_Delete(body);
        return mem_fail(err, strlen(why), "a refused call");
    }
    cJSON_Delete(entry->body);
    entry->body = body;
    entry->tokens = 0;
    entry->usd = 0.0;
    return STATUS_OK;
}

static enum status fill_entry(const struct calls *calls, const struct search *search,
                              const struct call_question *question, struct entry *entry,
                              struct error *err)
{
    if (!search_call_key_fits(question->key)) {
        return FAIL(err, STATUS_INVALID, "\"%.100s\" cannot be the key of a call", question->key);
    }
    entry->id = calls->next_id > search->call_count ? calls->next_id : search->call_count;
    if (entry->id >= SEARCH_CALLS_MAX) {
        return FAIL(err, STATUS_LIMIT, "%s: a search has at most %d calls", question->key,
                    SEARCH_CALLS_MAX);
    }
    snprintf(entry->key, sizeof(entry->key), "%s", question->key);
    entry->kind = question->kind;
    TRY(call_body_read(question->kind, question->body, &entry->body, err));
    const struct call call = {entry->id, entry->key, entry->kind, entry->body};
    TRY(calls->transport.bound(calls->transport.state, &call, &entry->tokens, &entry->usd, err));
    entry->tokens = entry->tokens < SEARCH_CALL_TOKENS_MAX ? entry->tokens : SEARCH_CALL_TOKENS_MAX;
    const struct call_cost most = {entry->tokens, entry->usd};
    const struct call_cost taken = cost_so_far(calls, search);
    struct error refusal = {0};
    enum status allowed =
        calls->limit == NULL
            ? STATUS_OK
            : call_caps_check(calls->limit, calls->context, entry->key, &most, &taken, &refusal);
    if (allowed != STATUS_OK && calls->patient) { /* the next job may ask it */
        *err = refusal;
        return allowed;
    }
    return allowed == STATUS_OK ? STATUS_OK : refuse_entry(entry, refusal.message, err);
}

static enum status ask(struct calls *calls, const struct search *search,
                       const struct call_question *question, struct error *err)
{
    struct entry *entry = NULL;
    TRY(reserve_entry(calls, &entry, err));
    enum status status = fill_entry(calls, search, question, entry, err);
    if (status == STATUS_OK) {
        status = push_event(calls, started_event(entry, question), err);
    }
    if (status != STATUS_OK) {
        close_entry(entry);
        return status;
    }
    calls->entry_count++;
    calls->next_id = entry->id + 1;
    return STATUS_OK;
}

enum status calls_ask(struct calls *calls, const struct search *search,
                      struct call_question *question, struct error *err)
{
    enum status status = STATUS_OK;
    if (calls_find(search, question->key) == NULL && !calls_is_open(calls, question->key)) {
        status = ask(calls, search, question, err);
        if (status != STATUS_OK && calls->refused.code == STATUS_OK) {
            calls->refused = *err;
        }
    }
    cJSON_Delete(question->body);
    question->body = NULL;
    return status;
}

/* ---- answers ---- */

static void log_answer(const struct calls *calls, const struct entry *entry,
                       const struct call_answer *answer)
{
    if (answer->status != STATUS_OK) {
        log_write(calls->log, LOG_WARNING, "agents", "call %s failed: %s", entry->key,
                  answer->error.message);
        return;
    }
    char cost[32] = "";
    if (answer->cost_usd > 0.0) {
        snprintf(cost, sizeof(cost), ", %.4f USD", answer->cost_usd);
    }
    log_write(calls->log, LOG_INFO, "agents",
              "call %s: %" PRId64 " tokens in, %" PRId64 " out%s, %.1f s%s", entry->key,
              answer->tokens_in, answer->tokens_out, cost, answer->seconds,
              answer->cut ? ", cut (reply_tokens are spent)" : "");
}

static enum status end_entry(struct calls *calls, struct entry *entry, struct call_answer *answer,
                             bool lost, struct error *err)
{
    TRY(call_answer_repair(answer, err));
    entry->phase = ENTRY_ENDING;
    return push_event(calls, call_ended_event(answer, lost), err);
}

/* ---- patience ---- */

/* Whether asking the same again may bring an answer: nobody refused the question itself. */
static bool may_pass(const struct call_answer *answer)
{
    return answer->status != STATUS_OK && answer->status != STATUS_INVALID &&
           answer->status != STATUS_LIMIT;
}

static bool was_charged(const struct call_answer *answer)
{
    return answer->tokens_in > 0 || answer->tokens_out > 0 || answer->cost_usd > 0.0;
}

/* Nobody is told. What it may have cost is lost with it; what cost nothing stays open. */
static enum status hold_entry(struct calls *calls, struct entry *entry, struct call_answer *answer,
                              struct error *err)
{
    TRY(call_answer_repair(answer, err));
    if (was_charged(answer)) {
        TRY(push_event(calls, call_ended_event(answer, true), err));
    }
    struct call_answer *failure = mem_calloc(1, sizeof(*failure));
    if (failure == NULL) {
        return mem_fail(err, sizeof(*failure), "a failed call");
    }
    *failure = *answer;
    failure->text = NULL;
    entry->failure = failure;
    entry->phase = ENTRY_HELD;
    log_answer(calls, entry, answer);
    return STATUS_OK;
}

static bool has_answered_source(const struct search *search)
{
    for (int32_t i = 0; i < search->call_count; i++) {
        const struct search_call *call = &search->calls[i];
        if (call->reply != NULL && strcmp(call->kind, call_kind_names[CALL_SOURCE]) == 0) {
            return true;
        }
    }
    return false;
}

bool calls_is_stuck(const struct calls *calls)
{
    return calls->entry_count > 0 && count_phase(calls, ENTRY_HELD) == calls->entry_count;
}

/* Where other sources answered, one that did not is down: with that, a search goes on. */
static enum status release_source(struct calls *calls, const struct search *search,
                                  struct error *err)
{
    if (!calls_is_stuck(calls) || !has_answered_source(search)) {
        return STATUS_OK;
    }
    for (int i = 0; i < calls->entry_count; i++) {
        struct entry *entry = &calls->entries[i];
        if (entry->kind == CALL_SOURCE && !was_charged(entry->failure)) {
            return end_entry(calls, entry, entry->failure, false, err);
        }
    }
    return STATUS_OK;
}

bool calls_failed(const struct calls *calls, struct error *why)
{
    for (int i = 0; i < calls->entry_count; i++) {
        const struct entry *entry = &calls->entries[i];
        if (entry->phase == ENTRY_HELD) {
            *why = entry->failure->error;
            error_context(why, "%s", entry->key);
            return true;
        }
    }
    *why = calls->refused;
    return calls->refused.code != STATUS_OK;
}

/* ---- sending and receiving ---- */

/* What somebody waits for. */
static enum status answer_entry(struct calls *calls, struct entry *entry,
                                struct call_answer *answer, struct error *err)
{
    if (calls->patient && may_pass(answer)) {
        return hold_entry(calls, entry, answer, err);
    }
    TRY(end_entry(calls, entry, answer, false, err));
    log_answer(calls, entry, answer);
    return STATUS_OK;
}

/* ---- a turn ---- */

/* Lets go of what the search holds as ended. */
static void forget_ended(struct calls *calls, const struct search *search)
{
    int kept = 0;
    for (int i = 0; i < calls->entry_count; i++) {
        struct entry *entry = &calls->entries[i];
        bool ended = entry->id < search->call_count && search->calls[entry->id].ended;
        if (!ended || entry->phase == ENTRY_HELD) { /* a lost one is not asked again here */
            calls->entries[kept++] = *entry;
            continue;
        }
        if (calls->transport.done != NULL) {
            calls->transport.done(calls->transport.state, entry->id);
        }
        close_entry(entry);
    }
    calls->entry_count = kept;
}

static enum status send_one(struct calls *calls, struct entry *entry, struct error *err)
{
    struct error failure = {0};
    const struct call call = {entry->id, entry->key, entry->kind, entry->body};
    enum status started = entry->refused != NULL
                              ? FAIL(&failure, STATUS_LIMIT, "%s", entry->refused)
                              : calls->transport.start(calls->transport.state, &call, &failure);
    cJSON_Delete(entry->body);
    entry->body = NULL;
    entry->phase = ENTRY_SENT;
    if (started == STATUS_OK) {
        return STATUS_OK;
    }
    struct call_answer answer = call_answer_failed(entry->id, &failure);
    return answer_entry(calls, entry, &answer, err);
}

/* In the order in which they were asked. */
static enum status send(struct calls *calls, const struct search *search, struct error *err)
{
    int sent = count_phase(calls, ENTRY_SENT);
    for (int i = 0; i < calls->entry_count && sent < calls->open_max; i++) {
        struct entry *entry = &calls->entries[i];
        if (entry->phase != ENTRY_ASKED || entry->id >= search->call_count) {
            continue;
        }
        if (strcmp(search->calls[entry->id].key, entry->key) != 0) {
            return FAIL(err, STATUS_INTERNAL, "call %d is %s, and not %s", (int)entry->id,
                        search->calls[entry->id].key, entry->key);
        }
        TRY(send_one(calls, entry, err));
        sent += entry->phase == ENTRY_SENT ? 1 : 0;
    }
    return STATUS_OK;
}

/* The next answer, if the one before is in the search. */
static enum status receive(struct calls *calls, struct error *err)
{
    struct call_answer answer = {0};
    while (count_phase(calls, ENTRY_ENDING) == 0 &&
           calls->transport.take(calls->transport.state, &answer)) {
        struct entry *entry = find_entry(calls, answer.id);
        enum status status = entry != NULL && entry->phase == ENTRY_SENT
                                 ? answer_entry(calls, entry, &answer, err)
                                 : STATUS_OK;
        call_answer_fini(&answer);
        memset(&answer, 0, sizeof(answer));
        TRY(status);
    }
    return STATUS_OK;
}

/* The search has ended: nobody waits for an answer. What was sent may still be charged. */
enum status calls_take_back(struct calls *calls, struct error *err)
{
    int sent_count = 0;
    for (int i = 0; i < calls->entry_count; i++) {
        struct entry *entry = &calls->entries[i];
        if (entry->phase == ENTRY_ENDING) {
            continue;
        }
        bool sent = entry->phase == ENTRY_SENT;
        sent_count += sent;
        if (sent) {
            calls->transport.cancel(calls->transport.state, entry->id);
        }
        struct error failure;
        FAIL(&failure, STATUS_INTERRUPTED, "the search ended before the answer came");
        struct call_answer answer = call_answer_failed(entry->id, &failure);
        TRY(end_entry(calls, entry, &answer, sent, err));
    }
    if (sent_count > 0) {
        log_write(calls->log, LOG_INFO, "agents",
                  "%d call%s no longer needed: taken back, counted as spent", sent_count,
                  sent_count == 1 ? " is" : "s are");
    }
    return STATUS_OK;
}

enum status calls_turn(struct calls *calls, const struct search *search, int64_t outcomes,
                       bool idle, struct error *err)
{
    forget_ended(calls, search);
    TRY(send(calls, search, err));
    bool waiting = count_phase(calls, ENTRY_SENT) == calls->entry_count;
    TRY(calls->transport.turn(calls->transport.state, outcomes, idle && waiting, err));
    TRY(receive(calls, err));
    return release_source(calls, search, err);
}

/* ---- after a restart ---- */

static enum status resume_call(struct calls *calls, const struct search_call *call, int32_t id,
                               struct error *err)
{
    struct entry *entry = NULL;
    TRY(reserve_entry(calls, &entry, err));
    entry->id = id;
    snprintf(entry->key, sizeof(entry->key), "%s", call->key);
    while (entry->kind < CALL_KIND_COUNT - 1 &&
           strcmp(call->kind, call_kind_names[entry->kind]) != 0) {
        entry->kind++;
    }
    entry->tokens = call->reserved_tokens;
    entry->usd = call->reserved_usd;
    TRY(json_parse(call->body, strlen(call->body), call->key, &entry->body, err));
    const char *refused =
        cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(entry->body, refused_key));
    enum status status = refused != NULL ? refuse_entry(entry, refused, err) : STATUS_OK;
    if (status != STATUS_OK) {
        close_entry(entry);
        return status;
    }
    calls->entry_count++;
    return STATUS_OK;
}

static enum status lose_call(struct calls *calls, int32_t id, struct error *err)
{
    struct error failure;
    FAIL(&failure, STATUS_INTERRUPTED, "the job ended before the answer came");
    struct call_answer answer = call_answer_failed(id, &failure);
    answer.cost_usd = NAN;
    return push_event(calls, call_ended_event(&answer, true), err);
}

enum status calls_recover(struct calls *calls, const struct search *search, bool unspent,
                          struct error *err)
{
    int lost = 0;
    calls->next_id = search->call_count;
    for (int32_t i = 0; i < search->call_count; i++) {
        const struct search_call *call = &search->calls[i];
        if (call->ended) {
            if (calls->transport.done != NULL) {
                calls->transport.done(calls->transport.state, i);
            }
        } else if (calls->transport.resumes || unspent) {
            TRY(resume_call(calls, call, i, err));
        } else {
            TRY(lose_call(calls, i, err));
            lost++;
        }
    }
    if (lost > 0) {
        log_write(calls->log, LOG_WARNING, "agents",
                  "%d call%s had no answer when the job ended: counted as spent, asked again if "
                  "wanted",
                  lost, lost == 1 ? "" : "s");
    }
    return STATUS_OK;
}
