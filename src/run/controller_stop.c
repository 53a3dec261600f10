/* The way from the wish to stop to an end: each worker stops after a step that is chosen here and
 * saves its state, everything goes to disk, and it is told how long that took. */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "run/controller_state.h"
#include "run/stop.h"

/* ---- how long it will take ---- */

static struct limit_worker timing(const struct controller_worker *worker, double now_s)
{
    struct limit_worker timing = worker->times;
    timing.since_s = now_s - worker->heard_s;
    timing.trains = worker->phase == MESSAGE_TRAIN;
    timing.saves = worker->phase == MESSAGE_SAVE;
    timing.done = worker->done;
    timing.total = worker->total;
    return timing;
}

static bool waits_for(const struct controller_worker *worker)
{
    return worker->work != WORK_NONE && !worker->lost;
}

/* What the last stop of this search took, where that is known. */
static double last_stop_s(const struct search *search)
{
    for (int32_t i = search->allocation_count - 1; i >= 0; i--) {
        if (isfinite(search->allocations[i].safe_s)) {
            return search->allocations[i].safe_s;
        }
    }
    return 0.0;
}

double controller_drain_s(const struct controller *c)
{
    double now_s = clock_monotonic_s();
    double longest_s = 0.0;
    int64_t parameters = c->facts.model_parameters;
    for (int i = 0; i < c->options.leader_count; i++) {
        const struct controller_worker *worker = &c->workers[i];
        if (!waits_for(worker)) {
            continue;
        }
        struct limit_worker told = timing(worker, now_s);
        double save_s = worker->trainable ? limit_usual_save_s(parameters, worker->method) : 0.0;
        longest_s =
            fmax(longest_s, limit_worker_drain_s(&told, limit_usual_gap_s(parameters), save_s));
    }
    return limit_drain_s(longest_s, c->journal_s, last_stop_s(&c->search));
}

double controller_left_s(const struct controller *c)
{
    double limit_s = deadline_left_s(c->options.deadline);
    return fmin(limit_s, deadline_left_s(c->halt_by));
}

/* ---- the wish ---- */

static enum status send_stops(struct controller *c, struct error *err)
{
    double now_s = clock_monotonic_s();
    for (int i = 0; i < c->options.leader_count; i++) {
        const struct controller_worker *worker = &c->workers[i];
        struct limit_worker told = timing(worker, now_s);
        int64_t step = worker->work != WORK_NONE ? limit_stop_step(&told) : 0;
        /* Idle workers too: they see that we live. */
        struct message message = {.header = {.kind = MESSAGE_STOP, .done = step}};
        TRY(mailbox_send(c->options.mailbox, worker->rank, MESSAGE_TO_WORKER, &message, err));
    }
    return STATUS_OK;
}

/* Says how long it will take, and whether there is time enough. */
static void tell_margin(const struct controller *c)
{
    double left_s = deadline_left_s(c->options.deadline);
    char left[64] = "no time limit is known";
    if (isfinite(left_s)) {
        snprintf(left, sizeof(left), "%.0f s are left", fmax(0.0, left_s));
    }
    log_write(c->options.log, LOG_INFO, "run",
              "%s: stopping: at most %.0f s until everything is safe, %s", c->stop_reason,
              ceil(c->predicted_s), left);
    if (left_s < c->predicted_s && c->busy_count > 0) {
        log_write(c->options.log, LOG_WARNING, "run",
                  "that is too little: what is not safe in time goes on from its last checkpoint. "
                  "Let the signal come %.0f s before the limit or earlier (--signal)",
                  ceil(c->predicted_s));
    }
}

enum status controller_begin_stop(struct controller *c, const struct error *failure,
                                  struct error *err, const char *format, ...)
{
    if (c->stopping) {
        return STATUS_OK;
    }
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(c->stop_reason, sizeof(c->stop_reason), format, arguments);
    va_end(arguments);
    if (failure != NULL) {
        c->failure = *failure;
    }
    c->stopping = true;
    c->stop_asked_s = clock_monotonic_s();
    c->predicted_s = controller_drain_s(c);
    c->patience_s = stop_patience_s(deadline_left_s(c->options.deadline), c->predicted_s);
    tell_margin(c);
    TRY(controller_release(c, err)); /* what has come is kept, in whatever order */
    return send_stops(c, err);
}

enum status controller_check_stop(struct controller *c, struct error *err)
{
    if (c->stopping || c->finish_recorded) {
        return STATUS_OK;
    }
    if (c->halt != NULL) {
        return controller_begin_stop(c, NULL, err, "halted: %s", c->halt);
    }
    if (stop_requested()) {
        return controller_begin_stop(c, NULL, err, "stopped: signal %d", stop_signal());
    }
    return STATUS_OK;
}

/* ---- the end ---- */

/* Workers that are not waited for any longer: that they are cut is no fault of their candidates,
 * which go back in line. Only now, when no late answer of theirs is read any more. */
static enum status leave_candidates(struct controller *c, struct error *err)
{
    for (int i = 0; i < c->options.leader_count; i++) {
        const struct controller_worker *worker = &c->workers[i];
        if (worker->work != WORK_TRAIN || worker->guilty) {
            continue;
        }
        const struct candidate *candidate =
            &c->search.nodes[worker->node].candidates[worker->candidate];
        cJSON *event = controller_event("candidate_suspended", worker->node, worker->candidate);
        cJSON_AddNumberToObject(event, "steps_done", (double)candidate->steps_done);
        cJSON_AddNumberToObject(event, "rank_seconds",
                                (clock_monotonic_s() - worker->ordered_s) *
                                    c->options.ranks_per_candidate);
        TRY(controller_emit(c, event, err));
    }
    return STATUS_OK;
}

/* All is safe once the journal holds it; run.h5 only follows. */
static enum status record_end(struct controller *c, struct error *err)
{
    bool left_behind = c->busy_count > 0;
    TRY(leave_candidates(c, err));
    TRY(journal_flush(c->journal, err));
    double safe_s = clock_monotonic_s() - c->stop_asked_s;
    if (!left_behind) {
        log_write(c->options.log, LOG_INFO, "run",
                  "everything is safe after %.1f s (at most %.0f s were foreseen)", safe_s,
                  ceil(c->predicted_s));
    }
    return controller_record_end(c, c->stop_reason, c->predicted_s, left_behind ? NAN : safe_s,
                                 err);
}

/* Everything to disk, workers home. */
static enum status end_run(struct controller *c, enum status outcome, struct error *err)
{
    bool prefetched = c->options.prefetch && !c->stopping;
    if (!c->finish_recorded) {
        const char *how =
            c->failure.code == STATUS_OK ? CONTROLLER_PREFETCHED : CONTROLLER_PREFETCHED_IN_PART;
        TRY(prefetched ? controller_record_end(c, how, NAN, NAN, err) : record_end(c, err));
    }
    TRY(journal_flush(c->journal, err));
    TRY(controller_apply_durable(c, err));
    TRY(controller_last_snapshot(c, err));
    TRY(controller_send_all(c, MESSAGE_QUIT, err));
    log_write(c->options.log, LOG_DEBUG, "run",
              "controller: %lld messages and %lld events in %.1f s, of which its thread took %.2f",
              (long long)c->times.messages, (long long)c->next_sequence - 1,
              clock_monotonic_s() - c->started_s, clock_thread_s() - c->thread_begun_s);
    c->outcome = outcome;
    c->done = true;
    if (c->failure.code != STATUS_OK) {
        *err = c->failure;
        return c->failure.code;
    }
    controller_report_end(c);
    return STATUS_OK;
}

/* Whether a worker's state may still reach the disk. What is not safe at the time limit is lost to
 * its last checkpoint, no further. */
static bool worth_waiting(const struct controller *c)
{
    if (clock_monotonic_s() - c->stop_asked_s >= c->patience_s) {
        return false;
    }
    for (int i = 0; i < c->options.leader_count; i++) {
        if (waits_for(&c->workers[i])) {
            return true;
        }
    }
    return false;
}

/* Nothing runs, and there is no time for anything that waits: the next allocation goes on. */
static bool out_of_time(const struct controller *c)
{
    bool waits = c->ready_first < c->ready_count || c->end_reason != NULL;
    return c->refused && waits && c->first_pending == NULL && c->busy_count == 0 &&
           !c->finish_recorded;
}

enum status controller_check_end(struct controller *c, struct error *err)
{
    if (c->search.end == SEARCH_FINISHED && c->first_pending == NULL) {
        return end_run(c, STATUS_OK, err);
    }
    if (!c->stopping && controller_is_prefetched(c)) {
        (void)controller_judge_prefetch(c, &c->failure);
        return end_run(c, STATUS_OK, err);
    }
    if (!c->stopping && out_of_time(c)) {
        TRY(controller_halt_early(c, err));
        TRY(controller_check_stop(c, err));
        TRY(controller_begin_stop(c, NULL, err,
                                  "stopped: nothing that waits could finish or be saved in the "
                                  "%.0f s that are left",
                                  controller_left_s(c)));
    }
    if (!c->stopping) {
        return STATUS_OK;
    }
    TRY(controller_find_dead_rank(c, err));
    if (!worth_waiting(c)) {
        return end_run(c, c->halt != NULL ? STATUS_OK : STATUS_INTERRUPTED, err);
    }
    return STATUS_OK;
}
