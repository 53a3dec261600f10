/* Qwen3, dense: Llama with a norm on each query and key head and a head size of its own. Source:
 * arXiv 2505.09388 and the config.json files of the released models. */
#include <string.h>

#include "model/family.h"

/* Every layer has to attend to all positions before it. */
static void refuse_windows(struct json_reader *reader, struct json_problems *unsupported)
{
    model_family_refuse_flag(reader, "use_sliding_window", unsupported);
    const cJSON *layers = json_read_array(reader, "layer_types");
    const cJSON *item = NULL;
    cJSON_ArrayForEach (item, layers) {
        if (!cJSON_IsString(item) || strcmp(item->valuestring, "full_attention") != 0) {
            json_problems_add(unsupported, "/layer_types",
                              "found \"%.40s\", supported is \"full_attention\"",
                              cJSON_IsString(item) ? item->valuestring : "?");
            return;
        }
    }
}

static void read_qwen3(struct json_reader *reader, struct json_problems *unsupported)
{
    model_family_refuse_flag(reader, "attention_bias", unsupported);
    refuse_windows(reader, unsupported);
}

static const char *const ignored[] = {"rotary_emb.inv_freq", NULL};

const struct model_family model_family_qwen3 = {
    .architecture = "Qwen3ForCausalLM",
    .model_type = "qwen3",
    .qk_norm = true,
    .default_head_dim = 128,
    .default_max_positions = 32768,
    .layer_prefix = "model.layers.",
    .names =
        {
            [PARAM_EMBEDDING] = "model.embed_tokens.weight",
            [PARAM_FINAL_NORM] = "model.norm.weight",
            [PARAM_HEAD] = "lm_head.weight",
            [PARAM_ATTENTION_NORM] = "input_layernorm.weight",
            [PARAM_QUERY] = "self_attn.q_proj.weight",
            [PARAM_KEY] = "self_attn.k_proj.weight",
            [PARAM_VALUE] = "self_attn.v_proj.weight",
            [PARAM_QUERY_NORM] = "self_attn.q_norm.weight",
            [PARAM_KEY_NORM] = "self_attn.k_norm.weight",
            [PARAM_OUTPUT] = "self_attn.o_proj.weight",
            [PARAM_MLP_NORM] = "post_attention_layernorm.weight",
            [PARAM_GATE] = "mlp.gate_proj.weight",
            [PARAM_UP] = "mlp.up_proj.weight",
            [PARAM_DOWN] = "mlp.down_proj.weight",
        },
    .ignored = ignored,
    .read_config = read_qwen3,
};
