/* config.json: what is read of the golden models, and every mistake by its key. */
#include "support.h"

static void test_golden_configs(void **state)
{
    (void)state;
    struct model_config config;
    ASSERT_OK(model_config_load(GOLDEN "llama", &config, err));
    assert_string_equal(config.family->architecture, "LlamaForCausalLM");
    assert_int_equal(config.hidden_size, 16);
    assert_int_equal(config.intermediate_size, 20);
    assert_int_equal(config.layers, 2);
    assert_int_equal(config.heads, 4);
    assert_int_equal(config.kv_heads, 2);
    assert_int_equal(config.head_dim, 4);
    assert_int_equal(config.vocab_size, 40);
    assert_int_equal(config.max_positions, 64);
    assert_int_equal(config.eos_count, 1);
    assert_int_equal(config.stored_dtype, DTYPE_F32);
    ASSERT_CLOSE(config.norm_epsilon, 1e-5, 0.0);
    assert_false(config.tied_embeddings);
    assert_false(config.qk_norm);
    assert_int_equal(config.rope_scaling, ROPE_SCALING_NONE);

    ASSERT_OK(model_config_load(GOLDEN "llama_tied", &config, err));
    assert_true(config.tied_embeddings);
    assert_int_equal(config.stored_dtype, DTYPE_BF16);
    assert_int_equal(config.eos_count, 2);
    assert_int_equal(config.eos[1], 3);
    assert_int_equal(config.rope_scaling, ROPE_SCALING_LLAMA3);
    ASSERT_CLOSE(config.rope_theta, 500000.0, 0.0);
    ASSERT_CLOSE(config.rope_factor, 8.0, 0.0);
    assert_int_equal(config.rope_original_positions, 16);

    ASSERT_OK(model_config_load(GOLDEN "qwen3", &config, err));
    assert_true(config.qk_norm);
    assert_int_equal(config.head_dim, 6);
    assert_int_equal(config.rope_scaling, ROPE_SCALING_LINEAR);
}

static char folder[FILE_PATH_BYTES];

static void write_text(const char *name, const char *text)
{
    char path[FILE_PATH_BYTES];
    ASSERT_OK(file_join(folder, name, path, err));
    ASSERT_OK(file_write(path, text, strlen(text), err));
}

#define HEAD "{\"architectures\":[\"LlamaForCausalLM\"],"
#define SIZES                                                                                      \
    "\"hidden_size\":8,\"intermediate_size\":12,\"num_hidden_layers\":1,\"num_attention_heads\":"  \
    "2,"                                                                                           \
    "\"vocab_size\":10"

/* Older files: torch_dtype, rope_theta and rope_scaling at the top, "type" for "rope_type", lists
 * of eos ids, more of them in generation_config.json; and the defaults. */
static void test_older_forms(void **state)
{
    (void)state;
    struct model_config config;
    write_text("config.json",
               HEAD SIZES ",\"torch_dtype\":\"bfloat16\",\"rope_theta\":5000,\"eos_token_id\":3,"
                          "\"rope_scaling\":{\"type\":\"linear\",\"factor\":4.0}}");
    write_text("generation_config.json", "{\"eos_token_id\":[3,4,5],\"temperature\":0.6}");
    ASSERT_OK(model_config_load(folder, &config, err));
    assert_int_equal(config.eos_count, 3);
    assert_int_equal(config.eos[2], 5);
    assert_int_equal(config.stored_dtype, DTYPE_BF16);
    assert_int_equal(config.rope_scaling, ROPE_SCALING_LINEAR);
    ASSERT_CLOSE(config.rope_theta, 5000.0, 0.0);
    ASSERT_CLOSE(config.rope_factor, 4.0, 0.0);
    assert_int_equal(config.kv_heads, 2);
    assert_int_equal(config.head_dim, 4);
    assert_int_equal(config.max_positions, 2048);
    assert_false(config.tied_embeddings);

    write_text("config.json",
               HEAD SIZES ",\"rope_scaling\":null,\"eos_token_id\":null,\"head_dim\":6}");
    write_text("generation_config.json", "{}");
    ASSERT_OK(model_config_load(folder, &config, err));
    assert_int_equal(config.eos_count, 0);
    assert_int_equal(config.head_dim, 6);
    assert_int_equal(config.stored_dtype, DTYPE_F32);

    write_text("config.json",
               "{\"architectures\":[\"Qwen3ForCausalLM\"]," SIZES ",\"use_sliding_window\":false,"
               "\"layer_types\":[\"full_attention\"]}");
    ASSERT_OK(model_config_load(folder, &config, err));
    assert_int_equal(config.head_dim, 128);
    assert_int_equal(config.max_positions, 32768);
}

static const struct {
    const char *text;
    enum status status;
    const char *message;
} bad[] = {
    {"", STATUS_FORMAT, "config.json"},
    {"{", STATUS_FORMAT, "config.json:1"},
    {"[]", STATUS_UNSUPPORTED, "/architectures"},
    {"{\"architectures\":[\"GPT2LMHeadModel\"]}", STATUS_UNSUPPORTED,
     "found \"GPT2LMHeadModel\", supported are LlamaForCausalLM, Qwen3ForCausalLM"},
    {"{\"architectures\":[]}", STATUS_UNSUPPORTED, "found nothing"},
    {"{\"architectures\":[7]}", STATUS_UNSUPPORTED, "found nothing"},
    {HEAD "\"hidden_size\":8}", STATUS_INVALID, "/vocab_size: missing"},
    {HEAD SIZES ",\"num_key_value_heads\":3}", STATUS_INVALID, "/num_key_value_heads"},
    {HEAD SIZES ",\"num_key_value_heads\":0}", STATUS_INVALID, "found 0"},
    {HEAD SIZES ",\"head_dim\":3}", STATUS_INVALID, "/head_dim"},
    {HEAD SIZES ",\"head_dim\":1e9}", STATUS_INVALID, "/head_dim"},
    {HEAD SIZES ",\"rms_norm_eps\":-1}", STATUS_INVALID, "/rms_norm_eps"},
    {HEAD SIZES ",\"eos_token_id\":10}", STATUS_INVALID,
     "/eos_token_id: found 10, allowed are token ids from 0 to 9"},
    {HEAD SIZES ",\"eos_token_id\":\"x\"}", STATUS_INVALID, "/eos_token_id"},
    {HEAD SIZES ",\"eos_token_id\":[0,1,2,3,4,5,6,7,8]}", STATUS_INVALID, "more than 8"},
    {HEAD SIZES ",\"eos_token_id\":1.5}", STATUS_INVALID, "/eos_token_id"},
    {HEAD SIZES ",\"attention_bias\":true}", STATUS_UNSUPPORTED, "/attention_bias"},
    {HEAD SIZES ",\"mlp_bias\":true}", STATUS_UNSUPPORTED, "/mlp_bias"},
    {HEAD SIZES ",\"hidden_act\":\"gelu\"}", STATUS_UNSUPPORTED, "/hidden_act"},
    {HEAD SIZES ",\"quantization_config\":{}}", STATUS_UNSUPPORTED, "/quantization_config"},
    {HEAD SIZES ",\"torch_dtype\":\"int8\"}", STATUS_UNSUPPORTED, "int8"},
    {HEAD SIZES ",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":2}}", STATUS_UNSUPPORTED,
     "yarn"},
    {HEAD SIZES ",\"rope_scaling\":{\"type\":\"linear\"}}", STATUS_INVALID,
     "/rope_scaling/factor: missing"},
    {HEAD SIZES ",\"rope_parameters\":{\"rope_type\":\"llama3\",\"factor\":2}}", STATUS_INVALID,
     "/rope_parameters/original_max_position_embeddings: missing"},
    {HEAD SIZES ",\"rope_parameters\":{\"rope_type\":\"llama3\",\"factor\":2,\"low_freq_factor\":4,"
                "\"original_max_position_embeddings\":64}}",
     STATUS_INVALID, "/rope_parameters/high_freq_factor"},
    {HEAD SIZES ",\"rope_parameters\":[]}", STATUS_INVALID, "/rope_parameters"},
    {"{\"architectures\":[\"Qwen3ForCausalLM\"]," SIZES ",\"use_sliding_window\":true}",
     STATUS_UNSUPPORTED, "/use_sliding_window"},
    {"{\"architectures\":[\"Qwen3ForCausalLM\"]," SIZES ",\"layer_types\":[\"full_attention\","
     "\"sliding_attention\"]}",
     STATUS_UNSUPPORTED, "sliding_attention"},
    {"{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":9,\"intermediate_size\":12,\"num_"
     "hidden_layers\":1,"
     "\"num_attention_heads\":2,\"vocab_size\":10}",
     STATUS_INVALID, "/hidden_size: found 9"},
};

static void test_bad(void **state)
{
    (void)state;
    struct model_config config;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        write_text("config.json", bad[i].text);
        ASSERT_FAILS(model_config_load(folder, &config, err), bad[i].status, bad[i].message);
    }
    /* All mistakes at once. */
    write_text("config.json", HEAD "\"hidden_size\":\"wide\",\"vocab_size\":-1}");
    ASSERT_FAILS(model_config_load(folder, &config, err), STATUS_INVALID, "/hidden_size");
    ASSERT_FAILS(model_config_load(folder, &config, err), STATUS_INVALID, "/vocab_size");
    ASSERT_FAILS(model_config_load(folder, &config, err), STATUS_INVALID, "/num_hidden_layers");
    write_text("config.json", HEAD SIZES "}");
    write_text("generation_config.json", "{\"eos_token_id\":99}");
    ASSERT_FAILS(model_config_load(folder, &config, err), STATUS_INVALID, "generation_config.json");
    write_text("generation_config.json", "nonsense");
    ASSERT_FAILS(model_config_load(folder, &config, err), STATUS_FORMAT, "generation_config.json");
    ASSERT_FAILS(model_config_load("/nowhere", &config, err), STATUS_NOT_FOUND,
                 "/nowhere/config.json");
}

/* Numbers of parameters of released models, and operations of a model one can count by hand. */
static void test_counts(void **state)
{
    (void)state;
    struct model_config config = {.family = &model_family_qwen3,
                                  .hidden_size = 1024,
                                  .intermediate_size = 3072,
                                  .layers = 28,
                                  .heads = 16,
                                  .kv_heads = 8,
                                  .head_dim = 128,
                                  .vocab_size = 151936,
                                  .tied_embeddings = true,
                                  .qk_norm = true};
    assert_int_equal(model_config_parameters(&config), 596049920); /* Qwen3-0.6B */
    ASSERT_OK(model_config_load(GOLDEN "llama", &config, err));
    struct param_table table;
    ASSERT_OK(param_table_build(&config, &table, err));
    int64_t sum = 0;
    for (int64_t i = 0; i < table.count; i++) {
        sum += table.items[i].rows * table.items[i].cols;
    }
    assert_int_equal(model_config_parameters(&config), sum);
    param_table_fini(&table);
    /* Matrices: 2 layers of 16*16*2 + 2*8*16 + 3*16*20, head 40*16; attention 6 * 2 * 16 * T. */
    double matrices = 2.0 * (768.0 + 960.0) + 640.0;
    ASSERT_CLOSE(model_config_flops_per_token(&config, 10, false), 6.0 * matrices + 1920.0, 0.0);
    ASSERT_CLOSE(model_config_flops_per_token(&config, 10, true), 4.0 * matrices + 1920.0, 0.0);
}

int main(void)
{
    char name[] = "/tmp/trex-test-config-XXXXXX";
    if (mkdtemp(name) == NULL) {
        return 1;
    }
    snprintf(folder, sizeof(folder), "%s", name);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_configs),
        cmocka_unit_test(test_older_forms),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_counts),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    char path[FILE_PATH_BYTES];
    snprintf(path, sizeof(path), "%s/config.json", name);
    unlink(path);
    snprintf(path, sizeof(path), "%s/generation_config.json", name);
    unlink(path);
    rmdir(name);
    return failed;
}
