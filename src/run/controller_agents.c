/* What the agents ask of the world, and what they bring: the job's transport, the turn of calls and
 * researcher, planning ahead. */
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "run/controller_state.h"

/* Calls under way at once; how many of them a language model answers at once is lm.h's. Dry runs
 * wait for a worker among them. */
enum { OPEN_CALLS_MAX = 256 };

/* ---- opening ---- */

static bool only_prefetched(const struct search_allocation *allocation)
{
    const char *end = search_text(allocation->end);
    return strcmp(end, CONTROLLER_PREFETCHED) == 0 ||
           strcmp(end, CONTROLLER_PREFETCHED_IN_PART) == 0;
}

static enum status open_replay(struct controller *c, struct call_transport *out, struct error *err)
{
    const char *folder = c->options.replay_folder;
    char note[1024] = "";
    struct stat theirs;
    struct stat ours;
    if (stat(folder, &theirs) == 0 && stat(c->options.job->output, &ours) == 0 &&
        theirs.st_dev == ours.st_dev && theirs.st_ino == ours.st_ino) {
        return FAIL(err, STATUS_INVALID,
                    "%s is the run folder of the search itself; give another one with --out",
                    folder);
    }
    enum status status = store_run_load(folder, &c->recorded, note, sizeof(note), err);
    if (status != STATUS_OK) {
        search_init(&c->recorded);
        error_context(err, "--replay %s", folder);
        return status;
    }
    TRY(call_replay_open(&c->recorded, folder, c->options.job->output, out, err));
    c->replay = *out;
    return STATUS_OK;
}

/* For all that leaves the job. Where a local model answers, that is sources alone: without a
 * network, those that need none. */
static enum status open_network(struct controller *c, bool local, struct call_transport *out,
                                struct error *err)
{
    const enum job_network network = c->options.job->researcher.network;
    const struct call_direct_options *options = &c->asking.options;
    if (network == JOB_NETWORK_OFF && !local) {
        return call_off_open(out, err);
    }
    return network == JOB_NETWORK_RELAY && !c->options.prefetch
               ? call_relay_open(c->options.job->output, options, c->asking.relay_s, out, err)
               : call_direct_open(options, out, err);
}

static enum status open_transport(struct controller *c, struct call_transport *out,
                                  struct error *err)
{
    const struct job_researcher *asked = &c->options.job->researcher;
    bool local = strcmp(asked->endpoints[0].provider, "local") == 0;
    TRY(asking_options(c->options.job, c->options.log, &c->asking, err));
    if (c->options.replay_folder != NULL) {
        return open_replay(c, out, err); /* its dry runs are recorded too */
    }
    TRY(open_network(c, local, out, err));
    if (local) {
        struct call_local_options options = {.model = asked->endpoints[0].model, .sources = *out};
        controller_local_calls(c, &options);
        TRY(call_local_open(&options, out, err));
    }
    enum status status = controller_front_transport(c, out, err);
    if (status != STATUS_OK) {
        out->close(out->state);
    }
    return status;
}

static double limit(const void *context, enum search_limit_id id)
{
    return controller_limit(context, id);
}

/* A folder that is no model is found before anything runs. */
static enum status open_speaker(struct controller *c, struct error *err)
{
    bool asks = c->options.replay_folder == NULL && c->search.end != SEARCH_FINISHED;
    return asks ? asking_inspect(c->options.job, &c->speaker, err) : STATUS_OK;
}

enum status controller_open_agents(struct controller *c, struct error *err)
{
    const struct job_researcher *asked = &c->options.job->researcher;
    TRY(open_speaker(c, err));
    struct researcher_options options = {
        .provider = asked->provider,
        .facts = &c->facts,
        .log = c->options.log,
        .run_folder = c->options.job->output,
        .repairs = asked->repairs,
        .prompt_tokens = asking_prompt_tokens(c->options.job, c->speaker),
        .reply_tokens = asked->reply_tokens,
        .temperature = asked->temperature,
        .literature = asked->literature,
        .data = asked->data,
        .code = asked->code,
    };
    if (asked->endpoint_count > 0) {
        struct calls_options calls = {
            .open_max = OPEN_CALLS_MAX,
            .patient = c->options.prefetch,
            .log = c->options.log,
            .limit = limit,
            .context = c,
        };
        TRY(open_transport(c, &calls.transport, err));
        TRY(calls_create(&calls, &c->calls, err));
    }
    options.calls = c->calls;
    return researcher_open(&options, &c->researcher, err);
}

enum status controller_recover_agents(struct controller *c, struct error *err)
{
    bool unspent = c->earlier > 0 && only_prefetched(&c->search.allocations[c->earlier - 1]);
    return c->calls != NULL ? calls_recover(c->calls, &c->search, unspent, err) : STATUS_OK;
}

void controller_close_agents(struct controller *c)
{
    researcher_close(c->researcher);
    controller_close_trials(c);
    calls_destroy(c->calls);
    controller_close_calls(c);
    model_destroy(c->speaker);
    controller_close_replay(c);
}

/* ---- the turn ---- */

/* Nothing can happen before an answer comes. */
static bool waits_for_answers(const struct controller *c)
{
    return c->busy_count == 0 && c->first_pending == NULL && c->ready_first == c->ready_count;
}

/* What agents find out can still serve a plan. That follows from the search alone, so that a replay
 * asks what the recorded search asked. */
static bool serves_a_plan(const struct controller *c)
{
    int64_t rounds = c->search.tree.count - 1;
    return c->options.prefetch || rounds < (int64_t)controller_limit(c, SEARCH_LIMIT_ROUNDS);
}

static bool wants_agents(const struct controller *c)
{
    return c->end_reason == NULL && !c->no_new_rounds && serves_a_plan(c);
}

/* The plan that was asked for last, of those that nobody tries yet, else of those that are tried.
 */
static enum status withdraw_newest(struct controller *c, struct error *err)
{
    static const char why[] = "no further round is wanted";
    int32_t newest = -1;
    for (int i = 0; i < c->requests.count; i++) {
        int32_t number = c->requests.list[i].number;
        newest = number > newest ? number : newest;
    }
    if (newest < 0) {
        return controller_drop_trial(c, why, err);
    }
    (void)requests_take(&c->requests, newest, NULL);
    researcher_forget(c->researcher, newest);
    return controller_drop_plan(c, newest, why, false, err);
}

/* Plans for which there is no round: the search ends, or somebody set a lower limit. What is being
 * recorded stays, and there is always a baseline. */
static enum status withdraw_plans(struct controller *c, struct error *err)
{
    int64_t wanted = 0;
    if (wants_agents(c)) {
        double limit = controller_limit(c, SEARCH_LIMIT_ROUNDS);
        wanted = (int64_t)limit - (c->search.tree.count - 1) - c->planning;
    } else {
        controller_drop_calls(c);
    }
    if (c->search.tree.count == 0 || !controller_knows_limits(c)) {
        return STATUS_OK;
    }
    for (int64_t left = c->requests.count + controller_count_trials(c); left > 0 && left > wanted;
         left--) {
        TRY(withdraw_newest(c, err));
    }
    return STATUS_OK;
}

static enum status take_events(struct controller *c, struct error *err)
{
    cJSON *event = NULL;
    while (researcher_take_event(c->researcher, &event)) {
        TRY(controller_emit(c, event, err));
    }
    while (c->calls != NULL && calls_take_event(c->calls, &event)) {
        TRY(controller_emit(c, event, err));
    }
    return STATUS_OK;
}

/* Nothing may come between its last words. */
static bool says_last_words(const struct controller *c)
{
    return c->finish_recorded && c->search.end != SEARCH_FINISHED;
}

enum status controller_replay_answers(struct controller *c, struct error *err)
{
    if (c->options.replay_folder == NULL || c->calls == NULL) {
        return STATUS_OK;
    }
    TRY(calls_turn(c->calls, &c->search, controller_outcomes(c), false, err));
    return take_events(c, err);
}

enum status controller_turn_researcher(struct controller *c, struct error *err)
{
    bool goes_on = c->search.end == SEARCH_RUNNING && !c->stopping && !says_last_words(c) &&
                   controller_knows_limits(c); /* what may be asked depends on them */
    if (!goes_on || !wants_agents(c) || c->search.last_sequence == 0) {
        return STATUS_OK;
    }
    TRY(researcher_turn(c->researcher, &c->search, err));
    return take_events(c, err);
}

enum status controller_turn_agents(struct controller *c, struct error *err)
{
    if (says_last_words(c)) {
        return STATUS_OK;
    }
    if (!c->stopping) {
        TRY(withdraw_plans(c, err));
    }
    if (c->calls != NULL) { /* what was paid for is recorded, also while it stops */
        bool idle = c->held == NULL && waits_for_answers(c);
        TRY(calls_turn(c->calls, &c->search, controller_outcomes(c), idle, err));
    }
    TRY(controller_turn_researcher(c, err));
    TRY(take_events(c, err));
    return c->held != NULL && waits_for_answers(c) ? controller_go_astray(c, err) : STATUS_OK;
}

enum status controller_end_agents(struct controller *c, struct error *err)
{
    if (c->calls != NULL) {
        TRY(calls_take_back(c->calls, err));
    }
    return take_events(c, err);
}

bool controller_is_prefetched(const struct controller *c)
{
    return c->options.prefetch && c->search.last_sequence > 0 && c->first_pending == NULL &&
           (calls_is_stuck(c->calls) ||
            (calls_open(c->calls) == 0 && researcher_is_prepared(c->researcher, &c->search)));
}

double controller_agents_patience_s(const struct controller *c)
{
    const double plan_patience = 3.0; /* times a rank's: it may think for longer */
    return c->calls != NULL ? 2.0 * c->asking.relay_s
                            : plan_patience * c->options.job->watchdog_seconds;
}

/* ---- planning ahead ---- */

int64_t controller_ahead(const struct controller *c)
{
    bool wanted = c->options.job->researcher.ahead || c->options.replay_folder != NULL;
    return wanted && c->calls != NULL ? c->search.ahead : 0;
}

/* A lone worker that answers the agents itself has nothing else to do meanwhile. */
static bool gains_by_planning_ahead(const struct controller *c)
{
    const struct job_researcher *asked = &c->options.job->researcher;
    bool local = strcmp(asked->endpoints[0].provider, "local") == 0;
    return asked->ahead && (!local || c->options.leader_count > 1);
}

/* Before the first candidate has finished, those under way show how long it will take; 0: not yet.
 */
static double foreseen_candidate_s(const struct controller *c)
{
    const double enough = 0.1; /* of a training: less says little */
    double sum_s = 0.0;
    int count = 0;
    for (int i = 0; i < c->options.leader_count; i++) {
        const struct controller_worker *worker = &c->workers[i];
        double share = worker->total > 0 ? (double)worker->done / (double)worker->total : 0.0;
        bool shows = worker->work == WORK_TRAIN && worker->node > 0 &&
                     worker->phase == MESSAGE_TRAIN && share >= enough;
        sum_s += shows ? (worker->heard_s - worker->ordered_s) / share : 0.0;
        count += shows;
    }
    return count > 0 ? sum_s / count : 0.0;
}

enum status controller_set_ahead(struct controller *c, struct error *err)
{
    const struct job *job = c->options.job;
    if (c->calls == NULL || c->setting_ahead || c->stopping || c->end_reason != NULL ||
        c->search.ahead_count >= SEARCH_AHEADS_MAX) {
        return STATUS_OK;
    }
    int64_t wanted = c->search.ahead;
    if (c->options.replay_folder != NULL) {
        int64_t recorded = call_replay_ahead(&c->replay, controller_outcomes(c));
        wanted = recorded >= 0 ? recorded : wanted;
    } else {
        struct ahead known = c->ahead;
        if (known.candidates == 0) {
            known.candidate_s = foreseen_candidate_s(c);
        }
        wanted = gains_by_planning_ahead(c)
                     ? ahead_wanted(&known, c->options.leader_count, job->configurations, wanted)
                     : 0;
    }
    if (wanted == c->search.ahead) {
        return STATUS_OK;
    }
    cJSON *event = controller_event("ahead_set", -1, -1);
    cJSON_AddNumberToObject(event, "candidates", (double)wanted);
    c->setting_ahead = true;
    return controller_emit(c, event, err);
}

void controller_learn_ahead(struct controller *c, int32_t node, const struct candidate *candidate)
{
    if (node > 0 && candidate->state == CANDIDATE_FINISHED) { /* the baseline trains nothing */
        ahead_learn_candidate(&c->ahead, candidate->rank_seconds / c->options.ranks_per_candidate);
    }
}
