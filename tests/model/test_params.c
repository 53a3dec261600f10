/* Tables of parameters and adapters, and weights on the device. */
#include "model/network.h"
#include "support.h"

static void check_table(const struct param_table *table)
{
    int64_t end = 0;
    for (int64_t i = 0; i < table->count; i++) {
        const struct param *param = &table->items[i];
        assert_true(param->offset == end ||
                    (param->offset % 32 == 0 && param->offset - end < 32 && param->offset > end));
        end = param->offset + param->rows * param->cols;
        assert_int_equal(param_table_find(table, param->name), i);
    }
    assert_int_equal(table->elements, end);
    assert_int_equal(param_table_find(table, "nothing"), -1);
}

static const struct param *find(const struct model_config *config, const struct param_table *table,
                                enum param_role role, int64_t layer)
{
    return &table->items[param_index(config, role, layer)];
}

/* Sizes that are no multiples of 32, so that padding would break what has to be joined. */
static void test_table(void **state)
{
    (void)state;
    struct model_config config = {.family = &model_family_qwen3,
                                  .hidden_size = 10,
                                  .intermediate_size = 7,
                                  .layers = 3,
                                  .heads = 3,
                                  .kv_heads = 1,
                                  .head_dim = 2,
                                  .vocab_size = 11,
                                  .qk_norm = true};
    struct param_table table;
    ASSERT_OK(param_table_build(&config, &table, err));
    check_table(&table);
    assert_int_equal(table.count, 3 * 11 + 3);
    for (int64_t layer = 0; layer < 3; layer++) {
        const struct param *query = find(&config, &table, PARAM_QUERY, layer);
        const struct param *key = find(&config, &table, PARAM_KEY, layer);
        const struct param *value = find(&config, &table, PARAM_VALUE, layer);
        const struct param *gate = find(&config, &table, PARAM_GATE, layer);
        const struct param *up = find(&config, &table, PARAM_UP, layer);
        char name[PARAM_NAME_BYTES];
        snprintf(name, sizeof(name), "model.layers.%d.self_attn.q_proj.weight", (int)layer);
        assert_string_equal(query->name, name);
        assert_int_equal(query->offset % 32, 0);
        assert_int_equal(key->offset, query->offset + 60);
        assert_int_equal(value->offset, key->offset + 20);
        assert_int_equal(gate->offset % 32, 0);
        assert_int_equal(up->offset, gate->offset + 70);
        assert_true(query->decay && !query->vector);
        const struct param *norm = find(&config, &table, PARAM_QUERY_NORM, layer);
        assert_true(!norm->decay && norm->vector);
        assert_int_equal(norm->cols, 2);
    }
    assert_string_equal(find(&config, &table, PARAM_HEAD, 0)->name, "lm_head.weight");
    assert_string_equal(find(&config, &table, PARAM_FINAL_NORM, 0)->name, "model.norm.weight");
    param_table_fini(&table);
    config.tied_embeddings = true;
    config.qk_norm = false;
    config.family = &model_family_llama;
    ASSERT_OK(param_table_build(&config, &table, err));
    assert_int_equal(table.count, 3 * 9 + 2);
    assert_int_equal(param_index(&config, PARAM_HEAD, 0), -1);
    assert_int_equal(param_index(&config, PARAM_KEY_NORM, 1), -1);
    check_table(&table);
    param_table_fini(&table);
}

static void test_lora_table(void **state)
{
    (void)state;
    struct model_config config = {.family = &model_family_llama,
                                  .hidden_size = 10,
                                  .intermediate_size = 7,
                                  .layers = 2,
                                  .heads = 3,
                                  .kv_heads = 1,
                                  .head_dim = 2,
                                  .vocab_size = 11};
    for (int targets = 1; targets <= LORA_ALL; targets++) {
        struct lora_config lora = {.rank = 3, .alpha = 6.0, .targets = targets};
        struct param_table table;
        ASSERT_OK(lora_table_build(&config, &lora, &table, err));
        check_table(&table);
        assert_int_equal(table.count, 4 * __builtin_popcount((unsigned)targets));
        for (int64_t layer = 0; layer < 2; layer++) {
            for (int t = 0; t < LORA_TARGET_COUNT; t++) {
                int64_t a = lora_index_a(&lora, layer, t);
                int64_t b = lora_index_b(&lora, layer, t);
                if ((targets >> t & 1) == 0) {
                    assert_true(a == -1 && b == -1);
                    continue;
                }
                char name[PARAM_NAME_BYTES];
                snprintf(name, sizeof(name), "base_model.model.model.layers.%d.%s.%s.lora_B.weight",
                         (int)layer, t < 4 ? "self_attn" : "mlp", lora_target_name(t));
                assert_string_equal(table.items[b].name, name);
                assert_non_null(strstr(table.items[a].name, "lora_A"));
                assert_int_equal(table.items[a].rows, 3);
                assert_int_equal(table.items[b].cols, 3);
            }
        }
        param_table_fini(&table);
    }
    struct param_table table;
    struct lora_config lora = {.rank = 0, .alpha = 6.0, .targets = LORA_ALL};
    ASSERT_FAILS(lora_table_build(&config, &lora, &table, err), STATUS_RANGE, "rank 0");
    lora.rank = 257;
    ASSERT_FAILS(lora_table_build(&config, &lora, &table, err), STATUS_RANGE, "rank 257");
    lora.rank = 8;
    lora.alpha = NAN;
    ASSERT_FAILS(lora_table_build(&config, &lora, &table, err), STATUS_RANGE, "alpha");
    lora.alpha = 8.0;
    lora.targets = 0;
    ASSERT_FAILS(lora_table_build(&config, &lora, &table, err), STATUS_INVALID, "targets 0x0");
    lora.targets = 1 << 7;
    ASSERT_FAILS(lora_table_build(&config, &lora, &table, err), STATUS_INVALID, "targets 0x80");
    mem_fail_nth(1);
    lora.targets = LORA_ALL;
    ASSERT_FAILS(lora_table_build(&config, &lora, &table, err), STATUS_NO_MEMORY, "table");
}

static void test_weights(void **state)
{
    (void)state;
    struct device *device = open_device();
    struct model_config config;
    struct param_table table;
    ASSERT_OK(model_config_load(GOLDEN "llama", &config, err));
    ASSERT_OK(param_table_build(&config, &table, err));
    for (int dtype = DTYPE_F32; dtype <= DTYPE_BF16; dtype++) {
        struct weights weights;
        float values[40 * 16];
        float back[40 * 16];
        ASSERT_OK(weights_create(device, &table, (enum dtype)dtype, &weights, err));
        weights_get(&weights, 0, back);
        for (int i = 0; i < 640; i++) {
            assert_true(back[i] == 0.0f);
            values[i] = (float)i * 0.37f - 50.0f;
        }
        weights_set(&weights, 0, values);
        weights_get(&weights, 0, back);
        for (int i = 0; i < 640; i++) {
            float expected =
                dtype == DTYPE_F32 ? values[i] : number_from_bf16(number_to_bf16(values[i]));
            assert_true(back[i] == expected);
        }
        weights_get(&weights, 1, back); /* its neighbour is untouched */
        assert_true(back[0] == 0.0f);
        weights_fini(&weights);
        weights_fini(&weights); /* nothing left to free */
    }
    param_table_fini(&table);
    device_close(device);
}

/* A is spread evenly in +-1/sqrt(in), B is zero; a seed gives the same numbers again, another one
 * others. */
static void test_lora_init(void **state)
{
    (void)state;
    struct device *device = open_device();
    struct model_config config;
    struct param_table table;
    struct weights weights;
    struct lora_config lora = {.rank = 64, .alpha = 64.0, .targets = LORA_ALL};
    float first[64 * 32];
    float again[64 * 32];
    ASSERT_OK(model_config_load(GOLDEN "llama", &config, err));
    ASSERT_OK(lora_table_build(&config, &lora, &table, err));
    ASSERT_OK(weights_create(device, &table, DTYPE_F32, &weights, err));
    lora_init(&weights, 5);
    int64_t a = lora_index_a(&lora, 1, 0);
    weights_get(&weights, a, first);
    double sum = 0.0;
    double squares = 0.0;
    for (int i = 0; i < 64 * 16; i++) {
        assert_true(fabsf(first[i]) <= 0.25f);
        sum += (double)first[i];
        squares += (double)first[i] * (double)first[i];
    }
    ASSERT_CLOSE(sum / 1024.0, 0.0, 0.02);
    ASSERT_CLOSE(squares / 1024.0, 0.25 * 0.25 / 3.0, 0.002);
    weights_get(&weights, lora_index_b(&lora, 1, 0), again);
    for (int i = 0; i < 64 * 16; i++) {
        assert_true(again[i] == 0.0f);
    }
    lora_init(&weights, 6);
    weights_get(&weights, a, again);
    assert_memory_not_equal(first, again, 64 * 16 * sizeof(float));
    lora_init(&weights, 5);
    weights_get(&weights, a, again);
    assert_memory_equal(first, again, 64 * 16 * sizeof(float));
    weights_fini(&weights);
    param_table_fini(&table);
    device_close(device);
}

/* W + (alpha / r) B A, exactly in numbers that f32 holds exactly. */
static void test_merge(void **state)
{
    (void)state;
    struct device *device = open_device();
    struct golden golden;
    struct param_table table;
    struct weights adapter;
    struct lora_config lora = {.rank = 2, .alpha = 4.0, .targets = LORA_UP};
    float a[2 * 16];
    float b[20 * 2];
    float base[20 * 16];
    float merged[20 * 16];
    golden_open(device, "llama", DTYPE_F32, &golden);
    ASSERT_OK(lora_table_build(&golden.config, &lora, &table, err));
    ASSERT_OK(weights_create(device, &table, DTYPE_F32, &adapter, err));
    for (int i = 0; i < 32; i++) {
        a[i] = (float)(i % 7 - 3);
    }
    for (int i = 0; i < 40; i++) {
        b[i] = (float)(i % 5 - 2) * 0.5f;
    }
    for (int i = 0; i < 320; i++) {
        base[i] = (float)(i % 11) * 0.25f;
    }
    int64_t up = param_index(&golden.config, PARAM_UP, 1);
    weights_set(&adapter, lora_index_a(&lora, 1, 5), a);
    weights_set(&adapter, lora_index_b(&lora, 1, 5), b);
    weights_set(&golden.weights, up, base);
    ASSERT_OK(lora_merge(&golden.config, &lora, &adapter, &golden.weights, err));
    weights_get(&golden.weights, up, merged);
    for (int r = 0; r < 20; r++) {
        for (int c = 0; c < 16; c++) {
            float product = b[2 * r] * a[c] + b[2 * r + 1] * a[16 + c];
            assert_true(merged[r * 16 + c] == base[r * 16 + c] + 2.0f * product);
        }
    }
    lora.rank = 0;
    ASSERT_FAILS(lora_merge(&golden.config, &lora, &adapter, &golden.weights, err), STATUS_RANGE,
                 "rank");
    weights_fini(&adapter);
    param_table_fini(&table);
    golden_close(&golden);
    device_close(device);
}

static void test_families(void **state)
{
    (void)state;
    assert_ptr_equal(model_family_find("LlamaForCausalLM"), &model_family_llama);
    assert_null(model_family_find("MambaForCausalLM"));
    assert_true(
        model_family_ignores(&model_family_llama, "model.layers.3.self_attn.rotary_emb.inv_freq"));
    assert_false(model_family_ignores(&model_family_llama, "inv_freq"));
    assert_false(model_family_ignores(&model_family_llama, "model.norm.weight"));
    char list[24];
    model_family_list(list, sizeof(list)); /* cut, not overrun */
    assert_int_equal(strlen(list), 23);
}

/* Memory that cannot be counted is not handed out. */
static void test_carver(void **state)
{
    (void)state;
    char block[1024];
    struct carver carver = {block, 0};
    assert_ptr_equal(carve_bytes(&carver, 3, 4), block);
    assert_ptr_equal(carve_bytes(&carver, 1, 257), block + 256);
    assert_int_equal(carver.used_bytes, 768);
    assert_null(carve_bytes(&carver, 0, 4));
    assert_int_equal(carver.used_bytes, 768);
    assert_null(carve_bytes(&carver, INT64_MAX, 4));
    assert_int_equal(carver.used_bytes, INT64_MAX);
    assert_null(carve_bytes(&carver, 1, 1));
    assert_int_equal(carver.used_bytes, INT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),   cmocka_unit_test(test_lora_table),
        cmocka_unit_test(test_weights), cmocka_unit_test(test_lora_init),
        cmocka_unit_test(test_merge),   cmocka_unit_test(test_families),
        cmocka_unit_test(test_carver),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
