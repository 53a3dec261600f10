/* Figures of the whole search, brought up to date with what has ended since. Each is a minimum, a
 * maximum or a best with a rule for ties, so that the order in which candidates end does not
 * matter: a resumed search finds the same. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "agents/evidence.h"
#include "agents/plan.h"
#include "base/mem.h"

void evidence_index_init(struct evidence_index *index)
{
    memset(index, 0, sizeof(*index));
    for (int i = 0; i < EVIDENCE_METHODS; i++) {
        index->methods[i].best_node = -1;
        index->methods[i].best_candidate = -1;
    }
}

void evidence_index_fini(struct evidence_index *index)
{
    free(index->path_best);
    evidence_index_init(index);
}

/* ---- candidates ---- */

static bool candidate_diverged(const struct candidate *candidate)
{
    struct curve_reading curve;
    if (candidate->state == CANDIDATE_FAILED) {
        return candidate->error->code == STATUS_DIVERGED;
    }
    curve_read(candidate, &curve);
    return candidate->state == CANDIDATE_FINISHED && curve.diverged;
}

static void note_rate(struct evidence_method *method, double rate, bool diverged)
{
    if (diverged) {
        bool first = method->rate_diverged <= 0.0;
        method->rate_diverged = first ? rate : fmin(method->rate_diverged, rate);
        return;
    }
    bool first = method->rate_highest <= 0.0;
    method->rate_lowest = first ? rate : fmin(method->rate_lowest, rate);
    method->rate_highest = fmax(method->rate_highest, rate);
}

static bool is_earlier(int32_t node, int32_t candidate, int32_t than_node, int32_t than_candidate)
{
    return node < than_node || (node == than_node && candidate < than_candidate);
}

/* Ties go to the earlier. */
static void note_best(const struct search *search, struct evidence_method *method, int32_t node,
                      int32_t index, double rate)
{
    bool better = method->best_node < 0;
    if (!better) {
        const struct search_score *score = &search->nodes[node].candidates[index].validation;
        const struct search_score *best =
            &search->nodes[method->best_node].candidates[method->best_candidate].validation;
        double error;
        double gain = evidence_gain(search, score, best, &error);
        bool tie = !(gain > 0.0) && !(gain < 0.0);
        better = gain > 0.0 ||
                 (tie && is_earlier(node, index, method->best_node, method->best_candidate));
    }
    if (better) {
        method->best_node = node;
        method->best_candidate = index;
        method->best_rate = rate;
    }
}

/* Newest nodes first, the first candidate of a node first. */
static bool speed_comes_before(const struct evidence_speed *a, const struct evidence_speed *b)
{
    return a->node > b->node || (a->node == b->node && a->candidate < b->candidate);
}

static void note_speed(struct evidence_method *method, const struct candidate *candidate,
                       int32_t node, int32_t index)
{
    if (candidate->curve_count == 0) {
        return;
    }
    const struct search_curve_point *last = &candidate->curve[candidate->curve_count - 1];
    struct evidence_speed speed = {
        node, index, last->seconds > 0.0 ? (double)last->tokens / last->seconds : 0.0};
    if (!isfinite(speed.tokens_per_s) || speed.tokens_per_s <= 0.0) {
        return;
    }
    int at = method->speed_count;
    while (at > 0 && speed_comes_before(&speed, &method->speeds[at - 1])) {
        at--;
    }
    if (at == EVIDENCE_SPEEDS_MAX) {
        return;
    }
    method->speed_count += method->speed_count < EVIDENCE_SPEEDS_MAX;
    memmove(&method->speeds[at + 1], &method->speeds[at],
            (size_t)(method->speed_count - 1 - at) * sizeof(speed));
    method->speeds[at] = speed;
}

static void note_candidate(struct evidence_index *index, const struct search *search, int32_t node,
                           int32_t number)
{
    const struct candidate *candidate = &search->nodes[node].candidates[number];
    struct train_config config;
    bool diverged = candidate_diverged(candidate);
    bool finished = candidate->state == CANDIDATE_FINISHED;
    if (node == 0 || (!diverged && !finished) || !plan_config_read(candidate->config, &config)) {
        return;
    }
    struct evidence_method *method = &index->methods[config.method];
    note_rate(method, config.learning_rate, diverged);
    if (finished) {
        note_best(search, method, node, number, config.learning_rate);
        note_speed(method, candidate, node, number);
    }
}

/* ---- nodes ---- */

static enum status reserve_paths(struct evidence_index *index, int32_t count, struct error *err)
{
    if (count <= index->path_capacity) {
        return STATUS_OK;
    }
    int32_t capacity = count > 2 * index->path_capacity ? count : 2 * index->path_capacity;
    int32_t *grown = mem_realloc(index->path_best, (size_t)capacity, sizeof(*grown));
    if (grown == NULL) {
        return mem_fail(err, (size_t)capacity * sizeof(*grown), "the best of each path");
    }
    index->path_best = grown;
    index->path_capacity = capacity;
    return STATUS_OK;
}

/* Of equal rewards the deeper node is the best. Parents are closed before their children exist. */
static void note_closed(struct evidence_index *index, const struct search *search, int32_t node)
{
    const struct tree_node *nodes = search->tree.nodes;
    int32_t above = node > 0 ? index->path_best[nodes[node].parent] : -1;
    bool counts = nodes[node].state == TREE_NODE_CLOSED && evidence_is_trained(search, node);
    bool better = counts && (above < 0 || !(nodes[above].reward > nodes[node].reward));
    index->path_best[node] = better ? node : above;
}

enum status evidence_index_update(struct evidence_index *index, const struct search *search,
                                  struct error *err)
{
    TRY(reserve_paths(index, search->tree.count, err));
    for (; index->read < search->settled_count; index->read++) {
        const struct search_settled *settled = &search->settled[index->read];
        if (settled->candidate >= 0) {
            note_candidate(index, search, settled->node, settled->candidate);
        } else {
            note_closed(index, search, settled->node);
        }
    }
    return STATUS_OK;
}

/* ---- answers ---- */

int32_t evidence_best_on_path(const struct evidence_index *index, int32_t node)
{
    return index->path_best[node];
}

double evidence_best_rate(const struct evidence_index *index, enum train_method method)
{
    return index->methods[method].best_node >= 0 ? index->methods[method].best_rate : 0.0;
}

double evidence_speed(const struct evidence_index *index, enum train_method method)
{
    const struct evidence_method *known = &index->methods[method];
    double slowest = known->speed_count > 0 ? known->speeds[0].tokens_per_s : 0.0;
    for (int i = 1; i < known->speed_count; i++) {
        slowest = fmin(slowest, known->speeds[i].tokens_per_s);
    }
    return slowest;
}
