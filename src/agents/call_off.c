/* No network: each call fails at once. */
#include <stdlib.h>

#include "agents/call_parts.h"
#include "base/mem.h"

static enum status off_start(void *state, const struct call *call, struct error *err)
{
    (void)state;
    (void)call;
    return FAIL(err, STATUS_UNSUPPORTED, "the job has no network (researcher.network is \"off\")");
}

static enum status off_turn(void *state, int64_t outcomes, bool idle, struct error *err)
{
    (void)state;
    (void)outcomes;
    (void)idle;
    (void)err;
    return STATUS_OK;
}

static bool off_take(void *state, struct call_answer *out)
{
    (void)state;
    (void)out;
    return false;
}

static void off_cancel(void *state, int32_t id)
{
    (void)state;
    (void)id;
}

static enum status off_bound(const void *state, const struct call *call, int64_t *tokens,
                             double *usd, struct error *err)
{
    (void)state;
    (void)call;
    (void)err;
    *tokens = 0;
    *usd = 0.0;
    return STATUS_OK;
}

static void off_close(void *state)
{
    (void)state;
}

enum status call_off_open(struct call_transport *out, struct error *err)
{
    (void)err;
    *out = (struct call_transport){
        .name = "off",
        .start = off_start,
        .turn = off_turn,
        .take = off_take,
        .cancel = off_cancel,
        .bound = off_bound,
        .close = off_close,
    };
    return STATUS_OK;
}
