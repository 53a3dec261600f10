/* Rows that validation or test also hold. Equal prompts are removed at the end of every recipe;
 * this step can do more: find shared runs of words, or say what there is before other steps. */
#include <stdlib.h>

#include "data/operators.h"
#include "data/overlap.h"

enum overlap_action { ACTION_REMOVE, ACTION_REPORT };
static const char *const action_names[] = {"remove", "report", NULL};

enum overlap_against { AGAINST_BOTH, AGAINST_VALIDATION, AGAINST_TEST };
static const char *const against_names[] = {"both", "validation", "test", NULL};

struct overlap_args {
    int64_t ngram;
    const char *field;
    enum overlap_against against;
    enum overlap_action action;
};

static struct overlap_args read_args(struct json_reader *args)
{
    struct overlap_args out;
    out.ngram = json_read_int(args, "ngram", 0, 0, HELD_OUT_NGRAM_MAX);
    out.field = json_read_string(args, "field", NULL);
    out.against =
        (enum overlap_against)json_read_choice(args, "against", against_names, AGAINST_BOTH);
    out.action = (enum overlap_action)json_read_choice(args, "action", action_names, ACTION_REMOVE);
    return out;
}

void operator_overlap_check(struct json_reader *args)
{
    struct overlap_args overlap = read_args(args);
    if (overlap.field != NULL && overlap.ngram == 0) {
        json_problems_add(args->problems, args->pointer,
                          "found field without ngram, needed are both");
    }
}

static enum status compare_rows(struct held_out *held_out, const struct row_list *rows,
                                uint8_t *marks, int64_t *same_prompt, int64_t *shared_words,
                                struct error *err)
{
    for (int64_t i = 0; i < rows->count; i++) {
        enum held_out_match match = HELD_OUT_NEW;
        enum status status = held_out_compare(held_out, &rows->rows[i]->row, &match, err);
        if (status != STATUS_OK) {
            operator_row_context(err, rows->rows[i]);
            return status;
        }
        *same_prompt += match == HELD_OUT_SAME_PROMPT;
        *shared_words += match == HELD_OUT_SHARED_WORDS;
        marks[i] = match == HELD_OUT_NEW;
    }
    return STATUS_OK;
}

enum status operator_overlap_run(struct operator_run *run, struct json_reader *args,
                                 struct row_list *rows, struct error *err)
{
    struct overlap_args overlap = read_args(args);
    const struct recipe_context *context = run->context;
    const struct dataset *validation = overlap.against != AGAINST_TEST ? context->validation : NULL;
    const struct dataset *test = overlap.against != AGAINST_VALIDATION ? context->test : NULL;
    struct held_out *held_out = NULL;
    uint8_t *marks = operator_marks(rows, err);
    int64_t same_prompt = 0;
    int64_t shared_words = 0;
    enum status status = marks != NULL ? STATUS_OK : STATUS_NO_MEMORY;
    if (status == STATUS_OK) {
        status = held_out_create(context->task, validation, test, overlap.ngram, overlap.field,
                                 &held_out, err);
    }
    if (status == STATUS_OK) {
        status = compare_rows(held_out, rows, marks, &same_prompt, &shared_words, err);
    }
    if (status == STATUS_OK) {
        operator_note(run,
                      "%s %lld rows with a prompt of validation or test, %lld with shared words",
                      overlap.action == ACTION_REMOVE ? "removed" : "found", (long long)same_prompt,
                      (long long)shared_words);
        if (overlap.action == ACTION_REMOVE) {
            row_list_keep(rows, marks);
        }
    }
    held_out_destroy(held_out);
    free(marks);
    return status;
}
