/* The program as it is used: what it prints, and how it ends. */
#include "analysis/command.h"

#include <math.h>

#include "base/mem.h"
#include "model/lora.h"
#include "model/model.h"

#define BASE TEST_SOURCE_DIR "/golden/model/llama"

static void test_usage(void **state)
{
    static const char *const commands[] = {"status", "show", "best", "export",
                                           "verify", "halt", "set"};
    struct fixture *f = *state;
    expect(f, "", 2, "usage: trex-tree");
    expect(f, "--help", 0, "verify");
    expect(f, "--version", 0, "trex-tree 0.");
    expect(f, "nonsense", 2, "no command \"nonsense\"");
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        char arguments[64];
        snprintf(arguments, sizeof(arguments), "%s --help", commands[i]);
        expect(f, arguments, 0, "example: trex-tree");
        expect(f, commands[i], 2, "argument");
        snprintf(arguments, sizeof(arguments), "%s run --wrong", commands[i]);
        expect(f, arguments, 2, "--help lists the options");
        snprintf(arguments, sizeof(arguments), "%s nowhere%s", commands[i], i == 3 ? " out" : "");
        expect(f, arguments, 2, "there is no run folder nowhere");
    }
}

static void test_status(void **state)
{
    struct fixture *f = *state;
    expect(f, "status run", 0, "stopped");
    expect(f, "status run", 0, "2 of 40 done, 1 open");
    expect(f, "status run", 0, "n0003-c1   running");
    expect(f, "status run", 0, "n0000-c0   0.5000 ± 0.0123");
    cJSON *object = parsed(f, "status run --json");
    assert_true(number_at(object, "rounds", "closed") == 2.0);
    assert_true(number_at(object, "rounds", "open") == 1.0);
    assert_true(number_at(object, "candidates", "running") == 1.0);
    assert_true(number_at(object, "baseline_validation", "value") == 0.5);
    assert_true(number_at(object, "candidates", "finished") > 0.0);
    assert_true(cJSON_GetObjectItem(object, "steps_done")->valuedouble ==
                2.0 * number_at(object, "candidates", "finished")); /* sample.h: 2 each */
    assert_string_equal(cJSON_GetObjectItem(object, "condition")->valuestring, "stopped");
    cJSON_Delete(object);
}

/* A search of this machine that runs, and one that was killed. */
static void test_condition(void **state)
{
    struct fixture *f = *state;
    struct store_lock *lock = NULL;
    char run[FILE_PATH_BYTES];
    char own[32];
    sample_path(f->folder, "run", run);
    assert_int_equal(store_folder_lock(run, &lock, NULL), STATUS_OK);
    snprintf(own, sizeof(own), "running (process %d", (int)getpid());
    expect(f, "status run", 0, own);
    store_folder_unlock(lock);
    pid_t child = fork();
    if (child == 0) {
        lock = NULL;
        store_folder_lock(run, &lock, NULL);
        raise(SIGKILL);
    }
    waitpid(child, NULL, 0);
    expect(f, "status run", 0, "killed");
    /* Of another machine: nothing is known but its beat. */
    char path[FILE_PATH_BYTES];
    const char *other =
        "{\"host\":\"far\",\"boot\":\"b\",\"pid\":3,\"job\":\"12\",\"since\":\"x\"}";
    sample_path(run, "lock/99", path);
    sample_write(path, other, strlen(other));
    expect(f, "status run", 0, "running or killed");
    expect(f, "status run", 0, "(process 3 on far, Slurm job 12, since x), last sign of life");
    assert_int_equal(unlink(path), 0);
}

static void test_best(void **state)
{
    struct fixture *f = *state;
    cJSON *object = parsed(f, "best run --json");
    struct search search;
    int32_t node = 0;
    int32_t candidate = 0;
    sample_search(&search, LAST);
    assert_true(search_best(&search, &node, &candidate));
    assert_true(cJSON_GetObjectItem(object, "node")->valuedouble == node);
    double value = search.nodes[node].candidates[candidate].validation.value;
    assert_true(fabs(number_at(object, "validation", "value") - value) < 1e-12);
    assert_true(number_at(object, "config", "learning_rate") == 0.001);
    assert_true(cJSON_IsNull(cJSON_GetObjectItem(object, "test")));
    assert_true(number_at(cJSON_GetObjectItem(object, "baseline"), "validation",
                          "standard_error") == 0.0123);
    assert_string_equal(cJSON_GetObjectItem(object, "metric")->valuestring, "accuracy");
    cJSON_Delete(object);
    search_fini(&search);
    expect(f, "best run", 0, "baseline");
}

static void test_show(void **state)
{
    struct fixture *f = *state;
    expect(f, "show run", 0, "n0000");
    expect(f, "show run", 0, "├─ n0001");
    expect(f, "show run", 0, "│  └─ n0003");
    expect(f, "show run", 0, "└─ n0002");
    expect(f, "show run", 0, "★ best");
    expect(f, "show run n0001", 0, "goal of 1: ä");
    expect(f, "show run n0001", 0, "STATUS_DIVERGED");
    expect(f, "show run n0001-c1", 0, "last words");
    expect(f, "show run n0001", 0, "p⏎1");
    expect(f, "show run n0001", 0, "more epochs help");
    expect(f, "show run n0077", 2, "nodes are n0000 to n0003");
    expect(f, "show run ../x", 2, "has no node");
    assert_null(strstr(buffer_text(&f->out), "\033")); /* no colours in a pipe */
}

/* A chain of nodes deeper than any screen. */
static void test_show_deep_tree(void **state)
{
    enum { DEPTH = 200 };
    struct fixture *f = *state;
    struct search search;
    char run[FILE_PATH_BYTES];
    sample_search(&search, 2 + DEPTH * SAMPLE_EVENTS_A_NODE);
    for (int32_t i = 1; i < search.tree.count; i++) {
        search.tree.nodes[i].parent = i - 1;
    }
    assert_int_equal(tree_rebuild(&search.tree, NULL), STATUS_OK);
    sample_path(f->folder, "deep", run);
    assert_int_equal(file_make_folders(run, NULL), STATUS_OK);
    assert_int_equal(store_run_save(run, &search, NULL), STATUS_OK);
    expect(f, "show deep", 0, "n0199");
    search_fini(&search);
}

/* What a model wrote must not reach the terminal as commands to it. */
static void test_control_characters(void **state)
{
    struct fixture *f = *state;
    struct search search;
    char run[FILE_PATH_BYTES];
    sample_search(&search, 20);
    struct search_case *one = &search.nodes[0].candidates[0].cases[0];
    one->output = arena_strdup(&search.arena, "a\033[2Jb\rc\xC2\x9B"
                                              "d\x7F");
    sample_path(f->folder, "hostile", run);
    assert_int_equal(file_make_folders(run, NULL), STATUS_OK);
    assert_int_equal(store_run_save(run, &search, NULL), STATUS_OK);
    expect(f, "show hostile n0000", 0, "a·[2Jb·c·d·");
    assert_null(strchr(buffer_text(&f->out), '\033'));
    search_fini(&search);
}

static void test_verify(void **state)
{
    struct fixture *f = *state;
    char path[FILE_PATH_BYTES];
    expect(f, "verify run", 1, "n0002-c0.h5: the tree says");
    expect(f, "verify run", 1, "The search itself can be read");
    sample_path(f->folder, "run/run.h5", path);
    sample_write(path, "damaged", 7);
    sample_path(f->folder, "run/journal.jsonl", path);
    sample_write(path, "damaged\n", 8);
    expect(f, "verify run", 1, "The search cannot be read");
    expect(f, "status run", 1, "run.h5: not an HDF5 file");
    expect(f, "status run", 1, "journal.jsonl:1: not an event");
    sample_path(f->folder, "empty", path);
    assert_int_equal(file_make_folders(path, NULL), STATUS_OK);
    expect(f, "status empty", 2, "empty holds no search");
}

static void test_best_of_nothing(void **state)
{
    struct fixture *f = *state;
    struct search search;
    char run[FILE_PATH_BYTES];
    sample_search(&search, 2);
    sample_path(f->folder, "young", run);
    assert_int_equal(file_make_folders(run, NULL), STATUS_OK);
    assert_int_equal(store_run_save(run, &search, NULL), STATUS_OK);
    expect(f, "best young", 2, "no candidate has finished yet");
    expect(f, "status young", 0, "none yet");
    expect(f, "show young", 0, "no node yet");
    expect(f, "export young out", 2, "no candidate has finished yet");
    expect(f, "verify young", 0, "nothing is damaged");
    search_fini(&search);
}

/* ---- export ---- */

static enum status give_parameter(void *context, int64_t index, void *to, struct error *err)
{
    (void)err;
    weights_get(context, index, to);
    return STATUS_OK;
}

/* Writes weights as the candidate n0002-c0 of the run, in f32. */
static void write_weights(struct fixture *f, struct weights *weights, const char *hash,
                          const char *lora)
{
    struct store_array *arrays = calloc((size_t)weights->table->count, sizeof(*arrays));
    const struct store_attribute attributes[] = {{"base_hash", hash}, {"lora", lora}};
    char path[FILE_PATH_BYTES];
    struct error err = {0};
    for (int64_t i = 0; i < weights->table->count; i++) {
        const struct param *param = &weights->table->items[i];
        snprintf(arrays[i].name, sizeof(arrays[i].name), "%s", param->name);
        arrays[i].type = STORE_F32;
        arrays[i].rows = param->rows;
        arrays[i].cols = param->cols;
        arrays[i].vector = param->vector;
    }
    sample_path(f->folder, "run/weights/n0002-c0.h5", path);
    if (store_arrays_write(path, lora != NULL ? "adapter" : "weights", arrays,
                           weights->table->count, attributes, lora != NULL ? 2 : 1, give_parameter,
                           weights, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    free(arrays);
}

static struct model *load(struct device *device, const char *folder)
{
    struct model *model = NULL;
    struct error err = {0};
    if (model_load(folder, device, DTYPE_F32, &model, &err) != STATUS_OK) {
        fail_msg("%s", err.message);
    }
    return model;
}

static void assert_same_weights(const struct weights *a, const struct weights *b)
{
    assert_int_equal(a->table->count, b->table->count);
    for (int64_t i = 0; i < a->table->count; i++) {
        size_t count = (size_t)(a->table->items[i].rows * a->table->items[i].cols);
        float *left = malloc(count * sizeof(float));
        float *right = malloc(count * sizeof(float));
        weights_get(a, i, left);
        weights_get(b, i, right);
        assert_memory_equal(left, right, count * sizeof(float));
        free(left);
        free(right);
    }
}

static struct device *open_device(void)
{
    const struct device_options options = {.threads = 1};
    struct device *device = NULL;
    assert_int_equal(device_open_cpu(&options, &device, NULL), STATUS_OK);
    return device;
}

static void test_export_full(void **state)
{
    struct fixture *f = *state;
    struct device *device = open_device();
    struct model *base = load(device, BASE);
    char out[FILE_PATH_BYTES];
    model_init_random(&base->weights, 5); /* as if it had learned */
    write_weights(f, &base->weights, base->hash, NULL);
    expect(f, "export run n0002-c0 out --base '" BASE "'", 0, "n0002-c0 (full) is in out");
    sample_path(f->folder, "out", out);
    struct model *exported = load(device, out);
    assert_same_weights(&base->weights, &exported->weights);
    model_destroy(exported);

    expect(f, "export run n0002-c0 out2 --format adapter --base '" BASE "'", 2,
           "allowed is --format full");
    expect(f, "export run n0002-c0 out2 --format zip", 2, "full, merged or adapter");
    expect(f, "export run n0001-c0 out2", 2, "those of n0002-c0 were");
    expect(f, "export run n0009-c0 out2", 2, "has no candidate");
    expect(f, "export run n0002-c0 out2 --base /nowhere", 2, "--base DIR");
    expect(f, "export run n0002-c0 out2 --base '" TEST_SOURCE_DIR "/golden/model/qwen3'", 2,
           "give that one");
    expect(f, "export run n0000-c0 out2 --base '" BASE "'", 2,
           "began with a base model that has aa");
    expect(f, "verify run", 0, "nothing is damaged");
    model_destroy(base);
    device_close(device);
}

static void test_export_adapter(void **state)
{
    struct fixture *f = *state;
    const struct lora_config lora = {.rank = 2, .alpha = 4.0, .targets = LORA_ATTENTION};
    struct device *device = open_device();
    struct model *base = load(device, BASE);
    struct param_table table;
    struct weights adapter;
    char out[FILE_PATH_BYTES];
    char text[64];
    assert_int_equal(lora_table_build(&base->config, &lora, &table, NULL), STATUS_OK);
    assert_int_equal(weights_create(device, &table, DTYPE_F32, &adapter, NULL), STATUS_OK);
    model_init_random(&adapter, 6);
    snprintf(text, sizeof(text), "{\"rank\":2,\"alpha\":4,\"targets\":%d}", lora.targets);
    write_weights(f, &adapter, base->hash, text);

    expect(f, "export run n0002-c0 merged --base '" BASE "'", 0, "(merged)");
    assert_int_equal(lora_merge(&base->config, &lora, &adapter, &base->weights, NULL), STATUS_OK);
    sample_path(f->folder, "merged", out);
    struct model *merged = load(device, out);
    assert_same_weights(&base->weights, &merged->weights);
    model_destroy(merged);

    expect(f, "export run n0002-c0 adapter --format adapter --base '" BASE "'", 0, "(adapter)");
    sample_path(f->folder, "adapter/adapter_config.json", out);
    assert_true(file_exists(out));
    expect(f, "export run n0002-c0 x --format full --base '" BASE "'", 2,
           "--format merged and adapter");

    /* An adapter that says nonsense of itself. */
    write_weights(f, &adapter, base->hash, "{\"rank\":100000}");
    expect(f, "export run n0002-c0 x --base '" BASE "'", 2, "/lora/rank");
    write_weights(f, &adapter, base->hash, "{\"rank\":3,\"alpha\":4,\"targets\":1}");
    expect(f, "export run n0002-c0 x --base '" BASE "'", 1, "2 x");
    weights_fini(&adapter);
    param_table_fini(&table);
    model_destroy(base);
    device_close(device);
}

int main(void)
{
#define WITH_RUN(test) cmocka_unit_test_setup_teardown(test, make_fixture, remove_fixture)
    const struct CMUnitTest tests[] = {
        WITH_RUN(test_usage),
        WITH_RUN(test_status),
        WITH_RUN(test_condition),
        WITH_RUN(test_best),
        WITH_RUN(test_show),
        WITH_RUN(test_show_deep_tree),
        WITH_RUN(test_control_characters),
        WITH_RUN(test_verify),
        WITH_RUN(test_best_of_nothing),
        WITH_RUN(test_export_full),
        WITH_RUN(test_export_adapter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
