/* What a prompt says of the job: task, data, model, limits, what is at hand. Texts that a stranger
 * may have written go in quoted; so does the task, whose labels and templates may look like
 * anything. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "agents/model_parts.h"
#include "data/recipe.h"
#include "net/source.h"

enum {
    SAMPLE_SHOWN_BYTES = 800,
    LABELS_SHOWN = 24,
    GOAL_SHOWN_BYTES = 2000,
    NOTE_SHOWN_BYTES = 700,
    TITLE_SHOWN_BYTES = 200,
    TEMPLATE_SHOWN_BYTES = 1200
};

const char *model_text(const cJSON *object, const char *key)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
    return text != NULL ? text : "";
}

void model_append_line(struct buffer *out, const char *text, size_t max_bytes)
{
    size_t length = strnlen(text, max_bytes + 1);
    bool cut = length > max_bytes;
    length = cut ? max_bytes : length;
    while (cut && length > 0 && ((unsigned char)text[length] & 0xC0) == 0x80) {
        length--;
    }
    bool space = false;
    for (size_t i = 0; i < length; i++) {
        bool blank = (unsigned char)text[i] <= ' ';
        if (blank && space) {
            continue;
        }
        buffer_append_char(out, blank ? ' ' : text[i]);
        space = blank;
    }
    if (cut) {
        buffer_append_text(out, "...");
    }
}

/* ---- the job ---- */

static void append_list(struct buffer *out, const char *what, char *const *texts, int count)
{
    if (count == 0) {
        return;
    }
    buffer_printf(out, "%s:", what);
    for (int i = 0; i < count && i < LABELS_SHOWN; i++) {
        buffer_append_text(out, i > 0 ? ", \"" : " \"");
        model_append_line(out, texts[i], 60);
        buffer_append_char(out, '"');
    }
    buffer_append_text(out, count > LABELS_SHOWN ? ", ...\n" : "\n");
}

static void append_text(struct buffer *out, const char *what, const char *text)
{
    if (text != NULL && text[0] != '\0') {
        buffer_printf(out, "%s: ", what);
        model_append_line(out, text, TEMPLATE_SHOWN_BYTES);
        buffer_append_char(out, '\n');
    }
}

static void append_task(const struct researcher_facts *facts, const struct search *search,
                        struct buffer *out)
{
    const struct task *task = facts->task;
    buffer_printf(out,
                  "metric: %s, from %g (worst) to %g (best); measured on the validation split\n",
                  search_text(search->identity.metric), facts->metric_worst, facts->metric_best);
    if (task == NULL) {
        return;
    }
    append_text(out, "name", task->name);
    append_text(out, "what the model reads", task->template_text);
    append_text(out, "what it should write", task->answer_template);
    append_text(out, "system message", task->system);
    append_list(out, "labels", task->labels, task->label_count);
    if (task->predict == TASK_PREDICT_CHOICE) {
        buffer_append_text(out, "answered by: the most likely of the row's choices\n");
    } else {
        buffer_printf(out, "answered by: text, at most %lld tokens%s\n",
                      (long long)task->max_new_tokens, task->thinking ? ", after thinking" : "");
    }
}

static void append_data(const struct researcher_facts *facts, struct buffer *out)
{
    buffer_printf(out,
                  "- training rows: %lld, of which %lld are duplicates; validation rows: %lld\n",
                  (long long)facts->train_rows, (long long)facts->train_duplicates,
                  (long long)facts->validation_rows);
    buffer_printf(
        out,
        "- tokens: prompts %.0f on average, 19 of 20 at most %.0f; answers %.0f and %.0f; "
        "longest row %lld\n",
        facts->prompt_tokens_mean, facts->prompt_tokens_p95, facts->answer_tokens_mean,
        facts->answer_tokens_p95, (long long)facts->sequence_tokens_max);
    if (facts->label_count > 0) {
        buffer_printf(out,
                      "- answers: %d distinct ones; the most frequent has %.0f %% of the rows\n",
                      facts->label_count, 100.0 * facts->majority_share);
    }
}

static void append_limits(const struct researcher_facts *facts, struct buffer *out)
{
    buffer_printf(out, "- a round: %d configurations on one recipe", facts->configurations);
    if (facts->max_samples > 0) {
        buffer_printf(out, ", at most %lld training rows", (long long)facts->max_samples);
    }
    buffer_append_text(out, "\n- a configuration:");
    if (facts->sequence_length > 0) {
        buffer_printf(out, " sequences of at most %lld tokens,", (long long)facts->sequence_length);
    }
    if (facts->max_steps > 0) {
        buffer_printf(out, " at most %lld steps,", (long long)facts->max_steps);
    }
    buffer_printf(out, " micro-batches of at most %lld tokens\n", (long long)facts->batch_tokens);
    double epochs = rules_epochs_fit(facts, facts->tokens_per_second, rules_usable_rows(facts));
    if (isfinite(epochs) && facts->tokens_per_second > 0.0) {
        buffer_printf(
            out,
            "- time: %.0f s a configuration at about %.0f tokens a second: %.2g epochs of "
            "all rows\n",
            facts->candidate_seconds, facts->tokens_per_second, epochs);
    }
}

static void append_facts(const struct researcher_facts *facts, struct buffer *out)
{
    append_data(facts, out);
    buffer_printf(
        out,
        "- model: %.4g million parameters, %lld layers, hidden size %lld, %lld positions, "
        "%s%s\n",
        1e-6 * (double)facts->model_parameters, (long long)facts->model_layers,
        (long long)facts->model_hidden, (long long)facts->model_max_positions,
        facts->chat_model ? "with a chat template" : "no chat model",
        facts->lora_only ? "; only lora fits in memory" : "");
    append_limits(facts, out);
    buffer_printf(out, "- usual learning rates for this size: lora %.2g",
                  rules_learning_rate(TRAIN_LORA, facts->model_parameters));
    if (!facts->lora_only) {
        buffer_printf(out, ", full %.2g", rules_learning_rate(TRAIN_FULL, facts->model_parameters));
    }
    buffer_append_char(out, '\n');
}

void model_add_job(struct model *model, const struct search *search, struct model_values *values)
{
    struct buffer text;
    buffer_init(&text, MODEL_TEXT_MAX_BYTES);
    model_append_line(&text, model->facts->goal != NULL ? model->facts->goal : "",
                      GOAL_SHOWN_BYTES);
    model_add_value(values, "goal", &text, MODEL_OURS, 0);
    buffer_init(&text, MODEL_TEXT_MAX_BYTES);
    append_task(model->facts, search, &text);
    model_add_value(values, "task", &text, MODEL_QUOTED, 2);
    buffer_init(&text, MODEL_TEXT_MAX_BYTES);
    append_facts(model->facts, &text);
    model_add_value(values, "facts", &text, MODEL_OURS, 1);
}

void model_add_samples(struct model *model, struct model_values *values, int trim)
{
    const struct researcher_facts *facts = model->facts;
    struct buffer text;
    buffer_init(&text, MODEL_TEXT_MAX_BYTES);
    for (int i = 0; i < facts->sample_count && i < RESEARCHER_SAMPLES_MAX; i++) {
        buffer_printf(&text, "row %d reads: ", i + 1);
        model_append_line(&text, search_text(facts->samples[i].prompt), SAMPLE_SHOWN_BYTES);
        buffer_append_text(&text, "\n      answer: ");
        model_append_line(&text, search_text(facts->samples[i].answer), SAMPLE_SHOWN_BYTES);
        buffer_append_char(&text, '\n');
    }
    model_add_value(values, "samples", &text, MODEL_QUOTED, trim);
}

/* ---- brief and documents ---- */

static void append_item(struct buffer *out, const cJSON *object, const char *key, const char *what)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
    if (text != NULL) {
        buffer_append_text(out, what);
        model_append_line(out, text, 1500);
    }
}

void model_add_brief(const struct search *search, struct model_values *values, int trim)
{
    struct buffer text;
    buffer_init(&text, MODEL_TEXT_MAX_BYTES);
    cJSON *brief = cJSON_Parse(search_text(search->brief));
    append_item(&text, brief, "summary", "");
    append_item(&text, brief, "scoring", "\nscoring: ");
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, cJSON_GetObjectItemCaseSensitive(brief, "hypotheses")) {
        append_item(&text, item, "claim", "\nhypothesis: ");
        append_item(&text, item, "test", "; test: ");
        append_item(&text, item, "refuted_if", "; refuted if: ");
    }
    cJSON_ArrayForEach (item, cJSON_GetObjectItemCaseSensitive(brief, "obstacles")) {
        if (cJSON_IsString(item)) {
            buffer_append_text(&text, "\nobstacle: ");
            model_append_line(&text, item->valuestring, 400);
        }
    }
    cJSON_Delete(brief);
    model_add_value(values, "brief", &text, MODEL_QUOTED, trim);
}

void model_add_sources(struct model_values *values, int kind)
{
    struct buffer text;
    buffer_init(&text, MODEL_TEXT_MAX_BYTES);
    for (const struct source_info *source = source_list(); source->name != NULL; source++) {
        if ((int)source->kind == kind) {
            buffer_printf(&text, "- %s: %s\n", source->name, source->summary);
        }
    }
    model_add_value(values, "sources", &text, MODEL_OURS, 0);
}

void model_add_documents(const struct search *search, struct model_values *values, int trim)
{
    struct buffer text;
    buffer_init(&text, MODEL_TEXT_MAX_BYTES);
    for (int32_t i = 0; i < search->document_count; i++) {
        const struct search_document *document = &search->documents[i];
        buffer_printf(&text, "%s: ", search_text(document->kind));
        model_append_line(&text, search_text(document->title), TITLE_SHOWN_BYTES);
        buffer_append_text(&text, ": ");
        model_append_line(&text, search_text(document->note), NOTE_SHOWN_BYTES);
        buffer_append_char(&text, '\n');
    }
    model_add_value(values, "documents", &text, MODEL_QUOTED, trim);
}

/* Rows that were fetched lie below the run folder; those of a folder of the job stay there. */
const char *model_document_file(const struct search_document *document)
{
    bool local = strcmp(search_text(document->source), "local") == 0;
    return document->path != NULL        ? document->path
           : local && document->rows > 0 ? document->url
                                         : NULL;
}

void model_add_files(const struct search *search, struct model_values *values)
{
    struct buffer text;
    buffer_init(&text, MODEL_TEXT_MAX_BYTES);
    for (int32_t i = 0; i < search->document_count; i++) {
        const struct search_document *document = &search->documents[i];
        const char *file = model_document_file(document);
        if (file == NULL) {
            continue;
        }
        buffer_printf(&text, "%s (%lld rows of ", file, (long long)document->rows);
        model_append_line(&text, search_text(document->title), TITLE_SHOWN_BYTES);
        buffer_append_text(&text, "): ");
        model_append_line(&text, search_text(document->note), NOTE_SHOWN_BYTES);
        buffer_append_char(&text, '\n');
    }
    model_add_value(values, "files", &text, MODEL_QUOTED, 3);
}

/* ---- what is left, and what can be said ---- */

static double most_rounds(const struct model *model, const struct search *search)
{
    double set = search->limits[SEARCH_LIMIT_ROUNDS];
    return isfinite(set) ? set : (double)model->facts->rounds;
}

double model_rounds_left(const struct model *model, const struct search *search)
{
    double begun = (double)(search->tree.count > 0 ? search->tree.count - 1 : 0);
    return fmax(most_rounds(model, search) - begun, 0.0);
}

void model_add_budget(struct model *model, const struct search *search, struct model_values *values)
{
    struct buffer text;
    buffer_init(&text, MODEL_TEXT_MAX_BYTES);
    buffer_printf(&text, "%.0f of %.0f rounds", model_rounds_left(model, search),
                  most_rounds(model, search));
    model_add_value(values, "budget", &text, MODEL_OURS, 0);
}

void model_add_operators(const struct model *model, struct model_values *values, int trim)
{
    struct buffer text;
    buffer_init(&text, MODEL_TEXT_MAX_BYTES);
    for (const struct recipe_operator_info *info = recipe_operators(); info->name != NULL; info++) {
        if (strcmp(info->name, "code") != 0 || model->options.code) {
            buffer_printf(&text, "- %s: %s. Arguments: %s\n", info->name, info->summary,
                          info->arguments);
        }
    }
    model_add_value(values, "operators", &text, MODEL_OURS, trim);
}

void model_add_keys(struct model_values *values, int trim)
{
    static const char *const fixed[] = {"precision", "beta1", "epsilon", NULL};
    struct buffer text;
    buffer_init(&text, MODEL_TEXT_MAX_BYTES);
    for (const struct train_config_key *key = train_config_keys(); key->name != NULL; key++) {
        int i = 0;
        while (fixed[i] != NULL && strcmp(fixed[i], key->name) != 0) {
            i++;
        }
        if (fixed[i] == NULL) {
            buffer_printf(&text, "- %s: %s\n", key->name, key->meaning);
        }
    }
    model_add_value(values, "keys", &text, MODEL_OURS, trim);
}
