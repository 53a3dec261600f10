/* Questions to a model that a rank of this job runs; sources by another transport, as the job's
 * network has it. */
#include <stdlib.h>

#include "agents/call_parts.h"
#include "base/mem.h"

struct local {
    struct call_local_options options;
};

static void local_close(void *state)
{
    struct local *local = state;
    local->options.sources.close(local->options.sources.state);
    free(local);
}

static enum status local_start(void *state, const struct call *call, struct error *err)
{
    struct local *local = state;
    if (call->kind == CALL_CHAT) {
        return local->options.ask(local->options.context, call->id, call->body, err);
    }
    return local->options.sources.start(local->options.sources.state, call, err);
}

static enum status local_turn(void *state, int64_t outcomes, bool idle, struct error *err)
{
    struct local *local = state;
    return local->options.sources.turn(local->options.sources.state, outcomes, idle, err);
}

static bool local_take(void *state, struct call_answer *out)
{
    struct local *local = state;
    if (local->options.sources.take(local->options.sources.state, out)) {
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
    local->options.sources.cancel(local->options.sources.state, id);
    local->options.cancel(local->options.context, id);
}

static void local_done(void *state, int32_t id)
{
    struct local *local = state;
    if (local->options.sources.done != NULL) {
        local->options.sources.done(local->options.sources.state, id);
    }
}

/* Its tokens count against the cap, which bounds the time that ranks spend on them. */
static enum status local_bound(const void *state, const struct call *call, int64_t *tokens,
                               double *usd, struct error *err)
{
    const struct local *local = state;
    const struct call_transport *sources = &local->options.sources;
    *usd = 0.0;
    return call->kind == CALL_CHAT
               ? local->options.bound(local->options.context, call->body, tokens, err)
               : sources->bound(sources->state, call, tokens, usd, err);
}

enum status call_local_open(const struct call_local_options *options, struct call_transport *out,
                            struct error *err)
{
    struct local *local = mem_calloc(1, sizeof(*local));
    if (local == NULL) {
        options->sources.close(options->sources.state);
        return mem_fail(err, sizeof(*local), "a transport");
    }
    local->options = *options;
    *out = (struct call_transport){
        .name = "local",
        .state = local,
        .resumes = true,
        .start = local_start,
        .turn = local_turn,
        .take = local_take,
        .cancel = local_cancel,
        .done = local_done,
        .bound = local_bound,
        .close = local_close,
    };
    return STATUS_OK;
}
