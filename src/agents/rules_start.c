/* The first plan, from the sizes of data and model alone. The figures are common practice: what
 * published fine-tuning recipes of that size use, rounded. */
#include <math.h>
#include <string.h>

#include "agents/rules.h"

/* Share of a candidate's time that is left for training; the rest is preparation, validation and
 * evaluation. */
#define TRAINING_SHARE 0.75
/* A row is an outlier in length when it is this many times the 95th percentile. */
#define OUTLIER_FACTOR 2.0
#define OUTLIER_KEEP 1.5
#define SKEWED_FACTOR 2.0

enum {
    TINY_PARAMETERS = 5000000,
    LORA_FROM_PARAMETERS = 300000000,
    DEFAULT_BATCH_TOKENS = 4096,
    STEPS_WANTED = 500,
};

/* ---- sizes ---- */

int64_t rules_usable_rows(const struct researcher_facts *facts)
{
    int64_t rows = facts->train_rows - facts->train_duplicates;
    rows = rows > 0 ? rows : 1;
    return facts->max_samples > 0 && rows > facts->max_samples ? facts->max_samples : rows;
}

double rules_row_tokens(const struct researcher_facts *facts)
{
    return fmax(facts->prompt_tokens_mean + facts->answer_tokens_mean, 1.0);
}

/* Longest prompt with answer that 19 of 20 rows stay below, about. */
static double usual_length(const struct researcher_facts *facts)
{
    return fmax(facts->prompt_tokens_p95 + facts->answer_tokens_p95, 1.0);
}

static bool has_outliers(const struct researcher_facts *facts)
{
    return (double)facts->sequence_tokens_max > OUTLIER_FACTOR * usual_length(facts);
}

static int64_t length_limit(const struct researcher_facts *facts)
{
    int64_t limit = facts->model_max_positions > 0 ? facts->model_max_positions : INT32_MAX;
    return facts->sequence_length > 0 && facts->sequence_length < limit ? facts->sequence_length
                                                                        : limit;
}

static int64_t round_up(double value, int64_t multiple)
{
    return (int64_t)ceil(fmin(value, 1e9) / (double)multiple) * multiple;
}

/* Sequences as long as the data need. */
static int64_t sequence_length(const struct researcher_facts *facts)
{
    double longest = (double)facts->sequence_tokens_max;
    if (has_outliers(facts)) {
        longest = OUTLIER_KEEP * usual_length(facts);
    }
    int64_t length = round_up(fmax(longest, 16.0), 16);
    return length < length_limit(facts) ? length : length_limit(facts);
}

/* ---- learning rates ---- */

struct rate_point {
    double parameters, rate;
};

/* Small models have large weights' worth of learning in each step; large ones are easily spoilt. */
static const struct rate_point full_rates[] = {
    {1e6, 3e-3}, {15e6, 5e-4}, {100e6, 5e-5}, {500e6, 3e-5}, {2e9, 1.5e-5}, {10e9, 7e-6},
};
static const struct rate_point lora_rates[] = {
    {1e6, 1e-2}, {15e6, 3e-3}, {100e6, 3e-4}, {500e6, 2.5e-4}, {2e9, 2e-4}, {10e9, 1e-4},
};
enum { RATE_POINTS = 6 };

double rules_learning_rate(enum train_method method, int64_t parameters)
{
    const struct rate_point *points = method == TRAIN_LORA ? lora_rates : full_rates;
    double size = fmax((double)parameters, 1.0);
    if (size <= points[0].parameters) {
        return points[0].rate;
    }
    for (int i = 1; i < RATE_POINTS; i++) {
        if (size <= points[i].parameters) {
            double share = log(size / points[i - 1].parameters) /
                           log(points[i].parameters / points[i - 1].parameters);
            return points[i - 1].rate * pow(points[i].rate / points[i - 1].rate, share);
        }
    }
    return points[RATE_POINTS - 1].rate;
}

/* ---- the first configuration ---- */

enum train_method rules_first_method(const struct researcher_facts *facts)
{
    bool large = facts->model_parameters >= LORA_FROM_PARAMETERS;
    return facts->lora_only || large ? TRAIN_LORA : TRAIN_FULL;
}

static double usual_epochs(int64_t rows, int64_t parameters)
{
    static const struct {
        int64_t rows;
        double epochs;
    } table[] = {{200, 10}, {1000, 6}, {10000, 4}, {30000, 3}, {100000, 2}};
    double epochs = 1.0;
    for (int i = 4; i >= 0; i--) {
        if (rows <= table[i].rows) {
            epochs = table[i].epochs;
        }
    }
    /* Large models remember a row after a few sights of it. */
    return parameters > 1000000000 ? fmin(epochs, 4.0) : epochs;
}

double rules_epochs_fit(const struct researcher_facts *facts, double tokens_per_second,
                        int64_t rows)
{
    if (facts->candidate_seconds <= 0.0 || tokens_per_second <= 0.0) {
        return INFINITY;
    }
    double tokens = TRAINING_SHARE * facts->candidate_seconds * tokens_per_second;
    double epochs = tokens / (rules_row_tokens(facts) * (double)rows);
    return fmax(floor(epochs * 20.0) / 20.0, 0.05);
}

void rules_set_step_tokens(const struct researcher_facts *facts, double tokens,
                           struct train_config *config)
{
    int64_t most = facts->batch_tokens > 0 ? facts->batch_tokens : DEFAULT_BATCH_TOKENS;
    int64_t least = config->sequence_length > 0 ? config->sequence_length : 16;
    int64_t wanted = round_up(fmax(tokens, 16.0), 16);
    most = most > least ? most : least;
    config->batch_tokens = wanted < least ? least : wanted > most ? most : wanted;
    double batches = tokens / (double)config->batch_tokens;
    config->accumulation = (int64_t)fmax(1.0, fmin(round(batches), 65536.0));
}

/* Rows of a step: enough for a steady gradient, few enough for hundreds of steps. */
static double step_rows(const struct researcher_facts *facts, double rows, double epochs)
{
    double least = facts->model_parameters < TINY_PARAMETERS ? 8.0 : 4.0;
    double most = facts->model_parameters < TINY_PARAMETERS ? 32.0 : 64.0;
    return fmin(fmax(rows * epochs / STEPS_WANTED, least), most);
}

struct train_config rules_first_config(const struct researcher_facts *facts,
                                       enum train_method method, struct buffer *why)
{
    struct train_config config = train_config_default();
    int64_t rows = rules_usable_rows(facts);
    double fit = rules_epochs_fit(facts, facts->tokens_per_second, rows);
    double usual = usual_epochs(rows, facts->model_parameters);
    config.method = method;
    config.lora.rank = facts->model_parameters < TINY_PARAMETERS ? 8 : 16;
    config.lora.alpha = 2.0 * (double)config.lora.rank;
    config.learning_rate = rules_learning_rate(method, facts->model_parameters);
    config.epochs = fmin(usual, fit);
    config.max_steps = facts->max_steps;
    config.sequence_length = sequence_length(facts);
    config.precision = facts->precision;
    config.seed = facts->seed & ((UINT64_C(1) << 53) - 1);
    config.patience = 3;
    double in_a_step = step_rows(facts, (double)rows, config.epochs);
    rules_set_step_tokens(facts, in_a_step * rules_row_tokens(facts), &config);
    if (why != NULL) {
        double tokens = rules_row_tokens(facts) * (double)rows * config.epochs;
        buffer_printf(why,
                      "%lld usable rows of %.0f tokens: %.3g epochs in steps of about %.0f rows, "
                      "some %.0f steps. ",
                      (long long)rows, rules_row_tokens(facts), config.epochs, in_a_step,
                      tokens / (double)(config.batch_tokens * config.accumulation));
        if (fit < usual) {
            buffer_printf(why,
                          "%.3g epochs would be usual, but a candidate has %.0f s at %.0f tokens a "
                          "second. ",
                          usual, facts->candidate_seconds, facts->tokens_per_second);
        }
    }
    return config;
}

/* ---- the first recipe ---- */

static cJSON *add_step(cJSON *recipe, const char *op)
{
    cJSON *step = cJSON_CreateObject();
    if (cJSON_AddStringToObject(step, "op", op) == NULL || !cJSON_AddItemToArray(recipe, step)) {
        cJSON_Delete(step);
        return NULL;
    }
    return step;
}

static bool is_skewed(const struct researcher_facts *facts)
{
    return facts->label_count >= 2 &&
           facts->majority_share * (double)facts->label_count > SKEWED_FACTOR;
}

/* A filter on characters, where it is known how many a token has. */
static bool add_length_filter(const struct researcher_facts *facts, cJSON *recipe,
                              struct buffer *why)
{
    double tokens = fmin(OUTLIER_KEEP * usual_length(facts), (double)length_limit(facts));
    double characters = ceil(tokens * facts->characters_per_token);
    cJSON *step = add_step(recipe, "length");
    if (why != NULL) {
        buffer_printf(why,
                      "The longest row has %lld tokens, 19 of 20 have at most %.0f: rows beyond "
                      "%.0f characters are left out. ",
                      (long long)facts->sequence_tokens_max, usual_length(facts), characters);
    }
    return cJSON_AddNumberToObject(step, "max", characters) != NULL;
}

static bool add_balance(const struct researcher_facts *facts, cJSON *recipe, struct buffer *why)
{
    cJSON *step = add_step(recipe, "balance");
    if (why != NULL) {
        buffer_printf(why,
                      "The most frequent of %d answers has %.0f %% of the rows: rare ones are "
                      "repeated, at most 4 times. ",
                      facts->label_count, 100.0 * facts->majority_share);
    }
    return cJSON_AddStringToObject(step, "mode", "up") != NULL &&
           cJSON_AddNumberToObject(step, "max_repeat", 4.0) != NULL;
}

cJSON *rules_first_recipe(const struct researcher_facts *facts, struct buffer *why)
{
    cJSON *recipe = cJSON_CreateArray();
    bool whole = recipe != NULL;
    if (whole && facts->train_duplicates > 0) {
        whole = add_step(recipe, "dedup") != NULL;
        if (why != NULL) {
            buffer_printf(why, "%lld of %lld rows are duplicates and are removed. ",
                          (long long)facts->train_duplicates, (long long)facts->train_rows);
        }
    }
    if (whole && has_outliers(facts) && facts->characters_per_token > 0.0) {
        whole = add_length_filter(facts, recipe, why);
    }
    whole = whole && add_step(recipe, "overlap") != NULL;
    if (whole && facts->max_samples > 0 && facts->train_rows > facts->max_samples) {
        cJSON *step = add_step(recipe, "sample");
        whole = cJSON_AddNumberToObject(step, "count", (double)facts->max_samples) != NULL;
    }
    if (whole && is_skewed(facts)) {
        whole = add_balance(facts, recipe, why);
    }
    if (!whole) {
        cJSON_Delete(recipe);
        return NULL;
    }
    return recipe;
}
