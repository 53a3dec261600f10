/* What was tried in this search, and with what success. */
#include <stdio.h>
#include <string.h>

#include "agents/rules.h"
#include "base/hash.h"

void rules_history_init(struct rules_history *history)
{
    memset(history, 0, sizeof(*history));
    evidence_index_init(&history->evidence);
    plan_set_init(&history->tried);
    plan_set_init(&history->taken);
}

void rules_history_fini(struct rules_history *history)
{
    evidence_index_fini(&history->evidence);
    plan_set_fini(&history->tried);
    plan_set_fini(&history->taken);
}

/* ---- directions that were taken ---- */

/* A goal begins with its direction's title and a colon. */
static size_t title_length(const char *goal)
{
    return strcspn(goal, ":");
}

/* "<title>\n<where from>" as a member of the set. */
static void taken_key(const char *title, size_t title_bytes, const char *from, size_t from_bytes,
                      char out[HASH_TEXT_BYTES])
{
    char text[256];
    int length =
        snprintf(text, sizeof(text), "%.*s\n%.*s", (int)title_bytes, title, (int)from_bytes, from);
    hash_bytes(text, length < (int)sizeof(text) ? (size_t)length : sizeof(text) - 1, out);
}

static void parent_key(const char *title, size_t title_bytes, int32_t parent,
                       char out[HASH_TEXT_BYTES])
{
    char from[32];
    int length = snprintf(from, sizeof(from), "parent %d", (int)parent);
    taken_key(title, title_bytes, from, (size_t)length, out);
}

/* Length of a candidate's name (n0007-c2) at the beginning of a text, 0 if there is none. */
static size_t name_length(const char *text)
{
    size_t digits = text[0] == 'n' ? strspn(text + 1, "0123456789") : 0;
    const char *rest = text + 1 + digits;
    bool fits = digits >= 4 && rest[0] == '-' && rest[1] == 'c' && rest[2] >= '0' && rest[2] <= '9';
    return fits ? digits + 4 : 0;
}

/* Adds the direction of a goal with each base that the goal names. */
static enum status note_bases(struct rules_history *history, const char *goal, struct error *err)
{
    char key[HASH_TEXT_BYTES];
    size_t title_bytes = title_length(goal);
    for (const char *at = strchr(goal, 'n'); at != NULL; at = strchr(at + 1, 'n')) {
        size_t bytes = name_length(at);
        if (bytes > 0) {
            taken_key(goal, title_bytes, at, bytes, key);
            TRY(plan_set_add(&history->taken, key, err));
        }
    }
    if (strstr(goal, RULES_USUAL_SETTINGS) != NULL) {
        taken_key(goal, title_bytes, RULES_USUAL_SETTINGS, strlen(RULES_USUAL_SETTINGS), key);
        TRY(plan_set_add(&history->taken, key, err));
    }
    return STATUS_OK;
}

enum status rules_history_note(struct rules_history *history, const char *goal, int32_t parent,
                               struct error *err)
{
    char key[HASH_TEXT_BYTES];
    if (strchr(goal, ':') == NULL) {
        return STATUS_OK; /* of no direction */
    }
    parent_key(goal, title_length(goal), parent, key);
    TRY(plan_set_add(&history->taken, key, err));
    return note_bases(history, goal, err);
}

bool rules_history_is_taken(const struct rules_history *history,
                            const struct rules_direction *direction, int32_t parent,
                            const char *base_name)
{
    char from_parent[HASH_TEXT_BYTES];
    char from_base[HASH_TEXT_BYTES];
    size_t title_bytes = strlen(direction->title);
    parent_key(direction->title, title_bytes, parent, from_parent);
    taken_key(direction->title, title_bytes, base_name, strlen(base_name), from_base);
    return plan_set_has(&history->taken, from_parent) || plan_set_has(&history->taken, from_base);
}

/* ---- what they brought ---- */

/* Index of the direction that a goal is of, -1 if it is of none. */
static int find_direction(const char *goal)
{
    const struct rules_direction *directions = rules_directions();
    size_t length = title_length(goal);
    for (int i = 0; directions[i].title != NULL && i < RULES_DIRECTIONS_MAX; i++) {
        if (goal[length] == ':' && strlen(directions[i].title) == length &&
            memcmp(goal, directions[i].title, length) == 0) {
            return i;
        }
    }
    return -1;
}

static void note_outcome(struct rules_history *history, const struct search *search, int32_t id)
{
    const struct tree_node *node = &search->tree.nodes[id];
    int direction = id > 0 ? find_direction(search_text(search->nodes[id].goal)) : -1;
    if (direction < 0) {
        return;
    }
    bool better =
        node->state == TREE_NODE_CLOSED && node->reward > search->tree.nodes[node->parent].reward;
    history->records[direction].balance += better ? 1.0 : -1.0;
    history->records[direction].count += 1.0;
}

double rules_history_record(const struct rules_history *history,
                            const struct rules_direction *direction)
{
    int index = (int)(direction - rules_directions());
    return history->records[index].balance / (1.0 + history->records[index].count);
}

enum status rules_history_update(struct rules_history *history, const struct search *search,
                                 struct error *err)
{
    TRY(evidence_index_update(&history->evidence, search, err));
    TRY(plan_set_add_search(&history->tried, search, history->seen_nodes, err));
    for (; history->seen_nodes < search->tree.count; history->seen_nodes++) {
        int32_t id = history->seen_nodes;
        if (id > 0) {
            TRY(rules_history_note(history, search_text(search->nodes[id].goal),
                                   search->tree.nodes[id].parent, err));
        }
    }
    for (; history->seen_settled < search->settled_count; history->seen_settled++) {
        const struct search_settled *settled = &search->settled[history->seen_settled];
        if (settled->candidate < 0) {
            note_outcome(history, search, settled->node);
        }
    }
    return STATUS_OK;
}
