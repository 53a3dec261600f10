/* trex-tree status: where a search stands. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "analysis/analysis.h"

static const char usage[] =
    "usage: trex-tree status RUN [--json] [--watch [SECONDS]] [--accounting]\n\n"
    "Says where the search in folder RUN stands: rounds, candidates, best score against the "
    "baseline, what is in\n"
    "flight, what was asked for by halt and set, hours spent, the last allocation and the last "
    "incidents, tokens and\n"
    "money of the agents. The search may be running on another machine.\n\n"
    "  --json              the same as one JSON object\n"
    "  --watch [SECONDS]   again every 5 or SECONDS seconds, until the search has finished or "
    "halted; Ctrl-C ends it\n"
    "  --accounting        also what Slurm has counted for its jobs: core- and GPU-hours of whole "
    "allocations, energy\n\n"
    "example: trex-tree status runs/sst2 --watch\n";

static const double watch_default_s = 5.0;
static const double watch_least_s = 0.1;
static const double watch_most_s = 86400.0;

/* Of a search on another machine: whether it lives shows in its beat, as far as clocks agree. */
static void print_beat(const struct store_holder *holder)
{
    char age[PAINT_TIME_BYTES];
    if (holder->alive == STORE_ALIVE_UNKNOWN) {
        paint_duration(fmax(0.0, holder->beat_age_s), age);
        printf(", last sign of life %s ago (a running one gives one every %d s)", age,
               STORE_BEAT_S);
    }
}

static void print_condition(const struct view *view)
{
    char age[PAINT_TIME_BYTES];
    enum paint colour = view->search.end == SEARCH_FINISHED ? PAINT_GOOD : PAINT_BUSY;
    paint_duration(view->age_s, age);
    printf("%s%s%s  %s%s%s", paint(PAINT_BOLD), view->folder, paint(PAINT_PLAIN), paint(colour),
           view_condition(view), paint(PAINT_PLAIN));
    if (view->search.end == SEARCH_FINISHED) {
        printf(" (%s)", search_text(view->search.end_reason));
    } else if (view->held) {
        printf(" (process %" PRId64 " on %s%s%s, since %s)", view->holder.pid, view->holder.host,
               view->holder.job[0] != '\0' ? ", Slurm job " : "", view->holder.job,
               view->holder.since);
        print_beat(&view->holder);
    }
    printf(", last write %s ago\n", age);
    if (search_is_simulated(&view->search)) {
        paint_label("SIMULATED");
        printf("workers slept instead of training, and all scores are made up\n");
    }
}

static void print_rounds(const struct view *view, const struct view_counts *counts)
{
    paint_label("rounds");
    printf("%d of %.0f done", counts->closed + counts->failed,
           view_limit(view, SEARCH_LIMIT_ROUNDS));
    if (counts->failed > 0) {
        printf(" (%d failed)", counts->failed);
    }
    printf(", %d open\n", counts->open);
    paint_label("candidates");
    bool first = true;
    for (int state = CANDIDATE_STATE_COUNT - 1; state >= 0; state--) {
        if (counts->candidates[state] > 0) {
            printf("%s%d %s", first ? "" : ", ", counts->candidates[state],
                   candidate_state_name((enum candidate_state)state));
            first = false;
        }
    }
    printf("%s\n", first ? "none" : "");
}

static void print_candidate(const char *what, int32_t node, int32_t number,
                            const struct candidate *candidate)
{
    char name[SEARCH_NAME_BYTES];
    char score[PAINT_SCORE_BYTES];
    paint_label(what);
    if (candidate == NULL) {
        printf("none yet\n");
        return;
    }
    search_candidate_name(node, number, name);
    paint_score(&candidate->validation, score);
    printf("%-10s %s", name, score);
    if (candidate->test.present) {
        paint_score(&candidate->test, score);
        printf("  test %s", score);
    }
    putchar('\n');
}

/* Gain over the baseline in standard errors of the difference: what is noise and what is not. */
static void print_gain(const struct view *view)
{
    const struct candidate *best = view_best(view);
    const struct candidate *baseline = view_baseline(view);
    if (best == NULL || baseline == NULL || best == baseline) {
        return;
    }
    double sign = view->search.identity.larger_is_better ? 1.0 : -1.0;
    double gain = sign * (best->validation.value - baseline->validation.value);
    double error = hypot(best->validation.standard_error, baseline->validation.standard_error);
    paint_label("gain");
    printf("%s%+.4f%s", paint(gain > 2.0 * error ? PAINT_GOOD : PAINT_PLAIN), gain,
           paint(PAINT_PLAIN));
    if (error > 0.0) {
        printf(" (%.1f standard errors of the difference)", gain / error);
    }
    printf(" on validation\n");
}

static void print_in_flight(const struct view *view)
{
    for (int32_t n = 0; n < view->search.tree.count; n++) {
        const struct search_node *node = &view->search.nodes[n];
        for (int32_t c = 0; c < node->candidate_count; c++) {
            const struct candidate *candidate = &node->candidates[c];
            if (candidate->state != CANDIDATE_RUNNING && candidate->state != CANDIDATE_SUSPENDED) {
                continue;
            }
            char name[SEARCH_NAME_BYTES];
            search_candidate_name(n, c, name);
            paint_label("in flight");
            printf("%-10s %s%s%s", name, paint(PAINT_BUSY), candidate_state_name(candidate->state),
                   paint(PAINT_PLAIN));
            if (candidate->steps_done > 0) {
                printf(" after %" PRId64 " steps", candidate->steps_done);
            }
            printf(", %s\n", search_text(node->strategy));
        }
    }
}

static void print_status(const struct view *view)
{
    struct view_counts counts;
    int width = paint_columns() - 15;
    view_count(view, &counts);
    print_condition(view);
    if (view_job_text(view, NULL, "goal")[0] != '\0') {
        paint_label("goal");
        paint_line(view_job_text(view, NULL, "goal"), width);
        putchar('\n');
    }
    paint_label("model");
    paint_line(view_job_text(view, NULL, "model"), width);
    putchar('\n');
    paint_label("metric");
    printf("%s, %s is better\n", search_text(view->search.identity.metric),
           view->search.identity.larger_is_better ? "larger" : "smaller");
    print_rounds(view, &counts);
    print_candidate("baseline", 0, 0, view_baseline(view));
    print_candidate("best", view->best_node, view->best_candidate, view_best(view));
    print_gain(view);
    print_in_flight(view);
    steer_print_wishes(view);
    history_print(view);
    ledger_print_status(view);
    if (view->note[0] != '\0') {
        paint_label("note");
        printf("%s\n", view->note);
    }
}

/* ---- JSON ---- */

static cJSON *name_json(int32_t node, int32_t number)
{
    char name[SEARCH_NAME_BYTES];
    if (node < 0) {
        return cJSON_CreateNull();
    }
    search_candidate_name(node, number, name);
    return cJSON_CreateString(name);
}

/* Training steps that are done and safe, of all candidates together: what scripts take for progress
 * beside finished candidates. */
static double steps_done(const struct search *search)
{
    double steps = 0.0;
    for (int32_t n = 0; n < search->tree.count; n++) {
        for (int32_t c = 0; c < search->nodes[n].candidate_count; c++) {
            steps += (double)search->nodes[n].candidates[c].steps_done;
        }
    }
    return steps;
}

static cJSON *status_json(const struct view *view)
{
    const struct search *search = &view->search;
    const struct candidate *best = view_best(view);
    const struct candidate *baseline = view_baseline(view);
    struct view_counts counts;
    view_count(view, &counts);
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "run", view->folder);
    cJSON_AddStringToObject(object, "condition", view_condition(view));
    cJSON_AddStringToObject(object, "end_reason", search_text(search->end_reason));
    cJSON_AddBoolToObject(object, "simulated", search_is_simulated(search));
    cJSON_AddStringToObject(object, "metric", search_text(search->identity.metric));
    cJSON_AddBoolToObject(object, "larger_is_better", search->identity.larger_is_better);
    cJSON *rounds = cJSON_AddObjectToObject(object, "rounds");
    cJSON_AddNumberToObject(rounds, "closed", counts.closed);
    cJSON_AddNumberToObject(rounds, "failed", counts.failed);
    cJSON_AddNumberToObject(rounds, "open", counts.open);
    cJSON_AddNumberToObject(rounds, "planned", view_limit(view, SEARCH_LIMIT_ROUNDS));
    cJSON *candidates = cJSON_AddObjectToObject(object, "candidates");
    for (int state = 0; state < CANDIDATE_STATE_COUNT; state++) {
        cJSON_AddNumberToObject(candidates, candidate_state_name((enum candidate_state)state),
                                counts.candidates[state]);
    }
    cJSON_AddNumberToObject(object, "steps_done", steps_done(search));
    cJSON_AddItemToObject(object, "best", name_json(view->best_node, view->best_candidate));
    cJSON_AddItemToObject(object, "best_validation",
                          best != NULL ? view_score_json(&best->validation) : cJSON_CreateNull());
    cJSON_AddItemToObject(object, "baseline_validation",
                          baseline != NULL ? view_score_json(&baseline->validation)
                                           : cJSON_CreateNull());
    cJSON_AddItemToObject(object, "limits", steer_limits_json(view));
    cJSON_AddItemToObject(object, "wishes", steer_wishes_json(view));
    cJSON_AddNumberToObject(object, "rank_seconds", search->rank_seconds);
    cJSON_AddNumberToObject(object, "allocation_seconds", search->allocation_seconds);
    cJSON_AddNumberToObject(object, "allocations", search->allocation_count);
    history_add_json(view, object);
    cJSON_AddItemToObject(object, "agents", ledger_status_json(view));
    cJSON_AddNumberToObject(object, "last_sequence", (double)search->last_sequence);
    cJSON_AddNumberToObject(object, "last_write_age_seconds", view->age_s);
    cJSON_AddStringToObject(object, "note", view->note);
    return object;
}

struct style {
    bool json, accounting;
};

static int print_view(struct view *view, void *context)
{
    const struct style *style = context;
    if (style->json) {
        cJSON *object = status_json(view);
        if (style->accounting) {
            cJSON_AddItemToObject(object, "accounting", accounting_json(view));
        }
        return options_print_json(object);
    }
    print_status(view);
    if (style->accounting) {
        accounting_print(view);
    }
    return EXIT_DONE;
}

static enum status read_interval(const char *text, double *interval_s, struct error *err)
{
    char *end = NULL;
    *interval_s = text != NULL ? strtod(text, &end) : watch_default_s;
    bool number = end == NULL || (end != text && *end == '\0');
    if (!number || !(*interval_s >= watch_least_s && *interval_s <= watch_most_s)) {
        return FAIL(err, STATUS_RANGE, "--watch %.40s: allowed are %g to %g seconds", text,
                    watch_least_s, watch_most_s);
    }
    return STATUS_OK;
}

static int run(const struct command *command, int argc, char **argv)
{
    struct style style = {false, false};
    bool watch = false;
    const char *interval = NULL;
    double interval_s = 0.0;
    const struct command_option options[] = {{"json", &style.json, NULL},
                                             {"accounting", &style.accounting, NULL},
                                             {"watch", &watch, &interval},
                                             {NULL, NULL, NULL}};
    char **arguments = NULL;
    int count = 0;
    int exit_code = EXIT_DONE;
    if (!options_parse(command, argc, argv, options, 1, 1, &arguments, &count, &exit_code)) {
        return exit_code;
    }
    struct view view;
    struct error err;
    if (read_interval(interval, &interval_s, &err) != STATUS_OK ||
        view_open(arguments[0], &view, &err) != STATUS_OK) {
        return options_fail(&err);
    }
    exit_code =
        watch ? watch_run(&view, interval_s, print_view, &style) : print_view(&view, &style);
    view_close(&view);
    return exit_code;
}

const struct command command_status = {"status", "where a search stands", usage, run};
