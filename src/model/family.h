/* What differs between families of models: one file and one row of the registry (family.c) each.
 *
 * All families share one skeleton, the one of transformer.h. A family says how its config.json and
 * its tensors are called, and refuses the features that the skeleton has no code for. */
#ifndef MODEL_FAMILY_H
#define MODEL_FAMILY_H

#include "base/json.h"
#include "model/config.h"

/* Parameters by what they do. The first three exist once, the others in every layer; the order
 * within a layer is that of the parameter array, where query, key, value and gate, up have to be
 * neighbours. */
enum param_role {
    PARAM_EMBEDDING,      /* (V,C) */
    PARAM_FINAL_NORM,     /* (C) */
    PARAM_HEAD,           /* (V,C), absent if tied */
    PARAM_ATTENTION_NORM, /* (C) */
    PARAM_QUERY,          /* (H*D,C) */
    PARAM_KEY,            /* (K*D,C) */
    PARAM_VALUE,          /* (K*D,C) */
    PARAM_QUERY_NORM,     /* (D), with qk_norm */
    PARAM_KEY_NORM,       /* (D), with qk_norm */
    PARAM_OUTPUT,         /* (C,H*D) */
    PARAM_MLP_NORM,       /* (C) */
    PARAM_GATE,           /* (F,C) */
    PARAM_UP,             /* (F,C) */
    PARAM_DOWN,           /* (C,F) */
    PARAM_ROLE_COUNT,
    PARAM_LAYER_FIRST = PARAM_ATTENTION_NORM,
};

struct model_family {
    const char *architecture; /* in config.json's "architectures": "LlamaForCausalLM" */
    const char *model_type;   /* "llama" */
    bool qk_norm;
    int64_t default_head_dim;      /* where config.json has none; 0: hidden_size / heads */
    int64_t default_max_positions; /* where config.json has none */
    const char *layer_prefix;      /* before the layer's number: "model.layers." */
    const char
        *names[PARAM_ROLE_COUNT]; /* of tensors; those of layers follow "<layer_prefix><number>." */
    const char *const
        *ignored; /* ends of names of tensors that carry no parameters; NULL-terminated */

    /* Reads the keys that this family alone has, and adds to `unsupported` what asks for code that
     * is not here. */
    void (*read_config)(struct json_reader *reader, struct json_problems *unsupported);
};

extern const struct model_family model_family_llama;
extern const struct model_family model_family_qwen3;

/* By the name in "architectures"; NULL if there is none. */
const struct model_family *model_family_find(const char *architecture);

/* "LlamaForCausalLM, Qwen3ForCausalLM" into out, for messages. */
void model_family_list(char *out, size_t out_bytes);

/* True for a tensor that the family says to skip (rotary tables of old files). */
bool model_family_ignores(const struct model_family *family, const char *tensor_name);

/* Adds a problem if the key is true: a bias or a feature without code here. */
void model_family_refuse_flag(struct json_reader *reader, const char *key,
                              struct json_problems *unsupported);

#endif
