/* The way from the wish to stop to an end: workers save their state, everything goes to disk. */
#include <signal.h>

#include "base/clock.h"
#include "run/controller_state.h"
#include "run/stop.h"

enum status controller_check_stop(struct controller *c, struct error *err)
{
    if (c->stopping || (!stop_requested() && c->halt == NULL)) {
        return STATUS_OK;
    }
    c->stopping = true;
    c->stop_asked_s = clock_monotonic_s();
    if (c->halt != NULL) {
        log_write(c->options.log, LOG_INFO, "run",
                  "halting; candidates save their state at the next step");
    } else {
        log_write(c->options.log, LOG_INFO, "run",
                  "signal %d: stopping; candidates save their state at the next step",
                  stop_signal());
    }
    c->patience_s = stop_patience_s(c->options.deadline_s, clock_wall_s());
    return controller_send_all(c, MESSAGE_STOP, err); /* idle workers too: they see that we live */
}

/* Everything to disk, workers home. */
static enum status end_run(struct controller *c, enum status outcome, struct error *err)
{
    if (!c->finish_recorded) {
        TRY(controller_record_time(c, err));
    }
    TRY(journal_flush(c->journal, err));
    TRY(controller_apply_durable(c, err));
    TRY(snapshot_wait(c->snapshot, err));
    if (c->snapshot_sequence != c->search.last_sequence) {
        TRY(controller_snapshot(c, true, err));
        TRY(snapshot_wait(c->snapshot, err));
    }
    TRY(controller_send_all(c, MESSAGE_QUIT, err));
    log_write(c->options.log, LOG_DEBUG, "run",
              "controller: %lld messages and %lld events in %.1f s, of which its thread took %.2f",
              (long long)c->times.messages, (long long)c->next_sequence - 1,
              clock_monotonic_s() - c->started_s, clock_thread_s() - c->thread_begun_s);
    c->outcome = outcome;
    c->done = true;
    controller_report_end(c);
    return STATUS_OK;
}

/* Whether a worker's state may still reach the disk. What is not safe at the time limit is lost to
 * its last checkpoint, no further. After SIGTERM a worker that says nothing at all has died: that
 * is when launchers send it. */
static bool worth_waiting(const struct controller *c)
{
    double waited_s = clock_monotonic_s() - c->stop_asked_s;
    bool silence_tells = stop_signal() == SIGTERM && waited_s >= STOP_GRACE_S;
    for (int i = 0; i < c->options.leader_count; i++) {
        const struct controller_worker *worker = &c->workers[i];
        bool silent = worker->heard_s < c->stop_asked_s;
        if (worker->work != WORK_NONE && silent && silence_tells) {
            return false;
        }
    }
    return waited_s < c->patience_s;
}

enum status controller_check_end(struct controller *c, struct error *err)
{
    if (c->search.end == SEARCH_FINISHED && c->first_pending == NULL) {
        return end_run(c, STATUS_OK, err);
    }
    if (c->stopping) {
        if (controller_busy_workers(c) == 0 || !worth_waiting(c)) {
            return end_run(c, c->halt != NULL ? STATUS_OK : STATUS_INTERRUPTED, err);
        }
    }
    return STATUS_OK;
}
