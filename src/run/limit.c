#include "run/limit.h"

#include <math.h>

/* ---- how long a stop takes ---- */

/* A worker in its steps speaks as often, or, where there are hundreds, less often: the step is then
 * one that it has behind it, and it stops after the one that it is in. */
static const double progress_interval_s = 0.5;
static const double reserve = 1.5; /* of what was measured: a stop makes all write at once */
static const double slack_s = 5.0; /* messages, small files, a machine that is shared */
static const double last_reserve = 1.25;

int64_t limit_stop_step(const struct limit_worker *worker)
{
    if (!worker->trains || worker->step_s <= 0.0) {
        return 0;
    }
    /* Who has been silent for longer is at something else, and has done no steps meanwhile. */
    double since_s = fmin(worker->since_s, progress_interval_s + worker->step_s);
    int64_t step = worker->done + (int64_t)ceil(since_s / worker->step_s) + 1;
    return step < worker->total ? step : worker->total;
}

double limit_worker_drain_s(const struct limit_worker *worker, double usual_gap_s,
                            double usual_save_s)
{
    double gap_s = worker->gap_s > 0.0 ? worker->gap_s : usual_gap_s;
    double save_s = worker->save_s > 0.0 ? worker->save_s : usual_save_s;
    int64_t steps = limit_stop_step(worker) - worker->done;
    double steps_s = steps > 0 ? (double)steps * worker->step_s : 0.0;
    return steps_s + gap_s + save_s * (worker->saves ? 2.0 : 1.0);
}

double limit_drain_s(double workers_s, double journal_s, double last_s)
{
    double wanted_s = reserve * workers_s + 2.0 * journal_s + slack_s;
    return fmax(wanted_s, last_reserve * last_s);
}

double limit_answer_s(const struct limit_worker *worker, double quiet_s, double step_s)
{
    double shown_s = fmax(worker->gap_s, quiet_s);
    if (shown_s <= 0.0 || (step_s < 0.0 && worker->step_s <= 0.0)) {
        return INFINITY;
    }
    double longest_s = fmax(fmax(shown_s, worker->save_s), fmax(step_s, worker->step_s));
    return 2.0 * longest_s + 2.0;
}

/* What a file system and a host surely manage, in bytes a second. */
static const double write_bytes_per_s = 2e8;
static const double load_bytes_per_s = 5e8;

double limit_usual_gap_s(int64_t parameters)
{
    return 2.0 + 4.0 * (double)parameters / load_bytes_per_s;
}

double limit_usual_save_s(int64_t parameters, enum train_method method)
{
    /* Weights, master copy and two moments; of adapters a small part of the model. */
    double bytes = (method == TRAIN_FULL ? 16.0 : 0.5) * (double)parameters;
    return 0.5 + bytes / write_bytes_per_s;
}

static const double snapshot_interval_s = 30.0;
static const double snapshot_share = 0.1;

double limit_snapshot_interval_s(double took_s)
{
    return fmax(snapshot_interval_s, took_s / snapshot_share);
}

/* ---- what may still start ---- */

enum { LEAST_STEPS = 3 };

void limit_learn(double *value, double measured_s)
{
    if (!isfinite(measured_s) || measured_s <= 0.0) {
        return;
    }
    *value = measured_s >= *value ? measured_s : 0.75 * *value + 0.25 * measured_s;
}

static double tokens_a_step(const struct train_config *config)
{
    double tokens = (double)config->batch_tokens * (double)config->accumulation;
    return tokens > 0.0 ? tokens : 1.0;
}

double limit_tokens(const struct train_config *config, double tokens_an_epoch)
{
    double tokens = config->epochs * tokens_an_epoch;
    double most = (double)config->max_steps * tokens_a_step(config);
    return config->max_steps > 0 && most < tokens ? most : tokens;
}

/* Of the other method where this one has not been seen: a full training does at most twice the
 * work. */
static double token_seconds(const struct limit_speed *speed, enum train_method method)
{
    double own = speed->token_s[method];
    double other = speed->token_s[method == TRAIN_FULL ? TRAIN_LORA : TRAIN_FULL];
    return own > 0.0 ? own : other * (method == TRAIN_FULL ? 2.0 : 1.0);
}

struct limit_cost limit_estimate(const struct limit_speed *speed, const struct train_config *config,
                                 double tokens_an_epoch, int64_t steps_done)
{
    double token_s = token_seconds(speed, config->method);
    double tokens = limit_tokens(config, tokens_an_epoch);
    struct limit_cost cost = {
        .begin_s = speed->begin_s,
        .train_s = -1.0,
        .step_s = token_s * tokens_a_step(config),
        .save_s = speed->save_s,
        .finish_s = speed->finish_s,
    };
    if (token_s > 0.0) {
        double steps = fmax(ceil(tokens / tokens_a_step(config)), (double)steps_done + 1.0);
        cost.train_s = token_s * tokens * (1.0 - (double)steps_done / steps);
    }
    return cost;
}

enum limit_verdict limit_judge(const struct limit_cost *cost, double left_s)
{
    const double doubt = 1.1;
    bool known = cost->train_s >= 0.0;
    double whole_s = cost->begin_s + (known ? cost->train_s : 0.0) + cost->finish_s;
    if (left_s <= 0.0) {
        return LIMIT_NEITHER;
    }
    if (!known || doubt * whole_s <= left_s) {
        return LIMIT_FITS;
    }
    /* What it gets done must be worth beginning and saving it. */
    double useful_s = fmax(LEAST_STEPS * cost->step_s, cost->begin_s + cost->save_s);
    double split_s = cost->begin_s + useful_s + cost->save_s;
    bool checkpoints = cost->train_s > 0.0;
    return checkpoints && doubt * split_s <= left_s ? LIMIT_SPLITS : LIMIT_NEITHER;
}
