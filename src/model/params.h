/* Names, shapes and places of parameters in one contiguous array.
 *
 * query, key and value of a layer lie one after the other, and so do gate and up: one matrix
 * product serves all. */
#ifndef MODEL_PARAMS_H
#define MODEL_PARAMS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"
#include "kernels/ops.h"
#include "model/config.h"
#include "model/family.h"

enum { PARAM_NAME_BYTES = 128 };

struct param {
    char name[PARAM_NAME_BYTES]; /* as in the Hugging Face (or PEFT) file */
    int64_t rows;                /* out features; 1 for a norm */
    int64_t cols;                /* in features */
    int64_t
        offset;  /* elements from the start of the array; a multiple of 32, but for the second and
                  * third of neighbours that one product serves: those follow without a gap */
    bool decay;  /* weight decay applies: matrices yes, norms no */
    bool vector; /* one-dimensional in the file */
};

struct param_table {
    struct param *items;
    int64_t count;
    int64_t elements; /* length of the array, padding included */
};

/* Appends a parameter; `joined` puts it right behind the one before. For those who build tables. */
enum status param_table_append(struct param_table *table, const struct param *param, bool joined,
                               struct error *err);

/* The table of a model; of its LoRA adapter: see model/lora.h. */
enum status param_table_build(const struct model_config *config, struct param_table *out,
                              struct error *err);
void param_table_fini(struct param_table *table);
int64_t param_table_find(const struct param_table *table, const char *name); /* -1 if absent */

/* Index of a parameter of a model's table by its role (model/family.h), or -1; layer is unused for
 * those that exist once. */
int64_t param_index(const struct model_config *config, enum param_role role, int64_t layer);

/* Rows and columns of a parameter by its role; a vector is one row. */
void param_shape(const struct model_config *config, enum param_role role, int64_t *rows,
                 int64_t *cols);

/* Values of all parameters of a table, in one device array of one dtype. */
struct weights {
    struct device *device;
    const struct param_table *table; /* borrowed */
    enum dtype dtype;
    void *data; /* on the device, table->elements */
};

enum status weights_create(struct device *device, const struct param_table *table, enum dtype dtype,
                           struct weights *out, struct error *err); /* zeroed */
void weights_fini(struct weights *weights);
struct tensor weights_tensor(const struct weights *weights, int64_t index);

/* Copies one parameter between the array and contiguous host f32. */
void weights_get(const struct weights *weights, int64_t index, float *host);
void weights_set(const struct weights *weights, int64_t index, const float *host);

/* Writes `count` elements from the element at `offset` of the array: a parameter piece by piece. */
void weights_set_range(const struct weights *weights, int64_t offset, const float *host,
                       int64_t count);

#endif
