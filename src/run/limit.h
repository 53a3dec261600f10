/* Time before a limit: how long a stop takes, and what may still start. Pure: no clock, no files.
 * Seconds; 0 is "not known yet" wherever something was measured. */
#ifndef RUN_LIMIT_H
#define RUN_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

#include "train/config.h"

/* ---- how long a stop takes ---- */

/* A worker as its last PROGRESS told of it. */
struct limit_worker {
    bool trains; /* it is in its steps: done, total and step_s count */
    bool saves;  /* it is writing: it cannot stop before that is over, and writes again then */
    int64_t done, total; /* steps */
    double since_s;      /* since it said so */
    double step_s, save_s, gap_s;
};

/* The step after which it stops: the first one that it cannot have begun yet, and at most the last
 * one. 0, the next boundary, where it is not in its steps. */
int64_t limit_stop_step(const struct limit_worker *worker);

/* Longest time until its state is safe, without any reserve. usual: for what it has not told. */
double limit_worker_drain_s(const struct limit_worker *worker, double usual_gap_s,
                            double usual_save_s);

/* The margin that a stop needs: workers_s is the longest of its workers, journal_s what rank 0's
 * own writes have taken, last_s what the last stop of this search took. */
double limit_drain_s(double workers_s, double journal_s, double last_s);

/* How long a worker that lives takes to say a word, at the most, judged by what it has shown.
 * quiet_s: its longest silence at work; step_s: a training step, as foreseen, 0: it takes none.
 * Infinite where too little is known: it has not spoken yet, or step_s is negative. */
double limit_answer_s(const struct limit_worker *worker, double quiet_s, double step_s);

/* A gap and a save that are not known yet, judged by the size of the model. */
double limit_usual_gap_s(int64_t parameters);
double limit_usual_save_s(int64_t parameters, enum train_method method);

/* From one snapshot of the whole search to the next, when the last one took so long: they get at
 * most a tenth of a thread's time, however large the search is. What is newer is in the journal. */
double limit_snapshot_interval_s(double took_s);

/* ---- what may still start ---- */

/* What the candidates of this search have shown. */
struct limit_speed {
    double token_s[2]; /* training, a token; by enum train_method */
    double begin_s;    /* from the order to the first step */
    double save_s;     /* of a training's state */
    double finish_s;   /* from the last step to the result */
};

/* Follows what is measured: up at once, down slowly. Ignores what is no positive number. */
void limit_learn(double *value, double measured_s);

/* Tokens that a training takes in all its epochs or steps. */
double limit_tokens(const struct train_config *config, double tokens_an_epoch);

/* What a candidate needs; train_s (all of its steps that are left) is negative if nothing is known
 * of how fast it will be. */
struct limit_cost {
    double begin_s, train_s, step_s, save_s, finish_s;
};
struct limit_cost limit_estimate(const struct limit_speed *speed, const struct train_config *config,
                                 double tokens_an_epoch, int64_t steps_done);

enum limit_verdict {
    LIMIT_FITS,    /* it can finish, or nothing is known of it */
    LIMIT_SPLITS,  /* it would be cut, but gets somewhere and is saved */
    LIMIT_NEITHER, /* it would be for nothing */
};
/* left_s: until a stop has to begin; infinite where there is no limit. */
enum limit_verdict limit_judge(const struct limit_cost *cost, double left_s);

#endif
