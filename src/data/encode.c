#include "data/encode.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { BLOCK_ROWS = 1024 };

#define TOKENS_MAX ((int64_t)1 << 36) /* of a whole split */
#define ROW_TOKENS_MAX ((int64_t)1 << 24)

void encoded_dataset_fini(struct encoded_dataset *dataset)
{
    free(dataset->ids);
    free(dataset->target);
    free(dataset->start);
    free(dataset->row);
    memset(dataset, 0, sizeof(*dataset));
}

/* ---- one row ---- */

/* The messages of an example, and its answer if there is one. Only `messages` is owned. */
static enum status collect_messages(const struct task_example *example, const char *answer,
                                    struct chat_message **messages, int64_t *count,
                                    struct error *err)
{
    int64_t turns = example->turns != NULL ? example->turn_count : 1;
    struct chat_message *list = mem_calloc((size_t)turns + 2, sizeof(*list));
    if (list == NULL) {
        return mem_fail(err, ((size_t)turns + 2) * sizeof(*list), "messages");
    }
    int64_t at = 0;
    bool own_system = example->turns != NULL && strcmp(example->turns[0].role, "system") == 0;
    if (example->system != NULL && !own_system) {
        list[at++] = (struct chat_message){"system", example->system};
    }
    if (example->turns == NULL) {
        list[at++] = (struct chat_message){"user", example->prompt};
    }
    for (int i = 0; i < example->turn_count; i++) {
        list[at++] = example->turns[i];
    }
    if (answer != NULL) {
        list[at++] = (struct chat_message){"assistant", answer};
    }
    *messages = list;
    *count = at;
    return STATUS_OK;
}

/* Appends to ids (and mask, which may be NULL). Base models see the prompt alone: without a chat
 * format there is no place for a system message. */
static enum status encode_messages(const struct task *task, const struct tokenizer *tokenizer,
                                   enum chat_format chat, const struct task_example *example,
                                   const char *answer, struct token_list *ids,
                                   struct token_list *mask, struct error *err)
{
    struct chat_message *messages = NULL;
    int64_t count = 0;
    TRY(collect_messages(example, answer, &messages, &count, err));
    int64_t first =
        chat == CHAT_PLAIN && count > 1 && strcmp(messages[0].role, "system") == 0 ? 1 : 0;
    enum status status = chat_encode(tokenizer, chat, messages + first, count - first,
                                     answer == NULL, task->thinking, ids, mask, err);
    free(messages);
    return status;
}

/* Index of the first id of the last answer, `count` if there is none. */
static int64_t find_answer(const int32_t *mask, int64_t count)
{
    int64_t end = count;
    while (end > 0 && mask[end - 1] == 0) {
        end--;
    }
    int64_t start = end;
    while (start > 0 && mask[start - 1] != 0) {
        start--;
    }
    return end == 0 ? count : start;
}

/* How to cut ids to max_length: keep `head` ids (bos, or none), skip `skip`, keep the rest. */
struct cut {
    int64_t head;
    int64_t skip;
};

/* False if the part from `answer_start` on does not fit. */
static bool plan_cut(const struct tokenizer *tokenizer, const int32_t *ids, int64_t count,
                     int64_t answer_start, int64_t max_length, struct cut *cut)
{
    *cut = (struct cut){0, 0};
    if (count <= max_length) {
        return true;
    }
    if (count - answer_start > max_length) {
        return false;
    }
    bool bos =
        ids[0] == tokenizer_bos(tokenizer) && answer_start > 0 && count - answer_start < max_length;
    cut->head = bos ? 1 : 0;
    cut->skip = count - max_length;
    return true;
}

enum status encode_prompt(const struct task *task, const struct tokenizer *tokenizer,
                          enum chat_format chat, const struct task_example *example,
                          const char *answer, int64_t max_length, struct token_list *ids,
                          int64_t *answer_start, bool *truncated, struct error *err)
{
    struct token_list prompt;
    struct token_list all;
    token_list_init(&prompt, ROW_TOKENS_MAX);
    token_list_init(&all, ROW_TOKENS_MAX);
    enum status status = STATUS_OK;
    TRY_CLEANUP(encode_messages(task, tokenizer, chat, example, NULL, &prompt, NULL, err));
    const struct token_list *whole = &prompt;
    if (answer != NULL) {
        TRY_CLEANUP(encode_messages(task, tokenizer, chat, example, answer, &all, NULL, err));
        whole = &all;
    }
    struct cut cut;
    if (!plan_cut(tokenizer, whole->ids, whole->count, prompt.count, max_length, &cut)) {
        status =
            FAIL(err, STATUS_LIMIT, "an answer of %lld tokens does not fit into sequences of %lld",
                 (long long)(whole->count - prompt.count), (long long)max_length);
        goto cleanup;
    }
    int64_t before = ids->count;
    TRY_CLEANUP(token_list_append(ids, whole->ids, cut.head, err));
    status = token_list_append(ids, whole->ids + cut.head + cut.skip,
                               whole->count - cut.head - cut.skip, err);
    if (status != STATUS_OK) {
        ids->count = before;
        goto cleanup;
    }
    *truncated = cut.skip > 0;
    *answer_start = before + prompt.count - cut.skip;
cleanup:
    token_list_fini(&prompt);
    token_list_fini(&all);
    return status;
}

/* ---- a split ---- */

enum row_fate { ROW_KEPT, ROW_CUT, ROW_DROPPED };

/* What a thread makes of one row. */
struct row_ids {
    struct token_list ids;
    struct token_list mask;
    struct cut cut;
    enum row_fate fate;
    enum status status;
};

struct encoder {
    const struct task *task;
    const struct tokenizer *tokenizer;
    const struct dataset *rows;
    const struct encode_options *options;
    struct row_ids *block; /* (BLOCK_ROWS) */
    struct error *errors;  /* (BLOCK_ROWS) */
    struct encoded_dataset out;
    int64_t token_capacity;
    int64_t row_capacity;
};

static enum status encode_row(const struct encoder *encoder, const struct data_row *row,
                              struct row_ids *out, struct error *err)
{
    struct task_example example;
    TRY(task_render(encoder->task, row, &example, err));
    out->ids.count = 0;
    out->mask.count = 0;
    out->fate = ROW_DROPPED;
    enum status status = STATUS_OK;
    if (example.answer[0] != '\0') {
        status = encode_messages(encoder->task, encoder->tokenizer, encoder->options->chat,
                                 &example, example.answer, &out->ids, &out->mask, err);
        if (status == STATUS_OK && out->ids.count > 0) {
            int64_t answer_start = find_answer(out->mask.ids, out->ids.count);
            bool fits = answer_start < out->ids.count &&
                        plan_cut(encoder->tokenizer, out->ids.ids, out->ids.count, answer_start,
                                 encoder->options->max_length, &out->cut);
            out->fate = !fits ? ROW_DROPPED : out->cut.skip > 0 ? ROW_CUT : ROW_KEPT;
        }
    }
    task_example_fini(&example);
    return status;
}

/* Doubles an array of the output until it holds `needed` entries. */
static enum status grow(void **items, size_t size, int64_t capacity, struct error *err)
{
    void *grown = mem_realloc(*items, (size_t)capacity, size);
    if (grown == NULL) {
        return mem_fail(err, (size_t)capacity * size, "encoded rows");
    }
    *items = grown;
    return STATUS_OK;
}

static enum status reserve(struct encoder *encoder, int64_t tokens, int64_t rows, struct error *err)
{
    struct encoded_dataset *out = &encoder->out;
    if (tokens > TOKENS_MAX) {
        return FAIL(err, STATUS_LIMIT, "more than %lld tokens in one split", (long long)TOKENS_MAX);
    }
    int64_t token_capacity = encoder->token_capacity > 0 ? encoder->token_capacity : 4096;
    while (token_capacity < tokens) {
        token_capacity *= 2;
    }
    if (token_capacity > encoder->token_capacity) {
        TRY(grow((void **)&out->ids, sizeof(*out->ids), token_capacity, err));
        TRY(grow((void **)&out->target, sizeof(*out->target), token_capacity, err));
        encoder->token_capacity = token_capacity;
    }
    int64_t row_capacity = encoder->row_capacity > 0 ? encoder->row_capacity : 64;
    while (row_capacity < rows) {
        row_capacity *= 2;
    }
    if (row_capacity > encoder->row_capacity) {
        TRY(grow((void **)&out->start, sizeof(*out->start), row_capacity + 1, err));
        TRY(grow((void **)&out->row, sizeof(*out->row), row_capacity, err));
        encoder->row_capacity = row_capacity;
    }
    return STATUS_OK;
}

static enum status append_row(struct encoder *encoder, const struct row_ids *row, int64_t number,
                              struct error *err)
{
    struct encoded_dataset *out = &encoder->out;
    int64_t length = row->ids.count - row->cut.skip;
    int64_t answer_tokens = 0;
    int64_t start = out->count > 0 ? out->start[out->count] : 0;
    TRY(reserve(encoder, start + length, out->count + 1, err));
    for (int64_t i = 0; i < length; i++) {
        int64_t from = i < row->cut.head ? i : i + row->cut.skip;
        out->ids[start + i] = row->ids.ids[from];
        out->target[start + i] = i > 0 && row->mask.ids[from] != 0;
        answer_tokens += out->target[start + i];
    }
    if (answer_tokens == 0) {
        out->dropped++; /* one id alone: there is nothing to learn from */
        return STATUS_OK;
    }
    out->answer_tokens += answer_tokens;
    out->truncated += row->fate == ROW_CUT;
    out->row[out->count] = number;
    out->start[out->count] = start;
    out->start[++out->count] = start + length;
    return STATUS_OK;
}

/* Rows [first, first + count) on all threads, then in their order into the output. */
static enum status encode_block(struct encoder *encoder, int64_t first, int64_t count,
                                struct error *err)
{
#pragma omp parallel for schedule(dynamic, 16)
    for (int64_t i = 0; i < count; i++) {
        encoder->block[i].status = encode_row(encoder, &encoder->rows->rows[first + i],
                                              &encoder->block[i], &encoder->errors[i]);
    }
    for (int64_t i = 0; i < count; i++) {
        const struct row_ids *row = &encoder->block[i];
        if (row->status != STATUS_OK) {
            const struct data_row *from = &encoder->rows->rows[first + i];
            if (err != NULL) {
                *err = encoder->errors[i];
            }
            error_context(err, "%s:%lld", encoder->rows->sources[from->source],
                          (long long)from->line);
            return row->status;
        }
        if (row->fate == ROW_DROPPED) {
            encoder->out.dropped++;
        } else {
            TRY(append_row(encoder, row, first + i, err));
        }
    }
    return STATUS_OK;
}

static enum status encode_rows(struct encoder *encoder, struct error *err)
{
    for (int64_t first = 0; first < encoder->rows->count; first += BLOCK_ROWS) {
        int64_t left = encoder->rows->count - first;
        TRY(progress_tick(encoder->options->progress, "data", first, encoder->rows->count, err));
        TRY(encode_block(encoder, first, left < BLOCK_ROWS ? left : BLOCK_ROWS, err));
    }
    if (encoder->out.count == 0) {
        return FAIL(err, STATUS_INVALID,
                    "none of %lld rows has an answer that fits into sequences of %lld tokens; "
                    "raise sequence_length",
                    (long long)encoder->rows->count, (long long)encoder->options->max_length);
    }
    return STATUS_OK;
}

enum status encode_dataset(const struct task *task, const struct tokenizer *tokenizer,
                           const struct dataset *rows, const struct encode_options *options,
                           struct encoded_dataset *out, struct error *err)
{
    if (options->max_length < 2 || options->max_length > INT32_MAX) {
        return FAIL(err, STATUS_RANGE, "sequences of %lld tokens, allowed are 2 to %d",
                    (long long)options->max_length, INT32_MAX);
    }
    struct encoder encoder = {
        .task = task, .tokenizer = tokenizer, .rows = rows, .options = options};
    enum status status = STATUS_OK;
    encoder.block = mem_calloc(BLOCK_ROWS, sizeof(*encoder.block));
    encoder.errors = mem_calloc(BLOCK_ROWS, sizeof(*encoder.errors));
    if (encoder.block == NULL || encoder.errors == NULL) {
        status = mem_fail(err, BLOCK_ROWS * sizeof(*encoder.errors), "a block of rows");
        goto cleanup;
    }
    for (int i = 0; i < BLOCK_ROWS; i++) {
        token_list_init(&encoder.block[i].ids, ROW_TOKENS_MAX);
        token_list_init(&encoder.block[i].mask, ROW_TOKENS_MAX);
    }
    TRY_CLEANUP(encode_rows(&encoder, err));
    *out = encoder.out;
    memset(&encoder.out, 0, sizeof(encoder.out));
cleanup:
    for (int i = 0; encoder.block != NULL && i < BLOCK_ROWS; i++) {
        token_list_fini(&encoder.block[i].ids);
        token_list_fini(&encoder.block[i].mask);
    }
    free(encoder.block);
    free(encoder.errors);
    encoded_dataset_fini(&encoder.out);
    return status;
}
