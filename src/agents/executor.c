/* Repairs in the order of what they cost: first what is plainly wrong (recipe, keys, ranges), then
 * what does not fit (sequence, steps, memory), then what was tried before. */
#include "agents/executor.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agents/executor_repair.h"
#include "base/mem.h"

void repair_say(const struct repair *repair, const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (repair->number >= 0) {
        buffer_printf(repair->changes, "configuration %d: ", repair->number);
    }
    buffer_printf(repair->changes, "%s\n", text);
}

/* ---- values ---- */

/* Ranges of train/config.c, so that a number outside is brought to the nearest allowed one instead
 * of dropped. */
static const struct {
    const char *key;
    double min, max;
    bool whole;
} ranges[] = {
    {"learning_rate", 1e-12, 1.0, false}, {"warmup_ratio", 0.0, 1.0, false},
    {"final_ratio", 0.0, 1.0, false},     {"epochs", 1e-3, 1000.0, false},
    {"max_steps", 0.0, 1e9, true},        {"batch_tokens", 1.0, 16777216.0, true},
    {"accumulation", 1.0, 65536.0, true}, {"sequence_length", 0.0, 16777216.0, true},
    {"beta1", 0.0, 0.999999, false},      {"beta2", 0.0, 0.999999, false},
    {"epsilon", 1e-16, 1.0, false},       {"weight_decay", 0.0, 10.0, false},
    {"clip_norm", 0.0, 1e6, false},       {"validations", 0.0, 100000.0, true},
    {"patience", 0.0, 100000.0, true},    {"seed", 0.0, 9007199254740992.0, true},
};

static void clamp_number(const struct repair *repair, cJSON *object, const char *key, double min,
                         double max, bool whole)
{
    cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    if (!cJSON_IsNumber(value) || isnan(value->valuedouble)) {
        return; /* reading it will say what is wrong */
    }
    double clamped = fmin(fmax(value->valuedouble, min), max);
    clamped = whole ? floor(clamped) : clamped;
    if (clamped < value->valuedouble || clamped > value->valuedouble) {
        repair_say(repair, "%s %g became %g", key, value->valuedouble, clamped);
        cJSON_SetNumberValue(value, clamped);
    }
}

static void clamp_numbers(const struct repair *repair, cJSON *object)
{
    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        clamp_number(repair, object, ranges[i].key, ranges[i].min, ranges[i].max, ranges[i].whole);
    }
    cJSON *lora = cJSON_GetObjectItemCaseSensitive(object, "lora");
    clamp_number(repair, lora, "rank", 1.0, 256.0, true);
    clamp_number(repair, lora, "alpha", 1e-6, 10000.0, false);
}

/* Takes each good key over defaults that fit the job, and says what was wrong with the others. */
static void read_config(const struct repair *repair, cJSON *object, struct train_config *out)
{
    struct json_problems problems;
    json_problems_init(&problems);
    *out = train_config_default();
    out->precision = repair->facts->precision;
    out->seed = repair->facts->seed & ((UINT64_C(1) << 53) - 1);
    clamp_numbers(repair, object);
    train_config_read(object, "", &problems, out);
    const char *line = buffer_text(&problems.text);
    while (*line != '\0') {
        size_t length = strcspn(line, "\n");
        repair_say(repair, "%.*s; the default is taken", (int)(length < 300 ? length : 300), line);
        line += length + (line[length] == '\n');
    }
    json_problems_fini(&problems);
    if (out->patience > 0 && out->validations == 0) {
        out->validations = out->patience;
    }
}

/* ---- limits ---- */

static int64_t longest_sequence(const struct repair *repair)
{
    int64_t model = repair->limits->model != NULL ? repair->limits->model->max_positions
                                                  : repair->facts->model_max_positions;
    int64_t job = repair->facts->sequence_length;
    int64_t limit = model > 0 ? model : INT64_C(16777216);
    return job > 0 && job < limit ? job : limit;
}

/* The longest sequence that a training will see: a micro-batch holds at least that. */
static int64_t least_batch(const struct repair *repair, const struct train_config *config)
{
    int64_t longest = repair->facts->sequence_tokens_max;
    int64_t limit = longest_sequence(repair);
    if (config->sequence_length > 0) {
        return config
            ->sequence_length; /* what train/config.h compares with, whatever the data have */
    }
    return longest > 0 && longest < limit ? longest : limit;
}

/* Sequences that the model and the job allow, in micro-batches that hold one. */
static void fit_lengths(const struct repair *repair, struct train_config *config)
{
    int64_t limit = longest_sequence(repair);
    if (config->sequence_length > limit) {
        repair_say(repair, "sequence_length %lld became %lld, the most that model and job allow",
                   (long long)config->sequence_length, (long long)limit);
        config->sequence_length = limit;
    }
    int64_t least = least_batch(repair, config);
    int64_t most = repair->facts->batch_tokens;
    if (most >= least && config->batch_tokens > most) {
        double step = (double)config->batch_tokens * (double)config->accumulation;
        config->batch_tokens = most;
        config->accumulation = (int64_t)fmin(ceil(step / (double)most), 65536.0);
        repair_say(repair,
                   "batch_tokens became %lld, what memory allows, in %lld micro-batches a step",
                   (long long)most, (long long)config->accumulation);
    }
    if (config->batch_tokens < least) {
        repair_say(repair, "batch_tokens %lld became %lld, to hold a sequence",
                   (long long)config->batch_tokens, (long long)least);
        config->batch_tokens = least;
    }
}

static void fit_duration(const struct repair *repair, struct train_config *config)
{
    const struct researcher_facts *facts = repair->facts;
    if (facts->max_steps > 0 && (config->max_steps == 0 || config->max_steps > facts->max_steps)) {
        config->max_steps = facts->max_steps; /* the job's own limit: nothing to say */
    }
    double tokens = facts->prompt_tokens_mean + facts->answer_tokens_mean;
    double rows = (double)facts->train_rows;
    rows = facts->max_samples > 0 ? fmin(rows, (double)facts->max_samples) : rows;
    double seconds = config->epochs * tokens * rows / facts->tokens_per_second;
    if (facts->candidate_seconds > 0.0 && facts->tokens_per_second > 0.0 &&
        config->max_steps == 0 && seconds > facts->candidate_seconds) {
        double fit = config->epochs * facts->candidate_seconds / seconds;
        repair_say(repair, "epochs %.3g became %.3g, to end within %.0f s", config->epochs, fit,
                   facts->candidate_seconds);
        config->epochs = fmax(fit, 1e-3);
    }
}

static bool fits_in_memory(const struct repair *repair, const struct train_config *config)
{
    const struct executor_limits *limits = repair->limits;
    if (limits->memory_bytes <= 0 || limits->training_bytes == NULL || limits->model == NULL) {
        return true;
    }
    /* An estimate that cannot be made is no reason to drop a plan: the training itself will say. */
    return limits->training_bytes(limits->model, config) <= limits->memory_bytes;
}

/* Halves micro-batches down to one sequence, keeping the tokens of a step. */
static bool shrink_batches(const struct repair *repair, struct train_config *config)
{
    int64_t least = least_batch(repair, config);
    while (!fits_in_memory(repair, config)) {
        if (config->batch_tokens <= least) {
            return false;
        }
        double step = (double)config->batch_tokens * (double)config->accumulation;
        config->batch_tokens = config->batch_tokens / 2 > least ? config->batch_tokens / 2 : least;
        config->accumulation = (int64_t)fmin(ceil(step / (double)config->batch_tokens), 65536.0);
    }
    return true;
}

static void use_adapter(struct train_config *config)
{
    struct train_config usual = train_config_default();
    config->method = TRAIN_LORA;
    config->lora = usual.lora;
    /* An adapter stands, and needs, about ten times the learning rate. */
    config->learning_rate = fmin(10.0 * config->learning_rate, 1e-2);
}

/* False if even an adapter with the smallest micro-batch does not fit. */
static bool fit_memory(const struct repair *repair, struct train_config *config)
{
    if (repair->facts->lora_only && config->method == TRAIN_FULL) {
        use_adapter(config);
        repair_say(repair, "full became lora: full fine-tuning does not fit in memory");
    }
    const struct train_config before = *config;
    if (!shrink_batches(repair, config) && config->method == TRAIN_FULL) {
        *config = before;
        use_adapter(config);
        repair_say(repair,
                   "full became lora with learning rate %.2g: full does not fit in %lld bytes",
                   config->learning_rate, (long long)repair->limits->memory_bytes);
        shrink_batches(repair, config);
    }
    if (config->batch_tokens != before.batch_tokens) {
        repair_say(repair,
                   "batch_tokens %lld became %lld in %lld micro-batches a step, to fit in memory",
                   (long long)before.batch_tokens, (long long)config->batch_tokens,
                   (long long)config->accumulation);
    }
    return fits_in_memory(repair, config);
}

/* ---- the plan ---- */

/* Repairs one configuration; *keep is false if it cannot run or was tried before. */
static enum status repair_config(const struct repair *repair, cJSON **config, const cJSON *recipe,
                                 struct plan_set *tried, bool *keep, struct error *err)
{
    struct train_config fixed;
    char fingerprint[HASH_TEXT_BYTES];
    *keep = false;
    if (!cJSON_IsObject(*config)) {
        repair_say(repair, "dropped: it is no object");
        return STATUS_OK;
    }
    read_config(repair, *config, &fixed);
    fit_lengths(repair, &fixed);
    fit_duration(repair, &fixed);
    if (!fit_memory(repair, &fixed)) {
        repair_say(repair, "dropped: it does not fit in %lld bytes of memory",
                   (long long)repair->limits->memory_bytes);
        return STATUS_OK;
    }
    TRY(plan_fingerprint(&fixed, recipe, fingerprint, err));
    if (plan_set_has(tried, fingerprint)) {
        repair_say(repair, "dropped: it was tried before with this recipe");
        return STATUS_OK;
    }
    TRY(plan_set_add(tried, fingerprint, err));
    cJSON *object = train_config_to_json(&fixed);
    if (object == NULL) {
        return mem_fail(err, sizeof(fixed), "a configuration");
    }
    cJSON_Delete(*config);
    *config = object;
    *keep = true;
    return STATUS_OK;
}

static enum status repair_configs(struct repair *repair, struct plan *plan, struct plan_set *tried,
                                  struct error *err)
{
    int most = repair->facts->configurations;
    most = most >= 1 && most <= SEARCH_CANDIDATES_MAX ? most : SEARCH_CANDIDATES_MAX;
    int kept = 0;
    int count = plan->config_count;
    for (int i = 0; i < count; i++) {
        bool keep = false;
        repair->number = i;
        if (kept == most) {
            repair_say(repair, "dropped: a round has %d configurations", most);
        } else {
            enum status status =
                repair_config(repair, &plan->configs[i], plan->recipe, tried, &keep, err);
            if (status != STATUS_OK) {
                return status; /* the plan is still whole: nothing was moved over another one */
            }
        }
        if (keep) {
            cJSON *config = plan->configs[i];
            plan->configs[i] = plan->configs[kept];
            plan->configs[kept++] = config;
        }
    }
    for (int i = kept; i < count; i++) {
        cJSON_Delete(plan->configs[i]);
        plan->configs[i] = NULL;
    }
    plan->config_count = kept;
    repair->number = -1;
    return STATUS_OK;
}

enum status executor_check(struct plan *plan, struct plan_set *tried,
                           const struct researcher_facts *facts,
                           const struct executor_limits *limits, struct buffer *changes,
                           struct error *err)
{
    struct repair repair = {.facts = facts, .limits = limits, .changes = changes, .number = -1};
    TRY(repair_recipe(&repair, plan, err));
    if (plan->parent < 0) {
        return STATUS_OK; /* the baseline trains nothing */
    }
    TRY(repair_configs(&repair, plan, tried, err));
    if (plan->config_count == 0) {
        return FAIL(err, STATUS_INVALID,
                    "plan below n%04d: no configuration is left that can run: %.700s",
                    (int)plan->parent, buffer_text(changes));
    }
    return STATUS_OK;
}
