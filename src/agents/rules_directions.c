/* What can be done next, in the order in which an engineer would think of it. Each direction says
 * how urgent it is for what was measured, why, and which few configurations would show whether it
 * helps. */
#include <math.h>
#include <string.h>

#include "agents/diagnosis.h"
#include "agents/rules.h"

enum { TINY_PARAMETERS = 5000000 };

/* Shares of the validation rows from which a kind of error deserves a plan of its own. */
#define FORMAT_SHARE 0.02
#define TRUNCATED_SHARE 0.02
#define CONFUSION_EXCESS 0.03
#define SKEWED_FACTOR 1.3

static double step_number(const cJSON *step, const char *key)
{
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(step, key);
    return cJSON_IsNumber(value) ? value->valuedouble : 0.0;
}

/* ---- text ---- */

static void say_curve(struct rules_draft *draft)
{
    buffer_printf(&draft->rationale, "%s: ", draft->base_name);
    diagnosis_append_curve(&draft->evidence.curve, &draft->rationale);
    buffer_append_char(&draft->rationale, ' ');
}

static double step_tokens(const struct train_config *config)
{
    return (double)config->batch_tokens * (double)config->accumulation;
}

/* ---- the directions: urgency, and why ---- */

static double weigh_first(const struct rules_draft *draft)
{
    return draft->parent == 0 ? 100.0 : 0.0;
}

static void explain_first(struct rules_draft *draft)
{
    const struct researcher_facts *facts = draft->facts;
    draft->base = rules_first_config(facts, rules_first_method(facts), &draft->rationale);
    cJSON *recipe = rules_first_recipe(facts, &draft->rationale);
    if (recipe != NULL) {
        cJSON_Delete(draft->recipe);
        draft->recipe = recipe;
    }
    buffer_printf(&draft->goal, "which learning rate around %.2g suits this model and task",
                  draft->base.learning_rate);
    buffer_printf(&draft->rationale,
                  "For %s fine-tuning of %.3g million parameters, %.2g is usual; the right one is "
                  "within a factor of 3 more often than not.",
                  train_method_names[draft->base.method], 1e-6 * (double)facts->model_parameters,
                  draft->base.learning_rate);
}

static double weigh_stabilise(const struct rules_draft *draft)
{
    const struct evidence *evidence = &draft->evidence;
    if (!evidence->trained || evidence->diverged == 0) {
        return 0.0;
    }
    return evidence->curve.diverged || evidence->finished <= evidence->diverged ? 95.0 : 45.0;
}

static void explain_stabilise(struct rules_draft *draft)
{
    const struct evidence *evidence = &draft->evidence;
    buffer_printf(&draft->goal, "from %s with lower learning rates, longer warm-up and clipping",
                  draft->base_name);
    buffer_printf(&draft->rationale,
                  "%d of %d trainings of n%04d diverged, the lowest at learning rate %.2g; the "
                  "best, %s, had %.2g.",
                  (int)evidence->diverged, (int)(evidence->finished + evidence->failed),
                  (int)evidence->node, evidence->rate_diverged, draft->base_name,
                  draft->base.learning_rate);
}

static double weigh_rate_up(const struct rules_draft *draft)
{
    return draft->evidence.trained && draft->evidence.at_high_edge ? 85.0 : 0.0;
}

static void explain_rate_up(struct rules_draft *draft)
{
    buffer_printf(&draft->goal, "from %s beyond %.2g", draft->base_name,
                  draft->evidence.rate_highest);
    buffer_printf(&draft->rationale,
                  "%s is the best of its round with %.2g, the highest learning rate tried so far "
                  "(the lowest was %.2g), and none diverged: the optimum may lie above.",
                  draft->base_name, draft->base.learning_rate, draft->evidence.rate_lowest);
}

static double weigh_rate_down(const struct rules_draft *draft)
{
    return draft->evidence.trained && draft->evidence.at_low_edge ? 85.0 : 0.0;
}

static void explain_rate_down(struct rules_draft *draft)
{
    buffer_printf(&draft->goal, "from %s below %.2g", draft->base_name,
                  draft->evidence.rate_lowest);
    buffer_printf(&draft->rationale,
                  "%s is the best of its round with %.2g, the lowest learning rate tried so far: "
                  "the optimum may lie below.",
                  draft->base_name, draft->base.learning_rate);
}

static double weigh_longer(const struct rules_draft *draft)
{
    if (draft->epochs_max < 1.25 * draft->base.epochs) {
        return 0.0;
    }
    if (!draft->evidence.trained) {
        return 50.0;
    }
    return draft->evidence.curve.underfit ? 80.0 : draft->evidence.curve.overfit ? 0.0 : 30.0;
}

static void explain_longer(struct rules_draft *draft)
{
    buffer_printf(&draft->goal, "from %s with more than %.3g epochs", draft->base_name,
                  draft->base.epochs);
    if (draft->evidence.trained) {
        say_curve(draft);
    }
    buffer_append_text(&draft->rationale, draft->evidence.curve.underfit
                                              ? "It was still learning when it ended."
                                              : "More passes may still pay.");
}

static double weigh_regularise(const struct rules_draft *draft)
{
    if (!draft->evidence.trained) {
        return 0.0;
    }
    return draft->evidence.curve.overfit ? 80.0 : 18.0;
}

static void explain_regularise(struct rules_draft *draft)
{
    buffer_printf(&draft->goal, "from %s with fewer epochs, weight decay and an early stop",
                  draft->base_name);
    say_curve(draft);
    buffer_append_text(&draft->rationale,
                       draft->evidence.curve.overfit
                           ? "It learned the training rows by heart after that point."
                           : "Less may be as good, and leaves room for higher learning rates.");
}

static double weigh_more_data(const struct rules_draft *draft)
{
    double rows = (double)rules_usable_rows(draft->facts);
    const cJSON *sample = rules_find_step(draft->recipe, "sample");
    bool sampled = sample != NULL && (step_number(sample, "fraction") > 0.0 ||
                                      step_number(sample, "count") < 0.95 * rows);
    bool limited = rules_find_step(draft->recipe, "limit") != NULL;
    if (!sampled && !limited) {
        return 0.0;
    }
    return draft->evidence.curve.overfit ? 88.0 : 66.0;
}

static void explain_more_data(struct rules_draft *draft)
{
    int64_t rows = rules_usable_rows(draft->facts);
    rules_remove_steps(draft->recipe, "sample");
    rules_remove_steps(draft->recipe, "limit");
    buffer_printf(&draft->goal, "from %s on all %lld rows", draft->base_name, (long long)rows);
    buffer_printf(&draft->rationale,
                  "%s learned from %lld rows of the %lld that the round may use.", draft->base_name,
                  (long long)(draft->evidence.best != NULL ? draft->evidence.best->samples : 0),
                  (long long)rows);
}

static double weigh_format(const struct rules_draft *draft)
{
    double share = draft->evidence.format_share + draft->evidence.unfinished_share;
    return draft->evidence.trained && share > FORMAT_SHARE ? fmin(50.0 + 200.0 * share, 78.0) : 0.0;
}

static void explain_format(struct rules_draft *draft)
{
    const struct researcher_facts *facts = draft->facts;
    buffer_printf(&draft->goal, "from %s, so that every answer is a possible one",
                  draft->base_name);
    buffer_printf(&draft->rationale,
                  "%.1f %% of the answers of %s are no possible answer and %.1f %% do not end: the "
                  "form is not learned yet.",
                  100.0 * draft->evidence.format_share, draft->base_name,
                  100.0 * draft->evidence.unfinished_share);
    if (facts->characters_per_token > 0.0 && rules_find_step(draft->recipe, "length") == NULL) {
        double most = facts->prompt_tokens_p95 * facts->characters_per_token;
        cJSON *step = rules_append_step(draft->recipe, "length");
        cJSON_AddStringToObject(step, "field", "prompt");
        cJSON_AddNumberToObject(step, "max", ceil(fmax(most, 16.0)));
        buffer_append_text(&draft->rationale,
                           " The longest prompts, which drown it, are left out.");
    }
}

static int64_t sequence_limit(const struct researcher_facts *facts)
{
    int64_t model = facts->model_max_positions;
    return facts->sequence_length > 0 && (model <= 0 || facts->sequence_length < model)
               ? facts->sequence_length
               : model;
}

static double weigh_sequence(const struct rules_draft *draft)
{
    bool room = draft->base.sequence_length > 0 &&
                draft->base.sequence_length < sequence_limit(draft->facts);
    bool cut = draft->evidence.truncated_share > TRUNCATED_SHARE ||
               draft->facts->sequence_tokens_max > draft->base.sequence_length;
    return room && cut ? draft->evidence.truncated_share > TRUNCATED_SHARE ? 72.0 : 28.0 : 0.0;
}

static void explain_sequence(struct rules_draft *draft)
{
    int64_t limit = sequence_limit(draft->facts);
    int64_t needed = (draft->facts->sequence_tokens_max + 15) / 16 * 16;
    int64_t length = needed > 0 && needed < limit ? needed : limit;
    double tokens = step_tokens(&draft->base);
    buffer_printf(&draft->goal, "from %s with %lld tokens instead of %lld", draft->base_name,
                  (long long)length, (long long)draft->base.sequence_length);
    buffer_printf(&draft->rationale,
                  "%.1f %% of the validation prompts were cut, and the longest training row has "
                  "%lld tokens.",
                  100.0 * draft->evidence.truncated_share,
                  (long long)draft->facts->sequence_tokens_max);
    draft->base.sequence_length = length;
    rules_set_step_tokens(draft->facts, tokens, &draft->base);
}

/* How much more often the worst confusion happens than its reverse, as a share of the rows. */
static double confusion_excess(const struct evidence *evidence)
{
    if (!evidence->trained || evidence->confusion == NULL) {
        return 0.0;
    }
    const struct search_confusion *worst = evidence->confusion;
    int64_t reverse = 0;
    for (int32_t i = 0; i < evidence->best->confusion_count; i++) {
        const struct search_confusion *other = &evidence->best->confusions[i];
        if (strcmp(other->expected, worst->found) == 0 &&
            strcmp(other->found, worst->expected) == 0) {
            reverse = other->count;
        }
    }
    return evidence->confusion_share * (1.0 - (double)reverse / (double)worst->count);
}

static double weigh_confusions(const struct rules_draft *draft)
{
    double excess = confusion_excess(&draft->evidence);
    bool possible =
        draft->facts->label_count >= 2 && rules_find_step(draft->recipe, "balance") == NULL;
    return possible && excess > CONFUSION_EXCESS ? fmin(35.0 + 250.0 * excess, 70.0) : 0.0;
}

static void explain_confusions(struct rules_draft *draft)
{
    const struct search_confusion *worst = draft->evidence.confusion;
    double rows = (double)rules_usable_rows(draft->facts);
    double count = ceil(1.5 * rows / (double)draft->facts->label_count);
    cJSON *counts = cJSON_AddObjectToObject(rules_append_step(draft->recipe, "balance"), "counts");
    cJSON_AddNumberToObject(counts, worst->expected, count);
    buffer_printf(&draft->goal, "from %s with more rows of \"%.40s\"", draft->base_name,
                  worst->expected);
    buffer_printf(&draft->rationale,
                  "%lld validation rows (%.0f %%) whose answer is \"%.40s\" were answered "
                  "\"%.40s\", far more than the other way round: about half as many rows again of "
                  "\"%.40s\".",
                  (long long)worst->count, 100.0 * draft->evidence.confusion_share, worst->expected,
                  worst->found, worst->expected);
}

static double weigh_balance(const struct rules_draft *draft)
{
    const struct researcher_facts *facts = draft->facts;
    double skew = facts->majority_share * (double)facts->label_count;
    bool possible = facts->label_count >= 2 && rules_find_step(draft->recipe, "balance") == NULL;
    return possible && skew > SKEWED_FACTOR ? fmin(20.0 * skew, 56.0) : 0.0;
}

static void explain_balance(struct rules_draft *draft)
{
    cJSON *step = rules_append_step(draft->recipe, "balance");
    cJSON_AddStringToObject(step, "mode", "up");
    cJSON_AddNumberToObject(step, "max_repeat", 4.0);
    buffer_printf(&draft->goal, "from %s with as many rows of each answer", draft->base_name);
    buffer_printf(&draft->rationale,
                  "The most frequent of %d answers has %.0f %% of the training rows.",
                  draft->facts->label_count, 100.0 * draft->facts->majority_share);
}

static double weigh_unbalance(const struct rules_draft *draft)
{
    return draft->evidence.trained && rules_find_step(draft->recipe, "balance") != NULL ? 26.0
                                                                                        : 0.0;
}

static void explain_unbalance(struct rules_draft *draft)
{
    rules_remove_steps(draft->recipe, "balance");
    buffer_printf(&draft->goal, "from %s without balancing", draft->base_name);
    buffer_append_text(&draft->rationale,
                       "Balanced rows teach a wrong idea of how frequent answers are; whether that "
                       "costs more than it brings is to be seen.");
}

static double weigh_refine(const struct rules_draft *draft)
{
    return draft->evidence.trained ? 52.0 : 0.0;
}

static void explain_refine(struct rules_draft *draft)
{
    const struct search_score *score = &draft->evidence.best->validation;
    buffer_printf(&draft->goal, "small steps around %s (learning rate %.2g, %.3g epochs)",
                  draft->base_name, draft->base.learning_rate, draft->base.epochs);
    buffer_printf(&draft->rationale,
                  "%s scored %.4g with a standard error of %.2g, and nothing in its curve or "
                  "errors asks for a change of course. Another seed shows how much is chance.",
                  draft->base_name, score->value, score->standard_error);
}

static double weigh_batch(const struct rules_draft *draft)
{
    return draft->evidence.trained ? 40.0 : 46.0;
}

static void explain_batch(struct rules_draft *draft)
{
    buffer_printf(&draft->goal, "from %s with steps of other than %.0f tokens", draft->base_name,
                  step_tokens(&draft->base));
    buffer_append_text(&draft->rationale,
                       "Smaller steps are more of them and noisier, larger ones steadier; learning "
                       "rates follow with the square root.");
}

static double weigh_schedule(const struct rules_draft *draft)
{
    return draft->evidence.trained ? 34.0 : 30.0;
}

static void explain_schedule(struct rules_draft *draft)
{
    buffer_printf(&draft->goal, "from %s with other than %s", draft->base_name,
                  train_schedule_names[draft->base.schedule]);
    buffer_append_text(&draft->rationale,
                       "How the learning rate rises and falls decides how much of its peak a "
                       "training stands.");
}

static double weigh_method(const struct rules_draft *draft)
{
    if (draft->facts->lora_only) {
        return 0.0;
    }
    bool tiny = draft->facts->model_parameters < TINY_PARAMETERS;
    double other = draft->evidence.trained ? 38.0 : 45.0;
    bool helps = draft->evidence.curve.overfit && draft->base.method == TRAIN_FULL;
    return tiny ? 14.0 : helps ? 60.0 : other;
}

static void explain_method(struct rules_draft *draft)
{
    const struct researcher_facts *facts = draft->facts;
    enum train_method method = draft->base.method == TRAIN_FULL ? TRAIN_LORA : TRAIN_FULL;
    double known = evidence_best_rate(&draft->history->evidence, method);
    struct train_config usual = rules_first_config(facts, method, NULL);
    buffer_printf(&draft->goal, "%s instead of %s fine-tuning, from %s", train_method_names[method],
                  train_method_names[draft->base.method], draft->base_name);
    draft->base.method = method;
    draft->base.lora = usual.lora;
    draft->base.learning_rate = known > 0.0 ? known : usual.learning_rate;
    buffer_printf(&draft->rationale, "%s; learning rates around %.2g are usual for it.",
                  method == TRAIN_LORA
                      ? "An adapter forgets less of what the model knew, and overfits later"
                      : "All weights can move further from what the model knew",
                  usual.learning_rate);
}

static double weigh_adapter(const struct rules_draft *draft)
{
    return draft->evidence.trained && draft->base.method == TRAIN_LORA ? 36.0 : 0.0;
}

static void explain_adapter(struct rules_draft *draft)
{
    buffer_printf(&draft->goal, "from %s with ranks other than %lld", draft->base_name,
                  (long long)draft->base.lora.rank);
    buffer_append_text(&draft->rationale,
                       "The rank sets how much an adapter can learn, and how fast it overfits.");
}

static double weigh_random(const struct rules_draft *draft)
{
    (void)draft;
    return 1.0;
}

static void explain_random(struct rules_draft *draft)
{
    buffer_printf(&draft->goal, "at random around %s", draft->base_name);
    buffer_append_text(&draft->rationale,
                       "Every direction was taken from here: learning rate, epochs, batch, decay "
                       "and warm-up are drawn on a logarithmic scale around the best.");
    for (int i = 0; i < draft->facts->configurations; i++) {
        rules_draft_add_random(draft, 1.0);
    }
}

/* ---- the configurations ---- */

#define SCHEDULE(name) ((int)(name) + 1)

static const struct rules_variation rate_spread[] = {
    {.rate = 1.0}, {.rate = 3.0}, {.rate = 1.0 / 3.0}, {.epochs = 2.0}, {.rate = 10.0}};
static const struct rules_variation stabilise[] = {
    {.rate = 1.0 / 3.0, .warmup = 0.1, .clip = 0.5},
    {.rate = 1.0, .warmup = 0.15, .clip = 0.3, .beta2 = 0.95},
    {.rate = 0.1, .warmup = 0.06},
    {.rate = 0.6, .warmup = 0.1, .clip = 0.5},
    {.rate = 1.0 / 3.0, .warmup = 0.1, .epochs = 1.5}};
static const struct rules_variation rates_up[] = {
    {.rate = 3.0}, {.rate = 1.7}, {.rate = 6.0}, {.rate = 3.0, .warmup = 0.1}, {.rate = 10.0}};
static const struct rules_variation rates_down[] = {{.rate = 1.0 / 3.0},
                                                    {.rate = 0.6},
                                                    {.rate = 0.15},
                                                    {.rate = 1.0 / 3.0, .epochs = 1.5},
                                                    {.rate = 0.1}};
static const struct rules_variation longer[] = {{.epochs = 2.0},
                                                {.epochs = 3.0},
                                                {.epochs = 2.0, .rate = 1.7},
                                                {.epochs = 2.0, .rate = 0.6},
                                                {.epochs = 4.0}};
static const struct rules_variation regularise[] = {{.epochs = 0.5},
                                                    {.decay = 0.1, .patience = 2},
                                                    {.epochs = 0.5, .rate = 1.7},
                                                    {.epochs = 0.7, .rate = 0.6, .decay = 0.1},
                                                    {.rate = 0.3, .patience = 2}};
static const struct rules_variation data_spread[] = {
    {.rate = 1.0}, {.rate = 1.7}, {.rate = 0.6}, {.epochs = 1.5}, {.epochs = 0.7}};
static const struct rules_variation form_spread[] = {{.epochs = 1.5},
                                                     {.epochs = 2.5},
                                                     {.epochs = 1.5, .rate = 1.7},
                                                     {.rate = 1.0},
                                                     {.epochs = 1.5, .rate = 0.6}};
static const struct rules_variation near_best[] = {
    {.rate = 1.4}, {.rate = 0.7}, {.epochs = 1.4}, {.seeds = 1}, {.epochs = 0.7}};
static const struct rules_variation batches[] = {{.step_tokens = 0.5, .rate = 0.7},
                                                 {.step_tokens = 2.0, .rate = 1.4},
                                                 {.step_tokens = 0.5},
                                                 {.step_tokens = 0.25, .rate = 0.5},
                                                 {.step_tokens = 4.0, .rate = 2.0}};
static const struct rules_variation schedules[] = {
    {.schedule = SCHEDULE(TRAIN_LINEAR), .to_zero = true, .warmup = 0.06},
    {.schedule = SCHEDULE(TRAIN_CONSTANT), .warmup = 0.06},
    {.schedule = SCHEDULE(TRAIN_COSINE), .to_zero = true, .warmup = 0.1},
    {.schedule = SCHEDULE(TRAIN_COSINE), .warmup = 0.1, .beta2 = 0.95},
    {.schedule = SCHEDULE(TRAIN_LINEAR), .to_zero = true, .rate = 1.5}};
static const struct rules_variation ranks[] = {{.rank = 4.0},
                                               {.rank = 0.25},
                                               {.rank = 2.0, .rate = 0.7},
                                               {.rank = 0.5},
                                               {.rank = 4.0, .rate = 0.5}};

/* ---- the table ---- */

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))
#define ROW(title, strategy, name, variations)                                                     \
    {                                                                                              \
        title, strategy, weigh_##name, explain_##name, variations, COUNT(variations)               \
    }

static const struct rules_direction directions[] = {
    ROW("first recipe", "first recipe", first, rate_spread),
    ROW("stabilise", "change training", stabilise, stabilise),
    ROW("higher learning rates", "change training", rate_up, rates_up),
    ROW("lower learning rates", "change training", rate_down, rates_down),
    ROW("train longer", "change training", longer, longer),
    ROW("train less", "change training", regularise, regularise),
    ROW("all rows", "more data", more_data, data_spread),
    ROW("learn the form", "refine data", format, form_spread),
    ROW("longer sequences", "refine data", sequence, data_spread),
    ROW("confused answers", "refine data", confusions, data_spread),
    ROW("balance answers", "refine data", balance, data_spread),
    ROW("natural shares", "refine data", unbalance, data_spread),
    ROW("refine", "refine best", refine, near_best),
    ROW("batch size", "change training", batch, batches),
    ROW("schedule", "change training", schedule, schedules),
    ROW("other method", "change training", method, rate_spread),
    ROW("size of the adapter", "change training", adapter, ranks),
    {"local search", "refine best", weigh_random, explain_random, NULL, 0},
    {NULL, NULL, NULL, NULL, NULL, 0},
};

const struct rules_direction *rules_directions(void)
{
    return directions;
}

void rules_direction_build(const struct rules_direction *direction, struct rules_draft *draft)
{
    buffer_printf(&draft->goal, "%s: ", direction->title);
    direction->explain(draft);
    for (int i = 0; i < direction->variation_count; i++) {
        rules_draft_add(draft, rules_draft_vary(draft, &direction->variations[i]));
    }
}
