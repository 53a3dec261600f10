#include "run/simulated.h"

#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "eval/scorer.h"
#include "run/training_file.h"
#include "tree/search.h"

enum { ROWS = 1000, CURVE_POINTS = 20, ROWS_TRAINED = 5000, ROW_TOKENS = 60 };

/* What is drawn from the seed, each from a stream of its own. */
enum { DRAW_DURATION, DRAW_VALIDATION, DRAW_TEST, DRAW_COUNT };

static struct rng draw(uint64_t seed, const char *name, uint64_t what)
{
    int32_t node = 0;
    int32_t candidate = 0;
    struct rng rng;
    (void)search_candidate_parse(name, &node, &candidate);
    uint64_t number = (uint64_t)node * SEARCH_CANDIDATES_MAX + (uint64_t)candidate;
    rng_init(&rng, seed, number * DRAW_COUNT + what);
    return rng;
}

double simulated_duration_s(double seconds, uint64_t seed, const char *name)
{
    struct rng rng = draw(seed, name, DRAW_DURATION);
    return seconds * (0.8 + 0.4 * rng_uniform(&rng));
}

/* ---- results ---- */

static double squared(double value)
{
    return value * value;
}

/* How good a configuration is, 0..1: a hill over the logarithms of learning rate, epochs and tokens
 * of a step, whose top the seed hides. */
static double quality(const struct job *job, const struct train_config *config)
{
    struct rng hidden;
    rng_init(&hidden, job->seed, UINT64_MAX);
    double best_rate = log(1e-4) + rng_uniform(&hidden) * log(100.0);
    double best_epochs = log(2.0) + rng_uniform(&hidden) * log(4.0);
    double best_step = log(512.0) + rng_uniform(&hidden) * log(16.0);
    double step = (double)config->batch_tokens * (double)config->accumulation;
    double distance = 0.2 * squared(log(config->learning_rate) - best_rate) +
                      0.1 * squared(log(config->epochs) - best_epochs) +
                      0.05 * squared(log(step) - best_step);
    return 0.4 + 0.5 * exp(-distance);
}

/* Quality as it would be measured on a split of ROWS rows. */
static struct search_score measure(const struct job *job, const struct candidate_order *order,
                                   uint64_t what, double seconds)
{
    struct train_config config = train_config_default();
    struct json_problems ignored;
    json_problems_init(&ignored);
    bool trained = order->config != NULL && cJSON_GetArraySize(order->config) > 0;
    if (trained) {
        train_config_read(order->config, "", &ignored, &config);
    }
    json_problems_fini(&ignored);
    struct rng rng = draw(job->seed, order->name, what);
    double share = trained ? quality(job, &config) : 0.3;
    double error = sqrt(share * (1.0 - share) / ROWS);
    double found = fmin(fmax(share + error * rng_normal(&rng), 0.0), 1.0);
    const struct scorer *scorer = scorer_find(job->task.metric);
    return (struct search_score){
        .present = true,
        .value = scorer->worst + found * (scorer->best - scorer->worst),
        .standard_error = error * fabs(scorer->best - scorer->worst),
        .loss = 1.5 - found,
        .rows = ROWS,
        .seconds = seconds,
    };
}

/* Losses that fall towards what the score says. */
static cJSON *curve(const struct search_score *score, double duration_s)
{
    cJSON *points = cJSON_CreateArray();
    for (int i = 1; i <= CURVE_POINTS; i++) {
        double share = (double)i / CURVE_POINTS;
        double loss = score->loss + exp(-4.0 * share);
        const double row[] = {
            floor(SIMULATED_STEPS * share),
            floor(ROWS_TRAINED * ROW_TOKENS * share),
            loss,
            loss + 0.02,
            1.0,
            1e-3 * (1.0 - share),
            duration_s * share,
        };
        cJSON_AddItemToArray(points,
                             cJSON_CreateDoubleArray(row, (int)(sizeof(row) / sizeof(row[0]))));
    }
    return points;
}

static cJSON *make_result(const struct job *job, const struct candidate_order *order,
                          double spent_s)
{
    struct search_score score = measure(job, order, DRAW_VALIDATION, 0.1 * spent_s);
    bool trained = order->config != NULL && cJSON_GetArraySize(order->config) > 0;
    cJSON *object = cJSON_CreateObject();
    cJSON_AddItemToObject(object, "validation", search_score_to_json(&score));
    cJSON_AddItemToObject(object, "curve", trained ? curve(&score, spent_s) : cJSON_CreateArray());
    cJSON_AddArrayToObject(object, "cases");
    cJSON_AddArrayToObject(object, "confusions");
    cJSON_AddNumberToObject(object, "steps_done", trained ? SIMULATED_STEPS : 0.0);
    cJSON_AddNumberToObject(object, "samples", trained ? ROWS_TRAINED : 0.0);
    cJSON_AddNumberToObject(object, "tokens", trained ? ROWS_TRAINED * ROW_TOKENS : 0.0);
    cJSON_AddStringToObject(object, "end", "finished");
    cJSON_AddNumberToObject(object, "rank_seconds", spent_s);
    cJSON_AddArrayToObject(object, "recipe_report");
    return object;
}

/* ---- the state of one that was stopped: how far it was ---- */

static enum status read_steps(void *context, int64_t index, void *to, struct error *err)
{
    (void)index;
    (void)err;
    memcpy(to, context, sizeof(int64_t));
    return STATUS_OK;
}

static enum status save_state(const struct candidate_order *order, int64_t steps_done,
                              const struct progress *progress, struct error *err)
{
    if (order->state_path == NULL) {
        return STATUS_OK;
    }
    double begun_s = clock_monotonic_s();
    TRY(progress_tick(progress, "save", 0, 1, err));
    const struct training_label label = {.fingerprint = "simulated"};
    const struct training_state state = {
        .arrays = {{.name = "steps_done",
                    .meaning = "steps of a simulated candidate that are done",
                    .type = TRAINER_I64,
                    .rows = 1,
                    .cols = 1}},
        .count = 1,
        .steps_done = steps_done,
    };
    TRY(training_file_write_state(order->state_path, &state, &label, read_steps, &steps_done, err));
    if (order->pace != NULL) {
        pace_saved(order->pace, (double)sizeof(steps_done), clock_monotonic_s() - begun_s);
    }
    return STATUS_OK;
}

static int64_t saved_steps(const char *path)
{
    int64_t steps = path != NULL ? training_file_steps(path) : 0;
    return steps >= 0 && steps <= SIMULATED_STEPS ? steps : 0;
}

/* ---- the time it takes ---- */

static void sleep_until(double moment_s)
{
    double left_s = moment_s - clock_monotonic_s();
    while (left_s > 0.0) { /* a signal may wake it */
        clock_sleep_s(left_s);
        left_s = moment_s - clock_monotonic_s();
    }
}

/* The steps that are left, each at its moment: a nap that was too long does not make the next ones
 * late. */
static enum status pass_time(const struct job *job, double duration_s,
                             const struct candidate_order *order, bool saves, const char *phase,
                             const struct progress *progress, struct error *err)
{
    double begun_s = clock_monotonic_s();
    double saved_s = begun_s;
    int64_t first = saved_steps(order->state_path);
    for (int64_t step = first; step < SIMULATED_STEPS; step++) {
        enum status status = progress_tick(progress, phase, step, SIMULATED_STEPS, err);
        bool due = clock_monotonic_s() - saved_s >= job->checkpoint_seconds;
        if (saves && (status == STATUS_INTERRUPTED || due)) {
            struct error failed = {0};
            saved_s = clock_monotonic_s();
            if (save_state(order, step, progress, &failed) != STATUS_OK) {
                *err = failed;
                return failed.code;
            }
        }
        TRY(status);
        sleep_until(begun_s + duration_s * (double)(step + 1 - first) / SIMULATED_STEPS);
    }
    return STATUS_OK;
}

enum status simulated_train(const struct job *job, double seconds,
                            const struct candidate_order *order, const struct train_group *group,
                            const struct progress *progress, cJSON **result, struct error *err)
{
    double begun_s = clock_monotonic_s();
    double duration_s = simulated_duration_s(seconds, job->seed, order->name);
    *result = NULL;
    int ranks = group != NULL ? group->size : 1;
    bool leads = group == NULL || group->rank == 0;
    TRY(pass_time(job, duration_s, order, leads, "train", progress, err));
    *result = leads ? make_result(job, order, (clock_monotonic_s() - begun_s) * ranks) : NULL;
    return STATUS_OK;
}

enum status simulated_score(const struct job *job, double seconds,
                            const struct candidate_order *order, const struct progress *progress,
                            cJSON **score, struct error *err)
{
    struct candidate_order stateless = *order;
    stateless.state_path = NULL;
    *score = NULL;
    TRY(pass_time(job, 0.1 * seconds, &stateless, true, "evaluate", progress, err));
    struct search_score measured = measure(job, order, DRAW_TEST, 0.1 * seconds);
    *score = search_score_to_json(&measured);
    return STATUS_OK;
}
