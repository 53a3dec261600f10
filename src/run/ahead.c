#include "run/ahead.h"

#include <math.h>
#include <stdbool.h>

enum {
    MEAN_OF = 8,
    QUICK_OF = 16 /* plans that come together, of which each is quick, must not hide a slow one */
};
static const double ahead_max = 1e6;
static const double negligible = 0.01; /* share of a round's time */
static const double slack = 0.2;       /* of a round: needed to go back, and to begin */
static const double margin = 0.5; /* roots of the mean: so much more may begin than on average */

static bool is_time(double seconds)
{
    return isfinite(seconds) && seconds > 0.0;
}

void ahead_learn_latency(struct ahead *ahead, double seconds)
{
    if (!is_time(seconds)) {
        return;
    }
    if (seconds >= ahead->latency_s) {
        ahead->latency_s = seconds;
    } else {
        ahead->latency_s += (seconds - ahead->latency_s) / (double)QUICK_OF;
    }
}

void ahead_learn_candidate(struct ahead *ahead, double seconds)
{
    if (!is_time(seconds)) {
        return;
    }
    ahead->candidates++;
    double of = ahead->candidates < MEAN_OF ? (double)ahead->candidates : (double)MEAN_OF;
    ahead->candidate_s += (seconds - ahead->candidate_s) / of;
}

int64_t ahead_wanted(const struct ahead *ahead, int workers, int round, int64_t current)
{
    if (!is_time(ahead->latency_s) || !is_time(ahead->candidate_s) || workers < 1 || round < 1) {
        return current;
    }
    /* Where a round has more candidates than there are workers, they go one after another. */
    double round_s = ahead->candidate_s * ceil((double)round / (double)workers);
    double share = ahead->latency_s / round_s;
    if (share < negligible) {
        bool barely = current > 0 && share > negligible * (1.0 - slack);
        return barely ? current : 0;
    }
    if (current == 0 && share < negligible * (1.0 + slack)) {
        return 0;
    }
    double needed = (double)workers * ahead->latency_s / ahead->candidate_s;
    needed += margin * sqrt(needed);
    needed = fmin(needed, ahead_max);
    int64_t rounds = (int64_t)ceil(needed / (double)round);
    int64_t wanted = rounds * round;
    bool fewer = wanted < current;
    bool clearly = needed < (double)(current - round) - slack * (double)round;
    return fewer && !clearly ? current : wanted;
}
