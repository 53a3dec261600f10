#include "eval/generate.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "eval/stream.h"

enum {
    SLOTS_MAX = 64,        /* chosen by ourselves; a caller may ask for more */
    SLOTS_LIMIT = 4096,    /* of what a caller may ask for */
    PREFILL_TOKENS = 2048, /* prompt tokens of a pass: bounds the activations */
    ENDS_MAX = MODEL_EOS_MAX + 1 + CHAT_FORMAT_COUNT,
};
static const int64_t decoder_budget_min_bytes = (int64_t)1 << 30;

/* A place in the decoder and the output that it works on. */
struct slot {
    int64_t index;    /* of the prompt; -1: free */
    int64_t position; /* of the next token that is fed */
    int64_t made;     /* tokens sampled */
    int32_t token;    /* sampled last, to be fed next */
    struct stream stream;
};

/* What a run holds. */
struct generator {
    const struct model *model;
    const struct network *network;
    const int32_t *ids;
    const int64_t *start;
    int64_t count;
    const struct generate_options *options;
    void (*on_text)(void *context, int64_t index, const char *piece);
    void *context;
    const struct progress *progress;
    struct generate_output *outputs;

    int32_t ends[ENDS_MAX];
    int end_count;
    int64_t max_prompt;
    struct decoder_options shape;
    struct decoder *decoder;
    struct slot *slots; /* (shape.slots) */
    int64_t admitted;   /* prompts that got a slot */
    int64_t finished;

    /* One pass, as decoder_feed takes it; entry_slot etc. have shape.slots entries. */
    int32_t *feed_ids;
    int32_t *entry_slot;
    int32_t *entry_position;
    int32_t *entry_count;
    float *uniform;
    int32_t *token;
    int64_t feed_count;
    int64_t entries;
};

/* ---- before the first token ---- */

static void add_end(struct generator *generator, int32_t id)
{
    if (id >= 0 && generator->end_count < ENDS_MAX) {
        generator->ends[generator->end_count++] = id;
    }
}

/* Base models are asked in chat formats too, so that the end token of each format counts where it
 * exists. */
static void collect_ends(struct generator *generator)
{
    const struct model *model = generator->model;
    for (int i = 0; i < model->config.eos_count; i++) {
        add_end(generator, model->config.eos[i]);
    }
    add_end(generator, tokenizer_eos(model->tokenizer));
    for (int format = 0; format < CHAT_FORMAT_COUNT; format++) {
        const char *token = chat_end_token((enum chat_format)format);
        add_end(generator, token != NULL ? tokenizer_find(model->tokenizer, token) : -1);
    }
}

static bool is_end(const struct generator *generator, int32_t token)
{
    for (int i = 0; i < generator->end_count; i++) {
        if (generator->ends[i] == token) {
            return true;
        }
    }
    return false;
}

static enum status check_input(struct generator *generator, struct error *err)
{
    const struct generate_options *options = generator->options;
    int64_t positions = generator->model->config.max_positions;
    if (options->max_new_tokens < 1) {
        return FAIL(err, STATUS_RANGE, "max_new_tokens is %lld, allowed is 1 or more",
                    (long long)options->max_new_tokens);
    }
    if (options->slots < 0 || options->slots > SLOTS_LIMIT) {
        return FAIL(err, STATUS_RANGE, "slots is %lld, allowed is 0 to %d",
                    (long long)options->slots, SLOTS_LIMIT);
    }
    for (int64_t i = 0; i < generator->count; i++) {
        int64_t length = generator->start[i + 1] - generator->start[i];
        if (length < 1) {
            return FAIL(err, STATUS_INVALID,
                        "prompt %lld is empty: there is no token to go on from", (long long)i);
        }
        if (length > positions) {
            return FAIL(
                err, STATUS_RANGE,
                "prompt %lld has %lld tokens, the model has %lld positions; shorten the prompt",
                (long long)i, (long long)length, (long long)positions);
        }
        generator->max_prompt = length > generator->max_prompt ? length : generator->max_prompt;
    }
    return STATUS_OK;
}

/* Of a decoder whose slots we choose. A step reads the weights once and the caches of all slots:
 * with caches as large as the weights, many sequences still cost no more than twice the time of
 * one. */
static int64_t decoder_budget_bytes(const struct network *network)
{
    const struct weights *weights = network->weights;
    int64_t bytes = weights->table->elements * (int64_t)dtype_bytes(weights->dtype);
    return bytes > decoder_budget_min_bytes ? bytes : decoder_budget_min_bytes;
}

/* Slots asked for, or as many as are useful and fit the budget; fewer again if the device cannot
 * give the memory. */
static enum status open_decoder(struct generator *generator, struct error *err)
{
    const struct generate_options *options = generator->options;
    int64_t positions = generator->model->config.max_positions;
    int64_t free_positions = positions - generator->max_prompt;
    struct decoder_options *shape = &generator->shape;
    shape->capacity = options->max_new_tokens < free_positions
                          ? generator->max_prompt + options->max_new_tokens
                          : positions;
    shape->prefill_tokens = PREFILL_TOKENS;
    shape->slots = options->slots > 0 ? options->slots : SLOTS_MAX;
    shape->slots = shape->slots < generator->count ? shape->slots : generator->count;
    while (options->slots == 0 && shape->slots > 1 &&
           decoder_bytes(generator->network, shape) > decoder_budget_bytes(generator->network)) {
        shape->slots--;
    }
    struct device *device = generator->network->weights->device;
    enum status status =
        decoder_create(device, generator->network, shape, &generator->decoder, err);
    while (status == STATUS_NO_MEMORY && options->slots == 0 && shape->slots > 1) {
        shape->slots /= 2;
        status = decoder_create(device, generator->network, shape, &generator->decoder, err);
    }
    return status;
}

static enum status allocate(struct generator *generator, struct error *err)
{
    size_t slots = (size_t)generator->shape.slots;
    size_t longest_pass = slots + (size_t)PREFILL_TOKENS + (size_t)generator->max_prompt;
    generator->slots = mem_calloc(slots, sizeof(*generator->slots));
    generator->feed_ids = mem_calloc(longest_pass, sizeof(*generator->feed_ids));
    generator->entry_slot = mem_calloc(slots, sizeof(*generator->entry_slot));
    generator->entry_position = mem_calloc(slots, sizeof(*generator->entry_position));
    generator->entry_count = mem_calloc(slots, sizeof(*generator->entry_count));
    generator->uniform = mem_calloc(slots, sizeof(*generator->uniform));
    generator->token = mem_calloc(slots, sizeof(*generator->token));
    if (generator->slots == NULL || generator->feed_ids == NULL || generator->entry_slot == NULL ||
        generator->entry_position == NULL || generator->entry_count == NULL ||
        generator->uniform == NULL || generator->token == NULL) {
        return mem_fail(err, longest_pass * sizeof(int32_t), "slots of generation");
    }
    for (size_t i = 0; i < slots; i++) {
        generator->slots[i].index = -1;
    }
    return STATUS_OK;
}

static void generator_fini(struct generator *generator)
{
    for (int64_t i = 0; generator->slots != NULL && i < generator->shape.slots; i++) {
        if (generator->slots[i].index >= 0) {
            stream_fini(&generator->slots[i].stream);
        }
    }
    free(generator->slots);
    free(generator->feed_ids);
    free(generator->entry_slot);
    free(generator->entry_position);
    free(generator->entry_count);
    free(generator->uniform);
    free(generator->token);
    decoder_destroy(generator->decoder);
}

/* ---- a pass ---- */

/* Random number of a sequence's next token: a function of seed, stream and its number alone. */
static float draw(const struct generator *generator, const struct slot *slot)
{
    const struct generate_options *options = generator->options;
    uint64_t stream =
        options->streams != NULL ? options->streams[slot->index] : (uint64_t)slot->index;
    struct rng rng = {options->seed, stream, (uint64_t)slot->made};
    return (float)(rng_u32(&rng) >> 8) * 0x1.0p-24f;
}

static void add_entry(struct generator *generator, int64_t place, const int32_t *ids, int64_t count)
{
    struct slot *slot = &generator->slots[place];
    int64_t entry = generator->entries++;
    memcpy(generator->feed_ids + generator->feed_count, ids, (size_t)count * sizeof(*ids));
    generator->feed_count += count;
    generator->entry_slot[entry] = (int32_t)place;
    generator->entry_position[entry] = (int32_t)slot->position;
    generator->entry_count[entry] = (int32_t)count;
    generator->uniform[entry] = draw(generator, slot);
    slot->position += count;
}

/* A prompt that is longer than a pass takes: all but its end goes first, so that whoever watches
 * hears of it between the passes. */
static enum status feed_head(struct generator *generator, int64_t place, const int32_t **prompt,
                             int64_t *length, struct error *err)
{
    struct slot *slot = &generator->slots[place];
    const int32_t at = (int32_t)place;
    const int32_t piece = PREFILL_TOKENS;
    const float uniform = 0.0F;
    while (*length > PREFILL_TOKENS) {
        const int32_t position = (int32_t)slot->position;
        int32_t ignored;
        TRY(decoder_feed(generator->decoder, generator->network, *prompt, &at, &position, &piece, 1,
                         &generator->options->sampling, &uniform, &ignored, err));
        slot->position += piece;
        *prompt += piece;
        *length -= piece;
        TRY(progress_tick(generator->progress, "generate", generator->finished, generator->count,
                          err));
    }
    return STATUS_OK;
}

/* Gives a free slot to the next prompt. */
static enum status admit(struct generator *generator, int64_t place, struct error *err)
{
    struct slot *slot = &generator->slots[place];
    int64_t index = generator->admitted;
    const int32_t *prompt = generator->ids + generator->start[index];
    int64_t length = generator->start[index + 1] - generator->start[index];
    slot->index = index; /* from here on generator_fini releases the stream */
    TRY(stream_init(&slot->stream, generator->model->tokenizer, prompt, length,
                    generator->options->stop, generator->options->keep_special, err));
    slot->position = 0;
    slot->made = 0;
    generator->admitted++;
    TRY(feed_head(generator, place, &prompt, &length, err));
    add_entry(generator, place, prompt, length);
    return STATUS_OK;
}

/* The next token of every sequence that runs, and as many new prompts as there are slots and the
 * pass has room for. */
static enum status plan_pass(struct generator *generator, struct error *err)
{
    generator->feed_count = 0;
    generator->entries = 0;
    for (int64_t i = 0; i < generator->shape.slots; i++) {
        struct slot *slot = &generator->slots[i];
        if (slot->index >= 0) {
            add_entry(generator, i, &slot->token, 1);
        }
    }
    int64_t prompt_tokens = 0;
    for (int64_t i = 0; i < generator->shape.slots && generator->admitted < generator->count; i++) {
        int64_t next = generator->admitted;
        int64_t length = generator->start[next + 1] - generator->start[next];
        if (prompt_tokens > 0 && prompt_tokens + length > PREFILL_TOKENS) {
            break;
        }
        if (generator->slots[i].index < 0) {
            TRY(admit(generator, i, err));
            prompt_tokens += length;
        }
    }
    return STATUS_OK;
}

/* ---- after a pass ---- */

static enum status tell(struct generator *generator, struct slot *slot, bool finished,
                        struct error *err)
{
    if (generator->on_text == NULL) {
        return STATUS_OK;
    }
    struct buffer piece;
    buffer_init(&piece, STREAM_TEXT_MAX_BYTES);
    stream_release(&slot->stream, finished, &piece);
    enum status status = buffer_check(&piece, "a piece of generated text", err);
    if (status == STATUS_OK && piece.len_bytes > 0) {
        generator->on_text(generator->context, slot->index, buffer_text(&piece));
    }
    buffer_fini(&piece);
    return status;
}

/* Moves the text to its output and frees the slot. */
static enum status finish(struct generator *generator, struct slot *slot, enum generate_end end,
                          struct error *err)
{
    TRY(stream_finish(&slot->stream, err));
    TRY(tell(generator, slot, true, err));
    struct generate_output *output = &generator->outputs[slot->index];
    output->text = mem_strndup(buffer_text(&slot->stream.text), slot->stream.text.len_bytes);
    if (output->text == NULL) {
        return mem_fail(err, slot->stream.text.len_bytes, "a generated text");
    }
    output->tokens = slot->made;
    output->end = slot->stream.stopped ? GENERATE_STOPPED : end;
    stream_fini(&slot->stream);
    slot->index = -1;
    generator->finished++;
    return STATUS_OK;
}

static enum status take_token(struct generator *generator, struct slot *slot, int32_t token,
                              struct error *err)
{
    slot->token = token;
    slot->made++;
    if (is_end(generator, token)) {
        return finish(generator, slot, GENERATE_STOPPED, err);
    }
    TRY(stream_push(&slot->stream, token, err));
    /* The token at the last position can still be sampled, but not be fed. */
    if (slot->stream.stopped || slot->made >= generator->options->max_new_tokens ||
        slot->position >= generator->shape.capacity) {
        return finish(generator, slot, GENERATE_LENGTH, err);
    }
    return tell(generator, slot, false, err);
}

static enum status run(struct generator *generator, struct error *err)
{
    const struct progress *progress = generator->progress;
    while (generator->finished < generator->count) {
        TRY(progress_tick(progress, "generate", generator->finished, generator->count, err));
        TRY(plan_pass(generator, err));
        TRY(decoder_feed(generator->decoder, generator->network, generator->feed_ids,
                         generator->entry_slot, generator->entry_position, generator->entry_count,
                         generator->entries, &generator->options->sampling, generator->uniform,
                         generator->token, err));
        for (int64_t i = 0; i < generator->entries; i++) {
            TRY(take_token(generator, &generator->slots[generator->entry_slot[i]],
                           generator->token[i], err));
        }
    }
    return progress_tick(progress, "generate", generator->count, generator->count, err);
}

enum status generate_run(const struct model *model, const struct network *network,
                         const int32_t *ids, const int64_t *start, int64_t count,
                         const struct generate_options *options,
                         void (*on_text)(void *context, int64_t index, const char *piece),
                         void *context, const struct progress *progress,
                         struct generate_output *outputs, struct error *err)
{
    enum status status = STATUS_OK;
    struct generator generator = {.model = model,
                                  .network = network,
                                  .ids = ids,
                                  .start = start,
                                  .count = count,
                                  .options = options,
                                  .on_text = on_text,
                                  .context = context,
                                  .progress = progress,
                                  .outputs = outputs};
    if (count == 0) {
        return STATUS_OK;
    }
    TRY(check_input(&generator, err));
    collect_ends(&generator);
    TRY_CLEANUP(open_decoder(&generator, err));
    TRY_CLEANUP(allocate(&generator, err));
    TRY_CLEANUP(run(&generator, err));
cleanup:
    generator_fini(&generator);
    for (int64_t i = 0; status != STATUS_OK && i < count; i++) {
        free(outputs[i].text);
        memset(&outputs[i], 0, sizeof(outputs[i]));
    }
    return status;
}

int64_t generate_bytes(const struct network *network, int64_t tokens)
{
    int64_t positions = network->config->max_positions;
    const struct decoder_options shape = {
        .slots = 1,
        .capacity = tokens < positions ? tokens : positions,
        .prefill_tokens = PREFILL_TOKENS,
    };
    return decoder_bytes(network, &shape);
}
