#include "train/config.h"

#include <string.h>

const char *const train_method_names[] = {"full", "lora", NULL};
const char *const train_schedule_names[] = {"constant", "linear", "cosine", NULL};
const char *const train_precision_names[] = {"f32", "bf16", NULL};

/* Bounds of what makes sense, far wider than what is wise; they keep products of sizes inside 64
 * bits. */
#define LEARNING_RATE_MIN 1e-12
#define LEARNING_RATE_MAX 100.0
#define BETA_MAX 0.999999
enum {
    EPOCHS_MAX = 10000,
    STEPS_MAX = 1000000000,
    BATCH_TOKENS_MAX = 1 << 24,
    ACCUMULATION_MAX = 1 << 16,
    VALIDATIONS_MAX = 100000,
    LORA_RANK_MAX = 256,
};

struct train_config train_config_default(void)
{
    return (struct train_config){
        .method = TRAIN_LORA,
        .lora = {.rank = 16, .alpha = 32.0, .targets = LORA_ALL},
        .learning_rate = 2e-4,
        .schedule = TRAIN_COSINE,
        .warmup_ratio = 0.03,
        .final_ratio = 0.1,
        .epochs = 3.0,
        .max_steps = 0,
        .batch_tokens = 4096,
        .accumulation = 1,
        .sequence_length = 0,
        .beta1 = 0.9,
        .beta2 = 0.999,
        .epsilon = 1e-8,
        .weight_decay = 0.01,
        .clip_norm = 1.0,
        .precision = TRAIN_F32,
        .validations = 5,
        .patience = 0,
        .seed = 1,
    };
}

const struct train_config_key *train_config_keys(void)
{
    static const struct train_config_key keys[] = {
        {"method", "\"full\" or \"lora\"",
         "train all weights, or a low-rank adapter of frozen ones"},
        {"lora",
         "{\"rank\": 1 to 256, \"alpha\": above 0 to 10000, \"targets\": \"all\" or a list of "
         "\"q_proj\", "
         "\"k_proj\", \"v_proj\", \"o_proj\", \"gate_proj\", \"up_proj\", \"down_proj\"}",
         "the adapter: its scale is alpha / rank; used with method \"lora\""},
        {"learning_rate", "1e-12 to 100",
         "its peak; often 1e-5 to 1e-3 for full, 1e-4 to 1e-3 for lora"},
        {"schedule", "\"constant\", \"linear\" or \"cosine\"",
         "course of the learning rate after the warm-up"},
        {"warmup_ratio", "0 to 1",
         "share of all steps in which the learning rate rises to its peak"},
        {"final_ratio", "0 to 1",
         "learning rate of the last step over the peak; not used by \"constant\""},
        {"epochs", "above 0 to 10000", "passes over the training rows; may be a fraction"},
        {"max_steps", "0 to 1000000000", "most optimizer steps; 0: as epochs say"},
        {"batch_tokens", "1 to 16777216",
         "most tokens of a micro-batch; memory grows with it; at least the longest sequence"},
        {"accumulation", "1 to 65536", "micro-batches a step, of all ranks of a group together"},
        {"sequence_length", "0 to 16777216",
         "longest sequence in tokens; 0: as model and data allow"},
        {"beta1", "0 to 0.999999", "AdamW: decay of the mean of gradients"},
        {"beta2", "0 to 0.999999", "AdamW: decay of the mean of squared gradients"},
        {"epsilon", "1e-16 to 1", "AdamW: added to the root of the second moment"},
        {"weight_decay", "0 to 10", "AdamW: decoupled decay of matrices; norms have none"},
        {"clip_norm", "0 to 1e6", "largest norm of all gradients together; 0: not clipped"},
        {"precision", "\"f32\" or \"bf16\"",
         "of weights that are read and activations; the optimizer is f32"},
        {"validations", "0 to 100000", "times the validation loss is measured, the end included"},
        {"patience", "0 to 100000",
         "validations without a better loss before an early stop; 0: never"},
        {"seed", "0 to 9007199254740992", "of the order of the rows and the start of the adapter"},
        {NULL, NULL, NULL},
    };
    return keys;
}

static void add_target_problem(struct json_problems *problems, const char *pointer,
                               const cJSON *found)
{
    json_problems_add(
        problems, pointer,
        "found %s, allowed is \"all\" or a list of \"q_proj\", \"k_proj\", \"v_proj\", \"o_proj\", "
        "\"gate_proj\", \"up_proj\", \"down_proj\"",
        cJSON_IsString(found) ? found->valuestring : "something else");
}

/* Number of the target with this name, -1 if there is none. */
static int find_target(const cJSON *name)
{
    for (int i = 0; cJSON_IsString(name) && i < LORA_TARGET_COUNT; i++) {
        if (strcmp(name->valuestring, lora_target_name(i)) == 0) {
            return i;
        }
    }
    return -1;
}

/* Bits of the "targets" key; those of `fallback` if it is absent or wrong. */
static int read_targets(struct json_reader *reader, int fallback)
{
    const cJSON *value = json_read_any(reader, "targets");
    char pointer[JSON_POINTER_BYTES];
    json_reader_pointer(reader, "targets", pointer);
    if (value == NULL) {
        return fallback;
    }
    if (cJSON_IsString(value) && strcmp(value->valuestring, "all") == 0) {
        return LORA_ALL;
    }
    if (!cJSON_IsArray(value) || cJSON_GetArraySize(value) == 0) {
        add_target_problem(reader->problems, pointer, value);
        return fallback;
    }
    int targets = 0;
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, value) {
        int number = find_target(item);
        if (number < 0) {
            add_target_problem(reader->problems, pointer, item);
            return fallback;
        }
        targets |= 1 << number;
    }
    return targets;
}

static void read_lora(struct json_reader *parent, struct lora_config *lora)
{
    struct json_reader reader;
    char pointer[JSON_POINTER_BYTES];
    json_reader_pointer(parent, "lora", pointer);
    json_reader_init(&reader, json_read_object(parent, "lora"), pointer, parent->problems);
    lora->rank = json_read_int(&reader, "rank", lora->rank, 1, LORA_RANK_MAX);
    lora->alpha = json_read_number(&reader, "alpha", lora->alpha, 1e-6, 10000.0);
    lora->targets = read_targets(&reader, lora->targets);
    json_reader_finish(&reader);
}

static void read_optimizer(struct json_reader *reader, struct train_config *config)
{
    config->learning_rate = json_read_number(reader, "learning_rate", config->learning_rate,
                                             LEARNING_RATE_MIN, LEARNING_RATE_MAX);
    config->schedule = (enum train_schedule)json_read_choice(
        reader, "schedule", train_schedule_names, (int)config->schedule);
    config->warmup_ratio = json_read_number(reader, "warmup_ratio", config->warmup_ratio, 0.0, 1.0);
    config->final_ratio = json_read_number(reader, "final_ratio", config->final_ratio, 0.0, 1.0);
    config->beta1 = json_read_number(reader, "beta1", config->beta1, 0.0, BETA_MAX);
    config->beta2 = json_read_number(reader, "beta2", config->beta2, 0.0, BETA_MAX);
    config->epsilon = json_read_number(reader, "epsilon", config->epsilon, 1e-16, 1.0);
    config->weight_decay =
        json_read_number(reader, "weight_decay", config->weight_decay, 0.0, 10.0);
    config->clip_norm = json_read_number(reader, "clip_norm", config->clip_norm, 0.0, 1e6);
}

/* Mistakes that no key shows by itself. */
static void check_together(const struct json_reader *reader, const struct train_config *config)
{
    char pointer[JSON_POINTER_BYTES];
    if (config->sequence_length > config->batch_tokens) {
        json_reader_pointer(reader, "sequence_length", pointer);
        json_problems_add(reader->problems, pointer,
                          "found %lld, allowed is at most batch_tokens (%lld), for a micro-batch "
                          "holds whole sequences",
                          (long long)config->sequence_length, (long long)config->batch_tokens);
    }
    if (config->patience > 0 && config->validations == 0) {
        json_reader_pointer(reader, "patience", pointer);
        json_problems_add(
            reader->problems, pointer,
            "found %lld, allowed is 0 as long as validations is 0: nothing would be measured",
            (long long)config->patience);
    }
}

void train_config_read(const cJSON *object, const char *pointer, struct json_problems *problems,
                       struct train_config *config)
{
    struct json_reader reader;
    json_reader_init(&reader, object, pointer, problems);
    config->method = (enum train_method)json_read_choice(&reader, "method", train_method_names,
                                                         (int)config->method);
    read_lora(&reader, &config->lora);
    read_optimizer(&reader, config);
    config->epochs = json_read_number(&reader, "epochs", config->epochs, 1e-6, EPOCHS_MAX);
    config->max_steps = json_read_int(&reader, "max_steps", config->max_steps, 0, STEPS_MAX);
    config->batch_tokens =
        json_read_int(&reader, "batch_tokens", config->batch_tokens, 1, BATCH_TOKENS_MAX);
    config->accumulation =
        json_read_int(&reader, "accumulation", config->accumulation, 1, ACCUMULATION_MAX);
    config->sequence_length =
        json_read_int(&reader, "sequence_length", config->sequence_length, 0, BATCH_TOKENS_MAX);
    config->precision = (enum train_precision)json_read_choice(
        &reader, "precision", train_precision_names, (int)config->precision);
    config->validations =
        json_read_int(&reader, "validations", config->validations, 0, VALIDATIONS_MAX);
    config->patience = json_read_int(&reader, "patience", config->patience, 0, VALIDATIONS_MAX);
    config->seed =
        (uint64_t)json_read_int(&reader, "seed", (int64_t)config->seed, 0, INT64_C(1) << 53);
    json_reader_finish(&reader);
    check_together(&reader, config);
}

static bool add_targets(cJSON *lora, int targets)
{
    if (targets == LORA_ALL) {
        return cJSON_AddStringToObject(lora, "targets", "all") != NULL;
    }
    cJSON *list = cJSON_AddArrayToObject(lora, "targets");
    bool ok = list != NULL;
    for (int i = 0; ok && i < LORA_TARGET_COUNT; i++) {
        if ((targets & (1 << i)) != 0) {
            cJSON *name = cJSON_CreateString(lora_target_name(i));
            ok = name != NULL && cJSON_AddItemToArray(list, name);
        }
    }
    return ok;
}

static bool add_lora(cJSON *object, const struct lora_config *lora)
{
    cJSON *child = cJSON_AddObjectToObject(object, "lora");
    return child != NULL && cJSON_AddNumberToObject(child, "rank", (double)lora->rank) != NULL &&
           cJSON_AddNumberToObject(child, "alpha", lora->alpha) != NULL &&
           add_targets(child, lora->targets);
}

static bool add_choice(cJSON *object, const char *key, const char *const *names, int value)
{
    return cJSON_AddStringToObject(object, key, names[value]) != NULL;
}

cJSON *train_config_to_json(const struct train_config *config)
{
    const struct {
        const char *key;
        double value;
    } numbers[] = {
        {"learning_rate", config->learning_rate},
        {"warmup_ratio", config->warmup_ratio},
        {"final_ratio", config->final_ratio},
        {"epochs", config->epochs},
        {"max_steps", (double)config->max_steps},
        {"batch_tokens", (double)config->batch_tokens},
        {"accumulation", (double)config->accumulation},
        {"sequence_length", (double)config->sequence_length},
        {"beta1", config->beta1},
        {"beta2", config->beta2},
        {"epsilon", config->epsilon},
        {"weight_decay", config->weight_decay},
        {"clip_norm", config->clip_norm},
        {"validations", (double)config->validations},
        {"patience", (double)config->patience},
        {"seed", (double)config->seed},
    };
    cJSON *object = cJSON_CreateObject();
    bool ok = object != NULL &&
              add_choice(object, "method", train_method_names, (int)config->method) &&
              add_lora(object, &config->lora) &&
              add_choice(object, "schedule", train_schedule_names, (int)config->schedule) &&
              add_choice(object, "precision", train_precision_names, (int)config->precision);
    for (size_t i = 0; ok && i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        ok = cJSON_AddNumberToObject(object, numbers[i].key, numbers[i].value) != NULL;
    }
    if (!ok) {
        cJSON_Delete(object);
        return NULL;
    }
    return object;
}
