/* Models of the tests: a tiny random one that is committed, and stories260K where MODELS names its
 * folder. */
#ifndef TESTS_EVAL_MODELS_H
#define TESTS_EVAL_MODELS_H

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "model/model.h"
#include "model/transformer.h"

struct loaded {
    struct device *device;
    struct model *model;
    struct network network;
};

static inline void load_model(const char *folder, struct loaded *out)
{
    struct error err;
    struct device_options options = {.threads = 2};
    memset(out, 0, sizeof(*out));
    if (device_open_cpu(&options, &out->device, &err) != STATUS_OK ||
        model_load(folder, out->device, DTYPE_F32, &out->model, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    out->network = (struct network){.config = &out->model->config, .weights = &out->model->weights};
}

static inline void load_tiny(struct loaded *out)
{
    load_model(TEST_SOURCE_DIR "/golden/model/llama", out);
}

/* Skips the test where the folder is not to be had. */
static inline void load_stories(struct loaded *out)
{
    const char *models = getenv("MODELS");
    char folder[FILE_PATH_BYTES];
    if (models == NULL) {
        print_message("skipped: set MODELS to a folder that holds stories260K\n");
        skip();
        return; /* not reached: for the compiler, which does not know that skip() jumps */
    }
    snprintf(folder, sizeof(folder), "%s/stories260K", models);
    load_model(folder, out);
}

static inline void unload(struct loaded *loaded)
{
    model_destroy(loaded->model);
    device_close(loaded->device);
}

#endif
