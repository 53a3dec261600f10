#include "run/training_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

static enum store_type store_type_of(enum trainer_array_type type)
{
    switch (type) {
    case TRAINER_F32:
        return STORE_F32;
    case TRAINER_F64:
        return STORE_F64;
    default:
        return STORE_I64;
    }
}

struct writing {
    const struct trainer *trainer;
    const struct progress *progress;
    int count; /* arrays */
};

static enum status read_state(void *context, int64_t index, void *to, struct error *err)
{
    const struct writing *writing = context;
    TRY(progress_report(writing->progress, "save", index, writing->count, err));
    trainer_state_get(writing->trainer, (int)index, to);
    return STATUS_OK;
}

size_t training_array_bytes(const struct trainer_array *array)
{
    return (size_t)array->rows * (size_t)array->cols * store_type_bytes(store_type_of(array->type));
}

enum status training_file_write_state(const char *path, const struct training_state *state,
                                      const struct training_label *label, store_read_fn read,
                                      void *context, struct error *err)
{
    struct store_array arrays[TRAINER_ARRAYS_MAX];
    memset(arrays, 0, sizeof(arrays));
    for (int i = 0; i < state->count; i++) {
        const struct trainer_array *array = &state->arrays[i];
        snprintf(arrays[i].name, sizeof(arrays[i].name), "%s", array->name);
        snprintf(arrays[i].meaning, sizeof(arrays[i].meaning), "%s", array->meaning);
        arrays[i].type = store_type_of(array->type);
        arrays[i].rows = array->rows;
        arrays[i].cols = array->cols;
    }
    char steps[32];
    snprintf(steps, sizeof(steps), "%lld", (long long)state->steps_done);
    const struct store_attribute attributes[] = {
        {"fingerprint", label->fingerprint},
        {"steps_done", steps},
        {"precision", train_precision_names[label->precision]},
    };
    return store_arrays_write(path, "training", arrays, state->count, attributes, 3, read, context,
                              err);
}

enum status training_file_write(const char *path, const struct trainer *trainer,
                                const struct training_label *label, const struct progress *progress,
                                struct error *err)
{
    struct training_state state;
    memset(&state, 0, sizeof(state));
    state.count = trainer_state_arrays(trainer, state.arrays);
    state.steps_done = trainer_steps_done(trainer);
    struct writing writing = {.trainer = trainer, .progress = progress, .count = state.count};
    TRY(training_file_write_state(path, &state, label, read_state, &writing, err));
    return progress_report(progress, "save", state.count, state.count, err);
}

int64_t training_file_steps(const char *path)
{
    struct store_file *file = NULL;
    struct error ignored = {0};
    if (!file_exists(path) || store_arrays_open(path, "training", &file, &ignored) != STATUS_OK) {
        return 0;
    }
    const char *text = store_arrays_attribute(file, "steps_done");
    int64_t steps = text != NULL ? strtoll(text, NULL, 10) : 0;
    store_arrays_close(file);
    return steps;
}

bool training_file_precision(const char *path, enum train_precision *out)
{
    struct store_file *file = NULL;
    struct error ignored = {0};
    if (!file_exists(path) || store_arrays_open(path, "training", &file, &ignored) != STATUS_OK) {
        return false;
    }
    const char *text = store_arrays_attribute(file, "precision");
    bool found = false;
    for (int i = TRAIN_F32; text != NULL && i <= TRAIN_BF16; i++) {
        if (strcmp(text, train_precision_names[i]) == 0) {
            *out = (enum train_precision)i;
            found = true;
        }
    }
    store_arrays_close(file);
    return found;
}

/* host has room for the largest array. */
static enum status restore_array(struct store_file *file, int64_t index, const char *path,
                                 struct trainer *trainer, void *host, struct error *err)
{
    const struct store_array *stored = store_arrays_at(file, index);
    struct trainer_array array;
    memset(&array, 0, sizeof(array));
    snprintf(array.name, sizeof(array.name), "%.63s", stored->name);
    array.rows = stored->rows;
    array.cols = stored->cols;
    if (stored->type == STORE_F32) {
        array.type = TRAINER_F32;
    } else if (stored->type == STORE_F64) {
        array.type = TRAINER_F64;
    } else if (stored->type == STORE_I64) {
        array.type = TRAINER_I64;
    } else {
        return FAIL(err, STATUS_CORRUPT, "%s: %s has a type that no training state has", path,
                    stored->name);
    }
    TRY(store_arrays_read(file, index, host, err));
    return trainer_state_set(trainer, &array, host, err);
}

static size_t largest_array(const struct store_file *file)
{
    size_t largest = 1;
    for (int64_t i = 0; i < store_arrays_count(file); i++) {
        const struct store_array *stored = store_arrays_at(file, i);
        size_t bytes = (size_t)(stored->rows * stored->cols) * store_type_bytes(stored->type);
        largest = bytes > largest ? bytes : largest;
    }
    return largest;
}

enum status training_file_read(const char *path, struct trainer *trainer,
                               const struct training_label *label, const struct progress *progress,
                               struct error *err)
{
    struct store_file *file = NULL;
    void *host = NULL;
    TRY(store_arrays_open(path, "training", &file, err));
    enum status status = STATUS_OK;
    int64_t count = store_arrays_count(file);
    const char *found = store_arrays_attribute(file, "fingerprint");
    if (found == NULL || strcmp(found, label->fingerprint) != 0) {
        status = FAIL(err, STATUS_INVALID, "%s is the state of another training", path);
        goto cleanup;
    }
    host = mem_aligned(largest_array(file), 1);
    if (host == NULL) {
        status = mem_fail(err, largest_array(file), path);
        goto cleanup;
    }
    for (int64_t i = 0; i < count; i++) {
        TRY_CLEANUP(progress_tick(progress, "load", i, count, err));
        TRY_CLEANUP(restore_array(file, i, path, trainer, host, err));
    }
    TRY_CLEANUP(trainer_state_check(trainer, err));
cleanup:
    free(host);
    store_arrays_close(file);
    return status;
}
