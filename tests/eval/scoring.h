/* Helpers of the tests of scorers: a task and rows from plain strings. */
#ifndef TESTS_EVAL_SCORING_H
#define TESTS_EVAL_SCORING_H

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"
#include "eval/scorer.h"

enum { SCORING_ROWS_MAX = 64 };

struct scoring_rows {
    struct task task;
    struct data_row data[SCORING_ROWS_MAX];
    struct scorer_row rows[SCORING_ROWS_MAX];
    double row_score[SCORING_ROWS_MAX];
    double score;
    int64_t count;
};

/* Adds a row; choices is a JSON list or NULL. Texts are borrowed. */
static inline void scoring_add(struct scoring_rows *scoring, const char *answer, const char *output,
                               const char *choices)
{
    assert_true(scoring->count < SCORING_ROWS_MAX);
    struct data_row *data = &scoring->data[scoring->count];
    data->object = cJSON_CreateObject();
    cJSON_AddStringToObject(data->object, "answer", answer);
    if (choices != NULL) {
        cJSON *list = cJSON_Parse(choices);
        assert_non_null(list);
        cJSON_AddItemToObject(data->object, "choices", list);
    }
    scoring->rows[scoring->count] = (struct scorer_row){data, "prompt", answer, output};
    scoring->count++;
}

static inline enum status scoring_run(struct scoring_rows *scoring, const char *metric,
                                      struct error *err)
{
    const struct scorer *scorer = scorer_find(metric);
    assert_non_null(scorer);
    return scorer->score(&scoring->task, scoring->rows, scoring->count, scoring->row_score,
                         &scoring->score, err);
}

static inline void scoring_fini(struct scoring_rows *scoring)
{
    for (int64_t i = 0; i < scoring->count; i++) {
        cJSON_Delete(scoring->data[i].object);
    }
    memset(scoring, 0, sizeof(*scoring));
}

/* Scores one row and forgets it. */
static inline double scoring_one(const char *metric, const char *answer, const char *output,
                                 const char *choices)
{
    struct scoring_rows scoring = {0};
    struct error err;
    scoring_add(&scoring, answer, output, choices);
    assert_int_equal(scoring_run(&scoring, metric, &err), STATUS_OK);
    double score = scoring.row_score[0];
    assert_true(score == scoring.score);
    scoring_fini(&scoring);
    return score;
}

#endif
