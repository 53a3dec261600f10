#include "model/lora.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/rng.h"
#include "model/family.h"

enum { RANK_MAX = 256, GROUP_COUNT = 4, INIT_BLOCK = 1024 };

static const enum param_role target_roles[LORA_TARGET_COUNT] = {
    PARAM_QUERY, PARAM_KEY, PARAM_VALUE, PARAM_OUTPUT, PARAM_GATE, PARAM_UP, PARAM_DOWN,
};

static const char *const target_names[LORA_TARGET_COUNT] = {
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
};

/* Targets that read the same input, by their first and last number. In the table, the A of a group
 * come first and then its B, so that the A are neighbours. */
struct target_group {
    int first;
    int last;
};
static const struct target_group groups[GROUP_COUNT] = {{0, 2}, {3, 3}, {4, 5}, {6, 6}};

const char *lora_target_name(int number)
{
    return target_names[number];
}

static bool is_target(const struct lora_config *lora, int target)
{
    return (lora->targets >> target & 1) != 0;
}

/* Number of targets from `first` to `last` that have an adapter. */
static int count_targets(const struct lora_config *lora, int first, int last)
{
    int count = 0;
    for (int target = first; target <= last; target++) {
        count += is_target(lora, target);
    }
    return count;
}

static int64_t layer_start(const struct lora_config *lora, int64_t layer)
{
    return layer * 2 * count_targets(lora, 0, LORA_TARGET_COUNT - 1);
}

static const struct target_group *group_of(int target)
{
    const struct target_group *group = groups;
    while (target > group->last) {
        group++;
    }
    return group;
}

int64_t lora_index_a(const struct lora_config *lora, int64_t layer, int target)
{
    if (!is_target(lora, target)) {
        return -1;
    }
    const struct target_group *group = group_of(target);
    return layer_start(lora, layer) + 2 * count_targets(lora, 0, group->first - 1) +
           count_targets(lora, group->first, target - 1);
}

int64_t lora_index_b(const struct lora_config *lora, int64_t layer, int target)
{
    if (!is_target(lora, target)) {
        return -1;
    }
    const struct target_group *group = group_of(target);
    return lora_index_a(lora, layer, target) + count_targets(lora, group->first, group->last);
}

/* "base_model.model.<module of the tensor>.lora_A.weight" */
static void format_name(const struct model_config *config, int64_t layer, int target, char side,
                        struct param *param)
{
    const char *tensor = config->family->names[target_roles[target]];
    int module = (int)(strlen(tensor) - strlen(".weight"));
    snprintf(param->name, sizeof(param->name), "base_model.model.%s%lld.%.*s.lora_%c.weight",
             config->family->layer_prefix, (long long)layer, module, tensor, side);
}

static enum status append_side(const struct model_config *config, const struct lora_config *lora,
                               int64_t layer, int target, char side, bool joined,
                               struct param_table *table, struct error *err)
{
    int64_t out_features = 0;
    int64_t in_features = 0;
    param_shape(config, target_roles[target], &out_features, &in_features);
    struct param param;
    memset(&param, 0, sizeof(param));
    format_name(config, layer, target, side, &param);
    param.rows = side == 'A' ? lora->rank : out_features;
    param.cols = side == 'A' ? in_features : lora->rank;
    param.decay = true;
    return param_table_append(table, &param, joined, err);
}

static enum status append_layer(const struct model_config *config, const struct lora_config *lora,
                                int64_t layer, struct param_table *table, struct error *err)
{
    for (int g = 0; g < GROUP_COUNT; g++) {
        for (int pass = 0; pass < 2; pass++) {
            char side = pass == 0 ? 'A' : 'B';
            bool joined = false;
            for (int target = groups[g].first; target <= groups[g].last; target++) {
                if (!is_target(lora, target)) {
                    continue;
                }
                TRY(append_side(config, lora, layer, target, side, joined, table, err));
                joined = side == 'A';
            }
        }
    }
    return STATUS_OK;
}

static enum status check_config(const struct lora_config *lora, struct error *err)
{
    if (lora->rank < 1 || lora->rank > RANK_MAX) {
        return FAIL(err, STATUS_RANGE, "LoRA rank %lld, allowed are 1 to %d", (long long)lora->rank,
                    RANK_MAX);
    }
    if (!isfinite(lora->alpha) || lora->alpha <= 0.0) {
        return FAIL(err, STATUS_RANGE, "LoRA alpha %g, allowed is a number above 0", lora->alpha);
    }
    if ((lora->targets & LORA_ALL) == 0 || (lora->targets & ~LORA_ALL) != 0) {
        return FAIL(err, STATUS_INVALID,
                    "LoRA targets 0x%x, allowed is at least one of q_proj, k_proj, v_proj, "
                    "o_proj, gate_proj, up_proj, down_proj",
                    (unsigned)lora->targets);
    }
    return STATUS_OK;
}

enum status lora_table_build(const struct model_config *config, const struct lora_config *lora,
                             struct param_table *out, struct error *err)
{
    TRY(check_config(lora, err));
    struct param_table table = {NULL, 0, 0};
    for (int64_t layer = 0; layer < config->layers; layer++) {
        enum status status = append_layer(config, lora, layer, &table, err);
        if (status != STATUS_OK) {
            param_table_fini(&table);
            return status;
        }
    }
    *out = table;
    return STATUS_OK;
}

static bool is_side_a(const struct param *param)
{
    return strstr(param->name, ".lora_A.") != NULL;
}

void lora_init(const struct weights *adapter, uint64_t seed)
{
    for (int64_t index = 0; index < adapter->table->count; index++) {
        const struct param *param = &adapter->table->items[index];
        int64_t count = param->rows * param->cols;
        /* Kaiming with a = sqrt 5: bound sqrt(6 / ((1 + a^2) * in)) = 1 / sqrt(in). */
        double bound = is_side_a(param) ? 1.0 / sqrt((double)param->cols) : 0.0;
        struct rng rng;
        rng_init(&rng, seed, (uint64_t)index);
        float block[INIT_BLOCK];
        for (int64_t done = 0; done < count; done += INIT_BLOCK) {
            int64_t part = count - done < INIT_BLOCK ? count - done : INIT_BLOCK;
            for (int64_t i = 0; i < part; i++) {
                block[i] = (float)(bound * (2.0 * rng_uniform(&rng) - 1.0));
            }
            weights_set_range(adapter, param->offset + done, block, part);
        }
    }
}

enum status lora_merge(const struct model_config *config, const struct lora_config *lora,
                       const struct weights *adapter, const struct weights *base, struct error *err)
{
    TRY(check_config(lora, err));
    struct device *device = base->device;
    float scale = (float)(lora->alpha / (double)lora->rank);
    for (int64_t layer = 0; layer < config->layers; layer++) {
        for (int target = 0; target < LORA_TARGET_COUNT; target++) {
            if (!is_target(lora, target)) {
                continue;
            }
            struct tensor matrix =
                weights_tensor(base, param_index(config, target_roles[target], layer));
            struct tensor a = weights_tensor(adapter, lora_index_a(lora, layer, target));
            struct tensor b = weights_tensor(adapter, lora_index_b(lora, layer, target));
            device->ops->matmul(device, matrix, b, false, a, false, scale, 1.0f);
        }
    }
    return device->ops->check(device, err);
}
