/* How fast a worker works and how soon it can stop, as its PROGRESS tells the controller: the
 * margin before a time limit follows from it. The caller says what time it is (monotonic). */
#ifndef RUN_PACE_H
#define RUN_PACE_H

#include <stdbool.h>
#include <stdint.h>

enum { PACE_STEPS = 16 };

struct pace {
    /* of the order that is carried out */
    double moment_s;   /* the last one that was told of */
    double boundary_s; /* the last one at which the work could have stopped */
    double gap_s;      /* longest time between two boundaries */
    int64_t steps_done;
    double steps_s[PACE_STEPS]; /* of the last whole steps, in turn */
    int64_t steps_timed;
    double state_bytes; /* of this training's state; 0: not known */
    double own_save_s;  /* longest save of it */
    /* of the process: the save that took longest among those of the largest state so far */
    double saved_bytes;
    double saved_s;
};

/* An order has come. What is known of saves stays. */
void pace_begin(struct pace *pace, double now_s);

/* Something was done. boundary: the work could have stopped here. */
void pace_mark(struct pace *pace, bool boundary, double now_s);

/* A boundary behind `done` steps of a training; the time since the last mark was the step if it is
 * the next one. */
void pace_mark_step(struct pace *pace, int64_t done, double now_s);

/* The training that begins has a state of so many bytes. */
void pace_expect_state(struct pace *pace, double bytes);

/* A state of so many bytes was written. */
void pace_saved(struct pace *pace, double bytes, double seconds);

/* Mean of the last steps; 0: none yet. */
double pace_step_s(const struct pace *pace);

/* Longest save of this training's state. Before the first: that of another state in this process,
 * longer by as much as this one is larger. 0: nothing is known. */
double pace_save_s(const struct pace *pace);

#endif
