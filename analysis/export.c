/* trex-tree export: weights of a candidate as a folder that other programs load. */
#include <stdlib.h>
#include <string.h>

#include "analysis/analysis.h"
#include "base/mem.h"
#include "model/lora.h"
#include "model/model.h"

static const char usage[] =
    "usage: trex-tree export RUN [CANDIDATE] OUT [--format full|merged|adapter] [--dtype f32|bf16] "
    "[--base DIR]\n\n"
    "Writes the weights of CANDIDATE (best, which is the default, or a name such as n0007-c2) of "
    "the search in folder RUN to the folder OUT.\n\n"
    "  --format full     a Hugging Face folder: weights, config.json, tokenizer (where all weights "
    "were trained)\n"
    "  --format merged   the same from an adapter: base model and adapter added up\n"
    "  --format adapter  a PEFT folder: adapter_config.json and adapter_model.safetensors\n"
    "                    without --format: full, or merged for an adapter\n"
    "  --dtype           of the tensors of a Hugging Face folder; else as they were trained\n"
    "  --base DIR        the base model, if it is no longer where the job had it; its hash is "
    "checked\n\n"
    "example: trex-tree export runs/sst2 best out/sst2\n"
    "         python3 -c 'import transformers; "
    "transformers.AutoModelForCausalLM.from_pretrained(\"out/sst2\")'\n";

enum { LORA_RANK_MAX = 256 };

/* Everything that an export goes through; freed by export_fini. */
struct export
{
    struct device *device;
    struct model *base;
    struct store_file *file; /* NULL: the baseline, which has no file */
    const char *path;
    bool is_adapter;
    struct lora_config lora;
    struct param_table table; /* of the adapter */
    struct weights weights;   /* read from the file, f32 */
    enum dtype trained;
};

static void export_fini(struct export *export)
{
    if (export->weights.data != NULL) {
        weights_fini(&export->weights);
    }
    param_table_fini(&export->table);
    store_arrays_close(export->file);
    model_destroy(export->base);
    device_close(export->device);
}

static enum status parse_lora(struct export *export, struct error *err)
{
    const char *text = store_arrays_attribute(export->file, "lora");
    cJSON *object = NULL;
    struct json_problems problems;
    struct json_reader reader;
    if (text == NULL) {
        return FAIL(err, STATUS_CORRUPT, "%s: an adapter without its attribute lora", export->path);
    }
    TRY(json_parse(text, strlen(text), export->path, &object, err));
    json_problems_init(&problems);
    json_reader_init(&reader, object, "/lora", &problems);
    export->lora.rank = json_read_int(&reader, "rank", 1, 1, LORA_RANK_MAX);
    export->lora.alpha = json_read_number(&reader, "alpha", 1.0, 0.0, 1e6);
    export->lora.targets = (int)json_read_int(&reader, "targets", 1, 1, LORA_ALL);
    enum status status = json_problems_check(&problems, export->path, err);
    json_problems_fini(&problems);
    cJSON_Delete(object);
    return status;
}

/* One array into its place in the weights, through f32. */
static enum status read_parameter(struct export *export, int64_t index, struct error *err)
{
    const struct param *param = &export->weights.table->items[index];
    int64_t found = store_arrays_find(export->file, param->name);
    if (found < 0) {
        return FAIL(err, STATUS_CORRUPT, "%s: has no array %s", export->path, param->name);
    }
    const struct store_array *array = store_arrays_at(export->file, found);
    if (array->rows != param->rows || array->cols != param->cols ||
        (array->type != STORE_F32 && array->type != STORE_BF16)) {
        return FAIL(err, STATUS_CORRUPT, "%s: %s is %lld x %lld, the model's is %lld x %lld",
                    export->path, param->name, (long long)array->rows, (long long)array->cols,
                    (long long)param->rows, (long long)param->cols);
    }
    size_t elements = (size_t)(array->rows * array->cols);
    float *values = mem_aligned(elements, sizeof(*values));
    uint16_t *halves = array->type == STORE_BF16 ? mem_aligned(elements, sizeof(*halves)) : NULL;
    enum status status = STATUS_OK;
    if (values == NULL || (array->type == STORE_BF16 && halves == NULL)) {
        status = mem_fail(err, elements * sizeof(*values), param->name);
        goto cleanup;
    }
    TRY_CLEANUP(store_arrays_read(export->file, found,
                                  halves != NULL ? (void *)halves : (void *)values, err));
    for (size_t i = 0; halves != NULL && i < elements; i++) {
        uint32_t bits = (uint32_t)halves[i] << 16;
        memcpy(&values[i], &bits, sizeof(bits));
    }
    weights_set(&export->weights, index, values);
cleanup:
    free(halves);
    free(values);
    return status;
}

static enum status read_weights(struct export *export, struct error *err)
{
    const struct param_table *table = &export->base->table;
    if (export->is_adapter) {
        TRY(parse_lora(export, err));
        TRY(lora_table_build(&export->base->config, &export->lora, &export->table, err));
        table = &export->table;
    }
    TRY(weights_create(export->device, table, DTYPE_F32, &export->weights, err));
    for (int64_t i = 0; i < table->count; i++) {
        TRY(read_parameter(export, i, err));
    }
    return STATUS_OK;
}

static enum status fail_other_base(const char *folder, const char *found, const char *wanted,
                                   struct error *err)
{
    return FAIL(err, STATUS_INVALID,
                "%s has hash %s, but the search began with a base model that has %s; give that one "
                "with --base DIR",
                folder, found, wanted);
}

/* The baseline has no file: the search itself knows the base model by its cheaper hash, of
 * config.json and headers. */
static enum status check_inspected(const struct view *view, const char *folder, struct error *err)
{
    struct model *model = NULL;
    const char *wanted = search_text(view->search.identity.model_hash);
    TRY(model_inspect(folder, &model, err));
    enum status status = STATUS_OK;
    if (strcmp(model->hash, wanted) != 0) {
        status = fail_other_base(folder, model->hash, wanted, err);
    }
    model_destroy(model);
    return status;
}

/* The base model, in f32; it must be the one that the candidate was trained from. */
static enum status load_base(struct export *export, const struct view *view, const char *folder,
                             struct error *err)
{
    const struct device_options options = {0, 0, 0};
    if (folder[0] == '\0') {
        return FAIL(err, STATUS_INVALID,
                    "%s does not name its base model; give its folder with --base DIR",
                    view->folder);
    }
    if (export->file == NULL) {
        TRY(check_inspected(view, folder, err));
    }
    TRY(device_open_cpu(&options, &export->device, err));
    enum status status = model_load(folder, export->device, DTYPE_F32, &export->base, err);
    if (status == STATUS_NOT_FOUND) {
        error_context(err, "the base model (give its folder with --base DIR)");
    }
    TRY(status);
    if (export->file == NULL) {
        return STATUS_OK;
    }
    const char *wanted = store_arrays_attribute(export->file, "base_hash");
    if (wanted == NULL) {
        return FAIL(err, STATUS_CORRUPT, "%s: weights without their attribute base_hash",
                    export->path);
    }
    return strcmp(export->base->hash, wanted) == 0
               ? STATUS_OK
               : fail_other_base(folder, export->base->hash, wanted, err);
}

static enum status write_out(struct export *export, const char *format, const char *dtype_name,
                             const char *base, const char *out, struct error *err)
{
    enum dtype dtype = export->trained;
    if (dtype_name != NULL) {
        dtype = strcmp(dtype_name, "bf16") == 0 ? DTYPE_BF16 : DTYPE_F32;
    }
    if (strcmp(format, "adapter") == 0) {
        return model_export_adapter(&export->weights, &export->lora, base, out, err);
    }
    if (export->is_adapter) {
        TRY(lora_merge(&export->base->config, &export->lora, &export->weights,
                       &export->base->weights, err));
        return model_export(&export->base->weights, dtype, base, out, err);
    }
    return model_export(export->file != NULL ? &export->weights : &export->base->weights, dtype,
                        base, out, err);
}

/* Names of the candidates whose weights are there, for a message. */
static void list_kept(const struct view *view, char *out, size_t out_bytes)
{
    size_t used = 0;
    out[0] = '\0';
    for (int32_t n = 0; n < view->search.tree.count; n++) {
        for (int32_t c = 0; c < view->search.nodes[n].candidate_count; c++) {
            if (view->search.nodes[n].candidates[c].weights_kept &&
                used + SEARCH_NAME_BYTES < out_bytes) {
                char name[SEARCH_NAME_BYTES];
                search_candidate_name(n, c, name);
                used += (size_t)snprintf(out + used, out_bytes - used, "%s%s", used > 0 ? ", " : "",
                                         name);
            }
        }
    }
}

static enum status choose_candidate(const struct view *view, const char *text, int32_t *node,
                                    int32_t *number, struct error *err)
{
    if (strcmp(text, "best") == 0) {
        *node = view->best_node;
        *number = view->best_candidate;
        return *node >= 0
                   ? STATUS_OK
                   : FAIL(err, STATUS_NOT_FOUND, "%s: no candidate has finished yet", view->folder);
    }
    if (!search_candidate_parse(text, node, number) || *node >= view->search.tree.count ||
        *number >= view->search.nodes[*node].candidate_count) {
        return FAIL(err, STATUS_NOT_FOUND,
                    "%s has no candidate \"%.40s\"; allowed are best and names such as n0007-c2",
                    view->folder, text);
    }
    return STATUS_OK;
}

/* Opens the weights of a candidate; the baseline has none of its own. */
static enum status open_weights(struct export *export, const struct view *view, int32_t node,
                                int32_t number, char path[FILE_PATH_BYTES], struct error *err)
{
    const struct candidate *candidate = &view->search.nodes[node].candidates[number];
    if (node == 0 && !candidate->weights_kept) {
        export->trained = DTYPE_COUNT; /* set when the base is loaded */
        return STATUS_OK;
    }
    TRY(store_weights_path(view->folder, node, number, path, err));
    if (!candidate->weights_kept) {
        char kept[256];
        char name[SEARCH_NAME_BYTES];
        list_kept(view, kept, sizeof(kept));
        search_candidate_name(node, number, name);
        return FAIL(err, STATUS_NOT_FOUND, "%s: the weights of %s were not kept; those of %s were",
                    view->folder, name, kept[0] != '\0' ? kept : "no candidate");
    }
    TRY(store_arrays_open(path, NULL, &export->file, err));
    export->is_adapter = store_arrays_attribute(export->file, "lora") != NULL;
    export->trained = DTYPE_F32;
    if (store_arrays_count(export->file) > 0 &&
        store_arrays_at(export->file, 0)->type == STORE_BF16) {
        export->trained = DTYPE_BF16;
    }
    return STATUS_OK;
}

static enum status check_format(const struct export *export, const char **format, struct error *err)
{
    if (*format == NULL) {
        *format = export->is_adapter ? "merged" : "full";
    } else if (export->is_adapter && strcmp(*format, "full") == 0) {
        return FAIL(err, STATUS_INVALID,
                    "an adapter was trained here: allowed are --format merged and adapter");
    } else if (!export->is_adapter && strcmp(*format, "full") != 0) {
        return FAIL(err, STATUS_INVALID, "all weights were trained here: allowed is --format full");
    }
    return STATUS_OK;
}

static enum status export_candidate(const struct view *view, const char *text, const char *out,
                                    const char *format, const char *dtype_name, const char *base,
                                    struct error *err)
{
    enum status status = STATUS_OK;
    struct export export;
    char path[FILE_PATH_BYTES] = "";
    char name[SEARCH_NAME_BYTES];
    int32_t node = 0;
    int32_t number = 0;
    memset(&export, 0, sizeof(export));
    export.path = path;
    base = base != NULL ? base : view_job_text(view, NULL, "model");
    if (search_is_simulated(&view->search)) {
        status = FAIL(err, STATUS_INVALID,
                      "%s is a simulated search: nothing was trained, so there are no weights",
                      view->folder);
        goto cleanup;
    }
    TRY_CLEANUP(choose_candidate(view, text, &node, &number, err));
    TRY_CLEANUP(open_weights(&export, view, node, number, path, err));
    TRY_CLEANUP(check_format(&export, &format, err));
    TRY_CLEANUP(load_base(&export, view, base, err));
    if (export.file != NULL) {
        TRY_CLEANUP(read_weights(&export, err));
    } else {
        export.trained = export.base->config.stored_dtype;
    }
    TRY_CLEANUP(write_out(&export, format, dtype_name, base, out, err));
    search_candidate_name(node, number, name);
    printf("%s (%s) is in %s\n", name, format, out);
cleanup:
    export_fini(&export);
    return status;
}

static bool one_of(const char *text, const char *const *choices)
{
    for (int i = 0; choices[i] != NULL; i++) {
        if (strcmp(text, choices[i]) == 0) {
            return true;
        }
    }
    return false;
}

static int run(const struct command *command, int argc, char **argv)
{
    static const char *const formats[] = {"full", "merged", "adapter", NULL};
    static const char *const dtypes[] = {"f32", "bf16", NULL};
    const char *format = NULL;
    const char *dtype = NULL;
    const char *base = NULL;
    const struct command_option options[] = {{"format", NULL, &format},
                                             {"dtype", NULL, &dtype},
                                             {"base", NULL, &base},
                                             {NULL, NULL, NULL}};
    char **arguments = NULL;
    int count = 0;
    int exit_code = EXIT_DONE;
    if (!options_parse(command, argc, argv, options, 2, 3, &arguments, &count, &exit_code)) {
        return exit_code;
    }
    struct error err;
    if ((format != NULL && !one_of(format, formats)) || (dtype != NULL && !one_of(dtype, dtypes))) {
        fprintf(stderr,
                "trex-tree export: --format is full, merged or adapter; --dtype is f32 or bf16\n");
        return EXIT_WRONG_INPUT;
    }
    struct view view;
    if (view_open(arguments[0], &view, &err) != STATUS_OK) {
        return options_fail(&err);
    }
    const char *candidate = count == 3 ? arguments[1] : "best";
    enum status status =
        export_candidate(&view, candidate, arguments[count - 1], format, dtype, base, &err);
    view_close(&view);
    return status == STATUS_OK ? EXIT_DONE : options_fail(&err);
}

const struct command command_export = {
    "export", "weights of a candidate as a Hugging Face or PEFT folder", usage, run};
