/* A plan while it is being made: variations of a base configuration, steps of a recipe. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "agents/rules.h"

/* ---- changes of a configuration ---- */

static double pick(double value, double fallback)
{
    return value > 0.0 ? value : fallback;
}

struct train_config rules_draft_vary(const struct rules_draft *draft,
                                     const struct rules_variation *variation)
{
    struct train_config config = draft->base;
    config.learning_rate *= pick(variation->rate, 1.0);
    config.epochs *= pick(variation->epochs, 1.0);
    config.warmup_ratio = pick(variation->warmup, config.warmup_ratio);
    config.weight_decay = pick(variation->decay, config.weight_decay);
    config.clip_norm = pick(variation->clip, config.clip_norm);
    config.beta2 = pick(variation->beta2, config.beta2);
    config.final_ratio = variation->to_zero ? 0.0 : config.final_ratio;
    config.seed = (config.seed + variation->seeds) & ((UINT64_C(1) << 53) - 1);
    if (variation->schedule > 0) {
        config.schedule = (enum train_schedule)(variation->schedule - 1);
    }
    if (variation->patience > 0) {
        config.patience = variation->patience;
        config.validations = config.validations > 8 ? config.validations : 8;
    }
    if (variation->rank > 0.0) {
        double rank = round((double)config.lora.rank * variation->rank);
        config.lora.rank = (int64_t)fmin(fmax(rank, 1.0), 256.0);
        config.lora.alpha = 2.0 * (double)config.lora.rank;
    }
    if (variation->step_tokens > 0.0) {
        double tokens = (double)config.batch_tokens * (double)config.accumulation;
        rules_set_step_tokens(draft->facts, tokens * variation->step_tokens, &config);
    }
    return config;
}

/* To `figures` significant digits, so that plans are readable and near-equal values are equal. */
static double round_figures(double value, int figures)
{
    if (!(value > 0.0) || !isfinite(value)) {
        return value;
    }
    char text[32];
    double rounded = value;
    snprintf(text, sizeof(text), "%.*e", figures - 1, value);
    return sscanf(text, "%lf", &rounded) == 1 ? rounded : value;
}

void rules_draft_add(struct rules_draft *draft, struct train_config config)
{
    const struct researcher_facts *facts = draft->facts;
    if (draft->config_count >= SEARCH_CANDIDATES_MAX ||
        draft->config_count >= facts->configurations) {
        return;
    }
    config.method = facts->lora_only ? TRAIN_LORA : config.method;
    config.learning_rate = round_figures(fmin(fmax(config.learning_rate, 1e-7), 0.3), 2);
    config.epochs = round_figures(fmin(fmax(config.epochs, 0.05), 100.0), 3);
    config.epochs = fmin(config.epochs, draft->epochs_max);
    config.weight_decay = round_figures(fmin(config.weight_decay, 1.0), 2);
    config.warmup_ratio = round_figures(fmin(config.warmup_ratio, 0.5), 2);
    if (config.sequence_length > config.batch_tokens) {
        config.batch_tokens = config.sequence_length;
    }
    draft->configs[draft->config_count++] = config;
}

/* exp of a uniform number in -spread..spread. */
static double shake(struct rng *rng, double spread)
{
    return exp(spread * (2.0 * rng_uniform(rng) - 1.0));
}

void rules_draft_add_random(struct rules_draft *draft, double spread)
{
    struct rng *rng = &draft->rng;
    static const double decays[] = {0.01, 0.01, 0.03, 0.1};
    struct rules_variation variation = {
        .rate = shake(rng, 1.2 * spread),
        .epochs = shake(rng, 0.7 * spread),
        .step_tokens = rng_below(rng, 3) == 0 ? shake(rng, spread) : 0.0,
        .decay = decays[rng_below(rng, 4)],
        .warmup = rng_below(rng, 3) == 0 ? 0.1 : 0.0,
    };
    rules_draft_add(draft, rules_draft_vary(draft, &variation));
}

/* ---- changes of a recipe ---- */

static const char *step_op(const cJSON *step)
{
    const char *op = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(step, "op"));
    return op != NULL ? op : "";
}

cJSON *rules_find_step(const cJSON *recipe, const char *op)
{
    cJSON *step = NULL;
    cJSON_ArrayForEach (step, recipe) {
        if (strcmp(step_op(step), op) == 0) {
            return step;
        }
    }
    return NULL;
}

void rules_remove_steps(cJSON *recipe, const char *op)
{
    for (cJSON *step = rules_find_step(recipe, op); step != NULL;
         step = rules_find_step(recipe, op)) {
        cJSON_Delete(cJSON_DetachItemViaPointer(recipe, step));
    }
}

cJSON *rules_append_step(cJSON *recipe, const char *op)
{
    cJSON *step = cJSON_CreateObject();
    if (cJSON_AddStringToObject(step, "op", op) == NULL || !cJSON_AddItemToArray(recipe, step)) {
        cJSON_Delete(step);
        return NULL;
    }
    return step;
}
