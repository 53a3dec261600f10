/* What a search measured, read as an engineer would: curves, failures, learning rates, gains beyond
 * the noise. Facts only; what to do about them is the researcher's business. */
#ifndef AGENTS_EVIDENCE_H
#define AGENTS_EVIDENCE_H

#include "train/config.h"
#include "tree/search.h"

/* A difference counts when it exceeds this many of its standard errors. */
#define EVIDENCE_ERRORS 2.0

/* A training's curve. Losses are in nats per answer token; train losses are means over a tenth of
 * the points. */
struct curve_reading {
    int32_t points;      /* 0: nothing was trained */
    int32_t validations; /* points with a validation loss */
    int64_t last_step;
    double train_first, train_last;
    double validation_first, validation_last; /* NaN without validations */
    double validation_best;
    int64_t best_step;
    bool underfit; /* losses were still falling when it ended */
    bool overfit;  /* validation rose again while train fell */
    bool diverged; /* train loss ended far above its start, or is not finite */
};
void curve_read(const struct candidate *candidate, struct curve_reading *out);

/* What the whole search says, by method of training. Kept by whoever asks often: it is brought up
 * to date with what has ended since, so that no question depends on the size of the search. */
enum { EVIDENCE_METHODS = 2, EVIDENCE_SPEEDS_MAX = 8 };
struct evidence_speed {
    int32_t node, candidate;
    double tokens_per_s;
};
struct evidence_method {
    double rate_lowest, rate_highest;  /* learning rates of finished candidates; 0: none */
    double rate_diverged;              /* lowest that diverged; 0: none */
    int32_t best_node, best_candidate; /* best finished candidate, -1: none */
    double best_rate;                  /* its learning rate */
    struct evidence_speed speeds[EVIDENCE_SPEEDS_MAX]; /* of the newest nodes, newest first */
    int speed_count;
};
struct evidence_index {
    int64_t read; /* of search->settled */
    struct evidence_method methods[EVIDENCE_METHODS];
    int32_t *path_best; /* of each closed node: best trained one from the root down to it, or -1 */
    int32_t path_capacity;
};
void evidence_index_init(struct evidence_index *index);
void evidence_index_fini(struct evidence_index *index);

/* `search` is always the same one, grown. To be called before the index is asked. */
enum status evidence_index_update(struct evidence_index *index, const struct search *search,
                                  struct error *err);

/* A closed round, or one whose candidates are all over. */
struct evidence {
    int32_t node;
    const struct candidate *best; /* NULL if none finished */
    int32_t best_index;
    struct train_config config; /* of the best; defaults if none */
    bool trained;               /* the best was trained: it is no baseline */
    struct curve_reading curve; /* of the best */
    int32_t finished, failed, diverged,
        no_memory; /* candidates; one may finish and have diverged */
    double format_share, unfinished_share, truncated_share; /* of the validation rows, 0..1 */
    const struct search_confusion *confusion;               /* the most frequent, or NULL */
    double confusion_share;                                 /* of the validation rows */

    /* Learning rates that the whole search tried with the best's method. */
    double rate_lowest, rate_highest; /* of finished candidates; 0: none */
    double rate_diverged;             /* lowest that diverged; 0: none */
    bool at_low_edge, at_high_edge;   /* the best stands at an end of several rates, and beyond it
                                         nothing is known */
};
void evidence_read(const struct search *search, const struct evidence_index *index, int32_t node,
                   struct evidence *out);

/* Best candidate of a node, or NULL. */
const struct candidate *evidence_best(const struct search *search, int32_t node);

/* Gain of one score over another, larger is better, with its standard error. */
double evidence_gain(const struct search *search, const struct search_score *score,
                     const struct search_score *over, double *standard_error);

/* Best trained and closed node on the way from the root to `node`, which is closed; -1 if there is
 * none. */
int32_t evidence_best_on_path(const struct evidence_index *index, int32_t node);

/* Whether a node was trained at all: the root is the baseline. */
bool evidence_is_trained(const struct search *search, int32_t node);

/* Learning rate of the best finished candidate with a method in the whole search; 0 if there is
 * none. */
double evidence_best_rate(const struct evidence_index *index, enum train_method method);

/* Tokens a second that the search's finished trainings with a method reached (the slowest of the
 * last few); 0: none. */
double evidence_speed(const struct evidence_index *index, enum train_method method);

#endif
