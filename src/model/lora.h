/* Low-rank adapters: W x + (alpha / rank) B A x with W frozen. Source: arXiv 2106.09685. */
#ifndef MODEL_LORA_H
#define MODEL_LORA_H

#include "model/params.h"

/* Which matrices of a layer get an adapter: bits. */
enum lora_target {
    LORA_QUERY = 1 << 0,
    LORA_KEY = 1 << 1,
    LORA_VALUE = 1 << 2,
    LORA_OUTPUT = 1 << 3,
    LORA_GATE = 1 << 4,
    LORA_UP = 1 << 5,
    LORA_DOWN = 1 << 6,
    LORA_ATTENTION = LORA_QUERY | LORA_KEY | LORA_VALUE | LORA_OUTPUT,
    LORA_MLP = LORA_GATE | LORA_UP | LORA_DOWN,
    LORA_ALL = LORA_ATTENTION | LORA_MLP,
};
enum { LORA_TARGET_COUNT = 7 };

struct lora_config {
    int64_t rank; /* 1..256 */
    double alpha; /* scale is alpha / rank */
    int targets;  /* bits of enum lora_target */
};

/* "q_proj" ... "down_proj" of target number 0..6. */
const char *lora_target_name(int number);

/* Table of all A (rank, in) and B (out, rank), named as PEFT does. Within a layer, the A of query,
 * key, value follow one another without a gap, and so do those of gate and up: one product makes
 * all their inputs. Errors: STATUS_RANGE for a rank or alpha out of range, STATUS_INVALID without
 * targets. */
enum status lora_table_build(const struct model_config *config, const struct lora_config *lora,
                             struct param_table *out, struct error *err);

/* Index of A or B of a target (its number 0..6) of a layer in that table; -1 if it has no adapter.
 */
int64_t lora_index_a(const struct lora_config *lora, int64_t layer, int target);
int64_t lora_index_b(const struct lora_config *lora, int64_t layer, int target);

/* A uniform (Kaiming, a = sqrt 5) from Philox(seed), B zero: the adapter starts as the identity. */
void lora_init(const struct weights *adapter, uint64_t seed);

/* Adds scale * B A to the base matrices in place: the merged model. Both on one device and of one
 * dtype. */
enum status lora_merge(const struct model_config *config, const struct lora_config *lora,
                       const struct weights *adapter, const struct weights *base,
                       struct error *err);

#endif
