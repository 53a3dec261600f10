#include "run/dry_run.h"

#include <math.h>
#include <string.h>

#include "base/json.h"
#include "run/candidate.h"
#include "run/prepare.h"
#include "train/trainer.h"
#include "tree/search.h"

enum { ROWS = 400 };

/* Memory is short, and full fine-tuning has a copy of the base's weights by now. */
struct base {
    struct workspace *workspace;
    enum dtype dtype;
};

static void release_base(void *context)
{
    const struct base *base = context;
    workspace_drop_weights(base->workspace, base->dtype);
}

/* One micro-batch is a step, and the only one. */
static enum status read_config(const struct workspace *workspace, const cJSON *json,
                               struct train_config *out, struct error *err)
{
    TRY(candidate_config(workspace, json, out, err));
    out->max_steps = 1;
    out->accumulation = 1;
    out->validations = 0;
    out->patience = 0;
    return STATUS_OK;
}

static enum status create_trainer(struct workspace *workspace, const struct train_config *config,
                                  const struct encoded_dataset *data,
                                  const struct progress *progress, bool with_base,
                                  struct trainer **out, struct error *err)
{
    const struct encoded_dataset none = {0};
    const struct model *model = NULL;
    struct base base = {workspace, config->precision == TRAIN_BF16 ? DTYPE_BF16 : DTYPE_F32};
    TRY(workspace_model(workspace, base.dtype, progress, &model, err));
    const struct trainer_inputs inputs = {
        .model = model,
        .config = config,
        .train = data,
        .validation = &none,
        .log = workspace->log,
        .progress = progress,
        .release_base = with_base ? NULL : release_base,
        .release_context = &base,
    };
    return trainer_create(workspace->device, &inputs, out, err);
}

static enum status take_step(struct workspace *workspace, const struct train_config *config,
                             const struct encoded_dataset *data, const struct progress *progress,
                             double *loss, struct error *err)
{
    struct trainer *trainer = NULL;
    enum status status = create_trainer(workspace, config, data, progress, true, &trainer, err);
    if (status == STATUS_NO_MEMORY && config->method == TRAIN_FULL) {
        status = create_trainer(workspace, config, data, progress, false, &trainer, err);
    }
    if (status == STATUS_OK) {
        status = trainer_run_steps(trainer, 1, progress, err);
    }
    if (status == STATUS_OK) {
        int64_t points = 0;
        const struct train_point *curve = trainer_curve(trainer, &points);
        *loss = points > 0 ? curve[points - 1].train_loss : NAN;
    }
    trainer_destroy(trainer);
    return status;
}

/* The data differ only where a configuration has a sequence length of its own. */
static enum status try_config(struct workspace *workspace, const cJSON *recipe, const cJSON *json,
                              const struct progress *progress, cJSON *result, struct error *err)
{
    struct train_config config;
    const struct model *model = NULL;
    struct prepared_data data;
    TRY(read_config(workspace, json, &config, err));
    enum dtype dtype = config.precision == TRAIN_BF16 ? DTYPE_BF16 : DTYPE_F32;
    TRY(workspace_model(workspace, dtype, progress, &model, err));
    config.sequence_length = workspace_sequence_length(workspace->job, &model->config, &config);
    TRY(prepare_sample(workspace, model, recipe, ROWS, config.sequence_length, progress, &data,
                       err));
    double loss = NAN;
    enum status status = take_step(workspace, &config, &data.encoded, progress, &loss, err);
    cJSON *losses = cJSON_GetObjectItemCaseSensitive(result, "losses");
    cJSON_AddItemToArray(losses, isfinite(loss) ? cJSON_CreateNumber(loss) : cJSON_CreateNull());
    if (cJSON_GetArraySize(losses) == 1) {
        cJSON_AddNumberToObject(result, "rows", (double)data.encoded.count);
        cJSON_AddItemToObject(result, "recipe_report", cJSON_Duplicate(data.report, true));
    }
    prepared_data_fini(&data);
    return status;
}

enum status dry_run(struct workspace *workspace, const cJSON *recipe, const cJSON *configs,
                    const struct progress *progress, cJSON **result, struct error *err)
{
    *result = NULL;
    int count = cJSON_GetArraySize(configs);
    if (!cJSON_IsArray(recipe) || !cJSON_IsArray(configs) || count == 0 ||
        count > SEARCH_CANDIDATES_MAX) {
        return FAIL(err, STATUS_FORMAT, "a dry run without recipe, or with %d configurations",
                    count);
    }
    cJSON *object = cJSON_CreateObject();
    cJSON_AddArrayToObject(object, "losses");
    enum status status = STATUS_OK;
    const cJSON *config = NULL;
    int index = 0;
    cJSON_ArrayForEach (config, configs) {
        status = try_config(workspace, recipe, config, progress, object, err);
        if (status != STATUS_OK) {
            error_context(err, "configuration %d", index);
            break;
        }
        index++;
    }
    if (status == STATUS_OK) {
        *result = object;
        object = NULL;
    }
    cJSON_Delete(object);
    return status;
}
