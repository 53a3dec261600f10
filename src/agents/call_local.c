/* Questions to a model that a rank of this job runs; sources as directly as call_direct.c asks
 * them. */
#include <math.h>
#include <stdlib.h>

#include "agents/call_parts.h"
#include "base/mem.h"

struct local {
    struct call_local_options options;
    struct call_transport sources;
};

static void local_close(void *state)
{
    struct local *local = state;
    if (local != NULL) {
        if (local->sources.close != NULL) {
            local->sources.close(local->sources.state);
        }
        free(local);
    }
}

static enum status local_start(void *state, const struct call *call, struct error *err)
{
    struct local *local = state;
    if (call->kind == CALL_CHAT) {
        return local->options.ask(local->options.context, call->id, call->body, err);
    }
    return local->sources.start(local->sources.state, call, err);
}

static enum status local_turn(void *state, int64_t outcomes, bool idle, struct error *err)
{
    struct local *local = state;
    return local->sources.turn(local->sources.state, outcomes, idle, err);
}

static bool local_take(void *state, struct call_answer *out)
{
    struct local *local = state;
    if (local->sources.take(local->sources.state, out)) {
        return true;
    }
    if (!local->options.take(local->options.context, out)) {
        return false;
    }
    call_answer_set(out->provider, sizeof(out->provider), "local");
    if (out->model[0] == '\0') {
        call_answer_set(out->model, sizeof(out->model), local->options.model);
    }
    out->cost_usd = 0.0;
    return true;
}

static void local_cancel(void *state, int32_t id)
{
    struct local *local = state;
    local->sources.cancel(local->sources.state, id);
    local->options.cancel(local->options.context, id);
}

/* Its tokens count against the cap, which bounds the time that ranks spend on them. */
static enum status local_bound(const void *state, const struct call *call, int64_t *tokens,
                               double *usd, struct error *err)
{
    (void)state;
    (void)err;
    *tokens = 0;
    *usd = 0.0;
    if (call->kind == CALL_CHAT) {
        struct lm_question question;
        call_body_question(call->body, &question);
        *tokens = lm_question_tokens(&question) + question.max_tokens;
    }
    return STATUS_OK;
}

enum status call_local_open(const struct call_local_options *options, struct call_transport *out,
                            struct error *err)
{
    struct local *local = mem_calloc(1, sizeof(*local));
    if (local == NULL) {
        return mem_fail(err, sizeof(*local), "a transport");
    }
    local->options = *options;
    local->options.direct.lm.endpoint_count = 0;
    enum status status = call_direct_open(&local->options.direct, &local->sources, err);
    if (status != STATUS_OK) {
        local_close(local);
        return status;
    }
    *out = (struct call_transport){
        .name = "local",
        .state = local,
        .resumes = true,
        .start = local_start,
        .turn = local_turn,
        .take = local_take,
        .cancel = local_cancel,
        .bound = local_bound,
        .close = local_close,
    };
    return STATUS_OK;
}
