#include "eval/likelihood.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { LIST_FIRST_CAPACITY = 1024 };

/* Host arrays of one pass; see struct batch for their shapes. */
struct pass {
    int64_t max_tokens;
    int64_t max_sequences;
    int32_t *positions;
    int32_t *targets;
    int32_t *starts;
    float *losses;
};

void likelihood_list_init(struct likelihood_list *list)
{
    memset(list, 0, sizeof(*list));
    token_list_init(&list->ids, INT32_MAX);
}

void likelihood_list_fini(struct likelihood_list *list)
{
    token_list_fini(&list->ids);
    free(list->start);
    free(list->answer);
    memset(list, 0, sizeof(*list));
}

static enum status reserve(struct likelihood_list *list, struct error *err)
{
    if (list->count < list->capacity) {
        return STATUS_OK;
    }
    int64_t capacity = list->capacity > 0 ? 2 * list->capacity : LIST_FIRST_CAPACITY;
    int64_t *start = mem_realloc(list->start, (size_t)capacity + 1, sizeof(*start));
    if (start == NULL) {
        return mem_fail(err, (size_t)capacity * sizeof(*start), "sequences of an evaluation");
    }
    list->start = start;
    list->start[list->count] = list->ids.count;
    int64_t *answer = mem_realloc(list->answer, (size_t)capacity, sizeof(*answer));
    if (answer == NULL) {
        return mem_fail(err, (size_t)capacity * sizeof(*answer), "sequences of an evaluation");
    }
    list->answer = answer;
    list->capacity = capacity;
    return STATUS_OK;
}

enum status likelihood_add(struct likelihood_list *list, const struct task *task,
                           const struct tokenizer *tokenizer, enum chat_format chat,
                           const struct task_example *example, const char *answer,
                           int64_t max_length, bool *truncated, struct error *err)
{
    struct token_list sequence;
    token_list_init(&sequence, INT32_MAX);
    int64_t answer_start = 0;
    enum status status = STATUS_OK;
    TRY_CLEANUP(reserve(list, err));
    TRY_CLEANUP(encode_prompt(task, tokenizer, chat, example, answer, max_length, &sequence,
                              &answer_start, truncated, err));
    TRY_CLEANUP(token_list_append(&list->ids, sequence.ids, sequence.count, err));
    list->answer[list->count] = answer_start;
    list->count++;
    list->start[list->count] = list->ids.count;
cleanup:
    token_list_fini(&sequence);
    return status;
}

int64_t likelihood_answer_tokens(const struct likelihood_list *list, int64_t i)
{
    int64_t length = list->start[i + 1] - list->start[i];
    int64_t first = list->answer[i] > 0 ? list->answer[i] : 1;
    return length > first ? length - first : 0;
}

static void pass_fini(struct pass *pass)
{
    free(pass->positions);
    free(pass->targets);
    free(pass->starts);
    free(pass->losses);
}

/* Room for the passes of a list: batch_tokens, or what the longest sequence or the whole list
 * needs. */
static enum status pass_init(struct pass *pass, const struct likelihood_list *list,
                             int64_t batch_tokens, struct error *err)
{
    memset(pass, 0, sizeof(*pass));
    int64_t longest = 1;
    for (int64_t i = 0; i < list->count; i++) {
        int64_t length = list->start[i + 1] - list->start[i];
        longest = length > longest ? length : longest;
    }
    pass->max_tokens = batch_tokens < list->ids.count ? batch_tokens : list->ids.count;
    pass->max_tokens = longest > pass->max_tokens ? longest : pass->max_tokens;
    pass->max_sequences = pass->max_tokens < list->count ? pass->max_tokens : list->count;
    pass->positions = mem_calloc((size_t)pass->max_tokens, sizeof(*pass->positions));
    pass->targets = mem_calloc((size_t)pass->max_tokens, sizeof(*pass->targets));
    pass->losses = mem_calloc((size_t)pass->max_tokens, sizeof(*pass->losses));
    pass->starts = mem_calloc((size_t)pass->max_sequences + 1, sizeof(*pass->starts));
    if (pass->positions == NULL || pass->targets == NULL || pass->losses == NULL ||
        pass->starts == NULL) {
        pass_fini(pass);
        return mem_fail(err, (size_t)pass->max_tokens * sizeof(*pass->targets),
                        "a pass of an evaluation");
    }
    return STATUS_OK;
}

/* Packs sequences from `first` on; returns the one after the last that fitted. */
static int64_t pack(const struct likelihood_list *list, int64_t first, struct pass *pass,
                    struct batch *batch)
{
    int64_t tokens = 0;
    int64_t next = first;
    batch->target_count = 0;
    for (; next < list->count && next - first < pass->max_sequences; next++) {
        int64_t length = list->start[next + 1] - list->start[next];
        if (tokens + length > pass->max_tokens) {
            break;
        }
        const int32_t *ids = list->ids.ids + list->start[next];
        pass->starts[next - first] = (int32_t)tokens;
        for (int64_t i = 0; i < length; i++) {
            bool scored = i + 1 < length && i + 1 >= list->answer[next];
            pass->positions[tokens + i] = (int32_t)i;
            pass->targets[tokens + i] = scored ? ids[i + 1] : -1;
            batch->target_count += scored;
        }
        tokens += length;
    }
    pass->starts[next - first] = (int32_t)tokens;
    batch->tokens = tokens;
    batch->sequences = next - first;
    batch->ids = list->ids.ids + list->start[first];
    batch->positions = pass->positions;
    batch->targets = pass->targets;
    batch->starts = pass->starts;
    return next;
}

/* Sums the losses of each sequence of a pass, in double and in order. */
static void sum_losses(const struct batch *batch, const float *losses, double *nats)
{
    for (int64_t s = 0; s < batch->sequences; s++) {
        nats[s] = 0.0;
        for (int32_t i = batch->starts[s]; i < batch->starts[s + 1]; i++) {
            nats[s] += batch->targets[i] >= 0 ? (double)losses[i] : 0.0;
        }
    }
}

enum status likelihood_run(const struct network *network, const struct likelihood_list *list,
                           int64_t batch_tokens, const struct progress *progress, double *nats,
                           struct error *err)
{
    if (list->count == 0) {
        return STATUS_OK;
    }
    struct pass pass;
    TRY(pass_init(&pass, list, batch_tokens, err));
    enum status status = STATUS_OK;
    struct transformer *transformer = NULL;
    struct transformer_options options = {.max_tokens = pass.max_tokens,
                                          .compute = network->weights->dtype};
    TRY_CLEANUP(transformer_create(network->weights->device, network, &options, &transformer, err));
    for (int64_t first = 0; first < list->count;) {
        TRY_CLEANUP(progress_tick(progress, "evaluate", first, list->count, err));
        struct batch batch;
        int64_t next = pack(list, first, &pass, &batch);
        TRY_CLEANUP(transformer_score(transformer, network, &batch, pass.losses, err));
        sum_losses(&batch, pass.losses, nats + first);
        first = next;
    }
    status = progress_tick(progress, "evaluate", list->count, list->count, err);
cleanup:
    transformer_destroy(transformer);
    pass_fini(&pass);
    return status;
}
