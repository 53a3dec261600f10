#include "run/pace.h"

void pace_begin(struct pace *pace, double now_s)
{
    *pace = (struct pace){
        .moment_s = now_s,
        .boundary_s = now_s,
        .steps_done = -1,
        .saved_bytes = pace->saved_bytes,
        .saved_s = pace->saved_s,
    };
}

void pace_mark(struct pace *pace, bool boundary, double now_s)
{
    pace->moment_s = now_s;
    if (boundary) {
        double gap_s = now_s - pace->boundary_s;
        pace->gap_s = gap_s > pace->gap_s ? gap_s : pace->gap_s;
        pace->boundary_s = now_s;
    }
}

void pace_mark_step(struct pace *pace, int64_t done, double now_s)
{
    if (pace->steps_done >= 0 && done == pace->steps_done + 1) {
        pace->steps_s[pace->steps_timed++ % PACE_STEPS] = now_s - pace->moment_s;
    }
    pace->steps_done = done;
    pace_mark(pace, true, now_s);
}

void pace_expect_state(struct pace *pace, double bytes)
{
    pace->state_bytes = bytes;
    pace->own_save_s = 0.0;
}

void pace_saved(struct pace *pace, double bytes, double seconds)
{
    pace->own_save_s = seconds > pace->own_save_s ? seconds : pace->own_save_s;
    if (bytes > pace->saved_bytes) {
        pace->saved_bytes = bytes;
        pace->saved_s = seconds;
    } else if (bytes == pace->saved_bytes && seconds > pace->saved_s) {
        pace->saved_s = seconds;
    }
}

double pace_step_s(const struct pace *pace)
{
    int64_t count = pace->steps_timed < PACE_STEPS ? pace->steps_timed : PACE_STEPS;
    double sum_s = 0.0;
    for (int64_t i = 0; i < count; i++) {
        sum_s += pace->steps_s[i];
    }
    return count > 0 ? sum_s / (double)count : 0.0;
}

double pace_save_s(const struct pace *pace)
{
    if (pace->own_save_s > 0.0 || pace->saved_bytes <= 0.0) {
        return pace->own_save_s;
    }
    double growth = pace->state_bytes / pace->saved_bytes;
    return growth > 1.0 ? pace->saved_s * growth : pace->saved_s;
}
