/* The state as named arrays, and back. Counters and curve are all there is beside the parameters
 * and moments: averages, the best validation loss and the end follow from the curve, so they cannot
 * contradict it. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "train/trainer_internal.h"

enum { STATE_VERSION = 1, CURVE_COLUMNS = 7 };

enum state_counter {
    COUNTER_VERSION,
    COUNTER_FINGERPRINT,
    COUNTER_STEPS = COUNTER_FINGERPRINT + TRAINER_FINGERPRINT_WORDS,
    COUNTER_EPOCH,
    COUNTER_BATCH,
    COUNTER_TOKENS,
    COUNTERS,
};

enum state_array {
    STATE_PARAMETERS,
    STATE_FIRST_MOMENT,
    STATE_SECOND_MOMENT,
    STATE_COUNTERS,
    STATE_CURVE,
    STATE_BEST_PARAMETERS, /* only once there is a best */
    STATE_ARRAYS,
};

static const struct {
    const char *name;
    const char *meaning;
    enum trainer_array_type type;
} state_arrays[STATE_ARRAYS] = {
    [STATE_PARAMETERS] = {"parameters",
                          "trained parameters, f32 masters, in the order of the parameter table",
                          TRAINER_F32},
    [STATE_FIRST_MOMENT] = {"first_moment", "AdamW: moving mean of the gradients", TRAINER_F32},
    [STATE_SECOND_MOMENT] = {"second_moment", "AdamW: moving mean of the squared gradients",
                             TRAINER_F32},
    [STATE_COUNTERS] =
        {"counters",
         "state version, fingerprint (2), steps done, next epoch, next micro-batch of it, tokens",
         TRAINER_I64},
    [STATE_CURVE] = {"curve",
                     "step, tokens, training loss, validation loss (nats), gradient norm, learning "
                     "rate, seconds",
                     TRAINER_F64},
    [STATE_BEST_PARAMETERS] = {"best_parameters",
                               "parameters at the best validation loss, as the model reads them",
                               TRAINER_F32},
};

/* ---- fingerprint
 * ---------------------------------------------------------------------------------------------- */

static void hash_dataset(struct hash_state *state, const struct encoded_dataset *dataset)
{
    hash_update(state, &dataset->count, sizeof(dataset->count));
    if (dataset->count == 0) {
        return;
    }
    size_t tokens = (size_t)dataset->start[dataset->count];
    hash_update(state, dataset->start, ((size_t)dataset->count + 1) * sizeof(*dataset->start));
    hash_update(state, dataset->ids, tokens * sizeof(*dataset->ids));
    hash_update(state, dataset->target, tokens * sizeof(*dataset->target));
}

enum status trainer_fingerprint(const struct trainer *trainer,
                                int64_t out[TRAINER_FINGERPRINT_WORDS], struct error *err)
{
    cJSON *config = train_config_to_json(&trainer->config);
    char *line = config != NULL ? json_print_line(config) : NULL;
    struct hash_state *state = hash_create();
    enum status status = STATUS_OK;
    if (line == NULL || state == NULL) {
        status = mem_fail(err, 0, "the fingerprint of a training");
        goto cleanup;
    }
    hash_update(state, line, strlen(line));
    hash_update(state, trainer->model->hash, strlen(trainer->model->hash));
    int64_t elements = trainer->parameters.table->elements;
    hash_update(state, &elements, sizeof(elements));
    hash_dataset(state, trainer->train);
    hash_dataset(state, trainer->validation);
    char text[HASH_TEXT_BYTES];
    hash_digest(state, text);
    for (int i = 0; i < TRAINER_FINGERPRINT_WORDS; i++) {
        char word[17];
        snprintf(word, sizeof(word), "%.16s", text + (ptrdiff_t)16 * i);
        out[i] = (int64_t)strtoull(word, NULL, 16);
    }
cleanup:
    hash_destroy(state);
    free(line);
    cJSON_Delete(config);
    return status;
}

/* ---- out
 * ------------------------------------------------------------------------------------------------------
 */

static int64_t array_rows(const struct trainer *trainer, int index)
{
    switch (index) {
    case STATE_COUNTERS:
        return COUNTERS;
    case STATE_CURVE:
        return trainer->steps_done;
    default:
        return trainer->parameters.table->elements;
    }
}

static int64_t array_cols(int index)
{
    return index == STATE_CURVE ? CURVE_COLUMNS : 1;
}

int trainer_state_arrays(const struct trainer *trainer,
                         struct trainer_array out[TRAINER_ARRAYS_MAX])
{
    int count = trainer->has_best ? STATE_ARRAYS : STATE_BEST_PARAMETERS;
    for (int i = 0; i < count; i++) {
        memset(&out[i], 0, sizeof(out[i]));
        snprintf(out[i].name, sizeof(out[i].name), "%s", state_arrays[i].name);
        snprintf(out[i].meaning, sizeof(out[i].meaning), "%s", state_arrays[i].meaning);
        out[i].type = state_arrays[i].type;
        out[i].rows = array_rows(trainer, i);
        out[i].cols = array_cols(i);
    }
    return count;
}

static void get_counters(const struct trainer *trainer, int64_t *out)
{
    out[COUNTER_VERSION] = STATE_VERSION;
    memcpy(out + COUNTER_FINGERPRINT, trainer->fingerprint, sizeof(trainer->fingerprint));
    out[COUNTER_STEPS] = trainer->steps_done;
    out[COUNTER_EPOCH] = trainer->cursor.epoch;
    out[COUNTER_BATCH] = trainer->cursor.batch;
    out[COUNTER_TOKENS] = trainer->tokens;
}

static void get_curve(const struct trainer *trainer, double *out)
{
    for (int64_t i = 0; i < trainer->steps_done; i++) {
        const struct train_point *point = &trainer->curve[i];
        double *row = out + i * CURVE_COLUMNS;
        row[0] = (double)point->step;
        row[1] = (double)point->tokens;
        row[2] = point->train_loss;
        row[3] = point->validation_loss;
        row[4] = point->gradient_norm;
        row[5] = point->learning_rate;
        row[6] = point->seconds;
    }
}

/* Device array behind an index, f32; NULL if it is none of those. */
static float *device_array(const struct trainer_parameters *parameters, int index)
{
    switch (index) {
    case STATE_PARAMETERS:
        return parameters->master;
    case STATE_FIRST_MOMENT:
        return parameters->first_moment;
    case STATE_SECOND_MOMENT:
        return parameters->second_moment;
    default:
        return NULL;
    }
}

void trainer_state_get(const struct trainer *trainer, int index, void *out)
{
    const struct trainer_parameters *p = &trainer->parameters;
    const struct ops *ops = trainer->device->ops;
    size_t bytes = (size_t)p->table->elements * sizeof(float);
    if (index == STATE_COUNTERS) {
        get_counters(trainer, out);
    } else if (index == STATE_CURVE) {
        get_curve(trainer, out);
    } else if (index == STATE_BEST_PARAMETERS) {
        ops->copy(trainer->device, trainer_parameters_row(p, p->gradients, DTYPE_F32),
                  trainer_parameters_row(p, p->best.data, p->best.dtype));
        ops->download(trainer->device, out, p->gradients, bytes);
    } else {
        ops->download(trainer->device, out, device_array(p, index), bytes);
    }
}

int64_t trainer_state_begin(const struct trainer *trainer, int index, void *out)
{
    const struct trainer_parameters *p = &trainer->parameters;
    const struct ops *ops = trainer->device->ops;
    size_t elements = (size_t)p->table->elements;
    if (index == STATE_COUNTERS || index == STATE_CURVE) {
        trainer_state_get(trainer, index, out);
        return 0;
    }
    if (index == STATE_BEST_PARAMETERS) { /* as they are, at the end of the place for f32 */
        size_t bytes = elements * dtype_bytes(p->best.dtype);
        char *to = (char *)out + (elements * sizeof(float) - bytes);
        return ops->side_download(trainer->device, to, p->best.data, bytes);
    }
    return ops->side_download(trainer->device, out, device_array(p, index),
                              elements * sizeof(float));
}

void trainer_state_finish(const struct trainer *trainer, int index, void *out)
{
    const struct trainer_parameters *p = &trainer->parameters;
    if (index != STATE_BEST_PARAMETERS || p->best.dtype != DTYPE_BF16) {
        return;
    }
    /* From the front: the number that is read next lies behind the one that is written. */
    char *bytes = out;
    size_t elements = (size_t)p->table->elements;
    for (size_t i = 0; i < elements; i++) {
        uint16_t bf16 = 0;
        memcpy(&bf16, bytes + 2 * (elements + i), sizeof(bf16));
        uint32_t f32 = (uint32_t)bf16 << 16;
        memcpy(bytes + 4 * i, &f32, sizeof(f32));
    }
}

/* ---- in
 * -------------------------------------------------------------------------------------------------------
 */

/* The first problem stays: state_set keeps it for state_check, which tells it with the rest. */
static void note_problem(struct trainer *trainer, const char *problem)
{
    if (trainer->restore_problem == NULL) {
        trainer->restore_problem = problem;
    }
}

static void set_counters(struct trainer *trainer, const int64_t *values)
{
    if (values[COUNTER_VERSION] != STATE_VERSION) {
        note_problem(trainer, "its layout is of another version of this program");
    } else if (memcmp(values + COUNTER_FINGERPRINT, trainer->fingerprint,
                      sizeof(trainer->fingerprint)) != 0) {
        note_problem(trainer, "its configuration, data or base model is another one");
    }
    trainer->next.ready = false;
    trainer->steps_done = values[COUNTER_STEPS];
    trainer->cursor.epoch = values[COUNTER_EPOCH];
    trainer->cursor.batch = values[COUNTER_BATCH];
    trainer->tokens = values[COUNTER_TOKENS];
}

static bool point_is_sound(const struct train_point *point, int64_t step)
{
    return point->step == step && isfinite(point->train_loss) && isfinite(point->gradient_norm) &&
           isfinite(point->learning_rate) && isfinite(point->seconds) &&
           !isinf(point->validation_loss);
}

/* A number from a file as a count: what is not one becomes -1, which no check accepts. */
static int64_t count_of(double value)
{
    return value >= 0.0 && value <= 0x1p53 ? (int64_t)value : -1;
}

static enum status set_curve(struct trainer *trainer, int64_t rows, const double *values,
                             struct error *err)
{
    struct train_point *curve = NULL;
    if (rows > 0) {
        curve = mem_calloc((size_t)rows, sizeof(*curve));
        if (curve == NULL) {
            return mem_fail(err, (size_t)rows * sizeof(*curve), "the curve of a training");
        }
    }
    for (int64_t i = 0; i < rows; i++) {
        const double *row = values + i * CURVE_COLUMNS;
        curve[i] = (struct train_point){
            .step = count_of(row[0]),
            .tokens = count_of(row[1]),
            .train_loss = row[2],
            .validation_loss = row[3],
            .gradient_norm = row[4],
            .learning_rate = row[5],
            .seconds = row[6],
        };
        if (!point_is_sound(&curve[i], i + 1)) {
            note_problem(trainer, "its curve has a gap or a number that is not finite");
        }
    }
    free(trainer->curve);
    trainer->curve = curve;
    trainer->curve_capacity = rows;
    return STATUS_OK;
}

static void set_parameters(struct trainer *trainer, int index, const float *values)
{
    const struct trainer_parameters *p = &trainer->parameters;
    const struct ops *ops = trainer->device->ops;
    int64_t elements = p->table->elements;
    for (int64_t i = 0; i < elements; i++) {
        if (!isfinite(values[i])) {
            note_problem(trainer, "a parameter or a moment is not finite");
            break;
        }
    }
    size_t bytes = (size_t)elements * sizeof(float);
    if (index == STATE_BEST_PARAMETERS) {
        ops->upload(trainer->device, p->gradients, values, bytes);
        ops->copy(trainer->device, trainer_parameters_row(p, p->best.data, p->best.dtype),
                  trainer_parameters_row(p, p->gradients, DTYPE_F32));
        trainer->has_best = true;
    } else {
        ops->upload(trainer->device, device_array(p, index), values, bytes);
    }
}

static int find_array(const char *name)
{
    for (int i = 0; i < STATE_ARRAYS; i++) {
        if (strcmp(name, state_arrays[i].name) == 0) {
            return i;
        }
    }
    return -1;
}

enum status trainer_state_set(struct trainer *trainer, const struct trainer_array *array,
                              const void *values, struct error *err)
{
    int index = find_array(array->name);
    if (index < 0) {
        return FAIL(err, STATUS_INVALID, "a training state has no array \"%.63s\"", array->name);
    }
    if (index == STATE_BEST_PARAMETERS && trainer->parameters.best.data == NULL) {
        return FAIL(err, STATUS_INVALID,
                    "the state keeps best parameters, but this training has no early stop");
    }
    bool rows_fit = index == STATE_CURVE ? array->rows >= 0 && array->rows <= trainer->steps_total
                                         : array->rows == array_rows(trainer, index);
    if (array->type != state_arrays[index].type || !rows_fit || array->cols != array_cols(index)) {
        return FAIL(err, STATUS_INVALID,
                    "array \"%s\" of the state is %" PRId64 " x %" PRId64
                    ", which is not this training's",
                    state_arrays[index].name, array->rows, array->cols);
    }
    trainer->restored |= 1U << index;
    if (index == STATE_COUNTERS) {
        set_counters(trainer, values);
    } else if (index == STATE_CURVE) {
        return set_curve(trainer, array->rows, values, err);
    } else {
        set_parameters(trainer, index, values);
    }
    return STATUS_OK;
}

static bool counters_fit(const struct trainer *trainer)
{
    const struct packer_cursor *cursor = &trainer->cursor;
    int64_t steps = trainer->steps_done;
    if (steps != trainer->curve_capacity || cursor->epoch < 0 || cursor->batch < 0 ||
        cursor->epoch > trainer->batches_total) {
        return false;
    }
    return cursor->batch <= packer_batches(trainer->packer, cursor->epoch) &&
           trainer->tokens == (steps > 0 ? trainer->curve[steps - 1].tokens : 0);
}

enum status trainer_state_check(struct trainer *trainer, struct error *err)
{
    const unsigned needed = (1U << STATE_BEST_PARAMETERS) - 1U;
    unsigned restored = trainer->restored;
    const char *problem = trainer->restore_problem;
    trainer->restored = 0;
    trainer->restore_problem = NULL;
    if ((restored & needed) != needed) {
        return FAIL(err, STATUS_CORRUPT, "the state of the training is not whole");
    }
    if (problem == NULL && !counters_fit(trainer)) {
        problem = "its counters do not agree with its curve";
    }
    if (problem != NULL) {
        return FAIL(err, STATUS_INVALID,
                    "the state is not of this training: %s; start the candidate afresh", problem);
    }
    trainer_parameters_round(&trainer->parameters);
    trainer_replay_curve(trainer);
    bool should_have_best = trainer->parameters.best.data != NULL && isfinite(trainer->best_loss);
    if (should_have_best != trainer->has_best) {
        return FAIL(err, STATUS_CORRUPT,
                    "the state of the training lacks its best parameters, or has none to keep");
    }
    return trainer->device->ops->check(trainer->device, err);
}
