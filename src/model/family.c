#include "model/family.h"

#include <stdio.h>
#include <string.h>

static const struct model_family *const families[] = {
    &model_family_llama,
    &model_family_qwen3,
};

enum { FAMILY_COUNT = sizeof(families) / sizeof(families[0]) };

const struct model_family *model_family_find(const char *architecture)
{
    for (int i = 0; i < FAMILY_COUNT; i++) {
        if (strcmp(families[i]->architecture, architecture) == 0) {
            return families[i];
        }
    }
    return NULL;
}

void model_family_list(char *out, size_t out_bytes)
{
    size_t used = 0;
    out[0] = '\0';
    for (int i = 0; i < FAMILY_COUNT && used < out_bytes; i++) {
        used += (size_t)snprintf(out + used, out_bytes - used, "%s%s", i > 0 ? ", " : "",
                                 families[i]->architecture);
    }
}

bool model_family_ignores(const struct model_family *family, const char *tensor_name)
{
    size_t length = strlen(tensor_name);
    for (int i = 0; family->ignored[i] != NULL; i++) {
        size_t end = strlen(family->ignored[i]);
        if (length >= end && strcmp(tensor_name + length - end, family->ignored[i]) == 0) {
            return true;
        }
    }
    return false;
}

void model_family_refuse_flag(struct json_reader *reader, const char *key,
                              struct json_problems *unsupported)
{
    if (json_read_bool(reader, key, false)) {
        char pointer[JSON_POINTER_BYTES];
        json_reader_pointer(reader, key, pointer);
        json_problems_add(unsupported, pointer, "found true, supported is false");
    }
}
