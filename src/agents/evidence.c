#include "agents/evidence.h"

#include <math.h>
#include <string.h>

#include "agents/plan.h"

/* Changes of a loss below this share of it are the ripple of a training that has settled. */
#define LOSS_RIPPLE 0.01
#define OVERFIT_RISE 0.02
#define DIVERGED_RISE 1.3
enum { DIVERGED_POINTS_MIN = 5 };

/* ---- curves ---- */

static double mean_train_loss(const struct candidate *candidate, int32_t from, int32_t to)
{
    double sum = 0.0;
    for (int32_t i = from; i < to; i++) {
        sum += candidate->curve[i].train_loss;
    }
    return sum / (double)(to - from);
}

/* Mean train loss of the tenth of the points that ends before `end`. */
static double train_loss_before(const struct candidate *candidate, int32_t end)
{
    int32_t width = candidate->curve_count / 10 > 0 ? candidate->curve_count / 10 : 1;
    int32_t from = end > width ? end - width : 0;
    return mean_train_loss(candidate, from, end > from ? end : from + 1);
}

struct validation_walk {
    double before_last; /* validation loss before the last one; NaN if there are less than two */
    int32_t best_index;
};

static struct validation_walk walk_validations(const struct candidate *candidate,
                                               struct curve_reading *out)
{
    struct validation_walk walk = {.before_last = NAN, .best_index = -1};
    for (int32_t i = 0; i < candidate->curve_count; i++) {
        double loss = candidate->curve[i].validation_loss;
        if (!isfinite(loss)) {
            continue;
        }
        if (out->validations++ == 0) {
            out->validation_first = loss;
        }
        walk.before_last = out->validation_last;
        out->validation_last = loss;
        if (walk.best_index < 0 || loss < out->validation_best) {
            out->validation_best = loss;
            out->best_step = candidate->curve[i].step;
            walk.best_index = i;
        }
    }
    return walk;
}

void curve_read(const struct candidate *candidate, struct curve_reading *out)
{
    memset(out, 0, sizeof(*out));
    out->validation_first = out->validation_last = out->validation_best = NAN;
    out->points = candidate->curve_count;
    if (out->points == 0) {
        return;
    }
    int32_t tenth = out->points / 10 > 0 ? out->points / 10 : 1;
    out->last_step = candidate->curve[out->points - 1].step;
    out->train_first = mean_train_loss(candidate, 0, tenth);
    out->train_last = train_loss_before(candidate, out->points);
    out->diverged =
        !isfinite(out->train_last) ||
        (out->points >= DIVERGED_POINTS_MIN && out->train_last > DIVERGED_RISE * out->train_first);
    struct validation_walk walk = walk_validations(candidate, out);
    if (out->diverged) {
        return;
    }
    if (out->validations >= 2) {
        double train_at_best = train_loss_before(candidate, walk.best_index + 1);
        out->overfit = out->validation_last > (1.0 + OVERFIT_RISE) * out->validation_best &&
                       out->train_last < train_at_best;
        out->underfit = out->validation_last <= out->validation_best &&
                        out->validation_last < (1.0 - LOSS_RIPPLE) * walk.before_last;
    } else {
        double earlier = train_loss_before(candidate, out->points * 3 / 4 + 1);
        out->underfit = out->points >= DIVERGED_POINTS_MIN &&
                        out->train_last < (1.0 - 2.0 * LOSS_RIPPLE) * earlier;
    }
}

/* ---- a round ---- */

const struct candidate *evidence_best(const struct search *search, int32_t node)
{
    if (node < 0 || node >= search->tree.count || search->nodes[node].best < 0) {
        return NULL;
    }
    return &search->nodes[node].candidates[search->nodes[node].best];
}

bool evidence_is_trained(const struct search *search, int32_t node)
{
    const struct candidate *best = evidence_best(search, node);
    return node > 0 && best != NULL;
}

static void count_failures(const struct search_node *node, struct evidence *out)
{
    for (int32_t i = 0; i < node->candidate_count; i++) {
        const struct candidate *candidate = &node->candidates[i];
        struct curve_reading curve;
        curve_read(candidate, &curve);
        bool failed = candidate->state == CANDIDATE_FAILED;
        out->finished += candidate->state == CANDIDATE_FINISHED;
        out->failed += failed;
        out->diverged += failed ? candidate->error->code == STATUS_DIVERGED : curve.diverged;
        out->no_memory += failed && candidate->error->code == STATUS_NO_MEMORY;
    }
}

static void read_shares(struct evidence *out)
{
    const struct search_score *score = &out->best->validation;
    double rows = score->rows > 0 ? (double)score->rows : 1.0;
    out->format_share = (double)score->format_failures / rows;
    out->unfinished_share = (double)score->unfinished / rows;
    out->truncated_share = (double)score->truncated / rows;
    for (int32_t i = 0; i < out->best->confusion_count; i++) {
        const struct search_confusion *confusion = &out->best->confusions[i];
        if (out->confusion == NULL || confusion->count > out->confusion->count) {
            out->confusion = confusion;
            out->confusion_share = (double)confusion->count / rows;
        }
    }
}

void evidence_read(const struct search *search, const struct evidence_index *index, int32_t node,
                   struct evidence *out)
{
    memset(out, 0, sizeof(*out));
    out->node = node;
    out->best_index = search->nodes[node].best;
    out->best = evidence_best(search, node);
    out->config = train_config_default();
    count_failures(&search->nodes[node], out);
    if (out->best == NULL) {
        return;
    }
    read_shares(out);
    curve_read(out->best, &out->curve);
    out->trained =
        evidence_is_trained(search, node) && plan_config_read(out->best->config, &out->config);
    if (!out->trained) {
        return;
    }
    const struct evidence_method *method = &index->methods[out->config.method];
    out->rate_lowest = method->rate_lowest;
    out->rate_highest = method->rate_highest;
    out->rate_diverged = method->rate_diverged;
    double rate = out->config.learning_rate;
    bool several = out->rate_highest > out->rate_lowest || out->rate_diverged > 0.0;
    out->at_low_edge = several && rate <= out->rate_lowest;
    out->at_high_edge = several && rate >= out->rate_highest && out->rate_diverged <= 0.0;
}

double evidence_gain(const struct search *search, const struct search_score *score,
                     const struct search_score *over, double *standard_error)
{
    double gain = score->value - over->value;
    *standard_error = hypot(score->standard_error, over->standard_error);
    return search->identity.larger_is_better ? gain : -gain;
}
