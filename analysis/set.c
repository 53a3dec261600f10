/* trex-tree set: other limits for a search that has begun. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/analysis.h"

static const char usage[] =
    "usage: trex-tree set RUN [NAME=VALUE...]\n\n"
    "Gives the search in folder RUN other limits, wherever it runs. They hold over all its "
    "allocations until they are set\n"
    "again, and win over the job file's. NAME=job goes back to the job file's. Without NAME=VALUE: "
    "what holds.\n\n"
    "  rounds=20             rounds in all; fewer than there are: it ends when the open ones end\n"
    "  core_hours=100        of all candidates together; 0: no limit\n"
    "  gpu_hours=50          likewise\n"
    "  goal_score=0.9        it ends when the best validation score reaches this\n"
    "  agent_tokens=200000   that a language-model researcher may use; 0: none\n"
    "  agent_money_usd=5     likewise\n\n"
    "example: trex-tree set runs/sst2 rounds=40 core_hours=200\n";

/* ---- what holds ---- */

static int rounds_done(const struct view *view)
{
    struct view_counts counts;
    view_count(view, &counts);
    return counts.closed + counts.failed;
}

static int rounds_open(const struct view *view)
{
    struct view_counts counts;
    view_count(view, &counts);
    return counts.open;
}

static void format_limit(enum search_limit_id id, double value, char out[PAINT_TIME_BYTES])
{
    bool hours = id == SEARCH_LIMIT_CORE_HOURS || id == SEARCH_LIMIT_GPU_HOURS;
    if (isnan(value) || (hours && value == 0.0)) {
        snprintf(out, PAINT_TIME_BYTES, "none");
    } else {
        snprintf(out, PAINT_TIME_BYTES, "%.10g", value);
    }
}

/* What was spent of a limit, or reached. */
static void print_spent(const struct view *view, enum search_limit_id id)
{
    const struct candidate *best = view_best(view);
    switch (id) {
    case SEARCH_LIMIT_ROUNDS:
        printf("%d done, %d open", rounds_done(view), rounds_open(view));
        break;
    case SEARCH_LIMIT_CORE_HOURS:
        printf("%.2f", view->search.core_seconds / 3600.0);
        break;
    case SEARCH_LIMIT_GPU_HOURS:
        printf("%.2f", view->search.gpu_seconds / 3600.0);
        break;
    case SEARCH_LIMIT_GOAL_SCORE:
        printf(best != NULL ? "best %.4f" : "-", best != NULL ? best->validation.value : 0.0);
        break;
    case SEARCH_LIMIT_AGENT_TOKENS:
        printf("%" PRId64, view->search.agent_tokens);
        break;
    case SEARCH_LIMIT_AGENT_MONEY:
        printf("%.4f", view->search.agent_usd);
        break;
    case SEARCH_LIMIT_COUNT:
        break;
    }
}

static bool any_waits(const struct view *view)
{
    bool any = false;
    for (int id = 0; id < SEARCH_LIMIT_COUNT; id++) {
        any = any || view_limit_waits(view, (enum search_limit_id)id);
    }
    return any;
}

static void print_limits(const struct view *view)
{
    bool any = false;
    printf("%s%-16s %12s %12s %12s  %s%s\n", paint(PAINT_FAINT), "limit", "job file", "set",
           "wanted", "so far", paint(PAINT_PLAIN));
    for (int i = 0; i < SEARCH_LIMIT_COUNT; i++) {
        enum search_limit_id id = (enum search_limit_id)i;
        char job[PAINT_TIME_BYTES];
        char set[PAINT_TIME_BYTES] = "";
        char wanted[PAINT_TIME_BYTES] = "";
        format_limit(id, view_job_limit(view, id), job);
        if (!isnan(view->search.limits[id])) {
            format_limit(id, view->search.limits[id], set);
            any = true;
        }
        if (view_limit_waits(view, id)) {
            format_limit(id, view_wanted_limit(view, id), wanted);
        }
        printf("%-16s %12s %12s %12s  ", search_limits[id].name, job, set, wanted);
        print_spent(view, id);
        putchar('\n');
    }
    printf("%s\n", any ? "What is set holds. The job file is the one that the search began with."
                       : "Nothing is set: the limits of the job file hold, also if it is edited "
                         "before the next start.");
    if (any_waits(view)) {
        steer_print_when(view);
    }
}

/* ---- setting ---- */

static int find_limit(const char *argument, size_t length)
{
    for (int id = 0; id < SEARCH_LIMIT_COUNT; id++) {
        const char *name = search_limits[id].name;
        if (strlen(name) == length && memcmp(argument, name, length) == 0) {
            return id;
        }
    }
    return -1;
}

static enum status parse_value(enum search_limit_id id, const char *text, double *value,
                               struct error *err)
{
    const struct search_limit *limit = &search_limits[id];
    char *end = NULL;
    if (strcmp(text, "job") == 0) {
        *value = NAN;
        return STATUS_OK;
    }
    *value = strtod(text, &end);
    bool number = text[0] != '\0' && *end == '\0' &&
                  strspn(text, "0123456789.eE+-") == strlen(text) && isfinite(*value);
    if (!number) {
        return FAIL(err, STATUS_INVALID, "%s=%.40s: allowed is a number, or \"job\"", limit->name,
                    text);
    }
    if (!search_limit_fits(id, *value)) {
        return FAIL(err, STATUS_RANGE, "%s=%.40s: allowed is a %snumber from %.10g to %.10g",
                    limit->name, text, limit->whole ? "whole " : "", limit->min, limit->max);
    }
    return STATUS_OK;
}

/* Reads all arguments before anything changes. */
static enum status parse_limits(char **arguments, int count, double limits[SEARCH_LIMIT_COUNT],
                                struct error *err)
{
    bool given[SEARCH_LIMIT_COUNT] = {false};
    for (int i = 0; i < count; i++) {
        const char *equals = strchr(arguments[i], '=');
        int id = equals != NULL ? find_limit(arguments[i], (size_t)(equals - arguments[i])) : -1;
        if (id < 0) {
            char names[256] = "";
            size_t used = 0;
            for (int k = 0; k < SEARCH_LIMIT_COUNT; k++) {
                used += (size_t)snprintf(names + used, sizeof(names) - used, "%s%s",
                                         k > 0 ? ", " : "", search_limits[k].name);
            }
            return FAIL(err, STATUS_INVALID, "\"%.60s\": allowed is NAME=VALUE with one of %s",
                        arguments[i], names);
        }
        if (given[id]) {
            return FAIL(err, STATUS_INVALID, "%s is given twice", search_limits[id].name);
        }
        given[id] = true;
        TRY(parse_value((enum search_limit_id)id, equals + 1, &limits[id], err));
    }
    return STATUS_OK;
}

/* Whether a new limit ends the search, and how that goes. */
static void print_consequence(const struct view *view, enum search_limit_id id, double value)
{
    const struct candidate *best = view_best(view);
    bool larger = view->search.identity.larger_is_better;
    bool spent = false;
    if (id == SEARCH_LIMIT_ROUNDS) {
        int open = rounds_open(view);
        if (value <= (double)(rounds_done(view) + open)) {
            printf("  %d rounds are done already%s\n", rounds_done(view),
                   open > 0 ? ": the search ends when the open ones have ended"
                            : ": the search ends");
        }
        return;
    }
    if (id == SEARCH_LIMIT_CORE_HOURS) {
        spent = value > 0.0 && view->search.core_seconds / 3600.0 >= value;
    } else if (id == SEARCH_LIMIT_GPU_HOURS) {
        spent = value > 0.0 && view->search.gpu_seconds / 3600.0 >= value;
    } else if (id == SEARCH_LIMIT_GOAL_SCORE && best != NULL && !isnan(value)) {
        spent = larger ? best->validation.value >= value : best->validation.value <= value;
    }
    if (spent) {
        printf("  ");
        print_spent(view, id);
        printf(" already: the search ends when the candidates that run have ended; those that wait "
               "are dropped\n");
    }
}

static bool print_changes(const struct view *view, const double before[SEARCH_LIMIT_COUNT])
{
    bool any = false;
    for (int i = 0; i < SEARCH_LIMIT_COUNT; i++) {
        enum search_limit_id id = (enum search_limit_id)i;
        char from[PAINT_TIME_BYTES];
        char to[PAINT_TIME_BYTES];
        double now = view_wanted_limit(view, id);
        if (search_limit_same(now, before[id])) {
            continue;
        }
        format_limit(id, before[id], from);
        format_limit(id, now, to);
        printf("%s: %s %s -> %s%s\n", view->folder, search_limits[id].name, from, to,
               isnan(view->control.limits[id]) ? " (the job file's)" : "");
        print_consequence(view, id, now);
        any = true;
    }
    return any;
}

static enum status set_limits(struct view *view, const double limits[SEARCH_LIMIT_COUNT],
                              struct error *err)
{
    double before[SEARCH_LIMIT_COUNT];
    for (int i = 0; i < SEARCH_LIMIT_COUNT; i++) {
        before[i] = view_wanted_limit(view, (enum search_limit_id)i);
    }
    memcpy(view->control.limits, limits, sizeof(view->control.limits));
    TRY(steer_write(view, err));
    bool changed = print_changes(view, before);
    bool waits = any_waits(view);
    if (!changed) {
        printf("%s: these limits %s already.\n", view->folder, waits ? "are wanted" : "hold");
    }
    if (changed || waits) {
        steer_print_when(view);
    }
    return STATUS_OK;
}

static int run(const struct command *command, int argc, char **argv)
{
    const struct command_option options[] = {{NULL, NULL, NULL}};
    char **arguments = NULL;
    int count = 0;
    int exit_code = EXIT_DONE;
    if (!options_parse(command, argc, argv, options, 1, 1 + SEARCH_LIMIT_COUNT, &arguments, &count,
                       &exit_code)) {
        return exit_code;
    }
    struct view view;
    struct error err;
    if (steer_open(arguments[0], &view, &err) != STATUS_OK) {
        return options_fail(&err);
    }
    double limits[SEARCH_LIMIT_COUNT];
    memcpy(limits, view.control.limits, sizeof(limits));
    enum status status = STATUS_OK;
    if (count == 1) {
        print_limits(&view);
    } else if ((status = parse_limits(arguments + 1, count - 1, limits, &err)) == STATUS_OK) {
        status = set_limits(&view, limits, &err);
    }
    view_close(&view);
    return status == STATUS_OK ? EXIT_DONE : options_fail(&err);
}

const struct command command_set = {"set", "other limits for a search that has begun", usage, run};
