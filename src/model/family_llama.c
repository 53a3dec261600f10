/* Llama 1 to 3 and the many models that copy them (TinyLlama, SmolLM, stories). Source: arXiv
 * 2302.13971 and the config.json files of the released models. */
#include "model/family.h"

static void read_llama(struct json_reader *reader, struct json_problems *unsupported)
{
    model_family_refuse_flag(reader, "attention_bias", unsupported);
    model_family_refuse_flag(reader, "mlp_bias", unsupported);
}

static const char *const ignored[] = {"rotary_emb.inv_freq", NULL};

const struct model_family model_family_llama = {
    .architecture = "LlamaForCausalLM",
    .model_type = "llama",
    .qk_norm = false,
    .default_head_dim = 0,
    .default_max_positions = 2048,
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
            [PARAM_OUTPUT] = "self_attn.o_proj.weight",
            [PARAM_MLP_NORM] = "post_attention_layernorm.weight",
            [PARAM_GATE] = "mlp.gate_proj.weight",
            [PARAM_UP] = "mlp.up_proj.weight",
            [PARAM_DOWN] = "mlp.down_proj.weight",
        },
    .ignored = ignored,
    .read_config = read_llama,
};
