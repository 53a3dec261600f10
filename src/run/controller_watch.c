/* Who is to blame: ranks that died, hang or lose their device, and answers that never come. */
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/mem.h"
#include "run/controller_state.h"
#include "run/stop.h"

static const double watch_interval_s = 1.0;
static const double gaps_allowed = 5.0; /* a worker may be silent for so many times its longest */
static const double jump_s = 60.0;      /* of the wall clock against the monotonic one */

/* ---- incidents ---- */

enum status controller_incident(struct controller *c, const char *kind, struct error *err,
                                const char *format, ...)
{
    char message[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    log_write(c->options.log, LOG_WARNING, "run", "%s: %s", kind, message);
    cJSON *event = controller_event("incident", -1, -1);
    cJSON_AddStringToObject(event, "kind", kind);
    controller_add_text(event, "message", message);
    return controller_emit(c, event, err);
}

double controller_saved_before_s(const struct controller *c, int32_t node, int32_t candidate,
                                 double wall_s)
{
    char path[FILE_PATH_BYTES];
    struct error ignored;
    struct stat info;
    if (store_inflight_path(c->options.job->output, node, candidate, path, &ignored) != STATUS_OK ||
        stat(path, &info) != 0) {
        return NAN;
    }
    double written_s = (double)info.st_mtim.tv_sec + 1e-9 * (double)info.st_mtim.tv_nsec;
    return fmax(0.0, wall_s - written_s);
}

/* Rank-seconds of this worker's order that are not in its state file. */
static double lost_seconds(const struct controller *c, const struct controller_worker *worker)
{
    double whole_s = clock_monotonic_s() - worker->ordered_s;
    double since_s = controller_saved_before_s(c, worker->node, worker->candidate, clock_wall_s());
    return fmin(whole_s, isfinite(since_s) ? since_s : whole_s) * c->options.ranks_per_candidate;
}

/* The incident of a worker that is of no use any more; its candidate has to answer for it only
 * where it was alone in that. */
static enum status blame(struct controller *c, int index, const char *kind, const char *message,
                         bool guilty, struct error *err)
{
    struct controller_worker *worker = &c->workers[index];
    bool works = worker->work == WORK_TRAIN || worker->work == WORK_TEST;
    worker->lost = true;
    worker->guilty = guilty;
    char name[SEARCH_CALL_KEY_BYTES] = "nothing";
    char text[1200];
    if (works) {
        search_candidate_name(worker->node, worker->candidate, name);
    } else if (controller_works_on_call(worker)) { /* nobody is blamed but what was asked */
        snprintf(name, sizeof(name), "%s", search_text(c->search.calls[worker->node].key));
    }
    snprintf(text, sizeof(text), "rank %d%s%s%s had %s: %s", worker->rank,
             worker->host[0] != '\0' ? " (" : "", worker->host, worker->host[0] != '\0' ? ")" : "",
             name, message);
    log_write(c->options.log, LOG_ERROR, "run", "%s: %s", kind, text);
    cJSON *event =
        controller_event("incident", works ? worker->node : -1, works ? worker->candidate : -1);
    cJSON_AddStringToObject(event, "kind", kind);
    controller_add_text(event, "message", text);
    if (works) {
        cJSON_AddNumberToObject(event, "lost_s", lost_seconds(c, worker));
        cJSON_AddBoolToObject(event, "blames", guilty);
    }
    return controller_emit(c, event, err);
}

/* ---- ranks ---- */

enum status controller_lose_device(struct controller *c, int index, const struct error *failure,
                                   struct error *err)
{
    const char *reason = "failed: a device was lost";
    TRY(blame(c, index, "device lost", failure->message, true, err));
    controller_end_work(c, index); /* its candidate counts as running when its job died */
    if (c->stopping) {
        snprintf(c->stop_reason, sizeof(c->stop_reason), "%s", reason);
        c->failure = *failure;
    }
    /* Where it was one of a group, its rank ends the job in a moment. */
    TRY(journal_flush(c->journal, err));
    return controller_begin_stop(c, failure, err, "%s", reason);
}

/* Marks those that have been silent for too long as lost, with an incident each. Its candidate has
 * to answer for one alone, where `blames`; if there are several it is a node, the network or the
 * file system. */
static enum status lose_silent(struct controller *c, const char *kind, bool blames,
                               bool (*silent)(const struct controller *c,
                                              const struct controller_worker *worker),
                               int *count, struct error *err)
{
    *count = 0;
    for (int i = 0; i < c->options.leader_count; i++) {
        *count += !c->workers[i].lost && silent(c, &c->workers[i]) ? 1 : 0;
    }
    for (int i = 0; i < c->options.leader_count; i++) {
        struct controller_worker *worker = &c->workers[i];
        if (worker->lost || !silent(c, worker)) {
            continue;
        }
        char message[256];
        snprintf(message, sizeof(message), "it has said nothing for %.0f s (%s %lld of %lld)%s",
                 clock_monotonic_s() - worker->heard_s, message_phases[worker->phase],
                 (long long)worker->done, (long long)worker->total,
                 *count > 1 ? ", and others neither" : "");
        TRY(blame(c, i, kind, message, blames && *count == 1, err));
    }
    return STATUS_OK;
}

static bool says_nothing_since_term(const struct controller *c,
                                    const struct controller_worker *worker)
{
    return worker->work != WORK_NONE && worker->heard_s < c->term_s;
}

/* Whether who says nothing can be told by now: it is alone in that, and would have spoken if it
 * lived; or all have had their time. */
static bool can_tell_dead(const struct controller *c)
{
    double waited_s = clock_monotonic_s() - c->term_s;
    int silent = 0;
    bool overdue = false;
    for (int i = 0; i < c->options.leader_count; i++) {
        const struct controller_worker *worker = &c->workers[i];
        if (!worker->lost && says_nothing_since_term(c, worker)) {
            silent++;
            overdue = waited_s > limit_answer_s(&worker->times, worker->quiet_s, worker->step_s);
        }
    }
    return silent > 0 && (waited_s >= STOP_GRACE_S || (silent == 1 && overdue));
}

enum status controller_find_dead_rank(struct controller *c, struct error *err)
{
    int count = 0;
    if (stop_signal() != SIGTERM || deadline_passed(c->options.deadline) || c->options.ranks == 1) {
        return STATUS_OK; /* nobody need have died: a wish, or the time limit; or there is nobody */
    }
    if (c->term_s == 0.0) { /* the dead one's last words have been read in this turn */
        c->term_s = clock_monotonic_s();
    }
    if (!can_tell_dead(c)) {
        return STATUS_OK;
    }
    TRY(lose_silent(c, "rank lost", true, says_nothing_since_term, &count, err));
    snprintf(c->stop_reason, sizeof(c->stop_reason), "failed: %d rank%s died", count,
             count > 1 ? "s" : "");
    FAIL(&c->failure, STATUS_MPI, "%d rank%s died", count, count > 1 ? "s" : "");
    return journal_flush(c->journal, err);
}

static bool hangs(const struct controller *c, const struct controller_worker *worker)
{
    double longest_s = fmax(worker->quiet_s, worker->times.gap_s);
    double allowed_s = fmax(c->options.job->watchdog_seconds, gaps_allowed * longest_s);
    bool expected = worker->work != WORK_NONE || !worker->present;
    return expected && clock_monotonic_s() - worker->heard_s > allowed_s;
}

static enum status find_hung_ranks(struct controller *c, struct error *err)
{
    int count = 0;
    if (c->stopping && stop_signal() == SIGTERM) {
        return STATUS_OK; /* who says nothing then: controller_find_dead_rank */
    }
    /* While it stops, one may be held up by others that have gone. */
    TRY(lose_silent(c, "rank hung", !c->stopping, hangs, &count, err));
    if (count == 0) {
        return STATUS_OK;
    }
    struct error failure = {0};
    FAIL(&failure, STATUS_TIMEOUT,
         "%d rank%s said nothing for too long (compute.watchdog_seconds: %.0f)", count,
         count > 1 ? "s" : "", c->options.job->watchdog_seconds);
    return controller_begin_stop(c, &failure, err, "failed: %d rank%s hung", count,
                                 count > 1 ? "s" : "");
}

/* ---- agents ---- */

static enum status give_up_plans(struct controller *c, double now_s, struct error *err)
{
    struct request late;
    double patience_s = controller_agents_patience_s(c);
    while (patience_s > 0.0 && requests_give_up(&c->requests, now_s, patience_s, &late)) {
        char message[160];
        snprintf(message, sizeof(message), "the researcher has not answered for %.0f s",
                 patience_s);
        if (late.parent < 0) {
            return FAIL(err, STATUS_TIMEOUT, "the first plan never came: %s", message);
        }
        researcher_forget(c->researcher, late.number);
        TRY(controller_drop_plan(c, late.number, message, true, err));
        TRY(controller_incident(c, "no answer", err, "no plan below n%04d: %s", (int)late.parent,
                                message));
    }
    return STATUS_OK;
}

/* ---- the clock ---- */

static enum status check_clock(struct controller *c, double now_s, struct error *err)
{
    double offset_s = clock_wall_s() - now_s;
    double drift_s = offset_s - c->wall_offset_s;
    if (c->wall_offset_s != 0.0 && fabs(drift_s) > jump_s) {
        TRY(controller_incident(
            c, "clock", err, "the wall clock was set %s by %.0f s; deadlines do not depend on it",
            drift_s > 0.0 ? "forward" : "back", fabs(drift_s)));
    }
    bool slews = c->wall_offset_s == 0.0 || fabs(drift_s) > jump_s;
    c->wall_offset_s = slews ? offset_s : c->wall_offset_s;
    return STATUS_OK;
}

/* ---- the watch ---- */

static enum status watch_agents(struct controller *c, double now_s, struct error *err)
{
    TRY(give_up_plans(c, now_s, err));
    /* Workers must not run dry once before anything is known. */
    return c->ahead.candidates == 0 ? controller_set_ahead(c, err) : STATUS_OK;
}

enum status controller_watch(struct controller *c, struct error *err)
{
    double now_s = clock_monotonic_s();
    double pause_s = now_s - c->watched_s;
    if (c->watched_s > 0.0 && pause_s < watch_interval_s) {
        return STATUS_OK;
    }
    double floor_s = c->options.job->watchdog_seconds;
    bool slept = c->watched_s > 0.0 && floor_s > 0.0 && pause_s > 0.5 * floor_s;
    c->watched_s = now_s;
    TRY(check_clock(c, now_s, err));
    if (c->finish_recorded) {
        return STATUS_OK;
    }
    if (slept || c->rank_calls != NULL) { /* workers are watched themselves */
        requests_hear(&c->requests, now_s);
    }
    if (!c->stopping) {
        TRY(watch_agents(c, now_s, err));
    }
    if (slept) { /* it was this process that stood still: the others begin anew */
        for (int i = 0; i < c->options.leader_count; i++) {
            c->workers[i].heard_s = now_s;
        }
    }
    return floor_s > 0.0 ? find_hung_ranks(c, err) : STATUS_OK;
}
