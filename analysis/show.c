/* trex-tree show: the tree in text. */
#include "analysis/show.h"

#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"

static const char usage[] =
    "usage: trex-tree show RUN [NODE | --json]\n\n"
    "Draws the tree of the search in folder RUN: a line a node with its strategy, its best "
    "validation score with\n"
    "standard error, its state, its candidates and what they cost. With NODE (n0003, or a "
    "candidate n0003-c1) "
    "prints that node whole:\n"
    "goal, reasons, recipe, configurations, curves, diagnosis, failed cases.\n\n"
    "  --json   the whole tree as one JSON object\n\n"
    "example: trex-tree show runs/sst2\n"
    "         trex-tree show runs/sst2 n0003\n";

/* Deeper nodes are drawn at this depth with a mark, so that a chain of thousands stays readable. */
enum { LEVELS_MAX = 24, PREFIX_BYTES = LEVELS_MAX * 8 + 16 };

/* "│  ├─ ": a column a level, from the root's children on. */
static void make_prefix(const struct tree *tree, int32_t id, char out[PREFIX_BYTES])
{
    const char *parts[LEVELS_MAX];
    int count = 0;
    bool deeper = false;
    for (int32_t at = id; tree->nodes[at].parent >= 0; at = tree->nodes[at].parent) {
        bool last = tree->nodes[at].next_sibling < 0;
        if (count == LEVELS_MAX) {
            deeper = true;
            break;
        }
        if (at == id) {
            parts[count++] = last ? "└─ " : "├─ ";
        } else {
            parts[count++] = last ? "   " : "│  ";
        }
    }
    size_t used = (size_t)snprintf(out, PREFIX_BYTES, "%s", deeper ? "… " : "");
    while (count-- > 0) {
        used += (size_t)snprintf(out + used, PREFIX_BYTES - used, "%s", parts[count]);
    }
}

/* Next node in the order of drawing: child, sibling, sibling of an ancestor; -1 at the end. */
static int32_t next_drawn(const struct tree *tree, int32_t id)
{
    if (tree->nodes[id].first_child >= 0) {
        return tree->nodes[id].first_child;
    }
    while (id >= 0 && tree->nodes[id].next_sibling < 0) {
        id = tree->nodes[id].parent;
    }
    return id < 0 ? -1 : tree->nodes[id].next_sibling;
}

enum { LABEL_BYTES = PREFIX_BYTES + 64, STRATEGY_WIDTH = 24 };

static void make_label(const struct search *search, int32_t id, char out[LABEL_BYTES])
{
    char prefix[PREFIX_BYTES];
    make_prefix(&search->tree, id, prefix);
    snprintf(out, LABEL_BYTES, "%sn%04d", prefix, (int)id);
}

static int widest_label(const struct search *search)
{
    int widest = 0;
    for (int32_t id = 0; id >= 0; id = next_drawn(&search->tree, id)) {
        char label[LABEL_BYTES];
        make_label(search, id, label);
        int width = paint_width(label);
        widest = width > widest ? width : widest;
    }
    return widest;
}

static void print_states(const struct search_node *node)
{
    int counts[CANDIDATE_STATE_COUNT] = {0};
    bool first = true;
    for (int32_t c = 0; c < node->candidate_count; c++) {
        counts[node->candidates[c].state]++;
    }
    for (int state = CANDIDATE_STATE_COUNT - 1; state >= 0; state--) {
        if (counts[state] > 0) {
            printf("%s%d %s", first ? "" : ", ", counts[state],
                   candidate_state_name((enum candidate_state)state));
            first = false;
        }
    }
}

/* Nothing for a node that has not cost anything yet. */
static void print_cost(const struct search_node *node)
{
    double core_seconds = 0.0;
    double gpu_seconds = 0.0;
    history_node_cost(node, &core_seconds, &gpu_seconds);
    if (core_seconds > 0.0) {
        printf("; ");
        history_print_cost(core_seconds, gpu_seconds);
    }
}

static void print_node(const struct view *view, int32_t id, int label_width)
{
    static const char *const states[] = {"open", "closed", "failed"};
    static const enum paint colours[] = {PAINT_BUSY, PAINT_PLAIN, PAINT_BAD};
    const struct search_node *node = &view->search.nodes[id];
    enum tree_node_state state = view->search.tree.nodes[id].state;
    char label[LABEL_BYTES];
    char score[PAINT_SCORE_BYTES] = "-";
    char strategy[STRATEGY_WIDTH + 1];
    make_label(&view->search, id, label);
    if (node->best >= 0) {
        paint_score(&node->candidates[node->best].validation, score);
    }
    snprintf(strategy, sizeof(strategy), "%s", search_text(node->strategy));
    bool best = id == view->best_node;
    printf("%s%s%s%*s  ", paint(best ? PAINT_BOLD : PAINT_PLAIN), label, paint(PAINT_PLAIN),
           label_width - paint_width(label), "");
    paint_line(strategy, STRATEGY_WIDTH);
    printf("%*s  %s%*s", STRATEGY_WIDTH - paint_width(strategy), "", score, 17 - paint_width(score),
           "");
    printf("  %s%-6s%s  ", paint(colours[state]), states[state], paint(PAINT_PLAIN));
    print_states(node);
    print_cost(node);
    if (best) {
        printf("  %s★ %s n%04d-c%d%s", paint(PAINT_GOOD),
               view->search.end == SEARCH_FINISHED ? "winner" : "best", (int)id,
               (int)view->best_candidate, paint(PAINT_PLAIN));
    }
    putchar('\n');
}

static void print_tree(const struct view *view)
{
    struct view_counts counts;
    view_count(view, &counts);
    printf("%s%s%s  %s, %s: %d rounds done, %d open\n", paint(PAINT_BOLD), view->folder,
           paint(PAINT_PLAIN), search_text(view->search.identity.metric), view_condition(view),
           counts.closed + counts.failed, counts.open);
    if (view->search.tree.count == 0) {
        printf("no node yet\n");
        return;
    }
    int width = widest_label(&view->search);
    for (int32_t id = 0; id >= 0; id = next_drawn(&view->search.tree, id)) {
        print_node(view, id, width);
    }
    if (view->note[0] != '\0') {
        printf("note: %s\n", view->note);
    }
}

/* "n0003" or "n0003-c1" of this search. */
static bool parse_node(const struct view *view, const char *text, int32_t *node)
{
    char name[SEARCH_NAME_BYTES];
    int32_t candidate = 0;
    bool whole = strchr(text, '-') != NULL;
    int used = snprintf(name, sizeof(name), "%s%s", text, whole ? "" : "-c0");
    return used > 0 && (size_t)used < sizeof(name) &&
           search_candidate_parse(name, node, &candidate) && *node < view->search.tree.count &&
           (!whole || candidate < view->search.nodes[*node].candidate_count);
}

static int run(const struct command *command, int argc, char **argv)
{
    bool json = false;
    const struct command_option options[] = {{"json", &json, NULL}, {NULL, NULL, NULL}};
    char **arguments = NULL;
    int count = 0;
    int exit_code = EXIT_DONE;
    if (!options_parse(command, argc, argv, options, 1, 2, &arguments, &count, &exit_code)) {
        return exit_code;
    }
    struct view view;
    struct error err;
    if (view_open(arguments[0], &view, &err) != STATUS_OK) {
        return options_fail(&err);
    }
    int32_t node = 0;
    exit_code = EXIT_DONE;
    if (json) {
        exit_code = options_print_json(show_json(&view));
    } else if (count == 1) {
        print_tree(&view);
    } else if (parse_node(&view, arguments[1], &node)) {
        show_node(&view, node);
    } else {
        FAIL(&err, STATUS_NOT_FOUND, "%s has no node \"%.40s\"; nodes are n0000 to n%04d",
             view.folder, arguments[1], (int)view.search.tree.count - 1);
        exit_code = options_fail(&err);
    }
    view_close(&view);
    return exit_code;
}

const struct command command_show = {"show", "the tree in text, or one node whole", usage, run};
