#include "agents/diagnosis.h"

#include <inttypes.h>
#include <math.h>

#include "agents/plan.h"

enum { INSIGHTS_MAX = 3, DIFFERENCES_MAX = 2, TEXT_MAX_BYTES = 4096 };
#define SHARE_WORTH_SAYING 0.005

/* ---- curves ---- */

void diagnosis_append_curve(const struct curve_reading *curve, struct buffer *out)
{
    if (curve->points == 0) {
        buffer_append_text(out, "no curve was recorded.");
        return;
    }
    buffer_printf(out, "train loss went from %.3g to %.3g", curve->train_first, curve->train_last);
    if (curve->validations > 0) {
        buffer_printf(out, ", validation loss from %.4g to %.4g", curve->validation_first,
                      curve->validation_last);
    }
    buffer_printf(out, " in %" PRId64 " steps", curve->last_step);
    if (curve->diverged) {
        buffer_append_text(out, ": it diverged.");
    } else if (curve->overfit) {
        buffer_printf(out, "; validation was best, %.4g, at step %" PRId64 ": overfitting.",
                      curve->validation_best, curve->best_step);
    } else if (curve->underfit) {
        buffer_append_text(out, " and was still falling: underfitting.");
    } else {
        buffer_append_text(out, " and had settled.");
    }
}

/* ---- scores ---- */

static void append_name(int32_t node, int32_t candidate, struct buffer *out)
{
    char name[SEARCH_NAME_BYTES];
    search_candidate_name(node, candidate, name);
    buffer_append_text(out, name);
}

static void append_comparison(const struct search *search, const struct search_score *score,
                              const struct search_score *other, const char *whose,
                              struct buffer *out)
{
    double error;
    double gain = evidence_gain(search, score, other, &error);
    const char *word = gain > 0.0 ? "better" : "worse";
    buffer_printf(out, ", %.4g ± %.2g %s than %s (%.4g)%s", fabs(gain), error, word, whose,
                  other->value, fabs(gain) > EVIDENCE_ERRORS * error ? "" : ", within noise");
}

static void append_score(const struct search *search, const struct evidence *evidence,
                         struct buffer *out)
{
    const struct search_score *score = &evidence->best->validation;
    int32_t parent_id = search->tree.nodes[evidence->node].parent;
    const struct candidate *parent = evidence_best(search, parent_id);
    const struct candidate *root = evidence_best(search, 0);
    buffer_append_text(out, parent_id < 0 ? "Baseline " : "Best ");
    append_name(evidence->node, evidence->best_index, out);
    buffer_printf(out, ": %s %.4g ± %.2g on %" PRId64 " rows", search_text(search->identity.metric),
                  score->value, score->standard_error, score->rows);
    if (parent != NULL && parent_id > 0) {
        append_comparison(search, score, &parent->validation, "its parent", out);
    }
    if (root != NULL && parent_id >= 0) {
        append_comparison(search, score, &root->validation, "the baseline", out);
    }
    buffer_append_text(out, ".\n");
}

/* ---- errors ---- */

static void append_errors(const struct evidence *evidence, struct buffer *out)
{
    const struct search_score *score = &evidence->best->validation;
    if (evidence->confusion != NULL) {
        buffer_printf(out, "Confusions:");
        int32_t count = evidence->best->confusion_count < 3 ? evidence->best->confusion_count : 3;
        for (int32_t i = 0; i < count; i++) {
            const struct search_confusion *confusion = &evidence->best->confusions[i];
            buffer_printf(out, "%s \"%.40s\" answered \"%.40s\" %" PRId64 " times",
                          i > 0 ? "," : "", confusion->expected, confusion->found,
                          confusion->count);
        }
        buffer_append_text(out, ".\n");
    }
    if (evidence->format_share > SHARE_WORTH_SAYING) {
        buffer_printf(out, "Form: %" PRId64 " outputs (%.1f %%) are no possible answer.\n",
                      score->format_failures, 100.0 * evidence->format_share);
    }
    if (evidence->unfinished_share > SHARE_WORTH_SAYING) {
        buffer_printf(out, "Length: %" PRId64 " outputs (%.1f %%) ran into the limit.\n",
                      score->unfinished, 100.0 * evidence->unfinished_share);
    }
    if (evidence->truncated_share > SHARE_WORTH_SAYING) {
        buffer_printf(out, "Truncation: %" PRId64 " prompts (%.1f %%) were cut to fit.\n",
                      score->truncated, 100.0 * evidence->truncated_share);
    }
}

static void append_failures(const struct search *search, const struct evidence *evidence,
                            struct buffer *out)
{
    const struct search_node *node = &search->nodes[evidence->node];
    for (int32_t i = 0; i < node->candidate_count; i++) {
        const struct candidate *candidate = &node->candidates[i];
        struct train_config config;
        if (candidate->state != CANDIDATE_FAILED) {
            continue;
        }
        buffer_append_text(out, "Failed: ");
        append_name(evidence->node, i, out);
        if (plan_config_read(candidate->config, &config)) {
            buffer_printf(out, " (learning rate %.2g)", config.learning_rate);
        }
        buffer_printf(out, ": %s: %.300s.\n", status_text(candidate->error->code),
                      candidate->error->message);
    }
}

/* ---- what to try ---- */

static void append_advice(const struct evidence *evidence, const struct researcher_facts *facts,
                          struct buffer *out)
{
    buffer_append_text(out, "To try:");
    size_t before = out->len_bytes;
    if (evidence->no_memory > 0) {
        buffer_append_text(out, " smaller micro-batches or an adapter;");
    }
    if (evidence->diverged > 0) {
        buffer_append_text(out, " lower learning rates, longer warm-up, clipping;");
    }
    if (evidence->at_high_edge) {
        buffer_printf(out, " learning rates above %.2g;", evidence->rate_highest);
    }
    if (evidence->at_low_edge) {
        buffer_printf(out, " learning rates below %.2g;", evidence->rate_lowest);
    }
    if (evidence->curve.underfit) {
        buffer_append_text(out, " more epochs;");
    }
    if (evidence->curve.overfit) {
        buffer_append_text(out, " fewer epochs, weight decay, more rows, an adapter;");
    }
    if (evidence->trained && evidence->format_share > SHARE_WORTH_SAYING) {
        buffer_append_text(out, " more sight of the answers' form;");
    }
    if (evidence->truncated_share > SHARE_WORTH_SAYING) {
        buffer_append_text(out, " longer sequences or shorter prompts;");
    }
    if (evidence->trained && evidence->confusion != NULL && facts->label_count >= 2) {
        buffer_printf(out, " rows of \"%.40s\";", evidence->confusion->expected);
    }
    if (out->len_bytes == before) {
        buffer_append_text(out, evidence->trained
                                    ? " small steps around the best, batch size, schedule;"
                                    : " training with the usual settings;");
    }
    if (!out->failed) {
        out->data[out->len_bytes - 1] = '.';
    }
}

void diagnosis_append(const struct search *search, const struct evidence_index *index,
                      const struct researcher_facts *facts, int32_t node, struct buffer *out)
{
    struct evidence evidence;
    evidence_read(search, index, node, &evidence);
    if (evidence.best != NULL) {
        append_score(search, &evidence, out);
        if (evidence.trained) {
            buffer_append_text(out, "Training: ");
            diagnosis_append_curve(&evidence.curve, out);
            buffer_append_char(out, '\n');
        }
        append_errors(&evidence, out);
    } else {
        buffer_printf(out, "None of %d candidates finished.\n", (int)evidence.failed);
    }
    append_failures(search, &evidence, out);
    append_advice(&evidence, facts, out);
}

/* ---- insights ---- */

static bool add_insight(cJSON *insights, const struct buffer *text, int32_t node)
{
    cJSON *insight = cJSON_CreateObject();
    bool whole =
        !text->failed && cJSON_AddStringToObject(insight, "text", buffer_text(text)) != NULL;
    const double id = (double)node;
    cJSON *nodes = cJSON_CreateDoubleArray(&id, 1);
    if (!cJSON_AddItemToObject(insight, "nodes", nodes)) {
        cJSON_Delete(nodes);
        whole = false;
    }
    if (!whole || !cJSON_AddItemToArray(insights, insight)) {
        cJSON_Delete(insight);
        return false;
    }
    return true;
}

/* "learning_rate 0.003 against 0.001: accuracy better by 0.041 ± 0.018 (n0001)" */
static bool compare_pair(const struct search *search, const struct evidence *evidence,
                         int32_t other, cJSON *insights)
{
    const struct candidate *candidate = &search->nodes[evidence->node].candidates[other];
    struct train_config config;
    double error;
    if (other == evidence->best_index || candidate->state != CANDIDATE_FINISHED ||
        !plan_config_read(candidate->config, &config)) {
        return true;
    }
    double gain =
        evidence_gain(search, &evidence->best->validation, &candidate->validation, &error);
    struct buffer text;
    buffer_init(&text, TEXT_MAX_BYTES);
    int count = plan_config_differences(&evidence->config, &config, &text);
    bool telling = count > 0 && count <= DIFFERENCES_MAX && gain > EVIDENCE_ERRORS * error;
    buffer_printf(&text, ": %s better by %.3g ± %.2g (n%04d, %s, %.3g epochs)",
                  search_text(search->identity.metric), gain, error, (int)evidence->node,
                  train_method_names[evidence->config.method], evidence->config.epochs);
    bool whole = !telling || add_insight(insights, &text, evidence->node);
    buffer_fini(&text);
    return whole;
}

static bool note_divergence(const struct evidence *evidence, cJSON *insights)
{
    if (evidence->diverged == 0 || evidence->rate_diverged <= 0.0) {
        return true;
    }
    struct buffer text;
    buffer_init(&text, TEXT_MAX_BYTES);
    buffer_printf(&text, "%s fine-tuning diverges from a learning rate of %.2g on (n%04d)",
                  train_method_names[evidence->config.method], evidence->rate_diverged,
                  (int)evidence->node);
    bool whole = add_insight(insights, &text, evidence->node);
    buffer_fini(&text);
    return whole;
}

/* What this round's strategy brought, if that is beyond the noise. */
static bool note_gain(const struct search *search, const struct evidence *evidence, cJSON *insights)
{
    int32_t parent = search->tree.nodes[evidence->node].parent;
    const struct candidate *before = evidence_best(search, parent);
    double error;
    if (before == NULL) {
        return true;
    }
    double gain = evidence_gain(search, &evidence->best->validation, &before->validation, &error);
    if (fabs(gain) <= EVIDENCE_ERRORS * error) {
        return true;
    }
    struct buffer text;
    buffer_init(&text, TEXT_MAX_BYTES);
    buffer_printf(&text, "\"%.120s\" made %s %s by %.3g ± %.2g (n%04d after n%04d)",
                  search_text(search->nodes[evidence->node].goal),
                  search_text(search->identity.metric), gain > 0.0 ? "better" : "worse", fabs(gain),
                  error, (int)evidence->node, (int)parent);
    bool whole = add_insight(insights, &text, evidence->node);
    buffer_fini(&text);
    return whole;
}

cJSON *diagnosis_insights(const struct search *search, const struct evidence_index *index,
                          int32_t node)
{
    struct evidence evidence;
    cJSON *insights = cJSON_CreateArray();
    evidence_read(search, index, node, &evidence);
    bool whole = insights != NULL;
    if (evidence.trained) {
        whole = whole && note_gain(search, &evidence, insights);
        whole = whole && note_divergence(&evidence, insights);
        for (int32_t i = 0; i < search->nodes[node].candidate_count && whole; i++) {
            if (cJSON_GetArraySize(insights) < INSIGHTS_MAX) {
                whole = compare_pair(search, &evidence, i, insights);
            }
        }
    }
    if (!whole) {
        cJSON_Delete(insights);
        return NULL;
    }
    return insights;
}
