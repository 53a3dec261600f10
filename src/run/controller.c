#include "run/controller.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "run/controller_state.h"
#include "run/facts.h"
#include "train/trainer.h"

enum status controller_create(const struct controller_options *options, struct controller **out,
                              struct error *err)
{
    enum status status = STATUS_OK;
    struct controller *c = mem_calloc(1, sizeof(*c));
    if (c == NULL) {
        return mem_fail(err, sizeof(*c), "the controller");
    }
    c->options = *options;
    search_init(&c->search);
    search_init(&c->recorded);
    c->thread_begun_s = clock_thread_s();
    c->started_s = c->recorded_time_s = c->snapshot_at_s = clock_monotonic_s();
    TRY_CLEANUP(controller_open_workers(c, err));
    c->limits.model = &options->model->config;
    c->limits.memory_bytes = /* 0: no limit, as workers that only sleep may share a small node */
        options->simulated
            ? 0
            : machine_worker_memory(options->job, &options->machine, options->node_workers);
    c->limits.training_bytes = trainer_bytes;
    c->limits.run_folder = options->job->output;
    c->limits.folders = (const char *const *)options->job->researcher.folders;
    c->limits.code = options->job->researcher.code;
    TRY_CLEANUP(controller_open(c, err));
    *out = c;
    c = NULL;
cleanup:
    controller_destroy(c);
    return status;
}

void controller_destroy(struct controller *c)
{
    if (c == NULL) {
        return;
    }
    snapshot_destroy(c->snapshot);
    journal_close(c->journal);
    controller_close_agents(c);
    while (c->first_pending != NULL) {
        struct pending_event *next = c->first_pending->next;
        free(c->first_pending);
        c->first_pending = next;
    }
    plan_set_fini(&c->tried);
    facts_fini(&c->facts);
    search_fini(&c->search);
    controller_close_workers(c);
    free(c->ready);
    free(c->kept);
    free(c->settled);
    requests_fini(&c->requests);
    free(c);
}

/* ---- the turn ---- */

const char *const controller_part_names[] = {"stop", "message", "dispatch", "apply",  "close",
                                             "plan", "agents",  "snapshot", "finish", NULL};

static enum status report(struct controller *c, struct error *err)
{
    (void)err;
    controller_report(c, false);
    return STATUS_OK;
}

/* In this order. What is ready is dispatched first, so that no worker waits for the disk. */
static const struct {
    enum controller_part part;
    enum status (*take)(struct controller *c, struct error *err);
} steps[] = {
    {CONTROLLER_STOP, controller_check_control},
    {CONTROLLER_STOP, controller_check_stop},
    {CONTROLLER_MESSAGE, controller_read_messages},
    {CONTROLLER_STOP, controller_watch},
    {CONTROLLER_DISPATCH, controller_dispatch},
    {CONTROLLER_APPLY, controller_apply_durable},
    {CONTROLLER_CLOSE, controller_close_rounds},
    {CONTROLLER_PLAN, controller_plan},
    {CONTROLLER_AGENTS, controller_turn_agents},
    {CONTROLLER_PLAN, controller_collect_plans},
    {CONTROLLER_PLAN, controller_check_trials},
    {CONTROLLER_DISPATCH, controller_dispatch},
    {CONTROLLER_FINISH, controller_finish},
    {CONTROLLER_SNAPSHOT, controller_snapshot},
    {CONTROLLER_FINISH, report},
    {CONTROLLER_STOP, controller_check_end},
};

enum status controller_turn(struct controller *c, bool *done, struct error *err)
{
    double since_s = c->options.measure ? clock_thread_s() : 0.0;
    *done = c->done;
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]) && !c->done; i++) {
        TRY(steps[i].take(c, err));
        if (c->options.measure) {
            double now_s = clock_thread_s();
            c->times.seconds[steps[i].part] += now_s - since_s;
            since_s = now_s;
        }
    }
    *done = c->done;
    return STATUS_OK;
}

void controller_get_times(const struct controller *controller, struct controller_times *out)
{
    *out = controller->times;
    out->events = controller->next_sequence - 1;
    out->snapshot_s = snapshot_seconds(controller->snapshot);
}

enum status controller_outcome(const struct controller *controller)
{
    return controller->outcome;
}

bool controller_leaves_workers(const struct controller *controller)
{
    return controller->done && controller->busy_count > 0;
}

const struct search *controller_search(const struct controller *controller)
{
    return &controller->search;
}
