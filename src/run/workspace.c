#include "run/workspace.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void workspace_init(const struct job *job, int threads, struct log *log, struct workspace *out)
{
    memset(out, 0, sizeof(*out));
    out->job = job;
    out->log = log;
    out->threads = threads;
}

/* One small product of known result. A device that fails here has failed before it was given any
 * candidate, so none is blamed for it. */
static enum status try_device(struct device *device, struct error *err)
{
    enum { SIZE = 64 };
    const struct ops *ops = device->ops;
    float result[SIZE * SIZE] = {0};
    struct tensor operands[3];
    void *data[3] = {NULL, NULL, NULL};
    enum status status = STATUS_OK;
    for (int i = 0; i < 3; i++) {
        TRY_CLEANUP(ops->alloc(device, sizeof(result), "a first product", &data[i], err));
        operands[i] = tensor_matrix(data[i], DTYPE_F32, SIZE, SIZE);
        ops->fill(device, operands[i], (float)i * 0.5F);
    }
    ops->matmul(device, operands[0], operands[1], false, operands[2], true, 1.0F, 0.0F);
    ops->download(device, result, data[0], sizeof(result));
    TRY_CLEANUP(ops->check(device, err));
    for (int i = 0; i < SIZE * SIZE; i++) {
        if (result[i] != 0.5F * SIZE) {
            status = FAIL(err, STATUS_DEVICE, "its first product has %g where %g is right",
                          (double)result[i], 0.5 * SIZE);
            break;
        }
    }
cleanup:
    for (int i = 0; i < 3; i++) {
        ops->free(device, data[i]);
    }
    return status;
}

enum status workspace_open(const struct job *job, int threads, int place, struct log *log,
                           struct workspace *out, struct error *err)
{
    workspace_init(job, threads, log, out);
    const struct device_options options = {
        .threads = threads,
        .index = place,
        .limit_bytes = (int64_t)job->memory_bytes,
    };
    TRY(device_open(job->backend, &options, &out->device, err));
    char description[256];
    out->device->ops->describe(out->device, description, sizeof(description));
    enum status status = try_device(out->device, err);
    if (status != STATUS_OK) {
        char host[65] = "";
        gethostname(host, sizeof(host) - 1);
        error_context(err, "the device of %s (%s) cannot be used", host, description);
        return status;
    }
    log_write(log, LOG_INFO, "run", "device: %s (%s)", description, out->device->choice);
    return STATUS_OK;
}

void workspace_close(struct workspace *workspace)
{
    for (int split = 0; split < TASK_SPLIT_COUNT; split++) {
        if (workspace->split_loaded[split]) {
            dataset_fini(&workspace->splits[split]);
        }
    }
    for (int dtype = 0; dtype < DTYPE_COUNT; dtype++) {
        model_destroy(workspace->models[dtype]);
    }
    workspace_drop_speaker(workspace);
    device_close(workspace->device);
    memset(workspace, 0, sizeof(*workspace));
}

enum train_precision workspace_precision(const struct workspace *workspace)
{
    switch (workspace->job->precision) {
    case JOB_PRECISION_F32:
        return TRAIN_F32;
    case JOB_PRECISION_BF16:
        return TRAIN_BF16;
    default:
        if (workspace->has_precision) {
            return workspace->precision;
        }
        return workspace->device->ops->fast_bf16(workspace->device) ? TRAIN_BF16 : TRAIN_F32;
    }
}

/* A fault of the machine's files, and of no candidate. */
static enum status check_checksum(const struct workspace *workspace, const struct model *model,
                                  struct error *err)
{
    if (workspace->checksum[0] == '\0' || strcmp(workspace->checksum, model->hash) == 0) {
        return STATUS_OK;
    }
    return FAIL(err, STATUS_IO,
                "%s: its weights are not those that this search began with (checksum %s, recorded "
                "%s); put them back, or begin another search with --out",
                workspace->job->model, model->hash, workspace->checksum);
}

enum status workspace_model(struct workspace *workspace, enum dtype dtype,
                            const struct progress *progress, const struct model **out,
                            struct error *err)
{
    struct model *loaded = workspace->models[dtype];
    if (loaded != NULL && loaded->weights.data == NULL) { /* dropped: from the folder again */
        model_destroy(loaded);
        workspace->models[dtype] = NULL;
    }
    if (workspace->models[dtype] == NULL) {
        TRY(model_load_watched(workspace->job->model, workspace->device, dtype, progress,
                               &workspace->models[dtype], err));
        TRY(check_checksum(workspace, workspace->models[dtype], err));
        TRY(workspace_check_chat(workspace->job, workspace->models[dtype], err));
    }
    *out = workspace->models[dtype];
    return STATUS_OK;
}

void workspace_drop_weights(struct workspace *workspace, enum dtype dtype)
{
    if (workspace->models[dtype] != NULL) {
        weights_fini(&workspace->models[dtype]->weights);
    }
}

bool workspace_is_base(const struct job *job, const char *folder)
{
    char *base = realpath(job->model, NULL);
    char *asked = realpath(folder, NULL);
    bool same = base != NULL && asked != NULL && strcmp(base, asked) == 0;
    free(base);
    free(asked);
    return same;
}

enum status workspace_speaker(struct workspace *workspace, const char *folder, enum dtype dtype,
                              const struct progress *progress, const struct model **out,
                              struct error *err)
{
    if (workspace_is_base(workspace->job, folder)) {
        return workspace_model(workspace, dtype, progress, out, err);
    }
    const struct model *loaded = workspace->speaker;
    if (loaded == NULL || strcmp(loaded->folder, folder) != 0 || loaded->weights.dtype != dtype) {
        workspace_drop_speaker(workspace);
        TRY(model_load_watched(folder, workspace->device, dtype, progress, &workspace->speaker,
                               err));
    }
    *out = workspace->speaker;
    return STATUS_OK;
}

void workspace_drop_speaker(struct workspace *workspace)
{
    model_destroy(workspace->speaker);
    workspace->speaker = NULL;
}

enum status workspace_split(struct workspace *workspace, enum task_split split,
                            const struct dataset **out, struct error *err)
{
    if (!workspace->split_loaded[split]) {
        TRY(task_load_split(&workspace->job->task, split, &workspace->splits[split], err));
        workspace->split_loaded[split] = true;
    }
    *out = &workspace->splits[split];
    return STATUS_OK;
}

enum status workspace_check_chat(const struct job *job, const struct model *model,
                                 struct error *err)
{
    if (job->task.chat_auto && !model->chat_known) {
        return FAIL(err, STATUS_UNSUPPORTED,
                    "%s: its chat template is none that is known here; set task.chat in %s to "
                    "plain, chatml or qwen3",
                    model->folder, job->path);
    }
    return STATUS_OK;
}

enum chat_format workspace_chat(const struct workspace *workspace, const struct model *model)
{
    const struct task *task = &workspace->job->task;
    return task->chat_auto ? model->chat : task->chat;
}

/* An external scorer is known by its command and by the files that stand in it. */
static enum status describe_command(const struct task *task, struct buffer *text, struct error *err)
{
    for (int i = 0; strcmp(task->metric, "command") == 0 && i < task->command_count; i++) {
        char hash[HASH_TEXT_BYTES] = "";
        struct stat info;
        if (stat(task->command[i], &info) == 0 && S_ISREG(info.st_mode)) {
            TRY(hash_file(task->command[i], hash, err));
        }
        buffer_printf(text, "%s %s\n", task->command[i], hash);
    }
    return STATUS_OK;
}

enum status workspace_task_hash(struct workspace *workspace, char out[HASH_TEXT_BYTES],
                                struct error *err)
{
    struct buffer text;
    buffer_init(&text, 1 << 20);
    enum status status = STATUS_OK;
    const struct task *task = &workspace->job->task;
    for (int split = TASK_VALIDATION; split <= TASK_TEST; split++) {
        const struct dataset *rows = NULL;
        char hash[HASH_TEXT_BYTES];
        TRY_CLEANUP(workspace_split(workspace, (enum task_split)split, &rows, err));
        dataset_hash(rows, hash);
        buffer_printf(&text, "%s %s\n", task_split_names[split], hash);
    }
    buffer_printf(&text, "%s\n%s\n%s\n%s\n%d\n", task->metric, task->template_text,
                  task->answer_template, task->system != NULL ? task->system : "",
                  (int)task->predict);
    TRY_CLEANUP(describe_command(task, &text, err));
    TRY_CLEANUP(buffer_check(&text, "the task's description", err));
    hash_bytes(buffer_text(&text), text.len_bytes, out);
cleanup:
    buffer_fini(&text);
    return status;
}

int64_t workspace_sequence_length(const struct job *job, const struct model_config *model,
                                  const struct train_config *config)
{
    int64_t length = model->max_positions;
    if (job->sequence_length > 0 && job->sequence_length < length) {
        length = job->sequence_length;
    }
    if (config != NULL && config->sequence_length > 0 && config->sequence_length < length) {
        length = config->sequence_length;
    }
    return length;
}
