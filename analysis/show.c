/* trex-tree show: the tree in text. */
#include "analysis/show.h"

#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"

static const char usage[] =
    "usage: trex-tree show RUN [NODE] [--calls | --prompts | --brief] [--json]\n\n"
    "Draws the tree of the search in folder RUN: a line a node with its strategy, its best "
    "validation score with\n"
    "standard error, its state, its candidates and what they cost. With NODE (n0003, or a "
    "candidate n0003-c1)\n"
    "prints that node whole: goal, reasons, recipe, configurations, curves, diagnosis, failed "
    "cases, and what was\n"
    "asked of language models.\n\n"
    "  --calls     a table of all calls to language models and sources, or of those about NODE: "
    "tokens, cost, time\n"
    "  --prompts   each of these calls whole, in order: its messages, its reply, what it has cost\n"
    "  --brief     what the agents work with: the brief, papers and data that were found, "
    "insights, prompts\n"
    "  --json      the same as one JSON object; without the others, and without NODE: the whole "
    "tree\n\n"
    "example: trex-tree show runs/sst2\n"
    "         trex-tree show runs/sst2 n0003\n"
    "         trex-tree show runs/sst2 n0003 --prompts\n";

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
static void print_cost(const struct search_node *node, const struct ledger *ledger)
{
    double core_seconds = 0.0;
    double gpu_seconds = 0.0;
    history_node_cost(node, &core_seconds, &gpu_seconds);
    if (core_seconds > 0.0) {
        printf("; ");
        history_print_cost(core_seconds, gpu_seconds);
    }
    if (ledger->calls > 0) {
        printf("; ");
        ledger_print(ledger);
    }
}

static void print_node(const struct view *view, int32_t id, const struct ledger *ledger,
                       int label_width)
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
    print_cost(node, ledger);
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
    static const struct ledger none;
    struct ledger *ledgers = ledger_of_nodes(&view->search);
    int width = widest_label(&view->search);
    for (int32_t id = 0; id >= 0; id = next_drawn(&view->search.tree, id)) {
        print_node(view, id, ledgers != NULL ? &ledgers[id] : &none, width);
    }
    free(ledgers);
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

enum what { SHOW_TREE, SHOW_CALLS, SHOW_PROMPTS, SHOW_BRIEF };

static void print(const struct view *view, enum what what, int32_t node)
{
    if (what == SHOW_CALLS) {
        show_calls(view, node);
    } else if (what == SHOW_PROMPTS) {
        show_prompts(view, node);
    } else if (what == SHOW_BRIEF) {
        show_brief(view);
    } else if (node >= 0) {
        show_node(view, node);
    } else {
        print_tree(view);
    }
}

static cJSON *make_json(const struct view *view, enum what what, int32_t node)
{
    if (what == SHOW_CALLS || what == SHOW_PROMPTS) {
        return show_calls_json(view, node, what == SHOW_PROMPTS);
    }
    if (what == SHOW_TREE) {
        return show_json(view);
    }
    cJSON *object = cJSON_CreateObject();
    show_add_brief_json(&view->search, object);
    return object;
}

/* The node that an argument names, -1 without one. */
static enum status find_node(const struct view *view, const char *text, int32_t *node,
                             struct error *err)
{
    *node = -1;
    if (text == NULL || parse_node(view, text, node)) {
        return STATUS_OK;
    }
    return FAIL(err, STATUS_NOT_FOUND, "%s has no node \"%.40s\"; nodes are n0000 to n%04d",
                view->folder, text, (int)view->search.tree.count - 1);
}

static int show(const char *folder, const char *name, enum what what, bool json)
{
    struct view view;
    struct error err;
    int32_t node = -1;
    int exit_code = EXIT_DONE;
    if (view_open(folder, &view, &err) != STATUS_OK) {
        return options_fail(&err);
    }
    if (find_node(&view, name, &node, &err) != STATUS_OK) {
        exit_code = options_fail(&err);
    } else if (json) {
        exit_code = options_print_json(make_json(&view, what, node));
    } else {
        print(&view, what, node);
    }
    view_close(&view);
    return exit_code;
}

static int run(const struct command *command, int argc, char **argv)
{
    bool json = false;
    bool calls = false;
    bool prompts = false;
    bool brief = false;
    const struct command_option options[] = {{"json", &json, NULL},
                                             {"calls", &calls, NULL},
                                             {"prompts", &prompts, NULL},
                                             {"brief", &brief, NULL},
                                             {NULL, NULL, NULL}};
    char **arguments = NULL;
    int count = 0;
    int exit_code = EXIT_DONE;
    if (!options_parse(command, argc, argv, options, 1, 2, &arguments, &count, &exit_code)) {
        return exit_code;
    }
    if (calls + prompts + brief > 1) {
        struct error err;
        FAIL(&err, STATUS_INVALID, "--calls, --prompts and --brief: give one of them");
        return options_fail(&err);
    }
    enum what what = calls ? SHOW_CALLS : prompts ? SHOW_PROMPTS : brief ? SHOW_BRIEF : SHOW_TREE;
    return show(arguments[0], count == 2 ? arguments[1] : NULL, what, json);
}

const struct command command_show = {
    "show", "the tree in text, one node whole, or what agents asked", usage, run};
