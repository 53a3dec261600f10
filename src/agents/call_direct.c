/* Language models and sources over HTTP, from this very process: models on the caller's thread,
 * which waits for nothing, sources on one of their own (call_sources.c). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "agents/call_parts.h"
#include "base/clock.h"
#include "base/mem.h"

struct direct_call { /* to a model */
    int32_t id;
    int64_t asked; /* the id that lm gave it */
};

struct direct {
    struct call_direct_options options;
    struct http *http;
    struct lm *lm; /* NULL: no language model */
    struct call_sources *sources;
    struct direct_call *calls; /* under way */
    int count, capacity;
    struct call_queue answers; /* of models */
};

static void direct_close(void *state)
{
    struct direct *direct = state;
    if (direct == NULL) {
        return;
    }
    call_sources_close(direct->sources); /* first: its thread wakes http */
    lm_destroy(direct->lm);
    http_destroy(direct->http);
    call_queue_fini(&direct->answers);
    free(direct->calls);
    free(direct);
}

static enum status ask_model(struct direct *direct, const struct call *call, struct error *err)
{
    struct lm_question question;
    if (direct->lm == NULL) {
        return FAIL(err, STATUS_UNSUPPORTED, "the job names no language model");
    }
    if (direct->count == direct->capacity) {
        int capacity = direct->capacity > 0 ? 2 * direct->capacity : 8;
        struct direct_call *calls =
            mem_realloc(direct->calls, (size_t)capacity, sizeof(*direct->calls));
        if (calls == NULL) {
            return mem_fail(err, (size_t)capacity * sizeof(*calls), "calls under way");
        }
        direct->calls = calls;
        direct->capacity = capacity;
    }
    struct direct_call *added = &direct->calls[direct->count];
    *added = (struct direct_call){.id = call->id};
    call_body_question(call->body, &question);
    TRY(lm_ask(direct->lm, &question, &added->asked, err));
    direct->count++;
    return STATUS_OK;
}

static enum status direct_start(void *state, const struct call *call, struct error *err)
{
    struct direct *direct = state;
    switch (call->kind) {
    case CALL_CHAT:
        return ask_model(direct, call, err);
    case CALL_SOURCE:
        return call_sources_ask(direct->sources, call, err);
    default:
        return FAIL(err, STATUS_UNSUPPORTED, "a dry run is no question to a network");
    }
}

static bool take_model(struct direct *direct, const struct direct_call *call,
                       struct call_answer *out)
{
    struct lm_answer answer;
    if (!lm_take(direct->lm, call->asked, &answer)) {
        return false;
    }
    *out = (struct call_answer){
        .id = call->id,
        .status = answer.status,
        .text = answer.text,
        .cut = answer.cut,
        .tokens_in = answer.tokens_in,
        .tokens_out = answer.tokens_out,
        .cost_usd = answer.cost_usd,
        .seconds = answer.seconds,
        .attempts = answer.attempts,
        .error = answer.error,
    };
    answer.text = NULL;
    call_answer_set(out->provider, sizeof(out->provider), answer.provider);
    call_answer_set(out->model, sizeof(out->model), answer.model);
    call_answer_set(out->host, sizeof(out->host), answer.host);
    lm_answer_fini(&answer);
    return true;
}

static enum status direct_turn(void *state, int64_t outcomes, bool idle, struct error *err)
{
    (void)outcomes;
    (void)idle;
    struct direct *direct = state;
    if (direct->lm != NULL) {
        TRY(lm_turn(direct->lm, err));
    }
    int kept = 0;
    enum status status = STATUS_OK;
    for (int i = 0; i < direct->count; i++) {
        struct call_answer answer = {0};
        const struct direct_call call = direct->calls[i];
        if (status == STATUS_OK && take_model(direct, &call, &answer)) {
            status = call_queue_push(&direct->answers, &answer, err);
        } else {
            direct->calls[kept++] = call;
        }
    }
    direct->count = kept;
    return status == STATUS_OK ? call_sources_check(direct->sources, err) : status;
}

static bool direct_take(void *state, struct call_answer *out)
{
    struct direct *direct = state;
    return call_queue_take(&direct->answers, out) || call_sources_take(direct->sources, out);
}

static void direct_cancel(void *state, int32_t id)
{
    struct direct *direct = state;
    call_queue_drop(&direct->answers, id);
    call_sources_cancel(direct->sources, id);
    for (int i = 0; i < direct->count; i++) {
        if (direct->calls[i].id == id) {
            lm_cancel(direct->lm, direct->calls[i].asked);
            direct->count--;
            memmove(&direct->calls[i], &direct->calls[i + 1],
                    (size_t)(direct->count - i) * sizeof(direct->calls[0]));
            return;
        }
    }
}

void call_direct_bound(const struct call_direct_options *options, const struct call *call,
                       int64_t *tokens, double *usd)
{
    *tokens = 0;
    *usd = 0.0;
    if (call->kind == CALL_CHAT && options->lm.endpoint_count > 0) {
        struct lm_question question;
        call_body_question(call->body, &question);
        lm_bound(&options->lm, &question, tokens, usd);
    }
}

static enum status direct_bound(const void *state, const struct call *call, int64_t *tokens,
                                double *usd, struct error *err)
{
    const struct direct *direct = state;
    (void)err;
    call_direct_bound(&direct->options, call, tokens, usd);
    return STATUS_OK;
}

void call_direct_wait(const struct call_transport *transport, double timeout_s)
{
    struct direct *direct = transport->state;
    if (direct->answers.count == 0) {
        http_wait(direct->http, timeout_s);
    }
}

enum status call_direct_open(const struct call_direct_options *options, struct call_transport *out,
                             struct error *err)
{
    enum status status = STATUS_OK;
    struct direct *direct = mem_calloc(1, sizeof(*direct));
    if (direct == NULL) {
        return mem_fail(err, sizeof(*direct), "a transport");
    }
    direct->options = *options;
    TRY_CLEANUP(http_create(&direct->http, err));
    if (options->lm.endpoint_count > 0) {
        TRY_CLEANUP(lm_create(&options->lm, direct->http, &direct->lm, err));
    }
    TRY_CLEANUP(call_sources_open(&options->sources, direct->http, &direct->sources, err));
    *out = (struct call_transport){
        .name = "direct",
        .state = direct,
        .start = direct_start,
        .turn = direct_turn,
        .take = direct_take,
        .cancel = direct_cancel,
        .bound = direct_bound,
        .close = direct_close,
    };
cleanup:
    if (status != STATUS_OK) {
        direct_close(direct);
    }
    return status;
}
