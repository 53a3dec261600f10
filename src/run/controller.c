#include "run/controller.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "run/controller_state.h"
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
    c->started_s = c->recorded_time_s = c->snapshot_at_s = clock_monotonic_s();
    c->workers = mem_calloc((size_t)options->leader_count, sizeof(*c->workers));
    if (c->workers == NULL) {
        status = mem_fail(err, sizeof(*c->workers), "workers");
        goto cleanup;
    }
    for (int i = 0; i < options->leader_count; i++) {
        c->workers[i].rank = options->leaders[i];
    }
    c->limits.model = &options->model->config;
    c->limits.memory_bytes = /* 0: no limit, as workers that only sleep may share a small node */
        options->simulated
            ? 0
            : machine_worker_memory(options->job, &options->machine, options->node_workers);
    c->limits.training_bytes = trainer_bytes;
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
    researcher_close(c->researcher);
    while (c->first_pending != NULL) {
        struct pending_event *next = c->first_pending->next;
        cJSON_Delete(c->first_pending->event);
        free(c->first_pending);
        c->first_pending = next;
    }
    search_fini(&c->search);
    free(c->workers);
    free(c->ready);
    free(c->kept);
    free(c->open_nodes);
    free(c);
}

enum status controller_turn(struct controller *c, bool *done, struct error *err)
{
    *done = c->done;
    if (c->done) {
        return STATUS_OK;
    }
    TRY(controller_check_control(c, err));
    TRY(controller_check_stop(c, err));
    TRY(controller_read_messages(c, err));
    TRY(controller_dispatch(c, err)); /* first what is ready: no worker waits for the disk */
    TRY(controller_apply_durable(c, err));
    TRY(controller_close_rounds(c, err));
    TRY(controller_plan(c, err));
    TRY(controller_collect_plans(c, err));
    TRY(controller_dispatch(c, err));
    TRY(controller_finish(c, err));
    TRY(controller_snapshot(c, false, err));
    controller_report(c, false);
    TRY(controller_check_end(c, err));
    *done = c->done;
    return STATUS_OK;
}

enum status controller_outcome(const struct controller *controller)
{
    return controller->outcome;
}

bool controller_waits(const struct controller *controller)
{
    return controller_busy_workers(controller) > 0;
}

const struct search *controller_search(const struct controller *controller)
{
    return &controller->search;
}

double controller_micros_per_message(const struct controller *controller)
{
    return controller->messages > 0 ? 1e6 * controller->busy_s / (double)controller->messages : 0.0;
}
