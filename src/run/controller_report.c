#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "run/controller_state.h"

static const double report_interval_s = 10.0;

static void format_score(const struct search_score *score, char *out, size_t out_bytes)
{
    if (score->present) {
        snprintf(out, out_bytes, "%.4f ± %.4f", score->value, score->standard_error);
    } else {
        snprintf(out, out_bytes, "-");
    }
}

void controller_report_candidate(struct controller *c, int32_t node, int32_t index)
{
    const struct candidate *candidate = &c->search.nodes[node].candidates[index];
    char name[SEARCH_NAME_BYTES];
    char score[64];
    search_candidate_name(node, index, name);
    if (candidate->state == CANDIDATE_FAILED) {
        log_write(c->options.log, LOG_WARNING, "run", "%s  failed: %s (%s)", name,
                  candidate->error->message, status_advice(candidate->error->code));
        return;
    }
    format_score(&candidate->validation, score, sizeof(score));
    log_write(c->options.log, LOG_INFO, "run", "%s  %s %s  (%lld steps, %.0f s)", name,
              c->search.identity.metric, score, (long long)candidate->steps_done,
              candidate->rank_seconds);
}

static void format_budget(const struct controller *c, char *out, size_t out_bytes)
{
    double core_hours = controller_limit(c, SEARCH_LIMIT_CORE_HOURS);
    double gpu_hours = controller_limit(c, SEARCH_LIMIT_GPU_HOURS);
    double spent = c->search.core_seconds / 3600.0;
    if (core_hours > 0.0) {
        snprintf(out, out_bytes, ", %.2f of %.2f core-hours", spent, core_hours);
    } else if (gpu_hours > 0.0) {
        snprintf(out, out_bytes, ", %.2f of %.2f GPU-hours", c->search.gpu_seconds / 3600.0,
                 gpu_hours);
    } else {
        snprintf(out, out_bytes, ", %.2f core-hours", spent);
    }
}

/* Time that the remaining rounds will take, judged by those that are done; "" before the first. */
static void format_time_left(const struct controller *c, double elapsed_s, char *out,
                             size_t out_bytes)
{
    int64_t done = c->search.tree.count - c->open_count - 1;
    int64_t left = (int64_t)controller_limit(c, SEARCH_LIMIT_ROUNDS) - done;
    double spent_s = c->search.earlier_seconds + elapsed_s;
    if (done < 1 || left < 0) {
        out[0] = '\0';
        return;
    }
    double estimate_s = spent_s / (double)done * (double)left;
    snprintf(out, out_bytes, ", about %.0f min left", estimate_s / 60.0);
}

enum { RUNNING_SHOWN_MAX = 4, RUNNING_LOOKED_AT_MAX = 64 };

/* " | n0003-c1 train 40%, n0003-c2 evaluate 10%": a few candidates under way. */
static void format_running(const struct controller *c, char *out, size_t out_bytes)
{
    size_t used = 0;
    int shown = 0;
    out[0] = '\0';
    int some = c->options.leader_count < RUNNING_LOOKED_AT_MAX ? c->options.leader_count
                                                               : RUNNING_LOOKED_AT_MAX;
    for (int i = 0; i < some && shown < RUNNING_SHOWN_MAX; i++) {
        const struct controller_worker *worker = &c->workers[i];
        bool trains = worker->work == WORK_TRAIN || worker->work == WORK_TEST;
        if (!trains || worker->total <= 0 || used >= out_bytes) {
            continue;
        }
        char name[SEARCH_NAME_BYTES];
        search_candidate_name(worker->node, worker->candidate, name);
        used += (size_t)snprintf(out + used, out_bytes - used, "%s%s %s %.0f%%",
                                 shown > 0 ? ", " : " | ", name, message_phases[worker->phase],
                                 100.0 * (double)worker->done / (double)worker->total);
        shown++;
    }
}

void controller_report(struct controller *c, bool now)
{
    double time_s = clock_monotonic_s();
    bool baseline_open =
        c->search.tree.count == 0 || c->search.tree.nodes[0].state == TREE_NODE_OPEN;
    if ((!now && time_s - c->reported_at_s < report_interval_s) || baseline_open) {
        return;
    }
    c->reported_at_s = time_s;
    char best[64] = "-";
    char baseline[64];
    char name[SEARCH_NAME_BYTES] = "";
    char budget[96];
    char left[64];
    char running[256];
    int32_t node = -1;
    int32_t candidate = -1;
    if (search_best(&c->search, &node, &candidate)) {
        format_score(&c->search.nodes[node].candidates[candidate].validation, best, sizeof(best));
        search_candidate_name(node, candidate, name);
    }
    format_score(&c->search.nodes[0].candidates[0].validation, baseline, sizeof(baseline));
    format_budget(c, budget, sizeof(budget));
    format_running(c, running, sizeof(running));
    format_time_left(c, time_s - c->started_s, left, sizeof(left));
    log_write(c->options.log, LOG_INFO, "run",
              "rounds %d of %.0f done, %d open | best %s %s, baseline %s | workers %d of %d busy | "
              "%.0f s%s%s%s",
              c->search.tree.count - c->open_count - 1, controller_limit(c, SEARCH_LIMIT_ROUNDS),
              c->open_count, name, best, baseline, c->busy_count, c->options.leader_count,
              time_s - c->started_s, budget, left, running);
}

/* ---- what a prefetch has brought ---- */

enum { PREFETCHED_BYTES = 160 };

static int count_documents(const struct search *search, const char *kind)
{
    int count = 0;
    for (int32_t i = 0; i < search->document_count; i++) {
        count += strcmp(search_text(search->documents[i].kind), kind) == 0;
    }
    return count;
}

/* What calls that are open have reserved is not spent. */
static void format_prefetched(const struct search *search, char out[PREFETCHED_BYTES])
{
    int64_t tokens = search->agent_tokens;
    int papers = count_documents(search, "literature");
    int sets = count_documents(search, "data");
    for (int32_t i = 0; i < search->call_count; i++) {
        tokens -= search->calls[i].ended ? 0 : search->calls[i].reserved_tokens;
    }
    snprintf(out, PREFETCHED_BYTES, "brief %s, %d paper%s, %d data set%s; %lld tokens",
             search->brief != NULL ? "written" : "missing", papers, papers == 1 ? "" : "s", sets,
             sets == 1 ? "" : "s", (long long)tokens);
}

/* The last that agents had to say, where nothing was refused to them; "" if they said nothing. */
static const char *last_words_of_agents(const struct search *search)
{
    for (int32_t i = search->incident_count - 1; i >= 0; i--) {
        if (strcmp(search_text(search->incidents[i].kind), "agents") == 0) {
            return search_text(search->incidents[i].message);
        }
    }
    return "";
}

enum status controller_judge_prefetch(const struct controller *c, struct error *err)
{
    const struct search *search = &c->search;
    const char *folder = c->options.job->output;
    struct error why = {0};
    char found[PREFETCHED_BYTES];
    format_prefetched(search, found);
    bool failed = calls_failed(c->calls, &why);
    if (failed && why.code == STATUS_LIMIT) {
        return FAIL(
            err, STATUS_LIMIT,
            "not all was prefetched into %s: %s: %.600s; with higher limits (trex-tree set, "
            "or the job file) the same command goes on",
            folder, found, why.message);
    }
    if (failed) {
        return FAIL(
            err, STATUS_EXTERNAL,
            "not all was prefetched into %s: %s: %.600s; the same command asks again, and so "
            "does the search itself",
            folder, found, why.message);
    }
    if (search->brief == NULL) {
        return FAIL(
            err, STATUS_EXTERNAL,
            "not all was prefetched into %s: %s: %.600s; to ask for a brief again, begin with "
            "another run folder",
            folder, found, last_words_of_agents(search));
    }
    return STATUS_OK;
}

void controller_report_end(struct controller *c)
{
    const struct search *search = &c->search;
    struct log *log = c->options.log;
    if (c->options.prefetch && !c->stopping) {
        char found[PREFETCHED_BYTES];
        format_prefetched(search, found);
        log_write(log, LOG_INFO, "run", "prefetched into %s: %s", c->options.job->output, found);
        return;
    }
    if (c->search.end != SEARCH_FINISHED) {
        log_write(log, LOG_INFO, "run", "stopped; everything is in %s. The same command goes on",
                  c->options.job->output);
        return;
    }
    log_write(log, LOG_INFO, "run", "the search has ended: %s", search->end_reason);
    if (search->winner_node < 0) {
        return;
    }
    const struct candidate *winner =
        &search->nodes[search->winner_node].candidates[search->winner_candidate];
    const struct candidate *base = &search->nodes[0].candidates[0];
    char name[SEARCH_NAME_BYTES];
    char scores[2][64];
    search_candidate_name(search->winner_node, search->winner_candidate, name);
    format_score(&winner->test, scores[0], sizeof(scores[0]));
    format_score(&base->test, scores[1], sizeof(scores[1]));
    log_write(log, LOG_INFO, "run", "winner %s: test %s %s, baseline %s", name,
              search->identity.metric, scores[0], scores[1]);
    if (search->winner_node > 0 && winner->test.present && base->test.present &&
        !search_score_above(&winner->test, &base->test, 2.0, search->identity.larger_is_better)) {
        log_write(log, LOG_WARNING, "run",
                  "the gain on test is within two standard errors: it may be noise");
    }
}
