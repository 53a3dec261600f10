/* What the next plan may know, in words.
 *
 * What is cut first, when the text is longer than allowed (levels of `struct detail`, from the
 * top):
 *
 *   1. failed cases of all but the node to refine
 *   2. rationale and configurations of key nodes and siblings
 *   3. insights but the first eight; diagnoses of key nodes
 *   4. rationale, configurations and diagnoses of the path; failed cases of the node to refine
 *   5. siblings and key nodes but three each; all insights
 *   6. the middle of the path: the root and the last four stay
 *   7. everything but a line for each of the root and the node to refine
 *
 * What is left is cut at the end, between characters.
 *
 * Insights stand in the order of the nodes that support them, the newer of two first; retired ones,
 * and those after the first MEMORY_INSIGHTS_MAX, are never shown. */
#include "agents/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "agents/evidence.h"
#include "agents/plan.h"

enum { MEMORY_INSIGHTS_MAX = 48 };
enum { PATH_MAX_NODES = 64, CASES_SHOWN = 4, CASE_TEXT_BYTES = 300, WHY_BYTES = 2000 };
enum { RENDER_MAX_BYTES = 4 << 20 };

/* ---- choosing ---- */

static void select_path(const struct search *search, int32_t node, struct memory *out)
{
    int32_t depth = search->tree.nodes[node].depth;
    int32_t count = depth + 1 < PATH_MAX_NODES ? depth + 1 : PATH_MAX_NODES;
    out->path_count = count;
    int32_t at = node;
    for (int32_t i = count - 1; i >= 0; i--) {
        out->path[i] = at;
        at = search->tree.nodes[at].parent;
    }
    out->path[0] = 0; /* the root, also where the middle of a deep path is left out */
}

static void select_siblings(const struct search *search, int32_t node, struct memory *out)
{
    const struct tree_node *nodes = search->tree.nodes;
    for (int32_t child = nodes[node].first_child; child >= 0; child = nodes[child].next_sibling) {
        if (nodes[child].state != TREE_NODE_OPEN && out->sibling_count < PATH_MAX_NODES) {
            out->siblings[out->sibling_count++] = child;
        }
    }
}

static bool is_chosen(const struct memory *memory, int32_t node)
{
    for (int32_t i = 0; i < memory->path_count; i++) {
        if (memory->path[i] == node) {
            return true;
        }
    }
    for (int32_t i = 0; i < memory->sibling_count; i++) {
        if (memory->siblings[i] == node) {
            return true;
        }
    }
    return false;
}

/* How notable a node is: a large gain over its parent first (by size), then failures and large
 * losses (newest first); 0: not at all. */
static double notability(const struct search *search, int32_t node)
{
    const struct candidate *best = evidence_best(search, node);
    const struct candidate *before = evidence_best(search, search->tree.nodes[node].parent);
    double age = (double)(node + 1) / (double)(search->tree.count + 1);
    if (search->tree.nodes[node].state == TREE_NODE_FAILED) {
        return age;
    }
    if (search->tree.nodes[node].state != TREE_NODE_CLOSED || best == NULL || before == NULL) {
        return 0.0;
    }
    double error;
    double gain = evidence_gain(search, &best->validation, &before->validation, &error);
    if (fabs(gain) <= EVIDENCE_ERRORS * error) {
        return 0.0;
    }
    return gain > 0.0 ? 2.0 + gain : age;
}

static void select_key(const struct search *search, struct memory *out)
{
    double notable[MEMORY_KEY_NODES_MAX];
    for (int32_t node = 1; node < search->tree.count; node++) {
        double value = is_chosen(out, node) ? 0.0 : notability(search, node);
        if (value <= 0.0) {
            continue;
        }
        int32_t at = out->key_count;
        if (at == MEMORY_KEY_NODES_MAX) {
            if (notable[at - 1] >= value) {
                continue;
            }
            at--;
        } else {
            out->key_count++;
        }
        for (; at > 0 && notable[at - 1] < value; at--) {
            notable[at] = notable[at - 1];
            out->key[at] = out->key[at - 1];
        }
        notable[at] = value;
        out->key[at] = node;
    }
}

void memory_select(const struct search *search, int32_t node, struct memory *out)
{
    memset(out, 0, sizeof(*out));
    if (node < 0 || node >= search->tree.count) {
        return;
    }
    select_path(search, node, out);
    select_siblings(search, node, out);
    select_key(search, out);
}

/* ---- writing ---- */

/* How much is said of a node. */
enum node_detail { DETAIL_LINE, DETAIL_DIAGNOSIS, DETAIL_PLAN, DETAIL_CASES };

struct detail {
    enum node_detail target, path, siblings, key;
    int32_t insights, others, path_nodes; /* most of each; others: siblings, and key nodes */
};

enum { ALL = 1 << 20 };
static const struct detail levels[] = {
    {DETAIL_CASES, DETAIL_CASES, DETAIL_CASES, DETAIL_CASES, ALL, ALL, ALL},
    {DETAIL_CASES, DETAIL_PLAN, DETAIL_PLAN, DETAIL_PLAN, ALL, ALL, ALL},
    {DETAIL_CASES, DETAIL_PLAN, DETAIL_DIAGNOSIS, DETAIL_DIAGNOSIS, ALL, ALL, ALL},
    {DETAIL_CASES, DETAIL_PLAN, DETAIL_DIAGNOSIS, DETAIL_LINE, 8, ALL, ALL},
    {DETAIL_PLAN, DETAIL_LINE, DETAIL_LINE, DETAIL_LINE, 8, ALL, ALL},
    {DETAIL_PLAN, DETAIL_LINE, DETAIL_LINE, DETAIL_LINE, 0, 3, ALL},
    {DETAIL_PLAN, DETAIL_LINE, DETAIL_LINE, DETAIL_LINE, 0, 3, 5},
    {DETAIL_LINE, DETAIL_LINE, DETAIL_LINE, DETAIL_LINE, 0, 0, 2},
};
enum { LEVEL_COUNT = sizeof(levels) / sizeof(levels[0]) };

/* The first bytes of a text, whole characters, line ends as spaces. */
static void append_cut(struct buffer *out, const char *text, size_t max_bytes)
{
    size_t length = strlen(text);
    bool cut = length > max_bytes;
    if (cut) {
        length = max_bytes;
        while (length > 0 && ((unsigned char)text[length] & 0xC0) == 0x80) {
            length--;
        }
    }
    for (size_t i = 0; i < length; i++) {
        buffer_append_char(out, text[i] == '\n' ? ' ' : text[i]);
    }
    if (cut) {
        buffer_append_text(out, "...");
    }
}

/* The best in full, the others by what sets them apart from it. */
static void append_config(const struct search_node *node, int32_t index, struct buffer *out)
{
    const char *text = search_text(node->candidates[index].config);
    struct train_config best;
    struct train_config config;
    bool apart = node->best >= 0 && node->best != index &&
                 plan_config_read(node->candidates[node->best].config, &best) &&
                 plan_config_read(text, &config);
    if (!apart) {
        buffer_append_text(out, text);
    } else if (plan_config_differences(&config, &best, out) == 0) {
        buffer_append_text(out, "as the best");
    }
}

static void append_configs(const struct search_node *node, int32_t id, struct buffer *out)
{
    for (int32_t i = 0; i < node->candidate_count; i++) {
        const struct candidate *candidate = &node->candidates[i];
        char name[SEARCH_NAME_BYTES];
        search_candidate_name(id, i, name);
        buffer_printf(out, "  %s%s: %s", name, i == node->best ? " (best)" : "",
                      candidate_state_name(candidate->state));
        if (candidate->validation.present) {
            buffer_printf(out, " with %.4g ± %.2g", candidate->validation.value,
                          candidate->validation.standard_error);
        } else if (candidate->state == CANDIDATE_FAILED) {
            buffer_printf(out, " (%s)", status_text(candidate->error->code));
        }
        buffer_append_text(out, ": ");
        append_config(node, i, out);
        buffer_append_char(out, '\n');
    }
}

static void append_cases(const struct search_node *node, struct buffer *out)
{
    const struct candidate *best = node->best >= 0 ? &node->candidates[node->best] : NULL;
    for (int32_t i = 0; best != NULL && i < best->case_count && i < CASES_SHOWN; i++) {
        buffer_append_text(out, "  failed: prompt \"");
        append_cut(out, search_text(best->cases[i].prompt), CASE_TEXT_BYTES);
        buffer_append_text(out, "\" answer \"");
        append_cut(out, search_text(best->cases[i].answer), CASE_TEXT_BYTES);
        buffer_append_text(out, "\" output \"");
        append_cut(out, search_text(best->cases[i].output), CASE_TEXT_BYTES);
        buffer_append_text(out, "\"\n");
    }
}

static void append_node(const struct search *search, int32_t id, enum node_detail detail,
                        struct buffer *out)
{
    const struct search_node *node = &search->nodes[id];
    const struct candidate *best = evidence_best(search, id);
    buffer_printf(out, "n%04d (%s", (int)id, search_text(node->strategy));
    if (search->tree.nodes[id].parent >= 0) {
        buffer_printf(out, ", after n%04d", (int)search->tree.nodes[id].parent);
    }
    buffer_append_text(out, ") ");
    if (best != NULL) {
        buffer_printf(out, "%s %.4g ± %.2g: ", search_text(search->identity.metric),
                      best->validation.value, best->validation.standard_error);
    } else {
        buffer_append_text(out, "failed: ");
    }
    append_cut(out, search_text(node->goal), CASE_TEXT_BYTES);
    buffer_append_char(out, '\n');
    if (detail >= DETAIL_PLAN) {
        buffer_append_text(out, "  why: ");
        append_cut(out, search_text(node->rationale), WHY_BYTES);
        buffer_printf(out, "\n  recipe: %s\n", search_text(node->recipe));
        append_configs(node, id, out);
    }
    if (detail >= DETAIL_DIAGNOSIS && node->diagnosis != NULL) {
        buffer_append_text(out, "  diagnosis: ");
        append_cut(out, node->diagnosis, (size_t)1 << 16);
        buffer_append_char(out, '\n');
    }
    if (detail >= DETAIL_CASES) {
        append_cases(node, out);
    }
}

static void append_path(const struct search *search, const struct memory *memory,
                        const struct detail *detail, struct buffer *out)
{
    buffer_append_text(out, "Path from the baseline to the node to refine:\n");
    int32_t last = memory->path_count - 1;
    for (int32_t i = 0; i <= last; i++) {
        if (i > 0 && last - i >= detail->path_nodes - 1) {
            continue; /* of the rest, those next to the last are kept */
        }
        append_node(search, memory->path[i], i == last ? detail->target : detail->path, out);
    }
}

static void append_list(const struct search *search, const char *title, const int32_t *ids,
                        int32_t count, enum node_detail detail, struct buffer *out)
{
    if (count <= 0) {
        return;
    }
    buffer_printf(out, "\n%s:\n", title);
    for (int32_t i = 0; i < count; i++) {
        append_node(search, ids[i], detail, out);
    }
}

static int32_t at_most(int32_t count, int32_t most)
{
    return count < most ? count : most;
}

/* Whether insight `a` goes before `b`: more nodes support it, or as many and it is newer. */
static bool goes_before(const struct search *search, int32_t a, int32_t b)
{
    int32_t more = search->insights[a].node_count - search->insights[b].node_count;
    return more > 0 || (more == 0 && a > b);
}

static int32_t rank_insights(const struct search *search, int32_t out[MEMORY_INSIGHTS_MAX])
{
    int32_t count = 0;
    for (int32_t i = 0; i < search->insight_count; i++) {
        int32_t at = count;
        if (search->insights[i].retired) {
            continue;
        }
        if (count == MEMORY_INSIGHTS_MAX) {
            if (!goes_before(search, i, out[count - 1])) {
                continue;
            }
            at--;
        } else {
            count++;
        }
        for (; at > 0 && goes_before(search, i, out[at - 1]); at--) {
            out[at] = out[at - 1];
        }
        out[at] = i;
    }
    return count;
}

static void append_insights(const struct search *search, int32_t most, struct buffer *out)
{
    int32_t ranked[MEMORY_INSIGHTS_MAX];
    int32_t count = at_most(rank_insights(search, ranked), most);
    if (count > 0) {
        buffer_append_text(out, "\nLearned so far:\n");
    }
    for (int32_t i = 0; i < count; i++) {
        const struct search_insight *insight = &search->insights[ranked[i]];
        buffer_printf(out, "- %s", search_text(insight->text));
        if (insight->node_count > 1) {
            buffer_printf(out, " (%d nodes)", (int)insight->node_count);
        }
        buffer_append_char(out, '\n');
    }
}

static void render(const struct search *search, const struct memory *memory,
                   const struct detail *detail, struct buffer *out)
{
    append_path(search, memory, detail, out);
    int32_t siblings = at_most(memory->sibling_count, detail->others);
    append_list(search, "Earlier attempts from there",
                memory->siblings + memory->sibling_count - siblings, siblings, detail->siblings,
                out);
    append_list(search, "Notable elsewhere", memory->key,
                at_most(memory->key_count, detail->others), detail->key, out);
    append_insights(search, detail->insights, out);
}

enum status memory_render(const struct search *search, const struct memory *memory,
                          size_t max_bytes, struct buffer *out, struct error *err)
{
    struct buffer text;
    buffer_init(&text, RENDER_MAX_BYTES);
    for (int level = 0; level < LEVEL_COUNT && memory->path_count > 0; level++) {
        buffer_clear(&text);
        render(search, memory, &levels[level], &text);
        if (!text.failed && text.len_bytes <= max_bytes) {
            break;
        }
    }
    enum status status = buffer_check(&text, "the memory of a node", err);
    if (status == STATUS_OK) {
        size_t length = text.len_bytes < max_bytes ? text.len_bytes : max_bytes;
        while (length < text.len_bytes && length > 0 &&
               ((unsigned char)text.data[length] & 0xC0) == 0x80) {
            length--;
        }
        buffer_append(out, buffer_text(&text), length);
        status = buffer_check(out, "the memory of a node", err);
    }
    buffer_fini(&text);
    return status;
}
