/* One node whole. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "analysis/show.h"
#include "base/clock.h"

enum { CASES_SHOWN = 5 };

static void print_text(const char *heading, const char *text)
{
    if (text[0] == '\0') {
        return;
    }
    printf("\n%s%s%s\n", paint(PAINT_BOLD), heading, paint(PAINT_PLAIN));
    paint_block(text, 2, paint_columns());
}

/* A JSON text, a line for each item if it is a list. */
static void print_json(const char *heading, const char *text)
{
    cJSON *list = NULL;
    if (text[0] == '\0') {
        return;
    }
    if (json_parse(text, strlen(text), heading, &list, NULL) != STATUS_OK || !cJSON_IsArray(list)) {
        cJSON_Delete(list);
        print_text(heading, text);
        return;
    }
    printf("\n%s%s%s\n", paint(PAINT_BOLD), heading, paint(PAINT_PLAIN));
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, list) {
        char *line = json_print_line(item);
        if (line != NULL) {
            paint_block(line, 2, paint_columns());
        }
        cJSON_free(line);
    }
    if (cJSON_GetArraySize(list) == 0) {
        printf("  (nothing)\n");
    }
    cJSON_Delete(list);
}

/* First, best and last loss: enough to see what kind of training it was. */
static void print_curve(const struct candidate *candidate)
{
    if (candidate->curve_count == 0) {
        return;
    }
    const struct search_curve_point *first = &candidate->curve[0];
    const struct search_curve_point *last = &candidate->curve[candidate->curve_count - 1];
    const struct search_curve_point *lowest = NULL;
    for (int32_t i = 0; i < candidate->curve_count; i++) {
        const struct search_curve_point *point = &candidate->curve[i];
        if (!isnan(point->validation_loss) &&
            (lowest == NULL || point->validation_loss < lowest->validation_loss)) {
            lowest = point;
        }
    }
    printf("    curve    train loss %.4f at step %" PRId64 " to %.4f at step %" PRId64,
           first->train_loss, first->step, last->train_loss, last->step);
    if (lowest != NULL) {
        printf("; lowest validation loss %.4f at step %" PRId64, lowest->validation_loss,
               lowest->step);
    }
    printf("; %.3g tokens/s\n", last->seconds > 0.0 ? (double)last->tokens / last->seconds : 0.0);
}

static void print_cases(const struct candidate *candidate)
{
    int width = paint_columns() - 22;
    for (int32_t i = 0; i < candidate->case_count && i < CASES_SHOWN; i++) {
        const struct search_case *one = &candidate->cases[i];
        printf("    row %-5" PRId64 " prompt    ", one->row);
        paint_line(search_text(one->prompt), width);
        printf("\n              expected  ");
        paint_line(search_text(one->answer), width);
        printf("\n              found     ");
        paint_line(search_text(one->output), width);
        putchar('\n');
    }
    if (candidate->case_count > CASES_SHOWN) {
        printf("    and %d more failed rows in the run file\n",
               (int)candidate->case_count - CASES_SHOWN);
    }
}

static void print_confusions(const struct candidate *candidate)
{
    for (int32_t i = 0; i < candidate->confusion_count; i++) {
        const struct search_confusion *one = &candidate->confusions[i];
        printf("    %6" PRId64 " x  ", one->count);
        paint_line(search_text(one->expected), 30);
        printf(" taken for ");
        paint_line(search_text(one->found), 30);
        putchar('\n');
    }
}

static void print_score(const char *what, const struct search_score *score)
{
    char text[PAINT_SCORE_BYTES];
    if (!score->present) {
        return;
    }
    paint_score(score, text);
    printf("    %-8s %s on %" PRId64 " rows", what, text, score->rows);
    if (!isnan(score->loss)) {
        printf(", loss %.4f", score->loss);
    }
    printf("; %" PRId64 " truncated, %" PRId64 " unfinished, %" PRId64 " of wrong form\n",
           score->truncated, score->unfinished, score->format_failures);
}

static void print_failure(const struct candidate *candidate)
{
    if (candidate->error == NULL) {
        return;
    }
    printf("    %serror%s    %s (%s)\n", paint(PAINT_BAD), paint(PAINT_PLAIN),
           candidate->error->message, status_name(candidate->error->code));
    if (search_text(candidate->log_tail)[0] != '\0') {
        printf("    its log ended with\n");
        paint_block(candidate->log_tail, 6, paint_columns());
    }
}

static void print_candidate(const struct view *view, int32_t id, int32_t number)
{
    const struct candidate *candidate = &view->search.nodes[id].candidates[number];
    char name[SEARCH_NAME_BYTES];
    char cost[PAINT_TIME_BYTES];
    search_candidate_name(id, number, name);
    paint_duration(candidate->rank_seconds, cost);
    printf("\n  %s%s%s  %s", paint(PAINT_BOLD), name, paint(PAINT_PLAIN),
           candidate_state_name(candidate->state));
    if (search_text(candidate->end)[0] != '\0') {
        printf(" (%s)", candidate->end);
    }
    if (candidate->steps_done > 0) {
        printf(", %" PRId64 " steps, %" PRId64 " rows, %" PRId64 " tokens", candidate->steps_done,
               candidate->samples, candidate->tokens);
    }
    printf(", %s of work (", cost);
    history_print_cost(candidate->core_seconds, candidate->gpu_seconds);
    printf(")%s%s\n", candidate->weights_kept ? ", weights kept" : "",
           id == view->best_node && number == view->best_candidate ? "  ★ best of the search" : "");
    if (candidate->kills > 0) {
        printf("    %sblamed%s   %d time%s for the end of its rank\n", paint(PAINT_BAD),
               paint(PAINT_PLAIN), (int)candidate->kills, candidate->kills == 1 ? "" : "s");
    }
    printf("    config   ");
    paint_line(search_text(candidate->config), paint_columns() - 14);
    putchar('\n');
    print_score("valid.", &candidate->validation);
    print_score("test", &candidate->test);
    print_curve(candidate);
    print_failure(candidate);
    print_confusions(candidate);
    print_cases(candidate);
}

static void print_insights(const struct search *search, int32_t id)
{
    for (int32_t i = 0; i < search->insight_count; i++) {
        const struct search_insight *insight = &search->insights[i];
        for (int32_t k = 0; k < insight->node_count; k++) {
            if (insight->nodes[k] == id) {
                print_text(insight->retired ? "insight (retired: later evidence is against it, or "
                                              "it went into another)"
                                            : "insight",
                           search_text(insight->text));
                break;
            }
        }
    }
}

static void print_calls(const struct view *view, int32_t id)
{
    struct ledger ledger;
    ledger_sum(&view->search, id, &ledger);
    if (ledger.calls > 0) {
        printf("\n%scalls about it%s\n  ", paint(PAINT_BOLD), paint(PAINT_PLAIN));
        ledger_print(&ledger);
        printf("; with --calls and --prompts: each\n");
    }
}

void show_node(const struct view *view, int32_t id)
{
    static const char *const states[] = {"open", "closed", "failed"};
    const struct search_node *node = &view->search.nodes[id];
    const struct tree_node *place = &view->search.tree.nodes[id];
    char planned[32];
    double core_seconds = 0.0;
    double gpu_seconds = 0.0;
    clock_format_utc(node->planned_at_s, planned, sizeof(planned));
    printf("%sn%04d%s  %s, %s", paint(PAINT_BOLD), (int)id, paint(PAINT_PLAIN),
           search_text(node->strategy), states[place->state]);
    if (place->parent >= 0) {
        printf(", refines n%04d", (int)place->parent);
    }
    printf("; %d children, %" PRId64 " rounds done in its subtree\n", (int)place->child_count,
           place->visits);
    printf("planned %s by %s; ", planned, search_text(node->researcher));
    history_node_cost(node, &core_seconds, &gpu_seconds);
    history_print_cost(core_seconds, gpu_seconds);
    putchar('\n');
    print_text("goal", search_text(node->goal));
    print_text("why", search_text(node->rationale));
    print_json("recipe", search_text(node->recipe));
    print_json("what the recipe did", search_text(node->recipe_report));
    printf("\n%scandidates%s\n", paint(PAINT_BOLD), paint(PAINT_PLAIN));
    for (int32_t c = 0; c < node->candidate_count; c++) {
        print_candidate(view, id, c);
    }
    history_print_of_node(&view->search, id);
    print_text("diagnosis", search_text(node->diagnosis));
    print_json("causes", search_text(node->causes));
    print_insights(&view->search, id);
    print_calls(view, id);
}
