#include "eval/diagnosis.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "eval/label_parser.h"
#include "eval/labels.h"
#include "eval/utf8.h"

enum {
    CASE_TEXT_BYTES = 2048,
    PAIRS_MAX = 1024, /* different pairs that are counted; the frequent ones come early */
};
static const uint64_t cases_stream =
    0x6361736573; /* apart from the streams of rows and of resamples */

/* ---- failed cases ---- */

static int compare_indices(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left;
    int64_t b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

static enum status copy_case(const struct scorer_row *row, struct eval_case *out, struct error *err)
{
    out->prompt = utf8_copy_cut(row->prompt, CASE_TEXT_BYTES);
    out->answer = utf8_copy_cut(row->answer, CASE_TEXT_BYTES);
    out->output = utf8_copy_cut(row->output, CASE_TEXT_BYTES);
    bool whole = out->prompt != NULL && out->answer != NULL && out->output != NULL;
    return whole ? STATUS_OK : mem_fail(err, CASE_TEXT_BYTES, "a failed case");
}

enum status diagnosis_sample_cases(const struct scorer *scorer, const struct scorer_row *rows,
                                   const double *row_score, int64_t count, int64_t max_cases,
                                   uint64_t seed, struct eval_result *result, struct error *err)
{
    enum status status = STATUS_OK;
    int64_t failed_count = 0;
    int64_t *failed = mem_calloc((size_t)count, sizeof(*failed));
    if (failed == NULL) {
        return mem_fail(err, (size_t)count * sizeof(*failed), "failed cases");
    }
    for (int64_t i = 0; i < count; i++) {
        if (row_score[i] < scorer->best) {
            failed[failed_count++] = i;
        }
    }
    int64_t kept = max_cases < failed_count ? max_cases : failed_count;
    if (kept <= 0) {
        goto cleanup;
    }
    struct rng rng;
    rng_init(&rng, seed, cases_stream);
    rng_shuffle(&rng, failed, failed_count);
    qsort(failed, (size_t)kept, sizeof(*failed), compare_indices);
    result->cases = mem_calloc((size_t)kept, sizeof(*result->cases));
    if (result->cases == NULL) {
        status = mem_fail(err, (size_t)kept * sizeof(*result->cases), "failed cases");
        goto cleanup;
    }
    result->case_count = kept;
    for (int64_t i = 0; i < kept; i++) {
        result->cases[i].row = failed[i];
        result->cases[i].score = row_score[failed[i]];
        TRY_CLEANUP(copy_case(&rows[failed[i]], &result->cases[i], err));
    }
cleanup:
    free(failed);
    return status;
}

/* ---- labels ---- */

struct pairs {
    struct eval_confusion items[PAIRS_MAX];
    int count;
};

static void copy_name(char out[sizeof(((struct eval_confusion *)0)->expected)], const char *name)
{
    size_t bytes = sizeof(((struct eval_confusion *)0)->expected);
    size_t length = utf8_cut(name, strlen(name), bytes - 1);
    memcpy(out, name, length);
    out[length] = '\0';
}

static void count_pair(struct pairs *pairs, const char *expected, const char *found)
{
    struct eval_confusion pair = {.count = 1};
    copy_name(pair.expected, expected);
    copy_name(pair.found, found);
    for (int i = 0; i < pairs->count; i++) {
        struct eval_confusion *item = &pairs->items[i];
        if (strcmp(item->expected, pair.expected) == 0 && strcmp(item->found, pair.found) == 0) {
            item->count++;
            return;
        }
    }
    if (pairs->count < PAIRS_MAX) {
        pairs->items[pairs->count++] = pair;
    }
}

/* The most frequent pairs, those that came first before others of equal count. */
static void take_most_frequent(struct pairs *pairs, struct eval_result *result)
{
    while (result->confusion_count < EVAL_CONFUSIONS_MAX) {
        struct eval_confusion *best = NULL;
        for (int i = 0; i < pairs->count; i++) {
            if (pairs->items[i].count > (best != NULL ? best->count : 0)) {
                best = &pairs->items[i];
            }
        }
        if (best == NULL) {
            return;
        }
        result->confusions[result->confusion_count++] = *best;
        best->count = 0;
    }
}

static bool is_blank(const char *text)
{
    return text[strspn(text, " \t\r\n\v\f")] == '\0';
}

/* A row whose answer is one label, or free text. */
static enum status look_at_row(const struct task *task, const struct scorer_row *row,
                               struct pairs *pairs, bool *wrong_form, struct error *err)
{
    struct label_set set;
    int expected = -1;
    int found = -1;
    const char *output = scorer_text(row->output);
    TRY(label_set_of_row(task, row->row, scorer_text(row->answer), &set, err));
    *wrong_form = is_blank(output);
    if (set.count == 0) {
        return STATUS_OK;
    }
    TRY(label_find(&set, scorer_text(row->answer), &expected, err));
    TRY(label_find_mention(&set, output, &found, err));
    if (found != expected) {
        count_pair(pairs, set.names[expected], found >= 0 ? set.names[found] : EVAL_NO_LABEL);
    }
    *wrong_form = found < 0;
    return STATUS_OK;
}

/* A row whose answer is a set of labels: each that is missing, and each that is too much. */
static enum status look_at_set(const struct label_parser *parser, const struct scorer_row *row,
                               struct pairs *pairs, bool *wrong_form, struct error *err)
{
    struct label_bits expected;
    struct label_bits found;
    bool unknown = false;
    const char *output = scorer_text(row->output);
    TRY(label_parser_read(parser, scorer_text(row->answer), &expected, &unknown, err));
    TRY(label_parser_read(parser, output, &found, &unknown, err));
    for (int label = 0; label < parser->count; label++) {
        bool asked = label_bits_has(&expected, label);
        bool given = label_bits_has(&found, label);
        if (asked && !given) {
            count_pair(pairs, parser->names[label], EVAL_NO_LABEL);
        } else if (given && !asked) {
            count_pair(pairs, EVAL_NO_LABEL, parser->names[label]);
        }
    }
    *wrong_form = unknown || is_blank(output);
    return STATUS_OK;
}

enum status diagnosis_count_labels(const struct task *task, const struct scorer_row *rows,
                                   int64_t count, struct eval_result *result, struct error *err)
{
    enum status status = STATUS_OK;
    bool many_labels = strcmp(task->metric, "macro_f1") == 0;
    struct label_parser parser = {0};
    struct pairs *pairs = mem_calloc(1, sizeof(*pairs));
    if (pairs == NULL) {
        return mem_fail(err, sizeof(*pairs), "confusions");
    }
    if (many_labels) {
        TRY_CLEANUP(label_parser_init(&parser, task, rows, count, err));
    }
    for (int64_t i = 0; i < count; i++) {
        bool wrong_form = false;
        status = many_labels ? look_at_set(&parser, &rows[i], pairs, &wrong_form, err)
                             : look_at_row(task, &rows[i], pairs, &wrong_form, err);
        TRY_CLEANUP(status);
        result->format_failures += wrong_form;
    }
    take_most_frequent(pairs, result);
cleanup:
    label_parser_fini(&parser);
    free(pairs);
    return status;
}
