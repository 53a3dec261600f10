/* trex-tree best: the winner, or the best so far. */
#include <inttypes.h>
#include <string.h>

#include "analysis/analysis.h"

static const char usage[] = "usage: trex-tree best RUN [--json]\n\n"
                            "Prints the candidate with the best validation score of the search in "
                            "folder RUN: its configuration, and its\n"
                            "scores with standard errors beside those of the baseline (the base "
                            "model as it was). The test split is scored\n"
                            "once, at the end of the search, for these two alone.\n\n"
                            "  --json   one JSON object: node, candidate, name, config, "
                            "validation, test, baseline, metric\n\n"
                            "example: trex-tree best runs/sst2 --json\n";

static cJSON *scores_json(const struct candidate *candidate)
{
    if (candidate == NULL) {
        return cJSON_CreateNull();
    }
    cJSON *object = cJSON_CreateObject();
    cJSON_AddItemToObject(object, "validation", view_score_json(&candidate->validation));
    cJSON_AddItemToObject(object, "test", view_score_json(&candidate->test));
    return object;
}

static cJSON *best_json(const struct view *view)
{
    const struct candidate *best = view_best(view);
    const char *config = search_text(best->config);
    char name[SEARCH_NAME_BYTES];
    cJSON *parsed = NULL;
    search_candidate_name(view->best_node, view->best_candidate, name);
    if (json_parse(config, strlen(config), "config", &parsed, NULL) != STATUS_OK) {
        parsed = cJSON_CreateNull();
    }
    cJSON *object = cJSON_CreateObject();
    cJSON_AddNumberToObject(object, "node", view->best_node);
    cJSON_AddNumberToObject(object, "candidate", view->best_candidate);
    cJSON_AddStringToObject(object, "name", name);
    cJSON_AddBoolToObject(object, "final", view->search.end == SEARCH_FINISHED);
    cJSON_AddStringToObject(object, "strategy",
                            search_text(view->search.nodes[view->best_node].strategy));
    cJSON_AddItemToObject(object, "config", parsed);
    cJSON_AddStringToObject(object, "metric", search_text(view->search.identity.metric));
    cJSON_AddBoolToObject(object, "larger_is_better", view->search.identity.larger_is_better);
    cJSON_AddItemToObject(object, "validation", view_score_json(&best->validation));
    cJSON_AddItemToObject(object, "test", view_score_json(&best->test));
    cJSON_AddItemToObject(object, "baseline", scores_json(view_baseline(view)));
    cJSON_AddBoolToObject(object, "weights_kept", best->weights_kept);
    return object;
}

static void print_row(const char *what, const struct candidate *candidate)
{
    char validation[PAINT_SCORE_BYTES];
    char test[PAINT_SCORE_BYTES];
    paint_score(&candidate->validation, validation);
    paint_score(&candidate->test, test);
    /* The sign takes two bytes and one column. */
    int wide = strlen(validation) > 1 ? 20 : 19;
    printf("  %-10s %-*s %s\n", what, wide, validation, test);
}

static void print_best(const struct view *view)
{
    const struct candidate *best = view_best(view);
    const struct search_node *node = &view->search.nodes[view->best_node];
    char name[SEARCH_NAME_BYTES];
    search_candidate_name(view->best_node, view->best_candidate, name);
    printf("%s%s%s  %s%s\n", paint(PAINT_BOLD), name, paint(PAINT_PLAIN),
           search_text(node->strategy),
           view->search.end == SEARCH_FINISHED ? "" : "  (best so far)");
    printf("  %-10s %-19s %s\n", search_text(view->search.identity.metric), "validation", "test");
    print_row(name, best);
    if (view_baseline(view) != NULL) {
        print_row("baseline", view_baseline(view));
    }
    printf("  config     ");
    paint_line(search_text(best->config), paint_columns() - 14);
    printf("\n  goal       ");
    paint_line(search_text(node->goal), paint_columns() - 14);
    putchar('\n');
    if (best->weights_kept) {
        printf("\ntrex-tree export %s %s OUT   writes it as a Hugging Face folder\n", view->folder,
               name);
    }
}

static int run(const struct command *command, int argc, char **argv)
{
    bool json = false;
    const struct command_option options[] = {{"json", &json, NULL}, {NULL, NULL, NULL}};
    char **arguments = NULL;
    int count = 0;
    int exit_code = EXIT_DONE;
    if (!options_parse(command, argc, argv, options, 1, 1, &arguments, &count, &exit_code)) {
        return exit_code;
    }
    struct view view;
    struct error err;
    if (view_open(arguments[0], &view, &err) != STATUS_OK) {
        return options_fail(&err);
    }
    if (view_best(&view) == NULL) {
        FAIL(&err, STATUS_NOT_FOUND, "%s: no candidate has finished yet", view.folder);
        exit_code = options_fail(&err);
    } else if (json) {
        exit_code = options_print_json(best_json(&view));
    } else {
        print_best(&view);
        exit_code = EXIT_DONE;
    }
    view_close(&view);
    return exit_code;
}

const struct command command_best = {"best", "the winner, or the best candidate so far", usage,
                                     run};
