/* One training configuration: what a plan varies. As JSON, in the units a person would use. */
#ifndef TRAIN_CONFIG_H
#define TRAIN_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "base/json.h"
#include "model/lora.h"

enum train_method { TRAIN_FULL, TRAIN_LORA };
enum train_schedule { TRAIN_CONSTANT, TRAIN_LINEAR, TRAIN_COSINE };
enum train_precision { TRAIN_F32, TRAIN_BF16 };

extern const char *const train_method_names[];    /* "full", "lora", NULL */
extern const char *const train_schedule_names[];  /* "constant", "linear", "cosine", NULL */
extern const char *const train_precision_names[]; /* "f32", "bf16", NULL */

/* JSON keys are the field names; defaults in train_config_default. */
struct train_config {
    enum train_method method;
    /* {"rank": 16, "alpha": 32, "targets": ["q_proj", ...] or "all"} */
    struct lora_config lora;
    double learning_rate; /* peak */
    enum train_schedule schedule;
    double warmup_ratio;          /* share of all steps, 0..1 */
    double final_ratio;           /* learning rate of the last step over the peak, 0..1 */
    double epochs;                /* may be a fraction; with max_steps the earlier one ends it */
    int64_t max_steps;            /* 0: as epochs say */
    int64_t batch_tokens;         /* most tokens of a micro-batch */
    int64_t accumulation;         /* micro-batches a step (of all ranks of the group together) */
    int64_t sequence_length;      /* longest sequence; 0: as the model and the data allow */
    double beta1, beta2, epsilon; /* AdamW */
    double weight_decay;
    double clip_norm; /* 0: off */
    enum train_precision precision;
    int64_t validations; /* times the validation loss is measured, the end included */
    int64_t patience;    /* validations without improvement before an early stop; 0: never */
    uint64_t seed;       /* at most 2^53, so that it survives JSON */
};

struct train_config train_config_default(void);

/* Reads keys over the values in *config; mistakes and unknown keys go to the problems under
 * `pointer`. */
void train_config_read(const cJSON *object, const char *pointer, struct json_problems *problems,
                       struct train_config *config);

/* All fields as a new JSON object; NULL without memory. */
cJSON *train_config_to_json(const struct train_config *config);

/* The keys for --help and for agents: name, allowed, meaning; NULL name at the end. */
struct train_config_key {
    const char *name;
    const char *allowed;
    const char *meaning;
};
const struct train_config_key *train_config_keys(void);

/* Learning rate of step 1..total_steps: linear up to the peak over the warm-up, then as the
 * schedule says, down to final_ratio of the peak at the last step (a constant one stays at the
 * peak). */
double train_learning_rate(const struct train_config *config, int64_t step, int64_t total_steps);

#endif
